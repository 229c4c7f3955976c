package session

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The mechanisms that this package may use.
const (
	mechanismLogind = "logind"
	mechanismUtmp   = "utmp"
	mechanismWTS    = "wts"
)

// busTime is how long who knows of sessions may take for an answer: the bus or logind,
// which starts on the first question at boot; the service of Windows' logs.
const busTime = 10 * time.Second

// maxKnown bounds the sessions that are followed: 20 times what a large terminal
// server has. Beyond it sessions are counted as lost.
const maxKnown = 4096

// oldest is how far back a time that the system noted is believed when a logon is
// told late. Only root can forge one; a clock that was wrong at boot is common.
const oldest = time.Hour

// login is one open session.
type login struct {
	origin           // what only this system knows of it
	id        string // sekisho.session.id: that of audit where there is one, so that processes carry the same
	user      event.User
	kind      string
	from      *event.Source // nil at the PC, and where the system does not tell
	began     time.Time     // zero if unknown
	graphical bool
	active    bool      // in the foreground of its seat, or remote
	connected time.Time // of Windows: when a screen was last connected to it; zero if unknown

	locked    bool          // as the desktop says
	asked     time.Time     // when it was asked to lock or unlock and did not say yet that it did; zero: it was not
	askedFor  bool          // to lock
	assumed   bool          // told as locked because it was asked for
	idleSince time.Time     // of a desktop that calls itself idle; zero: it does not
	idled     time.Duration // idle time that ended while it was locked
	input     time.Time     // last read from the terminal
	resumed   time.Time     // when its use was last told
}

// tracker turns what a mechanism sees into events. One goroutine runs it.
type tracker struct {
	*Watcher
	ctx context.Context // of the Run it belongs to
	out chan<- *event.Event

	sleep time.Time // when the PC went to sleep; zero: it is awake
	slept time.Duration
	woke  time.Time // when it woke up; zero: that is dealt with
}

func (w *Watcher) newTracker(ctx context.Context, out chan<- *event.Event) *tracker {
	return &tracker{Watcher: w, ctx: ctx, out: out}
}

// takeOver begins to work by a mechanism and reports whether what it finds first
// is to be taken as known: another one names sessions otherwise.
func (t *tracker) takeOver(mechanism string) (silent bool) {
	if t.by == mechanism {
		return false
	}
	t.by = mechanism
	clear(t.known)
	t.lookup.forget()
	t.files = files{}
	return true
}

// begin tells of a session that began, or only notes it.
func (t *tracker) begin(key string, l *login, silent bool) {
	if t.known[key] != nil {
		return
	}
	if len(t.known) >= maxKnown {
		t.lost("more than 4096 sessions are open; this one is not followed")
		return
	}
	t.known[key] = l
	t.lookup.opened(l)
	if !silent {
		t.tell(event.SessionLogon, l, l.began)
	}
}

// end tells of the end of a session; at is zero where nobody noted the time.
func (t *tracker) end(key string, at time.Time) {
	if l := t.known[key]; l != nil {
		t.forget(key)
		t.tell(event.SessionLogoff, l, at)
	}
}

// forget gives a session up.
func (t *tracker) forget(key string) {
	l := t.known[key]
	delete(t.known, key)
	t.lookup.closed(l)
	for _, other := range t.known { // a logon within a session shares its id
		if other.id == l.id {
			t.lookup.opened(other)
		}
	}
}

// lock takes what the desktop says of its lock, or has said when it was last read.
func (t *tracker) lock(l *login, locked bool) {
	if l.locked == locked { // nothing new, so no answer to what it was asked
		return
	}
	l.asked = time.Time{}
	now := time.Now()
	l.locked, l.assumed = locked, false
	if locked {
		t.tell(event.SessionLocked, l, now)
		return
	}
	idle := l.idled
	if !l.idleSince.IsZero() { // unlocked before it called itself in use
		idle = now.Sub(l.idleSince)
	}
	l.idled = 0
	e := t.event(event.SessionUnlocked, l, now)
	if idle > 0 {
		e.Session.IdleSeconds = event.Some(int64(idle / time.Second))
	}
	l.resumed = now
	t.send(t.ctx, t.out, e)
}

// ask notes that a desktop was asked to lock or unlock.
func (t *tracker) ask(l *login, lock bool) {
	if l.graphical { // nothing locks a terminal
		l.asked, l.askedFor = time.Now(), lock
	}
}

// idle takes what the desktop says of its idleness: since when, zero for in use.
func (t *tracker) idle(l *login, since time.Time) {
	was := l.idleSince
	l.idleSince = since
	if was.IsZero() || !since.IsZero() {
		return
	}
	now := time.Now()
	if l.locked {
		l.idled = max(l.idled, now.Sub(was)) // told when it is unlocked
		return
	}
	if was.After(l.resumed) { // else it was told as unlocked, with this idle time
		t.resume(l, now, now.Sub(was))
	}
}

