package rules

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// Info is a rule as "rules list" tells it. JSON keys are stable.
type Info struct {
	ID         string           `json:"id"`
	Rule       string           `json:"rule,omitempty"` // id of the incident table
	Name       string           `json:"name,omitempty"`
	Title      string           `json:"title"`
	TitleJA    string           `json:"title_ja,omitempty"` // of the alert
	TitleEN    string           `json:"title_en,omitempty"`
	Kind       string           `json:"kind"` // detection, or the type of the correlation
	Level      string           `json:"level"`
	Status     string           `json:"status,omitempty"`
	Version    string           `json:"version,omitempty"`
	File       string           `json:"file"`
	Line       int              `json:"line"`
	Builtin    bool             `json:"builtin"`
	Enabled    bool             `json:"enabled"`
	WaitsFor   []string         `json:"waits_for,omitempty"` // settings without which it does nothing
	Alerts     bool             `json:"alerts"`              // false: it only feeds correlations
	Incidents  []string         `json:"incidents,omitempty"`
	Thresholds map[string]int64 `json:"thresholds,omitempty"` // as set
	Filters    []string         `json:"filters,omitempty"`
}

// List tells every rule of the program, in its order.
func (p *Program) List() []Info {
	out := make([]Info, 0, len(p.Rules))
	for _, r := range p.Rules {
		if r.Hidden {
			continue
		}
		i := Info{ID: r.ID, Rule: r.Table(), Name: r.Name, Title: r.Title, Kind: "detection", Level: r.Level, Status: r.Status,
			Version: r.Version, File: r.File, Line: r.Line, Builtin: r.Builtin, Enabled: !r.Disabled, Alerts: !r.Silent, Filters: r.Filters}
		if r.Correlation != nil {
			i.Kind = string(r.Correlation.Type)
		}
		for _, name := range r.Waits {
			i.WaitsFor = append(i.WaitsFor, "rules.placeholders."+name)
		}
		if a := r.Addition; a != nil {
			i.Incidents, i.TitleJA, i.TitleEN = a.Incidents, a.Title.JA, a.Title.EN
			for _, t := range a.Thresholds {
				if i.Thresholds == nil {
					i.Thresholds = map[string]int64{}
				}
				i.Thresholds[t.Key] = t.Value
			}
		}
		out = append(out, i)
	}
	return out
}

// ErrNoRule says that no rule has the id that was asked for.
var ErrNoRule = errors.New("no such rule")

// Explain writes what a rule (by table id, Sigma id or name) says in plain
// words, with its thresholds as set and its incidents. lang is "ja", else
// English. The error wraps ErrNoRule, or is the writer's.
func (p *Program) Explain(w io.Writer, id, lang string) error {
	found := p.Find(id)
	if len(found) == 0 {
		var known []string
		for _, r := range p.Rules {
			known = append(known, r.Table(), r.ID, r.Name)
		}
		if hint := problem.Suggest(id, known); hint != "" {
			return fmt.Errorf("%w: %s (did you mean %q?)", ErrNoRule, problem.Quote(id), hint)
		}
		return fmt.Errorf("%w: %s", ErrNoRule, problem.Quote(id))
	}
	x := &explainer{p: p, lang: lang}
	x.rule(found)
	_, err := io.WriteString(w, x.b.String())
	return err
}

type explainer struct {
	p    *Program
	lang string
	b    strings.Builder
}

func (x *explainer) say(ja, en string) string {
	if x.lang == "ja" {
		return ja
	}
	return en
}

func (x *explainer) line(depth int, format string, args ...any) {
	x.b.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(&x.b, format, args...)
	x.b.WriteByte('\n')
}

