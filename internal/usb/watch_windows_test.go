package usb

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

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
	time.Sleep(200 * time.Millisecond)
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

func TestIDsBySerial(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("writes to the registry: under Wine only")
	}
	const enum = `SYSTEM\CurrentControlSet\Enum\USB\`
	for _, name := range []string{`VID_0781&PID_5581\4C530001`, `VID_0781&PID_5581&MI_00\4C530001`, `VID_0951&PID_1666\SAME`, `VID_0952&PID_1666\SAME`, `ROOT_HUB30\4C530001`} {
		k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, enum+name, registry.WRITE)
		if err != nil {
			t.Skipf("cannot write to the registry: %v", err)
		}
		k.Close()
	}
	for serial, want := range map[string]string{"4C530001": "0781:5581", "4c530001": "0781:5581", "SAME": ":", "NONE": ":", `..\VID_0951&PID_1666\SAME`: ":"} {
		if v, p := idsBySerial(serial); v+":"+p != want {
			t.Errorf("%q is of %s:%s, want %s", serial, v, p, want)
		}
	}
}
