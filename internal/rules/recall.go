package rules

import (
	"hash/maphash"

	"sekisho/internal/event"
)

// The fields of most events hold what they held before: a PC starts a few hundred
// programs, for a handful of people, and each of them again and again, often with
// the same arguments. What such a text establishes depends on the text alone, so
// that a worker keeps it: the finder's answer to the texts it was last asked about.
// A text is kept when it comes for the second time, so that those that come once
// cost little and take nobody's place. One that is not kept, or lost its place to
// another, is looked through as ever.

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
	seen  []uint16   // by hash: more of the hash of the text that came last
	facts []uint64   // scratch.facts while a text is looked through
	asked []question
}

// question is a text of a finder's field, and where it is kept if it is. All of
// an event are put before the first is answered: so loads wait for memory
// together.
type question struct {
	finder *finder
	text   string
	hash   uint64
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
	case g.from == fromTable && g.id.Type() == event.String:
		return finder{field: field, recurs: true, direct: true, id: g.id}
	case g.from == fromHashes:
		return finder{field: field, recurs: true}
	}
	return finder{field: field}
}

var recallSeed = maphash.MakeSeed()

func (r *recall) ask(f *finder, text string) {
	if r.texts == nil {
		r.texts, r.seen = make([]recalled, 1<<recallBits), make([]uint16, 1<<recallBits)
	}
	h := maphash.String(recallSeed, text) + f.number*endMul
	r.asked = append(r.asked, question{f, text, h, &r.texts[h>>(64-recallBits)]})
}

// again reports whether a text that is not kept came before.
func (r *recall) again(hash uint64) bool {
	last, tag := &r.seen[hash>>(64-recallBits)], uint16(hash>>(64-recallBits-16))
	if *last == tag {
		return true
	}
	*last = tag
	return false
}

// recalled notes what the texts asked about establish.
func (s *scratch) recalled() {
	for i := range s.recall.asked {
		q := &s.recall.asked[i]
		k := q.at
		if k.finder != q.finder || string(k.text) != q.text {
			if !s.recall.again(q.hash) {
				q.finder.look(s)
				continue
			}
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
