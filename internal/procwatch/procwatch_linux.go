package procwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"path"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

const (
	// rcvBuffer is what the kernel may queue for us: a message takes some 800
	// bytes there, so this is about 20,000 of them, a flood that meets an agent
	// which does not get the CPU for a second.
	rcvBuffer = 16 << 20
	// batchSize is how many messages are taken before /proc is read. All their
	// arguments are read first, because they vanish first.
	batchSize = 64
	// readerNice lets the reader run before a flood of short programs is over.
	readerNice = -10
	// ackWait is how long the kernel has to answer that it will tell us. It does
	// not answer in a container (another pid or user namespace).
	ackWait = time.Second
	// rescanEvery bounds how often /proc is read through after losses.
	rescanEvery = time.Second
	// idleWait is how often paths are taken that no execution followed.
	idleWait = 5 * time.Second
)

// native is the state of the reader of kernel messages, which owns all of it.
type native struct {
	w      *Watcher
	q      *queue
	nl     int // the connector's socket
	fan    int // fanotify; -1 if refused
	opens  opens
	r      *procReader
	buf    []byte // for messages
	fanBuf []byte
	batch  []message
	sensor string
	flaw   string // why it is not the best mechanism
}

// message is a connector message with what was read for it at once.
type message struct {
	procMessage
	exe     string
	raw     string
	exeErr  error
	argsErr error
	left    int // executions of the same process later in the batch: what /proc says is of the last one
}

// watchNative watches by the best mechanism of the kernel's that can be had,
// until ctx is done.
func (w *Watcher) watchNative(ctx context.Context, q *queue) error {
	why := w.watchBPF(ctx, q)
	if ctx.Err() != nil || !errors.Is(why, errUnavailable) {
		return why
	}
	err := w.watchConnector(ctx, q, why)
	if errors.Is(err, errUnavailable) {
		return fmt.Errorf("%w; %w", why, err)
	}
	return err
}

// watchConnector watches by the process connector until ctx is done. why is why
// there is nothing better.
func (w *Watcher) watchConnector(ctx context.Context, q *queue, why error) error {
	if w.without[mechConnector] {
		return fmt.Errorf("process connector %w: switched off", errUnavailable)
	}
	nl, err := openConnector(connectorFilter())
	if err != nil {
		return err
	}
	defer unix.Close(nl)
	n := &native{
		w: w, q: q, nl: nl, fan: -1, opens: opens{},
		r: newProcReader(w.opts.ProcRoot), buf: make([]byte, maxNlMessage), fanBuf: make([]byte, 64<<10),
		sensor: mechOpenExec,
		flaw:   fmt.Sprintf("programs that end within a few milliseconds can lack their arguments: %v", why),
	}
	var marks *execMarks
	if w.without[mechOpenExec] {
		err = fmt.Errorf("fanotify %w: switched off", errUnavailable)
	} else if marks, err = newExecMarks(w.opts.ProcRoot); err == nil {
		defer marks.close()
		n.fan = marks.fd
	}
	if err != nil {
		n.sensor, n.flaw = mechConnector, fmt.Sprintf("programs that end within a few milliseconds can lack their path and arguments: %v; %v", why, err)
	}
	return readOnThread(ctx, func(wake int) error { return n.run(ctx, marks, wake) })
}

// readOnThread runs a reader of kernel messages on a thread that comes before
// others. wake is a descriptor that becomes readable when ctx is done.
func readOnThread(ctx context.Context, run func(wake int) error) error {
	return withWake(ctx, func(wake int) error {
		done := make(chan error, 1)
		go func() {
			// The thread has a priority of its own; without unlocking it ends with us.
			runtime.LockOSThread()
			_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), readerNice) // slower without
			done <- guard(func() error { return run(wake) })
		}()
		return <-done
	})
}

// withWake runs f with a descriptor that becomes readable when ctx is done.
func withWake(ctx context.Context, f func(wake int) error) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	defer unix.Close(wake)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-stopped // before wake is closed
		}
	}()
	return f(wake)
}

