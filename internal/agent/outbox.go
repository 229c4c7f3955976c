package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/spool"
	"sekisho/internal/wire"

	"go.uber.org/zap"
)

// Sizes of the outbox. Judgement.
const (
	// alertQueue alerts may wait in memory for the disk: while a sync is under
	// way, and while the disk is full. Over it they are dropped and counted.
	alertQueue = 4096
	// queueBytes of alerts wait as they are; what comes beyond is cut to tightRow,
	// and dropped where that cannot be. Ordinary alerts take some 10 MB.
	queueBytes = 16 << 20
	tightRow   = 8 << 10
	// fullRetry is the pause between two tries on a full disk.
	fullRetry = time.Second
	// ballast lets alerts still be written on a disk that is full.
	ballast = 1 << 20
	// lossCheck is how often losses are looked for, to be told as events.
	lossCheck = 10 * time.Second
)

// outbox takes what the judge gives out to disk: alerts by way of a writer of
// its own, which syncs all that wait at once, so that the pipeline never waits
// for a sync; activity buffered.
type outbox struct {
	alerts, activity *spool.Spool
	log              *zap.Logger

	again   []outgoing // of the run before: written first; only run touches it once it runs
	queue   chan outgoing
	waiting atomic.Int64                    // bytes in the queue, and of those that are being written
	spooled func(test string, place uint64) // called when a test's alert is on disk, with its place in the spool
	sync    func() error                    // puts on disk what the judge knows of the alerts: before they are
	kept    atomic.Uint64                   // number of the newest alert that is on disk or given up
	raised  atomic.Uint64                   // alerts on disk since start; updates of an alert do not count

	mu       sync.Mutex              // guards failures
	failures map[*spool.Spool]string // why the disk refuses now; nil: the judge's
}

// outgoing is an alert on its way to disk.
type outgoing struct {
	rec    []byte
	n      uint64 // as the judge counts what it gives out
	update bool   // a newer state of an alert that was given out before
	test   string // id of the event, if a self-test's
}

func openOutbox(dir string, maxAlerts, maxActivity int64, maxAge time.Duration, log *zap.Logger, spooled func(string, uint64), sync func() error) (*outbox, error) {
	o := &outbox{log: log, queue: make(chan outgoing, alertQueue), spooled: spooled, sync: sync, failures: map[*spool.Spool]string{}}
	aside := func(path string) {
		log.Error("a damaged file of the spool was set aside; what could be read of it is delivered, what could not is told as lost", zap.String("file", path))
	}
	var err error
	if o.alerts, err = spool.Open(filepath.Join(dir, "alerts"), spool.Options{MaxBytes: maxAlerts, BallastBytes: ballast, Aside: aside}); err != nil {
		return nil, err
	}
	if o.activity, err = spool.Open(filepath.Join(dir, "activity"), spool.Options{MaxBytes: maxActivity, MaxAge: maxAge, Aside: aside}); err != nil {
		o.alerts.Close()
		return nil, err
	}
	return o, nil
}

// outgoing is an alert as it goes to disk; it is done with a when it returns: the
// judge goes on counting in it.
func (o *outbox) outgoing(a *alert.Alert, update bool, n uint64) outgoing {
	most := rowBytes(o.alerts)
	if o.waiting.Load() >= queueBytes {
		most = min(most, tightRow)
	}
	x := outgoing{rec: encodeAlert(a, most), n: n, update: update}
	if a.Test() {
		x.test = a.Event.ID
	}
	return x
}

// alert queues an alert for the disk. It never blocks.
func (o *outbox) alert(x outgoing) {
	if o.waiting.Load() < queueBytes || len(x.rec) <= tightRow {
		o.waiting.Add(int64(len(x.rec)))
		select {
		case o.queue <- x:
			return
		default:
			o.waiting.Add(-int64(len(x.rec)))
		}
	}
	if err := o.alerts.CountFull(1); err != nil {
		o.log.Error("count a dropped alert", zap.Error(err))
	}
}

