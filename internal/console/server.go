package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/peer"
)

// Options are what a console needs.
type Options struct {
	Store    Store          // required
	Logger   *zap.Logger    // nil: no log
	Version  string         // shown in the frame
	Location *time.Location // of the times shown; nil: Asia/Tokyo

	// SecureCookies marks the session cookie Secure although the server
	// itself speaks plain HTTP, because TLS ends in front of it.
	SecureCookies bool
	SessionIdle   time.Duration // a session ends unused after it; 0: 2 h, a long meeting
	SessionMax    time.Duration // a session ends after it; 0: 12 h, one shift with overtime
	MaxStreams    int           // live streams at once; 0: 500, about 8 MB of buffers
}

// Server is the web console, an http.Handler. Safe for concurrent use. It
// starts no goroutine of its own.
type Server struct {
	o        Options
	log      *zap.Logger
	handler  http.Handler
	printers map[string]*printer // by language
	static   *staticFiles

	byIP, byName *limiter
	told         *limiter      // bounds the entries of the audit log about those two
	hashing      chan struct{} // bounds how many password checks wait
	live         live
}

// Body limits. Every form of the console is small; a longer note than this is a
// document and belongs elsewhere.
const (
	maxForm = 64 << 10 // bytes of any POST body
	maxNote = 4_000    // bytes of a note, about 1,300 Japanese characters
)

// NewServer makes the console. It panics if the embedded templates or
// catalogues are broken, which the package's tests rule out.
func NewServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Location == nil {
		o.Location = tokyo()
	}
	o.SessionIdle = orDefault(o.SessionIdle, 2*time.Hour)
	o.SessionMax = orDefault(o.SessionMax, 12*time.Hour)
	o.MaxStreams = orDefault(o.MaxStreams, 500)
	s := &Server{
		o:        o,
		log:      o.Logger,
		static:   loadStatic(),
		printers: map[string]*printer{},
		byIP:     newLimiter(6*time.Second, 20),
		byName:   newLimiter(30*time.Second, 10),
		told:     newLimiter(time.Minute, 1),
		hashing:  make(chan struct{}, waiting),
	}
	for _, lang := range languages {
		s.printers[lang] = newPrinter(lang, o.Location, s.static.prefix)
	}
	s.handler = s.routes()
	return s
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// tokyo is the zone of Japan. Windows and small containers have no zone table;
// Japan has had no summer time since 1951, so a fixed zone is the same.
func tokyo() *time.Location {
	if loc, err := time.LoadLocation("Asia/Tokyo"); err == nil {
		return loc
	}
	return time.FixedZone("JST", 9*60*60)
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Who may use a route.
var (
	anyone     = access{public: true}
	signedIn   = access{}
	unfinished = access{unfinished: true}
	viewer     = access{role: account.Viewer}
	analyst    = access{role: account.Analyst}
	auditor    = access{role: account.Auditor}
)

type access struct {
	public bool         // no session needed
	role   account.Role // empty: any role
	// unfinished lets those in who still have to change a one-time password.
	unfinished bool
}

// routes is the whole surface of the console, besides static files.
var routes = []struct {
	pattern string
	access  access
	handle  func(s *Server, w http.ResponseWriter, r *http.Request) error
}{
	{"GET /{$}", signedIn, (*Server).home},
	{"GET /login", anyone, (*Server).showLogin},
	{"POST /login", anyone, (*Server).login},
	{"POST /logout", unfinished, (*Server).logout},
	{"POST /lang", anyone, (*Server).setLang},
	{"POST /theme", anyone, (*Server).setTheme},
	{"GET /account", unfinished, (*Server).showAccount},
	{"POST /account/password", unfinished, (*Server).changePassword},

	{"GET /alerts", viewer, (*Server).alerts},
	{"GET /alerts.csv", viewer, (*Server).alertsCSV},
	{"GET /alerts/{id}", viewer, (*Server).alert},
	{"GET /alerts/{id}/raw", viewer, (*Server).alertRaw},
	{"POST /alerts/{id}", analyst, (*Server).changeAlert},
	{"GET /endpoints", viewer, (*Server).endpoints},
	{"GET /endpoints/{id}", viewer, (*Server).endpoint},
	{"GET /audit", auditor, (*Server).audit},
	{"GET /live", viewer, (*Server).stream},
}

// routes is routes with what stands around each.
func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	for _, rt := range routes {
		m.Handle(rt.pattern, s.page(rt.access, func(w http.ResponseWriter, r *http.Request) error { return rt.handle(s, w, r) }))
	}
	m.Handle("GET "+staticRoot+"{rest...}", s.static)
	m.Handle("/", s.page(anyone, func(http.ResponseWriter, *http.Request) error { return fs.ErrNotExist }))

	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(s.page(anyone, func(http.ResponseWriter, *http.Request) error { return errCrossSite }))
	return headers(cross.Handler(m))
}

