package agent

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/event"
)

// What is decided, reading by reading, two seconds apart. "20x5" is five readings
// of 20 % CPU; "20p60" one at which something waited for the CPU 60 % of the time,
// "5m80" one of 80 MB. The limits are 25 % and 48 MB. want is when which level
// begins.
func TestWhatIsShedFollowsWhatIsUsed(t *testing.T) {
	for _, tt := range []struct{ name, readings, want string }{
		{"at rest", "0x100", ""},
		{"at the limit", "25x100", ""},
		{"one busy period is no flood", "90 0x5 90 0x5 90", ""},
		{"two are", "5 90 90 0", "4s:1"},
		{"level by level", "90x8", "2s:1 6s:2 10s:3"},
		{"no further than the last", "90x100", "2s:1 6s:2 10s:3"},
		{"a little over is over, and ends before activity", "26x100", "2s:1 6s:2"},
		{"activity is kept again sooner", "90x6 30x100", "2s:1 6s:2 10s:3 22s:2"},
		{"falls level by level, ten seconds each", "90x6 0x30", "2s:1 6s:2 10s:3 22s:2 32s:1 42s:0"},
		{"does not fall while it is near the limit", "90x2 20x100", "2s:1"},
		{"does not fall where it is low now and then", "90x2 5x3 20 5x3 20 5x3 20", "2s:1"},
		{"one that comes back waits longer each time", "90x2 0x6 90x2 0x11 90x2 0x21", "2s:1 14s:0 18s:1 40s:0 44s:1 86s:0"},
		{"and forgets that after a while", "90x2 0x6 90x2 0x11 0x160 90x2 0x6", "2s:1 14s:0 18s:1 40s:0 364s:1 376s:0"},
		{"where others wait, half is enough", "13p60x2", "2s:1"},
		{"where they do not, it is not", "13p30x20", ""},
		{"memory counts as well", "1m61x2", "2s:1"},
		{"a little over is the collector's business", "1m59x20", ""},
		{"where memory is short, half of it", "1m31q50x2", "2s:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBudget()
			b.set(config.AgentLimits{CPU: 25, Memory: 48 * config.MiB})
			began := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
			now, level := began, b.level
			var got []string
			for word := range strings.FieldsSeq(tt.readings) {
				r, times := reading{}, 1
				if s, n, ok := strings.Cut(word, "x"); ok {
					word = s
					fmt.Sscan(n, &times)
				}
				for _, x := range []struct {
					letter string
					to     *float64
				}{{"q", &r.memoryPressure}, {"p", &r.cpuPressure}} {
					if s, n, ok := strings.Cut(word, x.letter); ok {
						word = s
						fmt.Sscan(n, x.to)
					}
				}
				if s, n, ok := strings.Cut(word, "m"); ok {
					word = s
					fmt.Sscan(n, &r.memory)
					r.memory <<= 20
				}
				fmt.Sscan(word, &r.cpu)
				for range times {
					b.decide(now, r)
					if b.level != level {
						level = b.level
						got = append(got, fmt.Sprintf("%v:%d", now.Sub(began), level))
					}
					now = now.Add(2 * time.Second)
				}
			}
			for i, s := range got { // 1m2s is 62s
				at, level, _ := strings.Cut(s, ":")
				d, _ := time.ParseDuration(at)
				got[i] = fmt.Sprintf("%.0fs:%s", d.Seconds(), level)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), tt.want)
			}
		})
	}
}

