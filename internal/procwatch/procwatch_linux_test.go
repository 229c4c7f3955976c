package procwatch

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// start runs a watcher for the length of a test and returns what it tells.
func start(t *testing.T, w *Watcher, room int) <-chan *event.Event {
	t.Helper()
	out := make(chan *event.Event, room)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); w.Status().State == endpoint.SensorDown; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("watcher does not come up: %+v", w.Status())
		}
	}
	return out
}

// needConnector skips where the process connector is refused.
func needConnector(t *testing.T) {
	t.Helper()
	fd, err := openConnector()
	if err != nil {
		t.Skip(err)
	}
	syscall.Close(fd)
}

// await returns the first event that ok accepts.
func await(t *testing.T, out <-chan *event.Event, what string, ok func(*event.Event) bool) *event.Event {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e := <-out:
			if ok(e) {
				return e
			}
		case <-timeout:
			t.Fatalf("no %s", what)
			return nil
		}
	}
}

func hasArg(e *event.Event, arg string) bool {
	return e.Process != nil && slices.Contains(e.Process.Args, arg)
}

func TestAStartIsToldWithItsParentUserAndEnd(t *testing.T) {
	needConnector(t)
	w := New(Options{TellEnds: true})
	out := start(t, w, 1024)
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", "sleep 0.05; exit 3 # 犬 \xff\n")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	e := await(t, out, "start of sh", func(e *event.Event) bool {
		return e.Action == event.ProcessStarted && e.Process.PID.V == int64(cmd.Process.Pid)
	})
	p := e.Process
	sh, _ := filepath.EvalSymlinks("/bin/sh")
	if p.Executable != sh || p.Name != filepath.Base(sh) {
		t.Errorf("executable %q, name %q, want %q", p.Executable, p.Name, sh)
	}
	if want := []string{"/bin/sh", "-c", "sleep 0.05; exit 3 # 犬 \xff\n"}; !slices.Equal(p.Args, want) || p.CommandLine != strings.Join(want, " ") {
		t.Errorf("args %q, command line %q", p.Args, p.CommandLine)
	}
	if p.WorkingDirectory != dir {
		t.Errorf("working directory %q, want %q", p.WorkingDirectory, dir)
	}
	self, _ := os.Executable()
	if p.Parent == nil || p.Parent.PID.V != int64(os.Getpid()) || p.Parent.Executable != self {
		t.Errorf("parent %+v, want pid %d %s", p.Parent, os.Getpid(), self)
	}
	if e.User == nil || e.User.ID != strconv.Itoa(os.Getuid()) || e.User.Name == "" {
		t.Errorf("user %+v", e.User)
	}
	if len(p.EntityID) != 32 || p.StartedBy == "" {
		t.Errorf("entity %q, started by %q", p.EntityID, p.StartedBy)
	}
	if d := time.Since(e.Time); d > 10*time.Second || d < -time.Second {
		t.Errorf("time %v is off by %v", e.Time, d)
	}
	if d := e.Time.Sub(p.Start); d < -time.Second || d > time.Second {
		t.Errorf("process.start %v, event %v", p.Start, e.Time)
	}
	if len(e.Errors) > 0 {
		t.Errorf("errors %q", e.Errors)
	}
	if got := await(t, out, "start of sleep", func(e *event.Event) bool { return hasArg(e, "0.05") && e.Action == event.ProcessStarted }); got.Process.Parent.EntityID != p.EntityID {
		t.Errorf("the parent of sleep is %+v, want entity %s", got.Process.Parent, p.EntityID)
	}
	end := await(t, out, "end of sh", func(e *event.Event) bool {
		return e.Action == event.ProcessEnded && e.Process.PID.V == int64(cmd.Process.Pid)
	})
	if end.Process.ExitCode != event.Some[int64](3) || end.Process.EntityID != p.EntityID {
		t.Errorf("end %+v, want exit code 3 of entity %s", end.Process, p.EntityID)
	}
	if s := w.Status(); s.Name != "process" || s.Events == 0 || s.Lost != 0 || !strings.HasPrefix(s.Mechanism, mechConnector) {
		t.Errorf("status %+v", s)
	}
	if x, u := w.Lookup(cmd.Process.Pid); x == nil || x.EntityID != p.EntityID || u == nil {
		t.Errorf("a process that has just ended is not known: %+v", x)
	}
}

