package rules

import (
	"bytes"
	"math/bits"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sekisho/internal/event"
)

// Match appends the rules that the event matches to buf, in the order of
// Program.Rules, and returns it. It takes no lock, cannot fail, and allocates
// nothing where no rule matches, but for what it has not met before: texts longer
// than any, steps of regular expressions (automata), and the list of hashes of an
// event that has a SHA-256 only. Safe for concurrent use.
func (p *Program) Match(e *event.Event, buf []Match) []Match {
	s := p.spare.Swap(nil)
	if s == nil {
		s = p.pool.Get().(*scratch)
	}
	s.begin(e)
	b := s.bucket
	if b == nil || b.at != placeOf(e) {
		b = p.bucket(e)
	}
	for w, set := range s.candidates(b) {
		for ; set != 0; set &= set - 1 {
			en := &b.entries[w<<6+bits.TrailingZeros64(set)]
			if en.match(s) {
				buf = append(buf, Match{en.rule})
			}
		}
	}
	s.end()
	if !p.spare.CompareAndSwap(nil, s) {
		p.pool.Put(s)
	}
	return buf
}

// maxArena is how much text a scratch keeps room for between events.
const maxArena = 1 << 20

// scratch is what one event's evaluation computes once: the fields it looked
// at, and their texts with case folded. It belongs to one call at a time.
type scratch struct {
	getters []Getter // the program's
	e       *event.Event
	epoch   uint32
	slots   []slot
	arena   []byte
	facts   []uint64 // bit set, see factNode
	set     []uint64 // candidates
	bucket  *bucket  // the event's; before, that of the event before

	memos []answers // see memoNode
	ran   []lateRun // by late finder

	long []string     // of keywordNode
	hits [maxHits]hit // of groups

	automata automata
	recall   recall
}

type slot struct {
	epoch   uint32
	present bool
	folded  bool // texts in folded are made
	copied  bool // texts in raw are made
	plain   bool // the value is text, and kept is not set
	text    string
	kept    event.Value // see value
	fold    [][]byte
	raw     [][]byte
	charred bool // chars is made
	chars   charset
	grammed bool // grams is made
	grams   *grams

	// What stands before the value, with a character between: the domain of an
	// account, the kind of a hash. Joining them would allocate.
	before string
	joint  byte
}

func newPool(getters []Getter) *sync.Pool {
	return &sync.Pool{New: func() any { return &scratch{getters: getters, slots: make([]slot, len(getters))} }}
}

func (s *scratch) begin(e *event.Event) {
	s.e = e
	s.arena = s.arena[:0]
	if s.epoch++; s.epoch == 0 { // after 2^32 events an old slot could look fresh
		for i := range s.slots {
			s.slots[i].epoch = 0
		}
		s.epoch = 1
	}
}

func (s *scratch) end() {
	s.e = nil
	clear(s.long)
	s.recall.done()
	if cap(s.arena) > maxArena {
		s.arena = nil
		for i := range s.slots {
			s.slots[i] = slot{}
		}
	}
}

// slot is a field of the event, looked up once.
func (s *scratch) slot(i int) *slot {
	f := &s.slots[i]
	if f.epoch != s.epoch {
		s.read(f, &s.getters[i])
	}
	return f
}

// read looks a field up.
func (s *scratch) read(f *slot, g *Getter) {
	f.epoch, f.folded, f.copied, f.charred, f.grammed = s.epoch, false, false, false, false
	switch {
	case g.from == fromTable && g.id.Type() == event.String:
		f.plain = true
		f.text, f.present = s.e.Str(g.id)
	case g.from == fromAccount: // as Getter.Value, without joining
		f.plain, f.joint = true, 0
		if f.text, f.present = s.e.Str(g.b); f.present {
			if f.before, _ = s.e.Str(g.a); f.before != "" {
				f.joint = '\\'
			}
		}
	default:
		f.plain = false
		f.before, f.joint, f.kept, f.present = g.parts(s.e)
		f.text = f.kept.Str()
	}
}

// value is the field's value, the zero Value if it is absent.
func (f *slot) value() event.Value {
	if f.plain && f.present {
		return event.Text(f.text)
	}
	return f.kept
}

