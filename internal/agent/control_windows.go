package agent

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"sekisho/internal/winacl"
)

// makeStateDir makes the state directory and lets only the system and
// administrators in, at every start anew: below %ProgramData% all users may make
// folders and read what others make, and file modes change nothing. One that a user
// could have filled is refused. The root of a drive is never closed.
func makeStateDir(dir string) error {
	if filepath.Dir(dir) == dir {
		return nil
	}
	return winacl.MakeFolder(dir)
}

// secureSettings refuses settings that a user could change: the file, and its
// folder, into which enrolment tokens may be put. A folder that is not there is
// made like the state directory. Everybody may make folders in the root of a drive,
// so there only the file counts.
func secureSettings(file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	if dir := filepath.Dir(file); filepath.Dir(dir) != dir {
		switch _, err := winacl.Check(dir); {
		case errors.Is(err, os.ErrNotExist):
			return winacl.MakeFolder(dir)
		case err != nil:
			return err
		}
	}
	return secureSecret(file)
}

// secureSecret refuses a file that a user could have written; one that is not there
// is no trouble.
func secureSecret(file string) error {
	if _, err := winacl.Check(file); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
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