// rule tells the documents of one rule together.
func (x *explainer) rule(docs []*Rule) {
	r := docs[0]
	head := r.Title
	if t := r.Table(); t != "" {
		head = t + "  " + head
	}
	x.line(0, "%s", problem.Printable(head))
	x.line(1, "%s: %s", x.say("番号", "id"), r.ID)
	ja := x.lang == "ja" && r.Addition != nil && r.Addition.Title.JA != "" // then the title says it, and in Japanese
	if s := strings.Join(strings.Fields(r.Summary), " "); s != "" && !ja {
		x.line(1, "%s: %s", x.say("説明", "about"), problem.Printable(s))
	}
	if a := r.Addition; a != nil {
		if t := a.Title.In(x.lang); t != "" {
			x.line(1, "%s: %s", x.say("知らせること", "tells"), problem.Printable(t))
		}
		if t := a.Advice.In(x.lang); t != "" {
			x.line(1, "%s: %s", x.say("すること", "to do"), problem.Printable(t))
		}
		if len(a.Incidents) > 0 {
			x.line(1, "%s: %s", x.say("もとになった事案", "incidents"), strings.Join(a.Incidents, ", "))
		}
		var by []string
		for i := range a.GroupBy {
			by = append(by, a.GroupBy[i].Name)
		}
		if len(by) == 0 {
			by = []string{"host"}
		}
		x.line(1, x.say("繰り返し: %s が同じなら、%sの間は 1 つのアラートにまとめる", "repeats: with the same %s they join one alert for %s"), strings.Join(by, ", "), x.span(a.RepeatAfter))
	}
	told := map[*Rule]bool{}
	for _, d := range docs {
		state := ""
		switch {
		case len(d.Waits) > 0:
			list := "rules.placeholders." + strings.Join(d.Waits, ", rules.placeholders.")
			state = x.say("（設定 "+list+" を書くと働く）", " (waits for the settings "+list+")")
		case d.Disabled:
			state = x.say("（設定で無効）", " (switched off in the settings)")
		case d.Silent:
			state = x.say("（単独ではアラートを上げない）", " (raises no alert of its own)")
		}
		x.b.WriteByte('\n')
		x.line(1, "%s [%s]%s", problem.Printable(d.Title), d.Level, state)
		x.one(d, 2, told)
	}
}

func (x *explainer) one(r *Rule, depth int, told map[*Rule]bool) {
	if told[r] {
		x.line(depth, "%s", x.say("（上と同じ）", "(as above)"))
		return
	}
	told[r] = true
	if c := r.Correlation; c != nil {
		x.correlation(r, depth, told)
		return
	}
	x.logsource(r, depth)
	x.detection(r.doc.detection, depth)
	if r.Addition != nil && r.Addition.FirstSeen != nil {
		x.firstSeen(r.Addition.FirstSeen, depth)
	}
	x.filters(r, depth)
}

// filters tells the filters and exceptions that apply to a rule.
func (x *explainer) filters(r *Rule, depth int) {
	for _, f := range r.filter {
		ja, en := "filter "+problem.Quote(f.title)+"（次の条件も要る）", "filter "+problem.Quote(f.title)+" (what has to hold too)"
		if f.setting != "" {
			ja, en = "例外（設定 "+f.setting+"）", "exception (setting "+f.setting+")"
		}
		if r.Correlation != nil {
			ja, en = ja+"。当てはまらないイベントは数えない", en+": events that do not fit are not counted"
		}
		if !f.filter.until.IsZero() {
			last := f.filter.until.AddDate(0, 0, -1).Format(time.DateOnly)
			ja, en = ja+"。"+last+" まで", en+"; until "+last
		}
		x.line(depth, "%s:", problem.Printable(x.say(ja, en)))
		x.detection(f.filter.detection, depth+1)
	}
}

func (x *explainer) firstSeen(f *FirstSeen, depth int) {
	var keys []string
	for i := range f.Keys {
		keys = append(keys, f.Keys[i].Name)
	}
	what := strings.Join(keys, x.say(" と ", " and "))
	x.line(depth, x.say("- %s の組が、過去 %s に一度もなかった（first-seen）", "- first-seen: this %s did not match in the past %s"), what, x.span(f.Within))
	if f.Learn > 0 {
		x.line(depth+1, x.say("このルールが PC で動き始めてから %s は覚えるだけ", "it only learns for %s after the rule was first in force on a PC"), x.span(f.Learn))
	}
}

func (x *explainer) logsource(r *Rule, depth int) {
	l := r.doc.logsource
	if a, ok := categories[l.category]; ok {
		var names []string
		for _, s := range a {
			names = append(names, string(s))
		}
		x.line(depth, "- event.action %s %s", x.say("が", "is"), strings.Join(names, x.say(" または ", " or ")))
	}
	if os := products[l.product]; os != "" {
		x.line(depth, "- host.os.type %s %s", x.say("が", "is"), os)
	}
}

