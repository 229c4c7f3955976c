package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"sekisho/internal/spool"
	"sekisho/internal/wire"
)

// loan is the rows of one spool that go into a batch.
type loan struct {
	name  string // "alerts", "activity"
	batch *spool.Batch
	rows  []json.RawMessage // the first of the batch's records, perhaps not all
}

// settle takes the first rows out of the spool; the others go back.
func (l *loan) settle(delivered, refused int) error {
	if l.batch == nil {
		return nil
	}
	return l.batch.Settle(delivered, refused)
}

func (l *loan) bytes() int {
	if l.batch == nil {
		return 0
	}
	return l.batch.Bytes()
}

func (l *loan) release() {
	if l.batch != nil {
		l.batch.Release()
	}
}

// attempt makes one batch of what is waiting, sends it, and settles it by the answer.
func (s *Shipper) attempt(ctx context.Context) {
	now := time.Now()
	s.asked = false
	s.alertsDue, s.activityDue = time.Time{}, time.Time{}
	alerts, activity, err := s.borrow()
	defer alerts.release()
	defer activity.release()
	if err != nil {
		s.failed(&Trouble{Code: CodeSpool, Text: err.Error()})
		return
	}
	rows := len(alerts.rows) + len(activity.rows)
	beat := !now.Before(s.beatDue)
	if rows == 0 {
		s.suspects, s.narrow = 0, 0
		if !beat {
			return
		}
	}
	batch := wire.Batch{Sent: now.UTC(), Alerts: alerts.rows, Activity: activity.rows}
	// While a refused batch is searched, the status must not be what is refused.
	beat = beat && s.narrow == 0
	if beat && s.o.Status != nil {
		st := s.o.Status()
		batch.Status = &st
	}
	reply, trouble := s.exchange(ctx, batch)
	switch {
	case trouble == nil && (reply.Alerts > len(alerts.rows) || reply.Activity > len(activity.rows) || reply.Alerts < 0 || reply.Activity < 0):
		s.failed(&Trouble{Code: CodeAnswer, Text: fmt.Sprintf("the console answered for %d alerts and %d activity rows, sent were %d and %d",
			reply.Alerts, reply.Activity, len(alerts.rows), len(activity.rows))})
	case trouble == nil:
		if beat {
			s.beatDue = now.Add(s.o.Heartbeat)
		}
		s.delivered(&alerts, &activity, reply)
	case trouble.refusal && rows > 1:
		s.suspects, s.narrow = rows, rows/2
		if i := trouble.index; i != nil && *i >= 0 && *i < rows {
			s.suspects, s.narrow = *i+1, max(1, *i)
		}
		s.pause(now)
	case trouble.refusal && rows == 1:
		s.refused(ctx, &alerts, &activity, trouble)
	default:
		s.failed(trouble)
	}
}

// delivered settles an answered batch and sees what is to be done next.
func (s *Shipper) delivered(alerts, activity *loan, reply wire.BatchReply) {
	size := alerts.bytes() + activity.bytes()
	err := errors.Join(alerts.settle(reply.Alerts, 0), activity.settle(reply.Activity, 0))
	s.mu.Lock()
	s.state.Alerts += uint64(reply.Alerts)
	s.state.Activity += uint64(reply.Activity)
	s.state.Batches++
	s.state.PolicyVersion = reply.PolicyVersion
	s.state.RenewDue = reply.Renew
	s.mu.Unlock()
	if s.o.OnReply != nil {
		s.o.OnReply(reply)
	}
	if err != nil {
		// It is delivered, but the disk does not take that in: it would be sent again at once, for ever.
		s.failed(&Trouble{Code: CodeSpool, Text: err.Error()})
		return
	}
	rows, taken := len(alerts.rows)+len(activity.rows), reply.Alerts+reply.Activity
	if rows > 0 && taken == 0 {
		s.failed(&Trouble{Code: CodeBusy, Text: "the console took none of the rows it was sent", RetryAfter: seconds(reply.RetryAfter)})
		return
	}
	s.succeeded()
	if s.suspects = max(0, s.suspects-taken); s.suspects > 0 {
		s.narrow = max(1, s.suspects/2)
	} else {
		s.narrow = 0
	}
	now := time.Now()
	if wait := seconds(reply.RetryAfter); wait > 0 {
		s.hold(now, wait)
	}
	if s.o.Alerts.Len() > 0 {
		s.alertsDue = now
	}
	// What came meanwhile may wait for more; what found no room, or was left by the console, has waited.
	left := s.narrow > 0 || size > s.o.BatchBytes/2 || reply.Activity < len(activity.rows)
	switch n := s.o.Activity.Len(); {
	case n >= s.o.BatchRows || n > 0 && left:
		s.activityDue = now
	case n > 0:
		s.activityDue = now.Add(s.o.ActivityDelay)
	}
}

