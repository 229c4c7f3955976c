package spool

import (
	"bytes"
	"errors"
	"testing"
)

// benchRecord has the size of a usual alert.
var benchRecord = bytes.Repeat([]byte("0123456789abcdef"), 64)

func BenchmarkAppendDurable(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	b.ReportAllocs()
	b.SetBytes(int64(len(benchRecord)))
	for b.Loop() {
		if err := s.Append(true, benchRecord); err != nil {
			b.Fatal(err)
		}
	}
}

// Sixteen appenders share syncs.
func BenchmarkAppendDurable16(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	b.ReportAllocs()
	b.SetBytes(int64(len(benchRecord)))
	b.SetParallelism(8) // times two processors
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Append(true, benchRecord); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkAppendBuffered(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	b.ReportAllocs()
	b.SetBytes(int64(len(benchRecord)))
	for b.Loop() {
		if err := s.Append(false, benchRecord); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is a batch of 500 records.
func BenchmarkLeaseCommit500(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{MaxBytes: 1 << 30})
	b.ReportAllocs()
	b.SetBytes(500 * int64(len(benchRecord)))
	for b.Loop() {
		b.StopTimer()
		for range 500 {
			if err := s.Append(false, benchRecord); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		batch, err := s.Lease(500, 1<<20)
		if err != nil {
			b.Fatal(err)
		}
		if err := batch.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}

// One operation is the recovery of 16 MiB of waiting records.
func BenchmarkOpen16MiB(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir, Options{})
	for range 16 << 10 {
		if err := s.Append(false, benchRecord); err != nil {
			b.Fatal(err)
		}
	}
	mustClose(b, s)
	b.ReportAllocs()
	b.SetBytes(16 << 20)
	for b.Loop() {
		s, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Lease(1, 1); errors.Is(err, ErrEmpty) {
			b.Fatal("empty")
		}
		mustClose(b, s)
	}
}
