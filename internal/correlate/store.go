package correlate

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Store is where a Set keeps what must survive a restart, and windows of weeks
// and months. All keys are the Set's; they and the values are bounded.
type Store interface {
	// Get is a key's value; nil, nil where there is none. The Set does not keep
	// the value.
	Get(key []byte) (value []byte, err error)
	// Each calls f with every key that has the prefix, and its value. The Set
	// does not keep them, and changes nothing meanwhile. The first error ends it.
	Each(prefix []byte, f func(key, value []byte) error) error
}

// sweepEvery is how often, in event time, what is over is looked for in the
// Store. Judgement: 100,000 windows take some 0.1 s.
const sweepEvery = 24 * time.Hour

// keeping is what a Set knows of its Store.
type keeping struct {
	gone     [][]byte // keys of windows that the Store has and the Set has not any more
	seen     []fresh  // combinations that changed
	all      bool     // any window may have changed, not only those used last
	sweep    bool     // whatever the time
	swept    int64    // event time of the last sweep
	added    int      // windows given to the Store since
	shrinkAt int      // cells at which it is worth looking for room again
}

// fresh is a combination that changed.
type fresh struct {
	k   *known
	key key
}

var stateKey = []byte{kindState}

// Load takes over from the Store what an earlier Set flushed: clock, exact
// windows, learning. The Set must be new. Values that make no sense are left out
// and counted (Stats.Broken); an error is the Store's.
func (s *Set) Load() error {
	if s.store == nil {
		return nil
	}
	value, err := s.store.Get(stateKey)
	if err != nil {
		return fmt.Errorf("read state of windows: %w", err)
	}
	if value != nil && s.readState(value) != nil {
		s.stats.Broken++
	}
	byPrefix := map[prefix]*corr{}
	for _, c := range s.corrs {
		byPrefix[c.prefix] = c
	}
	var windows []*window
	err = s.store.Each([]byte{kindExact}, func(k, value []byte) error {
		p, rest, ok := split(k)
		c := byPrefix[p]
		if !ok || c == nil {
			s.kept.gone = append(s.kept.gone, slices.Clone(k)) // of a rule that is no more
			return nil
		}
		w, err := decodeWindow(c, rest, value)
		if err != nil {
			s.stats.Broken++
			s.kept.gone = append(s.kept.gone, slices.Clone(k))
			return nil
		}
		windows = append(windows, w)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read windows: %w", err)
	}
	slices.SortFunc(windows, func(a, b *window) int { return cmp.Compare(a.used, b.used) })
	for _, w := range windows {
		if len(w.proofs) > s.limits.Evidence {
			w.proofs = w.proofs[:s.limits.Evidence]
		}
		s.enlist(w)
		w.link(&w.c.ring)
		s.seq = max(s.seq, w.used)
	}
	return nil
}

// recall reads a long window from the Store; nil if it has none.
func (s *Set) recall(c *corr, k key) *window {
	if c.bucket == 0 || s.store == nil {
		return nil
	}
	full := c.prefix.with(k)
	value, err := s.store.Get(full)
	if value == nil && err == nil {
		return nil
	}
	var w *window
	if err == nil {
		w, err = decodeWindow(c, k, value)
	}
	if err != nil {
		s.stats.Broken++
		w = newWindow(c, k)
		w.stored = true
	}
	return w
}

// Flush hands out what changed since the last Flush that succeeded: every key
// with its value, nil where the key is gone. All of it belongs into one
// transaction; key and value are put's to keep. If put fails, so does Flush, and
// the next one hands out the same again; once Flush returned nil, what it handed
// out is the Store's, which has to answer with it even if the transaction fails
// later. Once a day of event time the Store is looked through for what is over.
func (s *Set) Flush(put func(key, value []byte) error) error {
	if s.store == nil {
		return nil
	}
	over, err := s.sweep()
	if err != nil {
		return fmt.Errorf("look through stored windows: %w", err)
	}
	var written []*window
	for _, k := range append(over.keys, s.kept.gone...) {
		if err := put(k, nil); err != nil {
			return fmt.Errorf("forget a window: %w", err)
		}
	}
	for _, c := range s.corrs {
		for w := c.ring.next; w != &c.ring && (w.dirty || s.kept.all); w = w.next {
			if !w.dirty {
				continue
			}
			if err := put(c.prefix.with(w.key), w.append(nil)); err != nil {
				return fmt.Errorf("keep a window: %w", err)
			}
			written = append(written, w)
		}
	}
	for _, f := range s.kept.seen {
		rec, ok := f.k.seen[f.key]
		if !ok {
			continue
		}
		if err := put(f.k.prefix.with(f.key), binary.BigEndian.AppendUint64(nil, uint64(rec.t))); err != nil {
			return fmt.Errorf("keep a combination: %w", err)
		}
	}
	swept := s.kept.swept
	if over.done {
		swept = s.watermark
	}
	if err := put(stateKey, s.appendState(nil, swept)); err != nil {
		return fmt.Errorf("keep state of windows: %w", err)
	}

	for _, w := range written {
		if w.long != nil && !w.stored {
			s.kept.added++
		}
		w.dirty, w.stored = false, true
	}
	for _, f := range s.kept.seen {
		if rec, ok := f.k.seen[f.key]; ok {
			rec.dirty = false
			f.k.seen[f.key] = rec
		}
	}
	k := &s.kept
	k.gone, k.seen, k.all, k.shrinkAt = nil, nil, false, 0
	if over.done {
		k.swept, k.sweep, k.added = s.watermark, false, 0
		s.stats.Stored = over.stored
		s.stats.Lost += over.lost
		s.stats.Forgotten += over.forgotten
	}
	if s.stats.Cells > s.limits.Cells {
		s.shrink()
	}
	s.shrinkKnown()
	return nil
}

// overdue is what a sweep found.
type overdue struct {
	done            bool
	keys            [][]byte // to be deleted
	stored          int      // windows that stay
	lost, forgotten int64    // of keys, those for want of room
}

// dated is a key and its time.
type dated struct {
	t int64
	k []byte
}

// sweep looks in the Store for long windows and combinations that are over, of
// rules that are no more, or too many, if it is time to. What is in memory is
// newer there and stays.
func (s *Set) sweep() (o overdue, err error) {
	day := s.watermark - s.kept.swept
	if !s.kept.sweep && s.kept.added <= s.limits.Stored/8 && day < int64(sweepEvery) && day > -int64(sweepEvery) {
		return o, nil
	}
	o.done = true
	corrs, knowns := map[prefix]*corr{}, map[prefix]*known{}
	for _, c := range s.corrs {
		corrs[c.prefix] = c
	}
	for _, k := range s.knowns {
		knowns[k.prefix] = k
	}
	now, tolerance := s.watermark, int64(s.limits.Tolerance)
	look := func(kind byte, most int, until func(p prefix, k key, value []byte) (t, life int64)) (stay int, lost int64, err error) {
		var there []dated
		err = s.store.Each([]byte{kind}, func(k, value []byte) error {
			p, rest, ok := split(k)
			t, life := int64(0), int64(-1)
			if ok {
				t, life = until(p, rest, value)
			}
			k = slices.Clone(k)
			// What lies in the future by more than a life was written by a clock gone wrong.
			if life < 0 || t < now-life || t > now+life+tolerance {
				o.keys = append(o.keys, k)
			} else {
				there = append(there, dated{t, k})
			}
			return nil
		})
		if over := len(there) - most; over > 0 {
			slices.SortFunc(there, func(a, b dated) int { return cmp.Compare(a.t, b.t) })
			for _, d := range there[:over] {
				o.keys = append(o.keys, d.k)
			}
			lost = int64(over)
		}
		return min(len(there), most), lost, err
	}
	o.stored, o.lost, err = look(kindLong, s.limits.Stored, func(p prefix, k key, value []byte) (t, life int64) {
		c := corrs[p]
		if c == nil {
			return 0, -1
		}
		if c.windows[k] != nil {
			return now, c.life
		}
		if t, err = newestOf(value); err != nil {
			s.stats.Broken++
			return 0, -1
		}
		return t, c.life
	})
	if err != nil {
		return o, err
	}
	_, o.forgotten, err = look(kindSeen, s.limits.Combinations, func(p prefix, k key, value []byte) (t, life int64) {
		m := knowns[p]
		if m == nil || len(value) != 8 {
			return 0, -1
		}
		if rec, ok := m.seen[k]; ok {
			return rec.t, int64(m.def.Within) + tolerance
		}
		return int64(binary.BigEndian.Uint64(value)), int64(m.def.Within) + tolerance
	})
	return o, err
}

// appendState appends what is kept of the Set itself.
func (s *Set) appendState(b []byte, swept int64) []byte {
	b = append(b, codecVersion, 0)
	if s.started {
		b[1] = 1
	}
	b = appendInt(b, s.watermark)
	b = appendUint(b, uint64(s.late))
	b = appendUint(b, s.seq)
	b = appendInt(b, swept)
	for _, k := range s.knowns {
		if k.begun {
			b = append(b, k.prefix[:]...)
			b = appendInt(b, k.since)
		}
	}
	return b
}

func (s *Set) readState(value []byte) error {
	r := &reader{b: value}
	if r.byte() != codecVersion {
		return errValue
	}
	started := r.byte() == 1
	watermark, late, seq, swept := r.time(0), r.bounded(lateRun), r.bounded(1<<60), r.time(0)
	begun := map[prefix]int64{}
	for len(r.b) > 0 {
		p := r.bytes(uint64(len(prefix{})))
		t := r.time(0)
		if r.err == nil {
			begun[prefix(p)] = t
		}
	}
	if r.err != nil {
		return r.err
	}
	s.started, s.watermark, s.late, s.seq, s.kept.swept = started, watermark, int(late), seq, swept
	for _, k := range s.knowns {
		if t, ok := begun[k.prefix]; ok {
			k.since, k.begun = t, true
		}
	}
	return nil
}