func TestWhatEachLevelSheds(t *testing.T) {
	file := func(a event.Action) *event.Event { return &event.Event{Action: a, File: &event.File{}} }
	process := func(a event.Action) *event.Event { return &event.Event{Action: a, Process: &event.Process{}} }
	for _, tt := range []struct {
		e    *event.Event
		want thrift // from which level on it is not judged; 0: always judged
		kept bool   // as activity, on the last level
	}{
		{file(event.FileRead), shedReads, false},
		{file(event.FileWritten), shedWrites, false},
		{file(event.FileRenamed), shedWrites, false},
		{file(event.FileDeleted), shedWrites, false},
		{process(event.ProcessEnded), shedWrites, false},
		{process(event.ProcessStarted), 0, false},
		{process(event.NetworkConnected), 0, false},
		{file(event.FileCopied), 0, false},
		{file(event.ArchiveCreated), 0, false},
		{file(event.FileUploaded), 0, false},
		{&event.Event{Action: event.USBAttached}, 0, true},
		{&event.Event{Action: event.VolumeMounted}, 0, true},
		{&event.Event{Action: event.SessionLogon}, 0, true},
		{&event.Event{Action: event.EventsLost}, 0, true},
		{&event.Event{Action: event.SensorDegraded}, 0, true},
	} {
		for level := range shedActivity + 1 {
			b := newBudget()
			b.level = level
			if got, want := b.sheds(tt.e), tt.want != 0 && level >= tt.want; got != want {
				t.Errorf("level %d: %s is shed: %v, want %v", level, tt.e.Action, got, want)
			}
			if got, want := b.shedsActivity(tt.e), level == shedActivity && !tt.kept; got != want {
				t.Errorf("level %d: the record of %s is shed: %v, want %v", level, tt.e.Action, got, want)
			}
		}
	}
}

// A flood of reads and writes on a real agent that may take 10 % of a core: it
// sheds, an alert in the middle of it is raised all the same, it recovers, and what
// was judged and what is told as shed are what was sent.
func TestUnderAFloodReadsAreShedAlertsAreNotAndItRecovers(t *testing.T) {
	var flood atomic.Bool
	var sent atomic.Int64
	flood.Store(true)
	src := &scripted{script: func(ctx context.Context, out chan<- *event.Event) error {
		for n := 0; ctx.Err() == nil; n++ {
			if !flood.Load() {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			for range 200 {
				e := event.New([]event.Action{event.FileRead, event.FileWritten}[n%2], time.Now())
				e.File = &event.File{Path: fmt.Sprintf("/srv/juki/%d", n), Name: fmt.Sprint(n)}
				select {
				case out <- e:
					sent.Add(1)
				case <-ctx.Done():
					return nil
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
		return nil
	}}
	other := newScripted()
	r := start(t, shortDir(t), "limits: {cpu: 10}\n", src, other)
	r.do(func() { r.budget.hold = 2 * time.Second })
	r.tee.off.Store(true) // it would hold the whole flood
	shedding := func() string { return strings.Join(r.status().Budget.Shedding, " ") }
	r.until("it sheds", func() bool { return shedding() != "" })
	r.until("it sheds the most that it may", func() bool { return shedding() == "reads writes activity" })
	before := r.status().AlertsRaised
	other.out <- stick("in the flood")
	r.until("an alert is raised in the flood", func() bool { return r.status().AlertsRaised > before })
	if st := r.status(); st.Budget.CPULimit != 10 || st.Budget.CPUPercent <= 0 {
		t.Errorf("%+v", st.Budget)
	}
	flood.Store(false)
	for range 240 { // asking takes CPU as well, so seldom
		if shedding() == "" {
			break
		}
		time.Sleep(time.Second)
	}
	st := r.status()
	if len(st.Budget.Shedding) > 0 {
		t.Fatalf("it does not recover: %+v", st.Budget)
	}
	r.until("all that was shed is told", func() bool {
		st = r.status()
		return int64(st.Budget.Shed+st.Events) >= sent.Load()
	})
	t.Logf("sent %d, judged %d, shed %d", sent.Load(), st.Events, st.Budget.Shed)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	var told int64
	for _, rec := range spooled(t, r.stateDir, "activity") {
		e, err := event.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		if e.Action == event.EventsLost && e.Sensor == sensorBudget {
			told += e.Lost.Count.V
			if !strings.Contains(e.Message, "limits") {
				t.Errorf("told as %q", e.Message)
			}
		}
	}
	if uint64(told) != st.Budget.Shed || told == 0 {
		t.Errorf("told %d as shed, status says %d", told, st.Budget.Shed)
	}
	if got := serials(t, spooled(t, r.stateDir, "alerts"))["in the flood"]; got != 1 {
		t.Errorf("the alert of the stick is there %d times", got)
	}
}
