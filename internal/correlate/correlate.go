// Package correlate counts and sequences matches within windows of event time:
// all of Sigma's correlation types, and what has not been seen before
// ([Set.FirstSeen]).
//
// It is a plain data structure with one owner: no goroutine, no timer, no wall
// clock, so that a replay gives the same answer every time. Windows slide: at
// each matching event the window is the timespan up to and including its time.
// One window is kept per correlation and combination of its group-by values; a
// missing value is a value of its own.
//
// # Exact windows
//
// Up to [MaxExact] every match is held (window.go). Events may come late by up to
// Limits.Tolerance: they are put in their place, and every window that they lie
// in is looked at again. What is later than that is counted and no longer joins
// a window. These windows live in memory; a Store keeps them over a restart.
//
// # Long windows
//
// Longer ones, of up to 400 days, have a bounded form (long.go) and leave memory
// for the Store while unused. A late event counts in the newest window. Errors:
//
//   - value_count: exact up to [SampleSize] different values a window, above that
//     an estimate with a standard error of 2 % (adaptive sampling: values whose
//     hash ends in L zero bits stand for 2^L). After a peak it is exact again one
//     timespan after the count fell to half of SampleSize.
//   - event_count, value_sum, value_avg: buckets of an hour (up to 30 d) or a
//     UTC day; the window begins at the beginning of a bucket and is so longer
//     than the timespan by up to one. The total, all events' number and their
//     evidence go by these buckets in the other long forms, too.
//   - value_percentile: exact up to SampleSize events a window, above that of a
//     sample of half to all of that many: a standard error of at most 1.1 points.
//   - temporal: exact.
//   - temporal_ordered: exact for events that come in order.
//
// # The clock
//
// Time moves on with every event. 32 late ones in a row mean that the PC's clock
// was set back: what lies in the future then counts as of now, so that setting
// the clock loses nothing.
//
// # Memory
//
// It is bounded (Limits); what is dropped for it is counted (Stats). The test
// TestMemoryStaysWithinWhatLimitsSay holds the figures that Limits states.
package correlate

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// MaxExact is the longest timespan whose windows hold every match.
const MaxExact = 7 * 24 * time.Hour

// Limits bounds a Set. Zero fields take the default. The memory of a Set is at
// most about
//
//	Keys * 500 B + Entries * 40 B + Events * 8 KB + Cells * 80 B + Combinations * 120 B
//
// An entry is a match (of value_count: an element of it) in an exact window. A
// cell is a value, a bucket or a sampled event of a long window; each window
// takes 8 at least. Between two calls of Flush long windows that changed
// cannot leave memory: they may take up to twice Cells, see Pressed. What a
// Store holds is bounded by Stored windows, each of at most SampleSize cells of
// some 12 bytes and its evidence.
type Limits struct {
	Tolerance    time.Duration // how late an event may come
	Keys         int           // exact windows (correlation x group-by values)
	Entries      int           // matches held in all exact windows
	Events       int           // events held as evidence in all windows in memory, larger ones count more than once (eventCost)
	Evidence     int           // events held as evidence in one window
	Cells        int           // of all long windows in memory
	Stored       int           // long windows in the Store
	Combinations int           // that first-seen rules remember, in the Store and in memory each
}

// DefaultLimits hold a PC's state under some 55 MB, and far below as long as
// nobody fills it. Judgement: a PC has a few users; clocks of sensors on one PC
// differ by less than a second, recorded events of several sources by a flush
// interval of a minute; somebody who reads 100,000 files of 50 shares a month
// fills 50 windows of 4,096 cells.
var DefaultLimits = Limits{
	Tolerance: 2 * time.Minute, Keys: 10_000, Entries: 100_000, Events: 2_000, Evidence: 20,
	Cells: 200_000, Stored: 100_000, Combinations: 100_000,
}

// lateRun is how many late events in a row mean that the clock was set back.
const lateRun = 32

// maxTime bounds event times, in seconds of Unix time either way (the years 1833
// to 2106), so that neither times in ns nor their differences overflow.
const maxTime = 1 << 32

