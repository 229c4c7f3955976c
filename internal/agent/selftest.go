package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"sekisho/internal/event"

	"github.com/google/uuid"
)

// CanaryCommand is the subcommand of this program that does nothing but be seen:
// `sekisho-agent selftest-canary NONCE`. A self-test starts it, and the process
// sensor, the rules, the spool and the console are proven by what becomes of it.
const CanaryCommand = "selftest-canary"

// maxCanaries bounds the self-tests that are remembered.
const maxCanaries = 1024

// Hops tells when a self-test's canary passed each station; zero: not yet.
type Hops struct {
	Announced time.Time `json:"announced"`
	Started   time.Time `json:"started,omitzero"` // the process, by the sensor's event time
	Seen      time.Time `json:"seen,omitzero"`    // by the sensor
	Judged    time.Time `json:"judged,omitzero"`  // by the rules: an alert was raised
	Spooled   time.Time `json:"spooled,omitzero"` // on disk
	Shipped   time.Time `json:"shipped,omitzero"` // acknowledged by the console
	AlertID   string    `json:"alert_id,omitempty"`
	Sensor    string    `json:"sensor,omitempty"` // mechanism
}

type canary struct {
	hops  Hops
	place uint64 // in the alert spool, once Spooled
}

// canaries follows announced canaries on their way.
type canaries struct {
	committed func() uint64 // alerts that have left the spool; a place up to it was delivered

	mu      sync.Mutex // guards all below
	byNonce map[string]*canary
	order   []string // announced first first
	byEvent map[string]*canary
}

func newCanaries() *canaries {
	return &canaries{byNonce: map[string]*canary{}, byEvent: map[string]*canary{}}
}

// expect announces a nonce, which is a UUID and becomes the id of the event, so
// that a self-test that is tried again after a crash gives the same alert.
func (c *canaries) expect(nonce string) error {
	if _, err := uuid.Parse(nonce); err != nil || len(nonce) != 36 {
		return errors.New("a self-test is named by a UUID")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byNonce[nonce] != nil {
		return nil
	}
	if len(c.order) == maxCanaries {
		old := c.order[0]
		c.order = c.order[1:]
		delete(c.byNonce, old)
		delete(c.byEvent, old)
	}
	c.byNonce[nonce] = &canary{hops: Hops{Announced: time.Now().UTC()}}
	c.order = append(c.order, nonce)
	return nil
}

// mark makes a test of the event if it is an announced canary's start, and
// reports whether it is. Only what was announced over the control socket counts:
// nobody hides a process by giving it the canary's arguments.
func (c *canaries) mark(e *event.Event) bool {
	if e.Action != event.ProcessStarted || e.Process == nil || len(e.Process.Args) < 3 || e.Process.Args[1] != CanaryCommand {
		return false
	}
	nonce := e.Process.Args[2]
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.byNonce[nonce]
	if k == nil || !k.hops.Seen.IsZero() {
		return false
	}
	e.ID, e.Test = nonce, event.Some(true)
	k.hops.Started, k.hops.Seen, k.hops.Sensor = e.Time, e.Created, e.Sensor
	c.byEvent[nonce] = k
	return true
}

func (c *canaries) judged(eventID, alertID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.byEvent[eventID]; k != nil && k.hops.Judged.IsZero() {
		k.hops.Judged, k.hops.AlertID = time.Now().UTC(), alertID
	}
}

func (c *canaries) spooled(eventID string, place uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.byEvent[eventID]; k != nil && k.hops.Spooled.IsZero() {
		k.hops.Spooled, k.place = time.Now().UTC(), place
	}
}

// wait answers when the canary is on disk, or delivered, or ctx is done; then it
// tells how far it has come.
func (c *canaries) wait(ctx context.Context, nonce string, delivered bool) (Hops, error) {
	// The stations are passed within milliseconds; looking is cheaper than telling.
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		c.mu.Lock()
		k := c.byNonce[nonce]
		if k == nil {
			c.mu.Unlock()
			return Hops{}, errors.New("no such self-test was announced")
		}
		if k.hops.Shipped.IsZero() && !k.hops.Spooled.IsZero() && c.committed() >= k.place {
			k.hops.Shipped = time.Now().UTC()
		}
		h := k.hops
		c.mu.Unlock()
		if !h.Shipped.IsZero() || !delivered && !h.Spooled.IsZero() {
			return h, nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return h, nil
		}
	}
}
