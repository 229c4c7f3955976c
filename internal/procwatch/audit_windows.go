package procwatch

import (
	"context"
	"sync"
	"time"

	"sekisho/internal/winlog"
)

// auditWithin is how far the time of a record may be from that at which its process
// was created. An id is not given again so soon.
const auditWithin = 2 * time.Second

// audits gives the starts that Windows audits from now on, until ctx ends; done waits
// for the end.
func (w *Watcher) audits(ctx context.Context) (starts <-chan *winlog.Event, done func()) {
	c := make(chan *winlog.Event)
	var wg sync.WaitGroup
	wg.Go(func() {
		winlog.Follow(ctx, winlog.Options{Channel: auditLog, IDs: []int{auditProcess}, Tell: func(e *winlog.Event) {
			select {
			case c <- e:
			case <-ctx.Done():
			}
		}})
	})
	return c, wg.Wait
}

// audited tells a start that no look has found yet.
func (w *Watcher) audited(q *queue, e *winlog.Event) {
	s, ok := decodeAudit(e)
	if !ok {
		return
	}
	if old := w.procs.get(s.pid); old != nil {
		if old.image.started.Sub(s.at).Abs() < auditWithin {
			return
		}
		w.pollEnded(q, w.procs.exit(s.pid, s.at), s.at) // its id was given again
	}
	r, ok := w.read(s.pid)
	if !ok || r.proc.image.started.Sub(s.at).Abs() >= auditWithin {
		// It is gone, and its id may be another's.
		ticks := uint64(s.at.UnixNano()/100) + 116_444_736_000_000_000 // as FILETIME, to compare with its parent's
		im := &image{pid: s.pid, ticks: ticks, started: s.at, entity: entityID("", s.pid, ticks), more: &windowsFacts{}}
		im.setExe(w.sys.path(s.path))
		w.sys.look(im)
		if n, ok := w.sys.sids.number(s.user); ok {
			im.uid, im.who, im.login, im.uidOK = n, n, true, true
		}
		im.more.integrity, im.more.elevation = integrityLevel(s.label), elevationType(s.elevation)
		im.setArgs(s.line)
		r = reading{proc: &proc{image: im, ppid: s.ppid}, raw: s.line}
		if s.line == "" {
			r.errs = []string{"read arguments: the process ended before they could be read, and Windows does not write them into its log"}
		}
	}
	r.proc.told = true
	w.adopt(r.proc, maxAncestors)
	if parent := w.procs.lookup(s.ppid, time.Now()); r.proc.session == "" && parent != nil && parent.image == r.proc.parent {
		r.proc.session = parent.session
	}
	w.procs.put(r.proc)
	q.push(item{proc: r.proc, raw: r.raw, at: s.at, sensor: mechAudit, errs: r.errs})
}
