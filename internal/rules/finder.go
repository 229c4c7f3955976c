package rules

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
)

// A finder finds the literals of one field in one pass. It is immutable once
// built.
type finder struct {
	field  int
	ends   ends
	groups groups
	hints  []hintNode
}

// find notes the facts that the folded texts of the field establish.
func (f *finder) find(s *scratch) {
	texts := s.folded(f.field)
	if len(texts) == 0 {
		return
	}
	for _, text := range texts {
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
	width int    // bytes of a group: 2, 3 or 4
	mask  uint32 // of these
	marks []uint64
	shift uint8   // of a group's hash, to be a place in marks
	heads []int32 // by the hash's upper bits: first of the literals there, and one more at the end
	lits  []groupLit
	texts []groupText // by literal
}

// groupLit is what is looked at of a literal at first: eight bytes of it, or all
// of it. Nearly always that decides.
type groupLit struct {
	word uint64
	back int32 // from the group's place in a text to the word's
	size uint8 // bytes of word
	more bool  // what groupText says counts too
	fact int32 // where the literal establishes just one
}

// groupText is the rest of a literal.
type groupText struct {
	text   string
	anchor int32 // place of the group in the literal
	first  bool  // the literal stands at the beginning of a text
	facts  []int32
}

const gramLen = 4

func gramAt(s []byte, i int) uint32 { return binary.LittleEndian.Uint32(s[i:]) }

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
	x.width, x.mask = width, 1<<(8*width-1)<<1-1
	own := map[uint32]int{}
	for _, l := range lits {
		for i := 0; i+width <= len(l.text); i++ {
			own[groupAt(l.text, i, width)]++
		}
	}
	usually := usualGroups(width)
	distinct := map[uint32]bool{}
	for _, l := range lits {
		t := groupText{first: l.shape == prefix, text: l.text, facts: l.facts}
		least := 1 << 30
		for i := 0; i+width <= len(l.text); i++ {
			at := groupAt(l.text, i, width)
			// Judgement: a group that the usual texts hold costs more than one
			// shared by twenty literals.
			if n := 20*usually[at] + own[at]; n < least {
				least, t.anchor = n, int32(i)
			}
		}
		distinct[groupAt(l.text, int(t.anchor), width)] = true
		x.texts = append(x.texts, t)
	}
	// 16 marks a group: 6 % of the others look marked. At least a word of them.
	n := uint8(6)
	for 1<<n < 16*len(distinct) && n < 20 {
		n++
	}
	x.shift = 32 - n
	x.marks = make([]uint64, 1<<n/64)
	hash := func(t *groupText) uint32 { return groupAt(t.text, int(t.anchor), width) * gramMul >> x.shift }
	slices.SortStableFunc(x.texts, func(a, b groupText) int { return compareUint(uint64(hash(&a)), uint64(hash(&b))) })
	x.heads = make([]int32, len(x.marks)*4+1) // one a 16 marks: a group each on average
	for i := range x.texts {
		t := &x.texts[i]
		h := hash(t)
		x.marks[h>>6] |= 1 << (h & 63)
		x.heads[h>>4+1]++
		at := max(0, min(int(t.anchor), len(t.text)-8))
		l := groupLit{back: int32(at) - t.anchor, size: uint8(min(8, len(t.text)))}
		for k := range int(l.size) {
			l.word |= uint64(t.text[at+k]) << (8 * k)
		}
		l.more = len(t.text) > 8 || t.first || len(t.facts) > 1
		l.fact = t.facts[0]
		x.lits = append(x.lits, l)
	}
	for i := 1; i < len(x.heads); i++ {
		x.heads[i] += x.heads[i-1]
	}
	return x
}

func (x *groups) find(s *scratch, text []byte) {
	marks, shift, mask, n := x.marks, x.shift&31, x.mask, len(text)
	if len(marks) == 0 || n < x.width {
		return
	}
	// The marked places are collected without a branch, and looked at after.
	padded, hits := text[:n+pad], &s.hits
	for from, end := 0, n-x.width+1; from < end; from += len(hits) {
		found := 0
		for i := from; i < min(from+len(hits), end); i += 4 { // the last of them may lie in the pad
			text := binary.LittleEndian.Uint64(padded[i:])
			for k := range 4 {
				h := uint32(text>>(8*k)) & mask * gramMul >> shift
				hits[found&(len(hits)-1)] = uint64(i+k)<<32 | uint64(h)
				found += int(marks[h>>6] >> (h & 63) & 1)
			}
		}
		for _, hit := range hits[:found] {
			x.marked(s, padded, int(hit>>32), uint32(hit))
		}
	}
}

