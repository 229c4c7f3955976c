package winlog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// OffError says that a channel is switched off, so that Windows writes nothing into
// it.
type OffError struct{ Channel string }

func (e *OffError) Error() string {
	return fmt.Sprintf("Windows does not write the log %s; as administrator, %s switches it on", e.Channel, Command(e.Channel))
}

// Command is what an administrator types to switch a channel on.
func Command(channel string) string { return fmt.Sprintf(`wevtutil sl "%s" /e:true`, channel) }

// Enabled reports whether Windows writes a channel. The error wraps
// errors.ErrUnsupported where this system has no such logs.
func Enabled(channel string) (bool, error) { return system.enabled(channel) }

// Options say what Follow and Past read.
type Options struct {
	Channel string
	IDs     []int // kinds of records; at most 20, as a query of Windows has no room for more than 23 terms

	// Since, if it is not zero, asks Follow also for what was written after it.
	Since time.Time
	// Tell is given each record.
	Tell func(*Event)
	// Say is given why nothing is read, and nil once it is; on a change only. The
	// error wraps errors.ErrUnsupported where this system has no such logs.
	Say func(error)
	// Lost is given what was written and could not be read.
	Lost func(error)
	// Retry is the time between two tries, and between two looks whether the channel
	// is switched on. 0: 30 seconds.
	Retry time.Duration

	from source // nil: Windows
}

// source is what Windows does for us.
type source interface {
	// enabled reports whether a channel is switched on.
	enabled(channel string) (bool, error)
	// subscribe gives what is written into a channel from now on; with a query for
	// what is older, that as well.
	subscribe(channel, query string, older bool) (stream, error)
	// query gives what stands in a channel.
	query(channel, query string) (stream, error)
}

// stream gives records as XML.
type stream interface {
	// next waits for records, at most that long; none is no error. A subscription
	// never ends; a query does, with io.EOF.
	next(ctx context.Context, wait time.Duration) ([]string, error)
	close()
}

// Follow reads what is written into a channel until ctx ends. While Windows does not
// let it, it tries again; what was written meanwhile is told then.
func Follow(ctx context.Context, o Options) {
	o = o.usual()
	f := follower{Options: o, last: o.Since}
	for ctx.Err() == nil {
		on, err := o.from.enabled(o.Channel)
		if err == nil && !on {
			err = &OffError{o.Channel}
		}
		asked := time.Now()
		if err == nil {
			err = f.read(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		f.say(err)
		if f.last.IsZero() {
			f.last = asked // from now on nothing is to be missed
		}
		select {
		case <-ctx.Done():
		case <-time.After(o.Retry):
		}
	}
}

func (o Options) usual() Options {
	if o.from == nil {
		o.from = system
	}
	if o.Retry == 0 {
		o.Retry = 30 * time.Second
	}
	if o.Say == nil {
		o.Say = func(error) {}
	}
	if o.Lost == nil {
		o.Lost = func(error) {}
	}
	return o
}

// follower is a Follow at work.
type follower struct {
	Options
	last   time.Time // up to when records were told; zero: none were asked for
	record uint64    // the last one told
	said   string    // what Say was last given; "" before
}

// say tells a change.
func (f *follower) say(err error) {
	text := "reading"
	if err != nil {
		text = err.Error()
	}
	if text != f.said {
		f.said = text
		f.Say(err)
	}
}

// renewAfter is how long a subscription may be silent until another one takes its
// place: one that Windows has lost looks like one that has nothing.
const renewAfter = 10 * time.Minute

// read tells records until ctx ends or an error says why there are none.
func (f *follower) read(ctx context.Context) error {
	heard := time.Now()
	s, err := f.from.subscribe(f.Channel, query(f.IDs, f.last, f.record, time.Time{}), !f.last.IsZero())
	if err != nil {
		return err
	}
	defer func() { s.close() }()
	f.say(nil)
	if f.last.IsZero() {
		f.last = heard // from now on nothing is to be missed
	}
	for {
		records, err := s.next(ctx, f.Retry)
		f.take(records)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if len(records) > 0 {
			heard = time.Now()
			continue
		}
		// Nothing came: has somebody switched it off?
		if on, err := f.from.enabled(f.Channel); err != nil {
			return err
		} else if !on {
			return &OffError{f.Channel}
		}
		if time.Since(heard) < renewAfter {
			continue
		}
		// Of what is written from now on only: to look through a large log takes Windows
		// long. What came meanwhile is taken from the old one.
		another, err := f.from.subscribe(f.Channel, query(f.IDs, time.Time{}, 0, time.Time{}), false)
		if err != nil {
			return err
		}
		for {
			records, err := s.next(ctx, 0)
			f.take(records)
			if err != nil || len(records) == 0 {
				break
			}
		}
		s.close()
		s, heard = another, time.Now()
	}
}

// take tells records.
func (f *follower) take(records []string) {
	for _, text := range records {
		e := f.decode(text)
		// A query knows milliseconds, so that the last ones are found again.
		if e == nil || !e.Time.After(f.Since) || !e.Time.After(f.last) && e.Record <= f.record {
			continue
		}
		f.record = e.Record
		if e.Time.After(f.last) {
			f.last = e.Time
		}
		f.Tell(e)
	}
}

// decode reads one record; nil if it cannot be read.
func (o *Options) decode(text string) *Event {
	e, err := Decode(text)
	if err != nil {
		o.Lost(fmt.Errorf("%s: %w", o.Channel, err))
		return nil
	}
	return e
}

// Past tells what stands in a channel of the time after Since and not after until,
// the oldest first, at most that many records. A channel that is switched off may
// have some as well. Say is not used.
func Past(ctx context.Context, o Options, until time.Time, most int) error {
	o = o.usual()
	s, err := o.from.query(o.Channel, query(o.IDs, o.Since, 0, until))
	if err != nil {
		return err
	}
	defer s.close()
	for n := 0; ; {
		records, err := s.next(ctx, time.Second)
		for _, text := range records {
			if n++; n > most {
				o.Lost(fmt.Errorf("%s: more than %d records of the time after %s; the rest was not read", o.Channel, most, o.Since.Format(time.RFC3339)))
				return nil
			}
			if e := o.decode(text); e != nil && e.Time.After(o.Since) {
				o.Tell(e)
			}
		}
		switch {
		case errors.Is(err, errEnd):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// errEnd is the end of what a query finds.
var errEnd = errors.New("no more records")

// query is the XPath of records of some kinds and of a time, either end of which may
// be open (MSDN, "Consuming Events": the subset of XPath 1.0 that logs understand).
// Those with a number above record count as after it: clocks are set back.
func query(ids []int, after time.Time, record uint64, until time.Time) string {
	var terms []string
	for _, id := range ids {
		terms = append(terms, fmt.Sprintf("EventID=%d", id))
	}
	var all []string
	if len(terms) > 0 {
		all = append(all, "("+strings.Join(terms, " or ")+")")
	}
	const stamp = "2006-01-02T15:04:05.000Z" // as the documents write it; of finer ones they say nothing
	if !after.IsZero() {
		term := "TimeCreated[@SystemTime>'" + after.UTC().Format(stamp) + "']"
		if record > 0 {
			term = fmt.Sprintf("(%s or EventRecordID>%d)", term, record)
		}
		all = append(all, term)
	}
	if !until.IsZero() {
		all = append(all, "TimeCreated[@SystemTime<='"+until.UTC().Format(stamp)+"']")
	}
	if len(all) == 0 {
		return "*"
	}
	return "*[System[" + strings.Join(all, " and ") + "]]"
}
