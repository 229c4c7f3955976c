package spool

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	return files // Glob sorts; names have leading zeros
}

// A spool cut off at any byte of its last segment gives every record that lies before the cut, once, counts the torn
// tail once, and takes new records.
func TestLastSegmentCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	want := numbered("r", 0, 20)
	mustAppend(t, s, true, want...)
	mustClose(t, s)
	files := segmentFiles(t, dir)
	last := files[len(files)-1]
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	frame := frameBytes + len(want[0])
	inLast := (len(whole) - headerBytes) / frame
	before := len(want) - inLast
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(last, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		broken := crashed(t, dir)
		left, torn := 0, uint64(0)
		if cut > headerBytes {
			left = (cut - headerBytes) / frame
			if (cut-headerBytes)%frame != 0 {
				torn = 1
			}
		}
		for range 2 { // the second open must not count again
			s := mustOpen(t, broken, small)
			if d := s.Stats().Dropped; d != (Losses{Torn: torn}) {
				t.Fatalf("cut at %d: dropped %+v, want %d torn", cut, d, torn)
			}
			mustClose(t, s)
		}
		s := mustOpen(t, broken, small)
		mustAppend(t, s, true, "new")
		got := drain(t, s)
		if expect := append(slices.Clone(want[:before+left]), "new"); !slices.Equal(got, expect) {
			t.Fatalf("cut at %d: got %d records, want %d", cut, len(got), len(expect))
		}
		balanced(t, s)
		mustClose(t, s)
		os.RemoveAll(broken)
	}
}

// A crash between counting a torn tail and cutting it does not count it again.
func TestTornTailIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	mustAppend(t, s, true, "a", "b")
	mustClose(t, s)
	seg := segmentFiles(t, dir)[0]
	torn := append(must(os.ReadFile(seg)), "half a frame"...)
	for range 3 {
		if err := os.WriteFile(seg, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, dir, small)
		equal(t, "dropped", s.Stats().Dropped, Losses{Torn: 1})
		mustClose(t, s)
	}
	equal(t, "drained", drain(t, mustOpen(t, dir, small)), []string{"a", "b"})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Any one byte changed costs the record it is in (or the segment, if it is in the header), and exactly that is counted.
func TestEveryByteDamaged(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	want := numbered("r", 0, 30)
	mustAppend(t, s, true, want...)
	mustClose(t, s)
	files := segmentFiles(t, dir)
	middle := files[1]
	whole := must(os.ReadFile(middle))
	frame := frameBytes + len(want[0])
	perSegment := (len(whole) - headerBytes) / frame
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 0x41
		if err := os.WriteFile(middle, b, 0o600); err != nil {
			t.Fatal(err)
		}
		broken := crashed(t, dir)
		from, lost := perSegment, perSegment
		if at >= headerBytes {
			from, lost = perSegment+(at-headerBytes)/frame, 1
		}
		expect := append(slices.Clone(want[:from]), want[from+lost:]...)
		s := mustOpen(t, broken, small)
		balanced(t, s)
		if got := drain(t, s); !slices.Equal(got, expect) {
			t.Fatalf("byte %d changed: got %d records, want %d", at, len(got), len(expect))
		}
		st := s.Stats()
		if st.Dropped != (Losses{Corrupt: uint64(lost)}) || st.BadFiles != 1 {
			t.Fatalf("byte %d changed: dropped %+v and %d bad files, want %d corrupt and 1", at, st.Dropped, st.BadFiles, lost)
		}
		balanced(t, s)
		mustClose(t, s)
		os.RemoveAll(broken)
	}
}

