// Package cfgmgr asks Windows' configuration manager (cfgmgr32.dll) which devices
// there are and what they say of themselves, and hears from it when one comes,
// is to be taken away, or goes. It knows nothing of sensors.
//
// Windows: CM_Register_Notification (Windows 8 and newer), which needs neither a
// window nor a privilege and works in session 0. Where it is missing, as in Wine,
// [Available] says so. What the system hands over is decoded by functions that
// run everywhere; elsewhere the package is nothing but these.
package cfgmgr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"sekisho/internal/guid"
)

// Classes of device interfaces (winioctl.h, usbiodef.h, portabledevice headers:
// "Device interface classes" in the Windows driver documentation).
var (
	Volume    = guid.Must("53f5630d-b6bf-11d0-94f2-00a0c91efb8b")
	Disk      = guid.Must("53f56307-b6bf-11d0-94f2-00a0c91efb8b")
	CDROM     = guid.Must("53f56308-b6bf-11d0-94f2-00a0c91efb8b")
	USBDevice = guid.Must("a5dcbf10-6530-11d2-901f-00c04fb951ed")
	USBHub    = guid.Must("f18a0e88-c30c-11d0-8815-00a0c906bed8")
	WPD       = guid.Must("6ac27878-a6fa-4155-ba85-f98f491d4f33") // phones and cameras; sticks too, by way of a driver of their own
)

// What a volume tells those who watch a handle to it (ioevent.h).
var (
	VolumeLock       = guid.Must("50708874-c9af-11d1-8fef-00a0c9a06d32") // somebody wants it for himself: eject, format, check
	VolumeLockFailed = guid.Must("ae2eed10-0ba8-11d2-8ffb-00a0c9a06d32")
	VolumeUnlock     = guid.Must("9a8c3d68-d0cb-11d1-8fef-00a0c9a06d32")
	VolumeMount      = guid.Must("b5804878-1a96-11d2-8ffd-00a0c9a06d32")
)

// Action is what happened, CM_NOTIFY_ACTION of cfgmgr32.h.
type Action uint32

// The actions. Arrived and Removed are of device interfaces, all others of a
// device of which a handle is watched.
const (
	Arrived           Action = 0
	Removed           Action = 1
	QueryRemove       Action = 2 // who holds a handle is to close it before he answers
	QueryRemoveFailed Action = 3 // it stays
	RemovePending     Action = 4
	RemoveComplete    Action = 5
	Custom            Action = 6 // Event.Custom says what
)

// Event is a notification.
type Event struct {
	Action Action
	Class  guid.GUID // of the interface; Arrived and Removed only
	Path   string    // of the interface, `\\?\USB#VID_0951&PID_1666#60A44C#{a5dcbf10-...}`; likewise
	Custom guid.GUID // Custom only
}

// Sizes and offsets of CM_NOTIFY_EVENT_DATA (cfgmgr32.h; amd64): FilterType and
// Reserved, then a union. Of an interface: class, then its path ended by NUL. Of
// a handle: event, NameOffset, DataSize, data.
const (
	eventUnion    = 8
	eventPath     = eventUnion + 16
	filterOfClass = 0
	filterOfNode  = 1
)

var errShort = errors.New("device notification is too short")

// Decode reads a notification, an action and its CM_NOTIFY_EVENT_DATA.
func Decode(action uint32, b []byte) (Event, error) {
	e := Event{Action: Action(action)}
	if len(b) < eventUnion {
		return e, errShort
	}
	filter := binary.LittleEndian.Uint32(b)
	switch {
	case filter == filterOfClass && (e.Action == Arrived || e.Action == Removed):
		if len(b) < eventPath+2 {
			return e, errShort
		}
		copy(e.Class[:], b[eventUnion:])
		e.Path = text(b[eventPath:])
	case filter == filterOfNode && e.Action == Custom:
		if len(b) < eventUnion+16 {
			return e, errShort
		}
		copy(e.Custom[:], b[eventUnion:])
	case filter == filterOfNode && e.Action > Removed && e.Action < Custom:
	default:
		return e, fmt.Errorf("device notification %d of filter %d is not known", action, filter)
	}
	return e, nil
}

// text reads UTF-16 up to a NUL or the end; what is no UTF-16 becomes U+FFFD.
func text(b []byte) string {
	var u []uint16
	for ; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	return string(utf16.Decode(u))
}

