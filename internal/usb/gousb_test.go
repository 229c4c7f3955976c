//go:build linux && cgo

package usb

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// A device that is not there is not described, whatever libusb makes of this
// machine, and it does not take long.
func TestLibusbIsAskedWithinLimits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := describe(ctx, 250, 126, descriptors{Serial: 3})
	if got != (texts{}) {
		t.Errorf("a device that is not there says %+v", got)
	}
	t.Logf("libusb: %v", err)
	for asking.Load() != 0 {
		if ctx.Err() != nil {
			t.Fatal("libusb is still being asked")
		}
		time.Sleep(time.Millisecond)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	begin := time.Now()
	if _, err := describe(ended, 250, 126, descriptors{Serial: 3}); err == nil {
		t.Log("answered before the end was noticed")
	}
	t.Logf("gave up after %v", time.Since(begin))
}

// What libusb reads is what the kernel read, of each device of this machine.
func TestLibusbReadsWhatTheKernelRead(t *testing.T) {
	const bus = "/sys/bus/usb/devices"
	found := 0
	for _, dir := range children(bus, "") {
		if !isBusPath(filepath.Base(dir)) {
			continue
		}
		d := readPlain(dir)
		d.readTexts(dir)
		d.busNum, d.devNum = attrInt(dir, "busnum", 10), attrInt(dir, "devnum", 10)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		for asking.Load() != 0 && ctx.Err() == nil { // the last one is being closed
			time.Sleep(time.Millisecond)
		}
		begin := time.Now()
		got, err := describe(ctx, d.busNum, d.devNum, d.desc)
		took := time.Since(begin)
		cancel()
		if err != nil {
			t.Logf("%s: %v", d.Path, err) // no right to the device node, or a device that does not answer
			continue
		}
		found++
		t.Logf("%s says %+v within %v", d.Path, got, took)
		if got.product != d.ProductName || got.serial != d.SerialNumber || got.manufacturer != d.VendorName {
			t.Errorf("%s says %+v, the kernel read %q %q %q", d.Path, got, d.VendorName, d.ProductName, d.SerialNumber)
		}
	}
	if found == 0 {
		t.Skip("no USB device here that libusb can read")
	}
}
