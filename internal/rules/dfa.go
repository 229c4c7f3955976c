package rules

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"unicode/utf8"
)

// The limits of automata. Judgement: SigmaHQ's expressions make 20 to 200 states
// each over real events; a state takes some 300 bytes, so a worker keeps 4 MB at most.
const (
	maxStates     = 512    // of one expression; a text that leads beyond is left to package regexp
	maxAllStates  = 14_000 // of a worker, after which it begins anew
	restAfterFull = 64     // texts left to package regexp before automata are tried again
	maxWide       = 64     // transitions that a state keeps for characters outside ASCII
)

// automata is one worker's deterministic automata, made as texts need them.
// Package regexp follows every alternative at once, 50 ns a byte; an automaton
// that knows its way takes one.
type automata struct {
	by     []*dfa // by expression.id
	states int    // of all
}

// match runs an expression over a text.
func (a *automata) match(x *expression, text []byte) bool {
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
// far as it matters to \b, ^ and $.
type dfa struct {
	prog   *syntax.Prog
	kinds  *kinds
	looks  bool // the expression has \b, ^, $ or their like
	next   []int32
	states []dfaState
	byKey  map[string]int32
	rest   int // texts to leave to package regexp

	// Of step; kept to save allocations.
	seen  []bool
	stack []uint32
	reach []uint32
	key   []byte
}

type dfaState struct {
	pcs    []uint32 // sorted
	before rune     // -1 at the beginning; else '\n', 'a' for a word's, or ' '
	end    int8     // whether a match ends where the text does: 1 yes, -1 no, 0 not known yet
	wide   map[rune]int32
}

// What next says besides states, which count from 0.
const (
	unknownStep = -1 - iota
	matchStep
	deadStep // no match can follow
	fullStep // too many states
)

// kinds puts the ASCII characters into groups that an expression treats alike,
// so that a state is small.
type kinds struct {
	of [utf8.RuneSelf]uint8
	n  int
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
	}
	return k
}

func newDFA(x *expression) *dfa {
	prog := x.prog
	d := &dfa{prog: prog, kinds: x.kinds, byKey: map[string]int32{}, seen: make([]bool, len(prog.Inst))}
	for i := range prog.Inst {
		d.looks = d.looks || prog.Inst[i].Op == syntax.InstEmptyWidth
	}
	d.state(nil, -1)
	return d
}

// state is the state of these, made if it is not there yet.
func (d *dfa) state(pcs []uint32, before rune) int32 {
	d.key = binary.AppendVarint(d.key[:0], int64(before))
	for _, pc := range pcs {
		d.key = binary.LittleEndian.AppendUint32(d.key, pc)
	}
	if i, ok := d.byKey[string(d.key)]; ok {
		return i
	}
	if len(d.states) >= maxStates {
		return fullStep
	}
	i := int32(len(d.states))
	d.byKey[string(d.key)] = i
	d.states = append(d.states, dfaState{pcs: slices.Clone(pcs), before: before})
	for range d.kinds.n {
		d.next = append(d.next, unknownStep)
	}
	return i
}

// match reports whether the text matches; ok is false where that would take too
// many states.
func (d *dfa) match(text []byte) (hit, ok bool) {
	at, next, kinds, n := int32(0), d.next, d.kinds, d.kinds.n
	for i := 0; i < len(text); {
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
			if to, ok = d.states[at].wide[r]; !ok {
				to = d.step(at, r)
				if s := &d.states[at]; len(s.wide) < maxWide {
					if s.wide == nil {
						s.wide = map[rune]int32{}
					}
					s.wide[r] = to
				}
				next = d.next
			}
		}
		if to < 0 {
			return to == matchStep, to != fullStep
		}
		at = to
	}
	s := &d.states[at]
	if s.end == 0 {
		s.end = -1
		if d.follow(s, -1) {
			s.end = 1
		}
	}
	return s.end > 0, true
}

// step is where a character leads.
func (d *dfa) step(at int32, r rune) int32 {
	s := &d.states[at]
	if d.follow(s, r) {
		return matchStep
	}
	var out []uint32
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
