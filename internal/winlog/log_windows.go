package winlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	wevtapi         = windows.NewLazySystemDLL("wevtapi.dll")
	procSubscribe   = wevtapi.NewProc("EvtSubscribe")
	procQuery       = wevtapi.NewProc("EvtQuery")
	procNext        = wevtapi.NewProc("EvtNext")
	procRender      = wevtapi.NewProc("EvtRender")
	procClose       = wevtapi.NewProc("EvtClose")
	procOpenConfig  = wevtapi.NewProc("EvtOpenChannelConfig")
	procGetProperty = wevtapi.NewProc("EvtGetChannelConfigProperty")
	procSetProperty = wevtapi.NewProc("EvtSetChannelConfigProperty")
	procSaveConfig  = wevtapi.NewProc("EvtSaveChannelConfig")
)

// load finds what is called, so that a call cannot panic for want of it.
var load = sync.OnceValue(func() error {
	for _, p := range []*windows.LazyProc{procSubscribe, procQuery, procNext, procRender, procClose, procOpenConfig, procGetProperty, procSetProperty, procSaveConfig} {
		if err := p.Find(); err != nil {
			return err
		}
	}
	return nil
})

// Values of winevt.h.
const (
	queryChannelPath = 0x1
	queryForward     = 0x100
	subscribeFuture  = 1
	subscribeOldest  = 2
	renderXML        = 1
	configEnabled    = 0  // EvtChannelConfigEnabled
	variantBoolean   = 13 // EvtVarTypeBoolean
)

// channelNotFound is ERROR_EVT_CHANNEL_NOT_FOUND of winerror.h.
const channelNotFound = windows.Errno(15007)

const (
	// maxRendered bounds a record in bytes.
	maxRendered = 2*maxXML + 2
	// queryWait is how long the service may think about a query, in ms.
	queryWait = 1000
)

// variant is EVT_VARIANT of winevt.h.
type variant struct {
	value uint64 // a union; a BOOL is its first four bytes
	count uint32
	kind  uint32
}

// evt is the logs of this PC.
type evt struct{}

var system source = evt{}

// failed says what did not work, and where possible what to do. Wine does nothing
// and calls that a success.
func failed(what string, err error) error {
	switch {
	case errors.Is(err, windows.ERROR_SUCCESS), errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED):
		err = errors.New("this Windows does not let its event logs be read")
	case errors.Is(err, channelNotFound):
		err = errors.New("this Windows has no such log")
	case errors.Is(err, windows.ERROR_ACCESS_DENIED):
		err = fmt.Errorf("%w; the agent has to run as LocalSystem or as administrator", err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// opened makes an error of a handle that is NULL, whatever the last error says.
func opened(what string, h uintptr, err error) (uintptr, error) {
	if h == 0 {
		return 0, failed(what, err)
	}
	return h, nil
}

func closeHandle(h uintptr) { procClose.Call(h) }

// config opens the settings of a channel.
func config(channel string) (uintptr, error) {
	if err := load(); err != nil {
		return 0, err
	}
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return 0, err
	}
	h, _, err := procOpenConfig.Call(0, uintptr(unsafe.Pointer(path)), 0)
	return opened("look at the log "+channel, h, err)
}

func (evt) enabled(channel string) (bool, error) {
	h, err := config(channel)
	if err != nil {
		return false, err
	}
	defer closeHandle(h)
	var v variant
	var used uint32
	ok, _, err := procGetProperty.Call(h, configEnabled, 0, unsafe.Sizeof(v), uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&used)))
	if ok == 0 || v.kind != variantBoolean {
		return false, failed("look at the log "+channel, err)
	}
	return uint32(v.value) != 0, nil
}

// Enable switches a channel on, for good; it needs the rights of an administrator.
func Enable(channel string) error {
	h, err := config(channel)
	if err != nil {
		return err
	}
	defer closeHandle(h)
	v := variant{value: 1, kind: variantBoolean}
	ok, _, err := procSetProperty.Call(h, configEnabled, 0, uintptr(unsafe.Pointer(&v)))
	if ok != 0 {
		ok, _, err = procSaveConfig.Call(h, 0)
	}
	if ok == 0 {
		return failed("switch on the log "+channel, err)
	}
	// A policy may have the last word.
	if on, err := (evt{}).enabled(channel); err != nil {
		return err
	} else if !on {
		return fmt.Errorf("switch on the log %s: Windows took it and left it off; is there a policy?", channel)
	}
	return nil
}

