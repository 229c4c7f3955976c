package procwatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/procwatch/bpf"
)

const (
	// The reader rests after it has read what there was, the longer the more there
	// was: in a flood it wakes 10 times a second rather than once a start, which is
	// what costs most. Who asks for a process meanwhile is answered from the ring
	// (catchUp). Measured in a flood of 20,000 starts: a fifth less of the agent's
	// time than with rests of 40 ms. The least is what an alert may wait, and the most
	// of what a PC costs on which a little happens: with 3 ms a quarter more.
	minRest = 15 * time.Millisecond
	maxRest = 100 * time.Millisecond
	// fewRecords is what is found after a rest that was not too short: two starts
	// with their forks and ends.
	fewRecords = 8
	// ringBytes is the kernel's room for records: some 7,000 starts with their forks and
	// ends, or 450 with 4 KiB of arguments each, for as long as the reader does not get
	// to read. Where 300 programs start at one moment on two cores it may wait for the
	// CPU until all of them have, so that to wake it early does not do; to look every
	// 15 ms whether that is due costs a third more in a flood. A power of two. It is
	// mapped twice and counts as resident, 4 MB here.
	ringBytes = 2 << 20
	// initialPIDNS is the inode of the machine's own pid namespace
	// (linux/proc_ns.h, PROC_PID_INIT_INO). The programs tell the ids of it.
	initialPIDNS = "pid:[4026531836]"
	// tickNS is a clock tick in ns.
	tickNS = uint64(time.Second / ticksPerSecond)
	// rootCgroup is the id of the topmost cgroup. All are in it on machines
	// without version 2, where containers are therefore not told.
	rootCgroup = 1
	// countEvery is how often the kernel's counters of losses are read while there are
	// records (nothing is lost where nothing happens); at once if the ring was half full.
	countEvery = time.Second
	// maxBatch bounds the starts and ends that are handed on at once.
	maxBatch = 256
	// maxChanged bounds the changes of user that are taken at once. A login makes a few.
	maxChanged = 4096
)

// bpfWatch reads the records of the eBPF programs.
type bpfWatch struct {
	w     *Watcher
	q     *queue
	objs  bpf.ProcessObjects
	links []link.Link // the programs run as long as these are kept
	ring  *ringbuf.Reader
	users int // connector that tells changes of user only; -1 if refused
	boot  string
	// waited is how many bytes the reader found in the ring; the reader's own.
	waited int

	mu       sync.Mutex // guards all below: the reader's thread, and who asks for a process
	closed   bool
	failed   error // what catchUp met, for the reader
	r        *procReader
	rec      ringbuf.Record
	paths    interned
	inside   map[uint64]string // cgroup -> id of the container, "" for none
	buf      []byte            // for paths
	nlBuf    []byte
	changed  []procMessage // changes of user, taken before the records
	items    []item
	now      time.Time     // of this batch
	wall     time.Duration // wall clock minus monotonic clock; of this batch
	wallBoot time.Duration // wall clock minus boot-time clock; of this batch
	high     int           // most bytes that waited in the ring since the counters of losses were read
	counted  time.Time     // when they were
	drops    uint64        // of the kernel's counters, told already

	uncounted bool // records came since they were read

	records *waiter   // where the reader waits; nil: it does not run
	scanned time.Time // when /proc was last read through
	rescan  time.Time // when it is to be again, as records were lost; zero: it need not
}

// watchBPF watches by eBPF programs on the scheduler's tracepoints, until ctx is
// done.
func (w *Watcher) watchBPF(ctx context.Context, q *queue) error {
	if w.without[mechBPF] {
		return fmt.Errorf("eBPF %w: switched off", errUnavailable)
	}
	b, err := w.openBPF(q, ringBytes)
	if err != nil {
		return fmt.Errorf("eBPF %w: %w", errUnavailable, err)
	}
	defer b.close()
	// Loading read the kernel's types, some MB that would count as ours until the
	// next collection, two minutes later on a quiet PC.
	debug.FreeOSMemory()
	w.setCatchUp(b.catchUp)
	defer w.setCatchUp(nil)
	return guard(func() error { return b.run(ctx) })
}

