package enrich

import (
	"time"

	"sekisho/internal/config"
	"sekisho/internal/event"
)

// expirySteps are the days before an end at which IT is told (HLT-2 of the
// incident table).
var expirySteps = []int64{1, 7, 14, 30}

// ends notes that what allows the use which an event tells of has a last day; "":
// it has none. A recording that says so itself goes first.
func (t *tables) ends(e *event.Event, c *event.Context, of, name string, last config.Date) {
	if last != "" && c.ExpiryEnds == "" && !e.Has(fExpiryEnds) {
		c.ExpiryOf, c.ExpiryName, c.ExpiryEnds = of, name, string(last)
	}
}

// expiry fills in how far off the end is.
func (t *tables) expiry(e *event.Event, c *event.Context) {
	if c.ExpiryEnds == "" || e.Time.IsZero() {
		return
	}
	last, err := time.Parse(time.DateOnly, c.ExpiryEnds)
	if err != nil {
		return // recorded so
	}
	today, _ := time.Parse(time.DateOnly, string(t.calendar.date(e.Time)))
	if !c.ExpiryDays.OK {
		c.ExpiryDays = event.Some(int64(last.Sub(today) / (24 * time.Hour)))
	}
	for _, step := range expirySteps {
		if c.ExpiryDays.V <= step && !c.ExpiryWithin.OK {
			c.ExpiryWithin = event.Some(step)
		}
	}
}
