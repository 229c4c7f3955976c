package store

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"sekisho/internal/alert"
	"sekisho/internal/event"
)

// Text is searched by two-character tokens: 顧客名簿 is stored as 顧客 客名 名簿,
// and a search for 名簿 finds it, as one for "desk" finds AnyDesk. The words that
// people type in Japanese are of two characters, which trigrams cannot find.
// Tokens are made here, so that every database engine finds the same. They hold
// nothing but letters and digits; SQLite's "ascii" tokenizer takes everything
// beyond ASCII as a letter and so keeps them whole.

const (
	// maxSearchText bounds what is indexed of one alert, in characters. Judgement.
	maxSearchText = 4096
	maxQuery      = 200 // characters of a query
	// wordEnd stands between words, so that no token pair spans two of them. Three
	// characters: no token of text is so long.
	wordEnd = "zzz"
)

// words splits text into runs of letters and digits, folded for matching.
func words(text string, limit int) [][]rune {
	var out [][]rune
	var run []rune
	n := 0
	for _, r := range norm.NFKC.String(strings.ToValidUTF8(cut(text, limit*4), " ")) {
		if n++; n > limit {
			break
		}
		if unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.Is(unicode.Mn, r) {
			run = append(run, unicode.ToLower(r))
		} else if len(run) > 0 {
			out = append(out, run)
			run = nil
		}
	}
	if len(run) > 0 {
		out = append(out, run)
	}
	return out
}

// cut is s up to n bytes, without half a character at its end.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// indexText is what the search index keeps of a text.
func indexText(text string) string {
	var b strings.Builder
	for _, w := range words(text, maxSearchText) {
		if len(w) == 1 {
			b.WriteString(string(w) + " ")
		}
		for i := 0; i+1 < len(w); i++ {
			b.WriteString(string(w[i:i+2]) + " ")
		}
		// A last single character lets a search for one character find it as a prefix.
		if len(w) > 1 {
			b.WriteString(string(w[len(w)-1]) + " ")
		}
		b.WriteString(wordEnd + " ")
	}
	return b.String()
}

// matchQuery is a query of FTS5 that finds texts which hold every word of q;
// ok is false where q holds none.
func matchQuery(q string) (match string, ok bool) {
	var b strings.Builder
	for _, w := range words(q, maxQuery) {
		if b.Len() > 0 {
			b.WriteString(" AND ")
		}
		b.WriteByte('"')
		if len(w) == 1 {
			b.WriteString(string(w) + `" *`)
			continue
		}
		for i := 0; i+1 < len(w); i++ {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(string(w[i : i+2]))
		}
		b.WriteByte('"')
	}
	return b.String(), b.Len() > 0
}

// searchText is what of an alert can be searched: titles, rule, and the names
// of its deciding event.
func searchText(a *alert.Alert) string {
	parts := []string{a.Title.JA, a.Title.EN, a.Rule.Table, a.Rule.Name}
	if e := a.Event; e != nil {
		for _, name := range [...]string{
			"host.name", "user.name", "sekisho.remote_tool.name", "process.name", "file.name", "file.path", "process.executable",
			"device.vendor.name", "device.product.name", "device.serial_number", "volume.serial_number", "sekisho.source.path",
			"destination.domain", "destination.ip", "sekisho.print.document",
		} {
			if v, ok := e.Get(name); ok && v.Type() == event.String {
				parts = append(parts, cut(v.Str(), 1024))
			}
		}
	}
	return strings.Join(parts, "\n")
}
