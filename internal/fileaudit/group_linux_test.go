package fileaudit

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/event"
)

// What was read while the reader of records hung is told late, and may have been read
// before an archive was closed: it is part of it.
func TestAReadThatIsKnownLateIsPartOfAnArchive(t *testing.T) {
	needFanotify(t)
	share := mountTmpfs(t)
	run(t, `cd "$1"; for f in a b c; do head -c 1000 /dev/urandom > $f; done`, share)
	w := New(Options{Table: oneStick{}})
	q := newQueue(100)
	src, err := w.newNative(q, newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	hang := make(chan struct{})
	first := true
	g, err := f.open(onShares, func(g *group, b []byte) {
		if first {
			first = false
			<-hang
		}
		f.readFiles(g, b)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, maskReads, unix.AT_FDCWD, share); err != nil {
		t.Fatal(err)
	}
	run(t, `cat "$1/a" > /dev/null; sleep 0.1; cat "$1/b" > /dev/null`, share)
	closed := time.Now() // the archive
	time.Sleep(3 * lateFor)
	close(hang)
	time.Sleep(3 * lateFor)
	run(t, `cat "$1/c" > /dev/null`, share)
	time.Sleep(3 * lateFor)
	rr := newRecentReads()
	zip := who{pid: 7, entity: "zip"}
	for _, r := range q.take() {
		x := read{path: r.path, name: filepath.Base(r.path), size: r.size, at: r.at, late: r.late, cargo: single(origin{path: r.path, size: r.size, kind: event.VolumeNetwork})}
		rr.note(zip, x)
	}
	files := map[string]bool{}
	if c, _ := rr.packed(zip, "/x.zip", closed.Add(-readFor), closed.Add(lateFor)); c != nil {
		for _, o := range c.origins {
			files[filepath.Base(o.path)] = true
		}
	}
	if len(files) != 2 || !files["a"] || !files["b"] {
		t.Errorf("packed are %v, want a and b", files)
	}
}
