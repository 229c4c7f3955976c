package procwatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/etw"
	"sekisho/internal/guid"
)

const (
	// SessionName is that of our event tracing session.
	SessionName = "Sekisho-Process"
	// holdsFor is how long a session has to hold for a new one to be worth a try at
	// once. Before that, polling takes its place for Options.RetryAfter.
	holdsFor = 30 * time.Second
	// askLostEvery bounds how long a loss stays unknown; a query costs some microseconds.
	askLostEvery = time.Second
	// earlyFor is how long an end waits for its start: buffers of other processors
	// come within 60 ms.
	earlyFor = 10 * time.Second
	maxEarly = 1024
	// maxStrange is how many events that make no sense are taken before it is clear
	// that none does.
	maxStrange = 20
)

// session is an [etw.Session]; tests, which no Windows runs, have one of their own.
type session interface {
	Run(ctx context.Context, f func(*etw.Record)) error
	Lost() (events, buffers uint64, err error)
	Close() error
}

// trace starts the session.
func trace() (session, error) {
	return etw.Start(SessionName, etw.Provider{ID: kernelProcess, Keywords: kernelProcessKeyword})
}

// The provider Microsoft-Windows-Kernel-Process, and what is asked of it.
var kernelProcess = guid.Must("{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}")

const (
	kernelProcessKeyword = 0x10 // WINEVENT_KEYWORD_PROCESS
	kernelProcessStart   = 1
	kernelProcessStop    = 2
)

// native is the reader of the kernel's events.
type native struct {
	w *Watcher
	q *queue

	mu sync.Mutex // guards all below, and that nothing is noted while processes are listed
	// early holds ends that came before their starts.
	early   map[processKey]early
	sane    bool // an event made sense
	strange int  // events that did not
	broken  chan error
}

// processKey tells a process from all others of a boot.
type processKey struct {
	pid     int
	created uint64
}

// early is an end that came before its start.
type early struct {
	kernelStop
	at time.Time // when it came
}

// watchNative watches by event tracing until ctx is done.
func (w *Watcher) watchNative(ctx context.Context, q *queue) error {
	if w.without[mechETW] {
		return fmt.Errorf("event tracing %w: switched off", errUnavailable)
	}
	s, err := w.sys.trace()
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("event tracing %w: %w: %w", errUnavailable, errNotHere, err)
	case err != nil:
		return fmt.Errorf("event tracing %w: %w", errUnavailable, err)
	}
	defer s.Close()
	n := &native{w: w, q: q, early: map[processKey]early{}, broken: make(chan error, 1)}
	// The session collects already: what starts while processes are listed comes after.
	if err := w.scanAll(q, mechETW, w.firstScan() || !w.procs.empty()); err != nil {
		return err
	}
	w.setState(q, endpoint.SensorOK, mechETW, "")

	began := time.Now()
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(nil)
	wg.Go(func() { stop(n.mind(run, s)) })
	err = s.Run(run, n.record)
	if ctx.Err() != nil {
		return err
	}
	if cause := context.Cause(run); cause != nil {
		err = cause
	}
	if err != nil && time.Since(began) < holdsFor {
		// Also where another program ends our session whenever there is one.
		return fmt.Errorf("event tracing %w: it broke at once: %w", errUnavailable, err)
	}
	return err
}

// mind looks for losses until ctx is done, and has processes listed after one.
func (n *native) mind(ctx context.Context, s session) error {
	tick := time.NewTicker(askLostEvery)
	defer tick.Stop()
	var known uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-n.broken:
			return err
		case <-tick.C:
		}
		n.forgetEarly(time.Now())
		events, buffers, err := s.Lost()
		if err != nil {
			return err
		}
		if lost := events + buffers; lost > known {
			n.q.lose(lost - known)
			known = lost
			if err := n.rescan(); err != nil {
				return err
			}
		}
	}
}

func (n *native) rescan() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.w.scanAll(n.q, mechETW, true)
}

