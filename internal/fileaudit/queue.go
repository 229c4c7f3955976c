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
	recWrote   recordKind = iota // closed after writing; by inotify: written
	recOpened                    // opened, to read or to write
	recRead                      // closed after reading
	recRenamed                   // from -> path
	recDeleted
	recFolder // a folder came up in a protected place
	recResync // the mechanism has something to say of what it watches
	recMissed // the kernel's queue overflowed
)

// record is what a mechanism saw, free of descriptors.
type record struct {
	kind    recordKind
	at      time.Time
	pid     int    // 0: unknown
	path    string // "": longer than the kernel tells
	from    string // old path of a rename; "": its folder is gone
	size    int64  // -1: unknown
	dev     volume.Dev
	ino     uint64 // 0: unknown
	dir     bool
	changed bool // written to, or so it may be: see fan.wrote
	names   bool // moves and deletions on this file system are told
	found   bool // by looking, after a loss
	grew    int  // how often it was found to grow and put off
	idle    bool // written on a local disk while nothing of interest was read, as far as the mechanism saw
	look    sample
	source  *read     // of the same name, by the same process, just before
	born    time.Time // when the file was made; zero: unknown
	likely  bool      // the process had the file open, which is all that is known

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
	dropped uint64
	remote  uint64 // lost on shares, where nobody looks for it
}

func newQueue(limit int) *queue { return &queue{wake: make(chan struct{}, 1), max: limit} }

// push adds a record, or counts it as lost.
func (q *queue) push(r record) {
	q.mu.Lock()
	if len(q.records)+q.taken >= q.max {
		q.dropped++
	} else {
		q.records = append(q.records, r)
	}
	q.mu.Unlock()
	q.signal()
}

// pushAll adds records, or counts those as lost for which there is no room, and
// returns the empty list for the next.
func (q *queue) pushAll(all []record) []record {
	if len(all) == 0 {
		return all
	}
	q.mu.Lock()
	n := min(len(all), max(q.max-len(q.records)-q.taken, 0))
	q.records = append(q.records, all[:n]...)
	q.dropped += uint64(len(all) - n)
	q.mu.Unlock()
	q.signal()
	clear(all)
	return all[:0]
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

// lose counts n records that were lost before they could be pushed.
func (q *queue) lose(n uint64) {
	q.mu.Lock()
	q.dropped += n
	q.mu.Unlock()
	q.signal()
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

// tookLost returns how many were lost since it was last called, but for those of
// shares.
func (q *queue) tookLost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.dropped
	q.dropped = 0
	return n
}

// tookRemote returns how many were lost on shares since it was last called.
func (q *queue) tookRemote() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.remote
	q.remote = 0
	return n
}
