package correlate

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math"
	"math/bits"
	"slices"
	"sort"
	"strconv"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// window is one combination of group-by values of one correlation. An exact one
// holds its matches as entries and what they sum up to; of a long one, long does.
type window struct {
	c          *corr
	key        key
	prev, next *window // in the ring of c, by use
	used       uint64  // seq when it was last used
	dirty      bool    // changed since the last Flush
	stored     bool    // the Store has it, perhaps as it was

	told   uint64 // seq when a firing last told it
	fresh  amount // of sum or of new values: not told yet
	unseen int64  // of events: not told yet
	proofs []proof

	entries []entry // by time, then by arrival
	dead    int     // entries[:dead] are forgotten
	lo      int     // entries[lo:] lie in the window that ends with the newest
	events  int64   // in the window
	sum     amount  // of value_sum, value_avg
	tally           // of value_count, temporal
	starts  []int64 // of temporal_ordered: see chain

	*long // nil: exact
}

// entry is a match, or an element of one.
type entry struct {
	t    int64
	n    uint64 // value_sum, value_avg: float64; value_count: hash; temporal types: place; value_percentile: float64 or hash
	mark uint64 // seq << flagBits | flags
}

const (
	lead     = 1 << iota // first entry of its event
	news                 // value_count, temporal: the value was new in the window
	text                 // value_percentile: n is the hash of a text
	flagBits = iota
)

func (n *entry) seq() uint64         { return n.mark >> flagBits }
func (n *entry) is(flag uint64) bool { return n.mark&flag != 0 }

// amount is a sum of numbers that does not depend on their order, so that a
// window which was kept on disk goes on exactly as one that was not.
type amount struct {
	whole int64
	parts int64 // 2^-32
}

// maxAmount bounds one addend of a sum, so that sums cannot overflow: 16 TiB.
const maxAmount = 1 << 44

func amountOf(f float64) amount {
	w := math.Floor(f)
	return amount{int64(w), int64((f - w) * (1 << 32))}
}

func (a *amount) add(b amount)   { a.whole, a.parts = a.whole+b.whole, a.parts+b.parts }
func (a *amount) sub(b amount)   { a.whole, a.parts = a.whole-b.whole, a.parts-b.parts }
func (a *amount) float() float64 { return float64(a.whole) + float64(a.parts)/(1<<32) }

// tally counts different numbers in a part of a window's entries.
type tally struct {
	distinct int
	counts   map[uint64]int32 // nil while the window is small: then its entries are looked through
}

// smallWindow is how many entries are looked through rather than counted in a
// map. Measured: a map of so many takes 2.5 KB and is no faster.
const smallWindow = 48

// proof is an event held as evidence, as it came or as the Store had it.
type proof struct {
	t    int64
	cost int32 // see eventCost
	e    *event.Event
	raw  []byte // JSON, where e is nil
}

// eventCost is how many bytes of an event's JSON count as one of Limits.Events.
// Judgement: twice what an event of a copy or a start of a program takes, and
// about what it takes in memory.
const eventCost = 4096

// maxProof is the largest event in JSON, in bytes, that is held as evidence: a
// command line of Windows is at most 32,767 characters.
const maxProof = 128 << 10

func newWindow(c *corr, k key) *window {
	w := &window{c: c, key: k}
	switch {
	case c.bucket > 0:
		w.long = newLong(c)
	case c.def.Type == rules.TemporalOrdered:
		w.starts = newStarts(len(c.def.Rules))
	}
	return w
}

func (w *window) live() []entry { return w.entries[w.dead:] }

// newest is the time of the newest event.
func (w *window) newest() int64 {
	if w.long != nil {
		return w.long.last
	}
	return w.entries[len(w.entries)-1].t
}

// appendValue appends a value as text, as event.Value.String has it.
func appendValue(b []byte, v event.Value) []byte {
	switch v.Type() {
	case event.String:
		return append(b, v.Str()...)
	case event.Int:
		return strconv.AppendInt(b, v.Int(), 10)
	}
	return append(b, v.String()...)
}

