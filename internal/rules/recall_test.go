package rules

import (
	"slices"
	"strconv"
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
---
title: what is asked of a text when all else fits
logsource: {category: process_creation, product: windows}
detection:
  a:
    Image|endswith: '.exe'
  b:
    CommandLine|re: '[0-9]{12}[a-z]{2}$'
  c:
    CommandLine|contains: ['/q', ' -x', '-long']
  d:
    User|contains: ['7', 'ab']
  e:
    User|endswith: '\b1'
  condition: a and (b or d or e) and not c
---
title: short words
logsource: {category: process_creation, product: windows}
detection:
  a:
    CommandLine|contains: [ 'q1', '1ab', '012345678901' ]
  b:
    CommandLine|re: '^.{300,}$'
  c:
    User|startswith: 'CORP\'
  condition: a and not b and not c
`}, "---\n")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile([]*File{files}, someSettings)
	if err != nil {
		t.Fatal(err)
	}
	hits := 0
	for i := range 6000 {
		e := &event.Event{Action: event.ProcessStarted, Host: &event.Host{OSType: "windows"}}
		i := i - i%7 // so often each
		number := strings.Repeat("0123456789", 28)[i%10:][:i%260]
		line := strings.Repeat(number, 1+i%50) + []string{"ab", " /q", " -x1", "1ab", "-long"}[i%5]
		_ = e.Set("process.command_line", event.Text(line))
		_ = e.Set("user.name", event.Text([]string{"b1", "ab", "x", "a7"}[i/2%4]))
		_ = e.Set("user.domain", event.Text([]string{"", "CORP", `CORP\a`}[i/5%3]))
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
	if hits < 300 {
		t.Errorf("only %d matches", hits)
	}
}

// What rules ask of a text points to where it is kept.
func TestAPlaceThatTheEventNeedsIsNotFree(t *testing.T) {
	r := &recall{}
	pair := &[2]recalled{}
	for _, used := range [][]*recalled{{}, {&pair[0]}, {&pair[1]}, {&pair[0], &pair[1]}} {
		r.asked = []question{{pair: pair}}
		for _, k := range used {
			r.asked = append(r.asked, question{pair: pair, known: k})
		}
		for hash := range uint64(2) {
			r.asked[0].hash = hash
			if got := r.free(&r.asked[0]); slices.Contains(used, got) || (got == nil) != (len(used) == 2) {
				t.Errorf("of %p with %v in use, %p is free", pair, used, got)
			}
		}
	}
}

func TestWhatAWorkerKeepsHasABound(t *testing.T) {
	file, err := Parse("f.yml", []byte("title: t\n"+windows+"\ndetection:\n  s:\n    CommandLine|contains: word\n  condition: s\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile([]*File{file}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, most := p.pool.New().(*scratch), 0
	for i := range 40_000 {
		e := &event.Event{Action: event.ProcessStarted, Host: &event.Host{OSType: "windows"}}
		_ = e.Set("process.command_line", event.Text(strings.Repeat("x", 1+i%(recallBytes-8)+i%50/49*4000)+strconv.Itoa(i)))
		for range 3 {
			p.spare.Store(s)
			p.Match(e, nil)
		}
		most = max(most, s.recall.room)
	}
	held := 0
	for _, pair := range s.recall.texts {
		for i := range pair {
			held += pair[i].room()
		}
	}
	if most < maxRoom*9/10 || most > maxRoom {
		t.Errorf("%d bytes at most are kept", most)
	}
	if held != s.recall.room {
		t.Errorf("%d bytes are counted, %d held", s.recall.room, held)
	}
}
