package correlate

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// mapStore is a Store in memory.
type mapStore map[string][]byte

func (m mapStore) Get(key []byte) ([]byte, error) { return m[string(key)], nil }

func (m mapStore) Each(prefix []byte, f func(key, value []byte) error) error {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(k, string(prefix)) {
			if err := f([]byte(k), m[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m mapStore) put(key []byte, value func([]byte) []byte) error {
	if value == nil {
		delete(m, string(key))
	} else {
		m[string(key)] = value(nil)
	}
	return nil
}

// reference is correlations of long windows by their definition: it keeps all that
// ever came and counts every window from scratch. (That of exact ones stands in
// spec_test.go.)
type reference struct {
	p     *rules.Program
	all   map[*rules.Rule]map[string][]*input // by group, in order of arrival
	fired map[int]bool
}

// input is a match as a correlation sees it.
type input struct {
	t      int64
	e      *event.Event
	places []int
}

// result is what a correlation that fires tells.
type result struct {
	rule   string
	total  string // as Firing.Totals has it
	events int64
}

func (r result) String() string { return fmt.Sprintf("%s %s of %d", r.rule, r.total, r.events) }

func newReference(p *rules.Program) *reference {
	return &reference{p: p, all: map[*rules.Rule]map[string][]*input{}}
}

func (r *reference) observe(e *event.Event, matches []rules.Match) (out []result) {
	r.fired = map[int]bool{}
	for _, m := range matches {
		r.fired[m.Rule.Index] = true
	}
	for _, rule := range r.p.Rules {
		c := rule.Correlation
		if c == nil {
			continue
		}
		in := &input{t: e.Time.UnixNano(), e: e}
		for place, i := range c.Rules {
			if r.fired[i] {
				in.places = append(in.places, place)
			}
		}
		if len(in.places) == 0 || slices.ContainsFunc(c.Except, func(i int) bool { return r.fired[i] }) {
			continue
		}
		if _, ok := r.values(c, in); !ok {
			continue
		}
		group := ""
		for i := range c.GroupBy {
			v, ok := c.GroupBy[i].For(c.Rules[in.places[0]]).Value(e)
			group += fmt.Sprintf("%v %q ", ok, v.String())
		}
		if r.all[rule] == nil {
			r.all[rule] = map[string][]*input{}
		}
		for _, o := range r.all[rule][group] { // late events count in the newest window
			in.t = max(in.t, o.t)
		}
		w := append(r.all[rule][group], in)
		r.all[rule][group] = w
		total := r.total(c, w, in)
		// In order, it has to be at the end of a chain.
		if c.Type == rules.TemporalOrdered && in.places[len(in.places)-1] != int(total)-1 {
			continue
		}
		conds := c.In(e)
		holds := len(conds) > 0 || int(total) == len(c.Rules)
		for _, cond := range conds {
			holds = holds && cond.Holds(total)
		}
		if holds {
			r.fired[rule.Index] = true
			if !rule.Silent {
				text := ""
				if c.Total != "" {
					text = fmt.Sprint(c.Total, "=", int64(math.Round(total)))
				}
				out = append(out, result{rule.Name, text, int64(len(r.counted(c, w, in)))})
			}
		}
	}
	return out
}

// counted is the events of a window that its evidence counts: by whole buckets.
func (r *reference) counted(c *rules.Correlation, w []*input, in *input) []*input {
	size := int64(time.Hour)
	if c.Timespan > 30*24*time.Hour {
		size = int64(24 * time.Hour)
	}
	oldest := floorDiv(in.t-int64(c.Timespan), size)
	return slices.DeleteFunc(slices.Clone(w), func(o *input) bool { return floorDiv(o.t, size) < oldest })
}

// values is what an event has for a correlation to count.
func (r *reference) values(c *rules.Correlation, in *input) (out []event.Value, ok bool) {
	for i := range c.Fields {
		v, ok := c.Fields[i].Value(in.e)
		if !ok {
			return nil, false
		}
		if _, numeric := v.Float(); !numeric && (c.Type == rules.ValueSum || c.Type == rules.ValueAvg) {
			return nil, false
		}
		if len(c.Fields) == 1 && v.Type() == event.List {
			for _, text := range v.List() {
				out = append(out, event.Text(text))
			}
			return out, len(out) > 0
		}
		out = append(out, v)
	}
	return out, true
}

// total is what the conditions are asked of.
func (r *reference) total(c *rules.Correlation, w []*input, in *input) float64 {
	switch c.Type {
	case rules.EventCount, rules.ValueSum, rules.ValueAvg:
		w = r.counted(c, w, in)
	default:
		w = slices.DeleteFunc(slices.Clone(w), func(o *input) bool { return o.t < in.t-int64(c.Timespan) })
	}
	sum, distinct, places := 0.0, map[string]bool{}, map[int]bool{}
	below, equal, all, chain := 0.0, 0.0, 0.0, 0
	for _, o := range w {
		for _, p := range o.places {
			places[p] = true
			if p == chain {
				chain++
			}
		}
		if len(c.Fields) == 0 {
			continue
		}
		values, _ := r.values(c, o)
		mine, _ := r.values(c, in)
		switch c.Type {
		case rules.ValueSum, rules.ValueAvg:
			f, _ := values[0].Float()
			sum += f
		case rules.ValuePercentile:
			a, numeric := values[0].Float()
			b, mineIs := mine[0].Float()
			switch {
			case numeric != mineIs:
				continue
			case !numeric && values[0].String() == mine[0].String() || numeric && a == b:
				equal++
			case numeric && a < b:
				below++
			}
			all++
		case rules.ValueCount:
			combined := ""
			for _, v := range values {
				if len(c.Fields) == 1 {
					distinct[v.String()] = true
				}
				combined += v.String() + "\x00"
			}
			if len(c.Fields) > 1 {
				distinct[combined] = true
			}
		}
	}
	switch c.Type {
	case rules.EventCount:
		return float64(len(w))
	case rules.ValueSum:
		return sum
	case rules.ValueAvg:
		return sum / float64(len(w))
	case rules.ValueCount:
		return float64(len(distinct))
	case rules.ValuePercentile:
		if _, numeric := mustValue(c, in).Float(); numeric {
			return (below + equal/2) / all * 100
		}
		return equal / all * 100
	case rules.Temporal:
		return float64(len(places))
	}
	return float64(chain)
}

func mustValue(c *rules.Correlation, in *input) event.Value {
	v, _ := c.Fields[0].Value(in.e)
	return v
}

// randomRule is a correlation over the base rules.
func randomRule(r *rand.Rand, long, chained bool) string {
	span := []string{"7s", "30s", "2m"}[r.IntN(3)]
	if long {
		span = []string{"8d", "20d", "30d", "31d", "90d"}[r.IntN(5)]
	}
	from := []string{"[a]", "[a, b]", "[a, b, c]", "[c, a]"}[r.IntN(4)]
	if chained {
		from = []string{"[c0]", "[c0, b]", "[a, c0]"}[r.IntN(3)]
	}
	body := []string{
		"  type: event_count\n  condition: {gte: %d}",
		"  type: event_count\n  condition: {gt: 1, lte: %d}",
		"  type: event_count\n  condition: {eq: %d}",
		"  type: value_count\n  condition: {field: sekisho.copy.source_ids, gte: %d}",
		"  type: value_count\n  condition: {field: file.name, neq: %d}",
		"  type: value_count\n  condition: {field: [file.name, file.extension], gte: %d}",
		"  type: value_sum\n  condition: {field: sekisho.copy.files, gte: %d}",
		"  type: value_avg\n  condition: {field: sekisho.copy.files, gt: %d.5}",
		"  type: value_avg\n  condition: {field: sekisho.copy.files, lt: %d}",
		"  type: value_percentile\n  condition: {field: sekisho.copy.files, gte: 8%d}",
		"  type: value_percentile\n  condition: {field: file.name, lt: 1%d}",
		"  type: temporal",
		"  type: temporal\n  condition: {gte: 2}",
		"  type: temporal_ordered",
		"  type: temporal_ordered\n  condition: {gte: 2}",
	}[r.IntN(15)]
	if strings.Contains(body, "temporal") && (from == "[a]" || from == "[c0]") {
		from = "[b, c, a]"
	}
	if strings.Contains(body, "%d") {
		body = fmt.Sprintf(body, 2+r.IntN(7))
	}
	group := "  group-by: [user.name]\n"
	if r.IntN(4) == 0 {
		group = ""
	}
	return body + "\n  rules: " + from + "\n" + group + "  timespan: " + span
}

// randomEvents are events at steps of up to a unit of time, some of them late.
func randomEvents(r *rand.Rand, n int, unit time.Duration, late time.Duration) (out []*event.Event) {
	now, newest := start, start
	for i := range n {
		switch r.IntN(6) {
		case 0: // at the same time
		case 1:
			now = now.Add(time.Duration(r.Int64N(int64(unit) * 4)))
		default:
			now = now.Add(time.Duration(r.Int64N(int64(unit))))
		}
		t := now
		if r.IntN(3) == 0 {
			if t = now.Add(-time.Duration(r.Int64N(int64(late)))); t.Before(newest.Add(-late)) {
				t = newest
			}
		}
		if t.After(newest) {
			newest = t
		}
		e := ev(0, []string{"a", "b", "c"}[r.IntN(3)], []string{"u", "v", "w", ""}[r.IntN(4)])
		e.Time, e.ID = t, fmt.Sprint("event-", i)
		e.File.Name = fmt.Sprint("name", r.IntN(6))
		if r.IntN(5) > 0 {
			var ids []string
			for range r.IntN(4) {
				ids = append(ids, fmt.Sprint(r.IntN(9)))
			}
			if i%29 == 0 { // now and then more than a small window holds
				for k := range 60 {
					ids = append(ids, fmt.Sprint(i%4*20+k))
				}
			}
			with(e, int64(r.IntN(12)), ids...)
		}
		out = append(out, e)
	}
	return out
}

// describe is all that a firing tells.
func describe(firings []Firing) string {
	var b strings.Builder
	for _, f := range firings {
		fmt.Fprintf(&b, "%s %s %v %v %v %v %d %d [", f.Rule.Name, f.Event.ID, f.Keys, f.Totals, f.Fresh, f.First, f.EvidenceTotal, f.EvidenceFresh)
		for _, e := range f.Evidence {
			fmt.Fprint(&b, " ", e.ID)
		}
		b.WriteString(" ]\n")
	}
	return b.String()
}

func results(firings []Firing) (out []result) {
	for _, f := range firings {
		r := result{rule: f.Rule.Name, events: f.EvidenceTotal}
		for k, v := range f.Totals {
			r.total = fmt.Sprint(k, "=", v)
		}
		out = append(out, r)
	}
	return out
}

func TestLongWindowsAgreeWithTheDefinitionAndWithThemselvesWhateverTheRestarts(t *testing.T) {
	fired := map[rules.CorrelationType]int{}
	seeds, least := uint64(50), 50
	if racing {
		seeds, least = 10, 5
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		var texts []string
		for range 5 {
			texts = append(texts, randomRule(r, true, false))
		}
		texts = append(texts, randomRule(r, true, true))
		p := program(t, texts...)
		const unit, late = 60 * time.Hour, 100 * time.Second
		limits := Limits{Tolerance: late, Evidence: 1 + r.IntN(6)}
		ref, whole := newReference(p), New(p, limits, nil)
		store := mapStore{}
		tight := limits
		tight.Cells = 250 + r.IntN(200) // long windows come and go; nothing is lost as the Store is flushed after each event
		cut := New(p, tight, store)
		for i, e := range randomEvents(r, 300, unit, late) {
			m := p.Match(e, nil)
			got := whole.Observe(e, m, nil)
			if got, want := fmt.Sprint(results(got)), fmt.Sprint(ref.observe(e, m)); got != want {
				t.Fatalf("seed %d, event %d at %v: got %s, want %s\n%s", seed, i, e.Time, got, want, strings.Join(texts, "\n"))
			}
			for _, f := range got {
				fired[f.Rule.Correlation.Type]++
			}
			if again := cut.Observe(e, m, nil); describe(again) != describe(got) {
				t.Fatalf("seed %d, event %d: after restarts\n%s, without\n%s", seed, i, describe(again), describe(got))
			}
			if err := cut.Flush(store.put); err != nil {
				t.Fatal(err)
			}
			if r.IntN(4) == 0 {
				if st := cut.Stats(); st.Lost+st.Broken+st.Evicted != 0 {
					t.Fatalf("seed %d: lost %+v", seed, st)
				}
				cut = New(p, tight, store)
				if err := cut.Load(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if st := whole.Stats(); st.Late != 0 || st.Lost+st.Evicted+st.Trimmed != 0 {
			t.Fatalf("seed %d: %+v", seed, st)
		}
	}
	for _, typ := range types[1:] {
		if fired[typ] < least {
			t.Errorf("%s fired %d times only: that says little", typ, fired[typ])
		}
	}
}
