//go:build unix

package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// maxSocketPath is sun_path of unix(7) without its end, the shortest of the
// systems that we run on.
const maxSocketPath = 107

// makeStateDir makes the state directory. One that is there stays as it is: what
// the agent puts into it only its owner can read.
func makeStateDir(dir string) error { return os.MkdirAll(dir, 0o700) }

// secureSettings makes the folder of the settings file. Who may write there is the
// system's to say: /etc belongs to root.
func secureSettings(file string) error { return os.MkdirAll(filepath.Dir(file), 0o755) }

// secureSecret has nothing to judge: see secureSettings.
func secureSecret(string) error { return nil }

func controlPath(stateDir string) string { return filepath.Join(stateDir, "control.sock") }

// listenControl opens the socket with mode 0600: who may connect is a matter of
// file rights. What is in its place is removed: whoever gets here holds the locks of
// the state directory, so it is no other agent's.
func listenControl(stateDir string) (net.Listener, func(http.Handler) http.Handler, error) {
	path := controlPath(stateDir)
	if len(path) > maxSocketPath {
		return nil, nil, fmt.Errorf("%s: %d bytes, a socket's path has %d at most: choose a shorter state_dir", path, len(path), maxSocketPath)
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

func dialControl(stateDir string) (dial func(context.Context) (net.Conn, error), auth func() string) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", controlPath(stateDir))
	}, func() string { return "" }
}
