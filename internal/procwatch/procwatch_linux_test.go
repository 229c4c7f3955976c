package procwatch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/confine"
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
	for deadline := time.Now().Add(time.Minute); w.Status().State == endpoint.SensorDown; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("watcher does not come up: %+v", w.Status())
		}
	}
	return out
}

// needConnector skips where the process connector is refused.
func needConnector(t *testing.T) {
	t.Helper()
	fd, err := openConnector(connectorFilter())
	if err != nil {
		t.Skip(err)
	}
	syscall.Close(fd)
}

// mechanisms are those of the kernel's, best first, with what is not to be tried
// so that it is the one that runs.
var mechanisms = []mechanism{
	{mechBPF, nil},
	{mechOpenExec, []string{mechBPF}},
	{mechConnector, []string{mechBPF, mechOpenExec}},
}

type mechanism struct {
	name    string
	without []string
}

// byEach runs a test with a watcher of each mechanism.
func byEach(t *testing.T, o Options, f func(t *testing.T, w *Watcher, out <-chan *event.Event)) {
	for _, m := range mechanisms {
		t.Run(m.name, func(t *testing.T) {
			w := newBy(o, m.without)
			out := start(t, w, 1024)
			if s := w.Status(); s.Mechanism != m.name {
				t.Skip(s.Reason)
			}
			f(t, w, out)
		})
	}
}

func newBy(o Options, without []string) *Watcher {
	w := New(o)
	for _, x := range without {
		w.without[x] = true
	}
	return w
}

// await returns the first event that ok accepts.
func await(t *testing.T, out <-chan *event.Event, what string, ok func(*event.Event) bool) *event.Event {
	t.Helper()
	timeout := time.After(2 * time.Minute)
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
	byEach(t, Options{TellEnds: true}, aStartIsTold)
}

