package procwatch

import (
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"sekisho/internal/event"
)

const (
	maxUsers    = 1024                   // names kept; a terminal server has a few hundred
	userFor     = 10 * time.Minute       // until a name is asked for again
	userWait    = 200 * time.Millisecond // how long an event waits for a directory server (LDAP, SSSD) that is slow
	passwdEvery = 5 * time.Second        // how often /etc/passwd is looked at for a change
)

// users maps user ids to names. The system's answer may come over the network
// and late: then the name is absent this time and there the next. Safe for
// concurrent use.
type users struct {
	lookup func(id string) (string, error)
	passwd string

	mu      sync.Mutex // guards all below
	names   map[uint32]*userName
	checked time.Time // of passwd
	mtime   time.Time // of passwd
}

type userName struct {
	id    string        // in decimal
	ready chan struct{} // closed when user is set
	user  event.User
	asked time.Time
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
		if len(u.names) >= maxUsers {
			clear(u.names)
		}
		id := strconv.FormatUint(uint64(uid), 10)
		n = &userName{id: id, ready: make(chan struct{}), asked: now}
		u.names[uid] = n
		go func() {
			name, _ := u.lookup(id) // an id without a name stays a number
			n.user = event.Account(name)
			n.user.ID = id
			close(n.ready)
		}()
	}
	u.mu.Unlock()

	select {
	case <-n.ready:
		return n.user
	default:
	}
	if now.Sub(n.asked) > userWait {
		return event.User{ID: n.id} // it was waited for before
	}
	t := time.NewTimer(userWait)
	defer t.Stop()
	select {
	case <-n.ready:
		return n.user
	case <-t.C:
		return event.User{ID: n.id}
	}
}
