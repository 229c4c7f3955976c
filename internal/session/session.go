// Package session tells who logs on to this PC and off again, when a screen is
// locked and unlocked, and when a session is used that was left idle; and in which
// session a process is ([Watcher.Fill]).
//
// Events: session-logon, session-logoff, session-locked, session-unlocked and
// session-resumed, with the account (user.*), the session (sekisho.session.id),
// whether it is at the PC or from elsewhere (sekisho.session.kind), and from where
// as the program that let the person in wrote it down (source.ip, else
// source.domain): sshd does, xrdp does not. Sessions
// that are there when Run starts for the first time are known and not told: the
// time of a logon that nobody saw is no use to a rule about hours. What began
// and ended while the agent did not run is not told either. While it runs, what
// happened between a break of the mechanism and its return is told with the time
// the system noted.
//
// A session counts as resumed when it is used again after at least
// [Options.MinIdle] without input while it was not locked; where it was locked,
// session-unlocked carries the idle time instead.
//
// Linux: systemd-logind (or elogind) over D-Bus, no privilege needed. Sessions
// of people count (class user and its kin); those of cron, of login screens and
// of service managers do not. Locking is what the desktop says of itself
// (LockedHint): GNOME and KDE do, a bare xscreensaver does not; a request to
// lock that the desktop says nothing about is told as such. Idleness of a
// desktop is its IdleHint, which begins after the desktop's own idle delay (5
// min in GNOME): the seconds told begin there. Idleness of a terminal is the
// time of the last read from it, which the kernel keeps to 8 s
// (drivers/tty/tty_io.c, tty_update_time). After a sleep of the PC an unlocked
// desktop in use counts as resumed.
//
// Where there is no logind: the records of utmp(5), /run/utmp and
// /var/log/wtmp, looked at every two seconds. Programs write them as they please: no
// locks, no idleness of desktops, no logons by programs that write none. Terminal
// windows of a desktop are in there as well and passed over. On a system that
// never had logind the sensor is limited so, and unavailable where neither file is
// there; that is no trouble. What worked before and does so no more is.
//
// Windows: the sessions of its Remote Desktop Services, those at the PC among them
// (WTS; no privilege but for the SIDs of accounts, which LocalSystem is told), are
// looked at every two seconds, and at once when the Local Session Manager writes into
// its log, which has the time and the address that a remote person came from. A lock
// shorter than two seconds can be missed; where that log is switched off, a session
// that short as well, and the address is what the program at the other end says of
// itself. source.domain is the name of the PC there, beside the address. A session that
// is on no screen any more (RDP was closed, another person sits there now) is told as
// locked, and as unlocked when its person is back, which may be elsewhere. Idleness of a
// remote session is its own; at the PC it is that of the whole PC as long as nobody
// else is on a screen, and otherwise not known.
//
// Elsewhere: Run returns an error that wraps errors.ErrUnsupported.
package session

import (
	"context"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The values of sekisho.session.kind.
const (
	Console = "console" // at the PC: a desktop, a text console
	Remote  = "remote"  // over the network: ssh, xrdp, Remote Desktop
)

// Options say where a Watcher looks. The zero value is the running system.
type Options struct {
	Bus  string // D-Bus address of the system bus; "": DBUS_SYSTEM_BUS_ADDRESS, else the usual socket
	Utmp string // open sessions; "": /run/utmp
	Wtmp string // logons and logoffs one after the other; "": /var/log/wtmp
	Proc string // "/proc" if empty
	Dev  string // "/dev" if empty

	// MinIdle is the idle time from which on the use of a session is told. 0: ten
	// minutes. Less than the 15 of rule ACC-4, so that a site can be stricter;
	// not much less, or the events would say when people take a break.
	MinIdle time.Duration
	// Poll is the time between two looks at utmp and wtmp, and at the sessions of
	// Windows. 0: two seconds.
	Poll time.Duration
	// Inputs is the time between two looks at when terminals were last read from.
	// 0: ten seconds.
	Inputs time.Duration
	// Settle is how long a desktop may take to say that it is locked, after a
	// request or after a sleep of the PC. 0: five seconds.
	Settle time.Duration
	// Retry is the time between two tries to get back to logind. 0: 30 seconds.
	Retry time.Duration
}

// Watcher is the sensor of login sessions. It is made by New; Run does the work.
type Watcher struct {
	opt    Options
	lookup lookup

	// Run's own, kept between runs:
	known map[string]*login // open sessions, by their object path (logind), line (utmp) or id (Windows)
	by    string            // the mechanism that found them
	files                   // how far their records were read

	proofs chan string // asked for by Prove

	gauge *endpoint.Gauge
}

// New returns a sensor that is not running.
func New(opt Options) *Watcher {
	text := func(to *string, usual string) {
		if *to == "" {
			*to = usual
		}
	}
	span := func(to *time.Duration, usual time.Duration) {
		if *to == 0 {
			*to = usual
		}
	}
	text(&opt.Utmp, "/run/utmp")
	text(&opt.Wtmp, "/var/log/wtmp")
	text(&opt.Proc, "/proc")
	text(&opt.Dev, "/dev")
	span(&opt.MinIdle, 10*time.Minute)
	span(&opt.Poll, 2*time.Second)
	span(&opt.Inputs, 10*time.Second)
	span(&opt.Settle, 5*time.Second)
	span(&opt.Retry, 30*time.Second)
	return &Watcher{
		opt:    opt,
		lookup: newLookup(),
		known:  map[string]*login{},
		proofs: make(chan string, 1),
		gauge:  endpoint.NewGauge("session"),
	}
}

// Name is "session".
func (w *Watcher) Name() string { return "session" }

// Status says how the sensor is. It is safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor { return w.gauge.Status() }

// Prove asks the sensor, if it runs, to prove that it sees: it asks the system for its
// sessions, compares them with those it knows, and tells [event.Proof] with the nonce.
// (Nobody can be logged on for that without touching the PC.) It does not wait.
func (w *Watcher) Prove(nonce string) {
	select {
	case w.proofs <- nonce:
	default: // it still owes the one before
	}
}

// send gives an event to the pipeline. It blocks while that is full, and reports
// false when ctx ended first.
func (w *Watcher) send(ctx context.Context, out chan<- *event.Event, e *event.Event) bool {
	select {
	case out <- e:
		w.gauge.Told()
		return true
	case <-ctx.Done():
		return false
	}
}
