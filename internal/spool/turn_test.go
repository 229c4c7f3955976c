package spool

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

// atDisk has f called whenever a turn makes the disk take something: what a slow disk would keep waiting.
func atDisk(s *Spool, f func(what string)) {
	s.store.sync = func(file *os.File) error {
		f("state")
		return syncFile(file)
	}
	s.syncNames = func(dir string) error {
		f("names")
		return syncDir(dir)
	}
}

// goesOn appends a record while somebody waits for the disk.
func goesOn(t *testing.T, s *Spool, what, rec string) {
	done := make(chan error, 1)
	go func() { done <- s.Append(false, []byte(rec)) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("append while %s: %v", what, err)
		}
	case <-time.After(time.Minute):
		t.Errorf("append waits while %s", what)
	}
}

func TestAppendsGoOnWhileTheDiskTakesWhatOthersSettled(t *testing.T) {
	lease := func(t *testing.T, s *Spool, n int) *Batch {
		b, err := s.Lease(n, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name  string
		ready func(t *testing.T, s *Spool) (change func() error)
		waits []string // for what the disk takes
	}{
		{"trim", func(t *testing.T, s *Spool) func() error {
			return func() error { return s.Trim(50) }
		}, []string{"state", "names"}},
		{"commit", func(t *testing.T, s *Spool) func() error {
			return lease(t, s, 50).Commit
		}, []string{"state", "names"}},
		{"settle a few", func(t *testing.T, s *Spool) func() error {
			b := lease(t, s, 50)
			return func() error { return b.Settle(1, 1) }
		}, []string{"state"}},
		{"lease of what is unreadable", func(t *testing.T, s *Spool) func() error {
			for _, f := range segmentFiles(t, s.dir) {
				if err := os.Truncate(f, 0); err != nil {
					t.Fatal(err)
				}
			}
			return func() error {
				if _, err := s.Lease(1, 1); !errors.Is(err, ErrEmpty) {
					return fmt.Errorf("leased: %w", err)
				}
				return nil
			}
		}, []string{"state", "names"}},
		{"losses", func(t *testing.T, s *Spool) func() error {
			return func() error {
				if err := s.CountFull(3); err != nil {
					return err
				}
				l, _, err := s.TakeLoss()
				return errors.Join(err, s.ReportLoss(l.ID))
			}
		}, []string{"state", "state", "state"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := mustOpen(t, t.TempDir(), small)
			mustAppend(t, s, false, numbered("r", 1, 101)...)
			if err := s.Sync(); err != nil { // that is another wait
				t.Fatal(err)
			}
			change := c.ready(t, s)
			var waited, added []string
			atDisk(s, func(what string) {
				waited = append(waited, what)
				added = append(added, fmt.Sprint("meanwhile ", len(added)))
				goesOn(t, s, c.name+" waits for the "+what, added[len(added)-1])
			})
			if err := change(); err != nil {
				t.Fatal(err)
			}
			equal(t, "waits", waited, c.waits)
			atDisk(s, func(string) {})
			balanced(t, s)
			got := drain(t, s)
			equal(t, "added", got[max(0, len(got)-len(added)):], added)
			balanced(t, s)
		})
	}
}

// Over the cap an append has to wait for its turn, and then goes on.
func TestAnAppendOverTheCapWaitsForItsTurn(t *testing.T) {
	o := Options{MaxBytes: 8 << 10, SegmentBytes: 1 << 10}
	s := mustOpen(t, t.TempDir(), o)
	mustAppend(t, s, false, numbered("r", 1, 80)...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	rest := numbered("s", 1, 40)
	done := make(chan error, 1)
	atDisk(s, func(what string) {
		if what != "state" {
			return
		}
		atDisk(s, func(string) {})
		go func() {
			for _, r := range rest {
				if err := s.Append(false, []byte(r)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		time.Sleep(20 * time.Millisecond)
		if d := s.Stats().Dropped; d != before.Dropped {
			t.Errorf("dropped in between: %+v, before %+v", d, before.Dropped)
		}
	})
	if err := s.Trim(s.Next()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	balanced(t, s)
	if st := s.Stats(); st.Bytes > o.MaxBytes || st.Committed == 0 {
		t.Errorf("%+v", st)
	}
	got := drain(t, s)
	equal(t, "the rest", got[max(0, len(got)-len(rest)):], rest)
}

// A kill between any two steps of trimming, and of what is appended meanwhile, loses nothing, doubles nothing and counts right.
func TestAKillBetweenAnyTwoStepsOfTrimming(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	recs := numbered("r", 1, 101)
	mustAppend(t, s, false, recs...)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	type kill struct {
		when, dir string
		recs      int // appended until then
	}
	var kills []kill
	cut := func(when string) { kills = append(kills, kill{when, crashed(t, dir), len(recs)}) }
	more := func(n int) {
		for range n {
			recs = append(recs, fmt.Sprint("more ", len(recs)))
			goesOn(t, s, "it is trimmed", recs[len(recs)-1])
		}
	}
	cut("before")
	atDisk(s, func(what string) {
		cut(what + " is written")
		more(1)
		cut(what + ", one more")
		more(60) // other segments
		cut(what + ", and more")
	})
	if err := s.Trim(60); err != nil {
		t.Fatal(err)
	}
	cut("after")
	if len(kills) != 8 {
		t.Fatalf("%d kills", len(kills))
	}
	front := s.segs[0].base
	for _, k := range kills {
		c := mustOpen(t, k.dir, small)
		st := c.Stats()
		from := int(st.Committed) + 1
		if st.Dropped.Total() != 0 || from != 1 && from != int(front) || k.when == "after" && from == 1 || st.Records != k.recs+1-from {
			t.Errorf("%s: %+v of %d records", k.when, st, k.recs)
			continue
		}
		equal(t, k.when, each(t, c, 1), withNumbers(recs[from-1:k.recs], from))
		balanced(t, c)
		if err := c.Trim(60); err != nil {
			t.Fatal(err)
		}
		equal(t, k.when+", trimmed again", c.Stats().Committed, front-1)
		mustClose(t, c)
	}
}

// A segment whose first record could not be written is not there: the next has its number, and so the name of its file.
func TestASegmentThatNeverHeldARecordIsNotThere(t *testing.T) {
	s := mustOpen(t, t.TempDir(), small)
	mustAppend(t, s, false, "a")
	s.mu.Lock()
	s.seal() // as when it is full
	if err := s.create(); err != nil {
		t.Fatal(err)
	}
	s.w.f.Close() // a disk that refuses writing and cutting
	s.mu.Unlock()
	if err := s.Append(false, []byte("b")); err == nil {
		t.Fatal("it could be written")
	}
	mustAppend(t, s, false, "c", "d")
	b, err := s.Lease(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil { // takes what is settled away
		t.Fatal(err)
	}
	equal(t, "the rest", drain(t, s), []string{"c", "d"})
	if st := s.Stats(); st.Dropped.Total() != 0 || st.Committed != 3 {
		t.Errorf("%+v", st)
	}
	balanced(t, s)
}