// hash is 64 bits of SHA-256: nobody can choose names that count as one, and a
// state kept on disk stays good.
func hash(text []byte) uint64 {
	h := sha256.Sum256(text)
	return binary.LittleEndian.Uint64(h[:])
}

func keyOf(values []byte) key {
	h := sha256.Sum256(values)
	return key(h[:16])
}

// number is the numeric value of a correlation's field, bounded.
func number(def *rules.Correlation, e *event.Event) (float64, bool) {
	v, ok := def.Fields[0].Value(e)
	if !ok {
		return 0, false
	}
	f, ok := v.Float()
	return min(max(f, -maxAmount), maxAmount), ok && f == f
}

// values is the hashes of the values that a value_count counts: the elements of
// a list each on their own, and of several fields the combination. It is good
// until the next call.
func (s *Set) values(def *rules.Correlation, e *event.Event) []uint64 {
	s.hashes = s.hashes[:0]
	if len(def.Fields) == 1 {
		v, ok := def.Fields[0].Value(e)
		if !ok {
			return nil
		}
		if v.Type() == event.List {
			for _, text := range v.List() {
				s.buf = append(s.buf[:0], text...)
				s.hashes = append(s.hashes, hash(s.buf))
			}
			slices.Sort(s.hashes)
			s.hashes = slices.Compact(s.hashes)
			return s.hashes
		}
		s.buf = appendValue(s.buf[:0], v)
		return append(s.hashes, hash(s.buf))
	}
	s.buf = s.buf[:0]
	for i := range def.Fields {
		v, ok := def.Fields[i].Value(e)
		if !ok {
			return nil
		}
		s.buf = appendPart(s.buf, v)
	}
	return append(s.hashes, hash(s.buf))
}

// ranked is the value whose place among others a value_percentile asks for.
func (s *Set) ranked(def *rules.Correlation, e *event.Event) (n, flag uint64, ok bool) {
	v, ok := def.Fields[0].Value(e)
	if !ok {
		return 0, 0, false
	}
	if f, numeric := v.Float(); numeric {
		return math.Float64bits(f), 0, f == f
	}
	s.buf = appendValue(s.buf[:0], v)
	return hash(s.buf), text, true
}

// add puts the event into its windows of a correlation and asks whether the
// condition holds in one.
func (s *Set) add(c *corr, e *event.Event, t int64) (fired bool) {
	if s.excepted(c) {
		return false
	}
	var n, flag uint64
	switch c.def.Type {
	case rules.ValueSum, rules.ValueAvg:
		f, ok := number(c.def, e)
		if !ok {
			return false
		}
		n = math.Float64bits(f)
	case rules.ValuePercentile:
		var ok bool
		if n, flag, ok = s.ranked(c.def, e); !ok {
			return false
		}
	case rules.ValueCount:
		if s.hashes = s.values(c.def, e); len(s.hashes) == 0 {
			return false
		}
	}
	joined := s.join(c, e)
	for i := range joined {
		tc := &joined[i]
		tc.w = s.find(c, tc.key)
		if tc.w.long != nil {
			s.addLong(tc, e, t, n, flag)
		} else {
			s.addExact(tc, e, t, n, flag)
		}
		fired = fired || tc.fired
	}
	return fired
}

// addExact puts the event into an exact window.
func (s *Set) addExact(tc *touch, e *event.Event, t int64, n, flag uint64) {
	w := tc.w
	s.keep(w, e, t)
	s.parts = s.parts[:0]
	switch tc.c.def.Type {
	case rules.ValueCount:
		for _, v := range s.hashes {
			s.parts = append(s.parts, entry{t: t, n: v})
		}
	case rules.Temporal, rules.TemporalOrdered:
		for places := tc.places; places != 0; places &= places - 1 {
			s.parts = append(s.parts, entry{t: t, n: uint64(bits.TrailingZeros16(places))})
		}
	default:
		s.parts = append(s.parts, entry{t, n, flag})
	}
	s.parts[0].mark |= lead
	s.insert(w, t, s.parts)
	w.used = s.seq
	s.judge(tc, e, t, n, flag)
}

