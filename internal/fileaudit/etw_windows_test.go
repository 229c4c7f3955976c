package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// twoDrives is a table with the disk C:, a stick at a folder of it, and a share that
// somebody has mapped.
type twoDrives struct{ c, stick, mapped volume.Volume }

func (d twoDrives) All() []volume.Volume { return []volume.Volume{d.c, d.stick, d.mapped} }
func (d twoDrives) Lookup(p string) (volume.Volume, bool) {
	switch {
	case isBelow(p, d.mapped.DOSName), isBelow(p, d.mapped.Share):
		return d.mapped, true
	case isBelow(p, strings.TrimSuffix(d.stick.Mount, `\`)):
		return d.stick, true
	case isBelow(p, "C:"):
		return d.c, true
	}
	return volume.Volume{}, false
}
func (twoDrives) Watch() <-chan struct{}  { return nil }
func (twoDrives) Unwatch(<-chan struct{}) {}

const disk, usbDisk = `\Device\HarddiskVolume3`, `\Device\HarddiskVolume5`

// traced is the file sensor with events of event tracing that a test makes up, and
// true files.
type traced struct {
	t     *testing.T
	on    *tracing
	out   chan *event.Event
	dir   string // on C:
	stick string
	last  uint64
}

func newTraced(t *testing.T, places []Place) *traced {
	t.Helper()
	dir, stick := winpath.Canonical(t.TempDir(), nil).Path, winpath.Canonical(t.TempDir(), nil).Path
	for i := range places {
		for j, g := range places[i].Globs {
			places[i].Globs[j] = strings.ReplaceAll(g, "DIR", dir)
		}
	}
	table := twoDrives{
		volume.Volume{Mount: `C:\`, Dev: volume.Dev{Minor: 3}, Volume: event.Volume{DOSName: "C:", NTName: disk, Kind: event.VolumeLocal, FileSystemType: "NTFS"}},
		volume.Volume{Mount: stick + `\`, Dev: volume.Dev{Minor: 5}, Volume: event.Volume{NTName: usbDisk, Kind: event.VolumeRemovable, FileSystemType: "exFAT"}},
		volume.Volume{Mount: `Z:\`, Volume: event.Volume{DOSName: "Z:", NTName: `\Device\LanmanRedirector\;Z:00000000000a1b2c\fs3\all\hr`, Share: `\\fs3\all\hr`, Kind: event.VolumeNetwork}},
	}
	w := New(Options{Table: table, Protected: places, Reads: true, Process: func(pid int) (*event.Process, *event.User) {
		names := map[int]string{9: "explorer.exe", 10: "7z.exe"}
		return &event.Process{PID: event.Some(int64(pid)), Name: names[pid], Executable: `C:\` + names[pid], EntityID: fmt.Sprint("e", pid)}, &event.User{Name: "taro"}
	}})
	ctx, cancel := context.WithCancelCause(context.Background())
	q := newQueue(1 << 16)
	b := &traced{t: t, on: w.newTracing(q, cancel), out: make(chan *event.Event, 1024), dir: dir, stick: stick}
	c := newCore(w, q, newProcesses(&w.opts), b.out)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.run(ctx, b.on, mechETW, "", 300*time.Millisecond); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(nil); wg.Wait(); b.on.close() })
	defer func() {
		if st := w.Status(); st.State != endpoint.SensorOK {
			t.Errorf("status %+v", st)
		}
	}()
	for deadline := time.Now().Add(time.Minute); len(w.Status().Watching) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is watched: %+v", w.Status())
		}
	}
	return b
}

// nt is a path as the kernel has it.
func (b *traced) nt(path string) string {
	switch {
	case strings.HasPrefix(path, b.stick):
		return usbDisk + path[len(b.stick):]
	case winpath.IsDrive(path):
		return disk + path[2:]
	}
	return `\Device\Mup` + path[1:]
}

func (b *traced) read(pid uint32, path string, size uint32) {
	b.last += 16
	b.on.event(evCreate(pid, b.last, 1, 0x60, b.nt(path)))
	b.on.event(evIO(fileRead, pid, b.last, 0, size, 0))
	b.on.event(evEnd(fileCleanup, pid, b.last))
	b.on.event(evEnd(fileClose, pid, b.last))
	time.Sleep(50 * time.Millisecond) // the order that a true program has, by a clock that steps by 16 ms
}

func (b *traced) write(pid uint32, path string, data []byte) {
	b.t.Helper()
	if winpath.IsDrive(path) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	b.last += 16
	b.on.event(evCreate(pid, b.last, 5, 0x60, b.nt(path)))
	b.on.event(evIO(fileWrite, pid, b.last, 0, uint32(len(data)), 0))
	b.on.event(evEnd(fileCleanup, pid, b.last))
	b.on.event(evEnd(fileClose, pid, b.last))
}

// told is what is told: as many events as there must be, and what comes until all is
// quiet.
func (b *traced) told(want int) (all []string) {
	for deadline := time.Now().Add(time.Minute); ; {
		quiet := 2 * time.Second
		if len(all) < want {
			quiet = time.Until(deadline)
		}
		select {
		case e := <-b.out:
			s := fmt.Sprintf("%s %s", e.Action, e.File.Path)
			if c := e.Copy; c != nil {
				s += fmt.Sprintf(" from %s share %s label %s: %s %s, %d files %d bytes", c.SourcePath, c.SourceShare, c.SourceProtected, c.Evidence, c.Confidence, c.Files.V, c.Bytes.V)
			}
			if e.Process == nil || e.User == nil || e.User.Name != "taro" || e.User.Confidence != "" || e.Sensor != mechETW {
				s += " without its process"
			}
			s = strings.ReplaceAll(strings.ReplaceAll(s, b.dir, "DIR"), b.stick, "STICK")
			all = append(all, s)
		case <-time.After(quiet):
			slices.Sort(all)
			return all
		}
	}
}

func TestCopiesWithTheirSourceByEventTracing(t *testing.T) {
	b := newTraced(t, []Place{{Label: "hr", Shares: []string{`\\fs1\hr`}}, {Label: "pay", Globs: []string{`DIR\pay\**`}}, {Label: "mapped", Globs: []string{`z:\2026\**`}}, {Label: "gone", Globs: []string{`Q:\x\**`}}})
	if err := os.Mkdir(b.dir+`\pay`, 0o755); err != nil {
		t.Fatal(err)
	}
	list, slip, zip := []byte(strings.Repeat("名簿", 900)), []byte(strings.Repeat("給与", 700)), []byte("PK\x03\x04"+strings.Repeat("\x00", 300))
	check := func(what string, want ...string) {
		t.Helper()
		if got := b.told(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
		}
	}
	b.read(9, `\\fs1\hr\list.xlsx`, uint32(len(list)))
	b.write(9, b.stick+`\list.xlsx`, list)
	check("from a share to a stick",
		`file-copied STICK\list.xlsx from \\fs1\hr\list.xlsx share \\fs1\hr label hr: same-process high, 1 files 5400 bytes`,
		`file-read \\fs1\hr\list.xlsx`)

	b.write(9, b.dir+`\list.xlsx`, list) // read a moment ago
	check("from a share to C:", `file-copied DIR\list.xlsx from \\fs1\hr\list.xlsx share \\fs1\hr label hr: same-process high, 1 files 5400 bytes`)

	b.read(10, b.dir+`\list.xlsx`, uint32(len(list))) // what C: holds is followed
	b.write(10, b.dir+`\all.zip`, zip)
	check("an archive of it on C:", `archive-created DIR\all.zip from \\fs1\hr\list.xlsx share \\fs1\hr label hr: archive medium, 1 files 5400 bytes`)

	b.read(9, b.dir+`\all.zip`, uint32(len(zip)))
	b.write(9, b.stick+`\holiday.zip`, zip)
	check("and that to the stick", `file-copied STICK\holiday.zip from DIR\all.zip share \\fs1\hr label hr: archive medium, 1 files 5400 bytes`)

	if err := os.WriteFile(b.dir+`\pay\slip.pdf`, slip, 0o600); err != nil {
		t.Fatal(err)
	}
	b.read(9, b.dir+`\pay\slip.pdf`, uint32(len(slip)))
	b.write(9, `\\fs2\open\slip.pdf`, slip)
	check("from a protected folder to another share",
		`file-copied \\fs2\open\slip.pdf from DIR\pay\slip.pdf share  label pay: same-process high, 1 files 4200 bytes`,
		`file-read DIR\pay\slip.pdf`)

	b.read(9, `\\fs3\all\hr\2026\staff.csv`, 50)
	b.write(9, b.stick+`\staff.csv`, make([]byte, 50))
	check("from a place that is named by a mapped drive",
		`file-copied STICK\staff.csv from \\fs3\all\hr\2026\staff.csv share \\fs3\all\hr label mapped: same-process high, 1 files 50 bytes`,
		`file-read \\fs3\all\hr\2026\staff.csv`)

	b.write(9, b.stick+`\a.txt:Zone.Identifier:$DATA`, []byte("[ZoneTransfer]"))
	b.write(9, b.dir+`\nothing.txt`, []byte("nothing of interest"))
	check("a mark of the Internet, and what is of nowhere")
}

func TestAMediumThatHangsHoldsUpNothingElse(t *testing.T) {
	b := newTraced(t, []Place{{Label: "pay", Globs: []string{`DIR\pay\**`}}})
	if err := os.Mkdir(b.dir+`\pay`, 0o755); err != nil {
		t.Fatal(err)
	}
	answer := make(chan struct{})
	defer close(answer)
	asked := 0
	b.on.look = func(r *record, s *sampler) bool {
		if r.dev.Minor == 5 {
			asked++ // by one at a time
			<-answer
		}
		return b.on.lookInto(r, s)
	}
	// To wait for the medium each time would take longer than this test does.
	const n, limit = 100, time.Minute
	begin := time.Now()
	for i := range n {
		b.write(9, fmt.Sprintf(`%s\%d.txt`, b.stick, i), []byte("some"))
		b.write(9, fmt.Sprintf(`%s\pay\%d.txt`, b.dir, i), []byte("some"))
	}
	copied, written := 0, 0
	for copied+written < 2*n && time.Since(begin) < limit {
		select {
		case e := <-b.out:
			switch {
			case e.Action == event.FileCopied && e.File.Size.V == 4:
				copied++
			case e.Action == event.FileWritten:
				written++
			}
		case <-time.After(time.Second):
		}
	}
	if copied != n || written != n || asked != 1 {
		t.Errorf("%d of %d copies to the medium, %d of as many files beside it, the medium asked %d times", copied, n, written, asked)
	}
}

func TestRenamesAndDeletionsByEventTracing(t *testing.T) {
	b := newTraced(t, []Place{{Label: "pay", Globs: []string{`DIR\pay\**`}}})
	if err := os.Mkdir(b.dir+`\pay`, 0o755); err != nil {
		t.Fatal(err)
	}
	rename := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
		b.last += 16
		if strings.HasSuffix(from, ".tmp") {
			from = from[:len(b.stick)] + strings.ToUpper(from[len(b.stick):]) // as programs write it
		}
		b.on.event(evCreate(9, b.last, 1, 0x200000, b.nt(from)))
		b.on.event(evPath(fileRename, 9, b.last, b.nt(to)))
		b.on.event(evEnd(fileCleanup, 9, b.last))
		b.on.event(evEnd(fileClose, 9, b.last))
	}
	b.write(9, b.stick+`\x.tmp`, []byte("0123456789"))
	rename(b.stick+`\x.tmp`, b.stick+`\final.txt`)
	if got, want := b.told(1), []string{`file-copied STICK\final.txt from  share  label :  , 1 files 10 bytes`}; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if err := os.WriteFile(b.stick+`\stays.txt`, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.dir+`\pay\slip.pdf`, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	rename(b.dir+`\pay\slip.pdf`, b.dir+`\slip.pdf`)
	if err := os.Remove(b.stick + `\final.txt`); err != nil {
		t.Fatal(err)
	}
	b.last += 16
	b.on.event(evCreate(9, b.last, 1, 0x1000, b.nt(b.stick+`\final.txt`)))
	b.on.event(evEnd(fileCleanup, 9, b.last))
	// Both fail: the file stays where and as it is.
	b.last += 16
	b.on.event(evCreate(9, b.last, 1, 0x200000, b.nt(b.stick+`\stays.txt`)))
	b.on.event(evPath(fileRename, 9, b.last, b.nt(b.dir+`\moved.txt`)))
	b.on.event(evEnd(fileCleanup, 9, b.last))
	b.on.event(evCreate(9, b.last, 1, 0x200000, b.nt(b.stick+`\stays.txt`)))
	b.on.event(evPath(fileDelete, 9, b.last, b.nt(b.stick+`\stays.txt`)))
	b.on.event(evEnd(fileCleanup, 9, b.last))
	want := []string{
		`file-copied DIR\slip.pdf from DIR\pay\slip.pdf share  label pay: rename high, 1 files 100 bytes`,
		`file-deleted STICK\final.txt`,
		`file-renamed DIR\slip.pdf from DIR\pay\slip.pdf share  label pay:  , 0 files 0 bytes`,
	}
	if got := b.told(len(want)); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestEventTracingIsRefusedWithAReason(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("only Wine refuses it for certain")
	}
	w := New(Options{Table: oneStick{}})
	src, err := w.newNative(newQueue(1), nil, func(error) {})
	if err == nil {
		src.close()
	}
	if !errors.Is(err, errUnavailable) || errors.Is(err, errNotHere) != errors.Is(err, errors.ErrUnsupported) || len(err.Error()) < 40 {
		t.Errorf("got %v", err)
	}
}
