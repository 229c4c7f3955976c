package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
)

// live is what the live streams share.
type live struct {
	mu    sync.Mutex    // guards all below
	open  int           // streams
	users map[int64]int // streams by user
	taken time.Time     // when cur was asked for
	cur   counts

	silent   int // endpoints, as of silentAt
	silentAt time.Time
}

// counts are the numbers of the frame.
type counts struct {
	alert.Counts
	silent int // endpoints that are silent
}

// triage is how many alerts wait for somebody to take them.
func (c *counts) triage() int { return c.ByState[alert.Open] }

// total is how many alerts are not closed.
func (c *counts) total() (n int) {
	for _, k := range c.Open {
		n += k
	}
	return n
}

// silentEvery is how often the endpoints are gone through for silent ones; an
// endpoint counts as silent after minutes.
const silentEvery = 15 * time.Second

// counts answers numbers that are not older than since. Streams that are woken
// by the same change share one query.
func (s *Server) counts(ctx context.Context, since time.Time) (counts, error) {
	l := &s.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.taken.IsZero() && !l.taken.Before(since) {
		return l.cur, nil
	}
	asked := time.Now()
	c, err := s.o.Store.AlertCounts(ctx)
	if err != nil {
		return counts{}, fmt.Errorf("count alerts: %w", err)
	}
	if asked.Sub(l.silentAt) > silentEvery {
		all, err := s.o.Store.Endpoints(ctx)
		if err != nil {
			return counts{}, fmt.Errorf("list endpoints: %w", err)
		}
		l.silent, l.silentAt = 0, asked
		for i := range all {
			if all[i].Health(asked) == endpoint.Silent {
				l.silent++
			}
		}
	}
	l.cur, l.taken = counts{c, l.silent}, asked
	return l.cur, nil
}

// strip is the row of numbers above the list.
type strip struct {
	Total  string
	Levels []stripLevel
	Oldest string // age of the oldest one nobody took; empty: none waits
	Silent string
	Quiet  bool // no endpoint is silent
}

type stripLevel struct {
	Name, Count string
	Zero        bool
}

func (p *printer) strip(c counts, now time.Time) strip {
	st := strip{Total: p.number(int64(c.total())), Silent: p.number(int64(c.silent)), Quiet: c.silent == 0, Oldest: p.t("strip.none")}
	if c.triage() > 0 && !c.Oldest.IsZero() {
		st.Oldest = p.span(now.Sub(c.Oldest))
	}
	for i := len(alert.LevelNames) - 1; i >= 0; i-- {
		n := c.Open[alert.Level(i)]
		st.Levels = append(st.Levels, stripLevel{alert.LevelNames[i], p.number(int64(n)), n == 0})
	}
	return st
}

// update is the data of one event of the stream.
type update struct {
	Seq    int64             `json:"seq"`    // newest alert
	New    int               `json:"new"`    // alerts since the last event, at most 100
	Tests  int               `json:"tests"`  // tests among them
	Triage int               `json:"triage"` // alerts to triage
	Rev    string            `json:"rev"`    // differs when alerts changed hands: the tab then looks at its rows
	Text   map[string]string `json:"text"`   // new text by element id
	Zero   map[string]bool   `json:"zero"`   // which of them are naught
}

// Of a stream. heartbeat keeps proxies from closing it and is when the session
// is looked at; coalesce gathers a burst into one event; perUser keeps one
// person's tabs from using up all streams.
const (
	heartbeat  = 20 * time.Second
	coalesce   = 100 * time.Millisecond
	perUser    = 20
	writeLimit = 10 * time.Second
)

