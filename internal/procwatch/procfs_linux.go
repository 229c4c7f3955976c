package procwatch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is USER_HZ, in which /proc tells times: 100 on every
// architecture we build for.
const ticksPerSecond = 100

// pfKthread marks kernel threads in the flags of /proc/PID/stat (linux/sched.h, PF_KTHREAD).
const pfKthread = 0x00200000

// procReader reads files of /proc without allocating for the path. Not safe for
// concurrent use.
type procReader struct {
	root string
	path []byte
	buf  []byte
}

func newProcReader(root string) *procReader {
	return &procReader{root: root, path: make([]byte, 0, 64), buf: make([]byte, maxBytes+1)}
}

// at returns the path of a file of a process, with the NUL that the kernel wants.
func (r *procReader) at(pid int, name string) *byte {
	b := append(r.path[:0], r.root...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(pid), 10)
	b = append(b, '/')
	b = append(b, name...)
	b = append(b, 0)
	r.path = b
	return &b[0]
}

// read returns the content of a file, at most cap(r.buf) bytes of it, valid
// until the next call.
func (r *procReader) read(pid int, name string) ([]byte, error) {
	atCwd := unix.AT_FDCWD
	fd, _, e := syscall.Syscall6(syscall.SYS_OPENAT, uintptr(atCwd), uintptr(unsafe.Pointer(r.at(pid, name))), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return nil, e
	}
	n := 0
	for n < len(r.buf) {
		k, _, e := syscall.Syscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&r.buf[n])), uintptr(len(r.buf)-n))
		if e == syscall.EINTR {
			continue
		}
		if e != 0 {
			_ = syscall.Close(int(fd))
			return nil, e
		}
		if k == 0 {
			break
		}
		n += int(k)
	}
	_ = syscall.Close(int(fd))
	return r.buf[:n], nil
}

// link returns what a link points to. A path longer than 4,095 bytes cannot be
// read this way (ENAMETOOLONG).
func (r *procReader) link(pid int, name string) (string, error) {
	atCwd := unix.AT_FDCWD
	n, _, e := syscall.Syscall6(syscall.SYS_READLINKAT, uintptr(atCwd), uintptr(unsafe.Pointer(r.at(pid, name))), uintptr(unsafe.Pointer(&r.buf[0])), uintptr(len(r.buf)), 0, 0)
	if e != 0 {
		return "", e
	}
	return string(r.buf[:n]), nil
}

// args returns a process's arguments, NUL after each. Empty without an error:
// it has ended, or has none.
func (r *procReader) args(pid int) (string, error) {
	b, err := r.read(pid, "cmdline")
	if err != nil {
		return "", err
	}
	return string(b), nil
}

var errEnded = errors.New("process ended before it could be read")

// gone puts the kernel's ways of saying so in words.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return errEnded
	}
	return err
}

// boundArgs cuts arguments that are longer than an event takes.
func boundArgs(raw string, errs []string) (string, []string) {
	if len(raw) > maxBytes {
		return raw[:maxBytes], append(errs, fmt.Sprintf("read arguments: cut at %d bytes", maxBytes))
	}
	if n := strings.Count(raw, "\x00"); n > maxArgs {
		return raw, append(errs, fmt.Sprintf("read arguments: cut at %d of %d", maxArgs, n))
	}
	return raw, errs
}

var readers = sync.Pool{New: func() any { return newProcReader("") }}

// read reads one process from /proc; its parent's part is left open. False:
// there is none, or it is a kernel thread.
func (w *Watcher) read(pid int) (reading, bool) {
	r := readers.Get().(*procReader)
	defer readers.Put(r)
	r.root = w.opts.ProcRoot

	since := monotonic()
	b, err := r.read(pid, "stat")
	if err != nil {
		return reading{}, false
	}
	st, ok := parseStat(b)
	if !ok || st.flags&pfKthread != 0 {
		return reading{}, false
	}
	x := reading{}
	im := &image{pid: pid, name: st.comm, ticks: st.ticks, started: startTime(st.ticks), entity: entityID(bootID(w.opts.ProcRoot), pid, st.ticks)}
	exe, err := r.link(pid, "exe")
	if err != nil {
		x.errs = append(x.errs, "read executable: "+gone(err).Error())
	}
	im.setExe(exe, &x.errs)
	raw, err := r.args(pid)
	if err != nil {
		x.errs = append(x.errs, "read arguments: "+gone(err).Error())
	}
	x.raw, x.errs = boundArgs(raw, x.errs)
	im.setArgs(x.raw)
	im.cwd, _ = r.link(pid, "cwd") // other users' need a right; absent then
	if b, err := r.read(pid, "status"); err == nil {
		if realUser, effective, ok := parseUIDs(b); ok {
			im.setOwner(r.login(pid), realUser, effective, nil)
		}
	}
	im.container = r.container(pid)
	x.proc = &proc{image: im, ppid: st.ppid, since: since, session: r.session(pid)}
	return x, true
}

// session returns the login session of a process, "" if there is none.
func (r *procReader) session(pid int) string { return auditID(r.audit(pid, "sessionid")) }

// login returns the account of the login that led to a process; noID if none did.
func (r *procReader) login(pid int) uint32 { return r.audit(pid, "loginuid") }

func (r *procReader) audit(pid int, name string) uint32 {
	b, err := r.read(pid, name)
	if err != nil { // ended, or a kernel without audit
		return noID
	}
	return parseAudit(b)
}

// container returns the id of the container that a process runs in, "" if it
// runs in none or has ended.
func (r *procReader) container(pid int) string {
	b, err := r.read(pid, "cgroup")
	if err != nil {
		return ""
	}
	return containerID(string(b))
}

// setExe sets the executable as /proc tells it.
func (im *image) setExe(exe string, errs *[]string) {
	if exe == "" {
		return
	}
	if cut, ok := trimDeleted(exe); ok {
		exe = cut
		*errs = append(*errs, "executable is deleted")
	}
	im.exe, im.name = exe, path.Base(exe)
}

// startTicks returns when a process started.
func (w *Watcher) startTicks(pid int) (uint64, bool) {
	r := readers.Get().(*procReader)
	defer readers.Put(r)
	r.root = w.opts.ProcRoot
	b, err := r.read(pid, "stat")
	if err != nil {
		return 0, false
	}
	st, ok := parseStat(b)
	return st.ticks, ok
}

// pids lists the processes.
func (w *Watcher) pids() ([]int, error) {
	d, err := os.Open(w.opts.ProcRoot)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// monotonic is the clock of the connector's messages, in ns.
func monotonic() uint64 { return uint64(clock(unix.CLOCK_MONOTONIC)) }

// wallTime is the time of day of a moment of the monotonic clock. It is worked
// out anew each time: the time of day may be set.
func wallTime(mono uint64) time.Time {
	return time.Now().Add(time.Duration(mono) - clock(unix.CLOCK_MONOTONIC))
}

// startTime is the time of day of a start in clock ticks since boot.
func startTime(ticks uint64) time.Time {
	const tick = time.Second / ticksPerSecond
	return time.Now().Add(time.Duration(ticks)*tick - clock(unix.CLOCK_BOOTTIME)).UTC().Truncate(tick)
}

// trimDeleted takes the kernel's mark from the path of a file that is gone.
func trimDeleted(path string) (string, bool) { return strings.CutSuffix(path, " (deleted)") }
