package fileaudit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/replay"
	"sekisho/internal/rules"
	"sekisho/internal/volume"
)

// copied is the event of a copy by a process.
func copied(pid int64, path, share string, bytes int64, at time.Time) *event.Event {
	e := event.New(event.FileCopied, at)
	e.Process = &event.Process{PID: event.Some(pid)}
	e.File = &event.File{Path: path, Extension: "doc", Size: event.Some(bytes)}
	from := share + path
	e.Copy = &event.Copy{SourcePath: from, SourceShare: share, Evidence: evidenceProcess, Files: event.Some[int64](1), Bytes: event.Some(bytes), SourceIDs: []string{sourceID(from)}}
	return e
}

func TestBurstsKeepTheirTotals(t *testing.T) {
	b := newBursts()
	t0 := time.Unix(1000, 0)
	const n = 50_000
	var told []*event.Event
	take := func(e *event.Event) {
		if e != nil {
			told = append(told, e)
		}
	}
	var bytes int64
	for i := range n {
		now := t0.Add(time.Duration(i) * 100 * time.Microsecond) // 10,000 a second
		told = append(told, b.due(now)...)
		share := `\\s\a`
		if i%5 == 0 {
			share = `\\s\b`
		}
		bytes += int64(i)
		take(b.add(copied(7, fmt.Sprint("/usb/", i, ".doc"), share, int64(i), now), volume.Dev{}, now))
		if i%1000 == 0 { // another process, slowly: never joined
			take(b.add(copied(8, fmt.Sprint("/usb/x", i), share, 1, now), volume.Dev{}, now))
			bytes++
		}
	}
	told = append(told, b.due(time.Time{})...)
	var files, sum int64
	ids, paths := map[string]bool{}, map[string]bool{}
	for _, e := range told {
		files += e.Copy.Files.V
		sum += e.Copy.Bytes.V
		for _, id := range e.Copy.SourceIDs {
			ids[id] = true
		}
		for _, p := range e.Copy.Paths {
			paths[p] = true
			if !strings.HasPrefix(p, e.Copy.SourceShare+"/") {
				t.Fatalf("a file of another share: %s in %s", p, e.Copy.SourceShare)
			}
		}
		if e.Copy.Files.V > maxJoined || len(e.Copy.SourceIDs) != int(e.Copy.Files.V) {
			t.Fatalf("%d files, %d ids", e.Copy.Files.V, len(e.Copy.SourceIDs))
		}
		if e.Copy.Files.V > 1 && (e.File.Size.OK || len(e.Copy.Paths) != int(e.Copy.Files.V) || e.Message == "") {
			t.Fatalf("joined event %+v %+v", e.File, e.Copy)
		}
		if e.Process.PID.V == 8 && e.Copy.Files.V != 1 {
			t.Error("what comes slowly is joined")
		}
	}
	if files != n+n/1000 || sum != bytes || len(ids) != n+n/1000 {
		t.Errorf("%d files, %d bytes, %d sources; want %d, %d, %d", files, sum, len(ids), n+n/1000, bytes, n+n/1000)
	}
	if len(told) > n/10 {
		t.Errorf("%d events for %d files", len(told), n)
	}
	if len(b.open) != 0 {
		t.Errorf("%d bursts are left", len(b.open))
	}
}

