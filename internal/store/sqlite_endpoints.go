package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// heard keeps in memory that an endpoint was in contact.
func (s *SQLite) heard(d Delivery) {
	s.mu.Lock()
	c := s.contacts[d.AgentID]
	if c == nil {
		c = new(contact)
		s.contacts[d.AgentID] = c
	}
	back := d.Received.Sub(c.seen) > endpoint.LateAfter
	c.seen, c.dirty = d.Received, true
	if d.Remote != "" {
		c.remote = d.Remote
	}
	if d.Status != nil {
		c.status = d.Status
	}
	r := endpoint.Record{LastSeen: c.seen, Status: c.status}
	h := r.Health(d.Received)
	news := back || s.healths[d.AgentID] != h
	s.healths[d.AgentID] = h
	s.mu.Unlock()
	if news {
		s.urgent.Store(true)
		s.tell()
	}
}

// flush writes the contacts that have changed since the last time. It runs in
// the writer.
func (s *SQLite) flush(t *tx) error {
	s.mu.Lock()
	changed := map[string]contact{}
	for id, c := range s.contacts {
		if c.dirty {
			changed[id] = *c
			c.dirty = false
		}
	}
	s.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	j := &job{rows: len(changed), run: func(tx *tx) error {
		for id, c := range changed {
			status := ""
			if c.status != nil {
				b, err := json.Marshal(c.status)
				if err != nil {
					return err
				}
				status = string(b)
			}
			if _, err := tx.exec(`UPDATE endpoints SET last_seen_ms = max(last_seen_ms, ?), remote = ?, status = CASE WHEN ? = '' THEN status ELSE ? END
				WHERE agent = ?`, ms(c.seen), c.remote, status, status, id); err != nil {
				return err
			}
		}
		return nil
	}, done: make(chan error, 1)}
	s.pending.Add(1)
	s.commit(t, []*job{j})
	err := <-j.done
	if err != nil {
		s.mu.Lock()
		for id := range changed {
			s.contacts[id].dirty = true
		}
		s.mu.Unlock()
		return fmt.Errorf("write last contacts: %w", err)
	}
	return nil
}

const endpointColumns = `e.agent, e.host_id, e.host_name, e.os, e.os_version, e.department, e.enrolled_ms, e.last_seen_ms,
	e.revoked, e.cert_serial, e.cert_next, e.status`

func (s *SQLite) scanEndpoint(row interface{ Scan(...any) error }, more ...any) (*endpoint.Record, error) {
	r := new(endpoint.Record)
	var enrolled, seen int64
	var status string
	if err := row.Scan(append([]any{&r.AgentID, &r.HostID, &r.HostName, &r.OS, &r.OSVersion, &r.Department, &enrolled, &seen,
		&r.Revoked, &r.CertSerial, &r.CertNext, &status}, more...)...); err != nil {
		return nil, err
	}
	r.Enrolled, r.LastSeen = fromMS(enrolled), fromMS(seen)
	s.mu.Lock()
	if c := s.contacts[r.AgentID]; c != nil && c.seen.After(r.LastSeen) {
		r.LastSeen, r.Status = c.seen, c.status
	}
	s.mu.Unlock()
	if r.Status == nil && status != "" {
		r.Status = new(endpoint.Status)
		if err := json.Unmarshal([]byte(status), r.Status); err != nil {
			return nil, fmt.Errorf("status of endpoint %s: %w", r.AgentID, err)
		}
	}
	if st := r.Status; st != nil { // names and departments change; what the PC told last counts
		if st.HostName != "" {
			r.HostName = st.HostName
		}
		if st.OSVersion != "" {
			r.OSVersion = st.OSVersion
		}
		if r.Department == "" {
			r.Department = st.Department
		}
	}
	return r, nil
}

const openAlerts = `(SELECT count(*) FROM alerts a WHERE a.state <> 'closed' AND a.test = 0 AND a.agent = e.agent)`

// Endpoints implements Store, ordered by host name.
func (s *SQLite) Endpoints(ctx context.Context) ([]endpoint.Record, error) {
	rows, err := s.rdb.QueryContext(ctx, `SELECT `+endpointColumns+`, coalesce(o.n, 0) FROM endpoints e
		LEFT JOIN (SELECT agent, count(*) n FROM alerts INDEXED BY alerts_open WHERE state <> 'closed' AND test = 0 GROUP BY agent) o ON o.agent = e.agent
		ORDER BY e.host_name, e.agent`)
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	defer rows.Close()
	var out []endpoint.Record
	for rows.Next() {
		var open int
		r, err := s.scanEndpoint(rows, &open)
		if err != nil {
			return nil, fmt.Errorf("list endpoints: %w", err)
		}
		r.OpenAlerts = open
		out = append(out, *r)
	}
	return out, rows.Err()
}

