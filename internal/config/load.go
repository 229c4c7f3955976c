package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"

	"sekisho/internal/input"
	"sekisho/internal/problem"
)

// Limits of the loader. Judgement: a ledger of 2,000 sticks or 2,000 people
// takes about 200 KB.
const (
	MaxFile     = 1 << 20 // bytes of a settings file
	maxDepth    = 32      // nested lists and mappings; the settings need 5
	maxText     = 4096    // bytes of one text
	maxElements = 20_000  // of one list or mapping
	maxProblems = 200     // told of one file
)

// The codes of problems; docs/configure.md has a line on each.
const (
	CodeRead     = "CFG-01" // the file cannot be read
	CodeText     = "CFG-02" // too large, or not UTF-8 text
	CodeYAML     = "CFG-03" // not YAML
	CodeUnknown  = "CFG-04" // unknown key
	CodeDouble   = "CFG-05" // key given twice
	CodeType     = "CFG-06" // wrong type
	CodeValue    = "CFG-07" // value out of range or not understood
	CodeMissing  = "CFG-08" // key missing that has to be there
	CodeFeature  = "CFG-09" // alias, anchor, tag or merge
	CodeBounds   = "CFG-10" // too deep, too long, too many
	CodeTogether = "CFG-11" // does not fit another setting
	CodeTwice    = "CFG-12" // same thing listed twice
	CodeFound    = "CFG-13" // what is named does not exist (rule, tool)
)

// LoadAgent reads the settings of an agent. The error is [Problems].
func LoadAgent(name string) (*Agent, error) {
	data, err := read(name)
	if err != nil {
		return nil, err
	}
	return ParseAgent(name, data)
}

// ParseAgent is LoadAgent on text that was read already; name stands in messages,
// and its folder is what relative paths start from.
func ParseAgent(name string, data []byte) (*Agent, error) {
	a := DefaultAgent()
	a.Log.Dir = ""
	l := newLoader(name, agentKeys)
	l.load(data, reflect.ValueOf(a).Elem())
	a.source = l.source
	a.complete()
	if err := l.end(a.validate()); err != nil {
		return nil, err
	}
	return a, nil
}

// LoadConsole reads the settings of a console. The error is [Problems].
func LoadConsole(name string) (*Console, error) {
	data, err := read(name)
	if err != nil {
		return nil, err
	}
	return ParseConsole(name, data)
}

// ParseConsole is LoadConsole on text that was read already.
func ParseConsole(name string, data []byte) (*Console, error) {
	c := DefaultConsole()
	c.Log.Dir, c.Storage.SQLite = "", ""
	l := newLoader(name, consoleKeys)
	l.load(data, reflect.ValueOf(c).Elem())
	c.source = l.source
	c.complete()
	if err := l.end(c.validate()); err != nil {
		return nil, err
	}
	return c, nil
}

// read reads at most MaxFile bytes and one.
func read(name string) ([]byte, error) {
	fail := func(err error) error {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		p := Problem{File: name, Code: CodeRead, JA: "設定ファイルを読めません: " + err.Error(), EN: "cannot read the settings file: " + err.Error()}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.JA += "（場所を --config で指定してください）"
			p.EN += " (say by --config where it is)"
		case errors.Is(err, fs.ErrPermission):
			p.JA += "（root、Windows では管理者で実行してください）"
			p.EN += " (run as root, on Windows as administrator)"
		}
		return Problems{p}
	}
	data, err := input.ReadFile(name, MaxFile+1)
	if err != nil {
		return nil, fail(err)
	}
	return data, nil
}

// A place is where a value stands in the file, both from 1.
type place struct{ line, col int }

// source is where loaded settings came from.
type source struct {
	file   string
	places map[string]place // path of a value that the file gives -> its place
	lines  []string         // of the file
}

// problem makes a problem of the value at a path, or of the nearest thing
// around it that the file gives.
func (s *source) problem(at, code, ja, en string) Problem {
	p := Problem{File: s.file, Path: at, Code: code, JA: ja, EN: en}
	for where := at; ; {
		if pl, ok := s.places[where]; ok {
			p.Line, p.Col = pl.line, pl.col
			break
		}
		i := strings.LastIndexAny(where, ".[")
		if i < 0 {
			break
		}
		where = where[:i]
	}
	p.Text = s.line(p.Line)
	return p
}

