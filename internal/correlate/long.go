package correlate

import (
	"math/bits"
	"slices"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// SampleSize is how many values or events a long window holds. Judgement: the
// standard error above it is about 1.2/sqrt(SampleSize), 1.9 %, and a window
// takes 45 KB on disk.
const SampleSize = 4096

// windowCells is what a long window takes in memory whatever it holds, in cells.
const windowCells = 8

// long is the bounded form of a window of more than MaxExact.
type long struct {
	c       *corr
	last    int64 // time of the newest event, ns
	buckets []bucket
	events  int64  // in them
	sum     amount // of them
	level          // of values or marks
	values  recent // of value_count
	marks   []mark // of value_percentile, by time
	times   []int64
	// times is, for temporal, the newest match by place; for temporal_ordered the
	// latest start of a chain (see chain).
}

// bucket is the events of an hour or a day.
type bucket struct {
	t   int64 // time of the first
	n   int64
	sum amount
}

// mark is a sampled event of a value_percentile.
type mark struct {
	t    int64
	n    uint64 // float64, or hash of a text
	hash uint64 // of the event; its highest bit is set for a text
}

const markText = 1 << 63

func newLong(c *corr) *long {
	l := &long{c: c}
	if t := c.def.Type; t == rules.Temporal || t == rules.TemporalOrdered {
		l.times = newStarts(len(c.def.Rules))
	}
	return l
}

func (l *long) cells() int {
	return windowCells + len(l.buckets) + len(l.values.slots) + len(l.marks)
}

// first is the time of the first event in the window.
func (l *long) first() int64 { return l.buckets[0].t }

// level is adaptive sampling (Wegman; Flajolet 1990): what has a hash with so
// many zero bits at its end is held, and stands for 2^use. When there is too
// much, fewer are held. When there is little again, more are taken in at once,
// and they count when the window holds nothing from before that.
type level struct {
	use   uint8 // what counts
	admit uint8 // what is held, <= use
	since int64 // all that came after this time and has admit is held
}

func zeros(hash uint64) uint8 { return uint8(bits.TrailingZeros64(hash)) }

// settle says which level counts in a window that begins at from, of which
// kept are held that count; full is how many there may be.
func (l *level) settle(from, now int64, kept int) (changed bool) {
	if l.admit < l.use && l.since < from {
		l.use = l.admit
		return true
	}
	if l.use == 0 || l.admit < l.use {
		return false
	}
	a := uint8(0)
	for kept<<(l.use-a) > SampleSize/2 && a < l.use {
		a++
	}
	if a < l.use {
		l.admit, l.since = a, now
	}
	return false
}

// raise halves what is held.
func (l *level) raise() {
	l.admit++
	l.use = max(l.use, l.admit)
}

// addLong puts an event into its long window and asks whether the condition
// holds.
func (s *Set) addLong(tc *touch, e *event.Event, t int64, n, flag uint64) {
	w := tc.w
	l, def := w.long, tc.c.def
	s.seq++
	w.used = s.seq
	s.stats.Cells -= l.cells()
	if len(l.buckets) > 0 && t-l.last > tc.c.span+tc.c.bucket { // over: as a window that was dropped begins anew
		s.release(w, t)
		l = newLong(tc.c)
		w.long, w.fresh, w.unseen = l, amount{}, 0
	}
	if len(l.buckets) > 0 {
		t = max(t, l.last)
	}
	l.last = t
	from := t - tc.c.span
	s.keep(w, e, t)
	var f amount
	switch def.Type {
	case rules.ValueSum, rules.ValueAvg:
		v, _ := number(def, e)
		f = amountOf(v)
	}
	f = l.fill(t, f)
	s.release(w, l.first())
	w.unseen++
	tc.total = float64(l.events)
	switch def.Type {
	case rules.EventCount:
		w.fresh.whole++
	case rules.ValueSum:
		w.fresh.add(f)
		tc.total = l.sum.float()
	case rules.ValueAvg:
		tc.total = l.sum.float() / float64(l.events)
	case rules.ValueCount:
		w.fresh.whole += l.see(s.hashes, t, from)
		tc.total = float64(l.values.counted << l.use)
	case rules.ValuePercentile:
		s.buf = appendUint(append(s.buf[:0], e.ID...), s.seq)
		tc.total = l.rank(mark{t, n, hash(s.buf)&^markText | flag/text*markText}, from)
	case rules.Temporal:
		seen := 0
		for p := range def.Rules {
			if tc.places>>p&1 != 0 {
				l.times[p] = t
			}
			if l.times[p] >= from {
				seen++
			}
		}
		tc.total = float64(seen)
	case rules.TemporalOrdered:
		for p := range def.Rules {
			if tc.places>>p&1 != 0 {
				advance(l.times, p, t)
			}
		}
		tc.total = float64(chain(l.times, from))
	}
	s.stats.Cells += l.cells()
	tc.fired = fulfils(def, def.In(e), tc.total) && (def.Type != rules.TemporalOrdered || tc.last() == int(tc.total)-1)
}

// maxBucket bounds the sum of a bucket, 2 PiB, so that those of a window cannot
// overflow.
const maxBucket = 1 << 51

// fill counts an event in its bucket, with as much of its amount as that takes, and
// empties those that the window has left.
func (l *long) fill(t int64, f amount) amount {
	size := l.c.bucket
	oldest := floorDiv(t-l.c.span, size)
	old := 0
	for old < len(l.buckets) && floorDiv(l.buckets[old].t, size) < oldest {
		l.events -= l.buckets[old].n
		l.sum.sub(l.buckets[old].sum)
		old++
	}
	if old > 0 {
		l.buckets = slices.Delete(l.buckets, 0, old)
	}
	if k := len(l.buckets); k == 0 || floorDiv(l.buckets[k-1].t, size) != floorDiv(t, size) {
		l.buckets = append(l.buckets, bucket{t: t})
	}
	b := &l.buckets[len(l.buckets)-1]
	b.n++
	if sum := b.sum.whole + f.whole; sum < -maxBucket || sum > maxBucket {
		f = amount{}
	}
	b.sum.add(f)
	l.events++
	l.sum.add(f)
	return f
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// see takes in values of a value_count and returns how many of them are new in
// the window, by the estimate.
func (l *long) see(hashes []uint64, t, from int64) (fresh int64) {
	v := &l.values
	v.expire(from, l.use)
	for _, h := range hashes {
		if zeros(h) < l.admit {
			continue
		}
		counts := zeros(h) >= l.use
		if v.touch(h, t, counts) && counts {
			fresh += 1 << l.use
		}
		for v.n > SampleSize {
			l.raise()
			v.thin(l.admit, l.use)
		}
	}
	if l.settle(from, t, v.counted) {
		v.recount(l.use)
	}
	return fresh
}

// rank takes in an event of a value_percentile and returns the percentile of
// its value.
func (l *long) rank(m mark, from int64) float64 {
	old := 0
	for old < len(l.marks) && l.marks[old].t < from {
		old++
	}
	if old >= 64 || old == len(l.marks) {
		l.marks = slices.Delete(l.marks, 0, old)
		old = 0
	}
	kept := 0
	r := newRanking(m.n, m.hash >= markText)
	below := uint64(1)<<l.use - 1 // bits that are zero of those that count
	for i := old; i < len(l.marks); i++ {
		o := &l.marks[i]
		if o.hash&below != 0 {
			continue
		}
		kept++
		if (o.hash^m.hash)&markText == 0 {
			r.meet(o.n, 1)
		}
	}
	percent := r.percent(float64(below+1), 1)
	l.settle(from, m.t, kept) // for the next one
	if zeros(m.hash) >= l.admit {
		l.marks = append(l.marks, m)
	}
	for len(l.marks) > SampleSize {
		l.raise()
		l.marks = slices.DeleteFunc(l.marks, func(o mark) bool { return zeros(o.hash) < l.admit || o.t < from })
	}
	return percent
}

// rewind makes what lies after a time count as of it: the clock was set back.
func (l *long) rewind(now int64) {
	l.last = min(l.last, now)
	l.since = min(l.since, now)
	for i := range l.buckets {
		l.buckets[i].t = min(l.buckets[i].t, now)
	}
	for len(l.buckets) > 1 { // several may have become one
		a, b := &l.buckets[len(l.buckets)-2], l.buckets[len(l.buckets)-1]
		if floorDiv(a.t, l.c.bucket) != floorDiv(b.t, l.c.bucket) {
			break
		}
		a.n += b.n
		a.sum.add(b.sum)
		l.buckets = l.buckets[:len(l.buckets)-1]
	}
	for i := range l.marks {
		l.marks[i].t = min(l.marks[i].t, now)
	}
	for i := range l.times {
		l.times[i] = min(l.times[i], now)
	}
	for i := range l.values.slots {
		l.values.slots[i].t = min(l.values.slots[i].t, now)
	}
}

// recent is values in the order in which they were last seen.
type recent struct {
	slots   []slot
	index   map[uint64]int32 // nil while there are few
	head    int32            // 1 + place of the one seen last; 0: none
	tail    int32            // 1 + place of the one not seen for longest
	free    int32            // 1 + place of an unused slot, chained by next
	n       int
	counted int // of them, those that count
}

type slot struct {
	hash       uint64
	t          int64
	prev, next int32 // 1 + place: towards the head, towards the tail
}

// fewSlots is how many values are looked through rather than indexed.
const fewSlots = 32

// find is 1 + place of a value, 0 if it is not held.
func (v *recent) find(hash uint64) int32 {
	if v.index != nil {
		return v.index[hash]
	}
	for i := v.head; i != 0; i = v.slots[i-1].next {
		if v.slots[i-1].hash == hash {
			return i
		}
	}
	return 0
}

// touch notes that a value was seen and reports whether it is new.
func (v *recent) touch(hash uint64, t int64, counts bool) bool {
	i := v.find(hash)
	isNew := i == 0
	if isNew {
		i = v.take()
		v.slots[i-1].hash = hash
		v.n++
		if counts {
			v.counted++
		}
		if v.index != nil {
			v.index[hash] = i
		} else if v.n > fewSlots {
			v.index = make(map[uint64]int32, v.n)
			v.index[hash] = i
			for k := v.head; k != 0; k = v.slots[k-1].next {
				v.index[v.slots[k-1].hash] = k
			}
		}
	} else if i == v.head {
		v.slots[i-1].t = t
		return false
	} else {
		v.unlink(i)
	}
	n := &v.slots[i-1]
	n.t, n.prev, n.next = t, 0, v.head
	if v.head != 0 {
		v.slots[v.head-1].prev = i
	} else {
		v.tail = i
	}
	v.head = i
	return isNew
}

// take is 1 + place of an unused slot.
func (v *recent) take() int32 {
	if i := v.free; i != 0 {
		v.free = v.slots[i-1].next
		return i
	}
	v.slots = append(v.slots, slot{})
	return int32(len(v.slots))
}

func (v *recent) unlink(i int32) {
	n := &v.slots[i-1]
	if n.prev != 0 {
		v.slots[n.prev-1].next = n.next
	} else {
		v.head = n.next
	}
	if n.next != 0 {
		v.slots[n.next-1].prev = n.prev
	} else {
		v.tail = n.prev
	}
}

func (v *recent) remove(i int32) {
	v.unlink(i)
	delete(v.index, v.slots[i-1].hash)
	v.slots[i-1].next = v.free
	v.free = i
	v.n--
}

// expire forgets what was last seen before a time.
func (v *recent) expire(from int64, use uint8) {
	for v.tail != 0 && v.slots[v.tail-1].t < from {
		if zeros(v.slots[v.tail-1].hash) >= use {
			v.counted--
		}
		v.remove(v.tail)
	}
}

// thin forgets what a level does not hold.
func (v *recent) thin(admit, use uint8) {
	for i := v.tail; i != 0; {
		n := v.slots[i-1]
		if zeros(n.hash) < admit {
			v.remove(i)
		}
		i = n.prev
	}
	v.recount(use)
}

func (v *recent) recount(use uint8) {
	v.counted = 0
	for i := v.head; i != 0; i = v.slots[i-1].next {
		if zeros(v.slots[i-1].hash) >= use {
			v.counted++
		}
	}
}
