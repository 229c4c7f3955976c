package usb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sekisho/internal/event"
)

// device is a device in the course of being read.
type device struct {
	event.Device
	devNum int // address on its bus, a new one for each time it is plugged in; 0 if unknown
	busNum int // the bus; 0 if unknown
	config int // the value of the configuration that the kernel chose; 0 if unknown
	desc   descriptors

	instance string // Windows' name for it, its instance id; elsewhere ""

	mute bool     // has an input interface of which only a driver can say what it is, and none runs it yet
	errs []string // what could not be read
}

// Limits of a device's texts. A USB string has at most 126 UTF-16 units, so
// these only meet what is not from a kernel.
const (
	maxTextRunes = 256
	maxTextBytes = 1 << 10
)

// maxDescriptors bounds what is read of a device's descriptors. Docks and audio
// interfaces have some 2 KiB.
const maxDescriptors = 16 << 10

// attr reads a sysfs attribute without the line end; errors count as absent. An
// attribute of blanks is absent as well.
func attr(dir, name string) string {
	b, err := readSome(filepath.Join(dir, name), 4<<10)
	if err != nil {
		return ""
	}
	s := strings.TrimSuffix(string(b), "\n")
	if strings.TrimSpace(s) == "" {
		return ""
	}
	return cut(s)
}

// cut bounds a text from a device to maxTextRunes and maxTextBytes, whole runes.
func cut(s string) string {
	runes := 0
	for i := 0; i < len(s); runes++ {
		_, n := utf8.DecodeRuneInString(s[i:])
		if runes == maxTextRunes || i+n > maxTextBytes {
			return s[:i]
		}
		i += n
	}
	return s
}

func attrInt(dir, name string, base int) int {
	n, err := strconv.ParseUint(strings.TrimSpace(attr(dir, name)), base, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// readPlain reads what the kernel gives without taking the device's lock, which
// a driver may hold for seconds while it starts the device: ids and descriptors.
// It goes for few files: this stands between a plug and its event.
func readPlain(dir string) *device {
	d := &device{}
	d.Path = filepath.Base(dir)
	var ok bool
	if raw, err := readSome(filepath.Join(dir, "descriptors"), maxDescriptors); err == nil {
		d.desc, ok = parseDescriptors(raw)
		d.desc.Lies = d.desc.Lies && len(raw) < maxDescriptors // else it is we who cut it off
	}
	if ok {
		d.VendorID, d.ProductID = fmt.Sprintf("%04x", d.desc.VendorID), fmt.Sprintf("%04x", d.desc.ProductID)
	} else {
		d.VendorID, d.ProductID = hex4(attr(dir, "idVendor")), hex4(attr(dir, "idProduct"))
		d.desc.Class = byte(attrInt(dir, "bDeviceClass", 16))
	}
	var ifaces []iface
	if c := d.desc.likely(); c != nil {
		ifaces = c.Interfaces
	}
	d.setInterfaces(ifaces)
	return d
}

// readTexts reads the device's own texts. It may wait for the device's lock.
func (d *device) readTexts(dir string) {
	d.VendorName, d.ProductName = attr(dir, "manufacturer"), attr(dir, "product")
	d.SerialNumber = attr(dir, "serial")
}

// readInterfaces reads which configuration the kernel chose and what it knows of
// its interfaces beyond the descriptors, and reports whether all of them are
// there.
func (d *device) readInterfaces(dir string) bool {
	names := children(dir, filepath.Base(dir)+":")
	if len(names) == 0 {
		return false
	}
	var ifaces []iface
	var chosen *config
	d.config, d.mute = 0, false
	for _, sub := range names[:min(len(names), maxInterfaces)] {
		_, of, _ := strings.Cut(filepath.Base(sub), ":") // "1.0": configuration and number
		cfg, num, _ := strings.Cut(of, ".")
		n, err := strconv.Atoi(num)
		if err != nil {
			continue
		}
		if v := decimal(cfg); v != 0 && d.config == 0 {
			d.config, chosen = v, d.desc.config(v)
		}
		i, ok := chosen.find(n)
		if !ok {
			class := attr(sub, "bInterfaceClass")
			if class == "" {
				continue // gone while being read
			}
			i = iface{Number: n, triple: triple{byte(attrInt(sub, "bInterfaceClass", 16)),
				byte(attrInt(sub, "bInterfaceSubClass", 16)), byte(attrInt(sub, "bInterfaceProtocol", 16))}}
		}
		switch i.Class {
		case classVendor:
			i.Label = attr(sub, "interface")
		case classHID:
			for _, hid := range children(sub, "000") { // bus 3 is USB: "0003:046D:C31C.0001"
				i.HID, _ = readSome(filepath.Join(hid, "report_descriptor"), 4<<10) // HID_MAX_DESCRIPTOR_SIZE
			}
			d.mute = d.mute || i.Sub == 0 && len(i.HID) == 0
		}
		ifaces = append(ifaces, i)
	}
	complete := true
	if chosen != nil {
		for _, i := range chosen.Interfaces { // those the kernel has not made yet, or will not (unauthorised)
			if !slices.ContainsFunc(ifaces, func(j iface) bool { return i.Number == j.Number }) {
				ifaces, complete = append(ifaces, i), false
			}
		}
	} else {
		complete = len(names) >= attrInt(dir, "bNumInterfaces", 10)
	}
	d.setInterfaces(ifaces)
	return complete
}

// children returns the entries of dir whose names begin with prefix.
func children(dir, prefix string) []string {
	var list []string
	entries, _ := os.ReadDir(dir) // gone while being read: none
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list
}

func (d *device) setInterfaces(ifaces []iface) {
	slices.SortStableFunc(ifaces, func(a, b iface) int { return a.Number - b.Number })
	d.Interfaces = nil
	for i := range ifaces {
		d.Interfaces = append(d.Interfaces, ifaces[i].String())
	}
	d.Kinds = kinds(d.desc.Class, ifaces)
}

// lacks reports whether the device has a text that the kernel does not give.
func (d *device) lacks() bool {
	return d.desc.Manufacturer != 0 && d.VendorName == "" || d.desc.Product != 0 && d.ProductName == "" ||
		d.desc.Serial != 0 && d.SerialNumber == ""
}

// texts are a device's own words about itself, as far as they could be read.
type texts struct {
	manufacturer, product, serial string
}

// fillTexts asks the device itself for texts that the kernel could not read, or
// that are empty. A library that panics or hangs costs one goroutine and the
// texts.
func (d *device) fillTexts(ctx context.Context) {
	if !d.lacks() || d.busNum == 0 || d.devNum == 0 {
		return
	}
	t, err := describe(ctx, d.busNum, d.devNum, d.desc)
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			d.errs = append(d.errs, fmt.Sprintf("read strings of usb device %s: %v", d.Path, err))
		}
		return
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&d.VendorName, t.manufacturer}, {&d.ProductName, t.product}, {&d.SerialNumber, t.serial}} {
		if *f.to == "" && strings.TrimSpace(f.from) != "" {
			*f.to = cut(f.from)
		}
	}
}

