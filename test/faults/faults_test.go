//go:build unix

// Package faults runs the real programs as processes and does to them what
// happens in offices: killed, restarted, cut off, out of disk.
//
// SEKISHO_FAULTS_ALERTS and SEKISHO_FAULTS_KILLS raise the size of the kill test
// (make test-faults: 1,000 and 100; otherwise small, so that it can run each
// time).
package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// stack is a console and an agent of its own on free ports, as processes.
type stack struct {
	t              *testing.T
	dir            string
	agent, console string // programs
	web            string // address
	token          string // of the API

	mu    sync.Mutex // guards the processes
	procs map[string]*exec.Cmd
}

func env(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// start builds both programs and brings them up, enrolled.
func start(t *testing.T) *stack {
	s := &stack{t: t, dir: t.TempDir(), procs: map[string]*exec.Cmd{}}
	s.agent, s.console = filepath.Join(s.dir, "sekisho-agent"), filepath.Join(s.dir, "sekisho-console")
	for prog, pkg := range map[string]string{s.agent: "sekisho/cmd/agent", s.console: "sekisho/cmd/console"} {
		if out, err := exec.Command("go", "build", "-o", prog, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	agents, web := freePort(t), freePort(t)
	s.web = fmt.Sprintf("http://127.0.0.1:%d", web)
	s.write("console.yaml", fmt.Sprintf("data_dir: %s/console\nnames: [127.0.0.1]\nlisten:\n  agents: 127.0.0.1:%d\n  web: 127.0.0.1:%d\n  metrics: \"\"\n", s.dir, agents, web))
	s.write("agent.yaml", fmt.Sprintf("state_dir: %s/agent\n", s.dir))
	t.Cleanup(func() {
		for _, name := range []string{"agent", "console"} {
			s.end(name, syscall.SIGTERM)
		}
		if t.Failed() {
			for _, f := range []string{"console.log", "agent.log"} {
				b, _ := os.ReadFile(filepath.Join(s.dir, f))
				t.Logf("end of %s:\n%s", f, b[max(0, len(b)-6000):])
			}
		}
	})
	s.up("console")
	s.token = strings.TrimSpace(s.run(s.console, "token", "create", "--config", s.dir+"/console.yaml", "--role", "viewer", "--name", "test"))
	s.write("token", s.run(s.console, "enroll-token", "create", "--config", s.dir+"/console.yaml", "--uses", "1", "--department", "test"))
	s.run(s.agent, "enroll", "--config", s.dir+"/agent.yaml", "--token-file", s.dir+"/token")
	s.up("agent")
	return s
}

func (s *stack) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// run runs a command that must succeed and answers its standard output.
func (s *stack) run(prog string, args ...string) string {
	s.t.Helper()
	var errs bytes.Buffer
	c := exec.Command(prog, args...)
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("%s %v: %v\n%s%s", filepath.Base(prog), args, err, out, errs.Bytes())
	}
	return string(out)
}

// up starts a program and waits until it answers.
func (s *stack) up(name string) {
	s.mu.Lock()
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(s.agent, "run", "--config", s.dir+"/agent.yaml")
	if name == "console" {
		c = exec.Command(s.console, "serve", "--config", s.dir+"/console.yaml")
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.procs[name] = c
	s.mu.Unlock()
	for range 600 {
		if name == "console" {
			if resp, err := http.Get(s.web + "/readyz"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		} else if exec.Command(s.agent, "status", "--config", s.dir+"/agent.yaml").Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Errorf("%s does not answer", name)
}

// end ends a program by a signal and waits for it.
func (s *stack) end(name string, sig os.Signal) {
	s.mu.Lock()
	c := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	if c != nil {
		c.Process.Signal(sig)
		c.Wait()
	}
}

// alerts asks the console's API for every alert, tests among them: how often
// each id is there.
func (s *stack) alerts() map[string]int {
	ids := map[string]int{}
	after := ""
	for {
		req, _ := http.NewRequest("GET", s.web+"/api/v1/alerts?tests=true&limit=1000&after="+after, nil)
		req.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var page struct {
			Alerts []struct {
				Alert struct {
					Event struct {
						ID string `json:"id"`
					} `json:"event"`
				} `json:"alert"`
			} `json:"alerts"`
			Next string `json:"next"`
		}
		if err := json.Unmarshal(body, &page); err != nil || resp.StatusCode != http.StatusOK {
			s.t.Fatalf("alerts: %s: %v\n%.500s", resp.Status, err, body)
		}
		for _, a := range page.Alerts {
			ids[a.Alert.Event.ID]++
		}
		if page.Next == "" {
			return ids
		}
		after = page.Next
	}
}

// TestKilledAgainAndAgainNothingIsLostAndNothingTwice sends self-tests through
// both programs while they are killed at random moments. A self-test that the
// agent said is on disk must be in the console in the end, once.
func TestKilledAgainAndAgainNothingIsLostAndNothingTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for minutes")
	}
	total, kills := env("SEKISHO_FAULTS_ALERTS", 40), env("SEKISHO_FAULTS_KILLS", 4)
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()

	// Killers: each program is killed after a random share of the stream.
	var sent sync.WaitGroup
	var mu sync.Mutex
	done := 0
	progress := func() int { mu.Lock(); defer mu.Unlock(); return done }
	killer := func(name string) {
		for n := range kills {
			for progress() < (n+1)*total/(kills+1) && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			s.end(name, syscall.SIGKILL)
			s.up(name)
		}
	}
	sent.Go(func() { killer("agent") })
	sent.Go(func() { killer("console") })

	want := map[string]bool{} // alert ids
	tries := 0
	for n := range total {
		id := uuid.NewString()
		for ctx.Err() == nil {
			tries++
			out, err := exec.Command(s.agent, "selftest", "--config", s.dir+"/agent.yaml", "--id", id, "--within", "5s", "--json").Output()
			var hops struct {
				AlertID string `json:"alert_id"`
			}
			if err == nil && json.Unmarshal(out, &hops) == nil && hops.AlertID != "" {
				want[hops.AlertID] = true
				break
			}
		}
		mu.Lock()
		done = n + 1
		mu.Unlock()
	}
	sent.Wait()
	if len(want) != total {
		t.Fatalf("%d self-tests gave %d alert ids", total, len(want))
	}
	var got map[string]int
	for range 600 {
		got = s.alerts()
		missing := 0
		for id := range want {
			if got[id] == 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	missing, twice := 0, 0
	for id := range want {
		if got[id] == 0 {
			missing++
		}
	}
	for _, n := range got {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d self-tests in %d tries, each program killed %d times: %d in the console, %d missing, %d twice", total, tries, kills, len(want)-missing, missing, twice)
	if missing > 0 || twice > 0 {
		t.Errorf("%d missing, %d twice", missing, twice)
	}
}
