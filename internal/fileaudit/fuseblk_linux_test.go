package fileaudit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// shown is the real table of mounts, where one is a disk that a program shows, as
// ntfs-3g does.
type shown struct {
	*volume.Table
	at string
}

func (s shown) as(v volume.Volume) volume.Volume {
	if v.Mount == s.at {
		v.FileSystemType = "fuseblk"
	}
	return v
}

func (s shown) All() []volume.Volume {
	all := slices.Clone(s.Table.All())
	for i := range all {
		all[i] = s.as(all[i])
	}
	return all
}

func (s shown) Lookup(p string) (volume.Volume, bool) {
	v, ok := s.Table.Lookup(p)
	return s.as(v), ok
}

// The program that shows a stick stops answering while files on it are opened: other
// sticks and protected folders are watched all the same, and the sensor can be stopped.
func TestADiskOfAProgramThatHangsStopsNothingElse(t *testing.T) {
	needFanotify(t)
	if _, err := exec.LookPath("bindfs"); err != nil {
		t.Skip("no bindfs (apt-get install bindfs)")
	}
	for _, kind := range []string{event.VolumeRemovable, event.VolumeLocal} {
		t.Run(kind, func(t *testing.T) {
			behind, disk, stick, hr := t.TempDir(), t.TempDir(), mountTmpfs(t), t.TempDir()
			run(t, `for i in $(seq 50); do echo $i >"$1/$i.doc"; done`, behind)
			server := exec.Command("bindfs", "-f", behind, disk)
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			gone := func() {
				_ = server.Process.Kill()
				_ = server.Wait()
				_ = unix.Unmount(disk, unix.MNT_DETACH)
			}
			t.Cleanup(gone)
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				if _, err := os.Stat(filepath.Join(disk, "1.doc")); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Skip("bindfs does not mount here")
				}
			}
			removable := []string{stick}
			if kind == event.VolumeRemovable {
				removable = append(removable, disk)
			}
			vw := volume.New(volume.Options{RemovablePaths: removable, HomeRoot: t.TempDir()})
			table := shown{vw.Table(), disk}
			// A folder on the disk is protected, so that reads there are told of a local one.
			w := New(Options{Table: table, Protected: []Place{{Label: "hr", Globs: []string{hr, disk}}}})
			ctx, cancel := context.WithCancel(t.Context())
			discard, out := make(chan *event.Event, 1024), make(chan *event.Event, 1024)
			mounts, files := make(chan error, 1), make(chan error, 1)
			go func() { mounts <- vw.Run(ctx, discard) }()
			go func() { files <- w.Run(ctx, out) }()
			defer func() { cancel(); <-mounts }()
			for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, stick) || !slices.Contains(w.Status().Watching, hr); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("status %+v", w.Status())
				}
			}
			time.Sleep(50 * time.Millisecond)
			for range 4 {
				busy := exec.Command("/bin/sh", "-c", `while :; do for f in "$1"/*; do echo >> "$f"; done; done`, "sh", disk)
				if err := busy.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = busy.Process.Kill() }) // it goes with the server
			}
			time.Sleep(300 * time.Millisecond)
			if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			run(t, `printf 12345 > "$1/while dead"; printf 123 > "$2/too"`, stick, hr)
			var got []string
			for deadline := time.After(8 * time.Second); len(got) < 2; {
				select {
				case e := <-out:
					if e.File != nil && (within(e.File.Path, stick) || within(e.File.Path, hr)) {
						got = append(got, fmt.Sprint(e.Action, " ", e.File.Name))
					}
					continue
				case <-deadline:
				}
				break
			}
			slices.Sort(got)
			if want := []string{"file-copied while dead", "file-written too"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q; status %+v", got, want, w.Status())
			}
			cancel()
			select {
			case err := <-files:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it cannot be stopped")
				gone()
				<-files
			}
		})
	}
}
