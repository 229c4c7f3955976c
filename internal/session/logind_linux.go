package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Names of logind on the bus (org.freedesktop.login1(5)).
const (
	logindName    = "org.freedesktop.login1"
	logindPath    = dbus.ObjectPath("/org/freedesktop/login1")
	sessionsPath  = dbus.ObjectPath("/org/freedesktop/login1/session")
	logindManager = "org.freedesktop.login1.Manager"
	logindSession = "org.freedesktop.login1.Session"
	properties    = "org.freedesktop.DBus.Properties"
	theBus        = "org.freedesktop.DBus"
)

const (
	// absence is how long logind may be away from the bus, as when it is updated,
	// before something else is tried.
	absence = 10 * time.Second
	// signalQueue is how many signals may wait. A session coming and going makes
	// four; beyond it sessions are listed anew.
	signalQueue = 1024
)

// bus is a connection to the system bus on which logind is.
type bus struct {
	conn *dbus.Conn
	in   *inbox
	list []listed // the sessions at the beginning
}

// listed is a row of ListSessions.
type listed struct {
	ID   string
	UID  uint32
	User string
	Seat string
	Path dbus.ObjectPath
}

// inbox takes signals from the connection. Anybody on the bus may send one to
// us: only what logind and the bus itself say counts. It never waits, as the
// connection's answers come the same way.
type inbox struct {
	logind   atomic.Pointer[string] // the connection that is logind now
	signals  chan *dbus.Signal
	overflow atomic.Bool // some were dropped
}

// DeliverSignal implements dbus.SignalHandler.
func (b *inbox) DeliverSignal(_, _ string, s *dbus.Signal) {
	owner := b.logind.Load()
	if s.Sender != theBus && (owner == nil || *owner == "" || s.Sender != *owner) {
		return
	}
	select {
	case b.signals <- s:
	default:
		b.overflow.Store(true)
	}
}

// openLogind connects to the bus and asks logind for its sessions. An error says
// why there is no logind to be had.
func openLogind(ctx context.Context, address string) (*bus, error) {
	b := &bus{in: &inbox{signals: make(chan *dbus.Signal, signalQueue)}}
	// The connection lives as long as its context; a bus that does not answer is
	// given up by ending it.
	connCtx, cancel := context.WithCancel(ctx)
	giveUp := time.AfterFunc(busTime, cancel)
	opts := []dbus.ConnOption{dbus.WithContext(connCtx), dbus.WithSignalHandler(b.in)}
	var err error
	if address == "" {
		b.conn, err = dbus.ConnectSystemBus(opts...)
	} else {
		b.conn, err = dbus.Connect(address, opts...)
	}
	if !giveUp.Stop() && err == nil {
		err = fmt.Errorf("no answer within %v", busTime)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	context.AfterFunc(b.conn.Context(), cancel)
	if err := b.subscribe(ctx); err != nil {
		b.conn.Close()
		return nil, err
	}
	return b, nil
}

// subscribe asks for logind's signals, and then for its sessions, so that none
// falls between.
func (b *bus) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, busTime)
	defer cancel()
	// Asking starts logind where the bus knows how to; who answers is logind.
	if err := b.sessions(ctx); err != nil {
		return err
	}
	var owner string
	if err := b.conn.BusObject().CallWithContext(ctx, theBus+".GetNameOwner", 0, logindName).Store(&owner); err != nil {
		return fmt.Errorf("find logind on the bus: %w", err)
	}
	b.in.logind.Store(&owner)
	from := dbus.WithMatchSender(logindName)
	for _, match := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(theBus), dbus.WithMatchInterface(theBus), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, logindName)},
		{from, dbus.WithMatchInterface(logindManager), dbus.WithMatchMember("SessionNew")},
		{from, dbus.WithMatchInterface(logindManager), dbus.WithMatchMember("SessionRemoved")},
		{from, dbus.WithMatchInterface(logindManager), dbus.WithMatchMember("PrepareForSleep")},
		{from, dbus.WithMatchInterface(logindSession)},
		{from, dbus.WithMatchInterface(properties), dbus.WithMatchPathNamespace(sessionsPath)},
	} {
		if err := b.conn.AddMatchSignalContext(ctx, match...); err != nil {
			return fmt.Errorf("subscribe to logind's signals: %w", err)
		}
	}
	return b.sessions(ctx)
}

// sessions lists what is open.
func (b *bus) sessions(ctx context.Context) error {
	b.list = nil
	if err := b.call(ctx, logindPath, logindManager+".ListSessions").Store(&b.list); err != nil {
		return fmt.Errorf("ask logind for its sessions: %w", err)
	}
	return nil
}

func (b *bus) call(ctx context.Context, path dbus.ObjectPath, method string, args ...any) *dbus.Call {
	return b.conn.Object(logindName, path).CallWithContext(ctx, method, 0, args...)
}

