package alert

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"sekisho/internal/event"
)

func sample() *Alert {
	t0 := time.Date(2024, 11, 27, 1, 2, 3, 0, time.UTC)
	e := event.New(event.FileCopied, t0)
	e.User = &event.User{Name: "tanaka"}
	e.File = &event.File{Path: "/media/a", Size: event.Some[int64](3)}
	e.Extra = map[string]event.Value{"winlog.event_id": event.Number(1)}
	keys := map[string]string{"host.name": "pc1", "user.name": "tanaka"}
	return &Alert{
		Time: t0, ID: ID("r1", keys, e.ID), Rule: Rule{"r1", "Copy", "2026-01-01", "USB-3"}, Level: High,
		Title: Text{"題", "title"}, Advice: Text{"助言", "advice"}, Group: Group("USB-3", keys), Incidents: []string{"#2024-549"},
		FirstSeen: t0, LastSeen: t0.Add(time.Second), Count: 2, Keys: keys, Totals: map[string]int64{"bytes": 1 << 40, "files": 80},
		Evidence: []*event.Event{e}, EvidenceTotal: 80, Event: e,
	}
}

func TestAlertJSONComesBackTheSame(t *testing.T) {
	a := sample()
	b := a.AppendJSON(nil)
	if !json.Valid(b) {
		t.Fatalf("not JSON: %s", b)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := got.AppendJSON(nil); string(again) != string(b) {
		t.Errorf("second round\n%s\nfirst\n%s", again, b)
	}
	got.Event, got.Evidence = nil, nil
	want := *a
	want.Event, want.Evidence = nil, nil
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

func TestARecordedEventCannotSpeakAsTheAlert(t *testing.T) {
	a := sample()
	a.Rule.Version, a.Rule.Table, a.Keys = "", "", nil
	want := a.AppendJSON(nil)
	e := *a.Event
	e.Extra = map[string]event.Value{"winlog.event_id": event.Number(1)}
	for _, name := range []string{"rule", "rule.version", "rule.id.x", "sekisho.rule", "sekisho.rule.x", "sekisho.alert", "sekisho.alert.keys.user.name", "sekisho.alert.note", "event", "event.outcome"} {
		e.Extra[name] = event.Text("forged")
	}
	a.Event = &e
	if got := a.AppendJSON(nil); string(got) != string(want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestIDDependsOnRuleKeysAndEvent(t *testing.T) {
	k := map[string]string{"a": "1", "b": "2"}
	ids := map[string]bool{
		ID("r", k, "e"): true, ID("r", nil, "e"): true, ID("r", k, "f"): true, ID("s", k, "e"): true,
		ID("r", map[string]string{"a": "12", "b": ""}, "e"): true,
	}
	if len(ids) != 5 {
		t.Errorf("%d distinct ids of 5", len(ids))
	}
	if ID("r", k, "e") != ID("r", map[string]string{"b": "2", "a": "1"}, "e") {
		t.Error("the order of keys counts")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().AppendJSON(nil))
	f.Add([]byte(`{"@timestamp":"2024-01-01T00:00:00Z","event":{"id":"x","kind":"alert"},"sekisho":{"alert":{"level":"low","keys":{"a.b":"c"},"evidence":[{}]}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Decode(data)
		if err != nil {
			return
		}
		first := a.AppendJSON(nil)
		if !json.Valid(first) {
			t.Fatalf("not JSON: %s", first)
		}
		b, err := Decode(first)
		if err != nil {
			t.Skip("escaping pushed it over a limit")
		}
		if second := b.AppendJSON(nil); string(second) != string(first) {
			t.Fatalf("not stable:\n%s\n%s", first, second)
		}
	})
}
