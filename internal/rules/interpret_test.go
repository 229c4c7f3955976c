package rules

import (
	"encoding/base64"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // Windows has no zone database of its own
	"unicode/utf8"

	"sekisho/internal/event"
)

// A plain interpreter of parsed rules, word by word after the specification:
// every pattern is a regular expression made on the spot, nothing is normalised,
// indexed or put in another order. It shares the parser with the compiled
// program and nothing else but field names.

type interpreter struct {
	d  *document
	ns names
	e  *event.Event
	o  Options
}

func interpret(d *document, e *event.Event, o Options) bool {
	in := &interpreter{d, d.names(), e, o}
	if a, ok := categories[d.logsource.category]; ok && !slices.ContainsFunc(a, func(a event.Action) bool { return strings.EqualFold(string(a), string(e.Action)) }) {
		return false
	}
	if os := products[d.logsource.product]; os != "" {
		if v, ok := e.Get("host.os.type"); !ok || !strings.EqualFold(v.Str(), os) {
			return false
		}
	}
	for _, c := range d.detection.conditions {
		if in.expr(c.expr) {
			return true
		}
	}
	return false
}

func (in *interpreter) expr(x expr) bool {
	switch x := x.(type) {
	case andExpr:
		for _, y := range x {
			if !in.expr(y) {
				return false
			}
		}
		return true
	case orExpr:
		for _, y := range x {
			if in.expr(y) {
				return true
			}
		}
		return false
	case notExpr:
		return !in.expr(x.x)
	}
	for _, a := range x.(selExpr).sel.alts {
		if a.keyword != nil {
			if in.keyword(a.keyword.text, "") {
				return true
			}
			continue
		}
		all := true
		for _, it := range a.items {
			all = all && in.item(it)
		}
		if all {
			return true
		}
	}
	return false
}

// texts is the values of a field as texts; ok is false where it is missing.
func (in *interpreter) texts(name string) (out []string, ok bool) {
	g, known := in.ns.find(name)
	if !known {
		panic("unknown field " + name)
	}
	v, ok := g.Value(in.e)
	if !ok {
		return nil, false
	}
	return textsOf(v), true
}

func textsOf(v event.Value) []string {
	if v.Type() != event.List {
		return []string{v.String()}
	}
	if len(v.List()) == 0 {
		return []string{""}
	}
	return v.List()
}

func (in *interpreter) keyword(word, re string) bool {
	x := regexp.MustCompile(re)
	if re == "" {
		x = wildcards(word, "contains", false, false)
	}
	hit := false
	in.e.Each(func(_ string, v event.Value) {
		if v.Type() == event.List && len(v.List()) == 0 {
			return
		}
		hit = hit || slices.ContainsFunc(textsOf(v), x.MatchString)
	})
	return hit
}

// made keeps the regular expressions made while all of the corpus is compared.
var made sync.Map

func expressionFor(text string) *regexp.Regexp {
	if x, ok := made.Load(text); ok {
		return x.(*regexp.Regexp)
	}
	x := regexp.MustCompile(text)
	if os.Getenv("SEKISHO_ALL") != "" {
		made.Store(text, x)
	}
	return x
}

