package procwatch

import (
	"sync"
	"time"

	"sekisho/internal/event"
)

// item is one start, end or health event on its way to the pipeline.
type item struct {
	health  *event.Event // if set, told as it is; the rest is unused
	proc    *proc        // the process as it was then
	raw     string       // its whole arguments, NUL after each; "": those of proc
	at      time.Time
	sensor  string
	message string
	errs    []string
	ended   bool
	exit    int // exit code, or 128 + signal
	exitOK  bool
}

// weight is roughly how many bytes the arguments of an item take.
func (it *item) weight() int {
	if it.proc == nil {
		return 0
	}
	return len(it.raw) + it.proc.weight()
}

// maxQueuedBytes bounds the arguments waiting in a queue or being told. A judgement:
// a flood of 20,000 ordinary command lines is 10 MB.
const maxQueuedBytes = 32 << 20

// queue stands between the kernel's queue, which must be read at once, and the
// pipeline, which may be busy. When it is full, what comes is dropped and counted.
type queue struct {
	wake chan struct{} // holds a token when there is something to take

	mu      sync.Mutex // guards all below
	max     int
	items   []item
	spare   []item // room for items, used before
	taken   int    // given to the consumer and not done yet
	bytes   int    // of arguments in items and in what is taken
	dropped uint64
}

func newQueue(limit int) *queue { return &queue{wake: make(chan struct{}, 1), max: limit} }

// push adds items; those that find no room are counted as lost.
func (q *queue) push(items ...item) {
	if len(items) == 0 {
		return
	}
	q.mu.Lock()
	for i := range items {
		weight := items[i].weight()
		if len(q.items)+q.taken >= q.max || q.bytes+weight > maxQueuedBytes {
			q.dropped++
			continue
		}
		q.items = append(q.items, items[i])
		q.bytes += weight
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// lose counts n things that were lost before they could be pushed.
func (q *queue) lose(n uint64) {
	q.mu.Lock()
	q.dropped += n
	q.mu.Unlock()
	q.signal()
}

// take returns all items; the consumer calls done for them and, after the last,
// reuse.
func (q *queue) take() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.spare = q.spare, nil
	q.taken += len(items)
	return items
}

// maxSpare bounds the room that is kept for later: 70 KB.
const maxSpare = 512

// reuse takes items that are done for the room they have.
func (q *queue) reuse(items []item) {
	if cap(items) > maxSpare {
		return
	}
	clear(items)
	q.mu.Lock()
	q.spare = items[:0]
	q.mu.Unlock()
}

// putBack returns items that were taken and not done to the front.
func (q *queue) putBack(items []item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken -= len(items)
	q.items = append(items, q.items...)
}

// lost reports whether something was lost and not taken account of.
func (q *queue) lost() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped > 0
}

// done says that these, of what was taken, are told.
func (q *queue) done(items []item) {
	q.mu.Lock()
	q.taken -= len(items)
	for i := range items {
		q.bytes -= items[i].weight()
	}
	q.mu.Unlock()
}

// tookLost returns how many were lost since it was last called.
func (q *queue) tookLost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.dropped
	q.dropped = 0
	return n
}
