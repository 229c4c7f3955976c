// Package printwatch tells what is printed: by whom, on which printer, how many pages,
// and the name of the document where Windows writes it down.
//
// Windows: the log Microsoft-Windows-PrintService/Operational, into which the spooler
// writes each document that it gave to a printer's port (record 307; 805, before it,
// has the number of copies). The log is switched off as Windows comes:
// [Watcher.Status] says how to switch it on, and [Options.EnableLog] lets the agent do
// that. It writes "Print Document" instead of names of documents unless a policy
// allows them ("Allow job name in event logs"); without that policy no name is told.
// What was printed while the agent did not run stands in the log still and is told with
// its own time.
//
// What can be missed: what a program sends to a printer past the spooler of this PC
// (printers on the web, printing by a server that renders itself, as where Branch
// Office Direct Printing is in use), and what the log, 1 MB unless somebody made it
// larger, has written over while the agent did not run.
//
// Elsewhere: Run returns an error that wraps errors.ErrUnsupported. CUPS keeps no
// record of documents that may be read without its own tools.
package printwatch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/winlog"
)

// Channel is the log of the spooler.
const Channel = "Microsoft-Windows-PrintService/Operational"

// Records of that log (manifest of Microsoft-Windows-PrintService; [MS-RPRN] 2.2.1.15.5
// and 2.2.1.15.6 name what is in them).
const (
	recordPrinted  = 307 // DocumentPrinted: Param1 job, 2 document, 3 owner, 4 client, 5 printer, 6 port, 7 bytes, 8 pages
	recordRendered = 805 // RenderJobDiag: JobId, Copies and more
)

const (
	mechanism = "event-log"
	// MessageFound is the message of what was printed while the agent did not run.
	MessageFound = "found in the log of Windows: it was printed while the agent did not run"
	// maxRendered bounds the jobs whose copies are remembered: those that one spooler
	// has under way.
	maxRendered = 256
	// maxCopies is what the dialog of Windows takes (DEVMODE.dmCopies, a short).
	maxCopies = 1<<15 - 1
	// maxName bounds the names of documents and printers. Windows has 255 characters
	// for a document and 220 for a printer.
	maxName = 1024
)

// Options are the settings of a [Watcher].
type Options struct {
	// EnableLog has the agent switch the log on where it is off.
	EnableLog bool
	// Since, if it is not zero, asks also for what was printed after it.
	Since time.Time

	follow func(context.Context, winlog.Options) // nil: winlog.Follow
	enable func(channel string) error            // nil: winlog.Enable
	names  func() bool                           // nil: the policy of this PC
}

// Watcher is the print sensor. It is made by New; Run does the work.
type Watcher struct {
	opt      Options
	gauge    *endpoint.Gauge
	last     time.Time       // of the last record that was told
	rendered map[int64]int64 // copies by job
}

// New returns a sensor that is not running.
func New(opt Options) *Watcher {
	if opt.follow == nil {
		opt.follow = winlog.Follow
	}
	if opt.enable == nil {
		opt.enable = winlog.Enable
	}
	if opt.names == nil {
		opt.names = namesAllowed
	}
	return &Watcher{opt: opt, gauge: endpoint.NewGauge("print"), last: opt.Since, rendered: map[int64]int64{}}
}

// Name is "print".
func (w *Watcher) Name() string { return "print" }

// Status says how the sensor is. It is safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor { return w.gauge.Status() }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	started := time.Now()
	w.opt.follow(ctx, winlog.Options{
		Channel: Channel, IDs: []int{recordPrinted, recordRendered}, Since: w.last,
		Tell: func(r *winlog.Event) {
			if r.Time.After(w.last) {
				w.last = r.Time
			}
			e := w.decode(r, w.opt.names)
			if e == nil {
				return
			}
			w.say(nil) // the policy may have changed
			if r.Time.Before(started) {
				e.Message = MessageFound
			}
			select {
			case out <- e:
				w.gauge.Told()
			case <-ctx.Done():
			}
		},
		Lost: func(error) { w.gauge.Lose(1) },
		Say: func(err error) {
			if errors.Is(err, errors.ErrUnsupported) {
				cancel(fmt.Errorf("prints are seen on Windows only: %w", err))
			}
			w.say(err)
		},
	})
	if err := context.Cause(ctx); errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// say sets the state by what is known of the log; nil: it is read. What Windows or the
