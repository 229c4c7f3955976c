package agent

import (
	"fmt"
	"testing"
	"time"

	"sekisho/internal/correlate"
	"sekisho/internal/event"
)

// What was given up for want of room shows in status, whatever it was.
func TestStatusTellsWhatWasGivenUp(t *testing.T) {
	if n := givenUp(correlate.Stats{Evicted: 1, Trimmed: 10, Lost: 100, Forgotten: 1000}); n != 1111 {
		t.Errorf("got %d", n)
	}
	src := newScripted()
	r := start(t, shortDir(t), "", src)
	now, n := time.Now(), 0
	rename := func(times int) {
		for range times {
			e := event.New(event.FileRenamed, now)
			kind := fmt.Sprint("zz", n)
			n++
			e.File = &event.File{Path: "/srv/a." + kind, Name: "a." + kind, Extension: kind, VolumeKind: event.VolumeLocal}
			e.Process = &event.Process{PID: event.Some[int64](7), Name: "mv"}
			src.out <- e
		}
	}
	rename(correlate.DefaultLimits.Keys + 100)
	r.until("status tells it", func() bool {
		rename(100) // on a busy machine some were shed
		return r.status().Rules.Evicted > 0
	})
}
