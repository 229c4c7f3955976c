package rules

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"sekisho/internal/event"
)

// A finder finds the literals of one field in one pass. It is immutable once
// built.
type finder struct {
	field  int
	number uint64        // among the finders of a program
	recurs bool          // the field's texts come again and again: see recall
	direct bool          // they are those of a field of the event table,
	id     event.FieldID // this one
	ends   ends
	groups groups
	hints  []hintNode
	late   []int32 // late finders of the field
}

// find notes the facts that the folded texts of the field establish, or leaves
// that to recall.
func (f *finder) find(s *scratch) {
	if f.direct { // the field's slot can wait until somebody asks for it
		switch text, ok := s.e.Str(f.id); {
		case !ok:
			return
		case len(text) <= longBytes:
			s.recall.ask(question{finder: f, text: text})
			return
		}
	}
	switch v := s.slot(f.field); {
	case !v.present:
	case f.recurs && v.value().Type() == event.String && len(v.before)+len(v.text) < longBytes:
		s.recall.ask(question{finder: f, before: v.before, joint: v.joint, text: v.text})
	default:
		f.look(s)
	}
}

// look is find for texts that nothing is known of.
func (f *finder) look(s *scratch) {
	for _, text := range s.folded(f.field) {
		f.ends.find(s, text)
		f.groups.find(s, text)
	}
	if len(f.hints) > 0 {
		chars, longest := s.chars(f.field), s.slot(f.field).longest()
		for i := range f.hints {
			if h := &f.hints[i]; longest >= h.size && chars.holds(&h.chars) {
				s.noteOne(int32(h.fact))
			}
		}
	}
}

// hintNode says no more of a field than that it holds these characters and is so
// many bytes long. As a fact it makes candidates of rules that ask for texts too
// short for finders, or by regular expressions without a literal.
type hintNode struct {
	charsKey
	fact factNode // established for those hints only that make candidates
}

func (n *hintNode) cost() int { return 1 }

func (n *hintNode) match(s *scratch) bool {
	return len(s.folded(n.field)) > 0 && s.slot(n.field).longest() >= n.size && s.chars(n.field).holds(&n.chars)
}

// longest is the length of the longest of the folded texts.
func (f *slot) longest() (n int) {
	for _, text := range f.fold {
		n = max(n, len(text))
	}
	return n
}

type charsKey struct {
	field int
	chars charset
	size  int
}

// pad is how many bytes that may be read follow each folded text.
const pad = 8

// ends finds whole texts and suffixes: by the last eight bytes of a text, or
// fewer for literals that are shorter.
type ends struct {
	lens  [256]uint8 // by the last byte: a bit for each length of a key, that of 1 the lowest
	shift uint8
	heads []int32 // by hash: first of the literals there, and one more at the end
	lits  []endLit
	empty []int32 // facts of the empty text
}

type endLit struct {
	key   uint64 // the last bytes, the very last in the upper bits
	size  uint8  // how many of them
	whole bool   // the text is nothing but the literal
	text  string
	facts []int32
}

// endMul spreads keys (2^64 divided by the golden ratio).
const endMul = 0x9e3779b97f4a7c15

func (x *ends) hash(key uint64, size uint8) uint64 {
	return (key ^ uint64(size)) * endMul >> (x.shift & 63)
}

// lastBytes is the last eight bytes of a text, the very last in the upper bits.
func lastBytes[T string | []byte](text T) (key uint64) {
	for i := max(0, len(text)-8); i < len(text); i++ {
		key = key>>8 | uint64(text[i])<<56
	}
	return key
}

func newEnds(lits []*lit) (x ends) {
	for _, l := range lits {
		size := uint8(min(len(l.text), 8))
		if size == 0 {
			x.empty = append(x.empty, l.facts...)
			continue
		}
		x.lens[l.text[len(l.text)-1]] |= 1 << (size - 1)
		x.lits = append(x.lits, endLit{lastBytes(l.text), size, l.shape == exact, l.text, l.facts})
	}
	x.shift = uint8(64 - bits.Len(uint(2*len(x.lits))))
	slices.SortStableFunc(x.lits, func(a, b endLit) int { return compareUint(x.hash(a.key, a.size), x.hash(b.key, b.size)) })
	x.heads = make([]int32, 1<<(64-x.shift)+1)
	for i := range x.lits {
		x.heads[x.hash(x.lits[i].key, x.lits[i].size)+1]++
	}
	for i := 1; i < len(x.heads); i++ {
		x.heads[i] += x.heads[i-1]
	}
	return x
}

func compareUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (x *ends) find(s *scratch, text []byte) {
	if len(text) == 0 {
		s.note(x.empty)
		return
	}
	var last uint64
	if len(text) >= 8 {
		last = binary.LittleEndian.Uint64(text[len(text)-8:])
	} else {
		last = lastBytes(text)
	}
	for lens := x.lens[text[len(text)-1]]; lens != 0; lens &= lens - 1 {
		size := uint8(bits.TrailingZeros8(lens)) + 1
		if int(size) > len(text) {
			return
		}
		key := last >> (64 - 8*uint(size)) << (64 - 8*uint(size))
		h := x.hash(key, size)
		lits := x.lits[x.heads[h]:x.heads[h+1]]
		for i := range lits {
			l := &lits[i]
			if l.key != key || l.size != size || len(l.text) > len(text) || l.whole && len(l.text) < len(text) {
				continue
			}
			if size < 8 || string(text[len(text)-len(l.text):]) == l.text {
				s.note(l.facts)
			}
		}
	}
}

// groups finds literals by groups of a few bytes, each literal under its least
// common one. Most groups of a text are in no literal, which marks (a bit by
// hash) tell.
type groups struct {
	width int      // bytes of a group: 2 to 4
	marks []uint64 // bit set by hash
	mul   uint32   // spreads groups; what is above their bytes it leaves out
	size  uint64   // how many marks there are, a power of two
	heads []int32  // by the hash's upper bits: first of the literals there
	lits  []groupLit
	texts []groupText // by literal, and one more at the end
	bytes string      // of the texts
	facts []int32     // of the texts
}

// hash is where the group at the beginning of four bytes has its mark: the upper
// bits of a product, as many as size has, by a second product since shifting by
// what only the run tells takes longer.
func (x *groups) hash(four uint32) uint64 { return uint64(four*x.mul) * x.size >> 32 }

// groupLit is what is looked at of a literal at first: the eight bytes from its
// group on, or as many as there are. Nearly always that decides.
type groupLit struct {
	word uint64
	fact int32 // where the literal establishes just one
	one  bool  // it does
	more bool  // what groupText says counts too
	free uint8 // bits of word that are not the literal's, the upper ones
	last uint8 // 1: the last of its head; else 0
}

// differs says whether a text differs from what is looked at; 0: it does not.
func (l *groupLit) differs(word uint64) uint64 { return (word ^ l.word) << (l.free & 63) }

// size is how many bytes are looked at.
func (l *groupLit) size() int { return 8 - int(l.free)/8 }

// groupText is the rest of a literal. What it has of bytes and facts ends where
// that of the next begins.
type groupText struct {
	bytes, facts int32 // the first
	anchor       int32 // place of the group in the literal
	first        bool  // the literal stands at the beginning of a text
}

// text is the literal.
func (x *groups) text(i int) string { return x.bytes[x.texts[i].bytes:x.texts[i+1].bytes] }

// hit is a marked place of a text, and the first of the literals to look for there.
type hit struct{ at, head int32 }

// maxHits is how many places of a text are collected before they are looked at.
const maxHits = 256

// Marks have 6 to 20 bits of a hash, heads headShift less: one for 8 marks, which
// is half a group on average.
const (
	leastMarkBits = 6
	maxMarkBits   = 20
	headShift     = 3
)

const gramLen = 4

// groupAt is the group of width bytes at i.
func groupAt(s string, i, width int) (g uint32) {
	for k := width - 1; k >= 0; k-- {
		g = g<<8 | uint32(s[i+k])
	}
	return g
}

// gramMul spreads groups of bytes (Knuth's multiplicative hash, 2^32 divided by
// the golden ratio).
const gramMul = 2654435761

