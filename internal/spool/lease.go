package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"
)

// Batch is the oldest records of a spool, on loan until Commit, Settle or Release. It is for one goroutine.
type Batch struct {
	s     *Spool
	recs  [][]byte
	marks []mark
	arena []byte // what recs are slices of, mostly
	bytes int    // sum of the records' lengths
}

// mark is where a record of a batch stands.
type mark struct {
	seg *segment
	seq uint64
	end int64 // offset in seg after its frame
	at  int64
}

// Lease hands out the oldest records, in order: at most maxRecords, and at most maxBytes of them together unless the first one
// alone is larger. The error is ErrEmpty if there are none. There is one lease at a time; a second one gets ErrLeased.
//
// Records appended but not yet synced are handed out too. A leased record may still be dropped over a cap; the batch keeps
// its bytes, and if it is then committed, the record counts as delivered.
func (s *Spool) Lease(maxRecords, maxBytes int) (*Batch, error) {
	if maxRecords <= 0 || maxBytes <= 0 {
		return nil, errors.New("lease of nothing from spool")
	}
	s.turn()
	defer s.over()
	if s.closed {
		return nil, ErrClosed
	}
	if s.leased != nil {
		return nil, ErrLeased
	}
	if err := s.expire(time.Now().UnixNano()); err != nil {
		return nil, err
	}
	if s.live() == 0 {
		return nil, ErrEmpty
	}
	b := &Batch{s: s, recs: s.spare.recs[:0], marks: s.spare.marks[:0], arena: s.spare.arena[:0]}
	s.spare = Batch{}
	for i, seg := range s.segs {
		off, next := int64(headerBytes), seg.base
		if i == 0 && s.state.Front > seg.base {
			off, next = s.front, s.state.Front
		}
		full, err := b.take(seg, off, next, maxRecords, maxBytes)
		if err != nil {
			if len(b.recs) > 0 {
				break // deliver what there is, meet the error again next time
			}
			return nil, err
		}
		if full {
			break
		}
	}
	if len(b.recs) == 0 {
		// Everything that is left is unreadable: pass over it.
		if err := s.pass(s.next); err != nil {
			return nil, err
		}
		return nil, ErrEmpty
	}
	s.leased = b
	return b, nil
}

// take adds records of seg from offset off on, the first of them numbered next, and reports whether b is full.
func (b *Batch) take(seg *segment, off int64, next uint64, maxRecords, maxBytes int) (bool, error) {
	if off >= seg.size {
		return false, nil
	}
	f, err := os.Open(b.s.path(seg.base))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // somebody has deleted it; the numbers tell how many are gone
	}
	if err != nil {
		return false, fmt.Errorf("read spool segment: %w", err)
	}
	defer f.Close()
	// A guess of what maxBytes need with their frames; read on only if that was too little for one record, or damaged.
	window := min(seg.size-off, int64(maxBytes-b.bytes)+64<<10)
	for {
		rest := window == seg.size-off
		start := len(b.arena)
		b.arena = slices.Grow(b.arena, int(window))[:start+int(window)]
		n, err := readAt(f, b.arena[start:], off)
		if err != nil {
			return false, fmt.Errorf("read spool segment: %w", err)
		}
		w := walk(b.arena[start:start+n], seg.seed, next, rest, func(f frame, end int) bool {
			if len(b.recs) >= maxRecords || len(b.recs) > 0 && b.bytes+len(f.rec) > maxBytes {
				return false
			}
			b.recs = append(b.recs, f.rec)
			b.marks = append(b.marks, mark{seg: seg, seq: f.seq, end: off + int64(end), at: f.at})
			b.bytes += len(f.rec)
			return true
		})
		seg.damaged = seg.damaged || w.skipped || rest && !w.stopped && w.end < int(window)
		if rest || w.stopped || w.more && len(b.recs) > 0 {
			return w.stopped || !rest, nil
		}
		off, next = off+int64(w.end), w.next
		window = seg.size - off
		if window == 0 {
			return false, nil
		}
	}
}

