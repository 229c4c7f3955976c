package fileaudit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
)

const (
	// factsFor is how long what is known of a process is used again; shorter than
	// the time in which a process id can come round.
	factsFor = 2 * time.Second
	maxFacts = 4096
	// execWait is how late a program that a process executes may be known; what is
	// known of a process for the first time is asked for again after it.
	execWait = 100 * time.Millisecond
	// statWait is how long a file system may take to answer; one that takes
	// longer is not asked again before it does.
	statWait = time.Second
	// rescanLimit bounds the files looked at on a volume after a loss.
	rescanLimit = 100_000
	// resyncEvery is how often folders of protected places are looked for anew,
	// for those whose creation the kernel did not tell.
	resyncEvery = 5 * time.Minute
	// goneFor is how long records of a volume may arrive after it was unmounted.
	goneFor = 10 * time.Second
	// lateFor is how long a rename or deletion waits for the write before it, and a
	// write of no interest for the read before it. Their queues are read at once;
	// this is room for a busy machine.
	lateFor = 100 * time.Millisecond
	// lagFor is how long after a write the read before it mostly has come.
	lagFor = 20 * time.Millisecond
	// lostEvery is how often losses are told; what is lost meanwhile is told as one.
	lostEvery = time.Second
	// flushWait bounds the end of a run: what waits to be told is told by then or lost.
	flushWait = time.Second
	// foldersWait joins folders made one after the other into one look.
	foldersWait = 100 * time.Millisecond
)

// core turns records into events. One goroutine owns it.
type core struct {
	w    *Watcher
	q    *queue
	out  chan<- *event.Event
	mech string
	// limited: this build has no better mechanism than the one that runs.
	limited bool

	vols  []volume.Volume
	byDev map[volume.Dev]int // index in vols of the volume that one sees
	place *places
	set   *settle
	src   source
	reads *recentReads
	lin   *lineage
	burst *bursts
	facts map[int]*facts
	stuck map[volume.Dev]<-chan struct{} // file systems that owe an answer, and what is closed with it
	gone  map[volume.Dev]goneVolume      // unmounted a moment ago: its last files are still to be told
	since time.Time                      // up to when nothing was lost

	folders []string  // that came up in protected places and are not marked yet
	ending  bool      // nothing can be put off any more
	resync  bool      // the mechanism asks for a sync
	synced  time.Time // when marks were last looked after
	late    []lateRecord
	idle    []lateRecord // writes of no interest, unless the read before them comes yet
	missed  uint64       // lost and not told yet
	toldOf  time.Time    // when losses were last told
}

type goneVolume struct {
	volume.Volume
	at time.Time
}

// facts is what is known of a process for a moment.
type facts struct {
	at      time.Time
	early   bool // asked for the first time: what it executes may not be known yet
	proc    *event.Process
	user    *event.User
	ignored bool
}

func newCore(w *Watcher, q *queue, out chan<- *event.Event) *core {
	return &core{w: w, q: q, out: out, reads: newRecentReads(), lin: newLineage(), burst: newBursts(), facts: map[int]*facts{}, stuck: map[volume.Dev]<-chan struct{}{}, gone: map[volume.Dev]goneVolume{}}
}