func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// Problem makes a problem of the setting at a path ("remote_access.approved[0].tool"),
// for checks that need what this package does not know: rules, the catalogue.
func (s *source) Problem(at, code, ja, en, hint string) Problem {
	p := s.problem(at, code, ja, en)
	p.Hint = hint
	return p
}

// File is the settings file as given to the loader, "" for the defaults.
func (s *source) File() string { return s.file }

type loader struct {
	source
	dir      string // of the file; relative paths start here
	keys     map[string]*Key
	problems Problems
	nodes    int
}

func newLoader(name string, keys []Key) *loader {
	l := &loader{source: source{file: name, places: map[string]place{}}, keys: make(map[string]*Key, len(keys))}
	if abs, err := filepath.Abs(name); err == nil {
		l.dir = filepath.Dir(abs)
	}
	for i := range keys {
		l.keys[keys[i].Path] = &keys[i]
	}
	return l
}

// end is the error of the load: all problems in order of their places.
func (l *loader) end(more Problems) error {
	all := append(l.problems, more...)
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	// A value that could not be read leaves its default behind; what that leads
	// to is no problem of its own.
	all = slices.CompactFunc(all, func(a, b Problem) bool { return a.Line > 0 && a.Line == b.Line && a.Col == b.Col && a.Path == b.Path })
	if n := len(all) - maxProblems; n > 0 {
		all = append(all[:maxProblems:maxProblems], Problem{File: l.file, Code: CodeBounds,
			JA: fmt.Sprintf("ほかに %d 件の問題があります", n), EN: fmt.Sprintf("%d more problems", n)})
	}
	return all
}

func (l *loader) fail(n *yaml.Node, at, code, ja, en string) *Problem {
	if len(l.problems) >= 10*maxProblems { // a file of nothing but mistakes
		return &Problem{}
	}
	p := Problem{File: l.file, Path: at, Code: code, JA: ja, EN: en}
	if n != nil {
		p.Line, p.Col = n.Line, n.Column
		p.Text = l.line(n.Line)
	}
	l.problems = append(l.problems, p)
	return &l.problems[len(l.problems)-1]
}

// at is a node that only has a place.
func at(line, col int) *yaml.Node { return &yaml.Node{Line: line, Column: col} }

