package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

const (
	// resyncEvery is how often folders of protected places and of sync programs are
	// looked for anew, for those whose creation the kernel did not tell.
	resyncEvery = 5 * time.Minute
	// goneFor is how long records of a volume may arrive after it was unmounted.
	goneFor = 5 * time.Minute
	maxGone = 256
	// maxProblems bounds the reason in the status.
	maxProblems = 16
	// maxGrew bounds how often a file is put off that grows and is not closed: some 10 s.
	// maxInUse is the same for one that a mechanism without news of closing finds in
	// use: some ten minutes.
	maxGrew  = 32
	maxInUse = 600
	// lateFor is how long a rename or deletion waits for the write before it, and a
	// write of no interest for the read before it. Their queues are read at once;
	// this is room for a busy machine.
	lateFor = 100 * time.Millisecond
	// maxLag is how long a write waits for reads of a mount that is slow to open
	// what was read on it.
	maxLag = 10 * time.Second
	// lagFor is how long after a write the read before it mostly has come.
	lagFor = 20 * time.Millisecond
	// lostEvery is how often losses are told; what is lost meanwhile is told as one.
	lostEvery = time.Second
	// flushWait bounds the end of a run: what waits to be told is told by then or lost.
	flushWait = time.Second
	// pace is how long records and files at rest pile up while there are more of
	// them: what is taken together costs less.
	pace = 10 * time.Millisecond
)

// core turns records into events. One goroutine owns it.
type core struct {
	w    *Watcher
	q    *queue
	out  chan<- *event.Event
	mech string
	// reason is why it is not the best one; "" if it is.
	reason string
	// limited: this build has no better mechanism than the one that runs.
	limited bool
	guess   guesser // nil: the mechanism tells of closed files and processes
	lag     lagger  // nil: reads come as they are

	vols  []volume.Volume
	byDev map[volume.Dev]int // index in vols of the volume that one sees
	place *places
	set   *settle
	src   source
	reads *recentReads
	lin   *lineage
	burst *bursts
	procs *processes
	stuck stuck
	gone  map[volume.Dev]goneVolume // unmounted a moment ago: its last files are still to be told
	since time.Time                 // up to when nothing was lost that may be found by looking

	where     map[spot]*volume.Volume    // the volume of files in a folder, found since the last sync
	scan      *rescan                    // that goes on, nil if none does
	scanAgain bool                       // what was lost meanwhile has to be looked for after it
	wait      time.Duration              // seekWait, but for tests
	unsought  map[string]<-chan struct{} // mounts on which it could not be looked for, as they did not answer; closed when they have

	ending bool           // Run is about to return
	unsent []*event.Event // that nobody took before ctx was done
	late   []lateRecord
	idle   []lateRecord // writes of no interest, unless the read before them comes yet
	upTo   time.Time    // when lag was last known to have caught up
	missed uint64       // lost and not told yet
	look   bool         // some of it may be found by looking
	toldOf time.Time    // when losses were last told
}

type goneVolume struct {
	volume.Volume
	at time.Time
}

func newCore(w *Watcher, q *queue, procs *processes, out chan<- *event.Event) *core {
	return &core{w: w, q: q, procs: procs, out: out, reads: newRecentReads(), lin: newLineage(), burst: newBursts(), stuck: stuck{}, gone: map[volume.Dev]goneVolume{}, where: map[spot]*volume.Volume{}, wait: seekWait}
}

