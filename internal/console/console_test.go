package console_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/console"
	"sekisho/internal/console/canned"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/store"
)

const password = "correct horse battery"

// hashed is the password's hash, made once: argon2id takes its time.
var hashed = sync.OnceValues(func() (string, error) { return account.HashPassword(password) })

// A site is a console on a real database behind a real server.
type site struct {
	*testing.T
	store database
	url   string
	logs  *observer.ObservedLogs
}

// database is what the tests need of the store beside what the console does.
type database interface {
	console.Store
	AddUser(context.Context, *account.User) error
	DisableUser(context.Context, int64) error
	Ingest(context.Context, store.Delivery) error
}

func newSite(t *testing.T, o console.Options) *site {
	t.Helper()
	db, err := store.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "main.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	core, logs := observer.New(zap.DebugLevel)
	o.Store, o.Logger, o.Version = db, zap.New(core), "test"
	srv := httptest.NewServer(console.NewServer(o))
	t.Cleanup(srv.Close)
	s := &site{t, db, srv.URL, logs}
	for _, role := range account.Roles {
		s.addUser(account.User{Name: string(role), Role: role, Lang: "en"})
	}
	return s
}

func (s *site) addUser(u account.User) {
	s.Helper()
	hash, err := hashed()
	if err != nil {
		s.Fatal(err)
	}
	u.PasswordHash, u.Created = hash, time.Now().UTC()
	if err := s.store.AddUser(context.Background(), &u); err != nil {
		s.Fatal(err)
	}
}

// ingest delivers alerts as an agent would and answers their ids.
func (s *site) ingest(alerts ...*alert.Alert) (ids []string) {
	s.Helper()
	d := store.Delivery{AgentID: "0192f0aa-0000-7000-8000-000000000001", Received: time.Now().UTC()}
	for _, a := range alerts {
		read, err := store.NewAlert(a.AppendJSON(nil)) // as the collector does
		if err != nil {
			s.Fatal(err)
		}
		d.Alerts = append(d.Alerts, read)
		ids = append(ids, a.ID)
	}
	if err := s.store.Ingest(context.Background(), d); err != nil {
		s.Fatal(err)
	}
	return ids
}

// A browser keeps cookies and does not follow redirects.
type browser struct {
	s      *site
	client *http.Client
	header http.Header // sent with every request
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.Fatal(err)
	}
	return &browser{s, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		http.Header{"Sec-Fetch-Site": {"same-origin"}}}
}

// signedIn is a browser in which name has signed in. The session is put into the
// store directly: checking a password takes 0.1 s, ten times that with -race.
func (s *site) signedIn(name string) *browser {
	s.Helper()
	now := time.Now().UTC()
	return s.signedInAt(name, now, now)
}

// signedInAt is signedIn with a session that was begun and last used at some time.
func (s *site) signedInAt(name string, created, seen time.Time) *browser {
	s.Helper()
	u, err := s.store.UserByName(context.Background(), name)
	if err != nil {
		s.Fatal(err)
	}
	key := make([]byte, 32)
	rand.Read(key)
	if err := s.store.AddSession(context.Background(), account.Session{Hash: sha256.Sum256(key), UserID: u.ID, Created: created, Seen: seen}); err != nil {
		s.Fatal(err)
	}
	b := s.browser()
	at, err := url.Parse(s.url)
	if err != nil {
		s.Fatal(err)
	}
	b.client.Jar.SetCookies(at, []*http.Cookie{{Name: "sekisho", Value: base64.RawURLEncoding.EncodeToString(key)}})
	return b
}

func (b *browser) login(name, password string) (status int, location string) {
	b.s.Helper()
	r, _ := b.do("POST", "/login", url.Values{"user": {name}, "password": {password}})
	return r.StatusCode, r.Header.Get("Location")
}

func (b *browser) do(method, path string, form url.Values) (*http.Response, string) {
	b.s.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, b.s.url+path, body)
	if err != nil {
		b.s.Fatal(err)
	}
	req.Header = b.header.Clone()
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r, err := b.client.Do(req)
	if err != nil {
		b.s.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.s.Fatal(err)
	}
	return r, string(text)
}

// get reads a page that has to be there.
func (b *browser) get(path string) string {
	b.s.Helper()
	r, text := b.do("GET", path, nil)
	if r.StatusCode != http.StatusOK {
		b.s.Fatalf("GET %s: status %d: %.300s", path, r.StatusCode, text)
	}
	return text
}

func (b *browser) part(name string) *browser {
	c := *b
	c.header = b.header.Clone()
	c.header.Set("Sekisho-Part", name)
	return &c
}

func (s *site) audited() (actions []string) {
	s.Helper()
	log, err := s.store.AuditLog(context.Background(), 0, 1000)
	if err != nil {
		s.Fatal(err)
	}
	for _, e := range slices.Backward(log) {
		actions = append(actions, strings.TrimSpace(e.Who+" "+e.Action))
	}
	return actions
}

func (s *site) wantAudit(want string) {
	s.Helper()
	if got := s.audited(); !slices.Contains(got, want) {
		s.Errorf("audit log: want %q among %q", want, got)
	}
}

