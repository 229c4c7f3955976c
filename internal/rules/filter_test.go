package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

const filtered = `title: Copies
name: copies
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
---
title: Processes
name: processes
id: 11111111-1111-4111-8111-111111111111
logsource: {category: process_creation, product: windows}
detection: {s: {'Image|endswith': '\tool.exe'}, condition: s}
sekisho: {rule: SITE-2}
---
title: Many copies
name: many
taxonomy: ecs
correlation: {type: event_count, rules: [copies], group-by: [user.name], timespan: 1h, condition: {gte: 3}}
sekisho: {rule: SITE-1, thresholds: {n: {rule: many, default: 3}}}
---
title: Many copies for long
name: long
taxonomy: ecs
correlation: {type: event_count, rules: [copies], group-by: [user.name], timespan: 2h, condition: {gte: 5}}
sekisho: {rule: SITE-1}
---
title: Both
name: both
correlation: {type: temporal, rules: [many, processes], group-by: [host.name], timespan: 1h, generate: true}
`

const (
	copyByBob  = `{"@timestamp":"2026-11-21T10:00:00Z","event.action":"file-copied","user.name":"bob","file.path":"/a"}`
	copyByEve  = `{"@timestamp":"2026-11-21T15:00:00Z","event.action":"file-copied","user.name":"eve","file.path":"/a"}` // the 22nd in Tokyo
	toolByBob  = `{"@timestamp":"2026-11-21T10:00:00Z","event.action":"process-started","host.os.type":"windows","process.executable":"C:\\tool.exe","user.name":"bob"}`
	filterForm = "---\ntitle: The filter\nlogsource: {%s}\nfilter:\n  rules: %s\n  known: {%s}\n  condition: %s\n"
)

// What detection rules match, and what correlations count, under filters and
// exceptions. A correlation is shown by its name where it counts the event.
func TestFiltersAndExceptions(t *testing.T) {
	filter := func(logsource, rules, known, condition string) string {
		return fmt.Sprintf(filterForm, logsource, rules, known, condition)
	}
	except := func(expires string, when map[string][]string, rules ...string) Options {
		return Options{Exceptions: []Exception{{Rules: rules, When: when, Expires: expires}}}
	}
	bob := map[string][]string{"user.name": {"BOB", "svc-*"}}
	const all, copied, tool = "copies many long both", "copies", "processes both"
	tests := []struct {
		name, text string
		o          Options
		event      string
		want       string
	}{
		{"nothing left out", "", Options{}, copyByBob, all},
		{"nothing left out of a detection rule", "", Options{}, toolByBob, tool},
		{"a detection rule by name", filter("product: sekisho", "[copies]", "user.name: bob", "not known"), Options{}, copyByBob, ""},
		{"another event of it", filter("product: sekisho", "[copies]", "user.name: bob", "not known"), Options{}, copyByEve, all},
		{"a detection rule by id", filter("product: windows", "[11111111-1111-4111-8111-111111111111]", "User: bob", "not known"), Options{}, toolByBob, ""},
		{"a condition without not keeps what it holds for", filter("product: sekisho", "[copies]", "user.name: bob", "known"), Options{}, copyByEve, ""},
		{"a correlation by name", filter("product: sekisho", "[many]", "user.name: bob", "not known"), Options{}, copyByBob, "copies long"},
		{"another event of it", filter("product: sekisho", "[many]", "user.name: bob", "not known"), Options{}, copyByEve, all},
		{"a correlation of another system's events", filter("product: windows", "[many]", "user.name: bob", "not known"), Options{}, copyByBob, all},
		{"a correlation over a correlation", filter("category: process_creation", "[both]", "user.name: bob", "not known"), Options{}, toolByBob, "processes"},
		{"whose names are those of each rule", filter("product: sekisho", "[both]", "user.name: bob", "not known"), Options{}, copyByBob, "copies many long"},
		{"every document of a table id", filter("product: sekisho", "[site-1]", "user.name: bob", "not known"), Options{}, copyByBob, "copies"},
		{"two rules", filter("product: sekisho", "[long, many]", "user.name: bob", "not known"), Options{}, copyByBob, "copies"},
		{"any", filter("product: sekisho", "any", "user.name: bob", "not known"), Options{}, copyByBob, ""},
		{"any of a logsource", filter("product: windows", "any", "user.name: bob", "not known"), Options{}, copyByBob, all},
		{"two filters", filter("product: sekisho", "[many]", "user.name: bob", "not known") +
			strings.Replace(filter("product: sekisho", "[many]", "user.name: eve", "not known"), "The filter", "Other", 1), Options{}, copyByEve, "copies long"},

		{"exception of a table id made of correlations", "", except("", bob, "SITE-1"), copyByBob, "copies"},
		{"exception for others", "", except("", bob, "SITE-1"), copyByEve, all},
		{"exception of a table id made of a detection rule", "", except("", bob, "SITE-2"), toolByBob, ""},
		{"exception by id", "", except("", bob, "11111111-1111-4111-8111-111111111111"), toolByBob, ""},
		{"exception by name", "", except("", bob, "copies"), copyByBob, ""},
		{"exception of any", "", except("", bob, "any"), copyByBob, ""},
		{"exception of any, by names of events", "", except("", bob, "Any"), toolByBob, ""},
		{"each field has to fit", "", except("", map[string][]string{"user.name": {"bob"}, "file.path": {"/b", "/c"}}, "any"), copyByBob, all},
		{"and does", "", except("", map[string][]string{"user.name": {"bob"}, "file.path": {"/b", "/?"}}, "any"), copyByBob, ""},
		{"last day", "", except("2026-11-21", bob, "any"), copyByBob, ""},
		{"day after", "", except("2026-11-20", bob, "any"), copyByBob, all},
		{"last day in the zone", "", except("2026-11-21", map[string][]string{"user.name": {"eve"}}, "many"), copyByEve, all},
		{"day after in the zone", "", except("2026-11-22", map[string][]string{"user.name": {"eve"}}, "many"), copyByEve, "copies long"},
		{"another zone", "", Options{Zone: mustZone("Europe/London"), Exceptions: []Exception{{[]string{"many"}, map[string][]string{"user.name": {"eve"}}, "2026-11-21"}}}, copyByEve, "copies long"},
		{"without a time it does not hold", "", except("2999-12-31", bob, "any"), `{"event.action":"file-copied","user.name":"bob"}`, all},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compileText(t, filtered+tt.text, tt.o)
			e, err := event.Decode([]byte(tt.event))
			if err != nil {
				t.Fatal(err)
			}
			matched := map[int]bool{}
			for _, m := range p.Match(e, nil) {
				matched[m.Rule.Index] = true
				if m.Rule.Hidden && !m.Rule.Silent {
					t.Error("a hidden rule that is not silent")
				}
			}
			var got []string
			for _, r := range p.Rules { // correlations come after those they refer to
				c := r.Correlation
				if c == nil {
					if matched[r.Index] && !r.Hidden {
						got = append(got, r.Name)
					}
					continue
				}
				in := func(i int) bool { return matched[i] }
				if slices.ContainsFunc(c.Rules, in) && !slices.ContainsFunc(c.Except, in) {
					matched[r.Index] = true
					got = append(got, r.Name)
				}
			}
			want := strings.Fields(tt.want)
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// Hidden rules are told to nobody.
func TestHiddenRulesStayHidden(t *testing.T) {
	p := compileText(t, filtered+fmt.Sprintf(filterForm, "product: sekisho", "[SITE-1]", "user.name: bob", "not known"), Options{})
	hidden := p.Rules[slices.IndexFunc(p.Rules, func(r *Rule) bool { return r.Hidden })]
	if many, long := p.Rule("many").Correlation, p.Rule("long").Correlation; !slices.Equal(many.Except, []int{hidden.Index}) || !slices.Equal(long.Except, many.Except) {
		t.Errorf("except %v and %v, want the one hidden rule %d", many.Except, long.Except, hidden.Index)
	}
	if p.Rule(hidden.ID) != nil {
		t.Error("found by id")
	}
	for _, i := range p.List() {
		if i.ID == hidden.ID {
			t.Error("listed")
		}
	}
	e, err := event.Decode([]byte(copyByBob))
	if err != nil {
		t.Fatal(err)
	}
	list, err := p.ExplainEvent(e, "", "en")
	if err != nil || len(list) != 1 || !slices.Equal(list[0].LeftOut, []string{"Many copies (The filter)", "Many copies for long (The filter)"}) || list[0].Feeds != nil {
		t.Errorf("verdicts %+v, %v", list, err)
	}
}

// What was counted over a year must outlive a setting.
func TestWhatASiteSetsDoesNotChangeTheDigest(t *testing.T) {
	digest := func(text string, o Options) uint64 { return compileText(t, filtered+text, o).Rule("many").Digest() }
	none := digest("", Options{})
	for name, got := range map[string]uint64{
		"a filter":     digest(fmt.Sprintf(filterForm, "product: sekisho", "[many]", "user.name: bob", "not known"), Options{}),
		"an exception": digest("", Options{Exceptions: []Exception{{[]string{"many"}, map[string][]string{"user.name": {"bob"}}, "2026-11-21"}}}),
		"a threshold":  digest("", Options{Thresholds: map[string]map[string]int64{"SITE-1": {"n": 9}}, Scoped: []ScopedThresholds{{Scope{Tag: "x"}, map[string]map[string]int64{"SITE-1": {"n": 8}}}}}),
	} {
		if got != none {
			t.Errorf("%s makes it another rule", name)
		}
	}
}

func TestScopedThresholdsAreInForceForTheirScope(t *testing.T) {
	n := func(v int64) map[string]map[string]int64 { return map[string]map[string]int64{"SITE-1": {"n": v}} }
	p := compileText(t, filtered, Options{Thresholds: n(10), Scoped: []ScopedThresholds{
		{Scope{Department: "市民課", Tag: "sensitive"}, n(4)},
		{Scope{Department: "福祉課"}, map[string]map[string]int64{}}, // names another threshold
		{Scope{List: "leaver"}, n(2)},
		{Scope{Department: "市民課"}, n(6)},
	}})
	tests := []struct {
		name    string
		context *event.Context
		want    float64
	}{
		{"nothing known", nil, 10},
		{"somebody else", &event.Context{PersonDept: "福祉課"}, 10},
		{"both parts of the scope", &event.Context{PersonDept: "市民課", HostTags: []string{"x", "sensitive"}}, 4},
		{"the first of two that fit", &event.Context{PersonDept: "市民課", PersonLists: []string{"leaver"}}, 2},
		{"the last", &event.Context{PersonDept: "市民課", HostTags: []string{"x"}}, 6},
		{"the PC's department where the person's is not known", &event.Context{HostDepartment: "市民課"}, 6},
	}
	for _, tt := range tests {
		if got := p.Rule("many").Correlation.In(&event.Event{Context: tt.context}); len(got) != 1 || got[0] != (Condition{"gte", tt.want}) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if c := p.Rule("long").Correlation; c.Scoped != nil {
		t.Errorf("another correlation has %v", c.Scoped)
	}
}

// Explain shows what settings and filters make of a rule: testdata/set.txt.
func TestExplainTellsWhatSettingsMakeOfARule(t *testing.T) {
	p := compileText(t, filtered+fmt.Sprintf(filterForm, "product: sekisho", "[SITE-1, copies]", "user.name: backup", "not known"), Options{
		Thresholds: map[string]map[string]int64{"SITE-1": {"n": 10}},
		Scoped: []ScopedThresholds{
			{Scope{Department: "市民課", Tag: "sensitive"}, map[string]map[string]int64{"SITE-1": {"n": 4}}},
			{Scope{List: "leaver"}, map[string]map[string]int64{"SITE-1": {"n": 2}}},
			{Scope{}, map[string]map[string]int64{"SITE-1": {"n": 9}}}},
		Exceptions: []Exception{{[]string{"SITE-1"}, map[string][]string{"user.name": {"bob", "svc-*"}, "host.name": {"nas-1"}}, "2027-03-31"}},
	})
	var b strings.Builder
	for _, lang := range []string{"en", "ja"} {
		if err := p.Explain(&b, "SITE-1", lang); err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	golden(t, "testdata/set.txt", b.String())
}

func TestSettingsOfRulesAreTold(t *testing.T) {
	scoped := func(m map[string]map[string]int64) Options {
		return Options{Scoped: []ScopedThresholds{{}, {Scope{Tag: "x"}, m}}}
	}
	except := func(e Exception) Options { return Options{Exceptions: []Exception{{}, e}[1:]} }
	when := map[string][]string{"user.name": {"bob"}}
	tests := []struct {
		o    Options
		want []string // of Message("en")
	}{
		{scoped(map[string]map[string]int64{"SITE-1": {"m": 3}}), []string{`rules.thresholds_for[1].thresholds.SITE-1.m: SITE-1 has no threshold "m" (did you mean "n"?) [RUL-14]`}},
		{scoped(map[string]map[string]int64{"SITE-3": {"n": 3}}), []string{`rules.thresholds_for[1].thresholds.SITE-3: there is no rule "SITE-3" (did you mean "SITE-1"?) [RUL-14]`}},
		{scoped(map[string]map[string]int64{"SITE-1": {"n": 0}}), []string{`rules.thresholds_for[1].thresholds.SITE-1.n: a threshold is at least 1 [RUL-14]`}},
		{scoped(map[string]map[string]int64{"SITE-1": {"n": 1 << 60}}), []string{`rules.thresholds_for[1].thresholds.SITE-1.n: a threshold is at most 9007199254740992 [RUL-14]`}},
		{except(Exception{[]string{"SITE-3", "manny", "any-1"}, when, ""}), []string{
			`rules.exceptions[0].rules: there is no rule with id or name "SITE-3" (did you mean "SITE-2"?) [RUL-14]`,
			`rules.exceptions[0].rules: there is no rule with id or name "manny" (did you mean "many"?) [RUL-14]`,
			`rules.exceptions[0].rules: there is no rule with id or name "any-1" [RUL-14]`}},
		{except(Exception{[]string{"any"}, map[string][]string{"user.nam": {"bob"}}, ""}), []string{`rules.exceptions[0].when.user.nam: unknown field "user.nam" (did you mean "user.name"?) [RUL-14]`}},
		{except(Exception{[]string{"SITE-1"}, map[string][]string{"user.nam": {"bob"}}, ""}), []string{`rules.exceptions[0].when.user.nam: unknown field "user.nam" (did you mean "user.name"?) [RUL-14]`}},
		{except(Exception{[]string{"many"}, map[string][]string{"file.size": {"ten"}}, ""}), []string{`rules.exceptions[0].when.file.size: file.size is a whole number and never "ten" [RUL-14]`}},
		{except(Exception{nil, map[string][]string{}, "31.3.2027"}), []string{`rules.exceptions[0].rules: no rule is named [RUL-14]`,
			`rules.exceptions[0].when: without a condition it would take out every event [RUL-14]`,
			`rules.exceptions[0].expires: "31.3.2027" is not a day such as 2027-03-31 [RUL-14]`}},
		{except(Exception{[]string{"any"}, map[string][]string{"user.name": {}, "": {"x"}}, ""}), []string{
			`rules.exceptions[0].when.: there is no name of a field [RUL-14]`, `rules.exceptions[0].when.user.name: there is no value [RUL-14]`}},
		{Options{Lenient: true, Exceptions: []Exception{{[]string{"SITE-3"}, map[string][]string{"user.nam": {"bob"}}, ""}}},
			[]string{`rules.exceptions[0].when.user.nam: unknown field "user.nam" (did you mean "user.name"?) [RUL-14]`}},
		{Options{Lenient: true, Exceptions: []Exception{{[]string{"SITE-3"}, when, ""}}}, nil},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range problemsOf("x.yml", []byte(filtered), tt.o) {
			got = append(got, p.Message("en"))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
}
