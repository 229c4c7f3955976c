// Package correlate counts and sequences matches within windows of event time:
// Sigma's event_count, value_count, value_sum, temporal and temporal_ordered.
//
// It is a plain data structure with one owner: no goroutine, no timer, no wall
// clock, so that a replay gives the same answer every time. Windows slide: at
// each matching event the window is the timespan up to and including its time.
// Memory is bounded (Limits); what is dropped for it is counted (Stats).
//
// Events may come late by up to Limits.Tolerance: they are put in their place,
// and every window that they lie in is looked at again. What is later than that
// is counted and no longer joins a window. 32 late events in a row mean that the
// PC's clock was set back: windows that lie in the future are then dropped and
// counting goes on from there.
//
// State is kept per correlation and combination of its group-by values; a
// missing value is a value of its own.
package correlate

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// Limits bounds a Set. Zero fields take the default.
type Limits struct {
	Tolerance time.Duration // how late an event may come
	Keys      int           // windows (correlation x group-by values)
	Entries   int           // matches held in all windows
	Events    int           // events held as evidence in all windows
	Evidence  int           // events held as evidence in one window
}

// DefaultLimits hold a PC's state under some 15 MB. Judgement: a PC has a few
// users; 100,000 entries are 4.8 MB, 2,000 events of 2 KB are 4 MB; clocks of
// sensors on one PC differ by less than a second, recorded events of several
// sources by a flush interval of a minute.
var DefaultLimits = Limits{Tolerance: 2 * time.Minute, Keys: 10_000, Entries: 100_000, Events: 2_000, Evidence: 20}

// lateRun is how many late events in a row mean that the clock was set back.
const lateRun = 32

// maxAmount bounds one addend of a sum, so that sums cannot overflow: 16 TiB.
const maxAmount = 1 << 44

// Stats is what happened to a Set's memory since it was made.
type Stats struct {
	Late       int64 // events too late to join a window
	ClockSteps int64 // times the clock was taken to be set back
	Evicted    int64 // windows dropped because there were too many
	Trimmed    int64 // entries dropped from a window because there were too many
	Broken     int64 // values in the Store that made no sense: those windows began afresh
	Keys       int   // windows now
	Entries    int   // entries now
}

// Firing is a correlation (or several of one rule of the incident table, see
// Set.Observe) whose condition holds after an event.
type Firing struct {
	Rule  *rules.Rule       // the most severe of them, the first among equals
	Event *event.Event      // the deciding event
	Keys  map[string]string // group-by values by field name; absent ones are left out

	// Totals maps a count's name ("files") to its value in the window; Fresh to
	// the part of it that no firing has told before. Nil for temporal types.
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
	corrs  []*corr // in the program's order: each after those it refers to
	feeds  []bool  // by rule: whether a correlation refers to it

	watermark int64 // newest event time seen, ns
	started   bool
	late      int // late events in a row
	seq       uint64
	stats     Stats
	events    int   // held as evidence
	lru       group // ring: next is the one used last, prev the one longest unused

	hit     []bool // by rule, of the event at hand
	touched []touch
	buf     []byte
}

// corr is one correlation and its windows.
type corr struct {
	rule   *rules.Rule
	family string // correlations of one family fire together
	groups map[string]*group
}

// group is the window of one combination of group-by values.
type group struct {
	c          *corr
	key        string
	prev, next *group

	entries []entry // by time, then by arrival
	lo      int     // entries[lo:] lie in the window that ends with the newest
	sum     int64   // of amounts in the window: event_count, value_sum
	counts  map[uint64]int32
	events  int64 // in the window
	fresh   int64 // of sum or of new values: not told yet
	unseen  int64 // of events: not told yet
	told    uint64

	evidence []*event.Event // by time: the first that came while there was room
}

type entry struct {
	t    int64
	seq  uint64
	n    int64 // amount; for value_count a value's hash; for temporal types the rule's place
	lead bool  // first entry of its event
	news bool  // value_count: the value was new in the window
}

// touch is a window that the event at hand joined.
type touch struct {
	c     *corr
	g     *group
	fired bool
	total int64 // of the window that holds, else of the newest
	from  int   // entries[from:to] is that window
	to    int
}