func TestLookingAtAnEndpointIsLogged(t *testing.T) {
	s := newSite(t, console.Options{})
	db := s.store.(*store.SQLite)
	now := time.Now().UTC()
	if err := db.AddEnrollToken(t.Context(), account.EnrollToken{ID: "t", Uses: 1, Created: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	pc, err := db.Enrol(t.Context(), store.Enrolment{TokenID: "t", Host: endpoint.Identity{HostID: "h", HostName: "pc-1"}, Serial: "01", Expires: now.Add(time.Hour), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	b := s.signedIn("viewer")
	for n, path := range []string{"/endpoints/" + pc.AgentID, "/endpoints?open=" + pc.AgentID} {
		wantContains(t, b.get(path), "pc-1")
		views := 0
		for _, act := range s.audited() {
			if act == "viewer endpoint-view" {
				views++
			}
		}
		if views != n+1 {
			t.Errorf("%s: %d views in the audit log, want %d", path, views, n+1)
		}
	}
	wantContains(t, s.signedIn("admin").get("/audit"), `href="/endpoints/`+pc.AgentID, "<bdi>pc-1</bdi>")
	auditor := s.signedIn("auditor").get("/audit")
	wantContains(t, auditor, pc.AgentID, "<bdi>pc-1</bdi>")
	if strings.Contains(auditor, `href="/endpoints/`) {
		t.Error("the audit log leads an auditor to what they may not see")
	}
}

func TestWhatIsStrangeAboutADeviceStandsOnLinesOfItsOwn(t *testing.T) {
	s := newSite(t, console.Options{})
	id := s.ingest(canned.Alert(5, time.Now().UTC()))[0]
	wantContains(t, s.signedIn("viewer").get("/alerts/"+id), "it types and stores files<br>another one with this serial number is attached")
}

func TestANameOfAnyScriptHasAnInitial(t *testing.T) {
	s := newSite(t, console.Options{})
	s.addUser(account.User{Name: "鈴木", Role: account.Viewer})
	wantContains(t, s.signedIn("鈴木").get("/account"), `aria-hidden="true">鈴</span>`)
}

// What a sensor that works has to say is no warning.
func TestAReasonIsColouredOnlyWhereASensorHasTrouble(t *testing.T) {
	st := canned.Full(time.Now().UTC(), "suzuki")
	st.AddUser(account.User{Name: "viewer", Role: account.Viewer, Lang: "en"})
	srv := httptest.NewServer(console.NewServer(console.Options{Store: st}))
	defer srv.Close()
	b := (&site{T: t, url: srv.URL, store: inMemory{st}}).signedIn("viewer")
	wantContains(t, b.get("/endpoints/0192f0aa-0000-7000-8000-000000000002"),
		`<p class="sensor-reason sensor-degraded"><bdi>fanotify: operation not permitted`, `<p class="sensor-reason"><bdi>times are to two seconds`)
}

func wantContains(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("page lacks %q", w)
		}
	}
}

func TestEveryPageCarriesTheSecurityHeaders(t *testing.T) {
	s := newSite(t, console.Options{})
	const csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	in := s.signedIn("admin")
	for _, path := range []string{"/login", "/alerts", "/endpoints", "/audit", "/account", "/nothing-here", "/static/x/app.js"} {
		r, text := in.do("GET", path, nil)
		want := map[string]string{"Content-Security-Policy": csp, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "X-Frame-Options": "DENY", "Cache-Control": "no-store"}
		for name, v := range want {
			if got := r.Header.Get(name); got != v {
				t.Errorf("%s: %s: got %q, want %q", path, name, got, v)
			}
		}
		if regexp.MustCompile(`(?i)<[^>]+\s(style|on[a-z]+)=`).MatchString(text) {
			t.Errorf("%s has an inline style or handler, which the policy refuses", path)
		}
	}
}

func TestSigningIn(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.browser()
	if r, _ := b.do("GET", "/alerts?level=high", nil); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/login?next=%2Falerts%3Flevel%3Dhigh" {
		t.Errorf("not signed in: got %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	for _, try := range []struct{ name, password string }{{"admin", "wrong password"}, {"nobody", password}, {"", ""}, {"admin", strings.Repeat("x", 5000)}} {
		if status, _ := b.login(try.name, try.password); status != http.StatusUnprocessableEntity {
			t.Errorf("%q with %.10q: status %d, want 422", try.name, try.password, status)
		}
	}
	s.wantAudit("login-failed")
	r, _ := b.do("POST", "/login", url.Values{"user": {" Admin "}, "password": {password}, "next": {"/endpoints"}})
	if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != "/endpoints" {
		t.Fatalf("sign in: got %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	c := r.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || len(c.Value) != 43 {
		t.Errorf("cookie %+v: want HttpOnly, Lax, 256 bits, not Secure over plain HTTP", c)
	}
	s.wantAudit("admin login")
	wantContains(t, b.get("/alerts"), `id="logout"`, `data-nav="endpoints"`)

	if r, _ := b.do("POST", "/logout", url.Values{}); r.StatusCode != http.StatusSeeOther {
		t.Errorf("sign out: status %d", r.StatusCode)
	}
	req, _ := http.NewRequest("GET", s.url+"/alerts", nil)
	req.AddCookie(c) // the browser forgot it, a thief did not
	if r, err := b.client.Do(req); err != nil || r.StatusCode != http.StatusSeeOther {
		t.Errorf("a cookie after sign-out: status %v, %v", r.StatusCode, err)
	}
	s.wantAudit("admin logout")
}

func TestASignInGoesOnToThisServerOnly(t *testing.T) {
	s := newSite(t, console.Options{})
	r, _ := s.browser().do("POST", "/login", url.Values{"user": {"viewer"}, "password": {password}, "next": {"//evil.example/"}})
	if got := r.Header.Get("Location"); got != "/" {
		t.Errorf("redirected to %q, want /", got)
	}
	if text := s.browser().get("/login?next=https://evil.example/"); strings.Contains(text, `value="https://evil.example`) {
		t.Error("the form carries another server's address")
	}
}

func TestCookiesAreSecureWhereTLSEndsInFront(t *testing.T) {
	s := newSite(t, console.Options{SecureCookies: true})
	r, _ := s.browser().do("POST", "/login", url.Values{"user": {"admin"}, "password": {password}})
	if c := r.Cookies()[0]; !c.Secure || c.Name != "__Host-sekisho" || c.Path != "/" {
		t.Errorf("cookie %+v: want Secure with the __Host- prefix", c)
	}
}

func TestASessionIsNewAfterSigningIn(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.browser()
	u, _ := url.Parse(s.url)
	planted := strings.Repeat("A", 43)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: "sekisho", Value: planted}})
	b.login("admin", password)
	first := b.client.Jar.Cookies(u)[0].Value
	if first == planted {
		t.Fatal("the planted session id was taken over")
	}
	b.login("admin", password)
	if b.client.Jar.Cookies(u)[0].Value == first {
		t.Error("a second sign-in kept the session id")
	}
	old := s.browser()
	old.client.Jar.SetCookies(u, []*http.Cookie{{Name: "sekisho", Value: first}})
	if r, _ := old.do("GET", "/alerts", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("the session before the second sign-in still works: status %d", r.StatusCode)
	}
}

