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
	"sync/atomic"
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
	// begun counts the drives that are watched: the last thing that is done then is to
	// look whether the drive is about to leave.
	begun   atomic.Int64
	leaving atomic.Pointer[string] // Mount of the volume that is marked so; nil: none
	release func(mount string)
}

func (a *asking) mark(v *volume.Volume) {
	at := a.leaving.Load()
	v.Leaving = at != nil && v.Mount == *at
}

func (a *asking) All() []volume.Volume {
	all := slices.Clone(a.Table.All())
	for i := range all {
		a.mark(&all[i])
	}
	return all
}

func (a *asking) Lookup(path string) (volume.Volume, bool) {
	if strings.HasSuffix(path, `:\`) {
		a.begun.Add(1)
	}
	v, ok := a.Table.Lookup(path)
	a.mark(&v)
	return v, ok
}

func (a *asking) OnLeave(release func(mount string)) (stop func()) {
	a.release = release // before anything is watched
	return func() {}
}

func (a *asking) leave(mount string) {
	a.leaving.Store(&mount)
	a.release(mount)
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	if o.Quiet == 0 {
		o.Quiet = 2 * time.Second // so long may a test stand still between two steps of one thing
	}
	vols := volume.New(volume.Options{Poll: 100 * time.Millisecond, StatTimeout: time.Minute})
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
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if slices.Contains(b.w.Status().Watching, dir) == want {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("%s watched: not %v within a minute: %+v", dir, want, b.w.Status())
		}
	}
}

// gather returns what is told, health left out: as many events as there must be, and
// what comes until all is quiet.
func (b *bench) gather(want int) (all []*event.Event) {
	for limit := time.After(time.Minute); len(all) < want; {
		select {
		case e := <-b.out:
			all = addNews(all, e)
		case <-limit:
			return all
		}
	}
	for {
		select {
		case e := <-b.out:
			all = addNews(all, e)
		case <-time.After(3 * time.Second):
			return all
		}
	}
}

func addNews(all []*event.Event, e *event.Event) []*event.Event {
	if e.Action == event.SensorDegraded || e.Action == event.SensorRecovered {
		return all
	}
	return append(all, e)
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
	for _, e := range b.gather(len(want)) {
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
		for _, e := range b.gather(2) {
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
	write := func(name string, want int) []*event.Event {
		t.Helper()
		if err := os.WriteFile(s.root()+name, []byte("again"), 0o600); err != nil {
			t.Fatal(err)
		}
		return b.gather(want)
	}
	b.table.leave(s.root())
	if all := write("unseen.txt", 0); len(all) != 0 {
		t.Errorf("told %d events of a drive that was let go of", len(all))
	}
	before := b.table.begun.Load()
	b.table.leaving.Store(nil)
	b.w.SetProtected(nil) // as a change of the table does
	for deadline := time.Now().Add(time.Minute); b.table.begun.Load() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a drive that stays is not taken up again")
		}
	}
	if all := write("stays.txt", 1); len(all) != 1 {
		t.Errorf("told %d events of a drive that stays", len(all))
	}
	defineDrive(t, s.letter, 1, s.dir)
	b.watching(s.root(), false)
	defineDrive(t, s.letter, 2, s.dir)
	b.watching(s.root(), true)
	if all := write("again.txt", 1); len(all) != 1 || all[0].Action != event.FileCopied || all[0].Copy.Bytes.V != 5 {
		t.Errorf("told %d events of a drive that came back", len(all))
	}
}

func TestTheSystemGivesBackWhatIsLetGoOf(t *testing.T) {
	dir := t.TempDir()
	w := New(Options{Table: twoDrives{}})
	src, err := w.newLesser(newQueue(64), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	c := src.(*changes)
	defer c.close()
	v := volume.Volume{Mount: dir + `\`, Dev: volume.Dev{Minor: 5}, Volume: event.Volume{Kind: event.VolumeRemovable}}
	if watching, problems := c.sync([]volume.Volume{v}, newPlaces(nil)); len(watching) != 1 || len(problems) > 0 {
		t.Fatalf("%q are watched, problems %q", watching, problems)
	}
	c.release(v.Mount)
	left := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.roots)
	}
	for deadline := time.Now().Add(time.Minute); left() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the buffer of a folder that was let go of does not come back")
		}
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
	watching, problems := c.sync(vols, newPlaces(nil))
	for deadline := time.Now().Add(time.Minute); len(watching) == 0 && time.Now().Before(deadline); { // a busy machine may have seemed to hang, too
		time.Sleep(10 * time.Millisecond)
		watching, problems = c.sync(vols, newPlaces(nil))
	}
	if len(watching) != 1 || !strings.EqualFold(watching[0], winpath.Canonical(other, nil).Path) || len(problems) != 1 || !strings.Contains(problems[0], errStuck.Error()) {
		t.Errorf("%q are watched, problems %q", watching, problems)
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
	// That it was asked is over a moment after the handle was closed.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if watching, problems = c.sync(vols, newPlaces(nil)); len(watching) == 2 && len(problems) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after its answer %q are watched, problems %q", watching, problems)
		}
	}
}

func TestAStickThatVanishesInMidCopy(t *testing.T) {
	s := newStick(t, 'n')
	if err := os.WriteFile(s.root()+"before.txt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, Options{Quiet: time.Hour}) // what is told of them is told for their end
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
	if err := os.Remove(s.root() + "before.txt"); err != nil {
		t.Fatal(err)
	}
	if all := b.gather(1); len(all) != 1 || all[0].Action != event.FileDeleted { // so that what was before it was seen
		t.Fatalf("%d events while nothing rests", len(all))
	}
	defineDrive(t, s.letter, 1, s.dir)
	told := map[string]int64{}
	for _, e := range b.gather(21) {
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
	for deadline := time.Now().Add(time.Minute); missed == 0 && seen < 1000 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
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
