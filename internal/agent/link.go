package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/event"
	"sekisho/internal/ship"
	"sekisho/internal/wire"

	"go.uber.org/zap"
)

// lookEvery is how often the identity is looked at on disk: enrolling (again)
// takes effect without a restart.
const lookEvery = 2 * time.Second

// setUpRetry is the pause between two tries to set up shipping (a CA file that
// is not there yet).
const setUpRetry = 10 * time.Second

// renewRetry is the pause between two tries to renew the certificate. It is due
// for ten days before it ends.
const renewRetry = 10 * time.Minute

// identityDir is where enrolment keeps key, certificate and addresses.
func identityDir(stateDir string) string { return filepath.Join(stateDir, "identity") }

// consoleURLs are the addresses to ship to: the settings' own, else those that
// the enrolment token carried.
func consoleURLs(cfg *config.Agent, id *enroll.Identity) []string {
	if len(cfg.Console.URLs) > 0 {
		return cfg.Console.URLs
	}
	return id.URLs()
}

// link is the agent's side of the way to the console: who we are, shipping, and
// renewing the certificate. While the PC is not enrolled it waits, or enrols it by
// the token that was left for it.
type link struct {
	a   *Agent
	dir string

	mu       sync.Mutex // guards all below
	identity *enroll.Identity
	file     fs.FileInfo // of identity, as it was read; nil: not known
	shipper  *ship.Shipper
	trouble  string // why the identity cannot be used
	failure  string // why the shipper could not be made

	enrolling error // why the token that waits did not help

	// Of the token that waits; run's own.
	tried    string    // the one that was tried last
	tryAgain time.Time // not before then, if it is still the same
}

func newLink(a *Agent) *link {
	l := &link{a: a, dir: identityDir(a.stateDir)}
	l.load()
	return l
}

// load reads the identity again, if its file was written to, and reports whether it
// is another one.
func (l *link) load() bool {
	file, _ := os.Stat(enroll.File(l.dir)) // before it is read: what comes after shows the next time
	l.mu.Lock()
	known := l.identity != nil && l.trouble == "" && sameFile(file, l.file)
	l.mu.Unlock()
	if known {
		return false
	}
	id, err := enroll.Load(l.dir)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file
	was := l.trouble
	l.trouble = ""
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.trouble = err.Error()
			if was != l.trouble {
				l.a.log.Error("identity cannot be used", zap.Error(err))
			}
		}
		changed := l.identity != nil
		l.identity = nil
		return changed
	}
	changed := l.identity == nil || l.identity.Fingerprint() != id.Fingerprint()
	if changed {
		l.identity = id
	}
	return changed
}

// sameFile reports whether a file is what it was, as far as its description tells.
func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (l *link) current() *enroll.Identity {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.identity
}

// agentID is the id given at enrolment, the host's until then.
func (l *link) agentID() string {
	if id := l.current(); id != nil {
		return id.AgentID()
	}
	return l.a.host.ID
}

// run ships until ctx is done, under whatever identity there is.
func (l *link) run(ctx context.Context) {
	for ctx.Err() == nil {
		id := l.current()
		if id == nil {
			l.enrol(ctx)
			if l.sleep(ctx) {
				l.load()
			}
			continue
		}
		l.a.who.Store(&event.Agent{ID: id.AgentID(), Version: l.a.o.Version})
		under, done := context.WithCancel(ctx)
		var parts sync.WaitGroup
		parts.Go(func() { l.ship(under, id) })
		parts.Go(func() { l.renew(under, id) })
		for l.sleep(ctx) && !l.load() {
		}
		done()
		parts.Wait()
	}
}

// sleep waits until it is time to look again; false: ctx is done.
func (l *link) sleep(ctx context.Context) bool {
	select {
	case <-time.After(lookEvery):
		return true
	case <-ctx.Done():
		return false
	}
}