// openBPF loads the programs, with a ring buffer of ring bytes, and attaches them.
// Raw tracepoints: tracefs is not needed.
func (w *Watcher) openBPF(q *queue, ring uint32) (_ *bpfWatch, err error) {
	if ns, err := os.Readlink(path.Join(w.opts.ProcRoot, "self/ns/pid")); err != nil {
		return nil, err
	} else if ns != initialPIDNS {
		return nil, errors.New("not in the machine's own pid namespace")
	}
	_ = rlimit.RemoveMemlock() // kernels before 5.11 count maps there; loading says so if it was needed
	b := &bpfWatch{
		w: w, q: q, users: -1, r: newProcReader(w.opts.ProcRoot), boot: bootID(w.opts.ProcRoot),
		paths: interned{}, inside: map[uint64]string{}, nlBuf: make([]byte, maxNlMessage),
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	spec, err := bpf.LoadProcess()
	if err != nil {
		return nil, err
	}
	spec.Maps[bpf.ProcessMapRecords].MaxEntries = ring
	if err := spec.LoadAndAssign(&b.objs, nil); err != nil {
		return nil, explainBPF("load programs", err)
	}
	if b.ring, err = ringbuf.NewReader(b.objs.Records); err != nil {
		return nil, fmt.Errorf("map ring buffer: %w", err)
	}
	for _, at := range []struct {
		name string
		prog *ebpf.Program
	}{
		// Ends first: whose start is told, its end is told.
		{"sched_process_exit", b.objs.OnExit}, {"sched_process_fork", b.objs.OnFork}, {"sched_process_exec", b.objs.OnExec},
	} {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.name, Program: at.prog})
		if err != nil {
			return nil, explainBPF("attach to "+at.name, err)
		}
		b.links = append(b.links, l)
	}
	// No tracepoint tells a change of user. Where the connector does not either,
	// it shows with the next program that the process executes.
	if fd, err := openConnector(userFilter()); err == nil {
		b.users = fd
	}
	return b, nil
}

// explainBPF says in one line what the kernel refused; of the verifier's words
// the last ones.
func explainBPF(what string, err error) error {
	var ve *ebpf.VerifierError
	switch {
	case errors.As(err, &ve):
		return fmt.Errorf("%s: %w (%v)", what, ve.Cause, ve)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: this kernel lacks what is needed, BTF and ring buffers (5.8): %w", what, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: no right (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN), or the kernel is locked down: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (b *bpfWatch) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed, b.records = true, nil
	for _, l := range b.links {
		_ = l.Close()
	}
	if b.ring != nil {
		_ = b.ring.Close()
	}
	_ = b.objs.Close()
	if b.users >= 0 {
		unix.Close(b.users)
	}
}

func (b *bpfWatch) run(ctx context.Context) error {
	// What started between two runs is told, as after a loss.
	if err := b.scan(b.w.firstScan() || !b.w.procs.empty()); err != nil {
		return err
	}
	records, err := newWaiter(b.objs.Records.FD(), b.users)
	if err != nil {
		return err
	}
	defer records.close()
	defer context.AfterFunc(ctx, records.close)()
	b.reads(records)
	// Not before: what starts during the first scan counts as running at start.
	b.w.setState(b.q, endpoint.SensorOK, mechBPF, "")
	var rest time.Duration
	for {
		if rest > 0 {
			select {
			case <-time.After(rest):
			case <-ctx.Done():
			}
		} else {
			if err := errors.Join(b.alarm(), records.wait()); err != nil && ctx.Err() == nil {
				return fmt.Errorf("wait for records: %w", err)
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		n, lost, err := b.turn()
		if err != nil {
			return err
		}
		switch {
		case n == 0 || b.ring.AvailableBytes() > b.ring.BufferSize()/8: // nothing, or more than can be read
			rest = 0
		case n <= fewRecords || b.waited > b.ring.BufferSize()/8:
			rest = max(rest/2, minRest)
		default:
			rest = min(max(2*rest, minRest), maxRest)
		}
		if lost > 0 {
			b.q.lose(lost)
		}
		if b.scanDue() {
			if err := b.scan(true); err != nil {
				return err
			}
		}
	}
}

// reads notes where the reader waits.
func (b *bpfWatch) reads(at *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = at
}

// alarm has the reader's wait end when there is something to do even if no record
// comes.
func (b *bpfWatch) alarm() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.setAlarm()
}

// setAlarm is alarm with b.mu held.
func (b *bpfWatch) setAlarm() error {
	at := b.rescan
	if due := b.counted.Add(countEvery); b.uncounted && (at.IsZero() || due.Before(at)) {
		at = due
	}
	if b.failed != nil {
		at = time.Now()
	}
	return b.records.until(at)
}

// scanDue reports whether it is time to look for what was lost.
func (b *bpfWatch) scanDue() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.rescan.IsZero() && time.Now().After(b.rescan)
}

// turn handles the records there are, and returns how many and how many were lost.
func (b *bpfWatch) turn() (n int, lost uint64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed != nil {
		return 0, 0, b.failed
	}
	b.waited = b.ring.AvailableBytes()
	if n, err = b.receive(); err != nil {
		return n, 0, err
	}
	if lost, err = b.lost(); lost > 0 && b.rescan.IsZero() {
		b.rescan = b.scanned.Add(rescanEvery)
	}
	return n, lost, err
}

func (b *bpfWatch) scan(tell bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.w.scanAll(b.q, mechBPF, tell)
	b.scanned, b.rescan = time.Now(), time.Time{}
	return err
}

// catchUp handles what the kernel has told and the reader not read yet.
func (b *bpfWatch) catchUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.ring.AvailableBytes() == 0 {
		return
	}
	if _, err := b.receive(); err != nil {
		b.failed = err
	}
	if b.records != nil {
		// The reader finds no records, and would sleep on over what was lost with these.
		_ = b.setAlarm() // fails where the reader ends
	}
}

