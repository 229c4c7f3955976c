package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

const (
	lesserMech   = mechChanges
	lesserLimits = "the process is mostly not known, the person is guessed, no reads, nothing on shares"
)

const (
	// changesSize is how much the system keeps of each folder between two of our
	// reads: some 500 changes. It is the most that servers take (MSDN,
	// ReadDirectoryChangesW) and comes from the system's non-paged memory.
	changesSize = 64 << 10
	// maxRoots bounds the folders that are watched, each with what is below it.
	maxRoots = 256
	// maxFresh bounds the files looked at in one folder that was moved to a place.
	maxFresh = 10_000
	// restFor is how long a folder is left alone whose notifications ended at once, or
	// that did not answer.
	restFor = 30 * time.Second
	// letGoWait bounds waiting for the system to give a buffer back.
	letGoWait = time.Second

	changesFilter = windows.FILE_NOTIFY_CHANGE_FILE_NAME | windows.FILE_NOTIFY_CHANGE_DIR_NAME | windows.FILE_NOTIFY_CHANGE_SIZE | windows.FILE_NOTIFY_CHANGE_LAST_WRITE
	// streamsFilter asks for changes of alternate data streams (ntifs.h): names,
	// sizes, writes. Not every file system takes it.
	streamsFilter = 0x200 | 0x400 | 0x800

	extendedInformation = 2  // ReadDirectoryNotifyExtendedInformation
	processIDsUsingFile = 47 // FileProcessIdsUsingFileInformation (ntifs.h)
	systemPID           = 4
)

// readChangesEx is there from Windows 10 1709 on.
var readChangesEx = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReadDirectoryChangesExW")

// changes is the mechanism of ReadDirectoryChangesW: one handle for each folder
// and all below it, one reader for all.
type changes struct {
	w      *Watcher
	q      *queue
	port   windows.Handle
	done   chan struct{} // closed when the reader has ended
	places atomic.Pointer[places]
	stop   func() // ends being asked to let go of volumes
	people people
	// openRoot opens a folder to watch it and all below, and says what it is called.
	openRoot func(path string) (windows.Handle, string, error)
	stuck    stuck // of those who sync
	asks     stuck // of the reader

	mu    sync.Mutex        // guards all below, and the roots
	roots map[uintptr]*root // by their key
	last  uintptr
	ended map[string]time.Time // roots, by what they were asked for by, that ended as soon as they began
}

// root is a folder that is watched.
type root struct {
	path     string // as events have it
	asked    string // the path that it was asked for by, in capitals
	vol      string // Mount of its volume
	dev      volume.Dev
	whole    bool // all in it is of interest; else what belongs to a protected place
	media    bool
	key      uintptr
	handle   windows.Handle
	closed   bool
	gone     chan struct{} // closed when the system has given the buffer back
	over     windows.Overlapped
	buf      [2][]byte // one is being filled while the other is read
	filling  int
	extended bool
	streams  bool
	old      *change // first half of a rename; the reader's
	since    time.Time
}

func (w *Watcher) newLesser(q *queue, fail context.CancelCauseFunc) (source, error) {
	port, err := windows.CreateIoCompletionPort(windows.InvalidHandle, 0, 0, 1)
	if err != nil {
		return nil, fmt.Errorf("%s: create completion port: %w", mechChanges, err)
	}
	c := &changes{w: w, q: q, port: port, done: make(chan struct{}), roots: map[uintptr]*root{}, ended: map[string]time.Time{}, openRoot: openRoot, stuck: stuck{}, asks: stuck{}, stop: func() {}}
	c.places.Store(w.space.Load())
	if t, ok := w.opts.Table.(interface {
		OnLeave(release func(mount string)) (stop func())
	}); ok {
		c.stop = t.OnLeave(c.release)
	}
	go func() {
		defer close(c.done)
		if err := guard(c.read); err != nil {
			fail(err)
		}
	}()
	return c, nil
}

func (c *changes) close() {
	c.stop()
	var left []*root
	c.mu.Lock()
	for _, r := range c.roots {
		c.end(r)
		left = append(left, r)
	}
	c.mu.Unlock()
	c.wait(left)
	_ = windows.PostQueuedCompletionStatus(c.port, 0, 0, nil)
	<-c.done
	windows.CloseHandle(c.port)
	notGivenBack.Lock()
	defer notGivenBack.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.roots {
		notGivenBack.roots = append(notGivenBack.roots, r)
	}
}

