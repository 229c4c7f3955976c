package replay

import (
	"bytes"
	"cmp"
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
	"sekisho/internal/lang"
	"sekisho/internal/problem"
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
	maxTestErrors = 50      // told of one file
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
	Files    int
	Wrong    int // of them, those that cannot be read as tests: none of theirs ran
	Tests    int // that ran
	Failed   int
	Problems rules.Problems // of the rules: nothing was tested with the refused ones
}

// Text is the summary in a language, "ja" or else English.
func (s *TestSummary) Text(language string) string {
	if language == "ja" {
		text := fmt.Sprintf("%d ファイル、%d 試験、失敗 %d", s.Files, s.Tests, s.Failed)
		if s.Wrong > 0 {
			text += fmt.Sprintf("、試験として読めないファイル %d", s.Wrong)
		}
		if n := len(s.Problems); n > 0 {
			text += fmt.Sprintf("、ルールの問題 %d（そのルールは試していません）", n)
		}
		return text
	}
	text := fmt.Sprintf("%s, %s, %d failed", lang.Many(s.Files, "file"), lang.Many(s.Tests, "test"), s.Failed)
	if s.Wrong > 0 {
		text += fmt.Sprintf(", %s with mistakes not run", lang.Many(s.Wrong, "file"))
	}
	if n := len(s.Problems); n > 0 {
		text += fmt.Sprintf(", %s with rules (those were not tested)", lang.Many(n, "problem"))
	}
	return text
}

// PathError says why a path that was to be tested cannot be, in both languages.
type PathError struct {
	JA, EN string
	Err    error // of the system; may be nil
}

func (e *PathError) Error() string { return e.Text("en") }

// Text is the reason in a language, "ja" or else English.
func (e *PathError) Text(lang string) string {
	text := say(lang, e.JA, e.EN)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap is the system's reason.
func (e *PathError) Unwrap() error { return e.Err }

// TestFiles runs the rule tests of files and folders. A path is a test file, a
// rule file (its tests are tests/NAME beside it) or a folder (all tests below
// it). Each test runs with the rules of the folder that its folder "tests" lies
// in, those below it included, and with the shipped ones, so that filters of
// those can be tested; alerts of shipped rules count only where the test names
// them in "rules". Errors are of reading the paths.
func TestFiles(paths []string, o TestOptions) (TestSummary, error) {
	var sum TestSummary
	var all []string
	for _, p := range paths {
		files, err := testFiles(p)
		if err != nil {
			return sum, err
		}
		for _, name := range files {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	suites := map[string]suite{}
	for _, name := range all {
		dir := filepath.Join(filepath.Dir(name), "..")
		su, ok := suites[dir]
		if !ok {
			su = sum.suite(dir, o)
			suites[dir] = su
		}
		data, err := input.ReadFile(name, maxTestFile+1)
		if err != nil {
			return sum, unreadable(name, err)
		}
		sum.file(name, data, su, o)
	}
	return sum, nil
}

// TestBuiltin runs the tests of the shipped rules.
func TestBuiltin(fsys fs.FS, o TestOptions) (TestSummary, error) {
	var sum TestSummary
	parsed, err := rules.ParseBuiltin()
	sum.problems(problemsOf(err))
	su := suite{files: parsed, shipped: true}
	su.compile(o)
	names, err := fs.Glob(fsys, "tests/*.yml")
	if err != nil {
		return sum, err
	}
	for _, name := range names {
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return sum, err
		}
		sum.file(name, data, su, o)
	}
	return sum, nil
}

// suite is the rules that tests run with.
type suite struct {
	files   []*rules.File
	program *rules.Program // of them, with no settings of a test
	refused rules.Problems // of that
	shipped bool           // alerts of shipped rules count even where a test names none
}

// suite reads the rules of a folder and joins the shipped ones, unless the
// folder is a copy of theirs.
func (s *TestSummary) suite(dir string, o TestOptions) suite {
	own, err := rules.ParsePaths([]string{dir})
	s.problems(problemsOf(err))
	shipped, err := rules.ParseBuiltin()
	s.problems(problemsOf(err))
	su := suite{files: append(shipped, own...)}
	su.compile(o)
	if slices.ContainsFunc(su.refused, func(p rules.Problem) bool { return p.Code == rules.CodeDouble }) {
		for _, f := range own {
			f.AsBuiltin()
		}
		su = suite{files: own, shipped: true}
		su.compile(o)
	}
	return su
}

func (su *suite) compile(o TestOptions) {
	program, err := rules.Compile(su.files, o.settings())
	su.program, su.refused = program, problemsOf(err)
}

// problems adds what is wrong with rules, each once: several tests run with them.
func (s *TestSummary) problems(ps rules.Problems) {
	for _, p := range ps {
		if !slices.Contains(s.Problems, p) {
			s.Problems = append(s.Problems, p)
		}
	}
}

// problemsOf is the problems of an error.
func problemsOf(err error) rules.Problems {
	var ps rules.Problems
	if err != nil && !errors.As(err, &ps) {
		ps = rules.Problems{{Code: rules.CodeRead, JA: err.Error(), EN: err.Error()}}
	}
	return ps
}

// testFiles finds the tests that a path means, sorted.
func testFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if !info.IsDir() {
		if isTest(path) {
			return []string{path}, nil
		}
		beside := filepath.Join(filepath.Dir(path), "tests", filepath.Base(path))
		if _, err := os.Stat(beside); err != nil {
			name := visible(beside)
			return nil, &PathError{
				JA: visible(path) + ": 試験がありません。ルールの試験は、そばのフォルダー tests の同じ名前のファイルに書きます（" + name + "）",
				EN: visible(path) + ": no tests; those of a rule file stand in a file of the same name in a folder tests beside it (" + name + ")"}
		}
		return []string{beside}, nil
	}
	var out []string
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ext := strings.ToLower(filepath.Ext(p))
		if !d.IsDir() && isTest(p) && (ext == ".yml" || ext == ".yaml") {
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, unreadable(path, err)
	}
	if len(out) == 0 {
		return nil, &PathError{
			JA: visible(path) + ": 試験がありません。試験は、ルールのそばのフォルダー tests の YAML に書きます（例 " + visible(filepath.Join(path, "tests", "my-rule.yml")) + "）",
			EN: visible(path) + ": no tests; they are YAML files in a folder tests beside the rules (such as " + visible(filepath.Join(path, "tests", "my-rule.yml")) + ")"}
	}
	sort.Strings(out)
	return out, nil
}

// isTest reports whether a file stands in a folder "tests".
func isTest(path string) bool {
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return filepath.Base(filepath.Dir(path)) == "tests"
}

func unreadable(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the path is told
	}
	return &PathError{JA: visible(path) + ": 読めません", EN: visible(path) + ": cannot be read", Err: err}
}