func TestSessionsEnd(t *testing.T) {
	now := time.Now().UTC()
	for name, c := range map[string]struct {
		o             console.Options
		created, seen time.Time // of a session that has ended
	}{
		"idle":     {console.Options{SessionIdle: time.Hour}, now.Add(-2 * time.Hour), now.Add(-61 * time.Minute)},
		"absolute": {console.Options{SessionMax: 2 * time.Hour}, now.Add(-121 * time.Minute), now},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.o)
			s.signedInAt("admin", now.Add(-59*time.Minute), now.Add(-30*time.Minute)).get("/account")
			b := s.signedInAt("admin", c.created, c.seen)
			if r, _ := b.do("GET", "/alerts", nil); r.StatusCode != http.StatusSeeOther || !strings.HasPrefix(r.Header.Get("Location"), "/login") {
				t.Errorf("after the time: status %d to %q, want the login", r.StatusCode, r.Header.Get("Location"))
			}
			if r, _ := b.part("list").do("GET", "/alerts", nil); r.StatusCode != http.StatusUnauthorized {
				t.Errorf("script after the time: status %d, want 401", r.StatusCode)
			}
		})
	}
}

func TestADisabledUserIsOutAtOnce(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.signedIn("analyst")
	u, err := s.store.UserByName(context.Background(), "analyst")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.DisableUser(context.Background(), u.ID); err != nil {
		t.Fatal(err)
	}
	if r, _ := b.do("GET", "/alerts", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("status %d, want the login", r.StatusCode)
	}
	if status, _ := b.login("analyst", password); status != http.StatusUnprocessableEntity {
		t.Errorf("sign in: status %d, want 422", status)
	}
}

func TestAOneTimePasswordHasToBeChanged(t *testing.T) {
	s := newSite(t, console.Options{})
	s.addUser(account.User{Name: "first", Role: account.Admin, MustChange: true, Lang: "en"})
	b := s.signedIn("first")
	other := s.signedIn("first")
	if r, _ := b.do("GET", "/alerts", nil); r.Header.Get("Location") != "/account" {
		t.Errorf("alerts before the change: to %q, want /account", r.Header.Get("Location"))
	}
	if r, _ := b.part("list").do("GET", "/alerts", nil); r.StatusCode != http.StatusForbidden {
		t.Errorf("script before the change: status %d, want 403", r.StatusCode)
	}
	wantContains(t, b.get("/account"), `form id="password"`, "First password")
	change := func(old, fresh, again string) (int, string, string) {
		r, text := b.do("POST", "/account/password", url.Values{"old": {old}, "new": {fresh}, "again": {again}})
		return r.StatusCode, r.Header.Get("Location"), text
	}
	const fresh = "a long enough phrase"
	for _, tt := range []struct{ old, fresh, again, want string }{
		{"wrong", fresh, fresh, "current password is wrong"},
		{password, "short", "short", "at least 10 characters"},
		{password, password, password, "must differ"},
		{password, fresh, fresh + "x", "differ"},
		{password, strings.Repeat("長", 257), "", "at most 256"},
	} {
		if status, _, text := change(tt.old, tt.fresh, tt.again); status != http.StatusUnprocessableEntity || !strings.Contains(text, tt.want) {
			t.Errorf("%.20q: status %d, want 422 with %q", tt.fresh, status, tt.want)
		}
	}
	if status, to, _ := change(password, fresh, fresh); status != http.StatusSeeOther || to != "/" {
		t.Fatalf("change: status %d to %q", status, to)
	}
	wantContains(t, b.get("/alerts"), `id="alert-list"`)
	if r, _ := other.do("GET", "/account", nil); r.StatusCode != http.StatusSeeOther {
		t.Errorf("another browser's session lives on after the change: status %d", r.StatusCode)
	}
	if status, _ := s.browser().login("first", password); status != http.StatusUnprocessableEntity {
		t.Errorf("the old password: status %d, want 422", status)
	}
	s.wantAudit("first password-change")
}

func TestGuessingIsSlowedDown(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.browser()
	limited := 0
	long := strings.Repeat("x", 2000) // longer than any password can be: refused without hashing, so the test is quick
	for range 14 {
		if status, _ := b.login("admin", long); status == http.StatusTooManyRequests {
			limited++
		}
	}
	if limited == 0 {
		t.Error("14 guesses in a row, none refused")
	}
	if status, _ := b.login("admin", password); status != http.StatusTooManyRequests {
		t.Errorf("the right password while limited: status %d, want 429 (or a guesser would learn it)", status)
	}
	if status, _ := b.login("viewer", password); status != http.StatusSeeOther {
		t.Errorf("another account: status %d, want 303", status)
	}
	entries := 0
	for _, act := range s.audited() {
		if act == "login-limited" {
			entries++
		}
	}
	if entries != 1 {
		t.Errorf("%d entries about it in the audit log, want one: it is never deleted from", entries)
	}
}