// add copies a value's text into the arena; pad bytes of room follow it.
func (s *scratch) add(text string, folded bool) []byte {
	from := len(s.arena)
	s.arena = slices.Grow(s.arena, len(text)+pad)
	n := len(text)
	if folded {
		n = foldInto(s.arena[from:from+n+pad], text)
	} else {
		copy(s.arena[from:from+n], text)
	}
	return s.took(from, from+n)
}

// took is the text in the arena from place to place, with its pad.
func (s *scratch) took(from, to int) []byte {
	s.arena = s.arena[:to+pad]
	return s.arena[from : to : to+pad]
}

func (s *scratch) texts(f *slot, into [][]byte, folded bool) [][]byte {
	into = into[:0]
	if f.joint != 0 {
		from := len(s.arena)
		s.arena = slices.Grow(s.arena, len(f.before)+1+len(f.text)+pad)
		to := from + len(s.add(f.before, folded))
		s.arena = append(s.arena[:to], f.joint)
		to += 1 + len(s.add(f.text, folded))
		return append(into, s.took(from, to))
	}
	if f.plain {
		return append(into, s.add(f.text, folded))
	}
	switch f.kept.Type() {
	case event.String:
		return append(into, s.add(f.text, folded))
	case event.List:
		for _, t := range f.kept.List() {
			into = append(into, s.add(t, folded))
		}
		if len(into) == 0 {
			into = append(into, s.add("", false)) // recorded as empty: like an empty text
		}
		return into
	case event.Int:
		from := len(s.arena)
		s.arena = slices.Grow(strconv.AppendInt(s.arena, f.kept.Int(), 10), pad)
		return append(into, s.took(from, len(s.arena)))
	case event.Bool:
		if f.kept.Bool() {
			return append(into, s.add("true", false))
		}
		return append(into, s.add("false", false))
	}
	return append(into, s.add(f.kept.String(), folded))
}

// folded is the texts of a field with case folded; none if it is absent.
func (s *scratch) folded(i int) [][]byte {
	f := s.slot(i)
	if !f.present {
		return nil
	}
	if !f.folded {
		f.folded = true
		if k := s.recall.of(i); k != nil {
			f.fold = append(f.fold[:0], k.folded)
		} else {
			f.fold = s.texts(f, f.fold, true)
		}
	}
	return f.fold
}

// chars is which characters the folded texts of a field hold.
func (s *scratch) chars(i int) *charset {
	f := s.slot(i)
	if !f.charred {
		f.charred = true
		if k := s.recall.of(i); k != nil {
			f.chars = k.chars
			return &f.chars
		}
		f.chars = charset{}
		for _, t := range s.folded(i) {
			f.chars.addFolded(t)
		}
	}
	return &f.chars
}

// grams is which groups of bytes the folded texts of a field hold.
func (s *scratch) grams(i int) *grams {
	f := s.slot(i)
	if !f.grammed {
		f.grammed = true
		if f.grams == nil {
			f.grams = &grams{}
		} else {
			*f.grams = grams{}
		}
		for _, t := range s.folded(i) {
			f.grams.add(t)
		}
	}
	return f.grams
}

// may reports whether the texts of a field can hold the literals of a pattern, as
// far as grams tell, where something else needed them.
func (f *slot) may(toks []token) bool {
	if !f.grammed {
		return true
	}
	for i := range toks {
		if toks[i].kind == literal && !f.grams.may(string(toks[i].lit)) {
			return false
		}
	}
	return true
}

// mayAll is may for one text of each set.
func (f *slot) mayAll(sets [][]string) bool {
	if !f.grammed {
		return true
	}
	for _, set := range sets {
		if !f.grams.mayAny(set) {
			return false
		}
	}
	return true
}

// raw is the texts of a field as they are; none if it is absent.
func (s *scratch) raw(i int) [][]byte {
	f := s.slot(i)
	if !f.present {
		return nil
	}
	if !f.copied {
		f.copied = true
		f.raw = s.texts(f, f.raw, false)
	}
	return f.raw
}

// node is one step of a compiled condition.
type node interface {
	match(s *scratch) bool
	cost() int // to try cheap ones first
}

