package rules

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"sekisho/internal/problem"
)

// document is one YAML document: a detection rule, a correlation or a filter.
type document struct {
	file      *File
	builtin   bool
	line, col int
	bad       bool   // has problems of its own: it is not compiled
	setting   string // path of the setting that it was made of; "" for those of files

	title, id, name, status, level, version, summary string
	taxonomy                                         string // "ecs", "sigma" or ""
	levelSet                                         bool

	logsource logsource
	detection *detection
	corr      *corrDoc
	filter    *filterDoc
	addition  *additionDoc
}

type logsource struct {
	category, product, service string
	line, col                  int
}

// detection is named selections and what has to hold of them.
type detection struct {
	path       string // "detection" or "filter"
	selections []*selection
	conditions []condText // any of them
}

type condText struct {
	text      string
	line, col int
	expr      expr // nil if it could not be read
}

// selection is a named part of a detection: any of its alternatives matches.
type selection struct {
	name      string
	line, col int
	alts      []alternative
}

// alternative is a map of fields, of which all must match, or one keyword.
type alternative struct {
	items   []*item
	keyword *scalar
}

// item is one line of a selection: field, modifiers, values.
type item struct {
	field     string
	mods      []string
	values    []scalar
	path      string
	line, col int
}

type scalarKind uint8

const (
	textScalar scalarKind = iota
	intScalar
	floatScalar
	boolScalar
	nullScalar
)

// scalar is a value of a rule.
type scalar struct {
	text      string
	kind      scalarKind
	line, col int
}

type ref struct {
	name      string // rule id or name
	line, col int
	path      string
}

// corrDoc is the key "correlation" as written.
type corrDoc struct {
	typ       CorrelationType
	rules     []ref
	groupBy   []ref
	timespan  time.Duration
	fields    []ref
	conds     []Condition
	condAt    ref
	aliases   map[string]map[string]ref // alias -> rule -> field
	aliasList []string
	generate  bool
}

type filterDoc struct {
	rules     []ref
	any       bool // rules: any
	detection *detection
	until     time.Time // it holds for events before; zero: always
}

// additionDoc is the key "sekisho" as written.
type additionDoc struct {
	Addition
	groupBy    []ref
	given      map[string]bool // keys that it has itself
	thresholds []thresholdDoc
	firstSeen  *firstSeenDoc
	line, col  int
}

// firstSeenDoc is the key "first-seen" as written.
type firstSeenDoc struct {
	keys          []ref
	within, learn time.Duration
	line, col     int
}

type thresholdDoc struct {
	key  string
	rule ref
	def  int64
}

// sigmaKeys are the top-level keys of the specification. Others are allowed
// (the specification leaves room for custom ones) unless they look like a
// misspelt one of these.
var sigmaKeys = []string{"title", "id", "name", "related", "taxonomy", "status", "description", "license", "author",
	"references", "date", "modified", "logsource", "detection", "fields", "falsepositives", "level", "tags", "scope",
	"correlation", "generate", "filter", "sekisho"}

// Parse reads the documents of a rule file. name stands in messages. The error
// is [Problems]: every one of the file, in order. The file is returned with
// those documents that are right even so.
func Parse(name string, data []byte) (*File, error) {
	f := &File{Name: name}
	r := &reader{file: f}
	for _, n := range r.nodes(data) {
		from := len(r.problems)
		r.document(n)
		label := f.docs[len(f.docs)-1].label()
		for i := from; i < len(r.problems); i++ {
			r.problems[i].Rule = label
		}
	}
	f.inherit()
	if f.docs == nil && len(r.problems) == 0 {
		r.fail(nil, "", CodeYAML, "ルールが書かれていません", "there is no rule in the file")
	}
	if len(r.problems) == 0 {
		return f, nil
	}
	return f, problem.Sorted(r.problems)
}

