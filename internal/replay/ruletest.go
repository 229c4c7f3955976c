package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/input"
	"sekisho/internal/rules"
)

// Rule tests are YAML files in a folder "tests" beside the rules: events in,
// alerts out, judged as Run judges. docs/rules.md has an example.
//
//	rules: [USB-3]              # whose alerts count; absent: all that are raised
//	defaults: {host.name: pc1}  # fields of every event that does not set them
//	tests:
//	  - name: 80 files are one alert
//	    thresholds: {USB-3: {files: 40}}  # this and the next three as under "rules" in the settings
//	    thresholds-for: [{list: leaver, thresholds: {USB-3: {files: 10}}}]
//	    exceptions: [{rules: [USB-3], when: {user.name: backup}, expires: 2027-03-31}]
//	    placeholders: {servers: [fs01]}
//	    events:
//	      - at: 10s             # from the start; absent: a second after the event before
//	        repeat: 80          # times, each "every" after the one before; {n} in texts counts from 1
//	        every: 1s
//	        event: {event.action: file-copied, file.name: "{n}.xlsx"}
//	    alerts:
//	      - {rule: USB-3, level: high, count: 31, totals: {files: 80}, keys: {}, fields: {user.name: tanaka}, evidence: 80, title: text}

// Limits of a rule test file.
const (
	maxTestFile   = 1 << 20
	maxTestEvents = 100_000 // of one test
)

// testStart is when tests begin. A Monday, half past nine in Japan.
var testStart = time.Date(2026, 1, 5, 0, 30, 0, 0, time.UTC)

// TestOptions makes a run of rule tests.
type TestOptions struct {
	Out     io.Writer // a line per file, and what failed
	Lang    string    // "ja", else English
	Verbose bool      // a line per test too

	// Of the site's settings, what rules cannot be compiled without. What a test
	// says of placeholders itself goes first. Thresholds and exceptions are the
	// test's own: it must say the same at every site.
	Placeholders map[string][]string
	Zone         *time.Location
}

// settings is what the rules are compiled with.
func (o *TestOptions) settings() rules.Options {
	return rules.Options{Placeholders: o.Placeholders, Zone: o.Zone}
}

// TestSummary is what the tests showed.
type TestSummary struct {
	Files, Tests, Failed int
	Problems             rules.Problems // of the rules: nothing was tested with the refused ones
}

// TestFiles runs the rule tests of files and folders. A path is a test file, a
// rule file (its tests are tests/NAME beside it) or a folder (all tests below
// it). Each test runs with the rules of the folder that its folder "tests" lies
// in, those below it included, and with the shipped ones, so that filters of
// those can be tested; alerts of shipped rules count only where the test names
// them in "rules". Errors are of reading the paths.
func TestFiles(paths []string, o TestOptions) (TestSummary, error) {
	var sum TestSummary
	suites := map[string]suite{}
	seen := map[string]bool{}
	for _, p := range paths {
		files, err := testFiles(p)
		if err != nil {
			return sum, err
		}
		if len(files) == 0 {
			return sum, fmt.Errorf("%s: no rule tests (tests/*.yml) found", p)
		}
		for _, name := range files {
			if seen[name] {
				continue
			}
			seen[name] = true
			dir := filepath.Dir(name)
			if filepath.Base(dir) == "tests" {
				dir = filepath.Dir(dir)
			}
			su, ok := suites[dir]
			if !ok {
				su = sum.suite(dir, o)
				suites[dir] = su
			}
			data, err := input.ReadFile(name, maxTestFile+1)
			if err != nil {
				return sum, err
			}
			sum.file(name, data, su, o)
		}
	}
	return sum, nil
}

// TestBuiltin runs the tests of the shipped rules.
func TestBuiltin(fsys fs.FS, o TestOptions) (TestSummary, error) {
	var sum TestSummary
	parsed, err := rules.ParseBuiltin()
	sum.problems(err)
	_, err = rules.Compile(parsed, o.settings())
	sum.problems(err)
	names, err := fs.Glob(fsys, "tests/*.yml")
	if err != nil {
		return sum, err
	}
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return sum, err
		}
		sum.file(name, data, suite{files: parsed, shipped: true}, o)
	}
	return sum, nil
}