// New makes the windows of a program. Without a Store (nil) everything is in
// memory.
func New(p *rules.Program, l Limits, st Store) *Set {
	d := DefaultLimits
	for _, f := range []struct{ v, def *int }{{&l.Keys, &d.Keys}, {&l.Entries, &d.Entries}, {&l.Events, &d.Events}, {&l.Evidence, &d.Evidence}} {
		if *f.v <= 0 {
			*f.v = *f.def
		}
	}
	if l.Tolerance <= 0 {
		l.Tolerance = d.Tolerance
	}
	s := &Set{limits: l, store: st}
	s.lru.prev, s.lru.next = &s.lru, &s.lru
	s.bind(p)
	return s
}

// bind makes the correlations of a program, all windows empty.
func (s *Set) bind(p *rules.Program) {
	s.prog = p
	s.corrs = nil
	s.feeds = make([]bool, len(p.Rules))
	s.hit = make([]bool, len(p.Rules))
	for _, r := range p.Rules {
		if r.Correlation == nil || r.Disabled {
			continue
		}
		c := &corr{rule: r, groups: map[string]*group{}, family: r.ID}
		if t := r.Table(); t != "" {
			names := []string{t}
			for _, k := range r.Correlation.GroupBy {
				names = append(names, k.Name)
			}
			names = append(names, "")
			for _, g := range r.Addition.GroupBy {
				names = append(names, g.Name)
			}
			c.family = strings.Join(names, "\x00")
		}
		for _, i := range r.Correlation.Rules {
			s.feeds[i] = true
		}
		s.corrs = append(s.corrs, c)
	}
}

// Swap goes over to another program. Windows of correlations that count the
// same (whatever their thresholds) are kept.
func (s *Set) Swap(p *rules.Program) {
	old := map[string]*corr{}
	for _, c := range s.corrs {
		old[c.rule.ID] = c
	}
	s.bind(p)
	for _, c := range s.corrs {
		if o := old[c.rule.ID]; o != nil && o.rule.Digest() == c.rule.Digest() {
			c.groups = o.groups
			for _, g := range c.groups {
				g.c = c
			}
			delete(old, c.rule.ID)
		}
	}
	for _, o := range old {
		for _, g := range o.groups {
			s.drop(g)
		}
	}
}