// receive handles the records there are, and returns how many and changes of user
// there were. Of records that come as fast as they are read it handles two rings full:
// others want b.mu. b.mu is held.
func (b *bpfWatch) receive() (n int, err error) {
	// First: what executed before one of these has its record in the ring then.
	b.takeUsers()
	n = len(b.changed)
	if b.now = time.Now(); b.ring.AvailableBytes() == 0 {
		b.changeUsers()
		return n, nil
	}
	b.uncounted = true
	now := time.Duration(b.now.UnixNano())
	b.wall, b.wallBoot = now-clock(unix.CLOCK_MONOTONIC), now-clock(unix.CLOCK_BOOTTIME)
	var r bpfRecord
	for left := 2 * b.ring.BufferSize(); left > 0; left -= len(b.rec.RawSample) {
		waiting := b.ring.AvailableBytes()
		if waiting == 0 {
			break
		}
		b.high = max(b.high, waiting)
		if err := b.ring.ReadInto(&b.rec); err != nil {
			return n, fmt.Errorf("read ring buffer: %w", err)
		}
		n++
		if err := parseBPF(b.rec.RawSample, &r); err != nil {
			return n, err
		}
		b.handle(&r)
		if len(b.items) >= maxBatch {
			b.flush()
		}
	}
	b.flush()
	b.changeUsers()
	return n, nil
}

func (b *bpfWatch) changeUsers() {
	for _, m := range b.changed {
		b.w.procs.setUser(m.pid, m.uid, m.euid, m.at)
	}
	b.changed = b.changed[:0]
}

func (b *bpfWatch) flush() {
	b.q.push(b.items...)
	clear(b.items)
	b.items = b.items[:0]
}

// takeUsers takes the changes of user that have come, up to maxChanged. If the kernel
// dropped some, they show with the next programs.
func (b *bpfWatch) takeUsers() {
	for b.users >= 0 && len(b.changed) < maxChanged {
		k, kernel, errno := receiveNetlink(b.users, b.nlBuf)
		if errno == unix.EINTR || errno == unix.ENOBUFS {
			continue
		}
		if errno != 0 { // EAGAIN: all taken
			return
		}
		if kernel {
			_ = parseConnector(b.nlBuf[:k], func(m procMessage) {
				if m.what == cnUID && m.tid == m.pid { // a thread may take a user of its own
					b.changed = append(b.changed, m)
				}
			})
		}
	}
}

// lost returns how many starts and ends the kernel did not get told since it was
// last called: the programs found no room in the ring or not its lock (which
// kernels since 6.15 give up on), or did not run because one of them ran on that
// CPU already. The last the kernel counts itself, since 5.12. b.mu is held.
func (b *bpfWatch) lost() (uint64, error) {
	if !b.uncounted || b.high < b.ring.BufferSize()/2 && b.now.Sub(b.counted) < countEvery {
		return 0, nil
	}
	b.high, b.counted, b.uncounted = 0, b.now, false
	var perCPU []uint64
	if err := b.objs.Dropped.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter of lost records: %w", err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	for _, p := range []*ebpf.Program{b.objs.OnFork, b.objs.OnExec, b.objs.OnExit} {
		st, err := p.Stats()
		if err != nil {
			return 0, fmt.Errorf("read counter of runs left out: %w", err)
		}
		sum += st.RecursionMisses
	}
	n := sum - b.drops
	b.drops = sum
	return n, nil
}

