package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"

	"go.uber.org/zap"
)

// What a supervised source tells, as "action after: message".
func TestASourceThatBreaksIsToldOnceAndStartedAgain(t *testing.T) {
	broken := errors.New("netlink: no buffer")
	tests := []struct {
		name   string
		script func(n int) (runs time.Duration, err error) // of the nth start, from 1; runs 0 and err nil: until the end
		want   []string
		starts int
	}{
		{"a panic is the source's error, and the source comes back",
			func(n int) (time.Duration, error) {
				if n == 1 {
					panic("index out of range")
				}
				return 0, nil
			},
			[]string{"sensor-degraded 0s: down: panic: index out of range", "sensor-recovered 4s: the sensor works again"}, 2},
		{"one that breaks again and again is told once, and tried ever more seldom",
			func(n int) (time.Duration, error) { return time.Second, broken },
			[]string{"sensor-degraded 1s: down: netlink: no buffer"}, 64},
		{"one that ran and breaks anew is told anew",
			func(n int) (time.Duration, error) {
				if n <= 2 {
					return 10 * time.Second, broken
				}
				return 0, nil
			},
			[]string{"sensor-degraded 10s: down: netlink: no buffer", "sensor-recovered 14s: the sensor works again",
				"sensor-degraded 21s: down: netlink: no buffer", "sensor-recovered 26s: the sensor works again"}, 3},
		{"one that this system cannot have is no trouble and not tried again",
			func(n int) (time.Duration, error) { return 0, fmt.Errorf("fanotify: %w", errors.ErrUnsupported) },
			nil, 1},
		{"one that ends without an error is broken too",
			func(n int) (time.Duration, error) {
				if n == 1 {
					return time.Nanosecond, nil
				}
				return 0, nil
			},
			[]string{"sensor-degraded 0s: down: ended without a reason", "sensor-recovered 4s: the sensor works again"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				starts := 0
				src := &scripted{script: func(ctx context.Context, out chan<- *event.Event) error {
					starts++
					runs, err := tt.script(starts)
					if runs == 0 && err == nil {
						<-ctx.Done()
						return nil
					}
					select {
					case <-time.After(runs):
					case <-ctx.Done():
					}
					return err
				}}
				s := supervise([]Source{src}, zap.NewNop())[0]
				out := make(chan *event.Event, 100)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				early, late := make(chan endpoint.SensorState, 1), make(chan endpoint.SensorState, 1)
				time.AfterFunc(500*time.Millisecond, func() { early <- s.status().State })
				time.AfterFunc(59*time.Minute, func() { late <- s.status().State })
				s.run(ctx, out)
				close(out)
				down, up := <-early, <-late
				var got []string
				for e := range out {
					if e.Sensor != "scripted" {
						t.Errorf("%s of sensor %q", e.Action, e.Sensor)
					}
					got = append(got, fmt.Sprintf("%s %v: %s", e.Action, e.Time.Sub(began).Truncate(time.Second), e.Message))
				}
				if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
				if starts != tt.starts {
					t.Errorf("started %d times in an hour, want %d", starts, tt.starts)
				}
				want := endpoint.SensorDown
				if len(tt.want) == 0 {
					want = endpoint.SensorUnavailable
				} else if strings.Contains(tt.want[len(tt.want)-1], "recovered") {
					want = endpoint.SensorOK
				}
				if up != want {
					t.Errorf("after 59 minutes the status says %s, want %s", up, want)
				}
				if len(tt.want) > 0 && strings.Contains(tt.want[0], " 0s:") && down != endpoint.SensorDown {
					t.Errorf("half a second after it broke the status says %s", down)
				}
			})
		})
	}
}
