package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sekisho/internal/catalog"
	"sekisho/internal/config"
	"sekisho/internal/correlate"
	"sekisho/internal/endpoint"
	"sekisho/internal/enrich"
	"sekisho/internal/rules"
	"sekisho/internal/rules/pack"
)

// loaded is what settings ask for in rules and enrichment, compiled and ready to
// be put in force.
type loaded struct {
	cfg     *config.Agent
	program *rules.Program
	open    []string // which of them people may change who should not
}

// loadRules compiles the rules that the settings name. With an error the program
// still holds the rules that are right.
func loadRules(cfg *config.Agent) (loaded, error) {
	program, err := rules.Load(rules.LoadOptions{
		Builtin: cfg.Rules.Builtin, Paths: cfg.Rules.Paths, Options: RuleOptions(cfg),
	})
	inSettings, err := SettingsProblems(cfg, err)
	inSettings = append(enrich.Check(cfg, catalog.Load()), inSettings...)
	if len(inSettings) > 0 {
		err = errors.Join(inSettings, err)
	}
	return loaded{cfg, program, openRules(cfg.Rules.Paths)}, err
}

// RuleOptions is what the settings say of rules: the agent's and every command's
// only way from the one to the other.
func RuleOptions(cfg *config.Agent) rules.Options {
	c := &cfg.Rules
	o := rules.Options{
		Thresholds:   c.Thresholds,
		Placeholders: c.Placeholders,
		Zone:         cfg.WorkHours.Location(),
		Disable:      c.Disable,
	}
	for _, t := range c.ThresholdsFor {
		o.Scoped = append(o.Scoped, rules.ScopedThresholds{
			Scope: rules.Scope{Department: t.Department, Tag: t.Tag, List: t.List}, Thresholds: t.Thresholds})
	}
	for _, e := range c.Exceptions {
		o.Exceptions = append(o.Exceptions, rules.Exception{Rules: e.Rules, When: e.When, Expires: string(e.Expires)})
	}
	return o
}

// SettingsProblems parts the problems of rules that lie in the settings, such as
// a threshold that no rule has, from the others, and gives them their place.
func SettingsProblems(cfg *config.Agent, err error) (inSettings config.Problems, others error) {
	var ps, rest rules.Problems
	if !errors.As(err, &ps) {
		return nil, err
	}
	for _, p := range ps {
		if p.Code == rules.CodeSetting && p.File == "" {
			inSettings = append(inSettings, cfg.Problem(p.Path, config.CodeFound, p.JA, p.EN, p.Hint))
			continue
		}
		rest = append(rest, p)
	}
	slices.SortStableFunc(inSettings, func(a, b config.Problem) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col)) })
	if len(rest) == 0 {
		return inSettings, nil
	}
	return inSettings, rest
}

// CheckSettings reads settings and rules as the agent would and answers the
// number of rules. The error holds every problem of both.
func CheckSettings(file string) (int, error) {
	cfg, err := config.LoadAgent(file)
	if err != nil {
		return 0, err
	}
	l, err := loadRules(cfg)
	return l.active(), err
}

// active is how many rules and correlations run.
func (l loaded) active() int {
	n := 0
	for _, r := range l.program.Rules {
		if !r.Disabled && !r.Hidden {
			n++
		}
	}
	return n
}

// warnOpenRules notes in the log whose rules are not safe from those who are watched.
func (a *Agent) warnOpenRules() {
	for _, text := range a.rules.open {
		a.log.Warn(text)
	}
}

// figures takes the judge's figures for status; only the pipeline may ask the
// judge.
func (a *Agent) figures() {
	st := a.judge.Stats()
	w := st.Windows
	a.judgeIs.Store(&endpoint.Rules{
		Pack: pack.Version, Active: a.rules.active(), Problems: slices.Concat(a.refused, a.rules.open),
		Keys: int64(w.Keys), Evicted: givenUp(w), Since: st.Since, Journal: st.Journal, Checkpoint: st.Checkpoint, Unsafe: st.Problem,
	})
}

// givenUp is how much of what was counted is forgotten for want of room, whatever
// it was.
func givenUp(w correlate.Stats) uint64 {
	return uint64(w.Evicted + w.Lost + w.Forgotten + w.Trimmed)
}

// lines are an error's lines, as status shows them; at most 20.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	l := strings.Split(err.Error(), "\n")
	if len(l) > 20 {
		l = append(l[:20], fmt.Sprintf("and %d more", len(l)-20))
	}
	return l
}
