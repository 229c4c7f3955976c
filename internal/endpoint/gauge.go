package endpoint

import (
	"sync"
	"time"
)

// Gauge is where a sensor that is at work keeps what it says of itself. It is
// safe for concurrent use.
type Gauge struct {
	mu sync.Mutex // guards all below
	is Sensor
}

// NewGauge returns the gauge of a sensor that is not running.
func NewGauge(name string) *Gauge {
	return &Gauge{is: Sensor{Name: name, State: SensorDown, Reason: "not running", Since: time.Now().UTC()}}
}

// Status is what the sensor says of itself.
func (g *Gauge) Status() Sensor {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.is
}

// Turn is what a change of a sensor's state is to who watches over it.
type Turn int

// The turns. That a sensor is down is told by who runs it, so neither going down
// nor coming back from there is one.
const (
	Steady Turn = iota
	Worse       // it became degraded
	Better      // it was degraded and no longer has trouble
)

// Set notes a state, and returns what that is to who watches over the sensor.
func (g *Gauge) Set(state SensorState, mechanism, reason string) Turn {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.is.State
	if was != state {
		g.is.Since = time.Now().UTC()
	}
	g.is.State, g.is.Mechanism, g.is.Reason = state, mechanism, reason
	switch {
	case state == SensorDegraded && was != SensorDegraded:
		return Worse
	case was == SensorDegraded && !state.Trouble():
		return Better
	}
	return Steady
}

// Told counts an event that was given to the pipeline.
func (g *Gauge) Told() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.is.Events++
}

// Lose counts events that the sensor knows to have missed.
func (g *Gauge) Lose(n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.is.Lost += n
}
