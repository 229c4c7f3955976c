package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// compileText compiles the text of one file, which has to be right.
func compileText(t *testing.T, text string, o Options) *Program {
	t.Helper()
	if ps := problemsOf("x.yml", []byte(text), o); len(ps) > 0 {
		t.Fatal(ps)
	}
	f, _ := Parse("x.yml", []byte(text))
	p, _ := Compile([]*File{f}, o)
	return p
}

const copies = `title: copies
name: copies
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
---
title: prints
name: prints
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: document-printed}, condition: s}
---
title: c
name: c
`

func TestCorrelationsAreReadAsWritten(t *testing.T) {
	tests := []struct {
		name, correlation string
		span              time.Duration
		conditions        []Condition
		total             string
	}{
		{"mean with a fraction", "{type: value_avg, rules: [copies], timespan: 24h, condition: {field: file.size, gt: 500.5}}", 24 * time.Hour, []Condition{{"gt", 500.5}}, "mean_size"},
		{"mean with a whole number", "{type: value_avg, rules: [copies], timespan: 90s, condition: {field: file.size, lte: -5}}", 90 * time.Second, []Condition{{"lte", -5}}, "mean_size"},
		{"percentile of a text", "{type: value_percentile, rules: [copies], timespan: 24h, condition: {field: process.name, lte: 1}}", 24 * time.Hour, []Condition{{"lte", 1}}, "percentile_name"},
		{"percentile as a range", "{type: value_percentile, rules: [copies], timespan: 8d, condition: {field: file.size, gt: 99.5, lt: 99.9}}", 8 * 24 * time.Hour, []Condition{{"gt", 99.5}, {"lt", 99.9}}, "percentile_size"},
		{"more than a year", "{type: event_count, rules: [copies], timespan: 400d, condition: {gte: 3}}", 400 * 24 * time.Hour, []Condition{{"gte", 3}}, "events"},
		{"range of one number", "{type: value_count, rules: [copies], timespan: 1h, condition: {field: file.path, gt: 1, lt: 3}}", time.Hour, []Condition{{"gt", 1}, {"lt", 3}}, "distinct_path"},
		{"one of two rules", "{type: temporal, rules: [copies, prints], timespan: 1h, condition: {eq: 1}}", time.Hour, []Condition{{"eq", 1}}, ""},
		{"two in order", "{type: temporal_ordered, rules: [copies, prints], timespan: 1h, condition: {gte: 2}}", time.Hour, []Condition{{"gte", 2}}, ""},
		{"all in order", "{type: temporal_ordered, rules: [copies, prints], timespan: 1h}", time.Hour, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compileText(t, copies+"correlation: "+tt.correlation, Options{})
			c := p.Rule("c").Correlation
			if c.Timespan != tt.span || len(c.Conditions) != len(tt.conditions) || c.Total != tt.total {
				t.Fatalf("got %v %v %q", c.Timespan, c.Conditions, c.Total)
			}
			for i, want := range tt.conditions {
				if c.Conditions[i] != want {
					t.Errorf("condition %d is %v, want %v", i, c.Conditions[i], want)
				}
			}
		})
	}
}

func TestFirstSeenIsReadAndCountsInTheDigest(t *testing.T) {
	const rule = `title: new stick
name: stick
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: usb-attached}, condition: s}
`
	digests := map[uint64]string{compileText(t, rule, Options{}).Rule("stick").Digest(): "none"}
	for _, tt := range []struct {
		text   string
		keys   string
		within time.Duration
		learn  time.Duration
	}{
		{"{keys: [device.serial_number], within: 180d, learn: 30d}", "device.serial_number", 180 * 24 * time.Hour, 30 * 24 * time.Hour},
		{"{keys: [device.serial_number], within: 180d}", "device.serial_number", 180 * 24 * time.Hour, 0},
		{"{keys: device.serial_number, within: 181d}", "device.serial_number", 181 * 24 * time.Hour, 0},
		{"{keys: [user.name, device.serial_number], within: 180d}", "user.name device.serial_number", 180 * 24 * time.Hour, 0},
	} {
		r := compileText(t, rule+"sekisho: {first-seen: "+tt.text+"}\n", Options{}).Rule("stick")
		f := r.Addition.FirstSeen
		var keys []string
		for i := range f.Keys {
			keys = append(keys, f.Keys[i].Name)
		}
		if got := strings.Join(keys, " "); got != tt.keys || f.Within != tt.within || f.Learn != tt.learn {
			t.Errorf("%s: got %s %v %v", tt.text, got, f.Within, f.Learn)
		}
		if same := digests[r.Digest()]; same != "" {
			t.Errorf("%s has the digest of %s", tt.text, same)
		}
		digests[r.Digest()] = tt.text
	}
}