// Parent returns the USB device that a device's sysfs folder belongs to: the
// folder itself or the nearest one above it. dir must be free of links ("…/1-4"
// for ".../1-4/1-4:1.0/host0/.../block/sda/sda1"). Texts come from the device
// only; reading them may wait for a driver, so bound it where that matters.
func Parent(dir string) (event.Device, bool) {
	for ; len(dir) > 1; dir = filepath.Dir(dir) {
		if !isBusPath(filepath.Base(dir)) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, "idVendor")); err != nil {
			continue
		}
		d := readPlain(dir)
		d.readTexts(dir)
		return d.Device, true
	}
	return event.Device{}, false
}

// At returns the USB device with an address on a bus, as its node
// /dev/bus/usb/BUS/ADDRESS has it. Its texts are the device's own, as with Parent.
func At(sysRoot string, bus, address int) (event.Device, bool) {
	for _, dir := range children(filepath.Join(sysRoot, "bus", "usb", "devices"), "") {
		if isBusPath(filepath.Base(dir)) && attrInt(dir, "devnum", 10) == address && attrInt(dir, "busnum", 10) == bus {
			if dir, err := filepath.EvalSymlinks(dir); err == nil {
				return Parent(dir)
			}
		}
	}
	return event.Device{}, false
}

// Phones returns the bus paths of the phones and cameras that are attached, by
// their interfaces: devices of the kind "mtp". No driver is waited for.
func Phones(sysRoot string) (paths []string) {
	for _, dir := range children(filepath.Join(sysRoot, "bus", "usb", "devices"), "") {
		path, _, isInterface := strings.Cut(filepath.Base(dir), ":")
		if !isInterface || !isBusPath(path) || slices.Contains(paths, path) {
			continue
		}
		var i iface
		switch i.Class = byte(attrInt(dir, "bInterfaceClass", 16)); i.Class {
		case classImage:
			i.Sub, i.Proto = byte(attrInt(dir, "bInterfaceSubClass", 16)), byte(attrInt(dir, "bInterfaceProtocol", 16))
		case classVendor:
			i.Label = attr(dir, "interface")
		default:
			continue
		}
		if i.kind() == event.KindMTP {
			paths = append(paths, path)
		}
	}
	return paths
}

// Find returns the USB device at a bus path, with the name of its node,
// "/dev/bus/usb/001/004". Its texts are the device's own, as with Parent.
func Find(sysRoot, path string) (d event.Device, node string, ok bool) {
	dir, err := filepath.EvalSymlinks(filepath.Join(sysRoot, "bus", "usb", "devices", path))
	if err != nil || !isBusPath(path) {
		return event.Device{}, "", false
	}
	d, ok = Parent(dir)
	return d, fmt.Sprintf("/dev/bus/usb/%03d/%03d", attrInt(dir, "busnum", 10), attrInt(dir, "devnum", 10)), ok
}
