//go:build unix

package agent

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups tells of SIGHUP, the usual wish to read the settings again.
func hangups() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
