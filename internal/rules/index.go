package rules

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"sekisho/internal/event"
)

// The index answers what an event's texts hold, for all rules at once, and so
// which rules it can match at all:
//
//   - By the event's action and system: a bucket holds the rules that these
//     leave.
//   - One pass over each field that the rules of a bucket name (finder) finds the
//     facts: "the command line holds one of these words", "the image is one of
//     these". Facts are bits.
//   - Each rule has a few facts of which one has to hold for it to match; they
//     make it a candidate. Only candidates are evaluated, and of their condition
//     most is bits by then; what the index does not know (words of three bytes
//     and less, what a rule excludes, numbers, regular expressions) is worked out
//     for them alone.

// place names a bucket.
type place struct{ action, os string }

// bucket is the rules that events of one action and system can match. It is
// immutable once built.
type bucket struct {
	entries []entry
	always  []uint64 // bit set of entries that are candidates whatever the facts
	finders []finder
	asks    [][]int32 // by fact: entries that it makes candidates
	memos   int       // how many there are
}

// entry is a rule and what of its condition the bucket does not vouch for.
type entry struct {
	rule *Rule
	node node
}

func (p *Program) index(actionSlot, osSlot int) {
	actions, systems := []string{""}, []string{""}
	add := func(list *[]string, n node, slot int) {
		values, _ := valuesOf(n, slot)
		for _, v := range values {
			if !slices.Contains(*list, v) {
				*list = append(*list, v)
			}
		}
	}
	for _, r := range p.Rules {
		if r.node != nil && !r.Disabled {
			add(&actions, r.node, actionSlot)
			add(&systems, r.node, osSlot)
		}
	}
	p.buckets = make(map[place]*bucket, len(actions)*len(systems))
	for _, a := range actions {
		for _, o := range systems {
			b := &bucket{}
			for _, r := range p.Rules {
				if r.node != nil && !r.Disabled && admits(r.node, actionSlot, a) && admits(r.node, osSlot, o) {
					b.entries = append(b.entries, entry{r, without(without(r.node, actionSlot, a), osSlot, o)})
				}
			}
			b.build(p.getters)
			p.buckets[place{a, o}] = b
		}
	}
}

// admits reports whether a node can match where a field has this value; "" is
// any value that no rule names.
func admits(n node, slot int, value string) bool {
	values, any := valuesOf(n, slot)
	return any || slices.Contains(values, value)
}

// without is a node less its conditions that a field having this value fulfils.
func without(n node, slot int, value string) node {
	fulfilled := func(n node) bool {
		t, ok := n.(*textNode)
		if !ok || value == "" || t.cased {
			return false
		}
		values, any := valuesOf(t, slot)
		return !any && slices.Contains(values, value)
	}
	if fulfilled(n) {
		return constNode(true)
	}
	all, ok := n.(allNode)
	if !ok {
		return n
	}
	var rest []node
	for _, x := range all {
		if !fulfilled(x) {
			rest = append(rest, x)
		}
	}
	return both(rest...)
}

// bucket is where to look for the rules of an event.
func (p *Program) bucket(e *event.Event) *bucket {
	at := place{action: string(e.Action)}
	if e.Host != nil {
		at.os = e.Host.OSType
	}
	if b, ok := p.buckets[at]; ok {
		return b
	}
	// Seldom: an action or system in capitals, or one that no rule names.
	at.action, at.os = fold(at.action), fold(at.os)
	if _, ok := p.buckets[place{"", at.os}]; !ok {
		at.os = ""
	}
	if _, ok := p.buckets[place{at.action, ""}]; !ok {
		at.action = ""
	}
	return p.buckets[at]
}

// about is the rules that an event of this action and system can match.
func (p *Program) about(e *event.Event) []*Rule {
	var out []*Rule
	for _, en := range p.bucket(e).entries {
		out = append(out, en.rule)
	}
	return out
}