// file runs the tests of one file.
func (s *TestSummary) file(name string, data []byte, su suite, o TestOptions) {
	s.Files++
	t := &testFile{name: name, program: su.program}
	t.read(data)
	failed, ran := len(t.errs) > 0, 0
	var b strings.Builder
	if failed {
		s.Wrong++
		s.problems(su.refused)
		_ = problem.Sorted(t.errs).Print(&b, o.Lang)
	} else {
		for _, c := range t.cases {
			ran++
			s.Tests++
			diff, refused := c.run(su, t.rules, o)
			s.problems(refused)
			if len(diff) > 0 {
				failed = true
				s.Failed++
				fmt.Fprintf(&b, "%s: %s\n", t.at(c.node), c.title(o.Lang, ran))
				for _, line := range diff {
					fmt.Fprintf(&b, "    %s\n", line)
				}
			} else if o.Verbose {
				fmt.Fprintf(&b, "  ok  %s\n", c.title(o.Lang, ran))
			}
		}
	}
	name = visible(name)
	if failed {
		fmt.Fprintf(o.Out, "FAIL %s\n%s", name, b.String())
	} else {
		fmt.Fprintf(o.Out, "ok   %s (%s)\n%s", name, say(o.Lang, strconv.Itoa(ran)+" 試験", lang.Many(ran, "test")), b.String())
	}
}

type testFile struct {
	name     string
	program  *rules.Program // for what tests name of it
	lines    []string
	errs     []rules.Problem
	rules    []string
	defaults map[string]any
	cases    []*testCase
}

type testCase struct {
	t        *testFile
	node     *yaml.Node
	name     string
	settings rules.Options
	events   []*event.Event
	alerts   *yaml.Node // the list of those that are wanted
	want     []wanted
}

// wanted is an alert that a test wants.
type wanted struct {
	keys map[string]any
	node map[string]*yaml.Node // of the keys' values
}