func TestPostsFromOtherSitesAreRefused(t *testing.T) {
	s := newSite(t, console.Options{})
	id := s.ingest(canned.Alert(1, time.Now().UTC()))[0]
	b := s.signedIn("analyst")
	for _, h := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Sec-Fetch-Site": {"same-site"}}, {"Origin": {"https://evil.example"}}} {
		b.header = h
		for _, path := range []string{"/alerts/" + id, "/logout", "/lang", "/account/password", "/login"} {
			if r, _ := b.do("POST", path, url.Values{"do": {"mine"}, "lang": {"ja"}}); r.StatusCode != http.StatusForbidden {
				t.Errorf("POST %s with %v: status %d, want 403", path, h, r.StatusCode)
			}
		}
	}
	b.header = http.Header{"Sec-Fetch-Site": {"same-origin"}}
	if rec, err := s.store.Alert(context.Background(), id); err != nil || rec.State != alert.Open {
		t.Errorf("the alert was changed: %v, %v", rec.State, err)
	}
}

// Every route, for everybody. A new route has to be added here.
func TestRolesSeeWhatTheyMay(t *testing.T) {
	const (
		everyone = "nobody newcomer viewer analyst admin auditor"
		people   = "newcomer viewer analyst admin auditor" // newcomer: has to change a one-time password first
		finished = "viewer analyst admin auditor"
		viewers  = "viewer analyst admin"
		analysts = "analyst admin"
		auditors = "admin auditor"
	)
	may := map[string]string{
		"GET /{$}": finished, "GET /login": everyone, "POST /login": everyone, "POST /logout": people, "POST /lang": everyone, "POST /theme": everyone,
		"GET /account": people, "POST /account/password": people,
		"GET /alerts": viewers, "GET /alerts.csv": viewers, "GET /alerts/{id}": viewers, "GET /alerts/{id}/raw": viewers, "POST /alerts/{id}": analysts,
		"GET /endpoints": viewers, "GET /endpoints/{id}": viewers, "GET /audit": auditors, "GET /live": viewers,
	}
	s := newSite(t, console.Options{MaxStreams: -1}) // a stream that is let in is sent away at once
	s.addUser(account.User{Name: "newcomer", Role: account.Admin, MustChange: true, Lang: "en"})
	id := s.ingest(canned.Alert(1, time.Now().UTC()))[0]
	for _, pattern := range console.Routes() {
		allowed, ok := may[pattern]
		if !ok {
			t.Errorf("%s: the table does not say who may use it", pattern)
		}
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{id}", id, "{$}", "").Replace(path)
		for _, who := range strings.Fields(everyone) {
			b := s.browser()
			if who != "nobody" {
				b = s.signedIn(who)
			}
			var form url.Values
			if method == "POST" {
				form = url.Values{"do": {"note"}, "note": {who}, "lang": {"en"}, "theme": {"dark"}}
			}
			r, _ := b.do(method, path, form)
			to := r.Header.Get("Location")
			refused := r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusForbidden ||
				strings.HasPrefix(to, "/login") && path != "/logout" || to == "/account"
			if want := slices.Contains(strings.Fields(allowed), who); refused == want {
				t.Errorf("%s by %s: status %d to %q, want it let in %v", pattern, who, r.StatusCode, to, want)
			}
		}
	}
	rec, err := s.store.Alert(t.Context(), id)
	if err != nil || len(rec.Log) != len(strings.Fields(analysts)) {
		t.Errorf("got log %+v (%v), want the notes of %s", rec.Log, err, analysts)
	}
	for role, home := range map[string]string{"viewer": "/alerts", "admin": "/alerts", "auditor": "/audit"} {
		if r, _ := s.signedIn(role).do("GET", "/", nil); r.Header.Get("Location") != home {
			t.Errorf("%s: home is %q, want %q", role, r.Header.Get("Location"), home)
		}
	}
}

func TestANumberAboveTheListLeadsToAsMany(t *testing.T) {
	s := newSite(t, console.Options{})
	now := time.Now().UTC()
	var ids []string
	for i := range 4 {
		a := canned.Alert(1, now.Add(time.Duration(i)*time.Second))
		a.ID = event.NewID()
		ids = append(ids, s.ingest(a)...)
	}
	b := s.signedIn("analyst")
	for i, do := range []string{"mine", "waiting", "close"} {
		b.do("POST", "/alerts/"+ids[i], url.Values{"do": {do}, "reason": {"false-positive"}})
	}
	m := regexp.MustCompile(`href="([^"]+)"[^>]*><[^"]+"[^"]*level-high.*?<b id="live-level-high">(\d+)<`).FindStringSubmatch(b.get("/alerts"))
	if m == nil {
		t.Fatal("no number of high ones")
	}
	if rows := strings.Count(b.get(strings.ReplaceAll(m[1], "&amp;", "&")), "data-alert-id"); fmt.Sprint(rows) != m[2] || rows != 3 {
		t.Errorf("%s lists %d, the number is %s, want 3: open, taken and waiting", m[1], rows, m[2])
	}
}

