package rules

import (
	"unicode"
	"unicode/utf8"
)

// foldRune maps the runes that differ in case only to one of them (Unicode
// simple folding, as strings.EqualFold has it).
func foldRune(r rune) rune {
	switch {
	case r < utf8.RuneSelf:
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	case r >= 0x2e80 && r < 0xa640 || r >= 0xac00 && r < 0xd800: // CJK, kana, Hangul have no case
		return r
	}
	least := r
	for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
		least = min(least, x)
	}
	if 'A' <= least && least <= 'Z' {
		return least + 'a' - 'A'
	}
	return least
}

// appendFold appends s with its case folded. Bytes that are not UTF-8 stay.
func appendFold(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b = append(b, c)
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			b = append(b, c)
			i++
			continue
		}
		b = utf8.AppendRune(b, foldRune(r))
		i += n
	}
	return b
}

// fold is s with its case folded; s itself where nothing changes.
func fold(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf {
			return string(appendFold(nil, s))
		}
	}
	return s
}
