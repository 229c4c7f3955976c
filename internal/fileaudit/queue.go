package fileaudit

import (
	"context"
	"sync"
	"time"

	"sekisho/internal/volume"
)

// recordKind says what a record tells.
type recordKind uint8

const (
	recWrote   recordKind = iota // closed after it was written to; by inotify: written
	recOpened                    // opened, to read or to write
	recRead                      // closed after reading
	recRenamed                   // from -> path
	recDeleted
)

// record is what a mechanism saw, free of descriptors.
type record struct {
	kind   recordKind
	at     time.Time
	late   time.Duration // it may have happened so much earlier: what was before it took long to read
	pid    int           // 0: unknown
	path   string        // "": longer than the kernel tells
	from   string        // old path of a rename; "": its folder is gone
	size   int64         // -1: unknown
	dev    volume.Dev
	ino    uint64 // 0: unknown
	dir    bool
	names  bool // moves and deletions on this file system are told
	found  bool // by looking, after a loss
	grew   int  // how often it was found to grow and put off
	idle   bool // written on a local disk while nothing of interest was read, as far as the mechanism saw
	look   sample
	source *read     // of the same name, by the same process, just before
	born   time.Time // when the file was made; zero: unknown
	likely bool      // the process had the file open, which is all that is known

	// Of event tracing, until the file has been asked:
	stream string // an alternate data stream of the file
	want   interest
	short  bool // the path may have 8.3 names
}

func (r *record) file() fileKey { return fileKey{r.dev, r.ino} }

// queue stands between the kernel's queue, which must be read at once, and the
// rest, which may have to wait. When it is full, what comes is dropped and counted.
type queue struct {
	wake chan struct{} // holds a token when there is something to take

	mu      sync.Mutex // guards all below
	max     int
	records []record
	given   []record // the last ones, whose room is used again
	taken   int      // given to the consumer and not done yet
	losses  losses
	again   bool // see resync
}

// losses is how many records were lost.
type losses struct {
	sought uint64 // what was written on media and in protected places: it is looked for
	gone   uint64 // of shares, and reads: nobody looks for it
}

func newQueue(limit int) *queue { return &queue{wake: make(chan struct{}, 1), max: limit} }

// push adds a record, or counts it as lost.
func (q *queue) push(r record) {
	q.mu.Lock()
	q.add(&r)
	q.mu.Unlock()
	q.signal()
}

// pushAll is push for several, and returns the empty list for the next.
func (q *queue) pushAll(all []record) []record {
	if len(all) == 0 {
		return all
	}
	q.mu.Lock()
	if len(q.records)+q.taken+len(all) <= q.max/2 {
		q.records = append(q.records, all...)
	} else {
		for i := range all {
			q.add(&all[i])
		}
	}
	q.mu.Unlock()
	q.signal()
	clear(all)
	return all[:0]
}

// add adds a record if there is room: up to half of it for reads and for what seems to
// be of no interest, so that writes go last. mu is held.
func (q *queue) add(r *record) {
	minor := r.kind == recOpened || r.kind == recRead || r.idle
	switch n := len(q.records) + q.taken; {
	case n < q.max/2, n < q.max && !minor:
		q.records = append(q.records, *r)
	case minor:
		q.losses.gone++
	default:
		q.losses.sought++
	}
}

// maxKept is how many records a list has room for that is kept to be used again:
// some 300 KB.
const maxKept = 1024

// offerEvery is how long offer waits for the consumer at a time.
const offerEvery = 10 * time.Millisecond

// offer adds a record once the queue is less than half full, so that what comes
// from the kernel meanwhile has room; not at all when ctx is done.
func (q *queue) offer(ctx context.Context, r record) {
	for {
		q.mu.Lock()
		room := len(q.records)+q.taken < (q.max+1)/2
		q.mu.Unlock()
		if room {
			q.push(r)
			return
		}
		select {
		case <-time.After(offerEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// lose counts records that were lost before they could be pushed.
func (q *queue) lose(l losses) {
	q.mu.Lock()
	q.losses.sought += l.sought
	q.losses.gone += l.gone
	q.mu.Unlock()
	q.signal()
}

// tookLost returns what was lost since it was last called.
func (q *queue) tookLost() losses {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.losses
	q.losses = losses{}
	return l
}

// resync asks the consumer to look anew at what is watched: it has changed, or the
// mechanism has something to say of it.
func (q *queue) resync() {
	q.mu.Lock()
	q.again = true
	q.mu.Unlock()
	q.signal()
}

// tookResync reports whether that was asked for since it was last called.
func (q *queue) tookResync() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	again := q.again
	q.again = false
	return again
}

// take returns all records, which are the consumer's until it takes again; it calls
// done for each.
func (q *queue) take() []record {
	q.mu.Lock()
	defer q.mu.Unlock()
	r, before := q.records, q.given
	clear(before)
	if cap(before) > maxKept {
		before = nil
	}
	q.records, q.given = before[:0], r
	q.taken += len(r)
	return r
}

func (q *queue) done() {
	q.mu.Lock()
	q.taken--
	q.mu.Unlock()
}
