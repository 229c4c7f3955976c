package rules

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sekisho/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Each bad file has the whole text that is told of it beside it, in both
// languages.
func TestBadRulesAreToldWithPlaceReasonAndHint(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.bad.yml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			many := make([]string, 100)
			for i := range many {
				many[i] = strconv.Itoa(i)
			}
			problems := problemsOf(filepath.Base(name), data, Options{Placeholders: map[string][]string{"servers": {"fs1"}, "many": many}})
			if len(problems) == 0 {
				t.Fatal("nothing is wrong with it")
			}
			var b strings.Builder
			for _, lang := range []string{"en", "ja"} {
				if err := problems.Print(&b, lang); err != nil {
					t.Fatal(err)
				}
				b.WriteByte('\n')
			}
			golden(t, strings.TrimSuffix(name, ".bad.yml")+".txt", b.String())
		})
	}
}

func problemsOf(name string, data []byte, o Options) Problems {
	var problems Problems
	f, err := Parse(name, data)
	if err != nil {
		problems = append(problems, asProblems(err)...)
	}
	if _, err := Compile([]*File{f}, o); err != nil {
		problems = append(problems, asProblems(err)...)
	}
	return problem.Sorted(problems)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err, " (run with -update and read what it writes)")
	}
	if got != string(want) {
		t.Errorf("%s differs; got\n%s", name, got)
	}
}

// ruleOf is a rule whose line of a selection is what is given.
func ruleOf(line string) string {
	return "title: t\nlogsource: {product: sekisho}\ntaxonomy: ecs\ndetection:\n  s:\n    " + line + "\n  condition: s\n"
}

// hostile is files that ask for more than anybody needs, and the code of the problem
// that they come to; "" where they are harmless.
var hostile = []struct {
	name, code string
	text       func() string
}{
	{"100 MB", CodeRead, func() string { return strings.Repeat("a: b\n", 20<<20) }},
	{"a list of 300,000", CodeBounds, func() string { return ruleOf("user.name: [" + strings.Repeat("a,", 300_000) + "]") }},
	{"a map of 60,000", CodeBounds, func() string {
		var b strings.Builder
		for i := range 60_000 {
			fmt.Fprintf(&b, "k%d: 1\n", i)
		}
		return b.String()
	}},
	{"100,000 documents", CodeBounds, func() string { return strings.Repeat("---\na: b\n", 100_000) }},
	{"100,000 empty documents", CodeYAML, func() string { return strings.Repeat("---\n", 100_000) }},
	{"lists in lists", CodeYAML, func() string { return strings.Repeat("[", 100_000) }},
	{"maps in maps", CodeYAML, func() string { return strings.Repeat("{a: ", 100_000) }},
	{"blocks in blocks", CodeYAML, func() string {
		var b strings.Builder
		for i := range 1000 {
			b.WriteString(strings.Repeat(" ", i) + "a:\n")
		}
		return b.String()
	}},
	{"many brackets", CodeYAML, func() string { return strings.Repeat("[]", 200_000) }},
	{"aliases of aliases", CodeYAML, func() string {
		text := "a: &a [x, x, x, x, x, x, x, x, x]\n"
		for c := 'b'; c <= 'i'; c++ {
			text += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 9))
		}
		return text + ruleOf("user.name: *i")
	}},
	{"an alias of itself", CodeYAML, func() string { return "title: &a [*a]\ndetection: *a\n" }},
	{"a text of 900 KB", CodeBounds, func() string { return ruleOf("user.name: " + strings.Repeat("x", 900_000)) }},
	{"a name of 200 KB", CodeBounds, func() string { return ruleOf(strings.Repeat("x", 200_000) + ": a") }},
	{"10,000 modifiers", CodeModifier, func() string { return ruleOf("user.name" + strings.Repeat("|all", 4_000) + "|x: a") }},
	{"(a+)+$", "", func() string { return ruleOf("user.name|re: '(a+)+$'") }},
	{"a{1000}{1000}", CodePattern, func() string { return ruleOf("user.name|re: 'a{1000}{1000}'") }},
	{"((((a{1,90}){1,90}){1,90}){1,90})", CodePattern, func() string { return ruleOf("user.name|re: '((((a{1,90}){1,90}){1,90}){1,90})'") }},
	{"100,000 alternatives", CodeBounds, func() string { return ruleOf("user.name|re: '" + strings.Repeat("a|", 100_000) + "b'") }},
	{"2,000 alternatives", "", func() string { return ruleOf("user.name|re: '" + strings.Repeat("a|", 2_000) + "b'") }},
	{"large expressions without end", CodeBounds, func() string {
		var b strings.Builder
		for i := range 2_000 {
			fmt.Fprintf(&b, "'x%d[a-z]{900}[0-9]{900}[a-z]{900}[0-9]{900}', ", i)
		}
		return ruleOf("user.name|re: [" + b.String() + "]")
	}},
	{"the same large expression again and again", "", func() string {
		return ruleOf("user.name|re: [" + strings.Repeat("'[a-z]{900}[0-9]{900}[a-z]{900}', ", 2_000) + "]")
	}},
	{"a condition of 3,000 words", CodeBounds, func() string {
		return strings.Replace(ruleOf("user.name: a"), "condition: s", "condition: s"+strings.Repeat(" or s", 3000), 1)
	}},
	{"5,000 parentheses", CodeBounds, func() string {
		return strings.Replace(ruleOf("user.name: a"), "condition: s", "condition: "+strings.Repeat("(", 5000)+"s", 1)
	}},
	{"5,000 times not", CodeBounds, func() string {
		return strings.Replace(ruleOf("user.name: a"), "condition: s", "condition: "+strings.Repeat("not ", 5000)+"s", 1)
	}},
	{"a circle of 20 correlations", CodeReference, func() string {
		var b strings.Builder
		for i := range 20 {
			fmt.Fprintf(&b, "---\ntitle: c\nname: c%d\ncorrelation: {type: event_count, rules: [c%d], timespan: 1h, condition: {gte: 2}}\n", i, (i+1)%20)
		}
		return b.String()
	}},
	{"a chain of 900 correlations", CodeBounds, func() string {
		b := strings.Replace(ruleOf("user.name: a"), "title: t", "title: t\nname: c900", 1)
		for i := range 900 {
			b += fmt.Sprintf("---\ntitle: c\nname: c%d\ncorrelation: {type: event_count, rules: [c%d], timespan: 1h, condition: {gte: 2}}\n", i, i+1)
		}
		return b
	}},
	{"10,000 actions on 100 systems", CodeBounds, func() string {
		list := func(n int) string {
			var b strings.Builder
			for i := range n {
				fmt.Fprintf(&b, "x%d, ", i)
			}
			return b.String()
		}
		return ruleOf("event.action: [" + list(10_000) + "]\n    host.os.type: [" + list(1000) + "]")
	}},
	{"200 selections, 100 times each", "", func() string {
		var b strings.Builder
		b.WriteString("title: t\nlogsource: {product: sekisho}\ntaxonomy: ecs\ndetection:\n")
		for i := range 200 {
			fmt.Fprintf(&b, "  s%d: {file.path|contains: w%dx}\n", i, i)
		}
		return b.String() + "  condition: 1 of them" + strings.Repeat(" or 1 of them", 100) + "\n"
	}},
	{"10,000 values, 200 times each", CodeBounds, func() string {
		var b strings.Builder
		for i := range 5_000 {
			fmt.Fprintf(&b, "w%dx, ", i)
		}
		return strings.Replace(ruleOf("file.path|contains: ["+b.String()+"]"), "condition: s", "condition: s"+strings.Repeat(" or (s and not s)", 300), 1)
	}},
	{"20,000 unknown fields", CodeField, func() string {
		var b strings.Builder
		b.WriteString("title: t\nlogsource: {product: sekisho}\ntaxonomy: ecs\ndetection:\n")
		for i := range 20_000 {
			if i%5_000 == 0 {
				fmt.Fprintf(&b, "  s%d:\n", i)
			}
			fmt.Fprintf(&b, "    user.nam%d: a\n", i)
		}
		return b.String() + "  condition: 1 of them\n"
	}},
}