// inherit fills in what a document leaves out that the first of the same table id
// in the file says: a rule of several documents tells itself once. Thresholds and
// first-seen belong to the document that has them.
func (f *File) inherit() {
	first := map[string]*additionDoc{}
	for _, d := range f.docs {
		a := d.addition
		if a == nil || a.Rule == "" {
			continue
		}
		from := first[a.Rule]
		if from == nil {
			first[a.Rule] = a
			continue
		}
		for key, take := range map[string]func(){
			"incidents":    func() { a.Incidents = from.Incidents },
			"title":        func() { a.Title = from.Title },
			"advice":       func() { a.Advice = from.Advice },
			"group-by":     func() { a.groupBy = from.groupBy },
			"repeat-after": func() { a.RepeatAfter = from.RepeatAfter },
			"respond":      func() { a.Respond = from.Respond },
		} {
			if !a.given[key] && from.given[key] {
				take()
				a.given[key] = true
			}
		}
	}
}

// label is what messages call the document.
func (d *document) label() string {
	if d.setting != "" {
		return ""
	}
	for _, s := range []string{d.title, d.name, d.id} {
		if s != "" {
			return s
		}
	}
	return ""
}

func (r *reader) document(n *yaml.Node) {
	d := &document{file: r.file, line: n.Line, col: n.Column, level: "medium"}
	r.doc = d
	defer func() { r.doc = nil }()
	r.file.docs = append(r.file.docs, d)
	pairs := r.pairs(n, "")
	if n.Kind != yaml.MappingNode {
		return
	}
	var detectionNode, corrNode, filterNode, additionNode, generateNode *yaml.Node
	for _, p := range pairs {
		if p.name == "title" {
			d.title, _ = r.textUpTo(p.val, "title", maxTitle)
		}
	}
	logsourceSeen := false
	for _, p := range pairs {
		switch p.name {
		case "title":
		case "id":
			d.id, _ = r.text(p.val, "id")
			if d.id != "" && !uuidForm.MatchString(d.id) {
				r.fail(p.val, "id", CodeType, "id は UUID でなければなりません", "the id has to be a UUID")
			}
			d.id = strings.ToLower(d.id)
		case "name":
			d.name, _ = r.textUpTo(p.val, "name", maxTitle)
		case "status":
			d.status, _ = r.text(p.val, "status")
			r.oneOf(p.val, "status", d.status, []string{"stable", "test", "experimental", "deprecated", "unsupported"})
		case "level":
			d.level, _ = r.text(p.val, "level")
			d.levelSet = true
			r.oneOf(p.val, "level", d.level, Levels)
		case "description":
			d.summary, _ = r.textUpTo(p.val, "description", maxDescription)
		case "date", "modified":
			s, _ := r.text(p.val, p.name)
			if p.name == "modified" || d.version == "" {
				d.version = s
			}
		case "taxonomy":
			d.taxonomy, _ = r.text(p.val, "taxonomy")
			r.oneOf(p.val, "taxonomy", d.taxonomy, []string{"sigma", "ecs"})
		case "logsource":
			logsourceSeen = true
			r.logsource(p.val, &d.logsource)
		case "detection":
			detectionNode = p.val
		case "correlation":
			corrNode = p.val
		case "filter":
			filterNode = p.val
		case "sekisho":
			additionNode = p.val
		case "generate":
			generateNode = p.val
		case "action": // of Sigma 1: documents that complete each other
			if s, _ := r.text(p.val, "action"); s == "global" || s == "reset" || s == "repeat" {
				r.fail(p.key, "action", CodeUnhonoured, "action: "+s+"（Sigma 1）には対応していません。文書ごとに全部書いてください",
					"action: "+s+" (Sigma 1) is not honoured: write each document in full")
			}
		default:
			if hint := problem.Suggest(p.name, sigmaKeys); hint != "" && !slices.Contains(sigmaKeys, p.name) {
				r.fail(p.key, p.name, CodeKey, "知らないキーです", "unknown key").Hint = hint
			} else {
				r.sane(p.val, p.name, 0)
			}
		}
	}
	at := &yaml.Node{Line: n.Line, Column: n.Column}
	if d.title == "" {
		r.fail(at, "title", CodeKey, "title がありません", "there is no title")
	}
	kinds := 0
	for _, k := range []*yaml.Node{detectionNode, corrNode, filterNode} {
		if k != nil {
			kinds++
		}
	}
	if kinds != 1 {
		r.fail(at, "", CodeKey, "detection、correlation、filter のうちどれか 1 つだけが必要です",
			"exactly one of detection, correlation and filter is needed")
		return
	}
	switch {
	case detectionNode != nil:
		if !logsourceSeen {
			r.fail(at, "logsource", CodeKey, "logsource がありません", "there is no logsource")
		}
		d.detection = r.detection(detectionNode, "detection", nil)
	case corrNode != nil:
		d.corr = r.correlation(corrNode)
	case filterNode != nil:
		d.filter = r.filter(filterNode)
	}
	if generateNode != nil {
		g := r.truth(generateNode, "generate")
		if d.corr == nil {
			r.fail(generateNode, "generate", CodeKey, "generate は correlation の文書だけに書けます", "generate belongs to a correlation")
		} else {
			d.corr.generate = g
		}
	}
	if additionNode != nil {
		if d.filter != nil {
			r.fail(additionNode, "sekisho", CodeKey, "filter の文書には sekisho を書けません", "a filter takes no sekisho key")
		}
		d.addition = r.addition(additionNode)
		if f := d.addition.firstSeen; f != nil && d.corr != nil {
			r.failAt(f.line, f.col, "sekisho.first-seen", CodeUnhonoured, "first-seen は detection のルールだけに書けます。correlation が数えるルールに書いてください",
				"first-seen belongs to a detection rule: put it into the rule that the correlation counts")
		}
	}
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

func (r *reader) oneOf(n *yaml.Node, path, got string, words []string) {
	if got == "" || slices.Contains(words, got) {
		return
	}
	r.fail(n, path, CodeType, fmt.Sprintf("%s は使えません（%s のどれか）", problem.Quote(got), strings.Join(words, "、")),
		fmt.Sprintf("%s is none of %s", problem.Quote(got), strings.Join(words, ", "))).Hint = problem.Suggest(got, words)
}

// sane looks through a part that the engine does not use, for what no rule may
// have.
func (r *reader) sane(n *yaml.Node, path string, depth int) {
	if !r.plain(n, path) {
		return
	}
	for _, c := range n.Content {
		r.sane(c, path, depth+1)
	}
}

func (r *reader) logsource(n *yaml.Node, l *logsource) {
	l.line, l.col = n.Line, n.Column
	for _, p := range r.pairs(n, "logsource") {
		path := "logsource." + p.name
		switch p.name {
		case "category":
			l.category, _ = r.text(p.val, path)
		case "product":
			l.product, _ = r.text(p.val, path)
		case "service":
			l.service, _ = r.text(p.val, path)
		case "definition":
		default: // the specification leaves room for others, which are not evaluated
			if hint := problem.Suggest(p.name, []string{"category", "product", "service", "definition"}); hint != "" {
				r.fail(p.key, path, CodeKey, "知らないキーです", "unknown key").Hint = hint
			} else {
				r.sane(p.val, path, 0)
			}
		}
	}
}

// detection reads selections and conditions; skip names keys that belong to
// somebody else.
func (r *reader) detection(n *yaml.Node, path string, skip []string) *detection {
	d := &detection{path: path}
	var cond *yaml.Node
	for _, p := range r.pairs(n, path) {
		switch {
		case slices.Contains(skip, p.name):
		case p.name == "condition":
			cond = p.val
		case p.name == "timeframe":
			r.fail(p.key, join(path, "timeframe"), CodeUnhonoured, "timeframe には対応していません。correlation を使ってください",
				"timeframe is not honoured: write a correlation")
		default:
			if !selectionName.MatchString(p.name) {
				r.fail(p.key, join(path, p.name), CodeKey, "選択の名前には英数字と _ - . が使えます", "the name of a selection is made of letters, digits, _ - and .")
				continue
			}
			s := &selection{name: p.name, line: p.key.Line, col: p.key.Column}
			r.selection(s, p.val, join(path, p.name))
			d.selections = append(d.selections, s)
		}
	}
	if n.Kind != yaml.MappingNode {
		return d
	}
	if cond == nil {
		r.fail(n, join(path, "condition"), CodeKey, "condition がありません", "there is no condition")
		return d
	}
	for _, c := range r.texts(cond, join(path, "condition")) {
		ct := condText{text: c.Value, line: c.Line, col: c.Column}
		e, err := parseCondition(c.Value, d.selections)
		if err != nil {
			col := c.Column + err.at
			if c.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
				col++
			}
			if c.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 || strings.Contains(c.Value, "\n") {
				col = c.Column
			}
			p := r.failAt(c.Line, col, join(path, "condition"), err.code, err.ja, err.en)
			p.Hint = err.hint
		}
		ct.expr = e
		d.conditions = append(d.conditions, ct)
	}
	if len(d.selections) == 0 {
		r.fail(n, path, CodeKey, "選択（selection）がありません", "there is no selection")
	}
	return d
}

