//go:build unix

package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

func controlPath(stateDir string) string { return filepath.Join(stateDir, "control.sock") }

// listenControl opens the socket with mode 0600: who may connect is a matter of
// file rights. A socket left by a run that was killed is removed; one that
// answers is not.
func listenControl(stateDir string) (net.Listener, func(http.Handler) http.Handler, error) {
	path := controlPath(stateDir)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, nil, errors.New("another agent is running with this state directory")
	}
	os.Remove(path)
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, nil, err
	}
	return l, func(h http.Handler) http.Handler { return h }, nil
}

func dialControl(stateDir string) (func(context.Context) (net.Conn, error), string) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", controlPath(stateDir))
	}, ""
}
