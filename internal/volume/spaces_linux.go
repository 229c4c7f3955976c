package volume

import (
	"bytes"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of looking into other mount namespaces: containers, snaps, services
// with mounts of their own. Judgements: an office PC has some tens.
const (
	maxSpaces    = 64
	maxSpaceText = 1 << 20 // bytes of one namespace's mountinfo
	maxElsewhere = 1024    // mounts taken from them all
)

// Times of looking there.
const (
	// settled is how long a process has been in a namespace that is expected to stay
	// in it: programs that change theirs do so before they do anything else.
	settled = lookElsewhere
	// askAll is how often all processes are asked all the same, and namespaces are
	// read though nothing started.
	askAll = time.Minute
)

// spaces finds the mounts of other mount namespaces. To ask every process each time
// for its namespace, and each namespace for its mounts, would be most of what an idle
// agent costs (0.07 % of a core with 300 processes and 15 namespaces; so, less than half).
// Asked are processes that are new; and where no process or thread has started since
// the last looks nothing is, as it takes one to mount.
type spaces struct {
	proc string

	newest string              // see newestTask; of the last look
	young  bool                // some were new then, and may go elsewhere yet
	asked  time.Time           // when all processes were asked last
	in     map[string]resident // by the name of a process in proc: where it is
	by     map[string]string   // namespace, as its link tells it, to a process in it
	seed   maphash.Seed
	sum    uint64 // of all that was read of the namespaces
	buf    bytes.Buffer
	found  []mountLine
}

// resident is a process in a namespace.
type resident struct {
	space string
	since time.Time // when it was first seen there
	stays bool      // it is not asked again for a while
}

func newSpaces(proc string) *spaces {
	return &spaces{proc: proc, in: map[string]resident{}, by: map[string]string{}, seed: maphash.MakeSeed()}
}

// newestTask returns the id that the system gave last to a process or thread, "" if it
// does not tell. It is the last of the fields "0.20 0.18 0.12 1/80 11206".
func newestTask(proc string) string {
	b, err := readUpTo(filepath.Join(proc, "loadavg"), 256)
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, ' ')+1:]
}

// look returns the mounts of other mount namespaces of file systems with other device
// numbers than those mounted in ours, with how to reach them. Namespaces without a
// process are not found. other: ours are others than at the last look. The result is not
// to be written to.
func (s *spaces) look(newest string, ours map[Dev]bool, other bool, now time.Time) []mountLine {
	all := now.Sub(s.asked) >= askAll
	if !all && !other && newest != "" && newest == s.newest && !s.young && s.stillThere() {
		return s.found
	}
	own, err := os.Readlink(filepath.Join(s.proc, "self", "ns", "mnt"))
	if err != nil {
		return nil
	}
	s.ask(own, newest, all, now)
	sum := s.read(nil)
	if sum == s.sum && !other {
		return s.found
	}
	s.sum, s.found = sum, nil
	known := map[Dev]bool{}
	s.read(func(reach string, text []byte) {
		lines, _ := parseMountinfo(string(text))
		for i := range lines {
			if l := lines[i]; !ours[l.Dev] && !known[l.Dev] && len(s.found) < maxElsewhere {
				known[l.Dev] = true
				// Copies: a line's strings share the text of all lines.
				s.found = append(s.found, mountLine{
					l.ID, l.Parent, l.Dev, strings.Clone(l.Root), strings.Clone(l.Mount), strings.Clone(l.Options),
					strings.Clone(l.Type), strings.Clone(l.Source), strings.Clone(l.Super), reach,
				})
			}
		}
	})
	return s.found
}

// stillThere reports whether the processes that namespaces are read by are in them.
func (s *spaces) stillThere() bool {
	for space, name := range s.by {
		if s.space(name) != space {
			return false
		}
	}
	return true
}

// space returns the namespace of a process, "" if it is gone.
func (s *spaces) space(name string) string {
	to, _ := os.Readlink(filepath.Join(s.proc, name, "ns", "mnt"))
	return to
}

// ask finds out which namespaces there are but our own, and a process in each.
func (s *spaces) ask(own, newest string, all bool, now time.Time) {
	given, ok := given(s.newest, newest)
	s.newest, s.young = newest, false
	if !all && ok && s.stillThere() {
		for name, r := range s.in {
			if !r.stays {
				given = append(given, name)
			}
		}
		for _, name := range given {
			s.enter(name, s.in[name], own, now)
		}
		return
	}
	was := s.in
	s.in, s.by = make(map[string]resident, len(was)), map[string]string{}
	for _, name := range someNames(s.proc, maxProcesses) {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		r := was[name]
		r.stays = r.stays && !all
		s.enter(name, r, own, now)
	}
	if all {
		s.asked = now
	}
}

// given returns the ids that the system gave after one up to another, false if that
// cannot be told or they are many.
func given(after, upTo string) (names []string, ok bool) {
	from, err1 := strconv.Atoi(after)
	to, err2 := strconv.Atoi(upTo)
	if err1 != nil || err2 != nil || to < from || to-from > maxGiven {
		return nil, false
	}
	for id := from + 1; id <= to; id++ {
		names = append(names, strconv.Itoa(id))
	}
	return names, true
}

// maxGiven is up to how many new ids are asked for one by one: listing some hundred
// processes costs as much.
const maxGiven = 64

// enter notes in which namespace a process is; r is what was known of it.
func (s *spaces) enter(name string, r resident, own string, now time.Time) {
	if !r.stays {
		switch to := s.space(name); {
		case to == "":
			delete(s.in, name)
			return
		case to == r.space:
			r.stays = now.Sub(r.since) >= settled
		default:
			r = resident{space: to, since: now}
		}
	}
	s.in[name] = r
	s.young = s.young || !r.stays
	if _, ok := s.by[r.space]; !ok && r.space != own && len(s.by) < maxSpaces {
		s.by[r.space] = name
	}
}

// read reads the mounts of the namespaces in the order of their names, and returns
// their hash. take, if not nil, is given each.
func (s *spaces) read(take func(reach string, text []byte)) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, space := range slices.Sorted(maps.Keys(s.by)) {
		f, err := os.Open(filepath.Join(s.proc, s.by[space], "mountinfo"))
		if err != nil {
			continue
		}
		s.buf.Reset()
		_, _ = s.buf.ReadFrom(io.LimitReader(f, maxSpaceText))
		f.Close()
		reach := filepath.Join(s.proc, s.by[space], "root")
		h.WriteString(reach)
		h.Write(s.buf.Bytes())
		if take != nil {
			take(reach, s.buf.Bytes())
		}
	}
	if s.buf.Cap() > keepText {
		s.buf = bytes.Buffer{}
	}
	return h.Sum64()
}

// keepText is how large a buffer for mountinfo may be that is kept for the next look:
// 1,000 mounts.
const keepText = 128 << 10
