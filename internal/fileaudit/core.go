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
	// lateFor is how long a rename or deletion waits for the write before it. The
	// two queues are read at once; this is room for a busy machine.
	lateFor = 100 * time.Millisecond
	// lostEvery is how often losses are told; what is lost meanwhile is told as one.
	lostEvery = time.Second
	// flushWait bounds the end of a run: what waits to be told is told by then or lost.
	flushWait = time.Second
	// foldersWait joins folders made one after the other into one look.
	foldersWait = 100 * time.Millisecond
)

// The sekisho.copy.evidence of this package.
const (
	evidenceProcess = "same-process" // the process that wrote is known to have read the source, or was told to
	evidenceRename  = "rename"       // the file itself was moved
)

// core turns records into events. One goroutine owns it.
type core struct {
	w     *Watcher
	q     *queue
	out   chan<- *event.Event
	mech  string
	vols  []volume.Volume
	byDev map[volume.Dev]int // index in vols of the volume that one sees
	place *places
	set   *settle
	reads recentReads
	facts map[int]*facts
	stuck map[volume.Dev]<-chan struct{} // file systems that owe an answer, and what is closed with it
	gone  map[volume.Dev]goneVolume      // unmounted a moment ago: its last files are still to be told
	since time.Time                      // up to when nothing was lost

	folders []string  // that came up in protected places and are not marked yet
	resync  bool      // the mechanism asks for a sync
	synced  time.Time // when marks were last looked after
	late    []lateRecord
	missed  uint64    // lost and not told yet
	toldOf  time.Time // when losses were last told
}

type goneVolume struct {
	volume.Volume
	at time.Time
}

// facts is what is known of a process for a moment.
type facts struct {
	at      time.Time
	proc    *event.Process
	user    *event.User
	ignored bool
}

func newCore(w *Watcher, q *queue, out chan<- *event.Event) *core {
	return &core{w: w, q: q, out: out, reads: recentReads{map[int]*reader{}}, facts: map[int]*facts{}, stuck: map[volume.Dev]<-chan struct{}{}, gone: map[volume.Dev]goneVolume{}}
}

