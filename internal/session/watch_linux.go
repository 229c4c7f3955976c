package session

import (
	"context"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Run watches until ctx ends; there is always something it can try again.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	t := w.newTracker(ctx, out)
	b, err := openLogind(ctx, w.opt.Bus)
	for ctx.Err() == nil {
		if err == nil {
			if err = t.logind(b); err == nil {
				return nil
			}
		}
		if b, err = t.utmp(err); b == nil {
			return nil
		}
	}
	if b != nil {
		b.conn.Close()
	}
	return nil
}

// tellState sets the state and tells a change for better or worse.
func (t *tracker) tellState(state endpoint.SensorState, mechanism, reason string) {
	was := t.setState(state, mechanism, reason)
	// Before the first mechanism there was nothing to get better or worse.
	first := was.Mechanism == ""
	if state.Trouble() && was.State == state && !first || !state.Trouble() && (first || !was.State.Trouble()) {
		return
	}
	action, message, health := event.SensorDegraded, reason, event.HealthDegraded
	switch {
	case !state.Trouble():
		action, message, health = event.SensorRecovered, "sessions are told by "+mechanism+" again", ""
	case state == endpoint.SensorDown:
		health = event.HealthDown
	}
	e := event.New(action, time.Now())
	e.Sensor, e.Message, e.Health = t.Name(), message, health
	t.send(t.ctx, t.out, e)
}
