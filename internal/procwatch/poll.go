package procwatch

import (
	"context"
	"fmt"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/process"

	"sekisho/internal/endpoint"
)

// recheckEvery is the number of scans after which processes known already are
// looked at again: their id may have gone to another one between two scans.
const recheckEvery = 10

// poll lists processes every so often, until ctx is done. It reads details of
// those only that it does not know.
func (w *Watcher) poll(ctx context.Context, q *queue, state endpoint.SensorState, reason string) error {
	ctx = context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostProcEnvKey: w.opts.ProcRoot})
	tick := time.NewTicker(w.opts.PollEvery)
	defer tick.Stop()
	ctx, cancel := context.WithCancel(ctx)
	audits, done := w.audits(ctx)
	defer done()
	defer cancel()
	// What started between two runs is told, as what starts between two looks.
	first, tellFirst := w.procs.empty(), w.firstScan()
	for n := 1; ; n++ {
		if err := w.pollOnce(ctx, q, first, tellFirst, n%recheckEvery == 0); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if n == 1 {
			// Not before: what starts until the first look counts as running at start.
			w.setState(q, state, w.pollingBy(), reason)
		}
		first = false
		for looked := false; !looked; {
			select {
			case <-tick.C:
				looked = true
			case e := <-audits:
				// That it is there shows with the first one only.
				w.audit = true
				w.setState(q, state, w.pollingBy(), reason)
				w.audited(q, e)
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// pollingBy is the mechanism of a watcher that polls.
func (w *Watcher) pollingBy() string {
	if w.audit {
		return mechPolling + "+" + mechAudit
	}
	return mechPolling
}

// pollOnce compares the processes with those known. What is new is told, unless
// it was there at the first look.
func (w *Watcher) pollOnce(ctx context.Context, q *queue, first, tellFirst, recheck bool) error {
	pids, err := process.PidsWithContext(ctx)
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	now := time.Now()
	alive := make(map[int]bool, len(pids))
	for _, id := range pids {
		pid := int(id)
		alive[pid] = true
		old := w.procs.get(pid)
		if old != nil && !recheck && old.image.entity != "" {
			continue
		}
		if old != nil && old.image.entity != "" {
			if ticks, ok := w.startTicks(pid); !ok || ticks == old.image.ticks {
				continue
			}
			w.pollEnded(q, w.procs.exit(pid, now), now)
		}
		r, ok := w.readProcess(pid)
		if !ok {
			continue // ended meanwhile, or a kernel thread
		}
		r.proc.told = !first || tellFirst
		w.procs.put(r.proc)
		if r.proc.told {
			it := item{proc: r.proc, raw: r.raw, at: now, sensor: mechPolling, errs: r.errs}
			// What is found running is told as of now; process.start says since when it runs.
			if first {
				it.message = MessageRunning
			} else if at := r.proc.image.started; !at.IsZero() && at.Before(now) && now.Sub(at) < time.Minute {
				it.at = at
			}
			q.push(it)
		}
	}
	for _, p := range w.procs.keep(alive) {
		w.pollEnded(q, p, now)
	}
	return nil
}

// pollEnded tells the end of a process; what it said in the end is not known.
func (w *Watcher) pollEnded(q *queue, p *proc, now time.Time) {
	if p != nil && p.told && w.opts.TellEnds {
		q.push(item{proc: p, at: now, sensor: mechPolling, ended: true})
	}
}
