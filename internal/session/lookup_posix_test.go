//go:build !windows

package session

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
)

func FuzzCgroup(f *testing.F) {
	f.Add("0::/user.slice/user-1000.slice/session-c2.scope\n")
	f.Add("0::/user.slice/user-1000.slice/user@1000.service/app.slice/firefox.scope\n")
	f.Fuzz(func(t *testing.T, text string) {
		p := placeOf(text)
		if p.session != "" && (!sessionID(p.session) || p.account != "") || p.account != "" && auditNumber(p.account) != p.account {
			t.Fatalf("%+v", p)
		}
	})
}

// Several people at once, and what has no session or one that is nobody's.
func TestSessionOfAProcess(t *testing.T) {
	proc := t.TempDir()
	const none = "4294967295"
	process := func(pid int, session, uid, group string) {
		t.Helper()
		dir := filepath.Join(proc, fmt.Sprint(pid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"sessionid": session, "loginuid": uid, "cgroup": group} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	w := New(Options{Proc: proc})
	tr := w.newTracker(t.Context(), make(chan *event.Event, 16))
	tanaka, sato := event.User{ID: "1000", Name: "tanaka", Domain: "EXAMPLE"}, event.User{ID: "1001", Name: "sato"}
	tr.begin("a", &login{id: "3", user: tanaka, kind: Console, graphical: true}, true)
	tr.begin("b", &login{id: "5", user: tanaka, kind: Remote, from: &event.Source{IP: "192.0.2.7"}}, true)
	tr.begin("c", &login{id: "c7", user: sato, kind: Remote, from: &event.Source{Domain: "pc8.example.jp"}}, true)
	tr.begin("d", &login{id: "c8", user: sato, kind: Console}, true)

	const manager = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/"
	tests := []struct {
		pid                 int
		name                string
		session, uid, group string // what /proc says
		want                string // of events of the process itself and of files it copied
	}{
		{10, "sudo in a remote session", "5", "1000", "0::/system.slice\n", "5 remote from 192.0.2.7"},
		{11, "no audit in the kernel", none, none, "0::/user.slice/user-1001.slice/session-c7.scope\n", "c7 remote from pc8.example.jp"},
		{12, "a desktop's program by systemd", "9", "1000", manager + "app-gnome-firefox-812.scope\n", "3 console"},
		{13, "a desktop's program by D-Bus", "9", "1000", manager + "dbus.service\n", "3 console"},
		{14, "flatpak", "9", "1000", manager + "app-flatpak-org.example.App-812.scope\n", "3 console"},
		{15, "snap", "9", "1000", manager + "snap.app.app-0b2f.scope\n", "3 console"},
		{16, "of one of two sessions without a desktop", "10", "1001", "0::/user.slice/user-1001.slice/user@1001.service/app.slice/a.scope\n", "10"},
		{17, "a service", none, none, "0::/system.slice/cups.service\n", ""},
		{18, "a job of cron while its owner is at the desktop", "77", "1000", "0::/user.slice/user-1000.slice/session-77.scope\n", "77"},
		{19, "a job of cron without logind's knowing", "78", "1000", "0::/system.slice/cron.service\n", "78"},
		{20, "a service that runs as somebody", none, none, "0::/system.slice/backup.service\n", ""},
		{21, "a desktop's program, no audit in the kernel", none, none, manager + "a.scope\n", "3 console"},
		{22, "two ids for one session", "21", "1000", "0::/user.slice/user-1000.slice/session-5.scope\n", "5 remote from 192.0.2.7"},
	}
	show := func(e *event.Event) string {
		s := strings.TrimSpace(strings.TrimPrefix(say(e), string(e.Action)))
		return strings.TrimSpace(strings.TrimPrefix(s, "tanaka"))
	}
	for _, tt := range tests {
		process(tt.pid, tt.session, tt.uid, tt.group)
		for _, action := range []event.Action{event.ProcessStarted, event.FileCopied} {
			for range 2 { // the second answer comes from memory
				e := event.New(action, time.Now())
				e.Process = &event.Process{PID: event.Some(int64(tt.pid))}
				e.User = &event.User{ID: "1000", Name: "tanaka"}
				if action == event.ProcessStarted {
					e.SessionID = auditNumber(tt.session)
					if tt.uid != none {
						e.User.ID = tt.uid
					}
				}
				if w.Fill(e); show(e) != tt.want {
					t.Errorf("%s, %s: %q, want %q", tt.name, action, show(e), tt.want)
				}
			}
		}
	}

	of := func(pid int, audit string) string {
		e := event.New(event.ProcessEnded, time.Now())
		e.Process, e.User, e.SessionID = &event.Process{PID: event.Some(int64(pid))}, &event.User{ID: "1000"}, audit
		w.Fill(e)
		if e.User.Name+e.User.Domain != "" && *e.User != tanaka {
			t.Errorf("named %+v", e.User)
		}
		return e.User.Name + " " + show(e)
	}
	if got := of(99, "9"); !strings.HasSuffix(got, " 3 console") || !strings.HasPrefix(got, "tanaka") {
		t.Errorf("a process that is gone is in %q", got)
	}
	if got := of(99, "79"); got != " 79" {
		t.Errorf("one of a session that nobody knows is in %q", got)
	}
	if e := event.New(event.USBAttached, time.Now()); e != nil {
		if w.Fill(e); e.SessionID != "" || e.Session != nil {
			t.Errorf("a stick is in a session: %+v", e)
		}
	}

	// A copy is told when its program is gone.
	process(30, "5", "1000", "0::/\n")
	w.Remember(30, "", "")
	w.lookup.mu.Lock()
	old := w.lookup.cache[30]
	old.at = old.at.Add(-2 * cachedFor)
	w.lookup.cache[30] = old
	w.lookup.mu.Unlock()
	if err := os.RemoveAll(filepath.Join(proc, "30")); err != nil {
		t.Fatal(err)
	}
	if a := w.ofProcess(30); a.id != "5" {
		t.Errorf("a process that just ended is in session %q", a.id)
	}
	w.Remember(31, "9", "1000") // ended before anybody could look
	if a := w.ofProcess(31); a.id != "3" {
		t.Errorf("a process that ended before it was looked up is in session %q", a.id)
	}
	// What a remote person leaves behind was started from there.
	tr.end("b", time.Time{})
	if got := of(10, "5"); got != "tanaka 5 remote from 192.0.2.7" {
		t.Errorf("after its session ended a process is in %q", got)
	}
	for i := range 3 * maxKept {
		w.Remember(1000+i, "", "")
		of(1000+i, fmt.Sprint(1000+i))
		process(5, fmt.Sprint(100000+i), "1000", "0::/system.slice\n")
		of(5, fmt.Sprint(100000+i))
	}
	if k := &w.lookup; len(k.cache) > maxCached || len(k.places) > maxKept || len(k.ended) > maxKept {
		t.Errorf("%d answers, %d places, %d sessions kept", len(k.cache), len(k.places), len(k.ended))
	}
}
