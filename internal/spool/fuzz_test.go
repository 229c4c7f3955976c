package spool

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// sign gives what lies in b as frames their checksums, so that a fuzzer gets past these to the numbers and lengths.
func sign(b []byte, seed uint32) {
	for len(b) >= frameBytes {
		total := frameBytes + int(binary.LittleEndian.Uint32(b[4:])%maxSegmentBytes)
		if total > len(b) {
			return
		}
		binary.LittleEndian.PutUint32(b, crc32.Update(seed, castagnoli, b[4:total]))
		b = b[total:]
	}
}

func someFrames(seed uint32, first uint64) []byte {
	var b []byte
	for i := range uint64(4) {
		b = appendFrame(b, seed, first+i, int64(i), bytes.Repeat([]byte("r"), 1+int(i)*7))
	}
	return b
}

// FuzzWalk: whatever a segment holds, the frames found lie in order in it and carry their checksum; without damage the two
// ways of walking agree.
func FuzzWalk(f *testing.F) {
	seed := header{salt: 9}.seed()
	b := someFrames(seed, 10)
	f.Add(b, false)
	f.Add(b, true)
	f.Add(b[:len(b)-3], false)
	f.Add(append([]byte("junk"), b...), false)
	f.Add(append(append(bytes.Clone(b[:30]), 0xff), b[31:]...), false)
	f.Add(append(bytes.Clone(b[:25]), b[57:]...), true)
	f.Fuzz(func(t *testing.T, b []byte, signed bool) {
		if signed {
			b = bytes.Clone(b)
			sign(b, seed)
		}
		var strict, found int
		at, seq := 0, uint64(9)
		r := walk(b, seed, 10, true, func(fr frame, end int) bool {
			found++
			start := end - frameBytes - len(fr.rec)
			if start < at || end > len(b) || fr.seq <= seq {
				t.Fatalf("frame %d at %d..%d after %d at %d", fr.seq, start, end, seq, at)
			}
			if again := appendFrame(nil, seed, fr.seq, fr.at, fr.rec); !bytes.Equal(again, b[start:end]) {
				t.Fatal("a frame is not what would have been written")
			}
			at, seq = end, fr.seq
			return true
		})
		if r.end != at || r.next != seq+1 {
			t.Fatalf("walk ended at %d, %d; last frame at %d, %d", r.end, r.next, at, seq+1)
		}
		s := walk(b, seed, 10, false, func(frame, int) bool { strict++; return true })
		if strict > found || !r.skipped && s.end != r.end {
			t.Fatalf("strict found %d to %d, searching %d to %d", strict, s.end, found, r.end)
		}
	})
}

// FuzzOpen: no content of a segment and of the state stops a spool from opening, being read and taking records.
func FuzzOpen(f *testing.F) {
	h := header{base: 5, salt: 9}
	b := someFrames(h.seed(), 5)
	f.Add(b, []byte(`{"seq":1,"front":6}`), true)
	f.Add(b[:len(b)-3], []byte(`{"seq":1,"front":6,"tear":{"segment":5,"offset":99}}`), false)
	f.Add(append(bytes.Clone(b[:40]), b[41:]...), []byte(`{"front":9223372036854775807}`), false)
	f.Add(b, []byte(`{"front":1,"dropped":{"overflow":1},"reported":{"overflow":2},"offer":{}}`), false)
	f.Fuzz(func(t *testing.T, frames, st []byte, signed bool) {
		if signed {
			frames = bytes.Clone(frames)
			sign(frames, h.seed())
		}
		slot := make([]byte, slotBytes)
		n := copy(slot[8:], st)
		binary.LittleEndian.PutUint32(slot[4:], uint32(n))
		binary.LittleEndian.PutUint32(slot, crc32.Checksum(slot[4:8+n], castagnoli))
		dir := t.TempDir()
		for name, content := range map[string][]byte{"00000000000000000005.seg": append(h.append(nil), frames...), "state": slot} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(dir, small)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Append(false, []byte("new")); err != nil {
			t.Fatal(err)
		}
		got := drain(t, s)
		if len(got) == 0 || got[len(got)-1] != "new" {
			t.Fatalf("drained %q, want the new record at the end", got)
		}
		if s.Stats().Records != 0 {
			t.Fatalf("records left: %+v", s.Stats())
		}
		if _, _, err := s.TakeLoss(); err != nil {
			t.Fatal(err)
		}
	})
}
