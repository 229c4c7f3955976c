//go:build linux && cgo

package usb

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/google/gousb"
)

// asking is 1 while libusb is at work. It is asked about one device at a time,
// and while a call hangs not at all, so a bad device costs one thread at most.
var asking atomic.Int32

// describe asks a device for its strings through libusb, until ctx ends. A
// control transfer to a device that does not answer takes libusb a second.
func describe(ctx context.Context, bus, address int, desc descriptors) (texts, error) {
	if !asking.CompareAndSwap(0, 1) {
		return texts{}, fmt.Errorf("libusb is busy with another device")
	}
	type answer struct {
		t   texts
		err error
	}
	done := make(chan answer, 1)
	go func() {
		defer asking.Store(0)
		defer func() {
			if r := recover(); r != nil { // gousb panics where libusb does not start
				select {
				case done <- answer{err: fmt.Errorf("libusb: %v", r)}:
				default: // at the end, when all was said
				}
			}
		}()
		c := gousb.NewContext()
		defer c.Close() // takes 100 ms, which nobody has to wait for
		var a answer
		a.t, a.err = ask(c, bus, address, desc)
		done <- a
	}()
	select {
	case a := <-done:
		return a.t, a.err
	case <-ctx.Done():
		return texts{}, os.ErrDeadlineExceeded
	}
}

func ask(c *gousb.Context, bus, address int, desc descriptors) (t texts, err error) {
	found, err := c.OpenDevices(func(d *gousb.DeviceDesc) bool { return d.Bus == bus && d.Address == address })
	for _, d := range found {
		for _, s := range []struct {
			to    *string
			index byte
		}{{&t.manufacturer, desc.Manufacturer}, {&t.product, desc.Product}, {&t.serial, desc.Serial}} {
			if text, e := d.GetStringDescriptor(int(s.index)); e == nil {
				*s.to = text
			} else if err == nil {
				err = e
			}
		}
		d.Close()
	}
	if t != (texts{}) {
		err = nil // some are better than none
	}
	return t, err
}
