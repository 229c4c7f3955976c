package rules

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
)

func expressionOf(t testing.TB, text string) *expression {
	t.Helper()
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil
	}
	return newExpression(0, re, prog, parsed)
}

// asked is what a rule with the expression answers: guards, then automaton.
func (x *expression) asked(a *automata, text string) bool {
	s := &scratch{automata: *a}
	folded := []byte(fold(text))
	var have charset
	have.add(string(folded))
	guarded := have.holds(&x.need.chars)
	any := len(x.need.any) == 0
	for _, l := range x.need.any {
		any = any || strings.Contains(string(folded), l)
	}
	any = any && (len(x.need.words) == 0 || slices.ContainsFunc(x.need.words, func(w []byte) bool { return bytes.Contains(folded, w) }))
	hit := guarded && any && x.matchAny(s, [][]byte{[]byte(text)})
	*a = s.automata
	return hit
}

func FuzzAutomatonAgreesWithRegexp(f *testing.F) {
	for _, s := range []struct{ re, text string }{
		{`\s[a-fA-F0-9]{4}\s`, "x 12aF y"}, {`(?i)\bK?net\b|^a$`, "the \u212aNET"}, {`^$`, ""}, {`(?m)^b$`, "a\nb\nc"}, {`\Ba\B`, "bab"},
		{`.{10,}`, "0123\n456789012"}, {`(?s).{10,}`, "0123\n456789012"}, {`[^a]\z`, "é"}, {`a|bcdef+|(?:ghijk){2}`, "xghijkghijkx"},
		{`\x{fffd}`, "\xff"}, {`(?i)ſtraße`, "STRAßE"}, {`(a|aa|aaa)*b.{1,20}c`, "aaaaaaaabaaac"},
		// A run that a byte has to come before, and a second byte that there is just one of.
		{`\s[a-f0-9]{8}\s`, "=0123456789abcdef \t01234567 "}, {` [0-7]{7,13}`, "0000000000 01234567"}, {`[a-c][a-d]{6}`, "dddddddabcdabc"},
		{`\s-\s*<`, "-- - -\t <"}, {"(\\w+`(?:\\w+|-|.)`)", "`a``b`c`"}, {`[a-c]+x|y`, "y"}, {`[xy]x+$`, "axx"}, {`\s[é-]-`, " é-"},
	} {
		f.Add(s.re, s.text)
	}
	f.Fuzz(func(t *testing.T, re, text string) {
		if len(re) > 200 || len(text) > 2000 {
			return
		}
		x := expressionOf(t, re)
		if x == nil || len(x.prog.Inst) > 2000 {
			return
		}
		var a automata
		want := x.re.MatchString(text)
		for range 2 { // the second time over known states
			if got := x.asked(&a, text); got != want {
				t.Fatalf("%q on %q: automaton %v, regexp %v", re, text, got, want)
			}
		}
	})
}

func TestAnAutomatonThatGrowsTooLargeLeavesTheTextToRegexp(t *testing.T) {
	x := expressionOf(t, `[ab]*a[ab]{14}c`) // 2^15 states
	var b strings.Builder
	for n := uint32(1); b.Len() < 20_000; n = n*1664525 + 1013904223 {
		b.WriteByte("ab"[n>>31])
	}
	text := []byte(b.String())
	var a automata
	for range restAfterFull + 3 {
		if a.match(x, text) {
			t.Fatal("matches")
		}
		if a.states > maxStates || len(a.by[0].states) > maxStates {
			t.Fatalf("%d states", a.states)
		}
	}
	if text = append(text, "aaaaaaaaaaaaaaaac"...); !a.match(x, text) {
		t.Error("does not match")
	}
}
