package event

import (
	"slices"
	"testing"
	"time"
)

func TestEveryFieldIsReadWhereItWasWritten(t *testing.T) {
	samples := map[Type]Value{String: Text("x"), Int: Number(7), Bool: Truth(true), Time: Moment(time.Unix(9, 0)), List: Texts("a", "b")}
	for _, f := range Fields() {
		var e Event
		if err := e.Set(f.Name, samples[f.Type]); err != nil {
			t.Fatal(err)
		}
		for id, g := range Fields() {
			v, ok := e.Lookup(FieldID(id))
			if s, there := e.Str(FieldID(id)); g.Type == String && (s != v.Str() || there != ok) || g.Type != String && there {
				t.Errorf("%s: Str got %q %v, Lookup %v %v", g.Name, s, there, v, ok)
			}
			if g.Type == String || g.Type == List {
				want := v.List()
				if v.Str() != "" {
					want = []string{v.Str()}
				}
				if g.Name != f.Name && !slices.ContainsFunc(want, func(text string) bool { return !slices.Contains(UnsetTexts(), text) }) {
					want = nil
				}
				if long := NewTextFields([]FieldID{FieldID(id)}).Long(&e, 1, nil); !slices.Equal(long, want) {
					t.Errorf("%s: TextFields got %q, want %q", g.Name, long, want)
				}
			}
			switch {
			case g.Name == f.Name:
				if !ok || !v.Equal(samples[f.Type]) {
					t.Errorf("%s: got %v %v", f.Name, v, ok)
				}
			case g.Name == "event.kind":
			case ok:
				t.Errorf("setting %s sets %s too, to %v", f.Name, g.Name, v)
			}
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	e, err := Decode([]byte(`{"event.action":"process-started","process.executable":"/bin/sh","process.pid":7,"process.parent.executable":"/sbin/init"}`))
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"process.pid", "process.parent.executable", "process.pe.company", "device.vendor.id"} {
		id, _ := FieldByName(name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				e.Lookup(id)
			}
		})
		b.Run(name+"/str", func(b *testing.B) {
			for b.Loop() {
				e.Str(id)
			}
		})
	}
}
