package judge

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/spool"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// What a Judge keeps lies in one folder:
//
//	windows.db        the last checkpoint (bbolt, one bucket): all of it from one transaction
//	journal/          the events that matched a rule since then (package spool), as enriched, in order
//	windows.db.new    being written in place of windows.db (see slim); of no use after a kill
//	windows.db.bad-1  set aside because it could not be used, and so journal.bad-1; the newest keptBad of each
//
// Keys of the bucket, by their first byte:
//
//	m  what holds for all of it, as JSON (meta)
//	w  then the key of a correlate.Set
//	a  then the group of an open alert (alert.Book)
//	u  then a place (8 bytes) and an id: that alert was given out and is not yet known to be kept; a CRC-32C and its JSON
const (
	dbName      = "windows.db"
	journalName = "journal"
	keptBad     = 3

	keyMeta    = 'm'
	keyWindows = 'w'
	keyOpen    = 'a'
	keyUnkept  = 'u'
)

var bucketName = []byte("judge")

// storeVersion is the version of the bucket and of the journal's records.
const storeVersion = 1

// Bounds of the store. Judgement.
const (
	// journalBytes is how long the journal grows at least before a checkpoint: a
	// PC copying files writes some 1,000 events, which are judged again in 50 ms.
	journalBytes = 1 << 20
	// journalLong is how long it grows at most before one, however much the last
	// one wrote: to judge that again takes some seconds. With the default limits a
	// checkpoint is far below.
	journalLong = journalMost / 2
	// journalMost is how long it may grow while checkpoints fail. Then nothing
	// more is added, and what follows does not survive until a checkpoint works.
	journalMost = 64 << 20
	// segmentBytes is what a file of the journal holds; the longest event fits.
	segmentBytes = event.MaxJSON + 64<<10
	// checkpointEvery is the longest time between two checkpoints.
	checkpointEvery = time.Hour
	// retryAfter is the pause after a checkpoint that failed.
	retryAfter = 10 * time.Second
	// mapBytes is mapped from the start: most stores never need more.
	mapBytes = 1 << 20
	// slimBytes is how large the database is at least before it is written anew for
	// the free room in it.
	slimBytes = 8 << 20
	// arenaBytes is the memory that a checkpoint's values are made in, piece by piece.
	arenaBytes = 1 << 20
	// lockWait is how long a store that another process holds is waited for.
	lockWait = time.Second
)

// ErrInUse says that another process has the store open.
var ErrInUse = errors.New("what was counted is in use by another process")

// errDamaged says that the store's content is of no use: it is set aside.
var errDamaged = errors.New("cannot be used")

// store is what a Judge keeps on disk. Like the Judge it has one owner; the
// journal is safe for concurrent use.
type store struct {
	dir     string
	db      *bolt.DB
	journal *spool.Spool
	meta    meta // of the last checkpoint
	buf     []byte

	// pending is what was handed over for a transaction that is under way or
	// failed, by key; nil values are gone keys. Whoever reads sees it. What failed
	// is tried again as it is, or pending would grow as long as the disk is full.
	pending map[string]value
	handed  int           // how much that was the last time
	under   *checkpoint   // nil: none is under way
	failed  *checkpoint   // that is to be tried again; nil: none
	result  chan result   // of the one that is
	ended   chan struct{} // closed when there is a result

	length  int64     // bytes in the journal that no checkpoint holds
	missing int64     // events that matched and are in neither
	written int64     // bytes of the last checkpoint
	last    time.Time // when it was begun, or was tried
	problem error     // of the last try to write
}

// value appends what is kept under a key; any goroutine may ask for it.
type value func(b []byte) []byte

// checkpoint is one transaction: what it writes besides pending, and what of the
// journal it stands for.
type checkpoint struct {
	meta    meta
	unkept  []given // alerts that are not known to be kept
	length  int64   // of those that are
	missing int64   // events that are in it, but not in the journal
}

// result is how a checkpoint ended.
type result struct {
	written int64
	err     error // it is not there
	trim    error // it is, but the journal is as long as before
}

// meta is what holds for all of a checkpoint.
type meta struct {
	Version    int       `json:"version"`
	Began      time.Time `json:"began"`      // when counting began
	Checkpoint time.Time `json:"checkpoint"` // when this was written
	Events     int64     `json:"events"`     // judged before
	Looked     time.Time `json:"looked"`     // event time when the book was last looked through
	Next       uint64    `json:"next"`       // number of the first record of the journal that is not in it
}

// guarded turns what a damaged file makes of its readers into an error: bbolt
// panics on pages that make no sense, and reading a part of the file that the
// disk cannot give is a fault.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

