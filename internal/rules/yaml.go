package rules

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"sekisho/internal/problem"
)

// Limits of the reader, against hostile files. Judgement: the largest file of
// SigmaHQ is 30 KB with 400 values in a list.
const (
	MaxFile     = 1 << 20 // bytes of a rule file
	maxDepth    = 16      // nested lists and maps; Sigma needs 6
	maxText     = 16_384  // bytes of one text, but for a description
	maxEntries  = 10_000  // of one list or map
	maxDocs     = 1_000   // documents in a file
	maxProblems = 200     // told of one file
)

// The specification's limits, in characters.
const (
	maxTitle       = 256
	maxDescription = 65_535
)

// reader turns the text of a file into YAML nodes and problems with places.
type reader struct {
	file     *File
	doc      *document // whose problems these are; nil between documents
	problems Problems
}

// fail records a problem at a node; n may be nil for the file as a whole.
func (r *reader) fail(n *yaml.Node, path, code, ja, en string) *Problem {
	if n == nil {
		return r.failAt(0, 0, path, code, ja, en)
	}
	return r.failAt(n.Line, n.Column, path, code, ja, en)
}

func (r *reader) failAt(line, col int, path, code, ja, en string) *Problem {
	if r.doc != nil {
		r.doc.bad = true
	}
	if len(r.problems) > maxProblems {
		return new(Problem)
	}
	if len(r.problems) == maxProblems {
		ja, en, code, path = "問題が多すぎるため、以降は表示しません", "too many problems: the rest is not told", CodeBounds, ""
	}
	p := Problem{File: r.file.Name, Line: line, Col: col, Path: path, Code: code, JA: ja, EN: en, Text: r.file.line(line)}
	r.problems = append(r.problems, p)
	return &r.problems[len(r.problems)-1]
}

func (f *File) line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	return f.lines[n-1]
}

// nodes reads the documents of the file; those before an error are returned too.
func (r *reader) nodes(data []byte) []*yaml.Node {
	if len(data) > MaxFile {
		r.fail(nil, "", CodeRead, fmt.Sprintf("ファイルが大きすぎます（上限は %d バイト）。分けてください", MaxFile),
			fmt.Sprintf("file over the limit of %d bytes: split it", MaxFile))
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	r.file.lines = strings.Split(strings.ToValidUTF8(string(data), "?"), "\n")
	for i, l := range r.file.lines {
		r.file.lines[i] = strings.TrimSuffix(l, "\r")
	}
	if !utf8.Valid(data) {
		line, col := 1, 1
		for rest := data; len(rest) > 0; {
			c, n := utf8.DecodeRune(rest)
			if c == utf8.RuneError && n == 1 {
				break
			}
			col++
			if c == '\n' {
				line, col = line+1, 1
			}
			rest = rest[n:]
		}
		r.failAt(line, col, "", CodeYAML, "UTF-8 の文字ではありません（Shift_JIS や UTF-16 で保存されていませんか）",
			"not UTF-8 text (was it saved as Shift_JIS or UTF-16?)")
		return nil
	}
	load, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV3Defaults(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth+2))))
	if err != nil {
		r.fail(nil, "", CodeYAML, err.Error(), err.Error())
		return nil
	}
	var roots []*yaml.Node
	for {
		var n yaml.Node
		switch err := load.Load(&n); {
		case err == io.EOF:
			return roots
		case err != nil:
			r.syntax(err)
			return roots
		}
		if len(n.Content) == 0 || null(n.Content[0]) {
			continue // "---" with nothing below it
		}
		if len(roots) == maxDocs {
			r.fail(&n, "", CodeBounds, fmt.Sprintf("YAML 文書が %d を超えています", maxDocs), fmt.Sprintf("more than %d documents", maxDocs))
			return roots
		}
		roots = append(roots, n.Content[0])
	}
}

// syntax tells an error of the YAML library.
func (r *reader) syntax(err error) {
	reason, line, col := err.Error(), 0, 0
	var le *yaml.LoadError
	if errors.As(err, &le) {
		reason = le.Message
		if le.Mark.Line > 0 {
			line, col = le.Mark.Line, max(le.Mark.Column, 1)
		}
	}
	reason = problem.Printable(reason)
	ja := "YAML として読めません: "
	if strings.HasPrefix(strings.TrimLeft(r.file.line(line), " "), "\t") {
		ja = "YAML として読めません（字下げにタブは使えません）: "
	}
	r.failAt(line, col, "", CodeYAML, ja+reason, "not YAML: "+reason)
}

// plain reports whether a node is free of what rules may not use.
func (r *reader) plain(n *yaml.Node, path string) bool { return r.plainUpTo(n, path, maxText) }

