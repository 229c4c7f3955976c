package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// small makes segments of 1 KiB, so that a few records fill one.
var small = Options{MaxBytes: 64 << 10, SegmentBytes: 1 << 10}

func mustOpen(t testing.TB, dir string, o Options) *Spool {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustClose(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustAppend(t testing.TB, s *Spool, durable bool, recs ...string) {
	t.Helper()
	for _, r := range recs {
		if err := s.Append(durable, []byte(r)); err != nil {
			t.Fatal(err)
		}
	}
}

// drain commits everything and returns it.
func drain(t testing.TB, s *Spool) []string {
	t.Helper()
	var got []string
	for {
		b, err := s.Lease(7, 1<<20)
		if errors.Is(err, ErrEmpty) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records() {
			got = append(got, string(r))
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(prefix string, from, to int) []string {
	var s []string
	for i := from; i < to; i++ {
		s = append(s, fmt.Sprintf("%s-%04d-%s", prefix, i, strings.Repeat("x", 40)))
	}
	return s
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, clip(g), clip(w))
	}
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "..."
	}
	return s
}

// balanced checks the sum that Stats documents.
func balanced(t testing.TB, s *Spool) {
	t.Helper()
	st := s.Stats()
	d := st.Dropped
	sum := st.Committed + uint64(st.Records) + d.Overflow + d.Expired + d.Corrupt + d.Refused
	if st.Appended != sum {
		t.Errorf("appended %d, but the rest sums to %d: %+v", st.Appended, sum, st)
	}
}

func TestRecordsComeInOrderOnceCommitted(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	want := numbered("r", 0, 100)
	mustAppend(t, s, false, want[:50]...)
	mustAppend(t, s, true, want[50:]...)
	equal(t, "drained", drain(t, s), want)
	if _, err := s.Lease(1, 1); !errors.Is(err, ErrEmpty) {
		t.Errorf("lease after drain: %v, want ErrEmpty", err)
	}
	balanced(t, s)
	mustClose(t, s)
	s = mustOpen(t, dir, small)
	equal(t, "drained after reopen", drain(t, s), []string(nil))
	st := s.Stats()
	equal(t, "appended", st.Appended, 100)
	equal(t, "committed", st.Committed, 100)
	equal(t, "segments", st.Segments, 0)
}

func TestReleasedAndUnsettledRecordsComeAgain(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	want := numbered("r", 0, 30)
	mustAppend(t, s, true, want...)
	b, err := s.Lease(10, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(1, 1); !errors.Is(err, ErrLeased) {
		t.Errorf("second lease: %v, want ErrLeased", err)
	}
	b.Release()
	b.Release()
	if err := b.Commit(); !errors.Is(err, ErrSettled) {
		t.Errorf("commit after release: %v, want ErrSettled", err)
	}
	if b, err = s.Lease(10, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := b.Settle(3, 1); err != nil {
		t.Fatal(err)
	}
	if b, err = s.Lease(10, 1<<20); err != nil {
		t.Fatal(err)
	}
	equal(t, "first after settling 4", string(b.Records()[0]), want[4])
	mustClose(t, s) // with the lease open
	if err := b.Commit(); !errors.Is(err, ErrClosed) {
		t.Errorf("commit after close: %v, want ErrClosed", err)
	}
	s = mustOpen(t, dir, small)
	st := s.Stats()
	equal(t, "committed, refused", []uint64{st.Committed, st.Dropped.Refused}, []uint64{3, 1})
	equal(t, "drained", drain(t, s), want[4:])
	balanced(t, s)
}

func TestLeaseKeepsItsLimits(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{MaxBytes: 4 << 20, SegmentBytes: 512 << 10})
	big := strings.Repeat("b", 300<<10)
	mustAppend(t, s, false, "one", "two", "three", big, "four")
	for _, c := range []struct {
		records, bytes int
		want           []int
	}{
		{1, 1 << 20, []int{3}},
		{2, 1 << 20, []int{3, 3}},
		{9, 1, []int{3}},
		{9, 6, []int{3, 3}},
		{9, 7, []int{3, 3}},
		{9, 1000, []int{3, 3, 5}},
		{9, 1 << 20, []int{3, 3, 5, 300 << 10, 4}},
	} {
		b, err := s.Lease(c.records, c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		sum := 0
		for _, r := range b.Records() {
			got = append(got, len(r))
			sum += len(r)
		}
		equal(t, fmt.Sprintf("lease %d %d", c.records, c.bytes), got, c.want)
		equal(t, "bytes", b.Bytes(), sum)
		b.Release()
	}
	b, err := s.Lease(3, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	if b, err = s.Lease(9, 1000); err != nil { // larger than asked for, and than the first read
		t.Fatal(err)
	}
	equal(t, "records", len(b.Records()), 1)
	equal(t, "big record intact", string(b.Records()[0]) == big, true)
	b.Release()
	if _, err := s.Lease(0, 1); err == nil {
		t.Error("lease of no records: no error")
	}
}

func TestManyRecordsInOneAppendSpanSegments(t *testing.T) {
	for _, durable := range []bool{false, true} {
		dir := t.TempDir()
		s := mustOpen(t, dir, small)
		want := numbered("r", 0, 200)
		var recs [][]byte
		for _, r := range want {
			recs = append(recs, []byte(r))
		}
		if err := s.Append(durable, recs...); err != nil {
			t.Fatal(err)
		}
		if n := s.Stats().Segments; n < 10 {
			t.Errorf("%d segments, want over 10", n)
		}
		s = mustOpen(t, crashed(t, dir), small)
		equal(t, "drained", drain(t, s), want)
		balanced(t, s)
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	s := mustOpen(t, t.TempDir(), small)
	if err := s.Append(true, []byte("a"), nil); !errors.Is(err, ErrEmptyRecord) {
		t.Errorf("empty record: %v, want ErrEmptyRecord", err)
	}
	most := 1<<10 - headerBytes - frameBytes
	if err := s.Append(true, make([]byte, most+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("record over a segment: %v, want ErrTooLarge", err)
	}
	if err := s.Append(true, make([]byte, most)); err != nil {
		t.Errorf("record of a segment: %v", err)
	}
	if err := s.Append(true); err != nil {
		t.Errorf("no records: %v", err)
	}
	if err := s.Append(true, []byte("a"), make([]byte, most+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("record over a segment behind another: %v, want ErrTooLarge", err)
	}
	equal(t, "appended", s.Stats().Appended, 1)
	b, err := s.Lease(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range [][2]int{{2, 0}, {-1, 1}, {1, 1}} {
		if err := b.Settle(n[0], n[1]); err == nil {
			t.Errorf("settle %v: no error", n)
		}
	}
	mustClose(t, s)
	for what, err := range map[string]error{
		"append": s.Append(false, []byte("a")), "sync": s.Sync(), "close": s.Close(), "report": s.ReportLoss(""), "full": s.CountFull(1),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after close: %v, want ErrClosed", what, err)
		}
	}
	for _, o := range []Options{
		{MaxBytes: -1}, {MaxAge: -1}, {SyncEvery: -1}, {BallastBytes: -1},
		{MaxBytes: 1 << 20, SegmentBytes: 1 << 19}, {MaxBytes: 100}, {MaxBytes: 1 << 40, SegmentBytes: 1 << 30},
	} {
		if s, err := Open(t.TempDir(), o); err == nil {
			s.Close()
			t.Errorf("options %+v: no error", o)
		}
	}
}

func TestTwoOwnersAreRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	_, err := Open(dir, small)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("second open: %v, want ErrInUse", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("second open: %q does not name the holder %d", err, os.Getpid())
	}
	mustClose(t, s)
	mustOpen(t, dir, small)
}

func TestFilesArePrivate(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("access on Windows is by the folder's inherited list")
	}
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := mustOpen(t, dir, Options{MaxBytes: 1 << 20, BallastBytes: 4096})
	mustAppend(t, s, true, "x")
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", e.Name(), fi.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOverTheCapTheOldestGoAndAreCounted(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxBytes: 8 << 10, SegmentBytes: 1 << 10}
	s := mustOpen(t, dir, o)
	want := numbered("r", 0, 1000)
	for _, r := range want {
		mustAppend(t, s, false, r)
		if b := s.Stats().Bytes; b > o.MaxBytes {
			t.Fatalf("spool takes %d bytes, cap %d", b, o.MaxBytes)
		}
	}
	balanced(t, s)
	lost := s.Stats().Dropped.Overflow
	if lost == 0 {
		t.Fatal("nothing was dropped")
	}
	mustClose(t, s)
	s = mustOpen(t, dir, o)
	equal(t, "overflow after reopen", s.Stats().Dropped, Losses{Overflow: lost})
	equal(t, "what is left", drain(t, s), want[lost:])
	balanced(t, s)
}

// A record that was dropped over the cap while it was on its way, and did arrive, was not lost.
func TestDroppedDuringTheLeaseButDelivered(t *testing.T) {
	o := Options{MaxBytes: 8 << 10, SegmentBytes: 1 << 10}
	for _, reported := range []bool{false, true} {
		s := mustOpen(t, t.TempDir(), o)
		mustAppend(t, s, false, numbered("r", 0, 30)...)
		b, err := s.Lease(20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		first := string(b.Records()[0])
		mustAppend(t, s, false, numbered("r", 30, 200)...)
		lost := s.Stats().Dropped.Overflow
		if lost < 20 {
			t.Fatalf("only %d dropped", lost)
		}
		equal(t, "leased record after its segment went", string(b.Records()[0]), first)
		if reported {
			if _, ok, err := s.TakeLoss(); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		st := s.Stats()
		if reported {
			equal(t, "committed, lost", []uint64{st.Committed, st.Dropped.Overflow}, []uint64{0, lost})
		} else {
			equal(t, "committed, lost", []uint64{st.Committed, st.Dropped.Overflow}, []uint64{20, lost - 20})
		}
		balanced(t, s)
		equal(t, "what is left", drain(t, s), numbered("r", int(lost), 200))
		balanced(t, s)
	}
}

func TestOldRecordsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := small
		o.MaxAge = 8 * time.Hour
		s := mustOpen(t, dir, o)
		mustAppend(t, s, false, numbered("old", 0, 20)...)
		time.Sleep(5 * time.Hour)
		fresh := numbered("new", 0, 20)
		mustAppend(t, s, false, fresh...)
		oldest := time.Unix(0, s.Stats().OldestUnixNano)
		equal(t, "age of oldest", time.Since(oldest), 5*time.Hour)
		time.Sleep(4 * time.Hour)
		b, err := s.Lease(100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "left", len(b.Records()), 20)
		b.Release()
		equal(t, "expired", s.Stats().Dropped, Losses{Expired: 20})
		mustClose(t, s)
		s = mustOpen(t, dir, o)
		time.Sleep(5 * time.Hour)
		equal(t, "drained", drain(t, s), []string(nil))
		equal(t, "expired", s.Stats().Dropped, Losses{Expired: 40})
		balanced(t, s)
		mustAppend(t, s, true, "after")
		equal(t, "drained", drain(t, s), []string{"after"})
		mustAppend(t, s, true, "last")
		time.Sleep(9 * time.Hour)
		mustAppend(t, s, true, "later") // the segment being written expires too
		equal(t, "drained", drain(t, s), []string{"later"})
		mustClose(t, s)
	})
}

func TestBufferedAppendsAreSyncedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, t.TempDir(), Options{SyncEvery: time.Second})
		mustAppend(t, s, false, "a")
		durable := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.w.durable == s.next
		}
		time.Sleep(900 * time.Millisecond)
		if durable() {
			t.Error("synced too early")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if !durable() {
			t.Error("not synced after a second")
		}
		mustAppend(t, s, false, "b")
		if err := s.Sync(); err != nil || !durable() {
			t.Errorf("after Sync: %v, durable %v", err, durable())
		}
		mustAppend(t, s, true, "c")
		if !durable() {
			t.Error("not synced after a durable append")
		}
		mustClose(t, s)
		// The bubble fails if the timer's goroutine is left.
	})
}

func TestNotifyWakesTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, small)
		select {
		case <-s.Notify():
			t.Error("token on an empty spool")
		default:
		}
		go func() {
			time.Sleep(time.Minute)
			mustAppend(t, s, false, "a", "b")
		}()
		<-s.Notify()
		equal(t, "lines", len(drain(t, s)) > 0, true)
		synctest.Wait()
		mustAppend(t, s, true, "c")
		mustClose(t, s)
		s = mustOpen(t, dir, small)
		<-s.Notify()
		mustClose(t, s)
	})
}