var opWords = map[string][2]string{
	"gt": {"より多い", "more than"}, "gte": {"以上", "at least"}, "lt": {"未満", "less than"}, "lte": {"以下", "at most"},
	"eq": {"ちょうど", "exactly"}, "neq": {"以外", "other than"},
}

func (x *explainer) correlation(r *Rule, depth int, told map[*Rule]bool) {
	c := r.Correlation
	var by []string
	for _, k := range c.GroupBy {
		by = append(by, k.Name)
	}
	per := ""
	if len(by) > 0 {
		per = x.say(strings.Join(by, "、")+" ごとに、", "for each "+strings.Join(by, ", ")+", ")
	}
	var what string
	field := ""
	if len(c.Fields) > 0 {
		field = c.Fields[0].Name
	}
	switch c.Type {
	case EventCount:
		what = x.say("イベントの数が", "the number of events")
	case ValueCount:
		what = x.say(field+" の異なる値の数が", "the number of different values of "+field)
	case ValueSum:
		what = x.say(field+" の合計が", "the sum of "+field)
	case ValueAvg:
		what = x.say(field+" の平均が", "the mean of "+field)
	case ValuePercentile:
		rank := x.say(field+" の百分位（% のイベントがそれより小さいか）が", "the percentile of "+field+" (how many % of the events have less)")
		share := x.say(field+" が同じイベントの割合 (%) が", "the share in % of the events with the same "+field)
		switch c.Fields[0].Type() {
		case event.Int:
			what = rank
		case event.None:
			what = x.say("数なら "+rank+"、そうでなければ "+share, "for numbers "+rank+", else "+share)
		default:
			what = share
		}
	case Temporal:
		what = x.say("次のすべてが起きる（順序は問わない）", "all of these happen, in any order")
		if len(c.Conditions) > 0 {
			what = x.say("次のうち起きたものの数が", "the number of these that happen")
		}
	case TemporalOrdered:
		what = x.say("次のすべてがこの順に起きる", "all of these happen, in this order")
		if len(c.Conditions) > 0 {
			what = x.say("次のうち、初めからこの順に起きたものの数が", "the number of these that happen in this order, from the first on,")
		}
	}
	x.line(depth, "- %s%s%s%s", per, x.say(x.span(c.Timespan)+"のうちに、", "within "+x.span(c.Timespan)+" "), what, x.conditions(c.Conditions))
	for _, o := range x.p.Rules {
		if o.Addition == nil {
			continue
		}
		for _, t := range o.Addition.Thresholds {
			if t.Target == r.Name && r.Name != "" {
				x.thresholds(r, o.Addition.Rule, &t, depth+1)
			}
		}
	}
	x.filters(r, depth)
	for _, i := range c.Rules {
		o := x.p.Rules[i]
		x.line(depth, "%s", x.say("数えるもの: ", "of: ")+problem.Printable(o.Title))
		x.one(o, depth+1, told)
	}
}

// thresholds tells the number in force, and for whom another is.
func (x *explainer) thresholds(r *Rule, table string, t *Threshold, depth int) {
	x.line(depth, x.say("しきい値: 設定 rules.thresholds.%s.%s（既定 %d、現在 %d）", "threshold: setting rules.thresholds.%s.%s (default %d, now %d)"), table, t.Key, t.Default, t.Value)
	for _, s := range r.Correlation.Scoped {
		var who []string
		for _, w := range []struct{ value, ja, en string }{{s.Department, "部署", "department"}, {s.Tag, "PC の区分", "tag"}, {s.List, "人の区分", "list"}} {
			if w.value != "" {
				who = append(who, x.say(w.ja, w.en)+" "+problem.Quote(w.value))
			}
		}
		if len(who) == 0 {
			who = []string{x.say("全員", "everybody")}
		}
		x.line(depth+1, "%s: %s", strings.Join(who, x.say("、", ", ")), number(s.Conditions[0].Value))
	}
}

// conditions is what a number has to fulfil, "" where there is nothing.
func (x *explainer) conditions(list []Condition) string {
	var out []string
	for _, c := range list {
		n := number(c.Value)
		out = append(out, x.say(" "+n+" "+opWords[c.Op][0], " is "+opWords[c.Op][1]+" "+n))
	}
	return strings.Join(out, x.say(" かつ", " and"))
}

