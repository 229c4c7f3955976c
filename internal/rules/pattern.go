package rules

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// token is a piece of a pattern.
type token struct {
	kind tokenKind
	lit  []byte // of a literal; folded unless the pattern minds case
}

type tokenKind uint8

const (
	literal tokenKind = iota
	star              // any characters
	one               // one character
	dash              // one of the five dashes, see dashes
)

// dashes are what a dash of a command-line flag may be (modifier windash): the
// slash, and the long dashes that Windows programs take for it too.
var dashes = []string{"-", "/", "–", "—", "―"}

// parsePattern reads Sigma's wildcards: * any characters, ? one character; a
// backslash before *, ? or \ makes it an ordinary character, any other
// backslash stands for itself.
func parsePattern(s string) []token {
	var out []token
	var lit []byte
	flush := func() {
		if len(lit) > 0 {
			out = append(out, token{literal, lit})
			lit = nil
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && (s[i+1] == '*' || s[i+1] == '?' || s[i+1] == '\\'):
			i++
			lit = append(lit, s[i])
		case c == '*':
			flush()
			out = addStar(out)
		case c == '?':
			flush()
			out = append(out, token{kind: one})
		default:
			lit = append(lit, c)
		}
	}
	flush()
	return out
}

func addStar(t []token) []token {
	if len(t) > 0 && t[len(t)-1].kind == star {
		return t
	}
	return append(t, token{kind: star})
}

// withDashes replaces each dash that begins a flag (a - or / with no word
// character before it and one after it) by any of the five.
func withDashes(toks []token) []token {
	word := func(c byte) bool {
		return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf
	}
	var out []token
	for _, t := range toks {
		if t.kind != literal {
			out = append(out, t)
			continue
		}
		from := 0
		for i, c := range t.lit {
			if (c == '-' || c == '/') && (i == 0 || !word(t.lit[i-1])) && i+1 < len(t.lit) && word(t.lit[i+1]) {
				if i > from {
					out = append(out, token{literal, t.lit[from:i]})
				}
				out = append(out, token{kind: dash})
				from = i + 1
			}
		}
		if from < len(t.lit) {
			out = append(out, token{literal, t.lit[from:]})
		}
	}
	return out
}

// shape is the kind of comparison a pattern comes down to.
type shape uint8

const (
	exact shape = iota
	prefix
	suffix
	within
	anything
	glob
)

// pattern is a compiled text to compare with. It is immutable.
type pattern struct {
	shape shape
	lit   []byte // all shapes but anything and glob
	toks  []token

	chars charset // a text can only match if all these occur in it; folded
	sign  byte    // one of them that has no other case and is no letter or digit; 0: none
}

func newPattern(toks []token, cased bool) pattern {
	p := newShape(toks, cased)
	for _, t := range toks {
		if !cased || utf8.Valid(t.lit) { // half a character may be another when folded
			p.chars.add(fold(string(t.lit)))
		}
		for _, c := range t.lit {
			if c > ' ' && c < '0' || c == '\\' {
				p.sign = c
			}
		}
	}
	return p
}

func newShape(toks []token, cased bool) pattern {
	cp := make([]token, 0, len(toks))
	for _, t := range toks {
		if t.kind == literal && !cased {
			t.lit = appendFold(nil, string(t.lit))
		}
		cp = append(cp, t)
	}
	is := func(kinds ...tokenKind) bool {
		if len(kinds) != len(cp) {
			return false
		}
		for i, k := range kinds {
			if cp[i].kind != k {
				return false
			}
		}
		return true
	}
	switch {
	case is():
		return pattern{shape: exact}
	case is(star):
		return pattern{shape: anything}
	case is(literal):
		return pattern{shape: exact, lit: cp[0].lit}
	case is(literal, star):
		return pattern{shape: prefix, lit: cp[0].lit}
	case is(star, literal):
		return pattern{shape: suffix, lit: cp[1].lit}
	case is(star, literal, star):
		return pattern{shape: within, lit: cp[1].lit}
	}
	return pattern{shape: glob, toks: cp}
}

// match compares a text, folded unless the pattern minds case.
func (p *pattern) match(s []byte) bool {
	switch p.shape {
	case exact:
		return bytes.Equal(s, p.lit)
	case prefix:
		return bytes.HasPrefix(s, p.lit)
	case suffix:
		return bytes.HasSuffix(s, p.lit)
	case within:
		return bytes.Contains(s, p.lit)
	case anything:
		return true
	}
	return matchGlob(p.toks, s)
}

// matchGlob goes back to the last star only, so its time is bounded by the
// length of the text times that of the pattern.
func matchGlob(toks []token, s []byte) bool {
	ti, si := 0, 0
	starAt, retry := -1, 0
	for {
		if ti < len(toks) && toks[ti].kind == star {
			starAt, retry = ti, si
			ti++
			if ti == len(toks) {
				return true
			}
			continue
		}
		if ti == len(toks) {
			if si == len(s) {
				return true
			}
		} else if n := toks[ti].at(s[si:]); n >= 0 {
			ti++
			si += n
			continue
		}
		if starAt < 0 || retry >= len(s) {
			return false
		}
		// Let the star eat up to where the literal after it next occurs.
		_, n := utf8.DecodeRune(s[retry:])
		retry += n
		if next := toks[starAt+1]; next.kind == literal {
			i := bytes.Index(s[retry:], next.lit)
			if i < 0 {
				return false
			}
			retry += i
		}
		ti, si = starAt+1, retry
	}
}

// at is how many bytes of s the token takes at its start, -1 for none fits.
func (t *token) at(s []byte) int {
	switch t.kind {
	case literal:
		if bytes.HasPrefix(s, t.lit) {
			return len(t.lit)
		}
	case one:
		if len(s) > 0 {
			_, n := utf8.DecodeRune(s)
			return n
		}
	case dash:
		for _, d := range dashes {
			if len(s) >= len(d) && string(s[:len(d)]) == d {
				return len(d)
			}
		}
	}
	return -1
}

// String is the pattern as a rule would write it, for explanations.
func (p *pattern) String() string {
	esc := func(b []byte) string { return strings.NewReplacer(`*`, `\*`, `?`, `\?`).Replace(string(b)) }
	switch p.shape {
	case exact:
		return esc(p.lit)
	case prefix:
		return esc(p.lit) + "*"
	case suffix:
		return "*" + esc(p.lit)
	case within:
		return "*" + esc(p.lit) + "*"
	case anything:
		return "*"
	}
	var b strings.Builder
	for _, t := range p.toks {
		b.WriteString([]string{esc(t.lit), "*", "?", "-"}[t.kind])
	}
	return b.String()
}
