package rules

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// The limits of automata. Judgement: SigmaHQ's expressions make 20 to 200 states
// each; a state takes some 100 bytes, so a worker keeps 2 MB at most.
const (
	maxStates     = 512     // of one expression; a text that leads beyond is left to package regexp
	maxAllStates  = 14_000  // of a worker, after which it begins anew
	restAfterFull = 64      // texts left to package regexp before automata are tried again
	maxWide       = 64      // transitions that a state keeps for special characters
	maxEager      = 200_000 // instructions looked at to make an automaton beforehand, 1 ms
)

// newExpression is a compiled expression, with what it needs and, where that is
// small, its automaton.
func newExpression(id int, re *regexp.Regexp, prog *syntax.Prog, parsed *syntax.Regexp) *expression {
	x := &expression{id: id, re: re, prog: prog, kinds: kindsOf(prog), need: needOf(parsed)}
	if prefix, _ := re.LiteralPrefix(); len(prefix) > 1 {
		x.kinds.prefix = []byte(prefix)
	}
	x.kinds.aloneSecond(parsed)
	if !x.need.isLine {
		x.whole = wholeDFA(x)
	}
	return x
}

// automata is one worker's deterministic automata, made as texts need them, of
// the expressions that have none made beforehand. Package regexp follows every
// alternative at once, 50 ns a byte; an automaton that knows its way takes one.
type automata struct {
	by     []*dfa // by expression.id
	states int    // of all
}

// match runs an expression over a text.
func (a *automata) match(x *expression, text []byte) bool {
	if x.whole != nil {
		hit, _ := x.whole.match(text)
		return hit
	}
	if a.states > maxAllStates {
		clear(a.by)
		a.states = 0
	}
	for len(a.by) <= x.id {
		a.by = append(a.by, nil)
	}
	d := a.by[x.id]
	if d == nil {
		d = newDFA(x)
		a.by[x.id] = d
	}
	if d.rest > 0 {
		d.rest--
		return x.re.Match(text)
	}
	had := len(d.states)
	hit, ok := d.match(text)
	a.states += len(d.states) - had
	if ok {
		return hit
	}
	a.states -= len(d.states)
	a.by[x.id] = newDFA(x)
	a.by[x.id].rest = restAfterFull
	return x.re.Match(text)
}

// dfa answers whether an expression matches anywhere in a text. A state is the
// instructions that a match so far can go on with, and the character before as
// far as it matters to \b, ^ and $. Once complete it is immutable.
type dfa struct {
	prog   *syntax.Prog
	kinds  *kinds
	looks  bool // the expression has \b, ^, $ or their like
	next   []int32
	states []dfaState // the first idleStates have no instructions
	table  []int32    // states by hash, 1 more than their number; 0: none
	rest   int        // texts to leave to package regexp

	// Of step; kept to save allocations.
	seen  []bool
	stack []uint32
	reach []uint32
	out   []uint32
	room  []uint32 // of the states' instructions
	work  int      // instructions looked at
}

type dfaState struct {
	pcs    []uint32 // sorted
	before rune     // -1 at the beginning; else '\n', 'a' for a word's, or ' '
	end    int8     // whether a match ends where the text does: 1 yes, -1 no, 0 not known yet
	wide   map[rune]int32
}

// idleStates is how many states there are in which no match has begun, in this
// order of the character before.
const idleStates = 4

var idleBefore = [idleStates]rune{-1, '\n', 'a', ' '}

// What next says besides states, which count from 0.
const (
	unknownStep = -1 - iota
	matchStep
	deadStep // no match can follow
	fullStep // too many states
)

// kinds puts the characters into groups that an expression treats alike, so
// that a state is small: those of ASCII, and one for most others.
type kinds struct {
	of      [utf8.RuneSelf]uint8
	n       int
	special []rune // pairs: first and last of the other characters that are not treated alike

	// A match can only begin with these bytes; skips says that they are known.
	// alone is the byte where it is just one, prefix what a match begins with where
	// that is more than one byte. second says that one of them and then alone begin
	// each match, or the shortest that ends where it does ("\s-", "\w+-").
	skips  bool
	first  [256]bool
	alone  int // -1: more than one
	second bool
	prefix []byte
}

