package fileaudit

import (
	"cmp"
	"container/list"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bounds of what is remembered of reads. Judgements: a copying program reads a
// file just before it writes it; one minute leaves room for large files and
// slow sticks.
const (
	readFor    = time.Minute
	maxReaders = 256
	maxReads   = 16_384 // of all processes, some 10 MB
	// minSize is the least size, in bytes, by which alone, or by content, a copy is
	// recognised: files of a few bytes are alike too often.
	minSize = 64
	// pipeWithin is how close the starts of programs of one pipe are: a shell forks
	// them one after the other.
	pipeWithin = 200 * time.Millisecond
)

// who is a process as far as it has to be told from others.
type who struct {
	pid, ppid int
	start     time.Time // zero: unknown
	entity    string    // "": unknown
}

// same reports whether two with one process id are the same process.
func (w who) same(o who) bool { return w.entity == "" || o.entity == "" || w.entity == o.entity }

// piped reports whether two processes may be parts of one pipe.
func (w who) piped(o who) bool {
	d := w.start.Sub(o.start)
	return w.ppid != 0 && w.ppid == o.ppid && !w.start.IsZero() && !o.start.IsZero() && d < pipeWithin && d > -pipeWithin
}

// read is a file that was read and is of interest: it lies in a watched place,
// or holds something of one.
type read struct {
	path, name string
	size       int64
	sum        uint64 // of its content, 0 if unknown
	cargo      *cargo
	carried    bool // not in a watched place itself
	at         time.Time
	late       time.Duration // it may have been read so much earlier
	closed     bool          // after reading; else only opened, which may be to write
}

// reader is a process and what it read.
type reader struct {
	who
	files  *list.List // of *read, oldest first
	byPath map[string]*list.Element
	byName map[string]*read // the newest
	bySize map[int64]*read  // the newest
	last   time.Time
	more   cargo // totals of what fell out of files
}

// recentReads remembers who read what.
type recentReads struct {
	byPID   map[int]*reader
	total   int
	cleaned time.Time // when what is too old was last looked for
}

func newRecentReads() *recentReads { return &recentReads{byPID: map[int]*reader{}} }

// empty reports whether nothing is remembered. It forgets what is too old, once
// a second.
func (rr *recentReads) empty(now time.Time) bool {
	if now.Sub(rr.cleaned) < time.Second {
		return len(rr.byPID) == 0
	}
	rr.cleaned = now
	for pid, r := range rr.byPID {
		if now.Sub(r.last) > readFor {
			rr.forget(pid)
		}
	}
	return len(rr.byPID) == 0
}

func (rr *recentReads) forget(pid int) {
	if r := rr.byPID[pid]; r != nil {
		rr.total -= r.files.Len()
		delete(rr.byPID, pid)
	}
}

// oldest is the process whose last read is longest ago, of those of which files
// are remembered if there are any.
func (rr *recentReads) oldest() (pid int) {
	var when time.Time
	for id, r := range rr.byPID {
		if (r.files.Len() > 0 || rr.total == 0) && (when.IsZero() || r.last.Before(when)) {
			pid, when = id, r.last
		}
	}
	return pid
}

// note remembers a read and returns its record; the one there is already if the
// process read the file within the minute.
func (rr *recentReads) note(w who, x read) *read {
	r := rr.byPID[w.pid]
	if r != nil && (x.at.Sub(r.last) > readFor || !r.same(w)) {
		rr.forget(w.pid) // another process by now, perhaps
		r = nil
	}
	if r == nil {
		for len(rr.byPID) >= maxReaders {
			rr.forget(rr.oldest())
		}
		r = &reader{who: w, more: cargo{trust: high}, files: list.New(), byPath: map[string]*list.Element{}, byName: map[string]*read{}, bySize: map[int64]*read{}}
		rr.byPID[w.pid] = r
	}
	r.last = x.at
	if e := r.byPath[x.path]; e != nil {
		old := e.Value.(*read)
		if x.at.Sub(old.at) < readFor {
			old.size, old.cargo = max(old.size, x.size), x.cargo
			if x.sum != 0 {
				old.sum = x.sum
			}
			r.bySize[old.size] = old
			return old
		}
		r.remove(e)
		rr.total--
	}
	for rr.total >= maxReads {
		pid := rr.oldest()
		rr.shorten(pid)
		if pid != w.pid && rr.byPID[pid].files.Len() == 0 {
			rr.forget(pid)
		}
	}
	r.byPath[x.path] = r.files.PushBack(&x)
	r.byName[x.name], r.bySize[x.size] = &x, &x
	rr.total++
	return &x
}

// shorten forgets the oldest file of a process, but for the totals.
func (rr *recentReads) shorten(pid int) {
	r := rr.byPID[pid]
	x := r.remove(r.files.Front())
	r.more.files += x.cargo.files
	r.more.bytes += x.cargo.bytes
	r.more.trust = min(r.more.trust, x.cargo.trust)
	rr.total--
}

func (r *reader) remove(e *list.Element) *read {
	x := r.files.Remove(e).(*read)
	delete(r.byPath, x.path)
	if r.byName[x.name] == x {
		delete(r.byName, x.name)
	}
	if r.bySize[x.size] == x {
		delete(r.bySize, x.size)
	}
	return x
}

// wrote notes that a process wrote a file: it did not open it to read.
func (rr *recentReads) wrote(pid int, path string) {
	r := rr.byPID[pid]
	if r == nil {
		return
	}
	if e := r.byPath[path]; e != nil && !e.Value.(*read).closed {
		r.remove(e)
		rr.total--
	}
}

// named returns what a process read last that has the name of a file, nil if
// nothing.
func (rr *recentReads) named(pid int, path string) *read {
	if r := rr.byPID[pid]; r != nil {
		if x := r.byName[filepath.Base(path)]; x != nil && x.path != path {
			return x
		}
	}
	return nil
}

// written is a file that may be a copy.
type written struct {
	path, name string
	size       int64
	sum        uint64 // 0: unknown
}

// copied returns what a reader read last that has the name or the size of a
// file, nil if nothing. What is known to have another content is no source by
// its size. strict asks for the same size, or content where it is known.
func (r *reader) copied(f written, strict bool, now time.Time) *read {
	usable := func(x *read) bool {
		// A file is not its own source, but what is edited and saved goes on carrying.
		return x != nil && now.Sub(x.at) <= readFor && (x.path != f.path || x.carried)
	}
	alike := func(x *read) bool {
		return x.size == f.size && f.size >= minSize && (x.sum == 0 || f.sum == 0 || x.sum == f.sum)
	}
	if x := r.byName[f.name]; usable(x) && (!strict || alike(x)) {
		return x
	}
	if x := r.bySize[f.size]; usable(x) && alike(x) {
		return x
	}
	return nil
}

// find returns what a process, its parent, a child of it or its partner in a
// pipe read that has the name, else the size, of a file that it wrote; and
// which of them. Of several the nearest of kin's, and of these the one that is
// told before the others.
func (rr *recentReads) find(w who, f written, now time.Time) (x *read, k kin) {
	if r := rr.byPID[w.pid]; r != nil && r.same(w) {
		if x := r.copied(f, false, now); x != nil {
			return x, itself
		}
	}
	k = partner
	for id, r := range rr.byPID {
		if id == w.pid || now.Sub(r.last) > readFor {
			continue
		}
		as := partner
		if r.ppid == w.pid || id == w.ppid {
			as = family
		} else if k == family || !r.piped(w) {
			continue
		}
		if y := r.copied(f, as == partner, now); y != nil && (x == nil || as < k || y.before(x)) {
			x, k = y, as
		}
	}
	return x, k
}

// before reports whether a read is told rather than another one that explains a file
// as well: the newer of them, of two at one moment the one whose path comes first.
func (x *read) before(y *read) bool {
	if !x.at.Equal(y.at) {
		return x.at.After(y.at)
	}
	return x.path < y.path
}

// children returns the processes that read something and were started by one, who
// read last first.
func (rr *recentReads) children(pid int) (ids []int) {
	for id, r := range rr.byPID {
		if r.ppid == pid {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b int) int {
		return cmp.Or(rr.byPID[b].last.Compare(rr.byPID[a].last), cmp.Compare(a, b))
	})
	return ids
}

// packed returns what went into a file that a process made of what was opened to
// read from one moment to another: by itself and its children, else by its parent or its partners
// in a pipe; and the file that was read last. What the file held before, if it
// is made anew, is part of that.
func (rr *recentReads) packed(w who, path string, since, until time.Time) (*cargo, *read) {
	type part struct {
		reads []*read
		more  []*cargo // what fell out of files
	}
	var own, near part
	for id, r := range rr.byPID {
		to := &own
		switch {
		case id == w.pid && r.same(w), r.ppid == w.pid:
		case id == w.ppid, r.piped(w):
			to = &near
		default:
			continue
		}
		before := len(to.reads)
		for e := r.files.Front(); e != nil; e = e.Next() {
			x := e.Value.(*read)
			if x.at.Before(since) || x.at.Add(-x.late).After(until) || x.path == path && !x.carried {
				continue
			}
			to.reads = append(to.reads, x)
		}
		if len(to.reads) > before && r.more.files > 0 {
			more := r.more
			to.more = append(to.more, &more)
		}
	}
	if len(own.reads) == 0 {
		own = near
	}
	if len(own.reads) == 0 {
		return nil, nil
	}
	// In the order of reading; at one moment by path.
	slices.SortFunc(own.reads, func(a, b *read) int {
		return cmp.Or(a.at.Compare(b.at), strings.Compare(a.path, b.path))
	})
	last, all := own.reads[0], make([]*cargo, 0, len(own.reads)+len(own.more))
	for _, x := range own.reads {
		if all = append(all, x.cargo); x.before(last) {
			last = x
		}
	}
	return union(append(all, own.more...)), last
}
