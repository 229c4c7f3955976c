package alert

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
)

var t0 = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

func finding(minutes int, quiet time.Duration) *Finding {
	e := event.New(event.FileCopied, t0.Add(time.Duration(minutes)*time.Minute))
	e.ID = fmt.Sprint("e", minutes)
	return &Finding{Rule: Rule{ID: "r"}, Level: Medium, Group: "g", Quiet: quiet, Event: e,
		Totals: map[string]int64{"files": 50}, Fresh: map[string]int64{"files": 1}}
}

func TestRepeatsJoinForTheQuietTimeCountedFromTheAlert(t *testing.T) {
	b := NewBook()
	first, raised := b.Add(finding(0, time.Hour))
	if !raised || first.Count != 1 || first.Totals["files"] != 50 {
		t.Fatalf("got %+v, %v", first, raised)
	}
	for _, m := range []int{10, 60, 30} { // the last came late
		f := finding(m, time.Hour)
		f.Level = High
		if _, raised := b.Add(f); raised {
			t.Errorf("minute %d: a new alert", m)
		}
	}
	if first.Count != 1 || len(first.Evidence) != 1 {
		t.Error("what was given out was changed")
	}
	changed := b.Changed()
	if len(changed) != 1 {
		t.Fatalf("%d changed, want 1", len(changed))
	}
	c := changed[0]
	if c.ID != first.ID || c.Count != 4 || c.Totals["files"] != 53 || c.EvidenceTotal != 4 || c.Level != High || !c.LastSeen.Equal(t0.Add(time.Hour)) || !c.Time.Equal(t0) {
		t.Errorf("got %+v", c)
	}
	if len(b.Changed()) != 0 {
		t.Error("told twice")
	}
	if second, raised := b.Add(finding(61, time.Hour)); !raised || second.ID == first.ID {
		t.Error("after the quiet time: want a new alert")
	}
}