type (
	allNode   []node
	anyNode   []node
	notNode   struct{ x node }
	constNode bool

	// textNode compares a field's texts with patterns: any of them, or all.
	textNode struct {
		field    int
		patterns []pattern
		all      bool
		cased    bool
		need     charset // of every match; empty where asking is no gain
	}
	regexNode struct {
		field int
		res   []expression
		all   bool
	}
	// existsNode asks whether the field is there.
	existsNode struct {
		field int
		want  bool
	}
	cidrNode struct {
		field int
		nets  []netip.Prefix
	}
	numberNode struct {
		field int
		op    string
		value float64
		whole int64
		isInt bool
	}
	// refNode compares two fields of the event.
	refNode struct {
		field, other int
		how          shape
		cased        bool
	}
	// keywordNode looks for words in every field of the event.
	keywordNode struct {
		patterns []pattern
		res      []expression
		all      bool
		// others is the fields of the event table to look in where facts answer
		// for the rest; nil: all of them.
		others *elsewhere
	}
)

func (n allNode) match(s *scratch) bool {
	for _, x := range n {
		if !x.match(s) {
			return false
		}
	}
	return true
}

func (n anyNode) match(s *scratch) bool {
	for _, x := range n {
		if x.match(s) {
			return true
		}
	}
	return false
}

func (n notNode) match(s *scratch) bool    { return !n.x.match(s) }
func (n constNode) match(*scratch) bool    { return bool(n) }
func (n existsNode) match(s *scratch) bool { return s.slot(n.field).present == n.want }

// newText is the node of these patterns.
func newText(field int, patterns []pattern, all, cased bool) *textNode {
	n := &textNode{field: field, patterns: patterns, all: all, cased: cased}
	dear := false
	for i := range patterns {
		p := &patterns[i]
		dear = dear || p.shape == within || p.shape == glob
		switch {
		case i == 0:
			n.need = p.chars
		case all:
			n.need = n.need.union(p.chars)
		default:
			n.need = n.need.common(p.chars)
		}
	}
	if !dear {
		n.need = charset{}
	}
	return n
}

func (n *textNode) match(s *scratch) bool {
	if n.need != (charset{}) && !s.chars(n.field).holds(&n.need) {
		return false
	}
	var texts [][]byte
	if n.cased {
		texts = s.raw(n.field)
	} else {
		texts = s.folded(n.field)
	}
	if len(texts) == 0 {
		return false
	}
	for i := range n.patterns {
		p := &n.patterns[i]
		hit := (p.shape != within && p.shape != glob || s.chars(n.field).holds(&p.chars)) &&
			(p.shape != glob || n.cased || s.slot(n.field).may(p.toks)) && p.matchAny(texts)
		if hit != n.all {
			return !n.all
		}
	}
	return n.all
}

func (p *pattern) matchAny(texts [][]byte) bool {
	for _, t := range texts {
		if p.match(t) {
			return true
		}
	}
	return false
}

func (n *regexNode) match(s *scratch) bool {
	if !s.slot(n.field).present {
		return false
	}
	for i := range n.res {
		x := &n.res[i]
		hit := s.chars(n.field).holds(&x.need.chars) && s.slot(n.field).mayAll(x.need.sets) && x.matchAny(s, s.raw(n.field))
		if hit != n.all {
			return !n.all
		}
	}
	return n.all
}

// expression is a regular expression and what a match needs: most texts need
// not be looked at.
type expression struct {
	id    int // among the expressions of a program
	re    *regexp.Regexp
	prog  *syntax.Prog // of re
	kinds *kinds       // of prog
	need  need
	whole *dfa // complete; nil: automata make one as texts need it
}

func (x *expression) matchAny(s *scratch, texts [][]byte) bool {
	for _, t := range texts {
		if len(t) < x.need.size || !x.need.counted(t) || x.need.run != nil && !x.need.run.in(t) {
			continue
		}
		if x.need.isLine {
			if hasLine(t, x.need.line, x.need.newline) {
				return true
			}
		} else if s.automata.match(x, t) {
			return true
		}
	}
	return false
}

func (n *cidrNode) match(s *scratch) bool {
	f := s.slot(n.field)
	if !f.present || f.joint != 0 { // what is joined is no address
		return false
	}
	if !f.plain && f.kept.Type() == event.List {
		for _, t := range f.kept.List() {
			if n.holds(t) {
				return true
			}
		}
		return false
	}
	return n.holds(f.text)
}

