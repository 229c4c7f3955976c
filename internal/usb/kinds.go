package usb

import (
	"encoding/binary"
	"fmt"
	"strings"

	"sekisho/internal/event"
)

// triple is what an interface says it is: class, subclass and protocol as
// usb.org numbers them ("Defined Class Codes").
type triple struct {
	Class, Sub, Proto byte
}

// String is "08/06/50".
func (t triple) String() string { return fmt.Sprintf("%02x/%02x/%02x", t.Class, t.Sub, t.Proto) }

// iface is one interface of a device.
type iface struct {
	Number int
	triple
	Label string // the interface's string descriptor, "MTP"
	HID   []byte // the HID report descriptor, where the kernel has one

	// What Windows says in its place, which keeps no report descriptor:
	Keyboard, Mouse bool
	driven          bool // a driver runs it, so that it would say so
}

// Class codes (usb.org, "Defined Class Codes").
const (
	classAudio     = 0x01
	classComm      = 0x02
	classHID       = 0x03
	classImage     = 0x06
	classPrinter   = 0x07
	classStorage   = 0x08
	classHub       = 0x09
	classSmartcard = 0x0b
	classVideo     = 0x0e
	classWireless  = 0xe0
	classMisc      = 0xef
	classVendor    = 0xff
)

// kind says what an interface makes of its device, "" for nothing that we name.
func (i *iface) kind() string {
	is := func(c, s, p byte) bool { return i.triple == triple{c, s, p} }
	switch {
	case i.Class == classStorage:
		return event.KindStorage
	case is(classImage, 1, 1):
		return event.KindMTP // PTP and MTP alike
	// Phones before they had a class of their own for MTP, and some to this day
	// (libmtp, src/libusb1-glue.c: the string is what it goes by).
	case i.Class == classVendor && strings.EqualFold(strings.TrimSpace(i.Label), "MTP"):
		return event.KindMTP
	case i.Class == classComm && (i.Sub == 0x06 || i.Sub == 0x0d || i.Sub == 0x0e), // ECM, NCM, MBIM
		is(classComm, 0x02, 0xff), // RNDIS as Linux gadgets and Windows know it
		is(classWireless, 0x01, 0x03),
		i.Class == classMisc && i.Sub == 0x04: // RNDIS over its media
		return event.KindNetwork
	case i.Class == classAudio:
		return event.KindAudio
	case i.Class == classVideo:
		return event.KindVideo
	case i.Class == classPrinter:
		return event.KindPrinter
	case i.Class == classSmartcard:
		return event.KindSmartcard
	case i.Class == classHub:
		return event.KindHub
	}
	return ""
}

// kindOrder is the order in which kinds are told, that of the design.
var kindOrder = []string{event.KindStorage, event.KindKeyboard, event.KindMouse, event.KindMTP, event.KindNetwork,
	event.KindAudio, event.KindVideo, event.KindPrinter, event.KindSmartcard, event.KindHub}

// kinds returns what a device is by its interfaces, or "other" where none of
// them says anything we name. The device's own class only counts for hubs, which
// may be asked before they have an interface.
func kinds(deviceClass byte, ifaces []iface) []string {
	has := map[string]bool{event.KindHub: deviceClass == classHub}
	for n := range ifaces {
		i := &ifaces[n]
		if i.Class == classHID {
			keyboard, mouse := hidUse(i.HID)
			// The boot protocols (HID 1.11, section 4.3), and what the report
			// descriptor says: a device that types need not speak the boot protocol.
			has[event.KindKeyboard] = has[event.KindKeyboard] || keyboard || i.Keyboard || i.Sub == 1 && i.Proto == 1
			has[event.KindMouse] = has[event.KindMouse] || mouse || i.Mouse || i.Sub == 1 && i.Proto == 2
			continue
		}
		has[i.kind()] = true
	}
	var list []string
	for _, k := range kindOrder {
		if has[k] {
			list = append(list, k)
		}
	}
	if list == nil {
		list = []string{event.KindOther}
	}
	return list
}

