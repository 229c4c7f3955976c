package console

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// How much of a text from outside is shown, in characters. Judgement: a path of
// Windows (260) fits into a line of a list; a command line of any length is read
// in the raw JSON.
const (
	lineText  = 280
	titlePart = 120
	blockText = 2_000
)

// maxMarks is how many combining marks may follow one character: more are used
// only to paint over other lines.
const maxMarks = 4

// clean makes a text from outside harmless to look at: what has no shape of its
// own (controls, direction marks, zero-width signs) becomes a visible sign, and
// what exceeds max characters is cut.
func clean(s string, max int) (shown string, cutOff bool) {
	var b strings.Builder
	n, marks := 0, 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		if unicode.In(r, unicode.Mn, unicode.Me) {
			if marks++; marks > maxMarks {
				continue
			}
		} else {
			marks = 0
		}
		if n++; n > max {
			return b.String(), true
		}
		switch {
		case r == utf8.RuneError:
			b.WriteRune('\uFFFD')
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co), isBlank(r):
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), false
}

// isBlank reports letters and marks that have no shape, which Unicode does not
// count as format characters.
func isBlank(r rune) bool {
	switch r {
	case 0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0:
		return true
	}
	return false
}

// cut is at most max characters of s, harmless.
func cut(s string, max int) string {
	shown, _ := clean(s, max)
	return shown
}

// cutBytes is at most max bytes of s, whole characters.
func cutBytes(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

// plain is a text from outside for an attribute or CSV: clean, with the length
// told if it was cut.
func (p *printer) plain(s string, max int) string {
	shown, cutOff := clean(s, max)
	if cutOff {
		shown += p.t("text.cut", p.number(int64(utf8.RuneCountInString(s))))
	}
	return shown
}

// bdi is a text from outside for a page, isolated so that its direction touches
// nothing around it.
func (p *printer) bdi(s string) template.HTML { return p.isolate(s, lineText) }

// block is bdi for places with room.
func (p *printer) block(s string) template.HTML { return p.isolate(s, blockText) }

func (p *printer) isolate(s string, max int) template.HTML {
	shown, cutOff := clean(s, max)
	h := "<bdi>" + template.HTMLEscapeString(shown) + "</bdi>"
	if cutOff {
		h += `<span class="cut">` + template.HTMLEscapeString(p.t("text.cut", p.number(int64(utf8.RuneCountInString(s))))) + "</span>"
	}
	return template.HTML(h)
}

// fill is a text of an alert with its placeholders ({user.name}) filled in from
// the alert's fields, for a page.
func (p *printer) fill(text string, a *alert.Alert) template.HTML {
	var b strings.Builder
	p.each(text, a,
		func(literal string) { b.WriteString(template.HTMLEscapeString(literal)) },
		func(value string, known bool) {
			if known {
				b.WriteString("<bdi>" + template.HTMLEscapeString(value) + "</bdi>")
			} else {
				b.WriteString(`<span class="unknown">` + template.HTMLEscapeString(value) + "</span>")
			}
		})
	return template.HTML(b.String())
}

// fillPlain is fill without markup.
func (p *printer) fillPlain(text string, a *alert.Alert) string {
	var b strings.Builder
	p.each(text, a, func(s string) { b.WriteString(s) }, func(s string, _ bool) { b.WriteString(s) })
	return b.String()
}

// each walks over a text and its placeholders. A brace that opens no
// placeholder is text.
func (p *printer) each(text string, a *alert.Alert, literal func(string), value func(s string, known bool)) {
	if len(text) > 4*blockText {
		text = cutBytes(text, 4*blockText)
	}
	for text != "" {
		open := strings.IndexByte(text, '{')
		if open < 0 {
			break
		}
		end := strings.IndexByte(text[open:], '}')
		if end < 0 {
			break
		}
		name := text[open+1 : open+end]
		if !isFieldName(name) {
			literal(cut(text[:open+1], blockText))
			text = text[open+1:]
			continue
		}
		literal(cut(text[:open], blockText))
		text = text[open+end+1:]
		switch v, ok := p.lookup(a, name); {
		case ok:
			value(v, true)
		case name == "user.name":
			value(p.t("unknown.user"), false)
			text = strings.TrimPrefix(text, " さん") // nobody is called 不明さん
		default:
			value(p.t("unknown"), false)
		}
	}
	literal(cut(text, blockText))
}

func isFieldName(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '@' || r == '-') {
			return false
		}
	}
	return true
}

// lookup is the value of a placeholder: a field of the deciding event, a key or
// total of the correlation, or what the alert itself has.
func (p *printer) lookup(a *alert.Alert, name string) (string, bool) {
	if total, ok := strings.CutPrefix(name, "sekisho.alert.totals."); ok {
		n, ok := a.Totals[total]
		return p.total(total, n), ok
	}
	if key, ok := strings.CutPrefix(name, "sekisho.alert.keys."); ok {
		v, ok := a.Keys[key]
		return p.plain(v, titlePart), ok && v != ""
	}
	switch name {
	case "sekisho.alert.count":
		return p.number(a.Count), true
	case "sekisho.alert.evidence_total":
		return p.number(a.EvidenceTotal), true
	case "rule.name":
		return p.plain(a.Rule.Name, titlePart), a.Rule.Name != ""
	case "sekisho.rule":
		return p.plain(a.Rule.Table, titlePart), a.Rule.Table != ""
	case "@timestamp":
		return p.clock(a.Time), true
	}
	if a.Event != nil {
		if v, ok := a.Event.Get(name); ok {
			s := p.value(name, v, titlePart)
			return s, s != ""
		}
	}
	v, ok := a.Keys[name]
	return p.plain(v, titlePart), ok && v != ""
}

