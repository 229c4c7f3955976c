//go:build unix

package agent

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheControlSocketIsItsOwnersAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	dir := shortDir(t)
	r := start(t, dir, "", newScripted())
	// Even where the folders let everybody in, the socket does not.
	for _, d := range []string{dir, r.stateDir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	st, err := os.Stat(controlPath(r.stateDir))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("socket %v, %v; want mode 0600", st.Mode(), err)
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(dir, "other")
	if err := os.WriteFile(prog, self, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(prog)
	c.Dir = dir
	c.Env = append(os.Environ(), "SEKISHO_TEST_ROLE=status", "SEKISHO_TEST_DIR="+r.stateDir)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := string(out); !strings.Contains(got, ErrNotRunning.Error()) || !strings.Contains(got, "permission denied") {
		t.Errorf("another user is told %q", got)
	}
}

func TestASocketLeftByAKilledAgentIsNoObstacle(t *testing.T) {
	dir := shortDir(t)
	c, _ := child(t, "run", dir)
	c.Process.Kill()
	c.Wait()
	if _, err := os.Stat(controlPath(filepath.Join(dir, "state"))); err != nil {
		t.Fatalf("the killed agent left no socket: %v", err)
	}
	start(t, dir, "", newScripted()) // waits until it answers
}

func TestAControlSocketThatWasReplacedIsMadeAnew(t *testing.T) {
	r := start(t, shortDir(t), "", newScripted())
	path := controlPath(r.stateDir)
	for _, replace := range []func(){
		func() {},
		func() { // what takes its place answers nothing
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		},
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		replace()
		r.until("it can be asked again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := r.ctl.Status(ctx)
			return err == nil
		})
	}
}

func TestATooLongStateDirIsNamed(t *testing.T) {
	_, _, err := listenControl("/" + strings.Repeat("x", 120))
	if err == nil || !strings.Contains(err.Error(), "shorter state_dir") {
		t.Errorf("got %v", err)
	}
}

func TestWhoAsksAnAgentThatIsNotThereIsToldSo(t *testing.T) {
	_, err := Dial(t.TempDir()).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), ErrNotRunning.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsInTheWayOfTheControlSocketDoesNotKeepTheAgentFromProtecting(t *testing.T) {
	dir := shortDir(t)
	// A directory that is not empty cannot be removed and listened at.
	if err := os.MkdirAll(filepath.Join(dir, "state", "control.sock", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "agent.yaml"), "state_dir: "+filepath.Join(dir, "state")+"\n")
	src := newScripted()
	a, err := New(Options{ConfigFile: filepath.Join(dir, "agent.yaml"), Version: "test", Sources: []Source{src}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-src.ready
	src.out <- stick("S1")
	for a.Status().AlertsRaised == 0 {
		select {
		case err := <-done:
			t.Fatalf("the agent ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
