package replay

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
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
tests/a.yml:5: wrong level
    alert 1: user.name is u, want v
    alert 1: level is low, want high
tests/a.yml:8: wrong number
    2 alerts, want 0
      got 2026-01-05T00:30:00Z  low: a
      got 2026-01-05T00:30:01Z  low: a
FAIL tests/b.yml
tests/b.yml:2:5: unknown key "nmae", want one of name, thresholds, thresholds-for, exceptions, placeholders, events, alerts
tests/b.yml:3:15: unknown key "evnt", want one of at, repeat, every, event
tests/b.yml:3:14: there is no event
`
	want = strings.Replace(want, "alert 1: user.name is", "alert 1: fields user.name is", 1)
	if got != want || sum.Failed != 3 || sum.Tests != 3 {
		t.Errorf("%+v\n%s\nwant\n%s", sum, got, want)
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
