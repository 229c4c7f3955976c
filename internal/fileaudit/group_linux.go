package fileaudit

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readFilesSize is how much is read at once of records that come with an open
	// file: one. Where the file cannot be opened (no more descriptors, gone on its
	// server) kernels before 6.13 drop the record, and say so only if it is the
	// first of a read.
	readFilesSize = fanHeader
	// readManySize is the same where the kernel gives the record all the same. Each
	// holds a descriptor meanwhile.
	readManySize = 32 * fanHeader
	// readNamesSize is the same for records with names, some 100 bytes each.
	readNamesSize = 16 << 10
	// gather is how long records pile up once they come in a stream. To be woken up
	// for each costs more than to take it, on both sides, and what happens to one
	// file within that time is one record: opened, written, closed. A record keeps
	// its file open and so its mount from being unmounted: no longer than this, as a
	// program that unmounts takes some 2 ms to start, and not at all on mounts of
	// sticks and servers.
	gather = time.Millisecond
	// maxSeen is how many records go to the queue together at most.
	maxSeen = 256
	// maxReadErrors in a row mean that reading does not get better.
	maxReadErrors = 1000
)

// groupKind says what a group is for.
type groupKind uint8

const (
	onDisks   groupKind = iota // with files, on local disks
	onMedia                    // the same on what may be unmounted at any moment
	onShares                   // the same on what may not answer
	withNames                  // names instead of files
)

// group is a fanotify group and its reader.
type group struct {
	fd    int
	ready *os.File // an epoll that has fd once it has records, while armed
	size  int      // of what is read at once
	kind  groupKind
	eager bool // it does not gather, and what was read goes on at once: the next read may hang
	stop  chan struct{}
	once  sync.Once     // closes stop
	done  chan struct{} // closed when the reader has ended
	slow  *time.Timer   // of eager ones: has it told that a read takes long

	// In ns since fan.began:
	busy  atomic.Int64 // since when it reads, or works on what it read; 0: it waits
	empty atomic.Int64 // when there was nothing to read

	// Owned by the reader:
	seen    []record              // not in the queue yet
	written map[fileKey]bool      // written to and not closed since
	rested  map[fileKey]fileTimes // at the last close
	sampler sampler
	behind  int           // records that waited when a read took long, not read yet
	since   time.Duration // when that began, since fan.began
	forgot  time.Time     // when written was cleared: what is closed soon after counts as written to
}

// fileTimes are when a file was changed, its name and rights included, and when it was
// written to.
type fileTimes struct{ changed, written time.Time }

// newGroup makes a group for records with names, or with files, and says how much
// to read of it at once. The files are opened by the kernel without waiting: a
// pipe would wait for a writer. Kernels from 6.13 give the record of a file that
// cannot be opened instead of an error; others drop it without a word if the
// server says that it is gone.
func newGroup(names bool) (fd, size int, err error) {
	const class = unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK | unix.FAN_UNLIMITED_MARKS
	const files = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOATIME
	if names {
		fd, err = unix.FanotifyInit(class|unix.FAN_REPORT_DFID_NAME, files)
		return fd, readNamesSize, err
	}
	if fd, err = unix.FanotifyInit(class|unix.FAN_REPORT_FD_ERROR, files); err == nil {
		return fd, readManySize, nil
	}
	fd, err = unix.FanotifyInit(class, files)
	return fd, readFilesSize, err
}

// open makes a group and starts its reader.
func (f *fan) open(kind groupKind, read func(*group, []byte)) (*group, error) {
	fd, size, err := newGroup(kind == withNames)
	if err != nil {
		return nil, err
	}
	eager := kind == onMedia || kind == onShares
	g := &group{fd: fd, size: size, kind: kind, eager: eager, stop: make(chan struct{}), done: make(chan struct{}), written: map[fileKey]bool{}, rested: map[fileKey]fileTimes{}}
	if g.ready, err = newReady(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if eager {
		g.slow = time.AfterFunc(hangsFor, func() { f.q.resync() })
		g.slow.Stop()
	}
	go func() {
		defer close(g.done)
		defer unix.Close(fd)
		if err := guard(func() error { return f.loop(g, read) }); err != nil {
			f.fail(fmt.Errorf("read fanotify: %w", err))
		}
	}()
	return g, nil
}

// newReady makes an epoll in which a descriptor stands, not armed. Go's own would
// be woken up for each record, also while nobody waits for one.
func newReady(fd int) (*os.File, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT}); err != nil {
		unix.Close(ep)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	_ = unix.SetNonblock(ep, true) // that Go takes it into its own
	return os.NewFile(uintptr(ep), "fanotify"), nil
}

// close ends the reader, which may hang in a dead file system. done tells when it
// has ended.
func (g *group) close() {
	g.once.Do(func() {
		close(g.stop)
		g.ready.Close()
	})
}