// read takes when the terminal of a session was last read from.
func (t *tracker) read(l *login, at time.Time) {
	if now := time.Now(); at.After(now) { // its owner may set it
		at = now
	}
	was := l.input
	switch {
	case was.IsZero():
		l.input = at
		return
	case !at.After(was):
		return
	}
	l.input = at
	t.resume(l, at, at.Sub(was))
}

// resume tells that a session is used after an idle time, if that was long.
func (t *tracker) resume(l *login, at time.Time, idle time.Duration) {
	if idle < t.opt.MinIdle {
		return
	}
	l.resumed = at
	e := t.event(event.SessionResumed, l, at)
	e.Session.IdleSeconds = event.Some(int64(idle / time.Second))
	t.send(t.ctx, t.out, e)
}

// power takes that the PC goes to sleep, or woke up.
func (t *tracker) power(sleeping bool) {
	now := time.Now().Round(0) // the monotonic clock stands still in sleep
	if sleeping {
		t.sleep, t.woke = now, time.Time{}
		return
	}
	if !t.sleep.IsZero() {
		t.slept, t.woke = now.Sub(t.sleep), now
	}
	t.sleep = time.Time{}
}

// settle looks at what desktops said, or did not say, within the time they had
// for it.
func (t *tracker) settle(now time.Time) {
	for _, l := range t.known {
		if l.asked.IsZero() || now.Sub(l.asked) < t.opt.Settle {
			continue
		}
		at := l.asked
		l.asked = time.Time{}
		action, message := event.SessionLocked, "asked to lock; the desktop does not say whether it did"
		if !l.askedFor {
			action, message = event.SessionUnlocked, "asked to unlock; the desktop does not say whether it did"
		}
		if l.askedFor == (l.locked || l.assumed) {
			continue
		}
		l.assumed = l.askedFor
		e := t.event(action, l, at)
		e.Message = message
		t.send(t.ctx, t.out, e)
	}
	if t.woke.IsZero() || now.Round(0).Sub(t.woke) < t.opt.Settle {
		return
	}
	for _, l := range t.known {
		// One that calls itself idle tells its own return.
		if l.graphical && l.active && l.kind == Console && !l.locked && !l.assumed && l.idleSince.IsZero() && l.resumed.Before(t.woke) {
			t.resume(l, t.woke, t.slept)
		}
	}
	t.woke = time.Time{}
}

// event makes an event of a session.
func (t *tracker) event(a event.Action, l *login, at time.Time) *event.Event {
	now := time.Now()
	if at.IsZero() || at.After(now) || now.Sub(at) > oldest {
		at = now
	}
	e := event.New(a, at)
	e.Sensor, e.SessionID = t.by, l.id
	e.Session, e.Source = &event.Session{Kind: l.kind}, l.from
	if l.user != (event.User{}) {
		u := l.user
		e.User = &u
	}
	return e
}

func (t *tracker) tell(a event.Action, l *login, at time.Time) {
	t.send(t.ctx, t.out, t.event(a, l, at))
}

// tellState sets the state and tells a change for better or worse.
func (t *tracker) tellState(state endpoint.SensorState, mechanism, reason string) {
	was := t.Status()
	t.gauge.Set(state, mechanism, reason)
	// Before the first mechanism there was nothing to get better or worse.
	first := was.Mechanism == ""
	if state.Trouble() && was.State == state && !first || !state.Trouble() && (first || !was.State.Trouble()) {
		return
	}
	action, message, health := event.SensorDegraded, reason, event.HealthDegraded
	switch {
	case !state.Trouble():
		action, message, health = event.SensorRecovered, "sessions are told by "+mechanism+" again", ""
	case state == endpoint.SensorDown:
		health = event.HealthDown
	}
	e := event.New(action, time.Now())
	e.Sensor, e.Message, e.Health = t.Name(), message, health
	t.send(t.ctx, t.out, e)
}

// proven tells that the sensor has compared what it knows with what there is, as it
// was asked to by a nonce; "": it was not.
func (t *tracker) proven(nonce string) {
	if nonce != "" {
		t.send(t.ctx, t.out, event.Proof(t.Name(), nonce))
	}
}

// lost tells that something about sessions was missed.
func (t *tracker) lost(message string) {
	t.gauge.Lose(1)
	e := event.New(event.EventsLost, time.Now())
	e.Sensor, e.Message = t.by, message
	e.Lost = &event.Lost{Count: event.Some(int64(1))}
	t.send(t.ctx, t.out, e)
}

// clean makes a text from outside fit for an event: valid, at most 256 bytes. A
// name that long is not one (LOGIN_NAME_MAX, limits.h, is 256).
func clean(s string) string {
	if len(s) > 256 {
		s = s[:256]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if r, n := utf8.DecodeLastRuneInString(s); r == utf8.RuneError && n == 1 {
			s = s[:len(s)-1]
		}
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