// csp lets a page use what this server gives and nothing else: no inline
// script or style, no frame, no other origin.
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// headers are on every answer.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), usb=(), browsing-topics=()")
		h.Set("Cache-Control", "no-store") // pages name people; static files say otherwise
		next.ServeHTTP(w, r)
	})
}

// handler answers a request or says why not; it has written nothing if it
// returns an error.
type handler func(w http.ResponseWriter, r *http.Request) error

// visit is what is known of a request before its handler runs.
type visit struct {
	p       *printer
	theme   string           // "light", "dark", "auto"
	user    *account.User    // nil: not signed in
	session *account.Session // nil: not signed in
	remote  string           // address without port
	start   time.Time        // of the request
}

type visitKey struct{}

// visitOf is the visit that page put into the request.
func visitOf(r *http.Request) *visit { return r.Context().Value(visitKey{}).(*visit) }

// The errors that handlers return besides those of the store.
var (
	errBadRequest  = errors.New("bad request")
	errForbidden   = errors.New("forbidden")
	errCrossSite   = errors.New("request from another site")
	errTooMany     = errors.New("too many requests")
	errSignIn      = errors.New("not signed in")
	errTooManyOpen = errors.New("too many live streams")
)

// answers maps an error to a status and the text people see (catalogue keys
// KEY and KEY.hint). The first match counts; anything else is a 500.
var answers = []struct {
	is     func(error) bool
	status int
	key    string
}{
	{is(fs.ErrNotExist), http.StatusNotFound, "error.missing"},
	{is(errBadRequest), http.StatusBadRequest, "error.bad"},
	{is(alert.ErrCursor), http.StatusBadRequest, "error.bad"},
	{func(err error) bool { var e *http.MaxBytesError; return errors.As(err, &e) }, http.StatusRequestEntityTooLarge, "error.large"},
	{is(errSignIn), http.StatusUnauthorized, "error.signin"},
	{is(errForbidden), http.StatusForbidden, "error.forbidden"},
	{is(errCrossSite), http.StatusForbidden, "error.crosssite"},
	{is(errTooMany), http.StatusTooManyRequests, "error.toomany"},
	{is(errTooManyOpen), http.StatusServiceUnavailable, "error.busy"},
	{is(context.DeadlineExceeded), http.StatusServiceUnavailable, "error.busy"},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// page wraps a handler: it finds out who asks, checks the rights, bounds the
// body, and turns an error into a page and a line of the log.
func (s *Server) page(a access, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{remote: peer.Address(r), theme: themeOf(r), start: time.Now()}
		err := s.recognize(r, v)
		v.p = s.printers[langOf(r, v.user)]
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		w.Header().Add("Vary", "Cookie, Accept-Language, "+partHeader)
		if err == nil {
			err = s.admit(w, r, a, h)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// admit runs the handler if the visitor may.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, a access, h handler) (err error) {
	defer func() {
		if x := recover(); x != nil {
			if x == http.ErrAbortHandler {
				panic(x)
			}
			err = fmt.Errorf("panic: %v", x)
		}
	}()
	v := visitOf(r)
	switch {
	case a.public:
	case v.user == nil && (r.Method != http.MethodGet || partOf(r) != ""):
		return errSignIn
	case v.user == nil:
		to := "/login"
		if r.URL.Path != "/" {
			to += "?next=" + url.QueryEscape(r.URL.RequestURI())
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
		return nil
	case v.user.MustChange && !a.unfinished:
		if partOf(r) != "" {
			return errForbidden
		}
		http.Redirect(w, r, "/account", http.StatusSeeOther)
		return nil
	case a.role != "" && !v.user.Role.Can(a.role):
		return errForbidden
	}
	return h(w, r)
}

// fail shows an error page, or a short text to script, with an id that finds
// the cause in the log.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	v := visitOf(r)
	status, key := http.StatusInternalServerError, "error.internal"
	for _, a := range answers {
		if a.is(err) {
			status, key = a.status, a.key
			break
		}
	}
	if r.Context().Err() != nil && status >= 500 {
		w.WriteHeader(http.StatusServiceUnavailable) // the browser has gone, or the console stops
		return
	}
	id := randomHex(4)
	fields := []zap.Field{zap.String("error_id", id), zap.Int("status", status), zap.String("method", r.Method),
		zap.String("path", cutBytes(r.URL.Path, 200)), zap.String("remote", v.remote), zap.Error(err)}
	if v.user != nil {
		fields = append(fields, zap.String("user", v.user.Name))
	}
	if status >= 500 {
		s.log.Error("console request failed", fields...)
	} else {
		s.log.Info("console request refused", fields...)
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "30")
	}
	if partOf(r) != "" {
		http.Error(w, v.p.t(key)+" "+v.p.t(key+".hint")+" ("+id+")", status)
		return
	}
	e := errorPage{frame: s.frame(r, v.p.t(key), ""), Heading: v.p.t(key), Hint: v.p.t(key + ".hint"), ID: id, Status: status}
	if err := s.render(w, r, status, "error", e); err != nil {
		s.log.Error("error page", zap.String("error_id", id), zap.Error(err))
		http.Error(w, v.p.t(key)+" ("+id+")", status)
	}
}

type errorPage struct {
	frame
	Heading, Hint, ID string
	Status            int
}

// partHeader asks for a part of a page instead of the whole: "list", "detail".
// Script sets it; only pages of the same origin can.
const partHeader = "Sekisho-Part"

func partOf(r *http.Request) string { return r.Header.Get(partHeader) }

// buffers are reused between pages.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// render executes a page, or the part of it that was asked for, into a buffer
// and then writes it, so that an error never leaves half a page.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) error {
	b := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(b)
	b.Reset()
	block := "base.html"
	if part := partOf(r); part != "" {
		block = part
	}
	t := visitOf(r).p.pages[name]
	if t.Lookup(block) == nil {
		return fmt.Errorf("%w: page %s has no part %q", errBadRequest, name, block)
	}
	if err := t.ExecuteTemplate(b, block, data); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(b.Bytes())
	if err != nil {
		s.log.Debug("write page", zap.Error(err))
	}
	return nil
}

