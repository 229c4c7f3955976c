package fileaudit

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// The kernel's records (linux/fanotify.h).
//
//	fanotify_event_metadata: event_len u32, vers u8, reserved u8,
//	                         metadata_len u16, mask u64, fd s32, pid s32
//	fanotify_event_info_*:   info_type u8, pad u8, len u16, then for names
//	                         fsid 8 bytes, handle_bytes u32, handle_type s32,
//	                         the handle, the name and a NUL
const (
	fanHeader  = 24
	fanVersion = 3

	infoHeader      = 4
	infoFID         = 1
	infoDFIDName    = 2
	infoDFID        = 3
	infoOldDFIDName = 10
	infoNewDFIDName = 12

	// maxHandle is the kernel's MAX_HANDLE_SZ.
	maxHandle = 128
)

var errRecord = errors.New("fanotify record makes no sense")

// kernelRecord is one event of a fanotify group.
type kernelRecord struct {
	mask uint64
	fd   int // -1 without a descriptor
	pid  int
	name nameInfo // the object, or where it is now
	old  nameInfo // where a renamed object was
}

// nameInfo names an object by its folder and its name there.
type nameInfo struct {
	fsid       [8]byte
	handleType int32
	handle     []byte // of the folder; points into the buffer read
	name       string // "" or ".": the folder itself
}

// parseRecords calls yield for each record in what was read from a group. An
// information record of a kind we do not know is passed over.
func parseRecords(b []byte, yield func(kernelRecord)) error {
	ne := binary.NativeEndian
	for len(b) >= fanHeader {
		size, head := int(ne.Uint32(b)), int(ne.Uint16(b[6:]))
		if size < fanHeader || size > len(b) || b[4] != fanVersion || head < fanHeader || head > size {
			return errRecord
		}
		r := kernelRecord{mask: ne.Uint64(b[8:]), fd: int(int32(ne.Uint32(b[16:]))), pid: int(int32(ne.Uint32(b[20:])))}
		for info := b[head:size]; len(info) >= infoHeader; {
			n := int(ne.Uint16(info[2:]))
			if n < infoHeader || n > len(info) {
				return errRecord
			}
			var err error
			switch info[0] {
			case infoDFIDName, infoNewDFIDName, infoDFID:
				r.name, err = parseName(info[infoHeader:n])
			case infoOldDFIDName:
				r.old, err = parseName(info[infoHeader:n])
			}
			if err != nil {
				return err
			}
			info = info[n:]
		}
		yield(r)
		b = b[size:]
	}
	if len(b) > 0 {
		return errRecord
	}
	return nil
}

func parseName(b []byte) (nameInfo, error) {
	ne := binary.NativeEndian
	if len(b) < 16 {
		return nameInfo{}, errRecord
	}
	var n nameInfo
	copy(n.fsid[:], b)
	size := int(ne.Uint32(b[8:]))
	n.handleType = int32(ne.Uint32(b[12:]))
	b = b[16:]
	if size > maxHandle || size > len(b) {
		return nameInfo{}, errRecord
	}
	n.handle = b[:size:size]
	name, _, _ := bytes.Cut(b[size:], []byte{0})
	n.name = string(name)
	return n, nil
}