// number is the number of a condition as text.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (x *explainer) span(d time.Duration) string {
	s := days(d)
	n, unit := s[:len(s)-1], s[len(s)-1]
	ja := map[byte]string{'s': "秒", 'm': "分", 'h': "時間", 'd': "日"}[unit]
	en := map[byte]string{'s': "second", 'm': "minute", 'h': "hour", 'd': "day"}[unit]
	if n != "1" {
		en += "s"
	}
	return x.say(n+ja, n+" "+en)
}

func (x *explainer) detection(d *detection, depth int) {
	if len(d.conditions) > 1 {
		x.line(depth, "%s", x.say("- 次のどれか:", "- any of these:"))
		depth++
	}
	for _, c := range d.conditions {
		for _, k := range x.checks(c.expr, nil) {
			x.check(k, depth)
		}
	}
}

// Check is one condition in words, and whether an event fulfilled it.
type Check struct {
	Text     string  `json:"text"`
	Asked    bool    `json:"-"` // an event was asked: OK and Actual mean something
	OK       bool    `json:"ok"`
	Actual   string  `json:"actual,omitempty"` // the field's value in the event; empty where it is absent or nothing was asked
	Children []Check `json:"checks,omitempty"`
}

func (x *explainer) check(k Check, depth int) {
	mark, actual := "-", ""
	if k.Asked {
		mark = map[bool]string{true: "o", false: "x"}[k.OK]
		if k.Actual != "" {
			actual = "   <- " + k.Actual
		}
	}
	x.line(depth, "%s %s%s", mark, k.Text, actual)
	for _, c := range k.Children {
		x.check(c, depth+1)
	}
}

// asker asks an event; nil where there is none.
type asker struct {
	e  *event.Event
	d  *document
	ns names
	o  Options
}

// checks puts a condition in words.
func (x *explainer) checks(e expr, ask *asker) []Check {
	group := func(ja, en string, parts []expr, all bool) []Check {
		k := Check{Text: x.say(ja, en), Asked: ask != nil, OK: all}
		for _, part := range parts {
			for _, c := range x.checks(part, ask) {
				k.Children = append(k.Children, c)
				if c.OK != all {
					k.OK = !all
				}
			}
		}
		return []Check{k}
	}
	switch e := e.(type) {
	case andExpr:
		return group("次のすべて:", "all of these:", e, true)
	case orExpr:
		return group("次のどれか:", "any of these:", e, false)
	case notExpr:
		inner := x.checks(e.x, ask)
		k := Check{Text: x.say("次に当てはまらない:", "not:"), Children: inner, Asked: ask != nil}
		if len(inner) > 0 {
			k.OK = !inner[0].OK
		}
		return []Check{k}
	case selExpr:
		return []Check{x.selection(e.sel, ask)}
	}
	return nil
}

func (x *explainer) selection(s *selection, ask *asker) Check {
	var alts []Check
	for i := range s.alts {
		a := &s.alts[i]
		if a.keyword != nil {
			k := Check{Text: x.say("どこかの項目に "+problem.Quote(a.keyword.text)+" を含む", "some field contains "+problem.Quote(a.keyword.text)), Asked: ask != nil}
			if ask != nil {
				k.OK, _ = ask.item(nil, a.keyword)
			}
			alts = append(alts, k)
			continue
		}
		all := Check{Text: x.say("次のすべて:", "all of these:"), OK: true, Asked: ask != nil}
		for _, it := range a.items {
			k := Check{Text: x.item(it), Asked: ask != nil}
			if ask != nil {
				k.OK, k.Actual = ask.item(it, nil)
			}
			all.OK = all.OK && k.OK
			all.Children = append(all.Children, k)
		}
		if len(all.Children) == 1 {
			all = all.Children[0]
		}
		alts = append(alts, all)
	}
	if len(alts) == 1 {
		k := alts[0]
		if len(k.Children) > 0 {
			k.Text = s.name + ": " + k.Text
		}
		return k
	}
	k := Check{Text: s.name + ": " + x.say("次のどれか:", "any of these:"), Children: alts, Asked: ask != nil}
	for _, c := range alts {
		k.OK = k.OK || c.OK
	}
	return k
}