// wait waits until there is a record, or the group is closed.
func (g *group) wait() error {
	c, err := g.ready.SyscallConn()
	if err != nil {
		return err
	}
	armed, failed := false, error(nil)
	err = c.Read(func(ep uintptr) bool {
		if !armed {
			failed = unix.EpollCtl(int(ep), unix.EPOLL_CTL_MOD, g.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT})
			armed = true
		}
		var e [1]unix.EpollEvent
		n := 0
		for failed == nil {
			if n, failed = unix.EpollWait(int(ep), e[:], 0); failed != unix.EINTR {
				break
			}
			failed = nil
		}
		return n > 0 || failed != nil
	})
	return errors.Join(err, failed)
}

func (g *group) closed() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

// loop reads until the group is closed.
func (f *fan) loop(g *group, read func(*group, []byte)) error {
	buf := make([]byte, g.size)
	nap := time.NewTimer(gather)
	defer nap.Stop()
	var woken time.Time
	bad := 0
	for {
		err := g.wait()
		switch {
		case g.closed():
			return nil
		case err != nil:
			return err
		}
		now := time.Now()
		stream := !g.eager && now.Sub(woken) < gather
		woken = now
		for more := true; more; {
			n, err := f.drain(g, buf, &bad, read)
			g.seen = f.q.pushAll(g.seen)
			f.rests(g)
			if err != nil {
				return err
			}
			if more = stream && n > 0; more {
				nap.Reset(gather)
				select {
				case <-nap.C:
					woken = time.Now()
				case <-g.stop:
					return nil
				}
			}
		}
	}
}

// drain reads what there is, and says how often it read. bad is how many reads in
// a row have failed.
func (f *fan) drain(g *group, buf []byte, bad *int, read func(*group, []byte)) (reads int, err error) {
	for ; !g.closed(); reads++ {
		f.begins(g)
		n, err := unix.Read(g.fd, buf)
		switch {
		case err == unix.EAGAIN:
			g.empty.Store(g.busy.Load())
			return reads, nil
		case err == unix.EINTR:
		case err == nil && n > 0:
			*bad = 0
			if read(g, buf[:n]); len(g.seen) >= maxSeen || g.eager {
				g.seen = f.q.pushAll(g.seen)
			}
			f.notes(g)
		default:
			// The file of an event could not be opened (gone on its server, too many
			// open files): the event is lost, the next may be fine.
			f.lose(g)
			if *bad++; *bad > maxReadErrors {
				return reads, err
			}
		}
	}
	return reads, nil
}

// notes notes how many records waited while a read took long: nobody knows when they came.
func (f *fan) notes(g *group) {
	began := time.Duration(g.busy.Load())
	if g.kind == withNames || time.Since(f.began)-began < lagFor {
		return
	}
	if g.behind == 0 {
		g.since = began
	}
	if n, err := unix.IoctlGetInt(g.fd, unix.TIOCINQ); err == nil {
		g.behind = n / fanHeader
	}
}

// happened is from when on what was just read may have happened.
func (f *fan) happened(g *group) time.Time {
	if g.behind > 0 {
		return f.began.Add(g.since)
	}
	return f.began.Add(time.Duration(g.busy.Load()))
}

// lose counts an event of a group as lost.
func (f *fan) lose(g *group) {
	if g.kind == onShares {
		f.q.lose(losses{gone: 1})
		return
	}
	f.q.lose(losses{sought: 1})
}

// begins notes that a group begins to read, which may hang if it is eager.
func (f *fan) begins(g *group) {
	f.answered(g)
	g.busy.Store(int64(time.Since(f.began)))
	if g.eager {
		g.slow.Reset(hangsFor)
	}
}

// rests notes that what was read is in the queue.
func (f *fan) rests(g *group) {
	f.answered(g)
	g.busy.Store(0)
}

// answered ends what begins began, and has it told that a read took long and is over.
func (f *fan) answered(g *group) {
	if g.eager && g.busy.Load() != 0 && !g.slow.Stop() {
		f.q.resync()
	}
}

// hangs reports whether a read has been going on for so long.
func (f *fan) hangs(g *group, d time.Duration) bool {
	since := g.busy.Load()
	return since != 0 && time.Since(f.began)-time.Duration(since) >= d
}

// caughtUp is up to when all that happened is in the queue or counted as lost. A
// share that does not answer is not waited for.
func (f *fan) caughtUp(now time.Time) (shares, elsewhere time.Time) {
	shares, elsewhere = now, f.drained(f.media, f.drained(f.main, now))
	for _, g := range f.far {
		switch {
		case g.kind != onShares:
			elsewhere = f.drained(g, elsewhere)
		case !f.hangs(g, statWait):
			shares = f.drained(g, shares)
		}
	}
	return shares, elsewhere
}

// drained is up to when all of a group is, or t if that is earlier.
func (f *fan) drained(g *group, t time.Time) time.Time {
	// In this order: what is no longer to be read has been read before.
	n, err := unix.IoctlGetInt(g.fd, unix.TIOCINQ)
	if busy := g.busy.Load() != 0; err != nil || n == 0 && !busy {
		return t
	}
	if last := f.began.Add(time.Duration(g.empty.Load())); last.Before(t) {
		return last
	}
	return t
}

// tell has a record put in the queue.
func (g *group) tell(r record) { g.seen = append(g.seen, r) }

// forget gives up what is known of files being written.
func (g *group) forget() {
	clear(g.written)
	g.forgot = time.Now()
}
