package correlate

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

var start = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// program compiles correlations over the base rules a, b and c, which match
// file-copied events by file.extension.
func program(t testing.TB, correlations ...string) *rules.Program {
	t.Helper()
	var b strings.Builder
	for _, n := range []string{"a", "b", "c"} {
		fmt.Fprintf(&b, "title: base %s\nname: %s\ntaxonomy: ecs\nlogsource: {product: sekisho}\ndetection:\n  s: {event.action: file-copied, file.extension: %s}\n  condition: s\n---\n", n, n, n)
	}
	for i, c := range correlations {
		fmt.Fprintf(&b, "title: correlation %d\nname: c%d\ntaxonomy: ecs\nlevel: high\ncorrelation:\n%s\n---\n", i, i, c)
	}
	f, err := rules.Parse("test.yml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rules.Compile([]*rules.File{f}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ev is an event of base rule ext, at seconds after the start.
func ev(seconds float64, ext, user string) *event.Event {
	e := &event.Event{Time: start.Add(time.Duration(seconds * float64(time.Second))), ID: event.NewID(), Action: event.FileCopied}
	e.File = &event.File{Extension: ext}
	if user != "" {
		e.User = &event.User{Name: user}
	}
	return e
}

func with(e *event.Event, files int64, ids ...string) *event.Event {
	e.Copy = &event.Copy{Files: event.Some(files), SourceIDs: ids}
	return e
}

func observe(s *Set, p *rules.Program, e *event.Event) []Firing {
	return s.Observe(e, p.Match(e, nil), nil)
}

func TestWindows(t *testing.T) {
	const perUser = "  group-by: [user.name]\n  timespan: 10s\n"
	tests := []struct {
		name   string
		rule   string
		events []*event.Event
		want   []int // places of the events that fire
	}{
		{"three within ten seconds, and again while it holds",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 3}",
			[]*event.Event{ev(0, "a", "u"), ev(5, "a", "u"), ev(10, "a", "u"), ev(11, "a", "u"), ev(30, "a", "u")}, []int{2, 3}},
		{"the window takes in both its ends",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 2}",
			[]*event.Event{ev(0, "a", "u"), ev(10, "a", "u"), ev(20.000001, "a", "u")}, []int{1}},
		{"windows slide over what fixed boxes would cut",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 3}",
			[]*event.Event{ev(8, "a", "u"), ev(9, "a", "u"), ev(11, "a", "u")}, []int{2}},
		{"another user, another rule, no rule",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 2}",
			[]*event.Event{ev(0, "a", "u"), ev(1, "a", "v"), ev(2, "b", "u"), ev(3, "x", "u"), ev(4, "a", "u")}, []int{4}},
		{"events without the user are a group of their own, apart from the empty one",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 2}",
			[]*event.Event{ev(0, "a", ""), ev(1, "a", "u"), ev(2, "a", "")}, []int{2}},
		{"a range",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gt: 1, lt: 3}",
			[]*event.Event{ev(0, "a", "u"), ev(1, "a", "u"), ev(2, "a", "u")}, []int{1}},
		{"exactly, and anything but",
			"  type: event_count\n  rules: [a, b]\n" + perUser + "  condition: {eq: 2}",
			[]*event.Event{ev(0, "a", "u"), ev(1, "b", "u"), ev(2, "a", "u"), ev(12, "a", "u")}, []int{1, 3}},
		{"an event that comes late completes a window",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 3}",
			[]*event.Event{ev(0, "a", "u"), ev(8, "a", "u"), ev(19, "a", "u"), ev(5, "a", "u")}, []int{3}},
		{"a late event does not count for windows it does not lie in",
			"  type: event_count\n  rules: [a]\n" + perUser + "  condition: {gte: 3}",
			[]*event.Event{ev(40, "a", "u"), ev(45, "a", "u"), ev(20, "a", "u")}, nil},
		{"later than the tolerance does not join",
			"  type: event_count\n  rules: [a]\n  timespan: 1h\n  condition: {gte: 2}",
			[]*event.Event{ev(121, "a", "u"), ev(0, "a", "u"), ev(1, "a", "u")}, []int{2}},
		{"the sum of what copies hold",
			"  type: value_sum\n  rules: [a]\n" + perUser + "  condition: {field: sekisho.copy.files, gte: 10}",
			[]*event.Event{with(ev(0, "a", "u"), 4), with(ev(1, "a", "u"), 5), ev(2, "a", "u"), with(ev(3, "a", "u"), 1), with(ev(20, "a", "u"), 11)}, []int{3, 4}},
		{"distinct values, elements of lists each on their own",
			"  type: value_count\n  rules: [a]\n" + perUser + "  condition: {field: sekisho.copy.source_ids, gte: 3}",
			[]*event.Event{with(ev(0, "a", "u"), 1, "x"), with(ev(1, "a", "u"), 2, "x", "y"), with(ev(2, "a", "u"), 1, "z"), with(ev(11, "a", "u"), 1, "y"), with(ev(13, "a", "u"), 1, "q")}, []int{2, 3}},
		{"combinations of values",
			"  type: value_count\n  rules: [a, b]\n  timespan: 10s\n  condition: {field: [user.name, file.extension], gte: 3}",
			[]*event.Event{ev(0, "a", "u"), ev(1, "b", "u"), ev(2, "a", "u"), ev(3, "a", "v")}, []int{3}},
		{"all of them in any order",
			"  type: temporal\n  rules: [a, b, c]\n" + perUser,
			[]*event.Event{ev(0, "c", "u"), ev(1, "a", "u"), ev(2, "a", "v"), ev(3, "b", "u"), ev(15, "a", "u")}, []int{3}},
		{"all of them in this order",
			"  type: temporal_ordered\n  rules: [a, b, c]\n" + perUser,
			[]*event.Event{ev(0, "c", "u"), ev(1, "b", "u"), ev(2, "a", "u"), ev(3, "c", "u"), ev(4, "b", "u"), ev(5, "c", "u"), ev(6, "a", "u")}, []int{5}},
		{"in this order though the middle came late",
			"  type: temporal_ordered\n  rules: [a, b, c]\n" + perUser,
			[]*event.Event{ev(0, "a", "u"), ev(5, "c", "u"), ev(2, "b", "u")}, []int{2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := program(t, tt.rule)
			s := New(p, Limits{}, nil)
			var got []int
			for i, e := range tt.events {
				if len(observe(s, p, e)) > 0 {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("fired at %v, want %v", got, tt.want)
			}
		})
	}
}

