package spool

import (
	"errors"
	"fmt"
	"os"
	"testing"
)

// each is what Each gives from n on, as "number:record".
func each(t testing.TB, s *Spool, n uint64) []string {
	t.Helper()
	var got []string
	if err := s.Each(n, func(n uint64, rec []byte) error { got = append(got, fmt.Sprintf("%d:%s", n, rec)); return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func withNumbers(recs []string, from int) []string {
	var s []string
	for i, r := range recs {
		s = append(s, fmt.Sprintf("%d:%s", from+i, r))
	}
	return s
}

func TestEachReadsFromANumberOnAndTakesNothingOut(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	recs := numbered("r", 1, 101) // several segments
	mustAppend(t, s, false, recs...)
	equal(t, "next", s.Next(), 101)
	for _, from := range []int{0, 1, 2, 50, 100, 101} {
		equal(t, fmt.Sprint("from ", from), each(t, s, uint64(from)), withNumbers(recs[max(from, 1)-1:], max(from, 1)))
	}
	stop := errors.New("stop")
	n := 0
	if err := s.Each(1, func(uint64, []byte) error { n++; return stop }); err != stop || n != 1 {
		t.Errorf("%v after %d records", err, n)
	}
	mustClose(t, s)
	if err := s.Each(1, func(uint64, []byte) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	s = mustOpen(t, dir, small)
	equal(t, "after a restart", each(t, s, 1), withNumbers(recs, 1))
	mustAppend(t, s, false, "more")
	equal(t, "and more", each(t, s, 100), []string{"100:" + recs[99], "101:more"})
	equal(t, "leased", drain(t, s), append(recs, "more"))
	equal(t, "when all is committed", len(each(t, s, 1)), 0)
}

func TestTrimDropsTheSegmentsThatAreDoneWith(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	recs := numbered("r", 1, 101)
	mustAppend(t, s, false, recs...)
	before := s.Stats()
	if err := s.Trim(1); err != nil {
		t.Fatal(err)
	}
	equal(t, "nothing to trim", s.Stats(), before)
	if err := s.Trim(60); err != nil {
		t.Fatal(err)
	}
	st := s.Stats()
	if st.Segments >= before.Segments || st.Bytes >= before.Bytes || st.Committed == 0 || st.Committed > 59 || st.Dropped.Total() != 0 || st.Committed+uint64(st.Records) != 100 {
		t.Errorf("before %+v\nafter %+v", before, st)
	}
	equal(t, "the rest", each(t, s, 60), withNumbers(recs[59:], 60))
	mustClose(t, s)
	s = mustOpen(t, dir, small)
	equal(t, "after a restart", each(t, s, 60), withNumbers(recs[59:], 60))
	if err := s.Trim(101); err != nil { // nothing is being written: all of it goes
		t.Fatal(err)
	}
	equal(t, "all done with", each(t, s, 1), []string(nil))
	equal(t, "files", s.Stats().Segments, 0)
	mustAppend(t, s, true, "new")
	equal(t, "numbers go on", each(t, s, 1), []string{"101:new"})

	b, err := s.Lease(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Trim(200); !errors.Is(err, ErrLeased) {
		t.Errorf("leased: %v", err)
	}
	b.Release()
	if err := s.Trim(200); err != nil {
		t.Fatal(err)
	}
	equal(t, "a segment that is being written stays", each(t, s, 1), []string{"101:new"})
}

func TestEachPassesOverWhatIsUnreadable(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	recs := numbered("r", 1, 41)
	mustAppend(t, s, false, recs...)
	seg := s.segs[0]
	mustClose(t, s)
	b, err := os.ReadFile(s.path(seg.base))
	if err != nil {
		t.Fatal(err)
	}
	b[headerBytes+2*(frameBytes+len(recs[0]))+frameBytes+3] ^= 1 // in the third record
	if err := os.WriteFile(s.path(seg.base), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, small)
	equal(t, "without the third", each(t, s, 1), append(withNumbers(recs[:2], 1), withNumbers(recs[3:], 4)...))
	if err := s.Trim(s.Next()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Dropped.Corrupt != 1 || st.Committed != 39 || st.Records != 0 {
		t.Errorf("%+v", st)
	}
}
