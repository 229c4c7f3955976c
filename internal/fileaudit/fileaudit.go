// Package fileaudit tells what happens to files where it matters: on removable
// volumes, on network shares and in the places that IT called protected; and
// which files were copied from such a place or to such a volume.
//
// What is told:
//
//   - file-copied for every file that is written to a removable volume, whatever
//     its source: data that arrives on a stick has left. Without a known source,
//     sekisho.copy.source_ids holds a hash of the target's name and size.
//   - file-copied for a file written elsewhere that is known to come from a share
//     or a protected place; between local files only where it has a label.
//   - archive-created for an archive, or a packed or encrypted file, made of such
//     files, with all of them in its totals, source_ids and paths.
//   - file-uploaded for such a file when a program that sends files reads it.
//   - file-written for other files written on shares, cloud mounts and in
//     protected places; file-read (once per process and file and minute) if
//     [Options.Reads] is set; file-renamed and file-deleted where names are told.
//
// # Where data came from
//
// What is read in watched places is remembered for a minute by process
// (reads.go). A file that is written is a copy of what its process, its parent,
// a child or its partner in a pipe read under that name or of that size
// (evidence same-process), of what has the same content by samples (content;
// sample.go), or was made of all that an archiver read meanwhile (archive). A
// file on a local disk that holds something so is remembered for a day, by its
// inode and by its content, and marked one by one, so that its reads are told
// too: labels travel on through copies, renames and archives (lineage.go).
// sekisho.source.path is the file that was copied last; source.share,
// .volume_kind, .protected and source_ids are of where its data first came from.
// All of it is in memory, bounded, and forgotten by a restart.
//
// More than 200 copies of one kind a second by one process are told as few
// events with true totals (burst.go).
//
// A file is told when it has been quiet for 0.3 s after its last close, at the
// latest after 1 s, so that programs that write under a temporary name and then
// rename, or write twice, count once and under the final name.
//
// Linux: fanotify, needs CAP_SYS_ADMIN, and CAP_DAC_READ_SEARCH to find folders by
// the kernel's handles. Marks lie on file systems, follow mounts
// as they come and go, and do not keep a stick from being unmounted. Writes and
// reads are told in descriptor mode, which every file system can do; moves and
// deletions by name, which ext4, vfat and tmpfs can, exFAT, NFS, CIFS, FUSE and
// overlay cannot: there a rename after writing is found by looking into the
// folder, later renames and deletions go unseen. Each remote mount has a reader
// of its own, so that a dead server stops nothing else. Protected folders on
// local disks are marked one by one ([maxDirs] at most), and so are folders of
// sync programs. While there is a share, such a folder or a protected place, every
// close after writing on local disks is looked at as well, else none: some 25 us of
// CPU each at 5,000 a second while nothing of interest was read in the last minute.
// Mounts of other namespaces are marked by way of a process there.
//
// Where fanotify is refused: inotify through fsnotify, degraded. It tells no
// process, may miss files in fresh folders, and cannot see reads.
//
// Windows: events of the kernel's file provider by event tracing, which needs the
// rights of LocalSystem or an administrator and holds nothing on a volume. All
// openings, reads, writes, renames and ends on the PC pass by (kernelfile.go); those
// on media, on shares, in folders of sync programs and in protected places go on, on
// local disks those of files that are made, and of files that hold something. The
// file is asked for its size and number, and looked into, once it is closed; what
// lies on a server is not asked for anything.
//
// Where that is refused: ReadDirectoryChangesW on media, protected places and folders
// of sync programs, with all below them, degraded. It tells no reads and nothing of
// shares, the process only where one alone has a file open when it appears; the
// person is guessed (event.User.Confidence). Handles are let go of when a volume is
// about to be removed. A file that is in use is told later.
//
// Paths of Windows have one form (winpath.go).
//
// What can be missed: a second write through a memory map within the two seconds
// to which vfat keeps times; the first milliseconds after a mount; reads in a
// protected folder within about 0.1 s of its creation; shares that a desktop's
// file manager opens by FUSE (gvfs, kio), which root may not enter; files on an NFS
// export with root_squash that root may not read (counted as lost); those that an
// NFS server calls gone (counted from Linux 6.13 on); a file that is deleted again
// before it is told; what happens while a queue is full, which is counted, told as
// events-lost (reads first) and, as far as it was written to removable volumes and protected
// folders, looked for afterwards (100,000 files of each); sources as docs/limits.md
// lists them.
//
// A file system that does not answer is asked one question at a time, for a second;
// its files are told without what it would have said.
package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// Volumes is what the sensor asks of the table of mounts; *volume.Table is one.
type Volumes interface {
	All() []volume.Volume
	Lookup(path string) (volume.Volume, bool)
	Watch() <-chan struct{}
	Unwatch(<-chan struct{})
}