// Stats is what a Set holds, and what happened since it was made.
type Stats struct {
	Late       int64 // events too late to join a window
	ClockSteps int64 // times the clock was taken to be set back
	Evicted    int64 // exact windows dropped because there were too many, or too many entries in them
	Trimmed    int64 // entries dropped from a window because there were too many
	Lost       int64 // long windows dropped because there were too many: beyond Limits.Stored; or beyond Cells, without a Store or a Flush in time
	Forgotten  int64 // combinations of first-seen rules dropped because there were too many
	Broken     int64 // values in the Store that made no sense or could not be read: begun afresh

	Keys         int // exact windows now
	Entries      int // entries in them now
	Long         int // long windows in memory now
	Cells        int // cells in them now
	Stored       int // long windows in the Store, as of the last Flush
	Combinations int // of first-seen rules in memory now
	Learning     int // first-seen rules that still learn
}

// Firing is a correlation (or several of one rule of the incident table, see
// Set.Observe) whose condition holds after an event.
type Firing struct {
	Rule  *rules.Rule       // the most severe of them, the first among equals
	Event *event.Event      // the deciding event
	Keys  map[string]string // group-by values by field name; absent ones are left out

	// Totals maps a count's name ("files") to its value in the window, a mean or
	// percentage rounded to a whole number; Fresh to the part of it that no
	// firing has told before (of a mean or percentage: nothing). Nil for temporal
	// types.
	Totals, Fresh map[string]int64

	Evidence      []*event.Event // of the window, oldest first, the deciding one among them, capped
	EvidenceTotal int64          // events in the window
	EvidenceFresh int64          // of them, those that no firing has told before
	First         time.Time      // time of the window's first event
}

// Set is the windows of a program's correlations. It has one owner.
type Set struct {
	limits Limits
	store  Store // nil: none
	prog   *rules.Program
	corrs  []*corr  // in the program's order: each after those it refers to
	feeds  [][]int  // by rule: the correlations that refer to it, places in corrs
	heeded []bool   // by rule: whether a correlation refers to it or excepts it
	memory []*known // by rule: what a first-seen rule remembers; nil for others
	knowns []*known // those of memory that are not nil

	watermark int64 // newest event time seen, ns
	started   bool
	late      int // late events in a row
	steps     []step
	seq       uint64
	stats     Stats
	keys      int // exact windows
	long      int // long windows in memory
	events    int // cost of what is held as evidence
	kept      keeping

	hit     []bool // by rule, of the event at hand
	hits    []int  // those that are true
	todo    []uint64
	touched []touch
	buf     []byte
	hashes  []uint64
	parts   []entry
}

// step is a time to which the clock was set back, and seq then: what a window
// that was used before holds of later is taken to have happened by it.
type step struct {
	seq uint64
	t   int64
}

// maxSteps is how many steps of the clock are remembered for windows on disk.
const maxSteps = 8

// corr is one correlation and its windows.
type corr struct {
	rule    *rules.Rule
	def     *rules.Correlation
	prefix  prefix // of its windows' keys in a Store
	family  string // correlations of one family fire together
	span    int64
	bucket  int64             // ns; 0: the windows are exact
	life    int64             // a window is over so long after its newest event
	getters [][]*rules.Getter // of the key, by place in def.Rules
	aliased bool              // which differ
	windows map[key]*window
	entries int    // in them, if they are exact
	ring    window // next is the one used last, prev the one longest unused
}

// key is a combination of values: the first half of their SHA-256, so that long
// values take no more room than short ones and nobody can make two meet.
type key [16]byte

// touch is a window that the event at hand joined.
type touch struct {
	c      *corr
	key    key
	place  int    // in c.def.Rules: the first of the rules that put the event there
	places uint16 // of a temporal type: all of them, as bits
	w      *window
	fired  bool
	total  float64 // of the window that holds, else of the newest
	from   int     // entries[from:to] is that window, of an exact one
	to     int
}

