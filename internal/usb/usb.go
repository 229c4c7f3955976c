// Package usb tells when a USB device of any kind is plugged in and pulled out,
// with what it says it is.
//
// Events: usb-attached and usb-detached, each with the facts of
// [event.Device]; a detach repeats those of its attach. Devices already there
// when Run starts are told once in the life of a Watcher, with the message
// [PresentAtStart]. Root hubs, which are parts of the PC, are not told; other
// hubs are.
//
// What is strange is told with the attach, as [event.Device].Oddities and in the
// message: a serial number that another attached device has, storage that types,
// a keyboard where storage was a moment ago, descriptors that lie. None of it is
// an alert by itself. A device that comes and goes without end is told eight
// times and then every ten seconds, with how many comings in between were not;
// the one that stays is always told. What comes back after a sleep of the PC as
// it was is not told; the end of what does not is told up to five seconds late.
// A device whose configuration is changed is told anew if that makes it another.
//
// Linux: the kernel's own uevents (NETLINK_KOBJECT_UEVENT, group 1; no udev
// needed), facts from sysfs, names from the device, else from the system's
// usb.ids, else from a table of ours. Where built with cgo, libusb reads strings
// that the kernel could not. No privilege is needed for netlink and sysfs in the
// initial network and user namespace; libusb needs write access to the device
// node. Where netlink is refused, sysfs is listed each second: a device that
// comes and goes between two looks is not told then. Limits: what the device
// says of itself is believed, a serial number or a class can be forged; of a
// device that is gone again before it was read only the ids are told; a device
// that is behind a USB redirection of a hypervisor is seen where it arrives, in
// the guest. An overrun of the socket is told as events-lost and followed by a
// look at sysfs, so only devices that came and went meanwhile are missed.
//
// Windows: the configuration manager tells of devices (CM_Register_Notification
// for USB devices and for phones; no privilege needed). Descriptors and texts are
// asked of the device by way of its hub, as Linux has them; where a sleeping device
// does not answer, Windows' own words are taken: instance id, compatible ids, the
// name that the device gave. Whether a HID interface is a keyboard is what Windows'
// HID driver says, waited for up to a second; a phone without a class of its own
// shows once its driver runs, and is told anew then. A serial number that Windows
// made up is none. Path is the way from the PC's first bus to the port
// ("PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)"), or the instance id of what hangs on
// none. All devices are listed each minute in case a notification was lost. Where
// the configuration manager does not tell (Wine), the storage descriptor of the
// drives that are there is looked at each second: only storage that mounts under
// a drive letter is seen then, and the sensor says so by being limited, or
// degraded where it was refused.
//
// Elsewhere: Run returns an error that wraps errors.ErrUnsupported.
package usb

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// PresentAtStart is the message of events about what was there before the agent.
const PresentAtStart = "present at start"

// Options say where a Watcher looks. The zero value is the running system.
type Options struct {
	SysRoot string   // "/sys" if empty; Linux
	Names   []string // files in the format of usb.ids, first hit wins; nil: where Linux systems keep them

	// Poll is the time between two looks where there is no notification. 0: one
	// second.
	Poll time.Duration
}

// Watcher is the USB sensor. It is made by New; Run does the work.
type Watcher struct {
	opt   Options
	names *nameTable

	// Run's own, kept between runs:
	known   map[string]*device // bus path to what was told as attached
	started bool               // it was told what was there at the start

	slept func() time.Duration // how long the PC has slept since it was started

	proofs chan string            // asked for by Prove
	nonce  atomic.Pointer[string] // of the uevent that is to come as a proof; nil: none is

	gauge *endpoint.Gauge
}

// New returns a sensor that is not running.
func New(opt Options) *Watcher {
	if opt.SysRoot == "" {
		opt.SysRoot = "/sys"
	}
	if opt.Names == nil && filepath.Separator == '/' { // elsewhere anyone may be able to make such a file
		opt.Names = []string{"/usr/share/misc/usb.ids", "/var/lib/usbutils/usb.ids", "/usr/share/hwdata/usb.ids"}
	}
	if opt.Poll == 0 {
		opt.Poll = time.Second
	}
	return &Watcher{
		opt:   opt,
		names: newNameTable(opt.Names),
		known: map[string]*device{},
		slept: slept,

		proofs: make(chan string, 1),
		gauge:  endpoint.NewGauge("usb"),
	}
}

// Name is "usb".
func (w *Watcher) Name() string { return "usb" }

// Prove asks the sensor, if it runs, to prove that it sees: then it tells [event.Proof]
// with the nonce, a UUID. On Linux the kernel is asked for a uevent, which comes the
// way of those of devices; it is of the bus of platform devices, has no device behind
// it, and nothing follows from it. Where there are no uevents, where they are not ours
// to ask for (without root), and on Windows, the proof is that what is attached was
// listed again. It does not wait.
func (w *Watcher) Prove(nonce string) {
	if w.gauge.Status().Mechanism == mechanismUevent && w.askForUevent(nonce) {
		return
	}
	select {
	case w.proofs <- nonce:
	default: // it still owes the one before
	}
}

// askForUevent asks the kernel for a uevent with a UUID, and reports whether it was
// ours to ask.
func (w *Watcher) askForUevent(id string) bool {
	w.nonce.Store(&id)
	f, err := os.OpenFile(filepath.Join(w.opt.SysRoot, "bus", "platform", "uevent"), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.WriteString("change " + id)
	return err == nil
}

// isProof reports whether a uevent is the one that Prove asked for.
func (w *Watcher) isProof(u *uevent) bool {
	nonce := w.nonce.Load()
	return nonce != nil && u.Synthetic == *nonce
}

// Status says how the sensor is. It is safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor { return w.gauge.Status() }

// send gives an event to the pipeline. It blocks while that is full, and reports
// false when ctx ended first.
func (w *Watcher) send(ctx context.Context, out chan<- *event.Event, e *event.Event) bool {
	select {
	case out <- e:
		w.gauge.Told()
		return true
	case <-ctx.Done():
		return false
	}
}
