package procwatch

import (
	"encoding/binary"
	"errors"
)

// What the process connector says (linux/cn_proc.h, enum proc_cn_event).
const (
	cnNone = 0x00000000 // the kernel's answer to our request to listen
	cnFork = 0x00000001
	cnExec = 0x00000002
	cnUID  = 0x00000004
	cnExit = 0x80000000
)

// Sizes and offsets in a message: nlmsghdr (linux/netlink.h), cn_msg
// (linux/connector.h), proc_event. The byte order is the machine's.
const (
	nlHeader     = 16
	cnHeader     = 20
	cnEventStart = nlHeader + cnHeader // of struct proc_event
	cnDataOffset = 16                  // of the union in proc_event: what, cpu, timestamp come before
	cnIdxProc    = 1
	cnValProc    = 1
	nlDone       = 3 // NLMSG_DONE: what the connector's messages are marked as
	nlOverrun    = 4
	maxNlMessage = 4096 // proc_event is some 40 bytes; later kernels may add to it
)

// procMessage is one message of the connector.
type procMessage struct {
	what uint32
	at   uint64 // ns of CLOCK_MONOTONIC
	// tid and pid are the thread and the process it is about; of a fork the child.
	tid, pid int
	parent   int    // process that forked
	status   uint32 // exit: as of wait(2)
	uid      uint32 // uid change: the new real user id
	euid     uint32 // and the new effective one
	errno    uint32 // answer: 0, or why we may not listen
	request  uint32 // answer: the acknowledgement number of the request, and one
}

var errShortMessage = errors.New("process connector message is cut off")

// parseConnector calls yield for each message of the connector in a datagram.
// Messages of other kinds are passed over.
func parseConnector(b []byte, yield func(procMessage)) error {
	ne := binary.NativeEndian
	for len(b) >= nlHeader {
		size := int(ne.Uint32(b))
		if size < nlHeader || size > len(b) {
			return errShortMessage
		}
		if ne.Uint16(b[4:]) == nlDone && size >= nlHeader+cnHeader {
			cn := b[nlHeader:size]
			data := cn[cnHeader:]
			n := int(ne.Uint16(cn[16:]))
			if n > len(data) {
				return errShortMessage
			}
			if ne.Uint32(cn) == cnIdxProc && ne.Uint32(cn[4:]) == cnValProc {
				m, err := parseProcEvent(data[:n])
				if err != nil {
					return err
				}
				m.request = ne.Uint32(cn[12:])
				yield(m)
			}
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

// parseProcEvent reads a struct proc_event.
func parseProcEvent(b []byte) (procMessage, error) {
	ne := binary.NativeEndian
	if len(b) < cnDataOffset+4 {
		return procMessage{}, errShortMessage
	}
	m := procMessage{what: ne.Uint32(b), at: ne.Uint64(b[8:])}
	d := b[cnDataOffset:]
	need := cnNeeds(m.what)
	if len(d) < need {
		return procMessage{}, errShortMessage
	}
	id := func(at int) int { return int(int32(ne.Uint32(d[at:]))) }
	switch m.what {
	case cnNone:
		m.errno = ne.Uint32(d)
	case cnFork: // parent thread, parent process, child thread, child process
		m.parent, m.tid, m.pid = id(4), id(8), id(12)
	case cnExec: // thread, process
		m.tid, m.pid = id(0), id(4)
	case cnUID: // thread, process, real, effective
		m.tid, m.pid, m.uid, m.euid = id(0), id(4), ne.Uint32(d[8:]), ne.Uint32(d[12:])
	case cnExit: // thread, process, status, ...
		m.tid, m.pid, m.status = id(0), id(4), ne.Uint32(d[8:])
	}
	return m, nil
}

// exitCode is the exit code in a status of wait(2): what the program said, or
// 128 and the signal that ended it, as shells tell it.
func exitCode(status uint32) int {
	if sig := status & 0x7f; sig != 0 {
		return 128 + int(sig)
	}
	return int(status >> 8 & 0xff)
}

// cnNeeds is how many bytes of a message's data are read.
func cnNeeds(what uint32) int {
	switch what {
	case cnFork, cnUID:
		return 16
	case cnExec:
		return 8
	case cnExit:
		return 12
	}
	return 4
}
