package correlate

import (
	"bytes"
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

// Adopt gives a Set that has been without a Store one that is empty: what it holds
// goes there with the next Flush.
func (s *Set) Adopt(st Store) {
	s.store, s.kept = st, keeping{all: true}
	for _, k := range s.knowns {
		for key := range k.seen {
			s.kept.seen = append(s.kept.seen, fresh{k, key})
		}
	}
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
		return w
	}
	for _, st := range s.steps {
		if w.used <= st.seq {
			s.rewind(w, st.t)
		}
	}
	s.rewind(w, s.watermark)
	return w
}

// Flush hands out what changed since the last Flush that succeeded: every key,
// good until put returns, and what appends its value, nil where the key is gone.
// That is put's to keep: it holds a copy of the window, gives the same each time,
// and may be called from any goroutine, so that whoever owns the Set need not wait
// for values to be made. All of it belongs into one transaction. If put fails, so
// does Flush, and the next one hands out the same again; once Flush returned nil,
// what it handed out is the Store's, which has to answer with it even if the
// transaction fails later. Once a day of event time the Store is looked through
// for what is over.
func (s *Set) Flush(put func(key []byte, value func(b []byte) []byte) error) error {
	if s.store == nil {
		return nil
	}
	over, err := s.sweep()
	if err != nil {
		return fmt.Errorf("look through stored windows: %w", err)
	}
	k := &s.kept
	swept, stored := k.swept, s.stats.Stored
	if over.done {
		swept, stored = s.watermark, over.stored
	}
	for _, key := range append(over.keys, k.gone...) {
		if err := put(key, nil); err != nil {
			return fmt.Errorf("forget a window: %w", err)
		}
	}
	for _, key := range k.gone {
		if key[0] == kindLong && !over.done {
			stored--
		}
	}
	for _, key := range over.ahead {
		if err := put(key, valueOf(s.watermark)); err != nil {
			return fmt.Errorf("keep a combination: %w", err)
		}
	}
	var written []*window
	for _, c := range s.corrs {
		for w := c.ring.next; w != &c.ring && (w.dirty || k.all); w = w.next {
			if !w.dirty {
				continue
			}
			s.buf = append(append(s.buf[:0], c.prefix[:]...), w.key[:]...)
			if err := put(s.buf, w.copy().append); err != nil {
				return fmt.Errorf("keep a window: %w", err)
			}
			if w.long != nil && !w.stored {
				stored++
			}
			written = append(written, w)
		}
	}
	for _, f := range k.seen {
		if rec, ok := f.k.seen[f.key]; ok {
			if err := put(f.k.prefix.with(f.key), valueOf(rec.t)); err != nil {
				return fmt.Errorf("keep a combination: %w", err)
			}
		}
	}
	state := s.appendState(nil, swept, stored)
	if err := put(stateKey, func(b []byte) []byte { return append(b, state...) }); err != nil {
		return fmt.Errorf("keep state of windows: %w", err)
	}

	for _, w := range written {
		w.dirty, w.stored = false, true
	}
	for _, f := range k.seen {
		if rec, ok := f.k.seen[f.key]; ok {
			rec.dirty = false
			f.k.seen[f.key] = rec
		}
	}
	*k = keeping{swept: swept}
	s.stats.Stored = stored
	s.stats.Lost += over.lost
	s.stats.Forgotten += over.forgotten
	if s.stats.Cells > s.limits.Cells {
		s.shrink()
	}
	s.shrinkKnown()
	return nil
}

// valueOf is the value of a combination last seen at a time.
func valueOf(t int64) func(b []byte) []byte {
	return func(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(t)) }
}