// run works until ctx is done. The cause of that, if it is not the caller's, is
// returned.
func (c *core) run(ctx context.Context, src source, mech, reason string, quiet time.Duration) error {
	c.mech, c.src = mech, src
	c.lin.files.gone = func(id fileKey, x carrier) { src.unfollow(x.path, id) }
	c.set = newSettle(quiet, max(c.w.opts.MaxDelay, quiet))
	if mech == mechInotify {
		c.set.max = 10 * time.Minute // it does not tell when a file is closed
	}
	table := c.w.opts.Table.Watch()
	defer c.w.opts.Table.Unwatch(table)
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()

	c.since = time.Now()
	c.sync(ctx, src, reason)
	for {
		c.work(ctx)
		if c.resync {
			c.sync(ctx, src, reason)
		}
		if len(c.folders) > 0 && time.Since(c.synced) > foldersWait {
			c.synced = time.Now()
			src.folders(c.folders, c.place)
			c.folders = nil
		}
		now := time.Now()
		c.settleLate(ctx, now)
		for p := c.set.take(now); p != nil; p = c.set.take(now) {
			c.finish(ctx, p)
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
		if len(c.folders) > 0 {
			wait = min(wait, foldersWait)
		}
		if c.missed > 0 {
			wait = min(wait, lostEvery)
		}
		timer.Reset(wait)
		select {
		case <-c.q.wake:
		case <-timer.C:
		case <-table:
			c.sync(ctx, src, reason)
		case <-c.w.kick:
			c.sync(ctx, src, reason)
		case <-resync.C:
			if len(c.place.globs) > 0 {
				c.sync(ctx, src, reason)
			}
		case <-ctx.Done():
			c.flush()
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// work takes the records that have come.
func (c *core) work(ctx context.Context) {
	for _, r := range c.q.take() {
		c.handle(ctx, r)
		c.q.done()
	}
	c.lost(ctx, lostEvery)
}

// flush tells at the end what waits, while somebody listens.
func (c *core) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	c.ending = true
	c.work(ctx)
	c.settleLate(ctx, time.Now().Add(lateFor))
	for _, p := range c.set.takeIf(func(*record) bool { return true }) {
		c.finish(ctx, p)
	}
	for _, e := range c.burst.due(time.Time{}) {
		c.send(ctx, e)
	}
	c.lost(ctx, 0)
}

// sync takes over what is mounted and protected now.
func (c *core) sync(ctx context.Context, src source, reason string) {
	c.folders, c.resync, c.synced = nil, false, time.Now()
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
		if c.synced.Sub(g.at) > goneFor {
			delete(c.gone, dev)
		}
	}
	for dev, i := range places {
		if _, there := c.byDev[dev]; !there {
			c.gone[dev] = goneVolume{before[i], c.synced}
		}
	}
	watching, problems := src.sync(c.vols, c.place)
	state := endpoint.SensorOK
	switch {
	case len(problems) > 0 || reason != "" && !c.limited:
		state = endpoint.SensorDegraded
	case reason != "":
		state = endpoint.SensorLimited
	}
	if reason != "" {
		problems = append([]string{reason}, problems...)
	}
	if e := c.w.setState(state, c.mech, strings.Join(problems, "; "), watching); e != nil {
		c.send(ctx, e)
	}
	// What was written to a stick that is gone is told now.
	for _, p := range c.set.takeIf(func(r *record) bool {
		_, there := c.byDev[r.dev]
		return !there && r.dev != (volume.Dev{})
	}) {
		c.finish(ctx, p)
	}
}

// lost tells what was lost and looks for it where that helps, not oftener than
// every so long.
func (c *core) lost(ctx context.Context, every time.Duration) {
	n := c.q.tookLost()
	c.w.lost.Add(n)
	c.missed += n
	if c.missed == 0 || time.Since(c.toldOf) < every {
		return
	}
	n, c.missed, c.toldOf = c.missed, 0, time.Now()
	e := event.New(event.EventsLost, time.Now())
	e.Sensor = c.mech
	e.Lost = &event.Lost{Count: event.Some(int64(n))}
	e.Message = fmt.Sprintf("at least %d file events were lost: a queue was full", n)
	c.send(ctx, e)
	since := c.since.Add(-3 * time.Second) // file systems keep times to 2 s
	c.since = time.Now()
	for i := range c.vols {
		if v := &c.vols[i]; isMedia(v) && !isRemote(v) && !v.Hidden {
			c.rescan(ctx, reachOf(v), v.Reach, since, func(dev volume.Dev) bool { return dev == v.Dev })
		}
	}
	// Of protected places on local disks, what was written; not what was read, and
	// not on shares, whose servers are not asked for all they have.
	remote := map[string]bool{}
	for i := range c.vols {
		if isRemote(&c.vols[i]) {
			remote[mountOf(&c.vols[i])] = true
		}
	}
	dirs, _ := c.place.dirs(func(dir string) bool { return remote[dir] })
	for i := 0; i < len(dirs) && ctx.Err() == nil; i++ {
		c.rescanFolder(ctx, dirs[i], since)
	}
}

// rescan finds files below a folder, reached by way of another, that were
// written since a moment.
func (c *core) rescan(ctx context.Context, dir, reach string, since time.Time, on func(volume.Dev) bool) {
	seen := 0
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if seen++; seen > rescanLimit || ctx.Err() != nil {
			return fs.SkipAll
		}
		if err == nil { // what cannot be read is left out: this is a second look
			c.rescanFile(ctx, p, reach, d, since, on)
		}
		return nil
	})
}

