package rules

import (
	"fmt"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// compileOne compiles a rule with this detection.
func compileOne(t testing.TB, head, detection string) *Program {
	t.Helper()
	text := "title: t\n" + head + "\ndetection:\n  " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n  ") + "\n"
	ps := problemsOf("t.yml", []byte(text), Options{})
	if len(ps) > 0 {
		t.Fatalf("%v\n%s", ps, text)
	}
	f, _ := Parse("t.yml", []byte(text))
	p, _ := Compile([]*File{f}, Options{})
	return p
}

const (
	ecs     = "taxonomy: ecs\nlogsource: {product: sekisho}"
	windows = "logsource: {category: process_creation, product: windows}"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		name      string
		head      string
		detection string
		yes, no   []string // events
	}{
		{"text is compared without regard to case, in any script", ecs, "s: {file.name: 'ÄßKtest表.TXT'}\ncondition: s",
			[]string{`{"file.name":"äßKTEST表.txt"}`}, []string{`{"file.name":"ässktest表.txt"}`, `{"file.name":"xÄßKtest表.TXT"}`, `{}`}},
		{"cased minds case", ecs, "s: {'file.name|cased|contains': Ab}\ncondition: s", []string{`{"file.name":"xAbx"}`}, []string{`{"file.name":"xabx"}`}},
		{"wildcards", ecs, "s: {file.name: 'a*b?c'}\ncondition: s", []string{`{"file.name":"abxc"}`, `{"file.name":"a--b界c"}`, `{"file.name":"abbxbyc"}`}, []string{`{"file.name":"abc"}`, `{"file.name":"abxcd"}`}},
		{"escapes: \\* and \\? and \\\\, any other backslash is itself", ecs, `s: {file.path: 'C:\a\*\?\\*'}` + "\ncondition: s", []string{`{"file.path":"c:\\a*?\\x"}`}, []string{`{"file.path":"c:\\ax?\\x"}`, `{"file.path":"c:\\a*?x"}`}},
		{"a path that ends in a backslash", ecs, `s: {'file.path|startswith': 'C:\Windows\'}` + "\ncondition: s", []string{`{"file.path":"c:\\windows\\x"}`}, []string{`{"file.path":"c:\\windows"}`}},
		{"contains, startswith, endswith, all", ecs, "s:\n  file.name|contains|all: [a, b]\n  file.path|startswith: /x\n  file.extension|endswith: f\ncondition: s",
			[]string{`{"file.name":"b-a","file.path":"/X/y","file.extension":"pdf"}`}, []string{`{"file.name":"b","file.path":"/x/y","file.extension":"pdf"}`, `{"file.name":"ab","file.path":"y/x","file.extension":"pdf"}`}},
		{"a missing field never matches *", ecs, "s: {user.name: '*'}\ncondition: s", []string{`{"user.name":"x"}`, `{"user.name":""}`}, []string{`{}`, `{"user.name":null}`}},
		{"null is the missing field", ecs, "s: {user.name: null}\ncondition: s", []string{`{}`}, []string{`{"user.name":""}`, `{"user.name":"x"}`}},
		{"the empty text is not the missing field", ecs, "s: {user.name: ''}\ncondition: s", []string{`{"user.name":""}`}, []string{`{}`, `{"user.name":"x"}`}},
		{"null among values", ecs, "s: {user.name: [null, x]}\ncondition: s", []string{`{}`, `{"user.name":"X"}`}, []string{`{"user.name":"y"}`}},
		{"exists", ecs, "a: {'user.name|exists': true}\nb: {'user.id|exists': false}\ncondition: a and b", []string{`{"user.name":"x"}`}, []string{`{"user.name":"x","user.id":"1"}`, `{}`}},
		{"lists: any element", ecs, "s: {sekisho.person.lists: [leaver, temp]}\ncondition: s", []string{`{"sekisho.person.lists":["x","Temp"]}`, `{"sekisho.person.lists":"leaver"}`}, []string{`{"sekisho.person.lists":[]}`, `{}`}},
		{"lists: all of the values", ecs, "s: {'process.args|contains|all': [ab, cd]}\ncondition: s", []string{`{"process.args":["xab","cdx"]}`}, []string{`{"process.args":["ab","x"]}`}},
		{"numbers", ecs, "s: {'file.size|gt': 10, 'process.pid|lte': 5}\ncondition: s", []string{`{"file.size":11,"process.pid":5}`}, []string{`{"file.size":10,"process.pid":5}`, `{"file.size":11,"process.pid":6}`, `{"process.pid":1}`}},
		{"whole numbers and truth as values", ecs, "s: {destination.port: [22, 3389], volume.removable: true}\ncondition: s", []string{`{"destination.port":3389,"volume.removable":true}`}, []string{`{"destination.port":80,"volume.removable":true}`, `{"destination.port":22,"volume.removable":false}`, `{"destination.port":22}`}},
		{"cidr", ecs, "s: {'destination.ip|cidr': [10.0.0.0/8, 'fe80::/10']}\ncondition: s", []string{`{"destination.ip":"10.1.2.3"}`, `{"destination.ip":"::ffff:10.0.0.1"}`, `{"destination.ip":"fe80::1%eth0"}`}, []string{`{"destination.ip":"11.0.0.1"}`, `{"destination.ip":"x"}`}},
		{"re minds case, re|i does not", ecs, "a: {'file.name|re': '^A.c$'}\nb: {'file.path|re|i': 'x+Y'}\ncondition: a or b", []string{`{"file.name":"Abc"}`, `{"file.path":"aXXyb"}`}, []string{`{"file.name":"abc"}`, `{"file.path":"a"}`}},
		{"neq is the opposite of =", ecs, "s: {'user.name|neq': root}\ncondition: s", []string{`{"user.name":"x"}`, `{}`}, []string{`{"user.name":"ROOT"}`}},
		{"windash", windows, "s: {'CommandLine|windash|contains': ' -enc '}\ncondition: s", []string{w(`a -enc b`), w(`a /ENC b`), w(`a –enc b`), w(`a ―enc b`)}, []string{w(`a =enc b`), w(`a -encx`)}},
		{"windash leaves dashes within words", windows, "s: {'CommandLine|windash|contains': 'a-b -c'}\ncondition: s", []string{w(`a-b /c`)}, []string{w(`a/b -c`)}},
		{"base64offset", windows, "s: {'CommandLine|base64offset|contains': 'http://'}\ncondition: s", []string{w(`aHR0cDovL2E=`), w(`eGh0dHA6Ly9h`), w(`eHhodHRwOi8vYQ==`)}, []string{w(`http://`)}},
		{"wide and base64", windows, "s: {'CommandLine|wide|base64|contains': 'ab'}\ncondition: s", []string{w(`x YQBiAA== y`)}, []string{w(`YWI=`)}},
		{"fieldref", ecs, "s: {'user.name|fieldref': file.owner, 'file.path|fieldref|endswith': file.name}\ncondition: s", []string{`{"user.name":"A","file.owner":"a","file.path":"/x/B","file.name":"b"}`}, []string{`{"user.name":"a","file.owner":"b","file.path":"/x/b","file.name":"b"}`, `{"file.path":"/b","file.name":"b"}`}},
		{"lists of maps are or", ecs, "s:\n  - user.name: a\n    host.name: h\n  - user.name: b\ncondition: s", []string{`{"user.name":"b"}`, `{"user.name":"a","host.name":"h"}`}, []string{`{"user.name":"a"}`}},
		{"keywords", ecs, "s: [evil, 'b*d word']\ncondition: s", []string{`{"file.name":"anEVILone"}`, `{"message":"x bad word"}`, `{"x.y":"evil"}`, `{"process.args":["evil"]}`}, []string{`{"file.name":"good"}`}},
		{"keywords in what the action implies", ecs, "s: [AUTHENTICAT]\nt: {file.name: x.exe}\ncondition: s or t", []string{`{"event.action":"session-logon"}`, `{"event.action":"x","event.type":["an authenticator"]}`}, []string{`{"event.action":"session-locked"}`, `{"event.action":"session-logon","event.category":["file"]}`}},
		{"keywords, all of them", ecs, "s: {'|all': [one, two]}\ncondition: s", []string{`{"message":"one","file.name":"two"}`}, []string{`{"message":"one"}`}},
		{"not, and, or in their order", ecs, "a: {user.name: a}\nb: {host.name: b}\nc: {host.id: c}\ncondition: a or b and not c", []string{`{"user.name":"a","host.id":"c"}`, `{"host.name":"b"}`}, []string{`{"host.name":"b","host.id":"c"}`}},
		{"parentheses", ecs, "a: {user.name: a}\nb: {host.name: b}\nc: {host.id: c}\ncondition: (a or b) and not c", []string{`{"user.name":"a"}`}, []string{`{"user.name":"a","host.id":"c"}`}},
		{"1 of, all of, them", ecs, "sel_a: {user.name: a}\nsel_b: {host.name: b}\n_x: {host.id: c}\ncondition: 1 of sel_* and not all of them", []string{`{"user.name":"a"}`}, []string{`{"user.name":"a","host.name":"b"}`, `{"host.id":"c"}`}},
		{"several conditions are or", ecs, "a: {user.name: a}\nb: {host.name: b}\ncondition: [a, b]", []string{`{"user.name":"a"}`, `{"host.name":"b"}`}, []string{`{}`}},
		{"a condition over several lines", ecs, "a: {user.name: a}\nb: {host.name: b}\ncondition: >\n  a\n  and\n  b", []string{`{"user.name":"a","host.name":"b"}`}, []string{`{"user.name":"a"}`}},
		{"logsource: category and product", windows, "s: {Image: x}\ncondition: s", []string{`{"event.action":"Process-Started","host.os.type":"windows","process.executable":"X"}`},
			[]string{`{"event.action":"process-ended","host.os.type":"windows","process.executable":"x"}`, `{"event.action":"process-started","host.os.type":"linux","process.executable":"x"}`, `{"event.action":"process-started","process.executable":"x"}`}},
		{"User is the join of domain and name", windows, "s: {'User|contains': 'AUTHORI', 'ParentUser': 'ex\\bob'}\ncondition: s",
			[]string{`{"event.action":"process-started","host.os.type":"windows","user":{"domain":"NT AUTHORITY","name":"SYSTEM"},"process.parent.user":{"domain":"EX","name":"bob"}}`}, []string{w("x")}},
		{"Hashes are Sysmon's or ours", windows, "s: {'Hashes|contains': 'SHA256=AB'}\ncondition: s",
			[]string{`{"event.action":"process-started","host.os.type":"windows","process.hash.sha256":"abcd"}`, `{"event.action":"process-started","host.os.type":"windows","sekisho.process.hashes":"MD5=1,SHA256=abcd"}`}, []string{w("x")}},
		{"one of Sysmon's hashes", windows, "s: {Imphash: ff00}\ncondition: s", []string{`{"event.action":"process-started","host.os.type":"windows","sekisho.process.hashes":"MD5=1,IMPHASH=FF00"}`}, []string{w("x")}},
		{"dotted names go in Sigma's own taxonomy too", windows, "s: {user.name: x}\ncondition: s", []string{`{"event.action":"process-started","host.os.type":"windows","user.name":"x"}`}, []string{w("x")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compileOne(t, tt.head, tt.detection)
			for want, list := range map[bool][]string{true: tt.yes, false: tt.no} {
				for _, text := range list {
					e, err := event.Decode([]byte(text))
					if err != nil {
						t.Fatal(err)
					}
					if got := len(p.Match(e, nil)) == 1; got != want {
						t.Errorf("%s: got %v, want %v", text, got, want)
					}
					v, err := p.ExplainEvent(e, p.Rules[0].ID, "en")
					if err != nil || len(v) != 1 || v[0].Matched != want {
						t.Errorf("%s: explained %+v, %v", text, v, err)
						continue
					}
					// The explanation comes to the same verdict by its own way.
					all, any := true, false
					for _, c := range v[0].Checks {
						all, any = all && c.OK, any || c.OK
					}
					if by := all || len(p.Rules[0].doc.detection.conditions) > 1 && any; by != want {
						t.Errorf("%s: the checks say %v, want %v: %+v", text, by, want, v[0].Checks)
					}
				}
			}
		})
	}
}