// Place is a protected place: files whose reading and copying is of interest.
type Place struct {
	Label  string
	Globs  []string // of paths, "/srv/hr/**"; one that names a folder covers what is below it
	Shares []string // of shares, `\\server\hr`, "server:/export"; case does not matter
	// Alone: what is written there is told, and nothing else follows from it: other
	// disks are not watched for copies of its files, nor are renames. The agent's
	// own proof of life, at no cost.
	Alone bool
}

// Options are the settings of a [Watcher].
type Options struct {
	Table     Volumes // required
	Protected []Place
	// Reads asks for file-read. Copies find their source without it.
	Reads bool
	// IgnoreExecutables are globs of programs whose file activity is not told:
	// backup, virus scanner.
	IgnoreExecutables []string
	// Process tells the process and account behind a process id; what it returns
	// is not written to. nil: events carry the executable only, if it still runs.
	Process func(pid int) (*event.Process, *event.User)

	ProcRoot string // "" is "/proc"; Linux
	SysRoot  string // "" is "/sys"; Linux

	// LesserOnly: try no better mechanism than inotify, or ReadDirectoryChangesW.
	LesserOnly bool
	// Quiet is how long a file must rest before it is told, MaxDelay how long it
	// can be put off by being written again. 0: 0.3 s and 1 s, chosen so that a
	// rename after writing (rsync, editors: milliseconds) is waited for.
	Quiet, MaxDelay time.Duration
	// RetryAfter is how long the lesser mechanism is used before the better one is
	// tried again. 0 is 5 min.
	RetryAfter time.Duration
	// MaxQueued bounds the records between the kernel's queue and us. 0 is 65,536.
	MaxQueued int
}

// Watcher is the file sensor. Make it with [New].
type Watcher struct {
	opts Options
	self int

	told    atomic.Uint64
	lost    atomic.Uint64
	useless atomic.Pointer[string] // why the better mechanism is of no use here; nil: it may be
	kick    chan struct{}          // holds a token when the protected places changed
	space   atomic.Pointer[places]
	again   time.Duration // resyncEvery, but for tests

	mu     sync.Mutex // guards all below
	status endpoint.Sensor
}

// New returns a watcher that has not started yet.
func New(o Options) *Watcher {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Quiet, 300*time.Millisecond)
	def(&o.MaxDelay, time.Second)
	def(&o.RetryAfter, 5*time.Minute)
	if o.MaxQueued <= 0 {
		o.MaxQueued = 1 << 16
	}
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if o.SysRoot == "" {
		o.SysRoot = "/sys"
	}
	w := &Watcher{
		opts: o,
		self: os.Getpid(),
		kick: make(chan struct{}, 1), again: resyncEvery,
		status: endpoint.Sensor{
			Name: sensorName, State: endpoint.SensorDown, Reason: "not started", Since: time.Now().UTC(),
		},
	}
	w.space.Store(newPlaces(o.Protected))
	return w
}

const sensorName = "file"

// The mechanisms, as they stand in sekisho.sensor and in the status.
const (
	mechFanotify = "fanotify"
	mechInotify  = "inotify"
	mechETW      = "etw"
	mechChanges  = "read-directory-changes"
)

// Name is "file".
func (w *Watcher) Name() string { return sensorName }

// Status is what the watcher says of itself. Safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor {
	w.mu.Lock()
	s := w.status
	w.mu.Unlock()
	s.Events, s.Lost = w.told.Load(), w.lost.Load()
	return s
}

// SetProtected replaces the protected places. Safe for concurrent use.
func (w *Watcher) SetProtected(p []Place) {
	w.space.Store(newPlaces(p))
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// errUnavailable is wrapped by a mechanism that cannot be had here.
var errUnavailable = errors.New("not available")

// errNotHere is wrapped as well by one that this build or this kind of system does
// not have: there is no better one to miss.
var errNotHere = errors.New("not part of this system")

// source is a mechanism. Its methods are called by one goroutine.
type source interface {
	// sync makes it watch what is to be watched now, and says what it watches and
	// what it cannot.
	sync(all []volume.Volume, p *places) (watching []string, problems []string)
	// follow makes it tell reads of one more file, which holds something of a
	// watched place; unfollow ends that.
	follow(path string, id fileKey)
	unfollow(path string, id fileKey)
	close()
}

// guesser is a source that is not told of closed files and processes, and can ask
// instead. Its methods may hang with the file system.
type guesser interface {
	// inUse reports whether a program has a file open.
	inUse(path string) bool
	whose(path string) guess
}

// lagger is a source that may tell a read long after the write that it led to.
type lagger interface {
	// caughtUp is up to when all that happened is in the queue or counted as lost:
	// on shares that answer, and elsewhere.
	caughtUp(now time.Time) (shares, elsewhere time.Time)
}

// guess is who owns a file ("": nobody) and who most likely wrote it: a user with a
// Confidence, or nil.
type guess struct {
	owner  string
	person *event.User
}

// Run watches until ctx is done (nil) or the mechanism breaks. It blocks while
// out is full; what the internal queue cannot hold meanwhile is counted as lost.
// When ctx is done, what waits to be told is sent if out takes it within a second.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	for ctx.Err() == nil {
		err := w.run(ctx, out)
		if err != nil && !errors.Is(err, errRetry) {
			w.setState(endpoint.SensorDown, "", err.Error(), nil)
			return fmt.Errorf("watch files: %w", err)
		}
	}
	return nil
}

