package fileaudit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

const (
	// What is asked of each kind of place. FAN_MODIFY tells whether a file that
	// was open for writing was written to; the kernel joins it with the close if
	// we have not read it yet. On local disks, where everybody writes all the time,
	// the file's change time says so, on file systems that keep one.
	maskWrites = unix.FAN_MODIFY | unix.FAN_CLOSE_WRITE
	maskReads  = unix.FAN_OPEN | unix.FAN_CLOSE_NOWRITE
	maskLocal  = unix.FAN_CLOSE_WRITE
	maskNames  = unix.FAN_RENAME | unix.FAN_DELETE | unix.FAN_ONDIR

	// maxRemote bounds the groups for mounts that may not answer; a user may have 128 groups
	// (fs.fanotify.max_user_groups). What is beyond shares the last.
	maxRemote = 64
	// maxMarkers bounds the marks that are asked for at once: each may hang.
	maxMarkers = 32
	// markWait is how long a mark may take before that is told.
	markWait = 5 * time.Second
	// hangsFor is how long a file that an event is of may take to open before that
	// is told: a network that changes over, or a short restart, is no news.
	hangsFor = 15 * time.Second
	// maxModified bounds the files known to have been written to and not closed.
	maxModified = 1 << 16
	// maxClosed bounds the files whose times are remembered.
	maxClosed = 1 << 13
	// freshFor: a change time younger than this may be of the write just closed.
	freshFor = time.Minute
	// heldFor is the same for the time of the last write, which neither a rename nor
	// new rights change, where there is a change time besides: a program may take long
	// until it closes, fsync(2) on a slow disk minutes. Elsewhere, on shares above all,
	// it may be another PC's write.
	heldFor = 10 * time.Minute
)

