package ship

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/wire"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	c := issue(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

// issue makes a certificate that is valid now unless the template says otherwise; by may be nil for one that signs itself.
func issue(t *testing.T, c *x509.Certificate, by *authority) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: "test"}
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func serverCert(t *testing.T, by *authority, change func(*x509.Certificate)) tls.Certificate {
	c := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(c)
	}
	return issue(t, c, by)
}

func clientCert(t *testing.T, by *authority, change func(*x509.Certificate)) tls.Certificate {
	c := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(c)
	}
	return issue(t, c, by)
}

// serve starts a collector with mutual TLS.
func serve(t *testing.T, c *console, cert tls.Certificate, clients *x509.CertPool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := c.RoundTrip(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

func clientOf(roots *x509.CertPool, cert ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: cert, MinVersion: tls.VersionTLS13}}}
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	const limit = 2 * time.Minute
	for end := time.Now().Add(limit); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func TestOverMutualTLS(t *testing.T) {
	before := runtime.NumGoroutine()
	ca := newAuthority(t)
	c := &console{}
	srv := serve(t, c, serverCert(t, ca, nil), ca.pool)
	client := clientOf(ca.pool, clientCert(t, ca, nil))
	r := prepare(t, c, func(o *Options) {
		o.URLs = []string{srv.URL}
		o.Client = client
	})
	add(t, r.alerts, 0, 1200)
	r.run(t)
	waitFor(t, "1200 alerts delivered", func() bool { return r.alerts.Len() == 0 })
	began := time.Now()
	add(t, r.alerts, 1200, 1201)
	waitFor(t, "one more", func() bool { return len(c.kept()) == 1201 })
	t.Logf("a new alert took %v", time.Since(began))
	equal(t, "rows", c.kept(), rowsFrom(0, 1201))
	if off := r.State().Contact.ClockOffset.Abs(); off > time.Minute { // it is as good as the answer is quick
		t.Errorf("clocks differ by %v on one machine", off)
	}
	r.stop()
	client.CloseIdleConnections()
	srv.Close()
	waitFor(t, "no goroutine left", func() bool { return runtime.NumGoroutine() <= before })
}

// A renewed certificate is used for the next attempt, not when the old connection happens to end.
func TestARenewedCertificateIsUsedAtOnce(t *testing.T) {
	ca := newAuthority(t)
	old, renewed := clientCert(t, ca, nil), clientCert(t, ca, nil)
	c := &console{before: func(r *http.Request, _ wire.Batch) (*http.Response, error) {
		if r.TLS.PeerCertificates[0].Equal(old.Leaf) {
			return refusal(http.StatusUnauthorized)
		}
		return nil, nil
	}}
	srv := serve(t, c, serverCert(t, ca, nil), ca.pool)
	var use atomic.Pointer[tls.Certificate]
	use.Store(&old)
	client := clientOf(ca.pool)
	client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return use.Load(), nil
	}
	r := prepare(t, c, func(o *Options) { o.Client, o.URLs = client, []string{srv.URL} })
	add(t, r.alerts, 0, 1)
	r.run(t)
	waitFor(t, "the old one is refused", func() bool { return r.State().Contact.Code == CodeOwnCert })
	use.Store(&renewed)
	waitFor(t, "delivery by the new one", func() bool { return r.alerts.Len() == 0 })
	r.stop()
}