// settings of IT leave out is no trouble that every PC should report.
func (w *Watcher) say(err error) {
	var off *winlog.OffError
	switch {
	case err == nil && w.opt.names():
		w.gauge.Set(endpoint.SensorOK, mechanism, "")
	case err == nil:
		w.gauge.Set(endpoint.SensorLimited, mechanism, `names of documents are not told: Windows does not write them unless the policy "Allow job name in event logs" (Computer Configuration, Administrative Templates, Printers) is enabled`)
	case errors.As(err, &off) && w.opt.EnableLog:
		if failed := w.opt.enable(Channel); failed != nil {
			w.gauge.Set(endpoint.SensorUnavailable, "", fmt.Sprintf("%v; the agent could not: %v", err, failed))
			return
		}
		w.gauge.Set(endpoint.SensorLimited, mechanism, "the log was switched on just now; it is read within half a minute")
	case errors.As(err, &off):
		w.gauge.Set(endpoint.SensorUnavailable, "", fmt.Sprintf("%v; with sensors.print.enable_log: true in the settings the agent does", err))
	default:
		w.gauge.Set(endpoint.SensorUnavailable, "", err.Error())
	}
}

// decode makes an event of a record of the log; nil of one that is none by itself.
func (w *Watcher) decode(r *winlog.Event, names func() bool) *event.Event {
	switch r.ID {
	case recordRendered:
		job, copies := number(r.Get("JobId")), number(r.Get("Copies"))
		if !job.OK || !copies.OK || copies.V < 1 || copies.V > maxCopies {
			return nil
		}
		if len(w.rendered) >= maxRendered {
			clear(w.rendered)
		}
		w.rendered[job.V] = copies.V
		return nil
	case recordPrinted:
	default:
		return nil
	}
	e := event.New(event.PrintSubmitted, r.Time)
	e.Sensor = mechanism
	e.Print = &event.Print{Printer: cut(r.Get("Param5")), Pages: number(r.Get("Param8"))}
	if job := number(r.Get("Param1")); job.OK {
		if n, ok := w.rendered[job.V]; ok {
			delete(w.rendered, job.V) // numbers of jobs come again
			e.Print.Copies = event.Some(n)
		}
	}
	if names() {
		e.Print.Document = cut(r.Get("Param2"))
		// Some programs name the document by its file.
		if path := e.Print.Document; absolute(path) {
			name := path[strings.LastIndexByte(path, '\\')+1:]
			e.File = &event.File{Path: path, Name: name, Extension: strings.ToLower(strings.TrimPrefix(filepath.Ext(name), "."))}
		}
	}
	user := event.Account(cut(r.Get("Param3")))
	if strings.HasPrefix(r.User, "S-1-5-21-") || strings.HasPrefix(r.User, "S-1-12-1-") { // of a person, of Entra ID; else the spooler's own
		user.ID = r.User
	}
	if user != (event.User{}) {
		e.User = &user
	}
	return e
}

// number reads a count; absent where it is none.
func number(s string) event.Opt[int64] {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return event.Opt[int64]{}
	}
	return event.Some(int64(n))
}

// cut bounds a name; what Decode gives is valid UTF-8.
func cut(s string) string {
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "")
	}
	return s
}

// absolute reports whether a name is the whole path of a file: `C:\a\b.docx`,
// `\\server\share\b.docx`.
func absolute(s string) bool {
	drive := len(s) > 3 && s[1] == ':' && s[2] == '\\' && (s[0]|0x20 >= 'a' && s[0]|0x20 <= 'z')
	share := len(s) > 5 && s[:2] == `\\` && strings.Count(s[2:], `\`) >= 2
	return (drive || share) && !strings.HasSuffix(s, `\`)
}