func (evt) subscribe(channel, query string, older bool) (stream, error) {
	if err := load(); err != nil {
		return nil, err
	}
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return nil, err
	}
	text, err := windows.UTF16PtrFromString(query)
	if err != nil {
		return nil, err
	}
	// One that resets itself: what is signalled while records are being taken
	// stays signalled.
	signal, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("read the log %s: %w", channel, err)
	}
	stop, err := windows.CreateEvent(nil, 0, 0, nil)
	if err != nil {
		windows.CloseHandle(signal)
		return nil, fmt.Errorf("read the log %s: %w", channel, err)
	}
	flags := uintptr(subscribeFuture)
	if older {
		flags = subscribeOldest
	}
	h, _, err := procSubscribe.Call(0, uintptr(signal), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(text)), 0, 0, 0, flags)
	if h, err = opened("read the log "+channel, h, err); err != nil {
		windows.CloseHandle(signal)
		windows.CloseHandle(stop)
		return nil, err
	}
	return &records{channel: channel, h: h, signal: signal, stop: stop}, nil
}

func (evt) query(channel, query string) (stream, error) {
	if err := load(); err != nil {
		return nil, err
	}
	path, err := windows.UTF16PtrFromString(channel)
	if err != nil {
		return nil, err
	}
	text, err := windows.UTF16PtrFromString(query)
	if err != nil {
		return nil, err
	}
	h, _, err := procQuery.Call(0, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(text)), queryChannelPath|queryForward)
	if h, err = opened("read the log "+channel, h, err); err != nil {
		return nil, err
	}
	return &records{channel: channel, h: h}, nil
}

// records is a subscription, or what a query found.
type records struct {
	channel string
	h       uintptr
	signal  windows.Handle // set by Windows when there are records; 0 of a query
	stop    windows.Handle // set to end a wait
	buf     []uint16
}

func (r *records) close() {
	closeHandle(r.h)
	if r.signal != 0 {
		windows.CloseHandle(r.signal)
		windows.CloseHandle(r.stop)
	}
}

func (r *records) next(ctx context.Context, wait time.Duration) ([]string, error) {
	list, err := r.take()
	if r.signal == 0 || len(list) > 0 || err != nil {
		return list, err
	}
	ended := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(ended)
		windows.SetEvent(r.stop)
	})
	_, err = windows.WaitForMultipleObjects([]windows.Handle{r.signal, r.stop}, false, uint32(max(wait, 0)/time.Millisecond))
	if !cancel() {
		<-ended // the event must not be closed under it
	}
	if err != nil {
		return nil, fmt.Errorf("read the log %s: %w", r.channel, err)
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	return r.take()
}

// take returns the next record that is there. One at a time: where several do not fit
// into one answer, Windows (RPC_S_INVALID_BOUND) has passed over them.
func (r *records) take() ([]string, error) {
	var h uintptr
	var n uint32
	patience := uintptr(0)
	if r.signal == 0 {
		patience = queryWait
	}
	ok, _, err := procNext.Call(r.h, 1, uintptr(unsafe.Pointer(&h)), patience, 0, uintptr(unsafe.Pointer(&n)))
	switch {
	case ok != 0 && n > 0:
		defer closeHandle(h)
		return []string{r.render(h)}, nil
	case ok != 0, errors.Is(err, windows.ERROR_TIMEOUT):
		return nil, nil
	case errors.Is(err, windows.ERROR_NO_MORE_ITEMS) && r.signal == 0:
		return nil, errEnd
	// The second is what a subscription says that has nothing and has signalled
	// nothing; no document tells of it.
	case errors.Is(err, windows.ERROR_NO_MORE_ITEMS), errors.Is(err, windows.ERROR_INVALID_OPERATION) && r.signal != 0:
		return nil, nil
	}
	return nil, failed("read the log "+r.channel, err)
}

// render makes the text of a record; of one that is too long, or that Windows cannot
// render, none, which Decode refuses, so that it is counted as lost.
func (r *records) render(h uintptr) string {
	if r.buf == nil {
		r.buf = make([]uint16, 8<<10)
	}
	for {
		var used, properties uint32
		ok, _, err := procRender.Call(0, h, renderXML, uintptr(2*len(r.buf)), uintptr(unsafe.Pointer(&r.buf[0])), uintptr(unsafe.Pointer(&used)), uintptr(unsafe.Pointer(&properties)))
		if ok != 0 {
			return windows.UTF16ToString(r.buf[:min(int(used)/2, len(r.buf))])
		}
		if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || int(used) <= 2*len(r.buf) || used > maxRendered {
			return ""
		}
		r.buf = make([]uint16, (used+1)/2)
	}
}