// New makes the windows of a program. Without a Store (nil) everything is in
// memory.
func New(p *rules.Program, l Limits, st Store) *Set {
	d := DefaultLimits
	for _, f := range []struct{ v, def *int }{{&l.Keys, &d.Keys}, {&l.Entries, &d.Entries}, {&l.Events, &d.Events}, {&l.Evidence, &d.Evidence},
		{&l.Cells, &d.Cells}, {&l.Stored, &d.Stored}, {&l.Combinations, &d.Combinations}} {
		if *f.v <= 0 {
			*f.v = *f.def
		}
	}
	if l.Tolerance <= 0 {
		l.Tolerance = d.Tolerance
	}
	s := &Set{limits: l, store: st}
	s.bind(p)
	return s
}

// bind makes the correlations of a program, all windows empty.
func (s *Set) bind(p *rules.Program) {
	s.prog = p
	s.corrs, s.knowns = nil, nil
	s.feeds = make([][]int, len(p.Rules))
	s.heeded = make([]bool, len(p.Rules))
	s.memory = make([]*known, len(p.Rules))
	s.hit = make([]bool, len(p.Rules))
	for _, r := range p.Rules {
		if a := r.Addition; a != nil && a.FirstSeen != nil && r.Correlation == nil && !r.Disabled {
			s.memory[r.Index] = newKnown(r)
			s.knowns = append(s.knowns, s.memory[r.Index])
		}
		if r.Correlation == nil || r.Disabled {
			continue
		}
		c := s.newCorr(r)
		for _, i := range c.def.Rules {
			s.feeds[i] = append(s.feeds[i], len(s.corrs))
			s.heeded[i] = true
		}
		for _, i := range c.def.Except {
			s.heeded[i] = true
		}
		s.corrs = append(s.corrs, c)
	}
	s.todo = make([]uint64, (len(s.corrs)+63)/64)
}

func (s *Set) newCorr(r *rules.Rule) *corr {
	def := r.Correlation
	c := &corr{rule: r, def: def, prefix: newPrefix(kindExact, r.ID, r.Digest()), family: r.ID, span: int64(def.Timespan), windows: map[key]*window{}}
	c.ring.prev, c.ring.next = &c.ring, &c.ring
	if def.Timespan > MaxExact {
		c.prefix[0] = kindLong
		c.bucket = int64(time.Hour)
		if def.Timespan > 30*24*time.Hour {
			c.bucket = int64(24 * time.Hour)
		}
	}
	c.life = c.span + c.bucket + int64(s.limits.Tolerance)
	for _, i := range def.Rules {
		var gs []*rules.Getter
		for k := range def.GroupBy {
			gs = append(gs, def.GroupBy[k].For(i))
			c.aliased = c.aliased || len(def.GroupBy[k].ByRule) > 0
		}
		c.getters = append(c.getters, gs)
	}
	if t := r.Table(); t != "" {
		names := []string{t}
		for _, k := range def.GroupBy {
			names = append(names, k.Name)
		}
		names = append(names, "")
		for _, g := range r.Addition.GroupBy {
			names = append(names, g.Name)
		}
		c.family = strings.Join(names, "\x00")
	}
	return c
}

// Swap goes over to another program. Windows of correlations that count the
// same (whatever their thresholds) are kept, and so is what first-seen rules
// that match the same remember; the others' is forgotten, in the Store at the
// next Flush.
func (s *Set) Swap(p *rules.Program) {
	corrs, knowns := map[prefix]*corr{}, map[prefix]*known{}
	for _, c := range s.corrs {
		corrs[c.prefix] = c
	}
	for _, k := range s.knowns {
		knowns[k.prefix] = k
	}
	s.bind(p)
	for _, c := range s.corrs {
		o := corrs[c.prefix]
		if o == nil {
			continue
		}
		delete(corrs, c.prefix)
		c.windows, c.entries = o.windows, o.entries
		if o.ring.next != &o.ring {
			c.ring.next, c.ring.prev = o.ring.next, o.ring.prev
			c.ring.next.prev, c.ring.prev.next = &c.ring, &c.ring
		}
		for _, w := range c.windows {
			w.c = c
			if w.long != nil {
				w.long.c = c
			}
		}
	}
	for i, k := range s.knowns {
		if o := knowns[k.prefix]; o != nil {
			o.rule, o.def = k.rule, k.def
			s.knowns[i], s.memory[k.rule.Index] = o, o
		}
	}
	for _, o := range corrs {
		for _, w := range o.windows {
			s.drop(w)
		}
	}
	s.kept.seen = slices.DeleteFunc(s.kept.seen, func(f fresh) bool { return !slices.Contains(s.knowns, f.k) })
	s.kept.sweep = true
}

