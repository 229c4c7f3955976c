package correlate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// longOf is a long window and the event it takes, a day after the start.
func longOf(t testing.TB, p *rules.Program) (*Set, *event.Event, []rules.Match) {
	e := with(ev(86400, "a", "u"), 1)
	return New(p, Limits{}, nil), e, p.Match(e, nil)
}

func TestDistinctValuesOfMonthsAreExactToTheSampleSizeAndWithinTheErrorBeyond(t *testing.T) {
	p := program(t, "  type: value_count\n  rules: [a]\n  timespan: 60d\n  condition: {field: file.name, gte: 1}")
	for _, values := range []int{100, SampleSize, 6_000, 10_000, 40_000} {
		squares, worst := 0.0, 0.0
		seeds := min(40, 400_000/values)
		if racing {
			seeds = 3
		}
		for seed := range seeds {
			s, e, m := longOf(t, p)
			var out []Firing
			for i := range values {
				e.File.Name = fmt.Sprint(seed, "/", i)
				out = s.Observe(e, m, out[:0])
			}
			off := float64(out[0].Totals["distinct_name"])/float64(values) - 1
			squares += off * off
			worst = max(worst, math.Abs(off))
			if values <= SampleSize && off != 0 {
				t.Fatalf("%d values count as %v", values, out[0].Totals)
			}
		}
		deviation := math.Sqrt(squares / float64(seeds))
		t.Logf("%d values: standard error %.2f %%, worst %.2f %%", values, deviation*100, worst*100)
		if deviation > 0.023 || worst > 0.07 {
			t.Errorf("%d values: standard error %.2f %%, worst %.2f %%; 2 %% is stated", values, deviation*100, worst*100)
		}
	}
}

func TestAfterAPeakDistinctValuesAreExactAgain(t *testing.T) {
	p := program(t, "  type: value_count\n  rules: [a]\n  timespan: 10d\n  condition: {field: file.name, gte: 1}")
	s, e, m := longOf(t, p)
	r := rand.New(rand.NewPCG(1, 2))
	last := map[string]time.Time{}
	var out []Firing
	see := func(name string) {
		e.File.Name = name
		last[name] = e.Time
		out = s.Observe(e, m, out[:0])
	}
	for i := range 50_000 { // the peak, on one day
		see(fmt.Sprint("peak", i))
	}
	exact := 0
	for day := 1; day < 60; day++ {
		for range 40 {
			e.Time = e.Time.Add(36 * time.Minute)
			see(fmt.Sprint(r.IntN(1000)))
		}
		n := 0
		for name, at := range last {
			if at.Before(e.Time.Add(-10 * 24 * time.Hour)) {
				delete(last, name)
			} else {
				n++
			}
		}
		if int(out[0].Totals["distinct_name"]) == n {
			exact++
		} else if day >= 22 {
			t.Errorf("day %d: %v, want %d", day, out[0].Totals, n)
		}
	}
	if exact < 38 {
		t.Errorf("exact on %d days of 59 only", exact)
	}
}

func TestThePercentileOfMonthsIsWithinTheError(t *testing.T) {
	p := program(t, "  type: value_percentile\n  rules: [a]\n  timespan: 60d\n  condition: {field: sekisho.copy.files, gte: 0}")
	sizes := []int{1000, 9_000, 20_000}
	if racing {
		sizes = sizes[:2]
	}
	for _, events := range sizes {
		squares, worst, n := 0.0, 0.0, 0
		for seed := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, 3))
			s, e, m := longOf(t, p)
			var sorted [1000]int
			var out []Firing
			for i := range events {
				v := min(int(r.ExpFloat64()*100), 999)
				e.Copy.Files = event.Some(int64(v))
				e.ID = fmt.Sprint(seed, "-", i)
				sorted[v]++
				out = s.Observe(e, m, out[:0])
				if i < events/2 || i%97 != 0 && i != events-1 {
					continue
				}
				below := 0
				for _, k := range sorted[:v] {
					below += k
				}
				want := (float64(below) + float64(sorted[v])/2) / float64(i+1) * 100
				off := math.Abs(float64(out[0].Totals["percentile_files"]) - want) // rounded: up to 0.5 of it
				squares, worst, n = squares+off*off, max(worst, off), n+1
			}
			if events <= SampleSize && worst > 0.5 {
				t.Fatalf("off by %v", worst)
			}
		}
		deviation := math.Sqrt(squares / float64(n))
		t.Logf("%d events: standard error %.2f points, worst %.2f", events, deviation, worst)
		if deviation > 1.1 || worst > 4.5 {
			t.Errorf("%d events: standard error %.2f points, worst %.2f; 1.1 is stated", events, deviation, worst)
		}
	}
}

func TestAClockSetBackKeepsWindowsOfMonths(t *testing.T) {
	p := program(t, "  type: event_count\n  rules: [a]\n  group-by: [user.name]\n  timespan: 30d\n  condition: {gte: 3}")
	store := mapStore{}
	s := New(p, Limits{}, store)
	e := ev(10*365*86400, "a", "u") // ten years ahead
	s.Observe(e, p.Match(e, nil), nil)
	flush(t, s, store)
	s = New(p, Limits{}, store) // the window is on disk only
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	fired := 0
	for i := range 40 {
		e := ev(float64(i), "a", "u")
		fired += len(s.Observe(e, p.Match(e, nil), nil))
	}
	flush(t, s, store)
	if want := 40 - lateRun; fired != want { // the one from the future, the last of the late ones, and then each
		t.Errorf("fired %d times, want %d", fired, want)
	}
	w, err := decodeWindow(s.corrs[0], key{}, store[string(s.corrs[0].prefix.with(s.corrs[0].ring.next.key))])
	if err != nil || w.newest() != start.Add(39*time.Second).UnixNano() {
		t.Errorf("in the store as of %v, %v", time.Unix(0, w.newest()).UTC(), err)
	}
}

func flush(t testing.TB, s *Set, store mapStore) {
	t.Helper()
	if err := s.Flush(store.put); err != nil {
		t.Fatal(err)
	}
}

// Nobody's numbers are so large that their sum becomes another's.
func TestSumsOfMonthsDoNotOverflow(t *testing.T) {
	for _, sign := range []int64{1, -1} {
		p := program(t, "  type: value_sum\n  rules: [a]\n  timespan: 90d\n  condition: {field: sekisho.copy.files, gte: 1}")
		l := newLong(New(p, Limits{}, nil).corrs[0])
		for d := range int64(91) {
			for range 6000 {
				l.fill(d*int64(24*time.Hour), amountOf(float64(sign*maxAmount)))
			}
		}
		if sum := l.sum.whole * sign; sum != 91*maxBucket || l.events != 91*6000 {
			t.Errorf("%d events sum up to %d", l.events, l.sum.whole)
		}
	}
}
