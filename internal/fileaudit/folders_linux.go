package fileaudit

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

const maskDirs = maskWrites | maskReads | unix.FAN_EVENT_ON_CHILD

// foldersWait joins folders made one after the other into one look.
const foldersWait = 100 * time.Millisecond

// seeker finds the folders of protected places and of sync programs on local disks,
// and marks them, beside the pipeline: many folders on a slow disk take minutes, and
// a disk may begin to hang at any of them. One goroutine works, while there is work.
type seeker struct {
	f     *fan
	wait  time.Duration // seekWait, but for tests
	ended atomic.Bool   // nothing more is to be marked
	facts atomic.Pointer[folderFacts]

	mu       sync.Mutex    // guards all below
	next     *seeking      // what is to be looked for; nil: nothing
	tops     []string      // folders that came up since
	waits    bool          // somebody waits for what is found, else it is told
	idle     chan struct{} // closed when the goroutine has ended; nil: there is none
	dirs     []string      // as found last
	problems []string      // the same

	// The goroutine's own:
	is      seeking           // what it looks for, or looked for last
	marked  map[string]marked // the folders that are marked
	renames map[int]string    // local disks whose renames are told, by mount id
	stuck   stuck
}

// seeking is what is looked for.
type seeking struct {
	of     *places // as they are set
	places *places // with the folders of sync programs
	all    []volume.Volume
	own    map[int]*group // the groups of mounts that have one of their own, by mount id
	at     time.Time
}

// marked is how the mark of a folder is found again when the folder was moved away.
type marked struct {
	mount  string
	handle nameInfo
}

// folderFacts is what the reader of names needs to know of folders; replaced, never
// changed.
type folderFacts struct {
	folders map[string]bool       // that are marked, by handleKey
	mounts  map[[8]byte]mountFact // of the disks that they lie on, by the id that names carry
}

func newSeeker(f *fan) *seeker {
	s := &seeker{f: f, wait: seekWait, marked: map[string]marked{}, stuck: stuck{}}
	s.facts.Store(&folderFacts{})
	return s
}

// seek has everything looked for, and waits a moment for it.
func (s *seeker) seek(x seeking) {
	s.mu.Lock()
	s.next, s.tops = &x, nil
	s.waits = s.start()
	waits, idle := s.waits, s.idle
	s.mu.Unlock()
	if !waits {
		return
	}
	t := time.NewTimer(statWait)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
		s.mu.Lock()
		s.waits = false
		s.mu.Unlock()
	}
}

// come has a folder looked into that came up.
func (s *seeker) come(top string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tops) < maxDirs { // the next time that everything is looked for finds the rest
		s.tops = append(s.tops, top)
	}
	s.start()
}

// start starts the goroutine, and reports whether it did not work yet. mu is held.
func (s *seeker) start() bool {
	if s.idle != nil {
		return false
	}
	idle := make(chan struct{})
	s.idle = idle
	go func() {
		defer close(idle)
		if err := guard(func() error { s.work(); return nil }); err != nil {
			s.f.fail(fmt.Errorf("look for folders: %w", err))
		}
	}()
	return true
}

// found is what was found last.
func (s *seeker) found() (dirs, problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirs, s.problems
}

