// Package collector is the console's side of the agent API: it authenticates,
// checks, stores, and answers after the commit.
//
//	POST /v1/enroll   a token and a certificate request; no client certificate
//	POST /v1/renew    a certificate request; mutual TLS
//	POST /v1/batches  alerts, activity, status; mutual TLS
//
// Everything from an agent is hostile until checked: bodies are bounded before
// and after decompression, rows in number and size, requests in rate and number
// at once. A row that is not taken is named by its index, so that the agent can
// set it aside and go on.
package collector

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"mime"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/peer"
	"sekisho/internal/store"
	"sekisho/internal/wire"
)

// Store is what the collector needs of the database; see store.Store.
type Store interface {
	Ingest(ctx context.Context, d store.Delivery) error
	Enrol(ctx context.Context, e store.Enrolment) (store.Enrolled, error)
	Renew(ctx context.Context, agentID, serial string, expires time.Time) error
	Seen(ctx context.Context, serial string) (*endpoint.Record, error)
}

// Options are what a Server works with. Store and CA are needed.
type Options struct {
	Store   Store
	CA      *enroll.CA
	Log     *zap.Logger           // nil: none
	Metrics prometheus.Registerer // nil: none
	MaxBody int64                 // bytes of a request as sent; 0: wire.MaxBatchBytes
	Rate    int                   // requests a second from one agent, bursts of ten times that; 0: 20
}

// Judgements about load.
const (
	// lookupFor is how long a certificate's standing is remembered: a revocation
	// takes effect within it.
	lookupFor = 30 * time.Second
	// agentSlots is how many requests of one agent are worked on at once: one, and
	// one more whose connection the agent may have given up.
	agentSlots = 2
	// slotWait is how long a request waits for its turn before it is sent away.
	slotWait = 2 * time.Second
	// bodyTime is how long a body may take to arrive. 8 MiB at 4 Mbit/s.
	bodyTime = 20 * time.Second
	// enrolRate and enrolBurst bound enrolments from one address: a roll-out of
	// some hundred PCs behind one NAT must pass.
	enrolRate, enrolBurst = 10, 200
)

// Server is the agent API, an http.Handler. Safe for concurrent use. It starts
// no goroutine of its own.
type Server struct {
	o       Options
	log     *zap.Logger
	mux     *http.ServeMux
	metrics *metrics
	slots   chan struct{} // of batches that are read, decoded or stored
	decoder sync.Pool     // of *zstd.Decoder

	agents  keyed[*caller] // by agent id
	remotes keyed[*caller] // by peer.Network, for enrolment

	mu     sync.Mutex // guards all below
	known  map[[32]byte]standing
	warned map[string]bool // agents whose clock is off and was told so
}

// standing is what is known of a certificate (by the SHA-256 of its DER).
type standing struct {
	agentID string
	newer   bool // a renewed one waits for its first use
	checked time.Time
}

// NewServer makes the agent API.
func NewServer(o Options) *Server {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.MaxBody <= 0 || o.MaxBody > wire.MaxBatchBytes {
		o.MaxBody = wire.MaxBatchBytes // compressed or not, more cannot be taken
	}
	if o.Rate <= 0 {
		o.Rate = 20
	}
	s := &Server{
		o: o, log: o.Log, mux: http.NewServeMux(), metrics: newMetrics(o.Metrics),
		slots: make(chan struct{}, max(16, 4*runtime.GOMAXPROCS(0))),
		known: map[[32]byte]standing{}, warned: map[string]bool{},
	}
	s.agents.make = func() *caller { return newCaller(o.Rate, 10*o.Rate, agentSlots) }
	s.remotes.make = func() *caller { return newCaller(enrolRate, enrolBurst, 0) }
	s.decoder.New = func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(wire.MaxBatchBytes+1), zstd.WithDecoderMaxWindow(wire.MaxBatchBytes))
		if err != nil {
			panic("collector: zstd options: " + err.Error())
		}
		return d
	}
	s.mux.Handle("POST "+wire.PathEnroll, s.handle(s.enroll))
	s.mux.Handle("POST "+wire.PathRenew, s.handle(s.renew))
	s.mux.Handle("POST "+wire.PathBatches, s.handle(s.batch))
	s.mux.Handle("/", s.handle(func(w http.ResponseWriter, r *http.Request) error {
		switch r.URL.Path {
		case wire.PathEnroll, wire.PathRenew, wire.PathBatches:
			w.Header().Set("Allow", http.MethodPost)
			return refuse(http.StatusMethodNotAllowed, codeMethod)
		}
		return refuse(http.StatusNotFound, codePath)
	}))
	return s
}

