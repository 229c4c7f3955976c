package session

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"sekisho/internal/event"
)

// lookup answers to which session a process belongs.
type lookup struct {
	mu    sync.Mutex             // guards all below
	open  map[string]openSession // by session id; what the sensor knows now
	cache map[int]answer         // by process id; at most maxCached
}

// openSession is what is said of a session's processes.
type openSession struct {
	user      event.User
	graphical bool
}

type answer struct {
	session string
	user    event.User
	ok      bool
	at      time.Time
}

// Bounds of the cache. A copy of 10,000 files asks for one process 10,000 times;
// a process id is not used again within the time (32,768 starts at least).
const (
	maxCached = 1024
	cachedFor = 2 * time.Second
	// keptFor is how long the answer for a process that is gone stands.
	keptFor = 30 * time.Second
)

func (k *lookup) opened(l *login) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[l.id] = openSession{l.user, l.graphical}
}

func (k *lookup) closed(l *login) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.open, l.id)
}

func (k *lookup) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.open)
	clear(k.cache)
}

// Lookup tells to which login session a living process belongs, and who logged
// in there, which sudo and su do not change: user.id, and user.name where the
// session is open. False where no login led to the process, or it is gone.
//
// The session is that of the kernel's audit, else of its control group. Programs
// that a desktop starts through the user's service manager are in neither: they
// count to the one open session of that account, or to its one desktop.
//
// It reads three files of /proc at most, and answers again from memory for two
// seconds, of a process that ended meanwhile for 30. Safe for concurrent use.
func (w *Watcher) Lookup(pid int) (session string, user event.User, ok bool) {
	k, now := &w.lookup, time.Now()
	k.mu.Lock()
	a, found := k.cache[pid]
	k.mu.Unlock()
	if found && now.Sub(a.at) < cachedFor {
		return a.session, a.user, a.ok
	}
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(w.opt.Proc, strconv.Itoa(pid), name))
		return string(b)
	}
	audit, uid, group := auditNumber(read("sessionid")), "", ""
	k.mu.Lock()
	_, known := k.open[audit]
	k.mu.Unlock()
	if !known {
		uid, group = auditNumber(read("loginuid")), read("cgroup")
		if group == "" && found && a.ok && now.Sub(a.at) < keptFor { // every living process has a group
			return a.session, a.user, a.ok
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	a = k.answer(audit, uid, group)
	a.at = now
	if len(k.cache) >= maxCached {
		clear(k.cache)
	}
	k.cache[pid] = a
	return a.session, a.user, a.ok
}

// answer puts together what /proc says of a process: the audit's session and
// account, "" for none, and the control groups.
func (k *lookup) answer(audit, uid, group string) answer {
	if s, ok := k.open[audit]; ok {
		return answer{session: audit, user: s.user, ok: true}
	}
	scope, owner := sessionOfGroup(group)
	if s, ok := k.open[scope]; ok {
		return answer{session: scope, user: s.user, ok: true}
	}
	if uid == "" {
		uid = owner
	}
	if uid != "" {
		var of, desktop []string
		for id, s := range k.open {
			if s.user.ID == uid {
				if of = append(of, id); s.graphical {
					desktop = append(desktop, id)
				}
			}
		}
		switch {
		case len(of) == 1:
			return answer{session: of[0], user: k.open[of[0]].user, ok: true}
		case len(desktop) == 1:
			return answer{session: desktop[0], user: k.open[desktop[0]].user, ok: true}
		}
	}
	// One that the sensor does not know: of cron, or before it came up.
	for _, id := range []string{audit, scope} {
		if id != "" {
			return answer{session: id, user: event.User{ID: uid}, ok: true}
		}
	}
	return answer{}
}

// auditNumber reads /proc/PID/sessionid or loginuid: "" where no login set it.
func auditNumber(s string) string {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil || n == 0xffffffff {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// sessionOfGroup reads /proc/PID/cgroup: the session of logind whose scope the
// process is in ("session-c2.scope"), and the account whose slice ("user-1000.slice");
// each "" if none.
func sessionOfGroup(text string) (session, uid string) {
	if len(text) > 16<<10 { // twelve lines of a path each; the rest is no matter
		text = text[:16<<10]
	}
	for line := range strings.Lines(text) {
		_, path, ok := strings.Cut(line, ":/user.slice/")
		if !ok {
			continue
		}
		for part := range strings.SplitSeq(strings.TrimSuffix(path, "\n"), "/") {
			if id, ok := between(part, "session-", ".scope"); ok && sessionID(id) {
				session = id
			}
			if id, ok := between(part, "user-", ".slice"); ok && auditNumber(id) != "" {
				uid = auditNumber(id)
			}
		}
		if session != "" || uid != "" {
			return session, uid
		}
	}
	return "", ""
}

func between(s, before, after string) (string, bool) {
	s, a := strings.CutPrefix(s, before)
	s, b := strings.CutSuffix(s, after)
	return s, a && b
}

// sessionID reports whether a text is an id as logind gives them: letters and
// digits ("3", "c2").
func sessionID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