// openDB opens the database of a store and looks through all of it. The error
// wraps ErrInUse or errDamaged where it is that.
func openDB(path string) (db *bolt.DB, err error) {
	var file *os.File
	before, err := os.Stat(path)
	isNew := errors.Is(err, os.ErrNotExist)
	if err == nil && (!before.Mode().IsRegular() || before.Size() > 0 && before.Size() < int64(2*os.Getpagesize())) {
		return nil, fmt.Errorf("%w: no database", errDamaged)
	}
	err = guarded(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: lockWait, InitialMmapSize: mapBytes, FreelistType: bolt.FreelistMapType, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				file = f
				return f, err
			},
		})
		switch {
		case errors.Is(err, berrors.ErrTimeout):
			return fmt.Errorf("%w: %s", ErrInUse, path)
		case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
			return fmt.Errorf("%w: %w", errDamaged, err)
		case err != nil:
			return err // of the system
		}
		db.AllocSize = mapBytes // what the file grows by
		return look(db, path)
	})
	if err != nil {
		if db != nil {
			db.Close()
		} else if file != nil {
			file.Close() // bbolt keeps it where it panics
		}
		if isNew && !errors.Is(err, ErrInUse) {
			os.Remove(path) // there was no room: the half of one is no database
		}
		return nil, err
	}
	if isNew {
		syncDir(filepath.Dir(path))
	}
	return db, nil
}

// look reads every page of a database once, so that a torn one is found now, and
// makes the bucket.
func look(db *bolt.DB, path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	var sum byte // of what is read
	made := false
	err = db.View(func(tx *bolt.Tx) error {
		made = tx.Bucket(bucketName) != nil
		if tx.Size() > fi.Size() {
			return fmt.Errorf("%w: %d bytes of %d", errDamaged, fi.Size(), tx.Size())
		}
		// First by ourselves, where a fault can be caught: Check works in a goroutine of its own.
		err := tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error {
				for i := 0; i < len(v); i += 512 { // a part of a disk
					sum += v[i]
				}
				return nil
			})
		})
		for e := range tx.Check() {
			err = errors.Join(err, fmt.Errorf("%w: %w", errDamaged, e))
		}
		return err
	})
	_ = sum
	if err != nil || made {
		return err // nothing is written: the disk may be full
	}
	return db.Update(func(tx *bolt.Tx) error {
		if k, _ := tx.Cursor().First(); k != nil {
			return fmt.Errorf("%w: it is another program's", errDamaged)
		}
		_, err := tx.CreateBucket(bucketName)
		return err
	})
}

// slim writes a database anew where more than half of it is free, and answers the
// one to go on with: after a flood it would be as large as that for ever. What goes
// wrong on the way leaves the old one as it is.
func slim(db *bolt.DB, path string) (*bolt.DB, error) {
	anew := path + ".new"
	os.Remove(anew) // of a start that was killed
	if !roomy(db) {
		return db, nil
	}
	if err := rewrite(db, anew); err != nil {
		os.Remove(anew)
		return db, nil
	}
	if err := db.Close(); err != nil { // Windows renames onto no open file
		return nil, err
	}
	if err := os.Rename(anew, path); err != nil {
		os.Remove(anew)
	}
	syncDir(filepath.Dir(path))
	return openDB(path)
}

// roomy reports whether more than half of a large database is free.
func roomy(db *bolt.DB) (roomy bool) {
	err := guarded(func() error {
		return db.View(func(tx *bolt.Tx) error {
			if tx.Size() >= slimBytes {
				st := tx.Bucket(bucketName).Stats()
				roomy = int64(st.BranchAlloc+st.LeafAlloc) < tx.Size()/2
			}
			return nil
		})
	})
	return roomy && err == nil
}

// rewrite copies what a database holds into another, which is on disk then.
func rewrite(db *bolt.DB, path string) error {
	return guarded(func() (err error) {
		to, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockWait, FreelistType: bolt.FreelistMapType, NoStatistics: true, NoSync: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, to.Close()) }()
		to.AllocSize = mapBytes
		if err := bolt.Compact(to, db, arenaBytes); err != nil {
			return err
		}
		return to.Sync()
	})
}

// syncDir puts the names in a directory on disk, where the system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // Windows cannot, and NTFS journals names itself
		d.Close()
	}
}

// setAside renames a file or folder out of the way, as name.bad-<n>.
func setAside(path string) (string, error) {
	found, err := filepath.Glob(path + ".bad-*")
	if err != nil {
		return "", err
	}
	var numbers []int
	for _, f := range found {
		if n, err := strconv.Atoi(strings.TrimPrefix(f, path+".bad-")); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	aside := fmt.Sprintf("%s.bad-%d", path, next)
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for len(numbers) >= keptBad {
		if err := os.RemoveAll(fmt.Sprintf("%s.bad-%d", path, numbers[0])); err != nil {
			return aside, err
		}
		numbers = numbers[1:]
	}
	return aside, nil
}

// Get implements correlate.Store.
func (s *store) Get(key []byte) (value []byte, err error) {
	k := prefixed(keyWindows, key)
	if v, ok := s.pending[string(k)]; ok {
		if v == nil {
			return nil, nil
		}
		return v(nil), nil
	}
	err = guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			value = bytes.Clone(tx.Bucket(bucketName).Get(k))
			return nil
		})
	})
	return value, err
}