// w is a process start on Windows with this command line.
func w(cmd string) string {
	return fmt.Sprintf(`{"event.action":"process-started","host.os.type":"windows","process.command_line":%q}`, cmd)
}

func TestFiltersNarrowRules(t *testing.T) {
	text := `title: base
id: 22222222-2222-4222-8222-222222222222
name: base
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: process-started}, condition: s}
---
title: other
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: process-started}, condition: s}
---
title: not for admins
logsource: {product: sekisho}
filter:
  rules: [22222222-2222-4222-8222-222222222222]
  admin: {user.name: adm}
  condition: not admin
`
	f, err := Parse("f.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile([]*File{f}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]int{"adm": 1, "x": 2} {
		e, _ := event.Decode([]byte(`{"event.action":"process-started","user.name":"` + user + `"}`))
		if got := p.Match(e, nil); len(got) != want {
			t.Errorf("%s: %d matches, want %d", user, len(got), want)
		}
	}
}

func TestMissesDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool drops things at random")
	}
	p, err := Load(LoadOptions{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	events := []string{
		`{"event.action":"process-started","host.name":"pc1","process.executable":"C:\\Windows\\System32\\notepad.exe","process.args":["notepad.exe","a.txt"],"user.name":"tanaka"}`,
		`{"event.action":"file-read","file.path":"/home/a"}`,
		`{"event.action":"something-else"}`,
	}
	var buf []Match
	for _, text := range events {
		e, err := event.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		p.Match(e, buf[:0])
		if n := testing.AllocsPerRun(100, func() { buf = p.Match(e, buf[:0]) }); n != 0 || len(buf) != 0 {
			t.Errorf("%s: %v allocations, %d matches", text, n, len(buf))
		}
	}
}

func TestAProfileCountsWhatMatchFinds(t *testing.T) {
	p, err := Load(LoadOptions{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	f := p.NewProfile()
	for _, text := range []string{`{"event.action":"selftest-failed"}`, `{"event.action":"selftest-failed"}`, `{"event.action":"x"}`} {
		e, err := event.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		f.Event(e)
	}
	c := f.Costs()
	if f.Events() != 3 || len(c) != 1 || c[0].Rule.Table() != "HLT-4" || c[0].Asked != 2 || c[0].Matched != 2 || c[0].Time < 0 {
		t.Errorf("%d events, %+v", f.Events(), c)
	}
}

// What follows a text in memory is no part of it.
func TestGramsEndWhereTheTextEnds(t *testing.T) {
	room := []byte("abcdefghijklmnopqrstuvwxyz")
	for n := 1; n < 10; n++ {
		var g grams
		g.add(room[:n])
		for i := range n + 2 {
			if got, want := g.may(string(room[i:i+2])), i+2 <= n; got != want {
				t.Errorf("%q of %q: %v, want %v", room[i:i+2], room[:n], got, want)
			}
		}
	}
}
