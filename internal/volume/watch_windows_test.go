package volume

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"

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

func TestADriveComesAndGoesUnderWine(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("only Wine lets a test make a drive")
	}
	w := New(Options{Poll: 100 * time.Millisecond})
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
			case <-time.After(10 * time.Second):
				t.Fatal("no event within 10 s")
			}
		}
	}
	time.Sleep(500 * time.Millisecond) // what is there already
	defineDrive(t, 'k', 2, "/tmp")
	e := next()
	if v := e.Volume; e.Action != event.VolumeMounted || v.Kind != event.VolumeRemovable || !v.Removable.V || !v.Size.OK || !v.Writable.V || v.NTName == "" {
		t.Errorf("got %s %+v, want a removable drive", e.Action, v)
	}
	if v, ok := w.Table().Lookup(`k:\a\b.txt`); !ok || v.DOSName != "K:" {
		t.Errorf("a file on it lies on %+v, %v", v, ok)
	}
	defineDrive(t, 'k', 1, "/tmp")
	if e := next(); e.Action != event.VolumeUnmounted || e.Volume.Kind != event.VolumeRemovable {
		t.Errorf("got %s %+v, want its end", e.Action, e.Volume)
	}
}