func TestTheAuditLogIsReadToItsEnd(t *testing.T) {
	s := newSite(t, console.Options{})
	at := time.Now().UTC() // all of one instant, as clocks that tick in steps make them
	for i := range 250 {
		if err := s.store.Audit(t.Context(), account.AuditEntry{Time: at, Who: "x", Action: "login", Object: fmt.Sprintf("entry-%03d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	b, path, pages := s.signedIn("auditor"), "/audit", 0
	seen := map[string]bool{}
	for ; path != "" && pages < 10; pages++ {
		text := b.get(path)
		for _, entry := range regexp.MustCompile(`entry-\d{3}`).FindAllString(text, -1) {
			if seen[entry] {
				t.Errorf("%s is told twice", entry)
			}
			seen[entry] = true
		}
		path = ""
		if m := regexp.MustCompile(`href="(/audit\?before=\d+)"`).FindStringSubmatch(text); m != nil {
			path = m[1]
		}
	}
	if len(seen) != 250 || pages != 3 {
		t.Errorf("got %d entries on %d pages, want 250 on 3", len(seen), pages)
	}
	if r, _ := b.do("GET", "/audit?before=yesterday", nil); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a number that is none: status %d, want 400", r.StatusCode)
	}
}

func TestSearchingForSomebodyIsLogged(t *testing.T) {
	s := newSite(t, console.Options{})
	a := canned.Alert(1, time.Now().UTC())
	s.ingest(a)
	b := s.signedIn("viewer")
	for _, tt := range []struct {
		path   string
		logged bool
	}{
		{"/alerts", false},
		{"/alerts?tab=all&level=high", false},
		{"/alerts?tab=all&user=nobody-of-that-name", false},
		{"/alerts?tab=all&user=" + url.QueryEscape(a.Event.User.Name), true},
		{"/alerts?tab=all&host=" + url.QueryEscape(a.Event.Host.Name), true},
	} {
		before := len(s.audited())
		b.get(tt.path)
		if got := s.audited()[before:]; slices.Contains(got, "viewer alert-list") != tt.logged {
			t.Errorf("%s: audit log %q, want it logged %v", tt.path, got, tt.logged)
		}
	}
}

func TestTheListAndItsFilters(t *testing.T) {
	s := newSite(t, console.Options{})
	now := time.Now().UTC()
	s.ingest(canned.Alerts(14, now)...)
	s.ingest(canned.TestAlert(now.Add(-time.Second)))
	b := s.signedIn("analyst")
	rows := func(query string) int { return strings.Count(b.get("/alerts"+query), "<li class=\"row") }
	tests := []struct {
		query string
		want  int
	}{
		{"", 14}, {"?tab=tests", 1}, {"?tab=all", 14}, {"?tab=closed", 0}, {"?tab=mine", 0},
		{"?level=critical", 2}, {"?level=critical&level=low", 4}, {"?rule=SCAM-1", 2}, {"?rule=USB-1", 4},
		{"?host=PC-1047", 1}, {"?user=suzuki", 2}, {"?q=AnyDesk", 2}, {"?q=" + url.QueryEscape("名簿"), 6}, {"?q=nothing-has-this", 0}, {"?tab=all&rule=HLT-3&level=low", 2},
	}
	for _, tt := range tests {
		if got := rows(tt.query); got != tt.want {
			t.Errorf("/alerts%s: %d rows, want %d", tt.query, got, tt.want)
		}
	}
	page := b.get("/alerts")
	wantContains(t, page, `id="live-total-count">14<`, `id="live-level-critical">2<`, `id="live-open-count">14<`, `data-seq="15"`)
	wantContains(t, b.get("/alerts?tab=tests"), "data-test", `class="tag tag-test">Test<`)
	wantContains(t, b.get("/alerts?q=nothing-has-this"), "No alert matches", "Clear filters")
	for _, bad := range []string{"?tab=x", "?level=x", "?after=x", "?after_seq=-1", "?q=" + strings.Repeat("x", 600)} {
		if r, _ := b.do("GET", "/alerts"+bad, nil); r.StatusCode != http.StatusBadRequest {
			t.Errorf("/alerts%.40s: status %d, want 400", bad, r.StatusCode)
		}
	}
}

func TestPagesOfAHundred(t *testing.T) {
	s := newSite(t, console.Options{})
	s.ingest(canned.Alerts(250, time.Now().UTC())...)
	b := s.signedIn("viewer")
	seen := map[string]bool{}
	next, pages := "/alerts?tab=all", 0
	for next != "" && pages < 5 {
		page := b.get(next)
		for _, m := range regexp.MustCompile(`data-alert-id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
			if seen[m[1]] {
				t.Errorf("alert %s is on two pages", m[1])
			}
			seen[m[1]] = true
		}
		pages++
		next = ""
		if m := regexp.MustCompile(`href="([^"]+)" rel="next"`).FindStringSubmatch(page); m != nil {
			next = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if pages != 3 || len(seen) != 250 {
		t.Errorf("%d alerts on %d pages, want 250 on 3", len(seen), pages)
	}
}

func TestTriage(t *testing.T) {
	s := newSite(t, console.Options{})
	id := s.ingest(canned.Alert(1, time.Now().UTC()))[0]
	b := s.signedIn("analyst")
	post := func(form url.Values) (int, string) {
		r, text := b.do("POST", "/alerts/"+id, form)
		return r.StatusCode, text
	}
	state := func() alert.Record {
		rec, err := s.store.Alert(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		return *rec
	}
	wantContains(t, b.get("/alerts/"+id), "What to do now", "80 files", "12.3 MB", "Hosei University", "E0D55EA574F2F541A9F2", `name="do" value="mine"`)
	s.wantAudit("analyst alert-view")
	wantContains(t, s.signedIn("admin").get("/audit"), "USB-3 ")
	// The files of all copies are told above; of the deciding one the file is told.
	if text := b.get("/alerts/" + id); strings.Contains(text, `title="sekisho.copy.files"`) || !strings.Contains(text, `title="file.size"`) {
		t.Error("the facts count a single file")
	}
	wantContains(t, b.get("/alerts/"+id), "file sensor fanotify")

	if status, _ := post(url.Values{"do": {"mine"}}); status != http.StatusSeeOther {
		t.Errorf("take it: status %d", status)
	}
	if r := state(); r.State != alert.Working || r.Assignee != "analyst" {
		t.Errorf("after taking it: %s, %q", r.State, r.Assignee)
	}
	if n := strings.Count(b.get("/alerts?tab=mine"), "data-alert-id"); n != 1 {
		t.Errorf("mine: %d rows, want 1", n)
	}
	for _, bad := range []url.Values{{"do": {"close"}}, {"do": {"close"}, "reason": {"because"}}, {"do": {"note"}, "note": {"  "}}, {"do": {"note"}, "note": {strings.Repeat("長", 2000)}}} {
		if status, text := post(bad); status != http.StatusUnprocessableEntity || !strings.Contains(text, `class="problem"`) {
			t.Errorf("%.60v: status %d, want 422 with the problem", bad, status)
		}
	}
	if status, _ := post(url.Values{"do": {"explode"}}); status != http.StatusBadRequest {
		t.Errorf("unknown act: status %d, want 400", status)
	}
	// As script sends it: the answer is the detail after the change.
	r, text := b.part("detail").do("POST", "/alerts/"+id, url.Values{"do": {"close"}, "reason": {"approved-work"}, "note": {"<i>asked</i> the head"}})
	if r.StatusCode != http.StatusOK || strings.Contains(text, "<html") {
		t.Errorf("close by script: status %d", r.StatusCode)
	}
	wantContains(t, text, "Approved work", "&lt;i&gt;asked&lt;/i&gt; the head", `value="reopen"`)
	if r := state(); r.State != alert.Closed || r.Reason != alert.ApprovedWork || len(r.Log) != 2 {
		t.Errorf("after closing: %s, %s, %d log entries", r.State, r.Reason, len(r.Log))
	}
	post(url.Values{"do": {"reopen"}})
	if r := state(); r.State != alert.Open || r.Assignee != "" || r.Reason != "" {
		t.Errorf("after reopening: %s, %q, %q", r.State, r.Assignee, r.Reason)
	}
	s.wantAudit("analyst alert-change")
	if err := s.store.Audit(t.Context(), account.AuditEntry{Time: time.Now(), Who: "cli:root", Action: "user-add", Object: "sato", Detail: "auditor"}); err != nil {
		t.Fatal(err)
	}
	wantContains(t, s.signedIn("admin").get("/audit"), "<bdi>Close, Approved work</bdi>", "<bdi>Take it</bdi>", "<bdi>Auditor</bdi>")
	if r, _ := b.do("POST", "/alerts/no-such-alert", url.Values{"do": {"mine"}}); r.StatusCode != http.StatusNotFound {
		t.Errorf("unknown alert: status %d, want 404", r.StatusCode)
	}
}

func TestCSVIsSafeInASpreadsheet(t *testing.T) {
	s := newSite(t, console.Options{})
	a := canned.Alert(1, time.Now().UTC())
	a.Event.User = &event.User{Name: `=HYPERLINK("http://evil.example","x")`}
	a.Event.Host = &event.Host{ID: "h", Name: "@PC,\"1\"\r\n"}
	s.ingest(a)
	r, text := s.signedIn("viewer").do("GET", "/alerts.csv?tab=all", nil)
	if !strings.HasPrefix(text, "\ufeff") || r.Header.Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("want a byte order mark and CSV, got %.20q of %s", text, r.Header.Get("Content-Type"))
	}
	lines, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff"))).ReadAll()
	if err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, cell := range lines[1] {
		if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
			t.Errorf("column %s is a formula: %q", lines[0][i], cell)
		}
	}
	if lines[1][10] != "80" || lines[1][11] != "12345678" {
		t.Errorf("files and bytes: got %q", lines[1][10:12])
	}
	s.wantAudit("viewer alert-export")
}

// What endpoints send, in every place where the console shows it.
func TestHostileTextsStayText(t *testing.T) {
	attacks := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'-alert(1)-'`, `javascript:alert(1)`, `</bdi></title></textarea><svg/onload=alert(1)>`,
		`{{.User.PasswordHash}}`, `{user.name}{user.name}`, "\u202e\u2066exe.txt\u0007\u0000", `\\?\C:\<!--`, "]]>", strings.Repeat("A", 20<<10),
	}
	s := newSite(t, console.Options{})
	now := time.Now().UTC()
	for i, x := range attacks {
		a := canned.Hostile(now.Add(-time.Duration(i)*time.Minute), x)
		a.ID = fmt.Sprintf("00000000-0000-8000-8000-%012d", i)
		a.Keys = map[string]string{x: x}
		s.ingest(a)
	}
	b := s.signedIn("analyst")
	pages := []string{b.get("/alerts?tab=all"), b.get("/alerts?tab=all&q=%3Cscript%3Ealert(1)%3C/script%3E")}
	for i := range attacks {
		pages = append(pages, b.get(fmt.Sprintf("/alerts/00000000-0000-8000-8000-%012d", i)))
	}
	for i, page := range pages {
		for _, bad := range []string{"<script>alert", "<img src=x", "<svg/onload", `href="javascript`, "\u202e", "\u2066", "\x00", "\x07", "argon2id"} {
			if at := strings.Index(page, bad); at >= 0 {
				t.Errorf("page %d: %q gets through: …%.120q", i, bad, page[max(0, at-60):])
			}
		}
		if len(page) > 1<<20 {
			t.Errorf("page %d has %d bytes", i, len(page))
		}
	}
}

