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
	const text = "@AZ[`az{09\x00\x7f QwErTyUiOp éÉ\xff\xc3 KLMNOPQRSTUVWXYZ ſK zzZZ"
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