// notGivenBack are roots of media that hang, whose buffers the system may still write
// into: memory that nobody refers to would be another's by then.
var notGivenBack struct {
	sync.Mutex
	roots []*root
}

// release lets go of a volume that is about to be taken away. Where it stays, the
// table says so, and sync takes it up again.
func (c *changes) release(mount string) {
	var left []*root
	mount = filepath.Clean(mount) // of a volume in a folder, `C:\stick\`, as mountOf has it
	c.mu.Lock()
	for _, r := range c.roots {
		if strings.EqualFold(r.vol, mount) {
			c.end(r)
			left = append(left, r)
		}
	}
	c.mu.Unlock()
	c.wait(left)
}

// end closes a root. c.mu is held.
func (c *changes) end(r *root) {
	if r.closed {
		return
	}
	r.closed = true
	_ = windows.CancelIoEx(r.handle, &r.over)
	windows.CloseHandle(r.handle)
}

// wait waits until the system has given back the buffers of roots that have ended.
func (c *changes) wait(roots []*root) {
	timer := time.NewTimer(letGoWait)
	defer timer.Stop()
	for _, r := range roots {
		select {
		case <-r.gone:
		case <-c.done:
			return
		case <-timer.C:
			return
		}
	}
}

// forget takes a root away of which the system holds nothing. c.mu is held.
func (c *changes) forget(r *root) {
	c.end(r)
	delete(c.roots, r.key)
	close(r.gone)
}

// arm has the system fill the next buffer of a root. c.mu is held.
func (c *changes) arm(r *root) error {
	for {
		filter := uint32(changesFilter)
		if r.streams {
			filter |= streamsFilter
		}
		buf := r.buf[r.filling]
		var err error
		if r.extended {
			ok, _, e := readChangesEx.Call(uintptr(r.handle), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 1, uintptr(filter), 0, uintptr(unsafe.Pointer(&r.over)), 0, extendedInformation)
			if ok == 0 {
				err = e
			}
		} else {
			err = windows.ReadDirectoryChanges(r.handle, &buf[0], uint32(len(buf)), true, filter, nil, &r.over, 0)
		}
		switch {
		case err == nil, errors.Is(err, windows.ERROR_IO_PENDING):
			return nil
		case r.streams:
			r.streams = false
		case r.extended: // not every file system can (MSDN: ERROR_INVALID_FUNCTION)
			r.extended, r.streams = false, true
		default:
			return err
		}
	}
}

// read takes what the system tells until the port's end is asked for.
func (c *changes) read() error {
	for {
		var n uint32
		var key uintptr
		var over *windows.Overlapped
		err := windows.GetQueuedCompletionStatus(c.port, &n, &key, &over, windows.INFINITE)
		if over == nil {
			if err != nil {
				return fmt.Errorf("wait for changes: %w", err)
			}
			return nil // close asks for it
		}
		c.mu.Lock()
		r := c.roots[key]
		switch {
		case r == nil:
			c.mu.Unlock()
			continue
		case r.closed:
			c.forget(r)
			c.mu.Unlock()
			continue
		}
		extended, buf := r.extended, r.buf[r.filling][:min(int(n), changesSize)]
		lost := err == nil && n == 0 || errors.Is(err, windows.ERROR_NOTIFY_ENUM_DIR) // too much for the buffer
		if err == nil || lost {
			r.filling ^= 1
			err = c.arm(r)
			lost = lost || err != nil
		}
		if err != nil {
			// The folder was deleted, its volume taken away: sync asks for it again if
			// it is still to be watched.
			c.forget(r)
			if time.Since(r.since) < time.Second && len(c.ended) < maxRoots {
				c.ended[r.asked] = time.Now()
				c.again()
			}
		}
		c.mu.Unlock()
		now := time.Now()
		switch {
		case lost:
			c.q.lose(losses{sought: 1})
		case len(buf) > 0:
			if e := parseChanges(buf, extended, func(x change) { c.change(r, x, now) }); e != nil {
				c.q.lose(losses{sought: 1})
			}
			c.settleOld(r, now)
		}
		if err != nil {
			c.q.resync()
		}
	}
}