// time turns a moment of the monotonic clock into the time of day.
func (b *bpfWatch) time(mono uint64) time.Time { return time.Unix(0, int64(mono)+int64(b.wall)) }

// started is the time of day of a start in clock ticks since boot.
func (b *bpfWatch) started(ticks uint64) time.Time {
	return time.Unix(0, int64(ticks*tickNS)+int64(b.wallBoot)).UTC().Truncate(time.Duration(tickNS))
}

func (b *bpfWatch) handle(r *bpfRecord) {
	procs, ticks := b.w.procs, r.start/tickNS
	switch r.kind {
	case bpfFork:
		b.replaced(r.pid, ticks, r.at)
		procs.fork(r.ppid, r.pid, r.at, ticks, b.started(ticks))
	case bpfExec:
		b.exec(r, ticks)
	case bpfExit:
		if p := procs.get(r.pid); p == nil || p.image.ticks != 0 && p.image.ticks != ticks {
			return // told already: two threads that end at once both look like the last
		}
		p := procs.exit(r.pid, b.now)
		if p.told && b.w.opts.TellEnds {
			b.items = append(b.items, item{proc: p, at: b.time(r.at), sensor: mechBPF, ended: true, exit: exitCode(r.status), exitOK: true})
		}
	}
}

// replaced forgets the process of this id if it is not the one that started at
// ticks: it has ended, and that was lost.
func (b *bpfWatch) replaced(pid int, ticks, at uint64) {
	p, ended := b.w.procs.other(pid, ticks)
	if p == nil {
		return
	}
	if !ended && p.told && b.w.opts.TellEnds {
		b.items = append(b.items, item{proc: p, at: b.time(at), sensor: mechBPF, ended: true})
	}
	b.w.procs.forget(pid)
}

// exec notes and tells that a process executes a program.
func (b *bpfWatch) exec(r *bpfRecord, ticks uint64) {
	w := b.w
	old := w.procs.get(r.pid)
	if old == nil || old.image.ticks != ticks {
		b.replaced(r.pid, ticks, r.at)
		old = w.procs.get(r.pid)
	}
	if old != nil && old.since > r.at {
		return // a scan has seen this program and told it
	}
	var errs []string
	im := &image{pid: r.pid, ticks: ticks}
	b.setPaths(im, r, &errs)
	im.container = b.container(r)
	raw := b.arguments(r, im, &errs)
	raw, errs = boundArgs(raw, errs)
	im.setArgs(raw)

	p := &proc{image: im, ppid: r.ppid, told: true, session: auditID(r.session), execAt: r.at}
	if old != nil {
		p.ppid, p.parent, p.startedBy = old.ppid, old.parent, old.startedBy
		im.entity, im.started = old.image.entity, old.image.started
	} else {
		im.started = b.started(ticks)
	}
	if im.entity == "" {
		im.entity = entityID(b.boot, r.pid, ticks)
	}
	if p.parent == nil {
		if p.ppid == r.ppid {
			b.replaced(p.ppid, r.parentStart/tickNS, r.at)
		}
		w.adopt(p, maxAncestors)
	}
	p.parent = p.parent.named(b.boot) // a shell that forked itself
	before := p.parent
	if old != nil {
		before = old.image
	}
	im.setOwner(r.loginUID, r.uid, r.euid, before)
	if p.startedBy == "" {
		p.startedBy = event.ByOther
	}
	w.procs.put(p)
	b.items = append(b.items, item{proc: p, raw: raw, at: b.time(r.at), sensor: mechBPF, errs: errs})
}

