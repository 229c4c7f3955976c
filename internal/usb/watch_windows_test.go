package usb

import (
	"context"
	"sync"
	"testing"
	"time"

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
