package fileaudit

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// rescanLimit bounds the files looked at on a volume after a loss.
const rescanLimit = 100_000

// rescan looks for what was written while records were lost. It runs beside the
// pipeline, which a disk that is slow or hangs must not stop; nobody waits for it.
// A disk that hangs is left out, and told.
type rescan struct {
	q     *queue
	since time.Time
	media []volume.Volume
	place *places
	table Volumes
	wait  time.Duration   // for an answer
	skip  map[string]bool // mount points: what lies below is another file system
	far   map[string]bool // those that are not asked
	stuck stuck
	dead  map[string]<-chan struct{} // mounts that did not answer; closed when they have
	done  chan struct{}              // closed when it is over
}

// rescanNow begins to look for what was written since nothing was lost, or has
// it done after the look that goes on.
func (c *core) rescanNow(ctx context.Context) {
	if c.scan != nil {
		c.scanAgain = true
		return
	}
	// File systems keep times to 2 s. A clock that was set since makes either of
	// two moments the earlier one.
	since := c.since
	if t := time.Now().Add(-time.Since(c.since)); t.Before(since) {
		since = t
	}
	s := &rescan{
		q: c.q, since: since.Round(0).Add(-3 * time.Second), place: c.place, table: c.w.opts.Table, wait: c.wait,
		skip: map[string]bool{}, far: map[string]bool{}, stuck: stuck{}, dead: map[string]<-chan struct{}{}, done: make(chan struct{}),
	}
	c.since, c.scan, c.scanAgain = time.Now(), s, false
	for i := range c.vols {
		v := &c.vols[i]
		if !v.Folder {
			s.skip[reachOf(v)] = true
		}
		switch {
		case isRemote(v):
			s.far[mountOf(v)] = true
		case isMedia(v) && !v.Hidden:
			s.media = append(s.media, *v)
		}
	}
	go func() {
		defer close(s.done)
		_ = guard(func() error { s.run(ctx); return nil })
	}()
}

// scanned ends a look, and has what hindered it told, until it is over.
func (c *core) scanned(ctx context.Context) {
	c.unsought = c.scan.dead
	if c.scan = nil; len(c.unsought) > 0 {
		for _, answered := range c.unsought {
			go func() { // ends with the question
				<-answered
				c.q.resync()
			}()
		}
		c.sync(ctx)
	}
	if c.scanAgain {
		c.rescanNow(ctx)
	}
}

// run looks on media, and of protected places on local disks for what was written;
// not for what was read, and not on shares, whose servers are not asked for all they have.
func (s *rescan) run(ctx context.Context) {
	for i := range s.media {
		s.volume(ctx, &s.media[i])
	}
	w := &walker{skip: func(dir string) bool { return ctx.Err() != nil || s.far[dir] || winpath.Share(dir) != "" }}
	w.ask = func(dir string, question func()) bool {
		v := s.lies(dir)
		_, ok := rescanAsk(s, &v, func() (struct{}, error) { question(); return struct{}{}, nil })
		return ok
	}
	dirs, _ := s.place.walk(w)
	for _, dir := range dirs {
		v := s.lies(dir)
		for f := s.open(&v, dir); f != nil && ctx.Err() == nil; {
			if _, more := s.part(ctx, &v, f, dir, volume.Dev{}); !more {
				f.Close()
				break
			}
		}
	}
}

// lies is the volume that a folder lies on.
func (s *rescan) lies(dir string) volume.Volume {
	v, ok := s.table.Lookup(dir)
	if !ok {
		v.Mount = string(filepath.Separator)
	}
	return v
}

// rescanAsk asks the file system of a volume, unless it did not answer before.
func rescanAsk[T any](s *rescan, v *volume.Volume, question func() (T, error)) (answer T, ok bool) {
	at := mountOf(v)
	if s.dead[at] != nil {
		return answer, false
	}
	answer, err := askFor(s.stuck, v.Dev, s.wait, question)
	if errors.Is(err, errStuck) {
		s.dead[at] = s.stuck[v.Dev]
	}
	return answer, err == nil
}

// open opens a folder, nil if it cannot.
func (s *rescan) open(v *volume.Volume, dir string) *os.File {
	f, _ := rescanAsk(s, v, func() (*os.File, error) { return openDir(dir) })
	return f
}

// volume finds files on a medium.
func (s *rescan) volume(ctx context.Context, v *volume.Volume) {
	todo := []string{reachOf(v)}
	for left := rescanLimit; len(todo) > 0 && left > 0 && ctx.Err() == nil; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		f := s.open(v, dir)
		if f == nil { // what cannot be read is left out: this is a second look
			continue
		}
		for more := true; more && left > 0 && ctx.Err() == nil; left -= rescanPart {
			var below []string
			below, more = s.part(ctx, v, f, dir, v.Dev)
			todo = append(todo, below...)
		}
		f.Close()
	}
}

// rescanPart is how many files of a folder are looked at in one question.
const rescanPart = 256

// part tells some of the files of a folder that were written since, those on that
// device (the zero one: any), and returns the folders among them and whether there may
// be more.
func (s *rescan) part(ctx context.Context, v *volume.Volume, f *os.File, dir string, at volume.Dev) (below []string, more bool) {
	type found struct {
		files   []record
		folders []string
		more    bool
	}
	x, ok := rescanAsk(s, v, func() (x found, _ error) {
		entries, err := f.ReadDir(rescanPart)
		for _, d := range entries {
			p := filepath.Join(dir, d.Name())
			if d.IsDir() && !s.skip[p] {
				x.folders = append(x.folders, p)
			} else if r, ok := s.file(p, v.Reach, d, at); ok {
				x.files = append(x.files, r)
			}
		}
		x.more = err == nil
		return x, nil
	})
	if !ok {
		return nil, false
	}
	for _, r := range x.files {
		s.q.offer(ctx, r)
	}
	return x.folders, x.more
}

// file is the record of a file that was written since, if it lies on that device (the
// zero one: any).
func (s *rescan) file(p, reach string, d fs.DirEntry, at volume.Dev) (r record, ok bool) {
	if !d.Type().IsRegular() {
		return r, false
	}
	fi, err := d.Info()
	if err != nil || changeTime(fi).Before(s.since) {
		return r, false
	}
	if fi, err = lstat(p, at); err != nil { // what a folder says is not all on Windows
		return r, false
	}
	dev, ino := identity(fi)
	return record{kind: recWrote, at: time.Now(), path: properName(strings.TrimPrefix(p, reach)), size: fi.Size(), dev: dev, ino: ino, found: true}, at == (volume.Dev{}) || dev == at
}
