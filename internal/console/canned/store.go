// Package canned is a console's store in memory with made-up content, for the
// gallery of pages and for tests of pages; no program ships it. The real one is
// package store.
package canned

import (
	"context"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
)

// Store keeps everything in memory. Safe for concurrent use.
type Store struct {
	mu        sync.Mutex // guards all below
	alerts    []alert.Record
	endpoints []endpoint.Record
	users     []account.User
	sessions  map[[32]byte]account.Session
	audit     []account.AuditEntry
	watchers  map[chan struct{}]bool
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{sessions: map[[32]byte]account.Session{}, watchers: map[chan struct{}]bool{}}
}

// AddAlert stores an alert as if an agent had delivered it at the time at; one
// with an id that is known replaces it.
func (s *Store) AddAlert(a *alert.Alert, agentID string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := int64(1)
	for i := range s.alerts {
		seq = max(seq, s.alerts[i].Seq+1)
	}
	rec := alert.Record{Alert: a, Raw: a.AppendJSON(nil), Seq: seq, AgentID: agentID, Received: at, State: alert.Open, Changed: at}
	if i := slices.IndexFunc(s.alerts, func(r alert.Record) bool { return r.ID == a.ID }); i >= 0 {
		s.alerts[i] = rec
	} else {
		s.alerts = append(s.alerts, rec)
	}
	slices.SortFunc(s.alerts, func(a, b alert.Record) int {
		if d := b.Time.Compare(a.Time); d != 0 {
			return d
		}
		return strings.Compare(b.ID, a.ID)
	})
	s.wake()
}

// AddEndpoint stores an endpoint.
func (s *Store) AddEndpoint(r endpoint.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, r)
	s.wake()
}

// AddUser stores a user and gives it an id.
func (s *Store) AddUser(u account.User) account.User {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.ID = int64(len(s.users) + 1)
	s.users = append(s.users, u)
	return u
}

// wake tells the watchers; mu is held.
func (s *Store) wake() {
	for c := range s.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Alerts answers the first page of what the filter selects, and later ones by
// the cursor, which is the last alert's id.
func (s *Store) Alerts(_ context.Context, f alert.Filter) (alert.Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := f.Limit
	if limit == 0 {
		limit = 100
	}
	var page alert.Page
	skipping := f.After != ""
	for _, r := range s.alerts {
		if skipping {
			skipping = r.ID != f.After
			continue
		}
		if !selects(f, &r) {
			continue
		}
		if len(page.Records) == limit {
			page.Next = page.Records[limit-1].ID
			break
		}
		page.Records = append(page.Records, r)
	}
	return page, nil
}

func selects(f alert.Filter, r *alert.Record) bool {
	field := func(name string) string { v, _ := r.Event.Get(name); return v.String() }
	switch {
	case len(f.States) > 0 && !slices.Contains(f.States, r.State),
		len(f.Levels) > 0 && !slices.Contains(f.Levels, r.Level),
		f.Rule != "" && f.Rule != r.Rule.Table && f.Rule != r.Rule.ID,
		f.Host != "" && f.Host != field("host.name"),
		f.User != "" && f.User != field("user.name"),
		f.AgentID != "" && f.AgentID != r.AgentID,
		f.Assignee != "" && f.Assignee != r.Assignee,
		f.Group != "" && f.Group != r.Group,
		f.TestsOnly && !r.Test(),
		!f.Tests && !f.TestsOnly && r.Test(),
		f.Text != "" && !strings.Contains(string(r.Raw), f.Text),
		r.Seq <= f.AfterSeq:
		return false
	}
	return true
}

// Alert is one alert with its log.
func (s *Store) Alert(_ context.Context, id string) (*alert.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.alerts {
		if r.ID == id {
			return &r, nil
		}
	}
	return nil, fs.ErrNotExist
}

// AlertCounts counts what is not a test.
func (s *Store) AlertCounts(context.Context) (alert.Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := alert.Counts{Open: map[alert.Level]int{}, ByState: map[alert.State]int{}}
	for _, r := range s.alerts {
		c.LastSeq = max(c.LastSeq, r.Seq)
		if r.Test() {
			continue
		}
		c.ByState[r.State]++
		if r.State != alert.Closed {
			c.Open[r.Level]++
		}
		if r.State == alert.Open && (c.Oldest.IsZero() || r.Time.Before(c.Oldest)) {
			c.Oldest = r.Time
		}
	}
	return c, nil
}

// ChangeAlerts applies c to all of ids, or to none.
func (s *Store) ChangeAlerts(_ context.Context, ids []string, c alert.Change, user string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at0 []int
	for _, id := range ids {
		i := slices.IndexFunc(s.alerts, func(r alert.Record) bool { return r.ID == id })
		if i < 0 {
			return fs.ErrNotExist
		}
		at0 = append(at0, i)
	}
	for _, i := range at0 {
		r := &s.alerts[i]
		if c.State != "" {
			r.State, r.Reason = c.State, c.Reason
		}
		if c.Assignee != nil {
			r.Assignee = *c.Assignee
		}
		r.Changed = at
		r.Log = append(slices.Clone(r.Log), alert.LogEntry{Time: at, User: user, State: c.State, Assignee: r.Assignee, Reason: c.Reason, Note: c.Note})
	}
	s.wake()
	return nil
}

// Watch answers a channel that is told of changes.
func (s *Store) Watch() (<-chan struct{}, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{}, 1)
	s.watchers[c] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, c)
	}
}