// read asks for all of a session.
func (b *bus) read(ctx context.Context, path dbus.ObjectPath) (map[string]dbus.Variant, error) {
	ctx, cancel := context.WithTimeout(ctx, busTime)
	defer cancel()
	var all map[string]dbus.Variant
	err := b.call(ctx, path, properties+".GetAll", logindSession).Store(&all)
	return all, err
}

// property is a value of the type it should have; false where it is absent or of
// another.
func property[T any](all map[string]dbus.Variant, name string) (T, bool) {
	v, ok := all[name].Value().(T)
	return v, ok
}

// person reports whether a session is somebody's, by its class
// (sd_session_get_class(3)): "user", and from systemd 256 on "user-early",
// "user-light". A "user-incomplete" one becomes one of these. Others are
// "greeter", "lock-screen", "background" (cron), "manager".
func person(class string) bool {
	return class == "user" || strings.HasPrefix(class, "user-") && class != "user-incomplete"
}

// loginOf makes a session of what logind says of it. Absent properties stay
// empty.
func loginOf(all map[string]dbus.Variant) *login {
	l := &login{kind: Console}
	l.id, _ = property[string](all, "Id")
	l.id = clean(l.id)
	name, _ := property[string](all, "Name")
	l.user = event.Account(clean(name))
	if u, ok := property[[]any](all, "User"); ok && len(u) > 0 {
		if uid, ok := u[0].(uint32); ok {
			l.user.ID = strconv.FormatUint(uint64(uid), 10)
		}
	}
	l.began = moment(all, "Timestamp")
	if leader, ok := property[uint32](all, "Leader"); ok && leader > 0 && leader < 1<<31 {
		l.pids = []int{int(leader)}
	}
	remote, _ := property[bool](all, "Remote")
	host, _ := property[string](all, "RemoteHost")
	service, _ := property[string](all, "Service")
	// xrdp does not tell PAM where the person is.
	if remote || host != "" || strings.HasPrefix(service, "xrdp") {
		l.kind, l.from = Remote, sourceOf(clean(host))
	}
	if tty, _ := property[string](all, "TTY"); terminal(tty) {
		l.tty = tty
	}
	typ, _ := property[string](all, "Type")
	l.graphical = typ == "x11" || typ == "wayland" || typ == "mir"
	l.active, _ = property[bool](all, "Active")
	l.locked, _ = property[bool](all, "LockedHint")
	l.idleSince = idleSince(all)
	return l
}

// moment is a time in microseconds since 1970; zero if absent or no time of ours.
func moment(all map[string]dbus.Variant, name string) time.Time {
	us, ok := property[uint64](all, name)
	if !ok || us == 0 || us > 1<<54 { // the year 2540
		return time.Time{}
	}
	return time.UnixMicro(int64(us)).UTC()
}

// idleSince is since when a desktop calls itself idle; zero if it does not.
func idleSince(all map[string]dbus.Variant) time.Time {
	if idle, _ := property[bool](all, "IdleHint"); !idle {
		return time.Time{}
	}
	since, now := moment(all, "IdleSinceHint"), time.Now()
	if since.IsZero() || since.After(now) {
		since = now
	}
	return since
}

// logind works by logind until the context ends or the bus or logind go away;
// the error says which.
func (t *tracker) logind(b *bus) error {
	defer b.conn.Close()
	t.compareSessions(b, t.takeOver(mechanismLogind))
	t.hadLogind = true
	t.tellState(endpoint.SensorOK, mechanismLogind, "")
	inputs := time.NewTicker(t.opt.Inputs)
	defer inputs.Stop()
	var settle, away <-chan time.Time
	for {
		if settle == nil && t.unsettled() {
			settle = time.After(t.opt.Settle)
		}
		select {
		case <-t.ctx.Done():
			return nil
		case <-b.conn.Context().Done():
			return errors.New("the system bus closed the connection")
		case <-away:
			return errors.New("logind left the system bus")
		case <-settle:
			settle = nil
			t.settle(time.Now())
		case <-inputs.C:
			t.inputs()
			t.leaders()
		case nonce := <-t.proofs:
			if away != nil {
				continue // nobody can say; it is asked for again
			}
			if err := t.again(b); err != nil {
				return err
			}
			t.proven(nonce)
		case s := <-b.in.signals:
			if owner, ok := newOwner(s); ok {
				b.in.logind.Store(&owner)
				if away = nil; owner == "" {
					away = time.After(absence)
					continue
				}
				if err := t.again(b); err != nil {
					return err
				}
				continue
			}
			t.signal(b, s)
		}
		if b.in.overflow.Load() && len(b.in.signals) == 0 {
			b.in.overflow.Store(false)
			t.lost("signals of logind were dropped, how many is not known; sessions were listed again")
			if err := t.again(b); err != nil {
				return err
			}
		}
	}
}