// A shell that executes its last command in its own place starts two programs
// in one process.
func TestTwoProgramsInOneProcess(t *testing.T) {
	needConnector(t)
	w := New(Options{TellEnds: true})
	out := start(t, w, 1024)
	cmd := exec.Command("/usr/bin/env", "NONCE=7", "/usr/bin/nice", "/bin/sh", "-c", "exec sleep 0.021")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	pid := int64(cmd.Process.Pid)
	var got []string
	entities := map[string]bool{}
	await(t, out, "end", func(e *event.Event) bool {
		if e.Process == nil || e.Process.PID.V != pid {
			return false
		}
		entities[e.Process.EntityID] = true
		if e.Action == event.ProcessStarted {
			got = append(got, e.Process.Name)
		}
		return e.Action == event.ProcessEnded
	})
	sh, _ := filepath.EvalSymlinks("/bin/sh")
	want := []string{"env", "nice", filepath.Base(sh), "sleep"}
	if w.Status().Mechanism != mechOpenExec {
		t.Skipf("by %s the programs are %q", w.Status().Mechanism, got)
	}
	if !slices.Equal(got, want) {
		t.Errorf("programs %q, want %q", got, want)
	}
	if len(entities) != 1 {
		t.Errorf("entities %v, want one", entities)
	}
}

func TestAScriptIsToldAsItsInterpreterWithTheScriptInTheArguments(t *testing.T) {
	needConnector(t)
	w := New(Options{})
	out := start(t, w, 1024)
	script := filepath.Join(t.TempDir(), "remote helper.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 0.02\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(script).Run(); err != nil {
		t.Fatal(err)
	}
	e := await(t, out, "start", func(e *event.Event) bool { return hasArg(e, script) })
	if sh, _ := filepath.EvalSymlinks("/bin/sh"); e.Process.Executable != sh {
		t.Errorf("executable %q, want %q", e.Process.Executable, sh)
	}
}

// flood is how many programs are started at once; it is what the product promises.
const flood = 20_000

func TestAFloodOfStartsIsSeenWhole(t *testing.T) {
	needConnector(t)
	n := flood
	if testing.Short() {
		n = 2000
	}
	w := New(Options{TellEnds: true})
	out := start(t, w, 1024)
	// Everything that passes by is counted, as the agent does.
	var starts, paths, args, parents, ends, lost int
	var waits []time.Duration // from the kernel's time to the event
	pids := make(chan int, 1)
	finished := make(chan struct{})
	counted := make(chan struct{})
	go func() {
		defer close(counted)
		parent := int64(<-pids)
		mine := map[string]bool{}
		quiet := time.NewTimer(time.Hour)
		for {
			select {
			case e := <-out:
				switch {
				case e.Action == event.EventsLost:
					lost += int(e.Lost.Count.V)
				case e.Action == event.ProcessStarted && e.Process.Parent != nil && e.Process.Parent.PID.V == parent:
					starts++
					waits = append(waits, e.Created.Sub(e.Time))
					mine[e.Process.EntityID] = true
					if strings.HasSuffix(e.Process.Executable, "/bin/true") {
						paths++
					} else if e.Process.Executable != "" {
						t.Errorf("path %q", e.Process.Executable)
					}
					if len(e.Process.Args) == 2 {
						args++
					}
					if e.Process.Parent.Name == "xargs" {
						parents++
					}
				case e.Action == event.ProcessEnded && mine[e.Process.EntityID]:
					ends++
					if e.Process.ExitCode != event.Some[int64](0) {
						t.Errorf("exit code %v", e.Process.ExitCode)
					}
				}
			case <-finished:
				finished = nil
				quiet.Reset(time.Second)
			case <-quiet.C:
				return
			}
			if ends == n && finished == nil {
				return
			}
		}
	}()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	cmd := exec.Command("xargs", "-P", "4", "-n", "1", "/bin/true")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids <- cmd.Process.Pid
	for i := range n {
		fmt.Fprintln(in, i)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	close(finished)
	<-counted
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	slices.Sort(waits)
	if len(waits) > 0 {
		t.Logf("from exec to event: median %v, 99 %% within %v, the slowest %v", waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)-1])
	}
	t.Logf("%s: %d starts in %v, %d with path, %d with arguments, %d with parent, %d ends, %d lost; our CPU %v, %v per start (all processes of the machine, the test itself included)",
		w.Status().Mechanism, starts, took.Round(time.Millisecond), paths, args, parents, ends, lost, cpu.Round(time.Millisecond), (cpu / time.Duration(n)).Round(time.Microsecond))
	if starts != n || ends != n || parents != n || lost != 0 {
		t.Errorf("%d starts, %d with parent, %d ends, %d lost, want %d, %d, %d, 0", starts, parents, ends, lost, n, n, n)
	}
	if w.Status().Mechanism == mechOpenExec && paths != n {
		t.Errorf("%d of %d starts have a path", paths, n)
	}
}

