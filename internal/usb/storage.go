package usb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"

	"sekisho/internal/event"
)

// Storage is what Windows says of the disk behind a drive letter.
type Storage struct {
	Bus       string // "usb", "sata", "sd" ...; "" if Windows does not know
	Removable bool   // the medium can be taken out of the drive
	CDROM     bool
	Vendor    string // as the disk says, "SanDisk"; not the USB vendor's name
	Product   string
	Serial    string // as the disk says, mostly that of the USB device
	VendorID  string // USB ids, 4 hex digits; "" where the serial number leads to no single device
	ProductID string
	USBPath   string // where the USB device behind it is plugged in, as [event.Device].Path; "" if there is none
	Disk      uint32 // number of the physical drive, the same for all its partitions
}

// device returns the disk as a USB device.
func (s *Storage) device(path string) event.Device {
	return event.Device{VendorID: s.VendorID, ProductID: s.ProductID, VendorName: s.Vendor, ProductName: s.Product,
		SerialNumber: s.Serial, Path: path, Kinds: []string{event.KindStorage}}
}

// busTypes maps STORAGE_BUS_TYPE (winioctl.h of the Windows SDK) to the words
// that the Linux side uses.
var busTypes = map[uint32]string{1: "scsi", 2: "atapi", 3: "ata", 4: "ieee1394", 5: "ssa", 6: "fibre", 7: "usb", 8: "raid", 9: "iscsi",
	10: "sas", 11: "sata", 12: "sd", 13: "mmc", 14: "virtual", 15: "file", 16: "spaces", 17: "nvme", 18: "scm", 19: "ufs"}

var errShortDescriptor = errors.New("storage descriptor is too short")

// parseStorage reads a STORAGE_DEVICE_DESCRIPTOR (winioctl.h): 36 bytes, then
// texts ended by NUL at the offsets it names, 0 for none.
func parseStorage(b []byte) (Storage, error) {
	if len(b) < 36 {
		return Storage{}, errShortDescriptor
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if size := u32(4); size >= 36 && uint64(size) < uint64(len(b)) {
		b = b[:size]
	}
	text := func(at int) string {
		offset := u32(at)
		// Offsets into the fixed part, and the -1 that some drivers give for
		// "none", name nothing.
		if offset < 36 || uint64(offset) >= uint64(len(b)) {
			return ""
		}
		s := b[offset:]
		if end := bytes.IndexByte(s, 0); end >= 0 {
			s = s[:end]
		}
		return cut(strings.TrimSpace(string(s)))
	}
	return Storage{
		Bus:       busTypes[u32(28)],
		Removable: b[10] != 0,
		CDROM:     b[8] == 5, // SCSI peripheral device type
		Vendor:    text(12),
		Product:   text(16),
		Serial:    text(24),
	}, nil
}

// parseInstance reads vendor and product from the name of a USB device in the
// registry, "VID_0781&PID_5581". Functions of a composite device ("&MI_00") and
// root hubs are none.
func parseInstance(name string) (vendor, product string, ok bool) {
	v, p, ok := strings.Cut(strings.ToUpper(name), "&PID_")
	v, vid := strings.CutPrefix(v, "VID_")
	if !ok || !vid || len(v) != 4 || len(p) != 4 {
		return "", "", false
	}
	if vendor, product = hex4(v), hex4(p); vendor == "" || product == "" {
		return "", "", false
	}
	return vendor, product, true
}
