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
