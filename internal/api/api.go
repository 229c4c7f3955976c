// Package api is the console's JSON API for scripts and other systems: alerts
// and endpoints, with bearer tokens. openapi.json describes it and is served by
// it; a test holds both together.
//
// Whatever is looked at is written to the audit log first: who, what, from
// where. A poll that finds nothing new has looked at nothing.
package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // openapi.json
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/peer"
)

// Store is what the API needs of the database. What is not there is an error
// that satisfies errors.Is(err, fs.ErrNotExist).
type Store interface {
	Alerts(ctx context.Context, f alert.Filter) (alert.Page, error)
	Alert(ctx context.Context, id string) (*alert.Record, error)
	AlertCounts(ctx context.Context) (alert.Counts, error)
	ChangeAlerts(ctx context.Context, ids []string, c alert.Change, user string, at time.Time) error
	Endpoints(ctx context.Context) ([]endpoint.Record, error)
	Endpoint(ctx context.Context, agentID string) (*endpoint.Record, error)
	TokenByHash(ctx context.Context, hash [32]byte) (*account.Token, error)
	TouchToken(ctx context.Context, id string, at time.Time) error
	Audit(ctx context.Context, e account.AuditEntry) error
}

// Root is where the API lives.
const Root = "/api/"

const tokenPrefix = "skt1_"

// NewToken makes a token and its text, which is shown once. A zero expires is
// never.
func NewToken(name string, role account.Role, expires time.Time) (account.Token, string) {
	var id [4]byte
	var secret [24]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	rand.Read(secret[:])
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return account.Token{ID: hex.EncodeToString(id[:]), Name: name, Role: role, Hash: sha256.Sum256([]byte(text)),
		Created: time.Now().UTC(), Expires: expires}, text
}

//go:embed openapi.json
var openapi []byte

// Limits of requests.
const (
	maxBody      = 64 << 10
	defaultLimit = 100
	maxLimit     = 1000
	// failRate and failBurst bound wrong tokens from one address. A token has 192
	// random bits; this only slows down a script that was given a wrong one.
	failRate, failBurst = 1, 20
)

// Server is the API, an http.Handler for all below Root. Safe for concurrent
// use. It starts no goroutine.
type Server struct {
	store Store
	log   *zap.Logger
	mux   *http.ServeMux

	mu       sync.Mutex               // guards all below
	failures map[string]*rate.Limiter // wrong tokens by peer.Network
}

// route is one line of the API.
type route struct {
	method, path string
	role         account.Role // empty: no token needed
	handle       func(s *Server, w http.ResponseWriter, r *http.Request, v visit) error
}

// routes is the whole API; openapi.json has the same.
var routes = []route{
	{"GET", "/api/v1/alerts", account.Viewer, (*Server).alerts},
	{"GET", "/api/v1/alerts/{id}", account.Viewer, (*Server).alert},
	{"PATCH", "/api/v1/alerts/{id}", account.Analyst, (*Server).changeAlert},
	{"GET", "/api/v1/endpoints", account.Viewer, (*Server).endpoints},
	{"GET", "/api/v1/endpoints/{id}", account.Viewer, (*Server).endpoint},
	{"GET", "/api/v1/openapi.json", "", (*Server).openapi},
}

// visit is who asks.
type visit struct {
	token  *account.Token
	remote string
}

func (v visit) who() string { return "token:" + v.token.ID }

// NewServer makes the API. log may be nil.
func NewServer(s Store, log *zap.Logger) *Server {
	if log == nil {
		log = zap.NewNop()
	}
	srv := &Server{store: s, log: log, mux: http.NewServeMux(), failures: map[string]*rate.Limiter{}}
	for _, rt := range routes {
		srv.mux.Handle(rt.method+" "+rt.path, srv.handle(rt))
	}
	srv.mux.Handle("/", srv.handle(route{handle: func(s *Server, w http.ResponseWriter, r *http.Request, _ visit) error {
		var allow []string
		for _, rt := range routes {
			if pathMatches(rt.path, r.URL.Path) {
				allow = append(allow, rt.method)
			}
		}
		if len(allow) > 0 {
			w.Header().Set("Allow", strings.Join(allow, ", "))
			return errMethod
		}
		return fs.ErrNotExist
	}}))
	return srv
}

