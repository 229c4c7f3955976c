package volume

import (
	"slices"
	"sync"
	"time"
)

// leftBehind is after how long a volume that is still there is taken up again
// although nobody said that it stays.
const leftBehind = time.Minute

// holder is who holds handles on volumes.
type holder struct{ release func(mount string) }

// OnLeave registers a function that lets go of all handles on a volume, by its
// Mount (`E:\`), and returns when it has, soon: the system waits for it, for two
// seconds at most, before it takes the volume away ("safely remove", ejecting,
// formatting). It may be called from several goroutines, also for volumes that
// nothing is held of.
//
// By the time it is called the volume is marked as Leaving in the table, so that
// who takes handles by what the table says takes none. Where the volume stays
// after all, the mark goes and Watch tells. stop ends the registration. Only
// Windows asks; elsewhere the function is never called.
func (t *Table) OnLeave(release func(mount string)) (stop func()) {
	h := &holder{release}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.holders = append(t.holders, h)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.holders = slices.DeleteFunc(t.holders, func(o *holder) bool { return o == h })
	}
}

// leave marks the volumes at these mounts as leaving and has all handles on them
// let go of. It reports whether that was done within the time.
func (t *Table) leave(mounts []string, within time.Duration) bool {
	t.mu.Lock()
	if t.leaving == nil {
		t.leaving = map[string]time.Time{}
	}
	for _, m := range mounts {
		t.leaving[m] = time.Now()
	}
	t.remark()
	holders := slices.Clone(t.holders)
	t.mu.Unlock()

	var all sync.WaitGroup
	for _, h := range holders {
		for _, m := range mounts {
			all.Go(func() { h.release(m) })
		}
	}
	done := make(chan struct{})
	go func() { // ends with the last holder
		all.Wait()
		close(done)
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// stay takes back the mark of volumes that the system did not take away.
func (t *Table) stay(mounts []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range mounts {
		delete(t.leaving, m)
	}
	t.remark()
}

// stayIfOld takes back the marks of volumes of whose end nothing came.
func (t *Table) stayIfOld(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := len(t.leaving)
	for m, since := range t.leaving {
		if now.Sub(since) > leftBehind {
			delete(t.leaving, m)
		}
	}
	if len(t.leaving) != before {
		t.remark()
	}
}

// remark puts the marks into a copy of the state in use. t.mu is held.
func (t *Table) remark() {
	old := t.now.Load()
	m := *old
	m.all = slices.Clone(old.all)
	for i := range m.all {
		_, m.all[i].Leaving = t.leaving[m.all[i].Mount]
	}
	t.store(&m)
}
