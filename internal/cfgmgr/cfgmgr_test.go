package cfgmgr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

// utf16z is a text in UTF-16, little-endian, with a NUL.
func utf16z(s string) (b []byte) {
	for _, c := range append(utf16.Encode([]rune(s)), 0) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return b
}

// eventData is a CM_NOTIFY_EVENT_DATA as cfgmgr32.h lays it out ("CM_NOTIFY_EVENT_DATA
// structure" in the Windows documentation).
func eventData(filter uint32, union ...[]byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, filter)
	b = binary.LittleEndian.AppendUint32(b, 0) // Reserved
	return append(b, bytes.Join(union, nil)...)
}

// volumeClass is GUID_DEVINTERFACE_VOLUME as it lies in memory, by hand.
var volumeClass = []byte{0x0d, 0x63, 0xf5, 0x53, 0xbf, 0xb6, 0xd0, 0x11, 0x94, 0xf2, 0x00, 0xa0, 0xc9, 0x1e, 0xfb, 0x8b}

const stickPath = `\\?\USB#VID_0951&PID_1666#60A44C413FAEE280#{a5dcbf10-6530-11d2-901f-00c04fb951ed}`

func TestDecode(t *testing.T) {
	tests := []struct {
		name   string
		action uint32
		data   []byte
		want   Event
		bad    bool
	}{
		{"a volume comes", 0, eventData(0, volumeClass, utf16z(`\\?\STORAGE#Volume#1#{53f5630d-b6bf-11d0-94f2-00a0c91efb8b}`)),
			Event{Action: Arrived, Class: Volume, Path: `\\?\STORAGE#Volume#1#{53f5630d-b6bf-11d0-94f2-00a0c91efb8b}`}, false},
		{"a device goes", 1, eventData(0, USBDevice[:], utf16z(stickPath)), Event{Action: Removed, Class: USBDevice, Path: stickPath}, false},
		{"a path without an end", 1, eventData(0, USBDevice[:], []byte{'a', 0, 'b', 0, 'c'}), Event{Action: Removed, Class: USBDevice, Path: "ab"}, false},
		{"broken UTF-16", 0, eventData(0, USBDevice[:], []byte{0x00, 0xd8, 'x', 0, 0, 0}), Event{Action: Arrived, Class: USBDevice, Path: "\uFFFDx"}, false},
		{"a volume is to go", 2, eventData(1, make([]byte, 28)), Event{Action: QueryRemove}, false},
		{"it stays", 3, eventData(1), Event{Action: QueryRemoveFailed}, false},
		{"it is gone", 5, eventData(1), Event{Action: RemoveComplete}, false},
		{"it is to be locked", 6, eventData(1, VolumeLock[:], make([]byte, 12)), Event{Action: Custom, Custom: VolumeLock}, false},
		{"nothing", 0, nil, Event{}, true},
		{"no class", 0, eventData(0, volumeClass[:8]), Event{}, true},
		{"no custom event", 6, eventData(1, volumeClass[:8]), Event{}, true},
		{"of an instance", 7, eventData(2, utf16z(`USB\X`)), Event{}, true},
		{"an action of another filter", 2, eventData(0, volumeClass, utf16z("x")), Event{}, true},
		{"an action of the future", 99, eventData(1), Event{}, true},
	}
	for _, tt := range tests {
		got, err := Decode(tt.action, tt.data)
		if (err != nil) != tt.bad || err == nil && got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.name, got, err, tt.want)
		}
	}
}

func TestTheClassOfVolumes(t *testing.T) {
	if !bytes.Equal(Volume[:], volumeClass) {
		t.Errorf("in memory %x, want %x", Volume[:], volumeClass)
	}
}