var selectionName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

func (r *reader) selection(s *selection, n *yaml.Node, path string) {
	if !r.plain(n, path) {
		return
	}
	switch {
	case n.Kind == yaml.MappingNode:
		if items := r.items(n, path); items != nil {
			s.alts = append(s.alts, alternative{items: items})
		}
	case n.Kind == yaml.SequenceNode:
		if len(n.Content) == 0 {
			r.wrong(n, path, "1 つ以上の要素", "at least one entry")
		}
		for i, c := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			if !r.plain(c, at) {
				continue
			}
			switch c.Kind {
			case yaml.MappingNode:
				if items := r.items(c, at); items != nil {
					s.alts = append(s.alts, alternative{items: items})
				}
			case yaml.ScalarNode:
				if null(c) {
					r.wrong(c, at, "文字列", "text")
					continue
				}
				k := r.scalar(c)
				s.alts = append(s.alts, alternative{keyword: &k})
			default:
				r.wrong(c, at, "キーと値の組または文字列", "a map or text")
			}
		}
	case n.Kind == yaml.ScalarNode && !null(n):
		k := r.scalar(n)
		s.alts = append(s.alts, alternative{keyword: &k})
	default:
		r.wrong(n, path, "キーと値の組またはリスト", "a map or a list")
	}
}