// suite is the rules that tests run with.
type suite struct {
	files   []*rules.File
	shipped bool // alerts of shipped rules count even where a test names none
}

// suite reads the rules of a folder and joins the shipped ones, unless the
// folder is a copy of theirs.
func (s *TestSummary) suite(dir string, o TestOptions) suite {
	own, err := rules.ParsePaths([]string{dir})
	s.problems(err)
	shipped, err := rules.ParseBuiltin()
	s.problems(err)
	su := suite{files: append(shipped, own...)}
	_, err = rules.Compile(su.files, o.settings())
	var ps rules.Problems
	if errors.As(err, &ps) && slices.ContainsFunc(ps, func(p rules.Problem) bool { return p.Code == rules.CodeDouble }) {
		for _, f := range own {
			f.AsBuiltin()
		}
		su = suite{files: own, shipped: true}
		_, err = rules.Compile(own, o.settings())
	}
	s.problems(err)
	return su
}

func (s *TestSummary) problems(err error) {
	var ps rules.Problems
	if err == nil {
		return
	}
	if errors.As(err, &ps) {
		s.Problems = append(s.Problems, ps...)
	} else {
		s.Problems = append(s.Problems, rules.Problem{Code: rules.CodeRead, JA: err.Error(), EN: err.Error()})
	}
}

// testFiles finds the tests that a path means, sorted.
func testFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if filepath.Base(filepath.Dir(path)) == "tests" {
			return []string{path}, nil
		}
		beside := filepath.Join(filepath.Dir(path), "tests", filepath.Base(path))
		if _, err := os.Stat(beside); err != nil {
			return nil, nil
		}
		return []string{beside}, nil
	}
	var out []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ext := strings.ToLower(filepath.Ext(p))
		if !d.IsDir() && filepath.Base(filepath.Dir(p)) == "tests" && (ext == ".yml" || ext == ".yaml") {
			out = append(out, p)
		}
		return nil
	})
	sort.Strings(out)
	return out, err
}

// file runs the tests of one file.
func (s *TestSummary) file(name string, data []byte, su suite, o TestOptions) {
	s.Files++
	t := &testFile{name: name, lang: o.Lang}
	t.read(data)
	failed, ran := len(t.errs) > 0, 0
	var b strings.Builder
	for _, e := range t.errs {
		fmt.Fprintln(&b, e)
	}
	if failed {
		s.Failed++
	} else {
		for _, c := range t.cases {
			ran++
			s.Tests++
			if diff := c.run(su, t.rules, o); diff != "" {
				failed = true
				s.Failed++
				fmt.Fprintf(&b, "%s:%d: %s\n%s", name, c.line, visible(c.name), diff)
			} else if o.Verbose {
				fmt.Fprintf(&b, "  ok  %s\n", visible(c.name))
			}
		}
	}
	if failed {
		fmt.Fprintf(o.Out, "FAIL %s\n%s", name, b.String())
	} else {
		fmt.Fprintf(o.Out, "ok   %s (%d)\n%s", name, ran, b.String())
	}
}

type testFile struct {
	name     string
	lang     string // of messages
	errs     []string
	rules    []string
	defaults map[string]any
	cases    []*testCase
}

type testCase struct {
	name     string
	line     int
	settings rules.Options
	events   []*event.Event
	want     []map[string]any
}

func (t *testFile) fail(n *yaml.Node, ja, en string, args ...any) {
	if len(t.errs) < 50 {
		t.errs = append(t.errs, fmt.Sprintf("%s:%d:%d: %s", t.name, n.Line, n.Column, visible(fmt.Sprintf(say(t.lang, ja, en), args...))))
	}
}

