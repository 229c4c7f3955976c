package fileaudit

import (
	"encoding/binary"
	"errors"
	"time"

	"sekisho/internal/winpath"
)

// What ReadDirectoryChangesW gives (winnt.h, FILE_NOTIFY_INFORMATION), and
// ReadDirectoryChangesExW with ReadDirectoryNotifyExtendedInformation
// (FILE_NOTIFY_EXTENDED_INFORMATION). All little-endian, names in UTF-16 without
// an end, lengths in bytes; an entry begins NextEntryOffset after the one before it.
//
//	 0 NextEntryOffset u32, 4 Action u32, 8 FileNameLength u32, 12 FileName
//
//	 0 NextEntryOffset u32, 4 Action u32, 8 CreationTime, 16 LastModificationTime,
//	24 LastChangeTime, 32 LastAccessTime, 40 AllocatedLength, 48 FileSize (all i64),
//	56 FileAttributes u32, 60 ReparsePointTag u32, 64 FileId i64, 72 ParentFileId i64,
//	80 FileNameLength u32, 84 FileName
const (
	changeHeader   = 12
	extendedHeader = 84

	attrDirectory = 0x10
	attrReparse   = 0x400
	// tagSurrogate is the bit of a reparse tag that says that the file stands for
	// another one (a link, a mount point), unlike a file that lies in a cloud.
	tagSurrogate = 0x20000000
)

// changeKind is FILE_ACTION_... of winnt.h and ntifs.h.
type changeKind uint32

const (
	changeAdded changeKind = iota + 1
	changeRemoved
	changeModified
	changeOldName // of a rename; the next entry is mostly the new one
	changeNewName
	changeStreamAdded
	changeStreamRemoved
	changeStreamModified
)

var errChange = errors.New("notification of changes makes no sense")

// change is one entry of a notification.
type change struct {
	kind changeKind
	name string // from the folder that is watched, with backslashes; maybe an 8.3 name
	full bool   // the fields below are known
	link bool   // stands for another file
	dir  bool
	size int64
	id   uint64
	born time.Time
}

// parseChanges calls yield for each entry of a notification.
func parseChanges(b []byte, extended bool, yield func(change)) error {
	le := binary.LittleEndian
	head := changeHeader
	if extended {
		head = extendedHeader
	}
	for {
		if len(b) < head {
			return errChange
		}
		next, n := int64(le.Uint32(b)), int64(le.Uint32(b[head-4:]))
		end := int64(head) + n
		if n%2 != 0 || end > int64(len(b)) || next != 0 && (next < end || next > int64(len(b))) {
			return errChange
		}
		x := change{kind: changeKind(le.Uint32(b[4:])), name: winpath.DecodeUTF16(b[head:end])}
		if extended {
			attrs := le.Uint32(b[56:])
			x.full, x.dir = true, attrs&attrDirectory != 0
			x.link = attrs&attrReparse != 0 && le.Uint32(b[60:])&tagSurrogate != 0
			x.size, x.id, x.born = max(int64(le.Uint64(b[48:])), 0), le.Uint64(b[64:]), fileTime(le.Uint64(b[8:]))
		}
		yield(x)
		if next == 0 {
			return nil
		}
		b = b[next:]
	}
}

// fileTime is a FILETIME: 100 ns since 1601. The zero one is the zero time.
func fileTime(t uint64) time.Time {
	const since = 116444736000000000 // 1601 to 1970
	if t == 0 || t > 1<<62 {
		return time.Time{}
	}
	d := int64(t) - since
	return time.Unix(d/1e7, d%1e7*100)
}

// parseUsers reads FILE_PROCESS_IDS_USING_FILE_INFORMATION (ntifs.h): a count u32,
// and from the next multiple of a pointer's size on process ids of that size.
func parseUsers(b []byte, pointer int) (pids []int) {
	le := binary.LittleEndian
	if len(b) < 4 || pointer != 4 && pointer != 8 {
		return nil
	}
	n := le.Uint32(b)
	for b = b[min(pointer, len(b)):]; n > 0 && len(b) >= pointer && len(pids) < maxUsers; n-- {
		pid := uint64(le.Uint32(b))
		if pointer == 8 {
			pid = le.Uint64(b)
		}
		if pid <= 1<<32-1 {
			pids = append(pids, int(pid))
		}
		b = b[pointer:]
	}
	return pids
}

// maxUsers bounds the processes told to use one file.
const maxUsers = 64