// title is what a test is called, the nth of its file.
func (c *testCase) title(lang string, n int) string {
	if c.name == "" {
		return fmt.Sprintf(say(lang, "試験 %d", "test %d"), n)
	}
	return visible(c.name)
}

// at is a place in the file.
func (t *testFile) at(n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", visible(t.name), n.Line, n.Column)
}

// tell notes what is wrong with the file, and answers it for a hint.
func (t *testFile) tell(n *yaml.Node, code, ja, en string) *rules.Problem {
	if len(t.errs) >= maxTestErrors {
		return &rules.Problem{}
	}
	p := rules.Problem{File: t.name, Line: n.Line, Col: n.Column, Code: code, JA: visible(ja), EN: visible(en)}
	if n.Line <= len(t.lines) {
		p.Text = t.lines[n.Line-1]
	}
	t.errs = append(t.errs, p)
	return &t.errs[len(t.errs)-1]
}

// fail is tell for texts with the same arguments.
func (t *testFile) fail(n *yaml.Node, code, ja, en string, args ...any) {
	t.tell(n, code, fmt.Sprintf(ja, args...), fmt.Sprintf(en, args...))
}

// kind says that a value has to be of a kind.
func (t *testFile) kind(n *yaml.Node, ja, en string) {
	t.tell(n, rules.CodeType, ja+"でなければなりません", "want "+en)
}

// keys calls f for each key of a map, and tells the ones that are not known.
func (t *testFile) keys(n *yaml.Node, known []string, f func(key string, v *yaml.Node)) {
	all := strings.Join(known, ", ")
	if n.Kind != yaml.MappingNode {
		t.kind(n, "「名前: 値」の組（名前は "+all+"）", "a map with keys of "+all)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		name := problem.Quote(k.Value)
		switch {
		case !slices.Contains(known, k.Value):
			t.tell(k, rules.CodeKey, "知らないキー "+name+" です（"+all+" のどれか）", "unknown key "+name+", want one of "+all).Hint = problem.Suggest(k.Value, known)
		case seen[k.Value]:
			t.tell(k, rules.CodeKey, "キー "+name+" が 2 回あります", "key "+name+" stands there twice")
		default:
			seen[k.Value] = true
			f(k.Value, n.Content[i+1])
		}
	}
}

// decode reads a value that has to be of a kind.
func (t *testFile) decode(n *yaml.Node, v any, ja, en string) bool {
	if n.Decode(v) != nil {
		t.kind(n, ja, en)
		return false
	}
	return true
}

func (t *testFile) read(data []byte) {
	top := &yaml.Node{Line: 1, Column: 1}
	if len(data) > maxTestFile {
		t.fail(top, rules.CodeRead, "ファイルが大きすぎます（上限は %d バイト）", "file of more than %d bytes", maxTestFile)
		return
	}
	t.lines = strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	load, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV3Defaults(), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(32))))
	if err != nil {
		t.fail(top, rules.CodeYAML, "%v", "%v", err)
		return
	}
	var doc yaml.Node
	if err := load.Load(&doc); err != nil && !errors.Is(err, io.EOF) {
		var le *yaml.LoadError
		if errors.As(err, &le) && le.Mark.Line > 0 {
			top = &yaml.Node{Line: le.Mark.Line, Column: max(le.Mark.Column, 1)}
			err = errors.New(le.Message)
		}
		t.fail(top, rules.CodeYAML, "YAML ではありません: %v", "not YAML: %v", err)
		return
	}
	none := func(n *yaml.Node) {
		t.tell(n, rules.CodeKey, "試験がありません（tests: に、name、events、alerts を持つリストを書きます）", "there are no tests (tests: is a list of them, each with name, events and alerts)")
	}
	if len(doc.Content) == 0 {
		none(top)
		return
	}
	var tests *yaml.Node
	t.keys(doc.Content[0], []string{"rules", "defaults", "tests"}, func(key string, v *yaml.Node) {
		switch key {
		case "rules":
			if t.decode(v, &t.rules, "ルールの番号か id のリスト", "a list of rules' ids") {
				t.known(v)
			}
		case "defaults":
			t.fields(v, &t.defaults)
		case "tests":
			tests = v
		}
	})
	switch {
	case doc.Content[0].Kind != yaml.MappingNode:
	case tests == nil:
		none(doc.Content[0])
	case tests.Kind != yaml.SequenceNode || len(tests.Content) == 0:
		none(tests)
	default:
		for _, n := range tests.Content {
			t.one(n)
		}
	}
}

