package judge

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/correlate"
	"sekisho/internal/event"
	"sekisho/internal/spool"

	bolt "go.etcd.io/bbolt"
)

// Recovery is what Open found.
type Recovery struct {
	// Alerts are those that the run before may not have kept, in their newest
	// form and in the order in which they were raised: to be kept now. They have
	// the ids that they had, and many of them may be kept already. They count as
	// given out (see Kept).
	Alerts []Recovered
	Events int64 // judged again from the journal
	Lost   int64 // events of the journal that could not be read
	Took   time.Duration

	// Afresh says why what was counted before is lost, in whole or in part; nil:
	// counting goes on.
	Afresh error
}

// Recovered is an alert of the run before. It is kept as it is: to decode it would
// cost more than all else that Open does.
type Recovered struct {
	ID   string
	JSON []byte // as alert.Alert.AppendJSON makes it; nobody may write to it
}

// Open makes a Judge that goes on where the one before it stopped, was killed or
// lost power: windows, what was seen before, and alerts that repeats may join
// are in dir (the files are described in store.go). Events that matched a rule
// are in a journal there before their alerts are given out.
//
// The caller keeps alerts on disk only after Sync, tells how many it has kept
// (Kept), and starts a checkpoint when one is Due. Then a kill loses nothing; a
// loss of power takes at most what was judged in the last second, of which no
// alert was kept.
//
// What cannot be used is set aside and told in the Recovery; while dir cannot be
// written at all, the Judge keeps nothing on disk and says why in its Stats (see
// adopt). The error wraps ErrInUse if another process has dir open; there is no
// other.
func Open(dir string, o Options) (*Judge, error) {
	began := time.Now()
	j := New(o)
	j.dir, j.began, j.tried = dir, began.UTC().Round(0), began
	s, afresh, err := openStore(dir)
	if errors.Is(err, ErrInUse) {
		return nil, err
	}
	if err != nil {
		j.unstored = err
		return j, nil
	}
	j.store = s
	if err := j.load(o); err != nil {
		// All or nothing: what was read of it may not fit together.
		j.book, j.given, s.meta = alert.NewBook(), nil, meta{}
		j.stats, j.looked = Stats{}, time.Time{}
		afresh = errors.Join(afresh, err)
		if err := s.renew(); err != nil {
			j.store, j.unstored = nil, errors.Join(afresh, err, s.journal.Close())
			j.windows = correlate.New(o.Program, o.Limits, nil)
			return j, nil
		}
		j.windows = correlate.New(o.Program, o.Limits, s)
	}
	if s.meta.Began.IsZero() {
		s.meta.Began = j.began
	}
	s.last = began
	err = j.again()
	j.journal.Store(s.journal)
	j.recovery.Afresh = errors.Join(afresh, err)
	j.recovery.Alerts = j.newest()
	j.given = j.given[:0]
	for _, r := range j.recovery.Alerts {
		j.given = append(j.given, given{raw: r})
	}
	if afresh != nil || err != nil || j.recovery.Lost > 0 {
		// What was read from a journal that is of no more use is nowhere else.
		_ = j.Checkpoint() // tried again when it is due
	}
	j.recovery.Took = time.Since(began)
	return j, nil
}