// keys calls f for each key of a map, and tells the ones that are not known.
func (t *testFile) keys(n *yaml.Node, known []string, f func(key string, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		t.fail(n, "「名前: 値」の組でなければなりません", "want a map (key: value)")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if !slices.Contains(known, k.Value) {
			t.fail(k, "知らないキー %q です（%s のどれか）", "unknown key %q, want one of %s", k.Value, strings.Join(known, ", "))
			continue
		}
		f(k.Value, n.Content[i+1])
	}
}

func (t *testFile) decode(n *yaml.Node, v any) bool {
	if err := n.Decode(v); err != nil {
		t.fail(n, "%v", "%v", err)
		return false
	}
	return true
}

func (t *testFile) read(data []byte) {
	top := &yaml.Node{Line: 1, Column: 1}
	if len(data) > maxTestFile {
		t.fail(top, "ファイルが大きすぎます（上限は %d バイト）", "file of more than %d bytes", maxTestFile)
		return
	}
	load, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV3Defaults(), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(32))))
	if err != nil {
		t.fail(top, "%v", "%v", err)
		return
	}
	var doc yaml.Node
	if err := load.Load(&doc); err != nil {
		var le *yaml.LoadError
		if errors.As(err, &le) && le.Mark.Line > 0 {
			top = &yaml.Node{Line: le.Mark.Line, Column: max(le.Mark.Column, 1)}
			err = errors.New(le.Message)
		}
		t.fail(top, "YAML ではありません: %v", "not YAML: %v", err)
		return
	}
	if len(doc.Content) == 0 {
		t.fail(top, "試験がありません", "there are no tests")
		return
	}
	var tests *yaml.Node
	t.keys(doc.Content[0], []string{"rules", "defaults", "tests"}, func(key string, v *yaml.Node) {
		switch key {
		case "rules":
			t.decode(v, &t.rules)
		case "defaults":
			t.decode(v, &t.defaults)
		case "tests":
			tests = v
		}
	})
	if tests == nil || tests.Kind != yaml.SequenceNode || len(tests.Content) == 0 {
		t.fail(doc.Content[0], "試験がありません", "there are no tests")
		return
	}
	for _, n := range tests.Content {
		t.one(n)
	}
}

func (t *testFile) one(n *yaml.Node) {
	c := &testCase{line: n.Line}
	t.keys(n, []string{"name", "thresholds", "thresholds-for", "exceptions", "placeholders", "events", "alerts"}, func(key string, v *yaml.Node) {
		switch key {
		case "name":
			t.decode(v, &c.name)
		case "thresholds":
			t.decode(v, &c.settings.Thresholds)
		case "thresholds-for":
			t.thresholdsFor(c, v)
		case "exceptions":
			t.exceptions(c, v)
		case "placeholders":
			t.decode(v, &c.settings.Placeholders)
		case "events":
			t.events(c, v)
		case "alerts":
			if v.Kind != yaml.SequenceNode {
				t.fail(v, "アラートのリストでなければなりません", "want a list of alerts")
				return
			}
			for _, a := range v.Content {
				m := map[string]any{}
				t.keys(a, []string{"rule", "level", "count", "totals", "keys", "fields", "evidence", "title"}, func(key string, v *yaml.Node) {
					var x any
					if t.decode(v, &x) {
						m[key] = x
					}
				})
				c.want = append(c.want, m)
			}
		}
	})
	t.cases = append(t.cases, c)
}

// each calls f for the keys of each entry of a list of maps.
func (t *testFile) each(n *yaml.Node, known []string, entry func(), f func(key string, v *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		t.fail(n, "リストでなければなりません", "want a list")
		return
	}
	for _, e := range n.Content {
		entry()
		t.keys(e, known, f)
	}
}

func (t *testFile) thresholdsFor(c *testCase, n *yaml.Node) {
	var at *rules.ScopedThresholds
	t.each(n, []string{"department", "tag", "list", "thresholds"}, func() {
		c.settings.Scoped = append(c.settings.Scoped, rules.ScopedThresholds{})
		at = &c.settings.Scoped[len(c.settings.Scoped)-1]
	}, func(key string, v *yaml.Node) {
		switch key {
		case "department":
			t.decode(v, &at.Department)
		case "tag":
			t.decode(v, &at.Tag)
		case "list":
			t.decode(v, &at.List)
		case "thresholds":
			t.decode(v, &at.Thresholds)
		}
	})
}

