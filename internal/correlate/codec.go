package correlate

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"sekisho/internal/rules"
)

// The values in a Store, all numbers as variable-length integers (encoding/binary)
// unless it says otherwise:
//
//	exact window:  version, type, used, told, entries, evidence
//	long window:   version, type, time of the newest event, used, fresh, unseen, level, buckets, values, marks, times, evidence
//	combination:   8 bytes big endian: Unix time in ns when it was last seen
//	state:         version, started, watermark, late, seq, time of the last sweep, long windows, steps of the clock, the rules in force (8 bytes; see inForce), first-seen rules: prefix and when they were first in force
//
// Lists begin with their length. Times in lists are differences. Hashes are 8
// bytes. A number of a value_sum or value_avg is its whole part where it has no
// other, else the 8 bytes of a float64.
const codecVersion = 1

// stateVersion is that of the state; stateWithoutRules does not tell the rules in
// force.
const (
	stateVersion      = 2
	stateWithoutRules = 1
)

// kinds are the first byte of keys in a Store.
const (
	kindState = 'a'
	kindExact = 'e'
	kindLong  = 'l'
	kindSeen  = 's'
)

// prefix is a rule's part of its keys in a Store: the kind, 8 bytes of SHA-256 of
// its id, and its digest.
type prefix [17]byte

func newPrefix(kind byte, id string, digest uint64) (p prefix) {
	p[0] = kind
	binary.LittleEndian.PutUint64(p[1:], hash([]byte(id)))
	binary.LittleEndian.PutUint64(p[9:], digest)
	return p
}

// with is the whole key of a window or combination.
func (p prefix) with(k key) []byte { return append(p[:], k[:]...) }

// split is with the other way round.
func split(k []byte) (p prefix, rest key, ok bool) {
	if len(k) != len(p)+len(rest) {
		return p, rest, false
	}
	return prefix(k), key(k[len(p):]), true
}

// types gives each correlation type its byte in values.
var types = []rules.CorrelationType{"", rules.EventCount, rules.ValueCount, rules.ValueSum, rules.ValueAvg, rules.ValuePercentile, rules.Temporal, rules.TemporalOrdered}

// Bounds of what a value may hold, so that a broken one cannot fill memory.
const (
	maxLevel   = 50
	maxBuckets = 1000
	maxProofs  = 10_000
	wholeFlag  = 1 << flagBits // of an entry: the number is whole
)

func appendUint(b []byte, n uint64) []byte { return binary.AppendUvarint(b, n) }
func appendInt(b []byte, n int64) []byte   { return binary.AppendVarint(b, n) }
func append64(b []byte, n uint64) []byte   { return binary.LittleEndian.AppendUint64(b, n) }

func (a amount) append(b []byte) []byte { return appendInt(appendInt(b, a.whole), a.parts) }

// copy is a copy of a window for append, which nobody writes to. Events are
// shared: nobody writes to them either.
func (w *window) copy() *window {
	c := &window{c: w.c, used: w.used, told: w.told, fresh: w.fresh, unseen: w.unseen, proofs: slices.Clone(w.proofs)}
	if w.long == nil {
		c.entries = slices.Clone(w.live())
		return c
	}
	l := *w.long
	l.buckets, l.marks, l.times = slices.Clone(l.buckets), slices.Clone(l.marks), slices.Clone(l.times)
	l.values.slots, l.values.index = slices.Clone(l.values.slots), nil
	c.long = &l
	return c
}

// append appends a window's value.
func (w *window) append(b []byte) []byte {
	b = append(b, codecVersion, byte(slices.Index(types, w.c.def.Type)))
	if w.long != nil {
		b = appendInt(b, w.long.last)
		b = appendUint(b, w.used)
		b = w.fresh.append(b)
		b = appendInt(b, w.unseen)
		b = w.long.append(b)
	} else {
		b = appendUint(b, w.used)
		b = appendUint(b, w.told)
		b = w.appendEntries(b)
	}
	b = appendUint(b, uint64(len(w.proofs)))
	var buf []byte
	for i := range w.proofs {
		p := &w.proofs[i]
		raw := p.raw // empty where it made no sense
		if p.e != nil {
			buf = p.e.AppendJSON(buf[:0])
			raw = buf
		}
		b = appendInt(b, p.t)
		b = appendUint(b, uint64(len(raw)))
		b = append(b, raw...)
	}
	return b
}