// record takes an event of the kernel's.
func (n *native) record(r *etw.Record) {
	if r.Provider != kernelProcess || r.ID != kernelProcessStart && r.ID != kernelProcessStop {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.ID == kernelProcessStart {
		s, err := parseKernelStart(r.Version, r.Reader())
		if n.makesSense(r, err, s.pid, s.created) {
			n.start(&s, r.Time)
		}
		return
	}
	s, err := parseKernelStop(r.Version, r.Reader())
	if n.makesSense(r, err, s.pid, s.created) {
		n.stop(&s, r.Time)
	}
}

// makesSense reports whether an event was understood; it counts those that were not.
// If none is, this Windows tells them in a form that this build does not know.
func (n *native) makesSense(r *etw.Record, err error, pid int, created uint64) bool {
	t := etw.FileTime(created)
	if err == nil && (pid <= 0 || t.Year() < 2000 || t.After(r.Time.Add(time.Minute))) {
		err = errors.New("its fields are not where they should be")
	}
	if err == nil {
		n.sane = true
		return true
	}
	n.q.lose(1)
	if n.strange++; !n.sane && n.strange == maxStrange {
		n.broken <- fmt.Errorf("event tracing %w: events of processes cannot be understood, a newer agent may be needed: event %d version %d: %w", errUnavailable, r.ID, r.Version, err)
	}
	return false
}

// start notes and tells that a process has started.
func (n *native) start(s *kernelStart, at time.Time) {
	key := processKey{s.pid, s.created}
	end, ended := n.early[key]
	delete(n.early, key)
	if old := n.w.procs.get(s.pid); old != nil {
		if old.image.ticks == s.created && old.told {
			return // a scan has seen it
		}
		if old.image.ticks != s.created {
			n.gone(old, at) // its end was lost
		}
	}

	r, err := reading{}, errProcessEnded
	if !ended {
		if r, err = n.w.readNow(s.pid); err == nil && r.proc.image.ticks != s.created {
			err = errProcessEnded // and its id is another's
		}
	}
	if err != nil {
		im := &image{pid: s.pid, ticks: s.created, started: etw.FileTime(s.created), more: &windowsFacts{}}
		im.entity = entityID("", s.pid, s.created)
		r = reading{proc: &proc{image: im}, errs: []string{"read arguments and account: " + err.Error()}}
	}
	p := r.proc
	im := p.image
	if im.exe == "" {
		im.setExe(n.w.sys.path(s.image))
		n.w.sys.look(im)
	}
	p.ppid, p.session, p.told = s.ppid, loginSession(s.session), true
	if im.more.integrity == "" {
		im.more.integrity = integrityLevel(s.label)
	}
	if im.more.elevation == "" {
		im.more.elevation = elevationType(s.elevation)
	}
	n.w.adopt(p, maxAncestors)
	n.w.procs.put(p)
	n.q.push(item{proc: p, raw: r.raw, at: at, sensor: mechETW, errs: r.errs})
	if ended {
		n.end(&end.kernelStop, at)
	}
}

// stop notes and tells that a process has ended.
func (n *native) stop(s *kernelStop, at time.Time) {
	if p := n.w.procs.get(s.pid); p != nil && p.image.ticks == s.created {
		n.end(s, at)
		return
	}
	if len(n.early) < maxEarly {
		n.early[processKey{s.pid, s.created}] = early{*s, time.Now()}
	}
}

// end tells the end of a process that is known.
func (n *native) end(s *kernelStop, at time.Time) {
	if !s.ended.IsZero() {
		at = s.ended
	}
	if p := n.w.procs.exit(s.pid, time.Now()); p != nil && p.told && n.w.opts.TellEnds {
		n.q.push(item{proc: p, at: at, sensor: mechETW, ended: true, exit: int(s.exit), exitOK: true})
	}
}

// gone tells the end of a process of which only the end is known.
func (n *native) gone(p *proc, at time.Time) {
	if n.w.procs.exit(p.image.pid, time.Now()); p.told && n.w.opts.TellEnds {
		n.q.push(item{proc: p, at: at, sensor: mechETW, ended: true})
	}
}

func (n *native) forgetEarly(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, e := range n.early {
		if now.Sub(e.at) > earlyFor {
			delete(n.early, k)
		}
	}
}

// makingTakes is how long a process may be there before it has a command line; some
// of the kernel's never have one.
const makingTakes = time.Second

// read reads one process; its parent's part is left open. One that is still being
// made is left for the next look.
func (w *Watcher) read(pid int) (reading, bool) {
	r, err := w.readNow(pid)
	if err != nil || r.raw == "" && time.Since(r.proc.image.started) < makingTakes {
		return reading{}, false
	}
	return r, true
}

// errKernels is the error of what runs in the kernel and has no program: memory
// compression and the like.
var errKernels = errors.New("it is the kernel's own")

// readNow reads one process as it is.
func (w *Watcher) readNow(pid int) (reading, error) {
	if pid <= systemPID {
		return reading{}, errKernels
	}
	x, errs, err := queryProcess(pid)
	if err != nil {
		return reading{}, err
	}
	if x.exe == "" && x.line == "" && x.parent == systemPID {
		return reading{}, errKernels
	}
	im := &image{pid: pid, ticks: x.created, started: etw.FileTime(x.created), entity: entityID("", pid, x.created), more: &windowsFacts{}}
	im.setExe(w.sys.path(x.exe))
	if im.exe == "" {
		im.name = processName(pid)
	}
	w.sys.look(im)
	im.more.integrity, im.more.elevation = integrityLevel(x.label), elevationType(x.elevation)
	if n, ok := w.sys.sids.number(x.user); ok {
		im.uid, im.who, im.login, im.uidOK = n, n, true, true
	}
	r := reading{raw: strings.ReplaceAll(x.line, "\x00", " "), errs: errs}
	if len(r.raw) > maxBytes {
		r.raw = r.raw[:maxBytes]
		r.errs = append(r.errs, fmt.Sprintf("read arguments: cut at %d bytes", maxBytes))
	}
	im.setArgs(r.raw)
	im.cwd = w.sys.path(x.folder)
	r.proc = &proc{image: im, ppid: x.parent, session: loginSession(x.session)}
	return r, nil
}

// loginSession is the session of a process; "" for that of services, in which nobody
// logs on.
func loginSession(id uint32) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}

// setExe sets the path of the program, and its name.
func (im *image) setExe(exe string) {
	im.exe, im.name = exe, exe[strings.LastIndexByte(exe, '\\')+1:]
}

// startTicks returns when a process started, as the ticks of its image.
func (w *Watcher) startTicks(pid int) (uint64, bool) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return 0, false
	}
	defer windows.CloseHandle(h)
	created, err := creation(h)
	return created, err == nil
}

// pids lists the processes.
func (w *Watcher) pids() ([]int, error) {
	for room := 1024; ; room *= 2 {
		ids := make([]uint32, room)
		var n uint32
		if err := windows.EnumProcesses(ids, &n); err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		if int(n)/4 >= room && room < maxLive {
			continue // there may be more
		}
		pids := make([]int, 0, n/4)
		for _, id := range ids[:n/4] {
			pids = append(pids, int(id))
		}
		return pids, nil
	}
}