// Endpoint implements Store.
func (s *SQLite) Endpoint(ctx context.Context, agentID string) (*endpoint.Record, error) {
	var open int
	r, err := s.scanEndpoint(s.rdb.QueryRowContext(ctx, `SELECT `+endpointColumns+`, `+openAlerts+` FROM endpoints e WHERE e.agent = ?`, agentID), &open)
	if err != nil {
		return nil, fmt.Errorf("endpoint %.80q: %w", agentID, describe(err))
	}
	r.OpenAlerts = open
	return r, nil
}

// Seen implements Store.
func (s *SQLite) Seen(ctx context.Context, serial string) (*endpoint.Record, error) {
	if serial == "" {
		return nil, fmt.Errorf("certificate without a serial: %w", describe(sql.ErrNoRows))
	}
	r, err := s.scanEndpoint(s.rdb.QueryRowContext(ctx, `SELECT `+endpointColumns+` FROM endpoints e WHERE e.cert_serial = ?1 OR e.cert_next = ?1`, serial))
	if err != nil {
		return nil, fmt.Errorf("certificate %.80s: %w", serial, describe(err))
	}
	if r.CertSerial == serial {
		return r, nil
	}
	err = s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(`UPDATE endpoints SET cert_serial = cert_next, cert_expires_ms = cert_next_expires_ms, cert_next = '', cert_next_expires_ms = 0
			WHERE agent = ? AND cert_next = ?`, r.AgentID, serial)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("first use of certificate %s: %w", serial, err)
	}
	r.CertSerial, r.CertNext = serial, ""
	return r, nil
}

// Enrol implements Store.
func (s *SQLite) Enrol(ctx context.Context, e Enrolment) (out Enrolled, err error) {
	err = s.write(ctx, 1, func(tx *tx) error {
		if out, err = s.enrol(tx, e); err != nil {
			return err
		}
		tx.told = true
		action := "enrol"
		if out.Known {
			action = "enrol-again"
		}
		return putAudit(tx, account.AuditEntry{Time: e.Now, Who: "enroll-token:" + e.TokenID, Action: action, Object: out.AgentID,
			Detail: fmt.Sprintf("%s (%s)", e.Host.HostName, e.Host.HostID), Remote: e.Remote})
	})
	if err != nil {
		return Enrolled{}, fmt.Errorf("enrol %.80q: %w", e.Host.HostName, err)
	}
	return out, nil
}

func (s *SQLite) enrol(tx *tx, e Enrolment) (out Enrolled, err error) {
	var hash []byte
	var uses, used int
	var expires int64
	var revoked bool
	err = tx.row(`SELECT hash, department, uses, used, expires_ms, revoked FROM enroll_tokens WHERE id = ?`, []any{e.TokenID},
		&hash, &out.Department, &uses, &used, &expires, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return out, ErrTokenUnknown
	case err != nil:
		return out, err
	case subtle.ConstantTimeCompare(hash, e.SecretHash[:]) != 1:
		return out, ErrTokenUnknown
	case revoked:
		return out, ErrTokenRevoked
	case !e.Now.Before(fromMS(expires)):
		return out, ErrTokenExpired
	}
	spend := true
	err = tx.row(`SELECT agent FROM endpoints WHERE token = ? AND key_hash = ? AND revoked = 0`, []any{e.TokenID, e.KeyHash[:]}, &out.AgentID)
	if err == nil {
		spend, out.Known = false, true
	} else if !errors.Is(err, sql.ErrNoRows) {
		return out, err
	} else if out.AgentID, out.Known, err = s.identify(tx, e); err != nil {
		return out, err
	}
	if spend {
		if used >= uses {
			return out, ErrTokenUsedUp
		}
		if _, err := tx.exec(`UPDATE enroll_tokens SET used = used + 1 WHERE id = ?`, e.TokenID); err != nil {
			return out, err
		}
	}
	if out.Known {
		if _, err := tx.exec(`UPDATE endpoints SET host_name = ?, os = ?, os_version = ?, department = CASE WHEN ?4 = '' THEN department ELSE ?4 END,
			remote = ?, token = ?, key_hash = ?, cert_serial = ?, cert_expires_ms = ?, cert_next = '', cert_next_expires_ms = 0 WHERE agent = ?`,
			e.Host.HostName, e.Host.OS, e.Host.OSVersion, out.Department, e.Remote, e.TokenID, e.KeyHash[:], e.Serial, ms(e.Expires), out.AgentID); err != nil {
			return out, err
		}
		return out, tx.row(`SELECT department FROM endpoints WHERE agent = ?`, []any{out.AgentID}, &out.Department)
	}
	_, err = tx.exec(`INSERT INTO endpoints (agent, host_id, host_name, os, os_version, department, enrolled_ms, remote, token, key_hash, cert_serial, cert_expires_ms)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?)`,
		out.AgentID, e.Host.HostID, e.Host.HostName, e.Host.OS, e.Host.OSVersion, out.Department, ms(e.Now), e.Remote, e.TokenID, e.KeyHash[:], e.Serial, ms(e.Expires))
	return out, err
}

