package usb

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
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
	var number struct{ Type, Disk, Partition uint32 } // STORAGE_DEVICE_NUMBER
	if windows.DeviceIoControl(h, ioctlStorageGetDeviceNumber, nil, 0, (*byte)(unsafe.Pointer(&number)), uint32(unsafe.Sizeof(number)), &n, nil) == nil {
		s.Disk = number.Disk
	}
	if s.Bus == "usb" && s.Serial != "" {
		s.VendorID, s.ProductID = idsBySerial(s.Serial)
	}
	return s, nil
}

// maxInstances bounds the registry keys looked at: one for each kind of device
// that was ever plugged in.
const maxInstances = 4096

// idsBySerial looks for the one kind of USB device that the registry knows with
// this serial number. Two kinds with it, or none, give no answer.
func idsBySerial(serial string) (vendor, product string) {
	const enum = `SYSTEM\CurrentControlSet\Enum\USB`
	root, err := registry.OpenKey(registry.LOCAL_MACHINE, enum, registry.ENUMERATE_SUB_KEYS)
	if err != nil {
		return "", ""
	}
	defer root.Close()
	names, _ := root.ReadSubKeyNames(maxInstances) // io.EOF if there are fewer
	for _, name := range names {
		v, p, ok := parseInstance(name)
		if !ok || strings.Contains(serial, `\`) {
			continue
		}
		k, err := registry.OpenKey(root, name+`\`+serial, registry.QUERY_VALUE)
		if err != nil {
			continue
		}
		k.Close()
		if vendor != "" {
			return "", ""
		}
		vendor, product = v, p
	}
	return vendor, product
}
