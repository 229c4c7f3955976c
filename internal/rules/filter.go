package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"sekisho/internal/problem"
)

// Filters, and the settings' exceptions, which are filters too, take events out of
// rules. A filter's condition says what remains: it is joined to that of a
// detection rule with "and". A correlation loses the events that the condition
// does not hold for, while the rules that it counts go on as they were: a hidden
// rule (Rule.Hidden) matches these events, and Correlation.Except names it.

// all is every document that a name means: by id or name the one, by table id all
// of the rule.
func (c *compiler) all(name string) (docs []*document, table bool) {
	if d := c.find(name); d != nil {
		return []*document{d}, false
	}
	if !tableID.MatchString(strings.ToUpper(name)) {
		return nil, true
	}
	for _, d := range c.docs {
		if d.addition != nil && d.filter == nil && d.addition.Rule != "" && strings.EqualFold(d.addition.Rule, name) {
			docs = append(docs, d)
		}
	}
	return docs, true
}

// holds reports whether a filter's logsource takes in that of a rule: what it does
// not say may be anything.
func (l *logsource) holds(o *logsource) bool {
	return (l.category == "" || l.category == o.category) && (l.product == "" || l.product == o.product) && (l.service == "" || l.service == o.service)
}

// targets is the rules that a filter names, detection rules and correlations.
func (c *compiler) targets(d *document) []*document {
	var out []*document
	add := func(t *document) {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if d.filter.any {
		for _, t := range c.docs { // every correlation counts some of these
			if t.detection != nil && d.logsource.holds(&t.logsource) {
				add(t)
			}
		}
		return out
	}
	for _, ref := range d.filter.rules {
		docs, table := c.all(ref.name)
		if len(docs) == 0 {
			if c.o.Lenient && (d.setting != "" || uuidForm.MatchString(ref.name)) {
				continue // refused, and told of
			}
			c.dangling(d, ref, c.tableIDs())
			continue
		}
		fits := false
		for _, t := range docs {
			if t.corr != nil || d.logsource.holds(&t.logsource) {
				add(t)
				fits = true
			}
		}
		switch {
		case fits:
		case table:
			c.fail(d, ref.line, ref.col, ref.path, CodeLogsource, "filter の logsource は "+problem.Quote(ref.name)+" のどのルールとも合いません",
				"the filter's logsource takes in no rule of "+problem.Quote(ref.name))
		default:
			c.fail(d, ref.line, ref.col, ref.path, CodeLogsource, "filter の logsource はルール "+problem.Quote(ref.name)+" のものと合いません",
				"the filter's logsource does not take in that of rule "+problem.Quote(ref.name))
		}
	}
	return out
}

func (c *compiler) tableIDs() []string {
	var out []string
	for _, d := range c.docs {
		if d.addition != nil && d.addition.Rule != "" {
			out = append(out, d.addition.Rule)
		}
	}
	return out
}

// filters adds filters and exceptions to the rules that they name.
func (c *compiler) filters() {
	type pair struct{ filter, target *document }
	var later []pair
	for _, d := range append(slices.Clone(c.docs), c.exceptions()...) {
		if d.filter == nil {
			continue
		}
		c.failed = false
		targets := c.targets(d)
		if c.isRefused(d) || c.failed || len(targets) == 0 {
			// Not applied, but told what else is wrong with it.
			switch i := slices.IndexFunc(targets, func(t *document) bool { return t.detection != nil }); {
			case i >= 0:
				c.filter(d, targets[i].names())
			case d.setting != "":
				c.filter(d, names{})
			}
			c.refused[d] = true
			continue
		}
		for _, t := range targets {
			if t.corr != nil {
				later = append(later, pair{d, t})
				continue
			}
			r := c.byDoc[t]
			if r == nil {
				continue // refused, and told of
			}
			n := c.filter(d, t.names())
			if c.failed {
				c.refused[d] = true
				break // the same mistake for every rule it names
			}
			r.node = both(r.node, n)
			r.Filters = append(r.Filters, d.title)
			r.filter = append(r.filter, d)
		}
	}
	// What a correlation counts is known once all filters of detection rules are.
	made := map[string]*Rule{}
	for _, p := range later {
		if c.refused[p.filter] || c.isRefused(p.target) {
			continue
		}
		c.failed = false
		if h := c.hidden(p.filter, p.target, made); h != nil {
			c.except[p.target] = append(c.except[p.target], h)
		}
		if c.failed {
			c.refused[p.filter] = true
		}
	}
}

// hidden is the rule that matches what a filter takes out of a correlation. It
// shares those of made, which correlations over the same rules have.
func (c *compiler) hidden(d, target *document, made map[string]*Rule) *Rule {
	bases := c.bases(target, nil)
	key := fmt.Sprintf("%p", d)
	for _, b := range bases {
		key += fmt.Sprintf(" %p", b)
	}
	if r := made[key]; r != nil || len(bases) == 0 {
		return r
	}
	var where node
	if l := &d.logsource; l.category != "" || l.product != "" || l.service != "" {
		where = c.logsource(d)
	}
	var any []node
	parts := []string{"filter", d.id, d.title}
	for _, b := range bases {
		any = append(any, both(c.byDoc[b].node, notNode{c.filter(d, b.names())}))
		parts = append(parts, c.byDoc[b].ID)
		if c.failed {
			return nil // the same mistake for every rule
		}
	}
	r := &Rule{ID: uuidOf(parts...), Title: d.title, Level: Levels[0], Summary: d.summary, File: d.file.Name, Line: d.line, Builtin: d.builtin,
		Silent: true, Hidden: true, doc: d, node: both(where, either(any...))}
	made[key] = r
	for _, b := range bases {
		c.weights[r] += c.weights[c.byDoc[b]]
	}
	c.add(r)
	return r
}

// bases is the detection rules' documents below a correlation, each once.
func (c *compiler) bases(d *document, above []*document) []*document {
	if d.detection != nil {
		if c.byDoc[d] == nil {
			return nil
		}
		return []*document{d}
	}
	if d.corr == nil || slices.Contains(above, d) {
		return nil // a circle, which is told elsewhere
	}
	var out []*document
	for _, ref := range d.corr.rules {
		if t := c.find(ref.name); t != nil {
			for _, b := range c.bases(t, append(above, d)) {
				if !slices.Contains(out, b) {
					out = append(out, b)
				}
			}
		}
	}
	return out
}

// filter is a filter's condition, for a rule whose names are ns.
func (c *compiler) filter(d *document, ns names) node {
	if d.setting != "" {
		ns = names{ecs: true} // settings speak of an event's fields
	}
	key := filterKey{d, ns}
	if n := c.filterNodes[key]; n != nil {
		return n
	}
	n := c.detection(d, d.filter.detection, ns)
	if !d.filter.until.IsZero() {
		n = either(n, notNode{&beforeNode{c.use(tableField("@timestamp")), d.filter.until}})
	}
	c.filterNodes[key] = n
	return n
}

// exceptions is the settings' exceptions as filters. Their problems have the path
// of the setting in the place of a file.
func (c *compiler) exceptions() []*document {
	var out []*document
	for i, e := range c.o.Exceptions {
		path := fmt.Sprintf("rules.exceptions[%d]", i)
		d := &document{file: &File{}, setting: path, title: path, taxonomy: "ecs"}
		f := &filterDoc{}
		d.filter = f
		c.failed = false
		for _, name := range e.Rules {
			f.rules = append(f.rules, ref{name: name, path: path + ".rules"})
			f.any = f.any || strings.EqualFold(name, "any")
		}
		if len(e.Rules) == 0 {
			c.fail(d, 0, 0, path+".rules", CodeSetting, "ルールが書かれていません", "no rule is named")
		}
		sel := &selection{name: "exception"}
		var all alternative
		for _, field := range keys(e.When) {
			it := &item{field: field, path: path + ".when." + field}
			for _, v := range e.When[field] {
				it.values = append(it.values, scalar{text: v})
			}
			if len(it.values) == 0 {
				c.fail(d, 0, 0, it.path, CodeSetting, "値が書かれていません", "there is no value")
			}
			if field == "" {
				c.fail(d, 0, 0, it.path, CodeSetting, "フィールドの名前がありません", "there is no name of a field")
			}
			all.items = append(all.items, it)
		}
		if len(e.When) == 0 {
			c.fail(d, 0, 0, path+".when", CodeSetting, "条件がないと、すべてのイベントが除かれます", "without a condition it would take out every event")
		}
		sel.alts = []alternative{all}
		f.detection = &detection{path: path + ".when", selections: []*selection{sel}, conditions: []condText{{text: "not exception", expr: notExpr{selExpr{sel}}}}}
		if e.Expires != "" {
			last, err := time.ParseInLocation(time.DateOnly, e.Expires, c.o.zone())
			if err != nil {
				c.fail(d, 0, 0, path+".expires", CodeSetting, problem.Quote(e.Expires)+" は日付ではありません（例 2027-03-31）", problem.Quote(e.Expires)+" is not a day such as 2027-03-31")
			}
			f.until = last.AddDate(0, 0, 1)
		}
		if c.failed {
			c.refused[d] = true
		}
		out = append(out, d)
	}
	return out
}

// uuidOf is a UUID of version 8, as alerts have, made of texts.
func uuidOf(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80
	s := hex.EncodeToString(h[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
