package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/cli"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
	"sekisho/internal/wire"
)

// asProgram makes the test binary behave as the program.
const asProgram = "SEKISHO_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run())
	}
	testscript.Main(m, map[string]func(){"sekisho-console": func() { os.Exit(run()) }})
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Scripts have $WEB, $AGENTS and $METRICS, free addresses, and two commands:
//
//	ready URL            waits until URL answers 200
//	[!] get URL [FILE]   prints the body; FILE holds a bearer token; fails if the answer is not 200
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"WEB", "AGENTS", "METRICS"} {
				e.Setenv(name, "127.0.0.1:"+freePort(t))
			}
			e.Setenv("SEKISHO_LANG", "en")
			settings := fmt.Sprintf("data_dir: data\nlisten:\n  web: %s\n  agents: %s\n  metrics: %s\n", e.Getenv("WEB"), e.Getenv("AGENTS"), e.Getenv("METRICS"))
			return os.WriteFile(filepath.Join(e.WorkDir, "console.yaml"), []byte(settings), 0o600)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				for range 2400 { // two minutes
					if resp, err := http.Get(args[0]); err == nil {
						resp.Body.Close()
						if resp.StatusCode == http.StatusOK {
							return
						}
					}
					time.Sleep(50 * time.Millisecond)
				}
				ts.Fatalf("%s does not answer 200", args[0])
			},
			"get": func(ts *testscript.TestScript, neg bool, args []string) {
				req, err := http.NewRequest("GET", args[0], nil)
				ts.Check(err)
				if len(args) > 1 {
					req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(args[1])))
				}
				resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
				if err != nil {
					if !neg {
						ts.Fatalf("%v", err)
					}
					return
				}
				defer resp.Body.Close()
				io.Copy(ts.Stdout(), resp.Body)
				if (resp.StatusCode == http.StatusOK) == neg {
					ts.Fatalf("%s: %s", args[0], resp.Status)
				}
			},
		},
	})
}

// console is a real process.
type process struct {
	t   *testing.T
	dir string
	web string

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

func (p *process) command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], append(args, "--config", filepath.Join(p.dir, "console.yaml"))...)
	c.Env = append(os.Environ(), asProgram+"=1", "SEKISHO_LANG=en")
	return c
}

func (p *process) start() {
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer log.Close()
	c := p.command("serve")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		p.t.Error(err)
		return
	}
	p.mu.Lock()
	p.cmd = c
	p.mu.Unlock()
	for range 4800 { // two minutes
		if resp, err := http.Get("http://" + p.web + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(25 * time.Millisecond)
	}
	p.t.Error("the console does not get ready")
}

func (p *process) kill() {
	p.mu.Lock()
	c := p.cmd
	p.mu.Unlock()
	c.Process.Kill()
	c.Wait()
}