// build makes the facts of a bucket and what finds them.
func (b *bucket) build(getters []Getter) {
	ix := indexer{facts: map[string]factNode{}, lits: map[litKey]*lit{}, memos: map[string]memoNode{}}
	for i := range b.entries {
		en := &b.entries[i]
		en.node = ix.rewrite(en.node)
	}
	ix.searched(getters)
	b.always = make([]uint64, (len(b.entries)+63)/64)
	candidates := make([][]factNode, len(b.entries))
	for i := range b.entries {
		en := &b.entries[i]
		en.node = ix.shared(ix.keywords(en.node))
		facts, _, ok := ix.triggers(en.node)
		if !ok {
			b.always[i>>6] |= 1 << (i & 63)
		}
		candidates[i] = facts
	}
	b.asks = make([][]int32, len(ix.weights))
	for i, facts := range candidates {
		for _, f := range facts {
			if l := b.asks[f]; len(l) == 0 || l[len(l)-1] != int32(i) {
				b.asks[f] = append(l, int32(i))
			}
		}
	}
	b.finders = ix.finders()
	b.memos = len(ix.memos)
}

// factNode is a fact that the finders establish: one of some literals occurs in
// a field.
type factNode int32

func (n factNode) match(s *scratch) bool { return s.facts[n>>6]&(1<<(n&63)) != 0 }
func (n factNode) cost() int             { return 0 }

// memoNode is a condition that is no fact, answered once an event for all the
// rules that have it: mostly exceptions, which rules copy from each other.
type memoNode struct {
	id int32
	x  node
}

func (n memoNode) cost() int { return n.x.cost() }

func (n memoNode) match(s *scratch) bool {
	w, bit := n.id>>6, uint64(1)<<(n.id&63)
	if s.asked[w]&bit == 0 {
		s.asked[w] |= bit
		if n.x.match(s) {
			s.held[w] |= bit
		}
	}
	return s.held[w]&bit != 0
}

// litKey is a literal to look for in the folded texts of a field.
type litKey struct {
	field int
	shape shape // exact, prefix, suffix, within
	text  string
}

// lit is a literal and the facts that it establishes.
type lit struct {
	litKey
	anchor int // place of the group of bytes by which it is found
	facts  []int32
}

// indexer makes facts of the nodes of one bucket.
type indexer struct {
	facts   map[string]factNode // by their literals
	weights []float64           // by fact: how often it holds, by estimate
	lits    map[litKey]*lit
	memos   map[string]memoNode
	order   []*lit // as they came, so that a program is built the same way each time

	// The fields of the event table that finders go over anyhow, and the others:
	// keywords are looked for in all.
	named []int // slots
	other []event.FieldID
}

// fact is the fact that one of these literals occurs.
func (ix *indexer) fact(keys []litKey) factNode {
	name := nameOf(keys)
	if f, ok := ix.facts[name]; ok {
		return f
	}
	f := factNode(len(ix.weights))
	ix.facts[name] = f
	weight := 0.0
	for _, k := range keys {
		weight += commonness(k.text)
		l := ix.lits[k]
		if l == nil {
			l = &lit{litKey: k}
			ix.lits[k] = l
			ix.order = append(ix.order, l)
		}
		if n := len(l.facts); n == 0 || l.facts[n-1] != int32(f) {
			l.facts = append(l.facts, int32(f))
		}
	}
	ix.weights = append(ix.weights, weight)
	return f
}

func nameOf(keys []litKey) string {
	var name []byte
	for _, k := range keys {
		name = append(binary.AppendUvarint(name, uint64(k.field)), byte(k.shape))
		name = appendText(name, []byte(k.text))
	}
	return string(name)
}

