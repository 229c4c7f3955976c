package rules

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// contract is the levels and thresholds of the incident table: what is shipped
// must not drift from it.
var contract = map[string]struct {
	levels     string // of the documents that alert, each once
	thresholds map[string]int64
}{
	"USB-1":  {"medium high", nil},
	"USB-2":  {"medium", nil},
	"USB-3":  {"high", map[string]int64{"files": 50, "bytes": 100e6}},
	"USB-4":  {"high", nil},
	"SHR-1":  {"high", map[string]int64{"files": 200, "bytes": 500e6, "own-files": 1000, "own-bytes": 5e9}},
	"USB-5":  {"high", nil},
	"SHR-2":  {"high", map[string]int64{"90d": 100, "365d": 250}},
	"SCAM-1": {"high", nil},
	"SCAM-2": {"critical", nil},
	"SCAM-3": {"critical", nil},
	"LVR-1": {"high", map[string]int64{"usb-files": 25, "usb-bytes": 50e6, "share-files": 100, "share-bytes": 250e6,
		"own-share-files": 500, "own-share-bytes": 2.5e9, "slow-90d": 50, "slow-365d": 125, "upload-files": 10, "upload-bytes": 5e6, "pages": 50}},
	"LVR-3":    {"high", nil},
	"EXF-1":    {"high", map[string]int64{"files": 20, "bytes": 10e6, "outside-files": 20, "outside-bytes": 10e6}},
	"EXF-2":    {"medium", nil},
	"ACC-1":    {"medium", map[string]int64{"people": 3, "accounts": 3}},
	"ACC-2":    {"medium", map[string]int64{"copy-files": 20}},
	"SHR-3":    {"medium", nil},
	"ACC-4":    {"medium", nil},
	"BAR-1":    {"high", nil},
	"BAR-2":    {"high", nil},
	"PRT-1":    {"medium", map[string]int64{"pages": 100}},
	"ANOM-1":   {"high", map[string]int64{"files": 200}},
	"TMP-1":    {"high", nil},
	"HLT-2":    {"medium", nil},
	"HLT-3":    {"high", nil},
	"HLT-4":    {"high", nil},
	"SELFTEST": {"informational", nil},
}

// own are the placeholders that are no fields of the deciding event.
var own = regexp.MustCompile(`^sekisho\.alert\.(totals\.(files|bytes|pages)|count)$`)

func TestShippedRulesKeepTheContract(t *testing.T) {
	p, err := Load(LoadOptions{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, r := range p.Rules {
		if r.Silent {
			continue
		}
		id := r.Table()
		if _, ok := contract[id]; !ok {
			t.Errorf("%s: rule %q of no table id", r.File, r.Title)
			continue
		}
		if !strings.Contains(" "+seen[id]+" ", " "+r.Level+" ") {
			seen[id] = strings.TrimSpace(seen[id] + " " + r.Level)
		}
		a := r.Addition
		for _, text := range []string{a.Title.JA, a.Title.EN, a.Advice.JA, a.Advice.EN} {
			if text == "" {
				t.Errorf("%s: %q lacks a title or advice in one language", id, r.Title)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("%s: a text of several lines: %q", id, text)
			}
			for _, m := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(text, -1) {
				if _, ok := event.FieldByName(m[1]); !ok && !own.MatchString(m[1]) {
					t.Errorf("%s: placeholder {%s} is no field", id, m[1])
				}
			}
		}
		if regexp.MustCompile(`[。、ぁ-んァ-ヶ一-龠] [。、ぁ-んァ-ヶ一-龠]`).MatchString(a.Title.JA + a.Advice.JA) {
			t.Errorf("%s: a blank within Japanese text: %s", id, a.Advice.JA)
		}
		if len(a.Incidents) == 0 && id != "SELFTEST" && r.Title != "Printed far outside the hours" { // no published case is behind those
			t.Errorf("%s: no incidents", id)
		}
	}
	for id, want := range contract {
		if seen[id] != want.levels {
			t.Errorf("%s: levels %q, want %q", id, seen[id], want.levels)
		}
		got := map[string]int64{}
		for _, r := range p.Find(id) {
			for _, th := range r.Addition.Thresholds {
				got[th.Key] = th.Value
			}
		}
		if len(got) != len(want.thresholds) {
			t.Errorf("%s: thresholds %v, want %v", id, got, want.thresholds)
		}
		for k, v := range want.thresholds {
			if got[k] != v {
				t.Errorf("%s: threshold %s is %d, want %d", id, k, got[k], v)
			}
		}
	}
}

// A shipped rule about what only a site knows waits for its settings; half of them
// are a mistake.
func TestAShippedRuleWaitsForItsPlaceholders(t *testing.T) {
	load := func(set map[string][]string) (*Program, error) {
		return Load(LoadOptions{Builtin: true, Options: Options{Placeholders: set}})
	}
	e := &event.Event{Action: event.ProcessStarted, Process: &event.Process{Name: "gridview"}, Context: &event.Context{PersonDept: "retail"}}
	p, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := p.Rule("BAR-1")
	if want := []string{"barred-programs", "barred-departments"}; !r.Disabled || !slices.Equal(r.Waits, want) || len(p.Match(e, nil)) != 0 {
		t.Errorf("without settings: %v, waits for %v", r.Disabled, r.Waits)
	}
	var b strings.Builder
	if err := p.Explain(&b, "BAR-1", "en"); err != nil || !strings.Contains(b.String(), "waits for the settings rules.placeholders.barred-programs, rules.placeholders.barred-departments") ||
		!strings.Contains(b.String(), `process.name is "%barred-programs%"`) {
		t.Errorf("%v\n%s", err, b.String())
	}
	i := slices.IndexFunc(p.List(), func(i Info) bool { return i.Rule == "BAR-1" })
	if got := p.List()[i]; got.Enabled || len(got.WaitsFor) != 2 {
		t.Errorf("listed as %+v", got)
	}
	if _, err = load(map[string][]string{"barred-programs": {"gridview*"}}); err == nil || !strings.Contains(err.Error(), "rules.placeholders.barred-departments") {
		t.Errorf("with half of the settings: %v", err)
	}
	p, err = load(map[string][]string{"barred-programs": {"gridview*"}, "barred-departments": {"retail"}})
	if err != nil {
		t.Fatal(err)
	}
	if r := p.Rule("BAR-1"); r.Disabled || r.Waits != nil || len(p.Match(e, nil)) != 1 {
		t.Errorf("with both: %+v", r)
	}
}

func TestEveryRuleIsExplainedInBothLanguages(t *testing.T) {
	p, err := Load(LoadOptions{Builtin: true, Options: Options{Thresholds: map[string]map[string]int64{"USB-3": {"files": 80}}}})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, lang := range []string{"ja", "en"} {
		for _, id := range []string{"USB-1", "USB-3", "SCAM-1"} {
			if err := p.Explain(&b, id, lang); err != nil {
				t.Fatal(err)
			}
			b.WriteByte('\n')
		}
	}
	golden(t, "testdata/explain.txt", b.String())
	if err := p.Explain(&b, "USB3", "en"); err == nil || err.Error() != `no such rule: "USB3" (did you mean "USB-3"?)` {
		t.Error(err)
	}
}
