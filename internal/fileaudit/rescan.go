package fileaudit

import (
	"context"
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
type rescan struct {
	q     *queue
	since time.Time
	media []volume.Volume
	dirs  func() []string // folders of protected places on local disks
	done  chan struct{}   // closed when it is over
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
	s := &rescan{q: c.q, since: since.Round(0).Add(-3 * time.Second), done: make(chan struct{})}
	c.since, c.scan, c.scanAgain = time.Now(), s, false
	remote := map[string]bool{}
	for i := range c.vols {
		switch v := &c.vols[i]; {
		case isRemote(v):
			remote[mountOf(v)] = true
		case isMedia(v) && !v.Hidden:
			s.media = append(s.media, *v)
		}
	}
	// Of protected places on local disks, what was written; not what was read, and
	// not on shares, whose servers are not asked for all they have.
	place := c.place
	s.dirs = func() []string {
		dirs, _ := place.dirs(func(dir string) bool { return remote[dir] || winpath.Share(dir) != "" })
		return dirs
	}
	go func() {
		defer close(s.done)
		_ = guard(func() error { s.run(ctx); return nil })
	}()
}

func (s *rescan) run(ctx context.Context) {
	for i := range s.media {
		s.volume(ctx, &s.media[i])
	}
	for _, dir := range s.dirs() {
		s.folder(ctx, dir)
	}
}

// volume finds files on a medium.
func (s *rescan) volume(ctx context.Context, v *volume.Volume) {
	seen := 0
	_ = filepath.WalkDir(reachOf(v), func(p string, d fs.DirEntry, err error) error {
		if seen++; seen > rescanLimit || ctx.Err() != nil {
			return fs.SkipAll
		}
		if err == nil { // what cannot be read is left out: this is a second look
			s.file(ctx, p, v.Reach, d, v.Dev)
		}
		return nil
	})
}

// folder finds files in a folder, not below.
func (s *rescan) folder(ctx context.Context, dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	for seen := 0; seen < rescanLimit && ctx.Err() == nil; {
		entries, err := f.ReadDir(256)
		for _, d := range entries {
			s.file(ctx, filepath.Join(dir, d.Name()), "", d, volume.Dev{})
		}
		if seen += len(entries); err != nil {
			return
		}
	}
}

// file tells a file that was written since, if it lies on that device (the zero
// one: any).
func (s *rescan) file(ctx context.Context, p, reach string, d fs.DirEntry, at volume.Dev) {
	if !d.Type().IsRegular() {
		return
	}
	fi, err := d.Info()
	if err != nil || changeTime(fi).Before(s.since) {
		return
	}
	if fi, err = lstat(p, at); err != nil { // what a folder says is not all on Windows
		return
	}
	if dev, ino := identity(fi); at == (volume.Dev{}) || dev == at {
		s.q.offer(ctx, record{kind: recWrote, at: time.Now(), path: properName(strings.TrimPrefix(p, reach)), size: fi.Size(), dev: dev, ino: ino, changed: true, found: true})
	}
}
