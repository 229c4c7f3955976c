package fileaudit

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// defineDrive makes a drive appear or go (kind 2 and 1) through Wine's mount
// manager; see server/mountmgr in Wine.
func defineDrive(t *testing.T, letter byte, kind uint32, dir string) {
	t.Helper()
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("only Wine lets a test make a drive")
	}
	if err := setDrive(letter, kind, dir); err != nil {
		t.Fatalf("define drive: %v", err)
	}
}

func setDrive(letter byte, kind uint32, dir string) error {
	name, _ := windows.UTF16PtrFromString(`\\.\MountPointManager`)
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(h)
	b := make([]byte, 32)
	binary.LittleEndian.PutUint32(b[4:], kind)
	binary.LittleEndian.PutUint16(b[24:], uint16(letter))
	binary.LittleEndian.PutUint16(b[26:], 32)
	b = append(append(b, dir...), 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	var n uint32
	return windows.DeviceIoControl(h, 0x6dc080, &b[0], uint32(len(b)), nil, 0, &n, nil)
}

// stick is a removable drive of Wine.
type stick struct {
	letter byte
	dir    string // of Linux
}

func newStick(t *testing.T, letter byte) stick {
	t.Helper()
	dir, err := os.MkdirTemp(`Z:\tmp`, "stick")
	if err != nil {
		t.Skipf("no folder of Linux to make a drive of: %v", err)
	}
	s := stick{letter, strings.ReplaceAll(dir[2:], `\`, "/")}
	defineDrive(t, letter, 2, s.dir)
	t.Cleanup(func() {
		_ = setDrive(letter, 1, s.dir) // it may be gone
		_ = os.RemoveAll(dir)
	})
	return s
}

func (s stick) root() string { return strings.ToUpper(string(s.letter)) + `:\` }

// bench is a running file sensor with the table of a running volume sensor.
type bench struct {
	t     *testing.T
	w     *Watcher
	table *asking
	out   chan *event.Event
}

// asking is a table of volumes that asks for handles when a test says so.
type asking struct {
	*volume.Table
	mu      sync.Mutex
	release func(mount string)
}

func (a *asking) OnLeave(release func(mount string)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release = release
	return func() {}
}

func (a *asking) leave(mount string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release(mount)
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	vols := volume.New(volume.Options{Poll: 100 * time.Millisecond})
	b := &bench{t: t, table: &asking{Table: vols.Table()}, out: make(chan *event.Event, 16384)}
	o.Table = b.table
	b.w = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	drop := make(chan *event.Event, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := vols.Run(ctx, drop); err != nil {
			t.Errorf("volumes: %v", err)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-drop:
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() {
		if err := b.w.Run(ctx, b.out); err != nil {
			t.Errorf("files: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

// watching waits until a folder is watched, or no longer is.
func (b *bench) watching(dir string, want bool) {
	b.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if slices.Contains(b.w.Status().Watching, dir) == want {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s watched: not %v within 15 s: %+v", dir, want, b.w.Status())
		}
	}
}

// gather returns what is told until nothing came for a while, health left out.
func (b *bench) gather(quiet time.Duration) (all []*event.Event) {
	for {
		select {
		case e := <-b.out:
			if e.Action != event.SensorDegraded && e.Action != event.SensorRecovered {
				all = append(all, e)
			}
		case <-time.After(quiet):
			return all
		}
	}
}

func TestEightyFilesCopiedToAStick(t *testing.T) {
	b := newBench(t, Options{})
	s := newStick(t, 'k')
	b.watching(s.root(), true)
	if st := b.w.Status(); st.State != endpoint.SensorLimited && st.State != endpoint.SensorDegraded || st.Mechanism != mechChanges || st.Reason == "" {
		t.Errorf("status %+v", st)
	}
	want := map[string]int64{}
	for i := range 80 {
		p := s.root() + fmt.Sprintf("名簿 %02d.XLSX", i)
		want[p] = int64(1000*i + 7)
		if err := os.WriteFile(p, make([]byte, want[p]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var files, bytes, sum int64
	for _, e := range b.gather(4 * time.Second) {
		size, ok := want[e.File.Path]
		if e.Action != event.FileCopied || !ok || e.Copy.Bytes.V != size || e.File.Size.V != size || e.File.Extension != "xlsx" || e.Volume.DOSName != "K:" ||
			e.File.VolumeKind != event.VolumeRemovable || len(e.Copy.SourceIDs) != 1 || len(e.Errors) == 0 || e.Sensor != mechChanges {
			t.Errorf("told %s %+v %+v %q", e.Action, e.File, e.Copy, e.Errors)
		}
		if e.User != nil && e.User.Confidence == "" {
			t.Errorf("the user is told as if it were known: %+v", e.User)
		}
		delete(want, e.File.Path)
		files, bytes = files+e.Copy.Files.V, bytes+e.Copy.Bytes.V
	}
	for i := range int64(80) {
		sum += 1000*i + 7
	}
	if files != 80 || bytes != sum || len(want) > 0 {
		t.Errorf("told %d files, %d bytes; want 80, %d; not told: %v", files, bytes, sum, want)
	}
}

func TestRenamesAndDeletionsOnAStick(t *testing.T) {
	b := newBench(t, Options{})
	s := newStick(t, 'l')
	b.watching(s.root(), true)
	at := func(name string) string { return s.root() + name }
	write := func(name string, n int) {
		if err := os.WriteFile(at(name), make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	do := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	write("download.tmp", 500) // written, then renamed at once: told once, by its final name
	do(os.Rename(at("download.tmp"), at("final.docx")))
	write("old.txt", 10)
	var got []string
	tell := func() {
		for _, e := range b.gather(3 * time.Second) {
			from := ""
			if e.Copy != nil && e.Copy.SourcePath != "" {
				from = " from " + e.Copy.SourcePath
			}
			got = append(got, fmt.Sprintf("%s %s%s", e.Action, e.File.Path, from))
		}
		slices.Sort(got)
	}
	tell()
	if want := []string{`file-copied L:\final.docx`, `file-copied L:\old.txt`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	do(os.Rename(at("old.txt"), at("new.txt")))
	do(os.Remove(at("final.docx")))
	tell()
	if want := []string{`file-deleted L:\final.docx`, `file-renamed L:\new.txt from L:\old.txt`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTheHandleIsLetGoOfAndTakenUpAgain(t *testing.T) {
	b := newBench(t, Options{})
	s := newStick(t, 'm')
	b.watching(s.root(), true)
	write := func(name string) []*event.Event {
		t.Helper()
		if err := os.WriteFile(s.root()+name, []byte("again"), 0o600); err != nil {
			t.Fatal(err)
		}
		return b.gather(3 * time.Second)
	}
	began := time.Now()
	b.table.leave(s.root())
	if d := time.Since(began); d >= letGoWait {
		t.Errorf("letting go took %v", d)
	}
	if all := write("unseen.txt"); len(all) != 0 {
		t.Errorf("told %d events of a drive that was let go of", len(all))
	}
	b.w.SetProtected(nil) // as a change of the table does
	time.Sleep(500 * time.Millisecond)
	if all := write("stays.txt"); len(all) != 1 {
		t.Errorf("told %d events of a drive that stays", len(all))
	}
	defineDrive(t, s.letter, 1, s.dir)
	b.watching(s.root(), false)
	defineDrive(t, s.letter, 2, s.dir)
	b.watching(s.root(), true)
	if all := write("again.txt"); len(all) != 1 || all[0].Action != event.FileCopied || all[0].Copy.Bytes.V != 5 {
		t.Errorf("told %d events of a drive that came back", len(all))
	}
}

func TestAMediumThatHangsKeepsNoOtherFromBeingWatched(t *testing.T) {
	hung, other := t.TempDir(), t.TempDir()
	vols := []volume.Volume{
		{Mount: hung + `\`, Dev: volume.Dev{Minor: 5}, Volume: event.Volume{Kind: event.VolumeRemovable}},
		{Mount: other + `\`, Dev: volume.Dev{Minor: 6}, Volume: event.Volume{Kind: event.VolumeRemovable}},
	}
	w := New(Options{Table: twoDrives{}})
	src, err := w.newLesser(newQueue(64), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	c := src.(*changes)
	defer c.close()
	answer, opened := make(chan struct{}), make(chan windows.Handle, 1)
	c.openRoot = func(path string) (windows.Handle, string, error) {
		if !strings.EqualFold(path, winpath.Canonical(hung, nil).Path) {
			return openRoot(path)
		}
		<-answer
		h, called, err := openRoot(path)
		opened <- h
		return h, called, err
	}
	begin := time.Now()
	watching, problems := c.sync(vols, newPlaces(nil))
	if len(watching) != 1 || !strings.EqualFold(watching[0], winpath.Canonical(other, nil).Path) || len(problems) != 1 || !strings.Contains(problems[0], errStuck.Error()) || time.Since(begin) > 10*time.Second {
		t.Errorf("after %v %q are watched, problems %q", time.Since(begin), watching, problems)
	}
	close(answer)
	h := <-opened
	closed := func() bool {
		var info windows.ByHandleFileInformation
		return windows.GetFileInformationByHandle(h, &info) != nil
	}
	for deadline := time.Now().Add(time.Minute); !closed(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was opened too late stays open, and keeps the medium from being removed")
		}
	}
	if watching, problems = c.sync(vols, newPlaces(nil)); len(watching) != 2 || len(problems) > 0 {
		t.Errorf("after its answer %q are watched, problems %q", watching, problems)
	}
}

func TestAStickThatVanishesInMidCopy(t *testing.T) {
	b := newBench(t, Options{})
	s := newStick(t, 'n')
	b.watching(s.root(), true)
	for i := range 20 {
		if err := os.WriteFile(s.root()+fmt.Sprint(i, ".txt"), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half, err := os.Create(s.root() + "half.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := half.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(800 * time.Millisecond) // less than a file has to rest
	defineDrive(t, s.letter, 1, s.dir)
	told := map[string]int64{}
	for _, e := range b.gather(4 * time.Second) {
		if e.Action == event.FileCopied {
			told[filepath.Base(e.File.Path)] = e.Copy.Bytes.V
		}
	}
	if len(told) != 21 || told["half.bin"] != 5000 || told["7.txt"] != 100 {
		t.Errorf("told %d files, want 21: %v", len(told), told)
	}
}

// A reader that does not come to read: what does not fit into the buffer is lost,
// and that is told.
func TestMoreChangesThanTheBufferHolds(t *testing.T) {
	w := New(Options{Table: oneStick{}})
	q := newQueue(1 << 16)
	src, err := w.newLesser(q, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	c := src.(*changes)
	dir := winpath.Canonical(t.TempDir(), nil).Path
	v := volume.Volume{Mount: dir, Volume: event.Volume{Kind: event.VolumeRemovable}}
	if _, problems := c.sync([]volume.Volume{v}, w.space.Load()); len(problems) > 0 {
		t.Fatal(problems)
	}
	c.mu.Lock()
	for i := range 1000 {
		if err := os.WriteFile(dir+fmt.Sprintf(`\%04d %s`, i, strings.Repeat("長", 60)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.mu.Unlock()
	seen, missed := 0, uint64(0)
	for deadline := time.Now().Add(20 * time.Second); missed == 0 && seen < 1000 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		missed += q.tookLost().sought
		for _, r := range q.take() {
			if q.done(); r.kind == recWrote {
				seen++
			}
		}
	}
	t.Logf("seen %d, missed %d", seen, missed)
	if missed == 0 && seen < 1000 {
		t.Errorf("%d of 1000 files seen, and no loss told", seen)
	}
}

func TestFactsAndNamesOfFiles(t *testing.T) {
	dir := t.TempDir()
	long := dir
	for range 5 {
		long += `\` + strings.Repeat("長", 60)
	}
	dev := volume.Dev{Minor: 7}
	for _, name := range []string{dir + `\a.txt`, long + `\b.txt`} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, 12345), 0o600); err != nil {
			t.Fatal(err)
		}
		fi, err := lstat(winpath.Canonical(name, nil).Path, dev)
		if err != nil {
			t.Fatal(err)
		}
		at, id := identity(fi)
		if fi.Size() != 12345 || !fi.Mode().IsRegular() || at != dev || id == 0 || time.Since(changeTime(fi)) > time.Minute {
			t.Errorf("%.60s: %+v", name, fi)
		}
	}
	if fi, err := lstat(dir, dev); err != nil || !fi.IsDir() {
		t.Errorf("a folder: %+v, %v", fi, err)
	}
	if _, err := lstat(dir+`\none`, dev); !os.IsNotExist(err) {
		t.Errorf("what is not there: %v", err)
	}
	h, err := openFacts(strings.ToUpper(dir)+`\A.TXT`, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(h)
	if name, err := finalName(h); err != nil || !strings.HasSuffix(name, `\a.txt`) {
		t.Errorf("true name %q, %v", name, err)
	}
	if !attached("", &volume.Volume{Mount: `C:\`}) || attached("", &volume.Volume{Mount: `Q:\`}) {
		t.Error("C: is not there, or Q: is")
	}
	if got := nameOf(`C:\a\b.txt:s`) + " " + extension("b.xlsx. ") + " " + program(&event.Process{Name: "ROBOCOPY.EXE"}); got != "b.txt xlsx robocopy" {
		t.Errorf("got %q", got)
	}
}

func TestWhoseFilesAre(t *testing.T) {
	path := winpath.Canonical(t.TempDir(), nil).Path + `\a.txt`
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var p people
	g := p.whose(path)
	t.Logf("owner %q, person %+v", g.owner, g.person)
	if g.owner == "" && g.person == nil {
		t.Error("nobody is known")
	}
	if g.person != nil && (g.person.ID == "" || g.person.Confidence != medium.String() && g.person.Confidence != low.String()) {
		t.Errorf("person %+v", g.person)
	}
	if g = p.whose(`Q:\none`); g.owner != "" || g.person != nil && g.person.Confidence != low.String() {
		t.Errorf("of a file that is not there: %+v", g)
	}
	for sid, want := range map[string]bool{"S-1-5-21-1-2-3-1001": true, "S-1-12-1-1-2-3-4": true, "S-1-5-18": false, "S-1-5-32-544": false, "S-1-1-0": false, "": false} {
		if isPerson(sid) != want {
			t.Errorf("%s is a person: %v", sid, !want)
		}
	}
}

// The layouts that the system reads and writes.
func TestLayouts(t *testing.T) {
	var tag struct{ attributes, tag uint32 }
	if unsafe.Sizeof(tag) != 8 || unsafe.Sizeof(windows.Overlapped{}) != 32 || unsafe.Sizeof(windows.ByHandleFileInformation{}) != 52 || unsafe.Sizeof(windows.IO_STATUS_BLOCK{}) != 16 {
		t.Error("a structure is not as the headers have it")
	}
}

func TestBasesOfProtectedPlaces(t *testing.T) {
	dir := winpath.Canonical(t.TempDir(), nil).Path
	if err := os.WriteFile(dir+`\one.txt`, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlaces([]Place{{Globs: []string{`C:\HR\**`, `C:/pay/*/2026/**`, dir, dir + `\one.txt`, `\\fs1\hr\x\**`, `**\secret\*`, `D:\**`}}})
	want := []string{`C:\hr`, `C:\pay`, dir, dir, `\\fs1\hr\x`, `D:\`}
	got, problems := p.bases(func(path string) bool { return strings.HasSuffix(path, `one.txt`) })
	if !slices.EqualFunc(got, want, func(b base, path string) bool { return strings.EqualFold(b.path, path) }) || len(problems) != 1 {
		t.Errorf("got %v, want %q; %q", got, want, problems)
	}
}
