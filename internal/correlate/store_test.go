package correlate

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// compiled is the rules of YAML documents.
func compiled(t testing.TB, text string) *rules.Program {
	t.Helper()
	f, err := rules.Parse("test.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rules.Compile([]*rules.File{f}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newShare is a rule that matches a person's first copy with an extension.
const newShare = `title: New
name: fresh
id: 33333333-3333-4333-8333-333333333333
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
sekisho: {first-seen: {keys: [user.name, file.extension], within: 180d, learn: 30d}}
---
title: Many new
name: many
taxonomy: ecs
correlation: {type: event_count, rules: [fresh], timespan: 90d, generate: true, condition: {gte: 2}}
`

const day = 86400

func load(t testing.TB, p *rules.Program, l Limits, store Store) *Set {
	t.Helper()
	s := New(p, l, store)
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

// see judges an event as a judge does and tells which rules remain.
func see(s *Set, p *rules.Program, e *event.Event) string {
	m := s.FirstSeen(e, p.Match(e, nil))
	var out []string
	for i := range m {
		out = append(out, m[i].Rule.Name)
	}
	for _, f := range s.Observe(e, m, nil) {
		out = append(out, f.Rule.Name)
	}
	return strings.Join(out, " ")
}

func TestFirstSeenRulesMatchOnlyWhatIsNew(t *testing.T) {
	p := compiled(t, newShare)
	steps := []struct {
		day       float64
		ext, user string
		want      string
	}{
		{0, "a", "u", ""}, // learning
		{1, "b", "u", ""},
		{29.9, "a", "v", ""},
		{30, "a", "u", ""},          // known
		{30, "b", "v", "fresh"},     // new
		{31, "b", "v", ""},          // and known from then on
		{32, "b", "", "fresh many"}, // nobody is somebody of his own
		{33, "", "u", "fresh many"}, // as is no extension
		{180, "a", "u", ""},         // held back, and refreshed
		{359, "a", "u", ""},         // 179 days later
		{359, "b", "u", "fresh"},    // 358 days after
		{360, "c", "u", "fresh many"},
		{540, "c", "u", ""},
		{720.1, "c", "u", "fresh"}, // more than 180 days after
	}
	for _, restarts := range []bool{false, true} {
		store := mapStore{}
		s := load(t, p, Limits{}, store)
		for _, step := range steps {
			if got := see(s, p, ev(step.day*day, step.ext, step.user)); got != step.want {
				t.Errorf("restarts %v: day %v, %q of %q: got %q, want %q", restarts, step.day, step.ext, step.user, got, step.want)
			}
			if restarts {
				flush(t, s, store)
				s = load(t, p, Limits{}, store)
			}
		}
		if st := s.Stats(); st.Learning != 0 || st.Forgotten != 0 || st.Broken != 0 {
			t.Errorf("%+v", st)
		}
	}
}

func TestWhatFirstSeenRulesRememberIsBoundedAndCounted(t *testing.T) {
	p := compiled(t, newShare)
	for _, stored := range []bool{false, true} {
		store := mapStore{}
		var st Store
		if stored {
			st = store
		}
		s := New(p, Limits{Combinations: 1000}, st)
		for i := range 5000 {
			see(s, p, ev(31*day+float64(i), "a", fmt.Sprint("user", i)))
			if n := s.Stats().Combinations; n > 2001 || !stored && n > 1001 {
				t.Fatalf("stored %v: %d combinations in memory", stored, n)
			}
			if stored && s.Pressed() {
				flush(t, s, store)
			}
		}
		got := s.Stats()
		if !stored && got.Forgotten < 4000 {
			t.Errorf("in memory: %+v", got)
		}
		if stored && got.Forgotten != 0 { // all are in the Store until it is looked through
			t.Errorf("with a store: %+v", got)
		}
		if stored {
			see(s, p, ev(33*day, "a", "user4999"))
			flush(t, s, store)
			n := 0
			for k := range store {
				if k[0] == kindSeen {
					n++
				}
			}
			if got := s.Stats(); n > 1001 || got.Forgotten < 3999 {
				t.Errorf("%d combinations in the store, %+v", n, got)
			}
			s = load(t, p, Limits{Combinations: 1000}, store)
			if got := see(s, p, ev(33*day, "a", "user4998")); got != "" {
				t.Errorf("one of the newest: got %q", got)
			}
		}
	}
}

// longByUser is windows of 30 days by user.
const longByUser = "  type: value_count\n  rules: [a]\n  group-by: [user.name]\n  timespan: 30d\n  condition: {field: file.name, gte: 2}"

func TestLongWindowsLeaveMemoryForTheStoreAndComeBack(t *testing.T) {
	p := program(t, longByUser)
	store := mapStore{}
	s := New(p, Limits{Cells: 1000}, store)
	name := func(e *event.Event, n string) *event.Event { e.File.Name = n; return e }
	for i := range 5000 {
		observe(s, p, name(ev(float64(i), "a", fmt.Sprint("user", i)), "x"))
		if s.Pressed() {
			flush(t, s, store)
		}
	}
	if st := s.Stats(); st.Cells > 1000 || st.Lost != 0 {
		t.Errorf("%+v", st)
	}
	for i := range 5000 {
		if n := len(observe(s, p, name(ev(5000+float64(i), "a", fmt.Sprint("user", i)), "y"))); n != 1 {
			t.Fatalf("user %d fired %d times", i, n)
		}
		if s.Pressed() {
			flush(t, s, store)
		}
	}
	// Without a Flush in time, or without a Store, they are lost and counted.
	for i := range 5000 {
		observe(s, p, name(ev(10000+float64(i), "a", fmt.Sprint("new", i)), "x"))
		if n := s.Stats().Cells; n > 2100 {
			t.Fatalf("%d cells", n)
		}
	}
	if st := s.Stats(); st.Lost < 4000 {
		t.Errorf("%+v", st)
	}
	s = New(p, Limits{Cells: 1000}, nil)
	for i := range 5000 {
		observe(s, p, name(ev(float64(i), "a", fmt.Sprint("user", i)), "x"))
	}
	if st := s.Stats(); st.Cells > 1000 || st.Lost+int64(st.Long) != 5000 {
		t.Errorf("without a store: %+v", st)
	}
}

func TestTheStoreIsSweptOnceADayOfWhatIsOverAndTooMuch(t *testing.T) {
	p := program(t, longByUser)
	store := mapStore{}
	s := New(p, Limits{Stored: 100}, store)
	windows := func() (n int) {
		for k := range store {
			if k[0] == kindLong {
				n++
			}
		}
		return n
	}
	for i := range 500 {
		e := ev(float64(i), "a", fmt.Sprint("user", i))
		e.File.Name = "x"
		observe(s, p, e)
		if i%10 == 0 {
			flush(t, s, store)
			if n := windows(); n > 130 {
				t.Fatalf("%d windows in the store", n)
			}
			s = load(t, p, Limits{Stored: 100}, store) // so that they are on disk only
		}
	}
	e := ev(20*day, "a", "user499")
	e.File.Name = "y"
	if n := len(observe(s, p, e)); n != 1 {
		t.Errorf("the newest one is gone")
	}
	flush(t, s, store)
	if n := windows(); n > 101 {
		t.Errorf("%d windows", n)
	}
	observe(s, p, ev(40*day, "b", "user499"))
	flush(t, s, store)
	if n := windows(); n != 1 {
		t.Errorf("%d windows after their time, want 1", n)
	}
	if got := s.Stats(); got.Stored != 1 || got.Broken != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSwapForgetsInTheStoreToo(t *testing.T) {
	long := "  type: event_count\n  rules: [%s]\n  group-by: [user.name]\n  timespan: %s\n  condition: {gte: %d}"
	one := program(t, fmt.Sprintf(long, "a", "30d", 3), fmt.Sprintf(long, "b", "30d", 2), fmt.Sprintf(long, "b", "1h", 2))
	two := program(t, fmt.Sprintf(long, "a", "30d", 2), fmt.Sprintf(long, "b", "60d", 2), fmt.Sprintf(long, "b", "2h", 2))
	store := mapStore{}
	s := New(one, Limits{}, store)
	for _, ext := range []string{"a", "b"} {
		observe(s, one, ev(0, ext, "u"))
	}
	flush(t, s, store)
	if len(store) != 4 {
		t.Errorf("%d keys, want 4", len(store))
	}
	s = load(t, one, Limits{}, store)
	s.Swap(two)
	flush(t, s, store)
	if len(store) != 2 {
		t.Errorf("%d keys after the swap, want 2: state and the window that counts the same", len(store))
	}
	if n := len(observe(s, two, ev(1, "a", "u"))); n != 1 {
		t.Errorf("the window that counts the same: %d firings, want 1", n)
	}
	if n := len(observe(s, two, ev(1, "b", "u"))); n != 0 {
		t.Errorf("the others: %d firings, want 0", n)
	}
	// The same with other rules at the next start.
	flush(t, s, store)
	s = load(t, one, Limits{}, store)
	if n := len(observe(s, one, ev(2, "a", "u"))); n != 1 {
		t.Errorf("after a start: %d firings, want 1", n)
	}
	observe(s, one, ev(2*day, "c", "u"))
	flush(t, s, store)
	if len(store) != 2 {
		t.Errorf("%d keys after a day, want 2", len(store))
	}
}

func TestAFlushThatFailsIsHandedOutAgain(t *testing.T) {
	p := program(t, longByUser, "  type: event_count\n  rules: [a]\n  group-by: [user.name]\n  timespan: 1m\n  condition: {gte: 2}")
	store, whole := mapStore{}, mapStore{}
	s, plain := New(p, Limits{}, store), New(p, Limits{}, whole)
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 400 {
		e := ev(float64(i*3), "a", fmt.Sprint(r.IntN(40)))
		e.File.Name = "x"
		observe(s, p, e)
		observe(plain, p, e)
		if r.IntN(10) > 0 {
			continue
		}
		if err := plain.Flush(whole.put); err != nil {
			t.Fatal(err)
		}
		left := r.IntN(2) // there are a window and the state at least
		errFull := errors.New("disk full")
		err := s.Flush(func([]byte, func([]byte) []byte) error {
			if left--; left < 0 {
				return errFull
			}
			return nil // a transaction that is undone
		})
		if !errors.Is(err, errFull) {
			t.Fatalf("got %v", err)
		}
		flush(t, s, store)
		for k, v := range whole {
			if !bytes.Equal(store[k], v) {
				t.Fatalf("event %d: key %x differs", i, k)
			}
		}
		if len(store) != len(whole) {
			t.Fatalf("event %d: %d keys, want %d", i, len(store), len(whole))
		}
	}
}

func TestWantOfRoomAndRestartsGiveTheSame(t *testing.T) {
	evicted, trimmed := int64(0), int64(0)
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 11))
		var texts []string
		for i := range 6 {
			texts = append(texts, randomRule(r, false, i == 5))
		}
		p := program(t, texts...)
		store := mapStore{}
		l := Limits{Keys: 12, Entries: 40 + r.IntN(40), Events: 30, Evidence: 3}
		if seed%4 == 0 {
			l.Keys, l.Entries = 1, 5
		}
		whole, cut := New(p, l, nil), New(p, l, store)
		before := Stats{}
		for i, e := range randomEvents(r, 400, 3*time.Second, time.Second) {
			m := p.Match(e, nil)
			a, b := whole.Observe(e, m, nil), cut.Observe(e, m, nil)
			if describe(a) != describe(b) {
				t.Fatalf("seed %d, event %d: after restarts\n%s, without\n%s\n%s", seed, i, describe(b), describe(a), strings.Join(texts, "\n"))
			}
			x, y := whole.Stats(), cut.Stats()
			if x.Entries > l.Entries || x.Keys > l.Keys || x.Keys != y.Keys || x.Entries != y.Entries ||
				x.Evicted != y.Evicted+before.Evicted || x.Trimmed != y.Trimmed+before.Trimmed {
				t.Fatalf("seed %d, event %d: %+v after restarts, %+v without", seed, i, y, x)
			}
			if r.IntN(6) == 0 {
				flush(t, cut, store)
				if n := len(store); n != y.Keys+1 {
					t.Fatalf("%d keys in the store, want %d", n, y.Keys+1)
				}
				cut = load(t, p, l, store)
				before = x
			}
		}
		st := whole.Stats()
		evicted, trimmed = evicted+st.Evicted, trimmed+st.Trimmed
	}
	if evicted < 1000 || trimmed < 20 {
		t.Errorf("%d evicted and %d trimmed say little", evicted, trimmed)
	}
}

func TestAClockSetBackAndRestartsGiveTheSame(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		var texts []string
		for i := range 6 {
			texts = append(texts, randomRule(r, seed%2 == 1, i == 5))
		}
		p := program(t, texts...)
		store := mapStore{}
		l := Limits{Tolerance: 2 * time.Second}
		whole, cut := New(p, l, nil), New(p, l, store)
		unit := 3 * time.Second
		if seed%2 == 1 {
			unit = 60 * time.Hour
		}
		events := randomEvents(r, 400, unit, time.Second)
		for i, e := range events {
			if i >= 200 { // the clock is set back
				e.Time = e.Time.Add(-60 * unit)
			}
			m := p.Match(e, nil)
			a, b := whole.Observe(e, m, nil), cut.Observe(e, m, nil)
			if describe(a) != describe(b) {
				t.Fatalf("seed %d, event %d: after restarts\n%s, without\n%s\n%s", seed, i, describe(b), describe(a), strings.Join(texts, "\n"))
			}
			if r.IntN(6) == 0 {
				flush(t, cut, store)
				cut = load(t, p, l, store)
			}
		}
		if st := whole.Stats(); st.ClockSteps != 1 {
			t.Errorf("seed %d: %+v", seed, st)
		}
	}
}