// Stats is what happened so far and what there is now.
func (s *Set) Stats() Stats {
	st := s.stats
	st.Keys, st.Long = s.keys, s.long
	for _, k := range s.knowns {
		st.Combinations += len(k.seen)
		if !k.begun || s.watermark < k.since+int64(k.def.Learn) {
			st.Learning++
		}
	}
	return st
}

// Newest is the newest event time seen, since the clock was last set back if it
// was; zero before the first event.
func (s *Set) Newest() time.Time {
	if !s.started {
		return time.Time{}
	}
	return time.Unix(0, s.watermark).UTC()
}

// Clock is Newest in Unix ns, 0 before the first event, and how many late events
// have come in a row since.
func (s *Set) Clock() (newest int64, late int) {
	if !s.started {
		return 0, 0
	}
	return s.watermark, s.late
}

// Wind sets the clock to what Clock gave before an event that is observed again:
// those in between matched nothing and moved only the clock.
func (s *Set) Wind(newest int64, late int) {
	if newest == 0 {
		return
	}
	newest = nanoseconds(time.Unix(0, newest))
	if s.started && newest < s.watermark {
		s.setBack(newest) // the event that did it is missing
	}
	s.started, s.watermark, s.late = true, newest, max(0, min(late, lateRun-1))
}

// nanoseconds is an event's time in Unix ns, bounded.
func nanoseconds(t time.Time) int64 {
	if sec := t.Unix(); sec < -maxTime {
		return -maxTime * int64(time.Second)
	} else if sec > maxTime {
		return maxTime * int64(time.Second)
	}
	return t.UnixNano()
}

// Observe takes an event with the rules it matched and appends the correlations
// whose condition now holds. It fires for every event at which the condition
// holds; what follows from that (one alert, repeats joining it) is for others
// to decide. Correlations that are documents of one rule of the incident table
// ("50 files or 100 MB") and group alike fire as one, with the totals of all. An
// event without matches moves the clock on and costs next to nothing.
func (s *Set) Observe(e *event.Event, matches []rules.Match, out []Firing) []Firing {
	t := nanoseconds(e.Time)
	inTime := s.arrive(t)
	feeds := false
	for _, m := range matches {
		if i := m.Rule.Index; s.heeded[i] {
			s.strike(i)
			feeds = feeds || len(s.feeds[i]) > 0
		}
	}
	switch {
	case !feeds:
	case !inTime:
		s.stats.Late++
	default:
		s.touched = s.touched[:0]
		for word := 0; word < len(s.todo); word++ {
			for s.todo[word] != 0 {
				c := s.corrs[word<<6+bits.TrailingZeros64(s.todo[word])]
				s.todo[word] &= s.todo[word] - 1
				if s.add(c, e, t) {
					s.strike(c.rule.Index) // feeds only later ones
				}
			}
		}
		out = s.fire(e, out)
		s.expire()
		clear(s.touched)
	}
	for _, i := range s.hits {
		s.hit[i] = false
	}
	s.hits = s.hits[:0]
	clear(s.todo)
	return out
}

// strike notes that a rule matched the event at hand, and whom that concerns.
func (s *Set) strike(rule int) {
	if s.hit[rule] {
		return
	}
	s.hit[rule] = true
	s.hits = append(s.hits, rule)
	for _, i := range s.feeds[rule] {
		s.todo[i>>6] |= 1 << (i & 63)
	}
}

// arrive moves the clock of the windows on and tells whether an event of this
// time may still join one.
func (s *Set) arrive(t int64) bool {
	switch {
	case !s.started || t >= s.watermark:
		s.started, s.watermark, s.late = true, t, 0
	case t >= s.watermark-int64(s.limits.Tolerance):
		s.late = 0
	default:
		if s.late++; s.late < lateRun {
			return false
		}
		s.setBack(t)
	}
	return true
}