// openStore opens both halves of a store. afresh says what was set aside for it.
func openStore(dir string) (s *store, afresh, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	s = &store{dir: dir}
	var damaged error
	if s.journal, damaged, err = openJournal(dir); err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, spool.ErrFull) {
		afresh = fmt.Errorf("journal: %w", err)
		if err := aside(s.path(journalName)); err != nil {
			return nil, nil, errors.Join(afresh, err)
		}
		s.journal, _, err = openJournal(dir)
	}
	if err != nil {
		return nil, nil, err
	}
	if damaged != nil {
		afresh = fmt.Errorf("journal: %w", damaged)
	}
	// Nothing gets into the journal before there is a database.
	if fi, err := os.Stat(s.path(dbName)); s.journal.Next() > 1 && (errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == 0) {
		afresh = errors.Join(afresh, fmt.Errorf("%s: it is gone", dbName))
	}
	if s.db, err = openDB(s.path(dbName)); err == nil {
		s.db, err = slim(s.db, s.path(dbName))
	}
	if errors.Is(err, errDamaged) {
		afresh = errors.Join(afresh, fmt.Errorf("%s: %w", dbName, err))
		if err = aside(s.path(dbName)); err == nil {
			s.db, err = openDB(s.path(dbName))
		}
	}
	if err != nil {
		s.journal.Close()
		return nil, nil, errors.Join(afresh, err)
	}
	return s, afresh, nil
}

// adopt tries again to open a store that could not be opened, such as on a disk
// that was full, and goes on in it. One that holds what an earlier run counted is
// left for the next Open: two counts cannot be joined.
func (j *Judge) adopt() error {
	j.tried = time.Now()
	s, afresh, err := openStore(j.dir)
	if err == nil && (afresh != nil || s.journal.Next() > 1 || s.holds()) {
		err = errors.Join(afresh, s.close(), errors.New("it can be opened now and holds what an earlier run counted: restart the agent to go on from there"))
	}
	if err != nil {
		j.unstored = err
		return err
	}
	s.meta.Began = j.began
	s.problem = j.unstored // until the first checkpoint is on disk
	j.store, j.unstored = s, nil
	j.journal.Store(s.journal)
	j.windows.Adopt(s)
	return nil
}

// holds reports whether there is anything in the database of a store.
func (s *store) holds() (holds bool) {
	err := guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			k, _ := tx.Bucket(bucketName).Cursor().First()
			holds = k != nil
			return nil
		})
	})
	return holds || err != nil
}

func (s *store) path(name string) string { return filepath.Join(s.dir, name) }

