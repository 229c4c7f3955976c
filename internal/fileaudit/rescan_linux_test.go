package fileaudit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// deadDisk mounts a file system of a program that never answers. Let it go with gone.
func deadDisk(t *testing.T) (at string, gone func()) {
	t.Helper()
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	at = t.TempDir()
	if err := unix.Mount("disk", at, "fuse.disk", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		unix.Close(fuse)
		t.Skipf("mount FUSE: %v", err)
	}
	done := false
	gone = func() {
		if !done {
			done = true
			unix.Close(fuse) // lets the questions go that hang
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	}
	t.Cleanup(gone)
	return at, gone
}

// What was lost is looked for on all disks but those that hang, which is told for as
// long as they do; a folder that somebody made a pipe of holds nobody up.
func TestALookForWhatWasLostLeavesOutADiskThatHangs(t *testing.T) {
	dead, gone := deadDisk(t)
	stick, hr := mountTmpfs(t), t.TempDir()
	below := filepath.Join(stick, "server") // another file system, below the stick
	run(t, `mkdir -p "$1/a/b" "$1/server"; echo 1 > "$1/a/b/x"; echo 1 > "$2/y"; mkfifo "$2/z"`, stick, hr)
	if err := unix.Mount(dead, below, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
	of := func(at, kind, fsType string, id int) (v volume.Volume) {
		v.Mount, v.MountName, v.MountID, v.Kind, v.FileSystemType, v.Dev = at, at, id, kind, fsType, volume.Dev{Minor: uint32(1000 + id)}
		return v
	}
	stuckStick, goodStick, root := of(dead, event.VolumeRemovable, "fuseblk", 1), of(stick, event.VolumeRemovable, "tmpfs", 2), of("/", event.VolumeLocal, "ext4", 3)
	fi, err := os.Stat(stick)
	if err != nil {
		t.Fatal(err)
	}
	goodStick.Dev, _ = identity(fi)
	vols := volumes{stuckStick, goodStick, of(below, event.VolumeNetwork, "nfs", 4), root}
	w := New(Options{Table: vols, Protected: []Place{{Label: "hr", Globs: []string{dead + "/**", hr + "/**"}}}})
	c := newCore(w, newQueue(1000), newProcesses(&w.opts), make(chan *event.Event, 100))
	c.vols, c.place, c.since, c.wait, c.src, c.mech = vols, w.space.Load(), time.Now().Add(-time.Hour), time.Second, noSource{}, mechFanotify
	c.set = newSettle(time.Second, time.Second)
	began := time.Now()
	c.rescanNow(t.Context())
	select {
	case <-c.scan.done:
	case <-time.After(2 * time.Minute):
		scan := c.scan
		gone()
		<-scan.done
		t.Fatal("it waits for the disk that hangs")
	}
	t.Logf("it took %v", time.Since(began).Round(time.Millisecond))
	var got []string
	for _, r := range c.q.take() {
		got = append(got, r.path)
	}
	slices.Sort(got)
	want := []string{filepath.Join(stick, "a/b/x"), filepath.Join(hr, "y")}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	c.scanned(t.Context())
	if s, want := w.Status(), "look for what was lost on "+dead+": file system does not answer"; s.Reason != want {
		t.Errorf("status %+v, want %q", s, want)
	}
	gone()
	for deadline := time.Now().Add(2 * time.Minute); w.Status().Reason != ""; time.Sleep(10 * time.Millisecond) {
		if c.q.tookResync() {
			c.sync(t.Context())
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v once it answers", w.Status())
		}
	}
}

// noSource is a mechanism that tells nothing.
type noSource struct{}

func (noSource) sync([]volume.Volume, *places) (watching, problems []string) { return nil, nil }
func (noSource) follow(string, fileKey)                                      {}
func (noSource) unfollow(string, fileKey)                                    {}
func (noSource) close()                                                      {}
