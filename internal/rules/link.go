package rules

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// find is the document that a reference names, by id or name.
func (c *compiler) find(name string) *document {
	if d := c.ids[strings.ToLower(name)]; d != nil {
		return d
	}
	if name == "" {
		return nil
	}
	return c.named[name]
}

// refNames is what references may name, for suggestions.
func (c *compiler) refNames() []string {
	var out []string
	for _, d := range c.docs {
		if d.filter == nil && d.name != "" {
			out = append(out, d.name)
		}
	}
	return out
}

// dangling tells a reference that leads nowhere; others is what it may name besides
// ids and names.
func (c *compiler) dangling(d *document, r ref, others []string) {
	p := c.fail(d, r.line, r.col, r.path, CodeReference, problem.Quote(r.name)+" というルール（id または name）はありません",
		"there is no rule with id or name "+problem.Quote(r.name))
	if c.hints < c.max.guesses {
		p.Hint = c.suggest(r.name, append(c.refNames(), others...))
	}
}

func mix(parts ...uint64) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		fmt.Fprintf(h, "%016x", p)
	}
	return h.Sum64()
}

// correlations resolves correlations, each after those it refers to. Those that
// are refused already are looked at for what else is wrong with them.
func (c *compiler) correlations() {
	done := map[*document]bool{}
	var above []*document // those whose references are being followed
	var visit func(d *document)
	visit = func(d *document) {
		if done[d] {
			return
		}
		above = append(above, d)
		for _, r := range d.corr.rules {
			t := c.find(r.name)
			if t == nil || t.corr == nil {
				continue
			}
			at := slices.Index(above, t)
			switch {
			case at >= 0:
				circle := ""
				for _, a := range above[at:] {
					circle += a.label() + " -> "
				}
				circle = problem.Quote(circle + t.label())
				c.fail(d, r.line, r.col, r.path, CodeReference, "correlation が互いに参照し合っています（"+circle+"）", "correlations refer to each other in a circle: "+circle)
				c.refused[d] = true
			case len(above) == c.max.chain:
				c.fail(d, r.line, r.col, r.path, CodeBounds, fmt.Sprintf("correlation の連鎖が深すぎます（上限は %d）", c.max.chain), fmt.Sprintf("a chain of more than %d correlations", c.max.chain))
				c.refused[d] = true
			default:
				visit(t)
			}
		}
		above = above[:len(above)-1]
		done[d] = true
		c.correlation(d)
	}
	for _, d := range c.docs {
		if d.corr != nil {
			visit(d)
		}
	}
}

