package volume

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

func TestDrivesOfThisMachine(t *testing.T) {
	w := New(Options{})
	list, err := w.drives()
	if err != nil {
		t.Fatal(err)
	}
	w.table.set(newMounts(list))
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	v, ok := w.Table().Lookup(`\\?\` + strings.ToLower(home))
	if !ok || v.FileSystemType == "" || v.NTName == "" || !strings.EqualFold(v.DOSName, filepath.VolumeName(home)) {
		t.Errorf("%s lies on %+v, %v", home, v, ok)
	}
	if again, ok := w.Table().Lookup(v.NTName + `\x`); !ok || again.DOSName != v.DOSName {
		t.Errorf("%s lies on %+v, %v; want %s", v.NTName, again, ok, v.DOSName)
	}
}

// defineDrive makes a drive appear or go (kind 2 and 1) through Wine's mount
// manager; see server/mountmgr in Wine.
func defineDrive(t *testing.T, letter byte, kind uint32, dir string) {
	t.Helper()
	name, _ := windows.UTF16PtrFromString(`\\.\MountPointManager`)
	h, err := windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		t.Skipf("no mount manager to ask: %v", err)
	}
	defer windows.CloseHandle(h)
	b := make([]byte, 32)
	binary.LittleEndian.PutUint32(b[4:], kind)
	binary.LittleEndian.PutUint16(b[24:], uint16(letter))
	binary.LittleEndian.PutUint16(b[26:], 32)
	b = append(append(b, dir...), 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	var n uint32
	if err := windows.DeviceIoControl(h, 0x6dc080, &b[0], uint32(len(b)), nil, 0, &n, nil); err != nil {
		t.Fatalf("define drive: %v", err)
	}
}

// looked waits until a sensor has seen what is there already.
func looked(t *testing.T, w *Watcher) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); len(w.Table().All()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no drive is known: %+v", w.Status())
		}
	}
}

func TestAFolderThatHasALetterIsOfItsVolume(t *testing.T) {
	dir := t.TempDir()
	letter := wide("S:")
	if err := windows.DefineDosDevice(0, letter, wide(dir)); err != nil {
		t.Skipf("cannot SUBST: %v", err)
	}
	defer windows.DefineDosDevice(windows.DDD_REMOVE_DEFINITION, letter, wide(dir))
	if got := substituted(dosDevice("S:")); got != dir {
		t.Fatalf("S: stands for %q, want %q", got, dir)
	}
	for declared, want := range map[string]string{"": event.VolumeLocal, filepath.VolumeName(dir): event.VolumeRemovable} {
		w := New(Options{RemovablePaths: []string{declared}})
		list, err := w.drives()
		if err != nil {
			t.Fatal(err)
		}
		w.table.set(newMounts(list))
		v, ok := w.table.Lookup(`S:\x.txt`)
		if !ok || v.DOSName != "S:" || v.Kind != want {
			t.Errorf("with %q removable it lies on %+v, %v; want kind %s", declared, v, ok, want)
		}
	}
}

func TestObjectsOfTheKernelAreListed(t *testing.T) {
	if size := unsafe.Sizeof(windows.NTUnicodeString{}); size != 16 {
		t.Errorf("UNICODE_STRING has %d bytes, want 16 (amd64)", size)
	}
	letters := objects(`\??`, "SymbolicLink", 10_000)
	if !slices.Contains(letters, "C:") {
		t.Fatalf("no C: among %q", letters)
	}
	if got := linkTarget(`\??\C:`); got != dosDevice("C:") {
		t.Errorf("C: leads to %q, want %q", got, dosDevice("C:"))
	}
	if got := objects(`\??`, "SymbolicLink", 1); len(got) > 1 {
		t.Errorf("%d of at most 1", len(got))
	}
	if got := objects(`\no such directory`, "Directory", 10); got != nil {
		t.Errorf("got %q", got)
	}
	if got := linkTarget(`\??\no such link`); got != "" {
		t.Errorf("got %q", got)
	}
	for _, v := range mappedDrives() { // whatever there is
		if v.Share == "" || !v.Told() {
			t.Errorf("got %+v", v)
		}
	}
}

func TestADeviceIsOpenedByItsName(t *testing.T) {
	h, err := openDevice(dosDevice("C:"), windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		t.Fatal(err)
	}
	windows.CloseHandle(h)
	if _, err := openDevice(`\Device\HarddiskVolume999`, windows.FILE_READ_ATTRIBUTES); err == nil {
		t.Error("a device that is none was opened")
	}
}

func TestADriveComesAndGoesUnderWine(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("only Wine lets a test make a drive")
	}
	w := New(Options{Poll: 100 * time.Millisecond, StatTimeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx, out); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer func() { cancel(); wg.Wait() }()
	next := func() *event.Event {
		for {
			select {
			case e := <-out:
				if e.Volume.DOSName == "K:" {
					return e
				}
			case <-time.After(time.Minute):
				t.Fatal("no event within a minute")
			}
		}
	}
	looked(t, w)
	if s := w.Status(); cfgmgr.Available() != nil && (s.State != endpoint.SensorLimited || s.Mechanism != mechanismPolling || !strings.Contains(s.Reason, "CM_Register_Notification")) {
		t.Errorf("without notifications it says %+v", s)
	}
	defineDrive(t, 'k', 2, "/tmp")
	e := next()
	if v := e.Volume; e.Action != event.VolumeMounted || v.Kind != event.VolumeRemovable || !v.Removable.V || !v.Size.OK || !v.Writable.V || v.NTName == "" {
		t.Errorf("got %s %+v, want a removable drive", e.Action, v)
	}
	if v, ok := w.Table().Lookup(`k:\a\b.txt`); !ok || v.DOSName != "K:" {
		t.Errorf("a file on it lies on %+v, %v", v, ok)
	}

	// Asked to let go of it, by the device's name, as Windows does.
	n := notices{w: w, changed: make(chan struct{}, 1)}
	released := make(chan string, 1)
	defer w.Table().OnLeave(func(mount string) { released <- mount })()
	n.heard(e.Volume.NTName, cfgmgr.Event{Action: cfgmgr.QueryRemove})
	select {
	case mount := <-released:
		if v, _ := w.Table().Lookup(`K:\`); mount != `K:\` || !v.Leaving {
			t.Errorf("let go of %q; marked as leaving: %v", mount, v.Leaving)
		}
	default:
		t.Error("nobody let go of it before the answer")
	}
	n.heard(e.Volume.NTName, cfgmgr.Event{Action: cfgmgr.QueryRemoveFailed})
	if v, _ := w.Table().Lookup(`K:\`); v.Leaving || len(n.changed) != 1 {
		t.Errorf("it stays, and is marked as leaving: %v; a look is due: %v", v.Leaving, len(n.changed) == 1)
	}
	defineDrive(t, 'k', 1, "/tmp")
	if e := next(); e.Action != event.VolumeUnmounted || e.Volume.Kind != event.VolumeRemovable {
		t.Errorf("got %s %+v, want its end", e.Action, e.Volume)
	}
}

// registered is a registration for one volume.
type registered struct{ closed *int }

func (r registered) Close() error { *r.closed++; return nil }

func TestWhatIsHeardOfAVolumeIsAskedForAnewAfterItsRemovalWasTried(t *testing.T) {
	made, closed := 0, 0
	n := notices{w: New(Options{}), changed: make(chan struct{}, 1), all: &cfgmgr.Listener{}, each: map[string]io.Closer{},
		register: func(string) io.Closer { made++; return registered{&closed} }}
	const device = `\Device\HarddiskVolume5`
	stick := []Volume{{Volume: event.Volume{NTName: device, Kind: event.VolumeRemovable}}}
	for _, c := range []struct {
		name         string
		heard        []cfgmgr.Action
		there        []Volume
		made, closed int // so far
	}{
		{"it comes", nil, stick, 1, 0},
		{"nothing happens", nil, stick, 1, 0},
		{"it may go, and stays", []cfgmgr.Action{cfgmgr.QueryRemove, cfgmgr.QueryRemoveFailed}, stick, 2, 1},
		{"nothing happens then", nil, stick, 2, 1},
		{"it is pulled, and another has its name before anybody looks", []cfgmgr.Action{cfgmgr.RemoveComplete}, stick, 3, 2},
		{"it goes", []cfgmgr.Action{cfgmgr.QueryRemove, cfgmgr.RemovePending, cfgmgr.RemoveComplete}, nil, 3, 3},
	} {
		for _, a := range c.heard {
			n.heard(device, cfgmgr.Event{Action: a})
		}
		if n.watch(c.there); made != c.made || closed != c.closed {
			t.Errorf("%s: %d were made and %d closed, want %d and %d", c.name, made, closed, c.made, c.closed)
		}
	}
}

func TestVolumesByTheConfigurationManager(t *testing.T) {
	if err := cfgmgr.Available(); err != nil || windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("make test-wine runs it with a stand-in for the configuration manager, which tells of a volume each 0.3 s")
	}
	w := New(Options{Poll: time.Hour, StatTimeout: time.Minute}) // what is seen is told
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 64)
	released := make(chan bool, 8) // whether it was marked
	w.Table().OnLeave(func(mount string) {
		if mount == `K:\` {
			v, _ := w.Table().Lookup(mount)
			select {
			case released <- v.Leaving:
			default: // it is asked again and again
			}
		}
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx, out); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	defer func() { cancel(); wg.Wait() }()
	next := func() *event.Event {
		for {
			select {
			case e := <-out:
				if e.Volume.DOSName == "K:" {
					return e
				}
			case <-time.After(time.Minute):
				t.Fatal("no event within a minute")
			}
		}
	}
	looked(t, w)
	defineDrive(t, 'k', 2, "/tmp")
	if e := next(); e.Action != event.VolumeMounted || e.Sensor != mechanismNotify {
		t.Errorf("got %s by %s", e.Action, e.Sensor)
	}
	for _, why := range []string{"to remove it", "to lock it"} {
		select {
		case marked := <-released:
			if !marked {
				t.Errorf("asked for handles, %s, but it is not marked as leaving", why)
			}
		case <-time.After(time.Minute):
			t.Fatalf("handles were not asked for, %s", why)
		}
	}
	stays := func() bool { v, ok := w.Table().Lookup(`K:\`); return ok && !v.Leaving }
	for begin := time.Now(); !stays(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("it was unlocked, and is marked as leaving still")
		}
	}
	if s := w.Status(); s.State != endpoint.SensorOK || s.Mechanism != mechanismNotify {
		t.Errorf("state %+v", s)
	}
	defineDrive(t, 'k', 1, "/tmp")
	if e := next(); e.Action != event.VolumeUnmounted {
		t.Errorf("got %s", e.Action)
	}
}
