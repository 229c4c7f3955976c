package usb

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

func TestRunOnThisMachine(t *testing.T) {
	w := New(Options{Poll: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 64)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = w.Run(ctx, out) })
	for deadline := time.Now().Add(time.Minute); w.Status().Mechanism == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
	}
	time.Sleep(200 * time.Millisecond) // some looks
	cancel()
	wg.Wait()
	if s := w.Status(); err != nil || s.State != endpoint.SensorLimited || s.Mechanism != mechanismPolling || s.Reason == "" {
		t.Errorf("got %v, %+v", err, s)
	}
}

func TestASystemDriveIsNoUSBDisk(t *testing.T) {
	s, err := QueryStorage("C:")
	if err != nil {
		t.Skipf("drive C: does not say: %v", err)
	}
	if s.Bus == "usb" {
		t.Skip("this machine runs from USB")
	}
	if _, err := QueryStorage("1:"); err == nil {
		t.Error("a drive that is none answers")
	}
}

func TestDevicesByTheConfigurationManager(t *testing.T) {
	if err := cfgmgr.Available(); err != nil || windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("make test-wine runs it with a stand-in for the configuration manager, whose devices are known")
	}
	collection, err := cfgmgr.Locate(`HID\VID_046D&PID_C52B&MI_00\8&1&0&0000`)
	if err != nil {
		t.Fatal(err)
	}
	receiver := event.Device{VendorID: "046d", ProductID: "c52b", ProductName: "USB Receiver", Path: "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(1)",
		Interfaces: []string{"03/00/00", "03/01/02"}, Kinds: []string{event.KindKeyboard, event.KindMouse}}
	if d, ok := deviceAbove(collection); !ok || !reflect.DeepEqual(d, receiver) {
		t.Errorf("above its collection is %+v, %v; want %+v", d, ok, receiver)
	}
	if root, err := cfgmgr.Locate(`USB\ROOT_HUB30\4&1&0&0`); err != nil {
		t.Error(err)
	} else if d, ok := deviceAbove(root); ok {
		t.Errorf("above a root hub is %+v", d)
	}

	w := New(Options{})
	set := func(event string) {
		name, _ := windows.UTF16PtrFromString(event)
		h, err := windows.CreateEvent(nil, 0, 0, name)
		if h == 0 {
			t.Fatal(err)
		}
		t.Cleanup(func() { windows.CloseHandle(h) }) // what is set stays so until the stand-in waits for it
		if err := windows.SetEvent(h); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out := make(chan *event.Event, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx, out); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stick := event.Device{VendorID: "0951", ProductID: "1666", ProductName: "DataTraveler 3.0", SerialNumber: "60A44C413FAEE280", Path: "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)",
		Interfaces: []string{"08/06/50"}, Kinds: []string{event.KindStorage}}
	for _, want := range []struct {
		action  event.Action
		message string
		event.Device
		then string // what the stand-in is to do then
	}{
		{event.USBAttached, PresentAtStart, receiver, "stick comes"},
		{event.USBAttached, "", stick, "stick goes"},
		{event.USBDetached, "", stick, ""},
	} {
		select {
		case e := <-out:
			if e.Action != want.action || e.Message != want.message || e.Sensor != mechanismNotify || !reflect.DeepEqual(*e.Device, want.Device) {
				t.Errorf("got %s by %s (%s) %+v, want %+v", e.Action, e.Sensor, e.Message, *e.Device, want)
			}
		case <-ctx.Done():
			t.Fatalf("no event, want %+v", want)
		}
		if want.then != "" {
			set(want.then)
		}
	}
	if s := w.Status(); s.State != endpoint.SensorOK || s.Mechanism != mechanismNotify || s.Reason != "" {
		t.Errorf("state %+v", s)
	}
	cancel()
	wg.Wait()
}