func (t *testFile) exceptions(c *testCase, n *yaml.Node) {
	var at *rules.Exception
	t.each(n, []string{"rules", "when", "reason", "expires"}, func() {
		c.settings.Exceptions = append(c.settings.Exceptions, rules.Exception{When: map[string][]string{}})
		at = &c.settings.Exceptions[len(c.settings.Exceptions)-1]
	}, func(key string, v *yaml.Node) {
		switch key {
		case "rules":
			at.Rules = t.list(v)
		case "when":
			for i := 0; v.Kind == yaml.MappingNode && i+1 < len(v.Content); i += 2 {
				at.When[v.Content[i].Value] = t.list(v.Content[i+1])
			}
		case "expires":
			at.Expires = v.Value
		}
	})
}

// list is texts, or one of them.
func (t *testFile) list(n *yaml.Node) []string {
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var out []string
	t.decode(n, &out)
	return out
}

func (t *testFile) events(c *testCase, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		t.fail(n, "イベントのリストでなければなりません", "want a list of events")
		return
	}
	now := testStart.Add(-time.Second)
	for _, en := range n.Content {
		repeat, every := 1, time.Second
		at := now.Add(time.Second)
		fields, given := map[string]any{}, false
		t.keys(en, []string{"at", "repeat", "every", "event"}, func(key string, v *yaml.Node) {
			switch key {
			case "at":
				var d time.Duration
				if s := v.Value; t.duration(v, s, &d) {
					at = testStart.Add(d)
				}
			case "repeat":
				t.decode(v, &repeat)
			case "every":
				t.duration(v, v.Value, &every)
			case "event":
				given = true
				t.decode(v, &fields)
			}
		})
		if !given {
			t.fail(en, "event がありません", "there is no event")
		}
		if repeat < 1 || len(c.events)+repeat > maxTestEvents {
			t.fail(en, "repeat %d: 1 つの試験のイベントは 1 から %d 件まで", "repeat %d: want 1 to %d events in a test", repeat, maxTestEvents)
			return
		}
		for i := range repeat {
			now = at.Add(time.Duration(i) * every)
			e, err := t.event(fields, len(c.events)+1, i+1, now)
			if err != nil {
				t.fail(en, "%v", "%v", err)
				return
			}
			c.events = append(c.events, e)
		}
	}
}

func (t *testFile) duration(n *yaml.Node, s string, d *time.Duration) bool {
	v, err := time.ParseDuration(s)
	if err != nil && strings.HasSuffix(s, "d") {
		var days int
		if days, err = strconv.Atoi(strings.TrimSuffix(s, "d")); err == nil {
			v = time.Duration(days) * 24 * time.Hour
		}
	}
	if err != nil {
		t.fail(n, "%q は時間ではありません（例 90s、10m、1h）", "%q is not a time span such as 90s, 10m or 1h", s)
		return false
	}
	*d = v
	return true
}

// event makes the nth event of a test, the kth of its repeats.
func (t *testFile) event(fields map[string]any, n, k int, at time.Time) (*event.Event, error) {
	all := map[string]any{"@timestamp": at.Format(time.RFC3339Nano), "event.id": fmt.Sprintf("00000000-0000-8000-8000-%012d", n)}
	for name, v := range t.defaults {
		all[name] = v
	}
	for name, v := range fields {
		all[name] = count(v, k)
	}
	data, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	return event.Decode(data)
}

// count puts the number of the repeat for {n}.
func count(v any, n int) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "{n}", strconv.Itoa(n))
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = count(v[i], n)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = count(v[k], n)
		}
		return out
	}
	return v
}

