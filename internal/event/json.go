package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of the decoder, against hostile input. Judgement: a burst of 10,000
// copies told as one event stays below them.
const (
	MaxJSON  = 4 << 20 // bytes of one event
	maxDepth = 16      // nested objects
	maxExtra = 512     // fields outside the table
	maxList  = 20_000  // elements of a list
)

// A DecodeError tells where in the JSON text the trouble is.
type DecodeError struct {
	Offset int    // bytes from the start
	Field  string // dotted name, if known
	Reason string
}

func (e *DecodeError) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Reason
	}
	return e.Reason
}

// Decode reads one event from a JSON object with nested objects, dotted keys or
// both. Fields that the product does not know are kept in Extra; null is the
// same as absent. Errors are of type *DecodeError. An id, a time or a kind that
// is missing stays missing.
func Decode(data []byte) (*Event, error) {
	if len(data) > MaxJSON {
		return nil, &DecodeError{MaxJSON, "", fmt.Sprintf("event of %d bytes, the limit is %d", len(data), MaxJSON)}
	}
	d := decoder{dec: json.NewDecoder(bytes.NewReader(data)), e: new(Event)}
	d.dec.UseNumber()
	tok, err := d.token("")
	if err != nil {
		return nil, err
	}
	if tok != json.Delim('{') {
		return nil, d.fail("", "want a JSON object")
	}
	if err := d.object("", 1); err != nil {
		return nil, err
	}
	if _, err := d.dec.Token(); err != io.EOF {
		return nil, d.fail("", "text after the event")
	}
	return d.e, nil
}

type decoder struct {
	dec *json.Decoder
	e   *Event
}

func (d *decoder) fail(field, reason string) error {
	return &DecodeError{int(d.dec.InputOffset()), field, reason}
}

func (d *decoder) token(field string) (json.Token, error) {
	tok, err := d.dec.Token()
	if err != nil {
		reason := err.Error()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			reason = "unexpected end of the JSON text"
		}
		return nil, d.fail(field, strings.TrimPrefix(reason, "json: "))
	}
	return tok, nil
}

func (d *decoder) object(prefix string, depth int) error {
	if depth > maxDepth {
		return d.fail(prefix, fmt.Sprintf("objects nested more than %d deep", maxDepth))
	}
	for {
		tok, err := d.token(prefix)
		if err != nil {
			return err
		}
		if tok == json.Delim('}') {
			return nil
		}
		name := tok.(string)
		if depth > 1 {
			name = prefix + "." + name
		}
		if tok, err = d.token(name); err != nil {
			return err
		}
		var v Value
		switch tok := tok.(type) {
		case nil:
			continue
		case json.Delim:
			if tok == '{' {
				if err := d.object(name, depth+1); err != nil {
					return err
				}
				continue
			}
			if v, err = d.list(name); err != nil {
				return err
			}
		default:
			if v, err = d.scalar(name, tok); err != nil {
				return err
			}
		}
		if _, known := byName[name]; !known && len(d.e.Extra) >= maxExtra {
			return d.fail(name, fmt.Sprintf("more than %d fields that are not in the field table", maxExtra))
		}
		if err := d.e.Set(name, v); err != nil {
			return d.fail(name, strings.TrimPrefix(err.Error(), name+": "))
		}
	}
}

func (d *decoder) scalar(name string, tok json.Token) (Value, error) {
	switch tok := tok.(type) {
	case string:
		return Text(tok), nil
	case bool:
		return Truth(tok), nil
	case json.Number:
		if n, err := strconv.ParseInt(tok.String(), 10, 64); err == nil {
			return Number(n), nil
		}
		f, err := tok.Float64()
		if err != nil {
			return Value{}, d.fail(name, "number "+tok.String()+" is out of range")
		}
		return Real(f), nil
	}
	return Value{}, d.fail(name, "want a value")
}

// list reads an array up to its end. Elements that are arrays or objects are
// kept as their JSON text.
func (d *decoder) list(name string) (Value, error) {
	l := []string{}
	for d.dec.More() {
		var raw json.RawMessage
		if err := d.dec.Decode(&raw); err != nil {
			return Value{}, d.fail(name, strings.TrimPrefix(err.Error(), "json: "))
		}
		if len(l) == maxList {
			return Value{}, d.fail(name, fmt.Sprintf("more than %d elements", maxList))
		}
		switch raw[0] {
		case '"':
			var s string
			if err := json.Unmarshal(raw, &s); err != nil {
				return Value{}, d.fail(name, err.Error())
			}
			l = append(l, s)
		case 'n': // null
		default:
			l = append(l, string(raw))
		}
	}
	if _, err := d.token(name); err != nil { // the closing bracket
		return Value{}, err
	}
	return Value{typ: List, list: l}, nil
}

// UnmarshalJSON is Decode into an event that is still empty.
func (e *Event) UnmarshalJSON(data []byte) error {
	f, err := Decode(data)
	if err != nil {
		return err
	}
	*e = *f
	return nil
}

