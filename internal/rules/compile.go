package rules

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// Options are what settings say of rules.
type Options struct {
	// Thresholds maps a rule's table id ("USB-3") and a key of its thresholds
	// ("files") to the number that replaces the rule's own.
	Thresholds map[string]map[string]int64
	// Scoped is thresholds for some people or PCs only: the first entry that fits
	// an event and names the threshold counts.
	Scoped []ScopedThresholds
	// Exceptions take events out of rules, as Sigma's filters do.
	Exceptions []Exception
	// Placeholders maps the name of a %placeholder% (modifier expand) to what it
	// stands for.
	Placeholders map[string][]string
	Zone         *time.Location // of the time modifiers (hour, day ...); nil: Asia/Tokyo
	Disable      []string       // table ids or Sigma ids
	// Lenient says that some rules may be missing because they were refused:
	// settings that name a rule which is not there are no problem.
	Lenient bool
}

// ScopedThresholds is thresholds, as in Options, for some people or PCs.
type ScopedThresholds struct {
	Scope
	Thresholds map[string]map[string]int64
}

// Exception is a site's own known case: events that it fits do not match the
// rules it names.
type Exception struct {
	Rules   []string            // table ids, Sigma ids or names; "any"
	When    map[string][]string // field to values with Sigma's wildcards: each field has to have one of its values
	Expires string              // last day on which it holds, "2027-03-31" in Options.Zone; "": no end
}

// Program is compiled rules. It is immutable and safe for concurrent use.
type Program struct {
	// Rules is detection rules in the order of the files, then the hidden ones of
	// filters, then correlations, each after those it refers to.
	Rules []*Rule

	options Options
	buckets map[place]*bucket // by action and system, both folded; "" stands for any other
	getters []Getter
	pool    *sync.Pool
	// spare is a scratch that the garbage collector does not take, as it does
	// those of the pool: automata are dear to make anew.
	spare atomic.Pointer[scratch]
}

