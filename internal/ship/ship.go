// Package ship brings what the spools hold to the console: one loop that leases, sends, and lets the spool forget only what
// the console has answered for. It does not look into the rows, apart from seeing that each is JSON of a size the console takes.
//
// Alerts go first and at once; activity goes along with them, or by itself after a short wait. A batch a minute is a
// heartbeat whether or not it has rows. While the console cannot be reached nothing is lost: the spools keep it, and the
// loop tries again with growing, random waits.
package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/zap"

	"sekisho/internal/endpoint"
	"sekisho/internal/spool"
	"sekisho/internal/wire"
)

// Options are what a Shipper works with. Alerts, Activity, Client and URLs are needed; the rest has the default given with it.
type Options struct {
	Alerts   *spool.Spool
	Activity *spool.Spool

	// Client makes the requests. Its transport carries the client certificate and what it trusts; where that is a pinned key,
	// its check should wrap ErrPin.
	Client *http.Client

	// URLs are the console's addresses ("https://console.example.jp:8443"). One that works is kept; when it cannot be
	// reached the next is tried.
	URLs []string

	// Status makes the body of a heartbeat; nil for heartbeats without one. It is called from Run's goroutine.
	Status func() endpoint.Status

	// OnReply is told every answer to a batch (policy version, certificate due), from Run's goroutine: it must not block.
	OnReply func(wire.BatchReply)

	// Log gets a failure once, when it begins or changes, and the recovery once. nil for none.
	Log *zap.Logger

	// Rejected is the file that keeps the rows the console will never take, one JSON object a line, and the same name with ".old".
	// Together they are bounded by 8 MiB. "" keeps none; they are counted in the spool either way.
	Rejected string

	UserAgent string

	Heartbeat     time.Duration // between statuses, 1 min
	Gather        time.Duration // how long an alert waits for others raised with it, 10 ms
	ActivityDelay time.Duration // how long activity waits for more, 2 s
	Timeout       time.Duration // of one request, 30 s
	Flush         time.Duration // how long Run may go on after its context is done, 5 s
	BatchRows     int           // 500, at most wire.MaxBatchRows
	BatchBytes    int           // of rows, 1 MiB; a single larger row goes alone
}

const (
	minBackoff = time.Second
	maxBackoff = 5 * time.Minute

	// maxRetryAfter bounds what an answer can ask for, so that a wrong one does not silence a PC for a day.
	maxRetryAfter = time.Hour

	// alertRetry is how soon after a failure a new alert may be tried, whatever the backoff. Alerts are rare, and a console that
	// is back should hear of one; where it is not, this costs six attempts a minute at most.
	alertRetry = 10 * time.Second

	// refusalPause lies between the requests that search a refused batch for the row at fault.
	refusalPause = 200 * time.Millisecond

	// clockTolerance is the difference of clocks that is worth telling. It is what Kerberos allows by default: a PC within
	// it works in its domain.
	clockTolerance = 5 * time.Minute
)

func (o Options) withDefaults() (Options, error) {
	if o.Alerts == nil || o.Activity == nil || o.Client == nil {
		return o, errors.New("ship options: spools or client missing")
	}
	if len(o.URLs) == 0 {
		return o, errors.New("ship options: no console address")
	}
	urls := make([]string, len(o.URLs))
	for i, s := range o.URLs {
		u, err := url.Parse(s)
		if err != nil {
			return o, fmt.Errorf("ship options: console address: %w", err)
		}
		if u.Scheme != "https" || u.Host == "" {
			return o, fmt.Errorf("ship options: console address %q is not https://host[:port]", s)
		}
		urls[i] = strings.TrimSuffix(s, "/")
	}
	o.URLs = urls
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&o.Heartbeat, time.Minute}, {&o.Gather, 10 * time.Millisecond}, {&o.ActivityDelay, 2 * time.Second},
		{&o.Timeout, 30 * time.Second}, {&o.Flush, 5 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.unset
		}
	}
	if o.BatchRows <= 0 {
		o.BatchRows = 500
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 1 << 20
	}
	o.BatchRows = min(o.BatchRows, wire.MaxBatchRows)
	// Half: the largest row may come on top, and commas and the status do.
	o.BatchBytes = min(o.BatchBytes, wire.MaxBatchBytes/2)
	return o, nil
}

