package enrich

import (
	"slices"
	"time"

	"github.com/rickar/cal/v2"
	"github.com/rickar/cal/v2/jp"

	"sekisho/internal/config"
)

// The values of sekisho.time.work.
const (
	workIn      = "in"      // a day of work, within the hours
	workOff     = "off"     // outside the hours, or a weekday on which nobody works
	workHoliday = "holiday" // a holiday of the calendar or of the site
)

// calendar tells work from off time, always in the zone of the settings.
type calendar struct {
	loc      *time.Location
	days     [7]bool // by time.Weekday
	from, to config.Clock
	extra    []config.Date
	japan    *cal.Calendar // nil: no national holidays

	// The day looked up last: events come in order, so it mostly is the same.
	year, yday int
	holiday    bool
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func newCalendar(w *config.WorkHours) *calendar {
	c := &calendar{loc: w.Location(), from: w.From, to: w.To, extra: w.Holidays.Extra}
	for _, d := range w.Days {
		if i := slices.Index(weekdays, d); i >= 0 {
			c.days[i] = true
		}
	}
	if w.Holidays.Calendar == "jp" {
		c.japan = &cal.Calendar{Name: "jp"}
		c.japan.AddHoliday(jp.Holidays...)
	}
	return c
}

// work says whether t is within the hours of work.
func (c *calendar) work(t time.Time) string {
	t = t.In(c.loc)
	if year, yday := t.Year(), t.YearDay(); year != c.year || yday != c.yday {
		c.year, c.yday, c.holiday = year, yday, c.isHoliday(t)
	}
	minute := config.Clock(t.Hour()*60 + t.Minute())
	switch {
	case c.holiday:
		return workHoliday
	case c.days[t.Weekday()] && minute >= c.from && minute < c.to:
		return workIn
	}
	return workOff
}

func (c *calendar) isHoliday(t time.Time) bool {
	if len(c.extra) > 0 && slices.Contains(c.extra, config.Date(t.Format(time.DateOnly))) {
		return true
	}
	if c.japan == nil {
		return false
	}
	// Offices are closed from 29 December to 3 January (Act on holidays of
	// administrative organs).
	if m, d := t.Month(), t.Day(); m == time.December && d >= 29 || m == time.January && d <= 3 {
		return true
	}
	// The library compares days at the location it is given.
	noon := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC)
	actual, observed, _ := c.japan.IsHoliday(noon)
	return actual || observed
}

// date is the day of t in the zone of the settings.
func (c *calendar) date(t time.Time) config.Date {
	return config.Date(t.In(c.loc).Format(time.DateOnly))
}
