package fileaudit

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"sekisho/internal/event"
)

const (
	// factsFor is how long what is known of a process is used again; shorter than
	// the time in which a process id can come round.
	factsFor = 2 * time.Second
	maxFacts = 4096
	// endedFor is how long after it was last seen a process id stands for a process
	// that nothing is to be found out of any more: what it did is told by then.
	endedFor = 15 * time.Second
	// execWait is how late a program that a process executes may be known; what is
	// known of a process for the first time is asked for again after it.
	execWait = 100 * time.Millisecond
)

// processes knows for a moment what processes are. Safe for concurrent use: the
// readers of events ask it what to pass over.
type processes struct {
	opts *Options

	mu    sync.Mutex // guards all below
	known map[int]*facts
}

// facts is what is known of a process; never changed once made.
type facts struct {
	at      time.Time
	seen    time.Time // when it was last known to be there
	early   bool      // asked for the first time: what it executes may not be known yet
	proc    *event.Process
	user    *event.User
	ignored bool
}

func newProcesses(o *Options) *processes { return &processes{opts: o, known: map[int]*facts{}} }

// of returns what is known of a process.
func (ps *processes) of(pid int, now time.Time) *facts {
	ps.mu.Lock()
	old := ps.known[pid]
	ps.mu.Unlock()
	if old != nil && now.Sub(old.at) < factsFor && !(old.early && now.Sub(old.at) > execWait) {
		return old
	}
	f := &facts{at: now, seen: now, early: old == nil || now.Sub(old.seen) > endedFor}
	if ps.opts.Process != nil {
		f.proc, f.user = ps.opts.Process(pid)
	}
	if f.proc == nil {
		f.proc = &event.Process{PID: event.Some(int64(pid))}
		if exe, err := os.Readlink(filepath.Join(ps.opts.ProcRoot, strconv.Itoa(pid), "exe")); err == nil {
			f.proc.Executable, f.proc.Name = exe, filepath.Base(exe)
		}
	}
	if old != nil && f.proc.Executable == "" && f.proc.Name == "" && now.Sub(old.seen) <= endedFor {
		f.proc, f.user, f.seen = old.proc, old.user, old.seen // it has ended
	}
	for _, g := range ps.opts.IgnoreExecutables {
		if ok, _ := doublestar.Match(slashed(g), slashed(f.proc.Executable)); ok {
			f.ignored = true
		}
	}
	// Forked, and what it executes not known yet: asked for again when it is told.
	if ps.opts.Process == nil || f.proc.EntityID != "" {
		ps.mu.Lock()
		if len(ps.known) >= maxFacts {
			clear(ps.known)
		}
		ps.known[pid] = f
		ps.mu.Unlock()
	}
	return f
}

// ignored reports whether the settings say not to tell what a process does; 0 is
// an unknown one.
func (ps *processes) ignored(pid int, now time.Time) bool {
	return pid != 0 && len(ps.opts.IgnoreExecutables) > 0 && ps.of(pid, now).ignored
}

// who is a process as far as reads are told apart by it.
func (ps *processes) who(pid int, now time.Time) who {
	p := ps.of(pid, now).proc
	w := who{pid: pid, start: p.Start, entity: p.EntityID}
	if p.Parent != nil {
		w.ppid = int(p.Parent.PID.V)
	}
	return w
}

// maxOpen bounds the descriptors of a process that are looked at.
const maxOpen = 1024

// hasOpen reports whether the process of a record has its file open, as far as the
// system's /proc tells.
func (c *core) hasOpen(r *record) bool {
	if c.mech != mechFanotify || r.pid == 0 || r.ino == 0 {
		return false
	}
	dir, err := os.Open(filepath.Join(c.w.opts.ProcRoot, strconv.Itoa(r.pid), "fd"))
	if err != nil {
		return false // it has ended
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxOpen)
	for _, name := range names {
		if path, err := os.Readlink(filepath.Join(dir.Name(), name)); err == nil && path == r.path {
			return true
		}
	}
	return false
}
