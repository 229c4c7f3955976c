package collector

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// caller is how much one agent, or one address, asks of us.
type caller struct {
	rate  *rate.Limiter
	slots int // requests at once; 0: any number

	mu     sync.Mutex // guards all below
	inside int
	last   time.Time
}

func newCaller(perSecond, burst, slots int) *caller {
	return &caller{rate: rate.NewLimiter(rate.Limit(perSecond), burst), slots: slots}
}

// enter lets a request in, or says when to come back. After it, leave.
func (c *caller) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if !c.rate.AllowN(c.last, 1) {
		return busy(codeRate, 5)
	}
	if c.slots > 0 && c.inside >= c.slots {
		return busy(codeRate, 2)
	}
	c.inside++
	return nil
}

func (c *caller) leave() {
	c.mu.Lock()
	c.inside--
	c.mu.Unlock()
}

func (c *caller) idle(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inside == 0 && now.Sub(c.last) > forgetAfter
}

// forgetAfter is when a caller that stays away is forgotten; by then its burst
// is allowed again anyway.
const forgetAfter = 5 * time.Minute

// keyed is a map of callers that forgets those who stay away.
type keyed[V interface{ idle(time.Time) bool }] struct {
	make func() V

	mu    sync.Mutex // guards all below
	m     map[string]V
	swept time.Time
}

func (k *keyed[V]) at(key string) V {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[string]V{}
	}
	if now.Sub(k.swept) > time.Minute {
		k.swept = now
		for key, v := range k.m {
			if v.idle(now) {
				delete(k.m, key)
			}
		}
	}
	v, ok := k.m[key]
	if !ok {
		v = k.make()
		k.m[key] = v
	}
	return v
}
