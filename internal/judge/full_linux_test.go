package judge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

	// And on a disk that is full from the start nothing is kept.
	disktest.Fill(t, other)
	if j = mustOpen(t, filepath.Join(disk, "new"), Options{Program: p}); !strings.Contains(j.Stats().Problem, "no space left") {
		t.Errorf("got %q", j.Stats().Problem)
	}
	raise(5)
	if err := errors.Join(j.Sync(), j.Checkpoint(), j.Close()); err != nil {
		t.Error(err)
	}
}
