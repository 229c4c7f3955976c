package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/wire"
)

// requestTimeout bounds one request to one address, connecting included.
const requestTimeout = 30 * time.Second

// Enrolled is what came of an enrolment.
type Enrolled struct {
	*Identity
	Known       bool          // the PC was enrolled before and keeps its history
	ClockOffset time.Duration // console's clock minus ours; see ClockWarning
	Console     string        // URL that answered
}

// Enroll makes this PC an agent of the console that made the token, and keeps
// the identity in dir, which is made if need be. An identity that is there
// already is replaced once the new one is complete. Errors are of type *Error.
func Enroll(ctx context.Context, token string, host endpoint.Identity, dir string) (*Enrolled, error) {
	t, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	if err := PrivateDir(dir); err != nil {
		return nil, newError(CodeStore, err)
	}
	key, err := pendingKey(dir, t.ID)
	if err != nil {
		return nil, newError(CodeStore, err)
	}
	csr, err := newCSR(key)
	if err != nil {
		return nil, newError(CodeStore, err)
	}
	req := wire.EnrollRequest{TokenID: t.ID, Secret: t.SecretText(), CSR: csr, Host: host}

	var first *Error
	for _, addr := range t.Addresses {
		reply, offset, err := enrollAt(ctx, t, addr, req)
		if err != nil {
			// What the console itself says counts more than an address that cannot be reached.
			if first == nil || unreached(first) && !unreached(err) {
				first = err
			}
			if !unreached(err) || ctx.Err() != nil {
				break
			}
			continue
		}
		id, err2 := keep(dir, t, key, reply)
		if err2 != nil {
			return nil, err2
		}
		return &Enrolled{id, reply.Known, offset, "https://" + addr}, nil
	}
	return nil, first
}

// unreached reports whether another address of the same console may do better.
func unreached(e *Error) bool {
	return slices.Contains([]string{CodeName, CodeRefused, CodeTimeout, CodeAddress, CodeTLS, CodeAnswer, CodePin}, e.Code)
}

func pendingKey(dir, tokenID string) (*ecdsa.PrivateKey, error) {
	file := filepath.Join(dir, pendingFile)
	var p pending
	if err := readJSON(file, &p); err == nil && p.TokenID == tokenID {
		if der, err := unseal(p.Sealing, p.Key); err == nil {
			if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
				if key, ok := k.(*ecdsa.PrivateKey); ok {
					return key, nil
				}
			}
		}
	}
	key, sealed, err := newKey()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(pending{tokenID, sealing, sealed})
	if err != nil {
		return nil, err
	}
	return key, writeFile(file, b)
}

// newKey makes a key and seals it for storing.
func newKey() (key *ecdsa.PrivateKey, sealed []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	sealed, err = sealKey(key)
	return key, sealed, err
}

func sealKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return seal(der)
}

func newCSR(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return "", fmt.Errorf("make certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

func enrollAt(ctx context.Context, t *Token, addr string, req wire.EnrollRequest) (reply wire.EnrollReply, offset time.Duration, _ *Error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return reply, 0, newError(CodeToken, err)
	}
	c := client(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host,
		InsecureSkipVerify: true, // VerifyConnection does all of it: the root is known by its pin only
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyPinned(s.PeerCertificates, t.Pin, host, time.Now()) },
	})
	defer c.CloseIdleConnections()
	req.Sent = time.Now().UTC()
	e := post(ctx, c, "https://"+addr+wire.PathEnroll, req, &reply)
	if e != nil && e.Code == CodeClock {
		if off, ok := clockOf(ctx, t, addr, host); ok {
			e.JA, e.EN = clockTexts(off)
		}
	}
	if e != nil {
		return reply, 0, e
	}
	return reply, reply.Now.Sub(midway(req.Sent)), nil
}

// midway is the middle between then and now: about when the other side looked at
// its clock.
func midway(then time.Time) time.Time { return then.Add(time.Since(then) / 2) }

var errPin = errors.New("no certificate of the chain has the pinned key")

// verifyPinned checks a console's chain: one of it has the pinned key, and the
// rest leads from there to a leaf for this host.
func verifyPinned(chain []*x509.Certificate, pin [32]byte, host string, at time.Time) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for i, c := range chain {
		switch {
		case PinOf(c) == pin && c.IsCA:
			roots.AddCert(c)
			found = true
		case i > 0:
			between.AddCert(c)
		}
	}
	if !found {
		if len(chain) > 0 {
			return fmt.Errorf("%w; the other end says it is %.100q, vouched for by %.100q", errPin, chain[0].Subject, chain[len(chain)-1].Issuer)
		}
		return errPin
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: host, Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// clockOf asks a console whose certificate is not valid by our clock for its
// time, without telling it anything. The chain is checked for the time at which
// the newest certificate of it began, so it is at least the console's.
func clockOf(ctx context.Context, t *Token, addr, host string) (offset time.Duration, ok bool) {
	c := client(&tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host,
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			var at time.Time
			for _, c := range s.PeerCertificates {
				if c.NotBefore.After(at) {
					at = c.NotBefore
				}
			}
			return verifyPinned(s.PeerCertificates, t.Pin, host, at)
		},
	})
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+addr+wire.PathEnroll, nil)
	if err != nil {
		return 0, false
	}
	sent := time.Now()
	resp, err := c.Do(req)
	if err != nil {
		return 0, false
	}
	resp.Body.Close()
	now, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, false
	}
	return now.Sub(midway(sent)), true
}

