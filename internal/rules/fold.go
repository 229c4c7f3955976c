package rules

import (
	"encoding/binary"
	"math/bits"
	"slices"
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
	case r >= 0x2e80 && r < 0xa640 || r >= 0xac00 && r < 0xd800 || r >= 0x2000 && r < 0x2100 || // CJK, kana, Hangul, dashes have no case,
		r >= 0x2500 && r < 0x2c00 || r >= 0xfe00 && r < 0xff00 || r >= 0x1f000: // nor signs, their variants, emoji
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

// ones is a one in each byte.
const ones = 0x0101010101010101

// appendFold appends s with its case folded. Bytes that are not UTF-8 stay.
func appendFold(b []byte, s string) []byte {
	b = slices.Grow(b, len(s)+pad)
	n := foldInto(b[len(b):len(b)+len(s)+pad], s)
	return b[:len(b)+n]
}

// foldInto writes s with its case folded into b, which has pad bytes more than
// s, and returns how many they are: never more than those of s, since of a
// character's cases foldRune takes the least. What follows them is overwritten.
func foldInto(b []byte, s string) int {
	i := 0
	for ; i < len(s); i += 8 { // ASCII, eight at a time
		if i+8 > len(s) {
			if i == 0 {
				break
			}
			i = len(s) - 8 // the last eight once more
		}
		x := eightOf(s[i : i+8])
		if x&(ones<<7) != 0 {
			break
		}
		binary.LittleEndian.PutUint64(b[i:], foldEight(x))
	}
	n := i
	for i < len(s) {
		if i+8 <= len(s) {
			x := eightOf(s[i : i+8])
			ascii := bits.TrailingZeros64(x&(ones<<7)) / 8 // so many before another
			binary.LittleEndian.PutUint64(b[n:], foldEight(x))
			if i, n = i+ascii, n+ascii; ascii == 8 {
				continue
			}
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			b[n] = c
			n++
			i++
			continue
		}
		if i+2 < len(s) && (c-0xe3 < 7 || c == 0xe2 && s[i+1] < 0x84) && s[i+1]&s[i+2]&0xc0 == 0x80 && (s[i+1]|s[i+2])&0x40 == 0 {
			b[n], b[n+1], b[n+2] = c, s[i+1], s[i+2] // U+2000 to U+20FF, U+3000 to U+9FFF: Japanese, and dashes
			i, n = i+3, n+3
			continue
		}
		if i+3 < len(s) && c == 0xf0 && s[i+1] == 0x9f && s[i+2]&s[i+3]&0xc0 == 0x80 && (s[i+2]|s[i+3])&0x40 == 0 {
			b[n], b[n+1], b[n+2], b[n+3] = c, 0x9f, s[i+2], s[i+3] // U+1F000 to U+1FFFF: emoji
			i, n = i+4, n+4
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b[n] = c
			n++
			i++
			continue
		}
		n += utf8.EncodeRune(b[n:], foldRune(r))
		i += size
	}
	return n
}

func eightOf(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// foldEight folds eight ASCII characters.
func foldEight(x uint64) uint64 {
	// The top bit of each byte: at least 'A', and not above 'Z'.
	capital := (x + (0x80-'A')*ones) &^ (x + (0x80-'Z'-1)*ones) & (ones << 7)
	return x | capital>>2
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
