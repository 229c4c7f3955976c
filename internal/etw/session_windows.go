package etw

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/guid"
)

// Since Windows 8.1 sechost.dll has these functions; advapi32.dll hands them on, on
// every version.
var (
	advapi32     = windows.NewLazySystemDLL("advapi32.dll")
	startTrace   = advapi32.NewProc("StartTraceW")
	enableTrace  = advapi32.NewProc("EnableTraceEx2")
	controlTrace = advapi32.NewProc("ControlTraceW")
	openTrace    = advapi32.NewProc("OpenTraceW")
	processTrace = advapi32.NewProc("ProcessTrace")
	closeTrace   = advapi32.NewProc("CloseTrace")
)

// Constants of evntrace.h, evntcons.h, wmistr.h.
const (
	wnodeTracedGUID = 0x00020000
	// clockSystem (2) follows the system's clock, which the other sensors go by; since
	// Windows 10 as finely as the default, the performance counter, which drifts away
	// from it over the weeks that a session of ours runs.
	clockSystem = 2

	modeRealTime = 0x00000100
	// modeIndependent keeps a failing session of somebody else's from taking events
	// from ours: without it half of them were seen to be lost.
	modeIndependent = 0x08000000
	// modeFlushMS makes FlushTimer milliseconds, since Windows 7. It stands in the
	// driver kit's ntwmi.h only; a system that refuses it gets seconds.
	modeFlushMS = 0x00000010

	traceRealTime    = 0x00000100 // PROCESS_TRACE_MODE_REAL_TIME
	traceEventRecord = 0x10000000 // PROCESS_TRACE_MODE_EVENT_RECORD

	controlQuery = 0
	controlStop  = 1

	enableProvider = 1
	levelAll       = 0xff

	invalidHandle = ^uint64(0) // INVALID_PROCESSTRACE_HANDLE

	errInstanceNotFound = windows.Errno(4201) // ERROR_WMI_INSTANCE_NOT_FOUND: no such session
	errMoreData         = windows.ERROR_MORE_DATA
	errClosePending     = windows.Errno(7007) // ERROR_CTX_CLOSE_PENDING: ProcessTrace is about to return
	errCancelled        = windows.ERROR_CANCELLED
)

// Buffers of a session, in memory of the kernel's that is never paged out. A start of
// a process takes some 300 bytes, an operation on a file 100 to 300. At rest there is
// 1 MB, or two buffers a processor, fewer than which Windows does not take. A flood
// may take 32 MB: 100,000 starts, or more than a second of the fastest copying that a
// disk allows, for which an agent that does not get the CPU can be late.
const (
	bufferKB   = 64
	minBuffers = 16
	maxBuffers = 512
	// flushMS is how long an event waits at most for the others of its buffer. It
	// bounds what is seen of a process before it ends, and costs a wakeup of a thread
	// of the kernel's each.
	flushMS = 50
)

// maxName is the most bytes of a session's name with its NUL, in UTF-16; a judgement:
// Windows takes 1,024 characters, ours have 15.
const maxName = 256

// properties is EVENT_TRACE_PROPERTIES with the room for the name that follows it.
type properties struct {
	// WNODE_HEADER
	wnodeSize         uint32
	providerID        uint32
	historicalContext uint64
	timeStamp         int64
	guid              guid.GUID
	clientContext     uint32
	flags             uint32

	bufferSize          uint32 // KB
	minimumBuffers      uint32
	maximumBuffers      uint32
	maximumFileSize     uint32
	logFileMode         uint32
	flushTimer          uint32
	enableFlags         uint32
	ageLimit            int32
	numberOfBuffers     uint32
	freeBuffers         uint32
	eventsLost          uint32
	buffersWritten      uint32
	logBuffersLost      uint32
	realTimeBuffersLost uint32
	loggerThread        uintptr
	logFileNameOffset   uint32
	loggerNameOffset    uint32

	name [maxName / 2]uint16
	// file is where ControlTrace puts the name of a log file; ours have none.
	file [maxName / 2]uint16
}

func newProperties() *properties {
	p := &properties{flags: wnodeTracedGUID, clientContext: clockSystem}
	p.wnodeSize = uint32(unsafe.Sizeof(*p))
	p.loggerNameOffset = uint32(unsafe.Offsetof(p.name))
	return p
}

