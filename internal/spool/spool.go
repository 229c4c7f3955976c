// Package spool is a bounded, durable queue of byte records on disk: what is appended is handed out in order, and
// leaves the disk only when the reader has said that it arrived. It knows nothing of what the bytes mean.
//
// One process owns a spool's folder (a lock file holds it). In it:
//
//	00000000000000000001.seg   a segment: the records from number 1 on; the newest one is being written
//	state                      how far the reader is, and what was lost; two slots, overwritten in turn
//	ballast                    reserved space, given up when the disk is full so that durable records still fit
//	00000000000000000042.bad   a segment with unreadable parts, kept aside after its readable records were delivered
//	lock
//
// # What is promised
//
// Every record has a number, one more than the record before it. The state holds the number of the first record not yet
// settled, together with the loss counters, and is replaced as one write: position and counts can never disagree.
//
//   - A durable append that returned nil survives a crash and a loss of power. Other appends survive the death of the process
//     at once (they are in the operating system's cache) and a loss of power after Options.SyncEvery.
//   - A record is handed out again until a Batch that holds it is committed: at least once, never lost. After a crash, records
//     committed just before may not come again, since a commit is on disk before it returns.
//   - Whatever leaves the queue otherwise is counted by cause (Losses), and the count is on disk before the record is gone.
//   - No content of the folder stops Open or Lease: torn tails are cut, unreadable bytes are skipped up to the next record that
//     is whole. Since records are numbered, the number of those in between is known exactly.
//
// # Systems
//
// Linux: flock, fdatasync, directories are synced. Windows: LockFileEx, FlushFileBuffers; a directory cannot be synced there,
// and NTFS journals names itself; no file is renamed or deleted while it is open.
package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	ErrClosed      = errors.New("spool is closed")
	ErrEmpty       = errors.New("spool is empty")
	ErrEmptyRecord = errors.New("a record cannot be empty")
	ErrTooLarge    = errors.New("record is too large for a spool segment")
	ErrFull        = errors.New("disk is full")
	ErrLeased      = errors.New("a batch is leased already")
	ErrSettled     = errors.New("batch was committed or released already")
	ErrInUse       = errors.New("spool is in use by another process")
)

// Options bound a spool. The zero value takes the defaults given with each field.
type Options struct {
	// MaxBytes is what the segments may take on disk, 256 MiB if 0. Over it the oldest segment goes and is counted.
	// Segments kept aside (.bad) may take an eighth of it more.
	MaxBytes int64

	// MaxAge is how long a record may wait, 0 for ever. It is judged by the wall clock and a segment at a time, so a record may
	// stay an eighth longer. Somebody who can set the clock can make records expire: leave it 0 where that matters.
	MaxAge time.Duration

	// SegmentBytes is the size of a segment file, at most a quarter of MaxBytes and at most 64 MiB. 0 takes a 16th of
	// MaxBytes, at least 64 KiB and at most 4 MiB. A record must fit into one segment.
	SegmentBytes int64

	// SyncEvery is how long an append that is not durable may stay unsynced, 1 s if 0.
	SyncEvery time.Duration

	// BallastBytes is the space kept back for durable appends on a full disk, 0 for none.
	BallastBytes int64

	// Aside is told the path of each damaged segment that is kept aside (.bad), from whichever call finds it; nil: nobody is.
	// It must not call the spool.
	Aside func(path string)
}

const (
	defaultMaxBytes  = 256 << 20
	defaultSyncEvery = time.Second

	// maxSegmentBytes bounds what Open reads into memory at a time. A larger file was not written by this package.
	maxSegmentBytes = 64 << 20
)

func (o Options) withDefaults() (Options, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = min(max(o.MaxBytes/16, 64<<10), 4<<20, o.MaxBytes/4)
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = defaultSyncEvery
	}
	switch {
	case o.MaxBytes < 0 || o.SegmentBytes < 0 || o.MaxAge < 0 || o.SyncEvery < 0 || o.BallastBytes < 0:
		return o, errors.New("spool options: a size or time is negative")
	case o.SegmentBytes < headerBytes+frameBytes+1:
		return o, fmt.Errorf("spool options: segments of %d bytes hold no record", o.SegmentBytes)
	case o.SegmentBytes > o.MaxBytes/4 || o.SegmentBytes > maxSegmentBytes:
		return o, fmt.Errorf("spool options: segments of %d bytes are over a quarter of %d or over %d",
			o.SegmentBytes, o.MaxBytes, maxSegmentBytes)
	}
	return o, nil
}

