package enroll

import (
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/wire"
)

// console is a console whose clock is ahead of ours: its certificate and its
// answers are of its own time.
func console(t *testing.T, ca *CA, ahead time.Duration) (tok string, posts *atomic.Int32) {
	t.Helper()
	cert, err := ca.issueServer([]string{"127.0.0.1"}, time.Now().Add(ahead))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	posts = new(atomic.Int32)
	srv := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}},
		ErrorLog:  log.New(io.Discard, "", 0), // the client hangs up on purpose
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			if r.Method == http.MethodPost {
				posts.Add(1)
			}
			w.WriteHeader(http.StatusTeapot)
		}),
	}
	go srv.ServeTLS(l, "", "")
	t.Cleanup(func() { srv.Close() })
	token, err := NewToken([]string{l.Addr().String()}, ca.Pin(), "", 1, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return token.String(), posts
}

func TestAClockThatIsOffIsToldByHowMuch(t *testing.T) {
	for _, tt := range []struct {
		ahead    time.Duration // of the console
		code     string
		ja, en   string
		sentPost int32
	}{
		{0, CodeAnswer, "", "", 1},
		{24 * time.Hour, CodeAnswer, "", "", 1}, // told by the reply instead, see ClockWarning
		{5 * 24 * time.Hour, CodeClock, "5日遅れて", "5 days behind", 0},
		{-200 * 24 * time.Hour, CodeClock, "200日進んで", "200 days ahead", 0},
	} {
		ca := &CA{dir: filepath.Join(t.TempDir(), "ca")}
		if err := ca.open(time.Now().Add(tt.ahead)); err != nil {
			t.Fatal(err)
		}
		tok, posts := console(t, ca, tt.ahead)
		_, err := Enroll(t.Context(), tok, endpoint.Identity{}, filepath.Join(t.TempDir(), "id"))
		var e *Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Text("en"), tt.en) || !strings.Contains(e.Text("ja"), tt.ja) || posts.Load() != tt.sentPost {
			t.Errorf("console %s ahead: got %v after %d posts, want %s with %q", tt.ahead, err, posts.Load(), tt.code, tt.en)
		}
	}
	for _, tt := range []struct {
		offset time.Duration
		want   string
	}{{9 * time.Minute, ""}, {-9 * time.Minute, ""}, {24 * time.Hour, "1 day behind"}, {-3 * time.Hour, "3 hours ahead"}} {
		w, ok := ClockWarning(tt.offset)
		if ok != (tt.want != "") || ok && !strings.Contains(w.Text("en"), tt.want) {
			t.Errorf("offset %s: got %v, want %q", tt.offset, w, tt.want)
		}
	}
}

func TestIdentitiesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: got %v, want os.ErrNotExist", err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": `{"agent_id":"a"`, "nothing in it": "{}", "no key": `{"agent_id":"a","key":"AAAA"}`, "another's sealing": `{"sealing":"tpm","key":"AAAA"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var e *Error
		if _, err := Load(dir); !errors.As(err, &e) || e.Code != CodeIdentity {
			t.Errorf("%s: got %v, want %s", name, err, CodeIdentity)
		}
	}
}

// identity makes one without a console.
func identity(t *testing.T, ca *CA, dir string) *Identity {
	t.Helper()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueClient(&key.PublicKey, "agent-1", NewSerial(), time.Now().Add(ClientLife))
	if err != nil {
		t.Fatal(err)
	}
	tok := &Token{Pin: ca.Pin(), Addresses: []string{"127.0.0.1:1"}}
	if err := PrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	id, err := keep(dir, tok, key, wire.EnrollReply{AgentID: "agent-1", Certificate: cert, CA: ca.RootPEM()})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTheIdentityIsForItsOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a mode says nothing on Windows")
	}
	dir := filepath.Join(t.TempDir(), "id")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	identity(t, openCA(t, filepath.Join(t.TempDir(), "ca")), dir)
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("folder: got %v (%v), want 700", st.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v (%v), want one file", files, err)
	}
	if st, err := os.Stat(filepath.Join(dir, identityFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("file: got %v (%v), want 600", st.Mode(), err)
	}
}

func TestAnswersThatDoNotFitAreNotKept(t *testing.T) {
	ca, other := openCA(t, filepath.Join(t.TempDir(), "ca")), openCA(t, filepath.Join(t.TempDir(), "other"))
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	good, err := ca.IssueClient(&key.PublicKey, "a", NewSerial(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ofStranger, err := ca.IssueClient(&stranger.PublicKey, "a", NewSerial(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tok := &Token{Pin: ca.Pin(), Addresses: []string{"c:1"}}
	for _, tt := range []struct {
		name string
		r    wire.EnrollReply
		code string
	}{
		{"nothing", wire.EnrollReply{}, CodeAnswer},
		{"another root", wire.EnrollReply{AgentID: "a", Certificate: good, CA: other.RootPEM()}, CodePin},
		{"another's certificate", wire.EnrollReply{AgentID: "a", Certificate: ofStranger, CA: ca.RootPEM()}, CodeAnswer},
		{"another id", wire.EnrollReply{AgentID: "b", Certificate: good, CA: ca.RootPEM()}, CodeAnswer},
		{"no certificate", wire.EnrollReply{AgentID: "a", CA: ca.RootPEM()}, CodeAnswer},
	} {
		var e *Error
		if _, err := keep(dir, tok, key, tt.r); !errors.As(err, &e) || e.Code != tt.code {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.code)
		}
	}
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want nothing stored", err)
	}
}

// Every code has texts in both languages and a line in the page of codes.
func TestCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	for code, text := range Codes() {
		if text[0] == "" || text[1] == "" {
			t.Errorf("%s: got %q, want both languages", code, text)
		}
		if !strings.Contains(string(page), "| `"+code+"` |") {
			t.Errorf("%s: no line in docs/errors.md", code)
		}
	}
}
