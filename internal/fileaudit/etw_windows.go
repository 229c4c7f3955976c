package fileaudit

import (
	"context"
	"fmt"
)

const nativeMech = mechETW

func (w *Watcher) newNative(*queue, *processes, context.CancelCauseFunc) (source, error) {
	return nil, fmt.Errorf("event tracing %w: %w", errUnavailable, errNotBuilt)
}