func TestFiringsTellTotalsAndEvidence(t *testing.T) {
	p := program(t, "  type: value_sum\n  rules: [a]\n  group-by: [user.name]\n  timespan: 10s\n  condition: {field: sekisho.copy.files, gte: 5}")
	s := New(p, Limits{}, nil)
	var all []Firing
	var events []*event.Event
	for i := range 4 {
		e := with(ev(float64(i), "a", "u"), 3)
		events = append(events, e)
		all = append(all, observe(s, p, e)...)
	}
	if len(all) != 3 {
		t.Fatalf("%d firings, want 3", len(all))
	}
	f := all[0]
	if f.Totals["files"] != 6 || f.Fresh["files"] != 6 || f.EvidenceTotal != 2 || !reflect.DeepEqual(f.Evidence, events[:2]) || !f.First.Equal(start) || f.Keys["user.name"] != "u" {
		t.Errorf("first firing %+v", f)
	}
	f = all[2]
	if f.Totals["files"] != 12 || f.Fresh["files"] != 3 || f.EvidenceFresh != 1 || f.Event != events[3] {
		t.Errorf("third firing %+v", f)
	}
}

// A value that was seen twice and told never is told, though the first of the two
// has left the window.
func TestAValueIsFreshAsLongAsItIsInTheWindowAndNotTold(t *testing.T) {
	p := program(t, "  type: value_count\n  rules: [a]\n  timespan: 60s\n  condition: {field: file.name, gte: 3}")
	for _, many := range []int{0, 100} { // small windows look through their entries
		s, store := New(p, Limits{}, nil), mapStore{}
		cut := New(p, Limits{}, store)
		see := func(at float64, name string) []Firing {
			e := ev(at, "a", "u")
			e.File.Name = name
			out := observe(s, p, e)
			if again := observe(cut, p, e); describe(again) != describe(out) {
				t.Errorf("after a restart %s, without %s", describe(again), describe(out))
			}
			flush(t, cut, store)
			cut = load(t, p, Limits{}, store)
			return out
		}
		see(0, "x")
		for i := range many {
			see(40+float64(i)/10, "x")
		}
		see(55, "x")
		see(65, "y")
		if f := see(66, "z"); len(f) != 1 || f[0].Totals["distinct_name"] != 3 || f[0].Fresh["distinct_name"] != 3 {
			t.Errorf("got %s, want 3 of 3", describe(f))
		}
	}
}