// The same while the spool is open, where the damage is met by Lease.
func TestDamageWhileOpen(t *testing.T) {
	for what, c := range map[string]struct {
		harm func(path string, size int64) error
		lost int // of the segment's records; -1: all
	}{
		"a byte of the first record": {func(p string, _ int64) error { return poke(p, headerBytes+30) }, 1},
		"a length":                   {func(p string, _ int64) error { return poke(p, headerBytes+7) }, 1},
		"a byte of the last record":  {func(p string, n int64) error { return poke(p, n-1) }, 1},
		"cut short":                  {func(p string, n int64) error { return os.Truncate(p, n-1) }, 1},
		"empty":                      {func(p string, n int64) error { return os.Truncate(p, 0) }, -1},
		"deleted":                    {func(p string, n int64) error { return os.Remove(p) }, -1},
	} {
		for victim := range 3 { // 0, 1: sealed, 2: being written
			t.Run(fmt.Sprint(what, victim), func(t *testing.T) {
				s := mustOpen(t, t.TempDir(), small)
				want := numbered("r", 0, 30)
				mustAppend(t, s, true, want...)
				seg := s.segs[victim]
				if err := c.harm(s.path(seg.base), seg.size); err != nil {
					t.Skip(err) // Windows does not delete what is open
				}
				held := int(seg.next - seg.base)
				lost := c.lost
				if lost < 0 {
					lost = held
				}
				got := drain(t, s)
				equal(t, "delivered", len(got), len(want)-lost)
				equal(t, "dropped", s.Stats().Dropped, Losses{Corrupt: uint64(lost)})
				balanced(t, s)
				mustAppend(t, s, true, "new")
				equal(t, "after it", drain(t, s), []string{"new"})
				balanced(t, s)
				equal(t, "records, segments at most", []int{s.Stats().Records, min(s.Stats().Segments, 1)}, []int{0, 1})
			})
		}
	}
}

func poke(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := []byte{0}
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 0x41
	_, err = f.WriteAt(b, at)
	return err
}

// Every record is small, so the bytes of a frame with the right numbers fit into one: only the salt keeps it from being
// taken for a frame when its surroundings are damaged.
func TestFrameInsideARecordIsNotARecord(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	var forged []byte
	for seq := range uint64(5) {
		forged = appendFrame(forged, crc32Seed(0), seq, 1, []byte("forged"))
	}
	if err := s.Append(true, forged); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, s, true, "true")
	mustClose(t, s)
	if err := poke(segmentFiles(t, dir)[0], headerBytes+4); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, small)
	equal(t, "drained", drain(t, s), []string{"true"})
	equal(t, "dropped", s.Stats().Dropped, Losses{Corrupt: 1})
}

func crc32Seed(salt uint64) uint32 { return header{salt: salt}.seed() }

func TestStateSurvivesATornWrite(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	want := numbered("r", 0, 9)
	mustAppend(t, s, true, want...)
	for range 3 {
		b, err := s.Lease(2, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	newer := int64(s.state.Seq%2) * slotBytes
	mustClose(t, s)
	for _, c := range []struct {
		harm []int64
		want []string
	}{
		{nil, want[6:]},
		{[]int64{newer + 20}, want[4:]},                     // one commit back
		{[]int64{newer + 20, slotBytes - newer + 20}, want}, // nothing known: all again
	} {
		broken := crashed(t, dir)
		for _, at := range c.harm {
			if err := poke(filepath.Join(broken, "state"), at); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, fmt.Sprint("harmed at ", c.harm), drain(t, mustOpen(t, broken, small)), c.want)
	}
	if err := os.Remove(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, small)
	equal(t, "no state", drain(t, s), want)
	equal(t, "dropped", s.Stats().Dropped, Losses{})
}

func TestBadSegmentsAreBounded(t *testing.T) {
	dir := t.TempDir()
	o := Options{MaxBytes: 32 << 10, SegmentBytes: 1 << 10}
	s := mustOpen(t, dir, o)
	mustAppend(t, s, true, numbered("r", 0, 200)...)
	mustClose(t, s)
	for _, f := range segmentFiles(t, dir) {
		if err := poke(f, headerBytes+30); err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, dir, o)
	drain(t, s)
	st := s.Stats()
	equal(t, "bad files of a KiB in an eighth of 32", st.BadFiles >= 3 && st.BadFiles <= 5, true)
	balanced(t, s)
}

func TestStrangeFilesDoNotStopOpen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, small)
	mustAppend(t, s, true, "a")
	mustClose(t, s)
	newer := header{base: 500, salt: 1}.append(nil)
	binary.LittleEndian.PutUint32(newer[8:], segmentVersion+1)
	for name, content := range map[string][]byte{
		"00000000000000000300.seg": bytes.Repeat([]byte{0}, 5000),
		"00000000000000000400.seg": nil,
		"00000000000000000500.seg": append(newer, "a later version's"...),
		"00000000000000000600.seg": header{base: 7}.append(nil), // renamed by somebody
		"00000000000000000700.seg": []byte("sekspool"),
		"99999999999999999999.seg": []byte("x"),
		"junk.seg":                 []byte("x"),
		"readme":                   []byte("x"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "00000000000000000800.seg"), 0o700); err != nil {
		t.Fatal(err)
	}
	told := []string{}
	o := small
	o.Aside = func(path string) { told = append(told, filepath.Base(path)) }
	s = mustOpen(t, dir, o)
	mustAppend(t, s, true, "b")
	equal(t, "drained", drain(t, s), []string{"a", "b"})
	balanced(t, s)
	equal(t, "kept aside", s.Stats().BadFiles, 3)
	equal(t, "told", told, []string{"00000000000000000300.bad", "00000000000000000500.bad", "00000000000000000600.bad"})
}

