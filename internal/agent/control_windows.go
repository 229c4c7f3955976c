package agent

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"sekisho/internal/enroll"
)

// makeStateDir makes the state directory and lets only the system, administrators
// and its owner in: below %ProgramData% all users may read what others make, and
// file modes change nothing. The root of a drive is never closed.
func makeStateDir(dir string) error {
	if filepath.Dir(dir) == dir {
		return nil
	}
	return enroll.PrivateDir(dir)
}

func controlPath(stateDir string) string { return filepath.Join(stateDir, "control.addr") }

// listenControl listens on a loopback port and writes its address and a secret
// to a file in the state directory, whose ACL lets in administrators only.
// (Unix sockets came to Windows late and Wine has none.)
func listenControl(stateDir string) (net.Listener, func(http.Handler) http.Handler, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	secret := rand.Text()
	if err := os.WriteFile(controlPath(stateDir), []byte(l.Addr().String()+"\n"+secret+"\n"), 0o600); err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+secret)) != 1 {
				http.Error(w, "forbidden", http.StatusForbidden)
				return
			}
			h.ServeHTTP(w, r)
		})
	}, nil
}

// dialControl reads the file at each connection and request: the next run of the
// agent has another address and secret.
func dialControl(stateDir string) (dial func(context.Context) (net.Conn, error), auth func() string) {
	read := func() (addr, secret string, err error) {
		b, err := os.ReadFile(controlPath(stateDir))
		addr, secret, _ = strings.Cut(strings.TrimSpace(string(b)), "\n")
		return addr, secret, err
	}
	dial = func(ctx context.Context) (net.Conn, error) {
		addr, _, err := read()
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}
	return dial, func() string { _, secret, _ := read(); return secret }
}