func (s *seeker) work() {
	gathered, found := false, false
	for {
		s.mu.Lock()
		next, tops := s.next, s.tops
		s.next, s.tops = nil, nil
		if next == nil && len(tops) == 0 || s.ended.Load() {
			s.idle = nil
			if found && !s.waits {
				s.f.q.resync()
			}
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if next == nil && !gathered {
			gathered = true
			<-time.After(foldersWait)
			s.mu.Lock()
			s.tops = append(tops, s.tops...)
			s.mu.Unlock()
			continue
		}
		gathered = false
		if next != nil {
			s.is = *next
			dirs, problems := s.all()
			s.mu.Lock()
			s.dirs, s.problems, found = dirs, problems, true
			s.mu.Unlock()
		}
		if len(tops) > 0 && s.is.places != nil {
			s.below(tops)
		}
	}
}

// notHere says which folders are not looked into: those of remote mounts, which are
// watched as a whole, and of the kernel's own.
func notHere(all []volume.Volume) func(dir string) bool {
	skip := map[string]bool{}
	for i := range all {
		if isRemote(&all[i]) || all[i].Kind == event.VolumeVirtual && !takesCopies(&all[i]) {
			skip[mountOf(&all[i])] = true
		}
	}
	return func(dir string) bool { return skip[dir] }
}

// search is one look for folders.
type search struct {
	s        *seeker
	facts    folderFacts
	here     map[int]*volume.Volume // the mounts that were there when it was asked for, by id; never changed
	ids      map[int][8]byte        // of the file systems that names are told on, by mount id
	dead     map[string]bool        // mounts that do not answer
	skip     func(dir string) bool
	problems []string
}

// search begins a look; what is found is added to some facts.
func (s *seeker) search(facts *folderFacts) *search {
	x := &search{s: s, facts: folderFacts{map[string]bool{}, map[[8]byte]mountFact{}}, here: map[int]*volume.Volume{}, ids: map[int][8]byte{}, dead: map[string]bool{}, skip: notHere(s.is.all)}
	for i := range s.is.all {
		if v := &s.is.all[i]; !v.Folder {
			x.here[v.MountID] = v
		}
	}
	maps.Copy(x.facts.folders, facts.folders)
	maps.Copy(x.facts.mounts, facts.mounts)
	return x
}

// walker returns one that marks what it finds.
func (x *search) walker() *walker {
	return &walker{skip: func(dir string) bool { return x.s.ended.Load() || x.skip(dir) }, ask: x.ask, found: x.mark}
}

// ask asks the file system of a folder, and reports whether it answered.
func (x *search) ask(dir string, question func()) bool {
	v, ok := x.s.f.w.opts.Table.Lookup(dir)
	if !ok {
		v = volume.Volume{Mount: "/"}
	}
	if x.dead[mountOf(&v)] {
		return false
	}
	_, err := askFor(x.s.stuck, v.Dev, x.s.wait, func() (struct{}, error) { question(); return struct{}{}, nil })
	if err == nil {
		return true
	}
	x.dead[mountOf(&v)] = true
	x.problems = append(x.problems, fmt.Sprintf("watch %s: %v", mountOf(&v), err))
	if answered := x.s.stuck[v.Dev]; answered != nil {
		go func() { // ends with the question
			<-answered
			x.s.f.stale.Store(true)
			x.s.f.q.resync()
		}()
	}
	return false
}

// mark marks a folder.
func (x *search) mark(dir string) {
	type answer struct {
		marked
		on    *volume.Volume
		names bool
		id    [8]byte
	}
	f := x.s.f
	v, ok := f.w.opts.Table.Lookup(dir)
	if !ok {
		return // the table of mounts is not there yet, and tells when it is
	}
	likely := v.MountID
	if v.Folder {
		likely = v.ParentID
	}
	id, known := x.ids[likely]
	var got answer
	var failed error
	here, own := x.here, x.s.is.own
	if !x.ask(dir, func() {
		on := mountUnder(dir, likely)
		if got.on = here[on]; got.on == nil {
			failed = fs.ErrNotExist // newer than this look: the table tells of it, and another look follows
			return
		}
		got.marked, got.id, got.names, failed = f.markDir(dir, got.on, own[on], id, known && on == likely)
	}) {
		return
	}
	if failed != nil {
		if !errors.Is(failed, fs.ErrNotExist) {
			x.problems = append(x.problems, fmt.Sprintf("watch %s: %v", dir, failed))
		}
		return
	}
	if got.names {
		x.ids[got.on.MountID] = got.id
		x.facts.addMount(got.id, reachOf(got.on), got.on.Dev)
		if got.handle.handle != nil {
			x.facts.folders[handleKey(got.handle)] = true
		}
	}
	x.s.marked[dir] = got.marked
}

func (x *folderFacts) addMount(id [8]byte, path string, dev volume.Dev) {
	if m, ok := x.mounts[id]; !ok || len(path) < len(m.path) {
		x.mounts[id] = mountFact{path, dev}
	}
}

// all looks for everything, and takes back the marks of what is no longer there.
func (s *seeker) all() (dirs, problems []string) {
	x := s.search(&folderFacts{})
	before := s.marked
	s.marked = map[string]marked{}
	dirs, problems = s.is.places.walk(x.walker())
	hangs := func(dir string) bool {
		for at := range x.dead {
			if within(dir, at) {
				return true
			}
		}
		return false
	}
	for d, m := range before {
		if _, have := s.marked[d]; have || s.ended.Load() {
			continue
		}
		if hangs(d) {
			s.marked[d] = m // for all that is known
			if m.handle.handle != nil {
				x.facts.folders[handleKey(m.handle)] = true
				x.facts.mounts[m.handle.fsid] = s.facts.Load().mounts[m.handle.fsid]
			}
			continue
		}
		x.ask(d, func() { s.f.unmarkDir(d, m) })
	}
	for id, path := range s.renames {
		if _, ok := x.ids[id]; !ok && !hangs(path) {
			_ = unix.FanotifyMark(s.f.names.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, unix.FAN_RENAME|unix.FAN_ONDIR, unix.AT_FDCWD, path)
			delete(s.renames, id)
		}
	}
	if s.renames == nil {
		s.renames = map[int]string{}
	}
	for i := range s.is.all {
		if _, ok := x.ids[s.is.all[i].MountID]; ok {
			s.renames[s.is.all[i].MountID] = mountOf(&s.is.all[i])
		}
	}
	s.facts.Store(&x.facts)
	return dirs, append(problems, x.problems...)
}

// below marks folders that came up, and what is below them already.
func (s *seeker) below(tops []string) {
	x := s.search(s.facts.Load())
	for _, top := range tops {
		if len(s.marked) < maxDirs {
			s.is.places.under(top, x.walker())
		}
	}
	s.facts.Store(&x.facts)
}

// markDir marks one folder. A folder that was deleted and made again has lost
// its mark, so what is marked is marked again. own is the group of its mount, if that
// has one. names: moves and deletions in it are told, with the id of its file system,
// which may be known already.
func (f *fan) markDir(d string, v *volume.Volume, own *group, id [8]byte, known bool) (m marked, _ [8]byte, names bool, err error) {
	g := own
	if g == nil {
		g = f.near(v)
	}
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW, maskDirs, unix.AT_FDCWD, d); err != nil {
		return m, id, false, err
	}
	if g := f.places.Load().glob(d); g != nil && g.alone {
		return m, id, false, nil
	}
	if f.names == nil || unix.FanotifyMark(f.names.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW,
		maskNames|unix.FAN_CREATE, unix.AT_FDCWD, d) != nil {
		return m, id, false, nil // new folders are found on a timer
	}
	if !known {
		// The mark on a folder does not tell where a file is moved to; that on the disk does.
		_ = unix.FanotifyMark(f.names.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_RENAME|unix.FAN_ONDIR, unix.AT_FDCWD, mountOf(v))
		if id, known = fileSystemID(reachOf(v)); !known {
			return m, id, false, nil
		}
	}
	if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, d, 0); err == nil {
		m = marked{mountOf(v), nameInfo{fsid: id, handleType: h.Type(), handle: h.Bytes()}}
	}
	return m, id, true, nil
}

