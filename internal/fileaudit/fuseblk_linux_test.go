package fileaudit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// marksOn is how many fanotify groups of this program have marks on a disk, and how many
// of these are of all of it and of one file or folder.
func marksOn(t *testing.T, disk string) (groups, whole, one int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("sdev:%x ", unix.Major(st.Dev)<<20|unix.Minor(st.Dev))
	for _, fd := range fds {
		b, _ := os.ReadFile(fd)
		n := whole + one
		for line := range strings.Lines(string(b)) {
			switch {
			case strings.HasPrefix(line, "fanotify "+mark):
				whole++
			case strings.HasPrefix(line, "fanotify ino:") && strings.Contains(line, " "+mark):
				one++
			}
		}
		if whole+one > n {
			groups++
		}
	}
	return groups, whole, one
}

// A copy of a protected file is followed on a disk that may hang, too.
func TestAFollowedFileOnADiskThatHangsStopsNothingElse(t *testing.T) {
	needFanotify(t)
	behind, hr := t.TempDir(), t.TempDir()
	disk, server := shown(t, behind)
	asNTFS := func(v *volume.Volume) {
		if v.Mount == disk {
			v.FileSystemType, v.Kind = "fuseblk", event.VolumeLocal
		}
	}
	run(t, `head -c 20000 /dev/urandom > "$1/list.ods"`, hr)
	w, out := watchAs(t, Options{Protected: []Place{{Label: "hr", Globs: []string{hr}}}}, volume.Options{HomeRoot: t.TempDir()}, asNTFS, hr)
	eventually(t, "the disk is marked", func() bool { _, whole, _ := marksOn(t, disk); return whole > 0 })
	run(t, `cp "$1/list.ods" "$2/copy.ods"`, hr, disk)
	eventually(t, "the copy is followed", func() bool { _, _, one := marksOn(t, disk); return one > 0 })
	if groups, _, _ := marksOn(t, disk); groups != 1 {
		t.Errorf("%d groups have marks on the disk, want one", groups)
	}
	for range 4 {
		busy := exec.Command("/bin/sh", "-c", `while :; do cat "$1" > /dev/null; done`, "sh", filepath.Join(disk, "copy.ods"))
		if err := busy.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = busy.Process.Kill(); go busy.Wait() })
	}
	time.Sleep(300 * time.Millisecond)
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	run(t, `printf 123 > "$1/too"`, hr)
	for limit := time.After(time.Minute); ; {
		select {
		case e := <-out:
			if e.File != nil && e.File.Path == filepath.Join(hr, "too") {
				return
			}
		case <-limit:
			t.Fatalf("what is written elsewhere is not told; status %+v", w.Status())
		}
	}
}

// late is a table of mounts in which one stands for who asks for its paths before it
// does for who asks for all of them.
type late struct {
	Volumes
	mount string
	asked atomic.Bool
}

func (l *late) All() []volume.Volume {
	all := l.Volumes.All()
	if !l.asked.Load() {
		all = slices.DeleteFunc(slices.Clone(all), func(v volume.Volume) bool { return v.Mount == l.mount })
	}
	return all
}

func (l *late) Lookup(path string) (volume.Volume, bool) {
	v, ok := l.Volumes.Lookup(path)
	if ok && v.Mount == l.mount {
		l.asked.Store(true)
	}
	return v, ok
}

// The folders of a disk that may hang are marked in its own group alone, also where it
// came while folders were looked for: one in another group would hang that with it.
func TestADiskThatComesWhileFoldersAreLookedForHasItsOwnGroup(t *testing.T) {
	needFanotify(t)
	behind, hr := t.TempDir(), t.TempDir()
	disk, _ := shown(t, behind)
	asNTFS := func(v *volume.Volume) {
		if v.Mount == disk {
			v.FileSystemType = "fuseblk"
		}
	}
	ws := newWatchers(Options{Protected: []Place{{Label: "hr", Globs: []string{hr, disk}}}}, volume.Options{RemovablePaths: []string{disk}, HomeRoot: t.TempDir()}, asNTFS)
	table := &late{Volumes: ws.opts.Table, mount: disk}
	ws.opts.Table = table
	ws.start(t, hr)
	eventually(t, "the disk is asked for", table.asked.Load)
	mountTmpfs(t) // the table changes, and everything is looked for again
	eventually(t, "the disk and its folder are marked", func() bool { _, whole, one := marksOn(t, disk); return whole > 0 && one > 0 })
	if groups, _, one := marksOn(t, disk); groups != 1 {
		t.Errorf("%d groups have marks on the disk, %d of folders, want one", groups, one)
	}
}