// wildcards makes a regular expression of a value with Sigma's wildcards.
func wildcards(s, op string, cased, windash bool) *regexp.Regexp {
	type piece struct {
		text string
		wild bool
	}
	var pieces []piece
	lit := ""
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && strings.IndexByte(`*?\`, s[i+1]) >= 0:
			i++
			lit += s[i : i+1]
		case s[i] == '*', s[i] == '?':
			pieces = append(pieces, piece{lit, false}, piece{map[byte]string{'*': `.*`, '?': `.`}[s[i]], true})
			lit = ""
		default:
			lit += s[i : i+1]
		}
	}
	pieces = append(pieces, piece{lit, false})
	var b strings.Builder
	b.WriteString(`(?s`)
	if !cased {
		b.WriteString(`i`)
	}
	b.WriteString(`)`)
	if op == "" || op == "startswith" {
		b.WriteString(`\A`)
	}
	word := func(c rune) bool {
		return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= utf8.RuneSelf
	}
	for _, p := range pieces {
		if p.wild {
			b.WriteString(p.text)
			continue
		}
		runes := []rune(p.text)
		for i, c := range runes {
			if windash && (c == '-' || c == '/') && (i == 0 || !word(runes[i-1])) && i+1 < len(runes) && word(runes[i+1]) {
				b.WriteString(`[-/–—―]`)
			} else {
				b.WriteString(regexp.QuoteMeta(string(c)))
			}
		}
	}
	if op == "" || op == "endswith" {
		b.WriteString(`\z`)
	}
	return expressionFor(b.String())
}

func (in *interpreter) item(it *item) bool {
	has := func(m string) bool { return slices.Contains(it.mods, m) }
	op := ""
	for _, m := range []string{"contains", "startswith", "endswith"} {
		if has(m) {
			op = m
		}
	}
	var test func(v scalar) bool // one value against the event
	var texts []string
	present := false
	if it.field != "" {
		texts, present = in.texts(it.field)
	}
	flags := ""
	for _, f := range []string{"i", "m", "s"} {
		if has(f) {
			flags += f
		}
	}
	part := ""
	for _, m := range []string{"minute", "hour", "day", "week", "month", "year"} {
		if has(m) {
			part = m
		}
	}
	forms := func(v scalar) []string {
		if has("expand") {
			return in.expanded(v.text)
		}
		return []string{v.text}
	}
	switch {
	case part != "":
		test = func(v scalar) bool {
			want, _ := strconv.Atoi(v.text)
			return slices.ContainsFunc(texts, func(s string) bool {
				t, err := time.Parse(time.RFC3339Nano, s) // an event's own times are told so, too
				if err != nil {
					return false
				}
				t = t.In(in.o.Zone)
				_, week := t.ISOWeek()
				got := map[string]int{"minute": t.Minute(), "hour": t.Hour(), "day": t.Day(), "week": week, "month": int(t.Month()), "year": t.Year()}[part]
				switch {
				case has("gt"):
					return got > want
				case has("gte"):
					return got >= want
				case has("lt"):
					return got < want
				case has("lte"):
					return got <= want
				}
				return got == want
			})
		}
	case it.field == "":
		test = func(v scalar) bool {
			if has("re") {
				if flags != "" {
					return in.keyword("", "(?"+flags+")"+v.text)
				}
				return in.keyword("", "(?:"+v.text+")")
			}
			return in.keyword(v.text, "")
		}
	case has("exists"):
		return present == (it.values[0].text == "true")
	case has("re"):
		test = func(v scalar) bool {
			text := v.text
			if flags != "" {
				text = "(?" + flags + ")" + text
			}
			return slices.ContainsFunc(texts, expressionFor(text).MatchString)
		}
	case has("cidr"):
		test = func(v scalar) bool {
			for _, form := range forms(v) {
				p := netip.MustParsePrefix(form).Masked()
				if slices.ContainsFunc(texts, func(s string) bool {
					a, err := netip.ParseAddr(s)
					return err == nil && p.Contains(a.Unmap().WithZone(""))
				}) {
					return true
				}
			}
			return false
		}
	case has("gt"), has("gte"), has("lt"), has("lte"):
		test = func(v scalar) bool {
			want, _ := strconv.ParseFloat(v.text, 64)
			g, _ := in.ns.find(it.field)
			x, _ := g.Value(in.e)
			got, ok := x.Float()
			if w, err := strconv.ParseInt(v.text, 10, 64); err == nil && x.Type() == event.Int { // exact above 2^53
				n := x.Int()
				return has("gt") && n > w || has("gte") && n >= w || has("lt") && n < w || has("lte") && n <= w
			}
			return ok && (has("gt") && got > want || has("gte") && got >= want || has("lt") && got < want || has("lte") && got <= want)
		}
	case has("fieldref"):
		test = func(v scalar) bool {
			others, _ := in.texts(v.text)
			for _, o := range others {
				esc := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(o)
				if slices.ContainsFunc(texts, wildcards(esc, op, has("cased"), false).MatchString) {
					return true
				}
			}
			return false
		}
	default:
		test = func(v scalar) bool {
			if v.kind == nullScalar {
				return !present
			}
			for _, form := range forms(v) {
				for _, s := range in.encoded(it, form) {
					if slices.ContainsFunc(texts, wildcards(s, op, has("cased"), has("windash")).MatchString) {
						return true
					}
				}
			}
			return false
		}
	}
	hit := slices.ContainsFunc(it.values, test)
	if has("all") {
		hit = !slices.ContainsFunc(it.values, func(v scalar) bool { return !test(v) })
	}
	return hit != has("neq")
}

// expanded is a value with its placeholders replaced. Each part is brought into the
// form in which every backslash escapes, so that parts do not change each other.
func (in *interpreter) expanded(s string) []string {
	out := []string{""}
	add := func(part string) {
		full := ""
		for i := 0; i < len(part); i++ {
			switch {
			case part[i] != '\\':
				full += part[i : i+1]
			case i+1 < len(part) && strings.IndexByte(`*?\`, part[i+1]) >= 0:
				full += part[i : i+2]
				i++
			default:
				full += `\\`
			}
		}
		for i := range out {
			out[i] += full
		}
	}
	literal := ""
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\%`) {
			literal += "%"
			i++
			continue
		}
		if s[i] == '%' {
			end := i + 1
			for end < len(s) && (s[end] == '_' || s[end] == '-' || '0' <= s[end] && s[end] <= '9' || 'a' <= s[end]|0x20 && s[end]|0x20 <= 'z') {
				end++
			}
			if end > i+1 && end < len(s) && s[end] == '%' {
				add(literal)
				literal = ""
				var all []string
				before := out
				for _, v := range in.o.Placeholders[s[i+1:end]] {
					out = slices.Clone(before)
					add(v)
					all = append(all, out...)
				}
				out = all
				i = end
				continue
			}
		}
		literal += s[i : i+1]
	}
	add(literal)
	return out
}

