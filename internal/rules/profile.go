package rules

import (
	"math/bits"
	"slices"
	"time"

	"sekisho/internal/event"
)

// Cost is what a rule took in a profile.
type Cost struct {
	Rule    *Rule         `json:"-"`
	ID      string        `json:"id"`
	Title   string        `json:"title"`
	Asked   int64         `json:"asked"`   // events that it was put to
	Matched int64         `json:"matched"` // of them
	Time    time.Duration `json:"time_ns"` // in all, some 50 ns of measuring an event included
}

// Profile finds out which rules cost most. It has one owner.
type Profile struct {
	p      *Program
	s      *scratch
	costs  []Cost // by Rule.Index
	events int64
}

// NewProfile is a profile of no events.
func (p *Program) NewProfile() *Profile {
	f := &Profile{p: p, s: p.pool.New().(*scratch), costs: make([]Cost, len(p.Rules))}
	for i, r := range p.Rules {
		f.costs[i] = Cost{Rule: r, ID: r.ID, Title: r.Title}
	}
	return f
}

// Event puts an event to the rules, as Match does.
func (f *Profile) Event(e *event.Event) {
	f.events++
	b := f.p.bucket(e)
	f.s.begin(e)
	defer f.s.end()
	for w, set := range f.s.candidates(b) {
		for ; set != 0; set &= set - 1 {
			en := &b.entries[w<<6+bits.TrailingZeros64(set)]
			began := time.Now()
			hit := en.match(f.s)
			c := &f.costs[en.rule.Index]
			c.Time += time.Since(began)
			c.Asked++
			if hit {
				c.Matched++
			}
		}
	}
}

// Events is how many events there were.
func (f *Profile) Events() int64 { return f.events }

// Costs is the rules that were asked, the dearest first.
func (f *Profile) Costs() []Cost {
	var out []Cost
	for _, c := range f.costs {
		if c.Asked > 0 {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b Cost) int { return int(b.Time - a.Time) })
	return out
}