// load fills v from the text, as far as the text is right.
func (l *loader) load(data []byte, v reflect.Value) {
	if len(data) > MaxFile {
		l.fail(nil, "", CodeBounds, fmt.Sprintf("ファイルが大きすぎます（上限は %d バイト）", MaxFile),
			fmt.Sprintf("the file is larger than %d bytes", MaxFile))
		return
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	l.lines = strings.Split(string(data), "\n")
	for i, line := range l.lines {
		l.lines[i] = strings.TrimSuffix(line, "\r")
	}
	if !utf8.Valid(data) {
		for i, line := range l.lines {
			if off := firstInvalid(line); off >= 0 {
				l.lines[i] = strings.ToValidUTF8(line, "?")
				l.fail(at(i+1, utf8.RuneCountInString(line[:off])+1), "", CodeText,
					"UTF-8 の文字ではありません（Shift_JIS や UTF-16 で保存されていませんか）", "not UTF-8 text (was it saved as Shift_JIS or UTF-16?)")
				return
			}
		}
	}
	root, ok := l.parse(data)
	if !ok || root == nil || isNull(root) {
		return
	}
	l.value(root, v, "", "")
}

func firstInvalid(s string) int {
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// parse is the root node of the only document; nil for an empty file.
func (l *loader) parse(data []byte) (root *yaml.Node, ok bool) {
	dec, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithV3Defaults(),
		yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		l.fail(nil, "", CodeYAML, err.Error(), err.Error())
		return nil, false
	}
	var doc yaml.Node
	if err := dec.Load(&doc); err == io.EOF {
		return nil, true
	} else if err != nil {
		l.syntax(err)
		return nil, false
	}
	var second yaml.Node
	switch err := dec.Load(&second); {
	case err == io.EOF:
	case err != nil:
		l.syntax(err)
	default:
		l.fail(at(max(second.Line, 1), max(second.Column, 1)), "", CodeYAML,
			"YAML 文書が複数あります（1 つだけ書けます）", "more than one YAML document (one is allowed)")
	}
	if len(doc.Content) == 0 {
		return nil, true
	}
	return doc.Content[0], true
}

// syntax tells an error of the YAML library.
func (l *loader) syntax(err error) {
	var n *yaml.Node
	reason := err.Error()
	var le *yaml.LoadError
	if errors.As(err, &le) {
		reason = le.Message
		if m := le.Mark; m.Line > 0 {
			n = at(m.Line, max(m.Column, 1))
		}
	}
	reason = quoteControls(reason)
	if strings.Contains(reason, "max depth") {
		l.fail(n, "", CodeBounds, fmt.Sprintf("入れ子が深すぎます（上限は %d）", maxDepth), fmt.Sprintf("nested more than %d deep", maxDepth))
		return
	}
	ja := "YAML として読めません: "
	if strings.Contains(reason, "tab") || n != nil && strings.HasPrefix(strings.TrimLeft(l.line(n.Line), " "), "\t") {
		ja = "YAML として読めません（字下げにタブは使えません。空白を使ってください）: "
	}
	l.fail(n, "", CodeYAML, ja+reason, "not YAML: "+reason)
}

// quoteControls makes text from a library harmless, should it repeat the file.
func quoteControls(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// Types of scalars that have their own way of being written.
var (
	durationType = reflect.TypeFor[time.Duration]()
	sizeType     = reflect.TypeFor[Size]()
	dateType     = reflect.TypeFor[Date]()
	clockType    = reflect.TypeFor[Clock]()
)

// value fills v from n. The path leads to this value ("people[2].id"), the key
// to its row in the table ("people[].id").
func (l *loader) value(n *yaml.Node, v reflect.Value, path, key string) {
	if l.nodes++; l.nodes > 10*maxElements {
		if l.nodes == 10*maxElements+1 {
			l.fail(n, path, CodeBounds, "設定が多すぎます", "too many settings")
		}
		return
	}
	switch {
	case n.Kind == yaml.AliasNode:
		l.fail(n, path, CodeFeature, "YAML の別名（*name）は使えません", "YAML aliases (*name) are not allowed")
		return
	case n.Anchor != "":
		l.fail(n, path, CodeFeature, "YAML のアンカー（&name）は使えません", "YAML anchors (&name) are not allowed")
		return
	case n.Style&yaml.TaggedStyle != 0:
		l.fail(n, path, CodeFeature, "YAML のタグ（!name）は使えません", "YAML tags (!name) are not allowed")
		return
	}
	if path != "" {
		l.places[path] = place{n.Line, n.Column}
	}
	switch v.Kind() {
	case reflect.Struct:
		l.mapping(n, v, path, key)
	case reflect.Map:
		l.dictionary(n, v, path, key)
	case reflect.Slice:
		l.list(n, v, path, key)
	default:
		l.scalar(n, v, path, key)
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// pairs calls f for every pair of a mapping, and tells what is wrong with its keys.
func (l *loader) pairs(n *yaml.Node, path string, f func(name string, k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		l.wrongType(n, path, "キーと値の組（key: value）", "a mapping (key: value)")
		return
	}
	if len(n.Content)/2 > maxElements {
		l.fail(n, path, CodeBounds, fmt.Sprintf("要素が多すぎます（上限は %d）", maxElements), fmt.Sprintf("more than %d entries", maxElements))
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			l.wrongType(k, path, "キーの名前", "the name of a key")
			continue
		}
		if k.ShortTag() == "!!merge" {
			l.fail(k, path, CodeFeature, "YAML の併合（<<）は使えません", "YAML merge keys (<<) are not allowed")
			continue
		}
		if line, twice := seen[k.Value]; twice {
			l.fail(k, path, CodeDouble, fmt.Sprintf("キー %s が 2 回書かれています（1 回目は %d 行目）", problem.Quote(k.Value), line),
				fmt.Sprintf("key %s is given twice (first on line %d)", problem.Quote(k.Value), line))
			continue
		}
		seen[k.Value] = k.Line
		f(k.Value, k, n.Content[i+1])
	}
}

func (l *loader) mapping(n *yaml.Node, v reflect.Value, path, key string) {
	names := fieldNames(v.Type())
	given := map[string]bool{}
	l.pairs(n, path, func(name string, k, val *yaml.Node) {
		i, known := names[name]
		if !known {
			l.unknown(k, path, name, v.Type())
			return
		}
		given[name] = true
		if isNull(val) { // "people:" with every entry commented out
			return
		}
		l.value(val, v.Field(i), join(path, name), join(key, name))
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, f := range fields(v.Type()) {
		if k := l.keys[join(key, f.name)]; k != nil && k.Required && !given[f.name] {
			l.fail(n, path, CodeMissing, "キー "+strconv.Quote(f.name)+" が必要です", "key "+strconv.Quote(f.name)+" is missing")
		}
	}
}

// unknown tells an unknown key, what was probably meant, and where the key
// belongs if it exists elsewhere.
func (l *loader) unknown(k *yaml.Node, path, name string, t reflect.Type) {
	var here []string
	for _, f := range fields(t) {
		here = append(here, f.name)
	}
	p := l.fail(k, path, CodeUnknown, "知らないキー "+problem.Quote(name)+" です", "unknown key "+problem.Quote(name))
	if p.Hint = problem.Suggest(name, here); p.Hint != "" {
		return
	}
	var elsewhere []string
	for full := range l.keys {
		if full == name || strings.HasSuffix(full, "."+name) {
			elsewhere = append(elsewhere, full)
		}
	}
	if len(elsewhere) == 1 {
		p.Hint = elsewhere[0]
		return
	}
	slices.Sort(here)
	p.JA += "（ここに書けるキー: " + strings.Join(here, "、") + "）"
	p.EN += " (keys here: " + strings.Join(here, ", ") + ")"
}

func (l *loader) dictionary(n *yaml.Node, v reflect.Value, path, key string) {
	v.Set(reflect.MakeMap(v.Type()))
	l.pairs(n, path, func(name string, k, val *yaml.Node) {
		if isNull(val) {
			return
		}
		if ja, en := checkWord(name); en != "" {
			l.fail(k, path, CodeValue, ja, en)
			return
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		l.value(val, elem, join(path, name), join(key, "*"))
		v.SetMapIndex(reflect.ValueOf(name), elem)
	})
}

func (l *loader) list(n *yaml.Node, v reflect.Value, path, key string) {
	elem := v.Type().Elem()
	// One value stands for a list of one, where the elements are scalars.
	if n.Kind == yaml.ScalarNode && elem.Kind() != reflect.Struct {
		out := reflect.MakeSlice(v.Type(), 1, 1)
		l.scalar(n, out.Index(0), path, key)
		v.Set(out)
		return
	}
	if n.Kind != yaml.SequenceNode {
		l.wrongType(n, path, "一覧（- で始まる行）", "a list")
		return
	}
	if len(n.Content) > maxElements {
		l.fail(n, path, CodeBounds, fmt.Sprintf("要素が多すぎます（上限は %d）", maxElements), fmt.Sprintf("more than %d entries", maxElements))
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for i, c := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		if isNull(c) {
			l.fail(c, at, CodeType, "空の要素です", "empty entry")
			continue
		}
		x := reflect.New(elem).Elem()
		k := key
		if elem.Kind() == reflect.Struct {
			k += "[]"
		}
		l.value(c, x, at, k)
		out = reflect.Append(out, x)
	}
	v.Set(out)
}

func (l *loader) wrongType(n *yaml.Node, path, ja, en string) {
	gotJA, gotEN := "", ""
	switch n.Kind {
	case yaml.MappingNode:
		gotJA, gotEN = "キーと値の組", "a mapping"
	case yaml.SequenceNode:
		gotJA, gotEN = "一覧", "a list"
	default:
		gotJA, gotEN = problem.Quote(n.Value), problem.Quote(n.Value)
	}
	l.fail(n, path, CodeType, ja+"を書いてください（今は "+gotJA+"）", "want "+en+", got "+gotEN)
}

func (l *loader) scalar(n *yaml.Node, v reflect.Value, path, key string) {
	k := l.keys[key]
	if k == nil { // the table test keeps this from happening
		panic("config: no row for " + key)
	}
	want := wanted(v.Type())
	if n.Kind != yaml.ScalarNode {
		l.wrongType(n, path, want.JA, want.EN)
		return
	}
	text := n.Value
	bad := func(r reason) {
		p := l.fail(n, path, CodeValue, r.JA, r.EN)
		p.Hint = r.hint
	}
	number := func(x int64, show func(int64) string) {
		switch {
		case k.Max != 0 && x > k.Max || x < k.Min:
			hi, lo := show(k.Max), show(k.Min)
			if k.Max == 0 {
				bad(reason{JA: text + " は小さすぎます（" + lo + " 以上）", EN: text + " is too small (at least " + lo + ")"})
				return
			}
			bad(reason{JA: text + " は範囲の外です（" + lo + " から " + hi + " まで）", EN: text + " is out of range (" + lo + " to " + hi + ")"})
		default:
			v.SetInt(x)
		}
	}
	decimal := func(x int64) string { return strconv.FormatInt(x, 10) }
	switch t := v.Type(); {
	case len(text) > maxText:
		l.fail(n, path, CodeBounds, fmt.Sprintf("長すぎます（上限は %d バイト）", maxText), fmt.Sprintf("longer than %d bytes", maxText))
	case t.Kind() == reflect.Bool:
		switch strings.ToLower(text) {
		case "true":
			v.SetBool(true)
		case "false":
			v.SetBool(false)
		default:
			p := l.fail(n, path, CodeType, "true か false を書いてください（今は "+problem.Quote(text)+"）", "want true or false, got "+problem.Quote(text))
			switch strings.ToLower(text) {
			case "yes", "on", "y", "1":
				p.Hint = "true"
			case "no", "off", "n", "0":
				p.Hint = "false"
			default:
				p.Hint = problem.Suggest(text, []string{"true", "false"})
			}
		}
	case t == durationType:
		if d, err := ParseDuration(text); err != nil {
			bad(reason{JA: problem.Quote(text) + " は時間ではありません（例: 90s、15m、24h、7d）", EN: problem.Quote(text) + " is not a duration (such as 90s, 15m, 24h, 7d)", hint: unitHint(text, "s")})
		} else {
			number(int64(d), func(x int64) string { return FormatDuration(time.Duration(x)) })
		}
	case t == sizeType:
		if s, err := ParseSize(text); err != nil {
			bad(reason{JA: problem.Quote(text) + " は容量ではありません（例: 64MB、1GiB）", EN: problem.Quote(text) + " is not a size (such as 64MB, 1GiB)"})
		} else {
			number(int64(s), func(x int64) string { return Size(x).String() })
		}
	case t == clockType:
		if c, err := ParseClock(text); err != nil {
			bad(reason{JA: problem.Quote(text) + " は時刻ではありません（例: 08:30）", EN: problem.Quote(text) + " is not a time of day (such as 08:30)"})
		} else {
			v.SetInt(int64(c))
		}
	case t == dateType:
		if _, err := time.Parse(time.DateOnly, text); err != nil {
			bad(reason{JA: problem.Quote(text) + " は日付ではありません（例: 2027-03-31）", EN: problem.Quote(text) + " is not a date (such as 2027-03-31)"})
		} else {
			v.SetString(text)
		}
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		x, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		if err != nil && k.sizeToo {
			var s Size
			s, err = ParseSize(text)
			x = int64(s)
		}
		if err != nil {
			l.fail(n, path, CodeType, want.JA+"を書いてください（今は "+problem.Quote(text)+"）", "want "+want.EN+", got "+problem.Quote(text))
			return
		}
		number(x, decimal)
	default:
		if r := checkText(text); r.EN != "" {
			bad(r)
			return
		}
		if len(k.Enum) > 0 && !slices.Contains(k.Enum, text) {
			bad(reason{JA: problem.Quote(text) + " は選べません（" + strings.Join(k.Enum, "、") + " のどれか）",
				EN: problem.Quote(text) + " is not one of " + strings.Join(k.Enum, ", "), hint: problem.Suggest(text, k.Enum)})
			return
		}
		if k.path {
			text = l.absolute(text)
		}
		if k.check != nil {
			if r := k.check(text); r.EN != "" {
				bad(r)
				return
			}
		}
		if k.lower {
			text = strings.ToLower(text)
		}
		v.SetString(text)
	}
}

// unitHint is a number with a unit, where just the unit was forgotten.
func unitHint(text, unit string) string {
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		return text + unit
	}
	return ""
}

// absolute is a path against the folder of the settings file. A path that is
// absolute on the other system is left: a file for Windows can be checked on Linux.
func (l *loader) absolute(p string) string {
	if p == "" || filepath.IsAbs(p) || rooted(p) {
		return p
	}
	return filepath.Join(l.dir, p)
}

// rooted reports whether p is absolute on Windows or Linux.
func rooted(p string) bool {
	return path.IsAbs(p) || strings.HasPrefix(p, `\\`) ||
		len(p) >= 3 && p[1] == ':' && (p[2] == '\\' || p[2] == '/') && unicode.IsLetter(rune(p[0]))
}

// A field is a setting within a struct.
type field struct {
	name  string
	index int
}

// fields is the settings of a struct type in their order.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" {
			out = append(out, field{name, i})
		}
	}
	return out
}

func fieldNames(t reflect.Type) map[string]int {
	m := map[string]int{}
	for _, f := range fields(t) {
		m[f.name] = f.index
	}
	return m
}

// ParseDuration reads "90s", "15m", "24h", "7d", "1h30m". Years and months are
// not units: they have no fixed length.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%s is not a duration", problem.Quote(s))
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "", s
	}
	var sum time.Duration
	if days != "" {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return 0, wrong
		}
		sum = time.Duration(n) * day
	} else if ok {
		return 0, wrong
	}
	if rest != "" {
		if c := rest[0]; c < '0' || c > '9' {
			return 0, wrong
		}
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 || d > 100*365*day || rest[len(rest)-1] >= '0' && rest[len(rest)-1] <= '9' {
			return 0, wrong
		}
		sum += d
	} else if days == "" {
		return 0, wrong
	}
	return sum, nil
}

