package spool

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzWalk: whatever a segment holds, the frames found lie in order in it and carry their checksum; without damage the two
// ways of walking agree.
func FuzzWalk(f *testing.F) {
	seed := header{salt: 9}.seed()
	var b []byte
	for i := range uint64(4) {
		b = appendFrame(b, seed, 10+i, int64(i), bytes.Repeat([]byte("r"), 1+int(i)*7))
	}
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(append([]byte("junk"), b...))
	f.Add(append(append(bytes.Clone(b[:30]), 0xff), b[31:]...))
	f.Add(append(bytes.Clone(b[:25]), b[56:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
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
	b := h.append(nil)
	for i := range uint64(4) {
		b = appendFrame(b, h.seed(), 5+i, int64(i), []byte("record"))
	}
	slot, err := appendSlot(nil, &state{Seq: 1, Front: 6})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, slot)
	f.Add(b[:len(b)-3], []byte{})
	f.Add(append(bytes.Clone(b[:40]), b[41:]...), slot[:100])
	f.Fuzz(func(t *testing.T, seg, st []byte) {
		dir := t.TempDir()
		for name, content := range map[string][]byte{"00000000000000000005.seg": seg, "state": st} {
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
	})
}