// HTTP is the web server for the agent API with its limits; names are what its
// certificate holds. The caller listens and serves by ServeTLS(l, "", "").
func (s *Server) HTTP(names []string) *http.Server {
	// A line for each port scan is for those who look for it; at this level it cannot fail.
	handshakes, _ := zap.NewStdLogAt(s.log.Named("tls"), zap.DebugLevel)
	return &http.Server{
		Handler:           s,
		TLSConfig:         s.o.CA.ServerTLS(names),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10*time.Second + bodyTime, // also of a body that no handler reads: net/http reads on to the next request
		WriteTimeout:      time.Minute,               // answers are short; the wait for the commit is in it
		IdleTimeout:       2 * time.Minute,           // above the agents' minute between heartbeats
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          handshakes,
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// handler answers a request or says why not; it has written nothing if it
// returns an error.
type handler func(w http.ResponseWriter, r *http.Request) error

// handle wraps a handler: it counts, catches panics and renders errors.
func (s *Server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err := func() (err error) {
			defer func() {
				if x := recover(); x != nil {
					if x == http.ErrAbortHandler {
						panic(x)
					}
					err = fmt.Errorf("panic: %v\n%s", x, debug.Stack())
				}
			}()
			return h(w, r)
		}()
		code := ""
		if err != nil {
			code = s.fail(w, r, err)
		}
		s.metrics.done(r.URL.Path, code, time.Since(start))
	})
}

// fail answers an error and logs it.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) (code string) {
	f := asFailure(err)
	body := f.wire(time.Now())
	if f.retry > 0 {
		// Spread, so that those who were sent away together do not come back together.
		body.RetryAfter = f.retry + rand.IntN(f.retry+1)
		w.Header().Set("Retry-After", strconv.Itoa(body.RetryAfter))
	}
	if f.status == http.StatusUnauthorized || f.status == http.StatusRequestEntityTooLarge {
		w.Header().Set("Connection", "close") // the next connection may show another certificate; the rest of a body is not read
	}
	log := s.log.Info
	if f.status >= 500 {
		log = s.log.Error
	}
	log("agent request refused", zap.Int("status", f.status), zap.String("code", f.code), zap.String("method", r.Method),
		zap.String("path", cutText(r.URL.Path, 100)), zap.String("remote", peer.Address(r)), zap.Error(err))
	answer(w, f.status, body)
	return f.code
}

func answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // plain structs of ours
		panic("collector: answer: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}

func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// agent is whose request it is: by the certificate that TLS has proven the key
// of, checked here so that the reason of a refusal can be told.
func (s *Server) agent(w http.ResponseWriter, r *http.Request) (agentID string, leaf *x509.Certificate, err error) {
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	now := time.Now()
	if len(chain) > 0 {
		leaf = chain[0]
		s.mu.Lock()
		k, ok := s.known[sha256.Sum256(leaf.Raw)]
		s.mu.Unlock()
		if ok && now.Sub(k.checked) < lookupFor && now.Before(leaf.NotAfter) {
			closeFor(w, k)
			return k.agentID, leaf, nil
		}
	}
	agentID, serial, err := s.o.CA.VerifyClient(chain, now)
	switch {
	case errors.Is(err, enroll.ErrExpired):
		return "", nil, refuse(http.StatusUnauthorized, enroll.CodeCertExpired, fmt.Errorf("agent %q: %w", agentID, err))
	case err != nil:
		return "", nil, refuse(http.StatusUnauthorized, enroll.CodeCertUnknown, err)
	}
	rec, err := s.o.Store.Seen(r.Context(), serial)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && rec.AgentID != agentID:
		return "", nil, refuse(http.StatusUnauthorized, enroll.CodeCertUnknown, fmt.Errorf("agent %q: certificate %s was replaced or is not of this database", agentID, serial))
	case err != nil:
		return "", nil, refuse(http.StatusServiceUnavailable, enroll.CodeConsole, err)
	case rec.Revoked:
		return "", nil, refuse(http.StatusForbidden, enroll.CodeRevoked, fmt.Errorf("agent %q", agentID))
	}
	k := standing{agentID: agentID, newer: rec.CertNext != "", checked: now}
	s.mu.Lock()
	if len(s.known) >= 200_000 { // far more than agents: old certificates
		clear(s.known)
	}
	s.known[sha256.Sum256(leaf.Raw)] = k
	s.mu.Unlock()
	closeFor(w, k)
	return agentID, leaf, nil
}