// setBack takes the PC's clock to have been set back to t.
func (s *Set) setBack(t int64) {
	s.late, s.watermark = 0, t
	s.stats.ClockSteps++
	if len(s.steps) == maxSteps {
		s.steps = slices.Delete(s.steps, 0, 1)
	}
	s.steps = append(s.steps, step{s.seq, t})
	for _, c := range s.corrs {
		for _, w := range c.windows {
			s.rewind(w, t)
		}
	}
}

// rewind makes what a window holds of later than now count as of now.
func (s *Set) rewind(w *window, now int64) {
	if w.newest() <= now+int64(s.limits.Tolerance) {
		return
	}
	if w.long != nil {
		w.long.rewind(now)
		rewindProofs(w.proofs, now)
	} else {
		w.rewind(now)
	}
	w.dirty = true
	s.kept.all = true
}

// excepted reports whether a filter takes the event out of a correlation.
func (s *Set) excepted(c *corr) bool {
	for _, i := range c.def.Except {
		if s.hit[i] {
			return true
		}
	}
	return false
}

// join finds the windows of a correlation that the event belongs to, and appends
// them to touched. That is one, unless rules that matched have other fields for
// its keys (aliases): then each says by its own which.
func (s *Set) join(c *corr, e *event.Event) []touch {
	from := len(s.touched)
	all := c.aliased || c.def.Type == rules.Temporal || c.def.Type == rules.TemporalOrdered
	for place, i := range c.def.Rules {
		if !s.hit[i] {
			continue
		}
		at := from
		if c.aliased || at == len(s.touched) {
			s.buf = appendKey(s.buf[:0], e, c.getters[place])
			k := keyOf(s.buf)
			for at < len(s.touched) && s.touched[at].key != k {
				at++
			}
			if at == len(s.touched) {
				s.touched = append(s.touched, touch{c: c, key: k, place: place})
			}
		}
		s.touched[at].places |= 1 << place
		if !all {
			break
		}
	}
	return s.touched[from:]
}

// find finds or makes a window.
func (s *Set) find(c *corr, k key) *window {
	w := c.windows[k]
	if w == nil {
		if w = s.recall(c, k); w == nil {
			w = newWindow(c, k)
		}
		s.enlist(w)
	} else {
		w.unlink()
	}
	w.link(&c.ring)
	w.dirty = true
	return w
}

// hold counts entries of a correlation's windows that came, or went.
func (s *Set) hold(c *corr, n int) {
	s.stats.Entries += n
	c.entries += n
}

// enlist takes a window into memory; the caller links it.
func (s *Set) enlist(w *window) {
	w.c.windows[w.key] = w
	s.hold(w.c, len(w.live()))
	s.events += w.cost()
	if w.long != nil {
		s.long++
		s.stats.Cells += w.long.cells()
	} else {
		s.keys++
	}
}

// unlist takes a window out of memory; it may live on in the Store.
func (s *Set) unlist(w *window) {
	w.unlink()
	delete(w.c.windows, w.key)
	s.hold(w.c, -len(w.live()))
	s.events -= w.cost()
	if w.long != nil {
		s.long--
		s.stats.Cells -= w.long.cells()
	} else {
		s.keys--
	}
}

// drop forgets a window.
func (s *Set) drop(w *window) {
	s.unlist(w)
	if w.stored {
		s.kept.gone = append(s.kept.gone, w.c.prefix.with(w.key))
	}
}

func (w *window) unlink() { w.prev.next, w.next.prev = w.next, w.prev }

func (w *window) link(ring *window) {
	w.prev, w.next = ring, ring.next
	w.prev.next, w.next.prev = w, w
}

// appendKey appends an event's values of some fields, so that no two
// combinations look the same.
func appendKey(b []byte, e *event.Event, getters []*rules.Getter) []byte {
	for _, g := range getters {
		v, ok := g.Value(e)
		if !ok {
			b = append(b, 0) // absent is not empty
			continue
		}
		b = appendPart(b, v)
	}
	return b
}

