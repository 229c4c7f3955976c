package rules

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestFolding(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		s := string(r)
		f := fold(s)
		if len(f) > len(s) {
			t.Fatalf("%q folds to the longer %q", s, f)
		}
		if x := unicode.SimpleFold(r); utf8.ValidRune(r) && fold(string(x)) != f {
			t.Fatalf("%q and %q fold to different texts", r, x)
		}
	}
	// Eight at a time or one by one, at any place.
	const text = "@AZ[`az{09\x00\x7f QwErTyUiOp éÉ\xff\xc3 KLMNOPQRSTUVWXYZ ſK zzZZ" +
		"かなA漢字\u2013B\u2015\u20ac\ue000\u2126\U0001f600鿿ꀀ\u3000\xe3\x81X\xe3AB\xe3\x81\xc1\xe2\x80\xe2\x84\xaa\xe9\xbf\xbfZ"
	for from := range len(text) {
		for to := from; to <= len(text); to++ {
			s := text[from:to]
			var want strings.Builder
			for i := 0; i < len(s); {
				r, n := utf8.DecodeRuneInString(s[i:])
				if r == utf8.RuneError {
					want.WriteString(s[i : i+n])
				} else {
					want.WriteRune(foldRune(r))
				}
				i += n
			}
			if got := fold(s); got != want.String() {
				t.Fatalf("%q folds to %q, want %q", s, got, want.String())
			}
		}
	}
}
