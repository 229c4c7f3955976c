package fileaudit

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// told reports whether it is worth an event that this came to a volume and the
// place of that label: not so within one place, nor from one local file without
// a label to another.
func (f *found) told(v *volume.Volume, label string) bool {
	if f.made || isMedia(v) {
		return true
	}
	lead := f.cargo.lead()
	if label != "" || v.Share != "" {
		return lead.label != label || lead.share != v.Share
	}
	return !f.carried || lead.label != ""
}

// sourceOf is what a file is a copy of as far as reads and contents tell, nil if
// nothing known.
func (c *core) sourceOf(r *record, watched bool, now time.Time) *found {
	f := written{path: r.path, name: filepath.Base(r.path), size: r.size}
	if r.look.size == r.size {
		f.sum = r.look.sum
	}
	if r.pid != 0 && !c.reads.empty(now) {
		w := c.procs.who(r.pid, now)
		p := c.packer(w, now)
		if p != nil && r.look.archive {
			if src := c.packedOf(r, w, p, now); src != nil {
				return src
			}
		}
		x, k := r.source, itself
		if x == nil || x.name != f.name {
			x, k = c.reads.find(w, f, now)
		}
		if x != nil {
			return &found{cargo: x.cargo, path: x.path, way: wayOf(x, f, k), whole: x.cargo.packed, carried: x.carried}
		}
		if me := c.procs.of(r.pid, now).proc; p == nil && r.look.archive && !movers[program(me)] && (watched || archiveNames[extension(f.name)]) {
			p = me
		}
		if p != nil {
			if src := c.packedOf(r, w, p, now); src != nil {
				return src
			}
		}
	}
	if f.sum == 0 || f.size < minSize {
		return nil
	}
	if x, ok := c.lin.contents.get(content{f.size, f.sum}, now); ok && x.path != r.path {
		return &found{cargo: x.cargo, path: x.path, way: byLook(f.size), whole: x.cargo.packed, carried: x.path != x.cargo.lead().path}
	}
	return nil
}

// packer is the program of packers that a process runs, or for a shell, which
// opens and closes what a program writes by redirection, that of a child or of
// its parent (tar runs gzip so); nil if there is none.
func (c *core) packer(w who, now time.Time) *event.Process {
	p := c.procs.of(w.pid, now).proc
	switch {
	case packers[program(p)]:
		return p
	case shells[program(p)]:
		for _, pid := range append(c.reads.children(w.pid), w.ppid) {
			if p := c.procs.of(pid, now).proc; packers[program(p)] {
				return p
			}
		}
	}
	return nil
}

// packedOf is what went into a file that a program made of what it read: an
// archive of it, parts, a whole of several, or what it took out of an archive.
func (c *core) packedOf(r *record, w who, p *event.Process, now time.Time) *found {
	born := r.born
	if born.IsZero() || born.After(r.at) {
		born = r.at
	}
	// It may be read first and written then; and the queue with the reads may lag.
	since, until := born.Add(-readFor), r.at.Add(lateFor)
	shell := shells[program(c.procs.of(w.pid, now).proc)]
	if shell { // what other children read for other files is none of it
		since, until = born, r.at.Add(lagFor)
	}
	g, last := c.reads.packed(w, r.path, since, until)
	if g == nil || shell && !r.look.archive && r.size != g.bytes {
		return nil
	}
	name := filepath.Base(r.path)
	src := &found{cargo: g, way: byReadingParts, whole: program(p) == "cat", path: last.path, carried: last.carried}
	switch {
	case r.look.archive || r.look.sum == 0 && archiveNames[extension(name)]:
		made := *g
		made.packed, made.encrypted = true, r.look.encrypted
		if x := encrypts(p.Name, p.Args); x.OK && !made.encrypted.V {
			made.encrypted = x
		}
		src.cargo, src.path, src.made, src.whole, src.way = &made, g.lead().path, true, true, byPackingOther
		if packers[program(p)] {
			src.way = byPacking
		}
	case src.whole:
		src.path = g.lead().path
	case g.packed:
		src.way = byPacking
		if o := g.named(name); o != nil {
			src.cargo = single(*o).at(g.trust)
		}
	}
	return src
}

// carry remembers what a file holds.
func (c *core) carry(r *record, src *found, watched bool, now time.Time) {
	x := carrier{r.path, src.cargo.at(src.trust()), r.born}
	if r.look.sum != 0 && r.look.size >= minSize {
		c.lin.contents.put(content{r.look.size, r.look.sum}, x, now)
	}
	if r.ino == 0 || r.path == "" {
		return
	}
	id := r.file()
	c.lin.files.put(id, x, now)
	if !watched { // else its reads are told anyway
		c.asked(id, func() { c.src.follow(r.path, id) })
	}
}

// copyOf tells of a copy where it is from. Without a source that may be told it
// has a hash of the file's name and size for an id.
func (c *core) copyOf(r *record, name string, src *found, told bool) *event.Copy {
	one := &event.Copy{Files: event.Some[int64](1), Bytes: event.Some(max(r.size, 0)), ArchiveEncrypted: encryptedOf(&r.look)}
	if !told {
		one.SourceIDs = []string{sourceID(name + "\x00" + strconv.FormatInt(r.size, 10))}
		return one
	}
	g := src.cargo
	lead := g.lead()
	one.SourcePath, one.Evidence, one.Confidence = src.path, src.evidence(), src.trust().String()
	one.SourceVolumeKind, one.SourceShare, one.SourceProtected = lead.kind, lead.share, lead.label
	one.SourceIDs = []string{sourceID(lead.path)}
	if src.whole {
		one.Files, one.Bytes, one.SourceIDs = event.Some(g.files), event.Some(g.bytes), g.ids()
		one.Paths = g.paths()
	}
	if g.packed && g.encrypted.OK {
		one.ArchiveEncrypted = g.encrypted
	}
	return one
}

// encryptedOf is whether an archive is encrypted, absent for other files.
func encryptedOf(s *sample) event.Opt[bool] {
	if !s.archive {
		return event.Opt[bool]{}
	}
	return s.encrypted
}

func extension(name string) string {
	return strings.ToLower(strings.TrimPrefix(filepath.Ext(shownName(name)), "."))
}

func (c *core) whyNoProcess(r *record) string {
	if r.found {
		return "found by looking after a loss"
	}
	return c.mech + " does not tell it"
}

// sourceID is a stable hash of where something came from.
func sourceID(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:8])
}