// mountUnder is the id of the mount that a folder lies on, or the likely one where the
// kernel does not tell: before 5.8. A path may lead elsewhere by a link, and a mount may
// have come over it that the table does not know yet.
func mountUnder(dir string, likely int) int {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return likely
	}
	return int(st.Mnt_id)
}

// unmarkDir takes back the marks of a folder, also of one that was moved away.
func (f *fan) unmarkDir(d string, m marked) {
	if m.handle.handle != nil {
		var err error
		if d, err = openHandle(m.mount, m.handle); err != nil {
			return // its marks are gone with it
		}
	}
	for _, g := range []*group{f.main, f.media} {
		_ = unix.FanotifyMark(g.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW, maskDirs, unix.AT_FDCWD, d)
	}
	if f.names != nil {
		_ = unix.FanotifyMark(f.names.fd, unix.FAN_MARK_REMOVE|unix.FAN_MARK_ONLYDIR|unix.FAN_MARK_DONT_FOLLOW, maskNames|unix.FAN_CREATE, unix.AT_FDCWD, d)
	}
}

// under returns those of the folders of places that are a given folder or lie below it.
func (p *places) under(top string, w *walker) []string {
	skip := w.skip
	w.top, w.skip = top, func(d string) bool { return skip(d) || !within(d, top) && !within(top, d) }
	dirs, _ := p.walk(w)
	return dirs
}

// sameMounts reports whether two tables have the same mounts.
func sameMounts(a, b []volume.Volume) bool {
	return slices.EqualFunc(a, b, func(x, y volume.Volume) bool {
		return x.MountID == y.MountID && x.Dev == y.Dev && x.Mount == y.Mount && x.Kind == y.Kind && x.Hidden == y.Hidden
	})
}