func (r *reader) items(n *yaml.Node, path string) []*item {
	pairs := r.pairs(n, path)
	if len(n.Content) == 0 {
		r.wrong(n, path, "1 つ以上のフィールド", "at least one field")
		return nil
	}
	items := make([]*item, 0, len(pairs))
	for _, p := range pairs {
		parts := strings.Split(p.name, "|")
		it := &item{field: parts[0], mods: parts[1:], path: join(path, p.name), line: p.key.Line, col: p.key.Column}
		if !r.plain(p.val, it.path) {
			continue
		}
		switch p.val.Kind {
		case yaml.ScalarNode:
			it.values = []scalar{r.scalar(p.val)}
		case yaml.SequenceNode:
			if len(p.val.Content) == 0 {
				r.wrong(p.val, it.path, "1 つ以上の値", "at least one value")
			}
			for i, c := range p.val.Content {
				at := fmt.Sprintf("%s[%d]", it.path, i)
				if !r.plain(c, at) {
					continue
				}
				if c.Kind != yaml.ScalarNode {
					r.wrong(c, at, "値", "a value")
					continue
				}
				it.values = append(it.values, r.scalar(c))
			}
		default:
			r.wrong(p.val, it.path, "値またはリスト", "a value or a list")
		}
		items = append(items, it)
	}
	return items
}