// It is here rather than among the cases because settings decide it.
func TestExceptionsAndScopedConditionsCount(t *testing.T) {
	f, err := rules.Parse("test.yml", []byte(`title: base
name: a
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
---
title: many
name: c0
taxonomy: ecs
correlation: {type: event_count, rules: [a], group-by: [user.name], timespan: 1h, condition: {gte: 3}}
sekisho: {rule: SITE-1, thresholds: {n: {rule: c0, default: 3}}}
---
title: backups
taxonomy: ecs
logsource: {product: sekisho}
filter: {rules: [c0], selection: {file.name: backup}, condition: not selection}
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rules.Compile([]*rules.File{f}, rules.Options{Scoped: []rules.ScopedThresholds{{Scope: rules.Scope{List: "leaver"}, Thresholds: map[string]map[string]int64{"SITE-1": {"n": 2}}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := New(p, Limits{}, nil)
	var got []int
	for i, x := range []struct{ user, name, list string }{
		{"u", "x", ""}, {"u", "backup", ""}, {"u", "x", ""}, {"u", "x", ""}, // 2 and 3 of u; the second is left out
		{"v", "x", "leaver"}, {"v", "backup", "leaver"}, {"v", "x", "leaver"}, {"v", "x", ""}, {"w", "x", ""}, {"w", "x", ""},
	} {
		e := ev(float64(i), "a", x.user)
		e.File.Name = x.name
		if x.list != "" {
			e.Context = &event.Context{PersonLists: []string{x.list}}
		}
		if len(observe(s, p, e)) > 0 {
			got = append(got, i)
		}
	}
	if want := []int{3, 6, 7}; !slices.Equal(got, want) {
		t.Errorf("fired at %v, want %v", got, want)
	}
}

// everyKind is correlations of each type, exact and long.
func everyKind() (texts []string) {
	for _, span := range []string{"1h", "30d"} {
		for _, body := range []string{"event_count\n  condition: {gte: 1}", "value_count\n  condition: {field: sekisho.copy.source_ids, gte: 1}",
			"value_sum\n  condition: {field: sekisho.copy.files, gte: 1}", "value_avg\n  condition: {field: sekisho.copy.files, gte: 1}",
			"value_percentile\n  condition: {field: sekisho.copy.files, gte: 1}", "value_percentile\n  condition: {field: file.name, gte: 1}",
			"temporal", "temporal_ordered"} {
			texts = append(texts, "  rules: [a, b]\n  timespan: "+span+"\n  type: "+body)
		}
	}
	return texts
}

// filled is a Store with a window of each correlation of a program.
func filled(t testing.TB, p *rules.Program) mapStore {
	t.Helper()
	store := mapStore{}
	s := New(p, Limits{Evidence: 2}, store)
	for i, ext := range []string{"a", "b", "a", "b"} {
		e := with(ev(float64(i), ext, "u"), int64(i), "x", fmt.Sprint(i))
		e.File.Name = ext
		observe(s, p, e)
	}
	flush(t, s, store)
	return store
}

func TestBrokenValuesAreBegunAfreshAndCounted(t *testing.T) {
	p := program(t, everyKind()...)
	store := filled(t, p)
	for k, v := range store {
		for cut := 0; cut < len(v); cut += 1 + cut/16 {
			broken := mapStore{}
			for o, w := range store {
				broken[o] = w
			}
			broken[k] = v[:cut]
			s := load(t, p, Limits{}, broken)
			e := with(ev(10, "a", "u"), 1, "x")
			e.File.Name = "a"
			observe(s, p, e)
			if st := s.Stats(); st.Broken != 1 {
				t.Fatalf("%x cut to %d bytes: %+v", k[:1], cut, st)
			}
			flush(t, s, broken)
		}
	}
}

// FuzzValues reads any value as each kind of window, goes on with it and writes
// it again.
func FuzzValues(f *testing.F) {
	var programs []*rules.Program
	for i, text := range everyKind() {
		p := program(f, text)
		programs = append(programs, p)
		for k, v := range filled(f, p) {
			if k[0] == kindState {
				f.Add(uint8(255), v)
			} else {
				f.Add(uint8(i), v)
			}
		}
	}
	all := keyOf(nil) // the window of everybody
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		p := programs[int(kind)%len(programs)]
		store := mapStore{}
		c := New(p, Limits{}, nil).corrs[0]
		k := string(c.prefix.with(all))
		if kind == 255 {
			k = string(stateKey)
		}
		store[k] = value
		s := load(t, p, Limits{}, store)
		e := with(ev(5, "a", "u"), 7, "y")
		e.File.Name = "a"
		observe(s, p, e)
		flush(t, s, store)
		if kind != 255 && s.Stats().Late == 0 {
			w, err := decodeWindow(s.corrs[0], all, store[k])
			if err != nil {
				t.Fatalf("%x is written and cannot be read", store[k])
			}
			if again := w.append(nil); !bytes.Equal(again, store[k]) {
				t.Errorf("%x is written again as %x", store[k], again)
			}
		}
		e = with(ev(6, "b", "u"), 8, "z")
		e.File.Name = "b"
		s = load(t, p, Limits{}, store)
		if st := s.Stats(); st.Broken > 0 {
			t.Errorf("%+v of what was written", st)
		}
		observe(s, p, e)
	})
}

// What a rule counted is forgotten where it was not in force for a while, be that
// over a swap, a start, or both, and however soon it comes back.
func TestARuleThatWasAwayHasForgotten(t *testing.T) {
	// Programs with a rule and without, and what one more event makes fire if what
	// came before is forgotten, and if not.
	other := strings.ReplaceAll(newShare, "33333333-3333-4333-8333-333333333333", "33333333-3333-4333-8333-333333333334")
	for _, c := range []struct {
		name           string
		with, without  *rules.Program
		before, after  []*event.Event
		forgotten, not string
	}{
		{"long window", program(t, longByUser), program(t),
			[]*event.Event{fileNamed(ev(0, "a", "u"), "x")}, []*event.Event{fileNamed(ev(60, "a", "u"), "y")}, "a", "a c0"},
		{"first-seen", compiled(t, newShare), compiled(t, other),
			[]*event.Event{ev(0, "a", "u")}, []*event.Event{ev(0, "b", "v"), ev(40*day, "a", "u")}, "fresh", ""},
	} {
		for _, how := range []string{"not away", "start", "swap", "swap and kill"} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				store := mapStore{}
				s := load(t, c.with, Limits{}, store)
				for _, e := range c.before {
					see(s, c.with, e)
				}
				flush(t, s, store)
				switch how {
				case "not away":
					s = load(t, c.with, Limits{}, store)
				case "start":
					s = load(t, c.without, Limits{}, store)
					flush(t, s, store)
					s = load(t, c.with, Limits{}, store)
				case "swap":
					s = load(t, c.with, Limits{}, store) // what was counted is in the Store only
					s.Swap(c.without)
					flush(t, s, store) // as a judge does before it swaps
					s.Swap(c.with)
				case "swap and kill":
					s = load(t, c.with, Limits{}, store)
					s.Swap(c.without)
					s = load(t, c.without, Limits{}, store)
					flush(t, s, store)
					s.Swap(c.with)
				}
				got := ""
				for _, e := range c.after {
					got = see(s, c.with, e)
				}
				want := c.forgotten
				if how == "not away" {
					want = c.not
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}

func fileNamed(e *event.Event, name string) *event.Event {
	e.File.Name = name
	return e
}

// A state that does not tell the rules in force is good for all the rest.
func TestAStateWithoutRulesIsRead(t *testing.T) {
	p := program(t, longByUser)
	store := mapStore{}
	s := New(p, Limits{}, store)
	observe(s, p, ev(0, "a", "u"))
	flush(t, s, store)
	v := store[string(stateKey)]
	v = slices.Clone(v[:len(v)-8])
	v[0] = stateWithoutRules
	store[string(stateKey)] = v
	again := load(t, p, Limits{}, store)
	if !again.Newest().Equal(s.Newest()) || again.seq != s.seq || again.Stats().Broken != 0 || !again.kept.sweep {
		t.Errorf("%v, seq %d, %+v, want %v, seq %d", again.Newest(), again.seq, again.Stats(), s.Newest(), s.seq)
	}
}