func TestAMegabyteIsCutWithItsLengthTold(t *testing.T) {
	s := newSite(t, console.Options{})
	a := canned.Alert(2, time.Now().UTC())
	a.Event.Device.ProductName = strings.Repeat("A", 1<<20)
	id := s.ingest(a)[0]
	b := s.signedIn("viewer")
	for _, path := range []string{"/alerts", "/alerts/" + id} {
		page := b.get(path)
		wantContains(t, page, "1,048,576 characters")
		if len(page) > 400<<10 {
			t.Errorf("%s has %d bytes", path, len(page))
		}
	}
}

func TestLanguages(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.browser()
	b.header.Set("Accept-Language", "en-GB,en;q=0.9,ja;q=0.8")
	wantContains(t, b.get("/login"), `<html lang="en"`, "Sign in", `data-lang="ja"`)
	b.header.Set("Accept-Language", "fr")
	wantContains(t, b.get("/login"), `<html lang="ja"`, "ログイン")
	b.do("POST", "/lang", url.Values{"lang": {"en"}, "next": {"/login"}})
	wantContains(t, b.get("/login"), `<html lang="en"`)
	b.login("admin", password)
	b.do("POST", "/lang", url.Values{"lang": {"ja"}})
	wantContains(t, b.get("/alerts"), `<html lang="ja"`, "未対応のアラートはありません")
	if u, err := s.store.UserByName(context.Background(), "admin"); err != nil || u.Lang != "ja" {
		t.Errorf("the choice is not kept with the user: %q, %v", u.Lang, err)
	}
	if r, _ := b.do("POST", "/lang", url.Values{"lang": {"tlh"}}); r.StatusCode != http.StatusBadRequest {
		t.Errorf("unknown language: status %d, want 400", r.StatusCode)
	}
	b.do("POST", "/theme", url.Values{"theme": {"dark"}})
	wantContains(t, b.get("/alerts"), `data-theme="dark"`)
}