// known tells the rules that nobody has: no alert could ever count.
func (t *testFile) known(n *yaml.Node) {
	var all []string
	for _, r := range t.program.Rules {
		all = append(all, r.ID)
		if r.Table() != "" {
			all = append(all, r.Table())
		}
	}
	for _, v := range n.Content {
		if !slices.Contains(all, v.Value) {
			name := problem.Quote(v.Value)
			t.tell(v, rules.CodeReference, "ルール "+name+" はありません", "there is no rule "+name).Hint = problem.Suggest(v.Value, all)
		}
	}
}

// fields reads the fields of an event, and tells names that no rule could mean.
func (t *testFile) fields(n *yaml.Node, v *map[string]any) {
	if !t.decode(n, v, "イベントの項目（「名前: 値」の組）", "the fields of an event, a map") {
		return
	}
	var names []string
	for _, f := range event.Fields() {
		names = append(names, f.Name)
	}
	var look func(prefix string, n *yaml.Node)
	look = func(prefix string, n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			name := prefix + k.Value
			if v.Kind == yaml.MappingNode {
				look(name+".", v)
				continue
			}
			if _, ok := event.FieldByName(name); ok {
				continue
			}
			// Recorded events may have any field: only what looks like a slip is one.
			quoted := problem.Quote(name)
			if near := problem.Suggest(name, names); near != "" {
				t.tell(k, rules.CodeField, "知らない項目 "+quoted+" です", "unknown field "+quoted).Hint = near
			} else if prefix == "" && !strings.Contains(name, ".") && strings.ToLower(name) != name {
				t.tell(k, rules.CodeField, "知らない項目 "+quoted+" です。イベントの項目は ECS の名前で書きます（process.executable など。Image などの Sigma の名前ではなく）",
					"unknown field "+quoted+": events have ECS names, such as process.executable, not Sigma's, such as Image")
			}
		}
	}
	if n.Kind == yaml.MappingNode {
		look("", n)
	}
}

func (t *testFile) one(n *yaml.Node) {
	c := &testCase{t: t, node: n}
	t.keys(n, []string{"name", "thresholds", "thresholds-for", "exceptions", "placeholders", "events", "alerts"}, func(key string, v *yaml.Node) {
		switch key {
		case "name":
			t.decode(v, &c.name, "文字列", "a text")
		case "thresholds":
			t.thresholds(v, &c.settings.Thresholds)
		case "thresholds-for":
			t.thresholdsFor(c, v)
		case "exceptions":
			t.exceptions(c, v)
		case "placeholders":
			t.decode(v, &c.settings.Placeholders, "{名前: [値]} の形", "{name: [values]}")
		case "events":
			t.events(c, v)
		case "alerts":
			c.alerts = v
			t.alerts(c, v)
		}
	})
	if n.Kind == yaml.MappingNode && len(c.events) == 0 && len(t.errs) == 0 {
		t.tell(n, rules.CodeKey, "この試験には events がありません", "this test has no events")
	}
	if n.Kind == yaml.MappingNode && c.alerts == nil {
		t.tell(n, rules.CodeKey, "この試験には alerts がありません（出ないはずなら alerts: [] と書きます）", "this test has no alerts (where none should come, write alerts: [])")
	}
	t.cases = append(t.cases, c)
}

func (t *testFile) alerts(c *testCase, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		t.kind(n, "アラートのリスト（出ないはずなら []）", "a list of alerts, [] for none")
		return
	}
	for _, a := range n.Content {
		w := wanted{map[string]any{}, map[string]*yaml.Node{}}
		t.keys(a, []string{"rule", "level", "count", "totals", "keys", "fields", "evidence", "title"}, func(key string, v *yaml.Node) {
			var x any
			if !t.decode(v, &x, "値", "a value") {
				return
			}
			_, isMap := x.(map[string]any)
			if inner := key == "totals" || key == "keys" || key == "fields"; inner && !isMap {
				t.kind(v, "「名前: 値」の組", "a map (name: value)")
			} else if !inner && v.Kind != yaml.ScalarNode {
				t.kind(v, "1 つの値", "a single value")
			}
			w.keys[key], w.node[key] = x, v
		})
		c.want = append(c.want, w)
	}
}

func (t *testFile) thresholds(n *yaml.Node, v *map[string]map[string]int64) {
	t.decode(n, v, "{ルール: {名前: 数}} の形", "{RULE: {name: number}}")
}