func aStartIsTold(t *testing.T, w *Watcher, out <-chan *event.Event) {
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", "sleep 2.05; exit 3 # 犬 \xff\n")
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
	if want := []string{"/bin/sh", "-c", "sleep 2.05; exit 3 # 犬 \xff\n"}; !slices.Equal(p.Args, want) || p.CommandLine != strings.Join(want, " ") {
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
	if d := time.Since(e.Time); d > 2*time.Minute || d < -time.Second {
		t.Errorf("time %v is off by %v", e.Time, d)
	}
	if d := e.Time.Sub(p.Start); d < -time.Second || d > 30*time.Second {
		t.Errorf("process.start %v, event %v", p.Start, e.Time)
	}
	if len(e.Errors) > 0 {
		t.Errorf("errors %q", e.Errors)
	}
	if got := await(t, out, "start of sleep", func(e *event.Event) bool { return hasArg(e, "2.05") && e.Action == event.ProcessStarted }); got.Process.Parent.EntityID != p.EntityID {
		t.Errorf("the parent of sleep is %+v, want entity %s", got.Process.Parent, p.EntityID)
	}
	end := await(t, out, "end of sh", func(e *event.Event) bool {
		return e.Action == event.ProcessEnded && e.Process.PID.V == int64(cmd.Process.Pid)
	})
	if end.Process.ExitCode != event.Some[int64](3) || end.Process.EntityID != p.EntityID {
		t.Errorf("end %+v, want exit code 3 of entity %s", end.Process, p.EntityID)
	}
	if s := w.Status(); s.Name != "process" || s.Events == 0 || s.Lost != 0 || e.Sensor != s.Mechanism || (s.State == endpoint.SensorOK) != (s.Mechanism == mechBPF) {
		t.Errorf("status %+v", s)
	}
	if x, u, _ := w.Lookup(cmd.Process.Pid); x == nil || x.EntityID != p.EntityID || u == nil {
		t.Errorf("a process that has just ended is not known: %+v", x)
	}
}

// A shell that executes its last command in its own place starts two programs
// in one process.
func TestTwoProgramsInOneProcess(t *testing.T) {
	byEach(t, Options{TellEnds: true}, twoProgramsInOneProcess)
}

func twoProgramsInOneProcess(t *testing.T, w *Watcher, out <-chan *event.Event) {
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
	if w.Status().Mechanism == mechConnector {
		t.Skipf("by it alone the programs are %q", got)
	}
	if !slices.Equal(got, want) {
		t.Errorf("programs %q, want %q", got, want)
	}
	if len(entities) != 1 {
		t.Errorf("entities %v, want one", entities)
	}
}

func TestAScriptIsToldAsItsInterpreterWithTheScriptInTheArguments(t *testing.T) {
	byEach(t, Options{}, aScriptIsToldAsItsInterpreter)
}

func aScriptIsToldAsItsInterpreter(t *testing.T, _ *Watcher, out <-chan *event.Event) {
	script := filepath.Join(t.TempDir(), "remote helper.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nsleep 1\n"), 0o700); err != nil {
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
	byEach(t, Options{TellEnds: true}, aFloodIsSeenWhole)
}

func aFloodIsSeenWhole(t *testing.T, w *Watcher, out <-chan *event.Event) {
	n := flood
	if testing.Short() {
		n = 2000
	}
	lines, err := os.Create(filepath.Join(t.TempDir(), "lines"))
	if err != nil {
		t.Fatal(err)
	}
	defer lines.Close()
	for i := range n {
		fmt.Fprintln(lines, i)
	}
	if _, err := lines.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	// Everything that passes by is counted, as the agent does.
	var starts, paths, args, users, parents, ends, lost int
	var waits []time.Duration // from the kernel's time to the event
	pids := make(chan int, 1)
	finished := make(chan struct{})
	counted := make(chan struct{})
	var earlier, counting syscall.Rusage
	go func() {
		defer close(counted)
		// On a thread of its own, whose time is not the sensor's.
		runtime.LockOSThread()
		_ = syscall.Getrusage(unix.RUSAGE_THREAD, &earlier)
		defer func() { _ = syscall.Getrusage(unix.RUSAGE_THREAD, &counting) }()
		parent := int64(<-pids)
		mine := map[string]bool{}
		seen := map[string]bool{} // arguments
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
					if a := e.Process.Args; len(a) == 2 && a[0] == "/bin/true" && !seen[a[1]] {
						seen[a[1]] = true
						args++
					}
					if e.User != nil && e.User.ID == strconv.Itoa(os.Getuid()) && e.User.Name != "" {
						users++
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
				quiet.Reset(2 * time.Minute) // for the slowest machine; else it ends with the last of them
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
	cmd.Stdin = lines
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids <- cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	close(finished)
	<-counted
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := func(r syscall.Rusage) time.Duration { return time.Duration(r.Utime.Nano() + r.Stime.Nano()) }
	cpu := used(after) - used(before) - (used(counting) - used(earlier))
	slices.Sort(waits)
	if len(waits) > 0 {
		t.Logf("from exec to event: median %v, 99 %% within %v, the slowest %v", waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)-1])
	}
	t.Logf("%d starts in %v, %d with path, %d with arguments, %d with user, %d with parent, %d ends, %d lost; CPU of the sensor %v, %v per start (all processes of the machine)",
		starts, took.Round(time.Millisecond), paths, args, users, parents, ends, lost, cpu.Round(time.Millisecond), (cpu / time.Duration(n)).Round(100*time.Nanosecond))
	if starts != n || ends != n || parents != n || users != n || lost != 0 {
		t.Errorf("%d starts, %d with parent, %d with user, %d ends, %d lost, want %d of each, 0 lost", starts, parents, users, ends, lost, n)
	}
	if w.Status().Mechanism != mechConnector && paths != n {
		t.Errorf("%d of %d starts have a path", paths, n)
	}
	if w.Status().Mechanism == mechBPF && args != n {
		t.Errorf("%d of %d starts have their arguments", args, n)
	}
}

// The kernel's queue overflows: that is told, and what started meanwhile and
// still runs is found.
func TestALossOfTheKernelIsToldAndMadeGood(t *testing.T) {
	needConnector(t)
	nl, err := openConnector(connectorFilter())
	if err != nil {
		t.Skip(err)
	}
	defer syscall.Close(nl)
	w := New(Options{})
	n := &native{w: w, q: newQueue(1 << 16), nl: nl, fan: -1, opens: opens{}, r: newProcReader("/proc"), buf: make([]byte, maxNlMessage), sensor: mechConnector}
	if err := w.scanAll(n.q, n.sensor, false); err != nil {
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if r, ok := w.readProcess(cmd.Process.Pid); ok && r.proc.image.name == "sleep" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("sleep does not come up")
		}
	}
	if err := w.scanAll(n.q, n.sensor, true); err != nil {
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
	var out, diag strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Start(); err != nil {
		t.Skipf("start in a user namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, diag.String())
	}
	t.Log(out.String())
	for _, want := range []string{"degraded polling", "can be missed: ", "eBPF not available: ", "process connector not available: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status %q lacks %q", out.String(), want)
		}
	}
}