// newGroups anchors the literals and makes the tables.
func newGroups(lits []*lit, width int) (x groups) {
	if len(lits) == 0 {
		return x
	}
	x.width, x.mul = width, gramMul<<(8*(gramLen-width))
	own := map[uint32]int{}
	for _, l := range lits {
		for i := 0; i+width <= len(l.text); i++ {
			own[groupAt(l.text, i, width)]++
		}
	}
	usually := usualGroups(width)
	type anchored struct {
		*lit
		at    int
		group uint32
	}
	var all []anchored
	distinct := map[uint32]bool{}
	for _, l := range lits {
		a := anchored{lit: l}
		least := 1 << 30
		for i := 0; i+width <= len(l.text); i++ {
			group := groupAt(l.text, i, width)
			// Judgement: a group that the usual texts hold costs more than one
			// shared by twenty literals, and fewer than eight bytes to look at first
			// four times as much.
			n := 20*usually[group] + own[group]
			if len(l.text)-i < 8 {
				n *= 4
			}
			if n < least {
				least, a.at, a.group = n, i, group
			}
		}
		distinct[a.group] = true
		all = append(all, a)
	}
	// 16 marks a group: 6 % of the others look marked. At least a word of them.
	n := uint8(leastMarkBits)
	for 1<<n < 16*len(distinct) && n < maxMarkBits {
		n++
	}
	x.size = 1 << n
	x.marks = make([]uint64, 1<<n/64)
	hash := func(a anchored) uint64 { return x.hash(a.group) }
	slices.SortStableFunc(all, func(a, b anchored) int { return compareUint(hash(a), hash(b)) })
	x.heads = make([]int32, 1<<n>>headShift)
	var texts strings.Builder
	for i, a := range all {
		h := hash(a)
		x.marks[h>>6] |= 1 << (h & 63)
		if i == 0 || hash(all[i-1])>>headShift != h>>headShift {
			x.heads[h>>headShift] = int32(i)
		}
		l := groupLit{fact: a.facts[0], one: len(a.facts) == 1, free: uint8(8 * max(0, 8-(len(a.text)-a.at)))}
		for k := range l.size() {
			l.word |= uint64(a.text[a.at+k]) << (8 * k)
		}
		l.more = l.size() < len(a.text) || a.shape == prefix || !l.one
		if i+1 == len(all) || hash(all[i+1])>>headShift != h>>headShift {
			l.last = 1
		}
		x.lits = append(x.lits, l)
		x.texts = append(x.texts, groupText{int32(texts.Len()), int32(len(x.facts)), int32(a.at), a.shape == prefix})
		texts.WriteString(a.text)
		x.facts = append(x.facts, a.facts...)
	}
	x.bytes = texts.String()
	x.texts = append(x.texts, groupText{bytes: int32(len(x.bytes)), facts: int32(len(x.facts))})
	return x
}

// candidates leaves of the marked places of a text those where a literal can
// stand. Loads that wait for memory wait together here, since there is no branch.
func (x *groups) candidates(hits *[maxHits]hit, found int, padded []byte) (left int) {
	for _, h := range hits[:found] {
		word := binary.LittleEndian.Uint64(padded[h.at:])
		h.head = x.heads[x.hash(uint32(word))>>headShift]
		l := &x.lits[h.head]
		hits[left&(maxHits-1)] = h
		if l.differs(word)*uint64(l.last) == 0 {
			left++
		}
	}
	return left
}

func (x *groups) find(s *scratch, text []byte) {
	n := len(text)
	if len(x.lits) == 0 || n < x.width {
		return
	}
	padded := text[:n+pad]
	for from, end := 0, n-x.width+1; from < end; from += len(s.hits) {
		found := x.collect(&s.hits, padded, from, min(from+len(s.hits), end))
		found = x.candidates(&s.hits, found, padded[from:])
		for _, h := range s.hits[:found] {
			i := from + int(h.at)
			word := binary.LittleEndian.Uint64(padded[i:])
			for k := int(h.head); ; k++ {
				l := &x.lits[k]
				switch {
				case l.differs(word) != 0 || l.one && factNode(l.fact).match(s): // another, or known already
				case l.more:
					x.compare(s, k, i, text)
				case i+l.size() <= n:
					s.noteOne(l.fact)
				}
				if l.last != 0 {
					break
				}
			}
		}
	}
}

