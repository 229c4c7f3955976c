// Package alert is the product's verdict: what a rule found, said so that a
// person can act on it, and what people then did with it. An alert is ECS with
// event.kind alert (design: "Alerts").
package alert

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"sekisho/internal/event"
)

// Level is a severity in Sigma's words. The zero value is Informational.
type Level uint8

// The levels, ascending.
const (
	Informational Level = iota
	Low
	Medium
	High
	Critical
)

// LevelNames are the levels' names in ascending order.
var LevelNames = [...]string{"informational", "low", "medium", "high", "critical"}

func (l Level) String() string {
	if int(l) < len(LevelNames) {
		return LevelNames[l]
	}
	return fmt.Sprintf("level(%d)", uint8(l))
}

// ParseLevel reads a level's name.
func ParseLevel(s string) (Level, bool) {
	for i, n := range LevelNames {
		if n == s {
			return Level(i), true
		}
	}
	return 0, false
}

// MarshalText and UnmarshalText write and read the name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }
func (l *Level) UnmarshalText(b []byte) error {
	v, ok := ParseLevel(string(b))
	if !ok {
		return fmt.Errorf("level %q: want one of %s", b, strings.Join(LevelNames[:], ", "))
	}
	*l = v
	return nil
}

// Text is a text in both languages. Titles and advice hold placeholders such as
// {user.name}, which the console fills in from the alert's fields, so that
// pseudonyms hold.
type Text struct {
	JA string `json:"ja"`
	EN string `json:"en"`
}

// In is the text in a language, "ja" or "en"; the other one where it is empty.
func (t Text) In(lang string) string {
	if (lang == "ja" && t.JA != "") || t.EN == "" {
		return t.JA
	}
	return t.EN
}

// Rule names the rule that decided.
type Rule struct {
	ID      string // Sigma id
	Name    string // Sigma title
	Version string // of the rule ("modified" date) or of its pack; may be empty
	Table   string // id of the incident table, "SCAM-1"; empty for rules from elsewhere
}

// MaxEvidence is how many events an alert carries; EvidenceTotal tells how many
// there were. Judgement: 20 events fill a screen and stay under 64 KiB.
const MaxEvidence = 20

// Alert is one finding. Repeats of it within its quiet time join it: they raise
// Count, LastSeen and Totals and keep the ID.
type Alert struct {
	Time      time.Time // event time of the deciding event
	ID        string    // see ID
	Rule      Rule
	Level     Level
	Title     Text
	Advice    Text
	Group     string   // what it is about: alerts of one group belong together; see Group
	Incidents []string // "#2024-590"
	FirstSeen time.Time
	LastSeen  time.Time
	Count     int64 // firings joined in this alert, at least 1

	Keys   map[string]string // a correlation's group-by values by field name; nil for single-event rules
	Totals map[string]int64  // a counting rule's totals: files, bytes, ...; nil otherwise

	Evidence      []*event.Event // at most MaxEvidence, oldest first: the first ones, the deciding one and the latest
	EvidenceTotal int64          // how many there were

	Event *event.Event // the deciding event
}

// Test reports whether a self-test made the alert; it is shown as a test and
// never as an incident.
func (a *Alert) Test() bool { return a.Event != nil && a.Event.Test.V }

// Size is how many bytes of JSON the alert's evidence is: about what it takes in
// memory.
func (a *Alert) Size() (n int) {
	for _, e := range a.Evidence {
		n += e.Size()
	}
	return n
}

// About names rule and PC, "USB-3 PC-1047", for a log that outlives the alert.
// The PC's name is as it came.
func (a *Alert) About() string {
	about := cmp.Or(a.Rule.Table, a.Rule.Name)
	if a.Event != nil && a.Event.Host != nil && a.Event.Host.Name != "" {
		about += " " + a.Event.Host.Name
	}
	return about
}