// refused sets aside the one row of a batch that the console will not take. That it is the row's fault is only believed when
// the console takes a batch without it.
func (s *Shipper) refused(ctx context.Context, alerts, activity *loan, trouble *Trouble) {
	now := time.Now()
	if now.Sub(s.accepted) > alertRetry {
		if _, t := s.exchange(ctx, wire.Batch{Sent: now.UTC()}); t != nil {
			t.refusal = false
			s.failed(t)
			return
		}
		s.succeeded()
	}
	l := alerts
	if len(l.rows) == 0 {
		l = activity
	}
	s.suspects, s.narrow = 0, 0
	if err := s.setAside(l, trouble.Text); err != nil {
		s.failed(&Trouble{Code: CodeSpool, Text: err.Error()})
		return
	}
	s.pause(now)
}

// pause goes on with the search of a refused batch.
func (s *Shipper) pause(now time.Time) {
	s.notBefore = now.Add(refusalPause)
	s.alertsDue = now
	s.activityDue = now
}

// setAside takes the first row of a loan out of the spool and keeps it in the file of rejected rows.
func (s *Shipper) setAside(l *loan, reason string) error {
	row := l.batch.Records()[0]
	if err := reject(s.o.Rejected, l.name, reason, row); err != nil {
		// It cannot be delivered and cannot be kept. Waiting for a disk would stop all rows behind it, so it is only counted.
		s.o.Log.Error("keep a row the console will not take", zap.String("queue", l.name), zap.Error(err))
	}
	if err := l.settle(0, 1); err != nil {
		return err
	}
	s.mu.Lock()
	s.state.Refused++
	s.mu.Unlock()
	s.o.Log.Warn("a row was set aside: the console will not take it",
		zap.String("queue", l.name), zap.String("reason", reason), zap.Int("bytes", len(row)), zap.String("file", s.o.Rejected))
	return nil
}

// borrow leases what the next batch holds, alerts first.
func (s *Shipper) borrow() (alerts, activity loan, err error) {
	rows, size := s.o.BatchRows, s.o.BatchBytes
	if s.narrow > 0 {
		rows = min(rows, s.narrow)
	}
	if alerts, err = s.lease("alerts", s.o.Alerts, rows, size); err != nil {
		return alerts, activity, err
	}
	if s.o.Alerts.Len() > len(alerts.rows) {
		return alerts, activity, nil // the next batch's room is for alerts too
	}
	rows -= len(alerts.rows)
	size -= alerts.bytes()
	if rows > 0 && size > 0 {
		activity, err = s.lease("activity", s.o.Activity, rows, size)
	}
	return alerts, activity, err
}

// lease borrows rows from one spool. Rows that no console takes are set aside.
func (s *Shipper) lease(name string, q *spool.Spool, rows, size int) (loan, error) {
	for {
		b, err := q.Lease(rows, size)
		if errors.Is(err, spool.ErrEmpty) {
			return loan{}, nil
		}
		if err != nil {
			return loan{}, err
		}
		l := loan{name: name, batch: b}
		var flaw string
		for _, r := range b.Records() {
			if flaw = flawOf(r); flaw != "" {
				break
			}
			l.rows = append(l.rows, r)
		}
		if len(l.rows) > 0 || flaw == "" {
			return l, nil // a flawed row behind these is the first one next time
		}
		if err := s.setAside(&l, flaw); err != nil {
			return loan{}, err
		}
	}
}

// flawOf says why no console can take the row, "" if one can.
func flawOf(row []byte) string {
	switch {
	case len(row) > wire.MaxRowBytes:
		return fmt.Sprintf("%d bytes, at most %d", len(row), wire.MaxRowBytes)
	case !json.Valid(row):
		return "not JSON"
	}
	return ""
}

// exchange sends a batch to the address in use, or the next that can be reached.
func (s *Shipper) exchange(ctx context.Context, batch wire.Batch) (wire.BatchReply, *Trouble) {
	s.body.Reset()
	enc := json.NewEncoder(&s.body)
	enc.SetEscapeHTML(false) // rows are evidence: leave their bytes as they are
	if err := enc.Encode(batch); err != nil {
		return wire.BatchReply{}, &Trouble{Code: CodeSpool, Text: "encode batch: " + err.Error()}
	}
	s.packed = s.enc.EncodeAll(s.body.Bytes(), s.packed[:0])
	if s.body.Cap() > 2*s.o.BatchBytes {
		s.body = bytes.Buffer{}
	}

	var reply wire.BatchReply
	var first *Trouble
	for range s.o.URLs {
		var trouble *Trouble
		reply, trouble = s.post(ctx, s.o.URLs[s.url])
		if trouble == nil || !trouble.elsewhere {
			return reply, trouble
		}
		if first == nil {
			first = trouble // the address that is usually right says most
		}
		if ctx.Err() != nil {
			break
		}
		s.url = (s.url + 1) % len(s.o.URLs)
	}
	return reply, first
}