func client(t *tls.Config) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true},
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes nowhere else
	}
}

// post sends one request and reads its answer.
func post(ctx context.Context, c *http.Client, url string, req, reply any) *Error {
	body, err := json.Marshal(req)
	if err != nil {
		return newError(CodeRequest, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return newError(CodeToken, err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(r)
	if err != nil {
		return classify(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxIdentity))
	if err != nil {
		return classify(err)
	}
	if resp.StatusCode != http.StatusOK {
		var w wire.Error
		if json.Unmarshal(answer, &w) != nil || w.Code == "" || w.EN == "" {
			return newError(CodeAnswer, fmt.Errorf("status %s", resp.Status))
		}
		return &Error{Code: w.Code, JA: w.JA, EN: w.EN}
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return newError(CodeAnswer, err)
	}
	return nil
}

// classify tells what kind of trouble a failed request had.
func classify(err error) *Error {
	var dns *net.DNSError
	var invalid x509.CertificateInvalidError
	var hostname x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var op *net.OpError
	var timeout interface{ Timeout() bool }
	code := CodeTLS
	switch {
	case errors.Is(err, errPin), errors.As(err, &unknown):
		code = CodePin
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		code = CodeClock
	case errors.As(err, &hostname):
		code = CodeAddress
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		code = CodeAnswer
	case errors.As(err, &dns):
		code = CodeName
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		code = CodeTimeout
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &op) && op.Op == "dial":
		code = CodeRefused
	}
	return newError(code, err)
}

// keep checks what the console gave and stores it.
func keep(dir string, t *Token, key *ecdsa.PrivateKey, r wire.EnrollReply) (*Identity, error) {
	roots, err := parseChain(r.CA)
	if err != nil {
		return nil, newError(CodeAnswer, fmt.Errorf("ca: %w", err))
	}
	if !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return PinOf(c) == t.Pin }) {
		return nil, newError(CodePin, nil)
	}
	sealed, err := sealKey(key)
	if err != nil {
		return nil, newError(CodeStore, err)
	}
	s := stored{AgentID: r.AgentID, Department: r.Department, CA: r.CA, Certificate: r.Certificate, Sealing: sealing, Key: sealed, Enrolled: time.Now().UTC()}
	for _, a := range t.Addresses {
		s.Consoles = append(s.Consoles, "https://"+a)
	}
	id := &Identity{dir: dir, due: make(chan struct{}, 1)}
	if err := id.set(s); err != nil {
		return nil, newError(CodeAnswer, err)
	}
	if err := save(dir, s); err != nil {
		return nil, newError(CodeStore, err)
	}
	os.Remove(filepath.Join(dir, pendingFile)) // one that stays does no harm: it is of a token that was spent
	return id, nil
}

// Renew gets a new certificate for a new key from the first of urls (nil: URLs)
// that answers, stores it and goes over to it. Errors are of type *Error; the
// old certificate then stays in use.
func (id *Identity) Renew(ctx context.Context, urls []string) error {
	if urls == nil {
		urls = id.URLs()
	}
	key, sealed, err := newKey()
	if err != nil {
		return newError(CodeStore, err)
	}
	csr, err := newCSR(key)
	if err != nil {
		return newError(CodeStore, err)
	}
	c := client(id.TLSConfig())
	defer c.CloseIdleConnections()
	last := newError(CodeRefused, errors.New("no address of a console is known"))
	for _, u := range urls {
		var reply wire.RenewReply
		if last = post(ctx, c, strings.TrimSuffix(u, "/")+wire.PathRenew, wire.RenewRequest{CSR: csr}, &reply); last != nil {
			if unreached(last) {
				continue
			}
			return last
		}
		id.mu.Lock()
		s := id.s
		id.mu.Unlock()
		s.Certificate, s.Sealing, s.Key = reply.Certificate, sealing, sealed
		if reply.CA != "" {
			s.CA = reply.CA
		}
		if err := new(Identity).set(s); err != nil {
			return newError(CodeAnswer, err)
		}
		// On disk first: the console forgets the old certificate at the first use of the new one.
		if err := save(id.dir, s); err != nil {
			return newError(CodeStore, err)
		}
		if err := id.set(s); err != nil {
			return newError(CodeAnswer, err)
		}
		select { // what asked for this renewal is answered
		case <-id.due:
		default:
		}
		return nil
	}
	return last
}
