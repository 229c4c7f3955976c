package rules

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
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

func TestFirstSeenIsRead(t *testing.T) {
	const rule = `title: new stick
name: stick
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: usb-attached}, condition: s}
`
	keysOf := map[uint64]string{compileText(t, rule, Options{}).Rule("stick").Digest(): ""}
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
		if same, ok := keysOf[r.Digest()]; ok && same != tt.keys {
			t.Errorf("the digest is that of keys %q, too", same)
		}
		keysOf[r.Digest()] = tt.keys
	}
	if len(keysOf) != 3 {
		t.Errorf("%d digests: one for each choice of keys, whatever their times, and one without", len(keysOf))
	}
}

// What a rule says in plain words is in testdata/language.txt, in both languages.
func TestExplainTellsTheWholeLanguage(t *testing.T) {
	text, err := os.ReadFile("testdata/language.yml")
	if err != nil {
		t.Fatal(err)
	}
	p := compileText(t, string(text), Options{Placeholders: map[string][]string{"servers": {"fs", "db"}}})
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

func TestTimeModifiersAndPlaceholders(t *testing.T) {
	// 2026-11-21 is a Saturday.
	const evening = `{"@timestamp":"2026-11-21T11:30:00Z","user.name":"x"}`  // 20:30 in Tokyo
	const newYear = `{"@timestamp":"2026-12-31T15:00:00Z","user.name":"x"}`  // 2027-01-01 00:00 in Tokyo, week 53 of 2026
	const noTime = `{"@timestamp":"2026-01-01T00:00:00Z","message":"today"}` // a text that is no time
	settings := Options{Placeholders: map[string][]string{
		"servers": {"fs*", "db01"}, "dir": {`C:\Backup\`}, "percent": {"100%"}, "lan": {"10.0.0.0/8", "192.168.0.0/16"}}}
	adelaide := Options{Zone: mustZone("Australia/Adelaide")} // 22:00 that evening
	tests := []struct {
		selection, event string
		o                Options
		want             bool
	}{
		{"'@timestamp|hour': 20", evening, Options{}, true},
		{"'@timestamp|hour': 11", evening, Options{}, false},
		{"'@timestamp|hour': 11", evening, Options{Zone: time.UTC}, true},
		{"'@timestamp|hour': [22, 23]", evening, adelaide, true},
		{"'@timestamp|minute': '00'", evening, adelaide, true},
		{"'@timestamp|hour|gte': 20", evening, Options{}, true},
		{"'@timestamp|gt|hour': 20", evening, Options{}, false},
		{"'@timestamp|hour|lt': 20", evening, Options{}, false},
		{"'@timestamp|hour|lte': 20", evening, Options{}, true},
		{"'@timestamp|hour|neq': [19, 20]", evening, Options{}, false},
		{"'@timestamp|hour|neq': [19, 21]", evening, Options{}, true},
		{"'@timestamp|day': 21", evening, Options{}, true},
		{"'@timestamp|week': 47", evening, Options{}, true},
		{"'@timestamp|month': 11", evening, Options{}, true},
		{"'@timestamp|year|gt': 2025", evening, Options{}, true},
		{"'@timestamp|week': 53", newYear, Options{}, true},
		{"'@timestamp|year': 2027", newYear, Options{}, true},
		{"'@timestamp|day': 1", newYear, Options{}, true},
		{"'@timestamp|hour': 0", newYear, Options{}, true},
		{"'@timestamp|day': 31", newYear, Options{Zone: time.UTC}, true},
		{"message|hour: 3", `{"message":"2026-11-21T03:00:00+09:00"}`, Options{}, true},
		{"message|hour: 12", `{"message":"2026-11-21T03:00:00Z"}`, Options{}, true},
		{"message|hour|gte: 0", noTime, Options{}, false},
		{"message|hour|gte: 0", `{"message":"2026-11-21"}`, Options{}, false}, // a day has no hour
		{"process.start|hour|gte: 0", noTime, Options{}, false},
		{"process.start|hour|neq: 5", noTime, Options{}, true}, // the opposite of "=", like any neq
		{"host.name|expand: '%servers%'", `{"host.name":"FS07"}`, settings, true},
		{"host.name|expand: '%servers%'", `{"host.name":"db01"}`, settings, true},
		{"host.name|expand: '%servers%'", `{"host.name":"db02"}`, settings, false},
		{"host.name: '%servers%'", `{"host.name":"fs07"}`, settings, false},
		{"host.name: '%servers%'", `{"host.name":"%SERVERS%"}`, settings, true},
		{"host.name|expand: ['a-%servers%-b', other]", `{"host.name":"a-fs07-b"}`, settings, true},
		{"host.name|expand: ['a-%servers%-b', other]", `{"host.name":"other"}`, settings, true},
		{"host.name|expand: '%servers%.%servers%'", `{"host.name":"db01.fs1"}`, settings, true},
		{`host.name|expand: '\%plain%servers%'`, `{"host.name":"%plaindb01"}`, settings, true},
		{"host.name|expand: '%percent%servers%'", `{"host.name":"100%servers%"}`, settings, true},
		{"file.path|expand: '%dir%*'", `{"file.path":"C:\\Backup\\x"}`, settings, true},
		{"file.path|expand: '%dir%*'", `{"file.path":"C:\\Backup*"}`, settings, false},
		{"file.path|expand: '%dir%\\x'", `{"file.path":"C:\\Backup\\\\x"}`, settings, true},
		{"process.command_line|expand|contains|all: ['%servers%', ' -x']", `{"process.command_line":"copy fs1 -x"}`, settings, true},
		{"process.command_line|expand|contains|all: ['%servers%', ' -x']", `{"process.command_line":"copy fs1 -y"}`, settings, false},
		{"process.command_line|expand|contains|all: ['%servers%', ' -x']", `{"process.command_line":"copy db01 -x"}`, settings, true},
		{"process.command_line|expand|base64|contains: 'u%lan%'", `{"process.command_line":"dTEwLjAuMC4wLzg="}`, settings, true},
		{"destination.ip|cidr|expand: ['%lan%', 172.16.0.0/12]", `{"destination.ip":"192.168.3.4"}`, settings, true},
		{"destination.ip|cidr|expand: ['%lan%', 172.16.0.0/12]", `{"destination.ip":"8.8.8.8"}`, settings, false},
	}
	for _, tt := range tests {
		text := "title: t\ntaxonomy: ecs\nlogsource: {product: sekisho}\ndetection:\n  s:\n    " + tt.selection + "\n  condition: s\n"
		p := compileText(t, text, tt.o)
		e, err := event.Decode([]byte(tt.event))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(p.Match(e, nil)) == 1; got != tt.want {
			t.Errorf("%s of %s: got %v", tt.selection, tt.event, got)
		}
		if tt.o.Zone == nil {
			tt.o.Zone = defaultZone
		}
		f, _ := Parse("x.yml", []byte(text))
		if got := interpret(f.docs[0], e, tt.o); got != tt.want {
			t.Errorf("%s of %s: interpreted %v", tt.selection, tt.event, got)
		}
	}
}

// What the specification says, or leaves open and docs/rules.md decides.
func TestSpecificationAndDecisions(t *testing.T) {
	const started = `{"event.action":"process-started","host.os.type":"windows","process.executable":"C:\\a*b\\x.exe","process.command_line":"x -Enc 10","user.name":"","process.args":["a-1","b-2"],"process.pid":7}`
	tests := []struct {
		why, selection string
		want           bool
	}{
		{"all with one value changes nothing", "process.command_line|contains|all: ' -enc '", true},
		{"nor with a list of one", "process.command_line|contains|all: [' -enc ']", true},
		{"null in a list: absent is fine", "process.name: [x, null]", true},
		{"null in a list: there, and none of the others", "process.pid: [8, null]", false},
		{"empty is not absent", "user.name: ''", true},
		{"and null is not empty", "user.name: null", false},
		{"exists asks for the field, not its value", "user.name|exists: true", true},
		{"nothing matches what is absent", "process.name: '*'", false},
		{"an escaped wildcard", `process.executable: 'C:\a\*b\x.exe'`, true},
		{"another character than the escaped wildcard", `process.executable: 'C:\a\?b\x.exe'`, false},
		{"a backslash before a wildcard", `process.executable: 'C:\\*.exe'`, true},
		{"two backslashes are one", `process.executable: 'C:\\a*b\\x.exe'`, true},
		{"one mandatory character", `process.executable: 'C:\a?b\x.exe'`, true},
		{"not none", `process.executable: 'C:\a*b\x?.exe'`, false},
		{"values do not mind case", `process.executable|endswith: '\X.EXE'`, true},
		{"cased does", `process.executable|cased|endswith: '\X.EXE'`, false},
		{"regular expressions do", `process.executable|re: 'X\.EXE$'`, false},
		{"re|i does not", `process.executable|re|i: 'X\.EXE$'`, true},
		{"a number as text", "process.pid: '7'", true},
		{"a list of numbers with a comparison: any", "process.pid|gt: [9, 6]", true},
		{"neq of several: none of them", "process.pid|neq: [6, 7]", false},
		{"neq of an absent field", "process.name|neq: x", true},
		{"fieldref with neq", "process.pid|fieldref|neq: user.name", true},
		{"of a list one element is enough", "process.args: b-*", true},
		{"with all, each value may match another", "process.args|startswith|all: [a, b]", true},
		{"windash", "process.command_line|windash|contains: ' /enc'", true},
		{"the order of modifiers does not matter", "process.command_line|contains|windash: ' /enc'", true},
		{"keywords look everywhere", "'|all': ['-enc', 'x.exe']", true},
	}
	e, err := event.Decode([]byte(started))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		text := "title: t\ntaxonomy: ecs\nlogsource: {product: sekisho, vendor: any}\ndetection:\n  s:\n    " + tt.selection + "\n  condition: s\n"
		p := compileText(t, text, Options{})
		f, _ := Parse("x.yml", []byte(text))
		if got := len(p.Match(e, nil)) == 1; got != tt.want || interpret(f.docs[0], e, Options{}) != tt.want {
			t.Errorf("%s: %s: got %v", tt.why, tt.selection, got)
		}
	}
}