// inMemory lets a canned store stand for the database.
type inMemory struct{ *canned.Store }

func (inMemory) AddUser(context.Context, *account.User) error { return errors.ErrUnsupported }
func (inMemory) DisableUser(context.Context, int64) error     { return errors.ErrUnsupported }
func (inMemory) Ingest(context.Context, store.Delivery) error { return errors.ErrUnsupported }

// Every page in both languages with real content, and with none.
func TestEveryPageRendersInBothLanguages(t *testing.T) {
	full := canned.Full(time.Now().UTC(), "suzuki")
	full.AddAlert(canned.Hostile(time.Now().UTC(), "<x>"), "a", time.Now().UTC())
	for name, st := range map[string]*canned.Store{"full": full, "empty": canned.NewStore()} {
		st.AddUser(account.User{Name: "suzuki", Role: account.Admin})
		srv := httptest.NewServer(console.NewServer(console.Options{Store: st}))
		defer srv.Close()
		s := &site{T: t, url: srv.URL, store: inMemory{st}}
		for _, lang := range []string{"ja", "en"} {
			b := s.signedIn("suzuki")
			b.do("POST", "/lang", url.Values{"lang": {lang}})
			paths := []string{"/alerts", "/alerts?tab=mine", "/alerts?tab=waiting", "/alerts?tab=closed", "/alerts?tab=all&q=x&level=high&rule=r&host=h&user=u&group=g", "/alerts?tab=tests",
				"/endpoints", "/endpoints?health=silent", "/endpoints?name=zzz", "/audit", "/account", "/account?done=1", "/nothing"}
			page, err := st.Alerts(context.Background(), alert.Filter{Tests: true, Limit: 16}) // two of each kind
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page.Records {
				paths = append(paths, "/alerts/"+r.ID, "/alerts?tab=all&open="+r.ID)
			}
			paths = append(paths, "/endpoints?open=0192f0aa-0000-7000-8000-000000000002")
			all, err := st.Endpoints(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range all {
				paths = append(paths, "/endpoints/"+r.AgentID)
			}
			for _, path := range paths {
				r, text := b.do("GET", path, nil)
				if r.StatusCode != http.StatusOK && path != "/nothing" {
					t.Errorf("%s %s %s: status %d", name, lang, path, r.StatusCode)
				}
				if at := strings.Index(text, "⟦"); at >= 0 {
					t.Errorf("%s %s %s: text is missing: %.60s", name, lang, path, text[at:])
				}
				if strings.Contains(text, "%!") {
					t.Errorf("%s %s %s: a text's verbs do not fit its arguments", name, lang, path)
				}
				if !strings.HasSuffix(strings.TrimSpace(text), "</html>") {
					t.Errorf("%s %s %s: the page breaks off", name, lang, path)
				}
			}
		}
	}
}

func TestErrorsHaveANumberThatFindsTheirCause(t *testing.T) {
	s := newSite(t, console.Options{})
	b := s.signedIn("admin")
	_, text := b.do("GET", "/alerts/none", nil)
	m := regexp.MustCompile(`id="error-id">([0-9a-f]{8})<`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no number on the error page")
	}
	found := s.logs.FilterField(zap.String("error_id", m[1])).All()
	if len(found) != 1 || !strings.Contains(fmt.Sprint(found[0].ContextMap()), "read alert") {
		t.Errorf("log of %s: %v", m[1], found)
	}
	r, _ := b.do("POST", "/lang", url.Values{"lang": {strings.Repeat("x", 100<<10)}})
	if r.StatusCode != http.StatusRequestEntityTooLarge && r.StatusCode != http.StatusBadRequest {
		t.Errorf("a form of 100 KiB: status %d, want 413 or 400", r.StatusCode)
	}
}

// An event of the live stream.
type liveEvent struct {
	id, name string
	data     struct {
		Seq    int64
		New    int
		Tests  int
		Triage int
		Text   map[string]string
	}
}

// listen opens the live stream; events come until the test ends.
func (b *browser) listen(path, lastID string) <-chan liveEvent {
	b.s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", b.s.url+path, nil)
	if err != nil {
		b.s.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	r, err := b.client.Do(req)
	if err != nil {
		b.s.Fatal(err)
	}
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
		b.s.Fatalf("stream: status %d, %s", r.StatusCode, r.Header.Get("Content-Type"))
	}
	out := make(chan liveEvent, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(out)
		var e liveEvent
		for lines := bufio.NewScanner(r.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.name = value
			case "data":
				if err := json.Unmarshal([]byte(value), &e.data); err != nil {
					b.s.Errorf("event %q: %v", value, err)
				}
			case "":
				if e.name != "" {
					out <- e
				}
				e = liveEvent{}
			}
		}
	}()
	b.s.Cleanup(func() { cancel(); r.Body.Close(); <-done })
	return out
}

