//go:build !windows

package fileaudit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"sekisho/internal/volume"
)

// maxWatches bounds the folders watched by inotify: a user may have 8,192
// watches on small machines (fs.inotify.max_user_watches).
const maxWatches = 8192

// inotify is the mechanism of last resort. Its methods but read run in one goroutine.
type inotify struct {
	w    *Watcher
	q    *queue
	fs   *fsnotify.Watcher
	done chan struct{}
	seen map[string]bool
}

const (
	lesserMech   = mechInotify
	lesserLimits = "no process, no reads, may miss files in fresh folders"
)

func (w *Watcher) newLesser(q *queue, fail context.CancelCauseFunc) (source, error) {
	fsw, err := fsnotify.NewBufferedWatcher(4096)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	n := &inotify{w: w, q: q, fs: fsw, done: make(chan struct{}), seen: map[string]bool{}}
	go func() {
		defer close(n.done)
		if err := guard(func() error { n.read(); return nil }); err != nil {
			fail(err)
		}
	}()
	return n, nil
}

func (n *inotify) close() {
	n.fs.Close()
	<-n.done
}

// read turns notifications into records.
func (n *inotify) read() {
	for {
		select {
		case e, ok := <-n.fs.Events:
			if !ok {
				return
			}
			n.event(e)
		case err, ok := <-n.fs.Errors:
			if !ok {
				return
			}
			n.q.lose(losses{sought: 1})
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				n.q.resync() // folders may have come meanwhile
			}
		}
	}
}

func (n *inotify) event(e fsnotify.Event) {
	r := record{at: time.Now(), path: e.Name, size: -1}
	switch {
	case e.Has(fsnotify.Create), e.Has(fsnotify.Write):
		fi, err := os.Lstat(e.Name)
		switch {
		case err != nil: // gone again; what it was called may be told as renamed
			return
		case fi.IsDir():
			if e.Has(fsnotify.Create) {
				n.fresh(e.Name)
			}
			return
		case !fi.Mode().IsRegular():
			return
		}
		r.size = fi.Size()
		r.dev, r.ino = identity(fi)
		n.q.push(r)
	case e.Has(fsnotify.Remove), e.Has(fsnotify.Rename):
		// What a rename leads to comes as a creation, which counts the file again
		// only if the old name was told before. The old name is forgotten, no more.
		r.kind, r.dir = recDeleted, e.Has(fsnotify.Rename)
		if fi, err := os.Lstat(filepath.Dir(e.Name)); err == nil {
			r.dev, _ = identity(fi)
		}
		n.q.push(r)
	}
}

// fresh tells the files that were put into a folder before it was watched.
func (n *inotify) fresh(dir string) {
	watched := 0
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if d.IsDir() {
			if watched++; watched > maxWatches {
				return filepath.SkipAll
			}
			_ = n.fs.Add(p) // the limit is told by the next sync
			return nil
		}
		if fi, err := d.Info(); err == nil && d.Type().IsRegular() {
			r := record{at: time.Now(), path: p, size: fi.Size()}
			r.dev, r.ino = identity(fi)
			n.q.push(r)
		}
		return nil
	})
}

// follow: it does not tell reads.
func (n *inotify) follow(string, fileKey)   {}
func (n *inotify) unfollow(string, fileKey) {}

// sync watches every folder of media, of sync programs and of protected places.
func (n *inotify) sync(all []volume.Volume, p *places) (watching, problems []string) {
	remote := map[string]bool{}
	want := map[string]bool{}
	for i := range all {
		v := &all[i]
		if isRemote(v) {
			remote[mountOf(v)] = true
		}
		if isRemote(v) || !isMedia(v) && !v.Folder || v.Hidden || v.Reach != "" {
			continue
		}
		root := mountOf(v)
		watching = append(watching, root)
		_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if len(want) >= maxWatches {
				return filepath.SkipAll
			}
			if err == nil && d.IsDir() {
				want[path] = true
			}
			return nil
		})
	}
	dirs, problems := p.dirs(func(dir string) bool { return remote[dir] })
	for _, d := range dirs {
		if len(want) < maxWatches {
			want[d] = true
		}
	}
	if len(want) >= maxWatches {
		problems = append(problems, fmt.Sprintf("more than %d folders, the rest is not watched", maxWatches))
	}
	for d := range n.seen {
		if !want[d] {
			_ = n.fs.Remove(d)
		}
	}
	bad := 0
	for d := range want {
		// Adding what is watched already changes nothing, and heals a folder that was replaced.
		if err := n.fs.Add(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			if bad++; bad == 1 {
				problems = append(problems, fmt.Sprintf("watch %s: %v", d, err))
			}
		}
	}
	n.seen = want
	return append(watching, dirs...), problems
}
