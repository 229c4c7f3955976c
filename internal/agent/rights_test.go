package agent

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// A sensor that has to be opened anew when rights were given up has the whole
// agent started again, by who does that, and not over and over.
func TestAnAgentWithoutRightsAsksToBeStartedAgain(t *testing.T) {
	for _, tt := range []struct {
		name      string
		drops     bool
		restarted bool
		ran       time.Duration
		ends      bool
		again     int32 // starts of the sensor
	}{
		{"rights were given up", true, true, time.Hour, true, 1},
		{"it runs since a moment only", true, true, time.Minute, false, 1},
		{"nobody starts it again", true, false, time.Hour, false, 1},
		{"it has its rights", false, true, time.Hour, false, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := shortDir(t)
			file := filepath.Join(dir, "agent.yaml")
			write(t, file, "state_dir: "+filepath.Join(dir, "state")+"\n")
			s := &seer{name: "file", state: "ok"}
			o := Options{ConfigFile: file, Version: "test", Sources: []Source{s}, Restarted: tt.restarted}
			if tt.drops {
				o.Confine = func(...string) error { return nil }
			}
			a, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			a.started = time.Now().Add(-tt.ran)
			r := &running{Agent: a, t: t}
			ended := make(chan error, 1)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() { ended <- a.Run(ctx) }()
			r.until("it runs, with the rights it has", func() bool { return s.starts.Load() == 1 && a.rightsNow().Dropped == tt.drops })
			a.again(a.sensors[0])
			within := 2 * time.Second
			if tt.ends {
				within = patience
			}
			select {
			case err := <-ended:
				if !tt.ends || !errors.Is(err, ErrAgain) {
					t.Errorf("it ended: %v", err)
				}
			case <-time.After(within):
				if tt.ends {
					t.Error("it goes on")
				}
				r.until("the sensor was started as often as it should", func() bool { return s.starts.Load() >= tt.again })
				stop()
				if err := <-ended; err != nil {
					t.Errorf("stopped, it says %v", err)
				}
			}
			if got := s.starts.Load(); got != tt.again {
				t.Errorf("the sensor was started %d times, want %d", got, tt.again)
			}
		})
	}
}

// fragile is a sensor that breaks when it is told to, and comes back in the next state.
type fragile struct {
	states []endpoint.SensorState
	breaks chan struct{}
	runs   atomic.Int32
}

func (f *fragile) Name() string { return "process" }
func (f *fragile) Status() endpoint.Sensor {
	n := min(int(f.runs.Load()), len(f.states))
	if n == 0 {
		return endpoint.Sensor{Name: "process", State: endpoint.SensorDown}
	}
	return endpoint.Sensor{Name: "process", State: f.states[n-1], Mechanism: "test"}
}
func (f *fragile) Run(ctx context.Context, _ chan<- *event.Event) error {
	f.runs.Add(1)
	select {
	case <-ctx.Done():
		return nil
	case <-f.breaks:
		return errors.New("broken")
	}
}

// A sensor that broke comes back with less than it had, for want of the rights that
// were given up: that is no state to stay in.
func TestASensorThatComesBackWithLessHasTheAgentStartedAgain(t *testing.T) {
	const ok, degraded, limited = endpoint.SensorOK, endpoint.SensorDegraded, endpoint.SensorLimited
	var all sync.WaitGroup
	for _, tt := range []struct {
		name             string
		states           []endpoint.SensorState
		drops, restarted bool
		ran              time.Duration
		ends             bool
	}{
		{"as before", []endpoint.SensorState{ok, ok}, true, true, time.Hour, false},
		{"with less", []endpoint.SensorState{ok, degraded}, true, true, time.Hour, true},
		{"with less of what there can be", []endpoint.SensorState{limited, degraded}, true, true, time.Hour, true},
		{"it never had more", []endpoint.SensorState{degraded, degraded}, true, true, time.Hour, false},
		{"it has its rights", []endpoint.SensorState{ok, degraded}, false, true, time.Hour, false},
		{"nobody starts it again", []endpoint.SensorState{ok, degraded}, true, false, time.Hour, false},
		{"soon after the start, later", []endpoint.SensorState{ok, degraded}, true, true, steadyBefore - recoveredAfter - 3*time.Second, true},
		{"soon after the start", []endpoint.SensorState{ok, degraded}, true, true, time.Minute, false},
	} {
		dir := shortDir(t)
		file := filepath.Join(dir, "agent.yaml")
		write(t, file, "state_dir: "+filepath.Join(dir, "state")+"\n")
		s := &fragile{states: tt.states, breaks: make(chan struct{}, 1)}
		o := Options{ConfigFile: file, Version: "test", Sources: []Source{s}, Restarted: tt.restarted}
		if tt.drops {
			o.Confine = func(...string) error { return nil }
		}
		a, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		a.started = time.Now().Add(-tt.ran)
		all.Go(func() { // side by side: most of it is waiting
			ended := make(chan error, 1)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() { ended <- a.Run(ctx) }()
			for s.runs.Load() == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(recoveredAfter + 2*time.Second)
			s.breaks <- struct{}{}
			within := firstRetry + recoveredAfter + 4*time.Second
			if tt.ends {
				within = patience
			}
			select {
			case err := <-ended:
				if !tt.ends || !errors.Is(err, ErrAgain) || s.runs.Load() != 2 {
					t.Errorf("%s: it ended after %d runs of the sensor: %v", tt.name, s.runs.Load(), err)
				}
			case <-time.After(within):
				if tt.ends {
					t.Errorf("%s: it goes on", tt.name)
				}
				stop()
				if err := <-ended; err != nil {
					t.Errorf("%s: stopped, it says %v", tt.name, err)
				}
			}
		})
	}
	all.Wait()
}
