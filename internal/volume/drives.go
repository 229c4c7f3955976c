package volume

import (
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/usb"
)

// Types of drives, as GetDriveType of the Windows API numbers them.
const (
	driveRemovable = 2
	driveFixed     = 3
	driveRemote    = 4
	driveCDROM     = 5
	driveRAM       = 6
)

// classifyDrive sets kind and identity of a drive from its type and the disk
// behind it, the zero Storage if there is none.
func (v *Volume) classifyDrive(driveType uint32, s usb.Storage) {
	v.BusType, v.VendorID, v.ProductID, v.SerialNumber = s.Bus, s.VendorID, s.ProductID, s.Serial
	switch {
	case driveType == driveRemote:
		v.Kind = event.VolumeNetwork
		return
	case driveType == driveCDROM:
		v.Kind = event.VolumeOptical
	case driveType == driveRAM:
		v.Kind = event.VolumeVirtual
		return
	// External disks are "fixed" to Windows.
	case driveType == driveRemovable, s.Bus == "usb", s.Bus == "sd", s.Bus == "ieee1394":
		v.Kind = event.VolumeRemovable
	default:
		v.Kind = event.VolumeLocal
	}
	v.Removable = event.Some(v.Kind != event.VolumeLocal)
}

// remoteShare returns the share that a drive letter is mapped to, from what
// QueryDosDevice says of it: `\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\share`,
// or with `\Device\Mup\;LanmanRedirector\;Z:...` in front.
func remoteShare(device string) string {
	i := strings.LastIndex(device, `\;`)
	if i < 0 {
		return ""
	}
	_, rest, ok := strings.Cut(device[i+2:], `\`)
	if !ok || rest == "" {
		return ""
	}
	return `\\` + rest
}

// compareDrives returns the told volumes of old that are not in now, and those
// of now that were not in old. The same drive with another medium is another
// volume.
func compareDrives(old, now []Volume) (gone, come []change) {
	type id struct {
		mount, nt, share, fs string
		dev                  Dev
		writable             event.Opt[bool]
	}
	of := func(v *Volume) id {
		return id{v.Mount, v.NTName, v.Share, v.FileSystemType, v.Dev, v.Writable}
	}
	was, is := map[id]bool{}, map[id]bool{}
	for i := range old {
		was[of(&old[i])] = true
	}
	for i := range now {
		is[of(&now[i])] = true
		if v := &now[i]; v.Told() && !was[of(v)] {
			come = append(come, change{Volume: *v})
		}
	}
	for i := range old {
		if v := &old[i]; v.Told() && !is[of(v)] {
			gone = append(gone, change{Volume: *v})
		}
	}
	return gone, come
}

// declaredDrive reports whether settings declare a drive ("E:") removable.
func declaredDrive(drive string, paths []string) bool {
	for _, p := range paths {
		if windowsKey(p) == drive {
			return true
		}
	}
	return false
}