func appendText(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// shared is a node in which what other rules ask too is asked once. It comes
// after all facts are known.
func (ix *indexer) shared(n node) node {
	flag := func(b bool) byte {
		if b {
			return 1
		}
		return 0
	}
	switch n := n.(type) {
	case *textNode:
		var literals []litKey
		sure := !n.all
		name := append(binary.AppendUvarint([]byte{'t'}, uint64(n.field)), flag(n.all), flag(n.cased))
		for i := range n.patterns {
			p := &n.patterns[i]
			keys, exact, ok := p.literals(n.field, n.cased)
			literals, sure = append(literals, keys...), sure && exact && ok
			name = appendText(append(name, byte(p.shape), byte(len(p.toks))), p.lit)
			for _, t := range p.toks {
				name = appendText(append(name, byte(t.kind)), t.lit)
			}
		}
		if f, ok := ix.facts[nameOf(literals)]; ok && sure {
			return f
		}
		return ix.memo(name, n)
	case *regexNode:
		name := append(binary.AppendUvarint([]byte{'r'}, uint64(n.field)), flag(n.all))
		for i := range n.res {
			name = appendText(name, []byte(n.res[i].re.String()))
		}
		return ix.memo(name, n)
	case notNode:
		return notNode{ix.shared(n.x)}
	case allNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.shared(x)
		}
		return both(out...)
	case anyNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.shared(x)
		}
		return either(out...)
	}
	return n
}

func (ix *indexer) memo(name []byte, n node) node {
	m, ok := ix.memos[string(name)]
	if !ok {
		m = memoNode{int32(len(ix.memos)), n}
		ix.memos[string(name)] = m
	}
	return m
}

// rewrite is a node with facts in the place of what finders find out. What
// stands below a "not" stays: looking for what rules exclude would cost every
// event, and asking it of candidates costs few.
func (ix *indexer) rewrite(n node) node {
	switch n := n.(type) {
	case *textNode:
		return ix.text(n)
	case *regexNode:
		return ix.regex(n)
	case allNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.rewrite(x)
		}
		return both(out...)
	case anyNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.rewrite(x)
		}
		return either(out...)
	}
	return n
}

func (ix *indexer) text(n *textNode) node {
	var facts []node      // of "all"
	var rest []pattern    // of "all": not known by facts alone
	var literals []litKey // of "any"
	exact := true
	for i := range n.patterns {
		p := &n.patterns[i]
		keys, sure, ok := p.literals(n.field, n.cased)
		exact = exact && sure
		switch {
		case n.all:
			if ok {
				facts = append(facts, ix.fact(keys))
			}
			if !ok || !sure {
				rest = append(rest, *p)
			}
		case !ok:
			return n // whatever the others are, this one may match
		default:
			literals = append(literals, keys...)
		}
	}
	switch {
	case n.all && len(rest) > 0:
		return both(append(facts, newText(n.field, rest, true, n.cased))...)
	case n.all:
		return both(facts...)
	case exact:
		return ix.fact(literals)
	}
	return both(ix.fact(literals), n)
}

func (ix *indexer) regex(n *regexNode) node {
	var out []node
	for i := range n.res {
		var x node = &regexNode{field: n.field, res: n.res[i : i+1], all: n.all}
		if lits := n.res[i].need.any; len(lits) > 0 {
			var keys []litKey
			for _, l := range lits {
				keys = append(keys, litKey{n.field, within, l})
			}
			x = both(ix.fact(keys), x)
		}
		out = append(out, x)
	}
	if n.all {
		return both(out...)
	}
	return either(out...)
}

// searched notes the fields that finders go over.
func (ix *indexer) searched(getters []Getter) {
	named := map[event.FieldID]bool{}
	for _, l := range ix.order {
		if g := &getters[l.field]; g.from == fromTable && !named[g.id] {
			named[g.id] = true
			ix.named = append(ix.named, l.field)
		}
	}
	for id := range event.FieldID(fields) {
		if !named[id] {
			ix.other = append(ix.other, id)
		}
	}
}

