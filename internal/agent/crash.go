package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"sekisho/internal/event"

	"github.com/shirou/gopsutil/v3/host"
)

// The run file is there while the agent runs and holds what the Go runtime
// writes when it dies of a panic. At a clean stop it becomes the stop file. What
// is left of it at the next start tells how the run before ended: none, it stopped
// cleanly; empty, it was killed or the power went; text, it crashed.
const (
	runFile  = "running"
	stopFile = "stopped"
)

// aliveEvery is how often the run file is touched, so that the next start can
// tell since when nobody watched. Where events are kept their files say it more
// exactly. Judgement: a write of an inode, which a disk at rest should not be woken
// for more often.
const aliveEvery = 30 * time.Second

// maxCrash bounds what is told of a crash. A goroutine's stack fits; the rest
// stays on disk for a support bundle.
const maxCrash = 16 << 10

// maxCrashFile is how much of a crash's text is read: the reason and the stack of
// the goroutine that died come first.
const maxCrashFile = 4 << 20

// onTheWay is how long something that happened may be on its way to where it is
// kept: a file is told a second after it was written, at the latest, and the spool
// of activity is written once a second.
const onTheWay = 2 * time.Second

// lastSign is when the run before last did something: stopped, touched its run
// file, kept an event. Zero: there was none. To be asked before anything of the
// state directory is opened.
func lastSign(dir string) (last time.Time) {
	look := func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if fi, err := d.Info(); err == nil && fi.ModTime().After(last) {
				last = fi.ModTime()
			}
		}
		return nil // what cannot be looked at says nothing
	}
	if fi, err := os.Stat(filepath.Join(dir, stopFile)); err == nil {
		return fi.ModTime()
	}
	fi, err := os.Stat(filepath.Join(dir, runFile))
	if err != nil {
		return last
	}
	last = fi.ModTime()
	for _, d := range []string{"spool", "judge"} {
		filepath.WalkDir(filepath.Join(dir, d), look)
	}
	return last.Add(-onTheWay)
}

// keepAlive touches the run file until ctx is done.
func (a *Agent) keepAlive(ctx context.Context) {
	t := time.NewTicker(aliveEvery)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			os.Chtimes(filepath.Join(a.stateDir, runFile), now, now)
		case <-ctx.Done():
			return
		}
	}
}

// gap is the time in which nobody watched, as the start knows it; nil where there
// was no run before, or the clock was set back since.
func gap(last, now time.Time) *event.Lost {
	if last.IsZero() || last.After(now) {
		return nil
	}
	return &event.Lost{From: last.UTC(), To: now.UTC()}
}

// tellGap tells, once the sensors work, in which time nobody watched a PC that
// ran: the run before was killed. A PC that was off, or an agent that was stopped,
// is no loss: the start tells of it.
func (a *Agent) tellGap(ctx context.Context) {
	a.awaitSensors(ctx, openWithin)
	now := time.Now()
	g := gap(a.last, now)
	if ctx.Err() != nil || a.last.IsZero() {
		return
	}
	if g == nil { // nor is it known whether the PC was off
		e := event.New(event.EventsLost, now)
		e.Message = "the agent was killed, and the clock was set back since: nobody watched for a time that is not known"
		a.tell(ctx, e)
		return
	}
	if boot, err := host.BootTime(); err != nil || time.Unix(int64(boot), 0).After(a.last) {
		return
	}
	e := event.New(event.EventsLost, now)
	e.Lost = g
	e.Message = fmt.Sprintf("the agent was killed; nobody watched from %s to %s (%v): what began and ended meanwhile is not known",
		g.From.Format(time.RFC3339), g.To.Format(time.RFC3339), g.To.Sub(g.From).Round(time.Second))
	a.tell(ctx, e)
}

// previousRun reads what the run before left, keeps a crash's text beside it as
// crash-TIME.txt, and begins this run's file. The event is nil after a clean
// stop and at the first start. end, never nil, makes it the stop file.
func previousRun(dir string) (e *event.Event, end func(), err error) {
	path := filepath.Join(dir, runFile)
	stopped := filepath.Join(dir, stopFile)
	end = func() {
		debug.SetCrashOutput(nil, debug.CrashOptions{})
		os.Rename(path, stopped)
		now := time.Now()
		os.Chtimes(stopped, now, now)
	}
	text, err := head(path, maxCrashFile)
	switch {
	case err == nil && len(bytes.TrimSpace(text)) > 0:
		now := time.Now()
		kept := filepath.Join(dir, "crash-"+now.UTC().Format("20060102T150405Z")+".txt")
		if werr := os.WriteFile(kept, text, 0o600); werr != nil {
			os.Remove(kept) // the event holds the most of it
		}
		keepNewest(dir, 5)
		e = event.New(event.AgentCrashed, modified(path, now))
		e.Message = crashSummary(text)
	case err == nil:
		e = event.New(event.AgentStarted, time.Now())
		e.Message = "the run before did not stop cleanly: it was killed, or the PC lost power"
	case !os.IsNotExist(err):
		return nil, end, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return e, end, err
	}
	os.Remove(stopped)
	defer f.Close() // the runtime keeps a descriptor of its own
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return e, end, fmt.Errorf("set crash output: %w", err)
	}
	return e, end, nil
}

// head is the first n bytes of a file.
func head(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// modified is when the file was last written, which for a crash is when it
// happened.
func modified(path string, otherwise time.Time) time.Time {
	if st, err := os.Stat(path); err == nil {
		return st.ModTime()
	}
	return otherwise
}

// crashSummary is the reason and the stack of the goroutine that died. Values of
// arguments are not in it: the runtime prints them as numbers only.
func crashSummary(text []byte) string {
	s := strings.ToValidUTF8(string(text), "?")
	if i := strings.Index(s, "\n\ngoroutine "); i >= 0 {
		if j := strings.Index(s[i+2:], "\n\n"); j >= 0 {
			s = s[:i+2+j]
		}
	}
	return strings.TrimSpace(cut(s, maxCrash))
}

// keepNewest removes all but the n newest crash reports.
func keepNewest(dir string, n int) {
	found, _ := filepath.Glob(filepath.Join(dir, "crash-*.txt")) // sorted, and the names sort by time
	for len(found) > n {
		os.Remove(found[0])
		found = found[1:]
	}
}