// each calls f for the keys of each entry of a list of maps.
func (t *testFile) each(n *yaml.Node, known []string, entry func(), f func(key string, v *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		t.kind(n, "リスト", "a list")
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
			t.decode(v, &at.Department, "文字列", "a text")
		case "tag":
			t.decode(v, &at.Tag, "文字列", "a text")
		case "list":
			t.decode(v, &at.List, "文字列", "a text")
		case "thresholds":
			t.thresholds(v, &at.Thresholds)
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
			if v.Kind != yaml.MappingNode {
				t.kind(v, "{項目: 値} の形", "{field: value}")
				return
			}
			for i := 0; i+1 < len(v.Content); i += 2 {
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
	t.decode(n, &out, "文字列か、そのリスト", "a text or a list of texts")
	return out
}

func (t *testFile) events(c *testCase, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		t.kind(n, "イベントのリスト", "a list of events")
		return
	}
	now := testStart.Add(-time.Second)
	for _, en := range n.Content {
		repeat, every := 1, time.Second
		at := now.Add(time.Second)
		fields, given := map[string]any{}, en
		t.keys(en, []string{"at", "repeat", "every", "event"}, func(key string, v *yaml.Node) {
			switch key {
			case "at":
				var d time.Duration
				if t.duration(v, &d) {
					at = testStart.Add(d)
				}
			case "repeat":
				t.decode(v, &repeat, "整数", "a whole number")
			case "every":
				t.duration(v, &every)
			case "event":
				given = v
				t.fields(v, &fields)
			}
		})
		if given == en && en.Kind == yaml.MappingNode {
			t.tell(en, rules.CodeKey, "event がありません（event: に項目を書きます）", "there is no event (its fields stand under event:)")
		}
		if repeat < 1 || len(c.events)+repeat > maxTestEvents {
			t.fail(en, rules.CodeBounds, "repeat %d: 1 つの試験のイベントは 1 から %d 件まで", "repeat %d: want 1 to %d events in a test", repeat, maxTestEvents)
			return
		}
		for i := range repeat {
			now = at.Add(time.Duration(i) * every)
			e, err := t.event(fields, len(c.events)+1, i+1, now)
			if err != nil {
				t.fail(given, rules.CodeType, "イベントとして読めません: %v", "not an event: %v", err)
				return
			}
			c.events = append(c.events, e)
		}
	}
}

func (t *testFile) duration(n *yaml.Node, d *time.Duration) bool {
	s := n.Value
	v, err := time.ParseDuration(s)
	if err != nil && strings.HasSuffix(s, "d") {
		var days int
		if days, err = strconv.Atoi(strings.TrimSuffix(s, "d")); err == nil {
			v = time.Duration(days) * 24 * time.Hour
		}
	}
	if err != nil {
		t.fail(n, rules.CodeType, "%q は時間ではありません（例 90s、10m、1h、2d）", "%q is not a time span such as 90s, 10m, 1h or 2d", s)
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
// wanted, a line each, nil for nothing; and which rules were refused.
func (c *testCase) run(su suite, only []string, o TestOptions) (diff []string, refused rules.Problems) {
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
	var ps rules.Problems
	errors.As(err, &ps)
	for i := range ps {
		if ps[i].Code == rules.CodeSetting && ps[i].File == "" {
			diff = append(diff, ps[i].Message(o.Lang)) // the test's own
		} else {
			refused = append(refused, ps[i])
		}
	}
	if len(diff) > 0 {
		return diff, refused
	}
	var in, out bytes.Buffer
	for _, e := range c.events {
		in.Write(append(e.AppendJSON(nil), '\n'))
	}
	if _, err := Run(context.Background(), Options{Events: &in, Name: "events", Program: p, Out: &out, Err: io.Discard}); err != nil {
		return []string{visible(err.Error())}, refused
	}
	counts := func(r *rules.Rule) bool {
		if len(only) == 0 {
			return su.shipped || !r.Builtin
		}
		return slices.Contains(only, r.Table()) || slices.Contains(only, r.ID)
	}
	var got []*alert.Alert
	for line := range bytes.Lines(out.Bytes()) {
		a, err := alert.Decode(bytes.TrimSpace(line))
		if err != nil {
			return []string{visible(err.Error())}, refused
		}
		if r := p.Rule(a.Rule.ID); r == nil || counts(r) {
			got = append(got, a)
		}
	}
	if len(got) != len(c.want) {
		diff = append(diff, fmt.Sprintf("%s: %s", c.t.at(c.alerts), say(o.Lang,
			fmt.Sprintf("アラートは %d 件（正しくは %d 件）", len(got), len(c.want)), fmt.Sprintf("%s, want %d", lang.Many(len(got), "alert"), len(c.want)))))
		for i, a := range got {
			diff = append(diff, fmt.Sprintf(say(o.Lang, "  出たもの %d: %s %s（開始から %v）%s", "  got %d: %s %s at %v: %s"),
				i+1, visible(cmp.Or(a.Rule.Table, a.Rule.ID)), a.Level, a.Time.Sub(testStart), visible(a.Title.In(o.Lang))))
		}
		if len(got) < len(c.want) {
			diff = append(diff, c.matched(p, counts, o.Lang)...)
		}
		return diff, refused
	}
	for i, a := range got {
		for _, key := range slices.Sorted(maps.Keys(c.want[i].keys)) {
			diff = append(diff, c.differ(o.Lang, i, key, a)...)
		}
	}
	return diff, refused
}

// matched tells how far the events came, where alerts are missing: which of the
// rules that count, and of those that they count, matched how many of them.
func (c *testCase) matched(p *rules.Program, counts func(*rules.Rule) bool, lang string) (lines []string) {
	asked := map[*rules.Rule]bool{}
	for i := len(p.Rules) - 1; i >= 0; i-- { // those that a correlation refers to come before it
		r := p.Rules[i]
		if asked[r] = asked[r] || counts(r) && !r.Hidden; asked[r] && r.Correlation != nil {
			for _, k := range r.Correlation.Rules {
				asked[p.Rules[k]] = true
			}
		}
	}
	times := map[*rules.Rule]int{}
	for _, e := range c.events {
		for _, m := range p.Match(e, nil) {
			times[m.Rule]++
		}
	}
	for _, r := range p.Rules {
		if n := times[r]; n > 0 && asked[r] {
			lines = append(lines, fmt.Sprintf(say(lang, "  一致したイベント: %s %[3]d 件中 %[2]d 件", "  matched: %s %d of %d events"),
				visible(cmp.Or(r.Name, r.Table(), r.Title)), n, len(c.events)))
		}
	}
	if lines == nil {
		lines = append(lines, say(lang, "  どのイベントも、これらのルールに一致しません（sekisho-agent explain イベント.json --rule ID が、項目ごとに理由を示します）",
			"  no event matches these rules (sekisho-agent explain EVENT.json --rule ID says why, field by field)"))
	}
	return lines
}

// differ tells the differences between a key of the wanted alert n and the one
// there is.
func (c *testCase) differ(lang string, n int, key string, a *alert.Alert) (diff []string) {
	w := c.want[n]
	check := func(at *yaml.Node, name string, want any, got string) {
		right := plain(want)
		if right == got {
			return
		}
		if got == "" {
			got = say(lang, "なし", "not there")
		}
		diff = append(diff, c.t.at(at)+": "+fmt.Sprintf(say(lang, "アラート %d: %s は %s（正しくは %s）", "alert %d: %s is %s, want %s"),
			n+1, visible(name), visible(got), visible(right)))
	}
	at := w.node[key]
	switch want := w.keys[key]; key {
	case "rule":
		if w := plain(want); w != a.Rule.Table && w != a.Rule.ID && w != a.Rule.Name {
			check(at, "rule", want, cmp.Or(a.Rule.Table, a.Rule.ID))
		}
	case "level":
		check(at, "level", want, a.Level.String())
	case "count":
		check(at, "count", want, strconv.FormatInt(a.Count, 10))
	case "evidence":
		check(at, "evidence", want, strconv.FormatInt(a.EvidenceTotal, 10))
	case "title":
		check(at, "title", want, a.Title.EN)
	case "totals", "keys", "fields":
		m, _ := want.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			got := ""
			switch key {
			case "totals":
				if n, ok := a.Totals[name]; ok {
					got = strconv.FormatInt(n, 10)
				}
			case "keys":
				got = a.Keys[name]
			default:
				v, _ := a.Event.Get(name)
				got = v.String()
			}
			place := at
			for i := 0; i+1 < len(at.Content); i += 2 {
				if at.Content[i].Value == name {
					place = at.Content[i+1]
				}
			}
			check(place, key+" "+name, m[name], got)
		}
	}
	return diff
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
