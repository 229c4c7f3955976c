package session

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"sekisho/internal/event"
)

// lookup answers to which session a process belongs.
type lookup struct {
	mu     sync.Mutex              // guards all below
	open   map[string]*openSession // by session id; what the sensor knows now
	ended  map[string]*openSession // those that are over: programs left behind belong to them still; at most maxKept
	places map[string]place        // by session of audit that is not open: where its processes are; at most maxKept
	cache  map[int]answer          // by process id; at most maxCached
}

func newLookup() lookup {
	return lookup{open: map[string]*openSession{}, ended: map[string]*openSession{}, places: map[string]place{}, cache: map[int]answer{}}
}

// openSession is what is said of a session's processes. It is never changed.
type openSession struct {
	user      event.User
	graphical bool
	session   *event.Session // shared by events
	from      *event.Source  // shared by events; nil at the PC
}

// place is where logind has put a process (cgroups(7), systemd.special(7)).
type place struct {
	session string // in the scope of this session
	account string // in the slice of this account, but in no session: under its service manager
}

// answer is the session of a process; the zero answer that it is in none.
type answer struct {
	id string
	of *openSession // nil where the sensor knows the id only
	at time.Time
}

// Bounds of what is remembered. A copy of 10,000 files asks for one process 10,000
// times; a process id is not used again within the time (32,768 starts at least).
const (
	maxKept   = 1024
	maxCached = 1024
	cachedFor = 2 * time.Second
	// goneFor is how long the answer for a process that is gone stands.
	goneFor = 30 * time.Second
)

// set puts into a map that is emptied when it is full.
func set[K comparable, V any](m map[K]V, limit int, k K, v V) {
	if _, there := m[k]; !there && len(m) >= limit {
		clear(m)
	}
	m[k] = v
}

func (k *lookup) opened(l *login) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[l.id] = &openSession{l.user, l.graphical, &event.Session{Kind: l.kind}, l.from}
	delete(k.ended, l.id)
}

func (k *lookup) closed(l *login) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.open[l.id]; s != nil {
		set(k.ended, maxKept, l.id, s)
	}
	delete(k.open, l.id)
}

func (k *lookup) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.open)
	clear(k.ended)
	clear(k.places)
	clear(k.cache)
}

// Fill fills in, where it is absent, the login session of the process that an
// event tells of: sekisho.session.id and .kind, source.ip or .domain where it is
// remote, and the name of its account where the system does not tell it by its
// number.
//
// The session is that of the kernel's audit, which sudo and su do not change, else
// that of the control group. Programs that a desktop starts through the user's
// service manager (D-Bus, Flatpak, Snap) are in neither: they count to the one open
// session of that account, or to its one desktop. What has no session is left as
// it is.
//
// Of an event that has a session, as those of processes, no more than one file of
// /proc is read for all processes of a session that is not open; of others three at
// most, and the answer stands for two seconds, of a process that ended meanwhile
// for 30. Safe for concurrent use.
func (w *Watcher) Fill(e *event.Event) {
	if e.Process == nil || !e.Process.PID.OK {
		return
	}
	pid, uid := int(e.Process.PID.V), ""
	if e.User != nil {
		uid = e.User.ID
	}
	var a answer
	switch {
	case e.SessionID != "":
		a, _ = w.locate(e.SessionID, uid, pid)
	case e.Action == event.ProcessStarted || e.Action == event.ProcessEnded:
		// No login led to it, or the kernel has no audit. Most are those of services,
		// whose accounts are not logged in.
		if !w.lookup.present(uid) {
			return
		}
		fallthrough
	default:
		a = w.ofProcess(pid)
	}
	if a.id == "" {
		return
	}
	e.SessionID = a.id
	if s := a.of; s != nil {
		if e.Session == nil {
			e.Session = s.session
		}
		if e.Source == nil {
			e.Source = s.from
		}
		if e.User != nil && e.User.Name == "" && uid == s.user.ID {
			e.User.Name, e.User.Domain = s.user.Name, s.user.Domain
		}
	}
}

