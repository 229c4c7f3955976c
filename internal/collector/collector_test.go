package collector_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
	"go.uber.org/zap/zaptest/observer"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/collector"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
	"sekisho/internal/wire"
)

// site is a console's side with a real database, a real authority and real TLS.
type site struct {
	t     testing.TB
	store *store.SQLite
	ca    *enroll.CA
	addr  string // "127.0.0.1:port"
	reg   *prometheus.Registry
}

func newSite(t testing.TB, edit func(*collector.Options)) *site {
	t.Helper()
	dir := t.TempDir()
	db, err := store.OpenSQLite(context.Background(), filepath.Join(dir, "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ca, err := enroll.OpenCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, store: db, ca: ca, reg: prometheus.NewRegistry()}
	o := collector.Options{Store: db, CA: ca, Log: zap.NewNop(), Metrics: s.reg}
	if tt, ok := t.(*testing.T); ok && testing.Verbose() {
		o.Log = zaptest.NewLogger(tt)
	}
	if edit != nil {
		edit(&o)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	srv := collector.NewServer(o).HTTP(enroll.ServerNames(nil))
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s
}

var pc = endpoint.Identity{HostID: "host-1", HostName: "PC-041", OS: "linux", OSVersion: "12", AgentVersion: "1"}

// token makes an enrolment token and puts it into the database.
func (s *site) token(uses int, edit func(*enroll.Token, *account.EnrollToken)) string {
	s.t.Helper()
	tok, err := enroll.NewToken([]string{s.addr}, s.ca.Pin(), "総務課", uses, time.Now().Add(time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	row := account.EnrollToken{ID: tok.ID, Hash: enroll.SecretHash(tok.SecretText()), Department: tok.Department, Uses: uses, Created: time.Now(), Expires: tok.Expires}
	if edit != nil {
		edit(tok, &row)
	}
	if err := s.store.AddEnrollToken(context.Background(), row); err != nil {
		s.t.Fatal(err)
	}
	return tok.String()
}

func (s *site) enrol(host endpoint.Identity, dir string) *enroll.Enrolled {
	s.t.Helper()
	e, err := enroll.Enroll(context.Background(), s.token(1, nil), host, dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// agent is an enrolled PC's client.
func (s *site) agent() (*http.Client, *enroll.Identity) {
	s.t.Helper()
	e := s.enrol(pc, filepath.Join(s.t.TempDir(), "identity"))
	return clientOf(s.t, e.TLSConfig()), e.Identity
}

func clientOf(t testing.TB, c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 5 * time.Minute}
}

// post sends a body as it is and answers status, reply and error.
func (s *site) post(c *http.Client, path string, body []byte, header ...string) (*http.Response, wire.BatchReply, wire.Error) {
	s.t.Helper()
	r, err := http.NewRequest(http.MethodPost, "https://"+s.addr+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var reply wire.BatchReply
	var e wire.Error
	if resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(b, &reply)
	} else {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		s.t.Fatalf("status %d: %q: %v", resp.StatusCode, b, err)
	}
	return resp, reply, e
}

func batchOf(alerts []store.Alert, rows ...store.Row) wire.Batch {
	b := wire.Batch{Sent: time.Now().UTC()}
	for _, a := range alerts {
		b.Alerts = append(b.Alerts, a.Raw)
	}
	for _, r := range rows {
		b.Activity = append(b.Activity, r.Raw)
	}
	return b
}

func jsonOf(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zipped(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

func TestABatchThatIsDeliveredTwiceIsStoredOnce(t *testing.T) {
	s := newSite(t, nil)
	c, id := s.agent()
	b := batchOf([]store.Alert{storetest.NewAlert(1, nil), storetest.NewAlert(2, nil)}, storetest.NewRow(3))
	b.Status = &endpoint.Status{HostName: "PC-041", OS: "linux"}
	for i, send := range []func() (*http.Response, wire.BatchReply, wire.Error){
		func() (*http.Response, wire.BatchReply, wire.Error) {
			return s.post(c, wire.PathBatches, jsonOf(t, b), "Content-Type", "application/json")
		},
		func() (*http.Response, wire.BatchReply, wire.Error) {
			return s.post(c, wire.PathBatches, zipped(jsonOf(t, b)), "Content-Type", "application/json; charset=utf-8", "Content-Encoding", "zstd")
		},
	} {
		resp, reply, e := send()
		if resp.StatusCode != 200 || reply.Alerts != 2 || reply.Activity != 1 || reply.Renew || time.Since(reply.Now) > time.Minute {
			t.Fatalf("delivery %d: got %d %+v %+v", i, resp.StatusCode, reply, e)
		}
	}
	p, err := s.store.Alerts(t.Context(), alert.Filter{})
	if err != nil || len(p.Records) != 2 || p.Records[0].AgentID != id.AgentID() {
		t.Errorf("got %d alerts (%v), want 2 of the agent of the certificate", len(p.Records), err)
	}
	r, err := s.store.Endpoint(t.Context(), id.AgentID())
	if err != nil || r.Status == nil || r.Health(time.Now()) != endpoint.Healthy || r.Department != "総務課" {
		t.Errorf("got %+v (%v), want it healthy", r, err)
	}
	found := map[string]float64{}
	fams, err := s.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fams {
		for _, m := range f.Metric {
			found[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	if found["sekisho_rows_total"] != 6 || found["sekisho_agent_requests_total"] != 3 {
		t.Errorf("got metrics %v, want 6 rows of 3 requests", found)
	}
}

func TestRequestsThatAreNotTaken(t *testing.T) {
	s := newSite(t, nil)
	c, _ := s.agent()
	many := wire.Batch{}
	for range wire.MaxBatchRows + 1 {
		many.Activity = append(many.Activity, json.RawMessage("{}"))
	}
	good := storetest.NewAlert(1, nil)
	bad := func(edit string) []byte {
		return jsonOf(t, wire.Batch{Alerts: []json.RawMessage{good.Raw}, Activity: []json.RawMessage{storetest.NewRow(1).Raw, json.RawMessage(edit)}})
	}
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb, zstd.WithEncoderConcurrency(1)) // at once, not behind our back
	if err != nil {
		t.Fatal(err)
	}
	for zeros := make([]byte, 1<<20); bomb.Len() < 20<<10; {
		if _, err := z.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		path   string
		body   []byte
		header []string
		status int
		code   string
		index  int // -1: none
	}{
		{"not JSON", wire.PathBatches, []byte("{"), nil, 400, "COL-01", -1},
		{"nothing", wire.PathBatches, nil, nil, 400, "COL-01", -1},
		{"rows that are no list", wire.PathBatches, []byte(`{"alerts":{}}`), nil, 400, "COL-01", -1},
		{"a form", wire.PathBatches, []byte("a=b"), []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "COL-02", -1},
		{"gzip", wire.PathBatches, []byte("{}"), []string{"Content-Encoding", "gzip"}, 415, "COL-02", -1},
		{"zstd that is none", wire.PathBatches, []byte("{}"), []string{"Content-Encoding", "zstd"}, 400, "COL-01", -1},
		{"zstd that was cut", wire.PathBatches, zipped(bytes.Repeat([]byte("abc{"), 9999))[:20], []string{"Content-Encoding", "zstd"}, 400, "COL-01", -1},
		{"a large body", wire.PathBatches, make([]byte, wire.MaxBatchBytes+1), nil, 413, "COL-03", -1},
		{"hundreds of megabytes of zeros in 20 KB", wire.PathBatches, bomb.Bytes(), []string{"Content-Encoding", "zstd"}, 413, "COL-03", -1},
		{"too many rows", wire.PathBatches, jsonOf(t, many), nil, 413, "COL-04", -1},
		{"millions of empty rows", wire.PathBatches, []byte(`{"alerts":[` + strings.Repeat("0,", 4<<20-100) + `0]}`), nil, 413, "COL-04", -1},
		{"an alert without rule", wire.PathBatches, []byte(`{"alerts":[{"@timestamp":"2026-01-01T00:00:00Z","event":{"id":"a","kind":"alert"},"sekisho":{"alert":{"level":"low"}}}]}`), nil, 422, "COL-05", 0},
		{"an event among alerts", wire.PathBatches, jsonOf(t, wire.Batch{Alerts: []json.RawMessage{good.Raw, storetest.NewRow(1).Raw}}), nil, 422, "COL-05", 1},
		{"a row without time", wire.PathBatches, bad(`{"event":{"id":"x"}}`), nil, 422, "COL-05", 2},
		{"a row without id", wire.PathBatches, bad(`{"@timestamp":"2026-01-01T00:00:00Z"}`), nil, 422, "COL-05", 2},
		{"a row whose id is a path", wire.PathBatches, bad(`{"@timestamp":"2026-01-01T00:00:00Z","event":{"id":"../x"}}`), nil, 422, "COL-05", 2},
		{"a row of the year 9999", wire.PathBatches, bad(`{"@timestamp":"9999-01-01T00:00:00Z","event":{"id":"x"}}`), nil, 422, "COL-05", 2},
		{"a row that is a number", wire.PathBatches, bad(`7`), nil, 422, "COL-05", 2},
		{"a row of two megabytes", wire.PathBatches, bad(`{"@timestamp":"2026-01-01T00:00:00Z","event":{"id":"x"},"message":"` + strings.Repeat("a", 2<<20) + `"}`), nil, 422, "COL-05", 2},
		{"a deep row", wire.PathBatches, bad(strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)), nil, 422, "COL-05", 2},
		{"a status of a megabyte", wire.PathBatches, []byte(`{"status":{"host_name":"` + strings.Repeat("a", 1<<20) + `"}}`), nil, 400, "COL-01", -1},
		{"an enrolment of a megabyte", wire.PathEnroll, make([]byte, 1<<20), nil, 413, "COL-03", -1},
		{"an enrolment that says nothing", wire.PathEnroll, []byte("{}"), nil, 400, "ENR-14", -1},
		{"a renewal without request", wire.PathRenew, []byte("{}"), nil, 400, "ENR-14", -1},
		{"another path", "/v2/batches", []byte("{}"), nil, 404, "COL-10", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, _, e := s.post(c, tt.path, tt.body, tt.header...)
			runtime.ReadMemStats(&after)
			if resp.StatusCode != tt.status || e.Code != tt.code || e.JA == "" || e.EN == "" || e.Now.IsZero() {
				t.Errorf("got %d %+v, want %d %s", resp.StatusCode, e, tt.status, tt.code)
			}
			if got := e.Index; (got == nil) != (tt.index < 0) || got != nil && *got != tt.index {
				t.Errorf("got index %v, want %d", got, tt.index)
			}
			// Client and server together, garbage included.
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 200 {
				t.Errorf("%d MB were allocated for it", mb)
			}
		})
	}
	if p, err := s.store.Alerts(t.Context(), alert.Filter{}); err != nil || len(p.Records) != 0 {
		t.Errorf("got %d alerts (%v), want none of a batch that was refused", len(p.Records), err)
	}
	resp, err := c.Get("https://" + s.addr + wire.PathBatches)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: got %d", resp.StatusCode)
	}
}

func TestTooManyRequestsOfOneAgentAreSentAway(t *testing.T) {
	s := newSite(t, func(o *collector.Options) { o.Rate = 1 })
	c, _ := s.agent()
	sent, began := 0, time.Now()
	for i := range 100 {
		resp, _, e := s.post(c, wire.PathBatches, []byte("{}"))
		if resp.StatusCode == 429 {
			if e.Code != "COL-06" || e.RetryAfter < 1 || resp.Header.Get("Retry-After") != fmt.Sprint(e.RetryAfter) {
				t.Errorf("got %+v, want a time to come back", e)
			}
			sent = i
			break
		}
	}
	// One a second may follow the burst, however slow this machine is.
	if took := time.Since(began); sent < 10 || sent > 11+int(took.Seconds()) {
		t.Errorf("%d requests passed in %v, want a burst of 10", sent, took)
	}
}

// held is a store that does not answer.
type held struct {
	collector.Store
	hold chan struct{}
}

func (h held) Ingest(ctx context.Context, d store.Delivery) error { <-h.hold; return nil }

func TestAnAgentHasTwoRequestsAtOnce(t *testing.T) {
	hold := make(chan struct{})
	s := newSite(t, func(o *collector.Options) { o.Store = held{o.Store, hold} })
	c, _ := s.agent()
	var wg sync.WaitGroup
	var ok, away atomic.Int32
	for range 6 {
		wg.Go(func() {
			resp, err := c.Post("https://"+s.addr+wire.PathBatches, "application/json", strings.NewReader("{}"))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			switch resp.StatusCode {
			case 200:
				ok.Add(1)
			case 429:
				if away.Add(1) == 4 {
					close(hold)
				}
			default:
				t.Errorf("got %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	if ok.Load() != 2 || away.Load() != 4 {
		t.Errorf("%d answered, %d sent away, want 2 and 4", ok.Load(), away.Load())
	}
}

// failing is a store whose disk is full.
type failing struct {
	collector.Store
	err error
}

func (f failing) Ingest(context.Context, store.Delivery) error { return f.err }

func TestWhatCannotBeStoredIsNotAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code string
	}{{fmt.Errorf("x: %w", store.ErrFull), "COL-08"}, {errors.New("disk I/O error"), "COL-09"}} {
		s := newSite(t, func(o *collector.Options) { o.Store = failing{o.Store, tt.err} })
		c, _ := s.agent()
		resp, _, e := s.post(c, wire.PathBatches, []byte("{}"))
		if resp.StatusCode != 503 || e.Code != tt.code || e.RetryAfter == 0 || strings.Contains(e.EN, "I/O") {
			t.Errorf("got %d %+v, want 503 %s without the cause", resp.StatusCode, e, tt.code)
		}
	}
}

func TestNoConnectionIsKeptForAClientThatStalls(t *testing.T) {
	ca, err := enroll.OpenCA(filepath.Join(t.TempDir(), "ca"))
	if err != nil {
		t.Fatal(err)
	}
	h := collector.NewServer(collector.Options{CA: ca}).HTTP(nil)
	for what, d := range map[string]time.Duration{"header": h.ReadHeaderTimeout, "body": h.ReadTimeout, "answer": h.WriteTimeout, "idle": h.IdleTimeout} {
		if d <= 0 || d > 5*time.Minute {
			t.Errorf("%s: got a limit of %v, want one of minutes at most", what, d)
		}
	}
}

func TestEnrolmentOverRealTLS(t *testing.T) {
	s := newSite(t, nil)
	dir := filepath.Join(t.TempDir(), "identity")
	first := s.enrol(pc, dir)
	if first.Known || first.Department() != "総務課" || first.Console != "https://"+s.addr || first.ClockOffset.Abs() > time.Minute {
		t.Errorf("got %+v", first)
	}
	id, err := enroll.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if id.AgentID() != first.AgentID() || id.Fingerprint() != first.Fingerprint() || len(id.URLs()) != 1 || time.Until(id.Expires()) < 29*24*time.Hour {
		t.Errorf("loaded %s until %s, want %s", id.AgentID(), id.Expires(), first.AgentID())
	}
	if again := s.enrol(pc, filepath.Join(t.TempDir(), "fresh")); !again.Known || again.AgentID() != first.AgentID() {
		t.Errorf("set up again: got %s, known %v, want %s", again.AgentID(), again.Known, first.AgentID())
	}
	_, _, e := s.post(clientOf(t, id.TLSConfig()), wire.PathBatches, []byte("{}"))
	if e.Code != enroll.CodeCertUnknown {
		t.Errorf("with the certificate that was replaced: got %+v, want %s", e, enroll.CodeCertUnknown)
	}
}

func TestARenewedCertificateTakesOver(t *testing.T) {
	s := newSite(t, nil)
	c, id := s.agent()
	select {
	case <-id.RenewalDue():
		t.Fatal("a new certificate is due for renewal")
	default:
	}
	oldCert, err := id.TLSConfig().GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := id.TLSConfig()
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return oldCert, nil }
	old := clientOf(t, cfg)
	ok := func(what string, c *http.Client, want string) {
		t.Helper()
		if _, _, e := s.post(c, wire.PathBatches, []byte("{}")); e.Code != want {
			t.Errorf("%s: got %+v, want %q", what, e, want)
		}
	}
	ok("the first one", c, "")
	fp := id.Fingerprint()
	id.RenewSoon()
	<-id.RenewalDue()
	if err := id.Renew(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if id.Fingerprint() == fp {
		t.Fatal("the certificate is the same")
	}
	select {
	case <-id.RenewalDue():
		t.Error("renewal is due again")
	default:
	}
	ok("the old one before the new one is used", old, "")
	// The connection from before is ended by the console, so that the client comes with its new certificate.
	for range 3 {
		ok("the client with an open connection", c, "")
	}
	r, err := s.store.Endpoint(t.Context(), id.AgentID())
	if err != nil || r.CertNext != "" {
		t.Errorf("got next certificate %q (%v), want it in use", r.CertNext, err)
	}
	old.CloseIdleConnections()
	cfg2 := id.TLSConfig()
	cfg2.GetClientCertificate = cfg.GetClientCertificate
	s2 := newSiteOf(t, s)
	if _, _, e := s2.post(clientOf(t, cfg2), wire.PathBatches, []byte("{}")); e.Code != enroll.CodeCertUnknown {
		t.Errorf("the old one after the new one was used: got %+v, want %s", e, enroll.CodeCertUnknown)
	}
}

// newSiteOf is another collector on the same database and authority, which
// remembers nothing of certificates.
func newSiteOf(t *testing.T, s *site) *site {
	return newSite(t, func(o *collector.Options) { o.Store, o.CA = s.store, s.ca })
}

func TestCertificatesThatAreNotAccepted(t *testing.T) {
	s := newSite(t, nil)
	_, id := s.agent()
	roots := id.TLSConfig().RootCAs
	made := func(ca *enroll.CA, agent string, expires time.Time) *tls.Config {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := ca.IssueClient(&key.PublicKey, agent, enroll.NewSerial(), expires)
		if err != nil {
			t.Fatal(err)
		}
		cert := tls.Certificate{PrivateKey: key}
		for rest := []byte(text); ; {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			cert.Certificate = append(cert.Certificate, b.Bytes)
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }}
	}
	other, err := enroll.OpenCA(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		config *tls.Config
		status int
		code   string
	}{
		{"none", &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}, 401, enroll.CodeCertUnknown},
		{"expired", made(s.ca, id.AgentID(), time.Now().Add(-time.Hour)), 401, enroll.CodeCertExpired},
		{"of another authority", made(other, id.AgentID(), time.Now().Add(time.Hour)), 401, enroll.CodeCertUnknown},
		{"not on record", made(s.ca, id.AgentID(), time.Now().Add(time.Hour)), 401, enroll.CodeCertUnknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{wire.PathBatches, wire.PathRenew} {
				resp, _, e := s.post(clientOf(t, tt.config), path, []byte("{}"))
				if resp.StatusCode != tt.status || e.Code != tt.code {
					t.Errorf("%s: got %d %+v, want %d %s", path, resp.StatusCode, e, tt.status, tt.code)
				}
			}
		})
	}
	if err := s.store.Revoke(t.Context(), id.AgentID()); err != nil {
		t.Fatal(err)
	}
	s2 := newSiteOf(t, s)
	if resp, _, e := s2.post(clientOf(t, id.TLSConfig()), wire.PathBatches, []byte("{}")); resp.StatusCode != 403 || e.Code != enroll.CodeRevoked {
		t.Errorf("revoked: got %d %+v, want 403 %s", resp.StatusCode, e, enroll.CodeRevoked)
	}
	old := &tls.Config{MaxVersion: tls.VersionTLS12, RootCAs: roots}
	if _, err := clientOf(t, old).Post("https://"+s.addr+wire.PathBatches, "application/json", strings.NewReader("{}")); err == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

func TestEnrolmentsThatAreRefusedSayWhy(t *testing.T) {
	s := newSite(t, nil)
	other, err := enroll.OpenCA(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	usedUp := s.token(1, nil)
	if _, err := enroll.Enroll(t.Context(), usedUp, pc, filepath.Join(t.TempDir(), "first")); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go http.Serve(plain, http.NotFoundHandler())
	const gone = "127.0.0.1:1" // no port that another test may be given meanwhile
	named, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := &http.Server{TLSConfig: s.ca.ServerTLS([]string{"console.example.jp"}), Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	go elsewhere.ServeTLS(named, "", "")
	defer elsewhere.Close()
	at := func(addrs ...string) string {
		return s.token(1, func(t *enroll.Token, _ *account.EnrollToken) { t.Addresses = addrs })
	}
	tests := []struct{ name, token, code, want string }{
		{"cut off", usedUp[:50], enroll.CodeToken, "cut off"},
		{"used up", usedUp, enroll.CodeTokenUsedUp, ""},
		{"unknown", s.token(1, func(t *enroll.Token, r *account.EnrollToken) { t.ID = "0011223344556677" }), enroll.CodeTokenUnknown, ""},
		{"wrong secret", s.token(1, func(t *enroll.Token, r *account.EnrollToken) { t.Secret[0]++ }), enroll.CodeTokenUnknown, ""},
		{"expired", s.token(1, func(t *enroll.Token, r *account.EnrollToken) { r.Expires = time.Now().Add(-time.Minute) }), enroll.CodeTokenExpired, ""},
		{"revoked", s.token(1, func(t *enroll.Token, r *account.EnrollToken) { r.Revoked = true }), enroll.CodeTokenRevoked, ""},
		{"wrong pin", s.token(1, func(t *enroll.Token, r *account.EnrollToken) { t.Pin = other.Pin() }), enroll.CodePin, "proxy"},
		{"nobody listens", at(gone), enroll.CodeRefused, "refused"},
		{"nobody answers", at(silent.Addr().String()), enroll.CodeTimeout, ""},
		{"no such name", at("no-such-host.invalid:8443"), enroll.CodeName, "no-such-host.invalid"},
		{"an address that is not in the certificate", at(named.Addr().String()), enroll.CodeAddress, "names"},
		{"not TLS", at(plain.Addr().String()), enroll.CodeAnswer, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limit := 2 * time.Minute
			if tt.code == enroll.CodeTimeout {
				limit = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			dir := filepath.Join(t.TempDir(), "identity")
			_, err := enroll.Enroll(ctx, tt.token, pc, dir)
			var e *enroll.Error
			if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s with %q", err, tt.code, tt.want)
			}
			if e.Text("ja") == e.Text("en") || e.JA == "" {
				t.Errorf("got %q in both languages", e.Text("ja"))
			}
			if _, err := enroll.Load(dir); err == nil {
				t.Error("an identity was stored")
			}
		})
	}
	e, err := enroll.Enroll(t.Context(), at(gone, "no-such-host.invalid:8443", s.addr), pc, filepath.Join(t.TempDir(), "id"))
	if err != nil || e.Console != "https://"+s.addr {
		t.Errorf("with a second address: got %+v, %v", e, err)
	}
}

func TestTheSecretIsNotSentToAnotherConsole(t *testing.T) {
	s := newSite(t, nil)
	other, err := enroll.OpenCA(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{TLSConfig: other.ServerTLS([]string{"127.0.0.1"}), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }),
		ErrorLog: log.New(io.Discard, "", 0)}
	go srv.ServeTLS(l, "", "")
	defer srv.Close()
	tok := s.token(1, func(t *enroll.Token, _ *account.EnrollToken) { t.Addresses = []string{l.Addr().String()} })
	_, err = enroll.Enroll(t.Context(), tok, pc, filepath.Join(t.TempDir(), "id"))
	var e *enroll.Error
	if !errors.As(err, &e) || e.Code != enroll.CodePin || requests.Load() != 0 {
		t.Errorf("got %v after %d requests, want %s before the first", err, requests.Load(), enroll.CodePin)
	}
}

func TestAClockThatIsOffIsToldOnceInTheLog(t *testing.T) {
	core, seen := observer.New(zap.InfoLevel)
	s := newSite(t, func(o *collector.Options) { o.Log = zap.New(core) })
	c, id := s.agent()
	for _, off := range []time.Duration{0, time.Minute, 24 * time.Hour, 25 * time.Hour, time.Second, -time.Hour} {
		_, reply, e := s.post(c, wire.PathBatches, jsonOf(t, wire.Batch{Sent: time.Now().Add(-off)}))
		if e.Code != "" || time.Since(reply.Now).Abs() > time.Minute {
			t.Errorf("clock %s off: got %+v, %+v, want it taken, with our time", off, reply, e)
		}
	}
	var got []string
	for _, l := range seen.All() {
		if strings.Contains(l.Message, "clock") {
			got = append(got, l.Message+" "+fmt.Sprint(l.ContextMap()["agent"] == id.AgentID()))
		}
	}
	want := []string{"an agent's clock is off true", "an agent's clock is right again true", "an agent's clock is off true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// lossy answers enrolments, but the answers do not arrive.
type lossy struct {
	http.Handler
	left atomic.Int32
}

func (l *lossy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.left.Add(-1) >= 0 {
		l.Handler.ServeHTTP(discard{w.Header()}, r)
		panic(http.ErrAbortHandler)
	}
	l.Handler.ServeHTTP(w, r)
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestALostReplySpendsNoSecondUse(t *testing.T) {
	s := newSite(t, nil)
	inner := collector.NewServer(collector.Options{Store: s.store, CA: s.ca})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &lossy{Handler: inner}
	h.left.Store(1)
	srv := inner.HTTP([]string{"127.0.0.1"})
	srv.Handler = h
	go srv.ServeTLS(l, "", "")
	defer srv.Close()
	s.addr = l.Addr().String()
	tok, dir := s.token(1, nil), filepath.Join(t.TempDir(), "id")
	if _, err := enroll.Enroll(t.Context(), tok, pc, dir); err == nil {
		t.Fatal("the answer arrived")
	}
	if _, err := enroll.Enroll(t.Context(), tok, pc, dir); err != nil {
		t.Errorf("the second try: %v", err)
	}
	toks, err := s.store.EnrollTokens(t.Context())
	if err != nil || len(toks) != 1 || toks[0].Used != 1 {
		t.Errorf("got %+v (%v), want one use", toks, err)
	}
}

// Every delivered byte comes from the network.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"sent":"2026-01-01T00:00:00Z","alerts":[],"activity":[{"@timestamp":"2026-01-01T00:00:00Z","event.id":"a"}]}`))
	f.Add(jsonOf(f, batchOf([]store.Alert{storetest.NewAlert(1, nil)}, storetest.NewRow(1))))
	f.Add([]byte(`{"alerts":[null,7,"x",{}],"status":{"sensors":[{}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := collector.DecodeDelivery(b)
		if err != nil {
			return
		}
		for _, a := range d.Alerts {
			if a.ID == "" || !json.Valid(a.Raw) || a.Time.Before(store.MinTime) {
				t.Errorf("alert %+v was taken", a)
			}
		}
		for _, r := range d.Activity {
			if r.ID == "" || !json.Valid(r.Raw) || r.Time.Before(store.MinTime) {
				t.Errorf("row %+v was taken", r)
			}
		}
	})
}

func BenchmarkBatches(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		b.Run(fmt.Sprintf("rows=%d", size), func(b *testing.B) {
			s := newSite(b, func(o *collector.Options) { o.Rate = 1 << 20 })
			c, _ := s.agent()
			for i := range b.N {
				var rows []store.Row
				for j := range size {
					rows = append(rows, storetest.NewRow(i*size+j))
				}
				resp, _, e := s.post(c, wire.PathBatches, zipped(jsonOf(b, batchOf(nil, rows...))), "Content-Encoding", "zstd")
				if resp.StatusCode != 200 {
					b.Fatal(e)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
