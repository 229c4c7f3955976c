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
)

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

func dialControl(stateDir string) (func(context.Context) (net.Conn, error), string) {
	b, err := os.ReadFile(controlPath(stateDir))
	addr, secret, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return func(ctx context.Context) (net.Conn, error) {
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}, secret
}