func (c *compiler) correlation(d *document) {
	c.failed = false
	doc := d.corr
	corr := &Correlation{Type: doc.typ, Timespan: doc.timespan, Conditions: doc.conds, Generate: doc.generate}
	var targets []*Rule
	for _, ref := range doc.rules {
		t := c.find(ref.name)
		if t == nil {
			c.dangling(d, ref, nil)
			continue
		}
		r := c.byDoc[t]
		if r == nil && c.refused[d] {
			continue // it may be part of the circle
		}
		if r == nil {
			c.fail(d, ref.line, ref.col, ref.path, CodeReference, "ルール "+problem.Quote(ref.name)+" に問題があるため使えません", "rule "+problem.Quote(ref.name)+" was refused")
			continue
		}
		if slices.Contains(targets, r) {
			c.fail(d, ref.line, ref.col, ref.path, CodeReference, "ルール "+problem.Quote(ref.name)+" が 2 回書かれています", "rule "+problem.Quote(ref.name)+" is named twice")
			continue
		}
		targets = append(targets, r)
		corr.Rules = append(corr.Rules, c.places[r])
	}
	if doc.typ.temporal() && len(targets) > 16 {
		c.fail(d, d.line, d.col, "correlation.rules", CodeBounds, "ルールが多すぎます（上限は 16）", "more than 16 rules")
	}
	// Field names are those of the rules it refers to, unless it says itself.
	ns := names{ecs: d.taxonomy == "ecs"}
	if d.taxonomy == "" && len(targets) > 0 {
		ns = c.base(targets[0]).names()
	}
	known := d.taxonomy != "" || len(targets) > 0 // how names of fields are understood
	resolve := func(ref ref, ns names) (Getter, bool) {
		if !known {
			return Getter{}, false // that no rule is known was told
		}
		return c.field(d, ns, ref.name, ref.line, ref.col, ref.path)
	}
	for _, name := range doc.aliasList {
		for _, rule := range keys(doc.aliases[name]) {
			if at := doc.aliases[name][rule]; len(targets) == len(doc.rules) && !slices.ContainsFunc(targets, func(t *Rule) bool { return t.Name == rule }) {
				c.fail(d, at.line, at.col, at.path, CodeReference, "この correlation は name が "+problem.Quote(rule)+" のルールを数えません",
					"the correlation counts no rule with the name "+problem.Quote(rule)).Hint = c.suggest(rule, namesOf(targets))
			}
		}
	}
	for _, ref := range doc.groupBy {
		alias, isAlias := doc.aliases[ref.name]
		if !isAlias {
			if g, ok := resolve(ref, ns); ok {
				corr.GroupBy = append(corr.GroupBy, Key{Name: ref.name, Getter: g})
			}
			continue
		}
		key := Key{Name: ref.name, ByRule: map[int]Getter{}}
		for i, t := range targets {
			field, ok := alias[t.Name]
			if !ok {
				c.fail(d, ref.line, ref.col, ref.path, CodeReference, "別名 "+problem.Quote(ref.name)+" にルール "+problem.Quote(t.Name)+" のフィールドがありません",
					"alias "+problem.Quote(ref.name)+" has no field for rule "+problem.Quote(t.Name))
				continue
			}
			if g, ok := resolve(field, c.base(t).names()); ok {
				key.ByRule[corr.Rules[i]] = g
				key.Getter = g
			}
		}
		corr.GroupBy = append(corr.GroupBy, key)
	}
	for _, ref := range doc.fields {
		g, ok := resolve(ref, ns)
		if !ok {
			continue
		}
		switch t := g.Type(); {
		case corr.Type == ValueSum && t != event.Int && t != event.None:
			c.fail(d, ref.line, ref.col, ref.path, CodeType, ref.name+" は数ではないため合計できません", fmt.Sprintf("%s is %v and cannot be summed", ref.name, t))
		case corr.Type == ValueAvg && t != event.Int && t != event.None:
			c.fail(d, ref.line, ref.col, ref.path, CodeType, ref.name+" は数ではないため平均できません", fmt.Sprintf("%s is %v and has no mean", ref.name, t))
		case corr.Type == ValuePercentile && t == event.List:
			c.fail(d, ref.line, ref.col, ref.path, CodeType, ref.name+" はリストのため、順位も割合も決まりません", fmt.Sprintf("%s is a %v and has no rank", ref.name, t))
		}
		corr.Fields = append(corr.Fields, g)
	}
	if c.failed || c.isRefused(d) {
		c.refused[d] = true
		return
	}
	corr.Total = totalName(corr)
	r := c.newRule(d)
	r.Correlation = corr
	parts := []uint64{hashText(string(corr.Type), corr.Timespan.String())}
	for _, h := range c.except[d] {
		at, ok := c.places[h]
		if !ok {
			continue // too large, and told of
		}
		corr.Except = append(corr.Except, at)
		r.Filters = append(r.Filters, h.Title)
		r.filter = append(r.filter, h.doc)
	}
	for _, t := range targets {
		parts = append(parts, t.digest)
	}
	for _, k := range corr.GroupBy {
		if k.ByRule == nil {
			parts = append(parts, hashText(k.Name, k.Field()))
		}
		for _, i := range corr.Rules {
			if g, ok := k.ByRule[i]; ok {
				parts = append(parts, hashText(k.Name, g.Field()))
			}
		}
	}
	for i := range corr.Fields {
		parts = append(parts, hashText(corr.Fields[i].Field()))
	}
	r.digest = mix(parts...)
	c.add(r)
}