// run works until ctx is done. The cause of that, if it is not the caller's, is
// returned.
func (c *core) run(ctx context.Context, src source, mech, reason string, quiet time.Duration) error {
	c.mech = mech
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
		wait := time.Hour
		if next, ok := c.set.next(); ok {
			wait = time.Until(next)
		}
		if len(c.late) > 0 {
			wait = min(wait, time.Until(c.late[0].due))
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
	c.work(ctx)
	c.settleLate(ctx, time.Now().Add(lateFor))
	for _, p := range c.set.takeIf(func(*record) bool { return true }) {
		c.finish(ctx, p)
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
		if !v.Hidden && v.Dev != (volume.Dev{}) && (!twice || len(v.Mount) < len(c.vols[j].Mount)) {
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
	if reason != "" {
		problems = append([]string{reason}, problems...)
	}
	if len(problems) > 0 {
		state = endpoint.SensorDegraded
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
			c.rescan(ctx, v, since)
		}
	}
}

// rescan finds files of a volume that were written since a moment.
func (c *core) rescan(ctx context.Context, v *volume.Volume, since time.Time) {
	seen := 0
	_ = filepath.WalkDir(mountOf(v), func(p string, d fs.DirEntry, err error) error {
		if seen++; seen > rescanLimit || ctx.Err() != nil {
			return fs.SkipAll
		}
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is left out: this is a second look
		}
		fi, err := d.Info()
		if err != nil || changeTime(fi).Before(since) {
			return nil
		}
		if dev, ino := identity(fi); dev == v.Dev {
			c.handle(ctx, record{kind: recWrote, at: time.Now(), path: p, size: fi.Size(), dev: dev, ino: ino, changed: true, found: true})
		}
		return nil
	})
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
	if f := c.facts[pid]; f != nil && now.Sub(f.at) < factsFor {
		return f
	}
	if len(c.facts) >= maxFacts {
		clear(c.facts)
	}
	f := &facts{at: now}
	if c.w.opts.Process != nil {
		f.proc, f.user = c.w.opts.Process(pid)
	}
	if f.proc == nil {
		f.proc = &event.Process{PID: event.Some(int64(pid))}
		if exe, err := os.Readlink(filepath.Join(c.w.opts.ProcRoot, strconv.Itoa(pid), "exe")); err == nil {
			f.proc.Executable, f.proc.Name = exe, filepath.Base(exe)
		}
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

// parentOf is the process that started a process, 0 if unknown.
func (c *core) parentOf(pid int, now time.Time) int {
	if p := c.of(pid, now).proc.Parent; p != nil {
		return int(p.PID.V)
	}
	return 0
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

	v := c.volumeOf(r.path, r.dev)
	if v == nil {
		return
	}
	watched := isMedia(v) || isShare(v)
	label := c.place.label(r.path, v.Share)
	if r.pid != 0 && (watched || label != "") && c.of(r.pid, now).ignored {
		return
	}
	switch r.kind {
	case recOpened, recRead:
		if !isShare(v) && label == "" {
			return
		}
		src := c.reads.note(r.pid, func() int { return c.parentOf(r.pid, now) }, readSource{
			path: r.path, name: filepath.Base(r.path), size: r.size, kind: v.Kind, share: v.Share, label: label, at: now,
		})
		if r.kind == recRead && !src.read {
			src.read = true
			if c.w.opts.Reads {
				c.send(ctx, c.event(event.FileRead, &r, v, label))
			}
		}
	case recWrote:
		if !r.changed && r.size > 0 && (watched || label != "") {
			return // opened for writing, as many programs do to read a document, and not written to
		}
		c.reads.wrote(r.pid, r.path)
		// A write on a local disk waits as well: shares have readers of their own,
		// so that it may overtake the read that it is a copy of.
		if early := c.set.wrote(keyOf(&r), r, now); early != nil {
			c.finish(ctx, early)
		}
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

// settleLate tells the renames and deletions that are due and concern no file
// that is told anyway.
func (c *core) settleLate(ctx context.Context, now time.Time) {
	n := 0
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
	src := c.sourceOf(r, now)
	if src == nil && !isMedia(v) && !isShare(v) && label == "" || r.pid != 0 && c.of(r.pid, now).ignored {
		return
	}
	var errs []string
	if r.path == "" {
		errs = append(errs, "read path: file name too long")
	} else if !isRemote(v) {
		fi, err := c.stat(r.path, v.Dev)
		if err == nil {
			if dev, _ := identity(fi); dev != r.dev {
				err = fs.ErrNotExist // what lies below the mount that is gone
			}
		}
		switch {
		case err == nil && !fi.Mode().IsRegular():
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
			if at == "" || c.set.byKey[at] != nil { // gone, or written again under that name
				return
			}
			r.path, r.size = at, size
		}
	}
	if src == nil {
		src = c.sourceOf(r, now) // under its final name
	}
	if src == nil && isMedia(v) && r.pid != 0 {
		src = c.fromArguments(r)
	}
	if src != nil && src.label == label && src.share == v.Share && (label != "" || v.Share != "") {
		src = nil // within one place: no copy out of it
	}
	if r.pid == 0 {
		errs = append(errs, "process unknown: "+c.whyNoProcess(r))
	}
	action := event.FileWritten
	if isMedia(v) || src != nil {
		action = event.FileCopied
	} else if !isShare(v) && label == "" {
		return
	}
	e := c.event(action, r, v, label)
	e.Errors = append(e.Errors, errs...)
	if action == event.FileCopied {
		e.Copy = &event.Copy{Files: event.Some[int64](1), Bytes: event.Some(max(r.size, 0))}
		if src != nil {
			e.Copy.SourcePath, e.Copy.SourceVolumeKind, e.Copy.SourceShare = src.path, src.kind, src.share
			e.Copy.SourceProtected, e.Copy.Evidence = src.label, evidenceProcess
			e.Copy.SourceIDs = []string{sourceID(src.path)}
		} else {
			e.Copy.SourceIDs = []string{sourceID(e.File.Name + "\x00" + strconv.FormatInt(r.size, 10))}
		}
	}
	c.send(ctx, e)
}

// sourceOf is what the process that wrote a file read in a watched place, nil if
// nothing that it could be a copy of.
func (c *core) sourceOf(r *record, now time.Time) *readSource {
	if r.pid == 0 || c.reads.empty(now) {
		return nil
	}
	return c.reads.find(r.pid, func() int { return c.parentOf(r.pid, now) }, filepath.Base(r.path), r.path, r.size, now)
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

// renamed tells a rename: out of a protected place it is a copy. A folder is
// told as one file of unknown size.
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
		r.size = fi.Size()
	}
	e := c.event(event.FileCopied, r, v, to)
	e.Copy = &event.Copy{
		SourcePath: r.from, SourceVolumeKind: v.Kind, SourceShare: v.Share, SourceProtected: from, Evidence: evidenceRename,
		Files: event.Some[int64](1), Bytes: event.Some(max(r.size, 0)), SourceIDs: []string{sourceID(r.from)},
	}
	c.send(ctx, e)
}

// event makes the event of a record.
func (c *core) event(a event.Action, r *record, v *volume.Volume, label string) *event.Event {
	e := event.New(a, r.at)
	e.Sensor = c.mech
	f := &event.File{Path: r.path, VolumeKind: v.Kind, Share: v.Share, Protected: label}
	if r.path != "" {
		f.Name = filepath.Base(r.path)
		f.Extension = strings.ToLower(strings.TrimPrefix(filepath.Ext(f.Name), "."))
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