// pass settles all records below end as unreadable.
func (s *Spool) pass(end uint64) error {
	if s.w != nil {
		s.w.err = errors.New("segment is unreadable") // perhaps no longer the file of that name: nothing may get into it meanwhile
	}
	st := s.state
	st.Dropped.Corrupt += end - st.Front
	st.Front = end
	if err := s.save(st); err != nil {
		return err
	}
	for _, seg := range s.segs {
		if seg.next <= end {
			seg.live = 0
			seg.damaged = true
		}
	}
	s.trim()
	if len(s.segs) > 0 && s.segs[0].next <= end {
		s.front = s.segs[0].size
	}
	return nil
}

// Records returns the records, oldest first. They are the batch's and become invalid when it is committed, settled or
// released.
func (b *Batch) Records() [][]byte { return b.recs }

// Bytes is the sum of the records' lengths.
func (b *Batch) Bytes() int { return b.bytes }

// Commit says that all records have arrived. When it returns nil that is on disk, and they never come again. On an error
// they stay in the queue.
func (b *Batch) Commit() error { return b.Settle(len(b.recs), 0) }

// Release gives the records back: the next lease hands them out again. Releasing a batch that is done does nothing.
func (b *Batch) Release() {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.done()
}

// done ends the lease and keeps its memory for the next one.
func (b *Batch) done() {
	s := b.s
	if s.leased != b {
		return
	}
	s.leased = nil
	clear(b.recs)
	clear(b.marks)
	if cap(b.arena) <= 4<<20 {
		s.spare = Batch{recs: b.recs, marks: b.marks, arena: b.arena}
	}
	b.recs, b.marks, b.arena = nil, nil, nil
}

// Settle ends the lease when only the first records are done with: of these, delivered have arrived, and refused never will, which
// are counted as Losses.Refused. The rest goes back. As with Commit, on an error all of them stay in the queue.
func (b *Batch) Settle(delivered, refused int) error {
	s := b.s
	s.turn()
	defer s.over()
	if s.closed {
		return ErrClosed
	}
	if s.leased != b {
		return ErrSettled
	}
	n := delivered + refused
	if delivered < 0 || refused < 0 || n > len(b.recs) {
		return fmt.Errorf("settle %d delivered and %d refused of %d records", delivered, refused, len(b.recs))
	}
	if n == 0 {
		b.done()
		return nil
	}
	last := b.marks[n-1]
	st := s.state
	late := 0 // dropped over a cap during the lease, and counted as lost
	for late < n && b.marks[late].seq < st.Front {
		late++
	}
	if !st.takeBack(uint64(late)) {
		// Told of already: it stays a loss.
		fromDelivered := min(late, delivered)
		delivered -= fromDelivered
		refused -= late - fromDelivered
	}
	if end := last.seq + 1; end > st.Front {
		st.Dropped.Corrupt += end - st.Front - uint64(n-late)
		st.Front = end
	}
	st.Committed += uint64(delivered)
	st.Dropped.Refused += uint64(refused)
	moved := st.Front > s.state.Front
	if err := s.save(st); err != nil {
		b.done()
		return fmt.Errorf("commit spool batch: %w", err)
	}
	for _, m := range b.marks[late:n] {
		m.seg.live--
	}
	for _, seg := range s.segs {
		if seg.next <= st.Front {
			seg.live = 0 // records that were expected in it are unreadable
		}
	}
	s.settled = max(s.settled, last.at)
	s.trim()
	if moved {
		s.front = headerBytes
		if len(s.segs) > 0 && s.segs[0] == last.seg {
			s.front = last.end
		}
	}
	b.done()
	return nil
}

// takeBack removes n records from the losses by a cap, unless these were told of already.
func (st *state) takeBack(n uint64) bool {
	told := st.Reported
	if st.Offer != nil {
		told = told.plus(st.Offer.Losses)
	}
	open := st.Dropped.sub(told)
	if open.Overflow+open.Expired < n {
		return false
	}
	overflow := min(open.Overflow, n)
	st.Dropped.Overflow -= overflow
	st.Dropped.Expired -= n - overflow
	return true
}

func (l Losses) plus(m Losses) Losses {
	return Losses{
		Overflow: l.Overflow + m.Overflow,
		Expired:  l.Expired + m.Expired,
		Corrupt:  l.Corrupt + m.Corrupt,
		Torn:     l.Torn + m.Torn,
		Refused:  l.Refused + m.Refused,
		Full:     l.Full + m.Full,
	}
}
