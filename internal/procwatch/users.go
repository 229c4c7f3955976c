package procwatch

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"sekisho/internal/event"
)

const (
	maxUsers    = 1024                   // names kept; a terminal server has a few hundred
	maxAsking   = 8                      // questions under way: each takes a thread, and may hang for minutes
	userFor     = 10 * time.Minute       // until a name is asked for again
	userWait    = 200 * time.Millisecond // how long an event waits for a directory server (LDAP, SSSD) that is slow
	passwdEvery = 5 * time.Second        // how often /etc/passwd is looked at for a change
)

// users maps user ids to names. The system's answer may come over the network
// and late: then the name is absent this time and there the next. Safe for
// concurrent use.
type users struct {
	lookup func(id string) (string, error)
	text   func(uid uint32) string // the id as it stands in events
	passwd string

	mu      sync.Mutex // guards all below
	names   map[uint32]*userName
	asking  int       // questions under way, at most maxAsking
	checked time.Time // of passwd
	mtime   time.Time // of passwd
}

type userName struct {
	ready chan struct{} // closed when user is set
	user  event.User
	old   event.User // what it was before it was asked for again
	asked time.Time
	until time.Time // an event waits for it no longer
}

func newUsers() *users {
	return &users{
		lookup: func(id string) (string, error) {
			u, err := user.LookupId(id)
			if err != nil {
				return "", err
			}
			return u.Username, nil
		},
		text:   func(uid uint32) string { return strconv.FormatUint(uint64(uid), 10) },
		passwd: "/etc/passwd",
		names:  map[uint32]*userName{},
	}
}

// of returns a user by its id, without a name if there is none or it takes too
// long. now is the time.
func (u *users) of(uid uint32, now time.Time) event.User {
	u.mu.Lock()
	if now.Sub(u.checked) > passwdEvery {
		u.checked = now
		if fi, err := os.Stat(u.passwd); err == nil && !fi.ModTime().Equal(u.mtime) {
			u.mtime = fi.ModTime()
			clear(u.names)
		}
	}
	n := u.names[uid]
	if n == nil || now.Sub(n.asked) > userFor {
		id := u.text(uid)
		old := event.User{ID: id}
		if n != nil {
			old, _ = n.last()
		}
		if u.asking >= maxAsking {
			u.mu.Unlock()
			return old // nobody answers; the next event asks
		}
		if len(u.names) >= maxUsers {
			clear(u.names)
		}
		n = &userName{ready: make(chan struct{}), asked: now, until: time.Now().Add(userWait), old: old}
		u.names[uid] = n
		u.asking++
		go func() {
			defer func() {
				close(n.ready)
				u.mu.Lock()
				u.asking--
				u.mu.Unlock()
			}()
			name, err := u.lookup(id)
			var unknown user.UnknownUserIdError
			if err != nil && !errors.As(err, &unknown) {
				n.user = n.old // the directory server is away
				return
			}
			n.user = event.Account(name) // an id without a name stays a number
			n.user.ID = id
		}()
	}
	u.mu.Unlock()

	of, ready := n.last()
	if ready || of.Name != "" {
		return of
	}
	left := time.Until(n.until)
	if left <= 0 {
		return of
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-n.ready:
		return n.user
	case <-t.C:
		return of
	}
}

// last is the user as far as it is known, and whether the answer has come.
func (n *userName) last() (of event.User, ready bool) {
	select {
	case <-n.ready:
		return n.user, true
	default:
		return n.old, false
	}
}
