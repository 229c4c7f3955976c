//go:build !linux

package fileaudit

import (
	"context"
	"fmt"
	"os"
	"time"

	"sekisho/internal/volume"
)

// newNative: ETW's Kernel-File on Windows would stand here.
func (w *Watcher) newNative(*queue, *processes, context.CancelCauseFunc) (source, error) {
	return nil, fmt.Errorf("event tracing %w: %w", errUnavailable, errNotBuilt)
}

// identity: what os.Lstat gives has neither.
func identity(os.FileInfo) (volume.Dev, uint64) { return volume.Dev{}, 0 }

// attached: nothing here asks for it.
func attached(string, volume.Dev) bool { return true }

func changeTime(fi os.FileInfo) time.Time { return fi.ModTime() }
