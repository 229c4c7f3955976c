//go:build unix

// Package stack runs the real programs, console and agent, as processes for
// tests and benchmarks.
package stack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Stack is a console and an agent of its own on free ports, as processes.
type Stack struct {
	Dir            string // settings, state and logs of both
	Agent, Console string // programs
	Web            string // address of the console's pages and API
	Token          string // of the API

	t testing.TB

	mu    sync.Mutex // guards the processes
	procs map[string]*exec.Cmd
}

// freePorts are two ports that nobody listens on.
func freePorts(t testing.TB) (a, b int) {
	first, second := Listen(t), Listen(t)
	defer first.Close()
	defer second.Close()
	return first.Addr().(*net.TCPAddr).Port, second.Addr().(*net.TCPAddr).Port
}

// Start builds both programs and brings them up, enrolled, until the test ends.
func Start(t testing.TB) *Stack {
	s := &Stack{t: t, Dir: t.TempDir(), procs: map[string]*exec.Cmd{}}
	s.Agent, s.Console = filepath.Join(s.Dir, "sekisho-agent"), filepath.Join(s.Dir, "sekisho-console")
	for prog, pkg := range map[string]string{s.Agent: "sekisho/cmd/agent", s.Console: "sekisho/cmd/console"} {
		if out, err := exec.Command("go", "build", "-o", prog, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	agents, web := freePorts(t)
	s.Web = fmt.Sprintf("http://127.0.0.1:%d", web)
	s.Write("console.yaml", fmt.Sprintf("data_dir: %s/console\nnames: [127.0.0.1]\nlisten:\n  agents: 127.0.0.1:%d\n  web: 127.0.0.1:%d\n  metrics: \"\"\n", s.Dir, agents, web))
	s.Write("agent.yaml", fmt.Sprintf("state_dir: %s/agent\n", s.Dir))
	t.Cleanup(func() {
		for _, name := range []string{"agent", "console"} {
			s.End(name, syscall.SIGTERM)
		}
		if t.Failed() {
			for _, f := range []string{"console.log", "agent.log"} {
				b, _ := os.ReadFile(filepath.Join(s.Dir, f))
				t.Logf("end of %s:\n%s", f, b[max(0, len(b)-6000):])
			}
		}
	})
	s.Up("console")
	s.Token = strings.TrimSpace(s.Run(s.Console, "token", "create", "--config", s.Dir+"/console.yaml", "--role", "viewer", "--name", "test"))
	s.Write("token", s.Run(s.Console, "enroll-token", "create", "--config", s.Dir+"/console.yaml", "--uses", "1", "--department", "test"))
	s.Run(s.Agent, "enroll", "--config", s.Dir+"/agent.yaml", "--token-file", s.Dir+"/token")
	s.Up("agent")
	return s
}

// Write writes a file of the stack's directory.
func (s *Stack) Write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.Dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Run runs a command that must succeed and answers its standard output.
func (s *Stack) Run(prog string, args ...string) string {
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

// Up starts a program and waits until it answers.
func (s *Stack) Up(name string) {
	s.mu.Lock()
	log, err := os.OpenFile(filepath.Join(s.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(s.Agent, "run", "--config", s.Dir+"/agent.yaml")
	if name == "console" {
		c = exec.Command(s.Console, "serve", "--config", s.Dir+"/console.yaml")
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.procs[name] = c
	s.mu.Unlock()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if name == "console" {
			if resp, err := http.Get(s.Web + "/readyz"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return
				}
			}
		} else if exec.Command(s.Agent, "status", "--config", s.Dir+"/agent.yaml").Run() == nil {
			return
		}
	}
	s.t.Errorf("%s does not answer", name)
}

// End ends a program by a signal and waits for it.
func (s *Stack) End(name string, sig os.Signal) {
	s.mu.Lock()
	c := s.procs[name]
	delete(s.procs, name)
	s.mu.Unlock()
	if c != nil {
		c.Process.Signal(sig)
		c.Wait()
	}
}

// Alerts asks the console's API for every alert, tests among them: how often
// each id is there.
func (s *Stack) Alerts() map[string]int {
	ids := map[string]int{}
	after := ""
	for {
		req, _ := http.NewRequest("GET", s.Web+"/api/v1/alerts?tests=true&limit=1000&after="+after, nil)
		req.Header.Set("Authorization", "Bearer "+s.Token)
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