// act appends activity and reports whether it got in. It is on disk a second
// later at most.
func (o *outbox) act(e *event.Event) bool {
	rec := e.AppendJSON(nil)
	if most := rowBytes(o.activity); len(rec) > most {
		rec = shortened(rec, most)
	}
	err := o.activity.Append(false, rec)
	o.trouble(o.activity, "activity", err)
	if err != nil {
		if cerr := o.activity.CountFull(1); cerr != nil {
			o.log.Error("count a dropped record", zap.Error(cerr))
		}
	}
	return err == nil
}

// trouble keeps the newest reason why the disk refuses a spool, and logs a change
// of it.
func (o *outbox) trouble(s *spool.Spool, name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	o.mu.Lock()
	was := o.failures[s]
	o.failures[s] = text
	o.mu.Unlock()
	switch {
	case text != "" && was == "":
		o.log.Error("spool cannot be written", zap.String("spool", name), zap.Error(err))
	case text == "" && was != "":
		o.log.Info("spool can be written again", zap.String("spool", name))
	}
}

// most is how many alerts share a sync.
const most = 256

// run writes alerts until the queue is closed and empty. While the disk is full
// it keeps what it holds and tries again; only when the agent stops meanwhile
// does it give up, and counts.
func (o *outbox) run(stopping <-chan struct{}) {
	for held := range slices.Chunk(o.again, most) {
		o.write(held, stopping)
	}
	o.again = nil
	var held []outgoing
	for first := range o.queue {
		held = append(held[:0], first)
	more:
		for len(held) < most {
			select {
			case x, ok := <-o.queue:
				if !ok {
					break more
				}
				held = append(held, x)
			default:
				break more
			}
		}
		o.write(held, stopping)
		for i := range held {
			o.waiting.Add(-int64(len(held[i].rec)))
		}
		clear(held) // nothing huge stays behind until the next
	}
}

// write puts alerts on disk, after what the judge must know of them.
func (o *outbox) write(held []outgoing, stopping <-chan struct{}) {
	defer func() { o.kept.Store(held[len(held)-1].n) }()
	recs := make([][]byte, len(held))
	for i, x := range held {
		recs[i] = x.rec
	}
	// An alert goes out even where the judge could forget it with the next loss of
	// power: told twice is better than not at all.
	o.trouble(nil, "judge", o.sync())
	for {
		err := o.alerts.Append(true, recs...)
		if err == nil {
			o.trouble(o.alerts, "alerts", nil)
			at := o.alerts.Stats().Appended
			for _, x := range held {
				if !x.update {
					o.raised.Add(1)
				}
				if x.test != "" {
					o.spooled(x.test, at)
				}
			}
			return
		}
		o.trouble(o.alerts, "alerts", err)
		if !errors.Is(err, spool.ErrFull) {
			o.log.Error("alerts could not be kept", zap.Int("alerts", len(held)), zap.Error(err))
			o.alerts.CountFull(len(held))
			return
		}
		select {
		case <-time.After(fullRetry):
			continue
		case <-stopping:
		}
		o.alerts.CountFull(len(held))
		return
	}
}

// rowBytes is how long a record of a spool may be: the console takes no longer
// rows, and a spool with a small limit no longer records.
func rowBytes(s *spool.Spool) int { return min(wire.MaxRowBytes, s.MaxRecordBytes()) }

// fitAlert is encodeAlert for an alert's JSON.
func fitAlert(rec []byte, most int) []byte {
	if len(rec) <= most {
		return rec
	}
	a, err := alert.Decode(rec)
	if err != nil { // longer than an event may be
		return shortened(rec, most)
	}
	return encodeAlert(a, most)
}

// encodeAlert is the alert as a record of at most so many bytes. Until it fits
// evidence goes, the newest first and the deciding event never; the total still
// tells how much there was.
func encodeAlert(a *alert.Alert, most int) []byte {
	b := a.AppendJSON(nil)
	for len(b) > most && len(a.Evidence) > 1 {
		fewer := *a
		fewer.Evidence = nil
		for i, e := range a.Evidence {
			if i < len(a.Evidence)/2 || a.Event != nil && e.ID == a.Event.ID {
				fewer.Evidence = append(fewer.Evidence, e)
			}
		}
		if len(fewer.Evidence) == len(a.Evidence) {
			fewer.Evidence = fewer.Evidence[1:]
		}
		a = &fewer
		b = a.AppendJSON(nil)
	}
	if len(b) > most {
		b = shortened(b, most)
	}
	return b
}

