package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/event"
)

// load starts processes and writes files on a medium, both numbered, until it is
// stopped. It is what really happened.
type load struct {
	stick string

	mu     sync.Mutex // guards all below
	starts map[string]span
	files  map[string]span
	last   string // of files
}

// rounds is how many starts and copies there were.
func (l *load) rounds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.files)
}

// span is when something happened at the earliest and at the latest.
type span struct{ from, to time.Time }

func (l *load) run(t *testing.T, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		name := "load-" + strconv.Itoa(n)
		from := time.Now()
		if err := exec.Command("/bin/true", name).Run(); err != nil {
			t.Errorf("start %d: %v", n, err)
			return
		}
		ran := time.Now()
		if out, err := exec.Command("cp", "/etc/hostname", filepath.Join(l.stick, name)).CombinedOutput(); err != nil {
			t.Errorf("copy %d: %v: %s", n, err, out)
			return
		}
		l.mu.Lock()
		l.starts[name] = span{from, ran}
		l.files[name], l.last = span{ran, time.Now()}, name
		l.mu.Unlock()
	}
}

// The agent is killed under load and started again: every start and copy that is
// told happened, when it is said to, and is told once; nothing of the gap is told
// but what still ran; and the gap itself is, with its ends.
func TestAKillUnderLoadInventsNothingAndTheGapIsTold(t *testing.T) {
	needRoot(t)
	dir, play := shortDir(t), playground(t)
	l := &load{stick: filepath.Join(play, "stick"), starts: map[string]span{}, files: map[string]span{}}
	stop := make(chan struct{})
	var working sync.WaitGroup
	working.Go(func() { l.run(t, stop) })
	end := sync.OnceFunc(func() {
		close(stop)
		working.Wait()
	})
	defer end()

	r := startReal(t, dir, settingsAfterwards(play, "protected"), "", 0)
	r.until("load is seen", func() bool { return r.told("file-copied", "stick/load-") })
	seen := time.Now()
	some := func() { // a while, and enough of the load in it to prove something
		t.Helper()
		before := l.rounds()
		time.Sleep(2 * time.Second)
		r.until("there was load", func() bool { return l.rounds() >= before+25 })
	}
	some()
	r.cmd.Process.Kill()
	r.stop()
	killed := time.Now()
	// A process that began in the gap and still runs is no invention.
	lasting := exec.Command("sleep", "1234")
	if err := lasting.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { lasting.Process.Kill(); lasting.Wait() }()
	time.Sleep(3 * time.Second)
	again := time.Now()
	r = startReal(t, dir, settingsAfterwards(play, "protected"), "", 0)
	r.until("the gap is told", func() bool { return r.told(`"events-lost"`, "the agent was killed") })
	up := time.Now()
	some()
	end()
	r.until("the last copy is told", func() bool { return r.told("file-copied", `/`+l.last+`"`) })
	r.until("the last start is told", func() bool { return r.told("process-started", `"`+l.last+`"`) })
	time.Sleep(time.Second) // for what must not be told
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	b, err := os.ReadFile(filepath.Join(dir, "tee"))
	if err != nil {
		t.Fatal(err)
	}
	starts, copies, inGap, after := map[string]int{}, map[string]int{}, 0, 0
	var gaps []*event.Event
	for line := range strings.Lines(string(b)) {
		if !strings.HasSuffix(line, "\n") {
			continue // the line at which it was killed
		}
		e, err := event.Decode([]byte(line))
		if err != nil || e.Kind == "alert" {
			continue
		}
		switch {
		case e.Action == event.EventsLost && e.Sensor == "agent", e.Action == event.AgentStarted && e.Lost != nil:
			gaps = append(gaps, e)
			continue
		case e.Action == event.ProcessStarted && e.Process != nil && len(e.Process.Args) == 2 && strings.HasPrefix(e.Process.Args[1], "load-") && strings.HasSuffix(e.Process.Executable, "/true"):
			name := e.Process.Args[1]
			starts[name]++
			check(t, "start of "+name, e, l.starts)
		case e.Action == event.FileCopied && e.File != nil && strings.HasPrefix(e.File.Name, "load-"):
			copies[e.File.Name]++
			check(t, "copy of "+e.File.Name, e, l.files)
		case e.Action == event.ProcessStarted && e.Process.PID.V == int64(lasting.Process.Pid):
			if !strings.HasPrefix(e.Message, "running at start") {
				t.Errorf("a process of the gap is told as %q", e.Message)
			}
			continue
		default:
			continue
		}
		// At the edges a sensor that is not up yet for all, or what was on its way.
		if e.Time.After(killed.Add(100*time.Millisecond)) && e.Time.Before(again) {
			inGap++
		}
		if e.Time.After(up) {
			after++
		}
	}
	for what, counts := range map[string]map[string]int{"start": starts, "copy": copies} {
		for name, n := range counts {
			if n > 1 {
				t.Errorf("the %s of %s was told %d times", what, name, n)
			}
		}
	}
	if inGap > 0 {
		t.Errorf("%d events of the time in which nobody watched", inGap)
	}
	if len(starts) < 20 || len(copies) < 20 || after < 20 {
		t.Errorf("%d starts, %d copies, %d of them after the kill: too few to prove anything", len(starts), len(copies), after)
	}
	t.Logf("%d starts and %d copies happened; told %d and %d, %d of them after the kill; 3 s gap", len(l.starts), len(l.files), len(starts), len(copies), after)
	if len(gaps) != 2 {
		t.Fatalf("%d gaps told, want one by the start and one as a loss", len(gaps))
	}
	// What it does not span was told.
	g := gaps[1].Lost
	for what, all := range map[string]struct {
		happened map[string]span
		told     map[string]int
	}{"start": {l.starts, starts}, "copy": {l.files, copies}} {
		for name, s := range all.happened {
			before := s.to.Before(g.From) && s.from.After(seen)
			// A mount that was there before is marked at once; a start is seen then.
			if (before || s.from.After(g.To.Add(200*time.Millisecond))) && all.told[name] == 0 {
				t.Errorf("the %s of %s between %v and %v was not told", what, name, s.from, s.to)
			}
		}
	}
	for _, e := range gaps {
		g := e.Lost
		t.Logf("%s: %s to %s: %s", e.Action, g.From, g.To, e.Message)
		if g.From.After(killed) || g.From.Before(killed.Add(-aliveEvery-onTheWay)) {
			t.Errorf("the gap begins at %v, the kill was at %v", g.From, killed)
		}
		if g.To.Before(again) || g.To.After(up) {
			t.Errorf("the gap ends at %v, the agent was started at %v and worked at %v", g.To, again, up)
		}
	}
}