// keepsChangeTime are file systems on which every write, also by a memory map,
// gives a file a new change time that programs cannot set. Of others the time of
// the last write is looked at, which they can.
var keepsChangeTime = map[string]bool{"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "tmpfs": true, "overlay": true, "ntfs3": true}

// usersOwn are file systems of a desktop session that root may not enter, by
// their nature: that they are not watched is a known limit and no failure.
var usersOwn = map[string]bool{"fuse.gvfsd-fuse": true, "fuse.kio-fuse": true, "fuse.portal": true}

// fan is the fanotify mechanism.
type fan struct {
	w     *Watcher
	q     *queue
	procs *processes
	fail  context.CancelCauseFunc
	main  *group         // with descriptors: local disks, protected folders
	media *group         // with descriptors: what may be unmounted at any moment
	names *group         // with names: moves and deletions; nil if refused
	far   map[int]*group // with descriptors: mounts that may not answer, by mount id
	last  *group         // of far, the one that further mounts share

	marked map[int]uint64 // mask by mount id, of main and far
	seeker *seeker        // of folders
	sought seeking        // what it was asked for last
	stale  atomic.Bool    // it is to look again: a folder may have come that nobody told

	facts    atomic.Pointer[fanFacts]
	places   atomic.Pointer[places] // whose folders are marked: protected, and of sync programs
	began    time.Time              // a moment before any read
	lastRead atomic.Int64           // when a file of interest was last read, in ns since began; 0: never

	mu      sync.Mutex       // guards all below
	marks   map[int]*marking // of mounts that may not answer, by mount id
	todo    []*marking       // not begun yet
	markers int              // goroutines that work on them

	followMu sync.Mutex       // guards all below
	followed map[fileKey]bool // files marked one by one for what they hold
}

// fanFacts is what readers need to know of the mounts; replaced, never changed.
type fanFacts struct {
	noChangeTime map[volume.Dev]bool   // not of keepsChangeTime; those with subvolumes, whose files have other numbers, are
	named        map[volume.Dev]bool   // moves and deletions are told
	local        map[volume.Dev]bool   // watched only for what is copied to it from elsewhere
	unsampled    map[volume.Dev]bool   // a look into a file may fetch it from far away
	own          map[volume.Dev]*group // of disks that may hang, whose files no other group may open
	mounts       map[[8]byte]mountFact // of those that are named, by the id that names carry
}

type mountFact struct {
	path string
	dev  volume.Dev
}

func (w *Watcher) newNative(q *queue, procs *processes, fail context.CancelCauseFunc) (source, error) {
	f := &fan{w: w, q: q, procs: procs, fail: fail, began: time.Now(), far: map[int]*group{}, marks: map[int]*marking{}, followed: map[fileKey]bool{}}
	f.seeker = newSeeker(f)
	f.facts.Store(&fanFacts{})
	f.places.Store(w.space.Load())
	var err error
	if f.main, err = f.open(onDisks, f.readFiles); err != nil {
		return nil, fmt.Errorf("fanotify %w: %w", errUnavailable, err)
	}
	if f.media, err = f.open(onMedia, f.readFiles); err != nil {
		f.main.close()
		return nil, fmt.Errorf("fanotify %w: %w", errUnavailable, err)
	}
	// Kernels before 5.17 have no FAN_RENAME; then renames are found by looking.
	f.names, _ = f.open(withNames, f.readNames)
	return f, nil
}

func (f *fan) close() {
	for _, g := range f.far {
		g.close()
	}
	f.seeker.ended.Store(true)
	t := time.NewTimer(statWait)
	defer t.Stop()
	for _, g := range []*group{f.main, f.media, f.names} {
		if g == nil {
			continue
		}
		g.close()
		select {
		case <-g.done:
		case <-t.C: // it hangs in a disk that does not answer
			t.Reset(0)
		}
	}
}

// readFiles takes records with descriptors.
func (f *fan) readFiles(g *group, b []byte) {
	facts := f.facts.Load()
	if err := parseRecords(b, func(k kernelRecord) {
		switch {
		case k.mask&unix.FAN_Q_OVERFLOW != 0:
			f.lose(g)
			g.forget()
		case k.pid == f.w.self:
		case k.fd < 0: // it could not be opened
			f.lose(g)
		default:
			f.file(g, facts, k)
		}
		if k.fd >= 0 {
			unix.Close(k.fd)
		}
		g.behind = max(g.behind-1, 0)
	}); err != nil {
		f.fail(err)
	}
}

// file takes one record with a descriptor, which stays open.
func (f *fan) file(g *group, facts *fanFacts, k kernelRecord) {
	at := time.Now()
	tracing := f.sinceRead(at) < keepFor
	want := unix.STATX_BASIC_STATS
	if tracing {
		want |= unix.STATX_BTIME
	}
	var st unix.Statx_t
	if err := unix.Statx(k.fd, "", unix.AT_EMPTY_PATH, want, &st); err != nil {
		f.lose(g)
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	r := record{
		at: at, late: at.Sub(f.happened(g)), pid: k.pid, size: int64(st.Size), ino: st.Ino,
		dev: volume.Dev{Major: st.Dev_major, Minor: st.Dev_minor},
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		r.born = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	}
	id := fileKey{r.dev, r.ino}
	if k.mask&unix.FAN_MODIFY != 0 {
		if len(g.written) >= maxModified {
			g.forget()
		}
		g.written[id] = true
	}
	if k.mask&(unix.FAN_OPEN|unix.FAN_CLOSE) == 0 {
		return
	}
	if f.procs.ignored(k.pid, r.at) && !(k.mask&unix.FAN_CLOSE_WRITE != 0 && f.follows(id)) {
		delete(g.written, id)
		return
	}
	r.names = facts.named[r.dev]
	if path, err := openPath(k.fd); err == nil {
		r.path = trueName(path, st.Nlink == 0)
	}
	if k.mask&unix.FAN_OPEN != 0 {
		f.noteRead(r.at)
		// If it was closed as well, that says whether it was read or written.
		if k.mask&unix.FAN_CLOSE == 0 {
			r.kind = recOpened
			g.tell(r)
		}
	}
	// Many programs open a document for writing only to read it. One without a link
	// was deleted while it was open, or never had a name.
	if k.mask&unix.FAN_CLOSE_WRITE != 0 && g.wrote(id, &st, r.at, !facts.noChangeTime[r.dev]) && st.Nlink > 0 {
		r.kind, r.idle = recWrote, facts.local[r.dev] && f.idle(r.at, id, r.path)
		if tracing {
			f.lookInto(g, facts, k.fd, &r)
		}
		g.tell(r)
	}
	if k.mask&unix.FAN_CLOSE_NOWRITE != 0 {
		r.kind = recRead
		f.noteRead(r.at)
		f.lookInto(g, facts, k.fd, &r)
		g.tell(r)
	}
}

// wrote reports whether a file that was open for writing was written to since it was
// closed before, as far as can be known. keeps: its file system is of keepsChangeTime.
func (g *group) wrote(id fileKey, st *unix.Statx_t, now time.Time, keeps bool) bool {
	wrote := g.written[id] || now.Sub(g.forgot) < freshFor
	delete(g.written, id)
	// By its times: written by a memory map, by io_submit(2), of which the kernel tells
	// nothing, on a local disk, or before the file system was marked.
	was, is := g.rested[id], fileTimes{time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)), time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))}
	age := now.Sub(is.written)
	switch {
	case keeps && !is.changed.Equal(was.changed) && now.Sub(is.changed) < freshFor:
		wrote = true
	case is.written.Equal(was.written):
	case keeps && age < heldFor, !keeps && (age < freshFor || st.Size == 0): // an empty file is made without a write
		wrote = true
	}
	if len(g.rested) >= maxClosed {
		clear(g.rested)
	}
	g.rested[id] = is
	return wrote
}

