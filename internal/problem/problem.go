// Package problem is what is wrong with a file that people write, settings or
// rules: each mistake with its place and its reason in Japanese and English, all
// of them at once.
package problem

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File string // as given to the loader; "" where none is known
	Line int    // from 1; 0: of the file as a whole
	Col  int    // from 1, in characters
	Rule string // title of the rule it is in; "" for none
	Path string // where in the document, "people[2].last_day"; "" for the file as a whole
	Code string // "CFG-12", see docs/configure.md; "RUL-05", see docs/rules.md
	JA   string // why, in Japanese
	EN   string // why, in English
	Hint string // what was probably meant; "" if nothing is near
	Text string // the source line, without line end
}

// Problems is every problem of a file, or of several, in the order of their
// places. It is an error.
type Problems []Problem

// Error is one line per problem, in English (see Message).
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i := range ps {
		lines[i] = ps[i].Message("en")
	}
	return strings.Join(lines, "\n")
}

// maxPath is how much of a path in a document is shown, in characters.
const maxPath = 200

// Message is the problem on one line in a language, "ja" or else English:
// file:line:col: rule "title": where: why (did you mean "x"?) [code]. Text from
// the file stands in it quoted and cut.
func (p *Problem) Message(lang string) string {
	say := func(ja, en string) string {
		if lang == "ja" {
			return ja
		}
		return en
	}
	var b strings.Builder
	if p.File != "" {
		b.WriteString(Printable(p.File))
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
		}
		b.WriteString(": ")
	}
	if p.Rule != "" {
		b.WriteString(say("ルール", "rule ") + Quote(p.Rule) + ": ")
	}
	if p.Path != "" {
		b.WriteString(Printable(cut(p.Path, maxPath)) + ": ")
	}
	b.WriteString(say(p.JA, p.EN))
	if p.Hint != "" {
		b.WriteString(say("（"+Quote(p.Hint)+" ではありませんか）", " (did you mean "+Quote(p.Hint)+"?)"))
	}
	b.WriteString(" [" + p.Code + "]")
	return b.String()
}

// Print writes the problems for a person: each message, the line of the file
// and a caret below the place.
func (ps Problems) Print(w io.Writer, lang string) error {
	for i := range ps {
		p := &ps[i]
		if _, err := fmt.Fprintln(w, p.Message(lang)); err != nil {
			return err
		}
		if p.Line == 0 || strings.TrimSpace(p.Text) == "" {
			continue
		}
		line, blanks := excerpt(p.Text, p.Col)
		if _, err := fmt.Fprintf(w, "%6d | %s\n       | %s^\n", p.Line, line, blanks); err != nil {
			return err
		}
	}
	return nil
}

// Sorted orders problems by file as they first come, then by place; the slice is
// ps itself.
func Sorted(ps Problems) Problems {
	order := map[string]int{}
	for i := range ps {
		if _, ok := order[ps[i].File]; !ok {
			order[ps[i].File] = len(order)
		}
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return ps
}

// maxExcerpt is how much of a source line is shown, in characters.
const maxExcerpt = 100

// excerpt is a source line made harmless for a terminal and cut around the
// column, and the blanks that bring a caret below it.
func excerpt(text string, col int) (line, blanks string) {
	before := []rune(text)
	before = before[:min(max(col-1, 0), len(before))]
	runes := []rune(Mask(text))
	col = min(len([]rune(Mask(string(before)))), len(runes)) + 1
	from := 0
	if col > maxExcerpt-20 {
		from = col - maxExcerpt/2
	}
	to := min(len(runes), from+maxExcerpt)
	var b, pad strings.Builder
	if from > 0 {
		b.WriteString("...")
		pad.WriteString("   ")
	}
	for i := from; i < to; i++ {
		r, width := runes[i], 1
		switch {
		case r == '\t':
			r = ' '
		case !strconv.IsPrint(r):
			r = '?'
		case wide(r):
			width = 2
		}
		b.WriteRune(r)
		if i < col-1 {
			pad.WriteString("  "[:width])
		}
	}
	if to < len(runes) {
		b.WriteString("...")
	}
	return b.String(), pad.String()
}

// wide reports whether a terminal shows r two cells wide: the blocks of East
// Asian text that occur in settings (Unicode UAX 11, W and F).
func wide(r rune) bool {
	return r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd)
}

// What Mask hides, should somebody put a secret into a file: values of keys that sound secret, unless they name a file, and
// passwords in URLs.
var (
	secretKey = regexp.MustCompile(`(?i)([\w-]*(?:passw|secret|token|private_?key|api_?key)[\w-]*["']?\s*:\s+)([^,}\]\s][^,}\]]*)`)
	secretURL = regexp.MustCompile(`://[^/@\s]+@`)
)

// Mask is a source line as it may be shown.
func Mask(text string) string {
	text = secretURL.ReplaceAllString(text, "://<secret>@")
	return secretKey.ReplaceAllStringFunc(text, func(m string) string {
		key, _, _ := strings.Cut(m, ":")
		if strings.HasSuffix(strings.TrimRight(key, " \"'"), "_file") {
			return m
		}
		return key + ": <secret>"
	})
}

// Quote is text from a file as it may stand in a message: in quotes, cut, what
// is not printable escaped. Backslashes stay single: they are mostly of paths.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range cut(s, 80) {
		switch {
		case r == '"':
			b.WriteString(`\"`)
		case !strconv.IsPrint(r):
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// cut is a text of at most so many characters, and dots where there were more.
func cut(s string, chars int) string {
	if utf8.RuneCountInString(s) > chars {
		s = string([]rune(s)[:chars]) + "..."
	}
	return s
}

// Printable is a text without what a terminal might act on.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// Suggest is the known word nearest to got, or "" if none is near: up to two
// letters off for words of five and more, one below that.
func Suggest(got string, known []string) string {
	limit := 2
	if utf8.RuneCountInString(got) < 5 {
		limit = 1
	}
	if len(got) > 64 {
		return ""
	}
	best, near := "", limit+1
	for _, k := range known {
		if d := distance(strings.ToLower(got), strings.ToLower(k)); d < near && k != got {
			best, near = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop, change or swap with a
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, prev, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(y)]
}
