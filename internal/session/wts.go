package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf16"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/winlog"
)

// What Windows says of its sessions: its Remote Desktop Services know all of them,
// those at the PC too. It is looked at every two seconds, and at once when the
// Local Session Manager writes into its log, which also tells when it was and from
// which address. Who asks Windows is in watch_windows.go.

// sessionLog is the log of the Local Session Manager, switched on as Windows comes.
const sessionLog = "Microsoft-Windows-TerminalServices-LocalSessionManager/Operational"

// Records of that log (manifest of Microsoft-Windows-TerminalServices-
// LocalSessionManager). All carry User and SessionID, all but the second Address,
// which is none at the PC.
const (
	recordLogon        = 21 // "Session logon succeeded"
	recordLogoff       = 23 // "Session logoff succeeded"
	recordDisconnected = 24 // "Session has been disconnected"
	recordReconnected  = 25 // "Session reconnection succeeded"
)

// Values of wtsapi32.h. Windows 7 and Server 2008 R2 had the two of SessionFlags the
// other way round (MSDN, WTSINFOEX_LEVEL1_W); programs of Go need Windows 10.
const (
	wtsActive       = 0 // WTS_CONNECTSTATE_CLASS: somebody has it on a screen
	wtsConnected    = 1
	wtsShadow       = 3
	wtsDisconnected = 4 // the person went away and may come back: RDP was closed, or another one sits there now

	wtsLocked   = 0 // WTSINFOEX_LEVEL1.SessionFlags
	wtsUnlocked = 1
)

// desk is a session of Windows.
type desk struct {
	id        uint32
	state     uint32 // WTS_CONNECTSTATE_CLASS
	flags     uint32 // wtsLocked, wtsUnlocked, or unknown
	user      event.User
	remote    bool          // it is on a screen elsewhere
	from      *event.Source // as the program there says of itself; nil at the PC
	logon     time.Time     // zero if unknown, as are those below
	connected time.Time     // the last time that a screen was connected
	input     time.Time     // last key or movement
	now       time.Time     // by the clock that all these are of
}

// The sizes of what WTSQuerySessionInformation returns (wtsapi32.h; MSDN,
// WTSINFOEXW, WTSINFOEX_LEVEL1_W, WTS_CLIENT_ADDRESS).
const (
	// infoSize is a WTSINFOEXW: Level, 4 bytes of alignment, then SessionId,
	// SessionState, SessionFlags, WinStationName[33], UserName[21], DomainName[18],
	// LogonTime at 168, ConnectTime, DisconnectTime, LastInputTime, CurrentTime and
	// six counters.
	infoSize  = 232
	infoNames = 20
	infoTimes = 168

	addressSize = 24 // a WTS_CLIENT_ADDRESS: AddressFamily, Address[20]

	familyIPv4 = 2  // AF_INET
	familyIPv6 = 23 // AF_INET6
)

// parseInfo reads a WTSINFOEXW of level 1. The names in it are cut at 20 and 17
// characters; who asks has to ask for them again.
func parseInfo(b []byte) (desk, error) {
	if len(b) < infoSize {
		return desk{}, fmt.Errorf("session information of %d bytes, not %d", len(b), infoSize)
	}
	le := binary.LittleEndian
	if level := le.Uint32(b); level != 1 {
		return desk{}, fmt.Errorf("session information of level %d", level)
	}
	names := b[infoNames:]
	return desk{
		id: le.Uint32(b[8:]), state: le.Uint32(b[12:]), flags: le.Uint32(b[16:]),
		user:  event.User{Name: parseText(names[2*33 : 2*(33+21)]), Domain: parseText(names[2*(33+21) : 2*(33+21+18)])},
		logon: fileTime(le.Uint64(b[infoTimes:])), connected: fileTime(le.Uint64(b[infoTimes+8:])),
		input: fileTime(le.Uint64(b[infoTimes+24:])), now: fileTime(le.Uint64(b[infoTimes+32:])),
	}, nil
}

// parseAddress reads a WTS_CLIENT_ADDRESS: where the program at the other end of a
// remote session says it is. An IPv4 address begins at the third byte, one of IPv6
// at the first.
func parseAddress(b []byte) (netip.Addr, bool) {
	if len(b) < addressSize {
		return netip.Addr{}, false
	}
	var a netip.Addr
	switch binary.LittleEndian.Uint32(b) {
	case familyIPv4:
		a = netip.AddrFrom4([4]byte(b[6:]))
	case familyIPv6:
		a = netip.AddrFrom16([16]byte(b[4:])).Unmap()
	}
	return a, a.IsValid() && !a.IsUnspecified()
}

// parseText reads UTF-16 up to the first NUL, as a name.
func parseText(b []byte) string {
	var units []uint16
	for ; len(b) > 1; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 || len(units) == 256 {
			break
		}
		units = append(units, c)
	}
	return clean(string(utf16.Decode(units)))
}

