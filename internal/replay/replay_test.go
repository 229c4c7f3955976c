package replay

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/rules"
	"sekisho/internal/rules/pack"
)

var update = flag.Bool("update", false, "write testdata/*/want.* anew")

func TestShippedRulesPassTheirTests(t *testing.T) {
	var out strings.Builder
	sum, err := TestBuiltin(pack.Tests, TestOptions{Out: &out, Verbose: testing.Verbose()})
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.Problems) > 0 {
		t.Errorf("shipped rules:\n%v", sum.Problems)
	}
	if sum.Failed > 0 || sum.Tests == 0 {
		t.Errorf("%d of %d tests failed", sum.Failed, sum.Tests)
	}
	t.Log("\n" + out.String())
}

func TestEveryShippedRuleHasATest(t *testing.T) {
	rules, err := filepath.Glob("../rules/pack/*.yml")
	if err != nil || len(rules) == 0 {
		t.Fatal(rules, err)
	}
	for _, r := range rules {
		if _, err := os.Stat(filepath.Join(filepath.Dir(r), "tests", filepath.Base(r))); err != nil {
			t.Error(err)
		}
	}
}

// Each folder of testdata holds events (and rules, the shipped ones where there
// are none), and what a replay of them writes.
func TestReplay(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/events.jsonl")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, name := range dirs {
		dir := filepath.Dir(name)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			events, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer events.Close()
			var out, errs bytes.Buffer
			o := Options{Events: events, Name: "events.jsonl", Out: &out, Err: &errs}
			if text, err := os.ReadFile(filepath.Join(dir, "rules.yml")); err == nil {
				f, err := rules.Parse("rules.yml", text)
				o.Refused = problems(err)
				o.Program, err = rules.Compile([]*rules.File{f}, rules.Options{})
				o.Refused = append(o.Refused, problems(err)...)
			} else if o.Program, err = rules.Load(rules.LoadOptions{Builtin: true}); err != nil {
				t.Fatal(err)
			}
			sum, err := Run(context.Background(), o)
			if (sum.Bad > 0) != errors.Is(err, ErrInput) || err != nil && !errors.Is(err, ErrInput) {
				t.Errorf("%d bad lines, error %v", sum.Bad, err)
			}
			for name, got := range map[string]string{"want.out": out.String(), "want.err": errs.String()} {
				name = filepath.Join(dir, name)
				if *update {
					if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					continue
				}
				want, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
				}
			}
		})
	}
}

func problems(err error) rules.Problems {
	var ps rules.Problems
	errors.As(err, &ps)
	return ps
}

