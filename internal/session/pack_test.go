package session

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/judge"
	"sekisho/internal/rules"
)

// What the sensor tells is what the shipped rules ask for: the rules about
// accounts raise their alerts from its own events, by its own times.
func TestTheShippedRulesJudgeSessions(t *testing.T) {
	program, err := rules.Load(rules.LoadOptions{Builtin: true, Options: rules.Options{Zone: config.DefaultAgent().WorkHours.Location()}})
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	login1 := func(id, name, kind string) *login {
		return &login{id: id, user: event.User{ID: "10" + id, Name: name}, kind: kind, began: time.Now().UTC(), graphical: true, active: true}
	}
	for _, c := range []struct {
		name  string
		tags  []string
		do    func(tr *tracker) // from Saturday, 1 January 2000, 09:00 in Tokyo on
		rules string
	}{
		{"accounts of three people in a week", nil, func(tr *tracker) {
			time.Sleep(3 * day) // Tuesday
			for _, name := range []string{"tanaka", "sato", "suzuki"} {
				tr.begin(name, login1(name, name, Console), false)
				time.Sleep(time.Hour)
				tr.end(name, time.Time{})
			}
		}, "ACC-1"},
		{"one account in three sessions at once, one of them remote", nil, func(tr *tracker) {
			time.Sleep(3 * day)
			for _, id := range []string{"1", "2", "3"} {
				tr.begin(id, login1(id, "tanaka", Remote), false)
			}
		}, ""},
		{"unlocked on a Sunday, two weeks after the rule came into force", nil, func(tr *tracker) {
			l := login1("1", "sato", Console)
			tr.begin("1", l, true)
			time.Sleep(2 * day)
			tr.lock(l, true)
			tr.lock(l, false)
			time.Sleep(18*day - 9*time.Hour)
			tr.begin("2", login1("2", "suzuki", Console), false) // Thursday, at work
			time.Sleep(3 * day)
			l = login1("3", "tanaka", Console)
			tr.begin("3", l, true)
			tr.lock(l, true)
			tr.lock(l, false)
		}, "ACC-2"},
		{"a desktop left idle for 20 minutes", nil, func(tr *tracker) {
			l := login1("1", "tanaka", Console)
			tr.begin("1", l, true)
			tr.idle(l, time.Now())
			time.Sleep(20 * time.Minute)
			tr.idle(l, time.Time{})
		}, "ACC-4"},
		{"locked after 10 of them", nil, func(tr *tracker) {
			l := login1("1", "tanaka", Console)
			tr.begin("1", l, true)
			tr.idle(l, time.Now())
			time.Sleep(10 * time.Minute)
			tr.lock(l, true)
			time.Sleep(10 * time.Minute)
			tr.idle(l, time.Time{})
			tr.lock(l, false)
		}, ""},
		{"an account whose owner has left, over ssh", nil, func(tr *tracker) {
			time.Sleep(5 * day)
			tr.begin("1", login1("1", "yamada", Remote), false)
		}, "LVR-3"},
		{"a PC for emergencies", []string{"emergency-only"}, func(tr *tracker) {
			time.Sleep(5 * day)
			tr.begin("1", login1("1", "tanaka", Console), false)
		}, "BAR-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config.DefaultAgent()
				cfg.Host.Tags = c.tags
				cfg.People = append(cfg.People, config.Person{ID: "y", Accounts: []string{"yamada"}, Lists: []string{"leaver"}, LastDay: "2000-01-03"})
				j := judge.New(judge.Options{Program: program, Enricher: enrich.New(enrich.Options{Config: cfg})})
				out := make(chan *event.Event, 64)
				tr := New(Options{}).newTracker(t.Context(), out)
				tr.takeOver(mechanismLogind)
				c.do(tr)
				var raised, said []string
				for len(out) > 0 {
					e := <-out
					e.Host = &event.Host{Name: "pc1"}
					said = append(said, e.Time.Format(time.RFC3339)+" "+say(e))
					for _, a := range j.Event(e) {
						raised = append(raised, a.Rule.Table)
					}
				}
				slices.Sort(raised)
				if got := strings.Join(slices.Compact(raised), " "); got != c.rules || len(said) == 0 {
					t.Errorf("raised %q, want %q, from\n  %s", got, c.rules, strings.Join(said, "\n  "))
				}
			})
		})
	}
}