// Spool is an open queue. All its methods may be called at the same time from several goroutines.
//
// Whoever changes the state (what is settled, leased or lost) has a turn for it, and lets go of mu while the disk takes that: an
// append never waits for what others do there, unless it is over a cap and needs a turn itself.
type Spool struct {
	dir    string
	o      Options
	lock   *os.File
	store  *stateFile
	notify chan struct{}
	timers sync.WaitGroup // the interval sync, waited for by Close

	syncNames func(dir string) error // syncDir, but in tests

	order sync.Mutex // held for a turn, taken before mu
	mu    sync.Mutex // guards all below
	moved *sync.Cond // on mu: a sync has ended

	closed  bool
	state   state      // changed in a turn only
	segs    []*segment // oldest first; state.Front is in the first of them that is not settled
	bytes   int64      // sum of segs[].size
	front   int64      // offset of record state.Front in segs[0], if that one is begun
	settled int64      // time of the newest settled record, unix ns: no older one is left
	next    uint64     // number of the next record
	w       *writer    // nil: the next append creates a segment
	syncing bool       // somebody syncs w.f without holding mu
	timer   *time.Timer
	leased  *Batch
	spare   Batch // memory of the last settled batch, to be used again
	buf     []byte
	gone    []*segment // settled, and their files still to be taken away
	ballast bool
	lastErr error
}

// writer is the segment that is being appended to.
type writer struct {
	f       *os.File
	seg     *segment
	durable uint64 // records below this number are on disk
	err     error  // a sync or a repair failed: nothing more is written here
}

// Open opens the spool in dir, which it creates if need be, and repairs what a crash has left. The error wraps ErrInUse if
// another process has it open, ErrFull if the disk has no room for its state.
func Open(dir string, o Options) (*Spool, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", full(err))
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", full(err))
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("open spool %s: %w", dir, full(err))
	}
	s := &Spool{dir: dir, o: o, lock: lock, notify: make(chan struct{}, 1), syncNames: syncDir}
	s.moved = sync.NewCond(&s.mu)
	s.turn()
	defer s.over()
	if err := s.recover(); err != nil {
		s.gone = nil
		if s.store != nil {
			s.store.close()
		}
		lock.Close()
		return nil, fmt.Errorf("open spool %s: %w", dir, full(err))
	}
	s.fillBallast()
	if s.live() > 0 {
		s.wake()
	}
	return s, nil
}

// recover reads the state and every segment that is not settled.
func (s *Spool) recover() error {
	store, st, found, err := openState(filepath.Join(s.dir, "state"))
	if err != nil {
		return err
	}
	s.store, s.state = store, st
	bases, err := s.list(".seg")
	if err != nil {
		return err
	}
	if !found {
		s.state.Front = 1
		if len(bases) > 0 {
			s.state.Front = max(1, bases[0])
		}
	}
	s.next = s.state.Front
	s.front = headerBytes

	var buf []byte
	for i, base := range bases {
		last := i == len(bases)-1
		if !last && bases[i+1] <= s.state.Front {
			s.discard(&segment{base: base}) // settled before the crash
			continue
		}
		if buf, err = s.recoverSegment(base, last, buf); err != nil {
			return err
		}
	}
	_, err = os.Stat(filepath.Join(s.dir, "ballast"))
	s.ballast = err == nil
	if s.live() == 0 && s.next > s.state.Front {
		return s.pass(s.next) // nothing readable is left that would show the gap
	}
	return nil
}

