package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
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
			select {
			case err := <-ended:
				if !tt.ends || !errors.Is(err, ErrAgain) {
					t.Errorf("it ended: %v", err)
				}
			case <-time.After(2 * time.Second):
				if tt.ends {
					t.Error("it goes on")
				}
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