// fileTime is a time in 100 ns since 1601; zero for none and for one that is no
// time of ours.
func fileTime(t uint64) time.Time {
	const (
		to1970   = 116_444_736_000_000_000
		year2500 = 283_700_000_000_000_000
	)
	if t <= to1970 || t > year2500 {
		return time.Time{}
	}
	t -= to1970
	return time.Unix(int64(t/1e7), int64(t%1e7)*100).UTC()
}

// lastInput is when somebody last typed or moved the mouse in a session; zero if
// unknown. Of the one at the PC Windows says nothing, or the time at which it was
// asked, or one that stands still. There the last input of the whole PC counts if it
// is later, unless another screen is in use, whose input it may be.
func (d *desk) lastInput(ofPC time.Time, alone bool) time.Time {
	if d.remote {
		return d.input
	}
	if !alone {
		return time.Time{}
	}
	at := d.input
	if d.now.Sub(at) <= time.Second {
		at = time.Time{}
	}
	if ofPC.After(at) {
		at = ofPC
	}
	return at
}

// inputOfPC is the last input of a PC, by a clock that counts ms and runs over every
// 49 days.
type inputOfPC struct {
	tick uint32 // by that clock; 0 for none
	at   time.Time
}

// seen takes the tick of the last input, and that of now. As long as it is the same one
// its time stands, however the clock of the PC is set.
func (i *inputOfPC) seen(last, tick uint32, now time.Time) time.Time {
	if last != i.tick {
		*i = inputOfPC{tick: last, at: now.Add(-sinceTick(last, tick))}
	}
	if last == 0 {
		return time.Time{}
	}
	return i.at
}

// sinceTick is the time between two ticks. The later one may have been read a little
// too early.
func sinceTick(last, now uint32) time.Duration {
	if d := now - last; d < 1<<32-60_000 {
		return time.Duration(d) * time.Millisecond
	}
	return 0
}

// person reports whether somebody has logged on in it: not so in that of services, in
// those that wait for connections and at a screen where nobody has logged on yet.
func (d *desk) person() bool {
	return d.user.Name != "" && slices.Contains([]uint32{wtsActive, wtsConnected, wtsShadow, wtsDisconnected}, d.state)
}

// away reports whether it is on no screen.
func (d *desk) away() bool { return d.state == wtsDisconnected }

// locked reports whether nobody can use it without logging on.
func (d *desk) locked() bool { return d.away() || d.flags == wtsLocked }

// news is what the log said of a session.
type news struct {
	user  event.User
	logon time.Time     // when it began; zero: not heard
	end   time.Time     // when it ended; zero: it did not
	from  *event.Source // as Windows saw it; nil at the PC
}

// desks are the sessions of a PC with Windows as they are followed.
type desks struct {
	*tracker
	list func() ([]desk, error)
	news map[uint32]*news
	log  error // why the log is not read; nil: it is
}

// wts works by what Windows says of its sessions until the context ends. An error says
// that it says nothing any more.
func (t *tracker) wts(list func() ([]desk, error), follow func(context.Context, winlog.Options)) error {
	x := &desks{tracker: t, list: list, news: map[uint32]*news{}}
	ctx, cancel := context.WithCancel(t.ctx)
	records, said := make(chan *winlog.Event), make(chan error)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		follow(ctx, winlog.Options{
			Channel: sessionLog, IDs: []int{recordLogon, recordLogoff, recordDisconnected, recordReconnected},
			Tell: func(e *winlog.Event) { pass(ctx, records, e) },
			Say:  func(err error) { pass(ctx, said, err) },
		})
	})
	// What the log says first is whether it can be read at all.
	select {
	case <-ctx.Done():
		return nil
	case x.log = <-said:
	case <-time.After(busTime):
		x.log = fmt.Errorf("the service of the logs did not answer within %v", busTime)
	}
	if err := x.look(t.takeOver(mechanismWTS)); err != nil {
		return err
	}
	poll := time.NewTicker(t.opt.Poll)
	defer poll.Stop()
	for {
		proof := ""
		select {
		case <-ctx.Done():
			return nil
		case x.log = <-said:
		case e := <-records:
			x.hear(e)
		case <-poll.C:
		case proof = <-t.proofs:
		}
		if err := x.look(false); err != nil {
			return err
		}
		t.proven(proof)
	}
}

// pass hands something to who takes it, unless ctx ends first.
func pass[T any](ctx context.Context, to chan<- T, x T) {
	select {
	case to <- x:
	case <-ctx.Done():
	}
}

