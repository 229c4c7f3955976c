// Package etw reads events of Event Tracing for Windows as they happen.
//
// Decoding works on every system; a [Session] exists on Windows only:
//
//   - Mechanism: a real-time session of our own (StartTraceW, EnableTraceEx2,
//     OpenTraceW, ProcessTrace). Events come in buffers: when one is full, or
//     20 times a second, so up to some 60 ms late.
//   - Rights: administrator, LocalSystem, or member of Performance Log Users.
//     Providers of the kernel's want LocalSystem or an administrator.
//   - Limits: a system runs 64 sessions unless it is set otherwise. Anyone with
//     the same rights can end ours; [Session.Run] then returns [ErrStopped].
//   - What can be missed: events for which there was no room in a buffer while
//     the reader was held up, counted by [Session.Lost]. Events of different
//     processors can come out of order by up to the time of a buffer.
//
// Layouts are those of evntrace.h and evntcons.h for 64-bit Windows.
package etw

import (
	"encoding/binary"
	"errors"
	"time"

	"sekisho/internal/guid"
)

// Provider is what a session asks of a provider of events.
type Provider struct {
	ID       guid.GUID
	Level    uint8  // the least important events wanted, 1 critical to 5 verbose; 0 is all
	Keywords uint64 // events with any of these; 0 is all
	// Events are the ids of those wanted, at most 64; none: all. The system leaves out
	// the others where it can (Windows 8.1 and later), else they come as well.
	Events []uint16
}

// Record is one event. It and its Data are valid during the call they are given to.
type Record struct {
	Provider guid.GUID
	ID       uint16
	Version  uint8
	// PID is of the process that told the event: for the start of a process its creator,
	// not the new one.
	PID  uint32
	Time time.Time // UTC, by the system's clock, in steps of 100 ns
	// PointerSize is that of a pointer in Data, 4 or 8: by who told the event, not by
	// the system.
	PointerSize int
	Data        []byte
}

// Reader reads the fields of Data in their order.
func (r *Record) Reader() Reader { return Reader{rest: r.Data, pointer: r.PointerSize} }

// EVENT_HEADER of evntcons.h: Size u16, HeaderType u16, Flags u16, EventProperty
// u16, ThreadId u32, ProcessId u32, TimeStamp i64, ProviderId GUID, EventDescriptor
// (Id u16, Version u8, Channel u8, Level u8, Opcode u8, Task u16, Keyword u64),
// ProcessorTime u64, ActivityId GUID.
const (
	headerSize = 80

	flag32Bit   = 0x20 // EVENT_HEADER_FLAG_32_BIT_HEADER
	flagClassic = 0x100
)

var errHeader = errors.New("event header is cut off")

// parseHeader sets r to the event whose EVENT_HEADER b begins with and whose payload
// is data. Its time is a FILETIME: a session that is not asked for raw time stamps
// gets those, whatever clock it uses.
func parseHeader(b, data []byte, r *Record) error {
	if len(b) < headerSize {
		return errHeader
	}
	le := binary.LittleEndian
	flags := le.Uint16(b[4:])
	*r = Record{
		PID:      le.Uint32(b[12:]),
		Time:     FileTime(le.Uint64(b[16:])),
		Provider: guid.GUID(b[24:40]),
		ID:       le.Uint16(b[40:]), Version: b[42],
		PointerSize: 8,
		Data:        data,
	}
	if flags&flag32Bit != 0 {
		r.PointerSize = 4
	}
	if flags&flagClassic != 0 {
		r.ID = 0 // an event of the old kind has none: that place means something else
	}
	return nil
}

// FileTime is the time of a FILETIME: 100 ns since 1601, UTC. 0 is no time.
func FileTime(t uint64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	const perSecond, to1970 = 10_000_000, 11_644_473_600
	return time.Unix(int64(t/perSecond)-to1970, int64(t%perSecond)*100).UTC()
}

// ErrStopped is returned by Run when somebody else has ended the session.
var ErrStopped = errors.New("event tracing session was ended by another program")