func namesOf(rules []*Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Name)
	}
	return out
}

func hashText(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return h.Sum64()
}

// base is the detection rule's document at the bottom of a rule: itself, or
// the first that a correlation refers to.
func (c *compiler) base(r *Rule) *document {
	for r.Correlation != nil && len(r.Correlation.Rules) > 0 {
		if r.doc.taxonomy == "ecs" {
			break
		}
		r = c.rules[r.Correlation.Rules[0]]
	}
	return r.doc
}

// totalName is what a count is called.
func totalName(c *Correlation) string {
	switch c.Type {
	case EventCount:
		return "events"
	case ValueCount, ValueSum, ValueAvg, ValuePercentile:
		name := c.Fields[0].Name
		if c.Type == ValueCount && name == "sekisho.copy.source_ids" {
			return "files" // each id is one
		}
		name = name[strings.LastIndexByte(name, '.')+1:]
		return map[CorrelationType]string{ValueCount: "distinct_", ValueAvg: "mean_", ValuePercentile: "percentile_"}[c.Type] + name
	}
	return ""
}

// silence finds the rules that only feed correlations.
func (c *compiler) silence() {
	heard := map[int]bool{}
	for _, r := range c.rules {
		if r.Correlation == nil {
			continue
		}
		for _, i := range r.Correlation.Rules {
			c.rules[i].Silent = true
			if r.Correlation.Generate {
				heard[i] = true
			}
		}
	}
	for i := range heard {
		c.rules[i].Silent = false
	}
}

// additions resolves what the product adds, thresholds from settings among it.
func (c *compiler) additions() {
	for _, r := range c.rules {
		doc := r.doc.addition
		if doc == nil {
			continue
		}
		c.failed = false
		a := doc.Addition
		a.FirstSeen = c.firstSeen[r.doc]
		ns := c.base(r).names()
		for _, ref := range doc.groupBy {
			if g, ok := c.field(r.doc, ns, ref.name, ref.line, ref.col, ref.path); ok {
				a.GroupBy = append(a.GroupBy, g)
			}
		}
		if !doc.given["group-by"] && r.Correlation != nil {
			for _, k := range r.Correlation.GroupBy {
				k.Getter.Name = k.Name // of an alias, whose values the correlation knows
				a.GroupBy = append(a.GroupBy, k.Getter)
			}
		}
		for _, t := range doc.thresholds {
			c.threshold(r, &a, t)
		}
		if c.failed {
			r.Disabled = true
		}
		r.Addition = &a
	}
}

