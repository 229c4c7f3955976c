package agent

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"sekisho/internal/event"
)

// The run file is there while the agent runs and holds what the Go runtime
// writes when it dies of a panic. What is left of it at the next start tells how
// the run before ended: nothing, it stopped cleanly; empty, it was killed or the
// power went; text, it crashed.
const runFile = "running"

// maxCrash bounds what is told of a crash. A goroutine's stack fits; the rest
// stays on disk for a support bundle.
const maxCrash = 16 << 10

// maxCrashFile is how much of a crash's text is read: the reason and the stack of
// the goroutine that died come first.
const maxCrashFile = 4 << 20

// previousRun reads what the run before left, keeps a crash's text beside it as
// crash-TIME.txt, and begins this run's file. The event is nil after a clean
// stop and at the first start. end, never nil, removes the file at a clean stop.
func previousRun(dir string) (e *event.Event, end func(), err error) {
	path := filepath.Join(dir, runFile)
	end = func() {
		debug.SetCrashOutput(nil, debug.CrashOptions{})
		os.Remove(path)
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