// What somebody writes into a field must not look like two.
func TestCombinationsOfValuesAreToldApart(t *testing.T) {
	p := program(t,
		"  type: value_count\n  rules: [a]\n  timespan: 60s\n  condition: {field: [file.name, user.name], gte: 2}",
		"  type: event_count\n  rules: [a]\n  group-by: [sekisho.copy.source_ids]\n  timespan: 60s\n  condition: {gte: 2}")
	s := New(p, Limits{}, nil)
	one, two := with(ev(0, "a", "u\x00v"), 1, "s", "t"), with(ev(1, "a", "v"), 1, "s, t")
	one.File.Name, two.File.Name = "x", "x\x00u"
	observe(s, p, one)
	f := observe(s, p, two)
	if len(f) != 1 || f[0].Rule.Correlation.Type != rules.ValueCount {
		t.Errorf("got %s, want two combinations and no group of two", describe(f))
	}
}

func TestEvidenceIsTheFirstAndTheLatestEventsOfAWindow(t *testing.T) {
	p := program(t, "  type: event_count\n  rules: [a]\n  timespan: 1m\n  condition: {gte: 9}")
	s := New(p, Limits{Evidence: 5}, nil)
	var last Firing
	tell := func(f Firing) (out string) {
		for _, e := range f.Evidence {
			out += fmt.Sprint(" ", int(e.Time.Sub(start).Seconds()))
		}
		return out
	}
	for i := range 12 {
		for _, last = range observe(s, p, ev(float64(i*3), "a", "u")) {
		}
	}
	if got := tell(last); got != " 0 3 6 30 33" || last.EvidenceTotal != 12 {
		t.Errorf("got%s of %d", got, last.EvidenceTotal)
	}
	// The window leaves the first ones behind, and what comes late is among the latest.
	observe(s, p, ev(65, "a", "u"))
	for _, last = range observe(s, p, ev(62, "a", "u")) {
	}
	if got := tell(last); got != " 6 62 65" || last.EvidenceTotal != 12 {
		t.Errorf("later got%s of %d", got, last.EvidenceTotal)
	}
	if s.events != 5 {
		t.Errorf("%d events are held", s.events)
	}
}

func TestAliasesAndChains(t *testing.T) {
	p := program(t,
		"  type: event_count\n  rules: [a]\n  group-by: [user.name]\n  timespan: 10s\n  condition: {gte: 2}",
		"  type: event_count\n  rules: [c0]\n  timespan: 1h\n  condition: {gte: 2}",
		"  type: temporal\n  rules: [b, c]\n  group-by: [who]\n  aliases: {who: {b: user.name, c: host.name}}\n  timespan: 1m")
	s := New(p, Limits{}, nil)
	var got []string
	c := ev(4, "c", "")
	c.Host = &event.Host{Name: "w"}
	for _, e := range []*event.Event{ev(0, "a", "u"), ev(1, "a", "u"), ev(2, "a", "v"), ev(3, "b", "w"), c, ev(5, "a", "v")} {
		for _, f := range observe(s, p, e) {
			got = append(got, fmt.Sprint(f.Rule.Name, " ", f.Keys))
		}
	}
	if want := []string{"c2 map[who:w]", "c1 map[]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q (c0 only feeds c1)", got, want)
	}
}

