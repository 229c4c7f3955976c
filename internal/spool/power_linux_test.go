package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mountImage mounts a file system image and returns how to take it down.
func mountImage(t *testing.T, image, dir string) (unmount func()) {
	t.Helper()
	// No periodic commit: what reaches the image is what somebody has synced.
	if out, err := exec.Command("mount", "-o", "loop,commit=300", image, dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount an image here: %v: %s", err, out)
	}
	mounted := true
	unmount = func() {
		if !mounted {
			return
		}
		mounted = false
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}
	t.Cleanup(unmount)
	return unmount
}

// Loss of power, for real but for the disk's own cache: the spool works on a file system in an image, and a copy of the image is
// what the disk would hold. On the copy every durable record is there, nothing committed comes again, and the counts agree.
func TestLossOfPower(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount an image")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		mkfs = "/usr/sbin/mkfs.ext4"
		if _, err := os.Stat(mkfs); err != nil {
			t.Skip("needs mkfs.ext4")
		}
	}
	work := t.TempDir()
	image, disk := filepath.Join(work, "image"), filepath.Join(work, "disk")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 24<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %v: %s", err, out)
	}
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	mountImage(t, image, disk)

	o := Options{MaxBytes: 1 << 20, SegmentBytes: 4 << 10, SyncEvery: time.Hour}
	s := mustOpen(t, filepath.Join(disk, "spool"), o)
	var queue []string // waiting
	n, durable := 0, 0 // appended; of these surely on disk
	var committed uint64
	lost := false // buffered records were missing in some copy
	for round := range 12 {
		for range 1 + rand.IntN(60) {
			if rand.IntN(5) < 4 {
				rec := fmt.Sprintf("%d %s", n, strings.Repeat("p", rand.IntN(400)))
				d := rand.IntN(4) == 0
				if err := s.Append(d, []byte(rec)); err != nil {
					t.Fatal(err)
				}
				queue = append(queue, rec)
				n++
				if d {
					durable = n
				}
				continue
			}
			b, err := s.Lease(1+rand.IntN(10), 1<<20)
			if errors.Is(err, ErrEmpty) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			k := len(b.Records())
			if err := b.Commit(); err != nil {
				t.Fatal(err)
			}
			queue = queue[k:]
			committed += uint64(k)
		}
		func() { // the power is cut here
			cut, dir := filepath.Join(work, fmt.Sprint("cut", round)), filepath.Join(work, fmt.Sprint("disk", round))
			copyFile(t, image, cut)
			defer os.Remove(cut)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			defer mountImage(t, cut, dir)()
			c := mustOpen(t, filepath.Join(dir, "spool"), o)
			defer c.Close()
			st := c.Stats()
			if st.Committed != committed {
				t.Errorf("round %d: %d committed, want %d", round, st.Committed, committed)
			}
			if d := st.Dropped; d.Total() != d.Torn {
				t.Errorf("round %d: dropped %+v, want torn tails at most", round, d)
			}
			got := drain(t, c)
			need := max(0, durable-(n-len(queue))) // of those that wait
			if len(got) < need || len(got) > len(queue) {
				t.Fatalf("round %d: %d records on the disk, want from %d (durable) to %d", round, len(got), need, len(queue))
			}
			equal(t, "records", got, queue[:len(got)])
			lost = lost || len(got) < len(queue)
			balanced(t, c)
		}()
	}
	if !lost {
		t.Error("every unsynced record was on the disk each time: the copies are not what a loss of power leaves")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}