// pathMatches reports whether a path is one of a route's.
func pathMatches(pattern, path string) bool {
	p, have := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(p) != len(have) {
		return false
	}
	for i := range p {
		if !strings.HasPrefix(p[i], "{") && p[i] != have[i] {
			return false
		}
	}
	return true
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

var (
	errToken     = errors.New("no valid token")
	errForbidden = errors.New("the token's role does not allow this")
	errMethod    = errors.New("method not allowed")
	errTooMany   = errors.New("too many wrong tokens")
)

// badRequest is a request that is wrong; its text is for the sender.
type badRequest struct{ text string }

func (e badRequest) Error() string { return e.text }

func wrong(format string, args ...any) error { return badRequest{fmt.Sprintf(format, args...)} }

// Problem is the body of every answer that is not 2xx.
type Problem struct {
	Code string `json:"code"` // see docs/errors.md
	JA   string `json:"ja"`
	EN   string `json:"en"`
}

// answers maps an error to a status and a text. The first match counts; anything
// else is trouble of ours.
var answers = []struct {
	is     func(error) bool
	status int
	Problem
}{
	{is(errToken), http.StatusUnauthorized, Problem{"API-01", "有効なトークンが必要です（Authorization: Bearer skt1_...）", "a valid token is needed (Authorization: Bearer skt1_...)"}},
	{is(errForbidden), http.StatusForbidden, Problem{"API-02", "このトークンの役割では許されていません", "the token's role does not allow this"}},
	{is(fs.ErrNotExist), http.StatusNotFound, Problem{"API-03", "見つかりません", "not found"}},
	{is(alert.ErrCursor), http.StatusBadRequest, Problem{"API-04", "after は前のページの next の値でなければなりません", "after has to be the next of the page before"}},
	{func(err error) bool { var e badRequest; return errors.As(err, &e) }, http.StatusBadRequest, Problem{"API-04", "要求に誤りがあります", "the request is wrong"}},
	{func(err error) bool { var e *http.MaxBytesError; return errors.As(err, &e) }, http.StatusRequestEntityTooLarge, Problem{"API-05", "本文が大きすぎます", "the body is too large"}},
	{is(errMethod), http.StatusMethodNotAllowed, Problem{"API-06", "この方法では使えません", "the method is not for this path"}},
	{is(errTooMany), http.StatusTooManyRequests, Problem{"API-07", "誤ったトークンによる要求が多すぎます", "too many requests with a wrong token"}},
}

var internal = Problem{"API-08", "コンソール側で問題が起きました", "the console had trouble of its own"}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// handle wraps a route: it finds out who asks, checks the role, bounds the body
// and renders errors.
func (s *Server) handle(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v := visit{remote: peer.Address(r)}
		err := func() (err error) {
			defer func() {
				if x := recover(); x != nil {
					if x == http.ErrAbortHandler {
						panic(x)
					}
					err = fmt.Errorf("panic: %v", x)
				}
			}()
			if rt.role != "" {
				if v.token, err = s.recognize(r, v.remote); err != nil {
					return err
				}
				if !v.token.Role.Can(rt.role) {
					return errForbidden
				}
			}
			return rt.handle(s, w, r, v)
		}()
		if err != nil {
			s.fail(w, r, v, err)
		}
	})
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, v visit, err error) {
	status, p := http.StatusInternalServerError, internal
	for _, a := range answers {
		if a.is(err) {
			status, p = a.status, a.Problem
			break
		}
	}
	var bad badRequest
	if errors.As(err, &bad) {
		p.JA, p.EN = p.JA+": "+bad.text, p.EN+": "+bad.text
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="sekisho"`)
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "10")
	}
	if r.Context().Err() != nil && status >= 500 {
		w.WriteHeader(http.StatusServiceUnavailable) // the caller has gone, or the console stops
		return
	}
	log := s.log.Info
	if status >= 500 {
		log = s.log.Error
	}
	fields := []zap.Field{zap.Int("status", status), zap.String("code", p.Code), zap.String("method", r.Method), zap.String("path", r.URL.Path), zap.String("remote", v.remote), zap.Error(err)}
	if v.token != nil {
		fields = append(fields, zap.String("token", v.token.ID))
	}
	log("API request refused", fields...)
	if err := answer(w, status, p); err != nil {
		s.log.Error("API answer", zap.Error(err))
	}
}

func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
	return nil
}

// recognize finds the token of a request.
func (s *Server) recognize(r *http.Request, remote string) (*account.Token, error) {
	kind, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	if !strings.EqualFold(kind, "Bearer") || text == "" {
		return nil, errToken
	}
	t, err := s.store.TokenByHash(r.Context(), sha256.Sum256([]byte(text)))
	now := time.Now()
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && (t.Revoked || !t.Expires.IsZero() && !now.Before(t.Expires)):
		if !s.mayFail(peer.Network(remote)) { // a valid one from there, behind the same proxy, is answered still
			return nil, errTooMany
		}
		return nil, errToken
	case err != nil:
		return nil, err
	}
	if err := s.store.TouchToken(r.Context(), t.ID, now); err != nil {
		return nil, err
	}
	return t, nil
}

// mayFail counts a wrong token and reports whether its network may send more.
func (s *Server) mayFail(network string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.failures[network]
	if l == nil {
		if len(s.failures) > 10_000 {
			clear(s.failures)
		}
		l = rate.NewLimiter(failRate, failBurst)
		s.failures[network] = l
	}
	return l.Allow()
}

// note writes to the audit log. What cannot be logged is not done.
func (s *Server) note(r *http.Request, v visit, action, object, detail string) error {
	detail = strings.ToValidUTF8(detail[:min(len(detail), 1000)], "") // it may hold a name that a PC gave itself
	return s.store.Audit(r.Context(), account.AuditEntry{Time: time.Now().UTC(), Who: v.who(), Action: action, Object: object, Detail: detail, Remote: v.remote})
}

// Alert is an alert as the API tells it.
type Alert struct {
	ID       string          `json:"id"`
	Seq      int64           `json:"seq"`
	AgentID  string          `json:"agent_id"`
	Received time.Time       `json:"received"`
	State    alert.State     `json:"state"`
	Assignee string          `json:"assignee,omitempty"`
	Reason   alert.Reason    `json:"reason,omitempty"`
	Changed  time.Time       `json:"changed,omitzero"`
	Test     bool            `json:"test,omitempty"`
	Alert    json.RawMessage `json:"alert"` // ECS; in lists without its evidence
	Log      []LogEntry      `json:"log,omitempty"`
}

// LogEntry is what somebody did with an alert.
type LogEntry struct {
	Time     time.Time    `json:"time"`
	User     string       `json:"user"`
	State    alert.State  `json:"state"`
	Assignee string       `json:"assignee,omitempty"`
	Reason   alert.Reason `json:"reason,omitempty"`
	Note     string       `json:"note,omitempty"`
}

// AlertPage is a part of the list of alerts.
type AlertPage struct {
	Alerts  []Alert `json:"alerts"`
	Next    string  `json:"next,omitempty"` // for after; none: this is the last page
	LastSeq int64   `json:"last_seq"`       // for after_seq, once all pages were read
}

func alertOf(r *alert.Record) Alert {
	a := Alert{ID: r.ID, Seq: r.Seq, AgentID: r.AgentID, Received: r.Received, State: r.State, Assignee: r.Assignee, Reason: r.Reason,
		Changed: r.Changed, Test: r.Test(), Alert: r.Raw}
	if a.Alert == nil {
		a.Alert = r.AppendJSON(nil)
	}
	for _, e := range r.Log {
		a.Log = append(a.Log, LogEntry(e))
	}
	return a
}

// query reads a query string strictly: a name that nobody knows is an error,
// not a filter that does nothing.
type query struct {
	v     url.Values
	known []string
	err   error
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = wrong(format, args...)
	}
}

func (q *query) text(name string) string {
	q.known = append(q.known, name)
	switch vs := q.v[name]; {
	case len(vs) > 1:
		q.fail("%s is given twice", name)
	case len(vs) == 1 && len(vs[0]) > 4096:
		q.fail("%s is too long", name)
	case len(vs) == 1:
		return vs[0]
	}
	return ""
}

// list is values given several times or with commas in between.
func (q *query) list(name string) []string {
	q.known = append(q.known, name)
	var out []string
	for _, v := range q.v[name] {
		for _, w := range strings.Split(v, ",") {
			if w != "" {
				out = append(out, w)
			}
		}
	}
	if len(out) > 20 {
		q.fail("%s has too many values", name)
	}
	return out
}

func (q *query) number(name string, otherwise, least, most int64) int64 {
	s := q.text(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < least || n > most {
		q.fail("%s: want a whole number from %d to %d", name, least, most)
	}
	return n
}

func (q *query) time(name string) time.Time {
	s := q.text(name)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		q.fail("%s: want a time such as 2026-04-01T00:00:00Z", name)
	}
	return t
}

func (q *query) end() error {
	for name := range q.v {
		if !slices.Contains(q.known, name) {
			q.fail("%.40q is not a parameter here; these are: %s", name, strings.Join(q.known, ", "))
		}
	}
	return q.err
}

func queryOf(r *http.Request) (*query, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong("the query cannot be read")
	}
	return &query{v: v}, nil
}

func (s *Server) alerts(w http.ResponseWriter, r *http.Request, v visit) error {
	q, err := queryOf(r)
	if err != nil {
		return err
	}
	f := alert.Filter{
		Rule: q.text("rule"), Host: q.text("host"), AgentID: q.text("agent"), User: q.text("user"), Assignee: q.text("assignee"),
		Group: q.text("group"), Text: q.text("q"), From: q.time("from"), To: q.time("to"), After: q.text("after"),
		AfterSeq: q.number("after_seq", 0, 0, 1<<62), Limit: int(q.number("limit", defaultLimit, 1, maxLimit)),
	}
	for _, name := range q.list("state") {
		if st := alert.State(name); slices.Contains(alert.States, st) {
			f.States = append(f.States, st)
		} else {
			q.fail("state %.40q: want one of %q", name, alert.States)
		}
	}
	for _, name := range q.list("level") {
		l, ok := alert.ParseLevel(name)
		if !ok {
			q.fail("level %.40q: want one of %q", name, alert.LevelNames)
		}
		f.Levels = append(f.Levels, l)
	}
	switch tests := q.text("tests"); tests {
	case "", "false":
	case "true":
		f.Tests = true
	case "only":
		f.TestsOnly = true
	default:
		q.fail("tests %.40q: want true, false or only", tests)
	}
	if err := q.end(); err != nil {
		return err
	}
	counts, err := s.store.AlertCounts(r.Context()) // before the list: what comes in between is told again, not missed
	if err != nil {
		return err
	}
	page, err := s.store.Alerts(r.Context(), f)
	if err != nil {
		return err
	}
	out := AlertPage{Alerts: make([]Alert, 0, len(page.Records)), Next: page.Next, LastSeq: counts.LastSeq}
	for i := range page.Records {
		out.Alerts = append(out.Alerts, alertOf(&page.Records[i]))
	}
	if len(out.Alerts) > 0 {
		if err := s.note(r, v, "alert-list", "", fmt.Sprintf("%d alerts, %s", len(out.Alerts), cmp.Or(r.URL.RawQuery, "no filter"))); err != nil {
			return err
		}
	}
	return answer(w, http.StatusOK, out)
}

func (s *Server) alert(w http.ResponseWriter, r *http.Request, v visit) error {
	rec, err := s.store.Alert(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.note(r, v, "alert-view", rec.ID, rec.About()); err != nil {
		return err
	}
	return answer(w, http.StatusOK, alertOf(rec))
}

// Change is the body of PATCH /api/v1/alerts/{id}. What is absent stays.
type Change struct {
	State    alert.State  `json:"state"`
	Assignee *string      `json:"assignee"`
	Reason   alert.Reason `json:"reason"`
	Note     string       `json:"note"`
}

func (s *Server) changeAlert(w http.ResponseWriter, r *http.Request, v visit) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return wrong("Content-Type has to be application/json")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var c Change
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return wrong("body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); err != io.EOF {
		return wrong("body: text after the object")
	}
	change := alert.Change(c)
	if err := change.Check(); err != nil {
		return wrong("%v", err)
	}
	id := r.PathValue("id")
	if _, err := s.store.Alert(r.Context(), id); err != nil {
		return err
	}
	if err := s.note(r, v, "alert-change", id, strings.TrimSpace(string(c.State)+" "+string(c.Reason))); err != nil {
		return err
	}
	if err := s.store.ChangeAlerts(r.Context(), []string{id}, change, v.who(), time.Now().UTC()); err != nil {
		return err
	}
	rec, err := s.store.Alert(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, alertOf(rec))
}

// Endpoint is an endpoint as the API tells it.
type Endpoint struct {
	endpoint.Record
	Health endpoint.Health `json:"health"`
}

// EndpointPage is a part of the list of endpoints.
type EndpointPage struct {
	Endpoints []Endpoint `json:"endpoints"`
	Next      string     `json:"next,omitempty"`
}

func (s *Server) endpoints(w http.ResponseWriter, r *http.Request, v visit) error {
	q, err := queryOf(r)
	if err != nil {
		return err
	}
	healths, department, host := q.list("health"), q.text("department"), q.text("host")
	after, limit := q.text("after"), int(q.number("limit", defaultLimit, 1, maxLimit))
	if err := q.end(); err != nil {
		return err
	}
	// By agent id, which neither changes nor repeats, so that a page's end is a place to go on from.
	if b, err := base64.RawURLEncoding.DecodeString(after); err != nil {
		return alert.ErrCursor
	} else {
		after = string(b)
	}
	all, err := s.store.Endpoints(r.Context())
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b endpoint.Record) int { return strings.Compare(a.AgentID, b.AgentID) })
	out, now := EndpointPage{Endpoints: []Endpoint{}}, time.Now()
	for _, rec := range all {
		e := Endpoint{rec, rec.Health(now)}
		if rec.AgentID <= after || department != "" && rec.Department != department || host != "" && rec.HostName != host ||
			len(healths) > 0 && !slices.Contains(healths, string(e.Health)) {
			continue
		}
		if len(out.Endpoints) == limit {
			out.Next = base64.RawURLEncoding.EncodeToString([]byte(out.Endpoints[limit-1].AgentID))
			break
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	if len(out.Endpoints) > 0 {
		if err := s.note(r, v, "endpoint-list", "", fmt.Sprintf("%d endpoints, %s", len(out.Endpoints), cmp.Or(r.URL.RawQuery, "no filter"))); err != nil {
			return err
		}
	}
	return answer(w, http.StatusOK, out)
}

func (s *Server) endpoint(w http.ResponseWriter, r *http.Request, v visit) error {
	rec, err := s.store.Endpoint(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := s.note(r, v, "endpoint-view", rec.AgentID, rec.HostName); err != nil {
		return err
	}
	return answer(w, http.StatusOK, Endpoint{*rec, rec.Health(time.Now())})
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request, _ visit) error {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openapi)
	return nil
}
