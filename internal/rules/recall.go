package rules

import (
	"math/bits"

	"sekisho/internal/event"
)

// The fields of most events hold what they held before: a PC starts a few hundred
// programs, for a handful of people, and each of them again and again. What such
// a text establishes depends on the text alone, so that a worker keeps it: the
// finder's answer to the texts it was last asked about. A text that is not kept,
// or lost its place to another, is looked through as ever.

// Limits of what is kept. Judgement: paths of programs have 30 to 90 bytes, lists
// of hashes 200. A desktop's programs have some hundred texts, SigmaHQ's events 750,
// which seldom meet in 8,192 places of 64 bytes; each text takes its own length and
// what its facts take besides.
const (
	recallBytes = 255
	recallBits  = 13
)

// recall is what the texts of one worker established.
type recall struct {
	texts []recalled // by hash
	facts []uint64   // scratch.facts while a text is looked through
	asked []question
}

// question is a text of a finder's field, and where it is kept if it is. All of
// an event are put before the first is answered: so loads wait for memory
// together.
type question struct {
	finder *finder
	text   string
	at     *recalled
}

// recalled is a text of a finder's field and what it established. It fills one
// line of the processor's cache.
type recalled struct {
	finder *finder
	text   []byte
	words  []bitWord // of scratch.facts
	_      [8]byte
}

// bitWord is one word of a bit set that is not all clear.
type bitWord struct {
	at   int
	bits uint64
}

// newFinder is a finder without literals.
func newFinder(field int, g *Getter) finder {
	switch {
	case g.from == fromTable && g.id.Type() == event.String && !varied[g.id]:
		return finder{field: field, recurs: true, direct: true, id: g.id}
	case g.from == fromHashes:
		return finder{field: field, recurs: true}
	}
	return finder{field: field}
}

// varied is the fields whose texts seldom come twice: command lines, and paths of
// files that are not programs.
var varied = func() []bool {
	out := make([]bool, fields)
	for _, name := range []string{"event.id", "file.path", "file.name", "process.command_line",
		"process.entity_id", "process.parent.entity_id", "sekisho.source.path"} {
		out[fieldID(name)] = true
	}
	return out
}()

// slotOf is where a text is kept if it is.
func (r *recall) slotOf(f *finder, text string) *recalled {
	if r.texts == nil {
		r.texts = make([]recalled, 1<<recallBits)
	}
	n := len(text)
	h := uint64(n) ^ uint64(f.field)<<8
	if n >= 8 { // texts of a field mostly differ in their middle or at their end
		h ^= eightOf(text[n-8:]) ^ bits.RotateLeft64(eightOf(text[(n-8)/2:]), 29)
	} else {
		h ^= lastBytes(text)
	}
	h *= endMul
	return &r.texts[h>>(64-recallBits)]
}

func (r *recall) ask(f *finder, text string) {
	r.asked = append(r.asked, question{f, text, r.slotOf(f, text)})
}

// recalled notes what the texts asked about establish.
func (s *scratch) recalled() {
	for i := range s.recall.asked {
		q := &s.recall.asked[i]
		k := q.at
		if k.finder != q.finder || string(k.text) != q.text {
			q.finder.learn(s, k, q.text)
		}
		for _, w := range k.words {
			s.facts[w.at] |= w.bits
		}
	}
	clear(s.recall.asked)
	s.recall.asked = s.recall.asked[:0]
}

// learn looks through a text and keeps what it establishes.
func (f *finder) learn(s *scratch, k *recalled, text string) {
	own := s.facts
	s.recall.facts = zeroed(s.recall.facts, 64*len(own))
	s.facts = s.recall.facts
	f.look(s)
	k.finder, k.text, k.words = f, append(k.text[:0], text...), k.words[:0]
	for at, w := range s.facts {
		if w != 0 {
			k.words = append(k.words, bitWord{at, w})
		}
	}
	s.facts = own
}
