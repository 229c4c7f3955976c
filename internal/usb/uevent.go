package usb

import (
	"errors"
	"strconv"
	"strings"
)

// uevent is what we use of one message of the kernel's device model. See
// lib/kobject_uevent.c and drivers/usb/core/{driver,usb}.c in the kernel for who
// writes which variable.
type uevent struct {
	Action    string // add, remove, change, bind, unbind, move, online, offline
	DevPath   string // below /sys, "/devices/pci0000:00/.../usb1/1-4"
	Subsystem string // "usb"
	DevType   string // "usb_device", "usb_interface"
	Product   string // "781/5581/100": vendor, product, release in hex without leading zeros
	BusNum    int    // the bus; 0 if not told
	DevNum    int    // the device's address on its bus; 0 if not told
	Synthetic string // asked for by writing to a uevent file (udevadm trigger), nothing happened: the UUID that was written, or "0"
}

// maxUevent is the kernel's limit for the variables of a uevent
// (UEVENT_BUFFER_SIZE 2048, include/linux/kobject.h) and its header, with room.
const maxUevent = 8 << 10

var errNotUevent = errors.New("not a kernel uevent")

// parseUevent reads one netlink message: "add@/devices/..." and variables
// "KEY=value", each ended by NUL. Variables it does not know are passed over.
// The strings share one copy of data.
func parseUevent(data []byte) (uevent, error) {
	var u uevent
	if len(data) > maxUevent {
		return u, errNotUevent
	}
	head, rest, ok := strings.Cut(string(data), "\x00")
	if !ok {
		return u, errNotUevent
	}
	// udev's own messages begin with "libudev" and carry no '@'.
	if u.Action, u.DevPath, ok = strings.Cut(head, "@"); !ok || u.Action == "" || !strings.HasPrefix(u.DevPath, "/") {
		return uevent{}, errNotUevent
	}
	for rest != "" {
		var variable string
		variable, rest, _ = strings.Cut(rest, "\x00")
		key, value, ok := strings.Cut(variable, "=")
		if !ok {
			continue
		}
		switch key {
		case "SUBSYSTEM":
			u.Subsystem = value
		case "DEVTYPE":
			u.DevType = value
		case "PRODUCT":
			u.Product = value
		case "BUSNUM":
			u.BusNum = decimal(value)
		case "DEVNUM":
			u.DevNum = decimal(value)
		case "SYNTH_UUID":
			u.Synthetic = value
		}
	}
	return u, nil
}

// decimal reads "005", which is no octal; 0 for what is no number.
func decimal(s string) int {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

// name returns the last element of the device's path: its bus path ("1-4.2"),
// for an interface with configuration and number ("1-4.2:1.0").
func (u *uevent) name() string { return u.DevPath[strings.LastIndexByte(u.DevPath, '/')+1:] }

// ids returns vendor and product as four hex digits each, or "" where PRODUCT
// does not say.
func (u *uevent) ids() (vendor, product string) {
	v, rest, ok := strings.Cut(u.Product, "/")
	p, _, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return "", ""
	}
	return hex4(v), hex4(p)
}

// hex4 returns a hex number of at most 16 bits as four lower-case digits, or ""
// if it is none.
func hex4(s string) string {
	n, err := strconv.ParseUint(s, 16, 16)
	if err != nil {
		return ""
	}
	h := strconv.FormatUint(n, 16)
	return "0000"[len(h):] + h
}

// isBusPath reports whether name is that of a USB device that is no root hub:
// bus, '-', ports separated by dots. It becomes part of a file name.
func isBusPath(name string) bool {
	bus, ports, ok := strings.Cut(name, "-")
	if !ok || len(name) > 64 || !digits(bus) {
		return false
	}
	for port := range strings.SplitSeq(ports, ".") {
		if !digits(port) {
			return false
		}
	}
	return true
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