// logFile is EVENT_TRACE_LOGFILEW: which session to read, and who gets its events.
type logFile struct {
	logFileName      *uint16
	loggerName       *uint16
	currentTime      int64
	buffersRead      uint32
	processTraceMode uint32
	currentEvent     [88]byte  // EVENT_TRACE
	header           [280]byte // TRACE_LOGFILE_HEADER
	bufferCallback   uintptr
	bufferSize       uint32
	filled           uint32
	eventsLost       uint32
	_                uint32
	recordCallback   uintptr
	isKernelTrace    uint32
	_                uint32
	context          uintptr
}

// eventRecord is EVENT_RECORD.
type eventRecord struct {
	header            [headerSize]byte
	bufferContext     [4]byte
	extendedDataCount uint16
	userDataLength    uint16
	extendedData      unsafe.Pointer
	userData          *byte
	userContext       uintptr
}

// Session is a real-time session of event tracing. Make it with [Start].
type Session struct {
	name   string
	handle uint64 // of the session
	trace  uint64 // of its reader
	to     *consumer

	mu      sync.Mutex // guards all below
	stopped bool       // we have ended it
	closed  bool       // the reader
	// What was lost up to the end of the session.
	events, buffers uint64
}

// Start makes a session of this name, asks the providers for their events and opens
// it for reading. A session of that name that runs is ended first: it was left by an
// agent that was killed. The error says what to do about it; it wraps
// [errors.ErrUnsupported] where the system has no event tracing (Wine), and the
// system's error otherwise.
func Start(name string, providers ...Provider) (_ *Session, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("event tracing session %q: %w", name, err)
		}
	}()
	for _, p := range []*windows.LazyProc{startTrace, enableTrace, controlTrace, openTrace, processTrace, closeTrace} {
		if err := p.Find(); err != nil {
			return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
		}
	}
	utf, err := windows.UTF16FromString(name)
	if err != nil || len(utf) > maxName/2 {
		return nil, errNoName
	}
	if err := stop(&utf[0]); err != nil && !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return nil, fmt.Errorf("end the one left over: %w", err)
	}
	handle, err := start(&utf[0])
	if err != nil {
		return nil, explain(err)
	}
	s := &Session{name: name, handle: handle, trace: invalidHandle}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	for _, p := range providers {
		level := p.Level
		if level == 0 {
			level = levelAll
		}
		// The timeout is for providers that are programs; ours are the kernel.
		switch e := enable(handle, &p, level); e {
		case 0:
		case windows.ERROR_NO_SYSTEM_RESOURCES:
			return nil, fmt.Errorf("ask provider %v for events: eight sessions, which is all that Windows allows, ask it already: see which by \"logman query providers %v\" and \"logman query -ets\", and end one: %w", p.ID, p.ID, e)
		default:
			return nil, fmt.Errorf("ask provider %v for events: %w", p.ID, explain(e))
		}
	}
	s.to = &consumer{id: consumers.last.Add(1), failed: make(chan struct{})}
	file := logFile{
		loggerName:       &utf[0],
		processTraceMode: traceRealTime | traceEventRecord,
		recordCallback:   callback(),
		context:          s.to.id,
	}
	trace, _, e := openTrace.Call(uintptr(unsafe.Pointer(&file)))
	runtime.KeepAlive(utf)
	if uint64(trace) == invalidHandle || trace == 0 {
		if wine() {
			return nil, fmt.Errorf("%w by Wine, which only pretends to start it", errors.ErrUnsupported)
		}
		return nil, fmt.Errorf("open it for reading: %w", explain(e))
	}
	s.trace = uint64(trace)
	return s, nil
}

var errNoName = errors.New("not a name for a session")

// Stop ends the session of this name, if there is one: left by an agent that was
// killed, it goes on until then or until Windows is restarted.
func Stop(name string) error {
	utf, err := windows.UTF16FromString(name)
	if err != nil || len(utf) > maxName/2 {
		err = errNoName
	} else if err = controlTrace.Find(); err == nil {
		err = stop(&utf[0])
	}
	if err != nil {
		return fmt.Errorf("event tracing session %q: end it: %w", name, explain(err))
	}
	return nil
}

// stop ends a session; that there is none is no error.
func stop(name *uint16) error {
	if _, err := control(0, name, controlStop); err != nil && !errors.Is(err, errInstanceNotFound) {
		return err
	}
	return nil
}

// wine reports whether this is not a real Windows.
func wine() bool {
	return windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil
}

// enableParameters is ENABLE_TRACE_PARAMETERS, filterDescriptor
// EVENT_FILTER_DESCRIPTOR, and eventIDs EVENT_FILTER_EVENT_ID with room for as many
// as Windows takes (MAX_EVENT_FILTER_EVENT_ID_COUNT).
type enableParameters struct {
	version        uint32
	enableProperty uint32
	controlFlags   uint32
	sourceID       guid.GUID
	filters        *filterDescriptor
	filterCount    uint32
}