// encoded is a value after the modifiers that encode it, escaped again.
func (in *interpreter) encoded(it *item, s string) []string {
	var codes []string
	for _, m := range it.mods {
		if slices.Contains([]string{"wide", "utf16le", "utf16be", "utf16", "base64", "base64offset"}, m) {
			codes = append(codes, m)
		}
	}
	if len(codes) == 0 {
		return []string{s}
	}
	plain := ""
	for _, t := range parsePattern(s) {
		plain += string(t.lit)
	}
	escape := func(s string) string { return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(s) }
	for _, m := range codes {
		switch m {
		case "base64":
			return []string{base64.StdEncoding.EncodeToString([]byte(plain))}
		case "base64offset":
			var out []string
			for off := range 3 {
				// What stays the same whatever stands before and behind.
				whole := func(before, behind string) string {
					return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(before, off) + plain + strings.Repeat(behind, 3)))
				}
				a, b := whole("\x00", "\x00"), whole("\xff", "\xff")
				from := 0
				for from < len(a) && a[from] != b[from] {
					from++
				}
				to := from
				for to < len(a) && a[to] == b[to] {
					to++
				}
				out = append(out, a[from:to])
			}
			return out
		}
		wide := ""
		if m == "utf16" {
			wide = "\xff\xfe"
		}
		for _, r := range plain {
			units := []rune{r}
			if r > 0xffff {
				r -= 0x10000
				units = []rune{0xd800 + r>>10, 0xdc00 + r&0x3ff}
			}
			for _, u := range units {
				if m == "utf16be" {
					wide += string([]byte{byte(u >> 8), byte(u)})
				} else {
					wide += string([]byte{byte(u), byte(u >> 8)})
				}
			}
		}
		plain = wide
	}
	return []string{escape(plain)}
}