// What a rule says in plain words is in testdata/language.txt, in both languages.
func TestExplainTellsTheWholeLanguage(t *testing.T) {
	text, err := os.ReadFile("testdata/language.yml")
	if err != nil {
		t.Fatal(err)
	}
	p := compileText(t, string(text), Options{})
	var b strings.Builder
	for _, r := range p.Rules {
		for _, lang := range []string{"en", "ja"} {
			if err := p.Explain(&b, r.ID, lang); err != nil {
				t.Fatal(err)
			}
			b.WriteByte('\n')
		}
	}
	golden(t, "testdata/language.txt", b.String())
}

func TestLaterDocumentsTakeWhatTheyLeaveOutFromTheFirst(t *testing.T) {
	const detection = "taxonomy: ecs\nlogsource: {product: sekisho}\ndetection: {s: {event.action: file-copied}, condition: s}\n"
	text := "title: one\nname: one\n" + detection + `sekisho:
  rule: SITE-1
  incidents: ["#1"]
  title: {ja: 件名, en: title}
  advice: {ja: 助言, en: advice}
  group-by: [user.name]
  repeat-after: 2h
  respond: [warn-user]
  first-seen: {keys: [user.name], within: 1d}
---
title: other id
name: other
` + detection + `sekisho: {rule: SITE-2}
---
title: two
name: two
` + detection + `sekisho: {rule: SITE-1}
---
title: three
name: three
` + detection + `sekisho: {rule: SITE-1, incidents: ["#2"], advice: {en: own}, repeat-after: 3h, respond: [], group-by: []}
---
title: four
name: four
correlation: {type: event_count, rules: [one], group-by: [host.name], timespan: 1h, condition: {gte: 2}}
sekisho: {rule: SITE-2}
---
title: five
name: five
correlation: {type: event_count, rules: [two], group-by: [host.name], timespan: 1h, condition: {gte: 2}}
sekisho: {rule: SITE-1}
`
	p := compileText(t, text, Options{})
	tests := []struct {
		rule, want string
	}{
		{"one", "[#1] {件名 title} {助言 advice} [user.name] 2h0m0s [warn-user] true"},
		{"other", "[] { } { } [] 1h0m0s [] false"},
		{"two", "[#1] {件名 title} {助言 advice} [user.name] 2h0m0s [warn-user] false"},
		{"three", "[#2] {件名 title} { own} [] 3h0m0s [] false"},
		{"four", "[] { } { } [host.name] 1h0m0s [] false"},
		{"five", "[#1] {件名 title} {助言 advice} [user.name] 2h0m0s [warn-user] false"},
	}
	for _, tt := range tests {
		a := p.Rule(tt.rule).Addition
		by := []string{}
		for i := range a.GroupBy {
			by = append(by, a.GroupBy[i].Name)
		}
		if got := fmt.Sprint(a.Incidents, a.Title, a.Advice, by, a.RepeatAfter, a.Respond, a.FirstSeen != nil); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.rule, got, tt.want)
		}
	}
	// What is taken is the file's own.
	f, _ := Parse("y.yml", []byte("title: elsewhere\nname: elsewhere\n"+detection+"sekisho: {rule: SITE-1}\n"))
	g, _ := Parse("x.yml", []byte(text))
	p, err := Compile([]*File{g, f}, Options{})
	if err != nil || p.Rule("elsewhere").Addition.Title.EN != "" {
		t.Errorf("taken from another file; %v", err)
	}
}
