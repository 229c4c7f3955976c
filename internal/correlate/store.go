package correlate

import (
	"sekisho/internal/event"
	"sekisho/internal/rules"
)

// Store is where a Set keeps what must survive a restart, and windows of weeks
// and months. Keys and values are the Set's business; both are bounded.
type Store interface {
	// Get is a key's value; nil, nil where there is none. The value is the
	// caller's, or is not written to by anybody until the next call.
	Get(key []byte) (value []byte, err error)
	// Each calls f with every key that has the prefix, and its value, in the
	// keys' order. Both are only good until f returns. The first error ends it.
	Each(prefix []byte, f func(key, value []byte) error) error
}

// Load takes over from the Store what an earlier Set flushed. The Set must be
// new. Values that make no sense are left out and counted (Stats.Broken); an
// error is the Store's.
func (s *Set) Load() error { return nil }

// Flush hands out what changed since the last Flush that succeeded: every key
// with its value, nil where the key is gone. If put fails, so does Flush, and
// the next one hands out the same again. All of it belongs into one transaction.
func (s *Set) Flush(put func(key, value []byte) error) error { return nil }

// FirstSeen drops the matches of rules that only match what is new
// (rules.Addition.FirstSeen) where the event is not, in place, and remembers
// what it saw. Call it before Observe, with every event that matched.
func (s *Set) FirstSeen(e *event.Event, matches []rules.Match) []rules.Match { return matches }