// A console that is killed between any two instructions has stored what it
// acknowledged, once: acknowledged = stored = distinct.
func TestKilledDuringIngestLosesNothingAndDoublesNothing(t *testing.T) {
	const agents, batches, rows, kills = 4, 60, 15, 8
	p := &process{t: t, dir: t.TempDir(), web: "127.0.0.1:" + freePort(t)}
	settings := fmt.Sprintf("data_dir: data\nlisten:\n  web: %s\n  agents: 127.0.0.1:%s\n  metrics: \"\"\nlimits:\n  rate: 10000\nretention:\n  activity: 3650d\n", p.web, freePort(t))
	if err := os.WriteFile(filepath.Join(p.dir, "console.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	if t.Failed() {
		t.FailNow()
	}
	out, err := p.command("enroll-token", "create", "--uses", fmt.Sprint(agents)).Output()
	if err != nil {
		t.Fatal(err)
	}
	acked := make([]map[string]bool, agents) // ids by agent
	names := make([]string, agents)
	tries := make([]int, agents)
	var senders sync.WaitGroup
	for i := range agents {
		id, err := enroll.Enroll(t.Context(), string(out), endpoint.Identity{HostID: fmt.Sprint("h", i), HostName: fmt.Sprint("PC-", i), OS: "linux"}, filepath.Join(t.TempDir(), "id"))
		if err != nil {
			t.Fatal(err)
		}
		acked[i], names[i] = map[string]bool{}, id.AgentID()
		senders.Go(func() {
			tr := &http.Transport{TLSClientConfig: id.TLSConfig(), ForceAttemptHTTP2: true}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: time.Minute}
			z, err := zstd.NewWriter(nil)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range batches {
				b := wire.Batch{Sent: time.Now()}
				var ids []string
				for k := range rows {
					a, r := storetest.NewAlert(n*rows+k, nil), storetest.NewRow(n*rows+k)
					b.Activity, ids = append(b.Activity, r.Raw), append(ids, r.ID)
					if k%5 == 0 {
						b.Alerts, ids = append(b.Alerts, a.Raw), append(ids, a.ID)
					}
				}
				body, err := json.Marshal(b)
				if err != nil {
					t.Error(err)
					return
				}
				body = z.EncodeAll(body, nil)
				deadline := time.Now().Add(5 * time.Minute)
				for ; ; tries[i]++ { // as an agent does: until it is answered
					if time.Now().After(deadline) {
						t.Error("no answer for five minutes")
						return
					}
					req, err := http.NewRequest("POST", id.URLs()[0]+wire.PathBatches, bytes.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Content-Encoding", "zstd")
					resp, err := c.Do(req)
					if err == nil {
						var reply wire.BatchReply
						err = json.NewDecoder(resp.Body).Decode(&reply)
						resp.Body.Close()
						if err == nil && resp.StatusCode == http.StatusOK && reply.Alerts == len(b.Alerts) && reply.Activity == len(b.Activity) {
							break
						}
					}
					time.Sleep(20 * time.Millisecond)
				}
				for _, id := range ids {
					acked[i][id] = true
				}
				time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
			}
		})
	}
	sent := make(chan struct{})
	go func() { senders.Wait(); close(sent) }()
	killed := 0
	for killed < kills {
		select {
		case <-sent:
		case <-time.After(time.Duration(50+rand.IntN(400)) * time.Millisecond):
			p.kill()
			killed++
			p.start()
			continue
		}
		break
	}
	<-sent
	p.kill()

	db, err := store.OpenSQLite(context.Background(), filepath.Join(p.dir, "data", "sekisho.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	want, again := 0, 0
	stored := map[string]int{}
	for i := range agents {
		want += len(acked[i])
		again += tries[i]
		for before := (time.Time{}); ; {
			page, err := db.Activity(t.Context(), names[i], before, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range page {
				stored[names[i]+" "+r.ID]++
			}
			if len(page) < 1000 {
				break
			}
			before = page[len(page)-1].Time // rows of one agent have times of their own here
		}
	}
	for f := (alert.Filter{Limit: 1000}); ; {
		page, err := db.Alerts(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			stored[r.AgentID+" "+r.ID]++
		}
		if f.After = page.Next; f.After == "" {
			break
		}
	}
	total := 0
	for key, n := range stored {
		total += n
		if n != 1 {
			t.Errorf("%s is there %d times", key, n)
		}
	}
	for i := range agents {
		for id := range acked[i] {
			if stored[names[i]+" "+id] == 0 {
				t.Errorf("%s of %s was acknowledged and is not there", id, names[i])
			}
		}
	}
	t.Logf("killed %d times, %d deliveries tried again: acknowledged %d, stored %d, distinct %d", killed, again, want, total, len(stored))
	if want != total || total != len(stored) {
		t.Errorf("acknowledged %d, stored %d, distinct %d, want the same", want, total, len(stored))
	}
	if killed < kills/2 {
		t.Errorf("killed %d times only: the stream was too short to say anything", killed)
	}
}

func TestNoConnectionIsKeptForABrowserThatStalls(t *testing.T) {
	h := (&server{log: zap.NewNop()}).httpServer(nil)
	for what, d := range map[string]time.Duration{"header": h.ReadHeaderTimeout, "body": h.ReadTimeout, "answer": h.WriteTimeout, "idle": h.IdleTimeout} {
		if d <= 0 || d > 10*time.Minute {
			t.Errorf("%s: got a limit of %v, want one of minutes at most", what, d)
		}
	}
}

func TestASecondServerOnTheSameAddressSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &process{t: t, dir: t.TempDir()}
	settings := fmt.Sprintf("data_dir: data\nlisten:\n  web: 127.0.0.1:0\n  agents: %s\n  metrics: \"\"\n", l.Addr())
	if err := os.WriteFile(filepath.Join(p.dir, "console.yaml"), []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.command("serve")
	var errs bytes.Buffer
	c.Stderr = &errs
	err = c.Run()
	var ee *exec.ExitError
	if !errors.As(err, &ee) || ee.ExitCode() != cli.Failure || !strings.Contains(errs.String(), "listen for agents on "+l.Addr().String()) || !strings.Contains(errs.String(), "another program has that port") {
		t.Errorf("got %v, %q, want exit 3, the address and what to do", err, errs.String())
	}
}

func TestRevokingAPCSaysWhatBecomesOfIt(t *testing.T) {
	p := &process{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(p.dir, "console.yaml"), []byte("data_dir: data\nstorage:\n  sqlite: console.db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := store.OpenSQLite(t.Context(), filepath.Join(p.dir, "console.db"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := db.AddEnrollToken(t.Context(), account.EnrollToken{ID: "t", Uses: 1, Created: now, Expires: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	got, err := db.Enrol(t.Context(), store.Enrolment{TokenID: "t", Serial: "0a", Host: endpoint.Identity{HostID: "h", HostName: "PC-1", OS: "linux"}, Now: now, Expires: now.Add(time.Hour)})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := p.command("endpoint", "revoke", got.AgentID).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"PC-1" is refused from now on`) {
		t.Errorf("got %v, %q", err, out)
	}
	if out, err = p.command("endpoint", "list").Output(); err != nil || !strings.Contains(string(out), "revoked") {
		t.Errorf("got %v, %q", err, out)
	}
}

// Settings that cannot be used are what `check` finds, and wrong input of all else.
func TestTheExitCodeOfWrongSettings(t *testing.T) {
	p := &process{t: t, dir: t.TempDir()}
	for args, want := range map[string]int{"check": cli.Found, "serve": cli.Usage, "user list": cli.Usage} {
		out, err := p.command(strings.Fields(args)...).CombinedOutput()
		var ee *exec.ExitError
		if !errors.As(err, &ee) || ee.ExitCode() != want || !strings.Contains(string(out), "say by --config where it is") {
			t.Errorf("%s: got %v, %q, want exit %d and what to do", args, err, out, want)
		}
	}
}
