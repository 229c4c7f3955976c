package fileaudit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// rec makes the bytes of a fanotify record.
func rec(mask uint64, fd, pid int32, infos ...[]byte) []byte {
	b := make([]byte, fanHeader)
	ne := binary.NativeEndian
	b[4] = fanVersion
	ne.PutUint16(b[6:], fanHeader)
	ne.PutUint64(b[8:], mask)
	ne.PutUint32(b[16:], uint32(fd))
	ne.PutUint32(b[20:], uint32(pid))
	for _, i := range infos {
		b = append(b, i...)
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

// info makes the bytes of an information record with a handle and a name.
func info(kind byte, handle, name string) []byte {
	ne := binary.NativeEndian
	b := make([]byte, infoHeader+16)
	b[0] = kind
	copy(b[4:], "\x01\x02\x03\x04\x05\x06\x07\x08")
	ne.PutUint32(b[12:], uint32(len(handle)))
	ne.PutUint32(b[16:], 0x81)
	b = append(b, handle...)
	b = append(b, name...)
	b = append(b, 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	ne.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestKernelRecords(t *testing.T) {
	b := slices.Concat(
		rec(8, 17, 4321),
		rec(0x10000000, -1, 5, info(infoOldDFIDName, "handle01", ".a.txt.Xy"), info(99, "later", "kind"), info(infoNewDFIDName, "handle02", "犬\n.txt")),
		rec(0x4000, -1, 0),
	)
	var got []string
	if err := parseRecords(b, func(k kernelRecord) {
		got = append(got, fmt.Sprintf("%#x %d %d %q %q -> %q %q", k.mask, k.fd, k.pid, k.old.handle, k.old.name, k.name.handle, k.name.name))
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`0x8 17 4321 "" "" -> "" ""`,
		`0x10000000 -1 5 "handle01" ".a.txt.Xy" -> "handle02" "犬\n.txt"`,
		`0x4000 -1 0 "" "" -> "" ""`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func FuzzKernelRecords(f *testing.F) {
	f.Add(rec(8, 17, 4321))
	f.Add(rec(0x10000000, -1, 5, info(infoOldDFIDName, "handle01", "a"), info(infoNewDFIDName, "h", "b")))
	f.Add(rec(0x4000, -1, 0)[:20])
	f.Add(rec(1, 1, 1, info(infoDFIDName, strings.Repeat("x", 200), "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		err := parseRecords(b, func(k kernelRecord) {
			n++
			if len(k.name.handle) > maxHandle || len(k.old.handle) > maxHandle || strings.Contains(k.name.name, "\x00") {
				t.Errorf("record %+v", k)
			}
		})
		if n > len(b)/fanHeader {
			t.Errorf("%d records in %d bytes", n, len(b))
		}
		if err == nil && n == 0 && len(b) > 0 {
			t.Error("bytes without a record pass")
		}
	})
}

func TestSettle(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	w := func(s *settle, path string, ms int) {
		s.wrote(spot{path: path}, record{path: path, pid: 1, size: int64(ms)}, at(ms))
	}
	due := func(s *settle, ms int) (paths []string) {
		for p := s.take(at(ms)); p != nil; p = s.take(at(ms)) {
			paths = append(paths, fmt.Sprint(p.rec.path, " ", p.rec.size))
		}
		return paths
	}
	s := newSettle(300*time.Millisecond, time.Second)
	w(s, "/a", 0)
	w(s, "/b", 100)
	w(s, "/a", 250)
	if got := due(s, 399); got != nil {
		t.Errorf("too early: %q", got)
	}
	if got, want := due(s, 550), []string{"/b 100", "/a 250"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Written again and again: told after a second all the same.
	for ms := 0; ms <= 900; ms += 100 {
		w(s, "/log", ms)
	}
	if got, want := due(s, 1000), []string{"/log 900"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A rename takes the place of what waits under the new name, and folders take their files along.
	w(s, "/d/x", 0)
	w(s, "/d/.x.tmp", 1)
	w(s, "/d/sub/y", 2)
	w(s, "/dd", 3)
	if !s.renamed(spot{path: "/d/.x.tmp"}, volume.Dev{}, "/d/x", false) || !s.renamed(spot{path: "/d"}, volume.Dev{}, "/e", true) || s.renamed(spot{path: "/nobody"}, volume.Dev{}, "/e", true) {
		t.Error("renames are answered wrong")
	}
	if got, want := due(s, 5000), []string{"/e/x 1", "/e/sub/y 2", "/dd 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, ok := s.next(); ok || len(s.byKey) != 0 {
		t.Errorf("%d are left", len(s.byKey))
	}
	// Full: the one due first goes early.
	for i := range maxPending {
		w(s, fmt.Sprint("/", i), i/100)
	}
	if p := s.wrote(spot{path: "/more"}, record{path: "/more"}, at(1)); p == nil || !p.due.Equal(at(300)) {
		t.Errorf("early: %+v", p)
	}
	if n := len(due(s, 100_000)); n != maxPending {
		t.Errorf("%d told, want %d", n, maxPending)
	}
}

func TestReads(t *testing.T) {
	t0 := time.Unix(1000, 0)
	rr := newRecentReads()
	src := func(path string, size int64, sum uint64) read {
		return read{path: path, name: filepath.Base(path), size: size, sum: sum, at: t0, cargo: single(origin{path: path, size: size})}
	}
	shell := who{pid: 1, entity: "sh"}
	cp := who{pid: 10, ppid: 1, start: t0, entity: "cp"}
	rr.note(cp, src("/s/a", 100, 11)).closed = true
	rr.note(cp, src("/s/b", 100, 22)).closed = true
	rr.note(who{pid: 20, ppid: 10, start: t0, entity: "child"}, src("/s/c", 700, 0))
	tests := []struct {
		name  string
		who   who
		file  string
		size  int64
		sum   uint64
		after time.Duration
		want  string
	}{
		{"same name", cp, "/x/a", 5, 0, 0, "/s/a"},
		{"same size, the newest", cp, "/x/z", 100, 0, 0, "/s/b"},
		{"same size, other content", cp, "/x/z", 100, 33, 0, ""},
		{"neither", cp, "/x/z", 5, 0, 0, ""},
		{"small sizes are no evidence", cp, "/x/z", 0, 0, 0, ""},
		{"the file itself", cp, "/s/a", 100, 0, 0, "/s/b"},
		{"read by the parent", who{pid: 30, ppid: 10, entity: "x"}, "/x/a", 5, 0, 0, "/s/a"},
		{"read by a child", cp, "/x/c", 5, 0, 0, "/s/c"},
		{"read by a partner in a pipe", who{pid: 11, ppid: 1, start: t0.Add(time.Millisecond)}, "/x/z", 100, 22, 0, "/s/b"},
		{"a partner that wrote another size", who{pid: 11, ppid: 1, start: t0.Add(time.Millisecond)}, "/x/a", 5, 0, 0, ""},
		{"the next command of the shell", who{pid: 12, ppid: 1, start: t0.Add(time.Second)}, "/x/z", 100, 0, 0, ""},
		{"read by a child of the shell", shell, "/x/a", 5, 0, 0, "/s/a"},
		{"read by a stranger", who{pid: 40, ppid: 2}, "/x/a", 100, 0, 0, ""},
		{"another process of that id", who{pid: 10, ppid: 3, entity: "later"}, "/x/a", 100, 0, 0, ""},
		{"too long ago", cp, "/x/a", 100, 0, 2 * time.Minute, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			f := written{path: tt.file, name: filepath.Base(tt.file), size: tt.size, sum: tt.sum}
			if x, _ := rr.find(tt.who, f, t0.Add(tt.after)); x != nil {
				got = x.path
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("what went into an archive", func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			who   who
			since time.Duration
			files int64
		}{
			{"by itself and a child", cp, 0, 3},
			{"in a pipe", who{pid: 11, ppid: 1, start: t0.Add(time.Millisecond)}, 0, 2},
			{"read long before", cp, time.Second, 0},
			{"by a stranger", who{pid: 40, ppid: 2}, 0, 0},
		} {
			var files int64
			if g, _ := rr.packed(tt.who, "/x/a.zip", t0.Add(tt.since), t0.Add(time.Minute)); g != nil {
				files = g.files
			}
			if files != tt.files {
				t.Errorf("%s: %d files, want %d", tt.name, files, tt.files)
			}
		}
	})
	rr.wrote(20, "/s/c")
	if x, _ := rr.find(cp, written{path: "/x/c", name: "c", size: 700}, t0); x != nil {
		t.Errorf("a file opened to write is a source: %+v", x)
	}
	rr.note(who{pid: 10, entity: "later"}, src("/s/d", 1, 0))
	if x, _ := rr.find(who{pid: 10, entity: "later"}, written{path: "/x/a", name: "a"}, t0); x != nil {
		t.Errorf("reads of an earlier process of that id count: %+v", x)
	}
	if !rr.empty(t0.Add(time.Hour)) {
		t.Error("reads are remembered for an hour")
	}
}

// Which of several reads that explain a file is told does not depend on chance: the
// nearest of kin's, of these the newest, of these the first by name.
func TestOfEqualReadsTheSameIsTold(t *testing.T) {
	t0 := time.Unix(1000, 0)
	me := who{pid: 100, ppid: 50, start: t0, entity: "me"}
	note := func(rr *recentReads, w who, path string, at time.Duration) {
		x := read{path: path, name: filepath.Base(path), size: 100, sum: 7, at: t0.Add(at), cargo: single(origin{path: path, size: 100})}
		rr.note(w, x).closed = true
	}
	child := func(i int) who { return who{pid: 200 + i, ppid: me.pid, start: t0, entity: fmt.Sprint("child", i)} }
	beside := func(i int) who { return who{pid: 300 + i, ppid: me.ppid, start: t0, entity: fmt.Sprint("partner", i)} }
	for range 50 { // a map has another order each time
		rr := newRecentReads()
		for i := range 8 {
			note(rr, beside(i), fmt.Sprintf("/p/%d/plan", i), 9*time.Second)
		}
		f := written{path: "/x/plan", name: "plan", size: 100, sum: 7}
		if x, k := rr.find(me, f, t0); x == nil || x.path != "/p/0/plan" || k != partner {
			t.Fatalf("of partners found %+v, %d", x, k)
		}
		for i := range 8 {
			note(rr, child(i), fmt.Sprintf("/c/%d/plan", i), time.Duration(i/2)*time.Second) // two at each moment
		}
		if x, k := rr.find(me, f, t0); x == nil || x.path != "/c/6/plan" || k != family {
			t.Fatalf("of children found %+v, %d", x, k)
		}
		g, last := rr.packed(me, "/x/a.zip", t0, t0.Add(time.Minute))
		if last.path != "/c/6/plan" || g.lead().path != "/c/0/plan" || g.origins[7].path != "/c/7/plan" {
			t.Fatalf("packed last %s, first %s", last.path, g.lead().path)
		}
		if ids := rr.children(me.pid); !slices.Equal(ids, []int{206, 207, 204, 205, 202, 203, 200, 201}) {
			t.Fatalf("children %v", ids)
		}
	}
}

// However much is read, what is remembered stays within its bounds, and totals
// stay true.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	t0 := time.Unix(1000, 0)
	rr := newRecentReads()
	zip := who{pid: 7, entity: "zip"}
	const n = 100_000
	for i := range n {
		path := fmt.Sprint("/s/", i)
		rr.note(zip, read{path: path, name: path[3:], size: 10, at: t0, cargo: single(origin{path: path, size: 10})})
		if i%10 == 0 {
			other := fmt.Sprint("/o/", i)
			rr.note(who{pid: 100 + i%3000}, read{path: other, name: other[3:], at: t0.Add(-time.Second), cargo: single(origin{path: other})})
		}
		rr.note(zip, read{path: path, name: path[3:], size: 10, at: t0, cargo: single(origin{path: path, size: 10})}) // opened and read
	}
	held := 0
	for _, r := range rr.byPID {
		held += r.files.Len()
	}
	if len(rr.byPID) > maxReaders || rr.total > maxReads || rr.total != held {
		t.Errorf("%d readers, %d reads of which %d are held", len(rr.byPID), rr.total, held)
	}
	g, _ := rr.packed(zip, "/x.zip", t0, t0)
	if g == nil || g.files != n || g.bytes != 10*n || len(g.origins) != maxOrigins {
		t.Errorf("archive of %d files, %d bytes", g.files, g.bytes)
	}
	m := newMemory[int](100)
	for i := range 1000 {
		m.put(i, carrier{cargo: single(origin{})}, t0)
	}
	if _, ok := m.get(899, t0); ok || m.order.Len() != 100 || m.weight != 100 {
		t.Errorf("%d of 100 are held", m.order.Len())
	}
	if _, ok := m.get(999, t0.Add(keepFor+1)); ok {
		t.Error("held for more than a day")
	}
	for i := range 1000 {
		m.put(i, carrier{cargo: &cargo{origins: make([]*origin, maxOrigins)}}, t0)
	}
	if m.weight > maxWeight {
		t.Errorf("%d origins are held", m.weight)
	}
}

func TestSourcesOfCopyingPrograms(t *testing.T) {
	tests := []struct{ args, target, want string }{
		{"cp a b", "/w/b", "/w/a"},
		{"cp -a /src/x.doc /usb", "/usb/x.doc", "/src/x.doc"},
		{"cp -r dir /usb", "/usb/dir/s/f", "/w/dir/s/f"},
		{"cp -r dir /usb/new", "/usb/new/s/f", "/w/dir/s/f"},
		{"cp -r dir/. /usb", "/usb/s/f", "/w/dir/s/f"},
		{"mv -t /usb x y", "/usb/y", "/w/y /w/x/y"},
		{"cp --target-directory=/usb x", "/usb/x", "/w/x"},
		{"rsync -a /src/ /usb/", "/usb/s/f", "/src/s/f"},
		{"cp -- -x /usb", "/usb/-x", "/w/-x"},
		{"cp a /elsewhere", "/usb/a", ""},
		{"busybox cp a /usb", "/usb/a", "/w/a"},
		{"cp", "/usb/a", ""},
		{"cp a", "/usb/a", ""},
		{"cp ../../../../etc/x /usb", "/usb/x", "/etc/x"},
	}
	for _, tt := range tests {
		if got := strings.Join(sourcesOf(strings.Fields(tt.args), "/w", tt.target), " "); filepath.ToSlash(got) != tt.want && filepath.Separator == '/' {
			t.Errorf("%s (%s): got %q, want %q", tt.args, tt.target, got, tt.want)
		}
	}
}

func FuzzSourcesOfCopyingPrograms(f *testing.F) {
	f.Add("cp\x00-r\x00dir\x00/usb", "/w", "/usb/dir/f")
	f.Add("mv\x00-t", "", "/")
	f.Fuzz(func(t *testing.T, args, cwd, target string) {
		for _, s := range sourcesOf(strings.Split(args, "\x00"), cwd, target) {
			if s == "" {
				t.Error("an empty source")
			}
		}
	})
}

func TestPlaces(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"srv/hr/2026/a", "srv/it", "home/taro/Documents/x", "home/hanako/Documents", "home/jiro"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "srv/it/passwords.xlsx"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlaces([]Place{
		{Label: "hr", Globs: []string{root + "/srv/hr"}},
		{Label: "docs", Globs: []string{root + "/home/*/Documents/**/*.docx"}},
		{Label: "pw", Globs: []string{root + "/srv/it/passwords.xlsx"}},
		{Label: "any", Globs: []string{"**/*.secret"}},
		{Label: "all below", Globs: []string{root + "/srv/all/**", "/"}},
		{Label: "stars", Globs: []string{root + "/srv/beg**"}},
		{Label: "share", Shares: []string{`\\FS01\hr`, "nas*:/vol/hr/"}},
	})
	dirs, problems := p.dirs(func(string) bool { return false })
	for i := range dirs {
		dirs[i] = filepath.ToSlash(strings.TrimPrefix(dirs[i], root+string(filepath.Separator)))
	}
	slices.Sort(dirs)
	if filepath.Separator == '/' {
		want := []string{"home/hanako/Documents", "home/taro/Documents", "home/taro/Documents/x", "srv", "srv/hr", "srv/hr/2026", "srv/hr/2026/a", "srv/it"}
		if !slices.Equal(dirs, want) {
			t.Errorf("folders %q, want %q", dirs, want)
		}
	}
	if len(problems) != 1 || !strings.Contains(problems[0], "**/*.secret") {
		t.Errorf("problems %q", problems)
	}
	for _, tt := range []struct{ path, share, want string }{
		{root + "/srv/hr/2026/x", "", "hr"},
		{root + "/srv/hr2/x", "", ""},
		{root + "/home/taro/Documents/x/y.docx", "", "docs"},
		{root + "/home/taro/Documents/y.txt", "", ""},
		{root + "/srv/it/passwords.xlsx", "", "pw"},
		{"/anywhere/a.secret", "", "any"},
		{root + "/srv/hr", "", "hr"},
		{root + "/srv/all/x/y", "", "all below"},
		{root + "/srv/all/x\n\xff", "", "all below"},
		{root + "/srv/allx", "", ""},
		{root + "/srv/begin", "", "stars"},
		{root + "/srv/begin/x/y", "", "stars"},
		{"/mnt/x", `\\fs01\HR`, "share"},
		{"/mnt/x", `\\fs01\hr2`, ""},
		{"/mnt/x", "nas7:/vol/hr", "share"},
		{"", "", ""},
	} {
		if got := p.label(filepath.FromSlash(tt.path), tt.share); got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.path, tt.share, got, tt.want)
		}
	}
}

// oneStick is a table with one removable volume.
type oneStick struct{ volume.Volume }

func (s oneStick) All() []volume.Volume { return []volume.Volume{s.Volume} }
func (s oneStick) Lookup(p string) (volume.Volume, bool) {
	return s.Volume, within(p, s.Mount)
}
func (oneStick) Watch() <-chan struct{}  { return nil }
func (oneStick) Unwatch(<-chan struct{}) {}

func TestAFileSystemThatHangsIsAskedOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCore(New(Options{}), newQueue(1), newProcesses(&Options{}), nil)
		dead, alive := volume.Dev{Major: 8, Minor: 1}, volume.Dev{Major: 8, Minor: 2}
		var asked atomic.Int32
		over := make(chan struct{})
		ask := func(dev volume.Dev) error {
			_, err := ask(c.stuck, dev, func() (os.FileInfo, error) {
				if dev == dead {
					asked.Add(1)
					<-over
				}
				return nil, nil
			})
			return err
		}
		for range 100 {
			if err := ask(dead); !errors.Is(err, errStuck) {
				t.Fatalf("got %v, want errStuck", err)
			}
			time.Sleep(time.Hour)
		}
		if err := ask(alive); err != nil || asked.Load() != 1 {
			t.Errorf("the other file system: %v; %d questions hang", err, asked.Load())
		}
		close(over)
		synctest.Wait()
		if err := ask(dead); err != nil {
			t.Errorf("after it answered: %v", err)
		}
	})
}

func TestAQuestionThatPanicsIsTheErrorOfWhoAsks(t *testing.T) {
	err := guard(func() error {
		_, err := ask(stuck{}, volume.Dev{}, func() (int, error) { panic("of the test") })
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "of the test") {
		t.Errorf("got %v", err)
	}
}

// The mechanism that every system has.
func TestNotificationsTellCopiesWithoutTheProcess(t *testing.T) {
	dir := t.TempDir()
	v := volume.Volume{Mount: dir, Volume: event.Volume{MountName: dir, Kind: event.VolumeRemovable, FileSystemType: "exfat"}}
	if fi, err := os.Stat(dir); err == nil {
		v.Dev, _ = identity(fi)
	}
	w := New(Options{Table: oneStick{v}, LesserOnly: true})
	out := make(chan *event.Event, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); w.Status().State != endpoint.SensorDegraded; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	want := map[string]int64{}
	for i := range 20 {
		p := filepath.Join(dir, "a", "b", fmt.Sprintf("文書 %02d.DOCX", i))
		want[p] = int64(i)
		if err := os.WriteFile(p, make([]byte, i), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	timeout := time.After(20 * time.Second)
	for len(want) > 0 {
		select {
		case e := <-out:
			if e.File == nil || e.Action != event.FileCopied {
				continue
			}
			if size, ok := want[e.File.Path]; !ok || e.Copy.Bytes.V != size || e.File.Extension != "docx" || len(e.Errors) == 0 {
				t.Errorf("told %+v %+v", e.File, e.Copy)
			}
			delete(want, e.File.Path)
		case <-timeout:
			t.Fatalf("not told: %v", want)
		}
	}
}

func BenchmarkKernelRecords(b *testing.B) {
	var buf []byte
	for range 100 {
		buf = append(buf, rec(8, 17, 4321)...)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = parseRecords(buf, func(kernelRecord) {})
	}
}

func BenchmarkSettle(b *testing.B) {
	s := newSettle(300*time.Millisecond, time.Second)
	now := time.Unix(0, 0)
	paths := make([]string, 1000)
	for i := range paths {
		paths[i] = fmt.Sprint("/media/usb/", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now = now.Add(time.Millisecond)
		s.wrote(spot{path: paths[i%1000]}, record{path: paths[i%1000]}, now)
		s.take(now)
	}
}

func BenchmarkLabel(b *testing.B) {
	p := newPlaces([]Place{{Label: "a", Globs: []string{"/srv/hr/**", "/home/*/Documents/**", "/srv/x/**/*.docx"}}})
	b.ReportAllocs()
	for b.Loop() {
		p.label("/home/taro/src/project/internal/file.go", "")
	}
}
