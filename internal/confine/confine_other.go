//go:build !linux

package confine

import (
	"errors"
	"fmt"
)

// Drop returns an error that wraps errors.ErrUnsupported.
func Drop(...string) error {
	return fmt.Errorf("drop privileges: %w", errors.ErrUnsupported)
}

// Now is the zero State.
func Now() (State, error) { return State{}, nil }
