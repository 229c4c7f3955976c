package volume

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// lookElsewhere is how often other mount namespaces are looked for; a look
	// costs some 3 us for each process. It also is the longest time between two
	// looks at our own, whose changes the kernel tells.
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
	f, err := openMountinfo(filepath.Join(w.opt.ProcRoot, "self", "mountinfo"))
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer f.Close()
	wake, err := newWaker(ctx)
	if err != nil {
		return fmt.Errorf("watch mounts: %w", err)
	}
	defer wake.close()

	b := &blocks{sys: w.opt.SysRoot, dev: w.opt.DevRoot, proc: w.opt.ProcRoot, number: deviceNumber, guard: w.guard,
		backing: func(loop string) (Dev, bool) { return backingDevice(filepath.Join(w.opt.DevRoot, loop)) }}
	var seed = maphash.MakeSeed()
	var last uint64
	var text bytes.Buffer
	var others []mountLine
	var ours map[Dev]bool
	var far map[string]bool
	var spacesAt, cloudsAt, phonesAt time.Time
	mechanism, message := mechanismMountinfo, ""
	if !w.started {
		message = PresentAtStart
	}
	for ctx.Err() == nil {
		begin := time.Now()
		text.Reset()
		if _, err := f.Seek(0, 0); err != nil {
			return fmt.Errorf("watch mounts: %w", err)
		}
		if _, err := text.ReadFrom(f); err != nil {
			return fmt.Errorf("read mounts: %w", err)
		}
		sum := maphash.Bytes(seed, text.Bytes())
		changed := sum != last
		var lines []mountLine
		var bad int
		if changed {
			lines, bad = parseMountinfo(text.String())
			ours, far = devices(lines)
		}
		if changed || begin.Sub(spacesAt) >= lookElsewhere {
			was := others
			others, spacesAt = elsewhere(w.opt.ProcRoot, ours), begin
			changed = changed || !slices.Equal(was, others)
		}
		if begin.Sub(cloudsAt) >= lookClouds {
			cloudsAt = begin
			changed = w.lookForClouds(far) || changed
		}
		if changed && lines == nil {
			lines, bad = parseMountinfo(text.String())
		}
		if changed {
			last = sum
			gone, come := w.update(lines, others, b, w.size)
			w.tell(ctx, out, mechanism, message, gone, come)
			w.report(ctx, out, mechanism, bad)
		}
		if begin.Sub(phonesAt) >= lookPhones {
			phonesAt = begin
			gone, come := w.lookForPhones(b)
			w.tell(ctx, out, mechanismOpenFiles, message, gone, come)
		}
		w.started, message = true, ""

		// A look takes at most a fifth of the time, however many mounts come.
		if !rest(ctx, min(4*time.Since(begin), maxRest)) {
			return nil
		}
		wait := w.opt.Poll
		if wait == 0 {
			wait = lookElsewhere
		}
		if mechanism == mechanismMountinfo {
			if err := wake.wait(f, wait); err != nil {
				mechanism = mechanismPolling
				w.report(ctx, out, mechanism, 0)
			}
			continue
		}
		if w.opt.Poll == 0 {
			wait = time.Second
		}
		rest(ctx, wait)
	}
	return nil
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
	found, err := bounded(w.guard, func() []cloud { return findClouds(w.opt.HomeRoot, func(home string) bool { return far[home] }) })
	if err != nil || slices.Equal(found, w.clouds) {
		return false
	}
	w.clouds = found
	return true
}

// openMountinfo opens the file without os.Open, which would hand it to Go's own
// epoll: the kernel tells a change once for each open file, to whoever polls
// first, and wait would not hear of it.
func openMountinfo(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
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
	var e *event.Event
	switch w.gauge.Set(state, mechanism, reason) {
	case endpoint.Worse:
		e = event.New(event.SensorDegraded, time.Now())
		e.Message = reason
	case endpoint.Better:
		e = event.New(event.SensorRecovered, time.Now())
		e.Message = "all mounts are seen again"
	default:
		return
	}
	e.Sensor = mechanism
	w.send(ctx, out, e)
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

// waker waits for a change of mountinfo or for the end of a context.
type waker struct {
	fd   int // an eventfd, readable once the context has ended
	stop func() bool
	done chan struct{} // closed when the context's end was passed on
}

func newWaker(ctx context.Context) (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	k := &waker{fd: fd, done: make(chan struct{})}
	k.stop = context.AfterFunc(ctx, func() {
		defer close(k.done)
		_, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // cannot be full
	})
	return k, nil
}

func (k *waker) close() {
	if !k.stop() {
		<-k.done
	}
	unix.Close(k.fd)
}

// wait returns when mountinfo changed since it was read, when the context ended,
// or after the longest time. See poll in proc_pid_mounts(5): POLLERR and POLLPRI
// mean a change.
func (k *waker) wait(mountinfo *os.File, longest time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(mountinfo.Fd()), Events: unix.POLLPRI}, {Fd: int32(k.fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int(longest.Milliseconds()))
	switch {
	case err == unix.EINTR:
		return nil
	case err != nil:
		return fmt.Errorf("poll mountinfo: %w", err)
	case fds[0].Revents&unix.POLLNVAL != 0:
		return fmt.Errorf("poll mountinfo: %w", unix.EBADF)
	}
	return nil
}
