package procwatch

import (
	"fmt"
	"io"
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

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sekisho/internal/event"
)

// needBPF returns a reader whose records nobody reads yet.
func needBPF(t *testing.T, o Options, ring uint32) *bpfWatch {
	t.Helper()
	b, err := New(o).openBPF(newQueue(1<<16), ring)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(b.close)
	return b
}

// The ring buffer is full: that is told, and what started meanwhile and still
// runs is found.
func TestALossOfTheRingIsToldAndMadeGood(t *testing.T) {
	b := needBPF(t, Options{}, uint32(os.Getpagesize()))
	if err := b.scan(false); err != nil {
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
	// Start returns in the middle of execve(2), before its record.
	for limit := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil || time.Now().After(limit) {
			t.Fatalf("sleep does not come up: %q %v", stat, err)
		}
		if strings.Contains(string(stat), "(sleep) S") {
			break
		}
	}
	n, lost, err := b.turn()
	if err != nil || n == 0 || lost == 0 {
		t.Fatalf("of 51 starts with their forks and ends a ring of a page holds %d, %d are lost; %v", n, lost, err)
	}
	if uint64(n)+lost < 3*50+2 {
		t.Errorf("%d came, %d are told as lost, that is not all", n, lost)
	}
	if _, again, _ := b.turn(); again >= lost { // what the machine's other programs lose now is less
		t.Errorf("%d are told as lost once more", again)
	}
	if err := b.scan(true); err != nil {
		t.Fatal(err)
	}
	for _, it := range b.q.take() {
		if it.proc.image.pid == cmd.Process.Pid {
			if it.message != MessageRescan || it.proc.image.name != "sleep" || it.proc.ppid != os.Getpid() {
				t.Errorf("found %+v, %+v", it, it.proc.image)
			}
			return
		}
	}
	t.Error("what started during the loss is not found")
}

// The programs lost a record though the ring has room: its lock was not to be had.
func TestALossOutsideTheRingIsTold(t *testing.T) {
	b := needBPF(t, Options{}, ringBytes)
	if _, lost, err := b.turn(); lost != 0 || err != nil {
		t.Fatalf("%d are lost already; %v", lost, err)
	}
	perCPU := make([]uint64, ebpf.MustPossibleCPU())
	perCPU[0], perCPU[len(perCPU)-1] = 3, 4
	if err := b.objs.Dropped.Update(uint32(0), perCPU, ebpf.UpdateAny); err != nil {
		t.Fatal(err)
	}
	var want uint64
	for _, n := range perCPU {
		want += n
	}
	time.Sleep(countEvery)
	if err := exec.Command("/bin/true").Run(); err != nil { // it is asked when records come
		t.Fatal(err)
	}
	if _, lost, err := b.turn(); lost != want || err != nil {
		t.Errorf("%d are told as lost, want %d; %v", lost, want, err)
	}
	if _, lost, err := b.turn(); lost != 0 || err != nil {
		t.Errorf("%d are told as lost once more; %v", lost, err)
	}
}

// Who asks for a process takes the records from under the reader, which sleeps: a
// loss is told all the same.
func TestALossIsToldThoughTheReaderFoundNoRecords(t *testing.T) {
	b := needBPF(t, Options{}, ringBytes)
	if _, _, err := b.turn(); err != nil || b.uncounted {
		t.Fatal("losses were not asked for", err)
	}
	records, err := newWaiter() // as of records that are gone when they are looked for
	if err != nil {
		t.Fatal(err)
	}
	b.reads(records)
	lost := make(chan uint64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b.alarm() == nil && records.wait() == nil {
			if _, n, _ := b.turn(); n > 0 {
				lost <- n
			}
		}
	}()
	perCPU := make([]uint64, ebpf.MustPossibleCPU())
	perCPU[0] = 3
	if err := b.objs.Dropped.Update(uint32(0), perCPU, ebpf.UpdateAny); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.catchUp()
	select {
	case n := <-lost:
		if n != 3 {
			t.Errorf("%d are told as lost, want 3", n)
		}
		t.Logf("told after %v", time.Since(began))
	case <-time.After(time.Minute):
		t.Error("the reader sleeps on")
	}
	records.close()
	<-done
}

