package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"sekisho/internal/account"
)

// touchEvery is how exactly the last use of sessions and tokens is kept.
const touchEvery = time.Minute

// insert adds one row; a key that is taken is ErrExists.
func (s *SQLite) insert(ctx context.Context, what, query string, args ...any) error {
	err := s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(query, args...)
		return err
	})
	if unique(err) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// AddUser implements Store.
func (s *SQLite) AddUser(ctx context.Context, u *account.User) error {
	err := s.write(ctx, 1, func(tx *tx) error {
		return tx.row(`INSERT INTO users (name, role, password_hash, must_change, disabled, lang, created_ms, last_login_ms) VALUES (?,?,?,?,?,?,?,?) RETURNING id`,
			[]any{u.Name, string(u.Role), u.PasswordHash, u.MustChange, u.Disabled, u.Lang, ms(u.Created), ms(u.LastLogin)}, &u.ID)
	})
	if unique(err) {
		err = ErrExists
	}
	if err != nil {
		return fmt.Errorf("add user %.80q: %w", u.Name, err)
	}
	return nil
}

const userColumns = `SELECT id, name, role, password_hash, must_change, disabled, lang, created_ms, last_login_ms FROM users`

func scanUser(row interface{ Scan(...any) error }) (*account.User, error) {
	u := new(account.User)
	var created, login int64
	if err := row.Scan(&u.ID, &u.Name, &u.Role, &u.PasswordHash, &u.MustChange, &u.Disabled, &u.Lang, &created, &login); err != nil {
		return nil, err
	}
	u.Created, u.LastLogin = fromMS(created), fromMS(login)
	return u, nil
}

