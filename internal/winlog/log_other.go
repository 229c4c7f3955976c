//go:build !windows

package winlog

import (
	"errors"
	"fmt"
	"runtime"
)

var system source = none{}

// none is a system without such logs.
type none struct{}

func (none) err() error {
	return fmt.Errorf("read event logs of Windows on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
func (n none) enabled(string) (bool, error)                   { return false, n.err() }
func (n none) subscribe(string, string, bool) (stream, error) { return nil, n.err() }
func (n none) query(string, string) (stream, error)           { return nil, n.err() }

// Enable switches a channel on.
func Enable(string) error { return none{}.err() }