// post makes one request with the packed batch.
func (s *Shipper) post(ctx context.Context, base string) (wire.BatchReply, *Trouble) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var reply wire.BatchReply
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+wire.PathBatches, bytes.NewReader(s.packed))
	if err != nil {
		return reply, &Trouble{Code: CodeAnswer, Text: err.Error()}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "zstd")
	if s.o.UserAgent != "" {
		req.Header.Set("User-Agent", s.o.UserAgent)
	}
	sent := time.Now()
	s.mu.Lock()
	s.state.LastAttempt = sent
	s.state.Contact.Console = base
	s.mu.Unlock()
	resp, err := s.o.Client.Do(req)
	if err != nil {
		t := Diagnose(err, time.Now())
		return reply, &t
	}
	defer resp.Body.Close()
	// Read a little more than any answer has, so that the connection can be used again.
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		t := Diagnose(err, time.Now())
		return reply, &t
	}
	s.compareClocks(resp, body, sent, time.Now())
	if resp.StatusCode != http.StatusOK {
		return reply, answered(resp, body, time.Now())
	}
	if err := json.Unmarshal(body, &reply); err != nil || reply.Now.IsZero() {
		return reply, &Trouble{Code: CodeAnswer, Text: "the answer is not a console's: a proxy or another server may stand at this address", elsewhere: true}
	}
	s.accepted = time.Now()
	return reply, nil
}

// compareClocks takes the console's time from an answer: from its body, else from the Date header, which counts seconds.
func (s *Shipper) compareClocks(resp *http.Response, body []byte, sent, received time.Time) {
	var told struct {
		Now time.Time `json:"now"`
	}
	if err := json.Unmarshal(body, &told); err != nil || told.Now.IsZero() {
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			return
		}
		told.Now = date.Add(time.Second / 2)
	}
	// Round(0): the wall clock is what is compared, even if it was set meanwhile.
	middle := sent.Round(0).Add(received.Sub(sent) / 2)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Contact.ClockOffset = told.Now.Sub(middle)
}

// succeeded notes that a batch was answered well.
func (s *Shipper) succeeded() {
	now := time.Now()
	s.notBefore = time.Time{}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.state.Contact
	if s.state.Failures > 0 {
		s.o.Log.Info("console answers again", zap.String("console", c.Console),
			zap.Duration("after", now.Sub(c.Since)), zap.Int("attempts", s.state.Failures))
	}
	clockWasOff := c.Code == CodeClock && s.state.Failures == 0
	s.state.Failures = 0
	s.state.NextAttempt = time.Time{}
	c.LastSuccess = now
	if c.ClockOffset.Abs() <= clockTolerance {
		c.Code, c.Error, c.Since = "", "", time.Time{}
		return
	}
	c.Error = clockText(c.ClockOffset)
	c.Code = CodeClock
	if !clockWasOff {
		c.Since = now
		s.o.Log.Warn(c.Error, zap.String("code", CodeClock))
	}
}

// failed notes a failure and decides when to try again.
func (s *Shipper) failed(t *Trouble) {
	now := time.Now()
	// A connection may hold an address or a certificate that has changed since.
	s.o.Client.CloseIdleConnections()
	s.alertsDue = now
	s.mu.Lock()
	c := &s.state.Contact
	if s.state.Failures == 0 {
		c.Since = now
	}
	if s.state.Failures == 0 || c.Code != t.Code {
		s.o.Log.Warn("cannot deliver to the console; what is recorded waits on this PC",
			zap.String("console", c.Console), zap.String("code", t.Code), zap.String("error", t.Text))
	}
	s.state.Failures++
	n := s.state.Failures
	c.Code, c.Error = t.Code, t.Text
	s.mu.Unlock()
	if t.RetryAfter > 0 {
		s.hold(now, t.RetryAfter)
		return
	}
	s.wait(now.Add(backoff(n - 1)))
}

// hold waits as long as the console asked, and a random part more so that not all agents come back at the same moment.
func (s *Shipper) hold(now time.Time, asked time.Duration) {
	asked = min(asked, maxRetryAfter)
	s.wait(now.Add(asked + rand.N(min(asked, 30*time.Second))))
	s.asked = true
}

func (s *Shipper) wait(until time.Time) {
	s.notBefore = until
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.NextAttempt = until
}

func seconds(n int) time.Duration {
	return time.Duration(min(max(n, 0), int(maxRetryAfter/time.Second))) * time.Second
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil {
		return seconds(n)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}
