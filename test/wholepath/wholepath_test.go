// Package wholepath has both programs' parts in one process, real from the
// source's event to the page that a person sees. Only the source is a test's.
package wholepath

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/agent"
	"sekisho/internal/alert"
	"sekisho/internal/collector"
	"sekisho/internal/console"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/event"
	"sekisho/internal/ship"
	"sekisho/internal/store"
	"sekisho/test/stack"

	"go.uber.org/zap/zaptest"
)

// site is a console: its database, the collector and the pages.
type site struct {
	t    *testing.T
	db   *store.SQLite
	ca   *enroll.CA
	addr string // of the collector; stays when it is restarted
	srv  *http.Server
	web  *httptest.Server
	c    *http.Client // signed in
}

const password = "correct horse battery"

func newSite(t *testing.T) *site {
	dir := t.TempDir()
	db, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "console.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ca, err := enroll.OpenCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, db: db, ca: ca}
	s.serve(stack.Listen(t))
	t.Cleanup(s.down)
	s.web = httptest.NewServer(console.NewServer(console.Options{Store: db, Logger: zaptest.NewLogger(t).Named("web"), Version: "test"}))
	t.Cleanup(s.web.Close)

	hash, err := account.HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.AddUser(t.Context(), &account.User{Name: "admin", Role: account.Admin, PasswordHash: hash, Lang: "ja", Created: time.Now().UTC()}); err != nil {
		t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.c = &http.Client{Jar: jar, Timeout: 3 * time.Minute}
	resp, err := s.c.PostForm(s.web.URL+"/login", url.Values{"user": {"admin"}, "password": {password}})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Request.URL.Path == "/login" {
		t.Fatalf("sign-in ended at %s: %s", resp.Request.URL, resp.Status)
	}
	return s
}

// up starts the collector again, on the address it had.
func (s *site) up() {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.serve(l)
}

func (s *site) serve(l net.Listener) {
	s.addr = l.Addr().String()
	s.srv = collector.NewServer(collector.Options{Store: s.db, CA: s.ca, Log: zaptest.NewLogger(s.t).Named("collector")}).HTTP([]string{"127.0.0.1"})
	go s.srv.ServeTLS(l, "", "")
}

func (s *site) down() { s.srv.Close() }

// token makes an enrolment token and tells the database of it.
func (s *site) token(uses int, until time.Time) *enroll.Token {
	s.t.Helper()
	k, err := enroll.NewToken([]string{s.addr}, s.ca.Pin(), "税務課", uses, until)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.db.AddEnrollToken(s.t.Context(), account.EnrollToken{
		ID: k.ID, Hash: enroll.SecretHash(k.SecretText()), Department: "税務課", Uses: uses, Created: time.Now().UTC(), Expires: k.Expires,
	}); err != nil {
		s.t.Fatal(err)
	}
	return k
}

// page gets a page as the signed-in person.
func (s *site) page(path string) string {
	s.t.Helper()
	resp, err := s.c.Get(s.web.URL + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s, %v\n%.500s", path, resp.Status, err, body)
	}
	return string(body)
}

// alerts are all alerts of the database.
func (s *site) alerts() []alert.Record {
	s.t.Helper()
	p, err := s.db.Alerts(s.t.Context(), alert.Filter{Tests: true, Limit: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	return p.Records
}

// source tells what a test puts into it.
type source chan *event.Event

func (s source) Name() string { return "scripted" }
func (s source) Status() endpoint.Sensor {
	return endpoint.Sensor{Name: "scripted", State: endpoint.SensorOK, Mechanism: "script"}
}
func (s source) Run(ctx context.Context, out chan<- *event.Event) error {
	for {
		select {
		case e := <-s:
			out <- e
		case <-ctx.Done():
			return nil
		}
	}
}

// pc is an enrolled PC with a running agent.
type pc struct {
	dir, config string
	src         source
	ctl         *agent.Control
	stop        func()
}

// enrol makes dir the state of an enrolled PC.
func (s *site) enrol(dir string, token string) (*enroll.Enrolled, error) {
	host, osVersion, err := agent.Machine(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return enroll.Enroll(s.t.Context(), token, endpoint.Identity{HostID: host.ID, HostName: host.Name, OS: host.OSType, OSVersion: osVersion, AgentVersion: "test"},
		filepath.Join(dir, "identity"))
}

func (s *site) pc(settings string) *pc {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "pc") // short: a socket's path has 107 bytes
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pc{dir: dir, config: filepath.Join(dir, "agent.yaml"), src: make(source), ctl: agent.Dial(dir)}
	if err := os.WriteFile(p.config, []byte("state_dir: "+dir+"\n"+settings), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.enrol(dir, s.token(1, time.Now().Add(time.Hour)).String()); err != nil {
		s.t.Fatal(err)
	}
	p.start(s.t)
	return p
}

func (p *pc) start(t *testing.T) {
	t.Helper()
	a, err := agent.New(agent.Options{ConfigFile: p.config, Version: "test", Log: zaptest.NewLogger(t).Named("agent"), Sources: []agent.Source{p.src}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("agent: %v", err)
		}
	})
	t.Cleanup(p.stop)
	until(t, "the agent answers", func() bool { _, err := p.ctl.Status(t.Context()); return err == nil })
}

func (p *pc) status(t *testing.T) endpoint.Status {
	t.Helper()
	st, err := p.ctl.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func stick(serial string) *event.Event {
	e := event.New(event.USBAttached, time.Now())
	e.Sensor = "scripted"
	e.Device = &event.Device{VendorID: "0781", ProductID: "5567", ProductName: "Cruzer", SerialNumber: serial, Kinds: []string{event.KindStorage}}
	return e
}

func TestAnEventOfASourceIsAnAlertOnThePage(t *testing.T) {
	s := newSite(t)
	p := s.pc("host: {department: 福祉課}\n")
	hostile := `<script>alert(1)</script>` + "\u202egnp.exe"
	p.src <- stick(hostile)
	until(t, "the alert is on the page", func() bool { return strings.Contains(s.page("/alerts"), "USB-1") })

	list := s.page("/alerts")
	if strings.Contains(list, "<script>alert(1)") || strings.Contains(list, "\u202e") {
		t.Error("a device's name is on the page as it came")
	}
	if !strings.Contains(list, "台帳にない媒体") || !strings.Contains(list, "Cruzer") {
		t.Errorf("the title is not on the page:\n%s", list)
	}
	all := s.alerts()
	if len(all) != 1 || all[0].Rule.Table != "USB-1" {
		t.Fatalf("%d alerts in the database: %+v", len(all), all)
	}
	detail := s.page("/alerts/" + all[0].ID)
	for _, want := range []string{"本人に、何の媒体か", "usb-attached", "0781"} {
		if !strings.Contains(detail, want) {
			t.Errorf("the alert's page lacks %q", want)
		}
	}
	if strings.Contains(detail, "<script>alert(1)") || strings.Contains(detail, "\u202e") {
		t.Error("a device's name is on the alert's page as it came")
	}

	// The PC is there with what it said of itself, and its activity.
	host, _ := os.Hostname()
	until(t, "the PC is among the endpoints", func() bool { return strings.Contains(s.page("/endpoints"), host) })
	until(t, "the heartbeat tells the sensor", func() bool {
		r, err := s.db.Endpoint(t.Context(), all[0].AgentID)
		return err == nil && r.Status != nil && len(r.Status.Sensors) == 1 && r.Status.Sensors[0].Mechanism == "script"
	})
	if st := p.status(t); st.Contact.Code != "" || st.Contact.LastSuccess.IsZero() || st.Contact.Console == "" {
		t.Errorf("contact: %+v", st.Contact)
	}
	until(t, "nothing waits on the PC", func() bool { st := p.status(t); return st.Alerts.Records == 0 && st.Activity.Records == 0 })

	checks := map[string]agent.CheckResult{}
	for _, c := range agent.Doctor(t.Context(), p.config) {
		checks[c.Code] = c.Result
	}
	for _, code := range []string{"DOC-05", "DOC-08", "DOC-09", "DOC-11"} {
		if checks[code] != agent.CheckOK {
			t.Errorf("doctor: %s is %q", code, checks[code])
		}
	}
}

func TestWhatIsSeenWhileTheConsoleIsDownArrivesOnce(t *testing.T) {
	s := newSite(t)
	p := s.pc("")
	p.src <- stick("S0")
	until(t, "the first alert arrives", func() bool { return len(s.alerts()) == 1 })
	s.down()
	for i := 1; i <= 20; i++ {
		p.src <- stick(fmt.Sprintf("S%d", i))
	}
	until(t, "the status tells why", func() bool { st := p.status(t); return st.Contact.Code == ship.CodeRefused && st.Alerts.Records >= 20 })
	for _, c := range agent.Doctor(t.Context(), p.config) {
		if c.Code == "DOC-09" && (c.Result != agent.CheckFailed || !strings.HasPrefix(c.Why.JA, ship.CodeRefused)) {
			t.Errorf("doctor: %+v", c)
		}
	}
	// The agent goes and comes meanwhile.
	p.stop()
	p.start(t)
	p.src <- stick("S21")
	s.up()
	until(t, "all alerts are there", func() bool { return len(s.alerts()) == 22 })
	until(t, "the trouble is over", func() bool { return p.status(t).Contact.Code == "" })
	got := map[string]int{}
	for _, r := range s.alerts() {
		full, err := s.db.Alert(t.Context(), r.ID)
		if err != nil {
			t.Fatal(err)
		}
		got[full.Event.Device.SerialNumber]++
	}
	for i := range 22 {
		if n := got[fmt.Sprintf("S%d", i)]; n != 1 {
			t.Errorf("S%d: %d alerts", i, n)
		}
	}
}

func TestTokensThatTheConsoleRefuses(t *testing.T) {
	s := newSite(t)
	later := time.Now().Add(time.Hour)
	unknown, err := enroll.NewToken([]string{s.addr}, s.ca.Pin(), "", 1, later)
	if err != nil {
		t.Fatal(err)
	}
	otherConsole, err := enroll.NewToken([]string{s.addr}, [32]byte{1}, "", 1, later)
	if err != nil {
		t.Fatal(err)
	}
	used := s.token(1, later)
	if _, err := s.enrol(t.TempDir(), used.String()); err != nil {
		t.Fatal(err)
	}
	revoked := s.token(1, later)
	if err := s.db.RevokeEnrollToken(t.Context(), revoked.ID); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		token *enroll.Token
		code  string
	}{
		{"expired", s.token(1, time.Now().Add(-time.Hour)), enroll.CodeTokenExpired},
		{"used up", used, enroll.CodeTokenUsedUp},
		{"revoked", revoked, enroll.CodeTokenRevoked},
		{"unknown", unknown, enroll.CodeTokenUnknown},
		{"of another console", otherConsole, enroll.CodePin},
	} {
		dir := t.TempDir()
		_, err := s.enrol(dir, c.token.String())
		var ee *enroll.Error
		if !errors.As(err, &ee) || ee.Code != c.code {
			t.Errorf("a token that is %s: %v, want %s", c.name, err, c.code)
		}
		if _, err := enroll.Load(filepath.Join(dir, "identity")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after a token that is %s there is an identity: %v", c.name, err)
		}
	}
}

func TestAConsoleWithAnotherKeyThanThePinnedOneGetsNothing(t *testing.T) {
	s := newSite(t)
	p := s.pc("console: {pin: \"sha256:" + strings.Repeat("0", 64) + "\"}\n")
	p.src <- stick("S1")
	until(t, "the status tells why", func() bool { return p.status(t).Contact.Code == ship.CodePin })
	if n := len(s.alerts()); n != 0 {
		t.Errorf("%d alerts were sent all the same", n)
	}
	until(t, "the alert waits", func() bool { return p.status(t).Alerts.Records > 0 })
}