// What the kernel may say in an order or with gaps that a test cannot provoke.
func TestRecordsWithGaps(t *testing.T) {
	const tick = tickNS
	rec := func(kind byte, pid, ppid int, start, at uint64, exe string) bpfRecord {
		return bpfRecord{
			kind: kind, pid: pid, ppid: ppid, start: start, at: at, parentStart: 5 * tick,
			exe: []byte(exe + "\x00"), cwd: []byte("tmp\x00"), args: []byte(exe + "\x00"), session: noID,
		}
	}
	told := func(items []item) string {
		var s []string
		for _, it := range items {
			what := "start"
			if it.ended {
				what = "end"
			}
			s = append(s, fmt.Sprintf("%s %d %s", what, it.proc.image.pid, it.proc.image.exe))
		}
		return strings.Join(s, ", ")
	}
	tests := []struct {
		name string
		in   []bpfRecord
		want string
	}{
		{"in order", []bpfRecord{rec(bpfFork, 10, 5, 7*tick, 1, ""), rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfExit, 10, 0, 7*tick, 3, "")},
			"start 10 /a, end 10 /a"},
		{"an end lost, the id again", []bpfRecord{rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfExec, 10, 5, 9*tick, 4, "b")},
			"start 10 /a, end 10 /a, start 10 /b"},
		{"an end lost, the id forked again", []bpfRecord{rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfFork, 10, 5, 9*tick, 3, ""), rec(bpfExec, 10, 5, 9*tick, 4, "b")},
			"start 10 /a, end 10 /a, start 10 /b"},
		{"two threads look like the last", []bpfRecord{rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfExit, 10, 0, 7*tick, 3, ""), rec(bpfExit, 10, 0, 7*tick, 3, "")},
			"start 10 /a, end 10 /a"},
		{"the end of one that had the id before", []bpfRecord{rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfExit, 10, 0, 6*tick, 3, "")},
			"start 10 /a"},
		{"the end of one that is not known", []bpfRecord{rec(bpfExit, 10, 0, 6*tick, 3, "")}, ""},
		{"one program after the other", []bpfRecord{rec(bpfExec, 10, 5, 7*tick, 2, "a"), rec(bpfExec, 10, 5, 7*tick, 3, "b"), rec(bpfExit, 10, 0, 7*tick, 4, "")},
			"start 10 /a, start 10 /b, end 10 /b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := New(Options{TellEnds: true, ProcRoot: t.TempDir()})
			b := &bpfWatch{w: w, q: newQueue(100), r: newProcReader(w.opts.ProcRoot), paths: interned{}, now: time.Now()}
			w.procs.put(&proc{image: &image{pid: 5, ticks: 5, entity: "e5", exe: "/bin/sh", name: "sh"}})
			for i := range tt.in {
				b.handle(&tt.in[i])
			}
			if got := told(b.items); got != tt.want {
				t.Errorf("told %q, want %q", got, tt.want)
			}
			for _, it := range b.items {
				if it.proc.parent == nil || it.proc.parent.exe != "/bin/sh" {
					t.Errorf("parent of %+v", it.proc.image)
				}
			}
		})
	}
	t.Run("the parent's id went to another one", func(t *testing.T) {
		w := New(Options{ProcRoot: t.TempDir()})
		b := &bpfWatch{w: w, q: newQueue(100), r: newProcReader(w.opts.ProcRoot), paths: interned{}, now: time.Now()}
		w.procs.put(&proc{image: &image{pid: 5, ticks: 4, entity: "e5", exe: "/usr/bin/firefox"}})
		r := rec(bpfExec, 10, 5, 7*tick, 2, "a")
		b.handle(&r)
		if p := b.items[0].proc; p.parent != nil && p.parent.exe == "/usr/bin/firefox" {
			t.Errorf("parent %+v", p.parent)
		}
	})
	t.Run("seen by a scan before", func(t *testing.T) {
		w := New(Options{ProcRoot: t.TempDir()})
		b := &bpfWatch{w: w, q: newQueue(100), r: newProcReader(w.opts.ProcRoot), paths: interned{}, now: time.Now()}
		w.procs.put(&proc{image: &image{pid: 10, ticks: 7, entity: "e", exe: "/a"}, since: 9})
		r := rec(bpfExec, 10, 5, 7*tick, 2, "a")
		if b.handle(&r); len(b.items) != 0 {
			t.Errorf("told twice: %+v", b.items)
		}
	})
}

