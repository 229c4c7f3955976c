package catalog

import "slices"

// finder finds all of a set of patterns in a text in one pass over it (Aho and
// Corasick, 1975), without regard to ASCII case and to the kind of separator.
// Its tables are indexed by class of byte: the patterns use about 50 of 256.
type finder struct {
	class  [256]uint8 // of a byte; 0: in no pattern
	width  int        // number of classes
	next   []uint16   // state*width + class -> state
	ends   []uint16   // state -> index in hits of the first pattern that ends here, 0: none
	suffix []uint16   // state -> the next state on the way of shorter suffixes where a pattern ends, 0: none
	first  []uint16   // state -> itself if a pattern ends here, else its suffix
	hits   [][]hit    // index 0 unused
}

type hit struct {
	mark   *mark
	length int
}

type pattern struct {
	text string
	mark mark
}

func fold(b byte) byte {
	if b == '\\' {
		return '/'
	}
	if b >= 'A' && b <= 'Z' {
		return b | 0x20
	}
	return b
}

// newFinder compiles patterns. States are counted in 16 bits, which some 4,000
// patterns of 15 bytes fill; more is a mistake in tools.json.
func newFinder(patterns []pattern) *finder {
	f := &finder{width: 1}
	size := 1
	for _, p := range patterns {
		size += len(p.text)
		for i := range len(p.text) {
			if b := fold(p.text[i]); f.class[b] == 0 {
				f.class[b] = uint8(f.width)
				f.width++
			}
		}
	}
	if size > 1<<16-1 {
		panic("catalog: too many patterns")
	}
	for b := range 256 { // upper case and backslash share the class of what they fold to
		f.class[b] = f.class[fold(byte(b))]
	}
	f.next = make([]uint16, size*f.width)
	f.ends, f.suffix = make([]uint16, size), make([]uint16, size)
	f.hits = make([][]hit, 1)
	states := 1
	for i := range patterns {
		p := &patterns[i]
		s := 0
		for j := range len(p.text) {
			at := s*f.width + int(f.class[p.text[j]])
			if f.next[at] == 0 {
				f.next[at] = uint16(states)
				states++
			}
			s = int(f.next[at])
		}
		if f.ends[s] == 0 {
			f.ends[s] = uint16(len(f.hits))
			f.hits = append(f.hits, nil)
		}
		e := f.ends[s]
		f.hits[e] = append(f.hits[e], hit{&p.mark, len(p.text)})
	}
	f.next, f.ends, f.suffix = f.next[:states*f.width], f.ends[:states], f.suffix[:states]
	f.link(states)
	f.first = slices.Clone(f.suffix)
	for s := range f.first {
		if f.ends[s] != 0 {
			f.first[s] = uint16(s)
		}
	}
	return f
}

// link fills in where to go on when no pattern goes on: breadth first, so that
// shorter suffixes are done before.
func (f *finder) link(states int) {
	fail := make([]uint16, states)
	var queue []int
	for c := 1; c < f.width; c++ {
		if s := int(f.next[c]); s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		back := int(fail[s])
		f.suffix[s] = f.suffix[back]
		if f.ends[back] != 0 {
			f.suffix[s] = uint16(back)
		}
		for c := 1; c < f.width; c++ {
			at := s*f.width + c
			if t := int(f.next[at]); t != 0 {
				fail[t] = f.next[back*f.width+c]
				queue = append(queue, t)
			} else {
				f.next[at] = f.next[back*f.width+c]
			}
		}
	}
}

// find calls visit for every occurrence text[from:to] of a pattern, until it
// answers false.
func (f *finder) find(text string, visit func(m *mark, from, to int) bool) {
	f.run(0, text, visit)
}

// findPath is find as if a separator stood before the path; from may be -1.
func (f *finder) findPath(path string, visit func(m *mark, from, to int) bool) {
	f.run(int(f.next[f.class['/']]), path, visit)
}

func (f *finder) run(state int, text string, visit func(m *mark, from, to int) bool) {
	next, first, width := f.next, f.first, f.width
	for i := range len(text) {
		state = int(next[state*width+int(f.class[text[i]])])
		if first[state] == 0 {
			continue
		}
		for s := int(first[state]); s != 0; s = int(f.suffix[s]) {
			for _, h := range f.hits[f.ends[s]] {
				if !visit(h.mark, i+1-h.length, i+1) {
					return
				}
			}
		}
	}
}