// idle reports whether a file written on a local disk seems to be of no interest:
// nothing of interest was read for a while, it holds nothing, and it lies in no
// protected place.
func (f *fan) idle(now time.Time, id fileKey, path string) bool {
	return f.sinceRead(now) > readFor && !f.follows(id) && !f.places.Load().covers(path)
}

// noteRead remembers that a file of interest was read; sinceRead is how long ago
// that was last, by the clock that nobody sets.
func (f *fan) noteRead(now time.Time) { f.lastRead.Store(int64(now.Sub(f.began))) }

func (f *fan) sinceRead(now time.Time) time.Duration {
	last := f.lastRead.Load()
	if last == 0 {
		return keepFor
	}
	return now.Sub(f.began) - time.Duration(last)
}

// follows reports whether a file is marked for what it holds.
func (f *fan) follows(id fileKey) bool {
	f.followMu.Lock()
	defer f.followMu.Unlock()
	return f.followed[id]
}

// lookInto takes a sample of the file of an event.
func (f *fan) lookInto(g *group, facts *fanFacts, fd int, r *record) {
	if !facts.unsampled[r.dev] {
		r.look, _ = g.sampler.take(preader(fd), r.size, r.at)
	}
}

// preader reads a file by its descriptor, which it does not own.
type preader int