// State is how the shipping goes, for the status of the agent.
type State struct {
	// Contact has no CertExpires: that is the caller's to know. Its Code is one of this package's codes.
	Contact       endpoint.Contact
	LastAttempt   time.Time
	NextAttempt   time.Time // not before this; zero: as soon as there is something
	Failures      int       // in a row
	PolicyVersion int64     // as the console last told
	RenewDue      bool      // the console asks for a new certificate
	Batches       uint64    // answered since start, heartbeats among them
	Alerts        uint64    // delivered since start
	Activity      uint64    // delivered since start
	Refused       uint64    // set aside since start because the console will not take them
}

// Shipper is the loop. Run may be called once; State at any time, by anybody.
type Shipper struct {
	o   Options
	enc *zstd.Encoder

	mu    sync.Mutex
	state State // guarded by mu

	// Run's own, from here on.
	url         int       // index of the address in use
	alertsDue   time.Time // zero: none waits
	activityDue time.Time
	beatDue     time.Time
	notBefore   time.Time // no request earlier
	asked       bool      // notBefore is the console's wish, not our backoff
	suspects    int       // rows at the front among which is one that the console refuses; 0: none known
	narrow      int       // rows in the next batch while these are searched; 0: as many as there are
	accepted    time.Time // when a batch was last answered well
	body        bytes.Buffer
	packed      []byte
}

// New checks the options and makes a Shipper; it starts nothing.
func New(o Options) (*Shipper, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	// One goroutine and a window of 1 MiB: batches are that large, and the agent has to stay small. The encoder's
	// memory is made with the first batch, and stays: 0.3 MB at the fastest level, 1.3 MB at the usual one,
	// which packs events by 6 % better.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make shipper: %w", err)
	}
	client := *o.Client
	// A console never sends its agents elsewhere; whoever does shall not get what this PC has recorded.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	o.Client = &client
	s := &Shipper{o: o, enc: enc}
	s.state.Contact.Console = o.URLs[0]
	return s, nil
}

// State returns how it goes.
func (s *Shipper) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Run ships until ctx is done, then sends what is left, for Options.Flush at most, and returns nil. A request under way when ctx
// ends is not cut off before that either. No failure ends it earlier.
func (s *Shipper) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	returned := make(chan struct{})
	defer close(returned)
	wg.Go(func() {
		select {
		case <-returned:
			return
		case <-ctx.Done():
		}
		t := time.NewTimer(s.o.Flush)
		defer t.Stop()
		select {
		case <-returned:
		case <-t.C:
			cancel()
		}
	})

	s.beatDue = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			s.flush(hard)
			return nil
		case <-s.o.Alerts.Notify():
			s.alertsRaised(time.Now())
		case <-s.o.Activity.Notify():
			s.activityCame(time.Now())
		case <-timer.C:
		}
		if next := s.nextTime(); time.Now().Before(next) {
			timer.Reset(time.Until(next))
			continue
		}
		s.attempt(hard)
		timer.Reset(time.Until(s.nextTime()))
	}
}

// nextTime is when the next request is to be made.
func (s *Shipper) nextTime() time.Time {
	next := s.beatDue
	for _, due := range []time.Time{s.alertsDue, s.activityDue} {
		if !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	if next.Before(s.notBefore) {
		return s.notBefore
	}
	return next
}

func (s *Shipper) alertsRaised(now time.Time) {
	if s.alertsDue.IsZero() {
		s.alertsDue = now.Add(s.o.Gather)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked || s.state.Failures == 0 {
		return
	}
	if soon := s.state.LastAttempt.Add(alertRetry); soon.Before(s.notBefore) {
		s.notBefore = soon
		s.state.NextAttempt = soon
	}
}

func (s *Shipper) activityCame(now time.Time) {
	switch {
	case s.o.Activity.Len() >= s.o.BatchRows:
		s.activityDue = now
	case s.activityDue.IsZero():
		s.activityDue = now.Add(s.o.ActivityDelay)
	}
}

// flush sends what is left until there is nothing, a failure, or the end of ctx. While the console was failing anyway, that
// is one attempt.
func (s *Shipper) flush(ctx context.Context) {
	if s.asked && time.Now().Before(s.notBefore) {
		return // the spools keep it
	}
	for ctx.Err() == nil && s.o.Alerts.Len()+s.o.Activity.Len() > 0 {
		s.attempt(ctx)
		st := s.State()
		if st.Failures > 0 || s.asked {
			return
		}
		if wait := time.Until(s.notBefore); wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
}

// backoff is the wait after the n-th failure in a row: random up to twice as long each time, so that thousands of PCs do
// not come back together.
func backoff(n int) time.Duration {
	top := maxBackoff
	if n < 10 {
		top = min(top, minBackoff<<n)
	}
	return min(maxBackoff, minBackoff/2+rand.N(top))
}
