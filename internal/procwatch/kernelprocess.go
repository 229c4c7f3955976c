package procwatch

import (
	"encoding/binary"
	"errors"
	"time"

	"sekisho/internal/etw"
)

// What Microsoft-Windows-Kernel-Process says, by the manifest of that provider in
// Windows 10 and 11.

// kernelStart is the start of a process. Fields that older versions of the event do
// not have are empty.
type kernelStart struct {
	pid, ppid int
	created   uint64 // FILETIME; with pid it tells the process from all others of a boot
	session   uint32
	elevation uint32 // TOKEN_ELEVATION_TYPE; 0 if not told
	label     string // SID of its integrity level
	image     string // as the kernel names files: `\Device\HarddiskVolume3\Windows\notepad.exe`
}

// kernelStop is the end of a process.
type kernelStop struct {
	pid     int
	created uint64    // as of its start
	ended   time.Time // zero if not told
	exit    uint32
}

// parseKernelStart reads event 1:
//
//	0     ProcessID u32, CreateTime FILETIME, ParentProcessID u32, SessionID u32,
//	      ImageName UTF-16z
//	1, 2  as 0 with Flags u32 before ImageName; 2 goes on behind it
//	3, 4  ProcessID u32, ProcessSequenceNumber u64, CreateTime FILETIME,
//	      ParentProcessID u32, ParentProcessSequenceNumber u64, SessionID u32, Flags
//	      u32, ProcessTokenElevationType u32, ProcessTokenIsElevated u32,
//	      MandatoryLabel SID, ImageName UTF-16z, and more
//
// Later versions have begun with the fields of those before them since 3.
func parseKernelStart(version uint8, r etw.Reader) (kernelStart, error) {
	s := kernelStart{pid: int(int32(r.U32()))}
	if version >= 3 {
		r.Skip(8)
	}
	s.created = r.U64()
	s.ppid = int(int32(r.U32()))
	if version >= 3 {
		r.Skip(8)
	}
	s.session = r.U32()
	if version >= 1 {
		r.Skip(4)
	}
	if version >= 3 {
		s.elevation = r.U32()
		r.Skip(4)
		s.label = r.SID()
	}
	s.image = r.UTF16()
	return s, r.Err()
}

// parseKernelStop reads event 2:
//
//	0, 1  ProcessID u32, CreateTime FILETIME, ExitTime FILETIME, ExitCode u32, and more
//	2     as these with ProcessSequenceNumber u64 behind ProcessID
func parseKernelStop(version uint8, r etw.Reader) (kernelStop, error) {
	s := kernelStop{pid: int(int32(r.U32()))}
	if version >= 2 {
		r.Skip(8)
	}
	s.created = r.U64()
	s.ended = r.FileTime()
	s.exit = r.U32()
	return s, r.Err()
}

// integrityLevel is what people call the integrity level with this SID, "" for none
// (winnt.h, SECURITY_MANDATORY_..._RID: S-1-16-RID).
func integrityLevel(sid string) string {
	switch sid {
	case "S-1-16-0":
		return "untrusted"
	case "S-1-16-4096":
		return "low"
	case "S-1-16-8192", "S-1-16-8448": // medium, and medium plus
		return "medium"
	case "S-1-16-12288":
		return "high"
	case "S-1-16-16384", "S-1-16-20480": // system, and protected process
		return "system"
	}
	return ""
}

// elevationType is a TOKEN_ELEVATION_TYPE of winnt.h as it stands in events.
func elevationType(t uint32) string {
	switch t {
	case 1:
		return "default"
	case 2:
		return "full"
	case 3:
		return "limited"
	}
	return ""
}

// unicodeStringSize is the size of a UNICODE_STRING of 64-bit Windows (ntdef.h):
// Length u16 (bytes), MaximumLength u16, padding, Buffer pointer.
const unicodeStringSize = 16

var errUnicodeString = errors.New("its text lies outside of the answer")

// parseUnicodeString reads an answer of Windows that begins with a UNICODE_STRING
// whose text lies in the answer, too. base is where the answer lay in memory.
func parseUnicodeString(b []byte, base uint64) (string, error) {
	if len(b) < unicodeStringSize {
		return "", errUnicodeString
	}
	size, at := uint64(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint64(b[8:])
	if size == 0 {
		return "", nil
	}
	if at < base || at-base > uint64(len(b)) || size > uint64(len(b))-(at-base) {
		return "", errUnicodeString
	}
	return etw.DecodeUTF16(b[at-base:][:size]), nil
}
