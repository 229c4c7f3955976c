//go:build linux && cgo

package usb

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

func TestNamesBuiltIn(t *testing.T) {
	if got := builtInNames(ids{"0781", "5567"}); got.vendor != "SanDisk Corp." || got.product != "Cruzer Blade" {
		t.Errorf("0781:5567 is %+v, want SanDisk's Cruzer Blade", got)
	}
	for _, id := range []ids{{"", ""}, {"zzzz", "0000"}, {"fffe", "0001"}} {
		if got := builtInNames(id); got != (foundNames{}) {
			t.Errorf("%v is %+v, want nothing", id, got)
		}
	}
	// The system's table is newer, so it goes first; what it lacks comes from here.
	table := newNameTable([]string{"testdata/usb.ids"})
	if got := table.lookup(ids{"0951", "1666"}); got.product != "DataTraveler 100 G3/G4/SE9 G2/50 Kyson" {
		t.Errorf("0951:1666 is %+v, want the system's name", got)
	}
	if got := table.lookup(ids{"046d", "c31c"}); got.vendor != "Logitech, Inc." || got.product == "" {
		t.Errorf("046d:c31c is %+v, want the vendor of the system's table and the product of ours", got)
	}
}

// A device that is not there is not described, whatever libusb makes of this
// machine, and it does not take long.
func TestLibusbIsAskedWithinLimits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
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