// keep holds an event as evidence. Where there is no room it takes the place of
// an older one behind the first half, so that a window has its first events and
// its latest.
func (s *Set) keep(w *window, e *event.Event, t int64) {
	full := len(w.proofs) >= s.limits.Evidence || s.events >= s.limits.Events
	first := (s.limits.Evidence + 1) / 2
	if full && len(w.proofs) <= first {
		return
	}
	s.buf = e.AppendJSON(s.buf[:0])
	if len(s.buf) > maxProof {
		return
	}
	if full {
		s.events -= int(w.proofs[first].cost)
		w.proofs = slices.Delete(w.proofs, first, first+1)
	}
	p := proof{t: t, e: e, cost: costOf(len(s.buf))}
	at := len(w.proofs)
	for at > 0 && w.proofs[at-1].t > t {
		at--
	}
	w.proofs = slices.Insert(w.proofs, at, p)
	s.events += int(p.cost)
}

func costOf(size int) int32 { return int32(1 + size/eventCost) }

func (w *window) cost() (n int) {
	for i := range w.proofs {
		n += int(w.proofs[i].cost)
	}
	return n
}

// release forgets evidence from before a time.
func (s *Set) release(w *window, before int64) {
	old := 0
	for old < len(w.proofs) && w.proofs[old].t < before {
		s.events -= int(w.proofs[old].cost)
		old++
	}
	if old > 0 {
		w.proofs = slices.Delete(w.proofs, 0, old)
	}
}

// insert puts the entries of an event in their place, all of which are different,
// and keeps the window up to date. At once: a late event may have thousands.
func (s *Set) insert(w *window, t int64, parts []entry) {
	newest := t
	if len(w.entries) > 0 {
		newest = max(newest, w.newest())
	}
	for w.lo < len(w.entries) && w.entries[w.lo].t < newest-w.c.span {
		n := &w.entries[w.lo]
		w.lo++
		w.leave(n)
	}
	inside := t >= newest-w.c.span
	if inside && len(w.entries)-w.lo+len(parts) > smallWindow {
		w.count()
	}
	for i := range parts {
		s.seq++
		parts[i].mark |= s.seq << flagBits
		if inside {
			w.enter(&parts[i])
		}
	}
	w.room(len(parts))
	at := len(w.entries)
	for at > w.dead && w.entries[at-1].t > t {
		at--
	}
	inOrder := at == len(w.entries)
	w.entries = slices.Insert(w.entries, at, parts...)
	s.hold(w.c, len(parts))
	if !inside {
		w.lo += len(parts)
	}
	switch {
	case w.starts == nil:
	case !inOrder:
		w.sequence()
	default:
		for i := range parts {
			advance(w.starts, int(parts[i].n), t)
		}
	}
	// What no late event can need any more.
	before := newest - w.c.span - int64(s.limits.Tolerance)
	s.release(w, before)
	for w.dead < w.lo && w.entries[w.dead].t < before {
		w.dead++
		s.hold(w.c, -1)
	}
	if n := cap(w.entries); n > smallWindow && len(w.live()) < n/4 {
		w.move(0)
		if w.counts != nil { // a map does not shrink
			w.counts = nil
			if len(w.entries)-w.lo >= smallWindow {
				w.count()
			}
		}
	}
}

// room makes sure that so many entries can be put in: in place of forgotten ones
// where those are worth it, else by growing by half at least.
func (w *window) room(n int) {
	if len(w.entries)+n <= cap(w.entries) {
		return
	}
	if w.dead >= n && w.dead >= len(w.entries)/4 {
		w.entries = slices.Delete(w.entries, 0, w.dead)
		w.lo, w.dead = w.lo-w.dead, 0
		return
	}
	w.move(n)
}