// identify decides which identity a PC gets by its host id, see Enrolment. Of
// several that it could be, one of its name is taken first, then the last heard.
func (s *SQLite) identify(tx *tx, e Enrolment) (agentID string, known bool, err error) {
	rows, err := tx.conn.QueryContext(tx, `SELECT agent, host_name, last_seen_ms, enrolled_ms, remote FROM endpoints WHERE host_id = ? AND revoked = 0`, e.Host.HostID)
	if err != nil {
		return "", false, err
	}
	defer rows.Close()
	var best time.Time
	var bestNamed bool
	for rows.Next() {
		var id, name, remote string
		var seenMS, enrolledMS int64
		if err := rows.Scan(&id, &name, &seenMS, &enrolledMS, &remote); err != nil {
			return "", false, err
		}
		seen := fromMS(max(seenMS, enrolledMS)) // one that was just enrolled is there, too
		s.mu.Lock()
		if c := s.contacts[id]; c != nil && c.seen.After(seen) {
			seen, remote = c.seen, c.remote
		}
		s.mu.Unlock()
		named := name == e.Host.HostName
		if alive := e.Now.Sub(seen) <= endpoint.LateAfter; alive && !(named && remote == e.Remote) {
			continue
		}
		if agentID == "" || named && !bestNamed || named == bestNamed && seen.After(best) {
			agentID, best, bestNamed = id, seen, named
		}
	}
	if err := rows.Err(); err != nil {
		return "", false, err
	}
	if agentID == "" {
		return event.NewID(), false, nil
	}
	return agentID, true, nil
}

// Renew implements Store.
func (s *SQLite) Renew(ctx context.Context, agentID, serial string, expires time.Time) error {
	return s.one(ctx, "renew certificate of "+agentID,
		`UPDATE endpoints SET cert_next = ?, cert_next_expires_ms = ? WHERE agent = ? AND revoked = 0`, serial, ms(expires), agentID)
}

// Revoke implements Store.
func (s *SQLite) Revoke(ctx context.Context, agentID string) error {
	return s.one(ctx, "revoke "+agentID, `UPDATE endpoints SET revoked = 1 WHERE agent = ?`, agentID)
}

// one makes a change that has to find its row, and tells watchers.
func (s *SQLite) one(ctx context.Context, what, query string, args ...any) error {
	err := s.write(ctx, 1, func(tx *tx) error {
		n, err := tx.exec(query, args...)
		if err == nil && n == 0 {
			err = sql.ErrNoRows
		}
		tx.told = tx.told || err == nil
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// AddEnrollToken implements Store.
func (s *SQLite) AddEnrollToken(ctx context.Context, t account.EnrollToken) error {
	return s.insert(ctx, "add enrolment token "+t.ID, `INSERT INTO enroll_tokens (id, hash, department, uses, used, created_ms, expires_ms, revoked)
		VALUES (?,?,?,?,?,?,?,?)`, t.ID, t.Hash[:], t.Department, t.Uses, t.Used, ms(t.Created), ms(t.Expires), t.Revoked)
}

// EnrollTokens implements Store, newest first.
func (s *SQLite) EnrollTokens(ctx context.Context) ([]account.EnrollToken, error) {
	rows, err := s.rdb.QueryContext(ctx, `SELECT id, hash, department, uses, used, created_ms, expires_ms, revoked FROM enroll_tokens ORDER BY created_ms DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("list enrolment tokens: %w", err)
	}
	defer rows.Close()
	var out []account.EnrollToken
	for rows.Next() {
		var t account.EnrollToken
		var hash []byte
		var created, expires int64
		if err := rows.Scan(&t.ID, &hash, &t.Department, &t.Uses, &t.Used, &created, &expires, &t.Revoked); err != nil {
			return nil, fmt.Errorf("list enrolment tokens: %w", err)
		}
		copy(t.Hash[:], hash)
		t.Created, t.Expires = fromMS(created), fromMS(expires)
		out = append(out, t)
	}
	return out, rows.Err()
}

// RevokeEnrollToken implements Store.
func (s *SQLite) RevokeEnrollToken(ctx context.Context, id string) error {
	return s.one(ctx, fmt.Sprintf("revoke enrolment token %.40q", id), `UPDATE enroll_tokens SET revoked = 1 WHERE id = ?`, id)
}