func (n *native) run(ctx context.Context, marks *execMarks, wake int) error {
	// What started between two runs is told, as after a loss.
	if err := n.w.scanAll(n.q, n.sensor, n.w.firstScan() || !n.w.procs.empty()); err != nil {
		return err
	}
	// Not before: what starts during the first scan counts as running at start.
	n.w.setState(n.q, endpoint.SensorDegraded, n.sensor, n.flaw)
	fds := []unix.PollFd{{Fd: int32(n.nl), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	if marks != nil {
		fds = append(fds, unix.PollFd{Fd: int32(marks.mounts.Fd()), Events: unix.POLLPRI})
	}
	var rescan, scanned time.Time // when one is due, zero if none is; when the last was
	for {
		wait := idleWait
		if !rescan.IsZero() {
			wait = max(time.Until(rescan), 0)
		}
		if _, err := unix.Poll(fds, int(wait.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		if len(fds) > 2 && fds[2].Revents != 0 {
			marks.remark()
		}
		lost, err := n.receive()
		if err != nil {
			return err
		}
		if lost {
			n.q.lose(1)
			if rescan.IsZero() {
				rescan = scanned.Add(rescanEvery)
			}
		}
		n.drainOpens()
		n.handle()
		if !rescan.IsZero() && time.Now().After(rescan) {
			if err := n.w.scanAll(n.q, n.sensor, true); err != nil {
				return err
			}
			rescan, scanned = time.Time{}, time.Now()
		}
	}
}

// receive takes what has come, up to a batch, and reads of /proc what is soon
// gone. lost: the kernel dropped messages, because we did not keep up.
func (n *native) receive() (lost bool, err error) {
	n.batch = n.batch[:0]
	for len(n.batch) < batchSize {
		k, kernel, e := receiveNetlink(n.nl, n.buf)
		switch e {
		case 0:
		case unix.EAGAIN:
			n.readEarly()
			return lost, nil
		case unix.EINTR:
			continue
		case unix.ENOBUFS:
			lost = true
			continue
		default:
			return lost, os.NewSyscallError("receive from the process connector", e)
		}
		if !kernel {
			continue
		}
		if err := parseConnector(n.buf[:k], func(m procMessage) { n.batch = append(n.batch, message{procMessage: m}) }); err != nil {
			return lost, err
		}
	}
	n.readEarly()
	return lost, nil
}

func (n *native) readEarly() {
	for i := range n.batch {
		m := &n.batch[i]
		if m.what != cnExec {
			continue
		}
		for _, later := range n.batch[i+1:] {
			if later.what == cnExec && later.pid == m.pid {
				m.left++
			}
		}
		if m.left == 0 {
			m.raw, m.argsErr = n.r.args(m.pid)
			m.exe, m.exeErr = n.r.link(m.pid, "exe")
		}
	}
}

// handle works through the batch.
func (n *native) handle() {
	for i := range n.batch {
		m := &n.batch[i]
		switch m.what {
		case cnFork:
			n.w.procs.fork(m.parent, m.pid, m.at, 0, wallTime(m.at).UTC())
		case cnUID:
			if m.tid == m.pid { // a thread may take a user of its own
				n.w.procs.setUser(m.pid, m.uid, m.euid, m.at)
			}
		case cnExec:
			n.exec(m)
		case cnExit:
			if m.tid != m.pid {
				continue // a thread
			}
			delete(n.opens, m.pid)
			at := wallTime(m.at)
			p := n.w.procs.exit(m.pid, time.Now())
			if p != nil && p.told && n.w.opts.TellEnds {
				n.q.push(item{proc: p, at: at, sensor: n.sensor, ended: true, exit: exitCode(m.status), exitOK: true})
			}
		}
		*m = message{}
	}
}

// exec notes and tells that a process executes a program.
func (n *native) exec(m *message) {
	exe, again := n.opens.next(m.pid, m.left)
	if !again && exe != "" && m.exe != "" && m.exe != exe {
		n.drainOpens()
		_, again = n.opens[m.pid]
	}
	old := n.w.procs.get(m.pid)
	if old != nil && old.since > m.at {
		return // a scan has seen this program and told it
	}

	var errs []string
	im := &image{pid: m.pid}
	switch {
	case again:
		// /proc speaks of the next program already.
		m.raw, m.exe = "", ""
		im.setExe(exe, &errs)
		errs = append(errs, "read arguments: the process executed another program before they could be read")
	case m.exe != "":
		im.setExe(m.exe, &errs)
	default:
		im.setExe(exe, &errs)
	}
	if im.exe == "" {
		err := errEnded
		if m.exeErr != nil {
			err = gone(m.exeErr)
		}
		errs = append(errs, "read executable: "+err.Error())
	}
	var raw string
	raw, errs = boundArgs(m.raw, errs)
	if raw == "" && !again {
		err := errEnded
		if m.argsErr != nil {
			err = gone(m.argsErr)
		}
		errs = append(errs, "read arguments: "+err.Error())
	}
	im.setArgs(raw)

	st, stOK := stat{}, false
	if b, err := n.r.read(m.pid, "stat"); err == nil {
		st, stOK = parseStat(b)
	}
	p := &proc{image: im, told: true}
	if old != nil {
		p.ppid, p.parent, p.startedBy, p.session = old.ppid, old.parent, old.startedBy, old.session
		im.uid, im.who, im.login, im.uidOK = old.image.uid, old.image.who, old.image.login, old.image.uidOK
		im.started, im.ticks, im.entity = old.image.started, old.image.ticks, old.image.entity
		if im.cwd, _ = n.r.link(m.pid, "cwd"); im.cwd == "" {
			im.cwd = old.image.cwd
		}
	} else {
		im.cwd, _ = n.r.link(m.pid, "cwd")
		if stOK {
			p.ppid = st.ppid
		}
		n.w.adopt(p, maxAncestors)
	}
	if !im.login {
		if b, err := n.r.read(m.pid, "status"); err == nil {
			if realUser, effective, ok := parseUIDs(b); ok {
				before := p.parent
				if old != nil {
					before = old.image
				}
				im.setOwner(n.r.login(m.pid), realUser, effective, before)
			}
		}
	}
	if p.session == "" {
		p.session = n.r.session(m.pid)
	}
	if im.container = n.r.container(m.pid); im.container == "" && old != nil {
		im.container = old.image.container
	}
	at := wallTime(m.at)
	switch {
	case stOK:
		im.ticks, im.started = st.ticks, startTime(st.ticks)
		im.entity = entityID(bootID(n.w.opts.ProcRoot), m.pid, st.ticks)
		if im.name == "" {
			im.name = st.comm
		}
	case im.entity == "":
		// It is gone: nothing will ask for it by its start in ticks.
		im.entity = entityID(bootID(n.w.opts.ProcRoot), m.pid, m.at)
		if im.started.IsZero() {
			im.started = at.UTC()
		}
	}
	if p.startedBy == "" {
		p.startedBy = event.ByOther
	}
	n.w.procs.put(p)
	n.q.push(item{proc: p, raw: raw, at: at, sensor: n.sensor, errs: errs})
}

// drainOpens takes what fanotify has told of files opened for execution.
func (n *native) drainOpens() {
	if n.fan < 0 {
		return
	}
	for {
		k, err := unix.Read(n.fan, n.fanBuf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || k <= 0 { // EAGAIN: all taken
			return
		}
		_ = parseOpens(n.fanBuf[:k], func(mask uint64, fd, pid int) {
			if mask&fanOverflow != 0 {
				clear(n.opens) // what is left no longer goes with what the connector tells
			}
			if fd < 0 {
				return
			}
			defer unix.Close(fd)
			link, err := unixReadlink("/proc/self/fd/"+strconv.Itoa(fd), n.r.buf)
			if err != nil {
				return
			}
			var head [4]byte
			k, _ := unix.Pread(fd, head[:], 0)
			n.opens.add(pid, opened{link, kindOf(head[:max(k, 0)], link)})
		})
	}
}

func unixReadlink(name string, buf []byte) (string, error) {
	k, err := unix.Readlink(name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:k]), nil
}

// openConnector returns a socket on which the kernel tells what processes do,
// as far as the filter lets it through.
func openConnector(filter []unix.SockFilter) (fd int, err error) {
	refused := func(what string, err error) (int, error) {
		return -1, fmt.Errorf("process connector %w: %s: %w", errUnavailable, what, err)
	}
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return refused("open netlink socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rcvBuffer); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvBuffer) // as far as the system lets us
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return refused("attach filter", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: cnIdxProc}); err != nil {
		return refused("join its group", err)
	}
	request := rand.Uint32()
	if err := unix.Sendto(fd, listenRequest(request), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return refused("ask it to tell", err)
	}
	if err := awaitAck(fd, request); err != nil {
		return refused("ask it to tell", err)
	}
	return fd, nil
}

// listenRequest is a netlink message with a connector message with
// PROC_CN_MCAST_LISTEN (1), of this number. The kernel keeps the acknowledgement
// number, not the sequence number, in its answer (drivers/connector/cn_proc.c).
func listenRequest(number uint32) []byte {
	b := make([]byte, nlHeader+cnHeader+4)
	ne := binary.NativeEndian
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], nlDone)
	ne.PutUint32(b[12:], uint32(os.Getpid()))
	cn := b[nlHeader:]
	ne.PutUint32(cn, cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint32(cn[12:], number)
	ne.PutUint16(cn[16:], 4)
	ne.PutUint32(cn[cnHeader:], 1)
	return b
}

// awaitAck waits for the kernel's answer to our request; everyone who listens hears
// those to others. What else comes meanwhile is found by the scan that follows.
func awaitAck(fd int, request uint32) error {
	buf := make([]byte, maxNlMessage)
	deadline := time.Now().Add(ackWait)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("no answer from the kernel: not in the initial pid and user namespace")
		}
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		k, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
				continue
			}
			return err
		}
		acked, errno := false, uint32(0)
		if err := parseConnector(buf[:k], func(m procMessage) {
			if m.what == cnNone && m.request == request+1 {
				acked, errno = true, m.errno
			}
		}); err != nil {
			return err
		}
		if acked {
			if errno != 0 {
				return unix.Errno(errno)
			}
			return nil
		}
	}
}