// keywords is a rewritten node with facts for its keywords, as far as fields are
// searched for other words too.
func (ix *indexer) keywords(n node) node {
	switch n := n.(type) {
	case *keywordNode:
		var out []node
		for i := range n.patterns {
			p := &n.patterns[i]
			rest := &keywordNode{patterns: n.patterns[i : i+1], all: n.all}
			var x node = rest
			if p.shape == within && len(p.lit) >= gramLen && len(ix.named) > 0 {
				var keys []litKey
				for _, slot := range ix.named {
					keys = append(keys, litKey{slot, within, string(p.lit)})
				}
				rest.others = ix.textual(p)
				x = either(ix.fact(keys), rest)
			}
			out = append(out, x)
		}
		for i := range n.res {
			out = append(out, &keywordNode{res: n.res[i : i+1], all: n.all})
		}
		if n.all {
			return both(out...)
		}
		return either(out...)
	case allNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.keywords(x)
		}
		return both(out...)
	case anyNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = ix.keywords(x)
		}
		return either(out...)
	}
	return n
}

// textual is the fields outside finders that can hold a pattern's literal.
func (ix *indexer) textual(p *pattern) []fieldGroup {
	var numbers charset
	numbers.add("0123456789+-.:tz" + "true" + "false") // folded
	out := []fieldGroup{}                              // not nil, which means all fields
	for _, id := range ix.other {
		if t := id.Type(); t == event.String || t == event.List || numbers.holds(&p.chars) {
			i := slices.IndexFunc(out, func(g fieldGroup) bool { return g.payload == payloadOf[id] })
			if i < 0 {
				i = len(out)
				out = append(out, fieldGroup{payload: payloadOf[id]})
			}
			out[i].ids = append(out[i].ids, id)
		}
	}
	return out
}

// literals is what a text has to hold one of to match the pattern; sure says
// that it then does match, ok that the finders can look for them.
func (p *pattern) literals(field int, cased bool) (keys []litKey, sure, ok bool) {
	key := func(s shape, text []byte) litKey { return litKey{field, s, fold(string(text))} }
	switch p.shape {
	case exact, prefix, suffix, within:
		if cased && !utf8.Valid(p.lit) {
			return nil, false, false // half a character: folding may change it
		}
		k := key(p.shape, p.lit)
		return []litKey{k}, !cased, k.findable()
	case anything:
		return nil, false, false
	}
	// A single dash of windash is five literals.
	toks, at := p.toks, exact
	if n := len(toks); toks[n-1].kind == star {
		toks, at = toks[:n-1], prefix
	}
	if len(toks) > 0 && toks[0].kind == star {
		toks = toks[1:]
		if at == prefix {
			at = within
		} else {
			at = suffix
		}
	}
	dashAt, plain := -1, true
	var longest []byte
	for i, t := range toks {
		switch {
		case t.kind == dash && dashAt < 0:
			dashAt = i
		case t.kind != literal:
			plain = false
		case len(t.lit) > len(longest):
			longest = t.lit
		}
	}
	if plain && dashAt >= 0 && !cased {
		ok = true
		for _, d := range dashes {
			var text []byte
			for i, t := range toks {
				if i == dashAt {
					text = append(text, d...)
				} else {
					text = append(text, t.lit...)
				}
			}
			k := key(at, text)
			keys = append(keys, k)
			ok = ok && k.findable()
		}
		if ok {
			return keys, true, true
		}
	}
	k := key(within, longest)
	return []litKey{k}, false, k.findable() && (!cased || utf8.Valid(longest))
}

// findable reports whether a finder can look for a literal: whole texts and
// last parts of paths go by table, all else by groups of bytes.
func (k *litKey) findable() bool {
	return k.shape == exact || k.shape == suffix && strings.ContainsAny(k.text, `\/`) || len(k.text) >= gramLen
}

// triggers is facts of which at least one has to hold for a node to match, and
// how often that happens by estimate; ok is false where there are none such.
func (ix *indexer) triggers(n node) (facts []factNode, weight float64, ok bool) {
	switch n := n.(type) {
	case factNode:
		return []factNode{n}, ix.weights[n], true
	case allNode:
		for _, x := range n {
			if f, w, has := ix.triggers(x); has && (!ok || w < weight) {
				facts, weight, ok = f, w, true
			}
		}
		return facts, weight, ok
	case anyNode:
		for _, x := range n {
			f, w, has := ix.triggers(x)
			if !has {
				return nil, 0, false
			}
			facts, weight = append(facts[:len(facts):len(facts)], f...), weight+w
		}
		return facts, weight, true
	case constNode:
		return nil, 0, !bool(n)
	}
	return nil, 0, false
}

