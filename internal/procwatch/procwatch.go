// Package procwatch tells of processes that start and end: which program, with
// which arguments, for whom, and by whom it was started.
//
// Linux, best first; [Watcher.Status] says which one runs and why not a better one:
//
//   - ebpf. Programs on the kernel's own tracepoints tell every fork, exec and exit
//     with path, arguments (4 KiB; the rest from /proc while it runs), folder,
//     user and session: nothing has to be read from /proc. Needs kernel 5.8 with
//     BTF, CAP_BPF and CAP_PERFMON (or CAP_SYS_ADMIN), and the initial pid
//     namespace; with lockdown=confidentiality there is none. Changes of user come
//     from the process connector, if that is to be had, else with the next exec.
//   - proc-connector+open-exec. The kernel's process connector (netlink) tells
//     every fork, exec and exit; fanotify's FAN_OPEN_EXEC tells the path of what
//     is executed, which /proc no longer knows when a program lives for less
//     than a millisecond. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the initial
//     user and pid namespaces. Arguments come from /proc and are missing for
//     some of the shortest programs; such an event says so in its errors.
//   - proc-connector. As above without the path of the shortest programs. No rights
//     needed since Linux 6.6; other users' programs then have no path.
//   - polling (gopsutil). No rights needed. Lists the processes every second:
//     what lives shorter can be missed, and so is a second program in the same
//     process (exec without fork). Other users' programs may be unreadable.
//
// Windows, best first:
//
//   - etw. A session of event tracing tells every start and end, up to 60 ms late,
//     with path, parent, session, integrity level and exit code. Command line,
//     account and folder are asked of the process then, and are missing for one
//     that has ended by that time; such an event says so in its errors. Needs
//     LocalSystem or an administrator, and one of the system's 64 sessions.
//   - polling. As on Linux; where starts of processes are audited (Security, 4688), those
//     that no look finds are told from that log: polling+event-log.
//
// What the file of a program says of itself (version resource, Authenticode
// signature) is read beside the way of events, once for each state of a file; a
// start waits for it a second at most. Who is behind a process is whose token it has;
// a certificate's revocation is not asked, and nothing is fetched from the network.
//
// Who is behind a process (user.*) is the account of the login that led to it,
// which the kernel's audit keeps (pam_loginuid(8)) and sudo, su, pkexec and runuser
// do not change; where there is none, the first account on the way from init that is
// not root. The account whose rights it has, its effective user, is told beside it
// where it is another (user.effective.*). What a service does on somebody's behalf
// (systemd-run, D-Bus, the daemon of a container) is the service's.
//
// What can be missed: programs started while the kernel's or our own queue was
// full (counted, told as events-lost; a rescan of /proc finds those that still
// run) or while the agent did not run; a library call that loads foreign code into
// a running process; programs executed from memory (memfd) have no path but
// "/memfd:NAME". Without eBPF: of a chain of programs in one process (exec without
// fork) only the last one's arguments can be read, and if the same file comes
// twice within a millisecond, the paths of the chain may be told one off; a
// process whose main thread has ended while others go on is told as ended; a
// thread of ours reads /proc, and a process that holds its own memory lock for
// long (a page fault on a hung FUSE mount) delays it.
package procwatch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Options are the settings of a [Watcher]. The zero value watches this machine
// and tells starts only.
type Options struct {
	ProcRoot string // "" is "/proc"; Linux

	// TellEnds asks for process-ended, for those processes whose start was told.
	TellEnds bool
	// TellRunning asks for one process-started for each process that runs
	// already when watching begins (kernel threads excepted), with the message
	// "running at start": a remote-access tool that came up before the agent is
	// to be judged as well.
	TellRunning bool

	PollOnly  bool          // do not try better mechanisms than polling
	PollEvery time.Duration // 0 is 1 s
	// RetryAfter is how long a lesser mechanism runs before the better ones are
	// tried again. 0 is 5 min.
	RetryAfter time.Duration
	// MaxQueued bounds the starts and ends waiting to be told. 0 is 65,536: a
	// flood of 20,000 programs that start and end, and room for the rest.
	MaxQueued int
}

// Messages of events that are not what they seem at first.
const (
	MessageRunning = "running at start"             // Options.TellRunning
	MessageRescan  = "found by rescan after a loss" // started while the kernel's queue was full
)

