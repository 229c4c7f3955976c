package correlate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// Documents and events made of bytes, and a plain reading of the specification of
// both (and of what docs/rules.md decides where it is silent): every rule is asked
// of every event, every window is counted from scratch. It shares nothing with the
// engine, neither the parser nor the names of fields.

// paper is the documents of a made-up site, with its settings.
type paper struct {
	detections   []*detectionDoc
	correlations []*correlationDoc
	filters      []*filterDoc
	thresholds   []thresholdSetting
	order        []int // in which the documents stand in the file
}

type detectionDoc struct {
	name, table        string
	action, os         string // by logsource; "": any
	logsource          string
	what               detectionBody
	filters            []*filterDoc
	referred, generate bool
}

// detectionBody is the selections s and t and a condition over them.
type detectionBody struct {
	s, t      []fieldTest // each has to hold
	condition string
}

type fieldTest struct {
	field, op string // op: "", contains, startswith, gte, exists, null
	values    []string
}

type correlationDoc struct {
	name, table        string
	typ                rules.CorrelationType
	rules              []string
	groupBy            []string
	aliases            map[string]map[string]string // name, rule, field
	span               time.Duration
	fields             []string
	bounds             []bound // none: all rules
	generates          bool
	filters            []*filterDoc
	referred, generate bool
}

type bound struct {
	op    string
	value float64
}

// filterDoc is a filter document, or an exception of the settings.
type filterDoc struct {
	rules     []string // as written
	action    string
	os        string
	logsource string
	what      detectionBody
	exception bool
	when      map[string][]string
	expires   string
}

// thresholdSetting replaces the bound of a correlation, for a list of people or all.
type thresholdSetting struct {
	table string
	list  string // "": rules.thresholds
	value int64
}

// page makes papers and events from bytes.
type page struct{ data []byte }

func (p *page) pick(n int) int {
	if len(p.data) == 0 {
		return 0
	}
	c := p.data[0]
	p.data = p.data[1:]
	return int(c) % n
}

func (p *page) of(list ...string) string { return list[p.pick(len(list))] }