func (w *window) appendEntries(b []byte) []byte {
	b = appendUint(b, uint64(len(w.live())))
	t, seq := int64(0), uint64(0)
	for _, n := range w.live() {
		b = appendInt(b, n.t-t)
		b = appendInt(b, int64(n.seq()-seq))
		t, seq = n.t, n.seq()
		flags := n.mark & (wholeFlag - 1)
		switch w.c.def.Type {
		case rules.EventCount:
			b = append(b, byte(flags))
		case rules.Temporal, rules.TemporalOrdered:
			b = appendUint(append(b, byte(flags)), n.n)
		case rules.ValueCount:
			b = append64(append(b, byte(flags)), n.n)
		default:
			if f := math.Float64frombits(n.n); flags&text == 0 && f == math.Trunc(f) && math.Abs(f) < 1<<53 && n.n != 1<<63 {
				b = appendInt(append(b, byte(flags|wholeFlag)), int64(f))
			} else {
				b = append64(append(b, byte(flags)), n.n)
			}
		}
	}
	return b
}

func (l *long) append(b []byte) []byte {
	b = append(b, l.use, l.admit)
	b = appendInt(b, l.since)
	b = appendUint(b, uint64(len(l.buckets)))
	t := int64(0)
	for i := range l.buckets {
		k := &l.buckets[i]
		b = appendInt(b, k.t-t)
		b = appendUint(b, uint64(k.n))
		b = k.sum.append(b)
		t = k.t
	}
	b = appendUint(b, uint64(l.values.n))
	t = 0
	for i := l.values.tail; i != 0; {
		n := &l.values.slots[i-1]
		b = appendInt(b, n.t-t)
		b = append64(b, n.hash)
		t, i = n.t, n.prev
	}
	b = appendUint(b, uint64(len(l.marks)))
	t = 0
	for i := range l.marks {
		m := &l.marks[i]
		b = appendInt(b, m.t-t)
		b = append64(append64(b, m.n), m.hash)
		t = m.t
	}
	b = appendUint(b, uint64(len(l.times)))
	for _, t := range l.times {
		b = appendInt(b, t)
	}
	return b
}

// errValue says that a value in the Store makes no sense.
var errValue = errors.New("value makes no sense")

// reader takes a value apart. After the first thing that makes no sense, err is
// set and everything is 0.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.b, r.err = nil, errValue
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// time is a time so much later than another.
func (r *reader) time(base int64) int64 {
	const most = maxTime * 1_000_000_000
	d := r.int()
	if d > 2*most || d < -2*most { // or the sum could overflow
		r.fail()
		return 0
	}
	t := base + d
	if t > most || t < -most {
		r.fail()
		return 0
	}
	return t
}

// count is the length of a list of things of at least so many bytes.
func (r *reader) count(size, most int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) || n > uint64(most) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) amount() amount {
	a := amount{r.int(), r.int()}
	const most = 1 << 61
	if a.whole > most || a.whole < -most || a.parts > most || a.parts < -most {
		r.fail()
		return amount{}
	}
	return a
}

func (r *reader) bounded(most uint64) uint64 {
	n := r.uint()
	if n > most {
		r.fail()
		return 0
	}
	return n
}

