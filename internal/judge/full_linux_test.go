package judge

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sekisho/internal/disktest"
	"sekisho/internal/rules"
)

// On a full disk judging goes on and says what may be forgotten; once there is
// room, nothing is.
func TestOnAFullDiskJudgingGoesOnAndSaysSo(t *testing.T) {
	disk := disktest.New(t, "2m")
	p := pack(t, rules.Options{})
	dir, other := filepath.Join(disk, "judge"), filepath.Join(disk, "somebody else's")
	j := mustOpen(t, dir, Options{Program: p})
	n := 0
	raise := func(k int) {
		t.Helper()
		for range k {
			if a := j.Event(attached(n, fmt.Sprint("S", n))); len(a) != 1 {
				t.Fatalf("stick %d: %d alerts", n, len(a))
			}
			n++
		}
	}
	raise(20)
	disktest.Fill(t, other)
	raise(200)
	st := j.Stats()
	if st.Missing == 0 || !strings.Contains(st.Problem, "disk is full") {
		t.Fatalf("it is hidden: %+v", st)
	}
	if err := j.Checkpoint(); err == nil {
		t.Fatal("a checkpoint could be written: the disk is not full")
	}
	if j.Due() {
		t.Error("it tries again at once")
	}
	raise(20)

	// A kill now takes what is missing, and nothing else.
	missing := j.Stats().Missing
	kill(t, j)
	j = mustOpen(t, dir, Options{Program: p})
	if r := j.Recovery(); r.Afresh != nil || r.Lost != 0 || r.Events != int64(n)-missing || j.Stats().Problem != "" {
		t.Fatalf("%d events, %d missing: %+v, %s", n, missing, r, j.Stats().Problem)
	}
	raise(20)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	known := j.Stats().Events
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Missing != 0 || st.Problem != "" {
		t.Errorf("with room again: %+v", st)
	}
	kill(t, j)
	j = mustOpen(t, dir, Options{Program: p})
	if r := j.Recovery(); r.Events != 0 || r.Afresh != nil || j.Stats().Events != known {
		t.Errorf("%+v, %d events of %d", r, j.Stats().Events, known)
	}
	for i := n - 20; i < n; i++ {
		if a := j.Event(attached(n, fmt.Sprint("S", i))); len(a) != 0 {
			t.Errorf("stick %d is forgotten", i)
		}
	}
	kill(t, j)

}

// On a disk that is full from the start nothing is kept, until there is room: then
// all is that was counted before, as if it had been from the start.
func TestAJudgeThatBeganOnAFullDiskKeepsAllOnceThereIsRoom(t *testing.T) {
	disk := disktest.New(t, "32m")
	dir, other := filepath.Join(disk, "judge"), filepath.Join(disk, "somebody else's")
	disktest.Fill(t, other)
	o := Options{Program: streamProgram(t), Limits: streamLimits(50, 3)}
	j, always := mustOpen(t, dir, o), mustOpen(t, t.TempDir(), o)
	n := int64(0)
	alike := func(events int64) {
		t.Helper()
		for end := n + events; n < end; n++ {
			got, want := ids(j.Event(streamed(n, 50))), ids(always.Event(streamed(n, 50)))
			if !slices.Equal(got, want) {
				t.Fatalf("event %d: alerts %v, want %v", n, got, want)
			}
			if n%100 == 0 { // what repeats joined is given out as well
				got, want = ids(j.Updates()), ids(always.Updates())
				if !slices.Equal(got, want) {
					t.Fatalf("event %d: updates %v, want %v", n, got, want)
				}
			}
		}
	}
	alike(2000)
	if st := j.Stats(); !strings.Contains(st.Problem, "no space left") {
		t.Fatalf("%+v", st)
	}
	if err := j.StartCheckpoint(); err == nil || !strings.Contains(j.Stats().Problem, "no space left") {
		t.Fatalf("the disk is full still: %v, %+v", err, j.Stats())
	}
	alike(500)
	if err := errors.Join(j.Sync(), j.Checkpoint()); err != nil {
		t.Error(err)
	}

	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	j.tried = j.tried.Add(-retryAfter)
	if !j.Due() {
		t.Fatal("no new try is due")
	}
	if err := j.StartCheckpoint(); err != nil {
		t.Fatal(err)
	}
	alike(500)
	if err := j.store.wait(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Problem != "" || st.Since.IsZero() || st.Checkpoint.IsZero() || st.Missing != 0 || st.Events != n {
		t.Errorf("with room: %+v", st)
	}
	if len(j.given) != len(always.given) || len(j.given) == 0 {
		t.Errorf("%d alerts are not known to be kept, want %d", len(j.given), len(always.given))
	}
	j.Kept(100)
	always.Kept(100)
	for range 3 {
		kill(t, j)
		j = mustOpen(t, dir, o)
		if r := j.Recovery(); r.Afresh != nil || r.Lost != 0 {
			t.Fatalf("afresh: %v, lost: %d", r.Afresh, r.Lost)
		}
		always.Updates() // given out by the recovery
		alike(1500)
	}
}

// A store that holds what an earlier run counted, and could not be opened in time,
// is not written to.
func TestAStoreThatOpensTooLateIsLeftAsItIs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "judge")
	o := Options{Program: pack(t, rules.Options{})}
	j := mustOpen(t, dir, o)
	j.Event(attached(0, "S0"))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j.store = nil
	if err := os.Rename(dir, dir+" elsewhere"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j = mustOpen(t, dir, o); j.Stats().Problem == "" {
		t.Fatal("it works without a folder")
	}
	j.Event(attached(1, "S1"))
	if err := errors.Join(os.Remove(dir), os.Rename(dir+" elsewhere", dir)); err != nil {
		t.Fatal(err)
	}
	if err := j.StartCheckpoint(); err == nil || !strings.Contains(j.Stats().Problem, "restart the agent") {
		t.Fatalf("%v, %+v", err, j.Stats())
	}
	if j = mustOpen(t, dir, o); j.Recovery().Afresh != nil || j.Stats().Events != 1 || len(j.Event(attached(2, "S0"))) != 0 {
		t.Errorf("afresh: %v, %+v", j.Recovery().Afresh, j.Stats())
	}
}

// A disk that is too full for the new database leaves the old one.
func TestADatabaseStaysWhereThereIsNoRoomForAnother(t *testing.T) {
	disk := disktest.New(t, "64m")
	o := Options{Program: streamProgram(t), Limits: streamLimits(50, 3)}
	dir := filepath.Join(disk, "judge")
	alike := flooded(t, dir, o)
	path := filepath.Join(dir, dbName)
	before, want := size(t, path), content(t, path)
	disktest.Fill(t, filepath.Join(disk, "other"))
	s, afresh, err := openStore(dir)
	if err != nil || afresh != nil {
		t.Fatal(err, afresh)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if size(t, path) != before || !bytes.Equal(content(t, path), want) {
		t.Error("it is not as it was")
	}
	if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("windows.db.new is left: %v", err)
	}
	if err := os.Remove(filepath.Join(disk, "other")); err != nil {
		t.Fatal(err)
	}
	j := mustOpen(t, dir, o)
	if j.Recovery().Afresh != nil {
		t.Fatal(j.Recovery().Afresh)
	}
	alike(j)
}
