//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A command that waits for input is ended by the signal that says so.
func TestASignalEndsACommandThatWaits(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(settings, []byte("state_dir: "+dir+"/state\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sekisho-agent")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{
		{"replay", "--config", settings, "-"},
		{"enroll", "--config", settings, "-"},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			cmd := exec.Command(program, args...)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond) // until it waits
			cmd.Process.Signal(sig)
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%v after %s: ended well", args, sig)
				}
			case <-time.After(time.Minute):
				cmd.Process.Kill()
				t.Errorf("%v goes on waiting after %s", args, sig)
			}
			stdin.Close()
		}
	}
}