// openJournal opens the journal of a store; damaged says what of it cannot be read,
// nor even counted.
func openJournal(dir string) (j *spool.Spool, damaged, err error) {
	j, err = spool.Open(filepath.Join(dir, journalName), spool.Options{
		MaxBytes: 4 * (journalMost + segmentBytes), SegmentBytes: segmentBytes, // four times what it may hold: nothing is ever dropped from it
		Aside: func(path string) {
			if !blank(path) {
				damaged = errors.Join(damaged, fmt.Errorf("%s cannot be read", filepath.Base(path)))
			}
		},
	})
	if errors.Is(err, spool.ErrInUse) {
		return nil, nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return j, damaged, err
}

// blank reports whether a file begins with zeros: a loss of power leaves a segment
// so that was created in the last second.
func blank(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [32]byte
	n, _ := io.ReadFull(f, head[:])
	return !bytes.ContainsFunc(head[:n], func(r rune) bool { return r != 0 })
}

// aside sets a file or folder aside; none is no error.
func aside(path string) error {
	if _, err := setAside(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set aside: %w", err)
	}
	return nil
}

// renew sets the database aside and begins another.
func (s *store) renew() error {
	if err := s.db.Close(); err != nil {
		return err
	}
	if err := aside(s.path(dbName)); err != nil {
		return err
	}
	db, err := openDB(s.path(dbName))
	if err != nil {
		return err
	}
	s.db = db
	return nil
}

// load takes over the last checkpoint. The error says why it cannot be used.
func (j *Judge) load(o Options) error {
	s := j.store
	err := guarded(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			v := b.Get([]byte{keyMeta})
			if v == nil {
				if k, _ := b.Cursor().First(); k != nil {
					return errors.New("it does not say what it is")
				}
				return nil
			}
			if err := json.Unmarshal(v, &s.meta); err != nil {
				return err
			}
			if s.meta.Version != storeVersion {
				return fmt.Errorf("%w: %d, this program knows %d", errOther, s.meta.Version, storeVersion)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dbName, err)
	}
	j.stats.Events, j.looked = s.meta.Events, s.meta.Looked
	j.windows = correlate.New(o.Program, o.Limits, s)
	err = guarded(j.windows.Load)
	if err == nil {
		err = s.each([]byte{keyOpen}, j.book.Load)
	}
	if err == nil {
		err = s.each([]byte{keyUnkept}, func(k, v []byte) error {
			r, err := parseUnkept(k, v)
			if err == nil {
				j.given = append(j.given, given{raw: r})
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dbName, err)
	}
	return nil
}

// again judges the events of the journal that the checkpoint does not hold, as
// they were enriched then. The error says that the journal is gone or was set aside.
func (j *Judge) again() (err error) {
	s := j.store
	next := s.meta.Next // number of the next record, if all can be read; 0: not known
	pass := func(n uint64) {
		if next > 0 && n > next {
			j.recovery.Lost += int64(n - next)
		}
		next = max(next, n)
	}
	err = s.journal.Each(0, func(n uint64, rec []byte) error {
		r, err := parseRecord(rec)
		if errors.Is(err, errOther) {
			return err
		}
		if err != nil && n < s.meta.Next {
			return nil // the checkpoint has it
		}
		if r.number <= s.meta.Events && err == nil {
			next = max(next, n+1)
			return nil
		}
		pass(n)
		next = max(next, n+1)
		var e *event.Event
		if err == nil {
			e, err = event.Decode(r.event)
		}
		if err != nil {
			j.recovery.Lost++
			return nil
		}
		j.windows.Wind(r.newest, r.late)
		j.stats.Events = r.number
		s.length += int64(len(rec))
		j.recovery.Events++
		for _, a := range j.judge(e, func() {}) {
			j.given = append(j.given, given{a: a})
		}
		// As while it was judged first: or long windows would be lost for want of memory.
		if j.windows.Pressed() && s.due(time.Now(), true) {
			if j.checkpoint(n+1) == nil {
				_ = s.wait()
			}
		}
		return nil
	})
	if err == nil {
		end := s.journal.Next()
		pass(end)
		if end < s.meta.Next { // the checkpoint waited until all before it was on disk
			err = errors.New("journal: what it held is gone")
		}
		return err
	}
	// What it held is in the windows as far as it could be read; a checkpoint
	// follows at once.
	err = fmt.Errorf("journal: %w", err)
	s.length = 0
	journal, oerr := s.journal, error(nil)
	if oerr = journal.Close(); oerr == nil {
		if oerr = aside(s.path(journalName)); oerr == nil {
			s.journal, _, oerr = openJournal(s.dir)
		}
	}
	if oerr != nil {
		s.journal = journal // closed: what is added is missing, and told
		return errors.Join(err, oerr)
	}
	return err
}

// newest is the alerts of the checkpoint and those raised since, with what repeats
// have made of them, each once.
func (j *Judge) newest() []Recovered {
	var out []Recovered
	place := map[string]int{}
	at := func(id string) int {
		i, known := place[id]
		if !known {
			i = len(out)
			place[id] = i
			out = append(out, Recovered{ID: id})
		}
		return i
	}
	states := map[int]*alert.Alert{}
	for _, g := range j.given {
		if g.a != nil {
			states[at(g.a.ID)] = g.a
		} else {
			out[at(g.raw.ID)] = g.raw
		}
	}
	for _, a := range append(j.unsettled, j.book.Changed()...) {
		states[at(a.ID)] = a
	}
	j.unsettled = nil
	for i, a := range states {
		out[i].JSON = a.AppendJSON(nil)
	}
	return out
}

// Recovery is what Open found; zero after New.
func (j *Judge) Recovery() Recovery { return j.recovery }

// Sync returns when the events of all alerts given out so far are on disk. The
// alerts must not be kept before, or a loss of power could leave alerts behind
// that the Judge knows nothing of. On an error they are kept all the same:
// better told twice than not at all. It is safe for concurrent use.
func (j *Judge) Sync() error {
	if journal := j.journal.Load(); journal != nil {
		return journal.Sync()
	}
	return nil
}

// Kept says that the first n alerts that were given out since Open (by its
// Recovery, Event and Updates, in this order) are kept, or lost for good. All
// others are given out again by the next Open.
func (j *Judge) Kept(n uint64) {
	if n <= j.kept {
		return
	}
	done := min(n-j.kept, uint64(len(j.given)))
	for _, g := range j.given[:done] {
		j.waiting -= g.size
	}
	j.given = slices.Delete(j.given, 0, int(done))
	j.kept += done
}

// Due reports that it is time for StartCheckpoint. It costs next to nothing.
func (j *Judge) Due() bool {
	if j.store == nil {
		return j.unstored != nil && time.Since(j.tried).Abs() >= retryAfter
	}
	j.store.poll()
	return j.store.due(time.Now(), j.windows.Pressed())
}

// StartCheckpoint takes what changed since the last checkpoint and writes it to
// disk in the background, while events go on; only one that is under way still is
// waited for. The error says that nothing was begun; how it ended, Stats tell. If
// it fails nothing is lost but the journal grows on, and Due asks for another
// try after a while: of the same, and soon of what came since. Where nothing could
// be kept on disk yet, that is tried again.
func (j *Judge) StartCheckpoint() error {
	if j.unstored != nil {
		if err := j.adopt(); err != nil {
			return err
		}
	}
	s := j.store
	if s == nil {
		return nil
	}
	_ = s.wait()
	return j.checkpoint(s.journal.Next())
}

// Ahead starts a checkpoint, unless one is under way, and answers what is closed
// once it has ended, however it did. Whoever waits for that, beside the pipeline,
// before it swaps rules leaves the Swap little to write.
func (j *Judge) Ahead() <-chan struct{} {
	if s := j.store; s != nil {
		s.poll()
		if s.under != nil || j.StartCheckpoint() == nil {
			return s.ended
		}
	}
	none := make(chan struct{})
	close(none)
	return none
}

// checkpoint is StartCheckpoint for what was judged before a record of the journal,
// or tries one that failed again.
func (j *Judge) checkpoint(next uint64) error {
	s := j.store
	if s.failed != nil {
		s.run(s.failed)
		return nil
	}
	j.unsettled = append(j.unsettled, j.book.Changed()...)
	c := &checkpoint{
		meta: meta{Version: storeVersion, Began: s.meta.Began, Checkpoint: time.Now().UTC().Round(0), Events: j.stats.Events, Looked: j.looked, Next: next},
	}
	c.unkept = slices.DeleteFunc(slices.Clone(j.given), given.gone)
	for _, a := range j.unsettled {
		c.unkept = append(c.unkept, given{a: a})
	}
	return s.begin(c, func(put func(kind byte, key []byte, v value)) error {
		return errors.Join(
			j.windows.Flush(func(k []byte, v func([]byte) []byte) error { put(keyWindows, k, v); return nil }),
			j.book.Flush(func(g string, v func([]byte) []byte) error { put(keyOpen, []byte(g), v); return nil }))
	})
}

// Checkpoint is StartCheckpoint and waits until it is on disk.
func (j *Judge) Checkpoint() error {
	if j.store == nil {
		return nil
	}
	_ = j.store.wait()
	if s := j.store; s.failed != nil { // first, and then what came since
		s.run(s.failed)
		if err := s.wait(); s.failed != nil {
			return err
		}
	}
	if err := j.StartCheckpoint(); err != nil {
		return err
	}
	return j.store.wait()
}

// Close makes a last checkpoint and lets go of the files. The Judge must not be
// used any more.
func (j *Judge) Close() error {
	if j.store == nil {
		return nil
	}
	return errors.Join(j.Checkpoint(), j.store.close())
}