// newOwner reads who is logind from now on; "" for nobody.
func newOwner(s *dbus.Signal) (owner string, ok bool) {
	if s.Sender != theBus || s.Name != theBus+".NameOwnerChanged" || len(s.Body) != 3 || s.Body[0] != logindName {
		return "", false
	}
	owner, ok = s.Body[2].(string)
	return owner, ok
}

// again lists the sessions and tells what changed.
func (t *tracker) again(b *bus) error {
	ctx, cancel := context.WithTimeout(t.ctx, busTime)
	defer cancel()
	if err := b.sessions(ctx); err != nil {
		return err
	}
	t.compareSessions(b, false)
	return nil
}

// compareSessions tells how the listed sessions differ from the known ones.
func (t *tracker) compareSessions(b *bus, silent bool) {
	there := map[string]bool{}
	for _, s := range b.list {
		there[string(s.Path)] = true
		if l := t.known[string(s.Path)]; l == nil {
			t.open(b, s.Path, silent)
		} else if all, err := b.read(t.ctx, s.Path); err == nil {
			t.change(l, all)
		}
	}
	for key := range t.known {
		if !there[key] {
			t.end(key, time.Time{})
		}
	}
}

// signal takes one signal of logind.
func (t *tracker) signal(b *bus, s *dbus.Signal) {
	key := string(s.Path)
	switch s.Name {
	case logindManager + ".SessionNew", logindManager + ".SessionRemoved":
		var id string
		var path dbus.ObjectPath
		if dbus.Store(s.Body, &id, &path) != nil {
			return
		}
		if strings.HasSuffix(s.Name, "Removed") {
			t.end(string(path), time.Time{})
		} else {
			t.open(b, path, false)
		}
	case logindManager + ".PrepareForSleep":
		var sleeping bool
		if dbus.Store(s.Body, &sleeping) == nil {
			t.power(sleeping)
		}
	case logindSession + ".Lock", logindSession + ".Unlock":
		if l := t.known[key]; l != nil {
			t.ask(l, s.Name == logindSession+".Lock")
		}
	case properties + ".PropertiesChanged":
		var of string
		var changed map[string]dbus.Variant
		var stale []string
		if dbus.Store(s.Body, &of, &changed, &stale) != nil || of != logindSession {
			return
		}
		l := t.known[key]
		if l == nil {
			if class, ok := property[string](changed, "Class"); ok && person(class) {
				t.open(b, s.Path, false)
			}
			return
		}
		if len(stale) > 0 {
			if all, err := b.read(t.ctx, s.Path); err == nil {
				changed = all
			}
		}
		t.change(l, changed)
	}
}

// open reads a session that began and tells of it, if it is somebody's.
func (t *tracker) open(b *bus, path dbus.ObjectPath, silent bool) {
	if t.known[string(path)] != nil {
		return
	}
	all, err := b.read(t.ctx, path)
	if err != nil {
		if t.ctx.Err() == nil && !silent {
			t.lost(fmt.Sprintf("a session began and was gone before it could be read: %v", err))
		}
		return
	}
	if class, _ := property[string](all, "Class"); !person(class) {
		return
	}
	if state, _ := property[string](all, "State"); state == "closing" {
		return // its person left; a program that was left running keeps it
	}
	t.begin(string(path), loginOf(all), silent)
}

// change takes properties of a session, of which those that did not change may be
// absent.
func (t *tracker) change(l *login, changed map[string]dbus.Variant) {
	if active, ok := property[bool](changed, "Active"); ok {
		l.active = active
	}
	if tty, ok := property[string](changed, "TTY"); ok && terminal(tty) {
		l.tty = tty
	}
	// The lock first: a desktop that was unlocked and is in use again was locked
	// while it was idle.
	if locked, ok := property[bool](changed, "LockedHint"); ok {
		t.lock(l, locked)
	}
	if _, ok := property[bool](changed, "IdleHint"); ok && l.graphical {
		if since := idleSince(changed); since.IsZero() || l.idleSince.IsZero() {
			t.idle(l, since)
		}
	}
}

// leaders ends sessions whose first process is gone: logind keeps them, "closing",
// as long as a program that was left running is there.
func (t *tracker) leaders() {
	for key, l := range t.known {
		if len(l.pids) > 0 && !t.alive(l.pids[0]) {
			t.end(key, time.Time{})
		}
	}
}

// unsettled reports whether settle has something to look at later.
func (t *tracker) unsettled() bool {
	if !t.woke.IsZero() {
		return true
	}
	for _, l := range t.known {
		if !l.asked.IsZero() {
			return true
		}
	}
	return false
}
