package rules

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The codes of problems; docs/rules.md has a line on each.
const (
	CodeRead       = "RUL-01" // the file cannot be read, or is too large
	CodeYAML       = "RUL-02" // not YAML, or a part of YAML that rules may not use
	CodeKey        = "RUL-03" // unknown, double or missing key
	CodeType       = "RUL-04" // wrong type or value
	CodeField      = "RUL-05" // unknown field
	CodeModifier   = "RUL-06" // unknown modifier, or one that does not fit
	CodePattern    = "RUL-07" // pattern, regular expression, number or address that cannot be understood
	CodeCondition  = "RUL-08" // condition that cannot be understood
	CodeLogsource  = "RUL-09" // nothing here records what the rule is about
	CodeReference  = "RUL-10" // a rule that is named does not exist, or rules refer to each other in a circle
	CodeDouble     = "RUL-11" // two rules with one id or name
	CodeUnhonoured = "RUL-12" // part of Sigma that the engine does not honour
	CodeBounds     = "RUL-13" // too deep, too long, too many
	CodeSetting    = "RUL-14" // a setting that names what no rule has, or that a rule needs and is not there
)

// Problem is one thing that is wrong with a rule.
type Problem struct {
	File string // as given to Parse; "" for settings
	Line int    // from 1; 0: of the file as a whole
	Col  int    // from 1, in characters
	Rule string // title of the rule; "" if there is none yet
	Path string // where in the document, "detection.selection"
	Code string // "RUL-05"
	JA   string // why, in Japanese
	EN   string // why, in English
	Hint string // what was probably meant; "" if nothing is near

	text string // the source line
	doc  *document
}

// Problems is every problem of all files, in the order of their places.
type Problems []Problem

// Error is one line per problem in English.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i := range ps {
		lines[i] = ps[i].Message("en")
	}
	return strings.Join(lines, "\n")
}

// Message is the problem on one line in a language, "ja" or else English:
// file:line:col: rule "title": where: why (did you mean "x"?) [code].
func (p *Problem) Message(lang string) string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(printable(p.File))
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
		}
		b.WriteString(": ")
	}
	if p.Rule != "" {
		if lang == "ja" {
			b.WriteString("ルール" + quote(p.Rule) + ": ")
		} else {
			b.WriteString("rule " + quote(p.Rule) + ": ")
		}
	}
	if p.Path != "" {
		b.WriteString(printable(cut(p.Path, maxPath)) + ": ")
	}
	if lang == "ja" {
		b.WriteString(p.JA)
		if p.Hint != "" {
			b.WriteString("（「" + p.Hint + "」ではありませんか）")
		}
	} else {
		b.WriteString(p.EN)
		if p.Hint != "" {
			b.WriteString(" (did you mean " + strconv.Quote(p.Hint) + "?)")
		}
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
		if p.Line == 0 || strings.TrimSpace(p.text) == "" {
			continue
		}
		line, pad := excerpt(p.text, p.Col)
		if _, err := fmt.Fprintf(w, "%6d | %s\n       | %s^\n", p.Line, line, pad); err != nil {
			return err
		}
	}
	return nil
}

// maxExcerpt is how much of a source line is shown, in characters.
const maxExcerpt = 100

// excerpt is a source line made harmless for a terminal, cut around the column,
// and the blanks that bring a caret below it (two for wide characters).
func excerpt(text string, col int) (line, pad string) {
	runes := []rune(text)
	col = min(max(col, 1), len(runes)+1)
	from := max(0, col-maxExcerpt/2)
	if len(runes) <= maxExcerpt {
		from = 0
	}
	var b, p strings.Builder
	for i := from; i < min(len(runes), from+maxExcerpt); i++ {
		r := runes[i]
		switch {
		case r == '\t':
			r = ' '
		case !strconv.IsPrint(r):
			r = '?'
		}
		b.WriteRune(r)
		if i < col-1 {
			p.WriteByte(' ')
			if r >= 0x1100 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r >= 0x3000 && r < 0x3040 || r >= 0xff01 && r <= 0xff60) {
				p.WriteByte(' ')
			}
		}
	}
	return b.String(), p.String()
}

// sortProblems orders problems by file in the given order, then by place.
func sortProblems(ps Problems) Problems {
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

// quote is text from a file as it may stand in a message: quoted, escaped, cut.
func quote(s string) string {
	return strconv.Quote(cut(s, 80))
}

// maxPath is how much of a path in a document is shown, in characters.
const maxPath = 200

// cut is a text of at most so many characters, and dots where there were more.
func cut(s string, chars int) string {
	if utf8.RuneCountInString(s) > chars {
		s = string([]rune(s)[:chars]) + "..."
	}
	return s
}

// printable drops what a terminal might act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// suggest is the known word nearest to got, or "" if none is near: up to two
// letters off for words of five and more, one below that.
func suggest(got string, known []string) string {
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