// rescanFolder finds files in a folder, not below, that were written since a moment.
func (c *core) rescanFolder(ctx context.Context, dir string, since time.Time) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	for seen := 0; seen < rescanLimit && ctx.Err() == nil; {
		entries, err := f.ReadDir(256)
		for _, d := range entries {
			c.rescanFile(ctx, filepath.Join(dir, d.Name()), "", d, since, func(volume.Dev) bool { return true })
		}
		if seen += len(entries); err != nil {
			return
		}
	}
}

func (c *core) rescanFile(ctx context.Context, p, reach string, d fs.DirEntry, since time.Time, on func(volume.Dev) bool) {
	if !d.Type().IsRegular() {
		return
	}
	fi, err := d.Info()
	if err != nil || changeTime(fi).Before(since) {
		return
	}
	if dev, ino := identity(fi); on(dev) {
		c.handle(ctx, record{kind: recWrote, at: time.Now(), path: strings.TrimPrefix(p, reach), size: fi.Size(), dev: dev, ino: ino, changed: true, found: true})
	}
}

func (c *core) send(ctx context.Context, e *event.Event) {
	select {
	case c.out <- e:
		c.w.told.Add(1)
	case <-ctx.Done():
	}
}

// volumeOf is the volume that a file lies on.
func (c *core) volumeOf(path string, dev volume.Dev) *volume.Volume {
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
	if v, ok := c.w.opts.Table.Lookup(path); ok && path != "" { // sub-volumes have numbers of their own
		return &v
	}
	return nil
}

// of returns what is known of a process.
func (c *core) of(pid int, now time.Time) *facts {
	old := c.facts[pid]
	if old != nil && now.Sub(old.at) < factsFor && !(old.early && now.Sub(old.at) > execWait) {
		return old
	}
	if len(c.facts) >= maxFacts {
		clear(c.facts)
	}
	f := &facts{at: now, early: old == nil}
	if c.w.opts.Process != nil {
		f.proc, f.user = c.w.opts.Process(pid)
	}
	if f.proc == nil {
		f.proc = &event.Process{PID: event.Some(int64(pid))}
		if exe, err := os.Readlink(filepath.Join(c.w.opts.ProcRoot, strconv.Itoa(pid), "exe")); err == nil {
			f.proc.Executable, f.proc.Name = exe, filepath.Base(exe)
		}
	}
	if old != nil && f.proc.Executable == "" && f.proc.Name == "" {
		f.proc, f.user = old.proc, old.user // it has ended
	}
	for _, g := range c.w.opts.IgnoreExecutables {
		if ok, _ := doublestar.Match(slashed(g), slashed(f.proc.Executable)); ok {
			f.ignored = true
		}
	}
	// Forked, and what it executes not known yet: asked for again when it is told.
	if c.w.opts.Process == nil || f.proc.EntityID != "" {
		c.facts[pid] = f
	}
	return f
}

// who is a process as far as reads are told apart by it.
func (c *core) who(pid int, now time.Time) who {
	p := c.of(pid, now).proc
	w := who{pid: pid, start: p.Start, entity: p.EntityID}
	if p.Parent != nil {
		w.ppid = int(p.Parent.PID.V)
	}
	return w
}