// move gives the entries memory of their own, with room for half as many more, and
// for so many at least.
func (w *window) move(n int) {
	live := w.live()
	moved := make([]entry, len(live), len(live)+max(2, n, len(live)/2))
	copy(moved, live)
	w.entries, w.lo, w.dead = moved, w.lo-w.dead, 0
}

// include adds an entry, which lies beside the others, to what they sum up to.
func (w *window) include(n *entry, others []entry) (isNew bool) {
	if n.is(lead) {
		w.events++
	}
	switch w.c.def.Type {
	case rules.ValueSum, rules.ValueAvg:
		w.sum.add(amountOf(math.Float64frombits(n.n)))
	case rules.ValueCount, rules.Temporal:
		if w.counts != nil {
			w.counts[n.n]++
			isNew = w.counts[n.n] == 1
		} else {
			isNew = !holds(others, n.n)
		}
		if isNew {
			w.distinct++
		}
	}
	return isNew
}

// exclude takes an entry out of it; others are those that stay.
func (w *window) exclude(n *entry, others []entry) {
	if n.is(lead) {
		w.events--
	}
	switch w.c.def.Type {
	case rules.ValueSum, rules.ValueAvg:
		w.sum.sub(amountOf(math.Float64frombits(n.n)))
	case rules.ValueCount, rules.Temporal:
		if w.counts != nil {
			if w.counts[n.n]--; w.counts[n.n] <= 0 {
				delete(w.counts, n.n)
				w.distinct--
			}
		} else if !holds(others, n.n) {
			w.distinct--
		}
	}
}

func holds(entries []entry, n uint64) bool {
	for i := range entries {
		if entries[i].n == n {
			return true
		}
	}
	return false
}

// enter adds an entry to the newest window.
func (w *window) enter(n *entry) {
	if w.include(n, w.entries[w.lo:]) {
		n.mark |= news
	}
	w.refresh(n, (*amount).add, 1)
}

// leave takes an entry out of the newest window, which begins after it.
func (w *window) leave(n *entry) {
	rest := w.entries[w.lo:]
	w.exclude(n, rest)
	if n.seq() <= w.told {
		return
	}
	if n.is(news) && (w.counts == nil || w.counts[n.n] > 0) {
		// The value stays by another entry of it, which came later: not told either.
		if i := slices.IndexFunc(rest, func(o entry) bool { return o.n == n.n }); i >= 0 {
			rest[i].mark |= news
			n.mark &^= news
		}
	}
	w.refresh(n, (*amount).sub, -1)
}

// refresh keeps what has not been told up to date.
func (w *window) refresh(n *entry, put func(*amount, amount), one int64) {
	if n.is(lead) {
		w.unseen += one
	}
	switch w.c.def.Type {
	case rules.ValueCount, rules.Temporal:
		if n.is(news) {
			w.fresh.whole += one
		}
	case rules.EventCount:
		w.fresh.whole += one
	case rules.ValueSum:
		put(&w.fresh, amountOf(math.Float64frombits(n.n)))
	}
}

// count makes the map of a window that is not small, if it has none.
func (w *window) count() {
	if t := w.c.def.Type; w.counts != nil || t != rules.ValueCount && t != rules.Temporal {
		return
	}
	w.counts = make(map[uint64]int32, len(w.entries)-w.lo)
	for _, n := range w.entries[w.lo:] {
		w.counts[n.n]++
	}
}

// rebuild computes everything that follows from the entries.
func (w *window) rebuild() {
	newest := w.newest()
	w.lo, w.events, w.sum, w.tally, w.fresh, w.unseen = w.dead, 0, amount{}, tally{}, amount{}, 0
	for w.entries[w.lo].t < newest-w.c.span {
		w.lo++
	}
	if len(w.entries)-w.lo > smallWindow {
		if t := w.c.def.Type; t == rules.ValueCount || t == rules.Temporal {
			w.counts = make(map[uint64]int32, len(w.entries)-w.lo)
		}
	}
	for i := w.lo; i < len(w.entries); i++ {
		n := &w.entries[i]
		w.include(n, w.entries[w.lo:i])
		if n.seq() > w.told {
			w.refresh(n, (*amount).add, 1)
		}
	}
	w.sequence()
}