// item asks the event about one line of a selection or one keyword.
func (a *asker) item(it *item, keyword *scalar) (ok bool, actual string) {
	c := newCompiler(a.o)
	var n node
	if keyword != nil {
		n = c.keyword(a.d, keyword, "")
	} else {
		n = c.item(a.d, it, a.ns)
	}
	s := newPool(c.getters).Get().(*scratch)
	s.begin(a.e)
	ok = n.match(s)
	if it != nil {
		if g, known := a.ns.find(it.field); known {
			if v, present := g.Value(a.e); present {
				actual = problem.Quote(v.String())
			}
		}
	}
	return ok, actual
}

var partWords = map[string]string{"minute": "分", "hour": "時", "day": "日", "week": "週（ISO 8601）", "month": "月", "year": "年"}

// item puts one line of a selection in words.
func (x *explainer) item(it *item) string {
	has := func(m string) bool { return slices.Contains(it.mods, m) }
	var values []string
	for _, v := range it.values {
		texts := []string{v.text}
		if has("expand") {
			if texts, _ = expandText(v.text, x.p.options.Placeholders, maxExpanded); texts == nil {
				texts = []string{v.text} // the rule waits for them
			}
		}
		for _, text := range texts {
			if v.kind == nullScalar {
				values = append(values, x.say("（なし）", "(absent)"))
			} else {
				values = append(values, problem.Quote(text))
			}
		}
	}
	const shown = 12
	more := ""
	if n := len(values) - shown; n > 0 {
		values = values[:shown]
		more = x.say(fmt.Sprintf(" ほか %d 個", n), fmt.Sprintf(" or %d more", n))
	}
	list := strings.Join(values, x.say(" または ", " or ")) + more
	if has("all") {
		list = strings.Join(values, x.say(" と ", " and ")) + more
	}
	field := problem.Printable(it.field)
	for _, m := range it.mods {
		if ja, ok := partWords[m]; ok {
			field = x.say(field+" の"+ja, "the "+m+" of "+field)
		}
	}
	if has("fieldref") {
		list = x.say("項目 ", "field ") + list
	}
	var extra []string
	for _, m := range it.mods {
		switch m {
		case "cased", "windash", "base64", "base64offset", "wide", "utf16", "utf16le", "utf16be", "i", "m", "s":
			extra = append(extra, m)
		}
	}
	if len(extra) > 0 {
		list += " (" + strings.Join(extra, ", ") + ")"
	}
	form := [2]string{"%s が %s", "%s is %s"}
	switch {
	case field == "":
		return x.say("どこかの項目に含む: "+list, "some field contains "+list)
	case has("exists"):
		if len(it.values) == 1 && it.values[0].text == "true" {
			return x.say(field+" がある", field+" is present")
		}
		return x.say(field+" がない", field+" is absent")
	case has("contains"):
		form = [2]string{"%s が %s を含む", "%s contains %s"}
	case has("startswith"):
		form = [2]string{"%s が %s で始まる", "%s starts with %s"}
	case has("endswith"):
		form = [2]string{"%s が %s で終わる", "%s ends with %s"}
	case has("re"):
		form = [2]string{"%s が正規表現 %s に合う", "%s matches the regular expression %s"}
	case has("cidr"):
		form = [2]string{"%s がネットワーク %s にある", "%s lies in the network %s"}
	case has("gt"):
		form = [2]string{"%s が %s より大きい", "%s is greater than %s"}
	case has("gte"):
		form = [2]string{"%s が %s 以上", "%s is at least %s"}
	case has("lt"):
		form = [2]string{"%s が %s より小さい", "%s is less than %s"}
	case has("lte"):
		form = [2]string{"%s が %s 以下", "%s is at most %s"}
	case has("neq"):
		form = [2]string{"%s が %s でない", "%s is not %s"}
	}
	return fmt.Sprintf(x.say(form[0], form[1]), field, list)
}

// Verdict is why a rule did or did not match an event.
type Verdict struct {
	ID      string   `json:"id"`
	Rule    string   `json:"rule,omitempty"`
	Title   string   `json:"title"`
	Matched bool     `json:"matched"`
	Checks  []Check  `json:"checks"`
	Feeds   []string `json:"feeds,omitempty"` // titles of the correlations that count it
	// LeftOut is the titles of those that do not for a filter, which is named in
	// parentheses.
	LeftOut []string `json:"left_out,omitempty"`
}