func next(t *testing.T, events <-chan liveEvent) liveEvent {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the stream ended")
		}
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event within a minute")
	}
	return liveEvent{}
}

func TestAlertsArriveInTheOpenPage(t *testing.T) {
	s := newSite(t, console.Options{})
	now := time.Now().UTC()
	s.ingest(canned.Alert(0, now.Add(-time.Hour)))
	b := s.signedIn("viewer")
	events := b.listen("/live?seq=1", "")
	if e := next(t, events); e.id != "1" || e.data.New != 0 || e.data.Triage != 1 || e.data.Text["live-open-count"] != "1" {
		t.Fatalf("first state: %+v", e)
	}
	start := time.Now()
	s.ingest(canned.Alert(1, now))
	e := next(t, events)
	t.Logf("the alert was in the page after %v", time.Since(start))
	if e.id != "2" || e.data.New != 1 || e.data.Triage != 2 || e.data.Text["live-level-high"] != "2" {
		t.Errorf("after an alert: %+v", e)
	}
	// What the page then fetches.
	rows := b.part("list").get("/alerts?tab=triage&after_seq=1")
	if strings.Count(rows, "data-alert-id") != 1 || !strings.Contains(rows, `data-rule="USB-3"`) || !strings.Contains(rows, `data-seq="2"`) || strings.Contains(rows, "<html") {
		t.Errorf("rows after 1: %s", rows)
	}
	// A second delivery is nothing new; a self-test is told as a test and not counted.
	s.ingest(canned.TestAlert(now))
	if e := next(t, events); e.data.Tests != 1 || e.data.Triage != 2 {
		t.Errorf("after a test alert: %+v", e)
	}
}

func TestAStreamResumesWhereItBrokeOff(t *testing.T) {
	s := newSite(t, console.Options{})
	now := time.Now().UTC()
	for i := range 5 {
		s.ingest(canned.Alert(i, now.Add(time.Duration(i)*time.Second)))
	}
	if e := next(t, s.signedIn("viewer").listen("/live?seq=1", "3")); e.data.New != 2 || e.id != "5" {
		t.Errorf("with Last-Event-ID 3: %d new, id %s; want 2 new, id 5", e.data.New, e.id)
	}
	b := s.signedIn("viewer")
	if e := next(t, b.listen("/live", "")); e.data.New != 0 || e.id != "5" {
		t.Errorf("without an id: %d new, id %s; want none, id 5", e.data.New, e.id)
	}
	if r, _ := b.do("GET", "/live?seq=x", nil); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a bad id: status %d, want 400", r.StatusCode)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := newSite(t, console.Options{MaxStreams: 2})
	b := s.signedIn("viewer")
	next(t, b.listen("/live", ""))
	next(t, b.listen("/live", ""))
	if r, _ := b.do("GET", "/live", nil); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third stream of two: status %d, want 503", r.StatusCode)
	}
}

func TestEveryIncidentOfTheRulesIsTold(t *testing.T) {
	files, err := filepath.Glob("../rules/pack/*.yml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no rules: %v", err)
	}
	var table map[string]struct{ Org, Fact alert.Text }
	b, err := os.ReadFile("incidents.json")
	if err == nil {
		err = json.Unmarshal(b, &table)
	}
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		rule, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^\s*incidents:.*$`).FindAllString(string(rule), -1) {
			for _, m := range regexp.MustCompile(`"#([^"]+)"`).FindAllStringSubmatch(line, -1) {
				found++
				if inc := table[m[1]]; inc.Org.JA == "" || inc.Org.EN == "" || inc.Fact.JA == "" || inc.Fact.EN == "" {
					t.Errorf("%s: incident #%s is not in incidents.json in both languages", f, m[1])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no incident in any rule: the search is broken")
	}
}

// Render of the list: 100 rows of an analyst's queue, the whole page.
func BenchmarkListOf100(b *testing.B) {
	st := canned.NewStore()
	for _, a := range canned.Alerts(100, time.Now().UTC()) {
		st.AddAlert(a, "a", a.Time)
	}
	u := st.AddUser(account.User{Name: "suzuki", Role: account.Analyst})
	key := make([]byte, 32)
	now := time.Now().UTC()
	if err := st.AddSession(context.Background(), account.Session{Hash: sha256.Sum256(key), UserID: u.ID, Created: now, Seen: now}); err != nil {
		b.Fatal(err)
	}
	srv := console.NewServer(console.Options{Store: st})
	size := 0
	for b.Loop() {
		r := httptest.NewRequest("GET", "/alerts", nil)
		r.AddCookie(&http.Cookie{Name: "sekisho", Value: base64.RawURLEncoding.EncodeToString(key)})
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		size = w.Body.Len()
	}
	b.ReportMetric(float64(size), "B/page")
}