type filterDescriptor struct {
	data unsafe.Pointer
	size uint32
	kind uint32
}

type eventIDs struct {
	in    uint8 // 1: these, 0: all others
	_     uint8
	count uint16
	ids   [maxEvents]uint16
}

const (
	enableVersion2 = 2          // ENABLE_TRACE_PARAMETERS_VERSION_2
	filterEventID  = 0x80000200 // EVENT_FILTER_TYPE_EVENT_ID
	maxEvents      = 64
)

// enable asks a provider for events; for all of its ids where the system cannot tell
// them apart.
func enable(handle uint64, p *Provider, level uint8) windows.Errno {
	call := func(parameters *enableParameters) windows.Errno {
		e, _, _ := enableTrace.Call(uintptr(handle), uintptr(unsafe.Pointer(&p.ID)), enableProvider, uintptr(level), uintptr(p.Keywords), 0, 0, uintptr(unsafe.Pointer(parameters)))
		return windows.Errno(e)
	}
	if n := len(p.Events); n > 0 && n <= maxEvents {
		ids := eventIDs{in: 1, count: uint16(n)}
		copy(ids.ids[:], p.Events)
		filter := filterDescriptor{data: unsafe.Pointer(&ids), size: uint32(unsafe.Offsetof(ids.ids)) + 2*uint32(n), kind: filterEventID}
		if call(&enableParameters{version: enableVersion2, filters: &filter, filterCount: 1}) == 0 {
			return 0
		}
	}
	return call(nil)
}

// start starts a session with our buffers.
func start(name *uint16) (uint64, error) {
	mode, flush := uint32(modeRealTime|modeIndependent|modeFlushMS), uint32(flushMS)
	for try := 0; ; try++ {
		p := newProperties()
		p.bufferSize = bufferKB
		p.minimumBuffers = max(minBuffers, 2*uint32(runtime.NumCPU()))
		p.maximumBuffers = max(maxBuffers, 2*p.minimumBuffers)
		p.logFileMode, p.flushTimer = mode, flush
		var handle uint64
		e, _, _ := startTrace.Call(uintptr(unsafe.Pointer(&handle)), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(p)))
		err := windows.Errno(e)
		switch {
		case err == 0 && handle != 0:
			return handle, nil
		case err == 0:
			return 0, errors.New("it was started and is not there")
		case err == windows.ERROR_INVALID_PARAMETER && mode&modeFlushMS != 0:
			mode, flush = mode&^modeFlushMS, 1
		case err == windows.ERROR_ALREADY_EXISTS && try < 3:
			// It was started since we ended it, or takes a moment to end.
			if err := stop(name); err != nil {
				return 0, fmt.Errorf("end the one left over: %w", err)
			}
		default:
			return 0, err
		}
	}
}

// control asks or ends a session by its handle or, if that is 0, by its name.
func control(handle uint64, name *uint16, code uintptr) (*properties, error) {
	p := newProperties()
	p.logFileNameOffset = uint32(unsafe.Offsetof(p.file))
	e, _, _ := controlTrace.Call(uintptr(handle), uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(p)), code)
	if err := windows.Errno(e); err != 0 && err != errMoreData { // of names that do not fit; the rest is there
		return nil, err
	}
	return p, nil
}

// explain says of the system's error what to do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		return fmt.Errorf("refused, needs the rights of LocalSystem or an administrator: %w", err)
	case errors.Is(err, windows.ERROR_NO_SYSTEM_RESOURCES):
		return fmt.Errorf("the limit of sessions is reached (64 unless set otherwise): see which run by \"logman query -ets\" and end one, or raise EtwMaxLoggers below HKLM\\SYSTEM\\CurrentControlSet\\Control\\WMI and restart Windows: %w", err)
	case errors.Is(err, windows.ERROR_ALREADY_EXISTS):
		return fmt.Errorf("another program has a session of this name and starts it again and again, perhaps a second agent: %w", err)
	}
	return err
}

// endWait is how long ProcessTrace may take to return when the session is over. It
// first hands on what is in the buffers.
const endWait = 5 * time.Second