// someSettings is what the fuzzer's rules may refer to. The zone has an offset of
// half an hour and changes its clocks.
var someSettings = Options{Zone: mustZone("Australia/Adelaide"), Placeholders: map[string][]string{
	"a": {"x*", `b\`, "?c"}, "net": {"10.0.0.0/8", "fd00::/8"}, "one": {`\*`}}}

func mustZone(name string) *time.Location {
	z, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return z
}

// FuzzProgramAgreesWithInterpreter looks for a rule and an event on which the
// compiled program and the plain interpreter differ.
func FuzzProgramAgreesWithInterpreter(f *testing.F) {
	detections := []string{
		"s: {file.name: 'a*b?c'}\n  condition: s",
		"s:\n    file.name|contains|all: [a, 'b\\*']\n    user.name: [null, x, '']\n  condition: not s",
		"a: {'process.command_line|windash|contains': ' -enc'}\n  b: {'file.size|gte': 10}\n  condition: 1 of them or (a and not b)",
		"s: {'user.name|fieldref|startswith': file.owner, 'file.path|cased|endswith': A}\n  condition: s",
		"s: {'process.command_line|wide|base64offset|contains': ab, 'destination.ip|cidr': 10.0.0.0/8}\n  condition: s",
		"s: {'process.args|re|i': 'a.c', 'process.pid|exists': true, 'user.id|neq': [1, 2]}\n  condition: s",
		"s: [evil, 'b*d']\n  t: {event.action: [process-started, usb-*]}\n  condition: all of them",
		"s: {'@timestamp|hour': [22, 23, 0], '@timestamp|minute|gte': 30}\n  condition: s",
		"s: {'process.start|week|neq': 53, '@timestamp|day|lt': 9}\n  t: {'message|month': 2, 'message|year|gt': 2025}\n  condition: s or t",
		"s: {'file.path|expand|contains|all': ['%a%q', '\\%a%one%'], 'destination.ip|cidr|expand': '%net%'}\n  condition: s",
		"s: {'user.name|expand': '%a%%a%', 'file.name|windash|expand|endswith': ' -%a%'}\n  condition: 1 of them",
		"a: {event.action: file-copied}\n  b: {event.action: [x, file-COPIED]}\n  condition: a and b or not a",
	}
	events := []string{
		`{"event.action":"file-copied","file.name":"axxbyc","user.name":"x","file.owner":"X"}`,
		`{"event.action":"process-started","process.args":["Abc","evil"],"process.pid":3,"process.command_line":"a /enc YQBiAA=="}`,
		`{"@timestamp":"2026-04-04T15:59:59Z","process.start":"2021-01-03T23:00:00+09:00","message":"2026-02-28T23:59:59.5-05:00","user.name":"xyb\\"}`,
		`{"@timestamp":"2026-11-21T13:30:00Z","file.path":"/bcq%ax*","destination.ip":"::ffff:10.2.3.4","file.name":"a /b\\"}`,
		`{"file.size":11,"destination.ip":"10.1.1.1","file.path":"/A","user.name":"","message":"bad"}`,
	}
	for _, d := range detections {
		for _, e := range events {
			f.Add(d, e, false)
		}
	}
	f.Add("a: {'Image|endswith': ['\\cmd.exe', '/sh'], OriginalFileName: [x, null]}\n  b:\n    - 'User|contains': adm\n    - Image|endswith: .exe\n  condition: a and not b",
		`{"event.action":"Process-Started","host.os.type":"Windows","process.executable":"C:\\x\\CMD.exe","user.name":"bob","user.domain":"adm"}`, true)
	f.Fuzz(func(t *testing.T, detection, eventText string, generic bool) {
		if len(detection) > 2000 || len(eventText) > 4000 {
			return
		}
		head := ecs
		if generic {
			head = windows
		}
		file, err := Parse("f.yml", []byte("title: t\n"+head+"\ndetection:\n  "+detection+"\n"))
		if err != nil || len(file.docs) != 1 || file.docs[0].detection == nil {
			return
		}
		p, err := Compile([]*File{file}, someSettings)
		if err != nil || len(p.Rules) != 1 {
			return
		}
		e, err := event.Decode([]byte(eventText))
		if err != nil {
			return
		}
		got, want := len(p.Match(e, nil)) == 1, interpret(file.docs[0], e, someSettings)
		if got != want {
			t.Fatalf("compiled %v, interpreted %v\n%s\n%s", got, want, detection, e.AppendJSON(nil))
		}
	})
}

// The corpus' rules and events agree both ways too.
func TestSigmaHQProgramAgreesWithInterpreter(t *testing.T) {
	every, parts := 40, 3
	switch {
	case os.Getenv("SEKISHO_ALL") != "": // every event with every rule: minutes
		every, parts = 1, 1
	case testing.Short() || raceEnabled:
		every = 400
	}
	dir := corpusDir(t)
	files, _ := corpusFiles(t, dir)
	p, _ := Compile(files, Options{})
	events := corpusEvents(t, dir)
	var workers sync.WaitGroup
	for w := range 2 { // which share the program, as an agent's do
		workers.Go(func() {
			for i, e := range events {
				if i%every != 0 || i/every%2 != w {
					continue
				}
				matches, got := p.Match(e, nil), map[string]bool{}
				for _, m := range matches {
					got[m.Rule.ID] = true
				}
				for again := 2; again < 5; again++ { // by then the worker keeps the event's texts
					if m := p.Match(e, nil); !slices.Equal(m, matches) {
						t.Errorf("event %s matches %v, and for the %dth time %v", e.ID, matches, again, m)
					}
				}
				for j, r := range p.Rules {
					if j%parts == i/every%parts && got[r.ID] != interpret(r.doc, e, Options{}) {
						t.Errorf("event %s, rule %s: compiled %v", e.ID, r.ID, got[r.ID])
					}
				}
			}
		})
	}
	workers.Wait()
}