// Each trouble is made for real, and has to come out under its code with words a person understands.
func TestTroubleIsNamed(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	good := serverCert(t, ca, nil)
	own := clientCert(t, ca, nil)
	aged := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	plainServer := httptest.NewServer(http.NotFoundHandler())
	defer plainServer.Close()
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	pinned := clientOf(ca.pool, own)
	pinned.Transport.(*http.Transport).TLSClientConfig.VerifyConnection = func(tls.ConnectionState) error {
		return fmt.Errorf("certificate of test: %w", ErrPin)
	}
	noName := clientOf(ca.pool, own)
	noName.Transport.(*http.Transport).DialContext = (&net.Dialer{Resolver: &net.Resolver{PreferGo: true}}).DialContext

	// A client sends no certificate of an authority that the server did not name, unless told to.
	insistent := clientOf(ca.pool)
	insistent.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &own, nil
	}

	for what, c := range map[string]struct {
		url    string
		client *http.Client
		before func(*http.Request, wire.Batch) (*http.Response, error)
		code   string
		text   string
	}{
		"unknown authority": {serve(t, &console{}, serverCert(t, other, nil), ca.pool).URL, clientOf(ca.pool, own), nil, CodeUnknownCA, "not from the authority"},
		"expired":           {serve(t, &console{}, serverCert(t, ca, aged(-48*time.Hour, -24*time.Hour)), ca.pool).URL, clientOf(ca.pool, own), nil, CodeExpired, "expired on"},
		"not yet valid":     {serve(t, &console{}, serverCert(t, ca, aged(24*time.Hour, 48*time.Hour)), ca.pool).URL, clientOf(ca.pool, own), nil, CodeClock, "probably behind"},
		"wrong name": {serve(t, &console{}, serverCert(t, ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"x.example.jp"} }), ca.pool).URL,
			clientOf(ca.pool, own), nil, CodeWrongName, `"127.0.0.1"`},
		"wrong pin":               {serve(t, &console{}, good, ca.pool).URL, pinned, nil, CodePin, "enrolled with"},
		"no certificate of ours":  {serve(t, &console{}, good, ca.pool).URL, clientOf(ca.pool), nil, CodeOwnCert, "enrol again"},
		"ours from elsewhere":     {serve(t, &console{}, good, other.pool).URL, insistent, nil, CodeOwnCert, "enrol again"},
		"ours expired":            {serve(t, &console{}, good, ca.pool).URL, clientOf(ca.pool, clientCert(t, ca, aged(-48*time.Hour, -24*time.Hour))), nil, CodeOwnCert, "expired"},
		"plain http behind https": {"https" + strings.TrimPrefix(plainServer.URL, "http"), clientOf(ca.pool, own), nil, CodeNotTLS, "does not speak TLS"},
		"nobody listens":          {"https://127.0.0.1:1", clientOf(ca.pool, own), nil, CodeRefused, "no console listens"},
		"no answer":               {"https://" + deaf.Addr().String(), clientOf(ca.pool, own), nil, CodeUnreachable, "in time"},
		"no such name":            {"https://console.invalid:1", noName, nil, CodeName, `"console.invalid"`},
		"401":                     {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(401) }, CodeOwnCert, "401 (COL-99: no)"},
		"403":                     {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(403) }, CodeRevoked, "403 (COL-99: no)"},
		"429":                     {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(429) }, CodeBusy, "429"},
		"503":                     {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(503) }, CodeBusy, "503"},
		"500":                     {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) { return refusal(500) }, CodeServer, "500"},
		"hostile words": {"", nil, func(*http.Request, wire.Batch) (*http.Response, error) {
			return answer(500, wire.Error{Code: "X", EN: "\x1b[2J\u202e<b>" + strings.Repeat("w", 5000)}), nil
		}, CodeServer, "500 (X:  [2J <b>www"},
	} {
		t.Run(what, func(t *testing.T) {
			r := prepare(t, &console{before: c.before}, func(o *Options) {
				o.Timeout = time.Minute
				if c.code == CodeUnreachable {
					o.Timeout = time.Second
				}
				if c.client != nil {
					o.Client, o.URLs = c.client, []string{c.url}
				}
			})
			add(t, r.alerts, 0, 1)
			r.run(t)
			waitFor(t, "an attempt that fails", func() bool { return r.State().Failures > 0 })
			r.stop()
			st := r.State().Contact
			if st.Code != c.code || !strings.Contains(st.Error, c.text) {
				t.Errorf("got %s %q, want %s with %q", st.Code, st.Error, c.code, c.text)
			}
			if len(st.Error) > 500 || strings.ContainsAny(st.Error, "\x1b\u202e\n") {
				t.Errorf("text not fit to be shown: %q", st.Error)
			}
			equal(t, "left", r.alerts.Len(), 1)
		})
	}
}

func TestDiagnoseOfOddErrors(t *testing.T) {
	for err, code := range map[error]string{
		errors.New("strange\x00thing"):                                                                          CodeUnreachable,
		&net.DNSError{Name: "a\u202eb", IsTemporary: true}:                                                      CodeName,
		&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}:                               CodeOwnCert,
		&net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}:                                CodeNotTLS,
		&net.OpError{Op: "dial", Err: wsaConnRefused}:                                                           CodeRefused,
		x509.CertificateInvalidError{Reason: x509.Expired}:                                                      CodeUnknownCA,
		x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}:                                          CodeUnknownCA,
		&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}}: CodeWrongName,
	} {
		got := Diagnose(fmt.Errorf("post: %w", err), time.Now())
		if got.Code != code || got.Text == "" || strings.ContainsAny(got.Text, "\x00\u202e") {
			t.Errorf("%q: %s %q, want %s", err, got.Code, got.Text, code)
		}
	}
}

// The spools of an agent that was killed in the middle of everything: nothing missing, nothing twice that was answered.
func TestNothingIsMissingAfterReopening(t *testing.T) {
	c := &console{}
	dir := t.TempDir()
	n := 0
	for round := range 10 {
		q := open(t, filepath.Join(dir, "alerts"))
		add(t, q, n, n+37)
		n += 37
		fails := round % 3
		c.set(func(c *console) {
			c.before = func(_ *http.Request, b wire.Batch) (*http.Response, error) {
				if fails--; fails >= 0 {
					c.keep(b)
					return nil, errors.New("connection reset")
				}
				return nil, nil
			}
		})
		r := prepare(t, c, func(o *Options) { o.Alerts = q; o.BatchRows = 10 })
		r.run(t)
		time.Sleep(time.Duration(round) * time.Millisecond)
		r.stop()
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
	q := open(t, filepath.Join(dir, "alerts"))
	r := prepare(t, &console{rows: c.rows}, func(o *Options) { o.Alerts = q })
	r.run(t)
	waitFor(t, "the rest", func() bool { return q.Len() == 0 })
	r.stop()
	equal(t, "rows", r.console.kept(), rowsFrom(0, n))
}
