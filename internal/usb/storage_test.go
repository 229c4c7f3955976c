package usb

import (
	"encoding/binary"
	"strings"
	"testing"
)

// descriptor lays out a STORAGE_DEVICE_DESCRIPTOR as winioctl.h documents it.
func descriptor(bus uint32, removable bool, vendor, product, revision, serial string) []byte {
	b := make([]byte, 36)
	binary.LittleEndian.PutUint32(b[0:], 40) // version: size of the structure
	if removable {
		b[10] = 1
	}
	binary.LittleEndian.PutUint32(b[28:], bus)
	for i, s := range []string{vendor, product, revision, serial} {
		if s == "" {
			continue
		}
		binary.LittleEndian.PutUint32(b[12+4*i:], uint32(len(b)))
		b = append(append(b, s...), 0)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	return b
}

func TestParseStorage(t *testing.T) {
	minusOne := descriptor(7, true, "SanDisk", "Ultra", "", "")
	binary.LittleEndian.PutUint32(minusOne[24:], 0xffffffff)
	unended := descriptor(7, true, "", "", "", "4C53")
	unended = unended[:len(unended)-1]
	tests := []struct {
		name string
		data []byte
		want Storage
	}{
		{"a stick", descriptor(7, true, "SanDisk ", "Ultra           ", "1.00", "4C530001"), Storage{Bus: "usb", Removable: true, Vendor: "SanDisk", Product: "Ultra", Serial: "4C530001"}},
		{"an external disk, which is not removable", descriptor(7, false, "", "Elements 25A2", "1004", "  WX41A"), Storage{Bus: "usb", Product: "Elements 25A2", Serial: "WX41A"}},
		{"no serial number, as Wine answers", descriptor(0, false, "", "", "", "")[:36], Storage{}},
		{"an offset of -1 is none", minusOne, Storage{Bus: "usb", Removable: true, Vendor: "SanDisk", Product: "Ultra"}},
		{"a text that does not end", unended, Storage{Bus: "usb", Removable: true, Serial: "4C53"}},
		{"a bus of the future", descriptor(99, false, "a", "b", "c", "d"), Storage{Vendor: "a", Product: "b", Serial: "d"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parseStorage(tt.data); err != nil || got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
	if _, err := parseStorage(make([]byte, 35)); err == nil {
		t.Error("35 bytes are a descriptor, want an error")
	}
}

func TestADiskAsAUSBDevice(t *testing.T) {
	s := Storage{Bus: "usb", Vendor: "SanDisk", Product: "Ultra", Serial: "4C53", VendorID: "0781", ProductID: "5581"}
	d := s.device(`\\.\PhysicalDrive1`)
	if d.VendorName != "SanDisk" || d.VendorID != "0781" || d.SerialNumber != "4C53" || d.Path != `\\.\PhysicalDrive1` || len(d.Kinds) != 1 || d.Kinds[0] != "storage" {
		t.Errorf("got %+v", d)
	}
}

func TestParseInstance(t *testing.T) {
	for name, want := range map[string]string{"VID_0781&PID_5581": "0781:5581", "vid_046d&pid_c52b": "046d:c52b", "VID_0781&PID_5581&MI_00": ":",
		"ROOT_HUB30": ":", "VID_0781": ":", "VID_zzzz&PID_5581": ":", "": ":"} {
		if v, p, _ := parseInstance(name); v+":"+p != want {
			t.Errorf("%q is %s:%s, want %s", name, v, p, want)
		}
	}
}

func FuzzStorage(f *testing.F) {
	f.Add(descriptor(7, true, "SanDisk", "Ultra", "1.00", "4C530001"))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseStorage(data)
		if err == nil && (strings.ContainsRune(s.Serial+s.Vendor+s.Product, 0) || len(s.Serial) > maxTextBytes) {
			t.Errorf("got %+v", s)
		}
	})
}
