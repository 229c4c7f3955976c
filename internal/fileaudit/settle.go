package fileaudit

import (
	"container/heap"
	"fmt"
	"os"
	"time"

	"sekisho/internal/volume"
)

// maxPending bounds the files that wait to be told: at 0.3 s each this is a
// stream of 50,000 files a second.
const maxPending = 1 << 14

// spot is where a file is, on its volume: the paths of two mount namespaces may be
// the same. On Windows the path is in small letters.
type spot struct {
	dev  volume.Dev
	path string
}

func spotAt(dev volume.Dev, path string) spot { return spot{dev, folded(path)} }

// spotOf is where a file of a volume is; one whose path is not known has its
// inode's number for it.
func spotOf(v *volume.Volume, r *record) spot {
	if r.path == "" {
		return spot{v.Dev, fmt.Sprintf("\x00%d", r.ino)}
	}
	return spotAt(v.Dev, r.path)
}

// pending is a file that was written and has to rest before it is told.
type pending struct {
	key   spot
	rec   record
	first time.Time // when it was first written
	due   time.Time
	index int // in the heap

	// What the file system says of it, asked for when it is due; both nil: not asked.
	info   os.FileInfo
	failed error
}

// settle holds written files until they are at rest. It knows no clock of its own.
type settle struct {
	quiet, max time.Duration
	byKey      map[spot]*pending
	byFile     map[fileKey]*pending // those whose inode is known; one of several names
	heap       dueHeap
}

func newSettle(quiet, limit time.Duration) *settle {
	return &settle{quiet: quiet, max: limit, byKey: map[spot]*pending{}, byFile: map[fileKey]*pending{}}
}

// wrote notes a write. If too many files wait, the one due next is returned, to
// be told now.
func (s *settle) wrote(key spot, r record, now time.Time) (early *pending) {
	p := s.byKey[key]
	if p == nil {
		if len(s.byKey) >= maxPending {
			early = s.heap[0]
			s.remove(early.key)
		}
		p = &pending{key: key, first: now}
		s.byKey[key] = p
		heap.Push(&s.heap, p)
	}
	if r.pid == 0 && p.rec.pid != 0 {
		r.pid = p.rec.pid
	}
	if old := p.rec.file(); s.byFile[old] == p {
		delete(s.byFile, old)
	}
	p.info, p.failed = nil, nil
	if p.rec = r; r.ino != 0 {
		s.byFile[r.file()] = p
	}
	p.due = now.Add(s.quiet)
	if last := p.first.Add(s.max); p.due.After(last) {
		p.due = last
	}
	heap.Fix(&s.heap, p.index)
	return early
}

// renamed notes that a file, or a folder with files, has another path now. It
// reports whether files that wait were concerned. What waits at the new path is
// replaced, as in the file system.
func (s *settle) renamed(from spot, dev volume.Dev, path string, dir bool) bool {
	if p := s.byKey[from]; p != nil {
		s.move(p, dev, path)
		return true
	}
	if !dir {
		return false
	}
	var below []*pending
	for key, p := range s.byKey {
		if key.dev == from.dev && within(key.path, from.path) {
			below = append(below, p)
		}
	}
	for _, p := range below {
		s.move(p, dev, path+p.rec.path[len(from.path):])
	}
	return len(below) > 0
}

func (s *settle) move(p *pending, dev volume.Dev, path string) {
	to := spotAt(dev, path)
	if to != p.key {
		s.remove(to)
		delete(s.byKey, p.key)
	}
	p.key, p.rec.path = to, path
	s.byKey[to] = p
	p.info, p.failed = nil, nil
}

// remove forgets a file and reports whether it waited.
func (s *settle) remove(key spot) bool {
	p := s.byKey[key]
	if p == nil {
		return false
	}
	delete(s.byKey, key)
	if s.byFile[p.rec.file()] == p {
		delete(s.byFile, p.rec.file())
	}
	heap.Remove(&s.heap, p.index)
	return true
}

// next is when the next file is due.
func (s *settle) next() (time.Time, bool) {
	if len(s.heap) == 0 {
		return time.Time{}, false
	}
	return s.heap[0].due, true
}

// due returns the files that are due, which stay.
func (s *settle) due(now time.Time) (all []*pending) {
	var below func(i int)
	below = func(i int) {
		if i < len(s.heap) && !s.heap[i].due.After(now) {
			all = append(all, s.heap[i])
			below(2*i + 1)
			below(2*i + 2)
		}
	}
	below(0)
	return all
}

// take returns a file that is due.
func (s *settle) take(now time.Time) *pending {
	if len(s.heap) == 0 || s.heap[0].due.After(now) {
		return nil
	}
	p := s.heap[0]
	s.remove(p.key)
	return p
}

// takeIf returns the files that ok accepts, due or not.
func (s *settle) takeIf(ok func(*pending) bool) []*pending {
	var all []*pending
	for _, p := range s.byKey {
		if ok(p) {
			all = append(all, p)
		}
	}
	for _, p := range all {
		s.remove(p.key)
	}
	return all
}

// dueHeap is a heap of files by when they are due.
type dueHeap []*pending

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	p := x.(*pending)
	p.index = len(*h)
	*h = append(*h, p)
}
func (h *dueHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}
