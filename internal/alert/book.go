package alert

import (
	"bytes"
	"container/heap"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"sekisho/internal/event"
)

// Finding is one firing of a rule, before it is known whether it is a new alert
// or a repeat of one.
type Finding struct {
	Rule      Rule
	Level     Level
	Title     Text
	Advice    Text
	Incidents []string
	Group     string            // see Group
	Keys      map[string]string // a correlation's group-by values
	Quiet     time.Duration     // repeats within this time of the alert join it; 0: nothing joins, every firing is an alert

	Event         *event.Event   // the deciding event
	First         time.Time      // of the first event that counted; zero: the deciding event's
	Evidence      []*event.Event // nil: the deciding event alone
	EvidenceTotal int64          // 0: 1
	EvidenceFresh int64          // of them, those that no finding told before; 0: 1

	// Totals maps a count's name to its value, Fresh to the part that no finding
	// told before: an alert begins with the first and grows by the second.
	Totals, Fresh map[string]int64
}

// maxOpen is how many alerts a book holds open for repeats. Judgement: above
// that something floods; the oldest are closed, and a repeat is then a new
// alert, never a lost one.
const maxOpen = 1024

// maxOpenBytes is how much JSON their evidence may be, for the same reason and with
// the same effect. Judgement: as much as maxOpen alerts of 20 events of 2 KB each;
// a start of a program with arguments as long as a system allows is 100 times that.
const maxOpenBytes = 40 << 20

// closing is how long after its quiet time an alert is still kept open, for
// repeats that come late. At least the tolerance of the windows.
const closing = 3 * time.Minute

// Book is the alerts of one PC that repeats may still join. Time is event time.
// It has one owner.
type Book struct {
	open    map[string]*entry // by group, or that and earlier
	size    int               // of them all, see head.Size
	most    int               // that they may be: maxOpenBytes, less in tests
	ends    byEnd             // of those that are open, and some that were
	changed []*entry          // in the order of their change
	calls   uint              // of Paced
	touched map[string]bool   // groups that changed since they were last flushed
}

// byEnd is a heap of when quiet times end, the first on top.
type byEnd []end

// end is when the quiet time of a group's alert ends.
type end struct {
	t     time.Time
	group string
}

func (h byEnd) Len() int { return len(h) }
func (h byEnd) Less(i, j int) bool {
	c := h[i].t.Compare(h[j].t)
	return c < 0 || c == 0 && h[i].group < h[j].group
}
func (h byEnd) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byEnd) Push(x any)   { *h = append(*h, x.(end)) }
func (h *byEnd) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// entry is an open alert.
type entry struct {
	head
	a     *Alert // nil: it is as Load got it, and in raw
	raw   []byte
	dirty bool // changed since it was given out
	// For Paced: the call that gave it out last (0: none), with which level, and how
	// many calls it waits from there.
	given uint
	level Level
	pause uint
}

// head is what the book goes by, and the first line of a state that is flushed;
// the alert's JSON follows. An alert from before a restart is decoded when a
// repeat joins it: most never see one, and a start must not wait for them.
type head struct {
	ID    string    `json:"id"`
	Time  time.Time `json:"time"`
	Until time.Time `json:"until"`           // repeats up to here join
	Event string    `json:"event,omitempty"` // id of the deciding event, which an alert's JSON does not tell
	Size  int       `json:"size"`            // Alert.Size; 0 in states of before it was kept
	Sum   uint32    `json:"sum"`             // of group and alert: see checksum
}