func (fd preader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(int(fd), b[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

// follow marks one file for reads, if it is still the one at its path.
func (f *fan) follow(path string, id fileKey) {
	if f.markFile(unix.FAN_MARK_ADD, path, id) {
		f.followMu.Lock()
		f.followed[id] = true
		f.followMu.Unlock()
	}
}

func (f *fan) unfollow(path string, id fileKey) {
	f.followMu.Lock()
	had := f.followed[id]
	delete(f.followed, id)
	f.followMu.Unlock()
	if had {
		// A file that was renamed keeps its mark; what it tells is passed over.
		f.markFile(unix.FAN_MARK_REMOVE, path, id)
	}
}

// markFile adds or takes back the mark of one file.
func (f *fan) markFile(how uint, path string, id fileKey) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || (fileKey{volume.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}, st.Ino}) != id {
		return false
	}
	g := f.main
	if own := f.facts.Load().own[id.dev]; own != nil {
		g = own
	}
	return unix.FanotifyMark(g.fd, how, maskReads, fd, "") == nil
}

// descriptors is the folder of /proc that says what our descriptors are, open for
// as long as the program runs: by its whole path a look into it costs twice as much.
var descriptors = sync.OnceValues(func() (int, error) {
	return unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
})

// openPath is the path of an open file.
func openPath(fd int) (string, error) {
	dir, err := descriptors()
	if err != nil {
		return "", err
	}
	var path [unix.PathMax]byte
	n, err := unix.Readlinkat(dir, strconv.Itoa(fd), path[:])
	if err != nil {
		return "", err
	}
	return string(path[:n]), nil
}

// trueName takes the kernel's mark from the path of a deleted file. A file may
// be called so, and a deleted name may have a link left elsewhere.
func trueName(path string, gone bool) string {
	cut, ok := strings.CutSuffix(path, " (deleted)")
	if !ok {
		return path
	}
	if !gone {
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return cut
}

// readNames takes records with names.
func (f *fan) readNames(g *group, b []byte) {
	facts, inside := f.facts.Load(), f.seeker.facts.Load()
	dirs := map[string]string{} // folders resolved within this read, by handle
	resolve := func(n nameInfo) (string, volume.Dev, bool) {
		m, ok := facts.mounts[n.fsid]
		if !ok {
			if m, ok = inside.mounts[n.fsid]; !ok {
				return "", volume.Dev{}, false
			}
		}
		key := handleKey(n)
		dir, ok := dirs[key]
		if !ok {
			var err error
			if dir, err = openHandle(m.path, n); err != nil {
				return "", volume.Dev{}, false // the folder is gone, or the volume
			}
			dirs[key] = dir
		}
		if n.name == "" || n.name == "." {
			return dir, m.dev, true
		}
		return filepath.Join(dir, n.name), m.dev, true
	}
	if err := parseRecords(b, func(k kernelRecord) {
		if k.fd >= 0 {
			unix.Close(k.fd)
		}
		if k.mask&unix.FAN_Q_OVERFLOW != 0 {
			f.lose(g)
			f.stale.Store(true) // folders may have come meanwhile
			f.q.resync()
			return
		}
		if k.pid == f.w.self || k.mask&unix.FAN_CREATE != 0 && k.mask&(unix.FAN_ONDIR|unix.FAN_RENAME|unix.FAN_DELETE) == 0 {
			return // a file that was made is told when it is written
		}
		// A disk with protected folders tells every rename: those elsewhere go unresolved.
		if m := facts.mounts[k.name.fsid]; !facts.named[m.dev] && !inside.folders[handleKey(k.name)] && !inside.folders[handleKey(k.old)] {
			return
		}
		path, dev, ok := resolve(k.name)
		if !ok {
			return
		}
		r := record{at: time.Now(), pid: k.pid, path: path, dev: dev, size: -1, names: true, dir: k.mask&unix.FAN_ONDIR != 0}
		if k.mask&unix.FAN_RENAME != 0 {
			r.kind = recRenamed
			r.from, _, _ = resolve(k.old)
			g.tell(r)
			if r.dir {
				clear(dirs)
			}
		}
		if k.mask&unix.FAN_DELETE != 0 {
			r.kind, r.from = recDeleted, ""
			g.tell(r)
		}
		if r.dir && k.mask&(unix.FAN_CREATE|unix.FAN_RENAME) != 0 && f.inPlace(path) {
			f.seeker.come(path)
		}
	}); err != nil {
		f.fail(err)
	}
}

func handleKey(n nameInfo) string { return string(n.fsid[:]) + string(n.handle) }

// inPlace reports whether a folder belongs to a protected place.
func (f *fan) inPlace(dir string) bool {
	p := f.places.Load()
	return p.covers(dir) || p.covers(dir+"/x")
}

// openHandle returns the path of a folder by its handle. The mount is held only
// meanwhile, so that it can be unmounted.
func openHandle(mount string, n nameInfo) (string, error) {
	at, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(n.handleType, n.handle), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := openPath(fd)
	if err != nil || strings.HasSuffix(path, " (deleted)") {
		return "", unix.ENOENT
	}
	return path, nil
}

// sync marks what is to be watched and is not, and takes back what is no longer.
func (f *fan) sync(all []volume.Volume, p *places) (watching, problems []string) {
	sources := !p.empty()
	for i := range all {
		sources = sources || isShare(&all[i])
	}
	var clouds []string
	want, marked := map[int]uint64{}, map[volume.Dev]bool{}
	facts := &fanFacts{noChangeTime: map[volume.Dev]bool{}, named: map[volume.Dev]bool{}, local: map[volume.Dev]bool{}, unsampled: map[volume.Dev]bool{}, own: map[volume.Dev]*group{}, mounts: map[[8]byte]mountFact{}}
	for i := range all {
		v := &all[i]
		if v.Hidden {
			continue
		}
		var mask uint64
		local := false
		switch {
		case v.Folder: // its disk is marked for what is copied to it, itself below
			clouds = append(clouds, mountOf(v))
			continue
		case isMedia(v):
			mask = maskWrites
		case isShare(v):
			mask = maskWrites | maskReads
		case sources && takesCopies(v) && !isRemote(v):
			if mask, local = maskLocal, true; !keepsChangeTime[v.FileSystemType] {
				mask = maskWrites
			}
		default:
			continue
		}
		want[v.MountID] = mask
		facts.noChangeTime[v.Dev] = !keepsChangeTime[v.FileSystemType]
		facts.local[v.Dev] = local
		facts.unsampled[v.Dev] = v.Kind == event.VolumeCloudSync
		if !local {
			watching = append(watching, mountOf(v))
		}
		if isRemote(v) {
			f.markBeside(v, mask)
			continue
		}
		if marked[v.Dev] {
			continue // a second mount of the same file system
		}
		if mayHang(v) {
			f.markBeside(v, mask)
			marked[v.Dev], facts.own[v.Dev] = true, f.far[v.MountID]
			continue
		}
		// Marking again what is marked costs nothing, and a device number may come back with another stick.
		whole, err := mark(f.near(v), unix.FAN_MARK_ADD, mask, reachOf(v))
		if err != nil {
			delete(want, v.MountID)
			if !errors.Is(err, fs.ErrNotExist) {
				problems = append(problems, fmt.Sprintf("watch %s: %v", mountOf(v), err))
			}
			continue
		}
		marked[v.Dev] = whole
		if f.names != nil && isMedia(v) && unix.FanotifyMark(f.names.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, maskNames, unix.AT_FDCWD, reachOf(v)) == nil {
			// Not so on exFAT, overlay, FUSE: renames are found by looking.
			facts.named[v.Dev] = true
			if id, ok := fileSystemID(reachOf(v)); ok {
				if m, ok := facts.mounts[id]; !ok || len(reachOf(v)) < len(m.path) {
					facts.mounts[id] = mountFact{reachOf(v), v.Dev}
				}
			}
		}
	}
	for i := range all {
		v := &all[i]
		if v.Folder {
			continue
		}
		if old, ok := f.marked[v.MountID]; ok && want[v.MountID] == 0 && !v.Hidden {
			if f.far[v.MountID] == nil {
				_, _ = mark(f.near(v), unix.FAN_MARK_REMOVE, old, reachOf(v))
			}
		}
	}
	for id, g := range f.far {
		if want[id] == 0 {
			delete(f.far, id)
			if g != f.last && g != f.main {
				g.close()
			}
		}
	}
	problems = append(problems, f.markProblems(want)...)
	if f.hangs(f.media, hangsFor) {
		problems = append(problems, fmt.Sprintf("watch removable media: %v", errStuck))
	}
	if f.hangs(f.main, hangsFor) {
		problems = append(problems, fmt.Sprintf("watch local disks: %v", errStuck))
	}
	f.marked = want
	with, odd := p.with(clouds)
	f.places.Store(with)
	f.facts.Store(facts)
	// That the status is to be told anew does not mean another look.
	if old, now := f.sought, time.Now(); f.stale.Swap(false) || old.of != p || now.Sub(old.at) >= f.w.again*9/10 || !sameMounts(old.all, all) {
		f.sought = seeking{of: p, places: with, all: all, own: maps.Clone(f.far), at: now}
		f.seeker.seek(f.sought)
	}
	dirs, more := f.seeker.found()
	more = slices.DeleteFunc(append(odd, more...), func(p string) bool { return slices.Contains(problems, p) })
	return append(watching, dirs...), append(problems, more...)
}

// near is the group for a volume that is not remote.
func (f *fan) near(v *volume.Volume) *group {
	if isMedia(v) {
		return f.media
	}
	return f.main
}

// mark marks the file system of a path, or where that is refused its mount.
func mark(g *group, how uint, mask uint64, path string) (whole bool, err error) {
	err = unix.FanotifyMark(g.fd, how|unix.FAN_MARK_FILESYSTEM, mask, unix.AT_FDCWD, path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	if unix.FanotifyMark(g.fd, how|unix.FAN_MARK_MOUNT, mask, unix.AT_FDCWD, path) == nil {
		return false, nil
	}
	return false, err
}

// mayHang reports whether a server or a program answers for the files of a volume,
// and may not, also where it is asked for them (ntfs-3g).
func mayHang(v *volume.Volume) bool { return isRemote(v) || v.FileSystemType == "fuseblk" }

// markBeside marks a mount that may not answer, without waiting for it, in a
// group of its own.
func (f *fan) markBeside(v *volume.Volume, mask uint64) {
	if f.far[v.MountID] != nil {
		return
	}
	g := f.last
	if len(f.far) < maxRemote || g == nil {
		kind := onShares
		if !isRemote(v) {
			kind = onMedia
		}
		var err error
		if g, err = f.open(kind, f.readFiles); err != nil {
			g = f.main
		} else if len(f.far) == maxRemote-1 {
			f.last = g
		}
	}
	f.far[v.MountID] = g
	m := &marking{group: g, mask: mask, path: mountOf(v), at: reachOf(v), fsType: v.FileSystemType, since: time.Now()}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.marks[v.MountID] = m
	f.todo = append(f.todo, m)
	if f.markers < maxMarkers {
		f.markers++
		go f.markTodo()
	}
}

// marking is the mark of a mount that may not answer.
type marking struct {
	group    *group
	mask     uint64
	path, at string
	fsType   string
	since    time.Time // when it was asked for

	// Guarded by fan.mu:
	done bool
	why  string // it was refused
}

// markTodo marks what is to be marked, until there is nothing left. It may hang.
func (f *fan) markTodo() {
	late := time.AfterFunc(markWait, func() { f.q.resync() })
	defer late.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.todo) > 0 {
		m := f.todo[0]
		f.todo = f.todo[1:]
		f.mu.Unlock()
		_, err := mark(m.group, unix.FAN_MARK_ADD, m.mask, m.at)
		f.mu.Lock()
		m.done = true
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBADF) && !(errors.Is(err, unix.EACCES) && usersOwn[m.fsType]) {
			m.why = err.Error()
		}
		if m.why != "" || time.Since(m.since) > markWait {
			f.q.resync()
		}
	}
	f.markers--
}

// markProblems forgets the marks of mounts that are gone and says which others
// were refused, or not answered.
func (f *fan) markProblems(want map[int]uint64) (problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.marks)) {
		m := f.marks[id]
		switch {
		case want[id] == 0:
			delete(f.marks, id)
		case m.why != "":
			problems = append(problems, fmt.Sprintf("watch %s: %s", m.path, m.why))
		case !m.done && time.Since(m.since) > markWait, m.done && f.hangs(m.group, hangsFor):
			problems = append(problems, fmt.Sprintf("watch %s: %v", m.path, errStuck))
		}
	}
	return problems
}