// Each implements correlate.Store.
func (s *store) Each(prefix []byte, f func(key, value []byte) error) error {
	return s.each(prefixed(keyWindows, prefix), f)
}

// each calls f with the keys that have a prefix, without the first byte.
func (s *store) each(prefix []byte, f func(key, value []byte) error) error {
	var pending []string
	for k := range s.pending {
		if strings.HasPrefix(k, string(prefix)) {
			pending = append(pending, k)
		}
	}
	slices.Sort(pending)
	// before hands out what is pending below a key, all of it if that is nil.
	before := func(key []byte) error {
		for len(pending) > 0 && (key == nil || pending[0] <= string(key)) {
			k := pending[0]
			pending = pending[1:]
			if v := s.pending[k]; v != nil {
				if err := f([]byte(k)[1:], v(nil)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketName).Cursor()
			for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
				if err := before(k); err != nil {
					return err
				}
				if _, newer := s.pending[string(k)]; newer {
					continue
				}
				if err := f(k[1:], v); err != nil {
					return err
				}
			}
			return before(nil)
		})
	})
}

func prefixed(kind byte, key []byte) []byte {
	return append(append(make([]byte, 0, 1+len(key)), kind), key...)
}

// begin takes what flush hands to its put, and writes it with the rest of a
// checkpoint (see run). None may be under way or have failed.
func (s *store) begin(c *checkpoint, flush func(put func(kind byte, key []byte, v value)) error) error {
	if s.pending == nil {
		s.pending = make(map[string]value, s.handed)
	}
	s.last = time.Now() // of one that cannot be begun, too
	err := flush(func(kind byte, key []byte, v value) {
		s.buf = append(append(s.buf[:0], kind), key...)
		s.pending[string(s.buf)] = v
	})
	if err != nil {
		s.problem = fmt.Errorf("write %s: %w", dbName, err)
		return s.problem
	}
	s.handed = len(s.pending)
	c.length, c.missing = s.length, s.missing
	s.run(c)
	return nil
}

// run writes a checkpoint and what is pending for it on a goroutine of its own: the
// disk is not waited for.
func (s *store) run(c *checkpoint) {
	s.last = time.Now()
	s.length, s.missing = s.length-c.length, s.missing-c.missing
	s.failed, s.under, s.result, s.ended = nil, c, make(chan result, 1), make(chan struct{})
	go func(out chan<- result, ended chan<- struct{}) {
		var r result
		if r.written, r.err = s.write(c); r.err == nil {
			r.trim = s.journal.Trim(c.meta.Next)
		}
		out <- r
		close(ended)
	}(s.result, s.ended)
}

// poll takes note of a checkpoint that has ended meanwhile.
func (s *store) poll() {
	select {
	case r := <-s.result:
		s.end(r)
	default:
	}
}

// wait waits for the checkpoint that is under way, if there is one. The error is
// that of the last try.
func (s *store) wait() error {
	if s.under != nil {
		s.end(<-s.result)
	}
	return s.problem
}

func (s *store) end(r result) {
	c := s.under
	s.under, s.result = nil, nil
	if r.err != nil {
		s.failed, s.length, s.missing = c, s.length+c.length, s.missing+c.missing
		s.problem = fmt.Errorf("write %s: %w", dbName, r.err)
		return
	}
	s.pending, s.meta, s.written = nil, c.meta, r.written
	if s.missing == 0 { // else the journal failed since
		s.problem = nil
	}
	if r.trim != nil { // it is longer than it need be, and nothing worse
		s.problem = fmt.Errorf("trim journal: %w", r.trim)
	}
}

