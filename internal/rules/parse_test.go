package rules

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
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
	return sortProblems(problems)
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

func TestHugeFilesAreRefusedSoon(t *testing.T) {
	rule := "title: t\nlogsource: {product: sekisho}\ntaxonomy: ecs\ndetection:\n  s:\n    user.name: %s\n  condition: s\n"
	entries := strings.Repeat("a,", 300_000)
	tests := []struct{ name, text, code string }{
		{"100 MB", strings.Repeat("a: b\n", 20<<20), CodeRead},
		{"many entries", fmt.Sprintf(rule, "["+entries+"]"), CodeBounds},
		{"many documents", strings.Repeat("---\na: b\n", 100_000), CodeBounds},
		{"deep", strings.Repeat("[", 500_000), CodeYAML},
		{"many brackets", strings.Repeat("[]", 200_000), CodeYAML},
		{"long text", fmt.Sprintf(rule, strings.Repeat("x", 900_000)), CodeBounds},
		{"large expression", strings.Replace(fmt.Sprintf(rule, "'((((a{1,90}){1,90}){1,90}){1,90})'"), "user.name", "user.name|re", 1), CodePattern},
		{"long condition", strings.Replace(fmt.Sprintf(rule, "a"), "condition: s", "condition: s"+strings.Repeat(" or s", 3000), 1), CodeBounds},
		{"deep condition", strings.Replace(fmt.Sprintf(rule, "a"), "condition: s", "condition: "+strings.Repeat("(", 5000)+"s", 1), CodeBounds},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			ps := problemsOf("x.yml", []byte(tt.text), Options{})
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("took %v", d)
			}
			for i := range ps {
				if ps[i].Code == tt.code {
					if len(ps[i].Message("en")) > 1000 {
						t.Errorf("message of %d bytes", len(ps[i].Message("en")))
					}
					return
				}
			}
			t.Errorf("no problem with code %s among %d", tt.code, len(ps))
		})
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