// recoverSegment reads one segment and adds it to segs if there is something to deliver in it. Only the last one can have
// been cut short by a crash: the others were synced before the next was begun.
func (s *Spool) recoverSegment(base uint64, last bool, buf []byte) ([]byte, error) {
	path := s.path(base)
	b, err := readSegment(path, buf)
	if err != nil {
		return buf, err
	}
	s.next = max(s.next, base)
	if len(b) < headerBytes {
		s.note(os.Remove(path)) // a crash while it was created; it never held a record
		return b, nil
	}
	h, ok := parseHeader(b)
	if !ok || h.base != base {
		if last {
			if err := s.countTorn(base, 0); err != nil {
				return b, err
			}
		}
		s.discard(&segment{base: base, damaged: true})
		return b, nil
	}
	seg := &segment{base: base, seed: h.seed(), next: base}
	front := int64(headerBytes)
	walked := walk(b[headerBytes:], seg.seed, base, true, func(f frame, end int) bool {
		if f.seq < s.state.Front {
			front = int64(headerBytes + end)
			return true
		}
		if seg.live == 0 {
			seg.oldest = f.at
		}
		seg.live++
		seg.newest = f.at
		return true
	})
	seg.next = walked.next
	seg.size = int64(headerBytes + walked.end)
	seg.damaged = walked.skipped
	if torn := len(b) - int(seg.size); torn > 0 {
		if last {
			if err := s.countTorn(base, seg.size); err != nil {
				return b, err
			}
			if err := os.Truncate(path, seg.size); err != nil {
				return b, fmt.Errorf("cut torn segment: %w", err)
			}
		} else {
			seg.damaged = true
		}
	}
	s.next = max(s.next, seg.next)
	if seg.live == 0 {
		s.discard(seg)
		return b, nil
	}
	if len(s.segs) == 0 {
		s.front = front
	}
	s.segs = append(s.segs, seg)
	s.bytes += seg.size
	return b, nil
}

// countTorn counts a cut tail once, however often the cut itself is interrupted.
func (s *Spool) countTorn(base uint64, offset int64) error {
	at := tear{Segment: base, Offset: offset}
	if s.state.Tear == at {
		return nil
	}
	st := s.state
	st.Tear = at
	st.Dropped.Torn++
	return s.save(st)
}

// MaxRecordBytes is the length of the longest record that Append takes.
func (s *Spool) MaxRecordBytes() int { return int(s.o.SegmentBytes - headerBytes - frameBytes) }

// turn begins a turn: until it is over nobody else changes the state. It takes mu, which is let go of while the disk takes what
// was changed (save) and when the turn is over.
func (s *Spool) turn() {
	s.order.Lock()
	s.mu.Lock()
}

// over ends a turn. The files of what it settled are taken away without mu.
func (s *Spool) over() {
	gone := s.gone
	s.gone = nil
	s.mu.Unlock()
	if len(gone) > 0 {
		left, err := s.clear(gone)
		s.mu.Lock()
		s.gone = append(s.gone, left...)
		s.note(err)
		s.mu.Unlock()
	}
	s.order.Unlock()
}

// inTurn gives an append, which has mu, a turn for f. Meanwhile everything may change.
func (s *Spool) inTurn(f func() error) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	s.turn()
	defer s.over()
	if s.closed {
		return ErrClosed
	}
	return f()
}