// consoleTLS is the identity's, narrowed by the settings: console.ca replaces the
// authorities to trust, console.pin names a key that must be in the console's
// chain.
func consoleTLS(cfg *config.Agent, id *enroll.Identity) (*tls.Config, error) {
	t := id.TLSConfig()
	if file := cfg.Console.CA; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("console.ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("console.ca: %s: no certificate in PEM form", file)
		}
	}
	if pin := cfg.Console.Pin; pin != "" {
		t.VerifyConnection = func(s tls.ConnectionState) error {
			for _, chain := range s.VerifiedChains {
				for _, c := range chain {
					if sum := enroll.PinOf(c); "sha256:"+hex.EncodeToString(sum[:]) == pin {
						return nil
					}
				}
			}
			return fmt.Errorf("%w: no certificate of the chain has the key of console.pin", ship.ErrPin)
		}
	}
	return t, nil
}

// ship ships until ctx is done. What cannot be set up is tried again with the
// settings of then.
func (l *link) ship(ctx context.Context, id *enroll.Identity) {
	for {
		s, err := l.newShipper(id)
		l.setUp(s, err)
		if err == nil {
			if err := s.Run(ctx); err != nil {
				l.a.log.Error("shipping ended", zap.Error(err))
			}
			return
		}
		select {
		case <-time.After(setUpRetry):
		case <-ctx.Done():
			return
		}
	}
}

func (l *link) newShipper(id *enroll.Identity) (*ship.Shipper, error) {
	t, err := consoleTLS(l.a.cfg.Load(), id)
	if err != nil {
		return nil, err
	}
	return ship.New(ship.Options{
		Alerts: l.a.out.alerts, Activity: l.a.out.activity,
		Client: &http.Client{Transport: &http.Transport{
			TLSClientConfig: t, Proxy: http.ProxyFromEnvironment,
			ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 15 * time.Second,
		}},
		URLs:   consoleURLs(l.a.cfg.Load(), id),
		Status: l.a.Status,
		OnReply: func(r wire.BatchReply) {
			if r.Renew {
				id.RenewSoon()
			}
		},
		Log:       l.a.log.Named("ship"),
		Rejected:  filepath.Join(l.a.stateDir, "rejected.jsonl"),
		UserAgent: "sekisho-agent/" + l.a.o.Version + " (" + runtime.GOOS + ")",
		Flush:     lastFlush,
	})
}

// setUp keeps the shipper, or why there is none.
func (l *link) setUp(s *ship.Shipper, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	l.mu.Lock()
	news := text != l.failure
	l.shipper, l.failure = s, text
	l.mu.Unlock()
	if err != nil && news {
		l.a.log.Error("cannot ship", zap.Error(err))
	}
}

// renew asks for a new certificate when it is due.
func (l *link) renew(ctx context.Context, id *enroll.Identity) {
	for {
		select {
		case <-id.RenewalDue():
		case <-ctx.Done():
			return
		}
		rctx, cancel := context.WithTimeout(ctx, time.Minute)
		err := id.Renew(rctx, consoleURLs(l.a.cfg.Load(), id))
		cancel()
		if err == nil {
			l.a.log.Info("certificate renewed", zap.Time("expires", id.Expires()))
			continue
		}
		l.a.log.Warn("certificate could not be renewed", zap.Time("expires", id.Expires()), zap.Error(err))
		select {
		case <-time.After(renewRetry):
		case <-ctx.Done():
			return
		}
	}
}

// contact tells how the way to the console is.
func (l *link) contact() endpoint.Contact {
	l.mu.Lock()
	id, s, trouble, failure, enrolling := l.identity, l.shipper, l.trouble, l.failure, l.enrolling
	l.mu.Unlock()
	var c endpoint.Contact
	if s != nil {
		c = s.State().Contact
	}
	if id == nil && enrolling != nil {
		c.Code, c.Error = enroll.CodeStore, enrolling.Error()
		if e, ok := errors.AsType[*enroll.Error](enrolling); ok {
			c.Code = e.Code
		}
	} else if trouble != "" {
		c.Code, c.Error = enroll.CodeIdentity, trouble
	} else if failure != "" {
		c.Code, c.Error = ship.CodeSetup, failure
	}
	if id != nil {
		c.CertExpires = id.Expires()
	}
	return c
}
