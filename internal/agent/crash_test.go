package agent

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// child starts the test binary as an agent on dir and waits until it runs.
func child(t *testing.T, role, dir string) (*exec.Cmd, io.WriteCloser) {
	t.Helper()
	write(t, filepath.Join(dir, "agent.yaml"), "state_dir: "+filepath.Join(dir, "state")+"\n")
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "SEKISHO_TEST_ROLE="+role, "SEKISHO_TEST_DIR="+dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "running\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	return c, in
}

func TestAnAgentThatCrashedTellsOfItAtTheNextStart(t *testing.T) {
	dir := shortDir(t)
	c, in := child(t, "crash", dir)
	io.WriteString(in, "\n")
	if err := c.Wait(); err == nil {
		t.Fatal("the child did not crash")
	}
	r := start(t, dir, "", newScripted())
	r.until("the crash is told", func() bool { return r.saw(`"agent-crashed"`, "panic: boom", "internal/agent.play") })
	kept, _ := filepath.Glob(filepath.Join(r.stateDir, "crash-*.txt"))
	if len(kept) != 1 {
		t.Fatalf("crash reports kept: %v", kept)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	var shipped int
	for _, rec := range spooled(t, r.stateDir, "activity") {
		if strings.Contains(string(rec), "agent-crashed") {
			shipped++
		}
	}
	if shipped != 1 {
		t.Errorf("%d crash reports on the way to the console, want 1", shipped)
	}

	r = start(t, dir, "", newScripted())
	r.until("the start is told", func() bool { return r.saw(`"agent-started"`) })
	if r.saw("agent-crashed") || r.saw("did not stop cleanly") {
		t.Errorf("a clean stop was told as something else:\n%s", strings.Join(r.tee.lines(), "\n"))
	}
}

func TestAnAgentThatWasKilledSaysSoAtTheNextStart(t *testing.T) {
	dir := shortDir(t)
	c, _ := child(t, "run", dir)
	c.Process.Kill()
	c.Wait()
	r := start(t, dir, "", newScripted())
	r.until("the start is told", func() bool { return r.saw(`"agent-started"`, "did not stop cleanly") })
	if r.saw("agent-crashed") {
		t.Error("told as a crash")
	}
}

// How long nobody watched cannot be known then; that nobody did can.
func TestTheGapIsToldThoughTheClockWasSetBack(t *testing.T) {
	dir := shortDir(t)
	c, _ := child(t, "run", dir)
	c.Process.Kill()
	c.Wait()
	ahead := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "state", runFile), ahead, ahead); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir, "", newScripted())
	r.until("the gap is told", func() bool { return r.saw(`"events-lost"`, "the agent was killed", "clock was set back") })
	if r.saw(`"events-lost"`, "nobody watched from") {
		t.Error("told with times that are not known")
	}
}

func TestACrashReportThatCannotBeReadDoesNotKeepTheAgentFromStarting(t *testing.T) {
	dir := shortDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "state", runFile), 0o700); err != nil { // a folder where the file should be
		t.Fatal(err)
	}
	r := start(t, dir, "", newScripted())
	r.until("the start is told", func() bool { return r.saw(`"agent-started"`) })
}

func TestACrashSummaryIsTheReasonAndTheGoroutineThatDied(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"one goroutine", "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:3\n\ngoroutine 7 [select]:\nother()\n", "panic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:3"},
		{"no stack", "fatal error: out of memory\n", "fatal error: out of memory"},
		{"not text", "panic: \xff\n", "panic: ?"},
		{"long", "panic: " + strings.Repeat("あ", maxCrash), "panic: " + strings.Repeat("あ", (maxCrash-7)/3)},
	} {
		if got := crashSummary([]byte(c.text)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