// decodeWindow makes a window of its value, of which it keeps nothing.
func decodeWindow(c *corr, k key, value []byte) (*window, error) {
	r := &reader{b: value}
	if r.byte() != codecVersion || r.byte() != byte(slices.Index(types, c.def.Type)) {
		return nil, errValue
	}
	w := newWindow(c, k)
	w.stored = true
	if w.long != nil {
		w.long.last = r.time(0)
		w.used = r.bounded(1 << 60)
		w.fresh = r.amount()
		w.unseen = r.int()
		r.long(w.long)
	} else {
		w.used = r.bounded(1 << 60)
		w.told = r.bounded(1 << 60)
		r.entries(w)
	}
	n := r.count(3, maxProofs)
	last := int64(math.MinInt64)
	for range n {
		p := proof{t: r.time(0)}
		p.raw = slices.Clone(r.bytes(r.uint()))
		p.cost = costOf(len(p.raw))
		if p.t < last {
			r.fail()
		}
		last = p.t
		w.proofs = append(w.proofs, p)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail()
	}
	if r.err != nil {
		return nil, r.err
	}
	if w.long == nil {
		w.rebuild()
	}
	return w, nil
}

func (r *reader) entries(w *window) {
	n := r.count(3, math.MaxInt)
	if n == 0 {
		r.fail()
		return
	}
	w.entries = make([]entry, 0, n)
	t, seq := int64(0), uint64(0)
	for i := range n {
		from := t
		t = r.time(t)
		seq += uint64(r.int())
		if i > 0 && t < from || seq > 1<<60 {
			r.fail()
			return
		}
		flags := uint64(r.byte())
		e := entry{t: t, mark: seq<<flagBits | flags&(wholeFlag-1)}
		switch w.c.def.Type {
		case rules.EventCount:
		case rules.Temporal, rules.TemporalOrdered:
			e.n = r.bounded(uint64(len(w.c.def.Rules) - 1))
		case rules.ValueCount:
			e.n = r.u64()
		default:
			if flags&wholeFlag != 0 {
				e.n = math.Float64bits(float64(r.int()))
			} else {
				e.n = r.u64()
			}
			f := math.Float64frombits(e.n)
			if flags&text == 0 && f != f || w.c.def.Type != rules.ValuePercentile && math.Abs(f) > maxAmount {
				r.fail()
				return
			}
		}
		w.entries = append(w.entries, e)
	}
}

func (r *reader) long(l *long) {
	l.use, l.admit = r.byte(), r.byte()
	if l.admit > l.use || l.use > maxLevel {
		r.fail()
	}
	l.since = r.time(0)
	from := int64(0)
	for i := range r.count(4, maxBuckets) {
		k := bucket{t: r.time(from), n: int64(r.bounded(1 << 40))}
		k.sum = r.amount()
		if i > 0 && k.t < from || k.n == 0 || k.t > l.last {
			r.fail()
		}
		from = k.t
		l.buckets = append(l.buckets, k)
		l.events += k.n
		l.sum.add(k.sum)
	}
	if len(l.buckets) == 0 {
		r.fail()
	}
	from = 0
	for i := range r.count(9, SampleSize) {
		t := r.time(from)
		h := r.u64()
		if i > 0 && t < from || t > l.last || zeros(h) < l.admit || l.values.find(h) != 0 {
			r.fail()
		}
		from = t
		l.values.touch(h, t, zeros(h) >= l.use)
	}
	from = 0
	for i := range r.count(17, SampleSize) {
		m := mark{t: r.time(from), n: r.u64(), hash: r.u64()}
		if i > 0 && m.t < from || m.hash < markText && math.IsNaN(math.Float64frombits(m.n)) {
			r.fail()
		}
		from = m.t
		l.marks = append(l.marks, m)
	}
	if n := r.count(1, len(l.times)); n != len(l.times) {
		r.fail()
	}
	for i := range l.times {
		if l.times[i] = r.int(); l.times[i] > l.last {
			r.fail()
		}
	}
}

// usedOf is the time of the newest event of a long window and the seq when it was
// last used, by its value.
func usedOf(value []byte) (t int64, used uint64, err error) {
	r := &reader{b: value}
	if r.byte() != codecVersion {
		return 0, 0, errValue
	}
	r.byte()
	t, used = r.time(0), r.bounded(1<<60)
	return t, used, r.err
}