func TestLossesAreToldOnceThroughCrashes(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	if _, ok, err := s.TakeLoss(); ok || err != nil {
		t.Errorf("loss of nothing: %v %v", ok, err)
	}
	if err := s.CountFull(3); err != nil {
		t.Fatal(err)
	}
	first, ok, err := s.TakeLoss()
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	equal(t, "losses", first.Losses, Losses{Full: 3})
	if err := s.CountFull(4); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, crashed(t, dir), small)
	again, ok, err := s.TakeLoss()
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	equal(t, "offer after a crash", again, first)
	if err := s.ReportLoss("someone else's"); err != nil {
		t.Fatal(err)
	}
	if err := s.ReportLoss(first.ID); err != nil {
		t.Fatal(err)
	}
	second, ok, err := s.TakeLoss()
	if !ok || err != nil || second.ID == first.ID {
		t.Fatal(second, ok, err)
	}
	equal(t, "losses", second.Losses, Losses{Full: 4})
	if err := s.ReportLoss(second.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok, _ := s.TakeLoss(); ok {
		t.Error("a third loss")
	}
	st := s.Stats()
	equal(t, "total and unreported", []uint64{st.Dropped.Total(), st.Unreported.Total()}, []uint64{7, 0})
}

// crashed copies a spool's folder as a kill at this moment would leave it.
func crashed(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestManyAtOnce(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxBytes: 64 << 20, SegmentBytes: 8 << 10, SyncEvery: time.Millisecond}
	s := mustOpen(t, dir, o)
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := s.Append(i%4 == 0, fmt.Appendf(nil, "%d %d %s", w, i, bytes.Repeat([]byte("y"), rand.IntN(100)))); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					s.Stats()
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	next := make([]int, writers) // per writer: the number expected next
	total := 0
	for total < writers*each {
		b, err := s.Lease(1+rand.IntN(50), 4096)
		if errors.Is(err, ErrEmpty) {
			select {
			case <-s.Notify():
			case <-done:
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if rand.IntN(3) == 0 {
			b.Release()
			continue
		}
		for _, r := range b.Records() {
			var w, i int
			if _, err := fmt.Sscanf(string(r), "%d %d", &w, &i); err != nil {
				t.Fatal(err)
			}
			if next[w] != i {
				t.Fatalf("writer %d: got record %d, want %d", w, i, next[w])
			}
			next[w]++
			total++
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	balanced(t, s)
	equal(t, "last error", s.Stats().LastError, "")
}

type badDisk struct {
	io.ReaderAt
	from, to int64 // cannot be read
}

func (d badDisk) ReadAt(b []byte, off int64) (int, error) {
	if off < d.to && off+int64(len(b)) > d.from {
		return 0, errors.New("input/output error")
	}
	return d.ReaderAt.ReadAt(b, off)
}

func TestUnreadableBlocksAreReadAround(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1024) // 16 KiB
	disk := badDisk{bytes.NewReader(content), 4096, 8192}
	for _, off := range []int64{0, 100, 5000} {
		b := make([]byte, len(content))
		n, err := readAt(disk, b, off)
		if err != nil || n != len(content)-int(off) {
			t.Fatalf("from %d: %d bytes, %v", off, n, err)
		}
		want := bytes.Clone(content)
		clear(want[4096:8192])
		if !bytes.Equal(b[:n], want[off:]) {
			t.Errorf("from %d: wrong bytes", off)
		}
	}
	if _, err := readAt(badDisk{disk, 0, 1 << 30}, make([]byte, 9000), 0); err == nil {
		t.Error("a disk that reads nothing: no error")
	}
}