// forget drops the first n live entries for want of room.
func (w *window) forget(n int) {
	w.dead += n
	w.rebuild()
}

// rewind makes entries after a time count as of it: the clock was set back.
func (w *window) rewind(now int64) {
	for i := len(w.entries) - 1; i >= w.dead && w.entries[i].t > now; i-- {
		w.entries[i].t = now
	}
	rewindProofs(w.proofs, now)
	w.rebuild()
}

func rewindProofs(proofs []proof, now int64) {
	for i := range proofs {
		proofs[i].t = min(proofs[i].t, now)
	}
}

// chain is how far a temporal_ordered has come in a window that begins at from:
// starts holds for each place the latest start of a chain up to it that has come
// so far.
func chain(starts []int64, from int64) int {
	n := 0
	for n < len(starts) && starts[n] >= from {
		n++
	}
	return n
}

func newStarts(n int) []int64 {
	starts := make([]int64, n)
	for i := range starts {
		starts[i] = math.MinInt64
	}
	return starts
}

// advance adds a match of a place at a time to chains that came before.
func advance(starts []int64, place int, t int64) {
	if place > 0 {
		t = starts[place-1]
	}
	starts[place] = max(starts[place], t)
}

// sequence computes starts of the entries.
func (w *window) sequence() {
	if w.starts == nil {
		return
	}
	for i := range w.starts {
		w.starts[i] = math.MinInt64
	}
	for _, n := range w.live() {
		advance(w.starts, int(n.n), n.t)
	}
}

// total is what the conditions are asked of: the sum, count or rank of
// entries[from:to], to which the window's sums and r belong at the moment.
func (w *window) total(from, to int, r *ranking) float64 {
	switch w.c.def.Type {
	case rules.EventCount:
		return float64(to - from)
	case rules.ValueSum:
		return w.sum.float()
	case rules.ValueAvg:
		return w.sum.float() / float64(to-from)
	case rules.ValuePercentile:
		return r.percent(1, 0)
	}
	return float64(w.distinct)
}

// ranking finds the place of a value among others: of a number the percentile
// rank with half of the equals, of a text the share that it has. Numbers are
// compared with numbers only, and texts with texts.
type ranking struct {
	n                 uint64
	text              bool
	f                 float64
	below, equal, all int
}

func newRanking(n uint64, isText bool) ranking {
	return ranking{n: n, text: isText, f: math.Float64frombits(n)}
}

// meet takes so many of a value in, or out.
func (r *ranking) meet(n uint64, many int) {
	r.all += many
	if r.text {
		if n == r.n {
			r.equal += many
		}
	} else if f := math.Float64frombits(n); f < r.f {
		r.below += many
	} else if f == r.f {
		r.equal += many
	}
}

// entry is meet for an entry of a value_percentile, if it is one of the same kind.
func (r *ranking) entry(n *entry, many int) {
	if n.is(text) == r.text {
		r.meet(n.n, many)
	}
}

// percent is the place, where each of those met stands for so many, besides
// itself that were not met.
func (r *ranking) percent(weight, itself float64) float64 {
	equal, all := float64(r.equal)*weight+itself, float64(r.all)*weight+itself
	if r.text {
		return equal / all * 100
	}
	return (float64(r.below)*weight + equal/2) / all * 100
}

// fulfils reports whether the conditions hold for a total.
func fulfils(def *rules.Correlation, conds []rules.Condition, total float64) bool {
	if len(conds) == 0 {
		return int(total) == len(def.Rules)
	}
	for _, c := range conds {
		if !c.Holds(total) {
			return false
		}
	}
	return true
}

