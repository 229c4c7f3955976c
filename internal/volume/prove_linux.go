package volume

import (
	"os"
	"path/filepath"
	"sync/atomic"
)

// waiting is where Run waits for changes.
type waiting struct {
	mounts atomic.Pointer[mountinfo] // nil: it does not run
}

// hurry has Run look now.
func (w *waiting) hurry() {
	if m := w.mounts.Load(); m != nil {
		m.hurry()
	}
}

// agrees reports whether the mounts in the table are those there are, read anew from a
// file of its own.
func (w *Watcher) agrees() bool {
	text, err := os.ReadFile(filepath.Join(w.opt.ProcRoot, "self", "mountinfo"))
	if err != nil {
		return false
	}
	lines, _ := parseMountinfo(string(text))
	believed := map[int]*Volume{}
	all := w.table.All()
	for i := range all {
		if v := &all[i]; v.Reach == "" && !v.Folder {
			believed[v.MountID] = v
		}
	}
	for i := range lines {
		if v := believed[lines[i].ID]; v == nil || !v.sameAs(&lines[i]) {
			return false
		}
	}
	return len(lines) == len(believed)
}
