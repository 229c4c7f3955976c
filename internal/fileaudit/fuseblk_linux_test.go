package fileaudit

import (
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// The program that shows a stick stops answering while files on it are opened: other
// sticks and protected folders are watched all the same, and the sensor can be stopped.
func TestADiskOfAProgramThatHangsStopsNothingElse(t *testing.T) {
	needFanotify(t)
	for _, kind := range []string{event.VolumeRemovable, event.VolumeLocal} {
		t.Run(kind, func(t *testing.T) {
			behind, stick, hr := t.TempDir(), mountTmpfs(t), t.TempDir()
			run(t, `for i in $(seq 50); do echo $i >"$1/$i.doc"; done`, behind)
			disk, server := shown(t, behind)
			removable := []string{stick}
			if kind == event.VolumeRemovable {
				removable = append(removable, disk)
			}
			// As ntfs-3g does. A folder on the disk is protected, so that reads there are told
			// of a local one.
			asNTFS := func(v *volume.Volume) {
				if v.Mount == disk {
					v.FileSystemType = "fuseblk"
				}
			}
			w, out := watchAs(t, Options{Protected: []Place{{Label: "hr", Globs: []string{hr, disk}}}}, volume.Options{RemovablePaths: removable, HomeRoot: t.TempDir()}, asNTFS, stick, hr)
			for range 4 {
				busy := exec.Command("/bin/sh", "-c", `while :; do for f in "$1"/*; do echo >> "$f"; done; done`, "sh", disk)
				if err := busy.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = busy.Process.Kill(); go busy.Wait() }) // it goes with the program
			}
			time.Sleep(300 * time.Millisecond)
			if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			run(t, `printf 12345 > "$1/while dead"; printf 123 > "$2/too"`, stick, hr)
			var got []string
			for limit := time.After(time.Minute); len(got) < 2; {
				select {
				case e := <-out:
					if e.File != nil && (within(e.File.Path, stick) || within(e.File.Path, hr)) {
						got = append(got, fmt.Sprint(e.Action, " ", e.File.Name))
					}
				case <-limit:
					t.Fatalf("got %q; status %+v", got, w.Status())
				}
			}
			slices.Sort(got)
			if want := []string{"file-copied while dead", "file-written too"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q; status %+v", got, want, w.Status())
			}
		})
	}
}
