package printwatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/judge"
	"sekisho/internal/rules"
	"sekisho/internal/winlog"
)

// What the sensor tells is what the shipped rule about prints asks for.
func TestTheShippedRulesJudgePrints(t *testing.T) {
	cfg := config.DefaultAgent()
	cfg.Protected = append(cfg.Protected, config.Place{Label: "住民情報", Paths: []string{`D:\juki\**`}})
	program, err := rules.Load(rules.LoadOptions{Builtin: true, Options: rules.Options{Zone: cfg.WorkHours.Location()}})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, cfg.WorkHours.Location()) // a Tuesday
	printed := func(job int, at time.Time, document string, pages int) *winlog.Event {
		return &winlog.Event{ID: recordPrinted, Time: at, User: "S-1-5-21-1-2-3-1001", Data: []winlog.Field{{Name: "Param1", Value: fmt.Sprint(job)}, {Name: "Param2", Value: document},
			{Name: "Param3", Value: "tanaka"}, {Name: "Param5", Value: "3F"}, {Name: "Param8", Value: fmt.Sprint(pages)}}}
	}
	for _, c := range []struct {
		name    string
		records []*winlog.Event
		want    string
	}{
		{"a document of a few pages", []*winlog.Event{printed(1, noon, "minutes.docx", 3)}, ""},
		{"a protected one", []*winlog.Event{printed(1, noon, `D:\juki\list.xlsx`, 3)}, "PRT-1"},
		{"120 pages within an hour", []*winlog.Event{printed(1, noon, "a", 60), printed(2, noon.Add(30*time.Minute), "b", 60)}, "PRT-1"},
		{"120 pages in a day", []*winlog.Event{printed(1, noon, "a", 60), printed(2, noon.Add(3*time.Hour), "b", 60)}, ""},
	} {
		j := judge.New(judge.Options{Program: program, Enricher: enrich.New(enrich.Options{Config: cfg})})
		w := New(Options{})
		var raised []string
		for _, r := range c.records {
			e := w.decode(r, allowed)
			e.Host = &event.Host{Name: "pc1"}
			for _, a := range j.Event(e) {
				raised = append(raised, a.Rule.Table)
			}
		}
		if got := strings.Join(slices.Compact(raised), " "); got != c.want {
			t.Errorf("%s: raised %q, want %q", c.name, got, c.want)
		}
	}
}
