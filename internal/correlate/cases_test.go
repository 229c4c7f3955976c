package correlate

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
)

func TestCases(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "windows.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(string(data), "\n== ") {
		name, body, _ := strings.Cut(part, "\n")
		text, events, ok := strings.Cut(body, "\n--\n")
		if strings.HasPrefix(name, "#") {
			continue
		}
		if !ok {
			t.Fatalf("%s: no events", name)
		}
		t.Run(name, func(t *testing.T) {
			var docs []string
			for d := range strings.SplitSeq(text, "\n---\n") {
				docs = append(docs, "  "+strings.ReplaceAll(d, "\n", "\n  "))
			}
			p := program(t, docs...)
			s := New(p, Limits{}, nil)
			for line := range strings.SplitSeq(strings.TrimSpace(events), "\n") {
				input, want, _ := strings.Cut(line, "->")
				for _, e := range scripted(t, input) {
					var got []string
					for _, f := range s.Observe(e, p.Match(e, nil), nil) {
						text := f.Rule.Name
						for k, v := range f.Totals {
							text += fmt.Sprintf(" %d+%d", v, f.Fresh[k])
						}
						got = append(got, fmt.Sprintf("%s of %d", text, f.EvidenceTotal))
					}
					if g := strings.Join(got, ", "); g != strings.TrimSpace(want) {
						t.Fatalf("%s\ngot  %s\nwant %s", line, g, strings.TrimSpace(want))
					}
				}
			}
		})
	}
}

// scripted is the events of a line of a case.
func scripted(t *testing.T, line string) (out []*event.Event) {
	words := strings.Fields(line)
	times := 1
	if n, ok := strings.CutPrefix(words[0], "*"); ok {
		times, _ = strconv.Atoi(n)
		words = words[1:]
	}
	after := words[0]
	var at time.Duration
	if days, rest, ok := strings.Cut(after, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil {
			t.Fatal(err)
		}
		at, after = time.Duration(n)*24*time.Hour, rest
	}
	if after != "" {
		d, err := time.ParseDuration(after)
		if err != nil {
			t.Fatal(err)
		}
		at += d
	}
	for range times {
		e := ev(at.Seconds(), words[1], "")
		for _, w := range words[2:] {
			k, v, _ := strings.Cut(w, "=")
			if long, ok := map[string]string{"user": "user.name", "name": "file.name", "files": "sekisho.copy.files"}[k]; ok {
				k = long
			}
			if err := e.Set(k, event.Text(v)); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, e)
	}
	return out
}
