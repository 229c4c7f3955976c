package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"

	"go.uber.org/zap"
)

// seer is a sensor that a canary can be shown to.
type seer struct {
	name   string
	state  endpoint.SensorState
	starts atomic.Int32
}

func (s *seer) Name() string { return s.name }
func (s *seer) Status() endpoint.Sensor {
	return endpoint.Sensor{Name: s.name, State: s.state, Mechanism: "test"}
}
func (s *seer) Run(ctx context.Context, _ chan<- *event.Event) error {
	s.starts.Add(1)
	<-ctx.Done()
	return nil
}

// What canaries make of sensors, beat by beat, as "sensor action" in order.
func TestASensorThatMissesTwoCanariesIsToldAsBlindAndStartedAgain(t *testing.T) {
	const none, both, process, file, cannot = "none", "both", "process", "file", "cannot be started"
	tests := []struct {
		name   string
		beats  []string // who sees each
		states [2]endpoint.SensorState
		rule   bool // matches
		told   []string
		starts [2]int32
	}{
		{"all is well", []string{both, both}, [2]endpoint.SensorState{"ok", "degraded"}, true, nil, [2]int32{1, 1}},
		{"one may be missed", []string{both, process, both, process, both}, [2]endpoint.SensorState{"ok", "ok"}, true, nil, [2]int32{1, 1}},
		{"two may not; told once, begun anew each time", []string{process, process, process, both, both}, [2]endpoint.SensorState{"ok", "ok"}, true,
			[]string{"file sensor-degraded down", "file sensor-recovered"}, [2]int32{1, 3}},
		{"neither sees", []string{none, none, both}, [2]endpoint.SensorState{"ok", "limited"}, true,
			[]string{"file sensor-degraded down", "process sensor-degraded down", "file sensor-recovered", "process sensor-recovered"}, [2]int32{2, 2}},
		{"what is down by its own word is not asked", []string{file, file, file}, [2]endpoint.SensorState{"down", "ok"}, true, nil, [2]int32{1, 1}},
		{"nor what is off or cannot be", []string{none, none, none}, [2]endpoint.SensorState{"off", "unavailable"}, true, nil, [2]int32{1, 1}},
		{"that none can be started says nothing of a sensor", []string{cannot, cannot, cannot}, [2]endpoint.SensorState{"ok", "ok"}, true, nil, [2]int32{1, 1}},
		{"rules that do not match are the judge's trouble", []string{both, both, both}, [2]endpoint.SensorState{"ok", "ok"}, false,
			[]string{"judge sensor-degraded down"}, [2]int32{1, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				sensors := []*seer{{name: "process", state: tt.states[0]}, {name: "file", state: tt.states[1]}}
				all := supervise([]Source{sensors[0], sensors[1]}, zap.NewNop())
				ctx, cancel := context.WithCancel(t.Context())
				out := make(chan *event.Event, 16)
				for _, s := range all {
					go s.run(ctx, out)
				}
				var told []string
				l := newLife(dir, all, zap.NewNop())
				l.tell = func(_ context.Context, e *event.Event) {
					told = append(told, strings.TrimSpace(e.Sensor+" "+string(e.Action)+" "+e.Health))
				}
				seenBy := ""
				l.start = func(nonce, path string) (func(), error) {
					if seenBy == cannot {
						return nil, errors.New("no more processes")
					}
					match := func(*event.Event) bool { return tt.rule }
					if seenBy == process || seenBy == both {
						e := event.New(event.ProcessStarted, time.Now())
						e.Process = &event.Process{Args: []string{"sekisho-agent", CanaryCommand, nonce}, EntityID: "p" + nonce, Parent: ours}
						if !l.take(e, match) {
							t.Error("the canary's start is not taken out")
						}
						e.Action = event.ProcessEnded
						if !l.take(e, match) {
							t.Error("the canary's end is not taken out")
						}
					}
					if seenBy == file || seenBy == both {
						e := event.New(event.FileWritten, time.Now())
						e.File = &event.File{Path: path}
						if !l.take(e, match) {
							t.Error("the canary's file is not taken out")
						}
					}
					return func() {}, nil
				}
				for _, seenBy = range tt.beats {
					before := len(told)
					l.once(ctx)
					if len(told) == before+2 && told[before] > told[before+1] {
						told[before], told[before+1] = told[before+1], told[before] // their order does not count
					}
					time.Sleep(time.Minute)
				}
				if got, want := strings.Join(told, "\n"), strings.Join(tt.told, "\n"); got != want {
					t.Errorf("told\n%s\nwant\n%s", got, want)
				}
				for i, s := range sensors {
					if got := s.starts.Load(); got != tt.starts[i] {
						t.Errorf("%s was started %d times, want %d", s.name, got, tt.starts[i])
					}
				}
				st := all[0].status()
				l.fill(&st)
				if seenBy == cannot && (st.Canary == nil || st.Canary.Problem != "no more processes") {
					t.Errorf("status %+v", st)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// asked is a sensor that proves, when it is asked, that it sees.
type asked struct {
	seer
	prove func(nonce string)
}

func (s *asked) Prove(nonce string) { s.prove(nonce) }

// A sensor without a canary is asked for a proof, which counts as one; also where no
// process can be started, and only with the nonce of the time.
func TestASensorThatDoesNotProveThatItSeesIsToldAsBlindAndStartedAgain(t *testing.T) {
	const proves, silent, old, others = "proves", "silent", "with an old nonce", "in another's name"
	tests := []struct {
		name   string
		beats  []string
		told   string
		starts int32
	}{
		{"all is well", []string{proves, silent, proves}, "", 1},
		{"neither time", []string{silent, silent, proves}, "volume sensor-degraded down\nvolume sensor-recovered", 2},
		{"of the time before", []string{proves, old, old}, "volume sensor-degraded down", 2},
		{"of another sensor", []string{others, others}, "volume sensor-degraded down", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := &asked{seer: seer{name: "volume", state: endpoint.SensorOK}}
				all := supervise([]Source{s, &seer{name: "process", state: endpoint.SensorOK}, &seer{name: "print", state: endpoint.SensorOK}}, zap.NewNop())
				ctx, cancel := context.WithCancel(t.Context())
				out := make(chan *event.Event, 16)
				for _, s := range all {
					go s.run(ctx, out)
				}
				l := newLife(dir, all, zap.NewNop())
				var told []string
				l.tell = func(_ context.Context, e *event.Event) {
					told = append(told, strings.TrimSpace(e.Sensor+" "+string(e.Action)+" "+e.Health))
				}
				l.start = func(string, string) (func(), error) { return nil, errors.New("no more processes") }
				does, last := "", ""
				s.prove = func(nonce string) {
					e := event.Proof("volume", nonce)
					switch does {
					case silent:
						return
					case old:
						e.ID = last
					case others:
						e.Sensor = "usb"
					}
					last = nonce
					if !l.take(e, func(*event.Event) bool { return false }) {
						t.Error("a proof goes on to the rules")
					}
				}
				for _, does = range tt.beats {
					l.once(ctx)
					time.Sleep(time.Minute)
				}
				if got := strings.Join(told, "\n"); got != tt.told {
					t.Errorf("told\n%s\nwant\n%s", got, tt.told)
				}
				if got := s.starts.Load(); got != tt.starts {
					t.Errorf("started %d times, want %d", got, tt.starts)
				}
				for i, has := range []bool{true, true, false} {
					st := all[i].status()
					if l.fill(&st); (st.Canary != nil) != has {
						t.Errorf("%s: %+v", st.Name, st.Canary)
					}
				}
				if !l.take(event.Proof("volume", "nobody's"), nil) {
					t.Error("a proof that nobody asked for goes on to the rules")
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// ours is the parent of a canary.
var ours = &event.Parent{PID: event.Some(int64(os.Getpid()))}

func TestWhatIsNoCanaryOfOursIsNotTakenOut(t *testing.T) {
	l := newLife(t.TempDir(), nil, zap.NewNop())
	b := &beat{nonce: "n1", file: filepath.Join(l.dir, "n1"), due: map[string]bool{}, seen: map[string]time.Time{}}
	l.recent = []*beat{b}
	for name, e := range map[string]*event.Event{
		"the arguments with another nonce": {Action: event.ProcessStarted, Process: &event.Process{Args: []string{"x", CanaryCommand, "n2"}, Parent: ours}},
		"no nonce":                         {Action: event.ProcessStarted, Process: &event.Process{Args: []string{"x", CanaryCommand}, Parent: ours}},
		// Everybody can read the nonce while the canary runs.
		"the canary's arguments, by another": {Action: event.ProcessStarted, Process: &event.Process{Args: []string{"anydesk", CanaryCommand, "n1"}, Parent: &event.Parent{PID: event.Some(int64(os.Getppid()))}}},
		"the same by nobody knows whom":      {Action: event.ProcessStarted, Process: &event.Process{Args: []string{"anydesk", CanaryCommand, "n1"}}},
		"an end without identity":            {Action: event.ProcessEnded, Process: &event.Process{}},
		"another file beside it":             {Action: event.FileWritten, File: &event.File{Path: filepath.Join(l.dir, "n2")}},
		"the same name elsewhere":            {Action: event.FileWritten, File: &event.File{Path: "/srv/n1"}},
		"a device":                           {Action: event.USBAttached},
	} {
		if l.take(e, func(*event.Event) bool { return true }) {
			t.Errorf("%s was taken out", name)
		}
	}
}

// The real thing, this PC's sensors and a real process: both see the canary, and
// nothing of it is told anywhere but in status.
func TestTheSensorsOfThisPCSeeTheirCanary(t *testing.T) {
	if runtime.GOOS != "windows" && os.Geteuid() != 0 {
		t.Skip("needs root: without it the file sensor works by inotify, and the process sensor polls")
	}
	dir := shortDir(t)
	r := start(t, dir, "sensors: {canary: 10s}\n")
	sensor := func(name string) endpoint.Sensor {
		for _, s := range r.status().Sensors {
			if s.Name == name {
				return s
			}
		}
		t.Fatalf("no sensor %s", name)
		return endpoint.Sensor{}
	}
	for _, name := range []string{"process", "file", "usb", "volume", "session"} {
		if st := sensor(name).State; st == endpoint.SensorUnavailable {
			continue
		}
		r.until(name+" sees the canary", func() bool { c := sensor(name).Canary; return c != nil && !c.Seen.IsZero() })
		s := sensor(name)
		t.Logf("%s by %s: canary after %v", name, s.Mechanism, s.Canary.Delay)
		if s.State.Trouble() && name != "session" || s.Canary.Delay > canaryWithin {
			t.Errorf("%+v", s)
		}
	}
	time.Sleep(2 * time.Second) // the end of the process, the deletion of the file
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	own := func(text string) bool { // agents of other tests have canaries too
		return strings.Contains(text, CanaryCommand) && strings.Contains(text, strconv.Itoa(os.Getpid()))
	}
	for _, line := range r.tee.lines() {
		if own(line) {
			t.Errorf("told: %s", line)
		}
	}
	for _, name := range []string{"alerts", "activity"} {
		for _, rec := range spooled(t, r.stateDir, name) {
			if own(string(rec)) {
				t.Errorf("in spool %s: %s", name, rec)
			}
		}
	}
	if left, _ := os.ReadDir(filepath.Join(r.stateDir, canaryFolder)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