// Run gives events to f, one at a time, until ctx is done (nil) or the session ends.
// f must be quick: while it runs, buffers fill up. Run can be called once; the session
// is over when it returns.
func (s *Session) Run(ctx context.Context, f func(*Record)) error {
	s.to.open(f)
	defer s.to.forget()
	done := make(chan error, 1)
	go func() {
		// ProcessTrace blocks its thread and calls us on it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		handles := [1]uint64{s.trace}
		e, _, _ := processTrace.Call(uintptr(unsafe.Pointer(&handles[0])), 1, 0, 0)
		if e == 0 || windows.Errno(e) == errCancelled {
			done <- nil
			return
		}
		done <- fmt.Errorf("event tracing session %q: read events: %w", s.name, explain(windows.Errno(e)))
	}()
	select {
	case err := <-done:
		_ = s.Close()
		if err == nil {
			err = s.to.failure()
		}
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return nil
		}
		return fmt.Errorf("%q: %w", s.name, ErrStopped)
	case <-ctx.Done():
	case <-s.to.failed:
	}
	// Ended before it is closed, so that what lies in the buffers still comes.
	err := s.Close()
	t := time.NewTimer(endWait)
	defer t.Stop()
	select {
	case e := <-done:
		err = errors.Join(err, e)
	case <-t.C:
		err = errors.Join(err, fmt.Errorf("event tracing session %q: was not over after %v", s.name, endWait))
	}
	if e := s.to.failure(); e != nil {
		return e
	}
	return err
}

// Lost is how many events, and how many whole buffers of them, were lost since the
// session began, because there was no room for them.
func (s *Session) Lost() (events, buffers uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return s.events, s.buffers, nil
	}
	p, err := control(s.handle, nil, controlQuery)
	if err != nil {
		return s.events, s.buffers, fmt.Errorf("event tracing session %q: ask what was lost: %w", s.name, err)
	}
	s.events, s.buffers = uint64(p.eventsLost), uint64(p.realTimeBuffersLost)
	return s.events, s.buffers, nil
}

// Close ends the session. It can be called more than once, and from any goroutine.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if !s.stopped {
		s.stopped = true
		p, e := control(s.handle, nil, controlStop)
		switch {
		case e == nil:
			s.events, s.buffers = uint64(p.eventsLost), uint64(p.realTimeBuffersLost)
		case !errors.Is(e, errInstanceNotFound): // else somebody has ended it
			err = fmt.Errorf("event tracing session %q: end it: %w", s.name, e)
		}
	}
	if !s.closed && s.trace != invalidHandle {
		s.closed = true
		if e, _, _ := closeTrace.Call(uintptr(s.trace)); e != 0 && windows.Errno(e) != errClosePending {
			err = errors.Join(err, fmt.Errorf("event tracing session %q: close it: %w", s.name, windows.Errno(e)))
		}
	}
	return err
}

// consumer is who gets the events of one session.
type consumer struct {
	id     uintptr
	failed chan struct{} // closed when f panics

	mu  sync.Mutex // guards all below, and that f runs once at a time
	f   func(*Record)
	rec Record
	err error
}

// consumers maps the context of a session's events to who gets them. A callback can
// not be given a pointer of Go's, and is never freed: there is one for all sessions.
var consumers = struct {
	sync.RWMutex // guards byID
	byID         map[uintptr]*consumer
	last         atomic.Uintptr // context that was last given
}{byID: map[uintptr]*consumer{}}

var callback = sync.OnceValue(func() uintptr { return windows.NewCallback(onRecord) })

// onRecord is called by ProcessTrace for each event.
func onRecord(e *eventRecord) uintptr {
	if e == nil {
		return 0
	}
	consumers.RLock()
	c := consumers.byID[e.userContext]
	consumers.RUnlock()
	if c != nil {
		c.take(e)
	}
	return 0
}

func (c *consumer) take(e *eventRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.f == nil {
		return
	}
	defer func() {
		// It must not go through the frames of ProcessTrace.
		if p := recover(); p != nil {
			c.err, c.f = fmt.Errorf("panic: %v\n%s", p, debug.Stack()), nil
			close(c.failed)
		}
	}()
	var data []byte
	if e.userData != nil && e.userDataLength > 0 {
		data = unsafe.Slice(e.userData, int(e.userDataLength))
	}
	if parseHeader(e.header[:], data, &c.rec) == nil {
		c.f(&c.rec)
		c.rec.Data = nil
	}
}

// open has f called for each event.
func (c *consumer) open(f func(*Record)) {
	c.mu.Lock()
	c.f = f
	c.mu.Unlock()
	consumers.Lock()
	defer consumers.Unlock()
	consumers.byID[c.id] = c
}

// forget keeps f from being called any more.
func (c *consumer) forget() {
	consumers.Lock()
	delete(consumers.byID, c.id)
	consumers.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.f = nil
}

func (c *consumer) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