// Append adds records to the end of the queue and copies them. With durable it returns when they are on disk; appends that
// wait at the same time share one sync. Without, it waits for the disk only where it begins a segment, or drops the oldest.
//
// The error wraps ErrEmptyRecord, ErrTooLarge (both before anything is written), ErrFull or ErrClosed; after ErrFull a later
// call may succeed. Records that fit into one segment together are all in the queue or, on ErrFull, none. Of more, the first may
// be in it, and when only a sync failed, all may be: the caller who repeats them delivers some twice.
func (s *Spool) Append(durable bool, recs ...[]byte) error {
	for _, r := range recs {
		if len(r) == 0 {
			return ErrEmptyRecord
		}
		if most := s.MaxRecordBytes(); len(r) > most {
			return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(r), most)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(recs) > 0 {
		n, total := 0, int64(0)
		for n < len(recs) && headerBytes+total+frameBytes+int64(len(recs[n])) <= s.o.SegmentBytes {
			total += frameBytes + int64(len(recs[n]))
			n++
		}
		w, err := s.write(total, recs[:n])
		if errors.Is(err, ErrFull) && durable && s.releaseBallast() {
			w, err = s.write(total, recs[:n])
		}
		if err != nil {
			return err
		}
		s.wake()
		recs = recs[n:]
		if !durable {
			s.syncLater()
		} else if err := s.syncTo(w, w.seg.next); err != nil {
			return err
		}
	}
	return nil
}

// write adds the frames of recs, total bytes of them, to a segment with room.
func (s *Spool) write(total int64, recs [][]byte) (*writer, error) {
	now := time.Now().UnixNano()
	w, err := s.room(total, now)
	if err != nil {
		return nil, full(err)
	}
	seg := w.seg
	s.buf = s.buf[:0]
	for i, r := range recs {
		s.buf = appendFrame(s.buf, seg.seed, s.next+uint64(i), now, r)
	}
	if _, err := w.f.WriteAt(s.buf, seg.size); err != nil {
		// Part of a frame may be there: cut it off, or never write behind it.
		if terr := w.f.Truncate(seg.size); terr != nil {
			w.err = terr
		}
		return nil, full(fmt.Errorf("append to spool: %w", err))
	}
	if seg.live == 0 {
		seg.oldest = now
	}
	seg.newest = now
	seg.live += len(recs)
	seg.size += total
	s.bytes += total
	s.next += uint64(len(recs))
	seg.next = s.next
	if cap(s.buf) > 1<<20 {
		s.buf = nil // one huge record should not cost memory for ever
	}
	return w, nil
}

// room returns the segment to write total bytes to, after making a new one and dropping old ones as the caps ask.
func (s *Spool) room(total, now int64) (*writer, error) {
	over := func() bool { return s.w != nil && s.segs[0] != s.w.seg && s.bytes+total > s.o.MaxBytes }
	for {
		w := s.w
		switch {
		case s.closed:
			return nil, ErrClosed
		case s.expired(now):
			if err := s.inTurn(func() error { return s.expire(now) }); err != nil {
				return nil, err
			}
		case w == nil || w.err != nil || w.seg.size+total > s.o.SegmentBytes || s.old(w.seg, now, s.o.MaxAge/8):
			if s.syncing {
				s.moved.Wait()
				continue
			}
			if w != nil {
				s.seal()
			}
			if err := s.create(); err != nil {
				return nil, err
			}
		case over():
			err := s.inTurn(func() error {
				if !over() {
					return nil
				}
				return s.drop(causeOverflow)
			})
			if err != nil {
				return nil, err
			}
		default:
			return w, nil
		}
	}
}

// old reports whether seg's first waiting record is older than age; never if age is 0.
func (s *Spool) old(seg *segment, now int64, age time.Duration) bool {
	return age > 0 && seg.live > 0 && seg.oldest < now-int64(age)
}

// expired reports whether the oldest segment is to be dropped for its age, and can be.
func (s *Spool) expired(now int64) bool {
	return s.o.MaxAge > 0 && len(s.segs) > 0 && s.segs[0].live > 0 && s.segs[0].newest < now-int64(s.o.MaxAge) &&
		(!s.syncing || s.w == nil || s.w.seg != s.segs[0]) // being synced: next time
}

// expire drops the segments whose newest record is over MaxAge.
func (s *Spool) expire(now int64) error {
	for s.expired(now) {
		if s.w != nil && s.w.seg == s.segs[0] {
			s.seal()
		}
		if err := s.drop(causeExpired); err != nil {
			return err
		}
	}
	return nil
}

// create begins a segment at the next number.
func (s *Spool) create() error {
	h := header{base: s.next, salt: rand.Uint64()}
	path := s.path(h.base)
	// Not O_EXCL: a file of this number can only be the rest of a create that failed.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create spool segment: %w", err)
	}
	if _, err = f.WriteAt(h.append(nil), 0); err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		f.Close()
		os.Remove(path)
		return fmt.Errorf("create spool segment: %w", err)
	}
	seg := &segment{base: h.base, next: h.base, seed: h.seed(), size: headerBytes}
	if len(s.segs) == 0 {
		s.front = headerBytes
	}
	s.segs = append(s.segs, seg)
	s.bytes += seg.size
	s.w = &writer{f: f, seg: seg, durable: s.next}
	s.fillBallast()
	return nil
}

// seal ends the segment being written; nobody may be syncing it.
func (s *Spool) seal() {
	w := s.w
	s.w = nil
	if w.err == nil && w.durable < s.next {
		w.err = syncFile(w.f)
		s.note(w.err)
	}
	if w.err == nil {
		w.durable = s.next
	}
	s.note(w.f.Close())
	s.moved.Broadcast()
	if w.seg.next == w.seg.base { // its first write failed: the segment that follows has its number and name
		s.segs = s.segs[:len(s.segs)-1]
		s.bytes -= w.seg.size
		s.note(os.Remove(s.path(w.seg.base)))
	}
	s.trim()
	gone := s.gone
	s.gone = nil
	s.discard(gone...)
}

// syncTo returns when w's records below end are on disk.
func (s *Spool) syncTo(w *writer, end uint64) error {
	for w.durable < end {
		if w.err != nil {
			return full(fmt.Errorf("sync spool: %w", w.err))
		}
		if s.syncing {
			s.moved.Wait()
			continue
		}
		target := s.next
		s.syncing = true
		s.mu.Unlock()
		err := syncFile(w.f)
		s.mu.Lock()
		s.syncing = false
		if err == nil {
			w.durable = target
		} else {
			// What a failed sync left on disk is unknown and a second one may lie: go on in a new segment.
			w.err = err
			s.note(err)
		}
		s.moved.Broadcast()
	}
	return nil
}