// isSpecial reports whether a character outside ASCII has no kind.
func (k *kinds) isSpecial(r rune) bool {
	for i := 0; i < len(k.special); i += 2 {
		if k.special[i] <= r && r <= k.special[i+1] {
			return true
		}
	}
	return false
}

// notAlike notes the characters outside ASCII that an instruction treats in
// another way than the rest.
func (k *kinds) notAlike(in *syntax.Inst) {
	add := func(from, to rune) {
		if from = max(from, utf8.RuneSelf); from > to {
			return
		}
		for i := 0; i < len(k.special); i += 2 {
			if k.special[i] == from && k.special[i+1] == to {
				return
			}
		}
		k.special = append(k.special, from, to)
	}
	if len(in.Rune) == 1 {
		add(in.Rune[0], in.Rune[0])
		if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
			for r := unicode.SimpleFold(in.Rune[0]); r != in.Rune[0]; r = unicode.SimpleFold(r) {
				add(r, r)
			}
		}
		return
	}
	if n := len(in.Rune); n > 0 && in.Rune[n-1] == unicode.MaxRune { // all but the gaps
		from := rune(0)
		for i := 0; i < n; i += 2 {
			add(from, in.Rune[i]-1)
			from = in.Rune[i+1] + 1
		}
		return
	}
	for i := 0; i+1 < len(in.Rune); i += 2 {
		add(in.Rune[i], in.Rune[i+1])
	}
}

// begin finds the bytes that a match can begin with.
func (k *kinds) begin(prog *syntax.Prog) {
	k.skips = true
	seen := make([]bool, len(prog.Inst))
	stack := []uint32{uint32(prog.Start)}
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		in := &prog.Inst[pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Arg, in.Out)
		case syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth:
			stack = append(stack, in.Out)
		case syntax.InstMatch, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			k.skips = false
			return
		case syntax.InstRune, syntax.InstRune1:
			for c := range utf8.RuneSelf {
				k.first[c] = k.first[c] || in.MatchRune(rune(c))
			}
			beyond := in.Rune[len(in.Rune)-1] >= utf8.RuneSelf
			if len(in.Rune) == 1 && syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
				for r := unicode.SimpleFold(in.Rune[0]); r != in.Rune[0]; r = unicode.SimpleFold(r) {
					beyond = beyond || r >= utf8.RuneSelf
				}
			}
			for c := utf8.RuneSelf; beyond && c < len(k.first); c++ {
				k.first[c] = true
			}
		}
	}
	n := 0
	for c, is := range k.first {
		if is {
			n++
			k.alone = c
		}
	}
	if n != 1 {
		k.alone = -1
	}
	k.skips = n < len(k.first)/2
}

// aloneSecond notes the second byte of each match where there is just one.
func (k *kinds) aloneSecond(re *syntax.Regexp) {
	for re.Op == syntax.OpCapture {
		re = re.Sub[0]
	}
	if !k.skips || k.alone >= 0 || re.Op != syntax.OpConcat {
		return
	}
	begins := re.Sub[0]
	if begins.Op == syntax.OpPlus {
		begins = begins.Sub[0]
	}
	then := re.Sub[1]
	if _, ok := bytesOf(begins); !ok || then.Op != syntax.OpLiteral || then.Flags&syntax.FoldCase != 0 || then.Rune[0] >= utf8.RuneSelf {
		return
	}
	k.alone, k.second = int(then.Rune[0]), true
}

// skip is the next place from i on where a match can begin.
func (k *kinds) skip(text []byte, i int) int {
	if k.second {
		for at := i + 1; at < len(text); at++ {
			n := bytes.IndexByte(text[at:], byte(k.alone))
			if n < 0 {
				break
			}
			if at += n; k.first[text[at-1]] {
				return at - 1
			}
		}
		return len(text)
	}
	if len(k.prefix) > 0 {
		if n := bytes.Index(text[i:], k.prefix); n >= 0 {
			return i + n
		}
		return len(text)
	}
	if k.alone >= 0 {
		if n := bytes.IndexByte(text[i:], byte(k.alone)); n >= 0 {
			return i + n
		}
		return len(text)
	}
	for i < len(text) && !k.first[text[i]] {
		i++
	}
	return i
}