// Watcher is the process sensor. Make it with [New].
type Watcher struct {
	opts  Options
	procs *tracker
	users *users
	sys   system
	spare sync.Pool // rooms for events, see Recycle
	// without names mechanisms that are not tried; tests choose by it.
	without map[string]bool

	audit bool // starts came from an audit while it polled; of Run

	told atomic.Uint64 // events given to the pipeline
	lost atomic.Uint64 // starts and ends known to have been missed

	mu     sync.Mutex // guards all below
	status endpoint.Sensor
	scan   bool // processes running at start were told
	// catchUp handles what the kernel has told and nobody has read yet; nil if
	// the mechanism leaves nothing lying.
	catchUp func()
}

// New returns a watcher that has not started yet.
func New(o Options) *Watcher {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if o.PollEvery <= 0 {
		o.PollEvery = time.Second
	}
	if o.RetryAfter <= 0 {
		o.RetryAfter = 5 * time.Minute
	}
	if o.MaxQueued <= 0 {
		o.MaxQueued = 1 << 16
	}
	w := &Watcher{
		opts:    o,
		procs:   newTracker(),
		users:   newUsers(),
		without: map[string]bool{},
		status: endpoint.Sensor{
			Name: sensorName, State: endpoint.SensorDown, Reason: "not started", Since: time.Now().UTC(),
		},
	}
	w.sys.open(w.users)
	return w
}

const sensorName = "process"

// The mechanisms, as they stand in sekisho.sensor and in the status.
const (
	mechBPF       = "ebpf"
	mechConnector = "proc-connector"
	mechOpenExec  = "proc-connector+open-exec"
	mechETW       = "etw"
	mechPolling   = "polling"
	mechAudit     = "event-log"
)

// Name is "process".
func (w *Watcher) Name() string { return sensorName }

// Status is what the watcher says of itself. Safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor {
	w.mu.Lock()
	s := w.status
	w.mu.Unlock()
	s.Events, s.Lost = w.told.Load(), w.lost.Load()
	return s
}

// errUnavailable is wrapped by a mechanism that cannot be had here, so that the
// next one is used; any other error of a mechanism is a breakdown.
var errUnavailable = errors.New("not available")

// errNotBuilt is wrapped as well by one that this build does not have: there is
// no better one to miss.
var errNotBuilt = errors.New("not part of this build")

// errNotHere is wrapped as well by one that this kind of system does not have.
var errNotHere = errors.New("not on this system")

// Run watches until ctx is done (nil) or the mechanism breaks. It falls back to
// polling by itself where better mechanisms are refused, and tries them again
// from time to time. It blocks while out is full; what the internal queue
// cannot hold meanwhile is counted as lost. When ctx is done, what waits to be
// told is sent if out takes it within a second.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	q := newQueue(w.opts.MaxQueued)
	var wg sync.WaitGroup
	var telling error
	wg.Go(func() {
		if telling = guard(func() error { w.tell(ctx, q, out); return nil }); telling != nil {
			cancel()
		}
	})
	defer func() {
		cancel()
		wg.Wait()
		if telling != nil {
			err = telling
		}
		if err != nil {
			w.setState(nil, endpoint.SensorDown, "", err.Error())
		}
	}()
	why := errors.New("switched off in the settings")
	for first := true; ctx.Err() == nil; first = false {
		if !w.opts.PollOnly {
			err := w.watchNative(ctx, q)
			if ctx.Err() != nil {
				return nil
			}
			if !errors.Is(err, errUnavailable) {
				return fmt.Errorf("watch processes: %w", err)
			}
			// Rights that were given up since are not what it lacked.
			if first || !errors.Is(err, fs.ErrPermission) {
				why = err
			}
		}
		state := endpoint.SensorDegraded
		if errors.Is(why, errNotBuilt) || errors.Is(why, errNotHere) {
			state = endpoint.SensorLimited
		}
		pctx, stop := context.WithTimeout(ctx, w.opts.RetryAfter)
		err := w.poll(pctx, q, state, fmt.Sprintf("processes that live shorter than %v can be missed: %v", w.opts.PollEvery, why))
		stop()
		if err != nil {
			return fmt.Errorf("poll processes: %w", err)
		}
	}
	return nil
}

