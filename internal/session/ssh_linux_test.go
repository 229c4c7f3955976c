package session

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Two people on one machine by a real sshd at the same time, both root by sudo:
// what they do is each one's own. Accounts, records and the server are in a mount
// namespace.
func TestPeopleOnOneServerAreToldApart(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("sshd and a mount namespace need root")
	}
	for _, tool := range []string{"sshd", "ssh", "ssh-keygen", "sudo", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here", tool)
		}
	}
	r := newRecords(t)
	r.opt.Proc = "/proc"
	dir := filepath.Dir(r.opt.Utmp)
	for _, d := range []string{dir, filepath.Dir(dir)} { // sshd reads the key as the person
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"passwd":  {"root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\ntanaka:x:4242:4242::/:/bin/sh\nsato:x:4243:4243::/:/bin/sh\n", 0o644},
		"group":   {"root:x:0:\ntty:x:5:\ntanaka:x:4242:\nsato:x:4243:\n", 0o644},
		"shadow":  {"root:*:1::::::\ntanaka:*:1::::::\nsato:*:1::::::\n", 0o600},
		"sudoers": {"ALL ALL=(ALL) NOPASSWD: ALL\n", 0o440},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(free.Addr().(*net.TCPAddr).Port)
	free.Close()
	conf := fmt.Sprintf("Port %s\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %[2]s/user.pub\nStrictModes no\nUsePAM yes\nPidFile none\nPrintMotd no\n", port, dir)
	if err := os.WriteFile(filepath.Join(dir, "sshd_config"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("unshare", "--mount", "sh", "-ec", `
		for f in passwd group shadow sudoers; do mount --bind "$DIR/$f" "/etc/$f"; done
		[ ! -e /var/log/wtmp ] || mount --bind "$DIR/wtmp" /var/log/wtmp
		mount -t tmpfs none /run
		mkdir -p /run/sshd
		: >/run/utmp
		mount --bind "$DIR/utmp" /run/utmp
		exec "$(command -v sshd)" -D -e -f "$DIR/sshd_config"`)
	server.Env = append(os.Environ(), "DIR="+dir)
	var said strings.Builder
	server.Stderr = &said
	s, ev := start(t, r.opt)
	state(t, s, endpoint.SensorLimited, "utmp", "logons are read from")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}

	pids, sessions := map[string]int{}, map[string]string{}
	for _, name := range []string{"tanaka", "sato"} {
		c := exec.Command("ssh", "-tt", "-q", "-p", port, "-i", filepath.Join(dir, "user"), "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", name+"@127.0.0.1", "sudo -n sh -c 'echo PID=$$; exec sleep 60'")
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
		lines := bufio.NewScanner(out)
		for pids[name] == 0 && lines.Scan() {
			if n, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "PID="); ok {
				pids[name], _ = strconv.Atoi(n)
			}
		}
		if pids[name] == 0 {
			t.Fatalf("%s does not come in", name)
		}
		e := next(t, ev)
		sessions[name] = e.SessionID
		want(t, []string{say(e)}, "session-logon "+name+" "+e.SessionID+" remote from 127.0.0.1")
	}
	if sessions["tanaka"] == sessions["sato"] || sessions["tanaka"] == "" {
		t.Fatalf("sessions %v", sessions)
	}
	for name, pid := range pids {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/sessionid", pid)); err != nil {
			t.Skip("no audit in this kernel, and no logind: nothing says to which logon a process belongs")
		}
		e := event.New(event.FileCopied, time.Now())
		e.Process, e.User = &event.Process{PID: event.Some(int64(pid))}, &event.User{ID: auditNumber(s.read(pid, "loginuid"))}
		if s.Fill(e); say(e) != "file-copied "+name+" "+sessions[name]+" remote from 127.0.0.1" {
			t.Errorf("what %s does as root is told as %q, the logon was %s", name, say(e), sessions[name])
		}
	}
}