func (n *cidrNode) holds(text string) bool {
	if len(text) > 64 { // no address is that long
		return false
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return false
	}
	a = a.Unmap().WithZone("")
	for _, p := range n.nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func (n *numberNode) match(s *scratch) bool {
	f := s.slot(n.field)
	if !f.present || f.plain {
		return false
	}
	if f.kept.Type() == event.Int && n.isInt {
		return compare(n.op, f.kept.Int(), n.whole)
	}
	x, ok := f.kept.Float()
	if !ok {
		return false
	}
	switch n.op {
	case "gt":
		return x > n.value
	case "gte":
		return x >= n.value
	case "lt":
		return x < n.value
	}
	return x <= n.value
}

func (n *refNode) match(s *scratch) bool {
	var texts, others [][]byte
	if n.cased {
		texts, others = s.raw(n.field), s.raw(n.other)
	} else {
		texts = s.folded(n.field)
		if f := s.slot(n.other); n.how == exact && f.plain && f.joint == 0 && len(texts) == 1 && len(texts[0]) > len(f.text) {
			return false // folding never lengthens
		}
		others = s.folded(n.other)
	}
	for _, t := range texts {
		for _, o := range others {
			var hit bool
			switch n.how {
			case exact:
				hit = bytes.Equal(t, o)
			case prefix:
				hit = bytes.HasPrefix(t, o)
			case suffix:
				hit = bytes.HasSuffix(t, o)
			case within:
				hit = bytes.Contains(t, o)
			}
			if hit {
				return true
			}
		}
	}
	return false
}

func (n *keywordNode) match(s *scratch) bool {
	for i := range n.patterns {
		if n.anywhere(s, &n.patterns[i], nil) != n.all {
			return !n.all
		}
	}
	for i := range n.res {
		if n.anywhere(s, nil, &n.res[i]) != n.all {
			return !n.all
		}
	}
	return n.all
}

// fields is how many fields the event table has.
var fields = len(event.Fields())

// anywhere asks a pattern, or else an expression, of every text in the event.
func (n *keywordNode) anywhere(s *scratch, p *pattern, x *expression) bool {
	if n.others != nil {
		s.long = n.others.texts.Long(s.e, max(1, len(p.lit)), s.long[:0])
		for _, text := range s.long {
			if s.holdsText(text, p, x) {
				return true
			}
		}
		for _, id := range n.others.others {
			if v, ok := s.e.Lookup(id); ok && s.holds(v, p, x) {
				return true
			}
		}
	} else {
		for id := range event.FieldID(fields) {
			if v, ok := s.e.Lookup(id); ok && s.holds(v, p, x) {
				return true
			}
		}
	}
	for _, v := range s.e.Extra {
		if s.holds(v, p, x) {
			return true
		}
	}
	return false
}

// elsewhere is the fields of the event table that finders do not go over.
type elsewhere struct {
	texts  *event.TextFields
	others []event.FieldID
}

func (s *scratch) holds(v event.Value, p *pattern, x *expression) bool {
	if v.Type() == event.List {
		for _, t := range v.List() {
			if s.holdsText(t, p, x) {
				return true
			}
		}
		return false
	}
	return s.holdsText(v.String(), p, x)
}

func (s *scratch) holdsText(text string, p *pattern, x *expression) bool {
	if p == nil {
		return x.re.MatchString(text)
	}
	if len(text) < len(p.lit) { // folding never lengthens: of a character's cases it takes the least
		return false
	}
	if p.sign != 0 && strings.IndexByte(text, p.sign) < 0 {
		return false
	}
	before := len(s.arena)
	hit := p.match(s.add(text, true))
	s.arena = s.arena[:before]
	return hit
}

func sum(nodes []node) int {
	c := 0
	for _, n := range nodes {
		c += n.cost()
	}
	return c
}

func (n allNode) cost() int    { return sum(n) }
func (n anyNode) cost() int    { return sum(n) }
func (n notNode) cost() int    { return n.x.cost() }
func (n constNode) cost() int  { return 0 }
func (n existsNode) cost() int { return 1 }
func (n *cidrNode) cost() int  { return 20 }
func (n *numberNode) cost() int {
	return 1
}
func (n *refNode) cost() int     { return 5 }
func (n *keywordNode) cost() int { return 100_000 }
func (n *regexNode) cost() int   { return 1000 * len(n.res) }
func (n *textNode) cost() int {
	c := 0
	for i := range n.patterns {
		switch n.patterns[i].shape {
		case within:
			c += 10
		case glob:
			c += 30
		default:
			c++
		}
	}
	return c
}