// Rules count the same whether copies are told one by one or joined: USB-3 by
// sums, and a rule of ours by different sources.
func TestRulesCountBurstsAlike(t *testing.T) {
	const rule = `title: copies
id: 6e2b8f9c-2f64-4a8e-9d0d-3a52e3a2b001
name: t-copied
taxonomy: ecs
logsource: {product: sekisho}
detection:
  copied: {event.action: file-copied}
  condition: copied
level: informational
---
title: Different sources
id: 6e2b8f9c-2f64-4a8e-9d0d-3a52e3a2b002
correlation:
  type: value_count
  rules: [t-copied]
  group-by: [host.name]
  timespan: 10m
  condition: {field: sekisho.copy.source_ids, gte: 2500}
level: low
`
	file := filepath.Join(t.TempDir(), "sources.yml")
	if err := os.WriteFile(file, []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := rules.Load(rules.LoadOptions{Builtin: true, Paths: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	t0 := time.Date(2026, 11, 20, 1, 0, 0, 0, time.UTC)
	totals := func(files int, join bool) (all []string) {
		b := newBursts()
		var told []*event.Event
		for i := range files {
			now := t0.Add(time.Duration(i) * time.Millisecond)
			e := copied(7, fmt.Sprint("/usb/", i, ".doc"), "", 10, now)
			e.Host, e.User = &event.Host{Name: "pc1"}, &event.User{Name: "tanaka"}
			e.File.VolumeKind = event.VolumeRemovable
			if join {
				told = append(told, b.due(now)...)
				e = b.add(e, volume.Dev{}, now)
			}
			if e != nil {
				told = append(told, e)
			}
		}
		told = append(told, b.due(time.Time{})...)
		if join && len(told) > files/2 {
			t.Errorf("%d events for %d files", len(told), files)
		}
		var in, out bytes.Buffer
		for _, e := range told {
			line, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			in.Write(append(line, '\n'))
		}
		if _, err := replay.Run(context.Background(), replay.Options{Events: &in, Program: program, Out: &out, Err: io.Discard}); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			a, err := alert.Decode(bytes.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			text := a.Rule.Name // ours alerts on every event past its threshold
			if a.Rule.Table != "" {
				text = fmt.Sprintf("%s files %d bytes %d", text, a.Totals["files"], a.Totals["bytes"])
			}
			all = append(all, text)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	for _, files := range []int{2499, 2500, 3210} {
		one, joined := totals(files, false), totals(files, true)
		if !slices.Equal(one, joined) || len(one) != 1+min(files/2500, 1) {
			t.Errorf("%d files: one by one %q\njoined %q", files, one, joined)
		}
	}
}

func TestBurstsAreBounded(t *testing.T) {
	b := newBursts()
	now := time.Unix(1000, 0)
	for pid := range int64(1000) {
		if b.add(copied(pid, "/x", "", 1, now), volume.Dev{}, now) == nil {
			t.Fatal("a first copy is not told")
		}
	}
	if len(b.open) > maxBursts {
		t.Errorf("%d bursts", len(b.open))
	}
	long := "/" + strings.Repeat("\x01\xff<", 1300)
	b = newBursts()
	var last *event.Event
	for i := range burstAfter + maxJoined {
		last = b.add(copied(1, long+fmt.Sprint(i), "", 1, now), volume.Dev{}, now)
	}
	if last == nil || last.Copy.Files.V != maxJoined {
		t.Fatalf("got %+v", last)
	}
	if n := len(last.Copy.SourceIDs); n != maxJoined {
		t.Errorf("%d ids", n)
	}
	if line, err := json.Marshal(last.Copy.Paths); err != nil || len(line) > maxPathBytes+2 {
		t.Errorf("%d bytes of paths as JSON: %v", len(line), err)
	}
}

// Where the process is not known, copies of one person join.
func TestBurstsOfUnknownProcesses(t *testing.T) {
	b := newBursts()
	now := time.Unix(1000, 0)
	var told []*event.Event
	for i := range 1000 {
		e := copied(0, fmt.Sprint("/usb/", i), "", 10, now)
		e.Process, e.User = nil, &event.User{ID: fmt.Sprint("S-1-5-21-", i%2), Confidence: "low"}
		e.Errors = []string{"process unknown: read-directory-changes does not tell it"}
		if i == 0 {
			e.Errors = append(e.Errors, "read size: access denied")
		}
		if e = b.add(e, volume.Dev{}, now); e != nil {
			told = append(told, e)
		}
	}
	told = append(told, b.due(time.Time{})...)
	files := map[string]int64{}
	for _, e := range told {
		files[e.User.ID] += e.Copy.Files.V
	}
	if len(told) > 2*(burstAfter+2)+1 || len(files) != 2 || files["S-1-5-21-0"] != 500 || files["S-1-5-21-1"] != 500 || told[0].Copy.Files.V != 1 {
		t.Errorf("%d events of %v files", len(told), files)
	}
}