// guard makes a panic in one of our goroutines the sensor's error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// setState changes the status and, through q if it is not nil, tells when the
// sensor became degraded or recovered.
func (w *Watcher) setState(q *queue, s endpoint.SensorState, mechanism, reason string) {
	w.mu.Lock()
	old := w.status
	changed := old.State != s || old.Mechanism != mechanism || old.Reason != reason
	if changed {
		w.status.State, w.status.Mechanism, w.status.Reason, w.status.Since = s, mechanism, reason, time.Now().UTC()
	}
	w.mu.Unlock()
	if q == nil || !changed {
		return
	}
	var e *event.Event
	switch {
	case s == endpoint.SensorDegraded:
		e = event.New(event.SensorDegraded, time.Now())
		e.Message = fmt.Sprintf("process sensor works by %s: %s", mechanism, reason)
	case s == endpoint.SensorOK && (old.State == endpoint.SensorDegraded || old.State == endpoint.SensorDown && old.Mechanism != "" || old.Reason != "not started"):
		e = event.New(event.SensorRecovered, time.Now())
		e.Message = "process sensor works by " + mechanism
	default:
		return
	}
	e.Sensor = mechanism
	q.push(item{health: e})
}

// firstScan reports, once in the watcher's life, that the processes running now
// are to be told.
func (w *Watcher) firstScan() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := !w.scan
	w.scan = true
	return first && w.opts.TellRunning
}

// tell turns queued items into events and hands them on, until ctx is done; what
// waits then is sent if out takes it within flushWait.
func (w *Watcher) tell(ctx context.Context, q *queue, out chan<- *event.Event) {
	var told time.Time // when losses were last told
	for {
		sent := w.tellAll(ctx, q, out)
		if n := w.procs.tookForgotten(); n > 0 && w.opts.TellEnds {
			q.lose(n)
		}
		again := time.Duration(math.MaxInt64)
		if q.lost() {
			if again = lostEvery - time.Since(told); again <= 0 {
				w.tellLost(ctx, q, out)
				told = time.Now()
				continue
			}
		}
		if sent {
			continue
		}
		t := time.NewTimer(again)
		select {
		case <-q.wake:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			last, cancel := context.WithTimeout(context.Background(), flushWait)
			defer cancel()
			for w.tellAll(last, q, out) {
			}
			if q.lost() {
				w.tellLost(last, q, out)
			}
			return
		}
		t.Stop()
	}
}

const (
	// lostEvery is how often losses are told; what is lost meanwhile is told as one.
	lostEvery = time.Second
	// flushWait bounds the end of a run.
	flushWait = time.Second
)

// tellBatch is how many events are made before they are sent: the pipeline then
// runs for a while rather than being woken for each.
const tellBatch = 64

// tellAll sends what waits and reports whether there was anything. What cannot be
// sent before ctx is done goes back.
func (w *Watcher) tellAll(ctx context.Context, q *queue, out chan<- *event.Event) bool {
	items := q.take()
	var batch [tellBatch]*event.Event
	for first := 0; first < len(items); first += tellBatch {
		now := time.Now()
		part := items[first:min(first+tellBatch, len(items))]
		for i := range part {
			if batch[i] = part[i].health; batch[i] == nil {
				batch[i] = w.event(&part[i], now)
			}
		}
		for i := range part {
			if !w.send(ctx, out, batch[i]) {
				q.done(part[:i])
				q.putBack(items[first+i:])
				return false
			}
		}
		q.done(part)
		clear(part)
	}
	q.reuse(items)
	return len(items) > 0
}

func (w *Watcher) tellLost(ctx context.Context, q *queue, out chan<- *event.Event) {
	n := q.tookLost()
	e := event.New(event.EventsLost, time.Now())
	e.Sensor = w.Status().Mechanism
	e.Lost = &event.Lost{Count: event.Some(int64(n))}
	e.Message = fmt.Sprintf("at least %d process starts or ends were lost: the kernel or a queue had no room for them", n)
	w.lost.Add(n)
	if !w.send(ctx, out, e) {
		w.lost.Add(-n)
		q.lose(n)
	}
}

func (w *Watcher) send(ctx context.Context, out chan<- *event.Event, e *event.Event) bool {
	select {
	case out <- e: // the rule, and cheaper alone
		w.told.Add(1)
		return true
	default:
	}
	select {
	case out <- e:
		w.told.Add(1)
		return true
	case <-ctx.Done():
		return false
	}
}

// about is where what is told of a process is put.
type about struct {
	event   *event.Event
	process *event.Process
	parent  *event.Parent
	user    *event.User
	context *event.Context
}

