package rules

import (
	"hash/maphash"
	"slices"
	"unsafe"

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
// of which seldom three meet in one of 8,192 pairs of places of 64 bytes, 1 MB;
// longer ones are few: the scripts of management tools, and Java's. Each text takes
// twice its own length and what its facts take; a worker whose texts take maxRoom
// begins anew.
const (
	recallBytes, recallBits = 255, 13
	longBytes, longBits     = 8191, 6
	seenBits                = 12
	maxRoom                 = 4 << 20
)

// recall is what the texts of one worker established.
type recall struct {
	texts [][2]recalled // by hash; those of more than recallBytes follow the others
	seen  []uint64      // by hash: 16 bits more of the hash of each of the four texts that came last
	facts []uint64      // scratch.facts while a text is looked through
	asked []question    // of the event
	count uint64        // texts kept
	room  int           // bytes that kept texts take
}

// question is a text of a finder's field. All of an event are put before the first
// is answered: so loads wait for memory together.
type question struct {
	finder *finder
	before string // see slot
	joint  byte
	text   string
	hash   uint64
	pair   *[2]recalled // where it is kept, if it is
	known  *recalled    // where it is kept
}

// recalled is a text of a finder's field and what it established.
type recalled struct {
	finder *finder
	text   []byte
	words  []bitWord // of scratch.facts
	*reading
}

// reading is what rules ask of a text besides facts.
type reading struct {
	late   bool   // the facts of late finders are known too
	folded []byte // pad bytes of room follow
	chars  charset
	memos  []answers // of memoNodes that ask of the field
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
	case g.from == fromHashes || g.from == fromAccount:
		return finder{field: field, recurs: true}
	}
	return finder{field: field}
}

var recallSeed = maphash.MakeSeed()

func (r *recall) ask(q question) {
	if r.texts == nil {
		r.texts, r.seen = make([][2]recalled, 1<<recallBits+1<<longBits), make([]uint64, 1<<seenBits)
	}
	q.hash = maphash.String(recallSeed, q.text) + q.finder.number*endMul
	if q.joint != 0 {
		q.hash ^= maphash.String(recallSeed, q.before) * endMul
	}
	at := q.hash >> (64 - recallBits)
	if len(q.before)+len(q.text) > recallBytes {
		at = 1<<recallBits + q.hash>>(64-longBits)
	}
	q.pair = &r.texts[at]
	r.asked = append(r.asked, q)
}

// done is the end of an event.
func (r *recall) done() {
	clear(r.asked)
	r.asked = r.asked[:0]
	if r.room > maxRoom {
		clear(r.texts)
		r.room = 0
	}
}

// again reports whether a text that is not kept came before, and not four others
// in its place since.
func (r *recall) again(hash uint64) bool {
	last := &r.seen[hash>>(64-seenBits)]
	tag := uint64(uint16(hash >> (64 - seenBits - 16)))
	for x := *last; x != 0; x >>= 16 {
		if x&0xffff == tag {
			return true
		}
	}
	*last = *last<<16 | tag
	return false
}

// of is what is kept of the text that the event has in a field; nil: nothing.
func (r *recall) of(field int) *reading {
	for i := range r.asked {
		if q := &r.asked[i]; q.known != nil && q.finder.field == field {
			return q.known.reading
		}
	}
	return nil
}

// free is one of the places of a question that no text of the event is kept in;
// nil: there is none.
func (r *recall) free(q *question) *recalled {
	for i := range q.pair {
		// Either, by chance, so that of three texts that come in turn some are met.
		k := &q.pair[(uint64(i)+q.hash+r.count)&1]
		if !slices.ContainsFunc(r.asked, func(x question) bool { return x.known == k }) {
			return k
		}
	}
	return nil
}

// is reports whether it is the question's text that is kept.
func (k *recalled) is(q *question) bool {
	if k.finder != q.finder {
		return false
	}
	if q.joint == 0 {
		return string(k.text) == q.text
	}
	n := len(q.before)
	return len(k.text) == n+1+len(q.text) && string(k.text[:n]) == q.before && k.text[n] == q.joint && string(k.text[n+1:]) == q.text
}

// recalled notes what the texts asked about establish. What a text costs comes in
// two parts: late finders look through it when it comes for the third time.
func (s *scratch) recalled() {
	for i := range s.recall.asked {
		q := &s.recall.asked[i]
		k := &q.pair[0]
		if !k.is(q) {
			k = &q.pair[1]
		}
		if k.is(q) {
			q.known = k
			if !k.late {
				k.late = true
				s.recall.room -= k.room()
				k.learn(s, q.finder.lookLate)
				s.recall.room += k.room()
			}
			for _, late := range q.finder.late {
				s.ran[late].passed = true
			}
		} else {
			if k = nil; s.recall.again(q.hash) {
				k = s.recall.free(q)
			}
			if k == nil {
				q.finder.look(s)
				continue
			}
			k.keep(s, q)
			q.known = k
		}
		for _, w := range k.words {
			s.facts[w.at] |= w.bits
		}
	}
}

// keep looks through a text and keeps it.
func (k *recalled) keep(s *scratch, q *question) {
	f := q.finder
	s.recall.count++
	s.recall.room -= k.room()
	if k.reading == nil {
		k.reading = &reading{}
	}
	k.finder, k.text, k.words, k.late = f, append(k.text[:0], s.raw(f.field)[0]...), k.words[:0], false
	k.learn(s, f.look)
	folded := s.folded(f.field)[0]
	k.folded = append(slices.Grow(k.folded[:0], len(folded)+pad), folded...)
	k.chars = *s.chars(f.field)
	k.memos = zeroed(k.memos, len(s.memos))
	s.recall.room += k.room()
}

// room is how many bytes a text takes besides its place.
func (k *recalled) room() int {
	if k.reading == nil {
		return 0
	}
	return int(unsafe.Sizeof(reading{})) + cap(k.text) + cap(k.folded) +
		cap(k.words)*int(unsafe.Sizeof(bitWord{})) + cap(k.memos)*int(unsafe.Sizeof(answers{}))
}

// learn keeps the facts that look establishes.
func (k *recalled) learn(s *scratch, look func(*scratch)) {
	own := s.facts
	s.recall.facts = zeroed(s.recall.facts, len(own))
	s.facts = s.recall.facts
	look(s)
	for at, w := range s.facts {
		if w != 0 {
			k.words = append(k.words, bitWord{at, w})
		}
	}
	s.facts = own
}

// lookLate is look for what late finders establish.
func (f *finder) lookLate(s *scratch) {
	for _, text := range s.folded(f.field) {
		for _, late := range f.late {
			s.bucket.late[late].groups.find(s, text)
		}
	}
}