// copyOf copies a program.
func copyOf(t *testing.T, program, to string) string {
	t.Helper()
	in, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

// Each of these is told alike by every mechanism: its programs live long enough
// for polling.
func TestEveryMechanismTellsTheSame(t *testing.T) {
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	root := func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("needs root")
		}
	}
	sh, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	sh = filepath.Base(sh)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		program string // the one that is looked at
		chain   bool   // others run before it in its process, which polling cannot tell apart
		// command returns what to run; nonce is to be among the arguments of the
		// program that is looked at.
		command func(t *testing.T, nonce string) *exec.Cmd
		check   func(t *testing.T, e *event.Event, c *exec.Cmd)
	}{
		{"arguments of any bytes", sh, false, func(t *testing.T, nonce string) *exec.Cmd {
			return exec.Command("/bin/sh", "-c", "sleep $0 # \n\xff\x1b[2J", nonce, "", "犬 'x' \"y\" \\")
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if got, want := strings.Join(e.Process.Args, "\x00"), strings.Join(c.Args, "\x00"); got != want {
				t.Errorf("arguments %q, want %q", got, want)
			}
		}},
		{"50 KB of arguments", sh, false, func(t *testing.T, nonce string) *exec.Cmd {
			return exec.Command("/bin/sh", "-c", "sleep $0", nonce, strings.Repeat("x", 50_000), "last")
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if a := e.Process.Args; len(a) != 6 || len(a[4]) != 50_000 || a[5] != "last" || len(e.Errors) > 0 {
				t.Errorf("%d arguments, errors %q", len(a), e.Errors)
			}
		}},
		{"100 KB of arguments", sh, false, func(t *testing.T, nonce string) *exec.Cmd {
			return exec.Command("/bin/sh", "-c", "sleep $0", nonce, strings.Repeat("x", 100_000))
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if n := len(e.Process.CommandLine); n < 60_000 || n > maxBytes || !strings.Contains(strings.Join(e.Errors, " "), "cut at 65536 bytes") {
				t.Errorf("command line of %d bytes, errors %q", n, e.Errors)
			}
		}},
		{"another account", "sleep", false, func(t *testing.T, nonce string) *exec.Cmd {
			root(t)
			c := exec.Command("/bin/sleep", nonce)
			c.SysProcAttr, c.Dir = nobody, "/"
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if e.User == nil || e.User.ID != "65534" || e.User.Name != "nobody" || e.Process.WorkingDirectory != "/" {
				t.Errorf("user %+v, folder %q", e.User, e.Process.WorkingDirectory)
			}
		}},
		{"started by a shell that forked itself", "sleep", false, func(t *testing.T, nonce string) *exec.Cmd {
			return exec.Command("/bin/bash", "-c", "(sleep 0.3; sleep "+nonce+"; true); true")
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if pa := e.Process.Parent; pa == nil || pa.Name != "bash" || pa.PID.V == int64(c.Process.Pid) || pa.UserName == "" || !strings.Contains(pa.CommandLine, "-c (sleep") {
				t.Errorf("parent %+v, want a fork of %d", pa, c.Process.Pid)
			}
		}},
		{"a program that is deleted", "gone tool", false, func(t *testing.T, nonce string) *exec.Cmd {
			p := copyOf(t, "/bin/sleep", filepath.Join(t.TempDir(), "gone tool"))
			f, err := os.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			if err := os.Remove(p); err != nil {
				t.Fatal(err)
			}
			c := exec.Command("/proc/self/fd/3", nonce)
			c.ExtraFiles = []*os.File{f}
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if e.Process.Name != "gone tool" || !filepath.IsAbs(e.Process.Executable) || !strings.Contains(strings.Join(e.Errors, " "), "executable is deleted") {
				t.Errorf("executable %q, errors %q", e.Process.Executable, e.Errors)
			}
		}},
		{"a program in memory", "memfd:mem tool", false, func(t *testing.T, nonce string) *exec.Cmd {
			fd, err := unix.MemfdCreate("mem tool", 0)
			if err != nil {
				t.Skip(err)
			}
			f := os.NewFile(uintptr(fd), "memfd")
			t.Cleanup(func() { f.Close() })
			b, err := os.ReadFile("/bin/sleep")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write(b); err != nil {
				t.Fatal(err)
			}
			ro, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd)) // one open for writing is busy
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			t.Cleanup(func() { ro.Close() })
			c := exec.Command("/proc/self/fd/3", nonce)
			c.ExtraFiles = []*os.File{ro}
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if e.Process.Executable != "/memfd:mem tool" || !strings.Contains(strings.Join(e.Errors, " "), "executable is deleted") {
				t.Errorf("executable %q, errors %q", e.Process.Executable, e.Errors)
			}
		}},
		{"a path of 100 folders", "deep", false, func(t *testing.T, nonce string) *exec.Cmd {
			dir := filepath.Join(t.TempDir(), strings.Repeat("d/", 100))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			c := exec.Command(copyOf(t, "/bin/sleep", filepath.Join(dir, "deep")), nonce)
			c.Dir = dir
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if e.Process.Executable != c.Path || e.Process.WorkingDirectory != c.Dir || len(e.Errors) > 0 {
				t.Errorf("executable %q, folder %q, errors %q", e.Process.Executable, e.Process.WorkingDirectory, e.Errors)
			}
		}},
		{"a file system of its own mount namespace", "tool", true, func(t *testing.T, nonce string) *exec.Cmd {
			root(t)
			dir := t.TempDir()
			c := exec.Command("/bin/sh", "-c", `mount -t tmpfs x "$0" && mkdir "$0/sub" && cp /bin/sleep "$0/sub/tool" && exec "$0/sub/tool" "$1"`, dir, nonce)
			c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if want := c.Args[3] + "/sub/tool"; e.Process.Executable != want {
				t.Errorf("executable %q, want %q", e.Process.Executable, want)
			}
		}},
		{"in a container", "sleep", false, func(t *testing.T, nonce string) *exec.Cmd {
			root(t)
			mnt := t.TempDir()
			if err := unix.Mount("none", mnt, "cgroup2", 0, ""); err != nil {
				t.Skip(err)
			}
			// Two deep, as with systemd in a container.
			scope := filepath.Join(mnt, "docker-"+strings.Repeat("0123456789abcdef", 4)+".scope")
			init := filepath.Join(scope, "init.scope")
			if err := os.MkdirAll(init, 0o755); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(init)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				dir.Close()
				for _, d := range []string{init, scope} {
					for try := 0; os.Remove(d) != nil && try < 1000; try++ { // busy until its process is gone
						time.Sleep(time.Millisecond)
					}
				}
				if err := unix.Unmount(mnt, 0); err != nil {
					t.Error(err)
				}
			})
			c := exec.Command("/bin/sleep", nonce)
			c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if want := strings.Repeat("0123456789abcdef", 4); e.Process.ContainerID != want {
				t.Errorf("container %q, want %q", e.Process.ContainerID, want)
			}
		}},
		{"another root", "sleep", true, func(t *testing.T, nonce string) *exec.Cmd {
			root(t)
			c := exec.Command("/bin/sh", "-c", `mount --bind / "$0" && exec chroot "$0" /bin/sleep "$1"`, t.TempDir(), nonce)
			c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
			return c
		}, func(t *testing.T, e *event.Event, c *exec.Cmd) {
			if want := c.Args[3] + "/usr/bin/sleep"; e.Process.Executable != want || e.Process.WorkingDirectory != c.Args[3] {
				t.Errorf("executable %q, folder %q, want %q", e.Process.Executable, e.Process.WorkingDirectory, want)
			}
		}},
	}
	for i, m := range append(slices.Clone(mechanisms), mechanism{name: mechPolling}) {
		t.Run(m.name, func(t *testing.T) {
			w := newBy(Options{PollOnly: m.name == mechPolling, PollEvery: 20 * time.Millisecond}, m.without)
			out := start(t, w, 1<<14)
			if s := w.Status(); s.Mechanism != m.name {
				t.Skip(s.Reason)
			}
			for j, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					if tt.chain && m.name == mechPolling {
						t.Skip("polling sees one program of a process")
					}
					var c *exec.Cmd
					var e *event.Event
					for try, early := 0, true; early; try++ {
						nonce := fmt.Sprintf("20.%03d%03d%d", i+1, j+1, try) // seconds
						c = tt.command(t, nonce)
						if err := c.Start(); err != nil {
							t.Fatal(err)
						}
						defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
						e = await(t, out, "start", func(e *event.Event) bool {
							if e.Action != event.ProcessStarted {
								return false
							}
							// Polling may come between fork and exec, when it is still us, or the
							// fork of a shell that forked itself.
							p := e.Process
							early = m.name == mechPolling && (p.PID.V == int64(c.Process.Pid) && p.Executable == self ||
								p.Name != tt.program && strings.Contains(p.CommandLine, nonce) && p.Parent != nil && strings.Contains(p.Parent.CommandLine, nonce) &&
									p.Parent.PID.V != int64(c.Process.Pid))
							return early || hasArg(e, nonce) && e.Process.Name == tt.program
						})
					}
					tt.check(t, e, c)
					pid := int(e.Process.PID.V)
					r, ok := New(Options{}).readProcess(pid)
					if !ok {
						t.Fatal("ended before it could be compared")
					}
					if r.proc.image.container != e.Process.ContainerID {
						t.Errorf("container %q, by /proc %q", e.Process.ContainerID, r.proc.image.container)
					}
					if r.proc.image.entity != e.Process.EntityID {
						t.Errorf("entity %s, by /proc %s", e.Process.EntityID, r.proc.image.entity)
					}
					if d := e.Process.Start.Sub(r.proc.image.started).Abs(); d > 2*time.Second { // the clocks are read at two moments
						t.Errorf("start %v, by /proc %v", e.Process.Start, r.proc.image.started)
					}
					if p, u, _ := w.Lookup(pid); p == nil || p.EntityID != e.Process.EntityID || p.Executable != e.Process.Executable || u == nil || u.ID != e.User.ID {
						t.Errorf("looked up %+v, %+v", p, u)
					}
				})
			}
		})
	}
}