// overdue is what a sweep found.
type overdue struct {
	done            bool
	keys            [][]byte // to be deleted
	ahead           [][]byte // combinations seen in the future: the clock was set back
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
	since := s.watermark - s.kept.swept
	if !s.kept.sweep && s.stats.Stored <= s.limits.Stored+s.limits.Stored/8 && since < int64(sweepEvery) && since > -int64(sweepEvery) {
		return o, nil
	}
	o.done = true
	gone := make(map[string]bool, len(s.kept.gone))
	for _, k := range s.kept.gone {
		gone[string(k)] = true
	}
	corrs, knowns, unkept := map[prefix]*corr{}, map[prefix]*known{}, 0
	for _, c := range s.corrs {
		corrs[c.prefix] = c
		for _, w := range c.windows {
			if w.long != nil && !w.stored {
				unkept++
			}
		}
	}
	for _, k := range s.knowns {
		knowns[k.prefix] = k
	}
	now, tolerance := s.watermark, int64(s.limits.Tolerance)
	// look goes through what has a kind; of says when a key was last used and how
	// long that counts, negative if it does not.
	look := func(kind byte, most int, of func(p prefix, k key, value []byte) (t, life int64)) (stay int, lost int64, err error) {
		var there []dated
		err = s.store.Each([]byte{kind}, func(k, value []byte) error {
			if gone[string(k)] {
				return nil
			}
			t, life := int64(0), int64(-1)
			if p, rest, ok := split(k); ok {
				t, life = of(p, rest, value)
			}
			k = slices.Clone(k)
			if life < 0 || t < now-life {
				o.keys = append(o.keys, k)
				return nil
			}
			if t > now+tolerance {
				t = now
				if kind == kindSeen {
					o.ahead = append(o.ahead, k)
				}
			}
			there = append(there, dated{t, k})
			return nil
		})
		if over := len(there) - max(0, most); over > 0 {
			slices.SortFunc(there, func(a, b dated) int { return cmp.Compare(a.t, b.t) })
			for _, d := range there[:over] {
				o.keys = append(o.keys, d.k)
			}
			lost = int64(over)
		}
		return len(there) - int(lost), lost, err
	}
	o.stored, o.lost, err = look(kindLong, s.limits.Stored-unkept, func(p prefix, k key, value []byte) (t, life int64) {
		c := corrs[p]
		if c == nil {
			return 0, -1
		}
		if w := c.windows[k]; w != nil {
			return w.newest(), c.life
		}
		t, used, err := usedOf(value)
		if err != nil {
			s.stats.Broken++
			return 0, -1
		}
		for _, st := range s.steps {
			if used <= st.seq && t > st.t+tolerance {
				t = st.t
			}
		}
		return t, c.life
	})
	if err != nil {
		return o, err
	}
	_, o.forgotten, err = look(kindSeen, s.limits.Combinations-len(s.kept.seen), func(p prefix, k key, value []byte) (t, life int64) {
		m := knowns[p]
		if m == nil || len(value) != 8 {
			return 0, -1
		}
		t, life = int64(binary.BigEndian.Uint64(value)), int64(m.def.Within)+tolerance
		if rec, ok := m.seen[k]; ok && rec.dirty {
			t = now // it is about to be written
		}
		return t, life
	})
	return o, err
}

// inForce is a hash of what counts: it is another one where a rule came or went.
func (s *Set) inForce() uint64 {
	var all []prefix
	for _, c := range s.corrs {
		all = append(all, c.prefix)
	}
	for _, k := range s.knowns {
		all = append(all, k.prefix)
	}
	slices.SortFunc(all, func(a, b prefix) int { return bytes.Compare(a[:], b[:]) })
	var b []byte
	for _, p := range all {
		b = append(b, p[:]...)
	}
	return hash(b)
}

// appendState appends what is kept of the Set itself.
func (s *Set) appendState(b []byte, swept int64, stored int) []byte {
	b = append(b, stateVersion, 0)
	if s.started {
		b[1] = 1
	}
	b = appendInt(b, s.watermark)
	b = appendUint(b, uint64(s.late))
	b = appendUint(b, s.seq)
	b = appendInt(b, swept)
	b = appendUint(b, uint64(stored))
	b = appendUint(b, uint64(len(s.steps)))
	for _, st := range s.steps {
		b = appendInt(appendUint(b, st.seq), st.t)
	}
	b = append64(b, s.inForce())
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
	version := r.byte()
	if version != stateVersion && version != stateWithoutRules {
		return errValue
	}
	started := r.byte() == 1
	watermark, late, seq, swept := r.time(0), r.bounded(lateRun), r.bounded(1<<60), r.time(0)
	stored := r.bounded(1 << 40)
	var steps []step
	for range r.count(2, maxSteps) {
		steps = append(steps, step{r.bounded(1 << 60), r.time(0)})
	}
	others := version == stateWithoutRules || r.u64() != s.inForce()
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
	s.started, s.watermark, s.late, s.seq, s.kept.swept, s.steps = started, watermark, int(late), seq, swept, steps
	s.stats.Stored = int(stored)
	s.kept.sweep = others // what they counted is forgotten, though this is the run after
	for _, k := range s.knowns {
		if t, ok := begun[k.prefix]; ok {
			k.since, k.begun = t, true
		}
	}
	return nil
}