// Remember looks a process up by what is known of it, the session of audit ("" for
// none) and the account, for events of it that come when it is gone.
func (w *Watcher) Remember(pid int, audit, uid string) {
	if audit == "" {
		w.ofProcess(pid)
		return
	}
	a, _ := w.locate(audit, uid, pid)
	w.lookup.keep(pid, a)
}

// present reports whether an account is logged in.
func (k *lookup) present(uid string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.open {
		if s.user.ID == uid {
			return true
		}
	}
	return false
}

// ofProcess is the session of a process, by what the system says of it.
func (w *Watcher) ofProcess(pid int) answer {
	k, now := &w.lookup, time.Now()
	k.mu.Lock()
	a, found := k.cache[pid]
	k.mu.Unlock()
	if found && now.Sub(a.at) < cachedFor {
		return a
	}
	audit, uid := w.login(pid)
	b, alive := w.locate(audit, uid, pid)
	if !alive && found && a.id != "" && now.Sub(a.at) < goneFor {
		return a
	}
	k.keep(pid, b)
	return b
}

// keep remembers the session of a process.
func (k *lookup) keep(pid int, a answer) {
	a.at = time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	set(k.cache, maxCached, pid, a)
}

// locate is the session of a process by that of audit and the account, "" for
// none, and the place it is in, which is asked for if need be. False: it is gone.
func (w *Watcher) locate(audit, uid string, pid int) (a answer, alive bool) {
	k := &w.lookup
	k.mu.Lock()
	a, ok := k.known(audit, uid)
	k.mu.Unlock()
	if ok {
		return a, true
	}
	at, alive := w.place(pid)
	k.mu.Lock()
	defer k.mu.Unlock()
	if audit != "" && alive {
		set(k.places, maxKept, audit, at)
	}
	return k.at(audit, uid, at), alive
}

// known is the session of audit's processes if no more has to be found out.
func (k *lookup) known(audit, uid string) (answer, bool) {
	if audit == "" {
		return answer{}, false
	}
	if s := k.session(audit); s != nil {
		return answer{id: audit, of: s}, true
	}
	at, ok := k.places[audit]
	return k.at(audit, uid, at), ok
}

// session is an open session, or one that is over.
func (k *lookup) session(id string) *openSession {
	if s := k.open[id]; s != nil {
		return s
	}
	return k.ended[id]
}

// at is the session of a process that audit knows none of that is open for.
func (k *lookup) at(audit, uid string, p place) answer {
	if s := k.session(p.session); s != nil {
		return answer{id: p.session, of: s}
	}
	if p.account != "" {
		if uid == "" {
			uid = p.account
		}
		if a := k.ofAccount(uid); a.id != "" {
			return a
		}
	}
	// One that the sensor does not know: of cron, or not told yet.
	if audit == "" {
		audit = p.session
	}
	return answer{id: audit}
}

// ofAccount is the one open session of an account, or its one desktop.
func (k *lookup) ofAccount(uid string) answer {
	var all, desktops int
	var only, desktop answer
	for id, s := range k.open {
		if s.user.ID != uid {
			continue
		}
		all++
		only = answer{id: id, of: s}
		if s.graphical {
			desktops++
			desktop = only
		}
	}
	switch {
	case all == 1:
		return only
	case desktops == 1:
		return desktop
	}
	return answer{}
}

// sourceOf is where a person came from, as the program that let them in wrote it
// down: an address or a name, and what else it wrote after a blank ("pc7.example.jp
// via mosh [812]"). Nil if it is neither.
func sourceOf(host string) *event.Source {
	host, _, _ = strings.Cut(host, " ")
	host, _, _ = strings.Cut(host, "%") // the interface of a link-local address
	if a, err := netip.ParseAddr(host); err == nil {
		return &event.Source{IP: a.Unmap().String()}
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '-' && r != '_'
	}) {
		return nil
	}
	return &event.Source{Domain: host}
}