// A short program's arguments beyond the kernel's room are gone: that is told.
func TestArgumentsThatAreCutAreToldAsSuch(t *testing.T) {
	b := needBPF(t, Options{}, ringBytes)
	if err := exec.Command("/bin/true", "first", strings.Repeat("x", 10_000)).Run(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.turn(); err != nil { // it has ended
		t.Fatal(err)
	}
	for _, it := range b.q.take() {
		if strings.HasPrefix(it.raw, "/bin/true\x00first\x00xxx") {
			if len(it.raw) != 4096 || len(it.errs) != 1 || it.errs[0] != "read arguments: cut at 4096 bytes of 10017" {
				t.Errorf("%d bytes, errors %q", len(it.raw), it.errs)
			}
			return
		}
	}
	t.Error("not told")
}

// Whoever asks for a process is answered from what the reader has not read yet.
func TestLookupIsNotBehindTheReader(t *testing.T) {
	b := needBPF(t, Options{}, ringBytes)
	w := b.w
	w.setCatchUp(b.catchUp)
	cmd := exec.Command("/bin/sh", "-c", "exit 0", "lookup")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if p, _, _ := w.Lookup(cmd.Process.Pid); p == nil || !strings.Contains(p.CommandLine, "lookup") {
		t.Errorf("a process that has ended before the reader came is %+v", p)
	}
	b.close()
	_, _, _ = w.Lookup(1) // no longer read from: does not crash
}

// A daemon gives up root without executing anything.
func TestAChangeOfUserIsNoticed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	byEach(t, Options{}, func(t *testing.T, w *Watcher, out <-chan *event.Event) {
		cmd := exec.Command(self, "procwatch-setuid")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		e := await(t, out, "start", func(e *event.Event) bool { return hasArg(e, "procwatch-setuid") })
		if e.User == nil || e.User.ID != "0" {
			t.Errorf("starts as %+v", e.User)
		}
		fmt.Fprintln(in)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, u, _ := w.Lookup(cmd.Process.Pid); u != nil && u.ID == "65534" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the change does not show")
			}
		}
	})
}

