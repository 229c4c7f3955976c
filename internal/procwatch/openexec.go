package procwatch

import (
	"encoding/binary"
	"errors"
	"path"
	"strings"
)

// openKind says what a file opened for execution is.
type openKind uint8

const (
	openELF    openKind = iota // a program
	openLoader                 // the loader that the kernel opens after a program that is linked dynamically
	openOther                  // a script, or a format of binfmt_misc: its interpreter follows
)

// kindOf judges by the first bytes and the name.
func kindOf(head []byte, file string) openKind {
	if string(head) != "\x7fELF" {
		return openOther
	}
	name := path.Base(file)
	if strings.HasPrefix(name, "ld-") && strings.Contains(name, ".so") || name == "ld.so" {
		return openLoader
	}
	return openELF
}

// opens maps a process to the files opened for execution in it whose execution
// was not told yet, in the order of the opening. The kernel opens before it
// executes, so that what the connector tells is always here first.
type opens map[int][]opened

type opened struct {
	path string
	kind openKind
}

// Bounds of opens. They are met only by programs that fail to execute (their
// opening is told, their execution never): what is forgotten is a path.
const (
	maxOpensPids = 8192
	maxOpens     = 32 // of one process
)

func (o opens) add(pid int, x opened) {
	if len(o[pid]) >= maxOpens {
		o[pid] = o[pid][1:]
	}
	if len(o) >= maxOpensPids {
		clear(o)
	}
	o[pid] = append(o[pid], x)
}

// next returns the program of the first execution in a process that was not
// told yet, and whether more follow: [script...] program [loader]. left is how
// many further executions of the process are known: the kernel tells a file
// that the process opens twice in a row, before we read, once. Then a program
// stands for more than one execution, and which one is a guess.
func (o opens) next(pid, left int) (exe string, more bool) {
	l := o[pid]
	programs := 0
	for i, x := range l {
		if x.kind == openELF || x.kind == openLoader && (i == 0 || l[i-1].kind != openELF) {
			programs++
		}
	}
	for len(l) > 0 && l[0].kind == openOther {
		l = l[1:]
	}
	if len(l) > 0 {
		exe = l[0].path // also a loader, if it was called itself
		if programs <= left {
			return exe, true
		}
		l = l[1:]
		if len(l) > 0 && l[0].kind == openLoader {
			l = l[1:]
		}
	}
	if len(l) == 0 {
		delete(o, pid)
		return exe, left > 0
	}
	o[pid] = l
	return exe, true
}

// fanotify's event record (linux/fanotify.h, struct fanotify_event_metadata):
// event_len u32, vers u8, reserved u8, metadata_len u16, mask u64, fd s32, pid s32.
const (
	fanHeader   = 24
	fanVersion  = 3
	fanOverflow = 0x4000
)

var errFanotifyRecord = errors.New("fanotify record makes no sense")

// parseOpens calls yield for each record of a read from fanotify in descriptor
// mode. fd is -1 in a record that tells an overflow. Descriptors in records
// after a bad one are not closed: with the kernel as the writer there is none.
func parseOpens(b []byte, yield func(mask uint64, fd, pid int)) error {
	ne := binary.NativeEndian
	for len(b) >= fanHeader {
		size := int(ne.Uint32(b))
		if size < fanHeader || size > len(b) || b[4] != fanVersion {
			return errFanotifyRecord
		}
		yield(ne.Uint64(b[8:]), int(int32(ne.Uint32(b[16:]))), int(int32(ne.Uint32(b[20:]))))
		b = b[size:]
	}
	if len(b) > 0 {
		return errFanotifyRecord
	}
	return nil
}
