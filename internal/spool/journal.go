package spool

import (
	"errors"
	"fmt"
	"io/fs"
)

// The methods of this file are for a spool that serves as a journal: its owner appends, reads all that waits when it starts, and
// lets go of what it has kept elsewhere. It takes no leases.

// Next is the number that the next record gets; the first record of a spool has 1.
func (s *Spool) Next() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Each calls f with the waiting records from number n on, in order, and takes none out. What cannot be read is passed over; the
// numbers tell how many are missing. rec is good until f returns. An error of f ends it and is returned as it is.
//
// Records that are appended meanwhile may or may not come; f must not use the spool, but to trim what it has seen.
func (s *Spool) Each(n uint64, f func(n uint64, rec []byte) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	n = max(n, s.state.Front)
	type part struct {
		base uint64
		seed uint32
		size int64
	}
	var parts []part
	for _, seg := range s.segs {
		if seg.next > n {
			parts = append(parts, part{seg.base, seg.seed, seg.size})
		}
	}
	s.mu.Unlock()
	var buf []byte
	var err error
	for _, p := range parts {
		if buf, err = readSegment(s.path(p.base), buf); errors.Is(err, fs.ErrNotExist) {
			continue // somebody has deleted it
		} else if err != nil {
			return err
		}
		if int64(len(buf)) <= headerBytes {
			continue
		}
		// What lies behind was appended later, and may be half written.
		b := buf[headerBytes:min(int64(len(buf)), p.size)]
		walk(b, p.seed, p.base, true, func(fr frame, _ int) bool {
			if fr.seq >= n {
				err = f(fr.seq, fr.rec)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Trim says that the records below number n are done with: the segments that hold only such are deleted, and count as committed.
// The rest of them stays until its segment is full, so that most calls write nothing. With a batch leased it is ErrLeased.
func (s *Spool) Trim(n uint64) error {
	s.turn()
	defer s.over()
	if s.closed {
		return ErrClosed
	}
	if s.leased != nil {
		return ErrLeased
	}
	st := s.state
	for _, seg := range s.segs {
		if seg.next > n || s.w != nil && s.w.seg == seg {
			break
		}
		if seg.next > st.Front {
			st.Dropped.Corrupt += seg.next - st.Front - uint64(seg.live)
			st.Front = seg.next
		}
		st.Committed += uint64(seg.live)
	}
	if st == s.state {
		return nil
	}
	if err := s.save(st); err != nil {
		return fmt.Errorf("trim spool: %w", err)
	}
	for _, seg := range s.segs {
		if seg.next <= st.Front {
			seg.live = 0
		}
	}
	s.front = headerBytes
	s.trim()
	return nil
}