// frame is what every page shows around its content.
type frame struct {
	Lang    string
	Theme   string
	Title   string
	Here    string // path and query, to come back to after a change of language
	Nav     []navEntry
	User    *account.User
	Version string
	Query   string // of the search field
	CanAct  bool   // may triage
}

type navEntry struct {
	Key, Href string
	Active    bool
	Count     string // empty: none is shown
	ID        string // of the count
}

// frame fills the frame; nav is the active entry of the rail.
func (s *Server) frame(r *http.Request, title, nav string) frame {
	v := visitOf(r)
	f := frame{Lang: v.p.lang, Theme: v.theme, Title: title, Here: r.URL.RequestURI(), User: v.user, Version: s.o.Version}
	if r.Method != http.MethodGet || !localPath(f.Here) {
		f.Here = "/"
	}
	if v.user == nil || v.user.MustChange {
		return f
	}
	f.CanAct = v.user.Role.Can(account.Analyst)
	entry := func(role account.Role, key, href string) {
		if v.user.Role.Can(role) {
			f.Nav = append(f.Nav, navEntry{Key: key, Href: href, Active: key == nav})
		}
	}
	entry(account.Viewer, "alerts", "/alerts")
	entry(account.Viewer, "endpoints", "/endpoints")
	entry(account.Auditor, "audit", "/audit")
	f.Nav = append(f.Nav, navEntry{Key: "account", Href: "/account", Active: nav == "account"})
	if v.user.Role.Can(account.Viewer) {
		if c, err := s.counts(r.Context(), v.start); err == nil {
			f.Nav[0].Count, f.Nav[0].ID = v.p.number(int64(c.triage())), "live-open-count"
		}
	}
	return f
}

// note writes to the audit log. An act that cannot be logged is not done:
// callers return the error.
func (s *Server) note(r *http.Request, who, action, object, detail string) error {
	e := account.AuditEntry{Time: time.Now().UTC(), Who: who, Action: action, Object: cut(object, 200), Detail: cut(detail, 1000), Remote: visitOf(r).remote}
	if err := s.o.Store.Audit(r.Context(), e); err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	return nil
}

// home sends people to the screen of their role.
func (s *Server) home(w http.ResponseWriter, r *http.Request) error {
	to := "/alerts"
	if !visitOf(r).user.Role.Can(account.Viewer) {
		to = "/audit"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// localPath reports whether a redirect to p stays on this server.
func localPath(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.HasPrefix(p, "//") || strings.ContainsAny(p, "\\\r\n\t") {
		return false
	}
	u, err := url.Parse(p)
	return err == nil && u.Host == "" && u.Scheme == ""
}

// back is where a form wants to go on to: its field next if that is ours.
func back(r *http.Request, otherwise string) string {
	if next := r.PostFormValue("next"); localPath(next) {
		return next
	}
	return otherwise
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}
