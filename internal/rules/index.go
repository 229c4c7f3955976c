package rules

import (
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
//     these". Facts are bits. What texts that come again establish is remembered
//     (recall).
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
	at      place
	entries []entry
	always  []uint64 // bit set of entries that are candidates whatever the facts
	finders []finder
	late    []lateFinder
	asking  []uint64 // bit set of facts that make candidates
	asked   []int32  // by fact: first of asks, and one more at the end
	asks    []int32  // entries that facts make candidates
	memos   int      // how many there are
}

// entry is a rule and what of its condition the bucket does not vouch for.
type entry struct {
	rule *Rule
	must [2]factNode // have to hold besides node
	not  [4]factNode // must not
	node node
}

// What the facts of the first two numbers say, whatever the event.
const (
	always factNode = iota // holds
	never                  // does not
)

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
	finders := uint64(0)
	for _, a := range actions {
		for _, o := range systems {
			b := &bucket{at: place{a, o}}
			for _, r := range p.Rules {
				if r.node != nil && !r.Disabled && admits(r.node, actionSlot, a) && admits(r.node, osSlot, o) {
					b.entries = append(b.entries, entry{rule: r, node: without(without(r.node, actionSlot, a), osSlot, o)})
				}
			}
			b.build(p.getters)
			for i := range b.finders {
				b.finders[i].number, finders = finders, finders+1
			}
			p.buckets[b.at] = b
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

func placeOf(e *event.Event) place {
	at := place{action: string(e.Action)}
	if e.Host != nil {
		at.os = e.Host.OSType
	}
	return at
}

// bucket is where to look for the rules of an event.
func (p *Program) bucket(e *event.Event) *bucket {
	at := placeOf(e)
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

// Asks reports whether there is a rule that an event of this action and system can
// match.
func (p *Program) Asks(e *event.Event) bool { return len(p.bucket(e).entries) > 0 }

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
	ix := indexer{weights: make([]float64, never+1), facts: map[string]factNode{}, lits: map[litKey]*lit{}, memos: map[string]memoNode{},
		lates: map[lateKey]int32{}, lateLits: map[litKey]*lit{}, hints: map[charsKey]*hintNode{}}
	for i := range b.entries {
		en := &b.entries[i]
		en.node = ix.rewrite(en.node)
	}
	ix.searched(getters)
	candidates := make([][]factNode, len(b.entries))
	b.always = make([]uint64, (len(b.entries)+63)/64)
	for i := range b.entries {
		en := &b.entries[i]
		en.node = ix.shared(ix.keywords(en.node))
		facts, _, ok := ix.triggers(en.node)
		if !ok {
			b.always[i>>6] |= 1 << (i & 63)
		}
		candidates[i] = facts
	}
	asks := make([][]int32, len(ix.weights))
	for i, facts := range candidates {
		for _, f := range facts {
			if l := asks[f]; len(l) == 0 || l[len(l)-1] != int32(i) {
				asks[f] = append(l, int32(i))
			}
		}
	}
	b.asking = make([]uint64, wordsOf(len(asks)))
	b.asked = make([]int32, 0, len(asks)+1)
	for f, l := range asks {
		if len(l) > 0 {
			b.asking[f>>6] |= 1 << (f & 63)
		}
		b.asked = append(b.asked, int32(len(b.asks)))
		b.asks = append(b.asks, l...)
	}
	b.asked = append(b.asked, int32(len(b.asks)))
	for i := range b.entries {
		en := &b.entries[i]
		en.node = established(en.node, asks)
		en.split(candidates[i])
		en.node = gathered(en.node)
	}
	b.finders, b.late = ix.finders(getters, asks), ix.lateFinders()
	for i := range b.late {
		for k := range b.finders {
			if f := &b.finders[k]; f.field == b.late[i].field {
				f.late = append(f.late, int32(i))
			}
		}
	}
	b.memos = len(ix.memos)
}

// established is a node with facts for the hints that finders establish: those
// that make candidates.
func established(n node, asks [][]int32) node {
	switch n := n.(type) {
	case *hintNode:
		if len(asks[n.fact]) > 0 {
			return n.fact
		}
	case notNode:
		return notNode{established(n.x, asks)}
	}
	return branches(n, func(n node) node { return established(n, asks) })
}

// split takes facts that have to hold, or must not, out of the entry's node, to be
// asked first: most candidates fail there.
func (en *entry) split(triggers []factNode) {
	for i := range en.not {
		en.not[i] = never
	}
	all, ok := en.node.(allNode)
	if !ok {
		return
	}
	var rest []node
	must, not := en.must[:0], en.not[:0]
	for _, x := range all {
		f, ok := x.(factNode)
		banned, bans := bannedFacts(x)
		switch {
		case ok && slices.Equal(triggers, []factNode{f}): // holds, or it were no candidate
		case ok && len(must) < len(en.must):
			must = append(must, f)
		case bans && len(not)+len(banned) <= len(en.not):
			not = append(not, banned...)
		default:
			rest = append(rest, x)
		}
	}
	en.node = both(rest...)
}

// gathered is a node in which facts that are asked in a row lie next to each
// other in memory.
func gathered(n node) node {
	var facts []factNode
	var rest []node
	gather := func(nodes []node) {
		for _, x := range nodes {
			if f, ok := x.(factNode); ok {
				facts = append(facts, f)
			} else {
				rest = append(rest, gathered(x))
			}
		}
	}
	switch n := n.(type) {
	case notNode:
		return notNode{gathered(n.x)}
	case allNode:
		if gather(n); len(facts) > 0 {
			return both(append([]node{allFacts(facts)}, rest...)...)
		}
		return both(rest...)
	case anyNode:
		if gather(n); len(facts) > 0 {
			return either(append([]node{anyFacts(facts)}, rest...)...)
		}
		return either(rest...)
	}
	return n
}

type (
	allFacts []factNode
	anyFacts []factNode
)

func (n allFacts) cost() int { return 0 }
func (n anyFacts) cost() int { return 0 }

func (n allFacts) match(s *scratch) bool {
	for _, f := range n {
		if !f.match(s) {
			return false
		}
	}
	return true
}

func (n anyFacts) match(s *scratch) bool {
	for _, f := range n {
		if f.match(s) {
			return true
		}
	}
	return false
}

// bannedFacts is the facts that must not hold for a node to match, where that is
// all it asks.
func bannedFacts(n node) (facts []factNode, ok bool) {
	not, ok := n.(notNode)
	if !ok {
		return nil, false
	}
	if f, ok := not.x.(factNode); ok {
		return []factNode{f}, true
	}
	any, ok := not.x.(anyNode)
	for _, x := range any {
		f, is := x.(factNode)
		if !is {
			return nil, false
		}
		facts = append(facts, f)
	}
	return facts, ok
}

// match is the entry's answer to an event whose facts are established.
func (en *entry) match(s *scratch) bool {
	return en.must[0].match(s) && en.must[1].match(s) &&
		!en.not[0].match(s) && !en.not[1].match(s) && !en.not[2].match(s) && !en.not[3].match(s) && en.node.match(s)
}

// memoNode is a condition on a field that is no fact, answered once an event for
// all the rules that have it (mostly exceptions, which rules copy from each other),
// and once for a text that is kept.
type memoNode struct {
	id    int32
	field int
	x     node
}

func (n memoNode) cost() int { return n.x.cost() }

func (n memoNode) match(s *scratch) bool {
	w, bit := n.id>>6, uint64(1)<<(n.id&63)
	if m := &s.memos[w]; m.asked&bit == 0 {
		m.asked |= bit
		if n.answer(s) {
			m.held |= bit
		}
	}
	return s.memos[w].held&bit != 0
}

func (n memoNode) answer(s *scratch) bool {
	k := s.recall.of(n.field)
	if k == nil {
		return n.x.match(s)
	}
	w, bit := n.id>>6, uint64(1)<<(n.id&63)
	if m := &k.memos[w]; m.asked&bit == 0 {
		m.asked |= bit
		if n.x.match(s) {
			m.held |= bit
		}
	}
	return k.memos[w].held&bit != 0
}

// answers is those to 64 memoNodes.
type answers struct{ asked, held uint64 }

// litKey is a literal to look for in the folded texts of a field.
type litKey struct {
	field int
	shape shape // exact, prefix, suffix, within
	text  string
}

// lit is a literal and the facts that it establishes.
type lit struct {
	litKey
	facts []int32
}

// lateKey is a late finder: a field and how wide its groups are.
type lateKey struct{ field, width int }

// indexer makes facts of the nodes of one bucket.
type indexer struct {
	facts   map[string]factNode // by their literals
	weights []float64           // by fact: how often it holds, by estimate
	lits    map[litKey]*lit
	memos   map[string]memoNode
	order   []*lit // as they came, so that a program is built the same way each time

	lates     map[lateKey]int32
	lateKeys  []lateKey // by late finder
	lateLits  map[litKey]*lit
	lateOrder []*lit

	hints     map[charsKey]*hintNode
	hintOrder []*hintNode

	// The fields of the event table that finders go over anyhow, and the others:
	// keywords are looked for in all.
	named []int // slots
	other []event.FieldID
}

// fact is the fact that one of these literals occurs.
func (ix *indexer) fact(keys []litKey) factNode {
	return ix.factOf(nameOf('f', keys), keys, ix.lits, &ix.order)
}

func (ix *indexer) factOf(name string, keys []litKey, lits map[litKey]*lit, order *[]*lit) factNode {
	if f, ok := ix.facts[name]; ok {
		return f
	}
	f := factNode(len(ix.weights))
	ix.facts[name] = f
	weight := 0.0
	for _, k := range keys {
		weight += commonness(k.text)
		l := lits[k]
		if l == nil {
			l = &lit{litKey: k}
			lits[k] = l
			*order = append(*order, l)
		}
		if n := len(l.facts); n == 0 || l.facts[n-1] != int32(f) {
			l.facts = append(l.facts, int32(f))
		}
	}
	ix.weights = append(ix.weights, weight)
	return f
}

// askable reports whether late finders, or the characters of a text, can tell
// that it contains each of the literals.
func askable(keys []litKey) bool {
	for _, k := range keys {
		if k.shape != within || len(k.text) < 2 && (k.text == "" || k.text[0] >= utf8.RuneSelf) {
			return false
		}
	}
	return true
}

// lateFact is a node for the fact that one of some askable literals occurs.
func (ix *indexer) lateFact(keys []litKey) node {
	var out []node
	for width := range gramLen + 1 {
		var some []litKey
		for _, k := range keys {
			if min(len(k.text), gramLen) == width {
				some = append(some, k)
			}
		}
		switch {
		case len(some) == 0:
		case width == 1:
			for _, k := range some {
				out = append(out, charNode{k.field, k.text[0]})
			}
		default:
			at := lateKey{some[0].field, width}
			i, ok := ix.lates[at]
			if !ok {
				i = int32(len(ix.lateKeys))
				ix.lates[at] = i
				ix.lateKeys = append(ix.lateKeys, at)
			}
			n := &lateNode{finder: i, fact: ix.factOf(nameOf('l', some), some, ix.lateLits, &ix.lateOrder)}
			for _, k := range some {
				n.add(k.text)
			}
			out = append(out, n)
		}
	}
	return either(out...)
}

// hinted is a node that asks x of a field only if it has all characters of one
// of the sets, and the length: hints, which may make candidates. It is x itself
// where they say nothing.
func (ix *indexer) hinted(field int, sets []charset, size int, x node) node {
	if size < leastHint {
		size = 0
	}
	all := sets[0]
	for _, c := range sets {
		all = all.common(c)
	}
	if all != (charset{}) || len(sets) > maxHints {
		sets = []charset{all}
	}
	var out []node
	for _, c := range sets {
		if c == (charset{}) && size == 0 {
			return x
		}
		k := charsKey{field, c, size}
		h, ok := ix.hints[k]
		if !ok {
			h = &hintNode{k, factNode(len(ix.weights))}
			ix.hints[k] = h
			ix.hintOrder = append(ix.hintOrder, h)
			ix.weights = append(ix.weights, k.commonness())
		}
		out = append(out, h)
	}
	return both(either(out...), x)
}

// maxHints bounds the sets of characters of which one is asked for; more say
// little.
const maxHints = 16

// leastHint is a length that says something of a text. Judgement: half of all
// command lines are shorter.
const leastHint = 64

func nameOf(kind byte, keys []litKey) string {
	name := []byte{kind}
	for _, k := range keys {
		name = append(binary.AppendUvarint(name, uint64(k.field)), byte(k.shape))
		name = appendText(name, []byte(k.text))
	}
	return string(name)
}

func appendText(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// shared is a node in which what other rules ask too is asked once, and what
// rules exclude is asked of finders. It comes after all other facts are known.
func (ix *indexer) shared(n node) node {
	switch n := n.(type) {
	case *textNode:
		return ix.memo(n.name(), n.field, n)
	case *regexNode:
		return ix.memo(n.name(), n.field, n)
	case notNode:
		return notNode{ix.excluded(n.x)}
	}
	return branches(n, ix.shared)
}

// excluded is shared for what stands below a "not".
func (ix *indexer) excluded(n node) node {
	switch n := n.(type) {
	case *textNode:
		return ix.text(n, false)
	case *regexNode:
		return ix.regex(n, false)
	case notNode:
		return notNode{ix.excluded(n.x)}
	}
	return branches(n, ix.excluded)
}

// branches applies f to the branches of a node.
func branches(n node, f func(node) node) node {
	switch n := n.(type) {
	case allNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = f(x)
		}
		return both(out...)
	case anyNode:
		out := make([]node, len(n))
		for i, x := range n {
			out[i] = f(x)
		}
		return either(out...)
	}
	return n
}

// name tells apart what nodes ask.
func (n *textNode) name() []byte {
	name := append(binary.AppendUvarint([]byte{'t'}, uint64(n.field)), boolByte(n.all), boolByte(n.cased))
	for i := range n.patterns {
		p := &n.patterns[i]
		name = appendText(append(name, byte(p.shape), byte(len(p.toks))), p.lit)
		for _, t := range p.toks {
			name = appendText(append(name, byte(t.kind)), t.lit)
		}
	}
	return name
}

func (n *regexNode) name() []byte {
	name := append(binary.AppendUvarint([]byte{'r'}, uint64(n.field)), boolByte(n.all))
	for i := range n.res {
		name = appendText(name, []byte(n.res[i].re.String()))
	}
	return name
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (ix *indexer) memo(name []byte, field int, n node) node {
	m, ok := ix.memos[string(name)]
	if !ok {
		m = memoNode{int32(len(ix.memos)), field, n}
		ix.memos[string(name)] = m
	}
	return m
}

// rewrite is a node with facts in the place of what finders find out. What
// stands below a "not" is left to excluded: it makes no candidates.
func (ix *indexer) rewrite(n node) node {
	switch n := n.(type) {
	case *textNode:
		return ix.text(n, true)
	case *regexNode:
		return ix.regex(n, true)
	}
	return branches(n, ix.rewrite)
}

// text is a text condition in terms of facts, as far as that is possible. A
// triggering one makes candidates.
func (ix *indexer) text(n *textNode, triggering bool) node {
	if n.all && len(n.patterns) > 1 {
		var out []node
		for i := range n.patterns {
			out = append(out, ix.text(newText(n.field, n.patterns[i:i+1], false, n.cased), triggering))
		}
		return both(out...)
	}
	if len(n.patterns) == 0 {
		return n
	}
	var now, late []litKey // one of them suffices
	var rest []pattern     // to be compared
	var guarded []pattern  // to be compared where one of the guards occurs
	var guards, lateGuards []litKey
	var lateChars, restChars []charset
	var out, spread []node
	for i := range n.patterns {
		p := &n.patterns[i]
		keys, sure, ok := p.literals(n.field, n.cased)
		first := ok && (triggering || ix.known(keys))
		switch {
		case sure && first:
			now = append(now, keys...)
		case sure && askable(keys):
			late = append(late, keys...)
			lateChars = append(lateChars, p.chars)
		case first:
			if words := p.words(n.field, n.cased); triggering && len(words) > 1 {
				spread = append(spread, ix.spread(words, newText(n.field, n.patterns[i:i+1], false, n.cased)))
				continue
			}
			guarded, guards = append(guarded, *p), append(guards, keys...)
		case ok && askable(keys):
			guarded, lateGuards = append(guarded, *p), append(lateGuards, keys...)
		default:
			rest = append(rest, *p)
			restChars = append(restChars, p.chars)
		}
	}
	compare := func(patterns []pattern) node {
		x := newText(n.field, patterns, false, n.cased)
		if triggering {
			return x // shared comes later
		}
		return ix.memo(x.name(), n.field, x)
	}
	hinted := func(chars []charset, x node) node {
		if !triggering {
			return x
		}
		return ix.hinted(n.field, chars, 0, x)
	}
	if len(now) > 0 {
		out = append(out, ix.fact(now))
	}
	out = append(out, spread...)
	if len(late) > 0 {
		out = append(out, hinted(lateChars, ix.lateFact(late)))
	}
	if len(guarded) > 0 {
		var guard []node
		if len(guards) > 0 {
			guard = append(guard, ix.fact(guards))
		}
		if len(lateGuards) > 0 {
			guard = append(guard, ix.lateFact(lateGuards))
		}
		out = append(out, both(either(guard...), compare(guarded)))
	}
	if len(rest) > 0 {
		out = append(out, hinted(restChars, compare(rest)))
	}
	return either(out...)
}

// spread is a node that asks x only where all the words occur.
func (ix *indexer) spread(words []litKey, x node) node {
	all := []node{}
	for _, w := range words {
		all = append(all, ix.fact([]litKey{w}))
	}
	return both(append(all, x)...)
}

// known reports whether finders look for the literals anyhow, or can at nearly
// no cost.
func (ix *indexer) known(keys []litKey) bool {
	for _, k := range keys {
		if k.shape == exact || k.shape == suffix {
			continue
		}
		if _, ok := ix.lits[k]; !ok && (k.shape != prefix || len(k.text) < gramLen) {
			return false
		}
	}
	return true
}

func (ix *indexer) regex(n *regexNode, triggering bool) node {
	var out []node
	for i := range n.res {
		var x node = &regexNode{field: n.field, res: n.res[i : i+1], all: n.all}
		if !triggering {
			x = ix.memo(x.(*regexNode).name(), n.field, x)
		}
		need := &n.res[i].need
		var keys []litKey
		for _, l := range need.any {
			keys = append(keys, litKey{n.field, within, l})
		}
		if len(keys) > 0 && (triggering || ix.known(keys)) {
			x = both(ix.fact(keys), x)
		} else {
			for _, w := range need.words {
				keys = append(keys, litKey{n.field, within, string(w)})
			}
			if len(keys) > 0 && askable(keys) {
				x = both(ix.lateFact(keys), x)
			}
			if triggering {
				x = ix.hinted(n.field, []charset{need.chars}, need.size, x)
			}
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
	}
	return branches(n, ix.keywords)
}

// textual is the fields outside finders that can hold a pattern's literal; nil: all
// there are.
func (ix *indexer) textual(p *pattern) *elsewhere {
	for _, text := range event.UnsetTexts() {
		if strings.Contains(text, string(p.lit)) {
			return nil
		}
	}
	var numbers charset
	numbers.add("0123456789+-.:tz" + "true" + "false") // folded
	out := &elsewhere{}
	var texts []event.FieldID
	for _, id := range ix.other {
		switch t := id.Type(); {
		case t == event.String || t == event.List:
			texts = append(texts, id)
		case numbers.holds(&p.chars):
			out.others = append(out.others, id)
		}
	}
	out.texts = event.NewTextFields(texts)
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
	// A dash of windash is five literals, two are twenty-five.
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
	texts, plain := []string{""}, !cased
	var longest []byte
	for _, t := range toks {
		switch {
		case t.kind == literal:
			texts = each(texts, []string{string(t.lit)})
			if len(t.lit) > len(longest) {
				longest = t.lit
			}
		case t.kind == dash && len(texts) < maxDashed:
			texts = each(texts, dashes)
		default:
			plain = false
		}
	}
	if plain {
		ok = true
		for _, text := range texts {
			k := key(at, []byte(text))
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

// words is the literals of a pattern that finders can look for: a match has them
// all.
func (p *pattern) words(field int, cased bool) (keys []litKey) {
	for _, t := range p.toks {
		if t.kind != literal || cased && !utf8.Valid(t.lit) {
			continue
		}
		if k := (litKey{field, within, fold(string(t.lit))}); k.findable() {
			keys = append(keys, k)
		}
	}
	return keys
}

// maxDashed is how many literals the dashes of a pattern may make before it is
// compared instead.
const maxDashed = 25

// findable reports whether a finder can look for a literal: whole texts and
// suffixes go by their last bytes, all else by groups of bytes.
func (k *litKey) findable() bool {
	return k.shape == exact || k.shape == suffix && k.text != "" || len(k.text) >= gramLen
}

// triggers is facts of which at least one has to hold for a node to match, and
// how often that happens by estimate; ok is false where there are none such.
func (ix *indexer) triggers(n node) (facts []factNode, weight float64, ok bool) {
	switch n := n.(type) {
	case factNode:
		return []factNode{n}, ix.weights[n], true
	case *hintNode:
		return []factNode{n.fact}, ix.weights[n.fact], true
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

// finders is what establishes the facts, of the hints those that make
// candidates.
func (ix *indexer) finders(getters []Getter, asks [][]int32) []finder {
	var out []finder
	byField := map[int]int{}
	at := func(field int) *finder {
		i, ok := byField[field]
		if !ok {
			i = len(out)
			byField[field] = i
			out = append(out, newFinder(field, &getters[field]))
		}
		return &out[i]
	}
	ends, groups := map[int][]*lit{}, map[int][]*lit{}
	for _, l := range ix.order {
		at(l.field)
		if l.shape == exact || l.shape == suffix {
			ends[l.field] = append(ends[l.field], l)
		} else {
			groups[l.field] = append(groups[l.field], l)
		}
	}
	for _, h := range ix.hintOrder {
		if len(asks[h.fact]) > 0 {
			f := at(h.field)
			f.hints = append(f.hints, *h)
		}
	}
	for i := range out {
		f := &out[i]
		f.ends, f.groups = newEnds(ends[f.field]), newGroups(groups[f.field], gramLen)
	}
	slices.SortStableFunc(out, func(a, b finder) int { return int(boolByte(b.direct)) - int(boolByte(a.direct)) }) // see question
	return out
}

func (ix *indexer) lateFinders() []lateFinder {
	out := make([]lateFinder, len(ix.lateKeys))
	for i, k := range ix.lateKeys {
		var lits []*lit
		for _, l := range ix.lateOrder {
			if l.field == k.field && min(len(l.text), gramLen) == k.width {
				lits = append(lits, l)
			}
		}
		out[i] = lateFinder{k.field, k.width, newGroups(lits, k.width)}
	}
	return out
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