// syncLater arranges for a sync after SyncEvery.
func (s *Spool) syncLater() {
	if s.timer != nil {
		return
	}
	s.timers.Add(1)
	s.timer = time.AfterFunc(s.o.SyncEvery, func() {
		defer s.timers.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timer = nil
		if !s.closed && s.w != nil {
			s.note(s.syncTo(s.w, s.next))
		}
	})
}

// Sync returns when everything appended so far is on disk.
func (s *Spool) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.w == nil {
		return nil
	}
	return s.syncTo(s.w, s.next)
}

// Close syncs and closes the spool. A batch still leased stays in the queue. A second Close returns ErrClosed.
func (s *Spool) Close() error {
	s.turn()
	for s.syncing {
		s.moved.Wait()
	}
	if s.closed {
		s.over()
		return ErrClosed
	}
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.timers.Done()
	}
	var err error
	if w := s.w; w != nil {
		s.seal()
		err = w.err
	}
	s.gone = nil // what is left is for the next Open
	err = errors.Join(err, s.store.close(), s.lock.Close())
	s.over()
	s.timers.Wait()
	if err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// Notify returns the channel that holds a token after records were appended, and after Open if some were waiting. It is
// for one reader, who then leases until ErrEmpty.
func (s *Spool) Notify() <-chan struct{} { return s.notify }

func (s *Spool) wake() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}

// Stats tells what a spool holds and what has become of the rest.
// Appended = Committed + Records + Dropped.Overflow + Dropped.Expired + Dropped.Corrupt + Dropped.Refused.
type Stats struct {
	Records   int    // waiting or leased
	Bytes     int64  // of all segments on disk
	Segments  int    // files
	Appended  uint64 // over the life of the folder
	Committed uint64
	Dropped   Losses
	// Unreported is the part of Dropped for which ReportLoss was not yet called.
	Unreported Losses
	// OldestUnixNano is a time before which no waiting record was appended; 0 if none waits.
	OldestUnixNano int64
	// BadFiles is the number of damaged segments kept aside.
	BadFiles int
	// Ballast tells whether the reserved space is in place (false too if there was none asked for).
	Ballast bool
	// LastError is the newest failure that no caller was there to be told of, "" if none.
	LastError string
}

// Stats returns the present figures.
func (s *Spool) Stats() Stats {
	bad, _ := s.list(".bad")
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Records:   s.live(),
		Bytes:     s.bytes,
		Segments:  len(s.segs),
		Appended:  s.next - 1,
		Committed: s.state.Committed,
		Dropped:   s.state.Dropped,
		BadFiles:  len(bad),
		Ballast:   s.ballast,
	}
	// Unreadable records are counted on disk when the reader passes them; they are known before.
	st.Dropped.Corrupt += s.next - s.state.Front - uint64(st.Records)
	st.Unreported = st.Dropped.sub(s.state.Reported)
	for _, seg := range s.segs {
		if seg.live > 0 {
			st.OldestUnixNano = max(seg.oldest, s.settled)
			break
		}
	}
	if s.lastErr != nil {
		st.LastError = s.lastErr.Error()
	}
	return st
}

// Len returns the number of records waiting or leased.
func (s *Spool) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live()
}

func (s *Spool) live() int {
	n := 0
	for _, seg := range s.segs {
		n += seg.live
	}
	return n
}

// drop lets the oldest segment go; the count is on disk first.
func (s *Spool) drop(cause cause) error {
	seg := s.segs[0]
	st := s.state
	if seg.next > st.Front {
		st.Dropped.Corrupt += seg.next - st.Front - uint64(seg.live)
		st.Front = seg.next
	}
	st.Dropped.add(cause, uint64(seg.live))
	if err := s.save(st); err != nil {
		return fmt.Errorf("drop oldest spool segment: %w", err)
	}
	seg.live = 0
	s.front = headerBytes
	s.trim()
	return nil
}

// trim takes the settled segments off the front of the queue.
func (s *Spool) trim() {
	for len(s.segs) > 0 {
		seg := s.segs[0]
		if s.w != nil && s.w.seg == seg || seg.next > s.state.Front || seg.live > 0 {
			return
		}
		s.segs = slices.Delete(s.segs, 0, 1)
		s.bytes -= seg.size
		s.front = headerBytes
		s.gone = append(s.gone, seg)
	}
}

