package agent

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/event"
)

// ofProcess is a start or an end.
func ofProcess(a event.Action, entity, exe string) *event.Event {
	e := event.New(a, time.Now())
	e.Process = &event.Process{Executable: exe, EntityID: entity, ExitCode: event.Some[int64](0)}
	return e
}

func TestEndsAreJudgedForWhoAsksForThem(t *testing.T) {
	const rule = `title: End of nc
id: 0b1e0f1e-5c2d-4f0f-9d0f-3a1f1d0e7a11
status: test
logsource: {category: process_termination, product: linux}
detection:
  selection: {Image|endswith: /nc}
  condition: selection
level: low
`
	for _, tt := range []struct {
		name        string
		rules       bool
		exe         string
		judged, act bool // what is expected of the end
	}{
		{"of a program", false, "/usr/bin/true", false, false},
		{"of a remote-access tool, which closes a session and is shipped", false, "/opt/x/anydesk", true, true},
		{"of a program, where a rule asks for ends", true, "/usr/bin/nc", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := shortDir(t)
			settings := fmt.Sprintf("state_dir: %s\n", filepath.Join(dir, "state"))
			if tt.rules {
				write(t, filepath.Join(dir, "end.yml"), rule)
				settings += fmt.Sprintf("rules: {paths: [%s]}\n", filepath.Join(dir, "end.yml"))
			}
			write(t, filepath.Join(dir, "agent.yaml"), settings)
			a, err := New(Options{ConfigFile: filepath.Join(dir, "agent.yaml"), Version: "test", Sources: []Source{newScripted()}})
			if err != nil {
				t.Fatal(err)
			}
			defer a.out.close()
			defer a.judge.Close()
			// The rule for nc is for Linux.
			a.host.OSType = "linux"
			a.handle(ofProcess(event.ProcessStarted, "p1", tt.exe))
			before := a.judge.Stats()
			kept := a.handle(ofProcess(event.ProcessEnded, "p1", tt.exe))
			after := a.judge.Stats()
			if got := after.Events > before.Events; got != tt.judged {
				t.Errorf("judged %v, want %v", got, tt.judged)
			}
			if kept != tt.act {
				t.Errorf("kept as activity %v, want %v", kept, tt.act)
			}
			if got := after.Alerts > before.Alerts; got != tt.rules {
				t.Errorf("alert %v, want %v", got, tt.rules)
			}
			if n := a.judged.Load(); n != 2 {
				t.Errorf("%d events counted, want 2", n)
			}
			if len(a.ends.tools) != 0 {
				t.Errorf("remembered: %v", a.ends.tools)
			}
		})
	}
}

func TestTooManyToolsMeanThatEveryEndIsJudged(t *testing.T) {
	n := ends{tools: map[string]bool{}}
	for i := range maxTools + 1 {
		e := ofProcess(event.ProcessStarted, fmt.Sprint(i), "/opt/x/anydesk")
		e.Process.RemoteTool = &event.RemoteTool{ID: "anydesk"}
		n.note(e)
	}
	if !n.all || len(n.tools) != maxTools {
		t.Errorf("all %v, %d remembered", n.all, len(n.tools))
	}
}
