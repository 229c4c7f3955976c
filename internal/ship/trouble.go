package ship

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"sekisho/internal/wire"
)

// The stable codes of trouble between agent and console; codes.go has their texts in Japanese and English.
const (
	CodeSetup       = "SHP-00" // shipping cannot begin: told by the agent, see New
	CodeUnreachable = "SHP-01" // no answer: cable, route, firewall, console off
	CodeName        = "SHP-02" // the console's name is not known to DNS
	CodeRefused     = "SHP-03" // the machine is there, the console does not listen
	CodeUnknownCA   = "SHP-04" // the console's certificate comes from an authority that is not ours: another console, or TLS inspection
	CodePin         = "SHP-05" // the console's key is not the pinned one
	CodeExpired     = "SHP-06" // the console's certificate has expired
	CodeClock       = "SHP-07" // this PC's clock and the console's differ
	CodeWrongName   = "SHP-08" // the console's certificate is for another name
	CodeNotTLS      = "SHP-09" // what answers does not speak TLS 1.3 as a console does
	CodeOwnCert     = "SHP-10" // the console does not accept this PC's certificate
	CodeRevoked     = "SHP-11" // the console knows this PC and will not have it, or does not know it
	CodeBusy        = "SHP-12" // the console asks to wait
	CodeServer      = "SHP-13" // the console has a fault
	CodeAnswer      = "SHP-14" // what answers is not a console
	CodeRows        = "SHP-15" // the console refuses what is sent
	CodeSpool       = "SHP-16" // the queue on this PC cannot be read or written
)

// ErrPin is what a client's check of a pinned key has to wrap to be told as CodePin.
var ErrPin = errors.New("the console's key is not the pinned one")

// Trouble is why a batch did not arrive.
type Trouble struct {
	Code       string
	Text       string        // in plain English
	RetryAfter time.Duration // the console's wish; 0: none

	elsewhere bool // another address may work
	refusal   bool // the content was refused, not the sender
	index     *int // of the row at fault, if the console told
}

// Diagnose says what is behind an error of an HTTP client. now is this PC's clock.
func Diagnose(err error, now time.Time) Trouble {
	t := Trouble{Code: CodeUnreachable, elsewhere: true}
	var (
		dns      *net.DNSError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		hostname x509.HostnameError
		record   tls.RecordHeaderError
		op       *net.OpError
		timeout  net.Error
	)
	switch {
	case errors.Is(err, ErrPin):
		t.Code, t.Text = CodePin, "the console's key is not the one this PC was enrolled with"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
		t.Code = CodeClock
		t.Text = fmt.Sprintf("the console's certificate is valid from %s, but this PC's clock says %s: the clock is probably behind",
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		t.Code = CodeExpired
		t.Text = fmt.Sprintf("the console's certificate expired on %s, or this PC's clock, which says %s, is ahead",
			invalid.Cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case errors.As(err, &hostname):
		t.Code, t.Text = CodeWrongName, "the console's certificate is not for the name "+quoted(hostname.Host)
	case errors.As(err, &unknown), errors.As(err, &invalid):
		t.Code, t.Text = CodeUnknownCA, "the console's certificate is not from the authority this PC trusts: another console, or a proxy that opens TLS"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		t.Code, t.Text = CodeNotTLS, "what answers at this address does not speak TLS"
	case errors.As(err, &op) && op.Op == "remote error":
		t = remoteAlert(op.Err.Error())
	case errors.As(err, &dns):
		t.Code, t.Text = CodeName, "the name "+quoted(dns.Name)+" cannot be resolved"
		if !dns.IsNotFound {
			t.Text += " now"
		}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaConnRefused):
		t.Code, t.Text = CodeRefused, "the machine answers, but no console listens there"
	case errors.Is(err, context.Canceled):
		t.Text = "given up because the agent stops"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		t.Text = "no answer in time"
	default:
		t.Text = "no connection: " + plain(err.Error())
	}
	return t
}

// wsaConnRefused is Windows's WSAECONNREFUSED. The number means nothing on other systems.
const wsaConnRefused = syscall.Errno(10061)

// remoteAlert names a TLS alert that the console has sent. crypto/tls gives these as text only.
func remoteAlert(text string) Trouble {
	switch {
	case strings.Contains(text, "expired certificate"):
		return Trouble{Code: CodeOwnCert, Text: "the console says that this PC's certificate has expired: renew or enrol again, and see that both clocks are right"}
	case strings.Contains(text, "certificate"), strings.Contains(text, "unknown authority"), strings.Contains(text, "access denied"):
		return Trouble{Code: CodeOwnCert, Text: "the console does not accept this PC's certificate (" + plain(text) + "): enrol again"}
	}
	return Trouble{Code: CodeNotTLS, Text: "the console ends the connection (" + plain(text) + ")", elsewhere: true}
}

// answered says what an answer other than 200 means.
func answered(resp *http.Response, body []byte, now time.Time) *Trouble {
	var e wire.Error
	told := json.Unmarshal(body, &e) == nil && e.Code != ""
	t := &Trouble{RetryAfter: max(retryAfter(resp.Header, now), seconds(e.RetryAfter))}
	switch code := resp.StatusCode; code {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		t.Code, t.refusal, t.index = CodeRows, true, e.Index
	case http.StatusUnauthorized:
		t.Code = CodeOwnCert
	case http.StatusForbidden:
		t.Code = CodeRevoked
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		t.Code = CodeBusy
	default:
		t.Code, t.elsewhere = CodeAnswer, true
		if code >= 500 {
			t.Code = CodeServer
		}
	}
	t.Text = fmt.Sprintf("the console answered %d", resp.StatusCode)
	if told {
		t.Text += fmt.Sprintf(" (%s: %s)", plain(e.Code), plain(e.EN))
	}
	return t
}

func clockText(offset time.Duration) string {
	word := "behind"
	if offset < 0 {
		word = "ahead of"
	}
	return fmt.Sprintf("this PC's clock is %s %s the console's", offset.Abs().Round(time.Second), word)
}

// plain makes text from outside fit for a status line: no control characters, no marks that turn the text round, a bounded length.
func plain(s string) string {
	const most = 300
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0xfeff:
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func quoted(s string) string { return fmt.Sprintf("%q", plain(s)) }