// finder finds the literals of one field in one pass.
type finder struct {
	field int
	whole map[string][]int32 // facts by the whole text
	names map[string][]lit   // suffixes by what follows their last slash or backslash

	// All other literals, each under its least common group of four bytes. Most
	// groups of a text are in no literal, which marks (a bit by hash) tell.
	marks []uint64
	shift uint8   // of a group's hash, to be a place in marks
	heads []int32 // by the hash's upper bits: first of the groups there, and one more at the end
	grams []gramLits
	lits  []lit
}

// gramLits is the literals that are found by a group of bytes.
type gramLits struct {
	gram     uint32
	from, to int32
}

const gramLen = 4

func gramAt(s []byte, i int) uint32 { return binary.LittleEndian.Uint32(s[i:]) }

// gramMul spreads groups of bytes (Knuth's multiplicative hash, 2^32 divided by
// the golden ratio).
const gramMul = 2654435761

func (ix *indexer) finders() []finder {
	var out []finder
	byField := map[int]int{}
	for _, l := range ix.order {
		i, ok := byField[l.field]
		if !ok {
			i = len(out)
			byField[l.field] = i
			out = append(out, finder{field: l.field, whole: map[string][]int32{}, names: map[string][]lit{}})
		}
		f := &out[i]
		switch {
		case l.shape == exact:
			f.whole[l.text] = l.facts
		case l.shape == suffix && strings.ContainsAny(l.text, `\/`):
			name := l.text[strings.LastIndexAny(l.text, `\/`)+1:]
			f.names[name] = append(f.names[name], *l)
		default:
			f.lits = append(f.lits, *l)
		}
	}
	for i := range out {
		out[i].build()
	}
	return out
}

// build anchors the literals and makes the tables.
func (f *finder) build() {
	if len(f.lits) == 0 {
		return
	}
	own := map[uint32]int{}
	for _, l := range f.lits {
		for i := 0; i+gramLen <= len(l.text); i++ {
			own[gramAt([]byte(l.text), i)]++
		}
	}
	usually := usualGrams()
	gram := func(l *lit) uint32 { return gramAt([]byte(l.text), l.anchor) }
	distinct := map[uint32]bool{}
	for k := range f.lits {
		l := &f.lits[k]
		least := 1 << 30
		for i := 0; i+gramLen <= len(l.text); i++ {
			g := gramAt([]byte(l.text), i)
			// Judgement: a group that the usual texts hold costs more than one
			// shared by twenty literals.
			if n := 20*usually[g] + own[g]; n < least {
				least, l.anchor = n, i
			}
		}
		distinct[gram(l)] = true
	}
	// 16 marks a group: 6 % of the others look marked. At least a word of them.
	bits := uint8(6)
	for 1<<bits < 16*len(distinct) && bits < 20 {
		bits++
	}
	f.shift = 32 - bits
	f.marks = make([]uint64, 1<<bits/64)
	hash := func(g uint32) uint32 { return g * gramMul >> f.shift }
	slices.SortStableFunc(f.lits, func(a, b lit) int {
		ga, gb := gram(&a), gram(&b)
		if ha, hb := hash(ga), hash(gb); ha != hb {
			return int(int64(ha) - int64(hb))
		}
		return int(int64(ga) - int64(gb))
	})
	f.heads = make([]int32, len(f.marks)*4+1) // one a 16 marks: a group each on average
	for i := range f.lits {
		g := gram(&f.lits[i])
		h := hash(g)
		f.marks[h>>6] |= 1 << (h & 63)
		if n := len(f.grams); n == 0 || f.grams[n-1].gram != g {
			f.grams = append(f.grams, gramLits{g, int32(i), int32(i)})
			f.heads[h>>4+1]++
		}
		f.grams[len(f.grams)-1].to = int32(i) + 1
	}
	for i := 1; i < len(f.heads); i++ {
		f.heads[i] += f.heads[i-1]
	}
}

