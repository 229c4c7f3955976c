package volume

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"

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
	v.BusType, v.VendorID, v.ProductID, v.SerialNumber, v.USBPath = s.Bus, s.VendorID, s.ProductID, s.Serial, s.USBPath
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
// or with `\Device\Mup\;LanmanRedirector\;Z:...` in front; `\??\UNC\fs1\share` after
// SUBST.
func remoteShare(device string) string {
	if rest, ok := strings.CutPrefix(device, `\??\UNC\`); ok && rest != "" {
		return `\\` + rest
	}
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
		mount, nt, share, fs, kind, serial string
		dev                                Dev
		writable                           event.Opt[bool]
	}
	of := func(v *Volume) id {
		return id{v.Mount, v.NTName, v.Share, v.FileSystemType, v.Kind, v.SerialNumber, v.Dev, v.Writable}
	}
	was, is := map[id]bool{}, map[id]bool{}
	for i := range old {
		was[of(&old[i])] = true
	}
	for i := range now {
		is[of(&now[i])] = true
		if v := &now[i]; v.Told() && !was[of(v)] {
			c := change{Volume: *v}
			if v.Folder {
				c.message = cloudFolder + v.Share
			}
			come = append(come, c)
		}
	}
	for i := range old {
		if v := &old[i]; v.Told() && !is[of(v)] {
			gone = append(gone, change{Volume: *v})
		}
	}
	return gone, come
}

// unidentified reports whether it is not known what disk a volume lies on, though
// it lies on one: it did not answer in time.
func (v *Volume) unidentified() bool {
	return v.BusType == "" && (v.Kind == event.VolumeLocal || v.Kind == event.VolumeRemovable) && strings.HasPrefix(v.NTName, `\Device\HarddiskVolume`)
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

// redirectors maps the beginning of a mapped letter's device to what the server is
// spoken to in.
var redirectors = []struct{ device, typ string }{
	{`\Device\LanmanRedirector\;`, "SMB"}, {`\Device\Mup\;LanmanRedirector\;`, "SMB"},
	{`\Device\WebDavRedirector\;`, "WebDAV"}, {`\Device\Mup\;WebDavRedirector\;`, "WebDAV"},
	{`\Device\`, "network"},
}

// mappedDrive is a network drive of a logon that is not ours: what its letter
// stands for is all that we may know of it. ok is false for what is no such drive.
func mappedDrive(letter, device string) (v Volume, ok bool) {
	share := remoteShare(device)
	if share == "" {
		return Volume{}, false
	}
	for _, r := range redirectors {
		if len(device) >= len(r.device) && strings.EqualFold(device[:len(r.device)], r.device) {
			v.FileSystemType = r.typ
			break
		}
	}
	if v.FileSystemType == "" {
		return Volume{}, false // a folder of a share, by SUBST
	}
	v.DOSName, v.NTName, v.Mount, v.Root = letter, device, share+`\`, `\`
	v.Kind, v.Share = event.VolumeNetwork, share
	return v, true
}

// substituted returns the folder that a drive letter stands for by SUBST, from
// what QueryDosDevice says of it, `\??\E:\docs`; "" for all else.
func substituted(device string) string {
	rest, ok := strings.CutPrefix(device, `\??\`)
	if !ok || len(rest) < 2 || rest[1] != ':' {
		return ""
	}
	return rest
}

// encrypts reports whether a volume is one that VeraCrypt or TrueCrypt decrypts,
// by its device's name: `\Device\VeraCryptVolumeV`.
func encrypts(device string) bool {
	device = strings.ToUpper(device)
	return strings.HasPrefix(device, `\DEVICE\VERACRYPTVOLUME`) || strings.HasPrefix(device, `\DEVICE\TRUECRYPTVOLUME`)
}

// parseMountList reads what VeraCrypt's driver has mounted, what lies beneath by
// drive letter: `\??\E:\safe.hc`, `\Device\Harddisk2\Partition1`. Its
// MOUNT_LIST_STRUCT (src/Common/Apidrvr.h of VeraCrypt, packed to bytes) begins, as
// ever since TrueCrypt, with a bit for each letter and 26 paths of 260 UTF-16
// units; what follows differs by version and is not read.
func parseMountList(b []byte) map[string]string {
	const path = 2 * 260
	if len(b) < 4 {
		return nil
	}
	mounted := map[string]string{}
	letters := binary.LittleEndian.Uint32(b)
	b = b[4:]
	for i := 0; i < 26 && len(b) >= path; i, b = i+1, b[path:] {
		var u []uint16
		for j := 0; j < path; j += 2 {
			u = append(u, binary.LittleEndian.Uint16(b[j:]))
		}
		if texts := multiTexts(u); letters&(1<<i) != 0 && len(texts) > 0 {
			mounted[string(rune('A'+i))+":"] = texts[0]
		}
	}
	return mounted
}

// extent is where a volume lies on a disk.
type extent struct {
	disk          uint32
	begin, length int64 // bytes
}

// maxExtents bounds the pieces of a volume that are read.
const maxExtents = 128

// parseExtents reads VOLUME_DISK_EXTENTS (winioctl.h; amd64): their number in a
// field of eight bytes, then DISK_EXTENT of 24 bytes each.
func parseExtents(b []byte) (list []extent) {
	if len(b) < 8 {
		return nil
	}
	n := min(binary.LittleEndian.Uint32(b), maxExtents)
	for b = b[8:]; n > 0 && len(b) >= 24; n, b = n-1, b[24:] {
		e := extent{binary.LittleEndian.Uint32(b), int64(binary.LittleEndian.Uint64(b[8:])), int64(binary.LittleEndian.Uint64(b[16:]))}
		if e.begin >= 0 && e.length > 0 {
			list = append(list, e)
		}
	}
	return list
}

// multiTexts reads a list of UTF-16 texts each ended by NUL, the list by an empty
// one, as GetVolumePathNamesForVolumeName gives it.
func multiTexts(u []uint16) (list []string) {
	for len(u) > 0 && u[0] != 0 {
		n := 0
		for n < len(u) && u[n] != 0 {
			n++
		}
		list = append(list, string(utf16.Decode(u[:n])))
		u = u[min(n+1, len(u)):]
	}
	return list
}
