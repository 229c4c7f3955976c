package rules

import (
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
