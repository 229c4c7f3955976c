package session

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// records is a folder with the files of a machine without logind.
type records struct {
	t   *testing.T
	opt Options
}

func newRecords(t *testing.T) *records {
	dir := t.TempDir()
	r := &records{t, Options{
		Bus:  "unix:path=" + filepath.Join(dir, "no-bus"),
		Utmp: filepath.Join(dir, "utmp"), Wtmp: filepath.Join(dir, "wtmp"), Proc: filepath.Join(dir, "proc"),
		Poll: 5 * time.Millisecond, Inputs: 5 * time.Millisecond, Retry: time.Hour,
	}}
	r.write(r.opt.Utmp)
	r.write(r.opt.Wtmp)
	return r
}

// write makes a file of records anew, in one go as far as a reader can tell.
func (r *records) write(path string, all ...record) {
	r.t.Helper()
	var data []byte
	for _, x := range all {
		data = append(data, usualLayout().encode(x)...)
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *records) add(path string, data []byte) {
	r.t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		r.t.Fatal(err)
	}
}

// process begins or ends one, without a session of audit.
func (r *records) process(pid string, alive bool) {
	r.t.Helper()
	dir := filepath.Join(r.opt.Proc, pid)
	err := os.RemoveAll(dir)
	if alive {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// start runs a sensor until the test ends.
func start(t *testing.T, opt Options) (*Watcher, chan *event.Event) {
	t.Helper()
	w, out := New(opt), make(chan *event.Event, 256)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return w, out
}

// next is the next event but for those of the sensor's health.
func next(t *testing.T, out chan *event.Event) *event.Event {
	t.Helper()
	for {
		select {
		case e := <-out:
			if e.Action != event.SensorDegraded && e.Action != event.SensorRecovered {
				return e
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("nothing told for two minutes")
		}
	}
}

func state(t *testing.T, w *Watcher, state endpoint.SensorState, mechanism, reason string) {
	t.Helper()
	var st endpoint.Sensor
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if st = w.Status(); st.State == state && st.Mechanism == mechanism && strings.Contains(st.Reason, reason) {
			return
		}
	}
	t.Fatalf("status is %+v, want %s by %s because of %q", st, state, mechanism, reason)
}

func TestLogonsFromRecords(t *testing.T) {
	r := newRecords(t)
	for _, pid := range []string{"10", "11", "12", "13", "14", "15"} {
		r.process(pid, true)
	}
	in := func(pid int, line, user, host string, at time.Time) record {
		return record{Type: recordUser, PID: pid, Line: line, User: user, Host: host, At: at.UTC().Truncate(time.Microsecond)}
	}
	out := func(pid int, line string) record {
		return record{Type: recordDead, PID: pid, Line: line, At: time.Now()}
	}
	w := func(x record) []byte { return usualLayout().encode(x) }
	before := in(10, "tty1", "tanaka", "", ago(5*time.Hour))
	r.write(r.opt.Utmp, before)
	r.write(r.opt.Wtmp, before)
	s, ev := start(t, r.opt)
	state(t, s, endpoint.SensorLimited, "utmp", "no systemd-logind (connect to the system bus")

	began := ago(time.Second)
	ssh := in(11, "pts/0", "佐藤\x1b[31m", "192.0.2.7", began)
	r.add(r.opt.Wtmp, w(ssh)[:100])
	time.Sleep(30 * time.Millisecond)
	r.add(r.opt.Wtmp, w(ssh)[100:]) // torn in between
	e := next(t, ev)
	want(t, []string{say(e)}, "session-logon 佐藤\x1b[31m pts/0-11 remote from 192.0.2.7")
	if !e.Time.Equal(ssh.At) || e.Sensor != "utmp" {
		t.Errorf("at %v by %q, want %v", e.Time, e.Sensor, ssh.At)
	}
	shell := ssh // the other file says the same, of the process that login(1) forked
	shell.PID, shell.At = 15, ssh.At.Add(8*time.Millisecond)
	r.write(r.opt.Utmp, before, shell)

	// Two people at one time, one in utmp only, a window of a desktop.
	late := in(12, "pts/1", "suzuki", "pc8.example.jp", time.Now())
	r.write(r.opt.Utmp, before, shell, late, in(13, "pts/2", "suzuki", ":0", time.Now()))
	want(t, []string{say(next(t, ev))}, "session-logon suzuki pts/1-12 remote from pc8.example.jp")
	r.write(r.opt.Utmp, before, shell)
	want(t, []string{say(next(t, ev))}, "session-logoff suzuki pts/1-12 remote from pc8.example.jp")

	// logrotate moves the file away; what is still written to it counts.
	if err := os.Rename(r.opt.Wtmp, r.opt.Wtmp+".1"); err != nil {
		t.Fatal(err)
	}
	r.add(r.opt.Wtmp+".1", w(out(11, "pts/0")))
	want(t, []string{say(next(t, ev))}, "session-logoff 佐藤\x1b[31m pts/0-11 remote from 192.0.2.7")
	r.write(r.opt.Wtmp, in(14, "pts/0", "kato", "", time.Now()))
	want(t, []string{say(next(t, ev))}, "session-logon kato pts/0-14 console")
	// Killed: nobody writes it down.
	r.process("14", false)
	want(t, []string{say(next(t, ev))}, "session-logoff kato pts/0-14 console")
	// A session shorter than the time between two looks.
	r.add(r.opt.Wtmp, append(w(in(12, "pts/5", "ito", "192.0.2.9", time.Now())), w(out(12, "pts/5"))...))
	want(t, []string{say(next(t, ev)), say(next(t, ev))}, "session-logon ito pts/5-12 remote from 192.0.2.9", "session-logoff ito pts/5-12 remote from 192.0.2.9")
	// The one that was there before is known, and its end is told.
	r.add(r.opt.Wtmp, w(out(10, "tty1")))
	want(t, []string{say(next(t, ev))}, "session-logoff tanaka tty1-10 console")

	time.Sleep(50 * time.Millisecond)
	if more := told(ev); len(more) > 0 {
		t.Errorf("also told %q", more)
	}
	if st := s.Status(); st.Lost != 0 || st.Events != 9 {
		t.Errorf("status %+v", st)
	}
}

func TestWithoutUtmpWhoIsThereComesFromWtmp(t *testing.T) {
	r := newRecords(t)
	r.process("10", true)
	r.process("11", true)
	if err := os.Remove(r.opt.Utmp); err != nil {
		t.Fatal(err)
	}
	at := ago(time.Hour)
	r.write(r.opt.Wtmp,
		record{Type: recordUser, PID: 11, Line: "tty3", User: "ito", At: at},
		record{Type: recordBoot, Line: "~", User: "reboot", At: at.Add(time.Second)},
		record{Type: recordUser, PID: 10, Line: "tty1", User: "tanaka", At: at.Add(time.Minute)},
		record{Type: recordUser, PID: 12, Line: "tty2", User: "sato", At: at.Add(time.Minute)}, // its process is gone
	)
	s, ev := start(t, r.opt)
	state(t, s, endpoint.SensorLimited, "utmp", "logons are read from")
	r.process("10", false)
	want(t, []string{say(next(t, ev))}, "session-logoff tanaka tty1-10 console")
	if more := told(ev); len(more) > 0 {
		t.Errorf("also told %q", more)
	}
}

func TestWithoutAnyRecordsNothingIsSeenUntilThereAre(t *testing.T) {
	r := newRecords(t)
	for _, f := range []string{r.opt.Utmp, r.opt.Wtmp} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	r.process("10", true)
	s, ev := start(t, r.opt)
	// A system that has neither is watched otherwise: no alarm.
	state(t, s, endpoint.SensorUnavailable, "utmp", "nothing is seen")
	r.write(r.opt.Wtmp, record{Type: recordUser, PID: 10, Line: "tty1", User: "tanaka", At: time.Now()})
	want(t, []string{say(next(t, ev))}, "session-logon tanaka tty1-10 console")
	state(t, s, endpoint.SensorLimited, "utmp", "logons are read from")
	s.Prove("nonce")
	if e := next(t, ev); e.Action != event.SensorProven || e.ID != "nonce" {
		t.Errorf("got %+v, want the proof", e)
	}
}

func TestRecordsThatAreAPipeDoNotHang(t *testing.T) {
	r := newRecords(t)
	for _, f := range []string{r.opt.Utmp, r.opt.Wtmp} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command("mkfifo", f).Run(); err != nil {
			t.Skipf("mkfifo: %v", err)
		}
	}
	s, _ := start(t, r.opt)
	state(t, s, endpoint.SensorDown, "utmp", "not a plain file")
}

// A real login(1) on a real terminal writes real records, into files of the test's
// own: its /run and /var/log/wtmp are others in its mount namespace.
func TestALoginOnATerminal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("login(1) and a mount namespace need root")
	}
	for _, tool := range []string{"unshare", "login", "script", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here", tool)
		}
	}
	if _, err := os.Stat("/var/log/wtmp"); err != nil {
		t.Skip("no /var/log/wtmp to put another one in the place of")
	}
	r := newRecords(t)
	r.opt.Proc = "/proc"
	dir := filepath.Dir(r.opt.Utmp)
	ready, leave := filepath.Join(dir, "ready"), filepath.Join(dir, "leave")
	cmd := exec.Command("unshare", "--mount", "sh", "-ec", `
		mount --bind "$DIR/wtmp" /var/log/wtmp
		mount -t tmpfs none /run
		: >/run/utmp
		mount --bind "$DIR/utmp" /run/utmp
		[ ! -e /var/log/lastlog ] || { : >"$DIR/lastlog"; mount --bind "$DIR/lastlog" /var/log/lastlog; }
		{ until [ -e "$DIR/ready" ]; do sleep 0.1; done; echo 'unset HISTFILE; : >"'$DIR'/here"'; until [ -e "$DIR/leave" ]; do sleep 0.1; done; echo exit; } |
			script -qc "login -f root" /dev/null`)
	cmd.Env = append(os.Environ(), "DIR="+dir)
	s, ev := start(t, r.opt)
	state(t, s, endpoint.SensorLimited, "utmp", "logons are read from")
	if err := os.WriteFile(ready, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer os.WriteFile(leave, nil, 0o644)
	on := next(t, ev)
	if on.Action != event.SessionLogon || on.User.Name != "root" || on.User.ID != "0" || on.Session.Kind != Console || on.SessionID == "" ||
		time.Since(on.Time) > time.Minute {
		t.Fatalf("told %s at %v of user %+v", say(on), on.Time, on.User)
	}
	if err := os.WriteFile(leave, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	off := next(t, ev)
	if off.Action != event.SessionLogoff || off.SessionID != on.SessionID {
		t.Fatalf("told %s after %s", say(off), say(on))
	}
	t.Logf("%s, %v later %s", say(on), off.Time.Sub(on.Time).Round(time.Millisecond), say(off))
}

// The directory server hangs, and each who asks it takes a thread, of which a service
// may have 128. wtmp tells of hundreds of logons.
func TestADirectoryThatHangsHoldsUpLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		var asked atomic.Int32
		a := accounts{lookup: func(string) (string, error) { asked.Add(1); <-release; return "1", nil }, asking: make(chan struct{}, maxAsking)}
		began := time.Now()
		for range 500 {
			if id := a.id("tanaka"); id != "" {
				t.Fatalf("account %q before the answer", id)
			}
		}
		if took, n := time.Since(began), asked.Load(); took > maxAsking*accountTime || n > maxAsking {
			t.Errorf("500 logons waited %v, %d ask at once", took, n)
		}
	})
}