// container returns the id of the container that a process runs in. The name of
// its cgroup tells it as a rule; where it does not, as with systemd in a
// container, /proc is asked once for each cgroup. What starts a container moves
// itself there: only what is still in the cgroup of the record says something of it.
func (b *bpfWatch) container(r *bpfRecord) string {
	if r.cgroup <= rootCgroup {
		return ""
	}
	id, known := b.inside[r.cgroup]
	if known {
		return id
	}
	if id = containerID(string(r.cgroupName)); id == "" {
		lines, err := b.r.read(r.pid, "cgroup")
		if err != nil || !isIn(lines, r.cgroupName) {
			return "" // ended or moved; the next one in there is asked
		}
		id = containerID(string(lines))
	}
	if len(b.inside) >= maxInterned {
		clear(b.inside)
	}
	b.inside[r.cgroup] = id
	return id
}

// isIn reports whether /proc/PID/cgroup names a cgroup of version 2 that has this
// name, of which the kernel's program tells 127 bytes.
func isIn(lines, name []byte) bool {
	for line := range bytes.Lines(lines) {
		if group, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			return bytes.HasPrefix(group[bytes.LastIndexByte(group, '/')+1:], name)
		}
	}
	return false
}

// setPaths sets the executable and the working directory. What is deeper than
// the kernel's program walks is read from /proc while it is there, and taken if it
// ends alike: it may be that of the next program by now.
func (b *bpfWatch) setPaths(im *image, r *bpfRecord, errs *[]string) {
	tell := func(names []byte, cut bool, link string) string {
		b.buf = appendPath(b.buf[:0], names)
		if cut {
			if s, err := b.r.link(r.pid, link); err == nil {
				if s, _ = trimDeleted(s); strings.HasSuffix(s, string(b.buf)) {
					return s
				}
			}
			*errs = append(*errs, "read "+link+": only the end of the path is known: it is too deep")
			b.buf = append([]byte("..."), b.buf...)
		}
		return b.paths.of(b.buf)
	}
	if len(r.exe) == 0 {
		im.name = string(r.comm)
		*errs = append(*errs, "read executable: the kernel does not tell it")
	} else {
		im.exe = tell(r.exe, r.flags&bpfExeCut != 0, "exe")
		im.name = path.Base(im.exe)
		if r.flags&bpfExeDeleted != 0 {
			*errs = append(*errs, "executable is deleted")
		}
	}
	im.cwd = tell(r.cwd, r.flags&bpfCwdCut != 0, "cwd")
	if r.flags&bpfCwdDeleted != 0 {
		im.cwd += " (deleted)"
	}
}

// arguments returns the arguments, NUL after each. The kernel tells the first
// 4 KiB; the rest is read from /proc if it is still the same program.
func (b *bpfWatch) arguments(r *bpfRecord, im *image, errs *[]string) string {
	if r.flags&(bpfArgsCut|bpfArgsFailed) == 0 {
		return string(r.args)
	}
	raw, err := b.r.args(r.pid)
	if err == nil && len(raw) > len(r.args) && raw[:len(r.args)] == string(r.args) {
		exe, _ := b.r.link(r.pid, "exe")
		exe, _ = trimDeleted(exe)
		if now, ok := b.w.startTicks(r.pid); ok && now == im.ticks && exe == im.exe {
			return raw
		}
	}
	if r.flags&bpfArgsFailed != 0 {
		*errs = append(*errs, "read arguments: the kernel could not")
	} else {
		*errs = append(*errs, fmt.Sprintf("read arguments: cut at %d bytes of %d", len(r.args), r.argsTotal))
	}
	return string(r.args)
}

// Flags of an eBPF record.
const (
	bpfExeCut     = 1
	bpfExeDeleted = 2
	bpfCwdCut     = 4
	bpfCwdDeleted = 8
	bpfArgsCut    = 16
	bpfArgsFailed = 32
)

// setCatchUp says what handles records that nobody has read yet.
func (w *Watcher) setCatchUp(f func()) {
	w.mu.Lock()
	w.catchUp = f
	w.mu.Unlock()
}

// other returns the process that has this id, or had it last, if it is another
// one than that which started at ticks, and whether it is known to have ended.
func (t *tracker) other(pid int, ticks uint64) (p *proc, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p = t.live[pid]
	if p == nil {
		p, ended = t.dead[pid].proc, true
	}
	if p == nil || p.image.ticks == 0 || p.image.ticks == ticks {
		return nil, false
	}
	return p, ended
}

// forget drops the process of this id, living or dead: the id is another one's.
func (t *tracker) forget(pid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLive(pid)
	t.dropDead(pid)
}
