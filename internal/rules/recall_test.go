package rules

import (
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// A worker that has met thousands of texts, of which some share a place, answers
// as one that has met none.
func TestWhatAWorkerKeepsChangesNothing(t *testing.T) {
	m := &maker{randomBytes(7)}
	files, err := Parse("f.yml", []byte(strings.Join([]string{m.rule(0), m.rule(1), `
title: image
logsource: {category: process_creation, product: windows}
detection:
  a:
    Image|endswith: ['\cmd.exe', '7.exe']
  b:
    ParentImage|contains: ['word', '1/2']
    Company|startswith: Example
  c:
    Hashes|contains: 'MD5=00'
  condition: a or b or c
`}, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile([]*File{files}, someSettings)
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for i := range 20_000 {
		e := &event.Event{Action: event.ProcessStarted, Host: &event.Host{OSType: "windows"}}
		number := strings.Repeat("0123456789", 28)[i%10:][:i%260]
		_ = e.Set("process.executable", event.Text(`C:\a\`+number+`.exe`))
		_ = e.Set("process.parent.executable", event.Text([]string{"winword.exe", "1/2", "x"}[i%3]+number[:len(number)/5]))
		_ = e.Set("process.pe.company", event.Text([]string{"", "Example", "EXAMPLE K.K."}[i/3%3]))
		_ = e.Set("sekisho.process.hashes", event.Text("MD5="+number))
		kept := p.Match(e, nil)
		if worker := p.spare.Load(); worker != nil {
			p.spare.Store(p.pool.New().(*scratch))
			if fresh := p.Match(e, nil); !slices.Equal(kept, fresh) {
				t.Fatalf("a worker that knows texts finds %v, one that does not %v: %s", kept, fresh, e.AppendJSON(nil))
			}
			p.spare.Store(worker)
		}
		hits += len(kept)
	}
	if hits < 1000 {
		t.Errorf("only %d matches", hits)
	}
}
