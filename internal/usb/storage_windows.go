package usb

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/event"
)

// Control codes of winioctl.h: device type mass storage (0x2d), function 0x500
// and 0x420, any access.
const (
	ioctlStorageQueryProperty   = 0x2d1400
	ioctlStorageGetDeviceNumber = 0x2d1080
)

// QueryStorage asks for the disk behind a volume: "E:" or, as a device,
// `\\?\GLOBALROOT\Device\HarddiskVolume5`. It needs no privilege and does not touch the medium; a device
// that is failing may keep it waiting.
func QueryStorage(drive string) (Storage, error) {
	path := drive
	if !strings.HasPrefix(path, `\\`) {
		path = `\\.\` + path
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return Storage{}, fmt.Errorf("ask about drive %s: %w", drive, err)
	}
	// No access is asked for: that is what lets everyone ask, medium or not.
	h, err := windows.CreateFile(name, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return Storage{}, fmt.Errorf("open drive %s: %w", drive, err)
	}
	defer windows.CloseHandle(h)
	var query [12]byte // STORAGE_PROPERTY_QUERY: StorageDeviceProperty, PropertyStandardQuery
	var answer [4096]byte
	var n uint32
	if err := windows.DeviceIoControl(h, ioctlStorageQueryProperty, &query[0], uint32(len(query)), &answer[0], uint32(len(answer)), &n, nil); err != nil {
		return Storage{}, fmt.Errorf("ask drive %s what it is: %w", drive, err)
	}
	s, err := parseStorage(answer[:n])
	if err != nil {
		return Storage{}, fmt.Errorf("ask drive %s what it is: %w", drive, err)
	}
	number, numbered := deviceNumber(h)
	s.Disk = number.Disk
	if numbered && s.Bus != "" && cfgmgr.Available() == nil {
		if d, ok := aboveDisk(number); ok {
			s.Bus, s.VendorID, s.ProductID, s.USBPath = "usb", d.VendorID, d.ProductID, d.Path
			s.Serial = d.SerialNumber // the disk may have another, or its box have one where it has none
		}
	}
	return s, nil
}

// storageNumber is STORAGE_DEVICE_NUMBER (winioctl.h).
type storageNumber struct {
	Type      uint32 // FILE_DEVICE_DISK, FILE_DEVICE_CD_ROM ...
	Disk      uint32 // among those of its type
	Partition uint32
}

func deviceNumber(h windows.Handle) (storageNumber, bool) {
	var number storageNumber
	var n uint32
	err := windows.DeviceIoControl(h, ioctlStorageGetDeviceNumber, nil, 0, (*byte)(unsafe.Pointer(&number)), uint32(unsafe.Sizeof(number)), &n, nil)
	return number, err == nil
}

// fileDeviceCDROM is FILE_DEVICE_CD_ROM of winioctl.h.
const fileDeviceCDROM = 2

// aboveDisk returns the USB device that a disk hangs on.
func aboveDisk(number storageNumber) (event.Device, bool) {
	class := cfgmgr.Disk
	if number.Type == fileDeviceCDROM {
		class = cfgmgr.CDROM
	}
	disks, err := cfgmgr.Interfaces(class, "")
	if err != nil {
		return event.Device{}, false
	}
	for _, path := range disks {
		if !isDisk(path, number) {
			continue
		}
		node, err := cfgmgr.Locate(cfgmgr.Instance(path))
		if err != nil {
			return event.Device{}, false
		}
		return deviceAbove(node)
	}
	return event.Device{}, false
}

// isDisk reports whether an interface is that of the disk with this number.
func isDisk(path string, number storageNumber) bool {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return false
	}
	h, err := windows.CreateFile(name, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return false
	}
	defer windows.CloseHandle(h)
	n, ok := deviceNumber(h)
	return ok && n.Type == number.Type && n.Disk == number.Disk
}
