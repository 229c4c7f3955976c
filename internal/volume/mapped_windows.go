package volume

import (
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Network drives belong to the logon that mapped them: a service does not see
// those of the people at the PC among its own letters. The kernel has a directory
// for each logon, with a link for each of its letters
// (`\Sessions\0\DosDevices\00000000-0003e7a1`, "Z:"), which the system and
// administrators may read ("Local and Global MS-DOS Device Names" in the Windows
// driver documentation).
const logonDevices = `\Sessions\0\DosDevices`

// Bounds of what is read of them. Judgements: a terminal server has some hundred
// logons.
const (
	maxLogons  = 1024
	maxLetters = 64
)

var (
	ntdll            = windows.NewLazySystemDLL("ntdll.dll")
	procOpenDir      = ntdll.NewProc("NtOpenDirectoryObject")
	procQueryDir     = ntdll.NewProc("NtQueryDirectoryObject")
	procOpenSymlink  = ntdll.NewProc("NtOpenSymbolicLinkObject")
	procQuerySymlink = ntdll.NewProc("NtQuerySymbolicLinkObject")
)

// mappedDrives returns the network drives of all logons. The same drive of two
// logons, as an administrator has, is one.
func mappedDrives() (list []Volume) {
	for _, logon := range objects(logonDevices, "Directory", maxLogons) {
		dir := logonDevices + `\` + logon
		for _, letter := range objects(dir, "SymbolicLink", maxLetters) {
			if len(letter) != 2 || letter[1] != ':' {
				continue
			}
			nt := linkTarget(dir + `\` + letter)
			if v, ok := mappedDrive(letter, nt); ok && !slices.ContainsFunc(list, func(o Volume) bool { return o.DOSName == v.DOSName && o.Share == v.Share }) {
				list = append(list, v)
			}
		}
	}
	return list
}

// withMapped puts the network drives of all logons before the volumes that the
// agent has letters for, which count where both have one.
func withMapped(list []Volume) []Volume {
	all := slices.DeleteFunc(mappedDrives(), func(v Volume) bool {
		return slices.ContainsFunc(list, func(o Volume) bool { return o.DOSName == v.DOSName && strings.EqualFold(o.Share, v.Share) })
	})
	return append(all, list...)
}

// objects lists the names of the objects of a type in a directory of the kernel.
func objects(dir, typ string, limit int) (names []string) {
	if procQueryDir.Find() != nil {
		return nil
	}
	h, ok := openObject(procOpenDir, dir, 0x1) // DIRECTORY_QUERY (wdm.h)
	if !ok {
		return nil
	}
	defer windows.CloseHandle(h)
	// OBJECT_DIRECTORY_INFORMATION (ntifs.h): the texts lie behind it, in the buffer.
	type information struct{ name, typ windows.NTUnicodeString }
	buf := make([]uint64, 512) // aligned for what it takes
	var context, n uint32
	for range limit {
		r, _, _ := procQueryDir.Call(uintptr(h), uintptr(unsafe.Pointer(&buf[0])), uintptr(8*len(buf)), 1, 0, uintptr(unsafe.Pointer(&context)), uintptr(unsafe.Pointer(&n)))
		if uint32(r) != 0 { // STATUS_NO_MORE_ENTRIES, as a rule
			break
		}
		if x := (*information)(unsafe.Pointer(&buf[0])); x.typ.String() == typ {
			names = append(names, x.name.String())
		}
	}
	return names
}

// linkTarget returns where a symbolic link of the kernel leads, "" if it is gone.
func linkTarget(name string) string {
	if procQuerySymlink.Find() != nil {
		return ""
	}
	h, ok := openObject(procOpenSymlink, name, 0x1) // SYMBOLIC_LINK_QUERY (ntifs.h)
	if !ok {
		return ""
	}
	defer windows.CloseHandle(h)
	var buf [1024]uint16
	to := windows.NTUnicodeString{MaximumLength: uint16(2 * len(buf)), Buffer: &buf[0]}
	if r, _, _ := procQuerySymlink.Call(uintptr(h), uintptr(unsafe.Pointer(&to)), 0); uint32(r) != 0 {
		return ""
	}
	return to.String()
}

func openObject(open *windows.LazyProc, name string, access uint32) (windows.Handle, bool) {
	text, err := windows.NewNTUnicodeString(name)
	if err != nil || open.Find() != nil {
		return 0, false
	}
	a := windows.OBJECT_ATTRIBUTES{ObjectName: text, Attributes: windows.OBJ_CASE_INSENSITIVE}
	a.Length = uint32(unsafe.Sizeof(a))
	var h windows.Handle
	r, _, _ := open.Call(uintptr(unsafe.Pointer(&h)), uintptr(access), uintptr(unsafe.Pointer(&a)))
	return h, uint32(r) == 0
}