// byteFields and plainNumbers are whole-number fields that are not counts.
var (
	byteFields   = map[string]bool{"sekisho.copy.bytes": true, "file.size": true, "network.bytes": true, "volume.size": true}
	plainNumbers = map[string]bool{"process.pid": true, "process.parent.pid": true, "destination.port": true, "process.exit_code": true}
)

// value is a field's value in words: codes that the catalogue knows translated
// ("value.FIELD.CODE"), and so what sensors say; bytes and counts with units and
// separators.
func (p *printer) value(name string, v event.Value, max int) string {
	word := func(s string) string {
		if w, ok := p.cat["value."+name+"."+s]; ok {
			return w
		}
		if name == "message" {
			s = endpoint.Why(s, p.lang)
		}
		return p.plain(s, max)
	}
	switch v.Type() {
	case event.Int:
		switch {
		case byteFields[name]:
			return p.bytes(v.Int())
		case plainNumbers[name]:
			return strconv.FormatInt(v.Int(), 10)
		}
		return p.number(v.Int())
	case event.Bool:
		return p.t("bool." + strconv.FormatBool(v.Bool()))
	case event.Time:
		return p.clock(v.Time())
	case event.List:
		list := v.List()
		var b strings.Builder
		for i, s := range list {
			if i > 0 {
				b.WriteString(p.t("list.and"))
			}
			if i == 8 {
				b.WriteString(p.t("list.more", p.number(int64(len(list)-i))))
				break
			}
			b.WriteString(word(s))
		}
		return b.String()
	}
	return word(v.String())
}

// total is a counting rule's total by its name.
func (p *printer) total(name string, n int64) string {
	switch name {
	case "bytes":
		return p.bytes(n)
	case "files":
		return p.n("files", n)
	}
	return p.number(n)
}

// number is n with separators, "1,048,576".
func (p *printer) number(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytes is an amount of data in decimal units, "12.3 MB".
func (p *printer) bytes(n int64) string {
	if n > -1000 && n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB", "PB"} {
		f /= 1000
		if f < 999.5 && f > -999.5 || unit == "PB" {
			digits := 1
			if f >= 99.95 {
				digits = 0
			}
			return strconv.FormatFloat(f, 'f', digits, 64) + " " + unit
		}
	}
	return ""
}

// n is a count with its noun: keys KEY.one and KEY.other.
func (p *printer) n(key string, n int64) string {
	if n == 1 {
		return p.t(key+".one", p.number(n))
	}
	return p.t(key+".other", p.number(n))
}

// span is a length of time in its largest fitting unit.
func (p *printer) span(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	switch {
	case d < time.Minute:
		return p.n("span.seconds", int64(d/time.Second))
	case d < time.Hour:
		return p.n("span.minutes", int64(d/time.Minute))
	case d < 48*time.Hour:
		return p.n("span.hours", int64(d/time.Hour))
	}
	return p.n("span.days", int64(d/(24*time.Hour)))
}

// clock is a time to the second in the console's zone.
func (p *printer) clock(t time.Time) string {
	if t.IsZero() {
		return p.t("unknown")
	}
	return t.In(p.loc).Format("2006-01-02 15:04:05")
}

// when is a time for a page: short, with the UTC time on hover.
func (p *printer) when(t time.Time) template.HTML { return p.timeTag(t, p.short(t, time.Now())) }

// whenFull is a time for a page, to the second.
func (p *printer) whenFull(t time.Time) template.HTML { return p.timeTag(t, p.clock(t)) }

// clockTime is a time to the second, with its day if that is not today.
func (p *printer) clockTime(t time.Time) template.HTML {
	if here, now := t.In(p.loc), time.Now().In(p.loc); here.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return p.timeTag(t, here.Format("15:04:05"))
	}
	return p.timeTag(t, t.In(p.loc).Format("01-02 15:04:05"))
}

func (p *printer) timeTag(t time.Time, text string) template.HTML {
	if t.IsZero() {
		return template.HTML(`<span class="unknown">` + template.HTMLEscapeString(p.t("never")) + "</span>")
	}
	utc := t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`,
		utc.Format(time.RFC3339), utc.Format("2006-01-02 15:04:05.000 UTC"), template.HTMLEscapeString(text)))
}

// short leaves out of a time what it shares with now.
func (p *printer) short(t, now time.Time) string {
	t, now = t.In(p.loc), now.In(p.loc)
	switch {
	case t.Year() == now.Year() && t.YearDay() == now.YearDay():
		return t.Format("15:04")
	case t.Year() == now.Year():
		return t.Format(p.t("format.day"))
	}
	return t.Format("2006-01-02")
}
