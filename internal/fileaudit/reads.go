package fileaudit

import (
	"time"
)

// Bounds of what is remembered of reads. Judgements: a copying program reads a
// file just before it writes it; one minute leaves room for large files and
// slow sticks.
const (
	readFor      = time.Minute
	maxReaders   = 256
	maxReadFiles = 1024 // of one process, the newest
	lookBack     = 64   // of these, looked through for one that is read again
	// minSize is the least size, in bytes, by which alone a copy is recognised:
	// files of a few bytes have one size too often.
	minSize = 64
)

// readSource is a file that was read where it matters.
type readSource struct {
	path, name string
	size       int64
	kind       string // of its volume
	share      string
	label      string // of the protected place
	at         time.Time
	read       bool // closed after reading; else only opened, which may be to write
}

// reader is a process and what it read.
type reader struct {
	ppid  int
	files []*readSource // oldest first
	last  time.Time
}

// recentReads remembers who read what in watched places. The zero value is not
// ready; use a made map.
type recentReads struct{ byPID map[int]*reader }

// empty reports whether nothing is remembered. It forgets what is too old.
func (rr *recentReads) empty(now time.Time) bool {
	for pid, r := range rr.byPID {
		if now.Sub(r.last) > readFor {
			delete(rr.byPID, pid)
		}
	}
	return len(rr.byPID) == 0
}

// note remembers a read and returns its record; the one there is already if the
// process read the file within the minute.
func (rr *recentReads) note(pid int, ppid func() int, src readSource) *readSource {
	r := rr.byPID[pid]
	if r != nil && src.at.Sub(r.last) > readFor {
		r = nil // perhaps another process by now
	}
	if r == nil {
		if len(rr.byPID) >= maxReaders {
			oldest, when := 0, src.at
			for id, x := range rr.byPID {
				if !x.last.After(when) {
					oldest, when = id, x.last
				}
			}
			delete(rr.byPID, oldest)
		}
		r = &reader{ppid: ppid()}
		rr.byPID[pid] = r
	}
	r.last = src.at
	for i := len(r.files) - 1; i >= 0 && i >= len(r.files)-lookBack; i-- {
		if x := r.files[i]; x.path == src.path && src.at.Sub(x.at) < readFor {
			x.size = max(x.size, src.size)
			return x
		}
	}
	if len(r.files) >= maxReadFiles {
		r.files = append(r.files[:0], r.files[1:]...)
	}
	r.files = append(r.files, &src)
	return &src
}

// wrote notes that a process wrote a file that it had opened.
func (rr *recentReads) wrote(pid int, path string) {
	r := rr.byPID[pid]
	if r == nil {
		return
	}
	for i := len(r.files) - 1; i >= 0 && i >= len(r.files)-lookBack; i-- {
		if x := r.files[i]; x.path == path && !x.read {
			r.files = append(r.files[:i], r.files[i+1:]...)
			return
		}
	}
}

// find returns what a process, its parent or a child of it read last that has
// the name, else the size, of a file that it wrote.
func (rr *recentReads) find(pid int, ppid func() int, name, path string, size int64, now time.Time) *readSource {
	if len(rr.byPID) == 0 || pid == 0 {
		return nil
	}
	parent := -1
	var bySize *readSource
	look := func(r *reader) *readSource {
		for i := len(r.files) - 1; i >= 0; i-- {
			x := r.files[i]
			if now.Sub(x.at) > readFor {
				break
			}
			if x.path == path {
				continue
			}
			if x.name == name {
				return x
			}
			if bySize == nil && size >= minSize && x.size == size {
				bySize = x
			}
		}
		return nil
	}
	if r := rr.byPID[pid]; r != nil {
		if x := look(r); x != nil {
			return x
		}
	}
	for id, r := range rr.byPID {
		if id == pid || now.Sub(r.last) > readFor {
			continue
		}
		if parent == -1 && r.ppid != pid {
			parent = ppid()
		}
		if r.ppid == pid || id == parent {
			if x := look(r); x != nil {
				return x
			}
		}
	}
	return bySize
}
