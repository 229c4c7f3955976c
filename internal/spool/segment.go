package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// A segment file, all numbers little endian:
//
//	header (32 bytes)  magic "sekspool", version u32, number of the first record u64, salt u64, CRC-32C of these u32
//	frame  (24 bytes)  CRC-32C u32 of all that follows, length u32, number u64, time in unix ns i64, then the record
//	frame ...
//
// Every frame's checksum starts from the salt, which is random for each segment: neither an old segment's blocks that a file
// system brings back after a loss of power, nor bytes that somebody has put into a record, can pass for a frame.
const (
	segmentMagic   = "sekspool"
	segmentVersion = 1
	headerBytes    = 32
	frameBytes     = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// segment is what is known of one file.
type segment struct {
	base    uint64 // number of its first record, and its name
	next    uint64 // number after its last record
	seed    uint32 // of the frames' checksums
	size    int64  // header and whole frames; what lies behind is not ours
	live    int    // whole records not yet settled
	oldest  int64  // time of the first live record when it was opened or begun, unix ns
	newest  int64  // time of its last record, unix ns
	damaged bool   // has unreadable bytes: to be kept aside
}

type header struct{ base, salt uint64 }

func (h header) append(b []byte) []byte {
	start := len(b)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, segmentVersion)
	b = binary.LittleEndian.AppendUint64(b, h.base)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// seed is where the checksums of the segment's frames start.
func (h header) seed() uint32 {
	return crc32.Checksum(binary.LittleEndian.AppendUint64(nil, h.salt), castagnoli)
}

func parseHeader(b []byte) (header, bool) {
	if len(b) < headerBytes || string(b[:8]) != segmentMagic ||
		binary.LittleEndian.Uint32(b[8:]) != segmentVersion ||
		binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli) {
		return header{}, false
	}
	return header{base: binary.LittleEndian.Uint64(b[12:]), salt: binary.LittleEndian.Uint64(b[20:])}, true
}

// frame is one record as stored; rec is part of the bytes it was parsed from.
type frame struct {
	seq uint64
	at  int64
	rec []byte
}

func appendFrame(b []byte, seed uint32, seq uint64, at int64, rec []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rec)))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	b = append(b, rec...)
	binary.LittleEndian.PutUint32(b[start:], crc32.Update(seed, castagnoli, b[start+4:]))
	return b
}

// plausible reads the head of a frame that may start b and returns its whole length. It is false if there is none with a
// number from lo to hi in b; more is true if only bytes behind the end of b are missing.
func plausible(b []byte, lo, hi uint64) (total int, more, ok bool) {
	if len(b) < frameBytes {
		return 0, true, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	seq := binary.LittleEndian.Uint64(b[8:])
	if n == 0 || n > maxSegmentBytes || seq < lo || seq > hi {
		return 0, false, false
	}
	total = frameBytes + int(n)
	return total, total > len(b), total <= len(b)
}

// parseFrame returns the frame at the start of b, which must hold all its total bytes.
func parseFrame(b []byte, total int, seed uint32) (frame, bool) {
	if binary.LittleEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:total]) {
		return frame{}, false
	}
	return frame{
		seq: binary.LittleEndian.Uint64(b[8:]),
		at:  int64(binary.LittleEndian.Uint64(b[16:])),
		rec: b[frameBytes:total:total],
	}, true
}

// walkResult tells how far walk came.
type walkResult struct {
	next    uint64 // number after the last whole frame
	end     int    // offset after the last whole frame
	skipped bool   // unreadable bytes lie before end
	stopped bool   // by visit; end is then before the frame it refused
	more    bool   // the next frame does not end in b
}

// walk visits the whole frames in b, part of a segment whose next frame should have the number next. visit gets a frame
// and the offset in b after it, and returns false to stop before it. With resync, unreadable bytes are searched for the next whole
// frame; otherwise they end the walk.
func walk(b []byte, seed uint32, next uint64, resync bool, visit func(f frame, end int) bool) walkResult {
	r := walkResult{next: next}
	// Checksums over bytes that turn out not to be frames may cost this much, so that no file keeps Open busy for ever.
	budget := 8*len(b) + 1<<20
	for pos := 0; pos < len(b); {
		// Frames are numbered without gaps, so the skipped bytes tell how far the number can have come.
		lost := uint64(pos-r.end) / (frameBytes + 1)
		total, more, ok := plausible(b[pos:], r.next, r.next+lost)
		var f frame
		if ok {
			f, ok = parseFrame(b[pos:], total, seed)
			if !ok {
				budget -= total
			}
		}
		if !ok {
			if !resync || budget < 0 {
				r.more = more
				return r
			}
			pos++
			continue
		}
		if !visit(f, pos+total) {
			r.stopped = true
			return r
		}
		r.skipped = r.skipped || pos > r.end
		r.next = f.seq + 1
		pos += total
		r.end = pos
	}
	return r
}

// readSegment returns the bytes of a segment file, in buf if they fit. Of a file larger than any segment it returns the part
// a segment may have.
func readSegment(path string, buf []byte) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return buf, err
	}
	n := int(min(fi.Size(), maxSegmentBytes))
	b := slices.Grow(buf[:0], n)[:n]
	n, err = readAt(f, b, 0)
	if err != nil {
		return b, fmt.Errorf("read spool segment: %w", err)
	}
	return b[:n], nil
}

// readAt fills b from off on and returns how much of it the file had. A block that the disk cannot read comes as zeros,
// which are no frame: the records around it are still delivered.
func readAt(r io.ReaderAt, b []byte, off int64) (int, error) {
	n, err := r.ReadAt(b, off)
	if err == nil || errors.Is(err, io.EOF) {
		return n, nil
	}
	const block = 4096 // the unit in which disks fail
	readable := 0
	for pos := 0; pos < len(b); {
		// Blocks count from the start of the file, wherever b starts.
		end := min(pos+block-int((off+int64(pos))%block), len(b))
		n, rerr := r.ReadAt(b[pos:end], off+int64(pos))
		switch {
		case rerr == nil:
			readable++
		case errors.Is(rerr, io.EOF):
			return pos + n, nil
		default:
			clear(b[pos:end])
		}
		pos = end
	}
	if readable == 0 {
		return 0, err
	}
	return len(b), nil
}
