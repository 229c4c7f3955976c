package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sekisho/internal/problem"
)

// placeholder is %name% where no backslash stands before it. An escaped percent
// sign is found too, and told by its backslash.
var placeholder = regexp.MustCompile(`\\%|%[A-Za-z0-9_-]+%`)

// maxExpanded is how many values the placeholders of one line may come to, and
// maxExpandedText how many bytes.
const (
	maxExpanded     = maxEntries
	maxExpandedText = 1 << 20
)

// waits is the placeholders of a shipped rule if the settings have none of them:
// the rule is about something that only a site knows. Where they have some, the
// missing ones are told as mistakes, as all are of a site's own rule.
func (c *compiler) waits(d *document) (names []string) {
	if !d.builtin {
		return nil
	}
	for _, s := range d.detection.selections {
		for i := range s.alts {
			for _, it := range s.alts[i].items {
				for _, v := range it.values {
					if !slices.Contains(it.mods, "expand") {
						continue
					}
					for _, name := range placeholder.FindAllString(v.text, -1) {
						if name[0] == '\\' {
							continue
						}
						name = strings.Trim(name, "%")
						if len(c.o.Placeholders[name]) > 0 {
							return nil
						}
						if !slices.Contains(names, name) {
							names = append(names, name)
						}
					}
				}
			}
		}
	}
	return names
}

// expand is the values of a line with the placeholders in them replaced: for each
// value of the line those that it stands for. Values from settings may have
// wildcards, as the specification's %Servers% for srv*. A name that is not set is
// told.
func (c *compiler) expand(d *document, it *item) [][]scalar {
	out := make([][]scalar, len(it.values))
	total := 0
	for i := range it.values {
		v := &it.values[i]
		texts, missing := expandText(v.text, c.o.Placeholders, maxExpanded-total)
		switch {
		case missing != "":
			c.fail(d, v.line, v.col, it.path, CodeSetting,
				"%"+missing+"% の値がありません。設定 rules.placeholders."+missing+" に書いてください",
				"nothing is set for %"+missing+"%: add the setting rules.placeholders."+missing).Hint = problem.Suggest(missing, keys(c.o.Placeholders))
			continue
		case texts == nil:
			c.fail(d, v.line, v.col, it.path, CodeBounds, fmt.Sprintf("プレースホルダーの組み合わせが多すぎます（上限は %d）", maxExpanded),
				fmt.Sprintf("the placeholders come to more than %d values", maxExpanded))
			return nil
		}
		total += len(texts)
		for _, text := range texts {
			e := *v
			e.text = text
			if len(text) > maxText {
				c.fail(d, v.line, v.col, it.path, CodeBounds, fmt.Sprintf("文字列が長すぎます（上限は %d バイト）", maxText), fmt.Sprintf("text of more than %d bytes", maxText))
				return nil
			}
			out[i] = append(out[i], e)
		}
	}
	return out
}

// expandText is what a text stands for; missing is a name that nothing is set for.
// It is nil where that is more than limit texts.
func expandText(text string, values map[string][]string, limit int) (out []string, missing string) {
	out = []string{""}
	from := 0
	for _, at := range placeholder.FindAllStringIndex(text, -1) {
		name := text[at[0]+1 : at[1]-1]
		if text[at[0]] == '\\' {
			continue // its backslash goes below, with the text around it
		}
		these := values[name]
		if len(these) == 0 {
			return nil, name
		}
		before := unescapePercent(text[from:at[0]])
		from = at[1]
		sum := 0 // bytes
		for _, o := range out {
			sum += len(these) * (len(o) + len(before))
		}
		for _, v := range these {
			sum += len(out) * len(v)
		}
		if len(out)*len(these) > limit || sum > maxExpandedText {
			return nil, ""
		}
		next := make([]string, 0, len(out)*len(these))
		for _, o := range out {
			for _, v := range these {
				next = append(next, joinText(joinText(o, before), v))
			}
		}
		out = next
	}
	if limit < 1 {
		return nil, ""
	}
	rest := unescapePercent(text[from:])
	for i := range out {
		out[i] = joinText(out[i], rest)
	}
	return out, ""
}

func unescapePercent(s string) string { return strings.ReplaceAll(s, `\%`, `%`) }

// joinText puts texts with Sigma's wildcards together so that each still means what
// it did: a backslash at the end of the first would escape what follows.
func joinText(a, b string) string {
	if b == "" || strings.IndexByte(`*?\`, b[0]) < 0 {
		return a + b
	}
	open := false // the last backslash stands for itself and could escape
	for i := 0; i < len(a); i++ {
		open = a[i] == '\\'
		if open && i+1 < len(a) && strings.IndexByte(`*?\`, a[i+1]) >= 0 {
			open = false
			i++
		}
	}
	if open {
		a += `\`
	}
	return a + b
}
