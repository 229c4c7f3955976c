package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/etw"
	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

const (
	nativeMech = mechETW

	// SessionName is that of our event tracing session; that of processes is another
	// one, so that a flood of one does not lose the other.
	SessionName = "Sekisho-File"
	// Keywords; FILEIO is the only one of Cleanup and Close, and one of all others
	// but deletions and renames.
	keywordFileIO     = 0x20
	keywordDeletePath = 0x400
	keywordRenamePath = 0x800

	// lostPoll is how often the system is asked what was lost.
	lostPoll = time.Second
	// silentFor is how long it may take for the first event to come. Windows opens
	// files all the time.
	silentFor = 30 * time.Second
	// Files whose content is not there: a look into them would fetch it (winnt.h,
	// FILE_ATTRIBUTE_OFFLINE, FILE_ATTRIBUTE_RECALL_ON_OPEN, ..._ON_DATA_ACCESS).
	attrElsewhere = 0x1000 | 0x40000 | 0x400000
)

// tracing is the mechanism of event tracing.
type tracing struct {
	*kernelFiles
	w   *Watcher
	q   *queue
	raw *queue          // of records that lack what the file itself has to say
	ctx context.Context // ends with it
	end context.CancelFunc
	all sync.WaitGroup
	// The completer's own. A volume has one question at a time, and so one sampler.
	stuck    stuck
	samplers map[volume.Dev]*sampler
	look     func(*record, *sampler) bool // lookInto; tests have one that hangs
}

func (w *Watcher) newNative(q *queue, _ *processes, fail context.CancelCauseFunc) (source, error) {
	s, err := etw.Start(SessionName, etw.Provider{
		ID: kernelFileProvider, Level: 4, Keywords: keywordFileIO | keywordDeletePath | keywordRenamePath,
		Events: []uint16{fileCreate, fileCleanup, fileClose, fileRead, fileWrite, fileDelete, fileRename},
	})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, fmt.Errorf("event tracing %w, %w: %w", errUnavailable, errNotHere, err)
	case err != nil:
		return nil, fmt.Errorf("event tracing %w: %w", errUnavailable, err)
	}
	t := w.newTracing(q, fail)
	t.all.Go(func() {
		if err := guard(func() error { return s.Run(t.ctx, t.event) }); err != nil {
			fail(err)
		}
	})
	t.all.Go(func() { t.watchLosses(s, fail) })
	return t, nil
}

// newTracing is the mechanism without a session that gives it events.
func (w *Watcher) newTracing(q *queue, fail context.CancelCauseFunc) *tracing {
	t := &tracing{w: w, q: q, raw: newQueue(w.opts.MaxQueued), stuck: stuck{}, samplers: map[volume.Dev]*sampler{}}
	t.look = t.lookInto
	t.ctx, t.end = context.WithCancel(context.Background())
	t.kernelFiles = newKernelFiles(w.self, t.raw.push, func(n uint64) { q.lose(losses{sought: n}) })
	t.all.Go(func() {
		if err := guard(func() error { t.complete(); return nil }); err != nil {
			fail(err)
		}
	})
	return t
}

func (t *tracing) close() {
	t.end()
	t.all.Wait()
}

// watchLosses tells what the system could not keep for us.
func (t *tracing) watchLosses(s *etw.Session, fail context.CancelCauseFunc) {
	var told uint64
	tick := time.NewTicker(lostPoll)
	defer tick.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return
		case <-tick.C:
		}
		if events, buffers, err := s.Lost(); err == nil && events+buffers > told {
			t.q.lose(losses{sought: events + buffers - told})
			told = events + buffers
		}
		if time.Since(t.began) < silentFor {
			continue
		}
		if why := t.trouble(); why != "" {
			t.w.useless.Store(&why)
			fail(errRetry)
			return
		}
	}
}

// complete asks files for what events do not tell, and hands the records on.
func (t *tracing) complete() {
	var ready []record
	for {
		for _, r := range t.raw.take() {
			if t.ask(&r) {
				ready = append(ready, r)
			}
			if t.raw.done(); len(ready) >= maxAsked {
				ready = t.q.pushAll(ready)
			}
		}
		ready = t.q.pushAll(ready)
		if l := t.raw.tookLost(); l != (losses{}) {
			t.q.lose(l)
		}
		select {
		case <-t.raw.wake:
		case <-t.ctx.Done():
			return
		}
	}
}