// texts reads a list of such texts, ended by an empty one.
func texts(b []byte) (list []string) {
	for len(b) >= 2 && (b[0] != 0 || b[1] != 0) {
		list = append(list, text(b))
		for len(b) >= 2 && (b[0] != 0 || b[1] != 0) {
			b = b[2:]
		}
		b = b[min(2, len(b)):]
	}
	return list
}

// Instance returns the device that an interface path is of, in the form of a
// device instance id: `USB\VID_0951&PID_1666\60A44C`; "" if the path is of
// another form. A path differs from the id in its prefix, in # for \ and in the
// class at its end; letters may come in either case.
func Instance(path string) string {
	rest, ok := strings.CutPrefix(path, `\\?\`)
	if !ok {
		if rest, ok = strings.CutPrefix(path, `\\.\`); !ok {
			return ""
		}
	}
	i := strings.LastIndex(rest, "#{")
	if i < 0 || strings.Count(rest[:i], "#") < 2 {
		return ""
	}
	return strings.Replace(rest[:i], "#", `\`, 2) // the last of three parts may have more of them
}

// Key names a property of a device, DEVPROPKEY of devpropdef.h.
type Key struct {
	Format guid.GUID
	ID     uint32
}

// Properties of devices (devpkey.h).
var (
	HardwareIDs   = Key{guid.Must("a45c254e-df1c-4efd-8020-67d146a850e0"), 3}
	CompatibleIDs = Key{guid.Must("a45c254e-df1c-4efd-8020-67d146a850e0"), 4}
	Manufacturer  = Key{guid.Must("a45c254e-df1c-4efd-8020-67d146a850e0"), 13} // as the driver's INF has it
	Address       = Key{guid.Must("a45c254e-df1c-4efd-8020-67d146a850e0"), 30} // of a USB device: the number of its hub's port
	LocationPaths = Key{guid.Must("a45c254e-df1c-4efd-8020-67d146a850e0"), 37}
	ReportedName  = Key{guid.Must("540b947e-8b40-45bc-a8a2-6a0b894cbda2"), 4} // as the device itself says, its iProduct
)

// Types of properties (devpropdef.h).
const (
	typeUint32 = 0x07
	typeString = 0x12
	typeList   = 0x2012
)

// property is a value as the system gives it.
type property struct {
	typ  uint32
	data []byte
}

// strings returns a text, or a list of texts.
func (p property) strings() []string {
	switch p.typ {
	case typeString:
		if s := text(p.data); s != "" {
			return []string{s}
		}
	case typeList:
		return texts(p.data)
	}
	return nil
}

// uint32 returns a number.
func (p property) uint32() (uint32, bool) {
	if p.typ != typeUint32 || len(p.data) < 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(p.data), true
}

// Error is a CONFIGRET of cfgmgr32.h other than CR_SUCCESS.
type Error uint32

// Errors that callers ask for.
const (
	NoSuchDevice    Error = 0x0d
	bufferSmall     Error = 0x1a
	notImplemented  Error = 0x34
	noSuchInterface Error = 0x37
)

// errorTexts are those that these calls may give, in words.
var errorTexts = map[Error]string{
	0x02: "out of memory", 0x03: "invalid pointer", 0x04: "invalid flag", 0x05: "device is no longer there", 0x0d: "no such device",
	0x13: "configuration manager failed", 0x1a: "buffer is too small", 0x1d: "registry error", 0x1e: "invalid device id", 0x1f: "invalid data",
	0x24: "device is not there", 0x25: "no such value", 0x26: "wrong type", 0x30: "no answer from the Plug and Play service",
	0x32: "the Plug and Play service does not run", 0x33: "access denied", 0x34: "not implemented", 0x35: "invalid property",
	0x37: "no such device interface", 0x3b: "invalid size of a structure",
}

// Error is "no such device (CONFIGRET 0x0d)".
func (e Error) Error() string {
	t := errorTexts[e]
	if t == "" {
		t = "configuration manager failed"
	}
	return fmt.Sprintf("%s (CONFIGRET 0x%02x)", t, uint32(e))
}

// Is makes an Error that says "not implemented" one of errors.ErrUnsupported.
func (e Error) Is(target error) bool { return e == notImplemented && target == errors.ErrUnsupported }
