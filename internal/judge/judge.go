// Package judge is the way of an event from enrichment to alert on one PC, one
// straight pipeline: enrich -> rules -> correlate -> alert. The agent and replay
// run the same one, so that they judge alike. It has no goroutine but the one that
// writes a checkpoint.
//
// Everything goes by event time. Repeats of an alert join it for the rule's
// quiet time, counted from the alert: a rule with "repeat-after: 1h" raises at
// most one new alert an hour and group. A rule without a "sekisho" key alerts
// on every match, and nothing is joined or held back.
package judge

import (
	"slices"
	"sync/atomic"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/correlate"
	"sekisho/internal/event"
	"sekisho/internal/rules"
	"sekisho/internal/spool"
)

// Enricher fills in what settings, ledger, catalogue and people lists know of
// an event; package enrich has the one that counts.
type Enricher interface{ Apply(e *event.Event) }

// Options makes a Judge.
type Options struct {
	Program  *rules.Program
	Enricher Enricher         // nil: events are taken as they are
	Limits   correlate.Limits // zero: the defaults
}

// Judge judges the events of one PC. It has one owner; only Sync may be called
// by others.
type Judge struct {
	enricher Enricher
	prog     *rules.Program
	windows  *correlate.Set
	book     *alert.Book

	looked time.Time // event time when the book was last looked through
	stats  Stats
	held   bool // see Held

	store     *store                      // nil: nothing is kept on disk
	journal   atomic.Pointer[spool.Spool] // the store's, for Sync; nil: none
	unstored  error                       // why there is no store, if there should be one
	dir       string                      // where it should be
	began     time.Time                   // when Open was called
	tried     time.Time                   // when it was last tried to open the store
	recovery  Recovery
	given     []given        // given out and not yet known to be kept, if there is a store or should be
	waiting   int            // their size
	kept      uint64         // how many are kept, of all that were given out
	unsettled []*alert.Alert // updates that a checkpoint took from the book, to be given out

	matches []rules.Match
	firings []correlate.Firing
}

// Stats is what a Judge did since it was made; Events since counting began.
type Stats struct {
	Events  int64
	Matches int64
	Alerts  int64 // raised
	Repeats int64 // joined to one
	Windows correlate.Stats

	// Of a Judge that was opened:

	Since      time.Time // when counting began
	Journal    int64     // bytes of events that no checkpoint holds yet
	Missing    int64     // events that a restart would forget: they are in neither
	Checkpoint time.Time // when the last one was written
	Written    int64     // its bytes
	Problem    string    // why something may not survive a restart, "" if all will
}

// New makes a Judge that keeps nothing on disk.
func New(o Options) *Judge {
	return &Judge{enricher: o.Enricher, prog: o.Program, windows: correlate.New(o.Program, o.Limits, nil), book: alert.NewBook()}
}

// Event judges an event and returns the alerts it raises. The event is enriched
// in place; it belongs to the Judge and its alerts from then on and must not be
// written to, unless the Judge let go of it (see Held). Nobody may write to the alerts,
// either: a checkpoint may be writing them down.
func (j *Judge) Event(e *event.Event) []*alert.Alert {
	if j.enricher != nil {
		j.enricher.Apply(e)
	}
	newest, late := j.windows.Clock()
	j.stats.Events++
	return j.give(j.judge(e, func() {
		if j.store != nil {
			j.store.add(record{number: j.stats.Events, newest: newest, late: late}, e)
		}
	}))
}

// Held reports whether the event judged last is held on to, because a rule matched
// it: in windows, alerts, on the way to disk.
func (j *Judge) Held() bool { return j.held }

// judge is what Event does with an enriched event; it calls journal for those that
// a rule matched, before anything follows from them. What does not match moves the
// clock of the windows and nothing else, and is journaled where that was back:
// windows depend on when it was.
func (j *Judge) judge(e *event.Event, journal func()) []*alert.Alert {
	j.matches = j.prog.Match(e, j.matches[:0])
	j.held = len(j.matches) > 0
	if len(j.matches) == 0 {
		before := j.windows.Newest()
		j.firings = j.windows.Observe(e, nil, j.firings[:0])
		if j.windows.Newest().Before(before) {
			journal()
		}
		return nil
	}
	e.Seal() // it will be written often: journal, windows, alerts
	journal()
	all := j.matches
	j.matches = j.windows.FirstSeen(e, j.matches)
	j.stats.Matches += int64(len(j.matches))
	var findings []*alert.Finding
	for _, m := range j.matches {
		if m.Rule.Silent {
			continue
		}
		f := j.finding(m.Rule, e, nil)
		// A rule of the table may have several documents: an event is one finding
		// of it, at the level of the most severe.
		if i := slices.IndexFunc(findings, func(o *alert.Finding) bool { return f.Rule.Table != "" && o.Group == f.Group }); i >= 0 {
			if f.Level > findings[i].Level {
				findings[i] = f
			}
			continue
		}
		findings = append(findings, f)
	}
	j.firings = j.windows.Observe(e, j.matches, j.firings[:0])
	// Further than a minute back: the clock was set back. Only where a rule
	// matched, so that the journal tells all that the book depends on.
	if now := j.windows.Newest(); now.Sub(j.looked).Abs() > time.Minute {
		j.looked = now
		j.book.Expire(now)
	}
	for i := range j.firings {
		w := &j.firings[i]
		f := j.finding(w.Rule, e, w.Keys)
		f.First, f.Totals, f.Fresh = w.First, w.Totals, w.Fresh
		f.Evidence, f.EvidenceTotal, f.EvidenceFresh = w.Evidence, w.EvidenceTotal, w.EvidenceFresh
		findings = append(findings, f)
	}
	clear(all) // they hold on to rules and events
	clear(j.firings)
	var raised []*alert.Alert
	for _, f := range findings {
		if a, isNew := j.book.Add(f); isNew {
			j.stats.Alerts++
			raised = append(raised, a)
		} else {
			j.stats.Repeats++
		}
	}
	return raised
}