// run judges the events and answers what differs from the alerts that were
// wanted, "" for nothing.
func (c *testCase) run(su suite, only []string, o TestOptions) string {
	settings := c.settings
	settings.Zone = o.Zone
	settings.Placeholders = maps.Clone(o.Placeholders)
	for name, values := range c.settings.Placeholders {
		if settings.Placeholders == nil {
			settings.Placeholders = map[string][]string{}
		}
		settings.Placeholders[name] = values
	}
	p, err := rules.Compile(su.files, settings)
	if err != nil && (c.settings.Thresholds != nil || c.settings.Scoped != nil || c.settings.Exceptions != nil || c.settings.Placeholders != nil) {
		return indent(err.Error())
	}
	var in, out bytes.Buffer
	for _, e := range c.events {
		in.Write(append(e.AppendJSON(nil), '\n'))
	}
	if _, err := Run(context.Background(), Options{Events: &in, Name: "events", Program: p, Out: &out, Err: io.Discard}); err != nil {
		return indent(err.Error())
	}
	var got []*alert.Alert
	for line := range bytes.Lines(out.Bytes()) {
		a, err := alert.Decode(bytes.TrimSpace(line))
		if err != nil {
			return indent(err.Error())
		}
		counts := slices.Contains(only, a.Rule.Table) || slices.Contains(only, a.Rule.ID)
		if len(only) == 0 {
			r := p.Rule(a.Rule.ID)
			counts = su.shipped || r == nil || !r.Builtin
		}
		if counts {
			got = append(got, a)
		}
	}
	var b strings.Builder
	if len(got) != len(c.want) {
		fmt.Fprintf(&b, say(o.Lang, "    アラートは %d 件（正しくは %d 件）\n", "    %d alerts, want %d\n"), len(got), len(c.want))
		for _, a := range got {
			fmt.Fprintf(&b, say(o.Lang, "      出たもの: %s %s %s: %s\n", "      got %s %s %s: %s\n"), a.Time.Format(time.RFC3339), a.Rule.Table, a.Level, visible(a.Title.In(o.Lang)))
		}
		return b.String()
	}
	for i, a := range got {
		for _, key := range slices.Sorted(maps.Keys(c.want[i])) {
			differ(&b, o.Lang, i+1, key, c.want[i][key], a)
		}
	}
	return b.String()
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}

// differ tells a difference between a key of a wanted alert and the one there is.
func differ(b *strings.Builder, lang string, n int, key string, want any, a *alert.Alert) {
	check := func(name string, want any, got string) {
		if w := plain(want); w != got {
			fmt.Fprintf(b, say(lang, "    アラート %d: %s は %s（正しくは %s）\n", "    alert %d: %s is %s, want %s\n"), n, name, visible(got), visible(w))
		}
	}
	switch key {
	case "rule":
		if w := plain(want); w != a.Rule.Table && w != a.Rule.ID && w != a.Rule.Name {
			check("rule", want, a.Rule.Table+" "+a.Rule.ID)
		}
	case "level":
		check("level", want, a.Level.String())
	case "count":
		check("count", want, strconv.FormatInt(a.Count, 10))
	case "evidence":
		check("evidence", want, strconv.FormatInt(a.EvidenceTotal, 10))
	case "title":
		check("title", want, a.Title.EN)
	case "totals", "keys", "fields":
		m, ok := want.(map[string]any)
		if !ok {
			fmt.Fprintf(b, say(lang, "    アラート %d: %s は「名前: 値」の組でなければなりません\n", "    alert %d: %s: want a map\n"), n, key)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			got := ""
			switch key {
			case "totals":
				got = strconv.FormatInt(a.Totals[name], 10)
			case "keys":
				got = a.Keys[name]
			default:
				v, _ := a.Event.Get(name)
				got = v.String()
			}
			check(key+" "+name, m[name], got)
		}
	}
}

// plain is a YAML value as text.
func plain(v any) string {
	if l, ok := v.([]any); ok {
		parts := make([]string, len(l))
		for i := range l {
			parts[i] = plain(l[i])
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(v)
}
