package judge

import (
	"fmt"
	"testing"
	"time"

	"sekisho/internal/correlate"
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

// A checkpoint in which so many windows changed, how long of it the pipeline
// stands still, and a start with so many; "full" is all that the default limits
// let a PC hold, all of it changed.
func BenchmarkCheckpoint(b *testing.B) {
	p := streamProgram(b)
	run := func(name string, keys, rounds int, l correlate.Limits) {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			o := Options{Program: p, Limits: l}
			j := mustOpen(b, dir, o)
			round := 0
			fill := func() {
				for n := range keys {
					j.Event(ofKey(n, round))
				}
				j.Updates()
				j.Kept(1 << 62)
				round++
			}
			for range rounds {
				fill()
			}
			still := time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				fill()
				b.StartTimer()
				began := time.Now()
				if err := j.StartCheckpoint(); err != nil {
					b.Fatal(err)
				}
				still += time.Since(began)
				if err := j.store.wait(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(still.Microseconds())/1000/float64(b.N), "ms-still/op")
			b.ReportMetric(float64(j.Stats().Written), "B/checkpoint")
			b.ReportMetric(float64(j.book.Len()), "alerts")
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
			began := time.Now()
			j = mustOpen(b, dir, o)
			b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/open")
			b.ReportMetric(float64(j.Stats().Windows.Keys+j.Stats().Windows.Long), "windows")
		})
	}
	for _, keys := range []int{10, 1000, 10_000, 100_000} {
		run(fmt.Sprint(keys), keys, 0, streamLimits(keys, correlate.DefaultLimits.Evidence))
	}
	run("full", correlate.DefaultLimits.Keys, 8, correlate.DefaultLimits)
}

// How long the pipeline stands still for other rules, with all that the default
// limits let a PC hold, all of it changed: at once, and written ahead.
func BenchmarkSwap(b *testing.B) {
	p := streamProgram(b)
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprintf("ahead=%v", ahead), func(b *testing.B) {
			j := mustOpen(b, b.TempDir(), Options{Program: p})
			round := 0
			fill := func() {
				for n := range correlate.DefaultLimits.Keys {
					j.Event(ofKey(n, round))
				}
				j.Updates()
				j.Kept(1 << 62)
				round++
			}
			for range 8 {
				fill()
			}
			for b.Loop() {
				b.StopTimer()
				fill()
				if ahead {
					<-j.Ahead()
				}
				b.StartTimer()
				if err := j.Swap(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