// compare looks for the whole of a literal whose group stands at i.
func (x *groups) compare(s *scratch, k, i int, text []byte) {
	t, next := &x.texts[k], &x.texts[k+1]
	lit := x.bytes[t.bytes:next.bytes]
	from := i - int(t.anchor)
	if from < 0 || from > 0 && t.first || from+len(lit) > len(text) || string(text[from:from+len(lit)]) != lit {
		return
	}
	s.note(x.facts[t.facts:next.facts])
}

// collect puts the marked places of a text in hits, without a branch, and returns
// how many they are. Four groups come from one load.
func (x *groups) collect(hits *[maxHits]hit, padded []byte, from, to int) (found int) {
	marks, mul, size := x.marks, x.mul, x.size
	mark := func(four uint32, at int32) {
		hits[found&(maxHits-1)].at = at
		if h := uint64(four*mul) * size >> 32; marks[h>>6]&(1<<(h&63)) != 0 {
			found++
		}
	}
	text, at := padded[from:to+pad], int32(0)
	for ; len(text) >= pad+4; text = text[4:] {
		eight := binary.LittleEndian.Uint64(text)
		mark(uint32(eight), at)
		mark(uint32(eight>>8), at+1)
		mark(uint32(eight>>16), at+2)
		mark(uint32(eight>>24), at+3)
		at += 4
	}
	for ; len(text) > pad; text = text[1:] {
		mark(binary.LittleEndian.Uint32(text), at)
		at++
	}
	return found
}

// lateFinder finds what only candidates ask about: short texts, and texts that
// rules exclude. It runs when the first of them is asked for.
type lateFinder struct {
	field  int
	width  int // of the texts: 2, 3, or gramLen for longer ones too
	groups groups
}

// lateRun is what an event had a late finder do.
type lateRun struct {
	words  uint8 // looked for one by one
	likely uint8 // and those of them that grams let pass
	passed bool  // the pass is made: all facts are known
}

// factNode is a fact that the finders establish: one of some literals occurs in
// a field.
type factNode int32

func (n factNode) match(s *scratch) bool { return s.facts[n>>6]&(1<<(n&63)) != 0 }
func (n factNode) cost() int             { return 0 }

// lateNode is a fact that a late finder establishes.
type lateNode struct {
	finder int32
	fact   factNode
	words  []words // of which one occurs
	count  int     // how many they are
}

// words is literals that have the same byte at the same place, one that is
// seldom.
type words struct {
	seldom byte
	at     int
	texts  []string
}

func (n *lateNode) add(word string) {
	n.count++
	at := 0
	for i := range len(word) {
		if usualBytes()[word[i]] < usualBytes()[word[at]] {
			at = i
		}
	}
	for i := range n.words {
		if w := &n.words[i]; w.seldom == word[at] && w.at == at {
			w.texts = append(w.texts, word)
			return
		}
	}
	n.words = append(n.words, words{word[at], at, []string{word}})
}

// in reports whether a text contains one of the words.
func (w *words) in(text []byte) bool {
	for i := 0; ; i++ {
		next := bytes.IndexByte(text[i:], w.seldom)
		if next < 0 {
			return false
		}
		i += next
		from := i - w.at
		for _, word := range w.texts {
			if from >= 0 && len(word) <= len(text)-from && string(text[from:from+len(word)]) == word {
				return true
			}
		}
	}
}

// grams is which groups of two bytes the folded texts of a field hold, and which
// of three by hash. It answers for words of two, and for most that texts do not
// hold.
type grams struct {
	pairs, triples [1 << 16 / 64]uint64
}

// tripleHash is 16 bits of the three lower bytes; the factor leaves the fourth out.
func tripleHash(group uint32) uint32 { return group * (gramMul << 8 & 0xffffffff) >> 16 }

func (g *grams) add(text []byte) {
	rest := text[:len(text)+pad]
	for ; len(rest) > pad+2; rest = rest[2:] { // the last triple may be one more than there is, which does no harm
		four := binary.LittleEndian.Uint32(rest)
		pair, triple := uint16(four), tripleHash(four)
		g.pairs[pair>>6] |= 1 << (pair & 63)
		g.triples[triple>>6] |= 1 << (triple & 63)
		pair, triple = uint16(four>>8), tripleHash(four>>8)
		g.pairs[pair>>6] |= 1 << (pair & 63)
		g.triples[triple>>6] |= 1 << (triple & 63)
	}
	if len(rest) == pad+2 {
		pair := binary.LittleEndian.Uint16(rest)
		g.pairs[pair>>6] |= 1 << (pair & 63)
	}
}

