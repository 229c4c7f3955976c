// Package winlog reads the event logs of Windows as they are written, and what
// stands in them of a time that is over.
//
// A record comes as the XML that Windows renders of it. [Decode] makes an [Event]
// of that on every system; who speaks to Windows is log_windows.go, in as few lines
// as it takes.
//
// Windows: wevtapi.dll (Windows 10 and later), by pull subscriptions. Rights: most
// channels may be read by administrators, Security too; LocalSystem may read all.
// What can be missed: what was written and written over while the agent did not
// run; records of more than 1 MB, which are counted; and what somebody with the
// rights of an administrator clears or never lets Windows write. A channel that is
// switched off (as PrintService/Operational is, unless somebody switches it on) has
// nothing: see [OffError].
//
// Elsewhere: every function returns an error that wraps errors.ErrUnsupported.
package winlog

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Event is a record of a log.
type Event struct {
	Channel  string // "Security", "Microsoft-Windows-PrintService/Operational"
	Provider string // "Microsoft-Windows-PrintService"
	ID       int    // what kind of record of the provider it is
	Record   uint64 // its number in the channel
	Time     time.Time
	PID      uint32 // of the process that wrote it, not of the one it is about
	User     string // SID of the account that wrote it; "" where there is none
	Data     []Field
}

// Field is a value of a record: of <Data Name="..."> below EventData, or of an
// element or attribute below UserData.
type Field struct{ Name, Value string }

// Get returns the first value of that name, "" if there is none.
func (e *Event) Get(name string) string {
	for _, f := range e.Data {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// Bounds of a record. Windows itself writes no more than 64 KB of data into one,
// which can be a few times that as text.
const (
	maxXML    = 1 << 20
	maxDepth  = 16
	maxFields = 256
	maxValue  = 64 << 10
)

// Decode reads a record as EvtRender (EvtRenderEventXml) gives it: an Event of the
// schema http://schemas.microsoft.com/win/2004/08/events/event (MSDN, "Event
// Schema"). Characters that XML does not know, which the names of files and devices
// can bring along, become U+FFFD. Of fields with one name Get finds the first.
func Decode(text string) (*Event, error) {
	if len(text) > maxXML {
		return nil, fmt.Errorf("read a record: %d bytes, may be %d", len(text), maxXML)
	}
	d := xml.NewDecoder(strings.NewReader(legal(text)))
	// What it says of its own encoding is of no matter: it was UTF-16 and is UTF-8.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	var r recordReader
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read a record: %w", err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := r.start(t); err != nil {
				return nil, fmt.Errorf("read a record: %w", err)
			}
		case xml.CharData:
			r.text(t)
		case xml.EndElement:
			if err := r.end(); err != nil {
				return nil, fmt.Errorf("read a record: %w", err)
			}
		}
	}
	if !r.id || r.e.Time.IsZero() {
		return nil, errors.New("read a record: no EventID or no TimeCreated in it")
	}
	return &r.e, nil
}

// recordReader is how far a record was read.
type recordReader struct {
	e    Event
	id   bool
	path []element
	buf  bytes.Buffer // text of the innermost element
}

// element is one that is open.
type element struct {
	name  string
	field string // what it is called as a field
	inner bool   // it has elements in it
}

// below reports whether the elements around the innermost are these, from the
// outermost on.
func (r *recordReader) below(names ...string) bool {
	if len(r.path) < len(names) {
		return false
	}
	for i, n := range names {
		if r.path[i].name != n {
			return false
		}
	}
	return true
}