// again has what is watched looked over after a while.
func (c *changes) again() {
	time.AfterFunc(restFor, func() { c.q.resync() })
}

// change takes one change.
func (c *changes) change(r *root, x change, now time.Time) {
	if x.kind == changeOldName {
		c.settleOld(r, now)
		r.old = &x
		return
	}
	p := c.path(r, x.name)
	switch x.kind {
	case changeNewName:
		old := r.old
		r.old = nil
		if old == nil || old.full && x.full && old.id != x.id {
			c.appeared(r, p, x, now)
			return
		}
		from := c.path(r, old.name)
		if !x.full {
			x.dir = c.isFolder(r, p.Path)
		}
		if c.wanted(r, p.Path) || c.wanted(r, from.Path) {
			c.q.push(record{kind: recRenamed, at: now, path: p.Path, from: from.Path, dev: r.dev, size: -1, names: true, dir: x.dir})
		}
	case changeRemoved, changeStreamRemoved:
		if c.wanted(r, p.Path) {
			c.q.push(record{kind: recDeleted, at: now, path: p.Path, dev: r.dev, size: -1, names: true, dir: x.dir || p.Stream != ""})
		}
	case changeAdded:
		c.appeared(r, p, x, now)
	case changeModified, changeStreamAdded, changeStreamModified:
		c.wrote(r, p, x, now)
	}
}

// settleOld tells the first half of a rename whose second half does not come: the
// file went where we do not look.
func (c *changes) settleOld(r *root, now time.Time) {
	if r.old == nil {
		return
	}
	old := r.old
	r.old = nil
	old.kind = changeRemoved
	c.change(r, *old, now)
}

// appeared takes a file, or a folder, that was made or moved here.
func (c *changes) appeared(r *root, p winpath.Path, x change, now time.Time) {
	if !x.full {
		x.dir = c.isFolder(r, p.Path)
	}
	if !x.dir {
		c.wrote(r, p, x, now)
		return
	}
	if r.media || x.link {
		return // what is in it came file by file
	}
	seen := 0
	_ = filepath.WalkDir(winpath.Verbatim(p.Path), func(at string, d fs.DirEntry, err error) error {
		if seen++; seen > maxFresh {
			c.q.lose(losses{sought: 1})
			return fs.SkipAll
		}
		if err == nil && d.Type().IsRegular() {
			c.wrote(r, winpath.Canonical(at, nil), change{kind: changeModified}, now)
		}
		return nil
	})
}

// wrote tells a file that was written.
func (c *changes) wrote(r *root, p winpath.Path, x change, now time.Time) {
	if x.dir || x.link || !c.wanted(r, p.Path) {
		return
	}
	rec := record{kind: recWrote, at: now, path: p.Path, size: x.size, dev: r.dev, ino: x.id, born: x.born, names: true}
	// Who makes a file has it open. Later it may be a virus scanner.
	made := x.kind == changeAdded || x.kind == changeStreamAdded
	if !x.full || made || p.Stream != "" {
		if !c.ask(&rec, p.Path, made) {
			return
		}
	}
	if isMark(p.Path, p.Stream, rec.size) {
		return
	}
	if p.Stream != "" {
		rec.ino = 0 // that of the file, which is another one
	}
	c.q.push(rec)
}

// isFolder reports whether there is a folder at a path, as far as can be known.
func (c *changes) isFolder(r *root, path string) bool {
	fi, err := ask(c.asks, r.dev, func() (os.FileInfo, error) { return lstat(path, r.dev) })
	return err == nil && fi.IsDir()
}

// ask asks a file for what a record lacks; it reports false of what is no file. One
// that is gone may have another name by now, its volume may have been pulled or hang:
// it is told as far as it is known.
func (c *changes) ask(rec *record, path string, made bool) bool {
	x := *rec
	file, err := ask(c.asks, rec.dev, func() (bool, error) { return c.lookInto(&x, path, made), nil })
	if err == nil {
		*rec = x
	} else if file = true; rec.ino == 0 {
		rec.size = -1
	}
	return file
}