func init() {
	if len(os.Args) > 1 && os.Args[1] == "procwatch-setuid" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		if err := syscall.Setuid(65534); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		time.Sleep(2 * time.Minute)
		os.Exit(0)
	}
}

// BenchmarkStart is what one start costs from its three records to its two
// events, waking and reading left out.
func BenchmarkStart(b *testing.B) {
	w := New(Options{TellEnds: true})
	x := &bpfWatch{w: w, q: newQueue(1 << 16), r: newProcReader("/proc"), boot: bootID("/proc"), paths: interned{}, inside: map[uint64]string{}, now: time.Now()}
	w.procs.put(&proc{image: &image{pid: 13447, ticks: 12984066184563 / tickNS, entity: "e", exe: "/usr/bin/xargs", name: "xargs", args: []string{"xargs", "-P", "4"}, line: "xargs -P 4", uidOK: true}, startedBy: event.ByOther})
	fork, exe, exit := recorded(b, "fork.bin"), recorded(b, "exec.bin"), recorded(b, "exit.bin")
	var r bpfRecord
	b.ReportAllocs()
	for b.Loop() {
		for _, rec := range [][]byte{fork, exe, exit} {
			if err := parseBPF(rec, &r); err != nil {
				b.Fatal(err)
			}
			x.handle(&r)
		}
		x.flush()
		items := x.q.take()
		for i := range items {
			w.Recycle(w.event(&items[i], x.now))
		}
		x.q.done(items)
		x.q.reuse(items)
	}
}