// some is a few of a list, at least one, in an order of their own.
func (p *page) some(list []string, most int) (out []string) {
	for range 1 + p.pick(most) {
		if s := list[p.pick(len(list))]; !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

var (
	textFields = []string{"user.name", "file.owner", "file.name", "file.extension"}
	textValues = []string{"u", "v", "U", "uv", "", "ü"}
	logsources = []struct{ text, action, os string }{
		{"product: sekisho", "", ""}, {"product: sekisho", "", ""}, {"category: process_creation", "process-started", ""},
		{"category: file_change, product: linux", "file-written", "linux"}, {"product: linux", "", "linux"}, {"category: file_change", "file-written", ""},
	}
)

func (p *page) test() fieldTest {
	f := fieldTest{field: p.of(textFields...)}
	switch p.pick(8) {
	case 0:
		f.op = "null"
	case 1:
		f.op, f.values = "exists", []string{p.of("true", "false")}
	case 2:
		f.field, f.op, f.values = "sekisho.copy.files", "gte", []string{p.of("0", "3", "-1")}
	case 3:
		f.op, f.values = "contains", p.some(textValues[:4], 2)
	case 4:
		f.op, f.values = "startswith", p.some(textValues[:4], 2)
	case 5:
		f.field, f.values = "event.action", p.some([]string{"file-copied", "file-written", "process-started"}, 2)
	default:
		f.values = p.some(textValues, 3)
	}
	return f
}

func (p *page) body() (b detectionBody) {
	b.s = append(b.s, p.test())
	if p.pick(3) == 0 {
		if t := p.test(); t.field != b.s[0].field {
			b.s = append(b.s, t)
		}
	}
	b.condition = p.of("s", "s", "not s", "s and not t", "s or t", "not (s and t)", "1 of them")
	if strings.Contains(b.condition, "t") && b.condition != "not s" {
		b.t = append(b.t, p.test())
	}
	return b
}

func (p *page) paper() *paper {
	out := &paper{}
	var names, targets []string
	for i := range 2 + p.pick(3) {
		l := logsources[p.pick(len(logsources))]
		d := &detectionDoc{name: fmt.Sprint("d", i), table: p.of("", "DET-1", "DET-2"), action: l.action, os: l.os, logsource: l.text, what: p.body()}
		if p.pick(2) == 0 { // one of which much comes, or little would be told
			d.action, d.os, d.logsource = "", "", logsources[0].text
			d.what = detectionBody{s: []fieldTest{{field: "file.extension", values: []string{"abc"[i%3 : i%3+1]}}}, condition: "s"}
		}
		out.detections = append(out.detections, d)
		names, targets = append(names, d.name), append(targets, d.name)
		if d.table != "" {
			targets = append(targets, d.table)
		}
	}
	for i := range 1 + p.pick(4) {
		c := &correlationDoc{name: fmt.Sprint("c", i), span: time.Duration(1+p.pick(40)) * time.Second, generates: p.pick(4) == 0}
		c.rules = p.some(names, 4)
		if i > 0 && p.pick(2) == 0 { // of a chain more is told
			c.rules = append(c.rules, fmt.Sprint("c", i-1))
			slices.Sort(c.rules)
			c.rules = slices.Compact(c.rules)
		}
		p.condition(c)
		for range p.pick(3) {
			switch g := p.pick(6); {
			case g == 5:
				if c.aliases == nil {
					c.aliases = map[string]map[string]string{"who": {}}
					for _, r := range c.rules {
						c.aliases["who"][r] = p.of(textFields[:2]...)
					}
					c.groupBy = append(c.groupBy, "who")
				}
			default:
				if f := []string{"user.name", "file.owner", "host.name", "sekisho.copy.files", "user.name"}[g]; !slices.Contains(c.groupBy, f) {
					c.groupBy = append(c.groupBy, f)
				}
			}
		}
		if p.pick(2) == 0 {
			c.table = fmt.Sprint("COR-", i)
			targets = append(targets, c.table)
			if len(c.bounds) == 1 && c.bounds[0].op == "gte" {
				for range p.pick(3) {
					out.thresholds = append(out.thresholds, thresholdSetting{c.table, p.of("", "leaver", "temp"), int64(1 + p.pick(5))})
				}
			}
		}
		out.correlations = append(out.correlations, c)
		names, targets = append(names, c.name), append(targets, c.name)
	}
	for range p.pick(4) {
		l := logsources[p.pick(len(logsources))]
		f := &filterDoc{rules: p.some(targets, 2), action: l.action, os: l.os, logsource: l.text, what: p.body()}
		if p.pick(6) == 0 {
			f.rules = []string{"any"}
		}
		if p.pick(3) == 0 {
			f.exception, f.action, f.os, f.when = true, "", "", map[string][]string{p.of(textFields...): p.some([]string{"u", "v*", "?v", "U"}, 2)}
			f.logsource = ""
			f.expires = p.of("", "", "2026-01-05", "2026-01-04")
		}
		out.filters = append(out.filters, f)
	}
	for i := range len(out.detections) + len(out.correlations) + len(out.filters) {
		out.order = slices.Insert(out.order, p.pick(i+1), i)
	}
	out.link()
	return out
}

// condition gives a correlation its type and what has to hold.
func (p *page) condition(c *correlationDoc) {
	c.typ = rules.CorrelationType(types[1:][p.pick(len(types)-1)])
	n := float64(1 + p.pick(5))
	c.bounds = []bound{{p.of("gte", "gte", "gt", "lt", "lte", "eq", "neq"), n}}
	switch c.typ {
	case rules.ValueCount:
		c.fields = p.some([]string{"sekisho.copy.source_ids"}, 1)
		if p.pick(2) == 0 {
			c.fields = p.some(append([]string{"sekisho.copy.files"}, textFields...), 2)
		}
	case rules.ValueSum, rules.ValueAvg:
		c.fields = []string{"sekisho.copy.files"}
		if c.typ == rules.ValueAvg && p.pick(2) == 0 {
			c.bounds[0].value += 0.5
		}
	case rules.ValuePercentile:
		c.fields = []string{p.of("sekisho.copy.files", "file.name")}
		c.bounds[0].value *= float64(1 + p.pick(20))
	case rules.Temporal, rules.TemporalOrdered:
		if p.pick(2) == 0 {
			c.bounds = nil
		}
	}
	if len(c.bounds) == 1 && c.bounds[0].op == "gt" && p.pick(2) == 0 {
		c.bounds = append(c.bounds, bound{"lte", c.bounds[0].value + float64(p.pick(4))})
	}
}

// link ties filters to what they name, and finds out who is told.
func (d *paper) link() {
	for _, c := range d.correlations {
		for _, name := range c.rules {
			for _, t := range d.detections {
				if t.name == name {
					t.referred, t.generate = true, t.generate || c.generates
				}
			}
			for _, t := range d.correlations {
				if t.name == name {
					t.referred, t.generate = true, t.generate || c.generates
				}
			}
		}
	}
	for _, f := range d.filters {
		named := func(name, table string) bool {
			return slices.Contains(f.rules, name) || table != "" && slices.Contains(f.rules, table)
		}
		for _, t := range d.detections {
			// What a filter's logsource does not say may be anything.
			fits := f.logsource == "" || part(f.logsource, "category", t.logsource) && part(f.logsource, "product", t.logsource)
			if fits && (f.rules[0] == "any" || named(t.name, t.table)) {
				t.filters = append(t.filters, f)
			}
		}
		for _, t := range d.correlations {
			if f.rules[0] != "any" && named(t.name, t.table) {
				t.filters = append(t.filters, f)
			}
		}
	}
}

// part reports whether one logsource says nothing of a key, or the same as another.
func part(logsource, key, other string) bool {
	of := func(l string) string {
		for _, kv := range strings.Split(l, ", ") {
			if k, v, _ := strings.Cut(kv, ": "); k == key {
				return v
			}
		}
		return ""
	}
	return of(logsource) == "" || of(logsource) == of(other)
}

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, "'"+s+"'")
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func (b detectionBody) yaml() string {
	var out strings.Builder
	for i, sel := range [][]fieldTest{b.s, b.t} {
		if sel == nil {
			continue
		}
		fmt.Fprintf(&out, "  %s:\n", "st"[i:i+1])
		for _, f := range sel {
			switch f.op {
			case "null":
				fmt.Fprintf(&out, "    %s: null\n", f.field)
			case "exists", "gte":
				fmt.Fprintf(&out, "    %s|%s: %s\n", f.field, f.op, f.values[0])
			case "":
				fmt.Fprintf(&out, "    %s: %s\n", f.field, quoted(f.values))
			default:
				fmt.Fprintf(&out, "    %s|%s: %s\n", f.field, f.op, quoted(f.values))
			}
		}
	}
	fmt.Fprintf(&out, "  condition: %s\n", b.condition)
	return out.String()
}

func addition(b *strings.Builder, table string) {
	if table != "" {
		fmt.Fprintf(b, "sekisho:\n  rule: %s\n", table)
	}
}

func (d *paper) yaml() string {
	var docs []string
	for _, t := range d.detections {
		var b strings.Builder
		fmt.Fprintf(&b, "title: %s\nname: %s\ntaxonomy: ecs\nlogsource: {%s}\ndetection:\n%s", t.name, t.name, t.logsource, t.what.yaml())
		addition(&b, t.table)
		docs = append(docs, b.String())
	}
	for _, c := range d.correlations {
		var b strings.Builder
		fmt.Fprintf(&b, "title: %s\nname: %s\ntaxonomy: ecs\ncorrelation:\n  type: %s\n  rules: [%s]\n  timespan: %ds\n", c.name, c.name, c.typ, strings.Join(c.rules, ", "), c.span/time.Second)
		if c.groupBy != nil {
			fmt.Fprintf(&b, "  group-by: [%s]\n", strings.Join(c.groupBy, ", "))
		}
		if c.aliases != nil {
			b.WriteString("  aliases:\n    who:\n")
			for _, r := range c.rules {
				fmt.Fprintf(&b, "      %s: %s\n", r, c.aliases["who"][r])
			}
		}
		if c.bounds != nil {
			b.WriteString("  condition:\n")
			if c.fields != nil {
				fmt.Fprintf(&b, "    field: [%s]\n", strings.Join(c.fields, ", "))
			}
			for _, x := range c.bounds {
				fmt.Fprintf(&b, "    %s: %v\n", x.op, x.value)
			}
		}
		if c.generates {
			b.WriteString("generate: true\n")
		}
		addition(&b, c.table)
		if c.table != "" && len(c.bounds) == 1 && c.bounds[0].op == "gte" && c.bounds[0].value == math.Trunc(c.bounds[0].value) {
			fmt.Fprintf(&b, "  thresholds: {n: {rule: %s, default: %v}}\n", c.name, c.bounds[0].value)
		}
		docs = append(docs, b.String())
	}
	for i, f := range d.filters {
		if f.exception {
			docs = append(docs, "")
			continue
		}
		docs = append(docs, fmt.Sprintf("title: filter %d\nlogsource: {%s}\ntaxonomy: ecs\nfilter:\n  rules: [%s]\n%s", i, f.logsource, strings.Join(f.rules, ", "), f.what.yaml()))
	}
	var out []string
	for _, i := range d.order {
		if docs[i] != "" {
			out = append(out, docs[i])
		}
	}
	return strings.Join(out, "---\n")
}

func (d *paper) options() (o rules.Options) {
	o.Zone = time.UTC
	for _, f := range d.filters {
		if f.exception {
			o.Exceptions = append(o.Exceptions, rules.Exception{Rules: f.rules, When: f.when, Expires: f.expires})
		}
	}
	for _, t := range d.thresholds {
		all := map[string]map[string]int64{t.table: {"n": t.value}}
		if t.list != "" {
			o.Scoped = append(o.Scoped, rules.ScopedThresholds{Scope: rules.Scope{List: t.list}, Thresholds: all})
			continue
		}
		if o.Thresholds == nil {
			o.Thresholds = map[string]map[string]int64{}
		}
		o.Thresholds[t.table] = all[t.table]
	}
	return o
}

// happening is an event as the plain reading has it.
type happening struct {
	n      int
	t      time.Time
	values map[string]any // string, int64, []string; no key: absent
}

// happenings are events in the order in which they come. Some are late, a few too
// late to count.
func (p *page) happenings() (out []*happening) {
	now, newest := start.Add(23*time.Hour+59*time.Minute+30*time.Second), time.Time{}
	for len(p.data) > 0 && len(out) < 150 {
		h := &happening{n: len(out), values: map[string]any{"host.name": p.of("pc1", "pc1", "pc2")}}
		now = now.Add([]time.Duration{0, 1, time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second, 40 * time.Second}[p.pick(7)])
		h.t = now
		switch p.pick(8) {
		case 0:
			h.t = now.Add(-time.Duration(1+p.pick(int(specTolerance/time.Second))) * time.Second)
		case 1:
			if h.t = now.Add(-specTolerance - time.Second); p.pick(4) > 0 || len(out) > 0 && out[len(out)-1].t.Before(newest.Add(-specTolerance)) {
				h.t = now // never many of these in a row: the clock would be taken to be set back
			}
		}
		if h.t.After(newest) {
			newest = h.t
		}
		set := func(name string, value any) {
			if p.pick(6) > 0 {
				h.values[name] = value
			}
		}
		h.values["event.action"] = p.of("file-copied", "file-copied", "file-written", "process-started")
		set("host.os.type", p.of("linux", "linux", "windows"))
		h.values["file.extension"] = p.of("a", "b", "c", "a")
		set("user.name", p.of(textValues...))
		set("file.owner", p.of(textValues...))
		set("file.name", p.of("x", "y", "z", "X", "u"))
		set("sekisho.copy.files", int64(p.pick(14)-2))
		set("sekisho.copy.source_ids", []string{"1", "2", "3", "4", "1"}[p.pick(3) : 3+p.pick(3)][:p.pick(3)])
		set("sekisho.person.lists", []string{p.of("leaver", "temp")})
		out = append(out, h)
	}
	return out
}

const specTolerance = 20 * time.Second

func (h *happening) event(t testing.TB) *event.Event {
	m := maps.Clone(h.values)
	m["@timestamp"], m["event.id"] = h.t.Format(time.RFC3339Nano), fmt.Sprint("event-", h.n)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// reading is the plain reading under way.
type reading struct {
	d      *paper
	newest time.Time
	all    map[string][]*member // by correlation and group, in order of arrival
	struck map[string]bool      // names of the rules that the event at hand matched
}

// member is an event as a group of a correlation has it.
type member struct {
	h     *happening
	rules []string
}

// told is what is told of an event: a rule's match, or a correlation that fires.
type told struct {
	rule   string
	keys   string
	total  string
	events int
	first  time.Time
}

// fold is lower case as Sigma compares; the values here need no more.
func fold(s string) string { return strings.ToLower(s) }

func (h *happening) holds(f fieldTest) bool {
	v, present := h.values[f.field]
	switch f.op {
	case "null":
		return !present
	case "exists":
		return present == (f.values[0] == "true")
	case "gte":
		n, _ := v.(int64)
		var want int64
		_, _ = fmt.Sscan(f.values[0], &want)
		return present && n >= want
	}
	text, _ := v.(string)
	return present && slices.ContainsFunc(f.values, func(want string) bool {
		switch f.op {
		case "contains":
			return strings.Contains(fold(text), fold(want))
		case "startswith":
			return strings.HasPrefix(fold(text), fold(want))
		}
		return fold(text) == fold(want)
	})
}

func (h *happening) body(b detectionBody) bool {
	all := func(tests []fieldTest) bool {
		return !slices.ContainsFunc(tests, func(f fieldTest) bool { return !h.holds(f) })
	}
	s, t := all(b.s), b.t != nil && all(b.t)
	switch b.condition {
	case "s":
		return s
	case "not s":
		return !s
	case "s and not t":
		return s && !t
	case "not (s and t)":
		return !(s && t)
	}
	return s || t // "s or t", "1 of them"
}

func (h *happening) from(action, os string) bool {
	return (action == "" || h.values["event.action"] == action) && (os == "" || h.values["host.os.type"] == os)
}

// keeps is what a filter says of an event: whether it stays.
func (h *happening) keeps(f *filterDoc) bool {
	if !f.exception {
		return h.body(f.what)
	}
	if f.expires != "" && h.t.Format(time.DateOnly) > f.expires {
		return true
	}
	for field, patterns := range f.when {
		v, present := h.values[field].(string)
		if !present || !slices.ContainsFunc(patterns, func(p string) bool {
			switch p {
			case "v*":
				return strings.HasPrefix(fold(v), "v")
			case "?v":
				return len([]rune(v)) == 2 && strings.HasSuffix(fold(v), "v")
			}
			return fold(v) == fold(p)
		}) {
			return true
		}
	}
	return false
}

// observe is everything that is told of an event.
func (r *reading) observe(h *happening) (out []told) {
	r.struck = map[string]bool{}
	if h.t.After(r.newest) {
		r.newest = h.t
	}
	for _, d := range r.d.detections {
		if h.from(d.action, d.os) && h.body(d.what) && !slices.ContainsFunc(d.filters, func(f *filterDoc) bool { return !h.keeps(f) }) {
			r.struck[d.name] = true
			if !d.referred || d.generate {
				out = append(out, told{rule: d.name})
			}
		}
	}
	if h.t.Before(r.newest.Add(-specTolerance)) {
		return out
	}
	for _, c := range r.d.correlations { // each names earlier ones only
		fired := false
		for _, group := range r.groups(c, h) {
			if f, ok := r.fires(c, group, h); ok {
				fired = true
				if !c.referred || c.generate {
					out = append(out, f)
				}
			}
		}
		if fired {
			r.struck[c.name] = true
		}
	}
	return out
}

// group is the rules that put an event into a group of a correlation.
type group struct {
	keys  string
	rules []string
}

// groups is the groups that an event joins: with aliases, each rule that matched
// says by its own field which.
func (r *reading) groups(c *correlationDoc, h *happening) (out []group) {
	for _, f := range c.filters {
		if h.from(f.action, f.os) && !h.keeps(f) {
			return nil
		}
	}
	if len(values(c, h)) == 0 {
		return nil
	}
	for _, rule := range c.rules {
		if !r.struck[rule] {
			continue
		}
		keys := ""
		for _, g := range c.groupBy {
			field := g
			if by := c.aliases[g]; by != nil {
				field = by[rule]
			}
			if v, ok := h.values[field]; ok {
				keys += fmt.Sprintf("%s=%q ", g, fmt.Sprint(v))
			}
		}
		if i := slices.IndexFunc(out, func(g group) bool { return g.keys == keys }); i >= 0 {
			out[i].rules = append(out[i].rules, rule)
			continue
		}
		out = append(out, group{keys, []string{rule}})
	}
	return out
}

// values is what an event has for a correlation to count: elements, numbers, or a
// combination; one of no meaning for those types that count no values.
func values(c *correlationDoc, h *happening) (out []any) {
	if c.fields == nil {
		return []any{nil}
	}
	combined := ""
	for _, f := range c.fields {
		v, ok := h.values[f]
		if !ok {
			return nil
		}
		if list, is := v.([]string); is {
			for _, s := range list {
				out = append(out, s)
			}
			return out
		}
		combined += fmt.Sprintf("%q", fmt.Sprint(v))
		out = []any{v}
	}
	if len(c.fields) > 1 {
		return []any{combined}
	}
	return out
}

// fires puts an event into a group and looks at every window that ends with one
// of its events and that the event lies in, the newest first.
func (r *reading) fires(c *correlationDoc, g group, h *happening) (told, bool) {
	place := c.name + " " + g.keys
	me := &member{h, g.rules}
	r.all[place] = append(r.all[place], me)
	all := slices.Clone(r.all[place])
	slices.SortStableFunc(all, func(a, b *member) int { return a.h.t.Compare(b.h.t) })
	bounds := r.bounds(c, h)
	for i := len(all) - 1; i >= 0; i-- {
		end := all[i].h.t
		if i+1 < len(all) && all[i+1].h.t.Equal(end) || end.Before(h.t) || end.Add(-c.span).After(h.t) {
			continue
		}
		var w []*member
		for _, m := range all[:i+1] {
			if !m.h.t.Before(end.Add(-c.span)) {
				w = append(w, m)
			}
		}
		total := count(c, w, me)
		holds := len(bounds) > 0 || total == float64(len(c.rules))
		for _, b := range bounds {
			holds = holds && b.holds(total)
		}
		if c.typ == rules.TemporalOrdered {
			// In time, an event has to end the chain.
			late := me != all[len(all)-1]
			last := slices.Index(c.rules, g.rules[len(g.rules)-1])
			holds = holds && total > 0 && (late || last == int(total)-1)
		}
		if holds {
			return told{c.name, g.keys, totalText(c, total), len(w), w[0].h.t}, true
		}
	}
	return told{}, false
}

// bounds is the conditions in force for an event.
func (r *reading) bounds(c *correlationDoc, h *happening) []bound {
	lists, _ := h.values["sekisho.person.lists"].([]string)
	var site *thresholdSetting
	for i, s := range r.d.thresholds {
		if c.table == "" || s.table != c.table {
			continue
		}
		if s.list == "" {
			site = &r.d.thresholds[i] // of two the later one is left
		} else if slices.Contains(lists, s.list) {
			return []bound{{"gte", float64(s.value)}}
		}
	}
	if site != nil {
		return []bound{{"gte", float64(site.value)}}
	}
	return c.bounds
}

func (b bound) holds(n float64) bool {
	switch b.op {
	case "gt":
		return n > b.value
	case "gte":
		return n >= b.value
	case "lt":
		return n < b.value
	case "lte":
		return n <= b.value
	case "eq":
		return n == b.value
	}
	return n != b.value
}

// count is what a correlation says of a window.
func count(c *correlationDoc, w []*member, me *member) float64 {
	sum, different := 0.0, map[any]bool{}
	below, equal, chain := 0.0, 0.0, 0
	mine := values(c, me.h)[0]
	for _, m := range w {
		for _, v := range values(c, m.h) {
			switch n := v.(type) {
			case int64:
				sum += float64(n)
				if mine, ok := mine.(int64); ok && n < mine {
					below++
				}
			}
			if v == mine {
				equal++
			}
			different[v] = true
		}
		for chain < len(c.rules) && slices.Contains(m.rules, c.rules[chain]) {
			chain++
		}
	}
	switch n := float64(len(w)); c.typ {
	case rules.EventCount:
		return n
	case rules.ValueSum:
		return sum
	case rules.ValueAvg:
		return sum / n
	case rules.ValueCount:
		return float64(len(different))
	case rules.ValuePercentile:
		if _, number := mine.(int64); number {
			return (below + equal/2) / n * 100
		}
		return equal / n * 100
	case rules.TemporalOrdered:
		return float64(chain)
	}
	matched := map[string]bool{}
	for _, m := range w {
		for _, name := range m.rules {
			matched[name] = true
		}
	}
	return float64(len(matched))
}

// totalText is how an alert tells a total.
func totalText(c *correlationDoc, n float64) string {
	name := map[rules.CorrelationType]string{rules.ValueCount: "distinct_", rules.ValueAvg: "mean_", rules.ValuePercentile: "percentile_"}[c.typ]
	switch {
	case c.typ == rules.EventCount:
		name = "events"
	case c.fields == nil:
		return ""
	case c.fields[0] == "sekisho.copy.source_ids":
		name = "files"
	default:
		name += c.fields[0][strings.LastIndexByte(c.fields[0], '.')+1:]
	}
	return fmt.Sprint(name, "=", int64(math.Round(n)))
}

// engine is the same as the engine tells it.
func engine(matches []rules.Match, firings []Firing) (out []told) {
	for _, m := range matches {
		if !m.Rule.Silent {
			out = append(out, told{rule: m.Rule.Name})
		}
	}
	for _, f := range firings {
		t := told{rule: f.Rule.Name, events: int(f.EvidenceTotal), first: f.First}
		for _, k := range f.Rule.Correlation.GroupBy {
			if v, ok := f.Keys[k.Name]; ok {
				t.keys += fmt.Sprintf("%s=%q ", k.Name, v)
			}
		}
		for k, v := range f.Totals {
			t.total = fmt.Sprint(k, "=", v)
		}
		out = append(out, t)
	}
	return out
}

func (t told) String() string {
	if t.events == 0 {
		return t.rule
	}
	return fmt.Sprintf("%s(%s%s of %d since %s)", t.rule, t.keys, t.total, t.events, t.first.UTC().Format("15:04:05.999999999"))
}

func list(all []told) string {
	slices.SortFunc(all, func(a, b told) int { return cmp.Compare(a.String(), b.String()) })
	return fmt.Sprint(all)
}

// readAlike compares the engine with the plain reading, and with itself when it is
// cut by restarts. ok is false where the documents are refused.
func readAlike(t testing.TB, data []byte) (fired map[rules.CorrelationType]int, ok bool) {
	pg := &page{data}
	d := pg.paper()
	text, o := d.yaml(), d.options()
	file, err := rules.Parse("made.yml", []byte(text))
	if err != nil {
		return nil, false
	}
	p, err := rules.Compile([]*rules.File{file}, o)
	if err != nil {
		return nil, false
	}
	limits := Limits{Tolerance: specTolerance, Evidence: 4}
	whole, store := New(p, limits, nil), mapStore{}
	cut := New(p, limits, store)
	plain := &reading{d: d, all: map[string][]*member{}}
	fired = map[rules.CorrelationType]int{}
	for _, h := range pg.happenings() {
		e := h.event(t)
		m := p.Match(e, nil)
		firings := whole.Observe(e, m, nil)
		for _, f := range firings {
			fired[f.Rule.Correlation.Type]++
		}
		if got, want := list(engine(m, firings)), list(plain.observe(h)); got != want {
			t.Fatalf("event %d at %v: the engine says\n%s, the plain reading\n%s\n%s%+v\n%s", h.n, h.t.Format(time.TimeOnly), got, want, text, o, e.AppendJSON(nil))
		}
		if again := describe(cut.Observe(e, m, nil)); again != describe(firings) {
			t.Fatalf("event %d: after restarts\n%s, without\n%s%s", h.n, again, describe(firings), text)
		}
		if h.n%7 == 3 {
			if err := cut.Flush(store.put); err != nil {
				t.Fatal(err)
			}
			cut = New(p, limits, store)
			if err := cut.Load(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if st := cut.Stats(); st.Evicted+st.Trimmed+st.Broken+st.ClockSteps != 0 {
		t.Fatalf("%+v", st)
	}
	return fired, true
}

func specBytes(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	out := make([]byte, 300+r.IntN(1500))
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

func TestMadeDocumentsAgreeWithAPlainReading(t *testing.T) {
	n, good, fired := 400, 0, map[rules.CorrelationType]int{}
	if testing.Short() || racing {
		n = 60
	}
	for seed := range n {
		more, ok := readAlike(t, specBytes(uint64(seed)))
		if ok {
			good++
		}
		for typ, n := range more {
			fired[typ] += n
		}
	}
	t.Logf("%d of %d sets of documents compile; fired: %v", good, n, fired)
	if good < n/2 {
		t.Errorf("%d of %d sets of documents compile: too few to tell anything", good, n)
	}
	for _, typ := range types[1:] {
		if fired[typ] < n/10 {
			t.Errorf("%s fired %d times only: that says little", typ, fired[typ])
		}
	}
}

// FuzzMadeDocumentsAgreeWithAPlainReading looks for correlations, filters, settings
// and events of which the engine tells something else than the specification.
func FuzzMadeDocumentsAgreeWithAPlainReading(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(specBytes(1_000_000 + seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 4000 {
			readAlike(t, data)
		}
	})
}