// hidUse looks through a HID report descriptor (HID 1.11, section 6.2.2) for
// collections that are a keyboard or keypad, a mouse or pointer.
func hidUse(report []byte) (keyboard, mouse bool) {
	var page, use uint32
	for len(report) > 0 {
		prefix := report[0]
		if prefix == 0xfe { // long item: size in the next byte
			if len(report) < 3 || len(report) < 3+int(report[1]) {
				return
			}
			report = report[3+int(report[1]):]
			continue
		}
		size := []int{0, 1, 2, 4}[prefix&3]
		if len(report) < 1+size {
			return
		}
		var value uint32
		for i, b := range report[1 : 1+size] {
			value |= uint32(b) << (8 * i)
		}
		report = report[1+size:]
		switch prefix &^ 3 {
		case 0x04: // global: usage page
			page = value
		case 0x08: // local: usage; four bytes carry the page as well
			use = value
			if size < 4 {
				use |= page << 16
			}
		case 0xa0: // main: collection
			if value == 1 { // application
				switch use {
				case 0x1<<16 | 0x6, 0x1<<16 | 0x7:
					keyboard = true
				case 0x1<<16 | 0x1, 0x1<<16 | 0x2:
					mouse = true
				}
			}
			use = 0
		case 0x80, 0x90, 0xb0, 0xc0: // main: input, output, feature, end of collection
			use = 0
		}
	}
	return
}

// descriptors is what a device sent when the kernel asked: who has strings, and
// the interfaces of each configuration.
type descriptors struct {
	VendorID, ProductID           uint16
	Class                         byte
	Manufacturer, Product, Serial byte // index of the string; 0: the device has none
	Configs                       []config
	Lies                          bool // lengths, or the number of configurations, are not what they are said to be
}

type config struct {
	Value      byte
	Interfaces []iface // alternate setting 0 of each
}

// maxInterfaces bounds what is kept of a device: twice USB_MAXINTERFACES of the
// kernel (include/linux/usb.h).
const maxInterfaces = 64

// parseDescriptors reads sysfs's `descriptors`: the device descriptor, then each
// configuration with all below it (USB 2.0, section 9.6). The kernel has cut a
// configuration off where a length in it lies, without putting its total length
// right, so what holds is the way from descriptor to descriptor; a length that
// lies all the same ends the reading, and what came before holds.
func parseDescriptors(b []byte) (descriptors, bool) {
	var d descriptors
	if len(b) < 18 || b[0] < 18 || b[1] != 1 {
		return d, false
	}
	d.VendorID, d.ProductID = binary.LittleEndian.Uint16(b[8:]), binary.LittleEndian.Uint16(b[10:])
	d.Class, d.Manufacturer, d.Product, d.Serial = b[4], b[14], b[15], b[16]
	configs, at, end, total := int(b[17]), 18, 18, 0 // end is where the configuration says that it ends
	for at+2 <= len(b) && b[at] >= 2 && at+int(b[at]) <= len(b) {
		n := b[at : at+int(b[at])]
		switch {
		case n[1] == 2 && len(n) >= 9:
			if at != end {
				d.Lies = true
			}
			if len(d.Configs) == 8 { // USB_MAXCONFIG
				d.Lies = true
				return d, true
			}
			end = at + int(binary.LittleEndian.Uint16(n[2:]))
			d.Configs = append(d.Configs, config{Value: n[5]})
		case n[1] == 4 && len(n) >= 9 && n[3] == 0 && len(d.Configs) > 0 && total < maxInterfaces:
			c := &d.Configs[len(d.Configs)-1]
			c.Interfaces = append(c.Interfaces, iface{Number: int(n[2]), triple: triple{n[5], n[6], n[7]}})
			total++
		}
		at += len(n)
	}
	d.Lies = d.Lies || at != end || at != len(b) || len(d.Configs) != configs
	return d, true
}

// config returns the configuration with this value, nil if there is none.
func (d *descriptors) config(value int) *config {
	for i := range d.Configs {
		if int(d.Configs[i].Value) == value {
			return &d.Configs[i]
		}
	}
	return nil
}

// find returns the interface with this number. A nil configuration has none.
func (c *config) find(number int) (iface, bool) {
	if c == nil {
		return iface{}, false
	}
	for _, i := range c.Interfaces {
		if i.Number == number {
			return i, true
		}
	}
	return iface{}, false
}

// likely returns the configuration that Linux will take, as
// usb_choose_configuration does: the first that is not a vendor's own.
func (d *descriptors) likely() *config {
	for i := range d.Configs {
		if c := &d.Configs[i]; len(c.Interfaces) > 0 && c.Interfaces[0].Class != classVendor {
			return c
		}
	}
	if len(d.Configs) > 0 {
		return &d.Configs[0]
	}
	return nil
}
