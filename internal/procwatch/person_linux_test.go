package procwatch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/event"
)

// The accounts of these tests. They exist for the programs that are started, in a
// mount namespace of their own.
const (
	tanaka = 4242
	sato   = 4243
)

// accounts makes files with the accounts and returns the beginning of a shell
// script that puts them into /etc.
func accounts(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var script strings.Builder
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"passwd":  {fmt.Sprintf("root:x:0:0::/root:/bin/sh\ntanaka:x:%d:%[1]d::/:/bin/sh\nsato:x:%d:%[2]d::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n", tanaka, sato), 0o644},
		"group":   {fmt.Sprintf("root:x:0:\ntanaka:x:%d:\nsato:x:%d:\n", tanaka, sato), 0o644},
		"shadow":  {"root:*:1::::::\ntanaka:*:1::::::\nsato:*:1::::::\nwww:*:1::::::\n", 0o600},
		"sudoers": {"ALL ALL=(ALL) NOPASSWD: ALL\n", 0o440},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/etc/" + name); err == nil {
			fmt.Fprintf(&script, "mount --bind %s/%s /etc/%[2]s; ", dir, name)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return "set -e; " + script.String()
}

// Whose doing a process is, by every mechanism, with and without a login that
// the kernel knows of.
func TestWhoIsBehindAProcess(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const none = -1
	tests := []struct {
		name      string
		login     int // whose login leads to the command; none: the kernel knows of none
		command   string
		user      string
		effective string // "" where the rights are the user's own
	}{
		{"a person", tanaka, "setpriv --reuid 4242 --clear-groups sleep $N", "4242", ""},
		{"sudo", tanaka, "setpriv --reuid 4242 --clear-groups sudo -n sleep $N", "4242", "0"},
		{"sudo without a login", none, "setpriv --reuid 4242 --clear-groups sudo -n sleep $N", "4242", "0"},
		{"sudo to another person", tanaka, "setpriv --reuid 4242 --clear-groups sudo -n -u sato sleep $N", "4242", "4243"},
		{"a shell of sudo", none, "setpriv --reuid 4242 --clear-groups sudo -n sh -c 'sleep $N; true'", "4242", "0"},
		{"sudo, then su", tanaka, "setpriv --reuid 4242 --clear-groups sudo -n su sato -c 'sleep $N; true'", "4242", "4243"},
		{"sudo, then su, without a login", none, "setpriv --reuid 4242 --clear-groups sudo -n su sato -c 'sleep $N; true'", "4242", "4243"},
		{"su -, then sudo", none, "su - sato -c 'sudo -n sleep $N'", "4243", "0"},
		{"runuser of a service", none, "runuser -u sato sleep $N", "4243", ""},
		{"root's own", 0, "sleep $N", "0", ""},
		{"root becomes a person", 0, "su tanaka -c 'sleep $N; true'", "0", "4242"},
		{"a program with the rights of its owner", tanaka, "cp /bin/sleep /run/suid; chown sato /run/suid; chmod 4755 /run/suid; exec setpriv --reuid 4242 --clear-groups /run/suid $N", "4242", "4243"},
		{"left behind by sudo", tanaka, "setpriv --reuid 4242 --clear-groups sudo -n sh -c 'setsid -f sleep '$N; sleep 20", "4242", "0"},
		{"a service", none, "setpriv --reuid 33 --clear-groups sleep $N", "33", ""},
		{"a service that uses sudo", none, "setpriv --reuid 33 --clear-groups sudo -n sleep $N", "33", "0"},
	}
	for i, m := range mechanisms {
		t.Run(m.name, func(t *testing.T) {
			w := newBy(Options{}, m.without)
			out := start(t, w, 1<<14)
			if s := w.Status(); s.Mechanism != m.name {
				t.Skip(s.Reason)
			}
			for j, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					if strings.Contains(tt.command, "sudo") {
						if _, err := exec.LookPath("sudo"); err != nil {
							t.Skip(err)
						}
					}
					nonce := fmt.Sprintf("20.%03d%03d", i+1, j+1)
					script := accounts(t) + "mount -t tmpfs x /run; "
					if tt.login != none {
						script += fmt.Sprintf("echo %d >/proc/self/loginuid; ", tt.login)
					}
					c := exec.Command("/bin/sh", "-c", script+strings.ReplaceAll(tt.command, "$N", nonce))
					c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
					var said strings.Builder
					c.Stdout, c.Stderr = &said, &said
					if err := c.Start(); err != nil {
						t.Fatal(err)
					}
					defer func() {
						_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
						_ = c.Wait()
						if t.Failed() {
							t.Logf("%s", said.String())
						}
					}()
					e := await(t, out, "start", func(e *event.Event) bool {
						return e.Action == event.ProcessStarted && len(e.Process.Args) == 2 && e.Process.Args[1] == nonce && e.Process.Name != "sudo" && e.Process.Name != "setpriv"
					})
					// sudo gives what it starts a group of its own, which that of the shell does not end.
					defer syscall.Kill(int(e.Process.PID.V), syscall.SIGKILL)
					if e.User.ID != tt.user || e.User.EffectiveID != tt.effective {
						t.Errorf("told as the doing of %q with the rights of %q, want %q, %q", e.User.ID, e.User.EffectiveID, tt.user, tt.effective)
					}
					if (e.SessionID != "") != (tt.login != none) {
						t.Errorf("session %q", e.SessionID)
					}
					if _, u, _ := w.Lookup(int(e.Process.PID.V)); u == nil || *u != *e.User {
						t.Errorf("looked up as %+v, told as %+v", u, e.User)
					}
					// An agent that is started now says the same, and so does one that polls.
					if r, ok := New(Options{}).readProcess(int(e.Process.PID.V)); !ok {
						t.Error("ended before it could be compared")
					} else if _, u := w.fill(w.about(), r.proc, time.Now()); u == nil || *u != *e.User {
						t.Errorf("by /proc %+v, told as %+v", u, e.User)
					}
				})
			}
		})
	}
}