// find notes the facts that a folded text of the field establishes.
func (f *finder) find(s *scratch, text []byte) {
	if len(f.whole) > 0 {
		s.note(f.whole[string(text)])
	}
	if len(f.names) > 0 {
		named := f.names[string(text[bytes.LastIndexAny(text, `\/`)+1:])]
		for i := range named {
			if l := &named[i]; len(l.text) <= len(text) && string(text[len(text)-len(l.text):]) == l.text {
				s.note(l.facts)
			}
		}
	}
	marks, shift := f.marks, f.shift&31
	if len(marks) == 0 {
		return
	}
	for i := 0; i+gramLen <= len(text); i++ {
		g := gramAt(text, i)
		if h := g * gramMul >> shift; marks[h>>6]&(1<<(h&63)) != 0 {
			f.marked(s, text, i, g, h)
		}
	}
}

// marked looks for the literals that have the group of bytes at i.
func (f *finder) marked(s *scratch, text []byte, i int, g, h uint32) {
	for _, gl := range f.grams[f.heads[h>>4]:f.heads[h>>4+1]] {
		if gl.gram != g {
			continue
		}
		for k := gl.from; k < gl.to; k++ {
			l := &f.lits[k]
			from := i - l.anchor
			to := from + len(l.text)
			if from < 0 || to > len(text) || l.shape == prefix && from > 0 || l.shape == suffix && to < len(text) {
				continue
			}
			if string(text[from:to]) == l.text {
				s.note(l.facts)
			}
		}
		return
	}
}

// note sets facts and makes candidates of the rules that wait for them.
func (s *scratch) note(facts []int32) {
	for _, f := range facts {
		if w, bit := &s.facts[f>>6], uint64(1)<<(f&63); *w&bit == 0 {
			*w |= bit
			for _, en := range s.asks[f] {
				s.set[en>>6] |= 1 << (en & 63)
			}
		}
	}
}

// candidates is the bit set of a bucket's entries that the event may match, and
// establishes the facts.
func (s *scratch) candidates(b *bucket) []uint64 {
	s.set = append(s.set[:0], b.always...)
	words := (len(b.asks) + 63) / 64
	s.facts = slices.Grow(s.facts[:0], words)[:words]
	clear(s.facts)
	words = (b.memos + 63) / 64
	s.asked, s.held = slices.Grow(s.asked[:0], words)[:words], slices.Grow(s.held[:0], words)[:words]
	clear(s.asked)
	clear(s.held)
	s.asks = b.asks
	for i := range b.finders {
		f := &b.finders[i]
		for _, text := range s.folded(f.field) {
			f.find(s, text)
		}
	}
	return s.set
}

// valuesOf is the values (folded) of a field outside of which a node cannot
// match; any says that it may match whatever the value.
func valuesOf(n node, slot int) (values []string, any bool) {
	switch n := n.(type) {
	case *textNode:
		if n.field != slot {
			return nil, true
		}
		for i := range n.patterns {
			p := &n.patterns[i]
			if p.shape != exact || n.cased && fold(string(p.lit)) != string(p.lit) {
				return nil, true
			}
			if n.all && len(n.patterns) > 1 {
				return nil, true
			}
			values = append(values, string(p.lit))
		}
		return values, false
	case allNode:
		any = true
		for _, x := range n {
			a, whatever := valuesOf(x, slot)
			switch {
			case whatever:
			case any:
				values, any = a, false
			default:
				values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return !slices.Contains(a, s) })
			}
		}
		return values, any
	case anyNode:
		for _, x := range n {
			a, whatever := valuesOf(x, slot)
			if whatever {
				return nil, true
			}
			for _, s := range a {
				if !slices.Contains(values, s) {
					values = append(values, s)
				}
			}
		}
		return values, false
	case constNode:
		return nil, bool(n)
	}
	return nil, true
}