// shortened is a record that is too large for a row, with its texts and lists cut
// until it fits, and a word about it in error.message. What identifies it is
// shorter than any cut.
func shortened(rec []byte, most int) []byte {
	d := json.NewDecoder(bytes.NewReader(rec))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return rec // not ours; the console says so
	}
	for longest := 16 << 10; longest >= 64; longest /= 4 {
		v = cutAll(v, longest).(map[string]any)
		v["error"] = map[string]any{"message": []string{"cut: the record was too large to send"}}
		b, err := json.Marshal(v)
		if err == nil && len(b) <= most {
			return b
		}
	}
	return rec
}

// cutAll cuts texts to a number of bytes and lists and mappings to a sixteenth as
// many entries.
func cutAll(v any, longest int) any {
	switch v := v.(type) {
	case string:
		return cut(v, longest)
	case []any:
		v = v[:min(len(v), longest/16)]
		for i := range v {
			v[i] = cutAll(v[i], longest)
		}
		return v
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		for i, k := range names {
			// Our own objects have fewer than 64 members; a longer one was recorded
			// with fields that nobody knows.
			if i >= max(longest/16, 64) || len(k) > 256 {
				delete(v, k)
				continue
			}
			v[k] = cutAll(v[k], longest)
		}
		return v
	}
	return v
}

// cut is s cut to n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// tellLosses makes events of what the spools dropped, until ctx is done. The
// count is marked as told only once the event is in the spool, under an id of
// its own, so that a crash neither loses nor doubles it.
//
// tell judges the event and reports whether it got into the activity spool.
func (o *outbox) tellLosses(ctx context.Context, tell func(*event.Event) bool) {
	t := time.NewTicker(lossCheck)
	defer t.Stop()
	for {
		for name, s := range map[string]*spool.Spool{"spool-alerts": o.alerts, "spool-activity": o.activity} {
			loss, ok, err := s.TakeLoss()
			if err != nil {
				o.log.Warn("read spool losses", zap.String("spool", name), zap.Error(err))
			}
			if !ok {
				continue
			}
			e := event.New(event.EventsLost, loss.Time)
			e.ID, e.Sensor = loss.ID, name
			e.Lost = &event.Lost{Count: event.Some(int64(loss.Total()))}
			e.Message = lossText(loss.Losses)
			if !tell(e) || o.activity.Sync() != nil {
				continue // told again, under the same id
			}
			if err := s.ReportLoss(loss.ID); err != nil {
				o.log.Warn("mark spool losses as told", zap.Error(err))
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// lossText says what was lost and why, in words.
func lossText(l spool.Losses) string {
	var parts []string
	for _, c := range []struct {
		n   uint64
		why string
	}{
		{l.Overflow, "over the size limit"}, {l.Expired, "too old"}, {l.Corrupt, "damaged on disk"},
		{l.Torn, "torn by a crash"}, {l.Refused, "refused by the console"}, {l.Full, "disk full"},
	} {
		if c.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", c.n, c.why))
		}
	}
	return "records dropped: " + strings.Join(parts, ", ")
}

// status tells of both queues.
func (o *outbox) status(maxAlerts, maxActivity int64) (alerts, activity endpoint.Queue) {
	queue := func(s *spool.Spool, limit int64) endpoint.Queue {
		st := s.Stats()
		q := endpoint.Queue{Records: int64(st.Records), Bytes: st.Bytes, MaxBytes: limit, Dropped: int64(st.Dropped.Total())}
		o.mu.Lock()
		q.Error = o.failures[s]
		o.mu.Unlock()
		if q.Error == "" {
			q.Error = st.LastError
		}
		if st.OldestUnixNano != 0 {
			q.Oldest = time.Unix(0, st.OldestUnixNano).UTC()
		}
		return q
	}
	return queue(o.alerts, maxAlerts), queue(o.activity, maxActivity)
}

// close is the last sync.
func (o *outbox) close() error {
	return errors.Join(o.alerts.Close(), o.activity.Close())
}