// Stats is what happened so far.
func (s *Set) Stats() Stats {
	st := s.stats
	for _, c := range s.corrs {
		st.Keys += len(c.groups)
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

// Observe takes an event with the rules it matched and appends the correlations
// whose condition now holds. It fires for every event at which the condition
// holds; what follows from that (one alert, repeats joining it) is for others
// to decide. Correlations that are documents of one rule of the incident table
// ("50 files or 100 MB") and group alike fire as one, with the totals of all.
func (s *Set) Observe(e *event.Event, matches []rules.Match, out []Firing) []Firing {
	t := e.Time.UnixNano()
	inTime := s.arrive(t)
	any := false
	for _, m := range matches {
		if s.feeds[m.Rule.Index] {
			any = true
			s.hit[m.Rule.Index] = true
		}
	}
	if !any {
		return out
	}
	if inTime {
		s.touched = s.touched[:0]
		for _, c := range s.corrs {
			if first := s.matched(c); first >= 0 {
				tc := s.add(c, e, t, first)
				if tc.fired {
					s.hit[c.rule.Index] = true
				}
				s.touched = append(s.touched, tc)
			}
		}
		out = s.fire(e, out)
	} else {
		s.stats.Late++
	}
	clear(s.hit)
	s.expire()
	return out
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
		s.late, s.watermark = 0, t
		s.stats.ClockSteps++
		for _, c := range s.corrs {
			for _, g := range c.groups {
				if g.entries[len(g.entries)-1].t > t+int64(s.limits.Tolerance) {
					s.drop(g)
				}
			}
		}
	}
	return true
}

// matched is the first of a correlation's rules that matched the event, -1 for
// none.
func (s *Set) matched(c *corr) int {
	for _, i := range c.rule.Correlation.Rules {
		if s.hit[i] {
			return i
		}
	}
	return -1
}

// group finds or makes the window that the event belongs to.
func (s *Set) group(c *corr, e *event.Event, rule int) *group {
	s.buf = s.buf[:0]
	for i := range c.rule.Correlation.GroupBy {
		v, ok := c.rule.Correlation.GroupBy[i].For(rule).Value(e)
		if !ok {
			s.buf = append(s.buf, 0xff) // never in UTF-8: absent is not empty
		} else if v.Type() == event.String {
			s.buf = append(s.buf, v.Str()...)
		} else {
			s.buf = append(s.buf, v.String()...)
		}
		s.buf = append(s.buf, 0)
	}
	g := c.groups[string(s.buf)]
	if g == nil {
		g = &group{c: c, key: string(s.buf)}
		if counting := c.rule.Correlation.Type; counting == rules.ValueCount || counting == rules.Temporal {
			g.counts = map[uint64]int32{}
		}
		c.groups[g.key] = g
	} else {
		g.prev.next, g.next.prev = g.next, g.prev
	}
	g.prev, g.next = &s.lru, s.lru.next
	g.prev.next, g.next.prev = g, g
	return g
}

// drop forgets a window.
func (s *Set) drop(g *group) {
	g.prev.next, g.next.prev = g.next, g.prev
	delete(g.c.groups, g.key)
	s.stats.Entries -= len(g.entries)
	s.events -= len(g.evidence)
}

// add puts the event into its window and asks whether the condition holds.
func (s *Set) add(c *corr, e *event.Event, t int64, rule int) touch {
	def := c.rule.Correlation
	tc := touch{c: c}
	switch def.Type {
	case rules.EventCount:
		tc.g = s.group(c, e, rule)
		s.insert(tc.g, entry{t: t, n: 1, lead: true}, e)
	case rules.ValueSum:
		v, ok := def.Fields[0].Value(e)
		if !ok {
			return tc
		}
		if _, number := v.Float(); !number {
			return tc
		}
		tc.g = s.group(c, e, rule)
		s.insert(tc.g, entry{t: t, n: min(max(v.Int(), -maxAmount), maxAmount), lead: true}, e)
	case rules.ValueCount:
		values := s.values(def, e)
		if len(values) == 0 {
			return tc
		}
		tc.g = s.group(c, e, rule)
		for i, v := range values {
			s.insert(tc.g, entry{t: t, n: int64(v), lead: i == 0}, e)
		}
	default:
		tc.g = s.group(c, e, rule)
		lead := true
		for place, i := range def.Rules {
			if s.hit[i] {
				s.insert(tc.g, entry{t: t, n: int64(place), lead: lead}, e)
				lead = false
			}
		}
	}
	s.judge(&tc, t)
	return tc
}

// values is the hashes of the values that a value_count counts: the elements of
// a list each on their own, and of several fields the combination.
func (s *Set) values(def *rules.Correlation, e *event.Event) []uint64 {
	if len(def.Fields) == 1 {
		v, ok := def.Fields[0].Value(e)
		if !ok {
			return nil
		}
		if v.Type() == event.List {
			out := make([]uint64, 0, len(v.List()))
			for _, text := range v.List() {
				out = append(out, hash(text))
			}
			slices.Sort(out)
			return slices.Compact(out)
		}
		return []uint64{hash(v.String())}
	}
	var b strings.Builder
	for i := range def.Fields {
		v, ok := def.Fields[i].Value(e)
		if !ok {
			return nil
		}
		b.WriteString(v.String())
		b.WriteByte(0)
	}
	return []uint64{hash(b.String())}
}

// hash is 64 bits of SHA-256: nobody can choose names that count as one, and a
// state kept on disk stays good.
func hash(text string) uint64 {
	h := sha256.Sum256([]byte(text))
	return binary.LittleEndian.Uint64(h[:])
}

// insert puts an entry in its place and keeps the window up to date.
func (s *Set) insert(g *group, n entry, e *event.Event) {
	s.seq++
	n.seq = s.seq
	if n.lead {
		s.keep(g, e)
	}
	at := len(g.entries)
	for at > 0 && g.entries[at-1].t > n.t {
		at--
	}
	s.stats.Entries++
	span := int64(g.c.rule.Correlation.Timespan)
	newest := n.t
	if len(g.entries) > 0 {
		newest = max(newest, g.entries[len(g.entries)-1].t)
	}
	inside := n.t >= newest-span
	if inside {
		s.count(g, &n)
	}
	g.entries = slices.Insert(g.entries, at, n)
	if !inside {
		g.lo++
	}
	for g.lo < len(g.entries) && g.entries[g.lo].t < newest-span {
		s.uncount(g, &g.entries[g.lo])
		g.lo++
	}
	s.trim(g, newest-span-int64(s.limits.Tolerance))
}

// keep holds an event as evidence, if there is room.
func (s *Set) keep(g *group, e *event.Event) {
	if len(g.evidence) >= s.limits.Evidence || s.events >= s.limits.Events {
		return
	}
	at := len(g.evidence)
	for at > 0 && g.evidence[at-1].Time.After(e.Time) {
		at--
	}
	g.evidence = slices.Insert(g.evidence, at, e)
	s.events++
}

// count adds an entry to the window's sums.
func (s *Set) count(g *group, n *entry) {
	switch g.c.rule.Correlation.Type {
	case rules.ValueCount, rules.Temporal:
		g.counts[uint64(n.n)]++
		if g.counts[uint64(n.n)] == 1 {
			n.news = true
			g.fresh++
		}
	case rules.TemporalOrdered:
	default:
		g.sum += n.n
		g.fresh += n.n
	}
	if n.lead {
		g.events++
		g.unseen++
	}
}

// uncount takes an entry out of the window's sums.
func (s *Set) uncount(g *group, n *entry) {
	switch g.c.rule.Correlation.Type {
	case rules.ValueCount, rules.Temporal:
		if g.counts[uint64(n.n)]--; g.counts[uint64(n.n)] <= 0 {
			delete(g.counts, uint64(n.n))
		}
		if n.news && n.seq > g.told {
			g.fresh--
		}
	case rules.TemporalOrdered:
	default:
		g.sum -= n.n
		if n.seq > g.told {
			g.fresh -= n.n
		}
	}
	if n.lead {
		g.events--
		if n.seq > g.told {
			g.unseen--
		}
	}
}

// trim forgets entries before a time, which no late event can need any more.
func (s *Set) trim(g *group, before int64) {
	old := 0
	for old < len(g.evidence) && g.evidence[old].Time.UnixNano() < before {
		old++
	}
	if old > 0 {
		g.evidence = slices.Delete(g.evidence, 0, old)
		s.events -= old
	}
	n := 0
	for n < g.lo && g.entries[n].t < before {
		n++
	}
	// Moving the rest down costs as much as the rest is long: wait until half is waste.
	if n == 0 || n < len(g.entries)/2 && n < 1024 {
		return
	}
	s.cut(g, n)
}

// cut forgets the first n entries, which must lie before the window.
func (s *Set) cut(g *group, n int) {
	g.entries = slices.Delete(g.entries, 0, n)
	g.lo -= n
	s.stats.Entries -= n
}

// total is the count of the newest window.
func (g *group) total() int64 {
	switch g.c.rule.Correlation.Type {
	case rules.ValueCount, rules.Temporal:
		return int64(len(g.counts))
	}
	return g.sum
}

// judge asks whether the condition holds in a window that the event lies in.
func (s *Set) judge(tc *touch, t int64) {
	g, def := tc.g, tc.c.rule.Correlation
	tc.from, tc.to, tc.total = g.lo, len(g.entries), g.total()
	newest := g.entries[len(g.entries)-1].t
	if t >= newest-int64(def.Timespan) && s.holds(g, g.lo, len(g.entries), g.total()) &&
		(def.Type != rules.TemporalOrdered || t < newest || s.closes(g)) {
		tc.fired = true
		return
	}
	if t == newest {
		return
	}
	// Late: look at each window that ends between its time and a timespan later.
	span := int64(def.Timespan)
	at := sort.Search(len(g.entries), func(i int) bool { return g.entries[i].t >= t })
	for end := at; end < len(g.entries) && g.entries[end].t <= t+span; end++ {
		if end+1 < len(g.entries) && g.entries[end+1].t == g.entries[end].t {
			continue
		}
		from := sort.Search(end, func(i int) bool { return g.entries[i].t >= g.entries[end].t-span })
		if total := g.measure(from, end+1); s.holds(g, from, end+1, total) {
			tc.fired, tc.from, tc.to, tc.total = true, from, end+1, total
			return
		}
	}
}

// closes reports whether the entry that arrived last completes a sequence.
func (s *Set) closes(g *group) bool {
	for i := len(g.entries) - 1; i >= 0; i-- {
		if g.entries[i].seq == s.seq {
			return int(g.entries[i].n) == len(g.c.rule.Correlation.Rules)-1
		}
	}
	return false
}

// measure is the count of entries[from:to].
func (g *group) measure(from, to int) int64 {
	switch g.c.rule.Correlation.Type {
	case rules.ValueCount, rules.Temporal:
		distinct := map[int64]bool{}
		for _, n := range g.entries[from:to] {
			distinct[n.n] = true
		}
		return int64(len(distinct))
	}
	sum := int64(0)
	for _, n := range g.entries[from:to] {
		sum += n.n
	}
	return sum
}

func (s *Set) holds(g *group, from, to int, total int64) bool {
	def := g.c.rule.Correlation
	switch def.Type {
	case rules.Temporal:
		return int(total) == len(def.Rules)
	case rules.TemporalOrdered:
		next := int64(0)
		for _, n := range g.entries[from:to] {
			if n.n == next {
				if next++; int(next) == len(def.Rules) {
					return true
				}
			}
		}
		return false
	}
	for _, cond := range def.Conditions {
		if !cond.Holds(float64(total)) {
			return false
		}
	}
	return true
}

// fire makes firings of what was touched: one per family that fired.
func (s *Set) fire(e *event.Event, out []Firing) []Firing {
	for i := range s.touched {
		tc := &s.touched[i]
		if !tc.fired || tc.c.rule.Silent {
			continue
		}
		f := Firing{Rule: tc.c.rule, Event: e, Keys: s.keys(tc, e)}
		level := slices.Index(rules.Levels, tc.c.rule.Level)
		for j := range s.touched {
			o := &s.touched[j]
			if o.g == nil || o.c.family != tc.c.family || o.c.rule.Silent || o != tc && !maps.Equal(f.Keys, s.keys(o, e)) {
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

// tell adds a window's counts and evidence to a firing, and marks them as told.
func (s *Set) tell(f *Firing, tc *touch) {
	g := tc.g
	if name := tc.c.rule.Correlation.Total; name != "" {
		if f.Totals == nil {
			f.Totals, f.Fresh = map[string]int64{}, map[string]int64{}
		}
		if v, twice := f.Totals[name]; !twice || tc.total > v {
			f.Totals[name], f.Fresh[name] = tc.total, min(g.fresh, tc.total)
		}
	}
	events := g.events
	if tc.from != g.lo || tc.to != len(g.entries) { // an older window, completed by a late event
		events = 0
		for _, n := range g.entries[tc.from:tc.to] {
			if n.lead {
				events++
			}
		}
	}
	if events > f.EvidenceTotal {
		f.EvidenceTotal, f.EvidenceFresh = events, max(1, min(g.unseen, events))
		first, last := g.entries[tc.from].t, g.entries[tc.to-1].t
		f.First = time.Unix(0, first).UTC()
		f.Evidence = nil
		for _, e := range g.evidence {
			if t := e.Time.UnixNano(); t >= first && t <= last && e != f.Event && len(f.Evidence) < s.limits.Evidence-1 {
				f.Evidence = append(f.Evidence, e)
			}
		}
		f.Evidence = append(f.Evidence, f.Event)
		slices.SortStableFunc(f.Evidence, func(a, b *event.Event) int { return a.Time.Compare(b.Time) })
	}
	g.fresh, g.unseen, g.told = 0, 0, s.seq
}

// keys is the group-by values of the event at hand.
func (s *Set) keys(tc *touch, e *event.Event) map[string]string {
	def := tc.c.rule.Correlation
	if len(def.GroupBy) == 0 {
		return nil
	}
	m := make(map[string]string, len(def.GroupBy))
	for i := range def.GroupBy {
		k := &def.GroupBy[i]
		if v, ok := k.For(s.matched(tc.c)).Value(e); ok {
			m[k.Name] = v.String()
		}
	}
	return m
}

// expire forgets windows whose time is over and, where there are too many,
// those unused for longest.
func (s *Set) expire() {
	for range 2 { // two for each that may have been added: the rest follows
		g := s.lru.prev
		if g == &s.lru || g.entries[len(g.entries)-1].t >= s.watermark-int64(g.c.rule.Correlation.Timespan)-int64(s.limits.Tolerance) {
			break
		}
		s.drop(g)
	}
	for s.size() > s.limits.Keys {
		s.stats.Evicted++
		s.drop(s.lru.prev)
	}
	for s.stats.Entries > s.limits.Entries {
		g := s.lru.prev
		if g != s.lru.next { // not the last one
			s.stats.Evicted++
			s.drop(g)
			continue
		}
		over := s.stats.Entries - s.limits.Entries + s.limits.Entries/8
		for i := g.lo; i < over; i++ {
			s.uncount(g, &g.entries[i])
			s.stats.Trimmed++
		}
		g.lo = max(g.lo, over)
		s.cut(g, over)
	}
}

func (s *Set) size() int {
	n := 0
	for _, c := range s.corrs {
		n += len(c.groups)
	}
	return n
}