// Rule finds a rule by Sigma id, Sigma name or table id (the first document
// that alerts).
func (p *Program) Rule(id string) *Rule {
	if all := p.Find(id); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Find is every document of a rule: by Sigma id or name the one, by table id
// all that alert.
func (p *Program) Find(id string) []*Rule {
	var out []*Rule
	for _, r := range p.Rules {
		if r.Hidden {
			continue
		}
		if strings.EqualFold(r.ID, id) || r.Name != "" && r.Name == id {
			return []*Rule{r}
		}
		if id != "" && strings.EqualFold(r.Table(), id) {
			out = append(out, r)
		}
	}
	return out
}

// Compile resolves fields, builds the matchers and joins rules, correlations
// and filters. The error is [Problems]; the program is returned even then and
// holds the rules that are right, so that a caller may choose to run those.
func Compile(files []*File, o Options) (*Program, error) {
	return newCompiler(o).compile(files)
}

func (c *compiler) compile(files []*File) (*Program, error) {
	c.documents(files)
	for _, d := range c.docs {
		if d.detection != nil {
			c.detectionRule(d)
		}
	}
	c.filters()
	c.bound()
	c.correlations()
	c.silence()
	c.additions()
	c.settings()
	p := c.program()
	if len(c.problems) == 0 {
		return p, nil
	}
	return p, problem.Sorted(c.problems)
}

// bounds are the limits of a program, against hostile folders of rules.
type bounds struct {
	rules        int
	patterns     int // values of all rules
	instructions int // of all regular expressions, compiled
	guesses      int // at what was meant: they cost
	problems     int
	chain        int // correlations on top of each other
	parts        int // of the index, which has one for each action and system that rules name
	weight       int // values of the rules in all parts of the index
}

// defaultBounds are generous. Judgement: all of SigmaHQ's process_creation is 1,556 rules
// with 22,000 values and 4,600 instructions.
var defaultBounds = bounds{rules: 50_000, patterns: 1 << 20, instructions: 1 << 18, guesses: 500, problems: 50_000, chain: 32, parts: 1_000, weight: 1 << 20}

func newCompiler(o Options) *compiler {
	return &compiler{o: o, max: defaultBounds, slots: map[Getter]int{}, byDoc: map[*document]*Rule{}, refused: map[*document]bool{},
		ids: map[string]*document{}, named: map[string]*document{}, places: map[*Rule]int{}, regexps: map[string]*expression{},
		weights:     map[*Rule]int{},
		filterNodes: map[filterKey]node{}, firstSeen: map[*document]*FirstSeen{}, except: map[*document][]*Rule{}, thresholdOf: map[*Rule]string{}}
}

type compiler struct {
	o           Options
	max         bounds
	docs        []*document
	rules       []*Rule
	byDoc       map[*document]*Rule
	refused     map[*document]bool // by this compilation; documents are shared and not written to
	firstSeen   map[*document]*FirstSeen
	except      map[*document][]*Rule // hidden rules of filters, by the correlation that they take events out of
	thresholdOf map[*Rule]string      // setting whose number a correlation has
	getters     []Getter
	slots       map[Getter]int
	ids, named  map[string]*document // what references may say
	places      map[*Rule]int        // in rules
	regexps     map[string]*expression
	filterNodes map[filterKey]node
	problems    Problems
	failed      bool // the document at hand has a problem

	patterns, instructions, hints int // how many there are

	weight  int           // values of the condition at hand, each as often as it is named
	weights map[*Rule]int // by detection rule
}

// filterKey is a filter, and how the names of fields in it are understood.
type filterKey struct {
	d  *document
	ns names
}

// add puts a rule into the program.
func (c *compiler) add(r *Rule) {
	c.places[r] = len(c.rules)
	c.rules = append(c.rules, r)
}

// suggest is problem.Suggest while there are not too many problems for it.
func (c *compiler) suggest(got string, known []string) string {
	if c.hints++; c.hints > c.max.guesses {
		return ""
	}
	return problem.Suggest(got, known)
}

// field resolves the name of a field, which is told where it is unknown.
func (c *compiler) field(d *document, ns names, name string, line, col int, path string) (Getter, bool) {
	g, ok := ns.find(name)
	if !ok {
		c.fail(d, line, col, path, CodeField, "知らないフィールド "+problem.Quote(name)+" です", "unknown field "+problem.Quote(name)).Hint = c.hint(ns, name)
	}
	return g, ok
}

func (c *compiler) hint(ns names, name string) string {
	if c.hints++; c.hints > c.max.guesses {
		return ""
	}
	return ns.hint(name)
}

func (c *compiler) fail(d *document, line, col int, path, code, ja, en string) *Problem {
	c.failed = true
	if d.setting != "" {
		code = CodeSetting
	}
	if len(c.problems) >= c.max.problems {
		return c.enough()
	}
	c.problems = append(c.problems, Problem{File: d.file.Name, Line: line, Col: col, Path: path, Code: code, JA: ja, EN: en, Text: d.file.line(line), Rule: d.label()})
	return &c.problems[len(c.problems)-1]
}

// enough tells once that the rest is not told.
func (c *compiler) enough() *Problem {
	if len(c.problems) == c.max.problems {
		c.problems = append(c.problems, Problem{Code: CodeBounds, JA: "問題が多すぎるため、以降は表示しません", EN: "too many problems: the rest is not told"})
	}
	return new(Problem)
}

// isRefused reports whether a document has problems, found by Parse or here.
func (c *compiler) isRefused(d *document) bool { return d.bad || c.refused[d] }

// use is the slot of a field in the program.
func (c *compiler) use(g Getter) int {
	key := g
	key.Name = ""
	if i, ok := c.slots[key]; ok {
		return i
	}
	i := len(c.getters)
	c.getters = append(c.getters, g)
	c.slots[key] = i
	return i
}

// documents takes the documents of all files. Ids and names that stand twice are
// told; the later document is dropped.
func (c *compiler) documents(files []*File) {
	for _, f := range files {
		for _, d := range f.docs {
			if len(c.docs) == c.max.rules {
				c.fail(d, d.line, d.col, "", CodeBounds, fmt.Sprintf("ルールが多すぎます（上限は %d）", c.max.rules), fmt.Sprintf("more than %d rules", c.max.rules))
				return
			}
			c.docs = append(c.docs, d)
			if d.filter != nil {
				continue
			}
			for _, k := range []struct {
				seen      map[string]*document
				what, key string
			}{{c.ids, "id", d.id}, {c.named, "name", d.name}} {
				if k.key == "" {
					continue
				}
				first := k.seen[k.key]
				if first == nil {
					k.seen[k.key] = d
					continue
				}
				place := fmt.Sprintf("%s:%d", problem.Printable(first.file.Name), first.line)
				c.fail(d, d.line, d.col, k.what, CodeDouble, k.what+" "+problem.Quote(k.key)+" は "+place+" のルールにもあります",
					k.what+" "+problem.Quote(k.key)+" is also that of the rule at "+place)
				c.refused[d] = true
			}
		}
	}
}

func (c *compiler) newRule(d *document) *Rule {
	r := &Rule{ID: d.id, Name: d.name, Title: d.title, Version: d.version, Level: d.level, Status: d.status, Summary: d.summary,
		File: d.file.Name, Line: d.line, Builtin: d.builtin, doc: d}
	if r.ID == "" {
		r.ID = uuidOf(d.name, d.title)
	}
	c.byDoc[d] = r
	return r
}

func (d *document) names() names {
	return names{ecs: d.taxonomy == "ecs", category: d.logsource.category}
}

// detectionRule compiles a document. One that is refused already is compiled for
// what else is wrong with it.
func (c *compiler) detectionRule(d *document) {
	c.failed = false
	if l := &d.logsource; d.bad && (l.line == 0 || l.category == "" && d.taxonomy != "ecs") {
		return // perhaps that is what was told; names of fields mean nothing so
	}
	r := c.newRule(d)
	where := c.logsource(d)
	var n node
	if r.Waits = c.waits(d); len(r.Waits) > 0 {
		n, r.Disabled = constNode(false), true
	} else if !c.failed { // without the logsource, names of fields mean nothing
		n = c.detection(d, d.detection, d.names())
	}
	r.digest = d.detection.digest(&d.logsource, d.taxonomy)
	if d.addition != nil && d.addition.firstSeen != nil {
		f := c.newFirstSeen(d, d.addition.firstSeen)
		c.firstSeen[d] = f
		parts := []string{"first-seen"}
		for i := range f.Keys {
			parts = append(parts, f.Keys[i].Field())
		}
		r.digest = mix(r.digest, hashText(parts...))
	}
	if c.failed || c.isRefused(d) {
		c.refused[d] = true
		delete(c.byDoc, d)
		return
	}
	r.node = both(where, n)
	c.weights[r] = c.weight + 1
	c.add(r)
}

func (c *compiler) newFirstSeen(d *document, doc *firstSeenDoc) *FirstSeen {
	f := &FirstSeen{Within: doc.within, Learn: doc.learn}
	for _, ref := range doc.keys {
		if g, ok := c.field(d, d.names(), ref.name, ref.line, ref.col, ref.path); ok {
			f.Keys = append(f.Keys, g)
		}
	}
	return f
}

// logsource is the condition that a logsource stands for.
func (c *compiler) logsource(d *document) node {
	l := &d.logsource
	var out []node
	if l.category != "" {
		if actions, ok := categories[l.category]; ok {
			out = append(out, c.actions(actions))
		} else if !(d.taxonomy == "ecs" && l.product == "sekisho") {
			c.fail(d, l.line, l.col, "logsource.category", CodeLogsource, problem.Quote(l.category)+" のイベントは記録していません",
				"no events of category "+problem.Quote(l.category)+" are recorded here").Hint = c.suggest(l.category, keys(categories))
		}
	}
	if l.product != "" {
		if os, ok := products[l.product]; !ok {
			c.fail(d, l.line, l.col, "logsource.product", CodeLogsource, problem.Quote(l.product)+" のイベントは記録していません",
				"no events of product "+problem.Quote(l.product)+" are recorded here").Hint = c.suggest(l.product, keys(products))
		} else if os != "" {
			out = append(out, newText(c.use(Getter{Name: "host.os.type", id: osID}), []pattern{newPattern([]token{{literal, []byte(os)}}, false)}, false, false))
		}
	}
	if l.service != "" && l.product != "sekisho" {
		c.fail(d, l.line, l.col, "logsource.service", CodeLogsource, "service "+problem.Quote(l.service)+" のログは読んでいません",
			"the log of service "+problem.Quote(l.service)+" is not read here")
	}
	if l.category == "" && l.product == "" && l.service == "" {
		c.fail(d, max(l.line, d.line), max(l.col, 1), "logsource", CodeLogsource, "category も product もありません", "neither category nor product is given")
	}
	if l.category == "" && l.product != "" && l.product != "sekisho" && d.taxonomy != "ecs" && d.filter == nil {
		c.fail(d, l.line, l.col, "logsource", CodeLogsource, "category がないと、フィールド名が何を指すか決まりません",
			"without a category the field names have no meaning here")
	}
	return both(out...)
}

func (c *compiler) actions(actions []event.Action) node {
	var ps []pattern
	for _, a := range actions {
		ps = append(ps, newPattern([]token{{literal, []byte(a)}}, false))
	}
	return newText(c.use(Getter{Name: "event.action", id: actionID}), ps, false, false)
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// both is the conjunction of nodes, flat and with the cheap ones first.
func both(nodes ...node) node {
	var out allNode
	for _, n := range nodes {
		switch n := n.(type) {
		case nil:
		case allNode:
			out = append(out, n...)
		default:
			out = append(out, n)
		}
	}
	switch len(out) {
	case 0:
		return constNode(true)
	case 1:
		return out[0]
	}
	slices.SortStableFunc(out, func(a, b node) int { return a.cost() - b.cost() })
	return out
}

// either is the disjunction of nodes.
func either(nodes ...node) node {
	var out anyNode
	for _, n := range nodes {
		if a, ok := n.(anyNode); ok {
			out = append(out, a...)
		} else {
			out = append(out, n)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	slices.SortStableFunc(out, func(a, b node) int { return a.cost() - b.cost() })
	return out
}

// detection compiles selections and joins them by the conditions, of which any
// suffices.
func (c *compiler) detection(d *document, det *detection, ns names) node {
	compiled := make(map[*selection]selected, len(det.selections))
	for _, s := range det.selections {
		before := c.patterns
		var alts []node
		for i := range s.alts {
			a := &s.alts[i]
			if a.keyword != nil {
				alts = append(alts, c.keyword(d, a.keyword, join(det.path, s.name)))
				continue
			}
			var all []node
			for _, it := range a.items {
				all = append(all, c.item(d, it, ns))
			}
			alts = append(alts, both(all...))
		}
		if len(alts) == 0 {
			alts = append(alts, constNode(false))
		}
		compiled[s] = selected{either(alts...), c.patterns - before + 1}
	}
	c.weight = 0
	var conds []node
	for _, ct := range det.conditions {
		if ct.expr != nil {
			conds = append(conds, c.join(ct.expr, compiled))
		}
	}
	if c.weight > c.max.weight {
		at := det.conditions[0]
		c.fail(d, at.line, at.col, join(det.path, "condition"), CodeBounds, fmt.Sprintf("条件が挙げる値が延べ %d を超えています", c.max.weight),
			fmt.Sprintf("the condition names more than %d values, each as often as it does", c.max.weight))
		return constNode(false)
	}
	if len(conds) == 0 {
		return constNode(false)
	}
	return either(conds...)
}

// selected is a selection compiled, and how many values it has.
type selected struct {
	node
	weight int
}

// join is a condition over its selections. A selection that an "and" or "or" names
// again is taken once.
func (c *compiler) join(e expr, sel map[*selection]selected) node {
	switch e := e.(type) {
	case andExpr:
		return both(c.parts(e, sel, map[*selection]bool{}, true)...)
	case orExpr:
		return either(c.parts(e, sel, map[*selection]bool{}, false)...)
	case notExpr:
		return notNode{c.join(e.x, sel)}
	case selExpr:
		c.weight += sel[e.sel].weight
		return sel[e.sel].node
	}
	panic(fmt.Sprintf("rules: condition of type %T", e))
}

// parts is the members of an "and" (all) or "or", those of members of its kind too.
func (c *compiler) parts(list []expr, sel map[*selection]selected, seen map[*selection]bool, all bool) (out []node) {
	for _, x := range list {
		if c.weight > c.max.weight {
			return out // which is told
		}
		switch x := x.(type) {
		case andExpr:
			if all {
				out = append(out, c.parts(x, sel, seen, all)...)
				continue
			}
		case orExpr:
			if !all {
				out = append(out, c.parts(x, sel, seen, all)...)
				continue
			}
		case selExpr:
			if seen[x.sel] {
				continue
			}
			seen[x.sel] = true
		}
		out = append(out, c.join(x, sel))
	}
	return out
}

// bound refuses the rules that would make the index too large: it has a part for
// each action and system that rules name, and a rule lies in those of its own, or in
// all.
func (c *compiler) bound() {
	actionSlot, osSlot := c.slot(actionID), c.slot(osID)
	actions, systems := map[string]bool{}, map[string]bool{}
	refuse := func(r *Rule, ja, en string) {
		c.fail(r.doc, r.doc.line, r.doc.col, "", CodeBounds, ja, en)
		c.refused[r.doc] = true
		delete(c.byDoc, r.doc)
	}
	var rules []*Rule
	for _, r := range c.rules {
		a, _ := valuesOf(r.node, actionSlot)
		s, _ := valuesOf(r.node, osSlot)
		if (len(actions)+len(a)+1)*(len(systems)+len(s)+1) > c.max.parts { // at most: some may be known
			a = slices.DeleteFunc(slices.Clone(a), func(v string) bool { return actions[v] })
			s = slices.DeleteFunc(slices.Clone(s), func(v string) bool { return systems[v] })
		}
		if (len(actions)+len(a)+1)*(len(systems)+len(s)+1) > c.max.parts {
			refuse(r, "event.action と host.os.type の値の組み合わせが多すぎます", "too many values of event.action and host.os.type")
			continue
		}
		for _, v := range a {
			actions[v] = true
		}
		for _, v := range s {
			systems[v] = true
		}
		rules = append(rules, r)
	}
	total := 0
	c.rules, c.places = c.rules[:0:0], map[*Rule]int{}
	for _, r := range rules {
		in := 1
		if a, any := valuesOf(r.node, actionSlot); any {
			in *= len(actions) + 1
		} else {
			in *= len(a)
		}
		if s, any := valuesOf(r.node, osSlot); any {
			in *= len(systems) + 1
		} else {
			in *= len(s)
		}
		if total+in*c.weights[r] > c.max.weight {
			refuse(r, "全ルールの値が多すぎます（event.action を絞ると減ります）", "the values of all rules are too many (a rule that names its event.action needs less)")
			continue
		}
		total += in * c.weights[r]
		c.add(r)
	}
}

func (c *compiler) keyword(d *document, k *scalar, path string) node {
	toks := parsePattern(k.text)
	if k.text == "" {
		c.fail(d, k.line, k.col, path, CodePattern, "空の語は検索できません", "an empty word cannot be searched for")
	}
	if !c.room(d, k, path) {
		return constNode(false)
	}
	return &keywordNode{patterns: []pattern{newPattern(surround(toks), false)}, all: true}
}

func surround(toks []token) []token { return addStar(append(addStar(nil), trimStar(toks)...)) }

func trimStar(toks []token) []token {
	if len(toks) > 0 && toks[0].kind == star {
		return toks[1:]
	}
	return toks
}

// modifiers that exist in Sigma, for suggestions.
var allModifiers = []string{"contains", "startswith", "endswith", "all", "re", "i", "m", "s", "cased", "exists", "cidr",
	"gt", "gte", "lt", "lte", "neq", "windash", "fieldref", "base64", "base64offset", "wide", "utf16", "utf16le", "utf16be",
	"expand", "minute", "hour", "day", "week", "month", "year"}

// how is the modifiers of an item, sorted out.
type how struct {
	op      string // "", contains, startswith, endswith, re, cidr, exists, gt, gte, lt, lte
	encode  []string
	all     bool
	cased   bool
	neq     bool
	windash bool
	ref     bool
	expand  bool
	part    string // of a time: minute, hour, day, week, month, year
	flags   string // of re
}

func (c *compiler) how(d *document, it *item) (h how, ok bool) {
	bad := func(code, ja, en string) *Problem { return c.fail(d, it.line, it.col, it.path, code, ja, en) }
	for _, m := range it.mods {
		switch m {
		case "contains", "startswith", "endswith", "re", "cidr", "exists", "gt", "gte", "lt", "lte":
			if h.op != "" {
				bad(CodeModifier, fmt.Sprintf("修飾子 %s と %s は一緒に使えません", h.op, m), fmt.Sprintf("modifiers %s and %s exclude each other", h.op, m))
				return h, false
			}
			h.op = m
		case "all":
			h.all = true
		case "cased":
			h.cased = true
		case "neq":
			h.neq = true
		case "windash":
			h.windash = true
		case "fieldref":
			h.ref = true
		case "i", "m", "s":
			if h.op != "re" {
				bad(CodeModifier, "修飾子 "+m+" は re の後にだけ使えます", "modifier "+m+" only follows re")
				return h, false
			}
			if !strings.Contains(h.flags, m) {
				h.flags += m
			}
		case "base64", "base64offset", "wide", "utf16le", "utf16be", "utf16":
			h.encode = append(h.encode, m)
		case "expand":
			if len(h.encode) > 0 {
				bad(CodeModifier, "修飾子 expand は "+h.encode[0]+" より前に書きます", "modifier expand comes before "+h.encode[0])
				return h, false
			}
			h.expand = true
		case "minute", "hour", "day", "week", "month", "year":
			if h.part != "" {
				bad(CodeModifier, fmt.Sprintf("修飾子 %s と %s は一緒に使えません", h.part, m), fmt.Sprintf("modifiers %s and %s exclude each other", h.part, m))
				return h, false
			}
			h.part = m
		default:
			bad(CodeModifier, "修飾子 "+problem.Quote(m)+" はありません", "there is no modifier "+problem.Quote(m)).Hint = c.suggest(m, allModifiers)
			return h, false
		}
	}
	text := h.part == "" && (h.op == "" || h.op == "contains" || h.op == "startswith" || h.op == "endswith")
	compares := h.op == "gt" || h.op == "gte" || h.op == "lt" || h.op == "lte"
	clash := func(m string) {
		bad(CodeModifier, fmt.Sprintf("修飾子 %s は %s と一緒に使えません", m, h.what()), fmt.Sprintf("modifier %s does not go with %s", m, h.what()))
		ok = false
	}
	if h.part != "" && h.op != "" && !compares {
		bad(CodeModifier, fmt.Sprintf("修飾子 %s と %s は一緒に使えません", h.part, h.op), fmt.Sprintf("modifiers %s and %s exclude each other", h.part, h.op))
		return h, false
	}
	ok = true
	switch {
	case h.cased && !text:
		clash("cased")
	case h.windash && (!text || h.ref || len(h.encode) > 0):
		clash("windash")
	case len(h.encode) > 0 && (!text || h.ref):
		clash(h.encode[0])
	case h.ref && !text:
		clash("fieldref")
	case h.all && h.op != "re" && !text:
		clash("all")
	case h.neq && h.op != "" || h.neq && h.all:
		clash("neq")
	case h.expand && (h.ref || !text && h.op != "cidr"):
		clash("expand")
	}
	for i, m := range h.encode {
		if m == "base64" || m == "base64offset" {
			if i != len(h.encode)-1 {
				bad(CodeModifier, "文字コードの修飾子は "+m+" より前に書きます", "modifiers of character encoding come before "+m)
				return h, false
			}
		}
	}
	if slices.Contains(h.encode, "base64offset") && h.op != "contains" {
		bad(CodeModifier, "base64offset は contains と一緒に使います", "base64offset needs contains")
		return h, false
	}
	return h, ok
}

func (h how) what() string {
	switch {
	case h.part != "":
		return h.part
	case h.ref:
		return "fieldref"
	case h.op == "":
		return "="
	}
	return h.op
}

// item compiles one line of a selection. What is wrong is told and the node is
// then of no use.
func (c *compiler) item(d *document, it *item, ns names) node {
	h, ok := c.how(d, it)
	if !ok || len(it.values) == 0 { // which was told
		return constNode(false)
	}
	if it.field == "" {
		return c.keywords(d, it, h)
	}
	g, ok := c.field(d, ns, it.field, it.line, it.col, it.path)
	if !ok {
		return constNode(false)
	}
	var n node
	switch {
	case h.part != "":
		n = c.moment(d, it, h, g)
	case h.ref:
		n = c.fieldref(d, it, h, g, ns)
	case h.op == "re":
		n = c.regex(d, it, h, g)
	case h.op == "exists":
		n = c.exists(d, it, g)
	case h.op == "cidr":
		n = c.cidr(d, it, h, g)
	case h.op == "gt" || h.op == "gte" || h.op == "lt" || h.op == "lte":
		n = c.number(d, it, h, g)
	default:
		n = c.text(d, it, h, g)
	}
	if h.neq {
		return notNode{n}
	}
	return n
}

// bad tells that a value is not of use.
func (c *compiler) bad(d *document, it *item, v *scalar, ja, en string) {
	c.fail(d, v.line, v.col, it.path, CodePattern, ja, en)
}

// room counts a value and reports whether there is room for it.
func (c *compiler) room(d *document, v *scalar, path string) bool {
	if c.patterns++; c.patterns <= c.max.patterns {
		return true
	}
	c.fail(d, v.line, v.col, path, CodeBounds, fmt.Sprintf("全ルールの値が %d を超えています", c.max.patterns), fmt.Sprintf("more than %d values in all rules", c.max.patterns))
	return false
}

// values is the values of a line, each with those that it stands for.
func (c *compiler) values(d *document, it *item, h how) [][]scalar {
	if h.expand {
		return c.expand(d, it)
	}
	out := make([][]scalar, len(it.values))
	for i := range it.values {
		out[i] = it.values[i : i+1]
	}
	return out
}

func (c *compiler) text(d *document, it *item, h how, g Getter) node {
	field := c.use(g)
	var patterns []pattern // of all values
	var each []node        // by value, of those that stand for several
	var others []node
	for _, these := range c.values(d, it, h) {
		from := len(patterns)
		for i := range these {
			v := &these[i]
			if v.kind == nullScalar {
				if h.op != "" || h.cased || h.windash || h.expand || len(h.encode) > 0 {
					c.bad(d, it, v, "null は修飾子と一緒に使えません", "null does not go with modifiers")
					continue
				}
				others = append(others, existsNode{field, false})
				continue
			}
			if h.op == "" && len(h.encode) == 0 {
				c.fits(d, it, v, g)
			}
			for _, toks := range c.encoded(d, it, v, h) {
				switch h.op {
				case "contains":
					toks = surround(toks)
				case "startswith":
					toks = addStar(toks)
				case "endswith":
					toks = append(addStar(nil), trimStar(toks)...)
				}
				if !c.room(d, v, it.path) {
					return constNode(false)
				}
				patterns = append(patterns, newPattern(toks, h.cased))
			}
		}
		// With "all", one of the forms that a value stands for suffices.
		if h.all && len(patterns)-from > 1 {
			each = append(each, newText(field, patterns[from:len(patterns):len(patterns)], false, h.cased))
			patterns = patterns[:from:from]
		}
	}
	if len(patterns) > 0 {
		each = append(each, newText(field, patterns, h.all, h.cased))
	}
	each = append(others, each...)
	switch {
	case len(each) == 0: // what is wrong was told
		return constNode(false)
	case h.all:
		return both(each...)
	}
	return either(each...)
}

// fits tells a value that a field of this type can never have.
func (c *compiler) fits(d *document, it *item, v *scalar, g Getter) {
	if strings.ContainsAny(v.text, "*?") {
		return
	}
	switch g.Type() {
	case event.Int:
		if _, err := strconv.ParseInt(v.text, 10, 64); err != nil {
			c.bad(d, it, v, it.field+" は整数です。"+problem.Quote(v.text)+" にはなりません", it.field+" is a whole number and never "+problem.Quote(v.text))
		}
	case event.Bool:
		if b := strings.ToLower(v.text); b != "true" && b != "false" {
			c.bad(d, it, v, it.field+" は true か false です。"+problem.Quote(v.text)+" にはなりません", it.field+" is true or false and never "+problem.Quote(v.text))
		}
	}
}

// encoded is the patterns that a value stands for.
func (c *compiler) encoded(d *document, it *item, v *scalar, h how) [][]token {
	toks := parsePattern(v.text)
	if h.windash {
		toks = withDashes(toks)
	}
	if len(h.encode) == 0 {
		return [][]token{toks}
	}
	for _, t := range toks {
		if t.kind != literal {
			c.bad(d, it, v, "ワイルドカードは "+h.encode[0]+" と一緒に使えません", "wildcards do not go with "+h.encode[0])
			return nil
		}
	}
	if len(toks) == 0 {
		c.bad(d, it, v, "空の値は "+h.encode[0]+" と一緒に使えません", "an empty value does not go with "+h.encode[0])
		return nil
	}
	data := toks[0].lit
	for _, m := range h.encode {
		switch m {
		case "wide", "utf16le":
			data = wide(data, binary.LittleEndian, false)
		case "utf16be":
			data = wide(data, binary.BigEndian, false)
		case "utf16":
			data = wide(data, binary.LittleEndian, true)
		case "base64":
			return [][]token{{{literal, []byte(base64.StdEncoding.EncodeToString(data))}}}
		case "base64offset":
			if len(data) < 2 { // its neighbours share all characters at one of the offsets
				c.bad(d, it, v, "1 バイトの値は base64offset と一緒に使えません", "a value of one byte does not go with base64offset")
				return nil
			}
			return base64Offsets(data)
		}
	}
	return [][]token{{{literal, data}}}
}

func wide(data []byte, order binary.AppendByteOrder, mark bool) []byte {
	var out []byte
	if mark {
		out = order.AppendUint16(out, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(string(data))) {
		out = order.AppendUint16(out, u)
	}
	return out
}

// base64Offsets is how data looks within base64 text at each of the three
// offsets, without the characters that its neighbours share.
func base64Offsets(data []byte) [][]token {
	var out [][]token
	for off := range 3 {
		s := base64.StdEncoding.EncodeToString(append(make([]byte, off), data...))
		start := []int{0, 2, 3}[off]
		end := len(s) - []int{0, 3, 2}[(len(data)+off)%3]
		if end < start {
			end = start
		}
		out = append(out, []token{{literal, []byte(s[start:end])}})
	}
	return out
}

// maxRegexp is the size of a regular expression, and maxProgram that of its
// compiled form. Judgement: SigmaHQ's largest has 1,500 instructions.
const (
	maxRegexp  = 4096 // bytes
	maxProgram = 20_000
)

func (c *compiler) compileRegexp(d *document, it *item, v *scalar, flags string) *expression {
	if v.kind == nullScalar {
		c.bad(d, it, v, "正規表現がありません", "there is no regular expression")
		return nil
	}
	if len(v.text) > maxRegexp {
		c.bad(d, it, v, fmt.Sprintf("正規表現が長すぎます（上限は %d バイト）", maxRegexp), fmt.Sprintf("regular expression of more than %d bytes", maxRegexp))
		return nil
	}
	text := v.text
	if flags != "" {
		text = "(?" + flags + ")" + text
	}
	c.patterns++
	if x := c.regexps[text]; x != nil {
		return x
	}
	full := func() *expression {
		c.fail(d, v.line, v.col, it.path, CodeBounds, "全ルールの正規表現を合わせると大きすぎます", "the regular expressions of all rules are too large")
		return nil
	}
	if c.instructions > c.max.instructions {
		return full()
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	var prog *syntax.Prog
	if err == nil {
		prog, err = syntax.Compile(parsed.Simplify())
	}
	var re *regexp.Regexp
	if err == nil {
		if len(prog.Inst) > maxProgram {
			c.bad(d, it, v, "正規表現が大きすぎます", "regular expression too large")
			return nil
		}
		if c.instructions += len(prog.Inst); c.instructions > c.max.instructions {
			return full()
		}
		re, err = regexp.Compile(text)
	}
	if err != nil {
		reason := err.Error()
		if se, ok := err.(*syntax.Error); ok {
			reason = se.Code.String() + ": " + problem.Quote(se.Expr)
		}
		ja, en := "正規表現を読めません: "+reason, "regular expression: "+reason
		if what := foreign(text, err); what != nil {
			ja, en = ja+"（"+what.ja+"）", en+" ("+what.en+")"
		}
		c.bad(d, it, v, ja, en)
		return nil
	}
	x := newExpression(len(c.regexps), re, prog, parsed)
	c.regexps[text] = x
	return x
}

// construct is a part of PCRE that RE2 does not have, for reasons of time, and what
// to do instead.
type construct struct {
	form   *regexp.Regexp
	ja, en string
}

var constructs = []construct{
	{regexp.MustCompile(`\(\?[=!]`), "先読みには対応していません。2 つの条件に分け、and または not でつないでください",
		"look-ahead is not honoured: write two selections and join them by and, or by not"},
	{regexp.MustCompile(`\(\?<[=!]`), "後読みには対応していません。2 つの条件に分け、and または not でつないでください",
		"look-behind is not honoured: write two selections and join them by and, or by not"},
	{regexp.MustCompile(`\(\?>`), "原子グループには対応していません。(?: ) と書いてください", "atomic groups are not honoured: write (?: )"},
	{regexp.MustCompile(`\(\?[#(|R&0-9+]|\(\*|\(\?P[=>]`), "コメント、条件、再帰、動詞には対応していません", "comments, conditionals, recursion and verbs are not honoured"},
	{regexp.MustCompile(`\\[1-9]|\\[gk][{<'0-9-]`), "後方参照には対応していません", "back references are not honoured"},
	{regexp.MustCompile(`[+*?}]\+`), "独占的な量指定子（++ など）には対応していません。+ を 1 つにしてください", "possessive quantifiers (++ and the like) are not honoured: leave out the second +"},
	{regexp.MustCompile(`\{[0-9,]*[0-9]{4,}|\}[{*?+]`), "繰り返しは合わせて 1000 回までです", "repeats go up to 1000, nested ones taken together"},
}

// foreign is the construct for which an expression could not be read; nil: it is
// none that we know.
func foreign(text string, err error) *construct {
	var at string // what the library complains of, which may stand anywhere
	if se, ok := err.(*syntax.Error); ok {
		at = se.Expr
	}
	for _, in := range []string{at, text} {
		for i := range constructs {
			if constructs[i].form.MatchString(in) {
				return &constructs[i]
			}
		}
	}
	return nil
}

// leastLength is how many bytes a match of an expression has at least.
func leastLength(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		n := 0
		for _, r := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 || r == utf8.RuneError {
				n++ // another case may be shorter in UTF-8; a broken byte counts as U+FFFD
			} else {
				n += len(string(r))
			}
		}
		return n
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return leastLength(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min * leastLength(re.Sub[0])
	case syntax.OpConcat:
		n := 0
		for _, s := range re.Sub {
			n += leastLength(s)
		}
		return n
	case syntax.OpAlternate:
		n := leastLength(re.Sub[0])
		for _, s := range re.Sub[1:] {
			n = min(n, leastLength(s))
		}
		return n
	}
	return 0
}

func (c *compiler) regex(d *document, it *item, h how, g Getter) node {
	n := &regexNode{field: c.use(g), all: h.all}
	for i := range it.values {
		if re := c.compileRegexp(d, it, &it.values[i], h.flags); re != nil {
			n.res = append(n.res, *re)
		}
	}
	return n
}

func (c *compiler) exists(d *document, it *item, g Getter) node {
	if len(it.values) != 1 || it.values[0].kind != boolScalar {
		c.fail(d, it.line, it.col, it.path, CodePattern, "exists には true か false が必要です", "exists wants true or false")
		return constNode(false)
	}
	return existsNode{c.use(g), it.values[0].text == "true"}
}

func (c *compiler) cidr(d *document, it *item, h how, g Getter) node {
	n := &cidrNode{field: c.use(g)}
	for _, these := range c.values(d, it, h) {
		for i := range these {
			v := &these[i]
			p, err := netip.ParsePrefix(v.text)
			if err != nil {
				c.bad(d, it, v, problem.Quote(v.text)+" はネットワークではありません（例 10.0.0.0/8）", problem.Quote(v.text)+" is no network such as 10.0.0.0/8")
				continue
			}
			n.nets = append(n.nets, p.Masked())
		}
	}
	return n
}

func (c *compiler) number(d *document, it *item, h how, g Getter) node {
	if t := g.Type(); t != event.Int && t != event.None {
		c.fail(d, it.line, it.col, it.path, CodeModifier, it.field+" は数ではないため、"+h.op+" で比べられません",
			fmt.Sprintf("%s is %v: %s compares numbers", it.field, t, h.op))
		return constNode(false)
	}
	var any []node
	for i := range it.values {
		v := &it.values[i]
		n := &numberNode{field: c.use(g), op: h.op}
		f, err := strconv.ParseFloat(v.text, 64)
		if err != nil || v.kind != intScalar && v.kind != floatScalar {
			c.bad(d, it, v, problem.Quote(v.text)+" は数ではありません", problem.Quote(v.text)+" is not a number")
			continue
		}
		n.value = f
		if w, err := strconv.ParseInt(v.text, 10, 64); err == nil {
			n.whole, n.isInt = w, true
		}
		any = append(any, n)
	}
	if len(any) == 0 {
		return constNode(false)
	}
	return either(any...)
}

func (c *compiler) fieldref(d *document, it *item, h how, g Getter, ns names) node {
	how := map[string]shape{"": exact, "contains": within, "startswith": prefix, "endswith": suffix}[h.op]
	var nodes []node
	for i := range it.values {
		v := &it.values[i]
		other, ok := c.field(d, ns, v.text, v.line, v.col, it.path)
		if !ok {
			continue
		}
		nodes = append(nodes, &refNode{field: c.use(g), other: c.use(other), how: how, cased: h.cased})
	}
	switch {
	case len(nodes) == 0:
		return constNode(false)
	case h.all:
		return both(nodes...)
	}
	return either(nodes...)
}

// keywords compiles a line without a field ('|all': [...]).
func (c *compiler) keywords(d *document, it *item, h how) node {
	if h.op != "" && h.op != "re" && h.op != "contains" || h.cased || h.neq || h.ref || h.windash || h.expand || h.part != "" || len(h.encode) > 0 {
		c.fail(d, it.line, it.col, it.path, CodeUnhonoured, "フィールドのない検索で使える修飾子は all と re だけです", "a search without a field only takes all and re")
		return constNode(false)
	}
	n := &keywordNode{all: h.all}
	for i := range it.values {
		v := &it.values[i]
		switch {
		case h.op == "re":
			if re := c.compileRegexp(d, it, v, h.flags); re != nil {
				n.res = append(n.res, *re)
			}
		case v.kind == nullScalar || v.text == "":
			c.bad(d, it, v, "空の語は検索できません", "an empty word cannot be searched for")
		case !c.room(d, v, it.path):
			return constNode(false)
		default:
			n.patterns = append(n.patterns, newPattern(surround(parsePattern(v.text)), false))
		}
	}
	return n
}

// digest sums up what decides whether an event matches, as the file has it.
func (d *detection) digest(l *logsource, taxonomy string) uint64 {
	h := fnv.New64a()
	put := func(parts ...string) {
		for _, p := range parts {
			fmt.Fprintf(h, "%d:%s", len(p), p)
		}
	}
	put(l.category, l.product, l.service, taxonomy)
	for _, s := range d.selections {
		put("selection", s.name)
		for _, a := range s.alts {
			put("or")
			if a.keyword != nil {
				put(a.keyword.text)
			}
			for _, it := range a.items {
				put(it.field)
				put(it.mods...)
				for _, v := range it.values {
					put(v.text, strconv.Itoa(int(v.kind)))
				}
			}
		}
	}
	for _, ct := range d.conditions {
		put("condition", ct.text)
	}
	return h.Sum64()
}

// program closes the compiler.
func (c *compiler) program() *Program {
	for i, r := range c.rules {
		r.Index = i
	}
	p := &Program{Rules: c.rules, getters: c.getters, pool: newPool(c.getters), options: c.o}
	p.index(c.slot(actionID), c.slot(osID))
	return p
}

// slot is the slot of a field of the table, -1 if no rule uses it.
func (c *compiler) slot(id event.FieldID) int {
	if i, ok := c.slots[Getter{id: id}]; ok {
		return i
	}
	return -1
}
