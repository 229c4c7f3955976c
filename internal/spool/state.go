package spool

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"time"
)

// state is all that a spool remembers besides its records. It is replaced as a whole.
type state struct {
	Seq       uint64 `json:"seq"`   // counts the writes; the higher slot is the newer
	Front     uint64 `json:"front"` // number of the first record that is not settled
	Committed uint64 `json:"committed"`
	Dropped   Losses `json:"dropped"`
	Reported  Losses `json:"reported"` // the part of Dropped that was told
	Offer     *Loss  `json:"offer,omitempty"`
	Tear      tear   `json:"tear"` // the last cut tail that was counted
}

// tear is a place where a segment was cut.
type tear struct {
	Segment uint64 `json:"segment"`
	Offset  int64  `json:"offset"`
}

// slotBytes is the size of each of the two slots: a state is some 500 bytes, a disk writes 4096 at a time or less.
const slotBytes = 4096

// stateFile holds a state in two slots that are overwritten in turn: a write that is cut short leaves the other one. It
// needs no new space and no rename, so it works on a full disk, where committing is what makes room.
type stateFile struct {
	f    *os.File
	sync func(*os.File) error // syncFile, but in tests
}

// openState opens or makes the file; found is false if it holds no state.
func openState(path string) (sf *stateFile, st state, found bool, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, st, false, err
	}
	b := make([]byte, 2*slotBytes)
	n, err := readAt(f, b, 0)
	if err == nil && n < len(b) {
		// Take the space now, so that no later write needs any.
		if _, err = f.WriteAt(make([]byte, len(b)-n), int64(n)); err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = syncDirOf(path)
		}
	}
	if err != nil {
		f.Close()
		return nil, st, false, full(fmt.Errorf("read spool state: %w", err))
	}
	for slot := range 2 {
		if got, ok := parseSlot(b[slot*slotBytes : (slot+1)*slotBytes]); ok && (!found || got.Seq > st.Seq) {
			st, found = got, true
		}
	}
	return &stateFile{f, syncFile}, st, found, nil
}

// write stores st in the older slot; it returns when that is on disk.
func (sf *stateFile) write(st *state) error {
	st.Seq++
	b, err := appendSlot(nil, st)
	if err != nil {
		return err
	}
	if _, err := sf.f.WriteAt(b, int64(st.Seq%2)*slotBytes); err != nil {
		return err
	}
	return sf.sync(sf.f)
}

func (sf *stateFile) close() error { return sf.f.Close() }

// A slot is: CRC-32C u32 of what follows, length u32, JSON, zeros.
func appendSlot(b []byte, st *state) ([]byte, error) {
	j, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	if len(j) > slotBytes-8 {
		return nil, fmt.Errorf("spool state of %d bytes", len(j))
	}
	start := len(b)
	b = append(b, make([]byte, slotBytes)...)
	slot := b[start:]
	binary.LittleEndian.PutUint32(slot[4:], uint32(len(j)))
	copy(slot[8:], j)
	binary.LittleEndian.PutUint32(slot, crc32.Checksum(slot[4:8+len(j)], castagnoli))
	return b, nil
}

func parseSlot(b []byte) (state, bool) {
	var st state
	if len(b) != slotBytes {
		return st, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n == 0 || n > slotBytes-8 || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:8+n], castagnoli) {
		return st, false
	}
	if err := json.Unmarshal(b[8:8+n], &st); err != nil || st.Front == 0 || st.Front >= 1<<63 {
		return state{}, false
	}
	return st, true
}

// Losses counts records that left the queue without being delivered, or never got in, by cause.
type Losses struct {
	// Overflow is records whose segment was the oldest when the spool was over MaxBytes.
	Overflow uint64 `json:"overflow"`
	// Expired is records over MaxAge.
	Expired uint64 `json:"expired"`
	// Corrupt is records that were stored but cannot be read.
	Corrupt uint64 `json:"corrupt"`
	// Torn is tails cut when the spool was opened after a crash. Each held one record or more that no durable append had
	// returned for; how many cannot be known.
	Torn uint64 `json:"torn"`
	// Refused is records the receiver will not take (Batch.Settle).
	Refused uint64 `json:"refused"`
	// Full is records the caller could not append and gave up (CountFull).
	Full uint64 `json:"full"`
}

type cause int

const (
	causeOverflow cause = iota
	causeExpired
)

func (l *Losses) add(c cause, n uint64) {
	switch c {
	case causeOverflow:
		l.Overflow += n
	case causeExpired:
		l.Expired += n
	}
}

func (l Losses) sub(m Losses) Losses {
	return Losses{
		Overflow: l.Overflow - m.Overflow,
		Expired:  l.Expired - m.Expired,
		Corrupt:  l.Corrupt - m.Corrupt,
		Torn:     l.Torn - m.Torn,
		Refused:  l.Refused - m.Refused,
		Full:     l.Full - m.Full,
	}
}

// Total is the sum of all causes.
func (l Losses) Total() uint64 {
	return l.Overflow + l.Expired + l.Corrupt + l.Torn + l.Refused + l.Full
}

// Loss is losses to be told of, under an identity that stays the same until ReportLoss.
type Loss struct {
	ID   string    `json:"id"` // UUIDv7
	Time time.Time `json:"time"`
	Losses
}
