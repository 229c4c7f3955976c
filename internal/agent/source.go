package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"

	"go.uber.org/zap"
)

// Source sees something happen on this PC and tells it as events. It knows no
// rules.
type Source interface {
	// Name is the sensor's name in status and settings: "usb", "file" ...
	Name() string
	// Run tells events until ctx is done (nil) or its mechanism breaks (error).
	// Sending to out may block; the pipeline always drains it.
	Run(ctx context.Context, out chan<- *event.Event) error
	// Status is what the sensor says of itself; safe at any time.
	Status() endpoint.Sensor
}

// Times between two starts of a source that broke: doubled from the first to
// the last, back to the first after it ran for steadyAfter. Judgement: a sensor
// that dies of a bug should not spin, and one that lost its mechanism for a
// moment (a module reloaded) should be back within seconds.
const (
	firstRetry     = time.Second
	lastRetry      = time.Minute
	steadyAfter    = 5 * time.Minute
	recoveredAfter = 3 * time.Second // of running without a break
)

// supervised runs one source for ever: a source that breaks, also by a panic, is
// told as degraded, started again later, and told as recovered.
type supervised struct {
	src  Source
	log  *zap.Logger
	less func() // called when it comes back with less than it had; may be nil

	mu     sync.Mutex              // guards all below
	broken error                   // why it is not running now
	since  time.Time               // of broken
	whole  bool                    // it has worked without trouble
	cancel context.CancelCauseFunc // ends what runs now; nil: nothing does
	counts [ratePeriods + 1]uint64 // its events, the newest first; see sample
}

// errAgain ends a run of a source that is to be started again, without a word:
// who asked for it has told why.
var errAgain = errors.New("to be started again")

// again ends what runs, so that it is started again.
func (s *supervised) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel(errAgain)
	}
}

// The rate of events is over ratePeriods of rateEvery.
const (
	rateEvery   = 10 * time.Second
	ratePeriods = 6
)

// sample is called every rateEvery.
func (s *supervised) sample() {
	n := s.src.Status().Events
	s.mu.Lock()
	defer s.mu.Unlock()
	copy(s.counts[1:], s.counts[:])
	s.counts[0] = n
}

func supervise(sources []Source, log *zap.Logger) []*supervised {
	var all []*supervised
	for _, s := range sources {
		all = append(all, &supervised{src: s, log: log.Named(s.Name())})
	}
	return all
}

// status is the source's own, or that it is down.
func (s *supervised) status() endpoint.Sensor {
	st := s.src.Status()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		st.State, st.Reason, st.Since = endpoint.SensorDown, s.broken.Error(), s.since
	}
	if errors.Is(s.broken, errors.ErrUnsupported) {
		st.State = endpoint.SensorUnavailable
	}
	if n := len(s.counts) - 1; s.counts[0] > s.counts[n] {
		st.PerMinute = float64(s.counts[0]-s.counts[n]) / (ratePeriods * rateEvery.Minutes())
	}
	return st
}

func (s *supervised) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken, s.since = err, time.Now().UTC()
}

func (s *supervised) run(ctx context.Context, out chan<- *event.Event) {
	wait := firstRetry
	var told bool // the current trouble was told
	for {
		started := time.Now()
		// What was told as down is told as recovered once the source has run for
		// a while; a source that breaks at once is not recovered in between.
		over := make(chan struct{})
		recovered := time.AfterFunc(recoveredAfter, func() {
			defer close(over)
			s.recovered(ctx, out)
		})
		err := s.once(ctx, out)
		if !recovered.Stop() {
			<-over
			told = false
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errAgain) {
			select {
			case <-time.After(firstRetry):
				continue
			case <-ctx.Done():
				return
			}
		}
		if err == nil {
			err = errors.New("ended without a reason")
		}
		s.set(err)
		if errors.Is(err, errors.ErrUnsupported) {
			// It cannot exist here: no trouble, and nothing that status does not tell.
			s.log.Info("sensor is not available on this system", zap.String("sensor", s.src.Name()), zap.Error(err))
			<-ctx.Done()
			return
		}
		if !told {
			told = true
			s.log.Error("sensor is down", zap.String("sensor", s.src.Name()), zap.Error(err))
			e := event.New(event.SensorDegraded, time.Now())
			e.Sensor, e.Health, e.Message = s.src.Name(), event.HealthDown, "down: "+err.Error()
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		if time.Since(started) > steadyAfter {
			wait = firstRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, lastRetry)
	}
}

// recovered tells that the source works again, if it was told as down.
func (s *supervised) recovered(ctx context.Context, out chan<- *event.Event) {
	st := s.src.Status()
	s.mu.Lock()
	was := s.broken
	s.broken = nil
	less := was != nil && s.whole && st.State.Trouble() && st.Mechanism != ""
	s.whole = s.whole || !st.State.Trouble()
	s.mu.Unlock()
	if was == nil {
		return
	}
	if less && s.less != nil {
		s.less()
	}
	s.log.Info("sensor recovered", zap.String("sensor", s.src.Name()))
	e := event.New(event.SensorRecovered, time.Now())
	e.Sensor, e.Message = s.src.Name(), "the sensor works again"
	select {
	case out <- e:
	case <-ctx.Done():
	}
}

// once runs the source and makes a panic an error: one sensor's bug must not
// blind the others.
func (s *supervised) once(ctx context.Context, out chan<- *event.Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			s.log.Error("sensor panicked", zap.String("sensor", s.src.Name()), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	s.cancel = cancel
	s.mu.Unlock()
	// What the sensor starts bears its name in a profile, see cost.go.
	pprof.Do(ctx, pprof.Labels(costLabel, s.src.Name()), func(ctx context.Context) { err = s.src.Run(ctx, out) })
	if err != nil {
		return err
	}
	if errors.Is(context.Cause(ctx), errAgain) {
		return errAgain
	}
	return nil
}
