package etw

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/guid"
)

// TestLayouts compares with what a C compiler makes of evntrace.h and evntcons.h
// (mingw-w64 10, 64-bit).
func TestLayouts(t *testing.T) {
	var (
		p properties
		l logFile
		r eventRecord
	)
	for _, c := range []struct {
		what      string
		got, want uintptr
	}{
		{"EVENT_TRACE_PROPERTIES.BufferSize", unsafe.Offsetof(p.bufferSize), 48},
		{"EVENT_TRACE_PROPERTIES.EventsLost", unsafe.Offsetof(p.eventsLost), 88},
		{"EVENT_TRACE_PROPERTIES.RealTimeBuffersLost", unsafe.Offsetof(p.realTimeBuffersLost), 100},
		{"EVENT_TRACE_PROPERTIES.LoggerThreadId", unsafe.Offsetof(p.loggerThread), 104},
		{"EVENT_TRACE_PROPERTIES.LoggerNameOffset", unsafe.Offsetof(p.loggerNameOffset), 116},
		{"EVENT_TRACE_PROPERTIES", unsafe.Offsetof(p.name), 120},
		{"EVENT_TRACE_LOGFILEW.LoggerName", unsafe.Offsetof(l.loggerName), 8},
		{"EVENT_TRACE_LOGFILEW.ProcessTraceMode", unsafe.Offsetof(l.processTraceMode), 28},
		{"EVENT_TRACE_LOGFILEW.CurrentEvent", unsafe.Offsetof(l.currentEvent), 32},
		{"EVENT_TRACE_LOGFILEW.LogfileHeader", unsafe.Offsetof(l.header), 120},
		{"EVENT_TRACE_LOGFILEW.BufferCallback", unsafe.Offsetof(l.bufferCallback), 400},
		{"EVENT_TRACE_LOGFILEW.EventsLost", unsafe.Offsetof(l.eventsLost), 416},
		{"EVENT_TRACE_LOGFILEW.EventRecordCallback", unsafe.Offsetof(l.recordCallback), 424},
		{"EVENT_TRACE_LOGFILEW.IsKernelTrace", unsafe.Offsetof(l.isKernelTrace), 432},
		{"EVENT_TRACE_LOGFILEW.Context", unsafe.Offsetof(l.context), 440},
		{"EVENT_TRACE_LOGFILEW", unsafe.Sizeof(l), 448},
		{"EVENT_RECORD.BufferContext", unsafe.Offsetof(r.bufferContext), 80},
		{"EVENT_RECORD.ExtendedDataCount", unsafe.Offsetof(r.extendedDataCount), 84},
		{"EVENT_RECORD.UserDataLength", unsafe.Offsetof(r.userDataLength), 86},
		{"EVENT_RECORD.UserData", unsafe.Offsetof(r.userData), 96},
		{"EVENT_RECORD.UserContext", unsafe.Offsetof(r.userContext), 104},
		{"EVENT_RECORD", unsafe.Sizeof(r), 112},
		{"ENABLE_TRACE_PARAMETERS.SourceId", unsafe.Offsetof(enableParameters{}.sourceID), 12},
		{"ENABLE_TRACE_PARAMETERS.EnableFilterDesc", unsafe.Offsetof(enableParameters{}.filters), 32},
		{"ENABLE_TRACE_PARAMETERS.FilterDescCount", unsafe.Offsetof(enableParameters{}.filterCount), 40},
		{"ENABLE_TRACE_PARAMETERS", unsafe.Sizeof(enableParameters{}), 48},
		{"EVENT_FILTER_DESCRIPTOR.Type", unsafe.Offsetof(filterDescriptor{}.kind), 12},
		{"EVENT_FILTER_DESCRIPTOR", unsafe.Sizeof(filterDescriptor{}), 16},
		{"EVENT_FILTER_EVENT_ID.Count", unsafe.Offsetof(eventIDs{}.count), 2},
		{"EVENT_FILTER_EVENT_ID.Events", unsafe.Offsetof(eventIDs{}.ids), 4},
	} {
		if c.got != c.want {
			t.Errorf("%s is at, or has, %d, want %d", c.what, c.got, c.want)
		}
	}
}

// event is an EVENT_RECORD for a consumer.
func (c *consumer) event(data []byte) *eventRecord {
	r := &eventRecord{userContext: c.id, userDataLength: uint16(len(data))}
	copy(r.header[:], header(0x40))
	if len(data) > 0 {
		r.userData = &data[0]
	}
	return r
}

func TestCallbackFindsItsConsumer(t *testing.T) {
	var got [2][]string
	var cs [2]*consumer
	for i := range cs {
		cs[i] = &consumer{id: consumers.last.Add(1), failed: make(chan struct{})}
		cs[i].open(func(r *Record) { got[i] = append(got[i], string(r.Data)) })
		defer cs[i].forget()
	}
	onRecord(nil)
	onRecord(&eventRecord{userContext: ^uintptr(0)})
	onRecord(cs[0].event([]byte("one")))
	onRecord(cs[1].event([]byte("two")))
	onRecord(cs[0].event(nil))
	cs[0].forget()
	onRecord(cs[0].event([]byte("late")))
	if len(got[0]) != 2 || got[0][0] != "one" || got[0][1] != "" || len(got[1]) != 1 || got[1][0] != "two" {
		t.Errorf("got %q", got)
	}
}

// TestCallbackAsWindowsCallsIt goes through the address that Windows is given, from
// many threads.
func TestCallbackAsWindowsCallsIt(t *testing.T) {
	const threads, events = 4, 1000
	var n atomic.Int64
	var wg sync.WaitGroup
	for range threads {
		c := &consumer{id: consumers.last.Add(1), failed: make(chan struct{})}
		c.open(func(r *Record) {
			if string(r.Data) == "data" && r.ID == 1 {
				n.Add(1)
			}
		})
		defer c.forget()
		wg.Go(func() {
			e := c.event([]byte("data"))
			for range events {
				_, _, _ = syscall.SyscallN(callback(), uintptr(unsafe.Pointer(e)))
			}
		})
	}
	wg.Wait()
	if n.Load() != threads*events {
		t.Errorf("%d events of %d came", n.Load(), threads*events)
	}
}

func BenchmarkCallback(b *testing.B) {
	c := &consumer{id: consumers.last.Add(1), failed: make(chan struct{})}
	c.open(func(*Record) {})
	defer c.forget()
	e := c.event([]byte("data"))
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = syscall.SyscallN(callback(), uintptr(unsafe.Pointer(e)))
	}
}

func TestPanicOfAConsumerIsItsError(t *testing.T) {
	c := &consumer{id: consumers.last.Add(1), failed: make(chan struct{})}
	n := 0
	c.open(func(*Record) { n++; panic("of the test") })
	defer c.forget()
	onRecord(c.event(nil))
	onRecord(c.event(nil))
	if n != 1 || c.failure() == nil {
		t.Errorf("called %d times, error %v", n, c.failure())
	}
	select {
	case <-c.failed:
	default:
		t.Error("nobody is told")
	}
}

// TestSession reads from a real session where there is one to be had, and sees to it
// that a system that only pretends says so.
func TestSession(t *testing.T) {
	s, err := Start("Sekisho-Test", Provider{ID: guid.Must("{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}"), Keywords: 0x10})
	if wine() {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Wine has no event tracing, and Start says %v", err)
		}
		t.Logf("Wine: %v", err)
		return
	}
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		t.Skip("needs an administrator")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Run(ctx, func(*Record) {}); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Lost(); err != nil {
		t.Error(err)
	}
}