// about returns room for an event: what one that was recycled left, whose values
// are still there, or new room.
func (w *Watcher) about() about {
	e, _ := w.spare.Get().(*event.Event)
	if e == nil {
		r := new(struct { // one allocation
			event   event.Event
			process event.Process
			parent  event.Parent
			user    event.User
			context event.Context
		})
		return about{&r.event, &r.process, &r.parent, &r.user, &r.context}
	}
	a := about{e, e.Process, e.Process.Parent, e.User, e.Context}
	if a.parent == nil {
		a.parent = new(event.Parent)
	}
	if a.user == nil {
		a.user = new(event.User)
	}
	if a.context == nil {
		a.context = new(event.Context)
	}
	return a
}

// Recycle takes back an event that this watcher told of a start or an end, and
// that nobody holds on to: the next one takes its room. Half of what the agent does
// in a flood would be to make room and to collect it again. Safe for concurrent
// use.
func (w *Watcher) Recycle(e *event.Event) {
	if e.Process != nil {
		w.spare.Put(e)
	}
}

// event makes the event of an item. now is the time.
func (w *Watcher) event(it *item, now time.Time) *event.Event {
	p, a := it.proc, w.about()
	e := a.event
	*a.context = event.Context{} // for enrichment, which makes one otherwise
	*e = event.Event{
		Time: it.at.UTC(), Created: now.UTC(), ID: event.NewIDAt(now), Action: event.ProcessStarted,
		Sensor: it.sensor, Message: it.message, Errors: it.errs, SessionID: p.session, Context: a.context,
	}
	if m := p.image.more; m != nil && !it.ended {
		limit := factsWait
		if it.message == MessageRunning {
			limit = runningWait
		}
		if why := m.program.wait(limit); why != "" {
			e.Errors = append(slices.Clip(e.Errors), why)
		}
	}
	e.Process, e.User = w.fill(a, p, now)
	if p.image.cut && it.raw != "" {
		e.Process.Args, e.Process.CommandLine = splitArgs(it.raw)
	}
	if it.ended {
		e.Action = event.ProcessEnded
		if it.exitOK {
			e.Process.ExitCode = event.Some(int64(it.exit))
		}
	}
	return e
}

// fill fills in a process and its account, which is nil if it is unknown. now is
// the time.
func (w *Watcher) fill(a about, p *proc, now time.Time) (x *event.Process, owner *event.User) {
	im := p.image
	if w.user(a.user, im, now) {
		owner = a.user
		if im.uidOK && im.who != im.uid {
			of := w.users.of(im.uid, now)
			owner.EffectiveID, owner.EffectiveName = of.ID, of.Name
		}
	}
	x = a.process
	*x = event.Process{
		PID:              event.Some(int64(im.pid)),
		EntityID:         im.entity,
		Executable:       im.exe,
		Name:             im.name,
		Args:             im.args,
		CommandLine:      im.line,
		WorkingDirectory: im.cwd,
		Start:            im.started,
		StartedBy:        p.startedBy,
		ContainerID:      im.container,
	}
	if im.more != nil {
		x.IntegrityLevel, x.Elevation = im.more.integrity, im.more.elevation
		im.more.program.fill(x)
	}
	if p.ppid <= 0 {
		return x, owner
	}
	x.Parent = a.parent
	*x.Parent = event.Parent{PID: event.Some(int64(p.ppid))}
	pa := p.parent
	if pa == nil {
		return x, owner
	}
	x.Parent.EntityID, x.Parent.Executable, x.Parent.Name, x.Parent.CommandLine = pa.entity, pa.exe, pa.name, pa.line
	// Whose rights it had; who is behind it is behind its child, too.
	u := event.Account(pa.account)
	if pa.uidOK {
		u = w.users.of(pa.uid, now)
	}
	x.Parent.UserName, x.Parent.UserDomain = u.Name, u.Domain
	return x, owner
}

// user sets u to the account of who is behind an image and
// reports whether it is known.
func (w *Watcher) user(u *event.User, im *image, now time.Time) bool {
	switch {
	case im.account != "":
		*u = event.Account(im.account)
	case im.uidOK:
		*u = w.users.of(im.who, now)
	default:
		return false
	}
	return true
}