// The kernel's queue overflows: that is told, and what started meanwhile and
// still runs is found.
func TestALossOfTheKernelIsToldAndMadeGood(t *testing.T) {
	needConnector(t)
	nl, err := openConnector()
	if err != nil {
		t.Skip(err)
	}
	defer syscall.Close(nl)
	w := New(Options{})
	n := &native{w: w, q: newQueue(1 << 16), nl: nl, fan: -1, opens: opens{}, r: newProcReader("/proc"), buf: make([]byte, maxNlMessage), sensor: mechConnector}
	if err := n.scan(false); err != nil {
		t.Fatal(err)
	}
	if err := syscall.SetsockoptInt(nl, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := exec.Command("/bin/true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lost := false
	for range 100 {
		more, err := n.receive()
		if err != nil {
			t.Fatal(err)
		}
		lost = lost || more
		if len(n.batch) == 0 {
			break
		}
		// What did come is thrown away, so that all has to be found.
	}
	if !lost {
		t.Fatal("the kernel's queue of 2 KB held 51 starts")
	}
	// exec has replaced the image once its program can be read.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if r, ok := w.readProcess(cmd.Process.Pid); ok && r.proc.image.name == "sleep" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("sleep does not come up")
		}
	}
	if err := n.scan(true); err != nil {
		t.Fatal(err)
	}
	for _, it := range n.q.take() {
		if it.proc.image.pid == cmd.Process.Pid {
			if it.message != MessageRescan || it.proc.image.name != "sleep" || it.proc.ppid != os.Getpid() {
				t.Errorf("found %+v, %+v", it, it.proc.image)
			}
			return
		}
	}
	t.Error("what started during the loss is not found")
}

// In another user and pid namespace, as in a container, the kernel neither
// refuses nor tells: the watcher has to find that out.
func TestWithoutRightsProcessesAreListed(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "procwatch-unprivileged")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("start in a user namespace: %v", err)
	}
	if s := string(out); !strings.Contains(s, "degraded polling") || !strings.Contains(s, "can be missed: process connector not available") {
		t.Errorf("status %q", s)
	}
}

func init() {
	if len(os.Args) > 1 && os.Args[1] == "procwatch-unprivileged" {
		w := New(Options{})
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		go func() { _ = w.Run(ctx, make(chan *event.Event, 1<<14)) }()
		for w.Status().State == endpoint.SensorDown && ctx.Err() == nil {
			time.Sleep(5 * time.Millisecond)
		}
		s := w.Status()
		fmt.Println(s.State, s.Mechanism, s.Reason)
		cancel()
		os.Exit(0)
	}
}

// A sensor that broke is started again: what started meanwhile is told once, what
// was known is not.
func TestWhatStartedBetweenTwoRunsIsTold(t *testing.T) {
	for _, poll := range []bool{true, false} {
		t.Run(fmt.Sprintf("polling %v", poll), func(t *testing.T) {
			if !poll {
				needConnector(t)
			}
			w := New(Options{PollOnly: poll, PollEvery: 20 * time.Millisecond})
			ctx, cancel := context.WithCancel(context.Background())
			out := make(chan *event.Event, 1<<14)
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx, out) }()
			for deadline := time.Now().Add(10 * time.Second); w.procs.get(os.Getpid()) == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("we are not seen")
				}
			}
			cancel()
			<-done
			cmd := exec.Command("/bin/sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			again := start(t, w, 1<<14)
			e := await(t, again, "sleep", func(e *event.Event) bool {
				if e.Process != nil && e.Process.PID.V == int64(os.Getpid()) {
					t.Error("we ourselves are told as started")
				}
				return e.Process != nil && e.Process.PID.V == int64(cmd.Process.Pid)
			})
			if e.Action != event.ProcessStarted || e.Process.Name != "sleep" {
				t.Errorf("got %s %+v", e.Action, e.Process)
			}
		})
	}
}
