package session

import (
	"context"

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
