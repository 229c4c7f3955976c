package volume

import (
	"os"
	"path/filepath"
	"sync/atomic"
)

// proving is how the sensor is asked to prove that it sees.
type proving struct {
	proofs chan string               // the nonces asked for
	mounts atomic.Pointer[mountinfo] // what Run waits for; nil: it does not run
}

func newProving() *proving { return &proving{proofs: make(chan string, 1)} }

// Prove asks the sensor, if it runs, to prove that what it believes to be mounted is
// what is: as soon as that holds it tells [event.Proof] with the nonce. (Nothing can be
// mounted for that without touching the PC.) It does not wait.
func (w *Watcher) Prove(nonce string) error {
	select {
	case w.proofs <- nonce:
	default: // it still owes the one before
	}
	if m := w.mounts.Load(); m != nil {
		m.hurry()
	}
	return nil
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