// appendPart appends a value of several, a list by its elements.
func appendPart(b []byte, v event.Value) []byte {
	if v.Type() == event.List {
		b = appendUint(append(b, 2), uint64(len(v.List())))
		for _, text := range v.List() {
			b = append(appendUint(b, uint64(len(text))), text...)
		}
		return b
	}
	b = append(b, 1, 0, 0, 0, 0)
	from := len(b)
	b = appendValue(b, v)
	binary.LittleEndian.PutUint32(b[from-4:], uint32(len(b)-from))
	return b
}

// expire forgets windows whose time is over. Where there are too many, those go of
// the correlation that has most of them, the longest unused first; too many entries
// are taken from its window at hand, if that has many, or else likewise: who floods
// one correlation, as anybody can who makes up names, must not blind the others.
func (s *Set) expire() {
	for i := range s.touched { // two for each that may have been added: the rest follows
		s.expireOf(s.touched[i].c)
	}
	s.expireOf(s.corrs[s.seq%uint64(len(s.corrs))]) // those that nothing touches any more have their turn
	for s.keys > s.limits.Keys {
		s.stats.Evicted++
		s.drop(s.greediest(func(c *corr) int { return len(c.windows) }).ring.prev)
	}
	for s.stats.Entries > s.limits.Entries {
		c := s.greediest(func(c *corr) int { return c.entries })
		w := c.ring.next
		if n := len(w.live()); n == 1 || n < s.limits.Entries/8 && len(c.windows) > 1 {
			s.stats.Evicted++
			s.drop(c.ring.prev)
			continue
		}
		over := min(s.stats.Entries-s.limits.Entries+s.limits.Entries/8, (len(w.live())+1)/2)
		s.stats.Trimmed += int64(over)
		s.hold(c, -over)
		w.forget(over)
		w.dirty = true
	}
	if s.stats.Cells > s.limits.Cells && s.stats.Cells >= s.kept.shrinkAt {
		s.shrink()
	}
}

func (s *Set) expireOf(c *corr) {
	for range 2 {
		w := c.ring.prev
		if w == &c.ring || w.newest() >= s.watermark-c.life {
			return
		}
		s.drop(w)
	}
}

// greediest is the correlation with exact windows that has most of something, the
// first among equals; there is one.
func (s *Set) greediest(has func(c *corr) int) *corr {
	var most *corr
	for _, c := range s.corrs {
		if c.bucket == 0 && len(c.windows) > 0 && (most == nil || has(c) > has(most)) {
			most = c
		}
	}
	return most
}

// shrink makes room among the long windows in memory: those that the Store has
// as they are leave, the longest unused first. Where that is not enough, they
// wait for a Flush up to twice the limit; beyond it, or without a Store, they
// are lost.
func (s *Set) shrink() {
	var clean, changed []*window
	for _, c := range s.corrs {
		if c.bucket == 0 {
			continue
		}
		for w := c.ring.prev; w != &c.ring; w = w.prev {
			if w.dirty || s.store == nil {
				changed = append(changed, w)
			} else {
				clean = append(clean, w)
			}
		}
	}
	byUse := func(a, b *window) int {
		if a.used < b.used {
			return -1
		}
		return 1
	}
	slices.SortFunc(clean, byUse)
	for _, w := range clean {
		if s.stats.Cells <= s.limits.Cells*3/4 {
			break
		}
		s.unlist(w)
	}
	most := 2 * s.limits.Cells
	if s.store == nil {
		most = s.limits.Cells
	}
	if s.stats.Cells > most {
		slices.SortFunc(changed, byUse)
		for _, w := range changed[:len(changed)-1] { // not the one at hand
			if s.stats.Cells <= most*7/8 {
				break
			}
			s.stats.Lost++
			s.drop(w)
		}
	}
	s.kept.shrinkAt = s.stats.Cells + s.limits.Cells/8
	if s.stats.Cells <= s.limits.Cells {
		s.kept.shrinkAt = 0
	}
}

// Pressed reports that long windows which changed since the last Flush, or what
// first-seen rules saw since, take up the memory they may: without a Flush soon
// some will be lost.
func (s *Set) Pressed() bool {
	return s.store != nil && (s.stats.Cells > s.limits.Cells || len(s.kept.seen) > s.limits.Combinations)
}
