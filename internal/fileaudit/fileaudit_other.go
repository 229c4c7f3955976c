//go:build !linux && !windows

package fileaudit

import (
	"context"
	"fmt"
	"os"
	"time"

	"sekisho/internal/volume"
)

const nativeMech = "none"

func (w *Watcher) newNative(*queue, *processes, context.CancelCauseFunc) (source, error) {
	return nil, fmt.Errorf("a mechanism that tells processes %w: %w", errUnavailable, errNotHere)
}

// identity: what os.Lstat gives has neither.
func identity(os.FileInfo) (volume.Dev, uint64) { return volume.Dev{}, 0 }

// attached: nothing here asks for it.
func attached(string, *volume.Volume) bool { return true }

func changeTime(fi os.FileInfo) time.Time { return fi.ModTime() }