// Live events, and among them those of a log of hours before.
func TestEventsOfLongBeforeDoNotCloseTheAlertThatIsOpen(t *testing.T) {
	b := NewBook()
	var raised []*Alert
	for _, m := range []int{600, 300, 601, 310, 602, 340, 659} {
		if a, isNew := b.Add(finding(m, time.Hour)); isNew {
			raised = append(raised, a)
		}
		if m == 310 { // and after a restart
			state := flushed(t, b, map[string]string{})
			b.Changed()
			b = NewBook()
			for g, s := range state {
				if err := b.Load([]byte(g), []byte(s)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(raised) != 2 || !b.Open("g", raised[0].ID) || !b.Open("g", raised[1].ID) {
		t.Fatalf("%d alerts, want one of then and one of now", len(raised))
	}
	b.Expire(t0.Add(11 * time.Hour))
	if b.Open("g", raised[1].ID) || !b.Open("g", raised[0].ID) {
		t.Error("the one of then should be closed, the one of now not")
	}

	// The clock was set back: the alert of the future is closed, the one since is not.
	b = NewBook()
	for i, m := range []int{600, 300, 301} {
		if _, isNew := b.Add(finding(m, time.Hour)); isNew != (i < 2) {
			t.Errorf("minute %d: a new alert: %v", m, isNew)
		}
	}
	b.Expire(t0.Add(301 * time.Minute))
	if _, isNew := b.Add(finding(302, time.Hour)); isNew {
		t.Error("a repeat after the clock was set back is a new alert")
	}
}

func TestAnAlertThatGrowsOnIsToldEverMoreRarely(t *testing.T) {
	b := NewBook()
	b.Add(finding(0, 10*time.Hour))
	var told []int
	grow := func(calls int, level Level) {
		told = nil
		for n := range calls {
			f := finding(1, 10*time.Hour)
			f.Level = level
			b.Add(f)
			for _, a := range b.Paced() {
				told = append(told, n)
				if a.Count != b.open[a.Group].a.Count {
					t.Errorf("call %d: told with a count of %d", n, a.Count)
				}
			}
		}
	}
	check := func(what string, want ...int) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("%s: told at calls %v, want %v", what, told, want)
		}
	}
	grow(60, Medium)
	check("growing", 0, 1, 3, 7, 15, 31, 47)
	grow(5, High)
	check("with a higher level", 0, 1, 3)
	b.Add(finding(1, 10*time.Hour))
	for n := range 40 { // what came last is not kept back for good
		if len(b.Paced()) == 1 && n > maxPause {
			t.Errorf("told after %d calls only", n)
		}
	}
	grow(3, High)
	check("after a rest", 0, 1)
	b.Add(finding(1, 10*time.Hour))
	if len(b.Changed()) != 1 || b.Paced() != nil {
		t.Error("Changed keeps something back, or it is told twice")
	}
}

func TestWithoutQuietTimeEveryFindingIsAnAlert(t *testing.T) {
	b := NewBook()
	for m := range 3 {
		if _, raised := b.Add(finding(m, 0)); !raised {
			t.Errorf("finding %d was held back", m)
		}
	}
	if b.Len() != 0 || b.Changed() != nil {
		t.Error("something is kept open")
	}
}

func TestEvidenceIsCappedAtTheFirstTheDecidingAndTheLatestEvents(t *testing.T) {
	f := finding(100, time.Hour)
	for m := range 30 {
		f.Evidence = append(f.Evidence, finding(m, 0).Event)
	}
	f.Evidence = append(f.Evidence, f.Event)
	f.EvidenceTotal = 31
	ids := func(a *Alert) (out string) {
		for _, e := range a.Evidence {
			out += " " + e.ID
		}
		return out
	}
	b := NewBook()
	a, _ := b.Add(f)
	first := " e0 e1 e2 e3 e4 e5 e6 e7 e8 e9"
	if want := first + " e21 e22 e23 e24 e25 e26 e27 e28 e29 e100"; ids(a) != want || a.EvidenceTotal != 31 {
		t.Errorf("raised with%s of %d, want%s", ids(a), a.EvidenceTotal, want)
	}
	// The person on duty sees what came last, and what the rule was met by.
	for m := range 15 {
		r := finding(101+m, time.Hour)
		r.Evidence = append(slices.Clone(f.Evidence[11:20]), r.Event) // the others are old, or were left out
		b.Add(r)
	}
	a = b.Changed()[0]
	if want := first + " e100 e107 e108 e109 e110 e111 e112 e113 e114 e115"; ids(a) != want || a.EvidenceTotal != 46 {
		t.Errorf("grew to%s of %d, want%s", ids(a), a.EvidenceTotal, want)
	}
}

// flushed is what a Book flushes, by group.
func flushed(t *testing.T, b *Book, into map[string]string) map[string]string {
	t.Helper()
	err := b.Flush(func(group string, state func([]byte) []byte) error {
		if state == nil {
			delete(into, group)
		} else {
			into[group] = string(state(nil))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return into
}

func TestABookComesBackAfterARestart(t *testing.T) {
	b := NewBook()
	first, _ := b.Add(finding(0, time.Hour))
	b.Add(finding(1, time.Hour))
	state := flushed(t, b, map[string]string{})
	if len(state) != 1 || len(flushed(t, b, map[string]string{})) != 0 {
		t.Fatalf("flushed %v, or again what did not change", state)
	}
	c := NewBook()
	if err := c.Load([]byte("g"), []byte(state["g"])); err != nil {
		t.Fatal(err)
	}
	if c.Changed() != nil || len(flushed(t, c, map[string]string{})) != 0 {
		t.Error("what was taken over is told as a change")
	}
	third := finding(2, time.Hour)
	c.Add(third)
	b.Add(third)
	if got, want := flushed(t, c, map[string]string{}), flushed(t, b, map[string]string{}); got["g"] != want["g"] {
		t.Errorf("got\n%s\nwant\n%s", got["g"], want["g"])
	}
	got := c.Changed()
	if len(got) != 1 || got[0].ID != first.ID || got[0].Count != 3 || got[0].Event.ID != "e0" {
		t.Errorf("got %+v", got)
	}
	c.Expire(t0.Add(2 * time.Hour))
	if c.Len() != 0 || c.Open("g", first.ID) {
		t.Error("an alert stays open for ever")
	}
	if state := flushed(t, c, state); len(state) != 0 {
		t.Errorf("closed and still kept: %v", state)
	}
}

func TestAFlushThatFailedComesAgain(t *testing.T) {
	b := NewBook()
	b.Add(finding(0, time.Hour))
	full := errors.New("full")
	if err := b.Flush(func(string, func([]byte) []byte) error { return full }); err != full {
		t.Errorf("got %v", err)
	}
	if len(flushed(t, b, map[string]string{})) != 1 {
		t.Error("it was forgotten")
	}
}

func TestAKeptAlertThatMakesNoSenseIsRefused(t *testing.T) {
	b := NewBook()
	b.Add(finding(0, time.Hour))
	good := flushed(t, b, map[string]string{})["g"]
	for name, state := range map[string]string{"empty": "", "torn": good[:len(good)/2], "another's": strings.Replace(good, `"group":"g"`, `"group":"h"`, 1), "no alert": `{"alert":{}}`} {
		c := NewBook()
		if err := c.Load([]byte("g"), []byte(state)); err == nil || c.Len() != 0 {
			t.Errorf("%s: %v, %d open", name, err, c.Len())
		}
	}
}

// Alerts of huge events are closed early, whether the book was kept meanwhile or not.
func TestABookOfHugeEventsIsBounded(t *testing.T) {
	b, kept, huge := NewBook(), NewBook(), strings.Repeat("x", 2<<10)
	b.most, kept.most = 400<<10, 400<<10
	add := func(i, group int) {
		f := finding(i, 24*time.Hour)
		f.Group = fmt.Sprint(group)
		f.Event.Message = huge
		f.Event.Seal()
		_, got := b.Add(f)
		if _, want := kept.Add(f); got != want {
			t.Fatalf("finding %d: raised %v, after a restart %v", i, got, want)
		}
	}
	state := map[string]string{}
	for i := range 450 {
		add(i, i%150) // three each
		size := 0
		for _, e := range b.open {
			size += e.a.Size()
		}
		if size != b.size || size > b.most {
			t.Fatalf("finding %d: %d bytes are open, counted as %d", i, size, b.size)
		}
		if i == 120 || i == 300 {
			kept.Changed()
			state = flushed(t, kept, state)
			kept = NewBook()
			kept.most = b.most
			for g, s := range state {
				if err := kept.Load([]byte(g), []byte(s)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if !slices.Equal(slices.Sorted(maps.Keys(b.open)), slices.Sorted(maps.Keys(kept.open))) || b.size != kept.size {
		t.Errorf("%d open, %d bytes; after restarts %d, %d", b.Len(), b.size, kept.Len(), kept.size)
	}
	if b.Len() >= 150 || b.Len() < 50 {
		t.Errorf("%d are open", b.Len())
	}
}

func TestABookIsBounded(t *testing.T) {
	b := NewBook()
	for i := range maxOpen + 10 {
		f := finding(i, 24*time.Hour)
		f.Group = fmt.Sprint(i)
		b.Add(f)
	}
	if b.Len() != maxOpen || b.open["0"] != nil || b.open["9"] != nil || b.open["10"] == nil {
		t.Errorf("%d open, the oldest should be closed", b.Len())
	}

	// Whatever was opened, closed and opened again: the one that ends first goes.
	r := rand.New(rand.NewPCG(1, 2))
	closed := 0
	for i := range 2500 {
		before := maps.Clone(b.open)
		f := finding(10_000+i/10, time.Duration(1+r.IntN(900))*time.Minute)
		f.Group = fmt.Sprint(r.IntN(5000))
		b.Add(f)
		if len(before) == maxOpen && before[f.Group] == nil {
			gone := ""
			for g := range before {
				if b.open[g] == nil {
					gone += g
				}
			}
			first := slices.MinFunc(slices.Collect(maps.Keys(before)), func(g, h string) int {
				return cmp.Or(before[g].Until.Compare(before[h].Until), cmp.Compare(g, h))
			})
			if closed++; gone != first {
				t.Fatalf("finding %d: %s was closed, want %s", i, gone, first)
			}
		}
		if r.IntN(1000) == 0 {
			b.Expire(f.Event.Time)
		}
		if len(b.ends) > 2*maxOpen {
			t.Fatalf("%d ends of %d alerts", len(b.ends), b.Len())
		}
	}
	if closed < 100 {
		t.Errorf("%d were closed: that says little", closed)
	}
}
