package judge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/rules"

	"golang.org/x/sys/unix"
)

// On a full disk judging goes on and says what may be forgotten; once there is
// room, nothing is.
func TestOnAFullDiskJudgingGoesOnAndSaysSo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	disk := t.TempDir()
	if err := unix.Mount("judge-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p := pack(t, rules.Options{})
	dir, other := filepath.Join(disk, "judge"), filepath.Join(disk, "somebody else's")
	fill := func() {
		f, err := os.OpenFile(other, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, n := range []int{1 << 16, 4096, 512, 1} {
			for {
				if _, err := f.Write(make([]byte, n)); err != nil {
					if !errors.Is(err, unix.ENOSPC) {
						t.Fatal(err)
					}
					break
				}
			}
		}
	}
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
	fill()
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
	fill()
	if j = mustOpen(t, filepath.Join(disk, "new"), Options{Program: p}); !strings.Contains(j.Stats().Problem, "no space left") {
		t.Errorf("got %q", j.Stats().Problem)
	}
	raise(5)
	if err := errors.Join(j.Sync(), j.Checkpoint(), j.Close()); err != nil {
		t.Error(err)
	}
}