func (r *reader) scalar(n *yaml.Node) scalar {
	s := scalar{text: n.Value, line: n.Line, col: n.Column}
	switch n.ShortTag() {
	case "!!int":
		s.kind = intScalar
		if v, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64); err == nil {
			s.text = strconv.FormatInt(v, 10)
		}
	case "!!float":
		s.kind = floatScalar
	case "!!bool":
		s.kind = boolScalar
		s.text = strings.ToLower(n.Value)
	case "!!null":
		s.kind = nullScalar
	}
	return s
}

func (r *reader) refs(n *yaml.Node, path string) []ref {
	var out []ref
	for _, c := range r.texts(n, path) {
		out = append(out, ref{c.Value, c.Line, c.Column, path})
	}
	return out
}

var timespanForm = regexp.MustCompile(`^([0-9]{1,9})([smhd])$`)

// maxTimespan is the longest timespan: a year, and a month for the rules that look
// at the same month of the year before. Windows of more than a week are kept in a
// bounded form (package correlate).
const maxTimespan = 400 * 24 * time.Hour

func (r *reader) timespan(n *yaml.Node, path string, limit time.Duration) time.Duration {
	s, ok := r.text(n, path)
	if !ok {
		return 0
	}
	m := timespanForm.FindStringSubmatch(s)
	if m == nil {
		r.fail(n, path, CodeType, problem.Quote(s)+" は期間ではありません（数字と s、m、h、d のどれか 1 つ。例 90m）",
			problem.Quote(s)+" is not a time span (digits and one of s, m, h, d, such as 90m)")
		return 0
	}
	v, _ := strconv.ParseInt(m[1], 10, 64)
	d := time.Duration(v) * map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[m[2]]
	switch {
	case v == 0:
		r.fail(n, path, CodeType, "期間は 0 より長くなければなりません", "a time span has to be longer than 0")
	case d/time.Second > limit/time.Second || d < 0:
		r.fail(n, path, CodeUnhonoured, fmt.Sprintf("%s より長い期間には対応していません", days(limit)), "time spans of more than "+days(limit)+" are not honoured")
	}
	return d
}

