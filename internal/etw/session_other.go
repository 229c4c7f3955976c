//go:build !windows

package etw

import (
	"context"
	"errors"
	"fmt"
)

// Session is a session of event tracing; there are none on this system.
type Session struct{}

// Start returns an error that wraps [errors.ErrUnsupported].
func Start(name string, _ ...Provider) (*Session, error) {
	return nil, fmt.Errorf("event tracing session %q: not on this system: %w", name, errors.ErrUnsupported)
}

// Run is never called: there is no session.
func (s *Session) Run(context.Context, func(*Record)) error { return errors.ErrUnsupported }

// Lost is never called: there is no session.
func (s *Session) Lost() (events, buffers uint64, err error) { return 0, 0, errors.ErrUnsupported }

// Close is never called: there is no session.
func (s *Session) Close() error { return nil }