// MarshalJSON is AppendJSON.
func (e *Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// AppendJSON appends the event as one JSON object with nested objects, fields in
// order of their names, no line end.
func (e *Event) AppendJSON(b []byte) []byte {
	if e.sealed.of == e {
		return append(b, e.sealed.json...)
	}
	w := NewWriter(b)
	e.Each(w.Field)
	return w.Close()
}

// Size is how many bytes of JSON the event is; of a sealed one that is known.
func (e *Event) Size() int {
	if e.sealed.of == e {
		return len(e.sealed.json)
	}
	return len(e.AppendJSON(nil))
}

// Seal keeps the event's JSON, so that AppendJSON need not make it again: some
// events are written many times, as evidence of several findings. The event must
// not be written to any more. A copy of it may be, and is not sealed.
func (e *Event) Seal() {
	e.sealed.of = nil // made anew, if it was sealed before
	e.sealed.json = bytes.Clone(e.AppendJSON(make([]byte, 0, 1024)))
	e.sealed.of = e
}

// seal is an event's JSON.
type seal struct {
	of   *Event // whose it is: a copy of the event has the seal, but is not the one
	json []byte
}

// Writer writes fields with dotted names as nested JSON objects. Fields must
// come in ascending byte order of their names.
type Writer struct {
	b    []byte
	open []string // names of the objects that are open, outermost first
	last string   // name of the field written last, if any was
	any  bool     // a field was written
	some bool     // something was written in the innermost object
	flat []flat   // fields whose group already is a value: written last, dotted
}

type flat struct {
	name string
	v    Value
}

// NewWriter appends to b.
func NewWriter(b []byte) *Writer { return &Writer{b: append(b, '{')} }

// Field writes one field.
func (w *Writer) Field(name string, v Value) {
	if w.any && len(name) > len(w.last) && name[len(w.last)] == '.' && strings.HasPrefix(name, w.last) {
		w.flat = append(w.flat, flat{name, v})
		return
	}
	for _, f := range w.flat { // nested below a field that had to go flat itself
		if strings.HasPrefix(name, f.name+".") {
			w.flat = append(w.flat, flat{name, v})
			return
		}
	}
	w.key(name)
	w.b = AppendValue(w.b, v)
	w.last, w.any = name, true
}

// Raw writes one field whose value is JSON text already.
func (w *Writer) Raw(name string, json []byte) {
	w.key(name)
	w.b = append(w.b, json...)
	w.last, w.any = name, true
}

// key closes and opens objects until name's own is the innermost, and writes
// its key.
func (w *Writer) key(name string) {
	rest, depth := name, 0
	for depth < len(w.open) {
		seg := w.open[depth]
		if !strings.HasPrefix(rest, seg) || len(rest) <= len(seg) || rest[len(seg)] != '.' {
			break
		}
		rest = rest[len(seg)+1:]
		depth++
	}
	for len(w.open) > depth {
		w.b = append(w.b, '}')
		w.open = w.open[:len(w.open)-1]
		w.some = true
	}
	for {
		if w.some {
			w.b = append(w.b, ',')
		}
		w.some = true
		seg, after, nested := strings.Cut(rest, ".")
		w.b = AppendText(w.b, seg)
		w.b = append(w.b, ':')
		if !nested {
			return
		}
		w.b = append(w.b, '{')
		w.open = append(w.open, seg)
		w.some = false
		rest = after
	}
}

// Close ends the object and returns the bytes.
func (w *Writer) Close() []byte {
	for range w.open {
		w.b = append(w.b, '}')
	}
	w.some = w.some || len(w.open) > 0
	for _, f := range w.flat {
		if w.some {
			w.b = append(w.b, ',')
		}
		w.some = true
		w.b = AppendText(w.b, f.name)
		w.b = append(w.b, ':')
		w.b = AppendValue(w.b, f.v)
	}
	return append(w.b, '}')
}

// AppendValue appends v as JSON.
func AppendValue(b []byte, v Value) []byte {
	switch v.typ {
	case Int:
		return strconv.AppendInt(b, int64(v.n), 10)
	case Float:
		f, _ := v.Float()
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	case Bool:
		return strconv.AppendBool(b, v.n == 1)
	case Time:
		b = append(b, '"')
		b = v.Time().AppendFormat(b, time.RFC3339Nano)
		return append(b, '"')
	case List:
		b = append(b, '[')
		for i, s := range v.list {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendText(b, s)
		}
		return append(b, ']')
	}
	return AppendText(b, v.s)
}

const hex = "0123456789abcdef"

// AppendText appends s as a JSON string. Bytes that are not UTF-8 (Linux file
// names may hold any) become a visible \xNN, so that no two names look alike by
// accident; U+2028 and U+2029 are escaped for JavaScript's sake, and so are <,
// > and &, so that the text is harmless within HTML.
func AppendText(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[from:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, s[from:i]...)
			b = append(b, '\\', '\\', 'x', hex[c>>4], hex[c&15])
			from = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[from:i]...)
			b = append(b, '\\', 'u', '2', '0', '2', hex[r&15])
			from = i + n
		}
		i += n
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}