// days is a time span as a rule writes it.
func days(d time.Duration) string {
	switch {
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

var corrKeys = []string{"type", "rules", "group-by", "timespan", "condition", "aliases", "generate"}

var honouredTypes = []string{string(EventCount), string(ValueCount), string(ValueSum), string(ValueAvg), string(ValuePercentile),
	string(Temporal), string(TemporalOrdered)}

// temporal reports whether the type asks which rules matched.
func (t CorrelationType) temporal() bool { return t == Temporal || t == TemporalOrdered }

// oneValue reports whether the type looks at the values of a single field.
func (t CorrelationType) oneValue() bool {
	return t == ValueSum || t == ValueAvg || t == ValuePercentile
}

// fractions reports whether what the type computes need not be a whole number.
func (t CorrelationType) fractions() bool { return t == ValueAvg || t == ValuePercentile }

func (r *reader) correlation(n *yaml.Node) *corrDoc {
	c := &corrDoc{condAt: ref{line: n.Line, col: n.Column}}
	var cond *yaml.Node
	seen := map[string]bool{}
	for _, p := range r.pairs(n, "correlation") {
		path := "correlation." + p.name
		seen[p.name] = true
		switch p.name {
		case "type":
			s, _ := r.text(p.val, path)
			c.typ = CorrelationType(s)
			if s == "value_median" {
				r.fail(p.val, path, CodeUnhonoured, "value_median という種類はありません（中央値は value_percentile の 50 です）",
					"there is no type value_median (the median is the value_percentile of 50)").Hint = string(ValuePercentile)
			} else {
				r.oneOf(p.val, path, s, honouredTypes)
			}
		case "rules":
			c.rules = r.refs(p.val, path)
		case "group-by":
			c.groupBy = r.refs(p.val, path)
		case "timespan":
			c.timespan = r.timespan(p.val, path, maxTimespan)
		case "condition":
			cond = p.val
		case "aliases":
			r.aliases(p.val, c)
		case "generate": // where some tools write it
			c.generate = r.truth(p.val, path)
		default:
			r.fail(p.key, path, CodeKey, "知らないキーです", "unknown key").Hint = problem.Suggest(p.name, corrKeys)
		}
	}
	if n.Kind != yaml.MappingNode {
		return c
	}
	for _, k := range []string{"type", "rules", "timespan"} {
		if !seen[k] {
			r.fail(n, "correlation."+k, CodeKey, k+" がありません", "there is no "+k)
		}
	}
	if len(c.rules) == 0 && seen["rules"] {
		r.fail(n, "correlation.rules", CodeType, "1 つ以上のルールが必要です", "at least one rule is needed")
	}
	switch {
	case cond != nil:
		r.condition(cond, c)
	case !c.typ.temporal():
		r.fail(n, "correlation.condition", CodeKey, "condition がありません", "there is no condition")
	}
	return c
}

var condOps = []string{"gt", "gte", "lt", "lte", "eq", "neq"}

func (r *reader) condition(n *yaml.Node, c *corrDoc) {
	c.condAt = ref{line: n.Line, col: n.Column, path: "correlation.condition"}
	compared := false
	for _, p := range r.pairs(n, "correlation.condition") {
		path := "correlation.condition." + p.name
		switch {
		case p.name == "field":
			c.fields = r.refs(p.val, path)
		case slices.Contains(condOps, p.name):
			compared = true
			if v, ok := r.bound(p.val, path, c.typ); ok {
				c.conds = append(c.conds, Condition{p.name, v})
			}
		default:
			r.fail(p.key, path, CodeKey, "知らないキーです", "unknown key").Hint = problem.Suggest(p.name, append([]string{"field"}, condOps...))
		}
	}
	if n.Kind != yaml.MappingNode {
		return
	}
	if !compared {
		r.fail(n, "correlation.condition", CodeKey, "gt、gte、lt、lte、eq、neq のどれかが必要です", "one of gt, gte, lt, lte, eq, neq is needed")
	}
	switch values := c.typ == ValueCount || c.typ.oneValue(); {
	case !slices.Contains(honouredTypes, string(c.typ)): // told already
		return
	case values && len(c.fields) == 0:
		r.fail(n, "correlation.condition.field", CodeKey, string(c.typ)+" には field が必要です", string(c.typ)+" needs a field")
	case !values && len(c.fields) > 0:
		r.fail(n, "correlation.condition.field", CodeKey, string(c.typ)+" に field は使えません", string(c.typ)+" takes no field")
	case c.typ.oneValue() && len(c.fields) > 1:
		r.fail(n, "correlation.condition.field", CodeType, string(c.typ)+" の field は 1 つだけです", string(c.typ)+" takes one field")
	}
	if len(c.conds) > 0 && !possible(c.typ, len(c.rules), c.conds) {
		r.fail(n, "correlation.condition", CodeType, "この条件は決して成り立ちません", "this condition can never hold")
	}
}

// bound is the number of a condition: whole, or for means and percentages any.
func (r *reader) bound(n *yaml.Node, path string, t CorrelationType) (float64, bool) {
	if !t.fractions() || null(n) || n.ShortTag() != "!!float" {
		v, ok := r.whole(n, path)
		if ok && (v > maxExact || v < -maxExact) {
			r.fail(n, path, CodeBounds, fmt.Sprintf("数が大きすぎます（上限は %d）", maxExact), fmt.Sprintf("numbers go up to %d", maxExact))
			return 0, false
		}
		return float64(v), ok
	}
	if r.plain(n, path) && n.Kind == yaml.ScalarNode {
		if v, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64); err == nil && math.Abs(v) <= maxExact {
			return v, true
		}
	}
	r.wrong(n, path, "数", "a number")
	return 0, false
}

// maxExact is the largest whole number up to which a float64 holds every one: 2^53.
const maxExact = 1 << 53

// possible reports whether some outcome fulfils all conditions. Windows are looked
// at when an event joins them, so that a count is at least 1 then.
func possible(t CorrelationType, rules int, conds []Condition) bool {
	least, most, step := math.Inf(-1), math.Inf(1), 1.0
	switch t {
	case EventCount:
		least = 1
	case ValueCount:
		least = 0 // of events without the field
	case Temporal, TemporalOrdered:
		least, most = 1, float64(rules)
	case ValuePercentile:
		least, most = 0, 100
	}
	// Between two neighbouring bounds, and beyond the outermost, all numbers are alike.
	at := []float64{least, most}
	for _, cond := range conds {
		at = append(at, cond.Value-step, cond.Value, cond.Value+step)
	}
	if t.fractions() {
		for _, a := range conds {
			for _, b := range conds {
				at = append(at, (a.Value+b.Value)/2)
			}
			at = append(at, (a.Value+least)/2, (a.Value+most)/2)
		}
	}
	return slices.ContainsFunc(at, func(n float64) bool {
		return n >= least && n <= most && !math.IsInf(n, 0) &&
			!slices.ContainsFunc(conds, func(cond Condition) bool { return !cond.Holds(n) })
	})
}

func (r *reader) aliases(n *yaml.Node, c *corrDoc) {
	c.aliases = map[string]map[string]ref{}
	for _, p := range r.pairs(n, "correlation.aliases") {
		m := map[string]ref{}
		for _, q := range r.pairs(p.val, "correlation.aliases."+p.name) {
			path := "correlation.aliases." + p.name + "." + q.name
			if s, ok := r.text(q.val, path); ok {
				m[q.name] = ref{s, q.val.Line, q.val.Column, path}
			}
		}
		c.aliases[p.name] = m
		c.aliasList = append(c.aliasList, p.name)
	}
}

func (r *reader) filter(n *yaml.Node) *filterDoc {
	f := &filterDoc{}
	seen := false
	for _, p := range r.pairs(n, "filter") {
		if p.name == "rules" {
			seen = true
			f.rules = r.refs(p.val, "filter.rules")
			f.any = len(f.rules) == 1 && strings.EqualFold(f.rules[0].name, "any")
			if len(f.rules) == 0 {
				r.fail(p.val, "filter.rules", CodeType, "1 つ以上のルールが必要です", "at least one rule is needed")
			}
		}
	}
	if !seen {
		r.fail(n, "filter.rules", CodeKey, "rules がありません", "there is no list of rules")
	}
	f.detection = r.detection(n, "filter", []string{"rules"})
	return f
}

var additionKeys = []string{"rule", "incidents", "title", "advice", "group-by", "repeat-after", "respond", "thresholds", "first-seen"}

// responses are what a rule may allow. Whether they run is for the settings.
var responses = []string{"warn-user", "eject", "block", "kill", "isolate"}

var tableID = regexp.MustCompile(`^[A-Z][A-Z0-9]{1,11}(-[0-9]{1,3})?$`)

func (r *reader) addition(n *yaml.Node) *additionDoc {
	a := &additionDoc{line: n.Line, col: n.Column, given: map[string]bool{}}
	a.RepeatAfter = DefaultRepeatAfter
	for _, p := range r.pairs(n, "sekisho") {
		path := "sekisho." + p.name
		a.given[p.name] = true
		switch p.name {
		case "rule":
			a.Rule, _ = r.text(p.val, path)
			if a.Rule != "" && !tableID.MatchString(a.Rule) {
				r.fail(p.val, path, CodeType, problem.Quote(a.Rule)+" は番号ではありません（例 USB-3）", problem.Quote(a.Rule)+" is not an id such as USB-3")
			}
		case "incidents":
			for _, c := range r.texts(p.val, path) {
				a.Incidents = append(a.Incidents, c.Value)
			}
		case "title":
			a.Title = r.bilingual(p.val, path)
		case "advice":
			a.Advice = r.bilingual(p.val, path)
		case "group-by":
			a.groupBy = r.refs(p.val, path)
		case "repeat-after":
			a.RepeatAfter = r.timespan(p.val, path, 400*24*time.Hour)
		case "respond":
			for _, c := range r.texts(p.val, path) {
				r.oneOf(c, path, c.Value, responses)
				a.Respond = append(a.Respond, c.Value)
			}
		case "thresholds":
			r.thresholds(p.val, a)
		case "first-seen":
			a.firstSeen = r.firstSeen(p.key, p.val)
		default:
			r.fail(p.key, path, CodeKey, "知らないキーです", "unknown key").Hint = problem.Suggest(p.name, additionKeys)
		}
	}
	return a
}

// maxKeys bounds what is remembered of each match of a rule with first-seen.
const maxKeys = 8

// firstSeen reads the key of that name, which stands at key.
func (r *reader) firstSeen(key, n *yaml.Node) *firstSeenDoc {
	const path = "sekisho.first-seen"
	f := &firstSeenDoc{line: key.Line, col: key.Column}
	seen := map[string]bool{}
	for _, p := range r.pairs(n, path) {
		at := path + "." + p.name
		seen[p.name] = true
		switch p.name {
		case "keys":
			f.keys = r.refs(p.val, at)
			for i, k := range f.keys {
				if slices.ContainsFunc(f.keys[:i], func(o ref) bool { return o.name == k.name }) {
					r.failAt(k.line, k.col, at, CodeKey, problem.Quote(k.name)+" が 2 回書かれています", problem.Quote(k.name)+" is given twice")
				}
			}
			if len(f.keys) == 0 || len(f.keys) > maxKeys {
				r.fail(p.val, at, CodeBounds, fmt.Sprintf("フィールドは 1 個から %d 個までです", maxKeys), fmt.Sprintf("1 to %d fields are needed", maxKeys))
			}
		case "within":
			f.within = r.timespan(p.val, at, maxTimespan)
		case "learn":
			f.learn = r.timespan(p.val, at, maxTimespan)
		default:
			r.fail(p.key, at, CodeKey, "知らないキーです", "unknown key").Hint = problem.Suggest(p.name, []string{"keys", "within", "learn"})
		}
	}
	for _, k := range []string{"keys", "within"} {
		if n.Kind == yaml.MappingNode && !seen[k] {
			r.fail(n, path+"."+k, CodeKey, k+" がありません", "there is no "+k)
		}
	}
	return f
}

func (r *reader) bilingual(n *yaml.Node, path string) (t Text) {
	for _, p := range r.pairs(n, path) {
		at := path + "." + p.name
		switch p.name {
		case "ja":
			t.JA, _ = r.text(p.val, at)
			t.JA = strings.TrimSpace(t.JA)
		case "en":
			t.EN, _ = r.text(p.val, at)
			t.EN = strings.TrimSpace(t.EN)
		default:
			r.fail(p.key, at, CodeKey, "知らないキーです（ja と en が使えます）", "unknown key (ja and en are known)")
		}
	}
	return t
}

func (r *reader) thresholds(n *yaml.Node, a *additionDoc) {
	for _, p := range r.pairs(n, "sekisho.thresholds") {
		path := "sekisho.thresholds." + p.name
		t := thresholdDoc{key: p.name}
		for _, q := range r.pairs(p.val, path) {
			switch q.name {
			case "rule":
				s, _ := r.text(q.val, path+".rule")
				t.rule = ref{s, q.val.Line, q.val.Column, path + ".rule"}
			case "default":
				t.def, _ = r.whole(q.val, path+".default")
			default:
				r.fail(q.key, path+"."+q.name, CodeKey, "知らないキーです", "unknown key").Hint = problem.Suggest(q.name, []string{"rule", "default"})
			}
		}
		if t.rule.name == "" && p.val.Kind == yaml.MappingNode {
			r.fail(p.val, path+".rule", CodeKey, "rule（correlation の name）がありません", "there is no rule (the name of a correlation)")
		}
		a.thresholds = append(a.thresholds, t)
	}
}