// closeFor ends the connection of an agent that has a newer certificate, so
// that it comes back with that.
func closeFor(w http.ResponseWriter, k standing) {
	if k.newer {
		w.Header().Set("Connection", "close")
	}
}

// body reads a request's body, decompressed, up to limit bytes.
func (s *Server) body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if t, _, err := mime.ParseMediaType(ct); err != nil || t != "application/json" {
			return nil, refuse(http.StatusUnsupportedMediaType, codeType, fmt.Errorf("Content-Type %.60q", ct))
		}
	}
	// A connection without deadlines (in tests) says so; there is nothing to set then.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	sent := http.MaxBytesReader(w, r.Body, min(limit, s.o.MaxBody))
	var in io.Reader = sent
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "zstd":
		d := s.decoder.Get().(*zstd.Decoder)
		defer func() {
			if d.Reset(nil) == nil {
				s.decoder.Put(d)
			}
		}()
		if err := d.Reset(sent); err != nil {
			return nil, readFailure(err)
		}
		in = d
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, codeType, fmt.Errorf("Content-Encoding %.60q", enc))
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, readFailure(err)
	}
	if int64(len(b)) > limit {
		return nil, refuse(http.StatusRequestEntityTooLarge, codeLarge, fmt.Errorf("more than %d bytes decompressed", limit))
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return b, nil
}

func readFailure(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, codeLarge, err)
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return refuse(http.StatusRequestEntityTooLarge, codeLarge, err)
	}
	return refuse(http.StatusBadRequest, codeBody, err)
}

// batch is POST /v1/batches.
func (s *Server) batch(w http.ResponseWriter, r *http.Request) error {
	agentID, leaf, err := s.agent(w, r)
	if err != nil {
		return err
	}
	c := s.agents.at(agentID)
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	wait, cancel := context.WithTimeout(r.Context(), slotWait)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-wait.Done():
		return busy(codeBusy, 10)
	}

	data, err := s.body(w, r, wire.MaxBatchBytes)
	if err != nil {
		return err
	}
	received := time.Now().UTC()
	b, err := decodeBatch(data)
	if err != nil {
		return err
	}
	d, err := delivery(b, agentID)
	if err != nil {
		return err
	}
	d.Received, d.Remote = received, peer.Address(r)
	s.clock(agentID, b.Sent, received)
	switch err := s.o.Store.Ingest(r.Context(), d); {
	case errors.Is(err, store.ErrFull):
		return refuseLater(http.StatusServiceUnavailable, codeFull, 60, err)
	case err != nil && r.Context().Err() != nil:
		return refuse(http.StatusServiceUnavailable, codeStore, err) // nobody reads it: the agent has gone
	case err != nil:
		return refuseLater(http.StatusServiceUnavailable, codeStore, 10, err)
	}
	s.metrics.rows(len(d.Alerts), len(d.Activity))
	answer(w, http.StatusOK, wire.BatchReply{
		Alerts: len(d.Alerts), Activity: len(d.Activity), Now: received,
		Renew: time.Until(leaf.NotAfter) < enroll.ClientLife/3,
	})
	return nil
}

// clock tells once that an agent's clock is off, and once that it is right again.
func (s *Server) clock(agentID string, sent, received time.Time) {
	if sent.IsZero() {
		return
	}
	offset := received.Sub(sent)
	off := offset > enroll.ClockTolerance || offset < -enroll.ClockTolerance
	s.mu.Lock()
	was := s.warned[agentID]
	if off {
		s.warned[agentID] = true
	} else {
		delete(s.warned, agentID)
	}
	s.mu.Unlock()
	switch {
	case off && !was:
		w, _ := enroll.ClockWarning(offset)
		s.log.Warn("an agent's clock is off", zap.String("agent", agentID), zap.Duration("offset", offset.Round(time.Second)), zap.String("code", w.Code))
	case !off && was:
		s.log.Info("an agent's clock is right again", zap.String("agent", agentID))
	}
}

