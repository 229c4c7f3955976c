package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSessionsOfLogind needs the Debian guest, as TestTheServiceUnderSystemd does.
func TestSessionsOfLogind(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	file := filepath.Join(t.TempDir(), "told.jsonl")
	cmd := exec.Command("./run", "--rootfs", "debian", "--smp", "2", "--timeout", "400",
		"--put", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent", "--put", "scenarios/service.agent.yaml:/root/agent.yaml",
		"--script", "scenarios/session.sh", "--get", "/root/told.jsonl:"+file)
	out, err := cmd.CombinedOutput()
	t.Logf("scenario:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"logind under the unit", "logon to a desktop", "locked", "unlocked", "asked to lock", "idle desktop used",
		"idle terminal used", "logoff from a desktop", "logon on a terminal", "logoff with a program left behind", "logoff after a restart of logind"} {
		if !strings.Contains(string(out), "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
	events, _ := readTold(t, file)
	var got []string
	for _, e := range events {
		action, ok := strings.CutPrefix(e.str("event.action"), "session-")
		if !ok {
			continue
		}
		if e.str("sekisho.session.id") == "" || e.str("sekisho.session.kind") != "console" || e.str("user.id") == "" || e.str("sekisho.sensor") != "logind" {
			t.Errorf("%s without session, kind, account or mechanism: %v", action, e)
		}
		if idle := e.num("sekisho.session.idle_seconds"); idle != 0 && (idle < 1200 || idle > 1400) {
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
