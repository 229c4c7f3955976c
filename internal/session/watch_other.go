//go:build !linux && !windows

package session

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"sekisho/internal/event"
)

// Run returns an error that wraps errors.ErrUnsupported.
func (w *Watcher) Run(context.Context, chan<- *event.Event) error {
	return fmt.Errorf("watch sessions on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// What only Linux knows of a session and keeps of its records.
type (
	origin struct{}
	files  struct{}
)
