package volume

import (
	"context"
	"path"
	"strings"
	"time"

	"sekisho/internal/event"
)

// cloudFolder is the beginning of the message of a folder that came.
const cloudFolder = "folder that a program keeps in step with "

// change is a volume that came or went.
type change struct {
	Volume
	message string
	errs    []string
}

// update takes over mounts, replaces the table and returns what went, and what
// came. others are mounts of other namespaces; of these only what is told is
// kept. size asks a file system for its size in bytes.
func (w *Watcher) update(lines, others []mountLine, b *blocks, size func(mount string) (int64, error)) (gone, come []change) {
	hidden := append(hiddenMounts(lines), make([]bool, len(others))...)
	lines = append(lines, others...)
	b.forget()
	old := w.table.All()
	was := make(map[int]int, len(old)) // mount id to index in old
	folders := map[string]int{}        // path to the same
	for i := range old {
		was[old[i].MountID] = i
		if old[i].Folder {
			folders[old[i].Mount] = i
		}
	}

	type lying struct {
		volume int
		in     []string
	}
	var stacked []lying
	all := make([]Volume, len(lines), len(lines)+len(w.clouds))
	fresh := map[int]*change{} // index in all to what is new there
	told := func(i int) bool { return all[i].Reach == "" || all[i].Told() }
	for i := range lines {
		l := &lines[i]
		if j, ok := was[l.ID]; ok && old[j].sameAs(l) {
			all[i] = old[j]
			if writable := event.Some(!l.readOnly()); all[i].Writable != writable {
				all[i].Writable = writable
				if writable.V { // what could only be read from can be copied to now
					fresh[i] = &change{message: "remounted writable"}
				}
			}
			delete(was, l.ID)
		} else {
			v, beneath, errs := b.describe(l)
			all[i] = v
			if len(beneath) > 0 {
				stacked = append(stacked, lying{i, beneath})
			}
			fresh[i] = &change{errs: errs}
		}
		all[i].Hidden = hidden[i]
		all[i].ParentID, all[i].Reach = l.Parent, l.reach
		if declared(l.Mount, w.opt.RemovablePaths) {
			all[i].Kind, all[i].Removable = event.VolumeRemovable, event.Some(true)
		}
	}
	next := newMounts(all)
	for _, s := range stacked { // a mount comes after the one it lies in
		for _, file := range s.in {
			if j, ok := next.lookup(file); ok && j != s.volume && strings.HasPrefix(file, "/") {
				all[s.volume].inherit(&all[j])
			}
		}
	}
	for _, f := range w.clouds {
		disk, ok := next.lookup(f.path)
		if !ok {
			continue
		}
		v := folder(f, &all[disk])
		if j, ok := folders[f.path]; ok {
			v.MountID = old[j].MountID
			delete(was, v.MountID)
		} else {
			w.madeUp--
			v.MountID = w.madeUp
			fresh[len(all)] = &change{message: cloudFolder + f.provider}
		}
		all = append(all, v)
	}
	begin := time.Now() // servers that are dead all come at once, and a stick's mount waits behind them
	for i := range all {
		c := fresh[i]
		if c == nil || !all[i].Told() {
			continue
		}
		if all[i].Folder {
			// Its disk's size is not its own.
		} else if all[i].Hidden { // its mount point shows another one
		} else if time.Since(begin) > 2*w.opt.StatTimeout {
			c.errs = append(c.errs, "ask size of "+all[i].Mount+": not asked, as others did not answer in time")
		} else if n, err := size(all[i].Reach + all[i].Mount); err != nil {
			c.errs = append(c.errs, "ask size of "+all[i].Mount+": "+err.Error())
		} else {
			all[i].Size = event.Some(n)
		}
		c.Volume = all[i]
		come = append(come, *c)
	}
	for i := range old { // in its order
		if j, ok := was[old[i].MountID]; ok && j == i && old[i].Told() {
			gone = append(gone, change{Volume: old[i]})
		}
	}
	kept := all[:0]
	for i := range all {
		if told(i) {
			kept = append(kept, all[i])
		}
	}
	w.table.set(newMounts(kept))
	return gone, come
}

// folder is the volume of a folder on a disk that is kept in step with a cloud.
func folder(f cloud, disk *Volume) Volume {
	v := Volume{ParentID: disk.MountID, Dev: disk.Dev, Mount: f.path, Root: "/", Folder: true}
	v.MountName, v.FileSystemType, v.Kind, v.Share = f.path, disk.FileSystemType, event.VolumeCloudSync, f.provider
	v.Writable, v.Encrypted = disk.Writable, disk.Encrypted
	return v
}

// sameAs reports whether a line is the mount that the volume is. Mount ids are
// used again.
func (v *Volume) sameAs(l *mountLine) bool {
	return v.MountID == l.ID && v.Dev == l.Dev && v.Mount == l.Mount && v.Root == l.Root && v.FileSystemType == l.Type &&
		(v.DeviceName == l.Source || v.DeviceName == "" && l.Source == "none")
}

// declared reports whether a mount point is one of paths or below one.
func declared(mount string, paths []string) bool {
	for _, p := range paths {
		p = path.Clean(p)
		if mount == p || p == "/" || strings.HasPrefix(mount, p) && mount[len(p)] == '/' {
			return true
		}
	}
	return false
}

// tell sends the events of changes.
func (w *Watcher) tell(ctx context.Context, out chan<- *event.Event, mechanism, message string, gone, come []change) {
	now := time.Now()
	for _, c := range gone {
		w.tellOne(ctx, out, event.VolumeUnmounted, now, mechanism, "", c)
	}
	for _, c := range come {
		w.tellOne(ctx, out, event.VolumeMounted, now, mechanism, message, c)
	}
}

func (w *Watcher) tellOne(ctx context.Context, out chan<- *event.Event, a event.Action, at time.Time, mechanism, message string, c change) {
	e := event.New(a, at)
	e.Sensor, e.Message, e.Errors, e.Volume = mechanism, message, c.errs, c.facts()
	if c.message != "" {
		e.Message = c.message
	}
	if c.ServedBy != 0 {
		if a == event.VolumeMounted {
			w.servers[c.MountID] = serverOf(w.opt.ProcRoot, c.ServedBy)
		}
		s := w.servers[c.MountID]
		e.Process, e.User = s.process, s.user
		if a == event.VolumeUnmounted {
			delete(w.servers, c.MountID)
		}
	}
	w.send(ctx, out, e)
}