func (r *reader) plainUpTo(n *yaml.Node, path string, bytes int) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.fail(n, path, CodeYAML, "YAML の別名（*name）は使えません", "YAML aliases (*name) are not allowed")
	case n.Anchor != "":
		r.fail(n, path, CodeYAML, "YAML のアンカー（&name）は使えません", "YAML anchors (&name) are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		r.fail(n, path, CodeYAML, "YAML のタグ（!name）は使えません", "YAML tags (!name) are not allowed")
	case len(n.Content) > 2*maxEntries || n.Kind == yaml.SequenceNode && len(n.Content) > maxEntries:
		r.fail(n, path, CodeBounds, fmt.Sprintf("要素が多すぎます（上限は %d）", maxEntries), fmt.Sprintf("more than %d entries", maxEntries))
	case len(n.Value) > bytes:
		r.fail(n, path, CodeBounds, fmt.Sprintf("文字列が長すぎます（上限は %d バイト）", bytes), fmt.Sprintf("text of more than %d bytes", bytes))
	default:
		return true
	}
	return false
}

// pair is one entry of a map.
type pair struct {
	name string
	key  *yaml.Node
	val  *yaml.Node
}

// pairs is the entries of a map; what is wrong with its keys is told.
func (r *reader) pairs(n *yaml.Node, path string) []pair {
	if !r.plain(n, path) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.wrong(n, path, "キーと値の組（key: value）", "a map (key: value)")
		return nil
	}
	ps := make([]pair, 0, len(n.Content)/2)
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case !r.plain(k, path):
		case k.Kind != yaml.ScalarNode:
			r.wrong(k, path, "キーの名前", "the name of a key")
		case k.ShortTag() == "!!merge":
			r.fail(k, path, CodeYAML, "YAML の併合（<<）は使えません", "YAML merge keys (<<) are not allowed")
		case seen[k.Value] > 0:
			r.fail(k, join(path, k.Value), CodeKey, fmt.Sprintf("キーが 2 回書かれています（1 回目は %d 行目）", seen[k.Value]),
				fmt.Sprintf("key given twice (first on line %d)", seen[k.Value]))
		default:
			seen[k.Value] = k.Line
			ps = append(ps, pair{k.Value, k, n.Content[i+1]})
		}
	}
	return ps
}

// wrong tells that a node is not of the wanted kind.
func (r *reader) wrong(n *yaml.Node, path, ja, en string) {
	gotJA, gotEN := "値", "a value"
	switch {
	case n.Kind == yaml.MappingNode:
		gotJA, gotEN = "キーと値の組", "a map"
	case n.Kind == yaml.SequenceNode:
		gotJA, gotEN = "リスト", "a list"
	case null(n):
		gotJA, gotEN = "空", "nothing"
	case n.Kind == yaml.ScalarNode:
		gotJA, gotEN = problem.Quote(n.Value), problem.Quote(n.Value)
	}
	r.fail(n, path, CodeType, ja+"が必要です（"+gotJA+" が書かれています）", "want "+en+", got "+gotEN)
}

func null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// text is a scalar as text.
func (r *reader) text(n *yaml.Node, path string) (string, bool) {
	if !r.plain(n, path) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || null(n) {
		r.wrong(n, path, "文字列", "text")
		return "", false
	}
	return n.Value, true
}

// textUpTo is a scalar as text of so many characters.
func (r *reader) textUpTo(n *yaml.Node, path string, chars int) (string, bool) {
	if !r.plainUpTo(n, path, utf8.UTFMax*chars) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode || null(n) {
		r.wrong(n, path, "文字列", "text")
		return "", false
	}
	if utf8.RuneCountInString(n.Value) > chars {
		r.fail(n, path, CodeBounds, fmt.Sprintf("文字列が長すぎます（上限は %d 文字）", chars), fmt.Sprintf("text of more than %d characters", chars))
		return "", false
	}
	return n.Value, true
}

// texts is a list of texts, or one text.
func (r *reader) texts(n *yaml.Node, path string) []*yaml.Node {
	if !r.plain(n, path) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		if _, ok := r.text(n, path); ok {
			return []*yaml.Node{n}
		}
		return nil
	}
	var out []*yaml.Node
	for i, c := range n.Content {
		if _, ok := r.text(c, fmt.Sprintf("%s[%d]", path, i)); ok {
			out = append(out, c)
		}
	}
	return out
}

// truth is true or false.
func (r *reader) truth(n *yaml.Node, path string) bool {
	if r.plain(n, path) && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		b, err := strconv.ParseBool(strings.ToLower(n.Value))
		if err == nil {
			return b
		}
	}
	r.wrong(n, path, "true または false", "true or false")
	return false
}

// whole is a whole number.
func (r *reader) whole(n *yaml.Node, path string) (int64, bool) {
	if r.plain(n, path) && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
		if v, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64); err == nil {
			return v, true
		}
	}
	r.wrong(n, path, "整数", "a whole number")
	return 0, false
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
