package fileaudit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"sekisho/internal/volume"
)

// statWait is how long a file system may take to answer; one that takes longer
// is not asked again before it does.
const statWait = time.Second

// seekWait is the same for a look for folders or files, beside the pipeline: a disk that
// wakes up, or is busy, takes seconds.
const seekWait = 15 * time.Second

var errStuck = errors.New("file system does not answer")

// stuck are the file systems that owe an answer, and what is closed with it. One
// goroutine owns it.
type stuck map[volume.Dev]<-chan struct{}

// ask is what a file system answers to a question, which it may never do. A
// question that hangs keeps a goroutine and a thread, so that there is one at
// most for each file system. What it works on is its own: after an error it may
// still run. A panic of it is that of who asks.
func ask[T any](s stuck, dev volume.Dev, question func() (T, error)) (T, error) {
	return askFor(s, dev, statWait, question)
}

// askFor is ask with another time to wait.
func askFor[T any](s stuck, dev volume.Dev, wait time.Duration, question func() (T, error)) (T, error) {
	var none T
	if answered, ok := s[dev]; ok {
		select {
		case <-answered:
			delete(s, dev)
		default:
			return none, errStuck
		}
	}
	var answer T
	var failure error
	var broke any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				broke = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		answer, failure = question()
	}()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-done:
		if broke != nil {
			panic(broke)
		}
		return answer, failure
	case <-t.C:
		s[dev] = done
		return none, errStuck
	}
}

// asked does what the file system of a file may hang at.
func (c *core) asked(id fileKey, do func()) {
	_, _ = ask(c.stuck, id.dev, func() (struct{}, error) { do(); return struct{}{}, nil })
}

// stat is lstat of a path on a volume.
func (c *core) stat(v *volume.Volume, path string) (os.FileInfo, error) {
	return ask(c.stuck, v.Dev, func() (os.FileInfo, error) { return lstat(v.Reach+path, v.Dev) })
}

// maxAsked is how many files a file system is asked about in one question.
const maxAsked = 32

// lookAt asks about files that are due, all those of one file system at once.
func (c *core) lookAt(all []*pending) {
	of := map[volume.Dev][]*pending{}
	var reach map[*pending]string
	for _, p := range all {
		v := c.volumeOf(p.rec.path, p.rec.dev)
		if v == nil || p.rec.path == "" || isRemote(v) || p.info != nil {
			continue
		}
		if v.Reach != "" {
			if reach == nil {
				reach = map[*pending]string{}
			}
			reach[p] = v.Reach
		}
		of[v.Dev] = append(of[v.Dev], p)
	}
	for dev, files := range of {
		for part := range slices.Chunk(files, maxAsked) {
			type answer struct {
				info   os.FileInfo
				failed error
			}
			paths := make([]string, len(part))
			for i, p := range part {
				paths[i] = reach[p] + p.rec.path
			}
			got, err := ask(c.stuck, dev, func() ([]answer, error) {
				got := make([]answer, len(paths))
				for i, path := range paths {
					got[i].info, got[i].failed = lstat(path, dev)
				}
				return got, nil
			})
			for i, p := range part {
				if p.failed = err; err == nil {
					p.info, p.failed = got[i].info, got[i].failed
				}
			}
		}
	}
}

// attached reports whether a volume is there, as far as can be known.
func (c *core) attached(v *volume.Volume) bool {
	there, err := ask(c.stuck, v.Dev, func() (bool, error) { return attached(c.w.opts.SysRoot, v), nil })
	return there && err == nil
}

// mounted reports whether the volume of a record is still where it was.
func (c *core) mounted(v *volume.Volume, r *record) bool {
	fi, err := c.stat(v, filepath.Dir(r.path))
	if err != nil && v.Reach != "" {
		if _, err := c.stat(v, "/"); err != nil {
			return false // the process by way of which it was seen has ended
		}
	}
	if err != nil {
		// The folder may be gone with its files, or the stick with both.
		now, ok := c.w.opts.Table.Lookup(r.path)
		return ok && now.Dev == v.Dev && now.MountID == v.MountID
	}
	dev, _ := identity(fi)
	return dev == r.dev
}

// named is a file with the name that it has.
type named struct {
	name string // "": not found
	size int64
}

// findInode looks in a file's folder for the name that it has now. Of a folder
// that is gone it cannot tell whether it was renamed or deleted: an error.
func (c *core) findInode(v *volume.Volume, r *record) (path string, size int64, err error) {
	dir := filepath.Dir(r.path)
	x, err := ask(c.stuck, v.Dev, func() (named, error) {
		d, err := openDir(v.Reach + dir)
		if err != nil {
			return named{}, err
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
					return named{x.Name(), fi.Size()}, nil
				}
			}
			if err != nil {
				break
			}
		}
		return named{}, nil
	})
	if err != nil || x.name == "" {
		return "", 0, err
	}
	return filepath.Join(dir, x.name), x.size, nil
}