// The child appends and reports until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SPOOL_TEST_CHILD"); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

func child(dir string) {
	s, err := Open(dir, killed)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				if err := s.Append(true, []byte(id+" "+strings.Repeat("z", rand.IntN(300)))); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println("durable", id) // one write: lines do not mix
			}
		}()
	}
	for {
		b, err := s.Lease(5, 4096)
		if errors.Is(err, ErrEmpty) {
			<-s.Notify()
			continue
		}
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		if rand.IntN(2) == 0 {
			b.Release()
			time.Sleep(time.Millisecond)
			continue
		}
		var out strings.Builder
		for _, r := range b.Records() {
			id, _, _ := strings.Cut(string(r), " ")
			fmt.Fprintln(&out, "taken", id)
		}
		fmt.Print(out.String())
		if err := b.Commit(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
}

var killed = Options{MaxBytes: 64 << 20, SegmentBytes: 16 << 10}

// A process that is killed at any moment has lost nothing it called durable, and delivers nothing it had committed twice
// but for the batch it was committing.
func TestKilledProcessLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills 12 processes, some 5 s")
	}
	dir := t.TempDir()
	durable, taken := map[string]bool{}, map[string]int{}
	const rounds = 12
	for range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SPOOL_TEST_CHILD="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Some time after so many records, not after some time: a slow machine has begun by then, and a fast one has not
		// filled the spool.
		kill := len(durable) + 20 + rand.IntN(300)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			word, id, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "durable":
				if durable[id] = true; len(durable) == kill {
					time.AfterFunc(rand.N(20*time.Millisecond), func() { cmd.Process.Kill() })
				}
			case "taken":
				taken[id]++
			default:
				t.Errorf("child: %s", lines.Text())
			}
		}
		cmd.Wait()
	}
	s := mustOpen(t, dir, killed)
	for _, r := range drain(t, s) {
		id, _, _ := strings.Cut(r, " ")
		taken[id]++
	}
	balanced(t, s)
	if len(durable) < 100 {
		t.Fatalf("only %d records were appended: the test shows nothing", len(durable))
	}
	for id := range durable {
		if taken[id] == 0 {
			t.Errorf("record %s was durable and is lost", id)
		}
	}
	twice := 0
	for _, n := range taken {
		twice += n - 1
	}
	if twice > rounds*5 {
		t.Errorf("%d records came again, want at most a batch of 5 for each of %d kills", twice, rounds)
	}
	if d := s.Stats().Dropped; d.Corrupt+d.Overflow+d.Expired+d.Refused != 0 {
		t.Errorf("dropped %+v, want nothing but torn tails", d)
	}
	t.Logf("%d durable, %d delivered, %d twice, %d torn tails", len(durable), len(taken), twice, s.Stats().Dropped.Torn)
}