func TestInstance(t *testing.T) {
	for path, want := range map[string]string{
		stickPath: `USB\VID_0951&PID_1666\60A44C413FAEE280`,
		`\\?\usb#vid_0951&pid_1666#6&2d7f6a2&0&4#{a5dcbf10-6530-11d2-901f-00c04fb951ed}`:                                          `usb\vid_0951&pid_1666\6&2d7f6a2&0&4`,
		`\\?\USBSTOR#Disk&Ven_A&Prod_B&Rev_1#4C53&0#{53f56307-b6bf-11d0-94f2-00a0c91efb8b}`:                                       `USBSTOR\Disk&Ven_A&Prod_B&Rev_1\4C53&0`,
		`\\.\USB#ROOT_HUB30#4&1&0#{f18a0e88-c30c-11d0-8815-00a0c906bed8}`:                                                         `USB\ROOT_HUB30\4&1&0`,
		`\\?\SWD#WPDBUSENUM#_??_USBSTOR#Disk&Ven_A#1&0#{53f56307-b6bf-11d0-94f2-00a0c91efb8b}#{6ac27878-a6fa-4155-ba85-f98f491d}`: `SWD\WPDBUSENUM\_??_USBSTOR#Disk&Ven_A#1&0#{53f56307-b6bf-11d0-94f2-00a0c91efb8b}`,
		`\\?\USB#X#{a5dcbf10-6530-11d2-901f-00c04fb951ed}`:                                                                        "", `C:\x#y#{z`: "", "": "", `\\?\`: "",
	} {
		if got := Instance(path); got != want {
			t.Errorf("Instance(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestProperties(t *testing.T) {
	list := append(append(utf16z(`USB\Class_08&SubClass_06&Prot_50`), utf16z(`USB\Class_08`)...), 0, 0)
	if got := (property{typeList, list}).strings(); len(got) != 2 || got[0] != `USB\Class_08&SubClass_06&Prot_50` || got[1] != `USB\Class_08` {
		t.Errorf("list: %q", got)
	}
	if got := (property{typeString, utf16z("DataTraveler 3.0")}).strings(); len(got) != 1 || got[0] != "DataTraveler 3.0" {
		t.Errorf("text: %q", got)
	}
	if got := (property{typeString, utf16z("")}).strings(); got != nil {
		t.Errorf("empty text: %q", got)
	}
	if n, ok := (property{typeUint32, []byte{4, 0, 0, 0}}).uint32(); !ok || n != 4 {
		t.Errorf("number: %d, %v", n, ok)
	}
	if _, ok := (property{typeUint32, []byte{4, 0}}).uint32(); ok {
		t.Error("a number of two bytes")
	}
	if _, ok := (property{typeString, []byte{4, 0, 0, 0}}).uint32(); ok {
		t.Error("a text is no number")
	}
}

func TestErrorsAreInWords(t *testing.T) {
	if got := NoSuchDevice.Error(); got != "no such device (CONFIGRET 0x0d)" {
		t.Errorf("got %q", got)
	}
	if got := Error(0x99).Error(); !strings.Contains(got, "0x99") {
		t.Errorf("got %q", got)
	}
	if !errors.Is(notImplemented, errors.ErrUnsupported) || errors.Is(NoSuchDevice, errors.ErrUnsupported) {
		t.Error("only what is not implemented is unsupported")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(uint32(0), eventData(0, volumeClass, utf16z(stickPath)))
	f.Add(uint32(6), eventData(1, VolumeLock[:]))
	f.Add(uint32(2), eventData(1))
	f.Fuzz(func(t *testing.T, action uint32, b []byte) {
		e, err := Decode(action, b)
		if err == nil && e.Path != "" && e.Action > Removed {
			t.Errorf("%+v has a path", e)
		}
		if id := Instance(e.Path); id != "" && strings.Count(id, `\`) < 2 {
			t.Errorf("%q is no instance", id)
		}
		for _, typ := range []uint32{typeString, typeList, typeUint32} {
			p := property{typ, b}
			p.uint32()
			if n := len(p.strings()); n > len(b) {
				t.Errorf("%d texts of %d bytes", n, len(b))
			}
		}
	})
}
