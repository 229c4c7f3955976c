package fileaudit

import (
	"fmt"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// Copies of one kind by one process beyond burstAfter in burstWindow are told as
// one event for at most maxJoined files, so that no id and no count is left out.
// Judgements: 200 events a second are what a person may look through, a second
// keeps windows of minutes true, and the paths of 300 files mostly have room.
const (
	maxJoined   = 300
	burstAfter  = 200
	burstWindow = time.Second
	maxBursts   = 64
)

// burstKey is what copies have in common that are told as one: all that rules
// ask of a copy but the names and sizes of its files.
type burstKey struct {
	pid       int64  // 0: not known, as the process
	entity    string // or the user's id, if the process is not known
	dev       volume.Dev
	extension string
	audience  string // label of the target's place
	kind      string // of the source, and so on
	share     string
	label     string
	evidence  string
	sure      string // its confidence
	sourced   bool   // the source is known
	archive   event.Opt[bool]
}

// burst is what is known of copies of one kind in a window.
type burst struct {
	began  time.Time
	single int          // told one by one
	joined *event.Event // nil: none
	paths  pathList
}

// bursts joins copies. One goroutine owns it.
type bursts struct {
	open map[burstKey]*burst
	next time.Time // no window ends before
}

func newBursts() *bursts { return &bursts{open: map[burstKey]*burst{}} }

// add takes a copy of one file and returns the event to tell now: the copy
// itself, a full burst, or nil.
func (b *bursts) add(e *event.Event, dev volume.Dev, now time.Time) *event.Event {
	var pid int64
	var who string
	errs := len(e.Errors)
	if e.Process != nil {
		pid, who = e.Process.PID.V, e.Process.EntityID
	} else {
		errs-- // that it is not known
		if e.User != nil {
			who = e.User.ID
		}
	}
	if e.Action != event.FileCopied || e.Copy.Files.V != 1 || errs > 0 {
		return e
	}
	c := e.Copy
	key := burstKey{
		pid, who, dev, e.File.Extension, e.File.Protected,
		c.SourceVolumeKind, c.SourceShare, c.SourceProtected, c.Evidence, c.Confidence, c.SourcePath != "", c.ArchiveEncrypted,
	}
	x := b.open[key]
	if x == nil {
		if len(b.open) >= maxBursts {
			return e
		}
		x = &burst{began: now}
		b.open[key] = x
		if end := now.Add(burstWindow); len(b.open) == 1 || end.Before(b.next) {
			b.next = end
		}
	}
	if x.single < burstAfter {
		x.single++
		return e
	}
	if x.joined == nil {
		x.joined = e
		if len(c.SourceIDs) == 0 {
			c.SourceIDs = []string{}
		}
		x.paths.add(pathOf(e))
		e.File.Size = event.Opt[int64]{} // of one of them, no size of the whole
		return nil
	}
	j := x.joined.Copy
	j.Files.V++
	j.Bytes.V += c.Bytes.V
	j.SourceIDs = append(j.SourceIDs, c.SourceIDs...)
	x.paths.add(pathOf(e))
	if e.Time.After(x.joined.Time) {
		x.joined.Time = e.Time
	}
	if j.Files.V < maxJoined {
		return nil
	}
	return x.take()
}

// pathOf is what names a copy in a list: where it is from, else where it went.
func pathOf(e *event.Event) string {
	if e.Copy.SourcePath != "" {
		return e.Copy.SourcePath
	}
	return e.File.Path
}

// take ends the joined event of a burst; nil if there is none.
func (x *burst) take() *event.Event {
	e := x.joined
	if e != nil {
		if e.Copy.Files.V > 1 {
			e.Copy.Paths = x.paths.paths
			e.Message = fmt.Sprintf("%d files copied at once; the path is of one of them", e.Copy.Files.V)
		} else {
			e.File.Size = e.Copy.Bytes
		}
	}
	x.joined, x.paths = nil, pathList{}
	return e
}

// due returns the bursts whose window is over; all of them if now is zero.
func (b *bursts) due(now time.Time) (told []*event.Event) {
	if len(b.open) == 0 || !now.IsZero() && now.Before(b.next) {
		return nil
	}
	b.next = time.Time{}
	for key, x := range b.open {
		end := x.began.Add(burstWindow)
		if !now.IsZero() && now.Before(end) {
			if b.next.IsZero() || end.Before(b.next) {
				b.next = end
			}
			continue
		}
		if e := x.take(); e != nil {
			told = append(told, e)
		}
		delete(b.open, key)
	}
	return told
}