// write is the transaction of a checkpoint. It runs beside the owner, and only
// reads what is the store's.
func (s *store) write(c *checkpoint) (written int64, err error) {
	// Or the journal could end before Next after a loss of power, and seem to be cut.
	_ = s.journal.Sync() // an error of it comes with the next record
	err = guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			var arena []byte // values have to stay until the end
			put := func(key string, v value) error {
				from := len(arena)
				if v != nil {
					arena = v(arena)
				}
				written += int64(len(key) + len(arena) - from)
				if from == len(arena) {
					return b.Delete([]byte(key))
				}
				err := b.Put([]byte(key), arena[from:len(arena):len(arena)])
				if len(arena) > arenaBytes*7/8 {
					arena = make([]byte, 0, arenaBytes)
				}
				return err
			}
			// In order: bbolt splits a page at the end only, and until then moves all
			// that lies behind a key.
			for _, k := range slices.Sorted(maps.Keys(s.pending)) {
				if err := put(k, s.pending[k]); err != nil {
					return err
				}
			}
			var old [][]byte
			cur := b.Cursor()
			for k, _ := cur.Seek([]byte{keyUnkept}); k != nil && k[0] == keyUnkept; k, _ = cur.Next() {
				old = append(old, bytes.Clone(k))
			}
			for _, k := range old {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			for i := range c.unkept {
				key, v := c.unkept[i].entry(i)
				if err := put(key, v); err != nil {
					return err
				}
			}
			m, err := json.Marshal(c.meta)
			if err != nil {
				return err
			}
			return put(string(keyMeta), func(b []byte) []byte { return append(b, m...) })
		})
	})
	return written, err
}

// entry is what is kept of an alert that is not known to be kept, and under which key.
func (g *given) entry(place int) (string, value) {
	id := g.raw.ID
	if g.a != nil {
		id = g.a.ID
	}
	key := append(binary.BigEndian.AppendUint64([]byte{keyUnkept}, uint64(place)), id...)
	return string(key), func(b []byte) []byte {
		from := len(b)
		b = append(b, 0, 0, 0, 0)
		if g.a != nil {
			b = g.a.AppendJSON(b)
		} else {
			b = append(b, g.raw.JSON...)
		}
		binary.LittleEndian.PutUint32(b[from:], crc32.Checksum(b[from+4:], castagnoli))
		return b
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// parseUnkept is entry the other way round; key is without its first byte. It
// keeps neither.
func parseUnkept(key, v []byte) (Recovered, error) {
	if len(key) <= 8 || len(v) <= 4 || binary.LittleEndian.Uint32(v) != crc32.Checksum(v[4:], castagnoli) {
		return Recovered{}, errors.New("an alert is not as it was written")
	}
	return Recovered{string(key[8:]), bytes.Clone(v[4:])}, nil
}

// A record of the journal is: version, number of the event since counting began
// (uvarint), the windows' clock before it (correlate.Set.Clock: varint, uvarint),
// the event as JSON. The number ties it to a checkpoint, the clock to the events
// in between that matched nothing.
type record struct {
	number int64
	newest int64
	late   int
	event  []byte
}

func (r record) append(b []byte) []byte {
	b = append(b, storeVersion)
	b = binary.AppendUvarint(b, uint64(r.number))
	b = binary.AppendVarint(b, r.newest)
	return binary.AppendUvarint(b, uint64(r.late))
}

// errOther says that a record or a checkpoint is of another version.
var errOther = errors.New("another version")

func parseRecord(b []byte) (r record, err error) {
	if len(b) == 0 || b[0] != storeVersion {
		return r, errOther
	}
	b = b[1:]
	number, n := binary.Uvarint(b)
	if n <= 0 || number >= 1<<62 {
		return r, errors.New("no number")
	}
	b = b[n:]
	newest, n := binary.Varint(b)
	if n <= 0 {
		return r, errors.New("no time")
	}
	b = b[n:]
	late, n := binary.Uvarint(b)
	if n <= 0 || late > math.MaxInt32 {
		return r, errors.New("no late events")
	}
	return record{int64(number), newest, int(late), b[n:]}, nil
}

// add puts an event into the journal. What does not get in is counted, and makes
// a checkpoint due: that holds what came of the event.
func (s *store) add(r record, e *event.Event) {
	s.buf = e.AppendJSON(r.append(s.buf[:0]))
	err := errors.New("it is full, and no checkpoint could be written")
	if s.length+int64(len(s.buf)) <= journalMost {
		err = s.journal.Append(false, s.buf)
	}
	if err != nil {
		s.missing++
		if !errors.Is(err, spool.ErrTooLarge) {
			s.problem = fmt.Errorf("write journal: %w", err)
		}
		return
	}
	s.length += int64(len(s.buf))
	if cap(s.buf) > 1<<20 {
		s.buf = nil // one huge event should not cost memory for ever
	}
}

// due reports whether it is time for a checkpoint; pressed says that memory wants
// one.
func (s *store) due(now time.Time, pressed bool) bool {
	since := now.Sub(s.last).Abs() // a clock that was set back must not put it off
	switch {
	case s.under != nil:
		return false
	case s.problem != nil:
		return since >= retryAfter
	case s.missing > 0:
		return since >= time.Second
	}
	return pressed || s.length > min(max(journalBytes, s.written), journalLong) || since >= checkpointEvery
}

func (s *store) close() error {
	if s.under != nil {
		s.end(<-s.result)
	}
	return errors.Join(s.journal.Close(), s.db.Close())
}