func init() {
	if len(os.Args) > 1 && os.Args[1] == "procwatch-unprivileged" {
		w := New(Options{})
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
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
	for _, m := range append(slices.Clone(mechanisms), mechanism{name: mechPolling}) {
		t.Run(m.name, func(t *testing.T) {
			w := newBy(Options{PollOnly: m.name == mechPolling, PollEvery: 20 * time.Millisecond}, m.without)
			ctx, cancel := context.WithCancel(context.Background())
			out := make(chan *event.Event, 1<<14)
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx, out) }()
			for deadline := time.Now().Add(time.Minute); w.procs.get(os.Getpid()) == nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("we are not seen")
				}
			}
			if s := w.Status(); s.Mechanism != "" && s.Mechanism != m.name {
				cancel()
				<-done
				t.Skip(s.Reason)
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

// Whoever listens hears the kernel's answers to all.
func TestAnAnswerToSomebodyElseIsNone(t *testing.T) {
	first, err := openConnector(connectorFilter())
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(first)
	second, err := openConnector(connectorFilter())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(second)
	if err := awaitAck(first, 0); err == nil { // unless rand gave 0 to the second, once in four billion runs
		t.Error("took an answer to another socket for ours")
	}
}

// The end of a process was lost, and its id is another one's when that is looked
// for: the end is told, or what hangs on it (a remote session) never ends.
func TestAScanTellsTheEndOfOneWhoseIDIsAnotherOnes(t *testing.T) {
	w := New(Options{TellEnds: true})
	me := os.Getpid()
	ticks, _ := w.startTicks(me)
	w.procs.put(&proc{image: &image{pid: me, ticks: ticks - 1, entity: "before", exe: "/usr/bin/anydesk"}, told: true})
	q := newQueue(1 << 16)
	if err := w.scanAll(q, "test", true); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range q.take() {
		if it.proc.image.pid == me {
			got = append(got, fmt.Sprintf("%s %v", it.proc.image.entity, it.ended))
		}
	}
	if want := []string{"before true", entityID(bootID("/proc"), me, ticks) + " false"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// There is nothing better than polling, as in a container. That the rest is tried again
// when rights were given up does not make their want the reason.
func TestTheReasonForPollingStays(t *testing.T) {
	const inside = "SEKISHO_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestTheReasonForPollingStays$")
		cmd.Env = append(os.Environ(), inside+"=1")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, said)
		}
		return
	}
	root := t.TempDir()
	namespace := filepath.Join(root, "self", "ns", "pid")
	if err := os.MkdirAll(filepath.Dir(namespace), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("pid:[1]", namespace); err != nil {
		t.Fatal(err)
	}
	w := newBy(Options{ProcRoot: root, RetryAfter: time.Second}, []string{mechConnector})
	out := start(t, w, 1024)
	before := w.Status()
	if !strings.Contains(before.Reason, "own pid namespace") {
		t.Fatalf("%+v", before)
	}
	if err := confine.Drop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(namespace), os.Symlink(initialPIDNS, namespace)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if after := w.Status(); after.Reason != before.Reason || after.Since != before.Since {
		t.Errorf("it says %+v, before %+v", after, before)
	}
	for told := 0; len(out) > 0; {
		if e := <-out; e.Action == event.SensorDegraded {
			if told++; told > 1 {
				t.Error("told again: ", e.Message)
			}
		}
	}
}