func kindsOf(prog *syntax.Prog) *kinds {
	k := &kinds{n: 1}
	split := func(in func(r rune) bool) {
		var moved [utf8.RuneSelf]int // by kind: 1 + that of its characters which are in
		whole := k.of
		for c := range k.of {
			if !in(rune(c)) {
				continue
			}
			if moved[whole[c]] == 0 {
				moved[whole[c]] = k.n + 1
				k.n++
			}
			k.of[c] = uint8(moved[whole[c]] - 1)
		}
		// A kind that moved as a whole leaves its number unused: count anew.
		var number [2 * utf8.RuneSelf]int
		k.n = 0
		for c, kind := range k.of {
			if number[kind] == 0 {
				k.n++
				number[kind] = k.n
			}
			k.of[c] = uint8(number[kind] - 1)
		}
	}
	split(syntax.IsWordChar)
	split(func(r rune) bool { return r == '\n' })
	var last *syntax.Inst
	for i := range prog.Inst {
		in := &prog.Inst[i]
		if in.Op != syntax.InstRune && in.Op != syntax.InstRune1 || last != nil && last.Arg == in.Arg && slices.Equal(last.Rune, in.Rune) {
			continue
		}
		last = in
		split(in.MatchRune)
		k.notAlike(in)
	}
	k.n++ // all other characters
	k.begin(prog)
	return k
}

func newDFA(x *expression) *dfa {
	prog := x.prog
	d := &dfa{prog: prog, kinds: x.kinds, seen: make([]bool, len(prog.Inst)), table: make([]int32, 64),
		next: make([]int32, 0, 32*x.kinds.n), states: make([]dfaState, 0, 32)}
	for i := range prog.Inst {
		d.looks = d.looks || prog.Inst[i].Op == syntax.InstEmptyWidth
	}
	for _, before := range idleBefore {
		d.state(nil, before)
	}
	return d
}

// wholeDFA is a complete automaton, or nil where that takes too much.
func wholeDFA(x *expression) *dfa {
	d := newDFA(x)
	if len(x.kinds.special) > 0 {
		return nil
	}
	var sample [256]rune // of each kind
	for c := range utf8.RuneSelf {
		sample[x.kinds.of[c]] = rune(c)
	}
	sample[x.kinds.n-1] = utf8.RuneSelf
	for at := 0; at < len(d.states); at++ {
		for kind := range x.kinds.n {
			to := d.step(int32(at), sample[kind])
			if to == fullStep || d.work > maxEager {
				return nil
			}
			d.next[at*x.kinds.n+kind] = to
		}
		d.atEnd(int32(at))
	}
	d.next, d.states = slices.Clip(d.next), slices.Clip(d.states)
	for i := range d.states {
		d.states[i].pcs = nil
	}
	d.table, d.seen, d.stack, d.reach, d.out, d.room = nil, nil, nil, nil, nil, nil
	return d
}

// place is where a state is, or should be, in the table.
func (d *dfa) place(pcs []uint32, before rune) int {
	h := uint32(before) * gramMul
	for _, pc := range pcs {
		h = (h ^ pc) * gramMul
		h ^= h >> 15
	}
	i := int(h) & (len(d.table) - 1)
	for ; d.table[i] != 0; i = (i + 1) & (len(d.table) - 1) {
		if s := &d.states[d.table[i]-1]; s.before == before && slices.Equal(s.pcs, pcs) {
			break
		}
	}
	return i
}

// state is the state of these, made if it is not there yet.
func (d *dfa) state(pcs []uint32, before rune) int32 {
	i := d.place(pcs, before)
	if d.table[i] != 0 {
		return d.table[i] - 1
	}
	if len(d.states) >= maxStates {
		return fullStep
	}
	if len(d.room) < len(pcs) {
		d.room = make([]uint32, 1024+len(pcs))
	}
	own := d.room[:len(pcs):len(pcs)]
	d.room = d.room[len(pcs):]
	copy(own, pcs)
	d.states = append(d.states, dfaState{pcs: own, before: before})
	d.table[i] = int32(len(d.states))
	for range d.kinds.n {
		d.next = append(d.next, unknownStep)
	}
	if 2*len(d.states) > len(d.table) {
		d.table = make([]int32, 4*len(d.table))
		for k := range d.states {
			d.table[d.place(d.states[k].pcs, d.states[k].before)] = int32(k) + 1
		}
	}
	return int32(len(d.states)) - 1
}

