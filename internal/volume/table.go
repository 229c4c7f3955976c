package volume

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Table is what is mounted now. It is safe for concurrent use; reading takes no
// lock. Only the package writes to it.
type Table struct {
	now atomic.Pointer[mounts]

	mu       sync.Mutex // guards all below, and who writes now
	watchers []chan struct{}
	holders  []*holder            // who holds handles on volumes; see OnLeave
	leaving  map[string]time.Time // mounts that the system asked to let go, and since when
}

// mounts is one state of the table; it is never written to once it is in use.
type mounts struct {
	all []Volume       // in the order of the system
	at  map[string]int // key of a place (see key) to the index in all of what one sees there
	key func(path string) string
	sep byte // between the elements of a key
}

func newTable() *Table {
	t := &Table{}
	t.now.Store(newMounts(nil))
	return t
}

// newMounts makes a state of volumes. Those that are hidden are not found by
// path.
func newMounts(all []Volume) *mounts {
	m := &mounts{all: all, at: make(map[string]int, len(all)), key: placeKey, sep: filepath.Separator}
	for i := range all {
		v := &all[i]
		if v.Hidden || v.Reach != "" {
			continue
		}
		for _, place := range []string{v.Mount, v.DOSName, v.NTName} {
			if place != "" && substituted(place) == "" { // what SUBST's letters stand for is another's place
				m.at[m.key(place)] = i
			}
		}
		if v.DOSName != "" && v.Share != "" { // a mapped drive is its share as well
			m.at[m.key(v.Share)] = i
		}
	}
	return m
}

// All returns every mount, virtual ones included, in no particular order. The
// caller must not write to the result, which is shared.
func (t *Table) All() []Volume { return t.now.Load().all }

// Lookup returns the volume that an absolute path lies on: of the mounts that
// one sees, that with the longest mount point. The path is taken as it is: no
// link is followed and nothing is asked of the file system. On Windows it may
// start with a drive letter in any case, a share, `\\?\` or an NT device name.
func (t *Table) Lookup(path string) (Volume, bool) {
	m := t.now.Load()
	if i, ok := m.lookup(path); ok {
		return m.all[i], true
	}
	return Volume{}, false
}

// lookup returns the index of the volume that path lies on.
func (m *mounts) lookup(path string) (int, bool) {
	key := m.key(path)
	for {
		if i, ok := m.at[key]; ok {
			return i, true
		}
		i := strings.LastIndexByte(key, m.sep)
		switch {
		case i < 0, key == "/":
			return 0, false
		case i == 0 && m.sep == '/':
			key = "/"
		default:
			key = key[:i]
		}
	}
}

// Watch returns a channel that gets a value after the table has changed. Changes
// that come while a value waits are told by that one value, so a reader looks at
// All each time and compares with what it knew. Call it once and keep the
// channel; it is never closed. Unwatch gives it back.
func (t *Table) Watch() <-chan struct{} {
	c := make(chan struct{}, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers = append(t.watchers, c)
	return c
}

// Unwatch ends what Watch began.
func (t *Table) Unwatch(c <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers = slices.DeleteFunc(t.watchers, func(w chan struct{}) bool { return w == c })
}

// set replaces the state and tells the watchers.
func (t *Table) set(m *mounts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for mount := range t.leaving {
		if !slices.ContainsFunc(m.all, func(v Volume) bool { return v.Mount == mount }) {
			delete(t.leaving, mount)
		}
	}
	for i := range m.all {
		_, m.all[i].Leaving = t.leaving[m.all[i].Mount]
	}
	t.store(m)
}

// store makes a state the one in use and tells the watchers. t.mu is held.
func (t *Table) store(m *mounts) {
	t.now.Store(m)
	for _, c := range t.watchers {
		select {
		case c <- struct{}{}:
		default: // a value waits already
		}
	}
}