// The order of the lines makes no difference as long as the buffer holds them.
func TestShuffledInputGivesTheSameAlerts(t *testing.T) {
	p, err := rules.Load(rules.LoadOptions{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for n := range 3000 {
		host := n % 3
		lines = append(lines, fmt.Sprintf(`{"@timestamp":"2026-01-05T%02d:%02d:%02dZ","event.id":"%d","event.action":"file-copied","host.name":"pc%d","user.name":"u","sekisho.file.volume_kind":"removable","sekisho.copy.files":%d,"sekisho.copy.bytes":100}`,
			1+n*4/3600, n*4/60%60, n*4%60, n, host, host))
	}
	run := func() string {
		var out, errs bytes.Buffer
		if _, err := Run(context.Background(), Options{Events: strings.NewReader(strings.Join(lines, "\n")), Name: "x", Program: p, Out: &out, Err: &errs}); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(errs.String(), "late") {
			t.Error(errs.String())
		}
		return out.String()
	}
	want := run()
	// pc0 copies nothing, pc1 50 and pc2 100 files in ten minutes, for 3 h 20 min: an alert an hour each.
	if n := strings.Count(want, "\n"); n != 8 {
		t.Errorf("%d alerts, want 8", n)
	}
	r := rand.New(rand.NewPCG(1, 2))
	r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	if got := run(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestALineThatIsTooLongIsSkipped(t *testing.T) {
	p, err := rules.Compile(nil, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := `{"@timestamp":"2026-01-05T00:00:00Z"}` + "\n" + `{"x":"` + strings.Repeat("x", 5<<20) + `"}` + "\n" + `{"event.action":"x"}`
	var errs bytes.Buffer
	sum, err := Run(context.Background(), Options{Events: strings.NewReader(text), Name: "x", Program: p, Out: &bytes.Buffer{}, Err: &errs})
	if !errors.Is(err, ErrInput) || sum.Events != 2 || sum.Bad != 1 || !strings.HasPrefix(errs.String(), "x:2:4194305: line of more than") {
		t.Errorf("%+v, %v, %s", sum, err, errs.String())
	}
}

func TestRuleTestsThatFailSayWhy(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "tests"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", "title: a\nid: 33333333-3333-4333-8333-333333333333\ntaxonomy: ecs\nlogsource: {product: sekisho}\nlevel: low\ndetection: {s: {event.action: x}, condition: s}\n")
	write("tests/a.yml", `tests:
  - name: right
    events: [{event: {event.action: x}}]
    alerts: [{level: low}]
  - name: wrong level
    events: [{event: {event.action: x, user.name: u}}]
    alerts: [{level: high, fields: {user.name: v}}]
  - name: wrong number
    events: [{repeat: 2, event: {event.action: x}}]
    alerts: []
`)
	write("tests/b.yml", "tests:\n  - nmae: x\n    events: [{evnt: {}}]\n")
	var out strings.Builder
	sum, err := TestFiles([]string{dir}, TestOptions{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(filepath.ToSlash(out.String()), filepath.ToSlash(dir)+"/", "")
	want := `FAIL tests/a.yml
tests/a.yml:5:5: wrong level
    tests/a.yml:7:48: alert 1: fields user.name is u, want v
    tests/a.yml:7:22: alert 1: level is low, want high
tests/a.yml:8:5: wrong number
    tests/a.yml:10:13: 2 alerts, want 0
      got 1: 33333333-3333-4333-8333-333333333333 low at 0s: a
      got 2: 33333333-3333-4333-8333-333333333333 low at 1s: a
FAIL tests/b.yml
tests/b.yml:2:5: unknown key "nmae", want one of name, thresholds, thresholds-for, exceptions, placeholders, events, alerts (did you mean "name"?) [RUL-03]
     2 |   - nmae: x
       |     ^
tests/b.yml:2:5: this test has no alerts (where none should come, write alerts: []) [RUL-03]
     2 |   - nmae: x
       |     ^
tests/b.yml:3:14: there is no event (its fields stand under event:) [RUL-03]
     3 |     events: [{evnt: {}}]
       |              ^
tests/b.yml:3:15: unknown key "evnt", want one of at, repeat, every, event (did you mean "event"?) [RUL-03]
     3 |     events: [{evnt: {}}]
       |               ^
`
	if got != want || sum.Failed != 2 || sum.Tests != 3 || sum.Wrong != 1 {
		t.Errorf("%+v\n%s\nwant\n%s", sum, got, want)
	}
	if got, want := sum.Text("en"), "2 files, 3 tests, 2 failed, 1 file with mistakes not run"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// rulesDir is a folder of a rule that counts ("many", three events x in a minute)
// and of test files, by their names.
func rulesDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{"a.yml": `title: counted
name: counted
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: x}, condition: s}
---
title: many
id: 33333333-3333-4333-8333-333333333333
correlation: {type: event_count, rules: [counted], timespan: 1m, condition: {gte: 3}}
level: low
sekisho: {rule: SITE-1, thresholds: {events: {rule: 33333333-3333-4333-8333-333333333333, default: 3}}}
`}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What a person sees who writes a first test, and errs: the place, the reason and
// what to do, in both languages.
func TestWhatIsWrongWithATestFileIsTold(t *testing.T) {
	test := func(more string) string { return "tests:\n  - name: n\n    " + more + "\n" }
	const events, alerts = "events: [{event: {event.action: x}}]", "alerts: []"
	for _, c := range []struct{ name, text, en, ja string }{
		{"nothing", "", `1:1: there are no tests (tests: is a list of them`, `1:1: 試験がありません（tests: に`},
		{"no tests", "rules: [SITE-1]\n", `1:1: there are no tests`, `1:1: 試験がありません`},
		{"not YAML", "tests:\n  - a: [\n", `not YAML: `, `YAML ではありません`},
		{"no map", "- a\n", `1:1: want a map with keys of rules, defaults, tests`, `「名前: 値」の組（名前は rules, defaults, tests）でなければなりません`},
		{"a test that is a text", "tests: [a]\n", `1:9: want a map with keys of name, `, `1:9: 「名前: 値」の組`},
		{"no alerts", test(events), `2:5: this test has no alerts (where none should come, write alerts: [])`, `2:5: この試験には alerts がありません`},
		{"no events", test(alerts), `2:5: this test has no events`, `2:5: この試験には events がありません`},
		{"twice", test(events + "\n    " + alerts + "\n    " + alerts), `5:5: key "alerts" stands there twice`, `5:5: キー "alerts" が 2 回あります`},
		{"alerts are no list", test(events + "\n    alerts: {level: low}"), `4:13: want a list of alerts, [] for none`, `4:13: アラートのリスト（出ないはずなら []）でなければなりません`},
		{"totals are no map", test(events + "\n    alerts: [{totals: 5}]"), `4:23: want a map (name: value)`, `4:23: 「名前: 値」の組でなければなりません`},
		{"a level that is a list", test(events + "\n    alerts: [{level: [low]}]"), `4:22: want a single value`, `4:22: 1 つの値でなければなりません`},
		{"thresholds", test(events + "\n    thresholds: 5\n    " + alerts), `4:17: want {RULE: {name: number}}`, `4:17: {ルール: {名前: 数}} の形でなければなりません`},
		{"repeat", test("events: [{repeat: often, event: {event.action: x}}]\n    " + alerts), `3:23: want a whole number`, `3:23: 整数でなければなりません`},
		{"too many", test("events: [{repeat: 100001, event: {event.action: x}}]\n    " + alerts), `3:14: repeat 100001: want 1 to 100000 events in a test`, `1 から 100000 件まで`},
		{"a value of the wrong type", test("events: [{event: {sekisho.copy.files: lots}}]\n    " + alerts), `3:22: not an event: sekisho.copy.files: want whole number`, `3:22: イベントとして読めません`},
		{"a slip in a field", test("events: [{event: {file.nmae: a}}]\n    " + alerts), `3:23: unknown field "file.nmae" (did you mean "file.name"?)`, `3:23: 知らない項目 "file.nmae" です（"file.name" ではありませんか）`},
		{"a slip in a nested field", test("events: [{event: {file: {nmae: a}}}]\n    " + alerts), `3:30: unknown field "file.nmae"`, `3:30: 知らない項目`},
		{"Sigma's names", test("events: [{event: {Image: a}}]\n    " + alerts), `3:23: unknown field "Image": events have ECS names`, `ECS の名前で書きます`},
		{"a rule that nobody has", "rules: [SITE-2]\n" + test(events+"\n    "+alerts), `1:9: there is no rule "SITE-2" (did you mean "SITE-1"?)`, `1:9: ルール "SITE-2" はありません（"SITE-1" ではありませんか）`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := rulesDir(t, map[string]string{"tests/a.yml": c.text})
			for lang, want := range map[string]string{"en": c.en, "ja": c.ja} {
				var out strings.Builder
				sum, err := TestFiles([]string{dir}, TestOptions{Out: &out, Lang: lang})
				if err != nil || sum.Wrong != 1 || sum.Tests != 0 || sum.Failed != 0 || !strings.Contains(out.String(), want) || !strings.HasPrefix(out.String(), "FAIL ") {
					t.Errorf("%+v, %v, no %q in\n%s", sum, err, want, out.String())
				}
			}
		})
	}
	// Recorded events have fields that nobody here knows.
	dir := rulesDir(t, map[string]string{"tests/a.yml": test("events: [{event: {event.action: x, winlog: {event_id: 1}, ecs.version: '9'}}]\n    " + alerts)})
	if sum, err := TestFiles([]string{dir}, TestOptions{Out: io.Discard}); err != nil || sum.Wrong+sum.Failed != 0 || sum.Tests != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// Where an alert is missing, it is told how far the events came.
func TestAnAlertThatIsMissingIsTraced(t *testing.T) {
	dir := rulesDir(t, map[string]string{"tests/a.yml": `tests:
  - name: too few
    events: [{repeat: 2, event: {event.action: x}}, {event: {event.action: z}}]
    alerts: [{rule: SITE-1}]
  - name: others
    events: [{event: {event.action: z}}]
    alerts: [{rule: SITE-1}]
  - name: a threshold that nobody has
    thresholds: {SITE-1: {file: 2}}
    events: [{repeat: 2, event: {event.action: x}}]
    alerts: [{rule: SITE-1}]
`})
	for lang, wants := range map[string][]string{
		"en": {"a.yml:4:13: 0 alerts, want 1\n      matched: counted 2 of 3 events\n", "a.yml:7:13: 0 alerts, want 1\n      no event matches these rules (sekisho-agent explain", "a.yml:8:5: a threshold that nobody has\n    rules.thresholds.SITE-1.file: "},
		"ja": {"a.yml:4:13: アラートは 0 件（正しくは 1 件）\n      一致したイベント: counted 3 件中 2 件\n", "どのイベントも、これらのルールに一致しません"},
	} {
		var out strings.Builder
		sum, err := TestFiles([]string{dir}, TestOptions{Out: &out, Lang: lang})
		if err != nil || sum.Failed != 3 || sum.Tests != 3 {
			t.Errorf("%+v, %v", sum, err)
		}
		for _, want := range wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
	}
}

func TestPathsWithoutTestsSayWhereTestsStand(t *testing.T) {
	dir := rulesDir(t, nil)
	for path, want := range map[string][2]string{
		"":        {"no tests; they are YAML files in a folder tests beside the rules", "試験がありません。試験は、ルールのそばのフォルダー tests の YAML に書きます"},
		"a.yml":   {"a.yml: no tests; those of a rule file stand in a file of the same name in a folder tests beside it", "a.yml: 試験がありません。ルールの試験は"},
		"nowhere": {"nowhere: cannot be read: ", "nowhere: 読めません: "},
	} {
		_, err := TestFiles([]string{filepath.Join(dir, path)}, TestOptions{Out: io.Discard})
		var pe *PathError
		if !errors.As(err, &pe) {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if !strings.Contains(pe.Error(), want[0]) || !strings.Contains(pe.Text("ja"), want[1]) {
			t.Errorf("%q: got\n%s\n%s", path, pe, pe.Text("ja"))
		}
	}
}

// What a test says of placeholders is as good as what the settings say: the rule
// is not told as one that lacks them, unless another test lets it.
func TestPlaceholdersOfATestAreEnough(t *testing.T) {
	const rule = "title: p\nid: 33333333-3333-4333-8333-333333333334\ntaxonomy: ecs\nlogsource: {product: sekisho}\ndetection: {s: {user.name|expand: '%who%'}, condition: s}\n"
	const with = "tests:\n  - placeholders: {who: [u]}\n    events: [{event: {user.name: u}}]\n    alerts: [{}]\n"
	for text, problems := range map[string]int{with: 0, with + "  - events: [{event: {user.name: v}}]\n    alerts: []\n": 1} {
		dir := rulesDir(t, map[string]string{"p.yml": rule, "tests/p.yml": text})
		var out strings.Builder
		sum, err := TestFiles([]string{dir}, TestOptions{Out: &out})
		if err != nil || sum.Failed != 0 || len(sum.Problems) != problems {
			t.Errorf("%+v, %v\n%s", sum, err, out.String())
		}
	}
}

func TestTheSummarySpeaksRight(t *testing.T) {
	for _, c := range []struct {
		sum    TestSummary
		en, ja string
	}{
		{TestSummary{Files: 1, Tests: 1}, "1 file, 1 test, 0 failed", "1 ファイル、1 試験、失敗 0"},
		{TestSummary{Files: 2, Tests: 0, Wrong: 2}, "2 files, 0 tests, 0 failed, 2 files with mistakes not run", "2 ファイル、0 試験、失敗 0、試験として読めないファイル 2"},
		{TestSummary{Files: 3, Tests: 9, Failed: 1, Problems: make(rules.Problems, 1)}, "3 files, 9 tests, 1 failed, 1 problem with rules (those were not tested)", "3 ファイル、9 試験、失敗 1、ルールの問題 1（そのルールは試していません）"},
	} {
		if got := c.sum.Text("en"); got != c.en {
			t.Errorf("got %q, want %q", got, c.en)
		}
		if got := c.sum.Text("ja"); got != c.ja {
			t.Errorf("got %q, want %q", got, c.ja)
		}
	}
}

func TestRuleTestsThatFailSayWhyInJapanese(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tests"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a.yml":       "title: a\nid: 33333333-3333-4333-8333-333333333333\ntaxonomy: ecs\nlogsource: {product: sekisho}\nlevel: low\ndetection: {s: {event.action: x}, condition: s}\n",
		"tests/a.yml": "tests:\n  - name: n\n    events: [{event: {event.action: x}}]\n    alerts: [{level: high}]\n  - name: m\n    events: [{event: {event.action: x}}]\n    alerts: []\n",
		"tests/b.yml": "tests:\n  - events: [{at: x, event: {}}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if _, err := TestFiles([]string{dir}, TestOptions{Out: &out, Lang: "ja"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"アラート 1: level は low（正しくは high）", "アラートは 1 件（正しくは 0 件）", `b.yml:2:19: "x" は時間ではありません`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// A site's filter of a shipped rule is tested with that rule; a copy of the
// shipped rules is tested for itself.
func TestRuleTestsKnowTheShippedRules(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"f.yml": "title: library\nlogsource: {product: sekisho}\nfilter: {rules: [usb3-copy], s: {host.name: library-1}, condition: not s}\n",
		"tests/f.yml": `rules: [USB-3]
defaults: {event.action: file-copied, sekisho.file.volume_kind: removable, sekisho.copy.files: 60, sekisho.copy.bytes: 1}
tests:
  - name: the library's backup
    events: [{event: {host.name: library-1}}, {event: {host.name: pc1}}]
    alerts: [{fields: {host.name: pc1}}]
`,
		"tests/g.yml": `tests:
  - name: shipped rules that were not named
    events: [{event: {event.action: selftest-failed}}]
    alerts: []
`} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, "../rules/pack", "../rules/pack/usb-1.yml"} {
		var out strings.Builder
		sum, err := TestFiles([]string{path}, TestOptions{Out: &out})
		if err != nil || sum.Failed > 0 || sum.Tests == 0 || len(sum.Problems) > 0 {
			t.Errorf("%s: %+v, %v\n%s", path, sum, err, out.String())
		}
	}
}

func FuzzRun(f *testing.F) {
	p, err := rules.Load(rules.LoadOptions{Builtin: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("{\"@timestamp\":\"2026-01-05T00:00:00Z\",\"event.action\":\"selftest-failed\"}\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, b, errs bytes.Buffer
		_, err1 := Run(context.Background(), Options{Events: bytes.NewReader(data), Name: "f", Program: p, Out: &a, Err: &errs})
		_, err2 := Run(context.Background(), Options{Events: bytes.NewReader(data), Name: "f", Program: p, Out: &b, Err: &errs})
		if (err1 == nil) != (err2 == nil) || err1 != nil && !errors.Is(err1, ErrInput) || a.String() != b.String() {
			t.Fatalf("%v %v\n%s\n%s", err1, err2, a.String(), b.String())
		}
	})
}
