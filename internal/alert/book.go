package alert

import (
	"encoding/json"
	"fmt"
	"maps"
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
// alert, never a lost one. With 20 events of 2 KB each it is 40 MB at worst.
const maxOpen = 1024

// closing is how long after its quiet time an alert is still kept open, for
// repeats that come late. At least the tolerance of the windows.
const closing = 3 * time.Minute

// Book is the alerts of one PC that repeats may still join. Time is event time.
// It has one owner.
type Book struct {
	open    map[string]*entry // by group
	changed []*entry          // in the order of their change
	touched map[string]bool   // groups that changed since they were last flushed
}

type entry struct {
	a     *Alert
	until time.Time // repeats up to here join
	dirty bool      // changed since it was given out
}

// NewBook is an empty book.
func NewBook() *Book { return &Book{open: map[string]*entry{}, touched: map[string]bool{}} }

// Add takes a finding. raised says that it is a new alert; otherwise it joined
// one, which Changed will tell. The alert is the caller's.
func (b *Book) Add(f *Finding) (a *Alert, raised bool) {
	t := f.Event.Time
	if e := b.open[f.Group]; f.Quiet > 0 && e != nil && !t.After(e.until) && t.After(e.a.Time.Add(-f.Quiet)) {
		e.join(f)
		b.touched[f.Group] = true
		if !e.dirty {
			e.dirty = true
			b.changed = append(b.changed, e)
		}
		return nil, false
	}
	a = &Alert{
		Time: t, ID: ID(f.Rule.ID, f.Keys, f.Event.ID), Rule: f.Rule, Level: f.Level, Title: f.Title, Advice: f.Advice, Group: f.Group,
		Incidents: f.Incidents, FirstSeen: t, LastSeen: t, Count: 1, Keys: f.Keys,
		Evidence: cap20(f.Evidence, f.Event), EvidenceTotal: max(f.EvidenceTotal, 1), Event: f.Event,
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
	if old := b.open[f.Group]; old != nil && old.dirty {
		// Its last change goes out by Changed still: the entry stays in that list.
		delete(b.open, f.Group)
	}
	if len(b.open) >= maxOpen {
		b.closeOldest()
	}
	b.open[f.Group] = &entry{a: a, until: t.Add(f.Quiet)}
	b.touched[f.Group] = true
	return a.clone(), true
}

// cap20 is evidence as an alert carries it: at most MaxEvidence, the oldest
// and the deciding one.
func cap20(list []*event.Event, deciding *event.Event) []*event.Event {
	if len(list) == 0 {
		return []*event.Event{deciding}
	}
	list = slices.Clone(list)
	for len(list) > MaxEvidence {
		i := len(list) - 1
		if list[i] == deciding {
			i--
		}
		list = slices.Delete(list, i, i+1)
	}
	return list
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
	for _, ev := range cap20(f.Evidence, f.Event) {
		if len(a.Evidence) >= MaxEvidence {
			break
		}
		if !slices.ContainsFunc(a.Evidence, func(x *event.Event) bool { return x == ev || x.ID != "" && x.ID == ev.ID }) {
			a.Evidence = append(a.Evidence, ev)
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

// Expire closes the alerts whose quiet time was over before now, in event time,
// and those that lie in the future: the clock was set back. Call it with the
// newest event time.
func (b *Book) Expire(now time.Time) {
	for g, e := range b.open {
		if now.After(e.until.Add(closing)) || e.a.Time.After(now.Add(closing)) {
			b.close(g)
		}
	}
}

func (b *Book) close(group string) {
	delete(b.open, group)
	b.touched[group] = true
}

// Open reports whether an alert of this group and id may still grow.
func (b *Book) Open(group, id string) bool {
	e := b.open[group]
	return e != nil && e.a.ID == id
}

// Len is how many alerts are open.
func (b *Book) Len() int { return len(b.open) }

func (b *Book) closeOldest() {
	oldest := ""
	for g, e := range b.open {
		if o := b.open[oldest]; o == nil || e.until.Before(o.until) || e.until.Equal(o.until) && g < oldest {
			oldest = g
		}
	}
	b.close(oldest)
}

// openState is an open alert as it is kept over a restart.
type openState struct {
	Alert json.RawMessage `json:"alert"`
	Event string          `json:"event"` // id of the deciding event, which an alert's JSON does not tell
	Until time.Time       `json:"until"`
}

// Flush hands out what changed since the last Flush that succeeded: the groups
// of the alerts that were opened, joined or closed, each with its state, nil
// where none is open any more. The changes that Changed has not given out yet
// are not told as such: take these first.
func (b *Book) Flush(put func(group, state []byte) error) error {
	for _, g := range slices.Sorted(maps.Keys(b.touched)) {
		var state []byte
		if e := b.open[g]; e != nil {
			st := openState{Alert: e.a.AppendJSON(nil), Until: e.until}
			if e.a.Event != nil {
				st.Event = e.a.Event.ID
			}
			var err error
			if state, err = json.Marshal(st); err != nil {
				return fmt.Errorf("open alert %s: %w", e.a.ID, err)
			}
		}
		if err := put([]byte(g), state); err != nil {
			return err
		}
	}
	clear(b.touched)
	return nil
}

// Load takes over an open alert that Flush handed out. On an error the Book is
// as before.
func (b *Book) Load(group, state []byte) error {
	if len(b.open) >= maxOpen {
		return fmt.Errorf("more than %d open alerts", maxOpen)
	}
	var st openState
	if err := json.Unmarshal(state, &st); err != nil {
		return fmt.Errorf("open alert: %w", err)
	}
	a, err := Decode(st.Alert)
	if err != nil {
		return fmt.Errorf("open alert: %w", err)
	}
	if a.Group != string(group) {
		return fmt.Errorf("open alert %s: group %q is kept as %q", a.ID, a.Group, group)
	}
	for _, e := range a.Evidence {
		if e.ID != "" && e.ID == st.Event {
			a.Event = e
		}
	}
	b.open[a.Group] = &entry{a: a, until: st.Until}
	return nil
}