// fileSystemID is the id that names carry of files of a mount.
func fileSystemID(mount string) (id [8]byte, ok bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return id, false
	}
	for i, w := range st.Fsid.Val {
		binary.NativeEndian.PutUint32(id[4*i:], uint32(w))
	}
	return id, true
}

// identity is the device and inode of a file.
func identity(fi os.FileInfo) (volume.Dev, uint64) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return volume.Dev{}, 0
	}
	return volume.Dev{Major: unix.Major(st.Dev), Minor: unix.Minor(st.Dev)}, st.Ino
}

// changeTime is when a file was last written or had its name or rights changed.
func changeTime(fi os.FileInfo) time.Time {
	t := fi.ModTime()
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if c := time.Unix(st.Ctim.Unix()); c.After(t) {
			t = c
		}
	}
	return t
}

// takesCopies reports whether a volume is one to which files of a share are
// copied: a disk, or memory for temporary files.
func takesCopies(v *volume.Volume) bool {
	switch v.FileSystemType {
	case "squashfs", "iso9660", "udf", "erofs", "ramfs":
		return false
	case "tmpfs":
		return v.MountName == "/tmp" || v.MountName == "/var/tmp" || v.MountName == "/dev/shm"
	}
	return v.Kind == event.VolumeLocal || v.FileSystemType == "overlay"
}

// with returns the places and some folders more, which have no label, and those
// whose names are patterns and cannot be watched.
func (p *places) with(folders []string) (_ *places, odd []string) {
	more := &places{globs: slices.Clone(p.globs), shares: p.shares}
	for _, d := range folders {
		if strings.ContainsAny(d, `*?[{\`) {
			odd = append(odd, fmt.Sprintf("watch %s: characters of patterns in its name", d))
			continue
		}
		more.globs = append(more.globs, labelled{glob: slashed(d), base: slashed(d)})
	}
	return more, odd
}

// covers reports whether a path on a local disk belongs to a place.
func (p *places) covers(file string) bool { return p.glob(file) != nil }

// empty reports whether no place is one that files are copied from.
func (p *places) empty() bool {
	source := func(g labelled) bool { return !g.alone }
	return !slices.ContainsFunc(p.globs, source) && !slices.ContainsFunc(p.shares, source)
}