func TestTheClockSetBackDoesNotBlind(t *testing.T) {
	p := program(t, "  type: event_count\n  rules: [a]\n  timespan: 10s\n  condition: {gte: 3}")
	s := New(p, Limits{}, nil)
	observe(s, p, ev(1e6, "a", "u"))
	fired := -1
	for i := range 60 {
		if len(observe(s, p, ev(float64(i), "a", "u"))) > 0 {
			fired = i
			break
		}
	}
	if want := lateRun; fired != want { // the event from the future counts as of now
		t.Errorf("fires again at event %d, want %d", fired, want)
	}
	if st := s.Stats(); st.Late != lateRun-1 || st.ClockSteps != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestMemoryIsBoundedAndWhatIsDroppedIsCounted(t *testing.T) {
	p := program(t, "  type: event_count\n  rules: [a]\n  group-by: [user.name]\n  timespan: 1h\n  condition: {gte: 100000}")
	s := New(p, Limits{Keys: 100, Entries: 1000, Events: 50, Evidence: 5}, nil)
	for i := range 500 {
		observe(s, p, ev(float64(i)/10, "a", fmt.Sprint(i)))
	}
	if st := s.Stats(); st.Keys != 100 || st.Evicted != 400 || st.Entries != 100 || s.events > 50 {
		t.Errorf("keys: got %+v, %d events", st, s.events)
	}
	for i := range 5000 {
		observe(s, p, ev(60+float64(i)/100, "a", "u"))
	}
	if st := s.Stats(); st.Entries > 1000 || st.Trimmed == 0 || st.Keys != 100 || s.events > 50 {
		t.Errorf("entries: got %+v, %d events", st, s.events)
	}
	for i := range 40 { // each looks for some that are over
		observe(s, p, ev(10000+float64(i), "a", "v"))
	}
	if st := s.Stats(); st.Keys != 1 || st.Entries != 40 {
		t.Errorf("after the time is over: got %+v", st)
	}
}

// Whoever makes up names by the thousand, or one event over and over, to have other
// windows thrown out does it to those of the same correlation.
func TestAFloodOfOneCorrelationLeavesTheOthersAlone(t *testing.T) {
	count := "  type: event_count\n  rules: [%s]\n  group-by: [user.name, file.name]\n  timespan: 1h\n  condition: {gte: %d}"
	p := program(t, fmt.Sprintf(count, "a", 4), fmt.Sprintf(count, "b", 1000000))
	for _, c := range []struct {
		name  string
		flood func(i int) *event.Event
	}{
		{"names", func(i int) *event.Event { return fileNamed(ev(2+float64(i)/100, "b", "x"), fmt.Sprint(i)) }},
		{"events", func(i int) *event.Event { return fileNamed(ev(2+float64(i)/100, "b", "x"), "y") }},
		{"events of many names", func(i int) *event.Event { return fileNamed(ev(2+float64(i)/100, "b", "x"), fmt.Sprint(i%70)) }},
	} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restarts %v", c.name, stored), func(t *testing.T) {
				l, store := Limits{Keys: 100, Entries: 1000}, mapStore{}
				s := New(p, l, store)
				for i := range 3 {
					observe(s, p, fileNamed(ev(float64(i)/2, "a", "u"), "z"))
				}
				for i := range 5000 {
					observe(s, p, c.flood(i))
					if stored && i%500 == 0 {
						flush(t, s, store)
						s = load(t, p, l, store)
					}
				}
				if st := s.Stats(); st.Keys > 100 || st.Entries > 1000 || !stored && st.Evicted+st.Trimmed < 100 {
					t.Errorf("%+v", st)
				}
				if n := len(observe(s, p, fileNamed(ev(60, "a", "u"), "z"))); n != 1 {
					t.Error("what was counted before is forgotten")
				}
			})
		}
	}
}

func TestSwapKeepsWindowsOfWhatCountsTheSame(t *testing.T) {
	one := program(t, "  type: event_count\n  rules: [a]\n  timespan: 10s\n  condition: {gte: 3}", "  type: event_count\n  rules: [b]\n  timespan: 10s\n  condition: {gte: 2}")
	two := program(t, "  type: event_count\n  rules: [a]\n  timespan: 10s\n  condition: {gte: 2}", "  type: event_count\n  rules: [b]\n  timespan: 20s\n  condition: {gte: 2}")
	s := New(one, Limits{}, nil)
	observe(s, one, ev(0, "a", "u"))
	observe(s, one, ev(0, "b", "u"))
	s.Swap(two)
	if n := len(observe(s, two, ev(1, "a", "u"))); n != 1 {
		t.Errorf("another threshold: %d firings, want 1: the window is kept", n)
	}
	if n := len(observe(s, two, ev(1, "b", "u"))); n != 0 {
		t.Errorf("another timespan: %d firings, want 0: a window of its own", n)
	}
	if st := s.Stats(); st.Entries != 3 {
		t.Errorf("%d entries, want 3", st.Entries)
	}
}

// A late event is looked at in every window that it lies in: not each of them from
// scratch.
func TestALateEventCostsNoMoreThanItsWindowIsLong(t *testing.T) {
	for _, body := range []string{"value_percentile\n  condition: {field: sekisho.copy.files, gt: 99}", "value_count\n  condition: {field: file.name, gte: 100000}", "temporal_ordered"} {
		p := program(t, "  rules: [a, b]\n  timespan: 1h\n  type: "+body)
		s := New(p, Limits{}, nil)
		e := with(ev(0, "a", "u"), 1)
		m := p.Match(e, nil)
		for i := range 20_000 {
			e := *e
			e.Time = e.Time.Add(time.Duration(i) * 2 * time.Millisecond)
			s.Observe(&e, m, nil)
		}
		// From scratch it takes many seconds; the best of three, for other work may come between.
		took := time.Hour
		for range 3 {
			began := time.Now()
			late := *e
			s.Observe(&late, m, nil)
			took = min(took, time.Since(began))
		}
		if took > time.Second {
			t.Errorf("%.16s: %v for a window of %d events", body, took, s.Stats().Entries)
		}
	}
}