// may reports whether the texts can hold a word of two bytes or more; of one of
// two, whether they do.
func (g *grams) may(word string) bool {
	if len(word) == 2 {
		pair := groupAt(word, 0, 2)
		return g.pairs[pair>>6]>>(pair&63)&1 != 0
	}
	for i := 0; i+3 <= len(word); i++ {
		triple := tripleHash(groupAt(word, i, 3))
		if g.triples[triple>>6]>>(triple&63)&1 == 0 {
			return false
		}
	}
	return true
}

func (g *grams) mayAny(words []string) bool {
	for _, w := range words {
		if g.may(w) {
			return true
		}
	}
	return false
}

// maxWords is how many words are looked for one by one in a field of up to
// wordBytes before grams are made, and maxLikely how many that the grams let pass
// before the pass of the field's finder takes less. Judgement, from measurements.
const (
	maxWords  = 12
	wordBytes = 500
	maxLikely = 40
)

func (n *lateNode) cost() int { return 2 + min(n.count, maxWords) }

func (n *lateNode) match(s *scratch) bool {
	if n.fact.match(s) {
		return true
	}
	f, asked := &s.bucket.late[n.finder], &s.ran[n.finder]
	if asked.passed {
		return false
	}
	texts := s.folded(f.field)
	if len(texts) == 0 {
		return false
	}
	var g *grams
	if int(asked.words)+n.count <= maxWords && !s.slot(f.field).grammed && len(texts[0]) <= wordBytes {
		asked.words += uint8(n.count)
	} else {
		asked.words, g = maxWords, s.grams(f.field)
	}
	for i := range n.words {
		w := &n.words[i]
		if g != nil {
			if !g.mayAny(w.texts) {
				continue
			}
			if f.width == 2 {
				s.noteOne(int32(n.fact))
				return true
			}
			if asked.likely++; asked.likely > maxLikely {
				asked.passed = true
				for _, text := range texts {
					f.groups.find(s, text)
				}
				return n.fact.match(s)
			}
		}
		for _, text := range texts {
			if w.in(text) {
				s.noteOne(int32(n.fact))
				return true
			}
		}
	}
	return false
}

// charNode asks whether a field holds an ASCII character, folded.
type charNode struct {
	field int
	char  byte
}

func (n charNode) cost() int { return 1 }
func (n charNode) match(s *scratch) bool {
	if f := s.slot(n.field); f.present && f.charred {
		return f.chars[n.char>>6]>>(n.char&63)&1 != 0
	}
	for _, text := range s.folded(n.field) {
		if bytes.IndexByte(text, n.char) >= 0 {
			return true
		}
	}
	return false
}

// note sets facts.
func (s *scratch) note(facts []int32) {
	for _, f := range facts {
		s.noteOne(f)
	}
}

func (s *scratch) noteOne(f int32) { s.facts[f>>6] |= 1 << (f & 63) }

// zeroed is n zero values in the room of old.
func zeroed[T any](old []T, n int) []T {
	out := slices.Grow(old[:0], n)[:n]
	clear(out)
	return out
}

// wordsOf is how many words a bit set of n bits has.
func wordsOf(n int) int { return (n + 63) / 64 }

// candidates is the bit set of a bucket's entries that the event may match, and
// establishes the facts.
func (s *scratch) candidates(b *bucket) []uint64 {
	s.bucket = b
	s.facts = zeroed(s.facts, wordsOf(len(b.asked)-1))
	s.facts[0] = 1 << always
	s.memos = zeroed(s.memos, wordsOf(b.memos))
	s.ran = zeroed(s.ran, len(b.late))
	for i := range b.finders {
		b.finders[i].find(s)
	}
	s.recalled()
	s.set = append(s.set[:0], b.always...)
	facts := s.facts[:len(b.asking)]
	for w, asking := range b.asking {
		for set := facts[w] & asking; set != 0; set &= set - 1 {
			f := w<<6 + bits.TrailingZeros64(set)
			for _, en := range b.asks[b.asked[f]:b.asked[f+1]] {
				s.set[en>>6] |= 1 << (en & 63)
			}
		}
	}
	return s.set
}