// ask asks the file of a record, unless a server would have to answer or nobody wants
// to know. It reports false of what is not to be told. Where a medium does not answer,
// as one that is failing, what events told has to do.
func (t *tracing) ask(r *record) bool {
	if r.stream != "" && r.kind != recWrote && r.kind != recDeleted {
		return false
	}
	if r.want&wantRemote != 0 || r.idle && !r.short { // nearly all that is made on a PC is idle: it is dropped soon
		return !isMark(r.path, r.stream, r.size)
	}
	s := t.samplers[r.dev]
	if s == nil {
		if len(t.samplers) >= maxSamplers {
			clear(t.samplers)
		}
		s = new(sampler)
		t.samplers[r.dev] = s
	}
	x := *r
	tell, err := ask(t.stuck, r.dev, func() (bool, error) { return t.look(&x, s), nil })
	if err != nil {
		return true
	}
	*r = x
	return tell
}

// maxSamplers bounds the volumes whose samplers are kept, of 12 KB each.
const maxSamplers = 64

// lookInto is ask of a file that is to be asked.
func (t *tracing) lookInto(r *record, s *sampler) bool {
	if r.short {
		r.path = winpath.Long(r.path)
	}
	if r.idle {
		return !isMark(r.path, r.stream, r.size)
	}
	h, err := openFacts(r.path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return true
		}
		// A rename that failed leaves a file where it was.
		return r.kind != recOpened && !(r.kind == recRenamed && r.from != "" && there(r.from))
	}
	f, err := factsOf(h, r.dev)
	if name, e := finalName(h); e == nil && strings.EqualFold(name, r.path) {
		r.path = name // programs write names as they like
	}
	windows.CloseHandle(h)
	switch {
	case err != nil:
		return true
	case r.kind == recDeleted:
		return false // it failed, or there is a new one
	case r.kind == recRenamed:
		r.dir = f.mode.IsDir()
		return f.mode.IsRegular() || r.dir
	}
	r.size, r.ino, r.born = f.size, f.id, f.born
	if r.stream != "" {
		r.ino = 0 // that of the file, which is another one
	}
	if !f.mode.IsRegular() || isMark(r.path, r.stream, r.size) {
		return false
	}
	if (r.kind == recWrote || r.kind == recRead) && t.sinceRead() < keepFor && f.attributes&attrElsewhere == 0 {
		if h, err := openFacts(r.path, windows.FILE_READ_DATA); err == nil {
			r.look, _ = s.take(handleReader(h), r.size, r.at)
			windows.CloseHandle(h)
		}
	}
	return true
}

// there reports whether there is a file at a path.
func there(path string) bool {
	h, err := openFacts(path, windows.FILE_READ_ATTRIBUTES)
	if err == nil {
		windows.CloseHandle(h)
	}
	return err == nil
}

// handleReader reads a file by its handle, which it does not own.
type handleReader windows.Handle

func (h handleReader) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		at := uint64(off) + uint64(n)
		o := windows.Overlapped{Offset: uint32(at), OffsetHigh: uint32(at >> 32)}
		var m uint32
		if err := windows.ReadFile(windows.Handle(h), b[n:], &m, &o); err != nil {
			return n, err
		}
		if m == 0 {
			return n, windows.ERROR_HANDLE_EOF
		}
		n += int(m)
	}
	return n, nil
}

// sync watches all shares, media, folders of sync programs and of protected places,
// and what is made new on local disks.
func (t *tracing) sync(all []volume.Volume, p *places) (watching, problems []string) {
	const everything = wantWrites | wantReads | wantNames
	var vols []watchedVolume
	var dirs []watchedFolder
	for i := range all {
		v := &all[i]
		at := strings.TrimSuffix(winpath.Canonical(mountOf(v), nil).Path, `\`)
		switch {
		case v.Hidden:
			continue
		case v.Folder:
			dirs = append(dirs, watchedFolder{at, everything})
			watching = append(watching, mountOf(v))
			continue
		case isMedia(v) || isShare(v):
			watching = append(watching, mountOf(v))
		}
		if !winpath.IsDevice(v.NTName) || slices.ContainsFunc(vols, func(x watchedVolume) bool { return strings.EqualFold(x.nt, v.NTName) }) {
			continue // on a server, a name for a folder, or the second name of one volume
		}
		x := watchedVolume{nt: strings.TrimSuffix(v.NTName, `\`), dos: at, dev: v.Dev}
		switch {
		case isMedia(v):
			x.want = wantWrites | wantNames
		case isShare(v):
			x.want = everything | wantRemote
		case v.Kind == event.VolumeLocal:
			x.want = wantCopies
		}
		vols = append(vols, x)
	}
	bases, problems := p.bases(func(string) bool { return false }) // names tell: nothing is opened
	for _, b := range bases {
		if v, ok := t.w.opts.Table.Lookup(b.path); winpath.Share(b.path) != "" || ok && isRemote(&v) {
			continue // all shares are watched
		}
		x := watchedFolder{b.path, everything}
		if b.alone {
			x.want = wantWrites | wantNames
		}
		dirs = append(dirs, x)
		watching = append(watching, b.path)
	}
	t.watch(vols, dirs) // what is on no volume that is known is not there now
	return watching, problems
}
