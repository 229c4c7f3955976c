package cfgmgr

import (
	"errors"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

func TestLayout(t *testing.T) {
	var x filter
	if size, at := unsafe.Sizeof(x), unsafe.Offsetof(x.handle); size != 416 || at != 16 {
		t.Errorf("CM_NOTIFY_FILTER has %d bytes and its union is at %d, want 416 and 16 (amd64)", size, at)
	}
	if size, at := unsafe.Sizeof(Key{}), unsafe.Offsetof(Key{}.ID); size != 20 || at != 16 {
		t.Errorf("DEVPROPKEY has %d bytes, its pid is at %d; want 20 and 16", size, at)
	}
}

func TestTheCallbackOfAnyThreadReachesItsListener(t *testing.T) {
	var got []Event
	registry.Lock()
	registry.last++
	id := registry.last
	registry.by = map[uintptr]func(Event){id: func(e Event) { got = append(got, e) }}
	registry.Unlock()
	data := eventData(0, USBDevice[:], utf16z(stickPath))
	for _, context := range []uintptr{id, id + 1} { // the second is nobody's
		if r, _, _ := syscall.SyscallN(callback(), 0, context, uintptr(Arrived), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data))); r != 0 {
			t.Errorf("answers %d, a veto", r)
		}
	}
	if r, _, _ := syscall.SyscallN(callback(), 0, id, uintptr(Arrived), 0, 0); r != 0 {
		t.Errorf("answers %d to nothing", r)
	}
	if len(got) != 1 || got[0].Path != stickPath {
		t.Errorf("got %+v", got)
	}
}

func TestAThreadThatIsNotOursMayCall(t *testing.T) {
	// One argument of five is enough for a listener that there is not.
	h, _, err := windows.NewLazySystemDLL("kernel32.dll").NewProc("CreateThread").Call(0, 0, callback(), 1, 0, 0)
	if h == 0 {
		t.Fatal(err)
	}
	defer windows.CloseHandle(windows.Handle(h))
	if r, err := windows.WaitForSingleObject(windows.Handle(h), 60_000); r != windows.WAIT_OBJECT_0 {
		t.Fatalf("it does not end: %d, %v", r, err)
	}
}

// underStandIn skips where there is no configuration manager, or a real one:
// test/wine/testdata has one whose devices are known.
func underStandIn(t *testing.T) {
	if err := Available(); err != nil || windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("make test-wine runs it with a stand-in for the configuration manager")
	}
}

func TestTheTreeOfTheConfigurationManager(t *testing.T) {
	underStandIn(t)
	paths, err := Interfaces(USBDevice, "")
	if err != nil || len(paths) != 1 || Instance(paths[0]) != `usb\vid_046d&pid_c52b\6&2d7f6a2&0&4` {
		t.Fatalf("interfaces %q, %v", paths, err)
	}
	if none, err := Interfaces(Disk, ""); err != nil || none != nil {
		t.Errorf("disks %q, %v", none, err)
	}
	n, err := Locate(Instance(paths[0]))
	if err != nil {
		t.Fatal(err)
	}
	if id := n.ID(); id != `USB\VID_046D&PID_C52B\6&2D7F6A2&0&4` {
		t.Errorf("id %q", id)
	}
	if got := n.Strings(CompatibleIDs); len(got) != 2 || got[1] != `USB\COMPOSITE` {
		t.Errorf("compatible ids %q", got)
	}
	if got, port := n.String(ReportedName), n.Strings(LocationPaths); got != "USB Receiver" || len(port) != 1 || port[0] != "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(1)" {
		t.Errorf("says %q, is at %q", got, port)
	}
	if got, ok := n.Uint32(Address); !ok || got != 4 {
		t.Errorf("address %d, %v", got, ok)
	}
	if got := n.Strings(HardwareIDs); got != nil {
		t.Errorf("hardware ids %q of none", got)
	}
	child, ok := n.Child()
	next, more := child.Sibling()
	_, third := next.Sibling()
	above, up := next.Parent()
	if !ok || !more || third || !up || above != n || child.ID() != `USB\VID_046D&PID_C52B&MI_00\7&1&0&0000` || next.ID() != `USB\VID_046D&PID_C52B&MI_01\7&1&0&0001` {
		t.Errorf("below it: %s, %s", child.ID(), next.ID())
	}
	if _, err := Locate(`USB\VID_0951&PID_1666\NONE`); !errors.Is(err, NoSuchDevice) {
		t.Errorf("a device that is none: %v", err)
	}
}

func TestWhatIsMissingIsToldAsSuch(t *testing.T) {
	err := Available()
	if wine := windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil; !wine {
		if err != nil {
			t.Errorf("on Windows: %v", err)
		}
		l, err := Listen(Volume, func(Event) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		return
	}
	if err == nil {
		t.Skip("this Wine has CM_Register_Notification")
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