// Memory goes by what was allocated, of which most is free again soon. A file of
// 1 MiB may take a few hundred times its size to read.
func TestHostileFilesTakeBoundedWork(t *testing.T) {
	const limit = 600 << 20
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			text := []byte(tt.text())
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			ps := problemsOf("x.yml", text, Options{})
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > limit {
				t.Errorf("%d MB of memory taken", took>>20)
			}
			size := 0
			for i := range ps {
				size = max(size, len(ps[i].Message("en")))
			}
			if size > 1000 {
				t.Errorf("message of %d bytes", size)
			}
			if tt.code == "" && len(ps) > 0 {
				t.Errorf("refused: %v", ps)
			}
			if tt.code != "" && !slices.ContainsFunc(ps, func(p Problem) bool { return p.Code == tt.code }) {
				t.Errorf("no problem with code %s among %d: %v", tt.code, len(ps), ps[:min(len(ps), 3)])
			}
		})
	}
}

// A folder of files that are each within bounds is bounded too.
func TestProgramsAreBounded(t *testing.T) {
	var files []*File
	for i := range 20 {
		text := strings.Replace(ruleOf(fmt.Sprintf("user.name: [a%d, b%d]\n    file.name|re: 'x%d[a-z]{50}'\n    file.pat: x", i, i, i)), "title: t", fmt.Sprintf("title: t%d", i), 1)
		if i%2 == 0 {
			text = strings.Replace(text, "    file.pat: x\n", "", 1)
		}
		f, err := Parse(fmt.Sprintf("f%d.yml", i), []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	tests := []struct {
		name  string
		set   func(*bounds)
		rules int    // that are left
		want  string // one of the problems
	}{
		{"none", func(*bounds) {}, 10, `f19.yml:8:5: rule "t19": detection.s.file.pat: unknown field "file.pat" (did you mean "file.path"?) [RUL-05]`},
		{"rules", func(b *bounds) { b.rules = 4 }, 2, `f4.yml:1:1: rule "t4": more than 4 rules [RUL-13]`},
		{"values", func(b *bounds) { b.patterns = 13 }, 2, `f4.yml:6:21: rule "t4": detection.s.user.name: more than 13 values in all rules [RUL-13]`},
		{"instructions", func(b *bounds) { b.instructions = 250 }, 2, `f4.yml:7:19: rule "t4": detection.s.file.name|re: the regular expressions of all rules are too large [RUL-13]`},
		{"guesses", func(b *bounds) { b.guesses = 9 }, 10, `f19.yml:8:5: rule "t19": detection.s.file.pat: unknown field "file.pat" [RUL-05]`},
		{"the index", func(b *bounds) { b.weight = 20 }, 4, `f8.yml:1:1: rule "t8": the values of all rules are too many (a rule that names its event.action needs less) [RUL-13]`},
		{"problems", func(b *bounds) { b.problems = 3 }, 10, `too many problems: the rest is not told [RUL-13]`},
	}
	for _, tt := range tests {
		c := newCompiler(Options{})
		tt.set(&c.max)
		p, err := c.compile(files)
		var ps Problems
		if !errors.As(err, &ps) {
			t.Fatal(err)
		}
		if len(p.Rules) != tt.rules || !slices.ContainsFunc(ps, func(p Problem) bool { return p.Message("en") == tt.want }) {
			t.Errorf("%s: %d rules are left, the problems are\n%v", tt.name, len(p.Rules), ps)
		}
	}
}

func TestSettingsThatNameWhatNoRuleHasAreTold(t *testing.T) {
	_, err := Load(LoadOptions{Builtin: true, Options: Options{
		Disable:    []string{"USB-3", "usb-9", "SCAM1"},
		Thresholds: map[string]map[string]int64{"USB-3": {"files": 80, "byts": 3}, "USB-4": {"files": 1}, "USB3": {}, "SHR-1": {"files": 0}},
	}})
	want := `rules.disable: there is no rule "usb-9" (did you mean "USB-1"?) [RUL-14]
rules.disable: there is no rule "SCAM1" (did you mean "SCAM-1"?) [RUL-14]
rules.thresholds.SHR-1.files: a threshold is at least 1 [RUL-14]
rules.thresholds.USB-3.byts: USB-3 has no threshold "byts" (did you mean "bytes"?) [RUL-14]
rules.thresholds.USB-4.files: USB-4 has no threshold "files" [RUL-14]
rules.thresholds.USB3: there is no rule "USB3" (did you mean "USB-3"?) [RUL-14]`
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatal(err)
	}
	var got []string
	for i := range ps {
		got = append(got, ps[i].Message("en"))
	}
	if len(got) != 6 {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	for _, line := range got {
		if !strings.Contains(want, line) {
			t.Errorf("got %s", line)
		}
	}
}

func TestThresholdsFromSettingsReplaceTheRules(t *testing.T) {
	p, err := Load(LoadOptions{Builtin: true, Options: Options{Thresholds: map[string]map[string]int64{"USB-3": {"files": 80}}, Disable: []string{"SCAM-1"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Rule("usb3-files").Correlation.Conditions; len(c) != 1 || c[0] != (Condition{"gte", 80}) {
		t.Errorf("conditions %v", c)
	}
	if c := p.Rule("usb3-bytes").Correlation.Conditions[0].Value; c != 100_000_000 {
		t.Errorf("bytes %v", c)
	}
	if !p.Rule("SCAM-1").Disabled || p.Rule("SCAM-3").Disabled {
		t.Error("disable SCAM-1 only")
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yml", "pack/*.yml"} {
		names, _ := filepath.Glob(pattern)
		for _, n := range names {
			if data, err := os.ReadFile(n); err == nil && len(data) < 20_000 {
				f.Add(string(data))
			}
		}
	}
	for _, h := range hostile {
		if text := h.text(); len(text) < 20_000 {
			f.Add(text)
		} else if len(text) < 2<<20 {
			f.Add(text[:10_000])
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse("f.yml", []byte(text))
		var ps Problems
		if err != nil && !errors.As(err, &ps) {
			t.Fatalf("error of type %T", err)
		}
		p, err := Compile([]*File{file}, Options{})
		if err != nil && !errors.As(err, &ps) {
			t.Fatalf("error of type %T", err)
		}
		for i := range ps {
			if m := ps[i].Message("ja"); strings.ContainsAny(m, "\n\x1b\x00") {
				t.Fatalf("message with control characters: %q", m)
			}
		}
		for _, r := range p.Rules {
			var b strings.Builder
			if err := p.Explain(&b, r.ID, "en"); err != nil {
				t.Fatal(err)
			}
		}
	})
}
