package volume

import (
	"fmt"
	"sync"
	"time"
)

// guard bounds calls that may never return: a file system whose server is dead,
// a driver that does not let go. Such a call keeps its goroutine, and one thread,
// until it returns, so only a few may hang at a time.
type guard struct {
	timeout time.Duration

	mu      sync.Mutex // guards all below
	running int
}

// maxHanging is how many calls may hang before no more are begun: as many
// threads are lost to them.
const maxHanging = 16

// bounded returns f's result, or an error if it does not come in time.
func bounded[T any](g *guard, f func() T) (T, error) { return boundedBy(g, g.timeout, f) }

// boundedBy is bounded with a time of its own.
func boundedBy[T any](g *guard, timeout time.Duration, f func() T) (T, error) {
	var none T
	g.mu.Lock()
	if g.running == maxHanging {
		g.mu.Unlock()
		return none, fmt.Errorf("not asked: %d earlier questions hang", maxHanging)
	}
	g.running++
	g.mu.Unlock()
	done := make(chan T, 1)
	go func() { // not waited for: that is the point
		defer func() {
			g.mu.Lock()
			g.running--
			g.mu.Unlock()
		}()
		done <- f()
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		return r, nil
	case <-timer.C:
		return none, fmt.Errorf("no answer within %v", timeout)
	}
}
