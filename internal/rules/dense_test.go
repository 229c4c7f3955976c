package rules

import (
	"strings"
	"testing"

	"sekisho/internal/event"
)

// denseEvents are process starts whose command lines are nothing but literals of
// the rules, size bytes of them: the worst that an event can do to the index.
func denseEvents(t testing.TB, p *Program, size int) (out []*event.Event) {
	var lits []string
	b := p.buckets[place{string(event.ProcessStarted), "windows"}]
	for i := range b.finders {
		for k := range b.finders[i].groups.lits {
			lits = append(lits, b.finders[i].groups.text(k))
		}
	}
	for k := 0; len(out) < 200; {
		var line strings.Builder
		for ; line.Len() < size; k++ {
			line.WriteString(lits[k*7919%len(lits)])
			line.WriteByte(' ')
		}
		e, err := event.Decode([]byte(w("x")))
		if err != nil {
			t.Fatal(err)
		}
		e.Process.CommandLine = line.String()[:size]
		e.Process.Executable = `C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe`
		out = append(out, e)
	}
	return out
}

// Long texts that hold many words go ways that the corpus' events do not.
func TestLinesOfLiteralsAgreeWithTheInterpreter(t *testing.T) {
	every := 60
	if testing.Short() || raceEnabled {
		every = 400
	}
	files, _ := corpusFiles(t, corpusDir(t))
	p, _ := Compile(files, Options{})
	matches := 0
	for _, size := range []int{300, 2000, 8191} {
		for i, e := range denseEvents(t, p, size)[:4] {
			got := map[string]bool{}
			for _, m := range p.Match(e, nil) {
				got[m.Rule.ID] = true
			}
			matches += len(got)
			for j, r := range p.Rules {
				if j%every == i && got[r.ID] != interpret(r.doc, e, Options{}) {
					t.Errorf("line %d of %d bytes, rule %s: compiled %v", i, size, r.ID, got[r.ID])
				}
			}
		}
	}
	if matches == 0 {
		t.Error("no line matches a rule")
	}
}
