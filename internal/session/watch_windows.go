package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/event"
	"sekisho/internal/winlog"
)

// Run watches until ctx ends. It returns an error when Windows does not say any more
// which sessions there are.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	return w.newTracker(ctx, out).wts((&lister{}).list, winlog.Follow)
}

// What only Linux knows of a session and keeps of its records.
type (
	origin struct{}
	files  struct{}
)

var procQuerySession = windows.NewLazySystemDLL("wtsapi32.dll").NewProc("WTSQuerySessionInformationW")

// Values of WTS_INFO_CLASS (wtsapi32.h).
const (
	infoUserName       = 5
	infoDomainName     = 7
	infoClientName     = 10
	infoClientAddress  = 14
	infoClientProtocol = 16 // a USHORT: 0 at the PC, 1 ICA, 2 RDP
	infoSession        = 25 // WTSSessionInfoEx
)

// lister asks Windows for its sessions.
type lister struct {
	last  map[uint32]desk // those of the look before
	input inputOfPC
}

// list returns all sessions. One that ends meanwhile is left out.
func (x *lister) list() ([]desk, error) {
	var first *windows.WTS_SESSION_INFO
	var n uint32
	if err := windows.WTSEnumerateSessions(0, 0, 1, &first, &n); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	if first == nil {
		return nil, nil
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(first)))
	now := map[uint32]desk{}
	var all []desk
	screens := 0
	for _, s := range unsafe.Slice(first, min(n, 2*maxKnown)) {
		b, err := querySession(s.SessionID, infoSession)
		if err != nil {
			continue
		}
		d, err := parseInfo(b)
		if err != nil {
			return nil, fmt.Errorf("ask for session %d: %w", s.SessionID, err)
		}
		d.id = s.SessionID
		if d.user.Name != "" {
			old := x.last[d.id]
			if old.user.Name != "" && old.state == d.state && old.logon.Equal(d.logon) && old.connected.Equal(d.connected) {
				d.user, d.remote, d.from = old.user, old.remote, old.from
				if d.user.ID == "" {
					d.user.ID = sidOf(d.id) // who has just logged on has no token yet
				}
			} else if !d.complete() {
				continue
			}
		}
		now[d.id] = d
		if d.person() && !d.away() {
			screens++
		}
		all = append(all, d)
	}
	x.last = now
	ofPC := x.input.seen(lastInputTick(), uint32(windows.DurationSinceBoot()/time.Millisecond), time.Now())
	for i := range all {
		all[i].input = all[i].lastInput(ofPC, screens == 1)
	}
	return all, nil
}

// complete asks for what is no part of a WTSINFOEXW. False: it is gone.
func (d *desk) complete() bool {
	name, err := querySession(d.id, infoUserName)
	if err != nil {
		return false
	}
	domain, err := querySession(d.id, infoDomainName)
	if err != nil {
		return false
	}
	d.user = event.User{Name: parseText(name), Domain: parseText(domain), ID: sidOf(d.id)}
	if b, err := querySession(d.id, infoClientProtocol); err == nil && len(b) >= 2 {
		d.remote = binary.LittleEndian.Uint16(b) != 0
	}
	if !d.remote {
		return true
	}
	var from event.Source
	if b, err := querySession(d.id, infoClientAddress); err == nil {
		if a, ok := parseAddress(b); ok {
			from.IP = a.String()
		}
	}
	if b, err := querySession(d.id, infoClientName); err == nil {
		if s := sourceOf(parseText(b)); s != nil {
			from.Domain = s.Domain
		}
	}
	d.from = &from
	return true
}

// querySession asks for one thing about a session.
func querySession(id uint32, class uintptr) ([]byte, error) {
	if err := procQuerySession.Find(); err != nil {
		return nil, err
	}
	var p *byte
	var n uint32
	ok, _, err := procQuerySession.Call(0, uintptr(id), class, uintptr(unsafe.Pointer(&p)), uintptr(unsafe.Pointer(&n)))
	if ok == 0 {
		return nil, err
	}
	if p == nil {
		return nil, windows.ERROR_NO_DATA
	}
	defer windows.WTSFreeMemory(uintptr(unsafe.Pointer(p)))
	return append([]byte(nil), unsafe.Slice(p, min(n, 4096))...), nil
}

// sidOf is the SID of who has logged on in a session; "" if the agent is not
// LocalSystem, whom alone Windows tells.
func sidOf(id uint32) string {
	var token windows.Token
	if windows.WTSQueryUserToken(id, &token) != nil {
		return ""
	}
	defer token.Close()
	u, err := token.GetTokenUser()
	if err != nil {
		return ""
	}
	return u.User.Sid.String()
}

// Where every process finds KUSER_SHARED_DATA (ntddk.h), and
// LastSystemRITEventTickCount in it: the tick of the last input of all screens,
// noted at most once a second, by which Windows itself knows when a PC is idle.
const (
	sharedData    = 0x7ffe0000
	lastInputAddr = sharedData + 0x2e4
)

// lastInputTick is the tick of the last input; 0 for unknown.
func lastInputTick() uint32 {
	var b [4]byte
	var n uintptr
	// Read as if it were another's memory: what is not there is an error then.
	if windows.ReadProcessMemory(windows.CurrentProcess(), lastInputAddr, &b[0], uintptr(len(b)), &n) != nil || n != uintptr(len(b)) {
		return 0
	}
	return binary.LittleEndian.Uint32(b[:])
}