// threshold ties a threshold to the condition of the correlation that it names,
// and puts the settings' number there.
func (c *compiler) threshold(r *Rule, a *Addition, t thresholdDoc) {
	path := "sekisho.thresholds." + t.key
	d := c.find(t.rule.name)
	if d == nil {
		c.dangling(r.doc, t.rule, nil)
		return
	}
	target := c.byDoc[d]
	if target == nil || target.Correlation == nil || len(target.Correlation.Conditions) != 1 {
		c.fail(r.doc, t.rule.line, t.rule.col, t.rule.path, CodeReference, problem.Quote(t.rule.name)+" は条件が 1 つの correlation ではありません",
			problem.Quote(t.rule.name)+" is no correlation with a single condition")
		return
	}
	cond := target.Correlation.Conditions[0]
	if doc := d.corr.conds[0]; doc.Value != float64(t.def) {
		c.fail(r.doc, t.rule.line, t.rule.col, path+".default", CodeType,
			fmt.Sprintf("default の %d が correlation の条件の %s と違います", t.def, number(doc.Value)),
			fmt.Sprintf("the default of %d differs from the %s in the correlation's condition", t.def, number(doc.Value)))
		return
	}
	if other := c.thresholdOf[target]; other != "" {
		c.fail(r.doc, t.rule.line, t.rule.col, t.rule.path, CodeDouble, problem.Quote(t.rule.name)+" にはすでにしきい値 "+other+" があります",
			problem.Quote(t.rule.name)+" has the threshold "+other+" already")
		return
	}
	c.thresholdOf[target] = a.Rule + "." + t.key
	set := func(setting string, all map[string]map[string]int64) bool {
		v, ok := all[a.Rule][t.key]
		if !ok {
			return false
		}
		setting += "." + a.Rule + "." + t.key
		corr := target.Correlation
		switch {
		case v <= 0:
			c.problem(setting, CodeSetting, "しきい値は 1 以上でなければなりません", "a threshold is at least 1", "")
			return false
		case v > maxExact:
			c.problem(setting, CodeSetting, fmt.Sprintf("しきい値は %d 以下でなければなりません", maxExact), fmt.Sprintf("a threshold is at most %d", maxExact), "")
			return false
		case !possible(corr.Type, len(corr.Rules), []Condition{{cond.Op, float64(v)}}):
			c.problem(setting, CodeSetting, "このしきい値では決して成り立ちません", "with this threshold the rule can never hold", "")
			return false
		}
		cond.Value = float64(v)
		return true
	}
	set("rules.thresholds", c.o.Thresholds)
	target.Correlation.Conditions = []Condition{cond}
	a.Thresholds = append(a.Thresholds, Threshold{Key: t.key, Target: t.rule.name, Default: t.def, Value: int64(cond.Value)})
	for i := range c.o.Scoped {
		if set(scopedPath(i), c.o.Scoped[i].Thresholds) {
			target.Correlation.Scoped = append(target.Correlation.Scoped, Scoped{c.o.Scoped[i].Scope, []Condition{cond}})
		}
	}
}

// scopedPath is where settings have the thresholds of a scope.
func scopedPath(i int) string { return fmt.Sprintf("rules.thresholds_for[%d].thresholds", i) }

// problem tells what is wrong with a setting.
func (c *compiler) problem(path, code, ja, en, hint string) {
	if len(c.problems) >= c.max.problems {
		c.enough()
		return
	}
	c.problems = append(c.problems, Problem{Path: path, Code: code, JA: ja, EN: en, Hint: hint})
}

// settings switches rules off, and tells settings that name what is not there.
func (c *compiler) settings() {
	keysOf := map[string][]string{}
	var ids []string
	for _, r := range c.rules {
		if r.Hidden {
			continue
		}
		ids = append(ids, r.ID)
		if t := r.Table(); t != "" {
			ids = append(ids, t)
			keysOf[t] = append(keysOf[t], []string{}...)
			for _, th := range r.Addition.Thresholds {
				keysOf[t] = append(keysOf[t], th.Key)
			}
		}
	}
	for _, id := range c.o.Disable {
		found := false
		for _, r := range c.rules {
			if !r.Hidden && strings.EqualFold(r.ID, id) || r.Table() != "" && strings.EqualFold(r.Table(), id) {
				r.Disabled, found = true, true
			}
		}
		if !found && !c.o.Lenient {
			c.problem("rules.disable", CodeSetting, problem.Quote(id)+" というルールはありません", "there is no rule "+problem.Quote(id), problem.Suggest(id, ids))
		}
	}
	known := func(setting string, thresholds map[string]map[string]int64) {
		for _, id := range keys(thresholds) {
			own, ok := keysOf[id]
			if !ok {
				if !c.o.Lenient {
					c.problem(setting+"."+id, CodeSetting, problem.Quote(id)+" というルールはありません", "there is no rule "+problem.Quote(id), problem.Suggest(id, keys(keysOf)))
				}
				continue
			}
			for _, k := range keys(thresholds[id]) {
				if !slices.Contains(own, k) {
					c.problem(setting+"."+id+"."+k, CodeSetting, id+" に "+problem.Quote(k)+" というしきい値はありません",
						id+" has no threshold "+problem.Quote(k), problem.Suggest(k, own))
				}
			}
		}
	}
	known("rules.thresholds", c.o.Thresholds)
	for i := range c.o.Scoped {
		known(scopedPath(i), c.o.Scoped[i].Thresholds)
	}
}