// marked looks for the literals that may have a group of this hash at i.
func (x *groups) marked(s *scratch, padded []byte, i int, h uint32) {
	head := int(x.heads[h>>4])
	lits := x.lits[head:x.heads[h>>4+1]]
	for k := range lits {
		l := &lits[k]
		at := i + int(l.back)
		if at < 0 || at+8 > len(padded) || (binary.LittleEndian.Uint64(padded[at:])^l.word)<<((64-8*uint(l.size))&63) != 0 {
			continue
		}
		if !l.more {
			if at+int(l.size)+pad <= len(padded) {
				s.noteOne(l.fact)
			}
			continue
		}
		t := &x.texts[head+k]
		from := i - int(t.anchor)
		if from < 0 || from > 0 && t.first || from+len(t.text)+pad > len(padded) {
			continue
		}
		if string(padded[from:from+len(t.text)]) == t.text {
			s.note(t.facts)
		}
	}
}

// lateFinder finds what only candidates ask about: short texts, and texts that
// rules exclude. It runs when the first of them is asked for.
type lateFinder struct {
	field  int
	width  int    // of the texts: 2, 3, or gramLen for longer ones too
	groups groups // none where grams know all
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

func tripleHash(group uint32) uint32 { return group & 0xffffff * gramMul >> 16 }

func (g *grams) add(text []byte) {
	padded := text[:len(text)+pad]
	for i := 0; i+1 < len(text); i++ {
		group := gramAt(padded, i)
		pair, triple := group&0xffff, tripleHash(group) // the last one more than there is, which does no harm
		g.pairs[pair>>6] |= 1 << (pair & 63)
		g.triples[triple>>6] |= 1 << (triple & 63)
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

// maxWords is how many words are looked for one by one in a field before grams
// are made, and maxLikely how many that the grams let pass before the pass of
// the field's finder takes less. Judgement, from measurements.
const (
	maxWords  = 12
	maxLikely = 40
)

func (n *lateNode) cost() int { return 2 + min(n.count, maxWords) }

func (n *lateNode) match(s *scratch) bool {
	f := &s.bucket.late[n.finder]
	texts := s.folded(f.field)
	if n.fact.match(s) || len(texts) == 0 {
		return len(texts) > 0
	}
	asked := &s.ran[n.finder]
	if asked.passed {
		return false
	}
	var g *grams
	if int(asked.words)+n.count <= maxWords {
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

// charNode asks whether a field holds an ASCII character.
type charNode struct {
	field int
	chars charset
}

func (n charNode) cost() int { return 1 }
func (n charNode) match(s *scratch) bool {
	return s.slot(n.field).present && s.chars(n.field).holds(&n.chars)
}

// note sets facts and makes candidates of the rules that wait for them.
func (s *scratch) note(facts []int32) {
	for _, f := range facts {
		s.noteOne(f)
	}
}

func (s *scratch) noteOne(f int32) {
	if w, bit := &s.facts[f>>6], uint64(1)<<(f&63); *w&bit == 0 {
		*w |= bit
		for _, en := range s.bucket.asks[s.bucket.asked[f]:s.bucket.asked[f+1]] {
			s.set[en>>6] |= 1 << (en & 63)
		}
	}
}

// zeroed is a bit set of n bits, all clear, in the room of old.
func zeroed(old []uint64, n int) []uint64 {
	words := (n + 63) / 64
	out := slices.Grow(old[:0], words)[:words]
	clear(out)
	return out
}

// candidates is the bit set of a bucket's entries that the event may match, and
// establishes the facts.
func (s *scratch) candidates(b *bucket) []uint64 {
	s.bucket = b
	s.set = append(s.set[:0], b.always...)
	s.facts = zeroed(s.facts, len(b.asked)-1)
	s.asked, s.held = zeroed(s.asked, b.memos), zeroed(s.held, b.memos)
	s.ran = slices.Grow(s.ran[:0], len(b.late))[:len(b.late)]
	clear(s.ran)
	for i := range b.finders {
		b.finders[i].find(s)
	}
	return s.set
}