// stream is the live stream of one tab (server-sent events). Each event's id is
// the newest alert's Seq; a browser that comes back with Last-Event-ID is told at
// once what it missed. It tells numbers only: the tab fetches the rows of the
// list that it shows.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	last, err := resumeFrom(r)
	if err != nil {
		return err
	}
	if err := s.live.enter(v.user.ID, s.o.MaxStreams); err != nil {
		return err
	}
	defer s.live.leave(v.user.ID)

	ctx := r.Context()
	changed, stop := s.o.Store.Watch()
	defer stop()
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather events
	w.WriteHeader(http.StatusOK)
	defer rc.SetWriteDeadline(time.Time{})
	send := func(format string, args ...any) error {
		// A server's WriteTimeout is for pages; a stream has one per event. A
		// writer that knows no deadlines has none.
		if err := rc.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		if _, err := fmt.Fprintf(w, format, args...); err != nil {
			return err
		}
		return rc.Flush()
	}

	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	since := time.Now()
	if send("retry: 3000\n\n") != nil {
		return nil
	}
	var sent update
	for {
		u, err := s.update(ctx, v.p, last, since)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("live stream", zap.Error(err))
			}
			return nil // the browser comes back by itself
		}
		// Heartbeats of endpoints wake us too; most of them change no number.
		if sent.Text == nil || u.Seq != last || u.Rev != sent.Rev || !maps.Equal(u.Text, sent.Text) {
			data, err := json.Marshal(u)
			if err != nil {
				s.log.Error("live stream: encode update", zap.Error(err))
				return nil
			}
			if send("id: %d\nevent: state\ndata: %s\n\n", u.Seq, data) != nil {
				return nil
			}
			sent, last = u, u.Seq
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(coalesce):
			}
		case <-tick.C: // ages grow, endpoints fall silent, sessions end
			session, _, err := s.session(ctx, v.session.Hash, time.Now())
			if err != nil || session == nil {
				send("event: end\ndata: {}\n\n")
				return nil
			}
			if send(": still here\n\n") != nil {
				return nil
			}
		}
		since = time.Now()
	}
}

// update is the state after last, as of since or later.
func (s *Server) update(ctx context.Context, p *printer, last int64, since time.Time) (update, error) {
	c, err := s.counts(ctx, since)
	if err != nil {
		return update{}, err
	}
	u := update{Seq: max(c.LastSeq, last), Triage: c.triage(), Rev: fmt.Sprint(c.ByState, c.Open), Text: map[string]string{}, Zero: map[string]bool{}}
	if last < 0 {
		u.Seq = c.LastSeq
	} else if c.LastSeq > last {
		fresh, err := s.o.Store.Alerts(ctx, alert.Filter{AfterSeq: last, Tests: true, Limit: pageSize})
		if err != nil {
			return update{}, fmt.Errorf("list new alerts: %w", err)
		}
		u.New = len(fresh.Records)
		for i := range fresh.Records {
			if fresh.Records[i].Test() {
				u.Tests++
			}
		}
	}
	st := p.strip(c, time.Now())
	put := func(id, text string, zero bool) { u.Text[id], u.Zero[id] = text, zero }
	put("live-open-count", p.number(int64(c.triage())), c.triage() == 0)
	put("live-triage-count", p.number(int64(c.triage())), c.triage() == 0)
	put("live-total-count", st.Total, c.total() == 0)
	put("live-oldest", st.Oldest, c.triage() == 0)
	put("live-silent", st.Silent, st.Quiet)
	for _, level := range st.Levels {
		put("live-level-"+level.Name, level.Count, level.Zero)
	}
	return u, nil
}

// resumeFrom is the newest alert that the tab knows of: -1 for none, which asks
// for the state without news.
func resumeFrom(r *http.Request) (int64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("seq")
	}
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: event id %q", errBadRequest, cut(text, 40))
	}
	return n, nil
}

func (l *live) enter(user int64, max int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= max || l.users[user] >= perUser {
		return fmt.Errorf("%w: %d are open, %d of this user", errTooManyOpen, l.open, l.users[user])
	}
	if l.users == nil {
		l.users = map[int64]int{}
	}
	l.open++
	l.users[user]++
	return nil
}

func (l *live) leave(user int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.users[user]--; l.users[user] == 0 {
		delete(l.users, user)
	}
}