// run works until ctx is done. The cause of that, if it is not the caller's, is
// returned.
func (c *core) run(ctx context.Context, src source, mech, reason string, quiet time.Duration) error {
	c.mech, c.src, c.reason = mech, src, reason
	c.lin.files.gone = func(id fileKey, x carrier) { c.asked(id, func() { src.unfollow(x.path, id) }) }
	c.set = newSettle(quiet, max(c.w.opts.MaxDelay, quiet))
	c.guess, _ = src.(guesser)
	c.lag, _ = src.(lagger)
	if mech == lesserMech {
		c.set.max = 10 * time.Minute // it does not tell when a file is closed
	}
	table := c.w.opts.Table.Watch()
	defer c.w.opts.Table.Unwatch(table)
	resync := time.NewTicker(c.w.again)
	defer resync.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()

	c.since = time.Now()
	c.sync(ctx)
	for {
		took := c.work(ctx)
		now := time.Now()
		c.settleLate(ctx, now)
		c.lookAt(c.set.due(now))
		for p := c.set.take(now); p != nil; p = c.set.take(now) {
			c.finish(ctx, p, false)
		}
		for _, e := range c.burst.due(now) {
			c.send(ctx, e)
		}
		wait := time.Hour
		if len(c.burst.open) > 0 {
			wait = time.Until(c.burst.next)
		}
		if next, ok := c.set.next(); ok {
			wait = min(wait, time.Until(next))
		}
		if len(c.late) > 0 {
			wait = min(wait, time.Until(c.late[0].due))
		}
		if len(c.idle) > 0 {
			wait = min(wait, max(time.Until(c.idle[0].due), lateFor/2))
		}
		if c.missed > 0 {
			wait = min(wait, lostEvery)
		}
		wake := c.q.wake
		if wait = max(wait, pace); took {
			wake, wait = nil, pace
		}
		timer.Reset(wait)
		var scanned chan struct{}
		if c.scan != nil {
			scanned = c.scan.done
		}
		select {
		case <-wake:
		case <-timer.C:
		case <-scanned:
			c.scanned(ctx)
		case <-table:
			c.sync(ctx)
		case <-c.w.kick:
			c.sync(ctx)
		case <-resync.C:
			c.sync(ctx)
		case <-ctx.Done():
			c.flush()
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// work takes the records that have come, and reports whether there were any.
func (c *core) work(ctx context.Context) (took bool) {
	since := c.since
	if c.lag != nil { // before the records are taken
		c.upTo, since = c.lag.caughtUp(time.Now())
	}
	all := c.q.take()
	for i := range all {
		c.handle(ctx, all[i])
		c.q.done()
	}
	// Before what was lost is looked for: what comes after that is told.
	if !c.ending && c.q.tookResync() {
		c.sync(ctx)
	}
	c.lost(ctx, lostEvery)
	if !c.look && !c.scanAgain && since.After(c.since) {
		c.since = since
	}
	return len(all) > 0
}

// flush tells at the end what waits, while somebody listens.
func (c *core) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	c.ending, c.lag = true, nil
	unsent := c.unsent
	c.unsent = nil
	for _, e := range unsent {
		c.send(ctx, e)
	}
	c.work(ctx)
	c.settleLate(ctx, time.Now().Add(lateFor))
	for _, p := range c.set.takeIf(func(*pending) bool { return true }) {
		c.finish(ctx, p, true)
	}
	for _, e := range c.burst.due(time.Time{}) {
		c.send(ctx, e)
	}
	c.lost(ctx, 0)
	c.w.lost.Add(uint64(len(c.unsent)))
}

// sync takes over what is mounted and protected now.
func (c *core) sync(ctx context.Context) {
	now := time.Now()
	clear(c.where)
	before, places := c.vols, c.byDev
	c.vols = c.w.opts.Table.All()
	c.place = c.w.space.Load()
	c.byDev = make(map[volume.Dev]int, len(c.vols))
	for i, v := range c.vols {
		j, twice := c.byDev[v.Dev]
		if !v.Hidden && !v.Folder && v.Dev != (volume.Dev{}) && (!twice || len(v.Mount) < len(c.vols[j].Mount)) {
			c.byDev[v.Dev] = i
		}
	}
	for dev, g := range c.gone {
		if now.Sub(g.at) > goneFor {
			delete(c.gone, dev)
		}
	}
	for dev, i := range places {
		if _, there := c.byDev[dev]; !there && len(c.gone) < maxGone {
			c.gone[dev] = goneVolume{before[i], now}
		}
	}
	watching, problems := c.src.sync(c.vols, c.place)
	for _, at := range slices.Sorted(maps.Keys(c.unsought)) {
		select {
		case <-c.unsought[at]:
			delete(c.unsought, at)
		default:
			problems = append(problems, fmt.Sprintf("look for what was lost on %s: %v", at, errStuck))
		}
	}
	if n := len(problems) - maxProblems; n > 0 {
		problems = append(problems[:maxProblems:maxProblems], fmt.Sprintf("and %d more", n))
	}
	state := endpoint.SensorOK
	switch {
	case len(problems) > 0 || c.reason != "" && !c.limited:
		state = endpoint.SensorDegraded
	case c.reason != "":
		state = endpoint.SensorLimited
	}
	if c.reason != "" {
		problems = append([]string{c.reason}, problems...)
	}
	if e := c.w.setState(state, c.mech, strings.Join(problems, "; "), watching); e != nil {
		c.send(ctx, e)
	}
	// What was written to a stick that is gone is told now.
	for _, p := range c.set.takeIf(func(p *pending) bool {
		_, there := c.byDev[p.key.dev]
		return !there && p.key.dev != (volume.Dev{})
	}) {
		c.finish(ctx, p, true)
	}
}

// lost tells what was lost and looks for it where that helps, not oftener than
// every so long.
func (c *core) lost(ctx context.Context, every time.Duration) {
	l := c.q.tookLost()
	c.look = c.look || l.sought > 0
	c.w.lost.Add(l.sought + l.gone)
	c.missed += l.sought + l.gone
	if c.missed == 0 || time.Since(c.toldOf) < every {
		return
	}
	n := c.missed
	c.missed, c.toldOf = 0, time.Now()
	e := event.New(event.EventsLost, time.Now())
	e.Sensor = c.mech
	e.Lost = &event.Lost{Count: event.Some(int64(n))}
	e.Message = fmt.Sprintf("at least %d file events were lost: a queue was full, which takes reads first, or their files could not be opened", n)
	c.send(ctx, e)
	if c.look && !c.ending {
		c.look = false
		c.rescanNow(ctx)
	}
}

// send tells an event, or keeps it for the end.
func (c *core) send(ctx context.Context, e *event.Event) {
	select {
	case c.out <- e: // also when ctx is done
		c.w.told.Add(1)
		return
	default:
	}
	select {
	case c.out <- e:
		c.w.told.Add(1)
	case <-ctx.Done():
		c.unsent = append(c.unsent, e)
	}
}

// maxWhere bounds the folders whose volume is remembered.
const maxWhere = 1024

// volumeOf is the volume that a file lies on. It is not written to.
func (c *core) volumeOf(path string, dev volume.Dev) *volume.Volume {
	dir := spot{dev, path[:max(strings.LastIndexByte(path, filepath.Separator), 0)]}
	if v := c.where[dir]; v != nil {
		return v
	}
	v := c.findVolume(path, dev)
	if len(c.where) >= maxWhere {
		clear(c.where)
	}
	if v != nil {
		c.where[dir] = v
	}
	return v
}

// label is the label of the protected place that a path on a share ("" if it is not
// on one) belongs to, "" if none. On Windows a place may be named by the letter that
// somebody has mapped a share to, or by a share above the folder that is mapped.
func (c *core) label(path, share string) string {
	if l := c.place.label(path, share); l != "" {
		return l
	}
	above := winpath.Share(path)
	if above == "" {
		return ""
	}
	if l := c.place.label("", above); l != "" {
		return l
	}
	for i := range c.vols {
		if v := &c.vols[i]; v.DOSName != "" && winpath.Share(v.Share) != "" && isBelow(path, v.Share) {
			if l := c.place.label(v.DOSName+path[len(v.Share):], ""); l != "" {
				return l
			}
		}
	}
	return ""
}

func (c *core) findVolume(path string, dev volume.Dev) *volume.Volume {
	if path != "" {
		if v, ok := c.w.opts.Table.Lookup(path); ok && (v.Dev == dev || dev == (volume.Dev{})) {
			return &v
		}
	}
	// A path of another mount namespace, or none.
	if i, ok := c.byDev[dev]; ok {
		return &c.vols[i]
	}
	if g, ok := c.gone[dev]; ok {
		return &g.Volume
	}
	if v, ok := c.w.opts.Table.Lookup(path); ok && path != "" && hasSubvolumes[v.FileSystemType] {
		return &v
	}
	// A share of Windows that no drive is mapped to, or one of another user.
	if share := winpath.Share(path); share != "" {
		return &volume.Volume{Volume: event.Volume{Kind: event.VolumeNetwork, Share: share}, Mount: share + `\`}
	}
	return nil
}

// hasSubvolumes are file systems whose files have other device numbers than
// their mount.
var hasSubvolumes = map[string]bool{"btrfs": true, "bcachefs": true, "overlay": true, "zfs": true}

// syncers are the programs that keep folders in step with a cloud.
var syncers = map[string]bool{
	"onedrive": true, "dropbox": true, "insync": true, "nextcloud": true, "nextcloudcmd": true, "owncloud": true, "megasync": true, "mega-cmd-server": true,
	"rclone": true, "seaf-daemon": true, "cloud-drive-daemon": true, "pcloud": true, "yandex-disk": true, "box": true,
	"onedrive.sync.service": true, "filecoauth": true, "googledrivefs": true, "boxsync": true, "iclouddrive": true, "icloudservices": true, "iclouddriveservice": true,
}

// handle takes one record.
func (c *core) handle(ctx context.Context, r record) {
	if r.pid == c.w.self {
		return
	}
	now := time.Now()
	switch r.kind {
	case recRenamed, recDeleted:
		if c.applied(&r) {
			return
		}
		// Names have a queue of their own: the write may come after its rename.
		if c.late = append(c.late, lateRecord{r, now.Add(lateFor)}); len(c.late) > maxPending {
			c.settleLate(ctx, c.late[0].due)
		}
		return
	}

	if r.idle && len(c.idle) < maxPending {
		r.idle = false
		c.idle = append(c.idle, lateRecord{r, now.Add(lateFor)})
		return
	}
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		// On a volume that nothing is known of. Without a device it is of no
		// interest: an overlay of a container has several numbers.
		if r.kind == recWrote && r.dev.Major != 0 {
			c.q.lose(losses{sought: 1})
		}
		return
	}
	if r.dev == (volume.Dev{}) {
		r.dev = v.Dev // it was not asked
	}
	watched := isMedia(v) || isShare(v)
	label := c.label(r.path, v.Share)
	if (watched || label != "") && c.procs.ignored(r.pid, now) {
		return
	}
	if v.Folder && syncers[program(c.procs.of(r.pid, now).proc)] {
		return // it brings here what others changed, and reads what it takes away
	}
	switch r.kind {
	case recOpened, recRead:
		c.noteRead(ctx, &r, v, label, now)
	case recWrote:
		c.reads.wrote(r.pid, r.path)
		if r.pid != 0 && !c.reads.empty(now) {
			r.source = c.reads.named(r.pid, r.path) // in a flood it may be forgotten when this is told
		}
		// A write on a local disk waits as well: shares have readers of their own,
		// so that it may overtake the read that it is a copy of.
		c.rest(ctx, spotOf(v, &r), r, now)
	}
}

// rest has a file told when it rests. Where too many wait, the one that is due
// first is told now.
func (c *core) rest(ctx context.Context, at spot, r record, now time.Time) {
	if early := c.set.wrote(at, r, now); early != nil {
		c.finish(ctx, early, true)
	}
}

// noteRead remembers that a process read a file that lies in a watched place or
// holds something of one.
func (c *core) noteRead(ctx context.Context, r *record, v *volume.Volume, label string, now time.Time) {
	held, carries := c.holds(r, now)
	own := isShare(v) || label != ""
	if !own && !carries {
		return
	}
	x := read{path: r.path, name: filepath.Base(r.path), size: r.size, sum: r.look.sum, carried: !own, at: r.at, late: r.late}
	// What lies in a protected place is of that place, unless it came from another.
	if carries && (label == "" || held.cargo.lead().label != "") {
		x.cargo = held.cargo
	} else {
		x.cargo = single(origin{path: r.path, size: r.size, kind: v.Kind, share: v.Share, label: label})
	}
	if r.look.sum != 0 && r.look.size >= minSize {
		c.lin.contents.put(content{r.look.size, r.look.sum}, carrier{path: r.path, cargo: x.cargo}, now)
	}
	noted := c.reads.note(c.procs.who(r.pid, now), x)
	if r.kind == recRead && !noted.closed {
		noted.closed = true
		if c.w.opts.Reads && own {
			c.send(ctx, c.event(event.FileRead, r, v, label))
		}
		c.uploaded(ctx, r, v, label, noted)
	}
}

// lateRecord is a rename or deletion that waits for the write before it.
type lateRecord struct {
	record
	due time.Time
}

// applied reports whether a rename or deletion concerns files that wait to be
// told, and has it done to them. A file that was written under that name
// afterwards, and is still there, is not concerned.
func (c *core) applied(r *record) bool {
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return false
	}
	at := spotOf(v, r)
	old := at
	if r.kind == recRenamed && r.from == "" && !r.dir {
		// The folder that it was in is gone.
		fi, err := c.stat(v, r.path)
		if err != nil {
			return false
		}
		dev, ino := identity(fi)
		p := c.set.byFile[fileKey{dev, ino}]
		return p != nil && p.key != at && c.set.renamed(p.key, v.Dev, r.path, false)
	}
	if r.kind == recRenamed {
		old = spotAt(v.Dev, r.from)
	}
	if p := c.set.byKey[old]; p != nil {
		if fi, err := c.stat(v, old.path); err == nil {
			if dev, ino := identity(fi); dev == p.rec.dev && ino == p.rec.ino {
				return false
			}
		}
	}
	if r.kind == recRenamed {
		return c.set.renamed(old, v.Dev, r.path, r.dir)
	}
	return c.set.remove(at)
}

// settleLate drops the writes that were of no interest, and tells the renames and
// deletions that are due and concern no file that is told anyway.
func (c *core) settleLate(ctx context.Context, now time.Time) {
	n := 0
	for ; n < len(c.idle) && !c.idle[n].due.After(now) && !c.lags(&c.idle[n].record, now); n++ {
		if !c.reads.empty(now) {
			c.handle(ctx, c.idle[n].record)
		}
	}
	c.idle = append(c.idle[:0], c.idle[n:]...)
	n = 0
	for ; n < len(c.late) && !c.late[n].due.After(now); n++ {
		r := &c.late[n].record
		switch {
		case c.applied(r), r.kind == recRenamed && c.waits(r):
		case r.kind == recRenamed:
			c.renamed(ctx, r, now)
		case !r.dir:
			c.other(ctx, event.FileDeleted, r, now)
		}
	}
	c.late = append(c.late[:0], c.late[n:]...)
}

// waits reports whether a file waits to be told at the path of a record.
func (c *core) waits(r *record) bool {
	v := c.volumeOf(r.path, r.dev)
	return v != nil && c.set.byKey[spotOf(v, r)] != nil
}

// finish tells a file that is at rest. last says that it cannot be put off.
func (c *core) finish(ctx context.Context, p *pending, last bool) {
	r := &p.rec
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	label, now := c.label(r.path, v.Share), time.Now()
	watched := isMedia(v) || isShare(v) || label != ""
	src := c.sourceOf(r, watched, now)
	if (src == nil || src.trust() < high) && !last && !isShare(v) && c.lags(r, now) {
		c.rest(ctx, p.key, *r, now)
		return
	}
	if src == nil && !watched || c.procs.ignored(r.pid, now) {
		c.lin.files.drop(r.file()) // overwritten with something else
		return
	}
	var errs []string
	if r.path == "" {
		errs = append(errs, "read path: file name too long")
	} else if !isRemote(v) {
		fi, err := p.info, p.failed
		if fi == nil && err == nil {
			fi, err = c.stat(v, r.path)
		}
		if err == nil {
			dev, ino := identity(fi)
			if dev != r.dev {
				err = fs.ErrNotExist // what lies below the mount that is gone
			} else if c.set.byFile[fileKey{dev, ino}] != nil {
				return // replaced by a file that is told anyway; the number may be used again
			}
		}
		switch {
		case err == nil && !fi.Mode().IsRegular():
			return
		case err == nil && !last && c.goesOn(v, r, fi.Size()):
			// Somebody writes to it again, or still. It is told when it rests.
			r.size = fi.Size()
			r.grew++
			c.rest(ctx, p.key, *r, now)
			return
		case err == nil:
			r.size = fi.Size()
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, "read size: "+err.Error())
		case c.attached(v) && c.mounted(v, r):
			// Renamed where nobody tells it, or deleted.
			at, size := "", int64(0)
			if !r.names && r.ino != 0 {
				if at, size, err = c.findInode(v, r); err != nil {
					errs = append(errs, "find its name: "+err.Error())
					break
				}
			}
			if q := c.set.byKey[spotAt(v.Dev, at)]; q != nil && (q.rec.ino != r.ino || q.rec.at.Before(r.at)) {
				c.set.remove(q.key) // what was there before
			} else if at == "" || q != nil { // gone, or written again under that name
				if src == nil {
					return
				}
				c.carry(r, src, watched, now) // its content may have gone on
				if !src.made || !r.look.archive || q != nil {
					return
				}
				at, size = r.path, r.size // an archive is told that was moved away or deleted at once
			}
			if at != r.path && src != nil && !src.made && r.look.sum == 0 {
				src = nil // not looked into: that it is an archive only its final name tells
			}
			r.path, r.size = at, size
		}
	}
	if src == nil {
		src = c.sourceOf(r, watched, now) // under its final name
	}
	if src != nil && (src.made || src.way == byReadingParts) && !last && r.grew < maxGrew && c.hasOpen(r) {
		// zip closes what it makes once before it writes it, and that in lumps.
		r.grew++
		c.rest(ctx, spotOf(v, r), *r, now)
		return
	}
	if src == nil && isMedia(v) && r.pid != 0 {
		src = c.fromArguments(r, now)
	}
	if src != nil && !isMedia(v) {
		c.carry(r, src, watched, now)
	}
	told := src != nil && src.told(v, label)
	if r.pid == 0 {
		errs = append(errs, "process unknown: "+c.whyNoProcess(r))
	}
	action := event.FileWritten
	switch {
	case told && src.made:
		action = event.ArchiveCreated
	case told || isMedia(v):
		action = event.FileCopied
	case !watched:
		return
	}
	e := c.event(action, r, v, label)
	e.Errors = append(e.Errors, errs...)
	if action != event.FileWritten {
		e.Copy = c.copyOf(r, e.File.Name, src, told)
	}
	if e = c.burst.add(e, r.dev, now); e != nil {
		c.send(ctx, e)
	}
}

// lags reports whether a read before a write may still come.
func (c *core) lags(r *record, now time.Time) bool {
	return c.lag != nil && r.pid != 0 && c.upTo.Before(r.at) && now.Sub(r.at) < maxLag
}

// goesOn reports whether a file that is due is still being written: it grew since it
// was closed, or, where that is not told, since it was last looked at, or a program
// has it open.
func (c *core) goesOn(v *volume.Volume, r *record, size int64) bool {
	if c.guess == nil {
		return c.mech == nativeMech && size > r.size && r.size >= 0 && r.grew < maxGrew
	}
	if r.grew >= maxInUse {
		return false
	}
	if size != r.size {
		return true
	}
	open, err := ask(c.stuck, v.Dev, func() (bool, error) { return c.guess.inUse(r.path), nil })
	return err == nil && open
}

// other tells a rename or deletion in a watched place.
func (c *core) other(ctx context.Context, a event.Action, r *record, now time.Time) {
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	label := c.label(r.path, v.Share)
	if !isMedia(v) && !isShare(v) && label == "" || c.procs.ignored(r.pid, now) {
		return
	}
	e := c.event(a, r, v, label)
	if r.from != "" {
		e.Copy = &event.Copy{SourcePath: r.from}
	}
	c.send(ctx, e)
}

// renamed tells a rename: out of a protected place it is a copy as well. A folder
// is told as one file of unknown size, as a copy only.
func (c *core) renamed(ctx context.Context, r *record, now time.Time) {
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	from, to := c.label(r.from, v.Share), c.label(r.path, v.Share)
	if from == "" || from == to || c.procs.ignored(r.pid, now) {
		if !r.dir {
			c.other(ctx, event.FileRenamed, r, now)
		}
		return
	}
	if fi, err := c.stat(v, r.path); err == nil && fi.Mode().IsRegular() {
		if dev, ino := identity(fi); dev == r.dev || hasSubvolumes[v.FileSystemType] {
			r.size, r.dev, r.ino = fi.Size(), dev, ino
		}
	}
	src := &found{cargo: single(origin{r.from, r.size, v.Kind, v.Share, from}), path: r.from, way: byMoving}
	if r.ino != 0 {
		if held, ok := c.holds(r, now); ok {
			src.cargo, src.whole = held.cargo, held.cargo.packed
		}
		c.carry(r, src, isMedia(v) || isShare(v) || to != "", now)
	}
	e := c.event(event.FileCopied, r, v, to)
	e.Copy = c.copyOf(r, e.File.Name, src, true)
	c.send(ctx, e)
	if !r.dir {
		e = c.event(event.FileRenamed, r, v, to)
		e.Copy = &event.Copy{SourcePath: r.from, SourceVolumeKind: v.Kind, SourceShare: v.Share, SourceProtected: from}
		c.send(ctx, e)
	}
}

// event makes the event of a record.
func (c *core) event(a event.Action, r *record, v *volume.Volume, label string) *event.Event {
	e := event.New(a, r.at)
	e.Sensor = c.mech
	f := &event.File{Path: r.path, VolumeKind: v.Kind, Share: v.Share, Protected: label}
	if r.path != "" {
		f.Name = nameOf(r.path)
		f.Extension = extension(f.Name)
	}
	if r.size >= 0 {
		f.Size = event.Some(r.size)
	}
	e.File = f
	vol := v.Volume
	e.Volume = &vol
	if r.pid != 0 {
		x := c.procs.of(r.pid, time.Now())
		p := *x.proc
		if p.Parent != nil {
			pa := *p.Parent
			p.Parent = &pa
		}
		e.Process = &p
		if x.user != nil {
			u := *x.user
			e.User = &u
			if r.likely {
				e.User.Confidence = medium.String()
			}
		}
	} else if c.guess != nil && r.path != "" && !isRemote(v) {
		x, _ := ask(c.stuck, v.Dev, func() (guess, error) { return c.guess.whose(r.path), nil })
		f.Owner, e.User = x.owner, x.person
	}
	return e
}