// When /proc is asked the process may run another program, be in another control
// group, or be another process: what it says then is not taken for this program's.
func TestWhatProcSaysOfSomethingLaterIsNotTaken(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	const real = "/srv/0/1/deep/evil"
	for _, tt := range []struct {
		name                  string
		flags                 byte
		exe, cwd, args, group string // as /proc has them now
		want                  func(im *image, errs string) bool
	}{
		{"the end of a deep path", bpfExeCut, real, "/", "", "", func(im *image, _ string) bool { return im.exe == real }},
		{"the end of a deep path, deleted", bpfExeCut | bpfExeDeleted, real + " (deleted)", "/", "", "", func(im *image, _ string) bool { return im.exe == real }},
		{"another program's path", bpfExeCut, "/usr/bin/true", "/", "", "", func(im *image, errs string) bool {
			return im.exe == ".../deep/evil" && strings.Contains(errs, "only the end")
		}},
		{"another folder", bpfCwdCut, real, "/usr", "", "", func(im *image, errs string) bool {
			return im.cwd == ".../home" && strings.Contains(errs, "only the end")
		}},
		{"arguments that the kernel could not read", bpfArgsFailed, "/deep/evil", "/", "evil\x00x\x00", "", func(im *image, _ string) bool { return im.line == "evil x" }},
		{"another program's arguments", bpfArgsFailed, "/usr/bin/true", "/", "true\x00", "", func(im *image, errs string) bool { return im.line == "" && strings.Contains(errs, "could not") }},
		{"a control group in a container", 0, real, "/", "", "0::/docker-" + id + ".scope/init.scope\n", func(im *image, _ string) bool { return im.container == id }},
		{"moved to a container since", 0, real, "/", "", "0::/docker-" + id + ".scope\n", func(im *image, _ string) bool { return im.container == "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "10")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			stat := "10 (evil) S 5 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 7 0\n"
			for name, text := range map[string]string{"stat": stat, "cmdline": tt.args, "cgroup": tt.group} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			for name, to := range map[string]string{"exe": tt.exe, "cwd": tt.cwd} {
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			w := New(Options{ProcRoot: root})
			b := &bpfWatch{w: w, q: newQueue(100), r: newProcReader(root), paths: interned{}, inside: map[uint64]string{}, now: time.Now()}
			w.procs.put(&proc{image: &image{pid: 5, ticks: 5, entity: "e5", exe: "/bin/sh", name: "sh"}})
			b.handle(&bpfRecord{
				kind: bpfExec, flags: tt.flags, pid: 10, ppid: 5, start: 7 * tickNS, at: 2, parentStart: 5 * tickNS, session: noID,
				exe: []byte("evil\x00deep\x00"), cwd: []byte("home\x00"), cgroup: 77, cgroupName: []byte("init.scope"),
			})
			if len(b.items) != 1 {
				t.Fatalf("told %d", len(b.items))
			}
			if im, errs := b.items[0].proc.image, strings.Join(b.items[0].errs, "; "); !tt.want(im, errs) {
				t.Errorf("path %q, folder %q, line %q, container %q; %s", im.exe, im.cwd, im.line, im.container, errs)
			}
		})
	}
}

// A subshell writes a file and ends before anybody asks who it was.
func TestAForkThatEndedIsKnownByName(t *testing.T) {
	w := New(Options{ProcRoot: t.TempDir()})
	b := &bpfWatch{w: w, q: newQueue(100), r: newProcReader(w.opts.ProcRoot), paths: interned{}, now: time.Now(), boot: "boot"}
	w.procs.put(&proc{image: &image{pid: 5, ticks: 5, entity: "e5", exe: "/bin/sh", name: "sh"}})
	for _, r := range []bpfRecord{{kind: bpfFork, pid: 10, ppid: 5, start: 7 * tickNS, at: 1}, {kind: bpfExit, pid: 10, start: 7 * tickNS, at: 2}} {
		b.handle(&r)
	}
	p, _, _ := w.Lookup(10)
	if p == nil || p.EntityID != entityID(bootID(w.opts.ProcRoot), 10, 7) || p.Executable != "/bin/sh" || p.Parent == nil || p.Parent.EntityID != "e5" {
		t.Errorf("%+v", p)
	}
}

func init() {
	if len(os.Args) > 1 && os.Args[1] == "procwatch-uids" {
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); {
			for range 1000 {
				for _, uid := range []int{65534, 0} {
					// Of this thread only, as libc would not do it.
					if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
						os.Exit(1)
					}
				}
			}
		}
		os.Exit(0)
	}
}