// checksum is a CRC-32C, so that what makes no sense is found at once.
func checksum(group, alert []byte) uint32 {
	return crc32.Update(crc32.Checksum(group, castagnoli), castagnoli, alert)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewBook is an empty book.
func NewBook() *Book {
	return &Book{open: map[string]*entry{}, most: maxOpenBytes, touched: map[string]bool{}}
}

// earlier is put behind a group for an alert of before the one that is open: a log
// of hours ago is read while things happen, and neither may close the other.
const earlier = " earlier"

// Add takes a finding. raised says that it is a new alert; otherwise it joined
// one, which Changed will tell. The alert is the caller's.
func (b *Book) Add(f *Finding) (a *Alert, raised bool) {
	t := f.Event.Time
	group := f.Group
	if f.Quiet > 0 {
		for _, g := range [...]string{f.Group, f.Group + earlier} {
			e := b.open[g]
			if e == nil || t.After(e.Until) || !t.After(e.Time.Add(-f.Quiet)) || !e.wake() {
				continue
			}
			e.join(f)
			size := e.a.Size()
			b.size, e.Size = b.size+size-e.Size, size
			b.touched[g] = true
			if !e.dirty {
				e.dirty = true
				b.changed = append(b.changed, e)
			}
			b.bound()
			return nil, false
		}
		if e := b.open[group]; e != nil && t.Before(e.Time) {
			group += earlier
		}
	}
	a = &Alert{
		Time: t, ID: ID(f.Rule.ID, f.Keys, f.Event.ID), Rule: f.Rule, Level: f.Level, Title: f.Title, Advice: f.Advice, Group: f.Group,
		Incidents: f.Incidents, FirstSeen: t, LastSeen: t, Count: 1, Keys: f.Keys,
		Evidence: capped(f.Evidence, f.Event), EvidenceTotal: max(f.EvidenceTotal, 1), Event: f.Event,
	}
	if !f.First.IsZero() {
		a.FirstSeen = f.First
	}
	if len(f.Totals) > 0 {
		a.Totals = make(map[string]int64, len(f.Totals))
		for k, v := range f.Totals {
			a.Totals[k] = v
		}
	}
	if f.Quiet <= 0 {
		return a, true
	}
	if old := b.open[group]; old != nil && old.dirty {
		// Its last change goes out by Changed still: the entry stays in that list.
		b.remove(group)
	}
	if len(b.open) >= maxOpen {
		b.closeOldest()
	}
	b.enter(group, &entry{head: head{ID: a.ID, Time: t, Until: t.Add(f.Quiet), Event: a.Event.ID, Size: a.Size()}, a: a})
	b.touched[group] = true
	b.bound()
	return a.clone(), true
}

// bound closes alerts, those whose quiet time ends first, until the others are no
// larger together than they may be.
func (b *Book) bound() {
	for b.size > b.most && len(b.open) > 1 {
		b.closeOldest()
	}
}

// capped is evidence as an alert carries it.
func capped(list []*event.Event, deciding *event.Event) []*event.Event {
	if len(list) == 0 {
		return []*event.Event{deciding}
	}
	return trim(slices.Clone(list), deciding)
}

// trim leaves MaxEvidence events: the first half of them, the deciding one, and
// the latest.
func trim(list []*event.Event, deciding *event.Event) []*event.Event {
	for len(list) > MaxEvidence {
		i := MaxEvidence / 2
		if list[i] == deciding {
			i++
		}
		list = slices.Delete(list, i, i+1)
	}
	return list
}

// wake decodes an alert that Load took over; false if it makes no sense, which a
// state that another version wrote may come to: a repeat is then a new alert.
func (e *entry) wake() bool {
	if e.a != nil {
		return true
	}
	a, err := Decode(e.raw)
	if err != nil {
		return false
	}
	for _, ev := range a.Evidence {
		ev.Seal()
		if ev.ID != "" && ev.ID == e.Event {
			a.Event = ev
		}
	}
	e.a, e.raw = a, nil
	return true
}

// join adds a repeat to an alert.
func (e *entry) join(f *Finding) {
	a, t := e.a, f.Event.Time
	a.Count++
	if t.After(a.LastSeen) {
		a.LastSeen = t
	}
	if t.Before(a.FirstSeen) {
		a.FirstSeen = t
	}
	if f.Level > a.Level {
		a.Level = f.Level
	}
	for k, v := range f.Fresh {
		if a.Totals == nil {
			a.Totals = map[string]int64{}
		}
		a.Totals[k] += v
	}
	a.EvidenceTotal += max(f.EvidenceFresh, 1)
	for _, ev := range capped(f.Evidence, f.Event) {
		// Once it is full only what the repeat itself brings: the others it may have had.
		if len(a.Evidence) >= MaxEvidence && ev != f.Event {
			continue
		}
		if !slices.ContainsFunc(a.Evidence, func(x *event.Event) bool { return x == ev || x.ID != "" && x.ID == ev.ID }) {
			a.Evidence = trim(append(a.Evidence, ev), a.Event)
		}
	}
}

// clone is a copy that later repeats do not touch. Events are shared: nobody
// writes to them any more.
func (a *Alert) clone() *Alert {
	c := *a
	c.Evidence = slices.Clone(a.Evidence)
	if a.Totals != nil {
		c.Totals = make(map[string]int64, len(a.Totals))
		for k, v := range a.Totals {
			c.Totals[k] = v
		}
	}
	return &c
}

// Changed is the alerts that repeats have joined since they were last given
// out, each with the id it was raised with, in the order of their first change.
func (b *Book) Changed() []*Alert {
	if len(b.changed) == 0 {
		return nil
	}
	out := make([]*Alert, 0, len(b.changed))
	for _, e := range b.changed {
		e.dirty = false
		out = append(out, e.a.clone())
	}
	b.changed = nil
	return out
}

// maxPause is the longest pause of Paced, in calls: with the agent's two seconds
// between them about half a minute.
const maxPause = 16

// Paced is Changed for a caller that comes every few seconds: an alert that grows
// on and on is given out after 1, 2, 4 and so on up to maxPause calls, for a copy
// that takes an hour is not to be told a thousand times. After a rest, or
// with a higher level, it is given out at once.
func (b *Book) Paced() []*Alert {
	b.calls++
	var out []*Alert
	waiting := b.changed[:0]
	for _, e := range b.changed {
		since := b.calls - e.given
		switch {
		case e.given == 0 || since > 2*e.pause || e.a.Level > e.level:
			e.pause = 1
		case since < e.pause:
			waiting = append(waiting, e)
			continue
		default:
			e.pause = min(2*e.pause, maxPause)
		}
		e.given, e.level, e.dirty = b.calls, e.a.Level, false
		out = append(out, e.a.clone())
	}
	clear(b.changed[len(waiting):])
	b.changed = waiting
	return out
}

// Expire closes the alerts whose quiet time was over before now, in event time,
// and those that lie in the future: the clock was set back. Call it with the
// newest event time.
func (b *Book) Expire(now time.Time) {
	for g, e := range b.open {
		if now.After(e.Until.Add(closing)) || e.Time.After(now.Add(closing)) {
			b.close(g)
		}
	}
}

func (b *Book) close(group string) {
	b.remove(group)
	b.touched[group] = true
}

// remove takes the alert of a group out, if one is open.
func (b *Book) remove(group string) {
	if e := b.open[group]; e != nil {
		b.size -= e.Size
		delete(b.open, group)
	}
}

// Open reports whether an alert of this group and id may still grow.
func (b *Book) Open(group, id string) bool {
	for _, g := range [...]string{group, group + earlier} {
		if e := b.open[g]; e != nil && e.ID == id {
			return true
		}
	}
	return false
}

// Len is how many alerts are open.
func (b *Book) Len() int { return len(b.open) }

// enter opens an alert.
func (b *Book) enter(group string, e *entry) {
	b.remove(group)
	b.open[group] = e
	b.size += e.Size
	heap.Push(&b.ends, end{e.Until, group})
	if len(b.ends) > 2*maxOpen {
		b.ends = b.ends[:0]
		for g, e := range b.open {
			b.ends = append(b.ends, end{e.Until, g})
		}
		heap.Init(&b.ends)
	}
}

// closeOldest closes the alert whose quiet time ends first; there is one.
func (b *Book) closeOldest() {
	for {
		x := heap.Pop(&b.ends).(end)
		if e := b.open[x.group]; e != nil && e.Until.Equal(x.t) {
			b.close(x.group)
			return
		}
	}
}

// Flush hands out what changed since the last Flush that succeeded: the groups
// of the alerts that were opened, joined or closed, each with what appends its
// state, nil where none is open any more. That is put's to keep: it holds a copy
// of the alert and may be called from any goroutine. The changes that Changed has
// not given out yet are not told as such: take these first.
func (b *Book) Flush(put func(group string, state func(b []byte) []byte) error) error {
	for g := range b.touched {
		var state func(b []byte) []byte
		if e := b.open[g]; e != nil {
			h, a := e.head, e.a.clone() // it was touched, so it is decoded
			state = func(b []byte) []byte { return h.append(b, g, a) }
		}
		if err := put(g, state); err != nil {
			return err
		}
	}
	clear(b.touched)
	return nil
}

// append appends the state of an open alert.
func (h head) append(b []byte, group string, a *Alert) []byte {
	alert := a.AppendJSON(nil)
	h.Sum = checksum([]byte(group), alert)
	first, err := json.Marshal(h)
	if err != nil {
		return b // a time beyond the year 9999: a repeat after a restart is a new alert
	}
	return append(append(append(b, first...), '\n'), alert...)
}

// Load takes over an open alert that Flush handed out; the state may be reused
// afterwards. On an error the Book is as before.
func (b *Book) Load(group, state []byte) error {
	if len(b.open) >= maxOpen {
		return fmt.Errorf("more than %d open alerts", maxOpen)
	}
	first, alert, _ := bytes.Cut(state, []byte("\n"))
	e := &entry{raw: bytes.Clone(alert)}
	if err := json.Unmarshal(first, &e.head); err != nil {
		return fmt.Errorf("open alert: %w", err)
	}
	if e.Sum != checksum(group, alert) {
		return fmt.Errorf("open alert %s: it is not as it was written", e.ID)
	}
	if e.Size == 0 {
		e.Size = len(alert)
	}
	b.enter(string(group), e)
	return nil
}
