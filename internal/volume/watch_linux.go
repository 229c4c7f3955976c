package volume

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The mechanisms that this package may use on Linux.
const (
	mechanismMountinfo = "mountinfo"
	mechanismPolling   = "polling"
)

const (
	// lookElsewhere is how often other mount namespaces are looked for. It also is the
	// longest time between two looks at our own, whose changes the kernel tells.
	lookElsewhere = 5 * time.Second
	// lookPhones is how often it is looked who has a phone open; that costs 10 ms
	// while one is attached, else next to nothing.
	lookPhones = 5 * time.Second
	// lookClouds is how often folders of sync programs are looked for.
	lookClouds = time.Minute
)

// maxRest bounds how long changes are let gather after a look that took long:
// with 100,000 mounts a look costs a tenth of a second, and a start of containers
// changes them hundreds of times.
const maxRest = time.Second

// Run watches until ctx ends. It fails where mountinfo cannot be read.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	err := w.watch(ctx, out)
	if err != nil {
		w.gauge.Set(endpoint.SensorDown, mechanismMountinfo, err.Error())
	}
	return err
}

func (w *Watcher) watch(ctx context.Context, out chan<- *event.Event) error {
	m, err := openMountinfo(filepath.Join(w.opt.ProcRoot, "self", "mountinfo"))
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer m.close()
	defer context.AfterFunc(ctx, m.close)()
	w.mounts.Store(m)
	defer w.mounts.Store(nil)

	b := &blocks{sys: w.opt.SysRoot, dev: w.opt.DevRoot, proc: w.opt.ProcRoot, number: deviceNumber, guard: w.guard,
		backing: func(loop string) (Dev, bool) { return backingDevice(filepath.Join(w.opt.DevRoot, loop)) }}
	elsewhere := newSpaces(w.opt.ProcRoot)
	var others []mountLine
	var ours map[Dev]bool
	var far map[string]bool
	var elsewhereAt, cloudsAt, phonesAt time.Time
	var newest, phonesNewest string // see newestTask
	var proof string                // asked for and not given yet; "": none is
	mechanism, longest, message := mechanismMountinfo, lookElsewhere, ""
	if m.deaf {
		mechanism, longest = mechanismPolling, time.Second
	}
	if w.opt.Poll != 0 {
		longest = w.opt.Poll
	}
	if !w.started {
		message = PresentAtStart
	}
	var until time.Time // how long to wait for a change; not at all at first
	for {
		changed, err := m.wait(ctx, until)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read mounts: %w", err)
		}
		begin := time.Now()
		var lines []mountLine
		var bad int
		if changed {
			lines, bad = parseMountinfo(string(m.text))
			ours, far = devices(lines)
		}
		if changed || begin.Sub(elsewhereAt) >= lookElsewhere {
			was := others
			elsewhereAt = begin
			newest = newestTask(w.opt.ProcRoot)
			others = elsewhere.look(newest, ours, changed, begin)
			changed = changed || !slices.Equal(was, others)
		}
		if begin.Sub(cloudsAt) >= lookClouds {
			cloudsAt = begin
			changed = w.lookForClouds(far) || changed
		}
		if changed {
			if lines == nil {
				lines, bad = parseMountinfo(string(m.text))
			}
			gone, come := w.update(lines, others, b, w.size)
			w.tell(ctx, out, mechanism, message, gone, come)
			w.report(ctx, out, mechanism, bad)
		}
		// Who opens a phone is a program, or a thread, that starts then.
		quiet := newest != "" && newest == phonesNewest && len(*w.phones.Load()) == 0
		if ago := begin.Sub(phonesAt); ago >= askAll || ago >= lookPhones && !quiet {
			phonesAt, phonesNewest = begin, newest
			gone, come := w.lookForPhones(b)
			w.tell(ctx, out, mechanismOpenFiles, message, gone, come)
		}
		w.started, message = true, ""

		select {
		case proof = <-w.proofs:
		default:
		}
		if proof != "" && w.agrees() {
			w.send(ctx, out, event.Proof(w.Name(), proof))
			proof = ""
		}
		// A look takes at most a fifth of the time, however many mounts come.
		if !rest(ctx, min(4*time.Since(begin), maxRest)) {
			return nil
		}
		until = time.Now().Add(longest)
	}
}

// devices returns the device numbers of mounts, and the mount points of those
// that may be of a server.
func devices(lines []mountLine) (ours map[Dev]bool, far map[string]bool) {
	ours, far = make(map[Dev]bool, len(lines)), map[string]bool{}
	for i := range lines {
		ours[lines[i].Dev] = true
		switch fileSystems[lines[i].Type].kind {
		case event.VolumeNetwork, event.VolumeCloudSync:
			far[strings.Clone(lines[i].Mount)] = true
		}
	}
	return ours, far
}