// Who has several accounts, as in a user namespace of their own, changes from one to
// the other as fast as it goes: that must not keep the reader from all else, nor fill
// its memory.
func TestChangesOfUserWithoutEndHoldNothingUp(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	b := needBPF(t, Options{}, ringBytes)
	if b.users < 0 {
		t.Skip("no process connector")
	}
	for range 2 * runtime.NumCPU() {
		cmd := exec.Command("/proc/self/exe", "procwatch-uids")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	}
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	var most int
	for range 20 {
		b.mu.Lock()
		b.takeUsers()
		most = max(most, len(b.changed))
		b.changeUsers()
		b.mu.Unlock()
	}
	if took := time.Since(began); took > 2*time.Minute || most > maxChanged {
		t.Errorf("20 looks took %v, with %d changes at once", took, most)
	} else {
		t.Logf("20 looks took %v, with %d changes at once", took, most)
	}
}

// Three hundred programs with 4 KiB of arguments each start at one moment, and the reader
// does not get to read meanwhile: with so many that want the CPU it may have to wait.
func TestASuddenFloodOfLongArgumentsHasRoom(t *testing.T) {
	b := needBPF(t, Options{}, ringBytes)
	told, lost := map[string]bool{}, uint64(0)
	read := func() {
		_, n, err := b.turn()
		if err != nil {
			t.Fatal(err)
		}
		lost += n
		items := b.q.take()
		for _, it := range items {
			if a, ok := strings.CutPrefix(it.raw, "/bin/true\x00"); ok && len(a) == 4001 {
				told[a] = true
			}
		}
		b.q.done(items)
	}
	const n = 300
	startAtOnce(t, n, read)
	if read(); len(told) != n || lost > 0 {
		t.Errorf("%d of %d are told, %d records are lost", len(told), n, lost)
	}
}

// startAtOnce runs programs with 4,000 bytes of arguments each, all at one moment, before
// which it calls ready.
func startAtOnce(t *testing.T, n int, ready func()) {
	t.Helper()
	gate := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	up, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	var all []*exec.Cmd
	for i := range n {
		c := exec.Command("/bin/sh", "-ec", fmt.Sprintf(`a=$(printf %%04000d %d); printf . >&3; exec 3>&-; read x < "$0" || exec /bin/true "$a"`, i), gate)
		c.ExtraFiles = []*os.File{said}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	said.Close()
	if _, err := io.ReadFull(up, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // they stand at the gate
	ready()
	f, err := os.OpenFile(gate, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	passed := make(chan struct{})
	defer close(passed)
	go func() { // who comes late, on a busy machine, would stand there for ever
		for {
			select {
			case <-passed:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if f, err := os.OpenFile(gate, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
				f.Close()
			}
		}
	}()
	for _, c := range all {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
}