func (r *recordReader) start(t xml.StartElement) error {
	if len(r.path) >= maxDepth {
		return fmt.Errorf("elements %d deep", maxDepth)
	}
	attr := func(name string) string {
		for _, a := range t.Attr {
			if a.Name.Local == name {
				return strings.Clone(a.Value)
			}
		}
		return ""
	}
	x := element{name: t.Name.Local, field: t.Name.Local}
	if len(r.path) == 0 && x.name != "Event" || len(r.path) > 0 && r.path[0].name != "Event" {
		return fmt.Errorf("<%.40s> is no <Event>", x.name)
	}
	switch {
	case r.below("Event", "System") && len(r.path) == 2:
		switch x.name {
		case "Provider":
			r.e.Provider = attr("Name")
		case "TimeCreated":
			at, err := time.Parse(time.RFC3339Nano, attr("SystemTime"))
			if err != nil {
				return fmt.Errorf("SystemTime: %.100w", err)
			}
			r.e.Time = at.UTC()
		case "Execution":
			n, _ := strconv.ParseUint(attr("ProcessID"), 10, 32)
			r.e.PID = uint32(n)
		case "Security":
			r.e.User = attr("UserID")
		}
	case r.below("Event", "EventData"):
		if name := attr("Name"); name != "" {
			x.field = name
		}
	case r.below("Event", "UserData"):
		for _, a := range t.Attr {
			if a.Name.Space != "xmlns" && a.Name.Local != "xmlns" {
				r.field(a.Name.Local, a.Value)
			}
		}
	}
	if n := len(r.path); n > 0 {
		r.path[n-1].inner = true
	}
	r.path = append(r.path, x)
	r.buf.Reset()
	return nil
}

func (r *recordReader) text(t []byte) {
	if room := maxValue - r.buf.Len(); len(t) > room {
		t = t[:room]
	}
	r.buf.Write(t)
}

func (r *recordReader) end() error {
	x := r.path[len(r.path)-1]
	r.path = r.path[:len(r.path)-1]
	value := strings.ToValidUTF8(r.buf.String(), "") // it may be cut within a character
	r.buf.Reset()
	if x.inner {
		return nil
	}
	switch {
	case r.below("Event", "System"):
		value = strings.TrimSpace(value)
		switch x.name {
		case "EventID":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				return fmt.Errorf("EventID %.40q is no number", value)
			}
			r.e.ID, r.id = int(n), true
		case "EventRecordID":
			r.e.Record, _ = strconv.ParseUint(value, 10, 64)
		case "Channel":
			r.e.Channel = value
		}
	case r.below("Event", "EventData"), r.below("Event", "UserData"):
		r.field(x.field, value)
	}
	return nil
}

// field keeps a value.
func (r *recordReader) field(name, value string) {
	if len(r.e.Data) < maxFields {
		r.e.Data = append(r.e.Data, Field{strings.Clone(name), value})
	}
}

// legal makes a text one that encoding/xml reads: characters outside of those of
// XML 1.0, and references to them ("&#x1;"), become U+FFFD.
func legal(s string) string {
	clean := true
	for i, c := range s {
		if !inXML(c) || c == utf8.RuneError || c == '&' && strings.HasPrefix(s[i:], "&#") {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == '&' && strings.HasPrefix(s[i:], "&#"):
			// No reference to a character is longer than "&#x0010FFFF;".
			if end := strings.IndexByte(s[i:min(len(s), i+12)], ';'); end > 0 {
				if !reference(s[i+2 : i+end]) {
					b.WriteRune(utf8.RuneError)
					i += end + 1
					continue
				}
			}
			b.WriteByte('&')
		case !inXML(c):
			b.WriteRune(utf8.RuneError)
		default:
			b.WriteRune(c)
		}
		i += n
	}
	return b.String()
}

// reference reports whether "x41" or "65" is a character of XML.
func reference(s string) bool {
	base := 10
	if rest, ok := strings.CutPrefix(s, "x"); ok {
		s, base = rest, 16
	}
	n, err := strconv.ParseUint(s, base, 32)
	return err == nil && n <= utf8.MaxRune && inXML(rune(n))
}

// inXML reports whether XML 1.0 has a character (section 2.2, Char).
func inXML(c rune) bool {
	return c == '\t' || c == '\n' || c == '\r' || c >= 0x20 && c <= 0xd7ff || c >= 0xe000 && c <= 0xfffd || c >= 0x10000 && c <= 0x10ffff
}
