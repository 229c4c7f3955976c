package fileaudit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// diskAt is a table with the disk that a folder lies on.
func diskAt(t *testing.T, at string) volumes {
	t.Helper()
	fi, err := os.Stat(at)
	if err != nil {
		t.Fatal(err)
	}
	var v volume.Volume
	v.Mount, v.MountName, v.MountID, v.Kind, v.FileSystemType = at, at, mountUnder(at, 1), event.VolumeLocal, "ext4"
	v.Dev, _ = identity(fi)
	return volumes{v}
}

// inodeMarks is how many files and folders a group has marked.
func inodeMarks(t *testing.T, g *group) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", g.fd))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "fanotify ino:")
}

// Folders that are made in a protected place and moved away, again and again: each
// mark would hold a folder in the kernel's memory.
func TestAFolderThatWasMovedAwayIsNotWatchedAnyMore(t *testing.T) {
	needFanotify(t)
	disk := mountExt4(t, "32M")
	hr, open := filepath.Join(disk, "hr"), filepath.Join(disk, "open")
	run(t, `mkdir "$1" "$2"; for i in $(seq 20); do mkdir "$1/$i"; done`, hr, open)
	all := diskAt(t, disk)
	w := New(Options{Table: all})
	src, err := w.newNative(newQueue(1000), newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	places := func() *places { return newPlaces([]Place{{Label: "hr", Globs: []string{hr}}}) }
	if dirs, problems := f.sync(all, places()); len(problems) > 0 || inodeMarks(t, f.main) != 21 || inodeMarks(t, f.names) != 21 {
		t.Fatalf("%d folders, %d and %d are marked, want 21; problems %q", len(dirs), inodeMarks(t, f.main), inodeMarks(t, f.names), problems)
	}
	run(t, `mv "$1"/1* "$2"; rmdir "$1/20"`, hr, open)
	f.sync(all, places())
	if n, m := inodeMarks(t, f.main), inodeMarks(t, f.names); n != 9 || m != 9 {
		t.Errorf("%d and %d are marked, want 9", n, m)
	}
}

// Where the kernel's queue of names overflows, folders come that nobody tells.
func TestFoldersAreLookedForAfterNamesWereLost(t *testing.T) {
	needFanotify(t)
	disk := mountExt4(t, "32M")
	all := diskAt(t, disk)
	w := New(Options{Table: all})
	q := newQueue(1000)
	src, err := w.newNative(q, newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	p := newPlaces([]Place{{Label: "hr", Globs: []string{disk + "/*/hr"}}})
	f.sync(all, p)
	before := inodeMarks(t, f.main)    // lost+found, in which such a folder may come
	run(t, `mkdir -p "$1/a/hr"`, disk) // the folder above is no place, so this is not told
	time.Sleep(3 * foldersWait)
	if f.sync(all, p); inodeMarks(t, f.main) != before {
		t.Fatal("it was looked for anyway")
	}
	overflow := make([]byte, fanHeader)
	overflow[0], overflow[4], overflow[6] = fanHeader, fanVersion, fanHeader
	overflow[9] = unix.FAN_Q_OVERFLOW >> 8
	for i := 16; i < 20; i++ {
		overflow[i] = 0xff
	}
	f.readNames(f.names, overflow)
	if !q.tookResync() || q.tookLost().sought != 1 {
		t.Error("the loss is not told")
	}
	if f.sync(all, p); inodeMarks(t, f.main) != before+1 {
		t.Errorf("%d folders are marked, want %d", inodeMarks(t, f.main), before+1)
	}
}

// Nobody takes events while much is read on a share: what is written to a stick then
// is not lost for it.
func TestReadsAreLetGoOfBeforeWrites(t *testing.T) {
	q := newQueue(10)
	for i := range 20 {
		q.push(record{kind: []recordKind{recOpened, recRead}[i%2]})
	}
	var all []record
	for i := range 8 {
		all = append(all, record{kind: recWrote, idle: i >= 6})
	}
	q.pushAll(all)
	if l := q.tookLost(); l != (losses{sought: 1, gone: 17}) {
		t.Errorf("lost %+v, want 15 reads, 2 of no interest and 1 write", l)
	}
	if n := len(q.take()); n != 10 {
		t.Errorf("%d are in the queue, want 10", n)
	}

	needFanotify(t)
	share, stick := mountTmpfs(t), mountTmpfs(t)
	run(t, `cd "$1"; head -c 200000 /dev/zero | split -b 100 -a 4 - f`, share)
	vw := volume.New(volume.Options{RemovablePaths: []string{stick}, HomeRoot: t.TempDir()})
	out, done := make(chan *event.Event), make(chan error, 2)
	w := New(Options{Table: table{vw.Table(), asShares(map[string]string{share: "nas:/hr"})}, Reads: true, MaxQueued: 2000}) // with room for what others write on the disk meanwhile
	go func() { done <- vw.Run(t.Context(), make(chan *event.Event, 1024)) }()
	go func() { done <- w.Run(t.Context(), out) }()
	t.Cleanup(func() { <-done; <-done })
	for deadline := time.Now().Add(time.Minute); len(w.Status().Watching) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	time.Sleep(50 * time.Millisecond)
	run(t, `cat "$1"/* > /dev/null; sleep 0.2; for i in $(seq 50); do echo $i > "$2/$i"; done; sleep 0.2`, share, stick)
	told, lost := 0, int64(0)
	for _, e := range collect(out, 1, 4*time.Second) {
		switch {
		case e.Lost != nil:
			lost += e.Lost.Count.V
		case e.Action == event.FileCopied && e.Process != nil:
			told++
		}
	}
	if told != 50 || lost == 0 || w.Status().Lost != uint64(lost) {
		t.Errorf("%d of 50 files are told with the process that wrote them, %d records lost; status %+v", told, lost, w.Status())
	}
}
