package correlate

import (
	"encoding/binary"
	"slices"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// known is what a first-seen rule remembers.
type known struct {
	rule    *rules.Rule
	def     *rules.FirstSeen
	getters []*rules.Getter
	prefix  prefix // of its keys in a Store
	begun   bool
	since   int64 // when it was first in force: time of the first event that matched any rule since
	seen    map[key]sight
}

// sight is when a combination was last seen.
type sight struct {
	t     int64
	dirty bool // the Store does not know it
}

func newKnown(r *rules.Rule) *known {
	k := &known{rule: r, def: r.Addition.FirstSeen, seen: map[key]sight{}}
	names := []byte(r.ID)
	for i := range k.def.Keys {
		g := &k.def.Keys[i]
		k.getters = append(k.getters, g)
		names = append(append(names, 0), g.Field()...)
	}
	k.prefix = newPrefix(kindSeen, string(names), r.Digest())
	return k
}

// FirstSeen drops the matches of rules that only match what is new
// (rules.Addition.FirstSeen) where the event is not, in place, and remembers
// what it saw. Call it before Observe, with every event that matched: a rule
// learns from the first of them after it came into force.
func (s *Set) FirstSeen(e *event.Event, matches []rules.Match) []rules.Match {
	if len(s.knowns) == 0 || len(matches) == 0 {
		return matches
	}
	t := nanoseconds(e.Time)
	ahead := max(t, s.watermark) + int64(s.limits.Tolerance) // what is remembered from later: the clock was set back
	if !s.started {
		ahead = t + int64(s.limits.Tolerance)
	}
	for _, k := range s.knowns {
		if !k.begun || k.since > ahead {
			k.begun, k.since = true, t
		}
	}
	out := matches[:0]
	for _, m := range matches {
		k := s.memory[m.Rule.Index]
		if k == nil {
			out = append(out, m)
			continue
		}
		s.buf = appendKey(s.buf[:0], e, k.getters)
		key := keyOf(s.buf)
		rec, held := s.sight(k, key)
		if (!held || rec.t < t-int64(k.def.Within)) && t >= k.since+int64(k.def.Learn) {
			out = append(out, m)
		}
		switch {
		case held && rec.t > ahead:
		case held && rec.t >= t:
			continue // nothing to be refreshed
		}
		if !rec.dirty {
			s.kept.seen = append(s.kept.seen, fresh{k, key})
		}
		k.seen[key] = sight{t, true}
	}
	clear(matches[len(out):])
	s.shrinkKnown()
	return out
}

// sight is when a combination was last seen, by memory or else the Store.
func (s *Set) sight(k *known, key key) (sight, bool) {
	rec, ok := k.seen[key]
	if ok || s.store == nil {
		return rec, ok
	}
	value, err := s.store.Get(k.prefix.with(key))
	if err != nil || value != nil && len(value) != 8 {
		s.stats.Broken++
		return sight{}, false
	}
	if value == nil {
		return sight{}, false
	}
	rec = sight{t: int64(binary.BigEndian.Uint64(value))}
	k.seen[key] = rec
	return rec, true
}

// shrinkKnown makes room in memory: what the Store knows leaves it, half of it
// at a time, the oldest first. What it does not know waits for a Flush up to
// twice the limit, and is forgotten beyond it; without a Store at the limit.
func (s *Set) shrinkKnown() {
	n := 0
	for _, k := range s.knowns {
		n += len(k.seen)
	}
	if n <= s.limits.Combinations {
		return
	}
	if s.store != nil && n <= 2*s.limits.Combinations && len(s.kept.seen) > s.limits.Combinations/2 {
		return // a Flush makes room
	}
	var clean, changed []int64
	for _, k := range s.knowns {
		for key, rec := range k.seen {
			if rec.t < s.watermark-int64(k.def.Within)-int64(s.limits.Tolerance) && (!rec.dirty || s.store == nil) {
				delete(k.seen, key) // over
				n--
			} else if rec.dirty {
				changed = append(changed, rec.t)
			} else {
				clean = append(clean, rec.t)
			}
		}
	}
	most := s.limits.Combinations
	if s.store == nil {
		most = most * 7 / 8
	}
	before := func(times []int64, out int) int64 { // what is older makes out of them, about
		if out <= 0 || len(times) == 0 {
			return -1 << 63
		}
		slices.Sort(times)
		return times[min(out, len(times))-1] + 1
	}
	cleanUntil := before(clean, max(n-most, len(clean)/2))
	changedUntil := before(changed, n-len(clean)-most)
	for _, k := range s.knowns {
		for key, rec := range k.seen {
			switch {
			case !rec.dirty && rec.t < cleanUntil:
				delete(k.seen, key)
			case rec.dirty && rec.t < changedUntil:
				s.stats.Forgotten++
				delete(k.seen, key)
			}
		}
	}
	if s.store == nil {
		s.kept.seen = nil
		return
	}
	s.kept.seen = slices.DeleteFunc(s.kept.seen, func(f fresh) bool { return !f.k.seen[f.key].dirty })
}