// idle is the state in which no match has begun after a byte.
func (d *dfa) idle(c byte) int32 {
	switch {
	case !d.looks:
		return 3
	case c == '\n':
		return 1
	case syntax.IsWordChar(rune(c)):
		return 2
	}
	return 3
}

// match reports whether the text matches; ok is false where that would take too
// many states.
func (d *dfa) match(text []byte) (hit, ok bool) {
	at, next, kinds, n := int32(0), d.next, d.kinds, d.kinds.n
	for i := 0; i < len(text); {
		if at < idleStates && kinds.skips {
			if to := kinds.skip(text, i); to > i {
				at = d.idle(text[to-1])
				if i = to; i == len(text) {
					break
				}
			}
		}
		var to int32
		if c := text[i]; c < utf8.RuneSelf {
			i++
			place := int(at)*n + int(kinds.of[c])
			if to = next[place]; to == unknownStep {
				to = d.step(at, rune(c))
				next = d.next
				next[place] = to
			}
		} else {
			r, size := utf8.DecodeRune(text[i:])
			i += size
			if kinds.isSpecial(r) {
				to = d.wide(at, r)
				next = d.next
			} else if to = next[int(at)*n+n-1]; to == unknownStep {
				to = d.step(at, r)
				next = d.next
				next[int(at)*n+n-1] = to
			}
		}
		if to < 0 {
			return to == matchStep, to != fullStep
		}
		at = to
	}
	if s := &d.states[at]; s.end != 0 {
		return s.end > 0, true
	}
	return d.atEnd(at), true
}

// atEnd reports whether a match ends where the text does.
func (d *dfa) atEnd(at int32) bool {
	s := &d.states[at]
	s.end = -1
	if d.follow(s, -1) {
		s.end = 1
	}
	return s.end > 0
}

// wide is where a special character leads.
func (d *dfa) wide(at int32, r rune) int32 {
	to, ok := d.states[at].wide[r]
	if !ok {
		to = d.step(at, r)
		if s := &d.states[at]; len(s.wide) < maxWide {
			if s.wide == nil {
				s.wide = map[rune]int32{}
			}
			s.wide[r] = to
		}
	}
	return to
}

// step is where a character leads.
func (d *dfa) step(at int32, r rune) int32 {
	if d.follow(&d.states[at], r) {
		return matchStep
	}
	out := d.out[:0]
	for _, pc := range d.reach {
		in := &d.prog.Inst[pc]
		var takes bool
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1:
			takes = in.MatchRune(r)
		case syntax.InstRuneAny:
			takes = true
		case syntax.InstRuneAnyNotNL:
			takes = r != '\n'
		}
		if takes {
			out = append(out, in.Out)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	d.out = out
	if len(out) == 0 && d.prog.StartCond()&syntax.EmptyBeginText != 0 {
		return deadStep
	}
	before := ' '
	switch {
	case !d.looks:
	case r == '\n':
		before = '\n'
	case syntax.IsWordChar(r):
		before = 'a'
	}
	return d.state(out, before)
}

// follow collects in reach the instructions that wait for a character, and
// reports whether a match ends before r, the next one (-1 at the end of the
// text). A match may begin anywhere.
func (d *dfa) follow(s *dfaState, r rune) bool {
	for _, pc := range d.reach {
		d.seen[pc] = false
	}
	d.work += len(d.reach)
	d.reach = d.reach[:0]
	holds := syntax.EmptyOpContext(s.before, r)
	d.stack = append(append(d.stack[:0], s.pcs...), uint32(d.prog.Start))
	hit := false
	for len(d.stack) > 0 {
		pc := d.stack[len(d.stack)-1]
		d.stack = d.stack[:len(d.stack)-1]
		if d.seen[pc] {
			continue
		}
		d.seen[pc] = true
		d.reach = append(d.reach, pc)
		switch in := &d.prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			d.stack = append(d.stack, in.Arg, in.Out)
		case syntax.InstCapture, syntax.InstNop:
			d.stack = append(d.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^holds == 0 {
				d.stack = append(d.stack, in.Out)
			}
		case syntax.InstMatch:
			hit = true
		}
	}
	return hit
}