// lookInto is ask in a goroutine of its own.
func (c *changes) lookInto(rec *record, path string, made bool) bool {
	h, err := openFacts(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		if rec.ino == 0 {
			rec.size = -1
		}
		return true
	}
	defer windows.CloseHandle(h)
	f, err := factsOf(h, rec.dev)
	if err != nil || !f.mode.IsRegular() {
		return err != nil
	}
	rec.size, rec.ino, rec.born = f.size, f.id, f.born
	if users := c.users(h); made && len(users) == 1 {
		rec.pid, rec.likely = users[0], true
	}
	return true
}

// path is where a change in a root is.
func (c *changes) path(r *root, name string) winpath.Path {
	p := winpath.Canonical(strings.TrimSuffix(r.path, `\`)+`\`+name, nil)
	if p.Short {
		if long, err := ask(c.asks, r.dev, func() (string, error) { return winpath.Long(p.Path), nil }); err == nil {
			p.Path = long
		}
	}
	return p
}

// wanted reports whether a path in a root is of interest.
func (c *changes) wanted(r *root, path string) bool {
	return r.whole || c.places.Load().glob(winpath.WithoutStream(path)) != nil
}

// users returns the processes that have a file open, without us and the system.
func (c *changes) users(h windows.Handle) (pids []int) {
	const pointer = int(unsafe.Sizeof(uintptr(0)))
	var buf [pointer * (maxUsers + 1)]byte
	var status windows.IO_STATUS_BLOCK
	if windows.NtQueryInformationFile(h, &status, &buf[0], uint32(len(buf)), processIDsUsingFile) != nil {
		return nil // also where they are too many
	}
	for _, pid := range parseUsers(buf[:], pointer) {
		if pid != c.w.self && pid != systemPID && pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (c *changes) inUse(path string) bool {
	h, err := openFacts(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return false
	}
	defer windows.CloseHandle(h)
	return len(c.users(h)) > 0
}

func (c *changes) whose(path string) guess { return c.people.whose(path) }

// follow: it does not tell reads.
func (c *changes) follow(string, fileKey)   {}
func (c *changes) unfollow(string, fileKey) {}

// sync watches media, folders of sync programs and those that protected places
// begin with.
func (c *changes) sync(all []volume.Volume, p *places) (watching, problems []string) {
	c.places.Store(p)
	want := map[string]*root{} // by path in capitals
	add := func(x *root) {
		if len(want) < maxRoots {
			x.asked = strings.ToUpper(x.path)
			want[x.asked] = x
		}
	}
	for i := range all {
		v := &all[i]
		if v.Hidden || v.Leaving || isRemote(v) || !isMedia(v) && !v.Folder {
			continue
		}
		on := mountOf(v)
		if v.Folder {
			on = filepath.VolumeName(on) + `\`
		}
		add(&root{path: winpath.Canonical(mountOf(v), nil).Path, vol: on, dev: v.Dev, whole: true, media: isMedia(v)})
	}
	bases, problems := p.bases(c.isFile)
	for _, b := range bases {
		v, ok := c.w.opts.Table.Lookup(b.path)
		switch {
		case !ok && winpath.Share(b.path) != "" || ok && isRemote(&v):
			problems = append(problems, fmt.Sprintf("protected place on a share: what happens in %s is not told", b.path))
		case ok && !v.Leaving:
			add(&root{path: b.path, vol: mountOf(&v), dev: v.Dev})
		}
	}
	for key, x := range want { // the widest is enough
		for outer, y := range want {
			if key != outer && within(key, outer) && (y.whole || !x.whole) {
				delete(want, key)
				break
			}
		}
	}
	c.mu.Lock()
	for _, r := range c.roots {
		x := want[r.asked]
		if r.closed {
			continue
		}
		if x == nil || x.whole != r.whole || x.dev != r.dev {
			c.end(r)
			continue
		}
		watching = append(watching, r.path)
		delete(want, r.asked)
	}
	for asked, at := range c.ended {
		if time.Since(at) >= restFor {
			delete(c.ended, asked)
		}
	}
	ended := maps.Clone(c.ended)
	c.mu.Unlock()
	for _, x := range want {
		if _, ok := ended[x.asked]; ok {
			problems = append(problems, fmt.Sprintf("watch %s: notifications ended at once", x.path))
			continue
		}
		err := c.open(x)
		switch {
		case err == nil:
			watching = append(watching, x.path)
		case errors.Is(err, errStuck):
			c.again()
			fallthrough
		case !errors.Is(err, fs.ErrNotExist):
			problems = append(problems, fmt.Sprintf("watch %s: %v", x.path, err))
		}
	}
	if len(want) >= maxRoots {
		problems = append(problems, fmt.Sprintf("more than %d folders, the rest is not watched", maxRoots))
	}
	return watching, problems
}

// isFile reports whether there is a file at a path on a disk of this PC; not so where
// nobody can say.
func (c *changes) isFile(path string) bool {
	v, ok := c.w.opts.Table.Lookup(path)
	if !ok || isRemote(&v) {
		return false
	}
	fi, err := ask(c.stuck, v.Dev, func() (os.FileInfo, error) { return os.Stat(winpath.Verbatim(path)) })
	return err == nil && !fi.IsDir()
}

func openRoot(path string) (windows.Handle, string, error) {
	name, err := windows.UTF16PtrFromString(winpath.Verbatim(path))
	if err != nil {
		return 0, "", err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.FILE_LIST_DIRECTORY, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OVERLAPPED, 0)
	if err != nil {
		return 0, "", err
	}
	called, err := finalName(h)
	if err != nil {
		called = path
	}
	return h, called, nil
}

// open begins to watch a root.
func (c *changes) open(r *root) error {
	// A medium that hangs may open it when nobody waits any more: whoever comes
	// second closes it.
	var h windows.Handle
	var second atomic.Bool
	path, err := ask(c.stuck, r.dev, func() (called string, err error) {
		h, called, err = c.openRoot(r.path)
		if second.Swap(true) && err == nil {
			windows.CloseHandle(h)
		}
		return called, err
	})
	if errors.Is(err, errStuck) {
		if second.Swap(true) && h != 0 {
			windows.CloseHandle(h)
		}
	}
	if err != nil {
		return err
	}
	if !r.whole { // what settings name has lost its capitals
		r.path = path
	}
	if err := c.begin(r, h); err != nil {
		return err
	}
	// Was it asked to be let go of meanwhile? It was marked before.
	if v, ok := c.w.opts.Table.Lookup(r.path); ok && v.Leaving {
		c.release(r.vol)
		return fs.ErrNotExist
	}
	return nil
}

// begin has the system fill the first buffer of a root.
func (c *changes) begin(r *root, h windows.Handle) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	r.key, r.handle, r.gone, r.since = c.last, h, make(chan struct{}), time.Now()
	r.buf = [2][]byte{make([]byte, changesSize), make([]byte, changesSize)}
	r.extended, r.streams = readChangesEx.Find() == nil, true
	_, err := windows.CreateIoCompletionPort(h, c.port, r.key, 0)
	if err == nil {
		err = c.arm(r)
	}
	if err != nil {
		windows.CloseHandle(h)
		return os.NewSyscallError("ReadDirectoryChangesW", err)
	}
	c.roots[r.key] = r
	return nil
}

// base is a folder that a protected place begins with.
type base struct {
	path  string
	alone bool // Place.Alone
}

// bases are the folders that protected places begin with, before the first element
// with a wildcard, and what is wrong with those that name none. isFile says of a path
// without wildcards whether it is a file, which stands for the folder it is in.
func (p *places) bases(isFile func(path string) bool) (all []base, problems []string) {
	for _, g := range p.globs {
		at := g.base
		if at == g.glob { // no wildcard: a folder, or a file in one
			at += "/"
			if isFile(winpath.Canonical(g.glob, nil).Path) {
				at = g.glob
			}
		}
		path := winpath.Canonical(at[:strings.LastIndexByte(at, '/')+1], nil).Path
		if !winpath.IsDrive(path) && winpath.Share(path) == "" {
			problems = append(problems, fmt.Sprintf("protected place %q: pattern %q names no folder to begin with", g.label, g.glob))
			continue
		}
		all = append(all, base{path, g.alone})
	}
	return all, problems
}