// enroll is POST /v1/enroll.
func (s *Server) enroll(w http.ResponseWriter, r *http.Request) error {
	c := s.remotes.at(peer.Network(peer.Address(r)))
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	data, err := s.body(w, r, wire.MaxEnrollBytes)
	if err != nil {
		return err
	}
	var req wire.EnrollRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	if err := checkHost(req.Host); err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	key, err := enroll.ParseCSR(req.CSR)
	if err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	keyHash, err := enroll.KeyHash(key)
	if err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	now := time.Now().UTC()
	e := store.Enrolment{
		TokenID: req.TokenID, SecretHash: enroll.SecretHash(req.Secret), KeyHash: keyHash, Host: req.Host, Remote: peer.Address(r),
		Serial: enroll.NewSerial(), Expires: now.Add(enroll.ClientLife).Truncate(time.Second), Now: now,
	}
	got, err := s.o.Store.Enrol(r.Context(), e)
	if err != nil {
		for sentinel, code := range map[error]string{
			store.ErrTokenUnknown: enroll.CodeTokenUnknown, store.ErrTokenExpired: enroll.CodeTokenExpired,
			store.ErrTokenUsedUp: enroll.CodeTokenUsedUp, store.ErrTokenRevoked: enroll.CodeTokenRevoked,
		} {
			if errors.Is(err, sentinel) {
				return refuse(http.StatusForbidden, code, fmt.Errorf("token %.40q: %w", req.TokenID, err))
			}
		}
		return refuseLater(http.StatusServiceUnavailable, enroll.CodeConsole, 10, err)
	}
	cert, err := s.o.CA.IssueClient(key, got.AgentID, e.Serial, e.Expires)
	if err != nil {
		return refuse(http.StatusInternalServerError, enroll.CodeConsole, err)
	}
	offset := time.Duration(0)
	if !req.Sent.IsZero() {
		offset = now.Sub(req.Sent)
	}
	s.log.Info("a PC enrolled", zap.String("agent", got.AgentID), zap.Bool("known", got.Known), zap.String("host", cutText(req.Host.HostName, 100)),
		zap.String("token", req.TokenID), zap.String("remote", e.Remote), zap.Duration("clock_offset", offset.Round(time.Millisecond)))
	s.clock(got.AgentID, req.Sent, now)
	answer(w, http.StatusOK, wire.EnrollReply{
		AgentID: got.AgentID, Certificate: cert, CA: s.o.CA.RootPEM(), Department: got.Department, Known: got.Known, Now: time.Now().UTC(),
	})
	return nil
}

// checkHost bounds what a PC says of itself.
func checkHost(h endpoint.Identity) error {
	for _, f := range []struct {
		name, value string
		needed      bool
	}{
		{"host_id", h.HostID, true}, {"host_name", h.HostName, true}, {"os", h.OS, true},
		{"os_version", h.OSVersion, false}, {"agent_version", h.AgentVersion, false},
	} {
		if f.needed && f.value == "" {
			return fmt.Errorf("host.%s is missing", f.name)
		}
		if len(f.value) > 255 {
			return fmt.Errorf("host.%s: %d bytes, the limit is 255", f.name, len(f.value))
		}
	}
	return nil
}

// renew is POST /v1/renew.
func (s *Server) renew(w http.ResponseWriter, r *http.Request) error {
	agentID, leaf, err := s.agent(w, r)
	if err != nil {
		return err
	}
	c := s.agents.at(agentID)
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	data, err := s.body(w, r, wire.MaxEnrollBytes)
	if err != nil {
		return err
	}
	var req wire.RenewRequest
	if err := json.Unmarshal(data, &req); err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	key, err := enroll.ParseCSR(req.CSR)
	if err != nil {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, err)
	}
	if key.Equal(leaf.PublicKey) {
		return refuse(http.StatusBadRequest, enroll.CodeRequest, errors.New("csr: renewal wants a new key"))
	}
	serial, expires := enroll.NewSerial(), time.Now().UTC().Add(enroll.ClientLife).Truncate(time.Second)
	cert, err := s.o.CA.IssueClient(key, agentID, serial, expires)
	if err != nil {
		return refuse(http.StatusInternalServerError, enroll.CodeConsole, err)
	}
	if err := s.o.Store.Renew(r.Context(), agentID, serial, expires); err != nil {
		return refuseLater(http.StatusServiceUnavailable, enroll.CodeConsole, 10, err)
	}
	s.mu.Lock()
	delete(s.known, sha256.Sum256(leaf.Raw)) // so that the next request learns of the newer one
	s.mu.Unlock()
	s.log.Info("certificate renewed", zap.String("agent", agentID), zap.Time("expires", expires))
	answer(w, http.StatusOK, wire.RenewReply{Certificate: cert, CA: s.o.CA.RootPEM(), Now: time.Now().UTC()})
	return nil
}
