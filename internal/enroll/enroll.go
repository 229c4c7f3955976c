// Package enroll is how a PC gets its identity and keeps it.
//
// The console has a certificate authority of its own (CA): a root that agents
// trust and an issuing certificate below it. IT makes a token there; it carries
// the console's addresses, the hash of the root's public key (the pin) and a
// secret. On the PC, Enroll connects, checks that the other end shows a chain to
// the pinned root, only then sends the secret with a request for a certificate,
// and keeps what it gets in a folder. From then on both sides know each other by
// certificate (mutual TLS). Certificates of agents live 30 days and are renewed,
// with a new key each time, from two thirds of their life.
//
// The key lies in the identity file: readable by its owner only, on Windows
// sealed by DPAPI for this machine as well.
//
// What goes wrong is an *Error with a stable code, see codes.go and
// docs/errors.md.
package enroll

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Lifetimes of certificates.
const (
	rootLife    = 10 * 365 * 24 * time.Hour
	issuingLife = 2 * 365 * 24 * time.Hour
	serverLife  = 90 * 24 * time.Hour
	ClientLife  = 30 * 24 * time.Hour
	// issuingSpare is when the issuing certificate is replaced: what it signs must
	// not outlive it.
	issuingSpare = serverLife + ClientLife
	// backdate is how far a PC's clock may lag without the console's certificates
	// being "not yet valid" for it. A lagging clock is told at each contact; it
	// should not also keep alerts from being delivered. Two days cover a clock that
	// stands in another zone and on yesterday's date.
	backdate = 48 * time.Hour
)

// ClockTolerance is how far the clocks of agent and console may differ before it
// is worth telling.
const ClockTolerance = 10 * time.Minute

// agentURI is the name in an agent's certificate: "urn:sekisho:agent:ID".
const agentURI = "urn:sekisho:agent:"

// agentIDOf is the agent that a certificate was issued to, "" if it is none of ours.
func agentIDOf(c *x509.Certificate) string {
	for _, u := range c.URIs {
		if id, ok := strings.CutPrefix(u.String(), agentURI); ok {
			return id
		}
	}
	return ""
}

func agentURL(id string) (*url.URL, error) {
	u, err := url.Parse(agentURI + id)
	if err != nil || u.String() != agentURI+id {
		return nil, fmt.Errorf("agent id %.40q: not fit for a certificate", id)
	}
	return u, nil
}

// PinOf is the hash of a certificate's public key (SHA-256 of its SPKI), which
// stays the same when the certificate is renewed with the same key.
func PinOf(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// duration is d in words of a language, rough: "3 hours".
func duration(d time.Duration, lang string) string {
	if d < 0 {
		d = -d
	}
	type unit struct {
		size   time.Duration
		ja, en string
	}
	for _, u := range []unit{{24 * time.Hour, "日", "day"}, {time.Hour, "時間", "hour"}, {time.Minute, "分", "minute"}, {time.Second, "秒", "second"}} {
		if n := int64((d + u.size/2) / u.size); d >= 2*u.size || u.size == time.Second || d >= u.size && d%u.size < u.size/10 {
			if lang == "ja" {
				return fmt.Sprintf("%d%s", n, u.ja)
			}
			s := "s"
			if n == 1 {
				s = ""
			}
			return fmt.Sprintf("%d %s%s", n, u.en, s)
		}
	}
	return d.String()
}
