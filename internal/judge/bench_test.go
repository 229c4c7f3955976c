package judge

import (
	"fmt"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// A matched event with and without a journal: the difference is what the journal
// costs.
func BenchmarkMatched(b *testing.B) {
	p := pack(b, rules.Options{})
	run := func(b *testing.B, j *Judge) {
		e := copied(0)
		b.ReportAllocs()
		for b.Loop() {
			e.Time = e.Time.Add(20 * time.Millisecond)
			j.Event(e)
			j.Kept(1 << 62)
			if j.Due() {
				b.StopTimer()
				if err := j.Checkpoint(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		}
	}
	b.Run("memory", func(b *testing.B) { run(b, New(Options{Program: p})) })
	b.Run("journal", func(b *testing.B) { run(b, mustOpen(b, b.TempDir(), Options{Program: p})) })
}

// The nth event of a window of its own.
func ofKey(n, round int) *event.Event {
	e := copied(round)
	e.ID = fmt.Sprintf("00000000-0000-7000-8000-%06d%06d", round, n)
	e.User = &event.User{Name: fmt.Sprint("u", n)}
	return e
}

// A checkpoint in which so many windows changed, and a start with so many.
func BenchmarkCheckpoint(b *testing.B) {
	p := streamProgram(b)
	for _, keys := range []int{10, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			dir := b.TempDir()
			o := Options{Program: p, Limits: streamLimits(keys)}
			j := mustOpen(b, dir, o)
			round := 0
			for b.Loop() {
				b.StopTimer()
				for n := range keys {
					j.Event(ofKey(n, round))
				}
				j.Updates()
				j.Kept(1 << 62)
				round++
				b.StartTimer()
				if err := j.Checkpoint(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(j.Stats().Written), "B/checkpoint")
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			j = mustOpen(b, dir, o)
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/open")
			b.ReportMetric(float64(j.Stats().Windows.Keys), "windows")
		})
	}
}