// judge asks whether the condition holds in a window that the event lies in.
func (s *Set) judge(tc *touch, e *event.Event, t int64, n, flag uint64) {
	w, def := tc.w, tc.c.def
	conds := def.In(e)
	tc.from, tc.to = w.lo, len(w.entries)
	newest := w.newest()
	if def.Type == rules.TemporalOrdered {
		s.judgeOrdered(tc, conds, t)
		return
	}
	r := newRanking(n, flag == text)
	if def.Type == rules.ValuePercentile {
		for i := w.lo; i < len(w.entries); i++ {
			r.entry(&w.entries[i], 1)
		}
	}
	tc.total = w.total(w.lo, len(w.entries), &r)
	if t >= newest-tc.c.span && fulfils(def, conds, tc.total) {
		tc.fired = true
		return
	}
	if t == newest {
		return
	}
	// Late: look at the windows that end earlier but not before it, the newest
	// first. The window's sums follow [from, to) and come back.
	w.count()
	from, to := w.lo, len(w.entries)
	for !tc.fired {
		for end := w.entries[to-1].t; to > w.dead && w.entries[to-1].t == end; {
			if to--; to >= from {
				w.exclude(&w.entries[to], nil)
				r.entry(&w.entries[to], -1)
			} else {
				from = to
			}
		}
		if to == w.dead || w.entries[to-1].t < t {
			break
		}
		end := w.entries[to-1].t
		for from > w.dead && w.entries[from-1].t >= end-tc.c.span {
			from--
			w.include(&w.entries[from], nil)
			r.entry(&w.entries[from], 1)
		}
		if t < end-tc.c.span {
			continue
		}
		if total := w.total(from, to, &r); fulfils(def, conds, total) {
			tc.fired, tc.from, tc.to, tc.total = true, from, to, total
		}
	}
	for ; from < min(to, w.lo); from++ {
		w.exclude(&w.entries[from], nil)
	}
	for to = max(to, w.lo); to < len(w.entries); to++ {
		w.include(&w.entries[to], nil)
	}
}

// judgeOrdered is judge for temporal_ordered. An event in order has to be the
// end of the chain: otherwise each that comes while a chain is in the window
// would fire.
func (s *Set) judgeOrdered(tc *touch, conds []rules.Condition, t int64) {
	w, def := tc.w, tc.c.def
	newest := w.newest()
	n := chain(w.starts, newest-tc.c.span)
	tc.total = float64(n)
	if t >= newest-tc.c.span && n > 0 && fulfils(def, conds, tc.total) && (t < newest || tc.last() == n-1) {
		tc.fired = true
		return
	}
	if t == newest {
		return
	}
	starts := newStarts(len(def.Rules))
	for i := w.dead; i < len(w.entries) && w.entries[i].t <= t+tc.c.span; i++ {
		end := w.entries[i].t
		advance(starts, int(w.entries[i].n), end)
		if end < t || i+1 < len(w.entries) && w.entries[i+1].t == end {
			continue
		}
		if n := chain(starts, end-tc.c.span); n > 0 && fulfils(def, conds, float64(n)) {
			from := sort.Search(i, func(k int) bool { return k >= w.dead && w.entries[k].t >= end-tc.c.span })
			tc.fired, tc.from, tc.to, tc.total = true, from, i+1, float64(n)
		}
	}
}

// last is the last place of a correlation's rules that put the event there.
func (tc *touch) last() int { return bits.Len16(tc.places) - 1 }

// fire makes firings of what was touched: one per family that fired.
func (s *Set) fire(e *event.Event, out []Firing) []Firing {
	for i := range s.touched {
		tc := &s.touched[i]
		if !tc.fired || tc.c.rule.Silent {
			continue
		}
		f := Firing{Rule: tc.c.rule, Event: e, Keys: tc.keys(e)}
		level := slices.Index(rules.Levels, tc.c.rule.Level)
		for j := range s.touched {
			o := &s.touched[j]
			if o.c.family != tc.c.family || o.c.rule.Silent || o != tc && !maps.Equal(f.Keys, o.keys(e)) {
				continue
			}
			if o.fired {
				if l := slices.Index(rules.Levels, o.c.rule.Level); l > level {
					f.Rule, level = o.c.rule, l
				}
			}
			s.tell(&f, o)
			if o != tc {
				o.fired = false // told as part of this one
			}
		}
		out = append(out, f)
	}
	return out
}

