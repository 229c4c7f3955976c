//go:build !windows

package procwatch

import (
	"context"

	"sekisho/internal/winlog"
)

// system is what the watcher asks of Windows.
type system struct{}

// open has nothing to do: /proc and the kernel are asked directly.
func (system) open(*users) {}

// audits gives nothing: no such log is kept.
func (w *Watcher) audits(context.Context) (starts <-chan *winlog.Event, done func()) {
	return nil, func() {}
}

// audited has nothing to do.
func (w *Watcher) audited(*queue, *winlog.Event) {}
