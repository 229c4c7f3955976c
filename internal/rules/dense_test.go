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
		for _, l := range b.finders[i].groups.texts {
			lits = append(lits, l.text)
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
