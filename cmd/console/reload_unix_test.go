//go:build unix

package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// logged waits until the process has logged a text.
func (p *process) logged(text string) {
	p.t.Helper()
	for range 4800 { // two minutes
		if b, err := os.ReadFile(filepath.Join(p.dir, "log")); err == nil && strings.Contains(string(b), text) {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	b, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	p.t.Errorf("not logged: %q\n%s", text, b)
}

func TestSettingsAreReadAgainAndTheProgramStopsInTime(t *testing.T) {
	p := &process{t: t, dir: t.TempDir(), web: "127.0.0.1:" + freePort(t)}
	write := func(level, more string) {
		t.Helper()
		text := fmt.Sprintf("data_dir: data\nlisten:\n  web: %s\n  agents: 127.0.0.1:0\n  metrics: \"\"\nlog:\n  level: %s\n%s", p.web, level, more)
		if err := os.WriteFile(filepath.Join(p.dir, "console.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hangup := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("info", "")
	p.start()
	write("debug", "retention:\n  activity: 30d\n")
	hangup()
	p.logged(`"changed": ["log.level: \"info\" -> \"debug\""]`)
	p.logged(`"after_a_restart": ["retention.activity: 90d -> 30d"]`)
	write("loud", "")
	hangup()
	p.logged("settings stay as they were")
	if resp, err := http.Get("http://" + p.web + "/healthz"); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}

	start := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil || time.Since(start) > time.Minute {
		t.Errorf("got %v after %s, want exit 0 within a minute", err, time.Since(start))
	}
	p.logged("console stopped")
}