// ID derives an alert's id from its rule, its keys and the deciding event, so
// that a replay and a restart give the same one. It has the form of a UUID of
// version 8 (RFC 9562, made by the application).
func ID(ruleID string, keys map[string]string, decidingEventID string) string {
	h := digest("alert", ruleID, keys, decidingEventID)
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	s := hex.EncodeToString(h[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:32]
}

// Group derives the group of alerts that are about one thing: a rule (by its
// table id where it has one, so that the documents of one rule share a group)
// and the values that repeats are joined by. 32 hex digits: names do not show.
func Group(rule string, by map[string]string) string {
	h := digest("group", rule, by)
	return hex.EncodeToString(h[:16])
}

// digest hashes texts and maps unambiguously: each part is preceded by its length.
func digest(parts ...any) [sha256.Size]byte {
	var b bytes.Buffer
	text := func(s string) { fmt.Fprintf(&b, "%d:%s", len(s), s) }
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			text(p)
		case map[string]string:
			names := make([]string, 0, len(p))
			for n := range p {
				names = append(names, n)
			}
			sort.Strings(names)
			fmt.Fprintf(&b, "m%d;", len(names))
			for _, n := range names {
				text(n)
				text(p[n])
			}
		}
	}
	return sha256.Sum256(b.Bytes())
}

// field is a piece of an alert's JSON: a value, or JSON text.
type field struct {
	name string
	v    event.Value
	raw  []byte
}

// AppendJSON appends the alert as one JSON object, no line end.
func (a *Alert) AppendJSON(b []byte) []byte {
	fs := make([]field, 0, 64)
	put := func(name string, v event.Value) { fs = append(fs, field{name: name, v: v}) }
	text := func(name, s string) {
		if s != "" {
			put(name, event.Text(s))
		}
	}
	put("@timestamp", event.Moment(a.Time))
	text("event.id", a.ID)
	text("event.kind", "alert")
	text("rule.id", a.Rule.ID)
	text("rule.name", a.Rule.Name)
	text("rule.version", a.Rule.Version)
	text("sekisho.rule", a.Rule.Table)
	text("sekisho.alert.level", a.Level.String())
	text("sekisho.alert.title.ja", a.Title.JA)
	text("sekisho.alert.title.en", a.Title.EN)
	text("sekisho.alert.advice.ja", a.Advice.JA)
	text("sekisho.alert.advice.en", a.Advice.EN)
	text("sekisho.alert.group", a.Group)
	if len(a.Incidents) > 0 {
		put("sekisho.alert.incidents", event.Texts(a.Incidents...))
	}
	put("sekisho.alert.first_seen", event.Moment(a.FirstSeen))
	put("sekisho.alert.last_seen", event.Moment(a.LastSeen))
	put("sekisho.alert.count", event.Number(a.Count))
	if len(a.Keys) > 0 {
		fs = append(fs, field{name: "sekisho.alert.keys", raw: appendMap(a.Keys, event.Text)})
	}
	if len(a.Totals) > 0 {
		fs = append(fs, field{name: "sekisho.alert.totals", raw: appendMap(a.Totals, event.Number)})
	}
	raw := append(make([]byte, 0, 1024*len(a.Evidence)), '[')
	for i, e := range a.Evidence {
		if i > 0 {
			raw = append(raw, ',')
		}
		raw = e.AppendJSON(raw)
	}
	fs = append(fs, field{name: "sekisho.alert.evidence", raw: append(raw, ']')})
	put("sekisho.alert.evidence_total", event.Number(a.EvidenceTotal))
	put("sekisho.alert.evidence_cap", event.Number(MaxEvidence))
	if a.Event != nil {
		a.Event.Each(func(name string, v event.Value) {
			if !reserved(name) {
				fs = append(fs, field{name: name, v: v})
			}
		})
	}
	slices.SortFunc(fs, func(a, b field) int { return strings.Compare(a.name, b.name) })
	w := event.NewWriter(b)
	for _, f := range fs {
		if f.raw != nil {
			w.Raw(f.name, f.raw)
		} else {
			w.Field(f.name, f.v)
		}
	}
	return w.Close()
}