// syncers are the programs that keep folders in step with a cloud.
var syncers = map[string]bool{
	"onedrive": true, "dropbox": true, "insync": true, "nextcloud": true, "nextcloudcmd": true, "owncloud": true, "megasync": true, "mega-cmd-server": true,
	"rclone": true, "seaf-daemon": true, "cloud-drive-daemon": true, "pcloud": true, "yandex-disk": true, "box": true,
}

func keyOf(r *record) string {
	if r.path == "" {
		return fmt.Sprintf("\x00%d:%d:%d", r.dev.Major, r.dev.Minor, r.ino)
	}
	return r.path
}

// handle takes one record.
func (c *core) handle(ctx context.Context, r record) {
	if r.pid == c.w.self {
		return
	}
	now := time.Now()
	switch r.kind {
	case recResync:
		c.resync = true
		return
	case recMissed:
		c.q.lose(1)
		return
	case recFolder:
		c.folders = append(c.folders, r.path)
		return
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
		return
	}
	watched := isMedia(v) || isShare(v)
	label := c.place.label(r.path, v.Share)
	if r.pid != 0 && (watched || label != "") && c.of(r.pid, now).ignored {
		return
	}
	if v.Folder && syncers[c.of(r.pid, now).proc.Name] {
		return // it brings here what others changed, and reads what it takes away
	}
	switch r.kind {
	case recOpened, recRead:
		c.noteRead(ctx, &r, v, label, now)
	case recWrote:
		if !r.changed && r.size > 0 && (watched || label != "") {
			return // opened for writing, as many programs do to read a document, and not written to
		}
		c.reads.wrote(r.pid, r.path)
		if r.pid != 0 && !c.reads.empty(now) {
			r.source = c.reads.named(r.pid, r.path) // in a flood it may be forgotten when this is told
		}
		// A write on a local disk waits as well: shares have readers of their own,
		// so that it may overtake the read that it is a copy of.
		if early := c.set.wrote(keyOf(&r), r, now); early != nil {
			c.finish(ctx, early)
		}
	}
}

// noteRead remembers that a process read a file that lies in a watched place or
// holds something of one.
func (c *core) noteRead(ctx context.Context, r *record, v *volume.Volume, label string, now time.Time) {
	held, carries := c.lin.files.get(r.file(), now)
	own := isShare(v) || label != ""
	if !own && !carries {
		return
	}
	x := read{path: r.path, name: filepath.Base(r.path), size: r.size, sum: r.look.sum, carried: !own, at: r.at}
	// What lies in a protected place is of that place, unless it came from another.
	if carries && (label == "" || held.cargo.lead().label != "") {
		x.cargo = held.cargo
	} else {
		x.cargo = single(origin{path: r.path, size: r.size, kind: v.Kind, share: v.Share, label: label})
	}
	if r.look.sum != 0 && r.look.size >= minSize {
		c.lin.contents.put(content{r.look.size, r.look.sum}, carrier{r.path, x.cargo}, now)
	}
	noted := c.reads.note(c.who(r.pid, now), x)
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
	old := r.from
	if r.kind == recDeleted {
		old = r.path
	}
	if p := c.set.byKey[old]; p != nil {
		if fi, err := c.stat(old, r.dev); err == nil {
			if dev, ino := identity(fi); dev == p.rec.dev && ino == p.rec.ino {
				return false
			}
		}
	}
	if r.kind == recRenamed {
		return c.set.renamed(r.from, r.path, r.dir)
	}
	return c.set.remove(r.path)
}

// settleLate drops the writes that were of no interest, and tells the renames and
// deletions that are due and concern no file that is told anyway.
func (c *core) settleLate(ctx context.Context, now time.Time) {
	n := 0
	for ; n < len(c.idle) && !c.idle[n].due.After(now); n++ {
		if !c.reads.empty(now) {
			c.handle(ctx, c.idle[n].record)
		}
	}
	c.idle = append(c.idle[:0], c.idle[n:]...)
	n = 0
	for ; n < len(c.late) && !c.late[n].due.After(now); n++ {
		r := &c.late[n].record
		switch {
		case c.applied(r), r.kind == recRenamed && c.set.byKey[r.path] != nil:
		case r.kind == recRenamed:
			c.renamed(ctx, r, now)
		case !r.dir:
			c.other(ctx, event.FileDeleted, r, now)
		}
	}
	c.late = append(c.late[:0], c.late[n:]...)
}