// hear notes what the log says of a session; what is open is for look to find.
func (x *desks) hear(e *winlog.Event) {
	id64, err := strconv.ParseUint(e.Get("SessionID"), 10, 32)
	if err != nil {
		return
	}
	id := uint32(id64)
	n := x.news[id]
	if n == nil || e.ID == recordLogon {
		if len(x.news) >= maxKnown {
			clear(x.news)
		}
		n = &news{}
		x.news[id] = n
	}
	from := sourceOf(clean(e.Get("Address")))
	if from != nil && from.IP == "" {
		from = nil // "LOCAL", in the language of the PC
	}
	switch e.ID {
	case recordLogon:
		n.user, n.logon, n.from = event.Account(clean(e.Get("User"))), e.Time, from
	case recordLogoff:
		if n.end = e.Time; x.known[strconv.FormatUint(id64, 10)] != nil {
			return
		}
		// It was over before anybody looked.
		delete(x.news, id)
		if !n.logon.IsZero() {
			l := &login{id: strconv.FormatUint(id64, 10), user: n.user, kind: Console, from: n.from, began: n.logon, graphical: true}
			if n.from != nil {
				l.kind = Remote
			}
			x.begin(l.id, l, false)
			x.end(l.id, n.end)
		}
	case recordDisconnected:
		n.from = nil
	case recordReconnected:
		n.from = from
	}
}

// look lists the sessions and tells what changed.
func (x *desks) look(silent bool) error {
	all, err := x.list()
	if err != nil {
		return err // who runs the sensor tells that it is down
	}
	switch {
	case len(all) == 0:
		// There is always that of the services.
		x.tellState(endpoint.SensorUnavailable, "", "this Windows lists no sessions")
	case x.log != nil:
		x.tellState(endpoint.SensorLimited, mechanismWTS, fmt.Sprintf("sessions are looked at every %v; shorter ones, and from where remote ones really come, are not seen: %v", x.opt.Poll, x.log))
	default:
		x.tellState(endpoint.SensorOK, mechanismWTS+"+event-log", "")
	}
	open := map[string]*desk{}
	for i := range all {
		if d := &all[i]; d.person() {
			open[d.key()] = d
		}
	}
	for key, l := range x.known {
		if d := open[key]; d != nil && d.is(l) {
			continue
		}
		var at time.Time
		if id, err := strconv.ParseUint(key, 10, 32); err == nil && x.news[uint32(id)] != nil {
			at = x.news[uint32(id)].end
			delete(x.news, uint32(id))
		}
		x.end(key, at)
	}
	for i := range all { // in the order of Windows
		d := &all[i]
		if open[d.key()] != d {
			continue
		}
		n := x.news[d.id]
		if l := x.known[d.key()]; l != nil {
			x.change(l, d, n)
			continue
		}
		l := &login{id: d.key(), user: d.user, kind: Console, began: d.logon, connected: d.connected, graphical: true, active: !d.away(), locked: d.locked(), input: d.input}
		if d.remote {
			l.kind, l.from = Remote, d.source(n)
		}
		x.begin(l.id, l, silent)
	}
	return nil
}

func (d *desk) key() string { return strconv.FormatUint(uint64(d.id), 10) }

// is reports whether it is a session that is known: Windows gives an id again.
func (d *desk) is(l *login) bool {
	return l.user.Name == d.user.Name && l.user.Domain == d.user.Domain && (l.began.IsZero() || d.logon.IsZero() || l.began.Equal(d.logon))
}

// source is where the person is: the address that Windows saw rather than the one that
// the program there tells, and the name of the PC there.
func (d *desk) source(n *news) *event.Source {
	var s event.Source
	if d.from != nil {
		s = *d.from
	}
	if n != nil && n.from != nil {
		s.IP = n.from.IP
	}
	if s == (event.Source{}) {
		return nil
	}
	return &s
}

// change takes what is new of a session that is known.
func (x *desks) change(l *login, d *desk, n *news) {
	if l.user.ID == "" && d.user.ID != "" {
		l.user.ID = d.user.ID
		x.lookup.opened(l)
	}
	moved := false
	if !d.away() { // else it is where it was last
		kind, from := Console, (*event.Source)(nil)
		if d.remote {
			kind, from = Remote, d.source(n)
		}
		moved = kind != l.kind || !d.connected.IsZero() && !l.connected.IsZero() && !d.connected.Equal(l.connected)
		if moved || from != l.from && (from == nil || l.from == nil || *from != *l.from) {
			l.kind, l.from, l.connected = kind, from, d.connected
			x.lookup.opened(l)
		}
	}
	locked := d.locked() || d.flags != wtsUnlocked && l.active && l.locked // unknown: as it was, on the same screen
	l.active = !d.away()
	switch {
	case locked && !l.locked:
		x.lock(l, true)
	case !locked && l.locked:
		l.idleSince = l.input // the last one before it was locked
		x.lock(l, false)
		l.idleSince, l.input = time.Time{}, d.input
	case !locked && moved:
		// So quickly that nobody saw it locked: who took it over logged on for it.
		e := x.event(event.SessionUnlocked, l, d.connected)
		e.Message = "taken over on another screen"
		x.send(x.ctx, x.out, e)
		l.input = d.input
	case !locked && d.input.IsZero():
		l.input = time.Time{} // what comes later is not to be compared with what was
	case !locked:
		x.read(l, d.input)
	}
}
