// Package rules is the detection rules: Sigma 2.1 documents with places in
// their files, compiled once into an immutable Program that is asked of each
// event which rules match it.
//
// Three stages, three types. [Parse] reads YAML and keeps positions; [Compile]
// resolves fields, builds every matcher and joins rules, correlations and
// filters; [Program.Match] answers for an event. What the engine does not honour
// is refused with file, line, column and reason ([Problems]) and never
// approximated. docs/rules.md tells what is honoured and what we decided where
// the specification is silent.
//
// How matching is fast: index.go finds in one pass what an event's texts hold of
// all the rules' words, and which rules that leaves; match.go evaluates those;
// guard.go and dfa.go keep regular expressions from costing much. The tests'
// plain interpreter (interpret_test.go) is the judge of all of it.
//
// Windows over matches are package correlate's; this package only describes
// them ([Correlation]).
package rules

import (
	"slices"
	"time"

	"sekisho/internal/event"
)

// File is the documents of one rule file.
type File struct {
	Name string // as given to Parse

	docs  []*document
	lines []string
}

// Len is the number of documents in the file.
func (f *File) Len() int { return len(f.docs) }

// Text is a text in both languages.
type Text struct{ JA, EN string }

// In is the text in a language, "ja" or "en"; the other one where it is empty.
func (t Text) In(lang string) string {
	if (lang == "ja" && t.JA != "") || t.EN == "" {
		return t.JA
	}
	return t.EN
}

// Levels are Sigma's levels, ascending.
var Levels = []string{"informational", "low", "medium", "high", "critical"}

// Rule is one detection rule or correlation of a Program. It is immutable.
type Rule struct {
	Index    int    // place in Program.Rules
	ID       string // Sigma id; derived from the name where the file has none
	Name     string // Sigma name: what correlations call it; may be empty
	Title    string // Sigma title
	Version  string // "modified" of the file, else "date"; may be empty
	Level    string // one of Levels
	Status   string // stable, test, experimental ...; may be empty
	Summary  string // Sigma description
	File     string // where it stands
	Line     int
	Builtin  bool // shipped with the product
	Disabled bool // by settings: never matches
	// Waits is the placeholders of a shipped rule for which the settings
	// (rules.placeholders) have nothing yet; it is Disabled until then.
	Waits []string
	// Silent says that matches feed correlations only and raise no alert of
	// their own: a correlation refers to the rule and does not say generate.
	Silent bool
	// Hidden says that the rule stands for a filter of correlations
	// (Correlation.Except): it is always Silent, and nobody is told of it.
	Hidden bool

	Addition    *Addition    // the product's own key; nil for plain Sigma
	Correlation *Correlation // nil for a detection rule
	Filters     []string     // titles of the filters that apply to it

	doc    *document
	filter []*document
	node   node   // compiled condition; nil for correlations
	digest uint64 // see Digest
}

// Table is the rule's id in the incident table ("USB-3"), "" for others.
func (r *Rule) Table() string {
	if r.Addition == nil {
		return ""
	}
	return r.Addition.Rule
}

// Digest changes when the rule is another one: when its file says that it matches
// or counts something else. What a site sets does not count (thresholds, filters,
// exceptions, placeholders, times of first-seen): leaving one account out must
// not make a PC forget what it counted over a year.
func (r *Rule) Digest() uint64 { return r.digest }

// Addition is what the product says of a rule beyond Sigma, the key "sekisho".
type Addition struct {
	Rule        string   // id of the incident table
	Incidents   []string // "#2024-590"
	Title       Text     // one sentence for the person on duty, with placeholders {user.name}
	Advice      Text     // what to do now
	GroupBy     []Getter // what repeats join by, besides the host
	RepeatAfter time.Duration
	Respond     []string // responses the rule allows; settings decide whether they run
	Thresholds  []Threshold
	FirstSeen   *FirstSeen // nil: every match counts
}