// Watchers is how many watch now.
func (s *Store) Watchers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.watchers)
}

// Endpoints are all endpoints.
func (s *Store) Endpoints(context.Context) ([]endpoint.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endpoints), nil
}

// Endpoint is one endpoint.
func (s *Store) Endpoint(_ context.Context, id string) (*endpoint.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.endpoints {
		if r.AgentID == id {
			return &r, nil
		}
	}
	return nil, fs.ErrNotExist
}

// UserByName finds a user.
func (s *Store) UserByName(_ context.Context, name string) (*account.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.users {
		if u.Name == name {
			return &u, nil
		}
	}
	return nil, fs.ErrNotExist
}

// UserByID finds a user.
func (s *Store) UserByID(_ context.Context, id int64) (*account.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id < 1 || id > int64(len(s.users)) {
		return nil, fs.ErrNotExist
	}
	u := s.users[id-1]
	return &u, nil
}

// change changes the user with an id whose password's hash is was ("": whatever
// it is).
func (s *Store) change(id int64, was string, edit func(u *account.User)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id < 1 || id > int64(len(s.users)) || was != "" && s.users[id-1].PasswordHash != was {
		return fs.ErrNotExist
	}
	edit(&s.users[id-1])
	return nil
}

// SignedIn notes a sign-in.
func (s *Store) SignedIn(_ context.Context, id int64, was, hash string, at time.Time) error {
	return s.change(id, was, func(u *account.User) { u.PasswordHash, u.LastLogin = hash, at })
}

// ChangePassword replaces a password and ends the user's sessions.
func (s *Store) ChangePassword(_ context.Context, id int64, was, hash string) error {
	return s.change(id, was, func(u *account.User) {
		u.PasswordHash, u.MustChange = hash, false
		for h, x := range s.sessions {
			if x.UserID == id {
				delete(s.sessions, h)
			}
		}
	})
}

// SetUserLang sets a user's language.
func (s *Store) SetUserLang(_ context.Context, id int64, lang string) error {
	return s.change(id, "", func(u *account.User) { u.Lang = lang })
}

// AddSession stores a session.
func (s *Store) AddSession(_ context.Context, x account.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[x.Hash] = x
	return nil
}

// Session finds a session.
func (s *Store) Session(_ context.Context, hash [32]byte) (*account.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[hash]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &x, nil
}

// TouchSession notes that a session was used.
func (s *Store) TouchSession(_ context.Context, hash [32]byte, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[hash]
	if !ok {
		return fs.ErrNotExist
	}
	x.Seen = at
	s.sessions[hash] = x
	return nil
}

// DeleteSession ends a session.
func (s *Store) DeleteSession(_ context.Context, hash [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, hash)
	return nil
}

// Audit adds to the audit log.
func (s *Store) Audit(_ context.Context, e account.AuditEntry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.N = int64(len(s.audit) + 1)
	s.audit = append(s.audit, e)
	return nil
}

// AuditLog is the log before an entry, newest first.
func (s *Store) AuditLog(_ context.Context, before int64, limit int) ([]account.AuditEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []account.AuditEntry
	for _, e := range slices.Backward(s.audit) {
		if (before == 0 || e.N < before) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, nil
}