// FormatDuration is the shortest way to write a duration that ParseDuration reads.
func FormatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var units = []struct {
	name string
	size Size
}{{"KiB", KiB}, {"MiB", MiB}, {"GiB", GiB}, {"KB", KB}, {"MB", MB}, {"GB", GB}, {"B", 1}, {"", 1}}

// ParseSize reads "64MB", "1GiB", "4096".
func ParseSize(s string) (Size, error) {
	for _, u := range units {
		num, ok := strings.CutSuffix(strings.ToLower(s), strings.ToLower(u.name))
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(num, " "), 10, 63)
		if err != nil || Size(n) > (1<<62)/u.size {
			break
		}
		return Size(n) * u.size, nil
	}
	return 0, fmt.Errorf("%s is not a size", problem.Quote(s))
}

// String is the shortest exact way to write the size.
func (s Size) String() string {
	for _, u := range []int{2, 5, 1, 4, 0, 3} {
		if s != 0 && s%units[u].size == 0 {
			return strconv.FormatInt(int64(s/units[u].size), 10) + units[u].name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// ParseClock reads "08:30"; "24:00" is the end of the day.
func ParseClock(s string) (Clock, error) {
	h, m, ok := strings.Cut(s, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	if !ok || err1 != nil || err2 != nil || len(h) > 2 || len(m) != 2 || minute > 59 || hour*60+minute > 24*60 {
		return 0, fmt.Errorf("%s is not a time of day", problem.Quote(s))
	}
	return Clock(hour*60 + minute), nil
}

// String is "08:30".
func (c Clock) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }
