package volume

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/event"
	"sekisho/internal/usb"
)

// place is where a volume can be reached, before anything was asked of it.
type place struct {
	name string // without a backslash at its end: "E:", `C:\mnt\stick`, `\\?\Volume{...}`
	root string // to ask about it by, with one: `E:\`, `\\?\Volume{...}\`
	nt   string // `\Device\HarddiskVolume5`
}

// maxVolumes bounds the volumes without a letter; a server with snapshots has some
// hundred.
const maxVolumes = 1024

// drives returns what is in the drives, and on volumes without a letter, now. A
// drive without a medium is left out.
func (w *Watcher) drives() ([]Volume, error) {
	mask, err := windows.GetLogicalDrives()
	if err != nil {
		return nil, fmt.Errorf("list drives: %w", err)
	}
	// Letters come last: where a volume has one, its device's name leads to that.
	places := lettersOff()
	for i := range 26 {
		if mask&(1<<i) != 0 {
			name := string(rune('A'+i)) + ":"
			places = append(places, place{name, name + `\`, dosDevice(name)})
		}
	}
	known := map[string]Volume{}
	for _, v := range w.table.All() {
		known[v.DOSName] = v
	}
	var list []Volume
	var folders []place // that have a letter by SUBST
	for _, p := range places {
		v, was := known[p.name]
		if was = was && v.NTName == p.nt; was && (!changeable(&v) || v.Leaving) { // a question would hold it
			list = append(list, v) // it stays as it is while the name is there
			continue
		}
		if substituted(p.nt) != "" {
			folders = append(folders, p)
			continue
		}
		driveType, err := bounded(w.guard, func() uint32 { return windows.GetDriveType(wide(p.root)) }) // it may open the root
		if err != nil && was {
			list = append(list, v)
			continue
		}
		if err != nil || driveType < driveRemovable || driveType > driveRAM {
			continue // unknown, or no root: gone
		}
		now, label, err := w.drive(p, driveType)
		switch {
		case err != nil && was && !errors.Is(err, errNoMedium): // busy, as a slow stick that is written to
			list = append(list, v)
			continue
		case err != nil && driveType != driveRemote && driveType != driveFixed:
			continue
		}
		if was && !v.unidentified() && v.Dev == now.Dev && v.FileSystemType == now.FileSystemType && v.Writable == now.Writable {
			now = v // the disk behind it need not be asked again
		} else {
			w.identify(&now, driveType, label)
		}
		list = append(list, now)
	}
	if len(folders) > 0 {
		whole := newMounts(list)
		for _, p := range folders {
			if i, ok := whole.lookup(windowsKey(substituted(p.nt))); ok {
				v := list[i]
				v.DOSName, v.NTName, v.Mount = p.name, p.nt, p.name+`\`
				list = append(list, v)
			}
		}
	}
	return w.withClouds(withMapped(list)), nil
}

// changeable reports whether what is known of a volume may change while its name
// and device stay: another card in the slot, a disk formatted or unlocked.
func changeable(v *Volume) bool {
	switch v.Kind {
	case event.VolumeRemovable, event.VolumeOptical:
		return true
	case event.VolumeNetwork: // a server that did not answer is not asked each time
		return false
	}
	return v.FileSystemType == "" || v.unidentified()
}

// lettersOff returns the places of volumes that have no letter: the folders they
// are mounted into, or their own name, by which they are open all the same.
func lettersOff() (places []place) {
	var name [windows.MAX_PATH + 1]uint16
	h, err := windows.FindFirstVolume(&name[0], uint32(len(name)))
	if err != nil {
		return nil
	}
	defer windows.FindVolumeClose(h)
	for range maxVolumes {
		volume := strings.TrimSuffix(windows.UTF16ToString(name[:]), `\`)
		nt := dosDevice(strings.TrimPrefix(volume, `\\?\`))
		paths := mountPaths(volume)
		for _, path := range paths {
			if len(path) > len(`E:\`) {
				places = append(places, place{strings.TrimSuffix(path, `\`), volume + `\`, nt})
			}
		}
		if len(paths) == 0 && nt != "" {
			places = append(places, place{volume, volume + `\`, nt})
		}
		if windows.FindNextVolume(h, &name[0], uint32(len(name))) != nil {
			break // there are no more
		}
	}
	return places
}

// mountPaths returns the letters and folders of a volume, `E:\`, `C:\mnt\stick\`.
func mountPaths(volume string) []string {
	buf := make([]uint16, 1024)
	for range 3 {
		var n uint32
		err := windows.GetVolumePathNamesForVolumeName(wide(volume+`\`), &buf[0], uint32(len(buf)), &n)
		if errors.Is(err, windows.ERROR_MORE_DATA) && n > uint32(len(buf)) && n < 1<<20 {
			buf = make([]uint16, n)
			continue
		}
		if err != nil {
			return nil
		}
		return multiTexts(buf[:min(int(n), len(buf))])
	}
	return nil
}

// lockedType is the file system type of a volume that BitLocker keeps locked.
const lockedType = "BitLocker"

// fveLocked is FVE_E_LOCKED_VOLUME (winerror.h), the answer to all questions about
// the file system of a volume that BitLocker keeps locked.
const fveLocked = 0x80310000

// information is what GetVolumeInformation says.
type information struct {
	serial, flags uint32
	fileSystem    string
	label         string
	err           error
}

// errNoMedium says that there is nothing in a drive that Windows can read.
var errNoMedium = errors.New("no medium")

// drive asks what is in a drive, and for its label. Besides errNoMedium an error
// says that it does not answer, or is just being pulled; names are there all the same.
func (w *Watcher) drive(p place, driveType uint32) (v Volume, label string, err error) {
	v.DOSName, v.NTName, v.Mount, v.Root = p.name, p.nt, p.name+`\`, `\`
	info, err := bounded(w.guard, func() information {
		var r information
		var label, fs [windows.MAX_PATH + 1]uint16
		r.err = windows.GetVolumeInformation(wide(p.root), &label[0], uint32(len(label)), &r.serial, nil, &r.flags, &fs[0], uint32(len(fs)))
		r.fileSystem, r.label = windows.UTF16ToString(fs[:]), windows.UTF16ToString(label[:])
		return r
	})
	switch {
	case err != nil:
		return v, "", err
	case info.err == nil:
		v.Dev = Dev{Minor: info.serial}
		v.FileSystemType = info.fileSystem
		v.Writable = event.Some(info.flags&windows.FILE_READ_ONLY_VOLUME == 0)
	case errors.Is(info.err, windows.Errno(fveLocked)):
		v.FileSystemType, v.Encrypted = lockedType, event.Some(true)
	case driveType != driveRemote && driveType != driveFixed:
		return v, "", errNoMedium
	case !errors.Is(info.err, windows.ERROR_UNRECOGNIZED_VOLUME): // which is a disk that is not formatted
		return v, "", info.err
	}
	return v, info.label, nil
}

// askDisk is how long is waited for what a disk is. A stick is approved by its
// serial number, so telling without is worse than telling late.
const askDisk = 3 * time.Second

// identify asks for the disk behind a drive, whether it is encrypted, and for the
// size.
func (w *Watcher) identify(v *Volume, driveType uint32, label string) {
	var s usb.Storage
	device := v.DOSName
	if strings.HasPrefix(v.NTName, `\Device\`) { // a folder's name would lead to a folder
		device = globalRoot + v.NTName
	}
	switch {
	case driveType == driveRemote:
		v.Share = remoteShare(v.NTName)
	case encrypts(v.NTName): // what its driver says of a disk is made up
	default:
		// A virtual drive (Wine's) has no disk to ask: it stays without one.
		s, _ = boundedBy(w.guard, askDisk, func() usb.Storage { s, _ := usb.QueryStorage(device); return s })
	}
	v.classifyDrive(driveType, s)
	if provider := cloudNames[plainName(label)]; provider != "" && s == (usb.Storage{}) && driveType == driveFixed {
		v.Kind, v.Share = event.VolumeCloudSync, provider // Google Drive shows itself as a disk
	}
	if encrypts(v.NTName) {
		v.Encrypted = event.Some(true)
		w.liesInContainer(v)
	}
	if declaredDrive(v.DOSName, w.opt.RemovablePaths) {
		v.Kind, v.Removable = event.VolumeRemovable, event.Some(true)
	}
	if !v.Told() {
		return
	}
	if !v.Encrypted.OK && v.Kind == event.VolumeRemovable {
		nt := v.NTName
		v.Encrypted, _ = bounded(w.guard, func() event.Opt[bool] { return encryptedBeneath(nt) })
	}
	mount := v.Mount
	size, err := bounded(w.guard, func() uint64 {
		var total uint64
		_ = windows.GetDiskFreeSpaceEx(wide(mount), nil, &total, nil) // 0 then, and no size is told
		return total
	})
	if err == nil && size > 0 && size <= math.MaxInt64 {
		v.Size = event.Some(int64(size))
	}
}

// ioctlVeraCryptMounted is TC_IOCTL_GET_MOUNTED_VOLUMES, CTL_CODE(FILE_DEVICE_UNKNOWN,
// 0x806, METHOD_BUFFERED, FILE_ANY_ACCESS); TrueCrypt's is the same.
const ioctlVeraCryptMounted = 0x222018

// liesInContainer takes over what is known of the medium that a volume of
// VeraCrypt lies on, which is to a stick what a file on it is.
func (w *Watcher) liesInContainer(v *Volume) {
	letter := v.DOSName
	driver := `\\.\VeraCrypt`
	if strings.HasPrefix(strings.ToUpper(v.NTName), `\DEVICE\TRUE`) {
		driver = `\\.\TrueCrypt`
	}
	in, _ := bounded(w.guard, func() string {
		h, err := windows.CreateFile(wide(driver), 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
		if err != nil {
			return ""
		}
		defer windows.CloseHandle(h)
		b := make([]byte, 64<<10) // more than any version gives
		var n uint32
		if windows.DeviceIoControl(h, ioctlVeraCryptMounted, nil, 0, &b[0], uint32(len(b)), &n, nil) != nil {
			return ""
		}
		return parseMountList(b[:n])[letter]
	})
	if file := substituted(in); file != "" {
		if host, ok := w.table.Lookup(file); ok {
			v.inherit(&host)
		}
		return
	}
	if strings.HasPrefix(in, `\Device\`) {
		s, _ := bounded(w.guard, func() usb.Storage { s, _ := usb.QueryStorage(globalRoot + in); return s })
		if s != (usb.Storage{}) {
			v.classifyDrive(driveFixed, s)
		}
	}
}

// encryptedBeneath tells whether a volume lies encrypted on its disk, by the
// beginning of its place there: what the volume itself shows is decrypted. That is
// the one way that needs nothing but the disk: no COM, no WMI provider (which
// Windows' Home editions lack in part and an administrator can stop), no
// undocumented call to the driver; and it holds for locked volumes as well. It
// needs the rights of an administrator; without these it is not known.
func encryptedBeneath(nt string) (yes event.Opt[bool]) {
	for _, e := range extentsOf(nt) {
		begin, err := readDisk(e)
		switch {
		case err != nil:
			return event.Opt[bool]{}
		case cipher(begin) != "":
			return event.Some(true)
		}
		yes = event.Some(false)
	}
	return yes
}

// ioctlVolumeGetVolumeDiskExtents is of winioctl.h: CTL_CODE('V', 0, METHOD_BUFFERED,
// FILE_ANY_ACCESS).
const ioctlVolumeGetVolumeDiskExtents = 0x560000

// extentsOf returns where a volume lies.
func extentsOf(device string) []extent {
	h, err := openDevice(device, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return nil
	}
	defer windows.CloseHandle(h)
	b := make([]byte, 8+24*maxExtents)
	var n uint32
	if windows.DeviceIoControl(h, ioctlVolumeGetVolumeDiskExtents, nil, 0, &b[0], uint32(len(b)), &n, nil) != nil {
		return nil
	}
	return parseExtents(b[:n])
}

// readDisk reads the first 4 KiB of an extent: a sector of any disk, and so one
// that a disk reads at all. Memory that Go allocates in this size is aligned to
// it, as disks want it.
func readDisk(e extent) ([]byte, error) {
	h, err := windows.CreateFile(wide(fmt.Sprintf(`\\.\PhysicalDrive%d`, e.disk)), windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk %d: %w", e.disk, err)
	}
	defer windows.CloseHandle(h)
	b := make([]byte, 4096)
	var n uint32
	at := windows.Overlapped{Offset: uint32(e.begin), OffsetHigh: uint32(e.begin >> 32)}
	if err := windows.ReadFile(h, b, &n, &at); err != nil {
		return nil, fmt.Errorf("read disk %d: %w", e.disk, err)
	}
	return b[:n], nil
}

// globalRoot before the name of a device in the kernel makes it one to open.
const globalRoot = `\\?\GLOBALROOT`

// openDevice opens a device by its name in the kernel, `\Device\HarddiskVolume5`,
// without touching a file system.
func openDevice(device string, access uint32) (windows.Handle, error) {
	h, err := windows.CreateFile(wide(globalRoot+device), access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("open device %s: %w", device, err)
	}
	return h, nil
}

// dosDevice returns what a drive letter, or the name of a volume without the
// leading `\\?\`, stands for: `\Device\HarddiskVolume5`.
func dosDevice(name string) string {
	var buf [1024]uint16
	if n, err := windows.QueryDosDevice(wide(name), &buf[0], uint32(len(buf))); err != nil || n == 0 {
		return ""
	}
	return windows.UTF16ToString(buf[:])
}

// wide is a text for a call. What comes here holds no NUL: it came from Windows
// in that form.
func wide(s string) *uint16 {
	p, err := windows.UTF16PtrFromString(s)
	if err != nil {
		return new(uint16) // an empty one
	}
	return p
}