// check says whether an event is of something that happened when it says.
func check(t *testing.T, what string, e *event.Event, happened map[string]span) {
	t.Helper()
	name := what[strings.LastIndex(what, " ")+1:]
	s, ok := happened[name]
	if !ok {
		t.Errorf("%s is told and was not", what)
		return
	}
	// The clocks of the kernel's ticks and ours differ by some ms.
	if e.Time.Before(s.from.Add(-100*time.Millisecond)) || e.Time.After(s.to.Add(10*time.Second)) {
		t.Errorf("%s is told for %v, it was between %v and %v", what, e.Time, s.from, s.to)
	}
}

func TestTheGapIsTheTimeSinceTheLastSignOfLife(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	at := func(t *testing.T, path string, age time.Duration) {
		t.Helper()
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		files map[string]time.Duration // age
		want  string                   // how long
	}{
		{"a first start", nil, "none"},
		{"a clean stop", map[string]time.Duration{stopFile: time.Hour, "spool/alerts/1": time.Minute}, "1h0m0s"},
		{"killed at rest", map[string]time.Duration{runFile: time.Minute}, "1m2s"},
		{"killed at work", map[string]time.Duration{runFile: time.Minute, "spool/alerts/1": 3 * time.Second, "judge/journal/7": 2 * time.Second, "log/agent.log": 0}, "4s"},
		{"the clock was set back", map[string]time.Duration{runFile: -time.Hour}, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, age := range tt.files {
				at(t, filepath.Join(dir, name), age)
			}
			got := "none"
			if g := gap(lastSign(dir), now); g != nil {
				got = g.To.Sub(g.From).String()
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