// Users implements Store, by name.
func (s *SQLite) Users(ctx context.Context) ([]account.User, error) {
	rows, err := s.rdb.QueryContext(ctx, userColumns+` ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer rows.Close()
	var out []account.User
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		out = append(out, *u)
	}
	return out, rows.Err()
}

// UserByName implements Store.
func (s *SQLite) UserByName(ctx context.Context, name string) (*account.User, error) {
	u, err := scanUser(s.rdb.QueryRowContext(ctx, userColumns+` WHERE name = ?`, name))
	if err != nil {
		return nil, fmt.Errorf("user %.80q: %w", name, describe(err))
	}
	return u, nil
}

// UserByID implements Store.
func (s *SQLite) UserByID(ctx context.Context, id int64) (*account.User, error) {
	u, err := scanUser(s.rdb.QueryRowContext(ctx, userColumns+` WHERE id = ?`, id))
	if err != nil {
		return nil, fmt.Errorf("user %d: %w", id, describe(err))
	}
	return u, nil
}

// changeUser makes a change that has to find its user, and then what follows
// from it. Changes name the columns they are about: the server and the command
// line may work on the same user.
func (s *SQLite) changeUser(ctx context.Context, what string, id int64, then func(tx *tx) error, query string, args ...any) error {
	err := s.write(ctx, 1, func(tx *tx) error {
		n, err := tx.exec(query, args...)
		if err == nil && n == 0 {
			err = sql.ErrNoRows
		}
		if err == nil && then != nil {
			err = then(tx)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s of user %d: %w", what, id, err)
	}
	return nil
}

// endSessions ends all sessions of a user.
func endSessions(id int64) func(tx *tx) error {
	return func(tx *tx) error {
		_, err := tx.exec(`DELETE FROM sessions WHERE user = ?`, id)
		return err
	}
}

// SignedIn implements Store.
func (s *SQLite) SignedIn(ctx context.Context, id int64, was, hash string, at time.Time) error {
	return s.changeUser(ctx, "note sign-in", id, nil,
		`UPDATE users SET last_login_ms = ?, password_hash = ? WHERE id = ? AND password_hash = ? AND disabled = 0`, ms(at), hash, id, was)
}

// ChangePassword implements Store.
func (s *SQLite) ChangePassword(ctx context.Context, id int64, was, hash string) error {
	return s.changeUser(ctx, "change password", id, endSessions(id),
		`UPDATE users SET password_hash = ?, must_change = 0 WHERE id = ? AND password_hash = ? AND disabled = 0`, hash, id, was)
}

// ResetPassword implements Store.
func (s *SQLite) ResetPassword(ctx context.Context, id int64, hash string, oneTime bool) error {
	return s.changeUser(ctx, "reset password", id, endSessions(id),
		`UPDATE users SET password_hash = ?, must_change = ?, disabled = 0 WHERE id = ?`, hash, oneTime, id)
}

// DisableUser implements Store.
func (s *SQLite) DisableUser(ctx context.Context, id int64) error {
	return s.changeUser(ctx, "disable", id, func(tx *tx) error {
		var admins int
		if err := tx.row(`SELECT count(*) FROM users WHERE role = 'admin' AND disabled = 0`, nil, &admins); err != nil {
			return err
		}
		if admins == 0 {
			return ErrLastAdmin
		}
		return endSessions(id)(tx)
	}, `UPDATE users SET disabled = 1 WHERE id = ?`, id)
}

// SetUserLang implements Store.
func (s *SQLite) SetUserLang(ctx context.Context, id int64, lang string) error {
	return s.changeUser(ctx, "set language", id, nil, `UPDATE users SET lang = ? WHERE id = ?`, lang, id)
}

// AddSession implements Store.
func (s *SQLite) AddSession(ctx context.Context, v account.Session) error {
	return s.insert(ctx, "add session", `INSERT INTO sessions (hash, user, created_ms, seen_ms, remote, user_agent) VALUES (?,?,?,?,?,?)`,
		v.Hash[:], v.UserID, ms(v.Created), ms(v.Seen), v.Remote, cut(v.UserAgent, 200))
}

// Session implements Store.
func (s *SQLite) Session(ctx context.Context, hash [32]byte) (*account.Session, error) {
	v := &account.Session{Hash: hash}
	var created, seen int64
	err := s.rdb.QueryRowContext(ctx, `SELECT user, created_ms, seen_ms, remote, user_agent FROM sessions WHERE hash = ?`, hash[:]).
		Scan(&v.UserID, &created, &seen, &v.Remote, &v.UserAgent)
	if err != nil {
		return nil, fmt.Errorf("session: %w", describe(err))
	}
	v.Created, v.Seen = fromMS(created), fromMS(seen)
	return v, nil
}

// TouchSession implements Store.
func (s *SQLite) TouchSession(ctx context.Context, hash [32]byte, at time.Time) error {
	return s.touch(ctx, "session", at,
		`SELECT seen_ms FROM sessions WHERE hash = ?`, `UPDATE sessions SET seen_ms = ? WHERE hash = ?`, hash[:])
}

// touch notes a last use, if the noted one is older than touchEvery.
func (s *SQLite) touch(ctx context.Context, what string, at time.Time, query, update string, key any) error {
	var last int64
	if err := s.rdb.QueryRowContext(ctx, query, key).Scan(&last); err != nil {
		return fmt.Errorf("%s: %w", what, describe(err))
	}
	if at.Sub(fromMS(last)) < touchEvery {
		return nil
	}
	return s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(update, ms(at), key)
		return err
	})
}

// DeleteSession implements Store. One that is not there is no error.
func (s *SQLite) DeleteSession(ctx context.Context, hash [32]byte) error {
	return s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(`DELETE FROM sessions WHERE hash = ?`, hash[:])
		return err
	})
}

// DeleteSessions implements Store.
func (s *SQLite) DeleteSessions(ctx context.Context, createdBefore, seenBefore time.Time) error {
	return s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(`DELETE FROM sessions WHERE created_ms < ? OR seen_ms < ?`, ms(createdBefore), ms(seenBefore))
		return err
	})
}

// AddToken implements Store.
func (s *SQLite) AddToken(ctx context.Context, t account.Token) error {
	return s.insert(ctx, "add token "+t.ID, `INSERT INTO tokens (id, name, role, hash, created_ms, expires_ms, last_used_ms, revoked) VALUES (?,?,?,?,?,?,?,?)`,
		t.ID, t.Name, string(t.Role), t.Hash[:], ms(t.Created), ms(t.Expires), ms(t.LastUsed), t.Revoked)
}

const tokenColumns = `SELECT id, name, role, hash, created_ms, expires_ms, last_used_ms, revoked FROM tokens`

func scanToken(row interface{ Scan(...any) error }) (*account.Token, error) {
	t := new(account.Token)
	var hash []byte
	var created, expires, used int64
	if err := row.Scan(&t.ID, &t.Name, &t.Role, &hash, &created, &expires, &used, &t.Revoked); err != nil {
		return nil, err
	}
	copy(t.Hash[:], hash)
	t.Created, t.Expires, t.LastUsed = fromMS(created), fromMS(expires), fromMS(used)
	return t, nil
}

// Tokens implements Store, newest first.
func (s *SQLite) Tokens(ctx context.Context) ([]account.Token, error) {
	rows, err := s.rdb.QueryContext(ctx, tokenColumns+` ORDER BY created_ms DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	defer rows.Close()
	var out []account.Token
	for rows.Next() {
		t, err := scanToken(rows)
		if err != nil {
			return nil, fmt.Errorf("list tokens: %w", err)
		}
		out = append(out, *t)
	}
	return out, rows.Err()
}

// TokenByHash implements Store.
func (s *SQLite) TokenByHash(ctx context.Context, hash [32]byte) (*account.Token, error) {
	t, err := scanToken(s.rdb.QueryRowContext(ctx, tokenColumns+` WHERE hash = ?`, hash[:]))
	if err != nil {
		return nil, fmt.Errorf("token: %w", describe(err))
	}
	return t, nil
}

// TouchToken implements Store.
func (s *SQLite) TouchToken(ctx context.Context, id string, at time.Time) error {
	return s.touch(ctx, "token "+id, at, `SELECT last_used_ms FROM tokens WHERE id = ?`, `UPDATE tokens SET last_used_ms = ? WHERE id = ?`, id)
}

// RevokeToken implements Store.
func (s *SQLite) RevokeToken(ctx context.Context, id string) error {
	return s.one(ctx, fmt.Sprintf("revoke token %.40q", id), `UPDATE tokens SET revoked = 1 WHERE id = ?`, id)
}

// Audit implements Store. Over-long texts are cut.
func (s *SQLite) Audit(ctx context.Context, e account.AuditEntry) error {
	if e.Action == "" || e.Time.IsZero() {
		return errors.New("write audit log: an entry needs a time and an action")
	}
	if err := s.write(ctx, 1, func(tx *tx) error { return putAudit(tx, e) }); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

func putAudit(tx *tx, e account.AuditEntry) error {
	_, err := tx.exec(`INSERT INTO audit (ts_ns, who, action, object, detail, remote) VALUES (?,?,?,?,?,?)`,
		ns(e.Time), cut(e.Who, 200), cut(e.Action, 100), cut(e.Object, 1000), cut(e.Detail, 4000), cut(e.Remote, 100))
	return err
}

// AuditLog implements Store.
func (s *SQLite) AuditLog(ctx context.Context, before int64, limit int) ([]account.AuditEntry, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, err := s.rdb.QueryContext(ctx, `SELECT n, ts_ns, who, action, object, detail, remote FROM audit WHERE n < ? ORDER BY n DESC LIMIT `+
		strconv.Itoa(min(max(limit, 1), maxLimit)), before)
	if err != nil {
		return nil, fmt.Errorf("read audit log: %w", err)
	}
	defer rows.Close()
	var out []account.AuditEntry
	for rows.Next() {
		var e account.AuditEntry
		var t int64
		if err := rows.Scan(&e.N, &t, &e.Who, &e.Action, &e.Object, &e.Detail, &e.Remote); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		e.Time = fromNS(t)
		out = append(out, e)
	}
	return out, rows.Err()
}