// FirstSeen makes a detection rule match only what is new: a combination of keys
// that no match within a time had. A missing value is a value of its own.
type FirstSeen struct {
	Keys   []Getter
	Within time.Duration // forgotten after this time without a match
	Learn  time.Duration // nothing is new for this time after the rule was first in force
}

// DefaultRepeatAfter is the quiet time of a rule that does not say one.
// Judgement: an hour is what the table asks for SCAM-1.
const DefaultRepeatAfter = time.Hour

// Threshold is a number of a rule that settings may replace.
type Threshold struct {
	Key     string // in settings, "files"
	Target  string // name of the correlation whose condition it is
	Default int64  // as the rule has it
	Value   int64  // in force where no scope says otherwise
}

// Scope says for whom a setting is: whatever is set of it has to fit. The zero
// Scope fits everybody.
type Scope struct {
	Department string // the person's; where that is not known, the PC's
	Tag        string // of the PC
	List       string // people list the person is on: leaver, secondee, temp, contractor
}

// Fits reports whether an event is of somebody in the scope.
func (s Scope) Fits(e *event.Event) bool {
	c := e.Context
	if c == nil {
		return s == Scope{}
	}
	department := c.PersonDept
	if department == "" {
		department = c.HostDepartment
	}
	return (s.Department == "" || s.Department == department) &&
		(s.Tag == "" || slices.Contains(c.HostTags, s.Tag)) &&
		(s.List == "" || slices.Contains(c.PersonLists, s.List))
}

// CorrelationType is how a correlation counts.
type CorrelationType string

// The types that the engine honours.
const (
	EventCount      CorrelationType = "event_count"
	ValueCount      CorrelationType = "value_count"
	ValueSum        CorrelationType = "value_sum"
	ValueAvg        CorrelationType = "value_avg"
	ValuePercentile CorrelationType = "value_percentile"
	Temporal        CorrelationType = "temporal"
	TemporalOrdered CorrelationType = "temporal_ordered"
)

// Correlation joins matches of other rules within a time. It is immutable.
type Correlation struct {
	Type       CorrelationType
	Rules      []int // places in Program.Rules, in the file's order
	GroupBy    []Key // one window per combination of these
	Timespan   time.Duration
	Fields     []Getter    // value types: the field, or for value_count several
	Conditions []Condition // all must hold; none for a temporal type: every rule has to match
	Scoped     []Scoped    // instead of Conditions, the first that fits the event
	Except     []int       // places in Program.Rules (filters): an event that one of them matches is not counted
	Total      string      // what the count is called in an alert, after its field: "files"
	Generate   bool        // the rules it refers to alert on their own too
}

// Key is one element of a correlation's group-by.
type Key struct {
	Name string
	// ByRule maps places in Program.Rules to the field of that rule (aliases);
	// empty: Getter for all.
	ByRule map[int]Getter
	Getter
}

// For is the field that gives the key for a match of a rule.
func (k *Key) For(rule int) *Getter {
	if g, ok := k.ByRule[rule]; ok {
		return &g
	}
	return &k.Getter
}

// Scoped is conditions in force for some people or PCs.
type Scoped struct {
	Scope
	Conditions []Condition
}

// In is the conditions in force for an event.
func (c *Correlation) In(e *event.Event) []Condition {
	for i := range c.Scoped {
		if c.Scoped[i].Fits(e) {
			return c.Scoped[i].Conditions
		}
	}
	return c.Conditions
}

// Condition compares a count, sum, mean or percentage.
type Condition struct {
	Op    string // gt, gte, lt, lte, eq, neq
	Value float64
}

// Holds reports whether n fulfils the condition.
func (c Condition) Holds(n float64) bool { return compare(c.Op, n, c.Value) }

func compare[T int64 | float64](op string, a, b T) bool {
	switch op {
	case "gt":
		return a > b
	case "gte":
		return a >= b
	case "lt":
		return a < b
	case "lte":
		return a <= b
	case "eq":
		return a == b
	case "neq":
		return a != b
	}
	return false
}

// Match is a detection rule that an event matched.
type Match struct {
	Rule *Rule
}