// clear takes the files of settled segments away, or aside if they were damaged. It needs no lock. left is what could not be
// deleted (a virus scanner may hold it) and wants another try. A name that comes back with a loss of power is settled by its number.
func (s *Spool) clear(gone []*segment) (left []*segment, err error) {
	for _, seg := range gone {
		if seg.damaged {
			aside, aerr := s.setAside(seg.base)
			err = errors.Join(err, aerr)
			if aside {
				continue
			}
		}
		if rerr := os.Remove(s.path(seg.base)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
			left = append(left, seg)
		}
	}
	return left, errors.Join(err, s.syncNames(s.dir))
}

// discard is clear, with mu, for what nobody else waits for.
func (s *Spool) discard(gone ...*segment) {
	if len(gone) > 0 {
		left, err := s.clear(gone)
		s.gone = append(s.gone, left...)
		s.note(err)
	}
}

// setAside keeps a damaged segment as .bad, and of these the newest that fit in an eighth of MaxBytes; false if it is where it was.
func (s *Spool) setAside(base uint64) (bool, error) {
	path := s.path(base)
	kept := strings.TrimSuffix(path, ".seg") + ".bad"
	if err := os.Rename(path, kept); err != nil {
		return false, err
	}
	if s.o.Aside != nil {
		s.o.Aside(kept)
	}
	bad, err := s.list(".bad")
	slices.Reverse(bad)
	size := int64(0)
	for i, b := range bad {
		p := strings.TrimSuffix(s.path(b), ".seg") + ".bad"
		if fi, err := os.Stat(p); err == nil {
			size += fi.Size()
		}
		if i > 0 && size > s.o.MaxBytes/8 {
			err = errors.Join(err, os.Remove(p))
		}
	}
	return true, err
}

func (s *Spool) path(base uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d.seg", base))
}

// list returns the numbers of the files with suffix, in order.
func (s *Spool) list(suffix string) ([]uint64, error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var bases []uint64
	for _, e := range names {
		digits, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || len(digits) != 20 || !e.Type().IsRegular() {
			continue
		}
		// A number near the end of the range is not ours and would leave no room to count on.
		if n, err := strconv.ParseUint(digits, 10, 63); err == nil {
			bases = append(bases, n)
		}
	}
	slices.SortFunc(bases, cmp.Compare)
	return bases, nil
}

// save makes st the state, on disk and then in memory. It is for whoever has the turn, and without mu while the disk takes it.
func (s *Spool) save(st state) error {
	err := s.put(&st)
	if isFull(err) && s.releaseBallast() {
		err = s.put(&st)
	}
	if err != nil {
		return full(fmt.Errorf("write spool state: %w", err))
	}
	s.state = st
	return nil
}

func (s *Spool) put(st *state) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.store.write(st)
}

// note remembers a failure that no caller waits for.
func (s *Spool) note(err error) {
	if err != nil {
		s.lastErr = err
	}
}

// full adds ErrFull to an error that comes of a full disk or quota.
func full(err error) error {
	if isFull(err) && !errors.Is(err, ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// releaseBallast gives the reserved space back and reports whether there was any.
func (s *Spool) releaseBallast() bool {
	if !s.ballast {
		return false
	}
	err := os.Remove(filepath.Join(s.dir, "ballast"))
	s.note(err)
	s.ballast = false
	return err == nil
}

// fillBallast reserves the space again once the disk has plenty. Failure only means trying again at the next segment.
func (s *Spool) fillBallast() {
	if s.ballast || s.o.BallastBytes == 0 {
		return
	}
	// Four times as much: to take the last free bytes would bring about what the ballast is for.
	if free, err := freeBytes(s.dir); err != nil || free < 4*uint64(s.o.BallastBytes) {
		return
	}
	path := filepath.Join(s.dir, "ballast")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		s.note(err)
		return
	}
	// Random, since a file system may store zeros in no space at all.
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), s.o.BallastBytes)
	if err = errors.Join(err, f.Close()); err != nil {
		s.note(err)
		s.note(os.Remove(path))
		return
	}
	s.ballast = true
}

// writeHolder names this process in the lock file, for the message of the next one that comes.
func writeHolder(f *os.File) {
	if err := f.Truncate(0); err == nil {
		// Only a help for people, and a full disk must not keep the spool shut.
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	}
}