// connectorFilter is a socket filter that passes execs, changes of user, and
// forks and exits of processes; threads, the bulk, stay in the kernel.
func connectorFilter() []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jumpEq := func(v uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: be(v)}
	}
	jumpEqX := func(yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_X, Jt: yes, Jf: no}
	}
	toX := unix.SockFilter{Code: unix.BPF_MISC | unix.BPF_TAX}
	pass := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	const data = cnEventStart + cnDataOffset
	return []unix.SockFilter{
		load(cnEventStart),    // 0: what
		jumpEq(cnExec, 13, 0), // 1 -> 15
		jumpEq(cnUID, 12, 0),  // 2 -> 15
		jumpEq(cnNone, 11, 0), // 3 -> 15
		jumpEq(cnFork, 2, 0),  // 4 -> 7
		jumpEq(cnExit, 5, 0),  // 5 -> 11
		drop,                  // 6
		load(data + 8),        // 7: of a fork the child's thread id
		toX,                   // 8
		load(data + 12),       // 9: and process id
		jumpEqX(4, 5),         // 10 -> 15 or 16
		load(data),            // 11: of an exit the thread id
		toX,                   // 12
		load(data + 4),        // 13: and process id
		jumpEqX(0, 1),         // 14 -> 15 or 16
		pass,                  // 15
		drop,                  // 16
	}
}

// be turns a constant round: loads of a filter are big-endian.
func be(v uint32) uint32 {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return bits.ReverseBytes32(v)
	}
	return v
}

// userFilter is a socket filter that passes changes of user only.
func userFilter() []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: cnEventStart},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: be(cnUID)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: be(cnNone)},
		{Code: unix.BPF_RET | unix.BPF_K},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
}

// mountPath is where a process's view of the mounts is.
func mountPath(root string) string { return path.Join(root, "self/mountinfo") }
