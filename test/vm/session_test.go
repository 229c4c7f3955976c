package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSessionsOfLogind needs the Debian guest, as TestTheServiceUnderSystemd does.
func TestSessionsOfLogind(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	if _, err := exec.LookPath("sudo"); err != nil {
		t.Skip("no sudo here to bring into the guest: apt-get install sudo")
	}
	file := filepath.Join(t.TempDir(), "told.jsonl")
	_, said := run(t, "--rootfs", "debian", "--smp", "2", "--timeout", "900",
		"--put", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent", "--put", "scenarios/service.agent.yaml:/root/agent.yaml",
		"--exe", "/usr/bin/sudo:/usr/bin/sudo", "--put", "/usr/libexec/sudo:/usr/libexec/sudo", "--put", "/etc/pam.d/sudo:/etc/pam.d/sudo",
		"--script", "scenarios/session.sh", "--get", "/root/told.jsonl:"+file)
	for _, want := range []string{"logind under the unit", "logon to a desktop", "sudo on a terminal", "a program by the desktop's service manager", "locked", "unlocked", "asked to lock", "idle desktop used",
		"idle terminal used", "logoff from a desktop", "logon on a terminal", "logoff with a program left behind", "logoff after a restart of logind"} {
		if !strings.Contains(said, "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	events, _ := readTold(t, file)
	_, desktop, _ := strings.Cut(said, "desktop is ")
	desktop, _, _ = strings.Cut(desktop, "\n")
	started := map[string]string{} // command lines of sleep and when
	for _, e := range events {
		if e.str("event.action") != "process-started" || e.str("process.name") != "sleep" {
			continue
		}
		who := strings.Join([]string{e.str("user.name"), e.str("user.effective.name"), e.str("sekisho.session.kind")}, " ")
		switch line := e.str("process.command_line"); {
		case strings.HasSuffix(line, "sleep 0.771") && who != "sato root console",
			strings.HasSuffix(line, "sleep 0.772") && (who != "tanaka  console" || e.str("sekisho.session.id") != desktop):
			t.Errorf("%s is told as %q in session %q", line, who, e.str("sekisho.session.id"))
		}
		started[strings.TrimPrefix(e.str("process.command_line"), "/usr/bin/")] = e.str("@timestamp")
	}
	// The clock was set 20 minutes on between these.
	before, _ := time.Parse(time.RFC3339Nano, started["sleep 0.772"])
	after, _ := time.Parse(time.RFC3339Nano, started["sleep 500"])
	if d := after.Sub(before); d < 20*time.Minute || d > time.Hour {
		t.Errorf("starts before and after the clock was set are %v apart", d)
	}
	var got []string
	for _, e := range events {
		action, ok := strings.CutPrefix(e.str("event.action"), "session-")
		if !ok {
			continue
		}
		if e.str("sekisho.session.id") == "" || e.str("sekisho.session.kind") != "console" || e.str("user.id") == "" || e.str("sekisho.sensor") != "logind" {
			t.Errorf("%s without session, kind, account or mechanism: %v", action, e)
		}
		if idle := e.num("sekisho.session.idle_seconds"); idle != 0 && (idle < 1200 || idle > 3600) {
			t.Errorf("%s after %v s, want 20 min and a bit", action, idle)
		}
		got = append(got, action+" "+e.str("user.name"))
	}
	want := "logon tanaka, locked tanaka, unlocked tanaka, locked tanaka, resumed tanaka, resumed sato, logoff tanaka, " +
		"logon tanaka, logoff tanaka, logoff sato"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("told %s\nwant %s", s, want)
	}
}