// keys is the group-by values of the event at hand.
func (tc *touch) keys(e *event.Event) map[string]string {
	if len(tc.c.def.GroupBy) == 0 {
		return nil
	}
	m := make(map[string]string, len(tc.c.def.GroupBy))
	for i, g := range tc.c.getters[tc.place] {
		if v, ok := g.Value(e); ok {
			m[tc.c.def.GroupBy[i].Name] = v.String()
		}
	}
	return m
}

// tell adds a window's counts and evidence to a firing, and marks them as told.
func (s *Set) tell(f *Firing, tc *touch) {
	w := tc.w
	if name := tc.c.def.Total; name != "" {
		if f.Totals == nil {
			f.Totals, f.Fresh = map[string]int64{}, map[string]int64{}
		}
		total := int64(math.Round(tc.total))
		if v, twice := f.Totals[name]; !twice || total > v {
			fresh := w.fresh
			if tc.older() {
				fresh = w.freshIn(tc.from, tc.to)
			}
			f.Totals[name], f.Fresh[name] = total, min(int64(math.Round(fresh.float())), total)
		}
	}
	events, first, last := w.events, int64(0), w.newest()
	if w.long != nil {
		events, first = w.long.events, w.long.first()
	} else {
		first, last = w.entries[tc.from].t, w.entries[tc.to-1].t
		if tc.older() {
			events = 0
			for i := range w.entries[tc.from:tc.to] {
				if w.entries[tc.from+i].is(lead) {
					events++
				}
			}
		}
	}
	if events > f.EvidenceTotal {
		f.EvidenceTotal, f.EvidenceFresh = events, max(1, min(w.unseen, events))
		f.First = time.Unix(0, first).UTC()
		f.Evidence = nil
		for i := range w.proofs {
			p := &w.proofs[i]
			if p.t < first || p.t > last || p.e == f.Event || len(f.Evidence) >= s.limits.Evidence-1 {
				continue
			}
			if e := s.event(p); e != nil {
				f.Evidence = append(f.Evidence, e)
			}
		}
		f.Evidence = append(f.Evidence, f.Event)
		slices.SortStableFunc(f.Evidence, func(a, b *event.Event) int { return a.Time.Compare(b.Time) })
	}
	w.fresh, w.unseen, w.told = amount{}, 0, s.seq
}

// older reports that the window that fired is not the newest: a late event
// completed it.
func (tc *touch) older() bool {
	return tc.w.long == nil && (tc.from != tc.w.lo || tc.to != len(tc.w.entries))
}

// freshIn is what no firing has told before of entries[from:to].
func (w *window) freshIn(from, to int) (sum amount) {
	told := map[uint64]bool{}
	for _, n := range w.entries[from:to] {
		if n.seq() <= w.told {
			told[n.n] = true
		}
	}
	for _, n := range w.entries[from:to] {
		if n.seq() <= w.told {
			continue
		}
		switch w.c.def.Type {
		case rules.EventCount:
			sum.whole++
		case rules.ValueSum:
			sum.add(amountOf(math.Float64frombits(n.n)))
		case rules.ValueCount:
			if !told[n.n] {
				told[n.n] = true
				sum.whole++
			}
		}
	}
	return sum
}

// event is the event of a proof; nil if the Store had no event there.
func (s *Set) event(p *proof) *event.Event {
	if p.e == nil && len(p.raw) > 0 {
		e, err := event.Decode(p.raw)
		if err != nil {
			s.stats.Broken++
		} else {
			e.Seal()
		}
		p.e, p.raw = e, nil
	}
	return p.e
}
