package usb

import (
	"slices"
	"strconv"
	"strings"
)

// ParseID reads the instance id that Windows has for a USB device,
// `USB\VID_0951&PID_1666\60A44C413FAEE280`. A serial number of which the second
// character is & was made up by Windows, for a device that has none or one that
// cannot be: then it is "". What is no device as a whole (functions of one, root
// hubs), and what did not say what it is (VID_0000), is not ok.
func ParseID(instance string) (vendor, product, serial string, ok bool) {
	if len(instance) < 4 || !strings.EqualFold(instance[:4], `USB\`) {
		return "", "", "", false
	}
	kind, serial, ok := strings.Cut(instance[4:], `\`)
	if !ok {
		return "", "", "", false
	}
	if vendor, product, ok = parseInstance(kind); !ok || vendor == "0000" {
		return "", "", "", false
	}
	if len(serial) > 1 && serial[1] == '&' {
		serial = ""
	}
	return vendor, product, cut(serial), true
}

// functionOf returns the number of the interface that a function of a device
// begins with, by its instance id: 2 of `USB\VID_046D&PID_C52B&MI_02\6&1c2&0&0002`.
func functionOf(instance string) (number int, ok bool) {
	instance = strings.ToUpper(instance)
	if !strings.HasPrefix(instance, `USB\VID_`) {
		return 0, false
	}
	_, rest, ok := strings.Cut(instance, "&MI_")
	if !ok || len(rest) < 2 {
		return 0, false
	}
	n, err := strconv.ParseUint(rest[:2], 16, 8)
	return int(n), err == nil
}

// parseClass reads class, subclass and protocol from the compatible ids of a
// device or function, `USB\Class_08&SubClass_06&Prot_50`. Those of a device whose
// interfaces say what it is ("USB\COMPOSITE", "USB\DevClass_00...") have none.
func parseClass(ids []string) (triple, bool) {
	for _, id := range ids {
		var t triple
		rest := strings.ToUpper(id)
		ok := true
		for _, p := range []struct {
			before string
			to     *byte
		}{{`USB\CLASS_`, &t.Class}, {"&SUBCLASS_", &t.Sub}, {"&PROT_", &t.Proto}} {
			if rest, ok = strings.CutPrefix(rest, p.before); !ok || len(rest) < 2 {
				ok = false
				break
			}
			n, err := strconv.ParseUint(rest[:2], 16, 8)
			if err != nil {
				ok = false
				break
			}
			*p.to, rest = byte(n), rest[2:]
		}
		if ok && rest == "" {
			return t, true
		}
	}
	return triple{}, false
}

// isMTP reports whether a device's ids say that it speaks MTP though its class is
// its vendor's: Windows asked it (Microsoft OS descriptors), `USB\MS_COMP_MTP`.
func isMTP(ids []string) bool {
	for _, id := range ids {
		if strings.HasPrefix(strings.ToUpper(id), `USB\MS_COMP_MTP`) {
			return true
		}
	}
	return false
}

// inputUse reads from the hardware ids of a HID collection whether it is a
// keyboard or keypad, a mouse or pointer: `HID_DEVICE_UP:0001_U:0006` (HIDClass
// Hardware IDs for Top-Level Collections, in the Windows driver documentation).
func inputUse(ids []string) (keyboard, mouse bool) {
	for _, id := range ids {
		_, use, _ := strings.Cut(strings.ToUpper(id), "UP:0001_U:")
		switch use {
		case "0006", "0007":
			keyboard = true
		case "0001", "0002":
			mouse = true
		}
	}
	return keyboard, mouse
}

// portPath chooses from a device's location paths the one that names its port by
// the way from the PC's first bus to it,
// "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)#USB(2)"; others name it by the firmware's
// tables and are not always there. "" if there is none.
func portPath(paths []string) string {
	for _, p := range paths {
		if strings.HasPrefix(p, "PCIROOT(") {
			return cut(p)
		}
	}
	if len(paths) > 0 {
		return cut(paths[0])
	}
	return ""
}

// maker is the manufacturer's name that a driver brings, or "" where that is of
// Microsoft's own drivers, which speak of kinds of devices: "(Standard disk
// drives)", "Compatible USB storage device", "Generic USB Hub".
func maker(s string) string {
	for _, p := range []string{"(", "Compatible ", "Generic ", "Microsoft"} {
		if strings.HasPrefix(s, p) {
			return ""
		}
	}
	return cut(s)
}

// node is what Windows keeps of a device, of a function of one, or of a HID
// collection.
type node struct {
	id                   string // instance id
	compatible, hardware []string
	phone                bool // its driver is the one for phones and cameras
	below                []node
}

// readFunctions reads what a device is: by its descriptors, else by what Windows
// has kept of them, and in both cases by what its drivers have found out. It
// reports whether no driver is to say more.
func (d *device) readFunctions(n node) bool {
	chosen := d.desc.config(d.config)
	if chosen == nil {
		chosen = d.desc.likely()
	}
	var ifaces []iface
	if chosen != nil {
		ifaces = slices.Clone(chosen.Interfaces)
	}
	if class, single := parseClass(n.compatible); single { // one driver runs it as a whole
		if ifaces == nil {
			ifaces = []iface{{triple: class}}
		}
		for i := range ifaces {
			ifaces[i].learn(&n)
		}
	} else {
		for j := range n.below {
			number, ok := functionOf(n.below[j].id)
			if !ok {
				continue
			}
			i := slices.IndexFunc(ifaces, func(i iface) bool { return i.Number == number })
			if i < 0 {
				class, ok := parseClass(n.below[j].compatible)
				if !ok || chosen != nil || len(ifaces) == maxInterfaces {
					continue
				}
				i = len(ifaces)
				ifaces = append(ifaces, iface{Number: number, triple: class})
			}
			ifaces[i].learn(&n.below[j])
		}
	}
	d.mute = slices.ContainsFunc(ifaces, func(i iface) bool { return i.Class == classHID && i.Sub == 0 && !i.driven })
	d.setInterfaces(ifaces)
	return !d.mute && len(ifaces) > 0 && !slices.ContainsFunc(ifaces, func(i iface) bool { return i.Class == classVendor && i.Label == "" })
}

// learn adds to an interface what its driver has found out.
func (i *iface) learn(n *node) {
	switch i.Class {
	case classVendor:
		if n.phone || isMTP(n.compatible) {
			i.Label = "MTP"
		}
	case classHID:
		for j := range n.below {
			keyboard, mouse := inputUse(n.below[j].hardware)
			i.Keyboard, i.Mouse, i.driven = i.Keyboard || keyboard, i.Mouse || mouse, true
		}
	}
}
