package store

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/alert"
)

// MinTime and MaxTime bound the times of rows: what fits nanoseconds in 64 bits.
// A PC's clock may be wrong by decades, but not outside of these.
var (
	MinTime = time.Date(1970, 1, 1, 0, 0, 0, 1, time.UTC)
	MaxTime = time.Date(2261, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Bounds of lists.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// Ingest implements Store.
func (s *SQLite) Ingest(ctx context.Context, d Delivery) error {
	if len(d.Alerts)+len(d.Activity) > 0 {
		if err := s.ingest(ctx, d); err != nil {
			return fmt.Errorf("store batch of %s: %w", d.AgentID, err)
		}
	}
	s.heard(d)
	return nil
}

func (s *SQLite) ingest(ctx context.Context, d Delivery) error {
	for _, a := range d.Alerts {
		if a.head == nil {
			return fmt.Errorf("alert %s was not made by NewAlert", a.ID)
		}
	}
	for _, r := range d.Activity {
		if err := checkTime(r.Time); err != nil {
			return fmt.Errorf("event %s: %w", r.ID, err)
		}
	}
	return s.write(ctx, len(d.Alerts)+len(d.Activity), func(tx *tx) error {
		var seq int64
		if len(d.Alerts) > 0 {
			if err := tx.row(`SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'alert-seq'`, nil, &seq); err != nil {
				return err
			}
		}
		before := seq
		for _, a := range d.Alerts {
			changed, err := putAlert(tx, d, a, seq+1)
			if err != nil {
				return err
			}
			if changed {
				seq++
			}
		}
		if seq != before {
			tx.told = true
			if _, err := tx.exec(`UPDATE meta SET value = ? WHERE key = 'alert-seq'`, strconv.FormatInt(seq, 10)); err != nil {
				return err
			}
		}
		for _, r := range d.Activity {
			if _, err := tx.exec(`INSERT INTO activity (ts_ns, id, agent, action, host, user, raw) VALUES (?,?,?,?,?,?,?) ON CONFLICT DO NOTHING`,
				ns(r.Time), r.ID, d.AgentID, r.Action, r.Host, r.User, r.Raw); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkTime(t time.Time) error {
	if t.Before(MinTime) || t.After(MaxTime) {
		return fmt.Errorf("@timestamp %s: outside of 1970 to 2260", t.UTC().Format(time.RFC3339))
	}
	return nil
}

// putAlert inserts an alert, or brings one up to date that has gathered repeats
// since; what people did with it stays. It reports whether anything changed.
func putAlert(tx *tx, d Delivery, a Alert, seq int64) (bool, error) {
	var host, user string
	if a.Event != nil && a.Event.Host != nil {
		host = a.Event.Host.Name
	}
	if a.Event != nil && a.Event.User != nil {
		user = a.Event.User.Name
	}
	last := a.LastSeen
	if last.Before(a.Time) || last.After(MaxTime) {
		last = a.Time
	}
	var n, count, lastNS int64
	err := tx.row(`SELECT n, count, last_ns FROM alerts WHERE agent = ? AND id = ?`, []any{d.AgentID, a.ID}, &n, &count, &lastNS)
	if err == nil {
		if a.Count <= count && ns(last) <= lastNS {
			return false, nil
		}
		_, err := tx.exec(`UPDATE alerts SET seq = ?, last_ns = ?, level = ?, count = ?, head = ?, raw = ? WHERE n = ?`,
			seq, max(ns(last), lastNS), int(a.Level), max(a.Count, count), a.head, a.Raw, n)
		return true, err
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	key := a.ID
	var taken int
	if err := tx.row(`SELECT count(*) FROM alerts WHERE key = ?`, []any{key}, &taken); err != nil {
		return false, err
	}
	if taken > 0 { // another agent's: a copied disk, or somebody who wants to hide one behind the other
		key += "~" + d.AgentID
	}
	test := 0
	if a.Test() {
		test = 1
	}
	if _, err := tx.exec(`INSERT INTO alerts (key, agent, id, seq, ts_ns, last_ns, received_ms, rule, rule_id, level, grp, host, user, test, count, state, head, raw)
		VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		key, d.AgentID, a.ID, seq, ns(a.Time), ns(last), ms(d.Received), a.Rule.Table, a.Rule.ID, int(a.Level), a.Group,
		host, user, test, max(a.Count, 1), string(alert.Open), a.head, a.Raw); err != nil {
		return false, err
	}
	_, err = tx.exec(`INSERT INTO alerts_text (rowid, words) VALUES (last_insert_rowid(), ?)`, a.words)
	return true, err
}

const alertColumns = `a.key, a.seq, a.ts_ns, a.agent, a.received_ms, a.state, a.assignee, a.reason, a.changed_ms`

// Alerts implements Store.
func (s *SQLite) Alerts(ctx context.Context, f alert.Filter) (alert.Page, error) {
	page, err := s.alerts(ctx, f)
	if err != nil {
		return alert.Page{}, fmt.Errorf("list alerts: %w", describe(err))
	}
	return page, nil
}

func (s *SQLite) alerts(ctx context.Context, f alert.Filter) (page alert.Page, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	query, args, err := alertsQuery(f, limit)
	if err != nil || query == "" {
		return page, err
	}
	rows, err := s.rdb.QueryContext(ctx, query, args...)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	for rows.Next() {
		r, key, t, err := scanAlert(rows)
		if err != nil {
			return page, err
		}
		if len(page.Records) == limit {
			last := page.Records[limit-1]
			page.Next = cursor(ns(last.Time), last.ID)
			break
		}
		r.Time, r.ID, r.Raw = fromNS(t), key, nil
		page.Records = append(page.Records, *r)
	}
	return page, rows.Err()
}

// alertsQuery is the query for a list, of one row more than limit so that it is
// known whether there are more. An empty one selects nothing.
func alertsQuery(f alert.Filter, limit int) (query string, all []any, err error) {
	var where []string
	var args []any
	add := func(cond string, v ...any) {
		where = append(where, cond)
		args = append(args, v...)
	}
	switch {
	case f.TestsOnly:
		add("a.test = 1")
	case !f.Tests:
		add("a.test = 0")
	}
	if f.Rule != "" {
		add("(a.rule = ? OR a.rule_id = ?)", f.Rule, f.Rule)
	}
	for _, eq := range []struct{ column, value string }{
		{"a.host", f.Host}, {"a.agent", f.AgentID}, {"a.user", f.User}, {"a.assignee", f.Assignee}, {"a.grp", f.Group},
	} {
		if eq.value != "" {
			add(eq.column+" = ?", eq.value)
		}
	}
	if !f.From.IsZero() {
		add("a.ts_ns >= ?", clampNS(f.From))
	}
	if !f.To.IsZero() {
		add("a.ts_ns < ?", clampNS(f.To))
	}
	if f.AfterSeq > 0 { // few: found by their own index, not by going through all in order of time
		add("a.n IN (SELECT n FROM alerts WHERE seq > ?)", f.AfterSeq)
	}
	if f.Text != "" {
		match, ok := matchQuery(f.Text)
		if !ok {
			return "", nil, nil // nothing but punctuation is in no alert's words
		}
		add("a.n IN (SELECT rowid FROM alerts_text WHERE alerts_text MATCH ?)", match)
	}
	if f.After != "" {
		t, key, err := parseCursor(f.After)
		if err != nil {
			return "", nil, err
		}
		add("(a.ts_ns, a.key) < (?, ?)", t, key)
	}

	// Each state, or else each level, has its own arm, read in order of time from
	// its index and stopped at the limit; IN would make SQLite sort every closed
	// alert there is. The + keeps SQLite from taking the other's index for that.
	states := slices.Compact(slices.Sorted(slices.Values(f.States)))
	levels := slices.Compact(slices.Sorted(slices.Values(f.Levels)))
	type arm struct {
		cond string
		args []any
	}
	var each []arm
	switch {
	case len(states) > 0 && len(states) < len(alert.States):
		if len(levels) > 0 {
			marks := make([]string, len(levels))
			for i, l := range levels {
				marks[i] = strconv.Itoa(int(l))
			}
			add("+a.level IN (" + strings.Join(marks, ",") + ")")
		}
		for _, st := range states {
			each = append(each, arm{"a.state = ?", []any{string(st)}})
		}
	case len(levels) > 0:
		for _, l := range levels {
			each = append(each, arm{"a.level = ?", []any{int(l)}})
		}
	default:
		each = []arm{{"1", nil}}
	}
	var arms []string
	for _, one := range each {
		arms = append(arms, `SELECT * FROM (SELECT `+alertColumns+`, a.head FROM alerts a WHERE `+strings.Join(append(where, one.cond), " AND ")+
			` ORDER BY a.ts_ns DESC, a.key DESC LIMIT `+strconv.Itoa(limit+1)+`)`)
		all = append(append(all, args...), one.args...)
	}
	return strings.Join(arms, " UNION ALL ") + ` ORDER BY ts_ns DESC, key DESC LIMIT ` + strconv.Itoa(limit+1), all, nil
}
func clampNS(t time.Time) int64 {
	if t.Before(MinTime) {
		return 0
	}
	if t.After(MaxTime) {
		t = MaxTime
	}
	return t.UnixNano()
}

func cursor(t int64, key string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %s", t, key))
}

func parseCursor(s string) (t int64, key string, err error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) > 1024 {
		return 0, "", alert.ErrCursor
	}
	num, key, ok := strings.Cut(string(b), " ")
	if t, err = strconv.ParseInt(num, 10, 64); err != nil || !ok {
		return 0, "", alert.ErrCursor
	}
	return t, key, nil
}

// scanAlert reads alertColumns and the alert's JSON, which it leaves in Raw.
func scanAlert(row interface{ Scan(...any) error }) (r *alert.Record, key string, t int64, err error) {
	r = new(alert.Record)
	var received, changed int64
	var state, reason string
	if err := row.Scan(&key, &r.Seq, &t, &r.AgentID, &received, &state, &r.Assignee, &reason, &changed, &r.Raw); err != nil {
		return nil, "", 0, err
	}
	r.Received, r.Changed, r.State, r.Reason = fromMS(received), fromMS(changed), alert.State(state), alert.Reason(reason)
	if r.Alert, err = alert.Decode(r.Raw); err != nil {
		return nil, "", 0, fmt.Errorf("alert %s: %w", key, err)
	}
	return r, key, t, nil
}

// Alert implements Store.
func (s *SQLite) Alert(ctx context.Context, id string) (*alert.Record, error) {
	r, err := s.alert(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("alert %.80q: %w", id, describe(err))
	}
	return r, nil
}

func (s *SQLite) alert(ctx context.Context, id string) (*alert.Record, error) {
	r, key, t, err := scanAlert(s.rdb.QueryRowContext(ctx, `SELECT `+alertColumns+`, a.raw FROM alerts a WHERE a.key = ?`, id))
	if err != nil {
		return nil, err
	}
	r.Time, r.ID = fromNS(t), key
	rows, err := s.rdb.QueryContext(ctx, `SELECT l.at_ms, l.user, l.state, l.assignee, l.reason, l.note
		FROM alert_log l JOIN alerts a ON a.n = l.alert WHERE a.key = ? ORDER BY l.n`, id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var e alert.LogEntry
		var at int64
		if err := rows.Scan(&at, &e.User, &e.State, &e.Assignee, &e.Reason, &e.Note); err != nil {
			return nil, err
		}
		e.Time = fromMS(at)
		r.Log = append(r.Log, e)
	}
	return r, rows.Err()
}

// AlertCounts implements Store. They are counted once per change.
func (s *SQLite) AlertCounts(ctx context.Context) (alert.Counts, error) {
	s.mu.Lock()
	version, known := s.version, s.counts
	if known != nil && s.countsAt == version {
		defer s.mu.Unlock()
		return copyCounts(*known), nil
	}
	s.mu.Unlock()
	c, err := s.countAlerts(ctx)
	if err != nil {
		return c, fmt.Errorf("count alerts: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.countsAt = &c, version // of a change since then it is told again
	return copyCounts(c), nil
}

func copyCounts(c alert.Counts) alert.Counts {
	out := c
	out.Open, out.ByState = map[alert.Level]int{}, map[alert.State]int{}
	for k, v := range c.Open {
		out.Open[k] = v
	}
	for k, v := range c.ByState {
		out.ByState[k] = v
	}
	return out
}

func (s *SQLite) countAlerts(ctx context.Context) (c alert.Counts, err error) {
	c = alert.Counts{Open: map[alert.Level]int{}, ByState: map[alert.State]int{}}
	rows, err := s.rdb.QueryContext(ctx, `SELECT state, level, count(*), min(ts_ns) FROM alerts
		WHERE state <> 'closed' AND test = 0 GROUP BY state, level`)
	if err != nil {
		return c, err
	}
	defer rows.Close()
	for rows.Next() {
		var state string
		var level, n int
		var oldest int64
		if err := rows.Scan(&state, &level, &n, &oldest); err != nil {
			return c, err
		}
		c.Open[alert.Level(level)] += n
		c.ByState[alert.State(state)] += n
		if t := fromNS(oldest); state == string(alert.Open) && (c.Oldest.IsZero() || t.Before(c.Oldest)) {
			c.Oldest = t
		}
	}
	if err := rows.Err(); err != nil {
		return c, err
	}
	var closed int
	if err := s.rdb.QueryRowContext(ctx, `SELECT
		(SELECT count(*) FROM alerts INDEXED BY alerts_closed WHERE state = 'closed' AND test = 0),
		(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'alert-seq')`).Scan(&closed, &c.LastSeq); err != nil {
		return c, err
	}
	c.ByState[alert.Closed] = closed
	return c, nil
}

// ChangeAlerts implements Store.
func (s *SQLite) ChangeAlerts(ctx context.Context, ids []string, c alert.Change, user string, at time.Time) error {
	if err := c.Check(); err != nil {
		return err
	}
	if len(ids) > maxLimit {
		return fmt.Errorf("change of %d alerts at once, the limit is %d", len(ids), maxLimit)
	}
	return s.write(ctx, len(ids), func(tx *tx) error {
		for _, id := range ids {
			if err := changeAlert(tx, id, c, user, at); err != nil {
				return fmt.Errorf("alert %.80q: %w", id, describe(err))
			}
		}
		tx.told = true
		return nil
	})
}

func changeAlert(tx *tx, id string, c alert.Change, user string, at time.Time) error {
	var n int64
	var e alert.LogEntry
	if err := tx.row(`SELECT n, state, assignee, reason FROM alerts WHERE key = ?`, []any{id}, &n, &e.State, &e.Assignee, &e.Reason); err != nil {
		return err
	}
	if c.State != "" {
		e.State, e.Reason = c.State, c.Reason
	}
	if c.Assignee != nil {
		e.Assignee = *c.Assignee
	}
	if _, err := tx.exec(`UPDATE alerts SET state = ?, assignee = ?, reason = ?, changed_ms = ? WHERE n = ?`,
		string(e.State), e.Assignee, string(e.Reason), ms(at), n); err != nil {
		return err
	}
	_, err := tx.exec(`INSERT INTO alert_log (alert, at_ms, user, state, assignee, reason, note) VALUES (?,?,?,?,?,?,?)`,
		n, ms(at), user, string(e.State), e.Assignee, string(e.Reason), c.Note)
	return err
}

// Activity implements Store.
func (s *SQLite) Activity(ctx context.Context, agentID string, before time.Time, limit int) ([]Row, error) {
	if before.IsZero() {
		before = MaxTime
	}
	q, args := `SELECT ts_ns, id, agent, action, host, user, raw FROM activity WHERE ts_ns < ?`, []any{clampNS(before)}
	if agentID != "" {
		q, args = q+` AND agent = ?`, append(args, agentID)
	}
	rows, err := s.rdb.QueryContext(ctx, q+` ORDER BY ts_ns DESC LIMIT `+strconv.Itoa(min(max(limit, 1), maxLimit)), args...)
	if err != nil {
		return nil, fmt.Errorf("list activity: %w", err)
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var r Row
		var t int64
		if err := rows.Scan(&t, &r.ID, &r.AgentID, &r.Action, &r.Host, &r.User, &r.Raw); err != nil {
			return nil, fmt.Errorf("list activity: %w", err)
		}
		r.Time = fromNS(t)
		out = append(out, r)
	}
	return out, rows.Err()
}

// DeleteActivity implements Store.
func (s *SQLite) DeleteActivity(ctx context.Context, before time.Time, limit int) (n int, err error) {
	err = s.write(ctx, limit, func(tx *tx) error {
		k, err := tx.exec(`DELETE FROM activity WHERE rowid IN (SELECT rowid FROM activity WHERE ts_ns < ? ORDER BY ts_ns LIMIT ?)`, clampNS(before), limit)
		n = int(k)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("delete old activity: %w", err)
	}
	return n, nil
}