// finish tells a file that is at rest.
func (c *core) finish(ctx context.Context, p *pending) {
	r := &p.rec
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	label, now := c.place.label(r.path, v.Share), time.Now()
	watched := isMedia(v) || isShare(v) || label != ""
	src := c.sourceOf(r, watched, now)
	if src == nil && !watched || r.pid != 0 && c.of(r.pid, now).ignored {
		c.lin.files.drop(r.file()) // overwritten with something else
		return
	}
	var errs []string
	if r.path == "" {
		errs = append(errs, "read path: file name too long")
	} else if !isRemote(v) {
		fi, err := c.stat(r.path, v.Dev)
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
		case err == nil && fi.Size() > r.size && r.size >= 0 && c.mech == mechFanotify && !c.ending:
			// It grew since it was closed: somebody writes to it again, and most likely
			// closes it. It is told when it rests.
			r.size = fi.Size()
			c.set.wrote(keyOf(r), *r, now)
			return
		case err == nil:
			r.size = fi.Size()
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, "read size: "+err.Error())
		case c.mounted(v, r):
			// Renamed where nobody tells it, or deleted.
			at, size := "", int64(0)
			if !r.names && r.ino != 0 {
				at, size = c.findInode(r)
			}
			if q := c.set.byKey[at]; q != nil && (q.rec.ino != r.ino || q.rec.at.Before(r.at)) {
				c.set.remove(at) // what was there before
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
			r.path, r.size = at, size
		}
	}
	if src == nil {
		src = c.sourceOf(r, watched, now) // under its final name
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

// told reports whether it is worth an event that this came to a volume and the
// place of that label: not so within one place, nor from one local file without
// a label to another.
func (f *found) told(v *volume.Volume, label string) bool {
	if f.made || isMedia(v) {
		return true
	}
	lead := f.cargo.lead()
	if label != "" || v.Share != "" {
		return lead.label != label || lead.share != v.Share
	}
	return !f.carried || lead.label != ""
}

// sourceOf is what a file is a copy of as far as reads and contents tell, nil if
// nothing known.
func (c *core) sourceOf(r *record, watched bool, now time.Time) *found {
	f := written{path: r.path, name: filepath.Base(r.path), size: r.size}
	if r.look.size == r.size {
		f.sum = r.look.sum
	}
	if r.pid != 0 && !c.reads.empty(now) {
		w := c.who(r.pid, now)
		p := c.packer(w, now)
		if p != nil && r.look.archive {
			if src := c.packedOf(r, w, p, now); src != nil {
				return src
			}
		}
		x, k := r.source, itself
		if x == nil || x.name != f.name {
			x, k = c.reads.find(w, f, now)
		}
		if x != nil {
			return &found{cargo: x.cargo, path: x.path, way: wayOf(x, f, k), whole: x.cargo.packed, carried: x.carried}
		}
		if me := c.of(r.pid, now).proc; p == nil && r.look.archive && !movers[me.Name] && (watched || archiveNames[extension(f.name)]) {
			p = me
		}
		if p != nil {
			if src := c.packedOf(r, w, p, now); src != nil {
				return src
			}
		}
	}
	if f.sum == 0 || f.size < minSize {
		return nil
	}
	if x, ok := c.lin.contents.get(content{f.size, f.sum}, now); ok && x.path != r.path {
		return &found{cargo: x.cargo, path: x.path, way: byLook(f.size), whole: x.cargo.packed, carried: x.path != x.cargo.lead().path}
	}
	return nil
}

// packer is the program of packers that a process runs, or for a shell, which
// opens and closes what a program writes by redirection, that of a child or of
// its parent (tar runs gzip so); nil if there is none.
func (c *core) packer(w who, now time.Time) *event.Process {
	p := c.of(w.pid, now).proc
	switch {
	case packers[p.Name]:
		return p
	case shells[p.Name]:
		for _, pid := range append(c.reads.children(w.pid), w.ppid) {
			if p := c.of(pid, now).proc; packers[p.Name] {
				return p
			}
		}
	}
	return nil
}

// packedOf is what went into a file that a program made of what it read: an
// archive of it, parts, a whole of several, or what it took out of an archive.
func (c *core) packedOf(r *record, w who, p *event.Process, now time.Time) *found {
	born := r.born
	if born.IsZero() || born.After(r.at) {
		born = r.at
	}
	// It may be read first and written then; and the queue with the reads may lag.
	since, until := born.Add(-readFor), r.at.Add(lateFor)
	shell := shells[c.of(w.pid, now).proc.Name]
	if shell { // what other children read for other files is none of it
		since, until = born, r.at.Add(lagFor)
	}
	g, last := c.reads.packed(w, r.path, since, until)
	if g == nil || shell && !r.look.archive && r.size != g.bytes {
		return nil
	}
	name := filepath.Base(r.path)
	src := &found{cargo: g, way: byReadingParts, whole: p.Name == "cat", path: last.path, carried: last.carried}
	switch {
	case r.look.archive || r.look.sum == 0 && archiveNames[extension(name)]:
		made := *g
		made.packed, made.encrypted = true, r.look.encrypted
		if x := encrypts(p.Name, p.Args); x.OK && !made.encrypted.V {
			made.encrypted = x
		}
		src.cargo, src.path, src.made, src.whole, src.way = &made, g.lead().path, true, true, byPackingOther
		if packers[p.Name] {
			src.way = byPacking
		}
	case src.whole:
		src.path = g.lead().path
	case g.packed:
		src.way = byPacking
		if o := g.named(name); o != nil {
			src.cargo = single(*o).at(g.trust)
		}
	}
	return src
}

// carry remembers what a file holds.
func (c *core) carry(r *record, src *found, watched bool, now time.Time) {
	x := carrier{r.path, src.cargo.at(src.trust())}
	if r.look.sum != 0 && r.look.size >= minSize {
		c.lin.contents.put(content{r.look.size, r.look.sum}, x, now)
	}
	if r.ino == 0 || r.path == "" {
		return
	}
	id := r.file()
	c.lin.files.put(id, x, now)
	if !watched { // else its reads are told anyway
		c.src.follow(r.path, id)
	}
}

// copyOf tells of a copy where it is from. Without a source that may be told it
// has a hash of the file's name and size for an id.
func (c *core) copyOf(r *record, name string, src *found, told bool) *event.Copy {
	one := &event.Copy{Files: event.Some[int64](1), Bytes: event.Some(max(r.size, 0)), ArchiveEncrypted: encryptedOf(&r.look)}
	if !told {
		one.SourceIDs = []string{sourceID(name + "\x00" + strconv.FormatInt(r.size, 10))}
		return one
	}
	g := src.cargo
	lead := g.lead()
	one.SourcePath, one.Evidence, one.Confidence = src.path, src.evidence(), src.trust().String()
	one.SourceVolumeKind, one.SourceShare, one.SourceProtected = lead.kind, lead.share, lead.label
	one.SourceIDs = []string{sourceID(lead.path)}
	if src.whole {
		one.Files, one.Bytes, one.SourceIDs = event.Some(g.files), event.Some(g.bytes), g.ids()
		one.Paths = g.paths()
	}
	if g.packed && g.encrypted.OK {
		one.ArchiveEncrypted = g.encrypted
	}
	return one
}

// encryptedOf is whether an archive is encrypted, absent for other files.
func encryptedOf(s *sample) event.Opt[bool] {
	if !s.archive {
		return event.Opt[bool]{}
	}
	return s.encrypted
}

func extension(name string) string {
	return strings.ToLower(strings.TrimPrefix(filepath.Ext(name), "."))
}

func (c *core) whyNoProcess(r *record) string {
	if r.found {
		return "found by looking after a loss"
	}
	return c.mech + " does not tell it"
}

// sourceID is a stable hash of where something came from.
func sourceID(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:8])
}

