package rules

import (
	"fmt"
	"strings"

	"sekisho/internal/problem"
)

// expr is a condition as parsed: a tree over selections.
type expr interface{}

type (
	andExpr []expr
	orExpr  []expr
	notExpr struct{ x expr }
	selExpr struct{ sel *selection }
)

// condError is what is wrong with a condition, and where in its text.
type condError struct {
	at                 int // characters from its start
	code, ja, en, hint string
}

// maxCondition is how many words a condition may have. Judgement: the longest
// of SigmaHQ has 60.
const maxCondition = 2000

type condParser struct {
	toks []condTok
	pos  int
	sels []*selection
	err  *condError
	deep int
}

type condTok struct {
	text string
	at   int
}

// parseCondition reads a condition: and, or, not, parentheses, selections, "1
// of", "any of" and "all of" a pattern or them. "or" binds weakest, "not"
// strongest.
func parseCondition(text string, sels []*selection) (expr, *condError) {
	p := &condParser{sels: sels}
	p.scan(text)
	if p.err == nil && len(p.toks) == 0 {
		p.fail(0, "条件が空です", "the condition is empty")
	}
	if p.err != nil {
		return nil, p.err
	}
	e := p.or()
	if p.err == nil && p.pos < len(p.toks) {
		t := p.toks[p.pos]
		p.fail(t.at, problem.Quote(t.text)+" はここに書けません", "unexpected "+problem.Quote(t.text))
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

func (p *condParser) fail(at int, ja, en string) *condError {
	if p.err == nil {
		p.err = &condError{at: at, code: CodeCondition, ja: ja, en: en}
	}
	return p.err
}

func (p *condParser) scan(text string) {
	at := 0
	word := []rune{}
	flush := func(end int) {
		if len(word) > 0 {
			p.toks = append(p.toks, condTok{string(word), end - len(word)})
			word = word[:0]
		}
	}
	for _, r := range text {
		switch {
		case r == ' ' || r == '\t' || r == '\n' || r == '\r':
			flush(at)
		case r == '(' || r == ')':
			flush(at)
			p.toks = append(p.toks, condTok{string(r), at})
		case r == '|':
			p.fail(at, "集計（| count() など）には対応していません。correlation を使ってください",
				"aggregations (| count() and the like) are not honoured: write a correlation").code = CodeUnhonoured
			return
		case r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.*?", r):
			word = append(word, r)
		default:
			p.fail(at, fmt.Sprintf("条件に %s は使えません", problem.Quote(string(r))), problem.Quote(string(r))+" cannot stand in a condition")
			return
		}
		at++
	}
	flush(at)
	if len(p.toks) > maxCondition {
		p.fail(0, "条件が長すぎます", "the condition is too long").code = CodeBounds
	}
}

func (p *condParser) peek() string {
	if p.pos < len(p.toks) {
		return p.toks[p.pos].text
	}
	return ""
}

func (p *condParser) is(word string) bool { return strings.EqualFold(p.peek(), word) }

func (p *condParser) or() expr {
	if p.deep++; p.deep > 100 {
		p.fail(0, "括弧が深すぎます", "parentheses nested too deep").code = CodeBounds
		return nil
	}
	defer func() { p.deep-- }()
	out := orExpr{p.and()}
	for p.err == nil && p.is("or") {
		p.pos++
		out = append(out, p.and())
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
}

func (p *condParser) and() expr {
	out := andExpr{p.not()}
	for p.err == nil && p.is("and") {
		p.pos++
		out = append(out, p.not())
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
}

func (p *condParser) not() expr {
	negate := false
	for p.is("not") {
		p.pos++
		negate = !negate
	}
	x := p.atom()
	if negate {
		return notExpr{x}
	}
	return x
}

func (p *condParser) atom() expr {
	if p.err != nil {
		return nil
	}
	if p.pos >= len(p.toks) {
		end := 0
		if n := len(p.toks); n > 0 {
			end = p.toks[n-1].at + len(p.toks[n-1].text)
		}
		p.fail(end, "条件が途中で終わっています", "the condition ends too early")
		return nil
	}
	t := p.toks[p.pos]
	p.pos++
	if t.text == "(" {
		e := p.or()
		if p.err == nil && p.peek() != ")" {
			p.fail(t.at, "この括弧が閉じられていません", "this parenthesis is not closed")
		}
		p.pos++
		return e
	}
	if p.is("of") {
		return p.of(t)
	}
	switch lower := strings.ToLower(t.text); lower {
	case "and", "or", "not", "of", "them", ")":
		p.fail(t.at, problem.Quote(t.text)+" はここに書けません", "unexpected "+problem.Quote(t.text))
		return nil
	}
	for _, s := range p.sels {
		if s.name == t.text {
			return selExpr{s}
		}
	}
	var names []string
	for _, s := range p.sels {
		names = append(names, s.name)
	}
	p.fail(t.at, problem.Quote(t.text)+" という選択はありません", "there is no selection "+problem.Quote(t.text)).hint = problem.Suggest(t.text, names)
	return nil
}

func (p *condParser) of(quantity condTok) expr {
	all := false
	switch strings.ToLower(quantity.text) {
	case "1", "any":
	case "all":
		all = true
	default:
		p.fail(quantity.at, problem.Quote(quantity.text)+" of には対応していません（1 of、any of、all of のどれか）",
			problem.Quote(quantity.text)+" of is not honoured (1 of, any of and all of are)").code = CodeUnhonoured
		return nil
	}
	p.pos++ // of
	if p.pos >= len(p.toks) {
		p.fail(quantity.at, "of の後に名前がありません", "nothing follows the of")
		return nil
	}
	t := p.toks[p.pos]
	p.pos++
	var hits []expr
	for _, s := range p.sels {
		if strings.EqualFold(t.text, "them") && !strings.HasPrefix(s.name, "_") || !strings.EqualFold(t.text, "them") && nameFits(t.text, s.name) {
			hits = append(hits, selExpr{s})
		}
	}
	if len(hits) == 0 {
		p.fail(t.at, problem.Quote(t.text)+" に当てはまる選択はありません", "no selection fits "+problem.Quote(t.text))
		return nil
	}
	switch {
	case len(hits) == 1:
		return hits[0]
	case all:
		return andExpr(hits)
	}
	return orExpr(hits)
}

// nameFits matches a selection's name against a pattern in which * stands for
// any characters.
func nameFits(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return strings.HasSuffix(name, last)
}