// Lookup tells what is known of a process by its id, whose doing it is, and the
// login session that the kernel's audit has it in, "" for none: of a living one,
// or of one that ended within the last minute. Command lines are cut at 4 KiB. The
// caller owns what it gets, but for the list of arguments, which is shared; nil if
// the process is not known and cannot be read.
// Safe for concurrent use.
func (w *Watcher) Lookup(pid int) (*event.Process, *event.User, string) {
	w.mu.Lock()
	catchUp := w.catchUp
	w.mu.Unlock()
	if catchUp != nil {
		catchUp()
	}
	p := w.procs.lookup(pid, time.Now())
	if p == nil || p.image.entity == "" {
		if r, ok := w.readProcess(pid); ok {
			p = r.proc
		}
	}
	if p == nil {
		return nil, nil, ""
	}
	if p.image.entity == "" || p.parent != nil && p.parent.entity == "" {
		boot, named := bootID(w.opts.ProcRoot), *p
		named.image, named.parent = p.image.named(boot), p.parent.named(boot)
		p = &named
	}
	r := new(struct {
		process event.Process
		parent  event.Parent
		user    event.User
	})
	x, owner := w.fill(about{process: &r.process, parent: &r.parent, user: &r.user}, p, time.Now())
	return x, owner, p.session
}

// reading is a process as it was just read from the system.
type reading struct {
	proc *proc
	raw  string   // its whole arguments, at most maxBytes
	errs []string // what could not be read
}

// maxAncestors bounds how far up a process of unknown origin is followed.
const maxAncestors = 32

// readProcess reads a process that is not known, and its parents where they are
// not known either. False: there is none, or it is a kernel thread.
func (w *Watcher) readProcess(pid int) (reading, bool) { return w.readChain(pid, maxAncestors) }

func (w *Watcher) readChain(pid, depth int) (reading, bool) {
	r, ok := w.read(pid)
	if !ok {
		return reading{}, false
	}
	w.adopt(r.proc, depth)
	if im, pa := r.proc.image, r.proc.parent; !im.login && im.uidOK && pa != nil && pa.uidOK && pa.who != 0 {
		im.who = pa.who
	}
	return r, true
}

// adopt fills in what follows from the parent of a process.
func (w *Watcher) adopt(p *proc, depth int) {
	pa := w.procs.lookup(p.ppid, time.Now())
	if pa == nil && depth > 0 && p.ppid > 0 && p.ppid != p.image.pid {
		if r, ok := w.readChain(p.ppid, depth-1); ok {
			pa = r.proc
		}
	}
	if pa != nil && pa.image.ticks > p.image.ticks && p.image.ticks != 0 {
		pa = nil // Windows: the parent is gone, and its id belongs to a later process
	}
	if pa != nil {
		p.parent, p.startedBy = pa.image, startedBy(pa)
	}
	if p.startedBy == "" {
		p.startedBy = event.ByOther
	}
}

// setArgs sets the arguments, NUL after each, as far as they are kept after the
// event.
func (im *image) setArgs(raw string) {
	if len(raw) > maxKept {
		raw, im.cut = strings.Clone(raw[:maxKept]), true // the rest is not to stay in memory with it
	}
	im.args, im.line = splitArgs(raw)
	if len(im.args) > keptArgs {
		im.args, im.cut = slices.Clone(im.args[:keptArgs]), true
	}
}

// scanAll looks at all processes: at the start to know the parents of what is to
// come, after a loss to find what was missed. Nothing else may note starts and ends
// meanwhile.
func (w *Watcher) scanAll(q *queue, sensor string, tell bool) error {
	first := w.procs.empty()
	ended := func(p *proc) {
		if p != nil && p.told && w.opts.TellEnds {
			q.push(item{proc: p, at: time.Now(), sensor: sensor, ended: true})
		}
	}
	pids, err := w.pids()
	if err != nil {
		return err
	}
	alive := make(map[int]bool, len(pids))
	for _, pid := range pids {
		alive[pid] = true
		r, ok := w.readProcess(pid)
		if !ok {
			continue
		}
		old := w.procs.get(pid)
		if old != nil && old.image.exe == r.proc.image.exe && (old.image.entity == r.proc.image.entity || old.image.entity == "") {
			continue // known, or forked and nothing executed yet
		}
		if old != nil && old.image.ticks != 0 && old.image.ticks != r.proc.image.ticks {
			ended(w.procs.exit(pid, time.Now())) // and its id is this one's
		}
		r.proc.told = tell
		w.procs.put(r.proc)
		if !tell {
			continue
		}
		it := item{proc: r.proc, raw: r.raw, at: time.Now(), sensor: sensor, errs: r.errs, message: MessageRescan}
		if first {
			it.message = MessageRunning
		}
		q.push(it)
	}
	for _, p := range w.procs.keep(alive) {
		ended(p)
	}
	return nil
}