// ExplainEvent tells for each detection rule (of id, or all of them that are
// about the event's action if id is "") why it did or did not match. Windows of
// correlations need more than one event; Feeds names the correlations that
// count a match. The error wraps ErrNoRule.
func (p *Program) ExplainEvent(e *event.Event, id, lang string) ([]Verdict, error) {
	list := slices.DeleteFunc(p.about(e), func(r *Rule) bool { return r.Hidden })
	if id != "" {
		list = nil
		var add func(r *Rule)
		add = func(r *Rule) {
			if r.Correlation == nil {
				if !slices.Contains(list, r) {
					list = append(list, r)
				}
				return
			}
			for _, i := range r.Correlation.Rules {
				add(p.Rules[i])
			}
		}
		for _, r := range p.Find(id) {
			add(r)
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("%w: %s", ErrNoRule, problem.Quote(id))
		}
	}
	s := p.pool.Get().(*scratch)
	defer p.pool.Put(s)
	s.begin(e)
	defer s.end()
	x := &explainer{p: p, lang: lang}
	var out []Verdict
	for _, r := range list {
		v := Verdict{ID: r.ID, Rule: r.Table(), Title: r.Title, Matched: r.node.match(s)}
		ask := &asker{e: e, d: r.doc, ns: r.doc.names(), o: p.options}
		if c := categories[r.doc.logsource.category]; c != nil {
			v.Checks = append(v.Checks, Check{Text: "logsource.category " + r.doc.logsource.category, Asked: true, OK: slices.Contains(c, event.Action(fold(string(e.Action)))), Actual: problem.Quote(string(e.Action))})
		}
		if os := products[r.doc.logsource.product]; os != "" {
			k := Check{Text: "logsource.product " + r.doc.logsource.product, Asked: true}
			if o, ok := e.Lookup(osID); ok {
				k.OK, k.Actual = strings.EqualFold(o.Str(), os), problem.Quote(o.Str())
			}
			v.Checks = append(v.Checks, k)
		}
		for _, c := range r.doc.detection.conditions {
			v.Checks = append(v.Checks, x.checks(c.expr, ask)...)
		}
		for _, f := range r.filter {
			if !f.filter.until.IsZero() && !e.Time.Before(f.filter.until) {
				continue // expired
			}
			ask := *ask
			if f.setting != "" {
				ask.ns = names{ecs: true}
			}
			for _, c := range f.filter.detection.conditions {
				v.Checks = append(v.Checks, x.checks(c.expr, &ask)...)
			}
		}
		for _, o := range p.Rules {
			if o.Correlation == nil || !slices.Contains(o.Correlation.Rules, r.Index) {
				continue
			}
			if i := slices.IndexFunc(o.Correlation.Except, func(i int) bool { return p.Rules[i].node.match(s) }); i >= 0 {
				v.LeftOut = append(v.LeftOut, o.Title+" ("+p.Rules[o.Correlation.Except[i]].Title+")")
			} else {
				v.Feeds = append(v.Feeds, o.Title)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

// WriteVerdicts writes verdicts for a person: the rules that matched first.
func WriteVerdicts(w io.Writer, list []Verdict, lang string) error {
	x := &explainer{lang: lang}
	ordered := slices.Clone(list)
	slices.SortStableFunc(ordered, func(a, b Verdict) int {
		switch {
		case a.Matched == b.Matched:
			return 0
		case a.Matched:
			return -1
		}
		return 1
	})
	for _, v := range ordered {
		word := x.say("当てはまらない", "no match")
		if v.Matched {
			word = x.say("当てはまる", "match")
		}
		head := problem.Printable(v.Title)
		if v.Rule != "" {
			head = v.Rule + "  " + head
		}
		x.line(0, "%s: %s (%s)", word, head, v.ID)
		for _, k := range v.Checks {
			x.check(k, 1)
		}
		for _, f := range v.Feeds {
			x.line(1, "%s: %s", x.say("これを数えるルール", "counted by"), problem.Printable(f))
		}
		for _, f := range v.LeftOut {
			x.line(1, "%s: %s", x.say("filter により数えないルール", "left out by a filter of"), problem.Printable(f))
		}
	}
	if len(list) == 0 {
		x.line(0, "%s", x.say("この event.action についてのルールはありません", "no rule is about this event.action"))
	}
	_, err := io.WriteString(w, x.b.String())
	return err
}