// finding is what a rule says of an event.
func (j *Judge) finding(r *rules.Rule, e *event.Event, keys map[string]string) *alert.Finding {
	level, _ := alert.ParseLevel(r.Level)
	f := &alert.Finding{
		Rule:  alert.Rule{ID: r.ID, Name: r.Title, Version: r.Version, Table: r.Table()},
		Level: level, Title: alert.Text{JA: r.Title, EN: r.Title}, Keys: keys, Event: e,
	}
	by := map[string]string{}
	for _, name := range []string{"host.id", "host.name"} {
		if v, ok := e.Get(name); ok {
			by[name] = v.String()
		}
	}
	id := r.ID
	if a := r.Addition; a != nil {
		if a.Title != (rules.Text{}) {
			f.Title = alert.Text(a.Title)
		}
		f.Advice, f.Incidents, f.Quiet = alert.Text(a.Advice), a.Incidents, a.RepeatAfter
		if a.Rule != "" {
			id = a.Rule
		}
		for i := range a.GroupBy {
			g := &a.GroupBy[i]
			if c := r.Correlation; c != nil && slices.ContainsFunc(c.GroupBy, func(k rules.Key) bool { return k.Name == g.Name }) {
				if v, ok := keys[g.Name]; ok { // which of an alias no field of the event tells
					by[g.Name] = v
				}
			} else if v, ok := g.Value(e); ok {
				by[g.Name] = v.String()
			}
		}
	} else {
		for k, v := range keys {
			by[k] = v
		}
	}
	if e.Test.V { // or a real finding could join a test's alert, and be taken for a test
		by["sekisho.test"] = "true"
	}
	f.Group = alert.Group(id, by)
	return f
}

// maxGiven is how many alerts may wait for the caller to keep them, besides those
// that Open recovered: more than the agent's queue holds while its disk is full.
// Over it the oldest are taken for lost, as they are there.
const maxGiven = 8192

// maxGivenBytes is how much JSON the evidence of those alerts may be: more than
// ordinary ones of that number are. Over it a kill loses the newest of them that
// are not kept yet.
const maxGivenBytes = 32 << 20

// given is an alert that was given out: by this run, or by the one before. Neither
// is there of one that there was no room for.
type given struct {
	a    *alert.Alert // nil: raw
	raw  Recovered
	size int // as it counts for maxGivenBytes
}

// gone reports that there was no room for it.
func (g given) gone() bool { return g.a == nil && g.raw.ID == "" }

// give notes the alerts that are given out, until the caller has kept them.
func (j *Judge) give(alerts []*alert.Alert) []*alert.Alert {
	if j.store != nil || j.unstored != nil {
		for _, a := range alerts {
			g := given{a: a, size: a.Size()}
			if j.waiting+g.size > maxGivenBytes {
				g = given{}
			}
			j.waiting += g.size
			j.given = append(j.given, g)
		}
		if over := len(j.given) - maxGiven - len(j.recovery.Alerts); over > 0 {
			j.Kept(j.kept + uint64(over))
		}
	}
	return alerts
}

// Updates is the alerts that repeats have joined since they were last given
// out, with the id they were raised with: to be delivered again.
func (j *Judge) Updates() []*alert.Alert { return j.updates(j.book.Changed()) }

// PacedUpdates is Updates for a caller that comes every few seconds: see
// alert.Book.Paced.
func (j *Judge) PacedUpdates() []*alert.Alert { return j.updates(j.book.Paced()) }

func (j *Judge) updates(changed []*alert.Alert) []*alert.Alert {
	up := append(j.unsettled, changed...)
	j.unsettled = nil
	return j.give(up)
}

// Settled reports that an alert which Event or Updates gave out will not change
// any more, as far as events of ordinary lateness go.
func (j *Judge) Settled(a *alert.Alert) bool { return !j.book.Open(a.Group, a.ID) }

// Swap goes over to other rules; the windows of those that count the same are
// kept, and so are alerts that repeats may join. Before that a checkpoint is
// tried and waited for: the journal is judged again by the rules that are in force
// after a kill, so nothing may be in it that others have judged. See Ahead for how
// the wait is kept short. Its error, if any, is in the Stats as well, and the rules
// are swapped all the same.
func (j *Judge) Swap(p *rules.Program) error {
	err := j.Checkpoint()
	j.prog = p
	j.windows.Swap(p)
	return err
}

// Stats is what happened so far.
func (j *Judge) Stats() Stats {
	s := j.stats
	s.Windows = j.windows.Stats()
	if j.unstored != nil {
		s.Problem = j.unstored.Error()
	}
	if st := j.store; st != nil {
		st.poll()
		s.Since, s.Checkpoint = st.meta.Began, st.meta.Checkpoint
		s.Journal, s.Missing, s.Written = st.length, st.missing, st.written
		if c := st.under; c != nil {
			s.Journal, s.Missing = s.Journal+c.length, s.Missing+c.missing
		}
		if st.problem != nil {
			s.Problem = st.problem.Error()
		}
	}
	return s
}