// reserved reports whether a field is the alert's own to say. A recorded event
// may hold such fields too (what another product's rule found); as the alert's
// they would be taken for our verdict.
func reserved(name string) bool {
	return name == "@timestamp" || name == "sekisho.rule" || name == "sekisho.alert" || name == "rule" || name == "event" ||
		strings.HasPrefix(name, "event.") || strings.HasPrefix(name, "rule.") || strings.HasPrefix(name, "sekisho.alert.") ||
		strings.HasPrefix(name, "sekisho.rule.")
}

// appendMap is a JSON object with the map's keys as they are (dotted names are
// not nested here).
func appendMap[V any](m map[string]V, value func(V) event.Value) []byte {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	b := []byte{'{'}
	for i, n := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = event.AppendText(b, n)
		b = append(b, ':')
		b = event.AppendValue(b, value(m[n]))
	}
	return append(b, '}')
}

// MarshalJSON is AppendJSON.
func (a *Alert) MarshalJSON() ([]byte, error) { return a.AppendJSON(nil), nil }

// Decode reads an alert as AppendJSON writes it. What is not an alert's own is
// the deciding event's.
func Decode(data []byte) (*Alert, error) {
	var own struct {
		Sekisho struct {
			Alert struct {
				Keys   map[string]string `json:"keys"`
				Totals map[string]int64  `json:"totals"`
			} `json:"alert"`
		} `json:"sekisho"`
	}
	e, err := event.Decode(data)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &own); err != nil {
		return nil, fmt.Errorf("sekisho.alert: %w", err)
	}
	if e.Kind != "alert" {
		return nil, fmt.Errorf("event.kind: want alert, got %q", e.Kind)
	}
	if e.ID == "" || e.Time.IsZero() {
		return nil, fmt.Errorf("an alert needs event.id and @timestamp")
	}
	a := &Alert{Time: e.Time, ID: e.ID, Keys: own.Sekisho.Alert.Keys, Totals: own.Sekisho.Alert.Totals, Event: e}
	take := func(name string) event.Value {
		v := e.Extra[name]
		delete(e.Extra, name)
		return v
	}
	when := func(name string) (t time.Time) {
		if v := take(name); v.Str() != "" {
			t, _ = time.Parse(time.RFC3339Nano, v.Str())
		}
		return t.UTC()
	}
	a.Rule = Rule{take("rule.id").Str(), take("rule.name").Str(), take("rule.version").String(), take("sekisho.rule").Str()}
	if err := a.Level.UnmarshalText([]byte(take("sekisho.alert.level").Str())); err != nil {
		return nil, fmt.Errorf("sekisho.alert.level: %w", err)
	}
	a.Title = Text{take("sekisho.alert.title.ja").Str(), take("sekisho.alert.title.en").Str()}
	a.Advice = Text{take("sekisho.alert.advice.ja").Str(), take("sekisho.alert.advice.en").Str()}
	a.Group = take("sekisho.alert.group").Str()
	a.Incidents = take("sekisho.alert.incidents").List()
	a.FirstSeen, a.LastSeen = when("sekisho.alert.first_seen"), when("sekisho.alert.last_seen")
	a.Count = take("sekisho.alert.count").Int()
	a.EvidenceTotal = take("sekisho.alert.evidence_total").Int()
	for i, text := range take("sekisho.alert.evidence").List() {
		ev, err := event.Decode([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("sekisho.alert.evidence[%d]: %w", i, err)
		}
		a.Evidence = append(a.Evidence, ev)
	}
	for name := range e.Extra {
		if strings.HasPrefix(name, "sekisho.alert.") {
			delete(e.Extra, name)
		}
	}
	if len(e.Extra) == 0 {
		e.Extra = nil
	}
	e.ID, e.Kind = "", ""
	return a, nil
}
