package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekisho/internal/disktest"
)

func TestFullDisk(t *testing.T) {
	disk := disktest.New(t, "4m")
	o := Options{MaxBytes: 64 << 20, SegmentBytes: 64 << 10, BallastBytes: 512 << 10}
	s := mustOpen(t, filepath.Join(disk, "spool"), o)
	if !s.Stats().Ballast {
		t.Fatal("no ballast after open")
	}
	var want []string
	rec := func() string {
		return fmt.Sprintf("%d %s", len(want), strings.Repeat("f", 3000))
	}
	add := func(durable bool) error {
		r := rec()
		err := s.Append(durable, []byte(r))
		if err == nil {
			want = append(want, r)
		}
		return err
	}
	for range 10 {
		if err := add(true); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(disk, "somebody else's")
	disktest.Fill(t, other)

	// Buffered records leave the ballast alone.
	var err error
	for err == nil {
		err = add(false)
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("buffered append on a full disk: %v, want ErrFull and its cause", err)
	}
	if !s.Stats().Ballast {
		t.Fatal("a buffered append has used the ballast")
	}
	// Durable ones get it.
	held := len(want)
	if err := add(true); err != nil {
		t.Fatalf("durable append on a full disk: %v", err)
	}
	if s.Stats().Ballast {
		t.Error("ballast still there")
	}
	for err = nil; err == nil; {
		err = add(true)
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("durable append after the ballast: %v, want ErrFull", err)
	}
	if n := (len(want) - held) * 3000; n < 400<<10 {
		t.Errorf("the ballast took %d bytes of records, want some 512 KiB", n)
	}
	if err := s.CountFull(1); err != nil {
		t.Errorf("count on a full disk: %v", err)
	}

	// Nothing half written is left, for this process or the next.
	mustClose(t, s)
	s = mustOpen(t, filepath.Join(disk, "spool"), o)
	if d := s.Stats().Dropped; d != (Losses{Full: 1}) {
		t.Errorf("dropped after reopen: %+v, want the counted one", d)
	}
	// Delivery works on a full disk and makes room.
	for i := 0; i < 60; i++ {
		b, err := s.Lease(1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "record", string(b.Records()[0]), want[0])
		if err := b.Commit(); err != nil {
			t.Fatalf("commit on a full disk: %v", err)
		}
		want = want[1:]
	}
	if err := add(true); err != nil {
		t.Fatalf("append after records were delivered: %v", err)
	}
	// With space back, the ballast is made again and all goes on.
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		if err := add(true); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Stats().Ballast {
		t.Error("no ballast though there is space again")
	}
	if got := drain(t, s); !slices.Equal(got, want) {
		t.Errorf("drained %d records, want %d", len(got), len(want))
	}
	balanced(t, s)
}

// On a disk too full for a state file the spool says so, and opens later.
func TestFullDiskAtOpen(t *testing.T) {
	disk := disktest.New(t, "256k")
	disktest.Fill(t, filepath.Join(disk, "other"))
	dir := filepath.Join(disk, "spool")
	if s, err := Open(dir, small); !errors.Is(err, ErrFull) {
		if err == nil {
			s.Close()
		}
		t.Fatalf("open on a full disk: %v, want ErrFull", err)
	}
	if err := os.Remove(filepath.Join(disk, "other")); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, small)
	mustAppend(t, s, true, "a")
	equal(t, "drained", drain(t, s), []string{"a"})
}