// errRetry ends a run by a lesser mechanism, to try the better one again.
var errRetry = errors.New("try again")

func (w *Watcher) run(ctx context.Context, out chan<- *event.Event) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := newQueue(w.opts.MaxQueued)
	procs := newProcesses(&w.opts)
	c := newCore(w, q, procs, out)
	src, err := source(nil), errors.New("switched off in the settings")
	switch why := w.useless.Load(); {
	case w.opts.LesserOnly:
	case why != nil:
		err = fmt.Errorf("%s %w: %s", nativeMech, errUnavailable, *why)
	default:
		src, err = w.newNative(q, procs, cancel)
	}
	mech, quiet, reason := nativeMech, w.opts.Quiet, ""
	if err != nil {
		if !w.opts.LesserOnly && !errors.Is(err, errUnavailable) {
			return err
		}
		mech, quiet = lesserMech, max(w.opts.Quiet, time.Second)
		c.limited = errors.Is(err, errNotHere)
		reason = fmt.Sprintf("%s: %s: %v", lesserMech, lesserLimits, err)
		if src, err = w.newLesser(q, cancel); err != nil {
			return err
		}
		timer := time.AfterFunc(w.opts.RetryAfter, func() { cancel(errRetry) })
		defer timer.Stop()
	}
	defer src.close()
	return c.run(ctx, src, mech, reason, quiet)
}

// guard makes a panic in one of our goroutines the sensor's error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// maxWatching bounds Status().Watching.
const maxWatching = 64

// setState changes the status; it returns a health event if that is worth one.
func (w *Watcher) setState(s endpoint.SensorState, mechanism, reason string, watching []string) *event.Event {
	if len(watching) > maxWatching {
		watching = watching[:maxWatching]
	}
	w.mu.Lock()
	old := w.status
	w.status.Watching = watching
	changed := old.State != s || old.Mechanism != mechanism || old.Reason != reason
	if changed {
		w.status.State, w.status.Mechanism, w.status.Reason, w.status.Since = s, mechanism, reason, time.Now().UTC()
	}
	w.mu.Unlock()
	var e *event.Event
	switch {
	case !changed:
		return nil
	case s == endpoint.SensorDegraded:
		e = event.New(event.SensorDegraded, time.Now())
		e.Message = fmt.Sprintf("file sensor works by %s: %s", mechanism, reason)
	case s == endpoint.SensorOK && old.Reason != "not started":
		e = event.New(event.SensorRecovered, time.Now())
		e.Message = "file sensor works by " + mechanism
	default:
		return nil
	}
	e.Sensor = mechanism
	return e
}

// isRemote reports whether a server or another process answers for the files of
// a volume, and may not.
func isRemote(v *volume.Volume) bool {
	switch v.Kind {
	case event.VolumeNetwork, event.VolumeCloudSync:
		return !v.Folder
	}
	return len(v.FileSystemType) > 4 && v.FileSystemType[:4] == "fuse" && v.FileSystemType != "fuseblk"
}

// isMedia reports whether what is written there has left the house.
func isMedia(v *volume.Volume) bool {
	return v.Kind == event.VolumeRemovable || v.Kind == event.VolumeOptical
}

// isShare reports whether what is read there comes from elsewhere.
func isShare(v *volume.Volume) bool {
	return v.Kind == event.VolumeNetwork || v.Kind == event.VolumeCloudSync
}

// reachOf is where a volume is, as a path that we can open: for a mount of
// another namespace by way of a process there.
func reachOf(v *volume.Volume) string { return filepath.Join(v.Reach, mountOf(v)) }

// mountOf is where a volume is, as a path.
func mountOf(v *volume.Volume) string {
	if v.Mount != "" {
		return filepath.Clean(v.Mount)
	}
	if v.MountName != "" {
		return v.MountName
	}
	return v.DOSName + `\`
}