// other tells a rename or deletion in a watched place.
func (c *core) other(ctx context.Context, a event.Action, r *record, now time.Time) {
	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	label := c.place.label(r.path, v.Share)
	if !isMedia(v) && !isShare(v) && label == "" || r.pid != 0 && c.of(r.pid, now).ignored {
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
	from, to := c.place.label(r.from, v.Share), c.place.label(r.path, v.Share)
	if from == "" || from == to || r.pid != 0 && c.of(r.pid, now).ignored {
		if !r.dir {
			c.other(ctx, event.FileRenamed, r, now)
		}
		return
	}
	if fi, err := c.stat(r.path, v.Dev); err == nil && fi.Mode().IsRegular() {
		if dev, ino := identity(fi); dev == r.dev {
			r.size, r.ino = fi.Size(), ino
		}
	}
	src := &found{cargo: single(origin{r.from, r.size, v.Kind, v.Share, from}), path: r.from, way: byMoving}
	if r.ino != 0 {
		if held, ok := c.lin.files.get(r.file(), now); ok {
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
		f.Name = filepath.Base(r.path)
		f.Extension = extension(f.Name)
	}
	if r.size >= 0 {
		f.Size = event.Some(r.size)
	}
	e.File = f
	vol := v.Volume
	e.Volume = &vol
	if r.pid != 0 {
		x := c.of(r.pid, time.Now())
		p := *x.proc
		if p.Parent != nil {
			pa := *p.Parent
			p.Parent = &pa
		}
		e.Process = &p
		if x.user != nil {
			u := *x.user
			e.User = &u
		}
	}
	return e
}

// mounted reports whether the volume of a record is still where it was.
func (c *core) mounted(v *volume.Volume, r *record) bool {
	fi, err := c.stat(filepath.Dir(r.path), v.Dev)
	if err != nil {
		// The folder may be gone with its files, or the stick with both.
		now, ok := c.w.opts.Table.Lookup(r.path)
		return ok && now.Dev == v.Dev && now.MountID == v.MountID
	}
	dev, _ := identity(fi)
	return dev == r.dev
}

// findInode looks in a file's folder for the name that it has now.
func (c *core) findInode(r *record) (string, int64) {
	d, err := os.Open(filepath.Dir(r.path))
	if err != nil {
		return "", 0
	}
	defer d.Close()
	for n := 0; n < 4096; {
		entries, err := d.ReadDir(256)
		n += len(entries)
		for _, x := range entries {
			fi, err := x.Info()
			if err != nil || !fi.Mode().IsRegular() {
				continue
			}
			if dev, ino := identity(fi); dev == r.dev && ino == r.ino {
				return filepath.Join(filepath.Dir(r.path), x.Name()), fi.Size()
			}
		}
		if err != nil {
			break
		}
	}
	return "", 0
}

var errStuck = errors.New("file system does not answer")

// stat is os.Lstat that does not wait for ever. A question that hangs keeps a
// goroutine and a thread, so that there is one at most for each file system.
func (c *core) stat(path string, dev volume.Dev) (os.FileInfo, error) {
	return c.ask(dev, func() (os.FileInfo, error) { return os.Lstat(path) })
}

func (c *core) ask(dev volume.Dev, lstat func() (os.FileInfo, error)) (os.FileInfo, error) {
	if answered, ok := c.stuck[dev]; ok {
		select {
		case <-answered:
			delete(c.stuck, dev)
		default:
			return nil, errStuck
		}
	}
	var answer os.FileInfo
	var failure error
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer, failure = lstat()
	}()
	t := time.NewTimer(statWait)
	defer t.Stop()
	select {
	case <-done:
		return answer, failure
	case <-t.C:
		c.stuck[dev] = done
		return nil, errStuck
	}
}