// lookForClouds looks for folders of sync programs in homes on local disks, and
// reports whether that changed anything. A look that hangs changes nothing.
func (w *Watcher) lookForClouds(far map[string]bool) bool {
	if far[filepath.Join(w.opt.HomeRoot, "home")] {
		return false
	}
	found, ok := w.seekClouds(func() []cloud { return findClouds(w.opt.HomeRoot, func(home string) bool { return far[home] }) })
	if !ok || slices.Equal(found, w.clouds) {
		return false
	}
	w.clouds = found
	return true
}

// mountinfo is the file that the kernel tells mounts in, and their changes.
type mountinfo struct {
	file *os.File
	raw  syscall.RawConn
	deaf bool   // the kernel does not tell of changes
	text []byte // as last read
	seed maphash.Seed
	sum  uint64 // of text
	seen uint64 // the sum that wait returned last; 0: none yet

	mu      sync.Mutex // guards all below
	hurried bool       // the next wait is not to wait
}

func openMountinfo(name string) (*mountinfo, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	m := &mountinfo{file: f, seed: maphash.MakeSeed(), deaf: f.SetReadDeadline(time.Time{}) != nil}
	if m.raw, err = f.SyscallConn(); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

func (m *mountinfo) close() { m.file.Close() }

// hurry ends a wait, or the next one.
func (m *mountinfo) hurry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hurried = true
	_ = m.file.SetReadDeadline(time.Now()) // where it cannot be set, nothing waits for long
}

// wait reads the mounts once they are others than wait returned last, or the time has
// come, and reports whether they are others.
func (m *mountinfo) wait(ctx context.Context, until time.Time) (changed bool, err error) {
	if m.deaf {
		rest(ctx, time.Until(until))
	} else if err := m.listen(until); err != nil {
		return false, err
	} else {
		// The kernel tells a change once, to Go's epoll, and says nothing of changes
		// before that: reading is part of waiting, so that none falls between.
		waiting := m.raw.Read(func(fd uintptr) bool {
			err = m.read(int(fd))
			return err != nil || m.sum != m.seen
		})
		if err == nil && !errors.Is(waiting, os.ErrDeadlineExceeded) {
			err = waiting
		}
	}
	if err == nil && m.sum == m.seen {
		err = m.raw.Control(func(fd uintptr) { err = m.read(int(fd)) })
	}
	changed = m.sum != m.seen
	m.seen = m.sum
	return changed, err
}

// listen says how long to listen for changes.
func (m *mountinfo) listen(until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hurried || until.IsZero() {
		m.hurried, until = false, time.Now()
	}
	return m.file.SetReadDeadline(until)
}

// read reads the mounts.
func (m *mountinfo) read(fd int) error {
	m.text = m.text[:0]
	for {
		m.text = slices.Grow(m.text, 4<<10)
		n, err := unix.Pread(fd, m.text[len(m.text):cap(m.text)], int64(len(m.text)))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("pread", err)
		case n == 0:
			m.sum = maphash.Bytes(m.seed, m.text)
			return nil
		default:
			m.text = m.text[:len(m.text)+n]
		}
	}
}

// report sets the state, and tells it when it became worse or better.
func (w *Watcher) report(ctx context.Context, out chan<- *event.Event, mechanism string, bad int) {
	state, reason := endpoint.SensorOK, ""
	switch {
	case mechanism == mechanismPolling:
		state, reason = endpoint.SensorDegraded, "the kernel does not tell of changes to mountinfo; it is read each second, shorter visits are missed"
	case bad > 0:
		state, reason = endpoint.SensorDegraded, fmt.Sprintf("%d lines of mountinfo are not understood; these mounts are not seen", bad)
	}
	w.tellState(ctx, out, state, mechanism, reason, "all mounts are seen again")
}

// size asks a file system for its size. It gives up after a while.
func (w *Watcher) size(mount string) (int64, error) {
	type answer struct {
		bytes int64
		err   error
	}
	a, err := bounded(w.guard, func() answer {
		var s unix.Statfs_t
		if err := unix.Statfs(mount, &s); err != nil {
			return answer{err: err}
		}
		unit := s.Frsize
		if unit <= 0 {
			unit = s.Bsize
		}
		if unit <= 0 || s.Blocks > uint64(math.MaxInt64)/uint64(unit) {
			return answer{err: fmt.Errorf("%d blocks of %d bytes cannot be", s.Blocks, unit)}
		}
		return answer{bytes: int64(s.Blocks) * unit}
	})
	if err != nil {
		return 0, err
	}
	return a.bytes, a.err
}

// deviceNumber returns the number of a block device's node.
func deviceNumber(node string) (Dev, bool) {
	var s unix.Stat_t
	if err := unix.Stat(node, &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Dev{}, false
	}
	return Dev{unix.Major(s.Rdev), unix.Minor(s.Rdev)}, true
}

// backingDevice returns on which device the file lies that a loop device is made
// of. It needs the right to read the device.
func backingDevice(node string) (Dev, bool) {
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return Dev{}, false
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return Dev{}, false
	}
	return Dev{unix.Major(info.Device), unix.Minor(info.Device)}, true
}

// rest waits, and reports false when ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
