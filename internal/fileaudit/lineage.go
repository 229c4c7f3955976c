package fileaudit

import (
	"container/list"
	"path/filepath"
	"time"
	"unicode/utf8"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// Bounds of what is remembered of where data went; in memory only, a restart
// forgets it. Judgements: a day is a working day and the night after it, and
// the counts are some 10 MB when all are full.
const (
	keepFor     = 24 * time.Hour
	maxCarriers = 4096   // files outside watched places that hold something of them
	maxContents = 16384  // sampled contents
	maxWeight   = 65_536 // origins that the carriers, or the contents, hold together
	// maxOrigins bounds the files of which one file is remembered to be made, and
	// sekisho.copy.source_ids and .paths. Beyond it they are counted only.
	maxOrigins = 1000
	// maxPathBytes bounds sekisho.copy.paths of one event, as JSON: an alert holds 20
	// events, and a row of 1 MiB is the longest that goes to the console.
	maxPathBytes = 28 << 10
)

// origin is a file of a watched place that data came from.
type origin struct {
	path  string
	size  int64
	kind  string // of its volume
	share string
	label string // of the protected place
}

// cargo is what a file holds of watched places. It is shared and never changed
// once it is made.
type cargo struct {
	origins   []*origin // distinct, at most maxOrigins
	files     int64     // distinct files, those beyond maxOrigins too
	bytes     int64     // their sizes
	trust     trust     // how sure it is that they are what it holds
	packed    bool      // an archive: the files lie in it
	encrypted event.Opt[bool]
}

// single is the cargo of a file that is itself the origin.
func single(o origin) *cargo {
	return &cargo{origins: []*origin{&o}, files: 1, bytes: max(o.size, 0), trust: high}
}

// lead is the origin that speaks for the whole: of a protected place, else of a
// share, else the first.
func (g *cargo) lead() *origin {
	best := g.origins[0]
	for _, o := range g.origins {
		if o.label != "" {
			return o
		}
		if o.share != "" && best.share == "" {
			best = o
		}
	}
	return best
}

// named returns the origin with that file name, nil if there is none.
func (g *cargo) named(name string) *origin {
	for _, o := range g.origins {
		if filepath.Base(o.path) == name {
			return o
		}
	}
	return nil
}

// ids returns the stable hashes of the origins.
func (g *cargo) ids() []string {
	ids := make([]string, len(g.origins))
	for i, o := range g.origins {
		ids[i] = sourceID(o.path)
	}
	return ids
}

// paths returns the paths of the origins as far as they have room in one event.
func (g *cargo) paths() []string {
	var l pathList
	for _, o := range g.origins {
		l.add(o.path)
	}
	return l.paths
}

// pathList is a list of paths with room for maxOrigins and maxPathBytes.
type pathList struct {
	paths []string
	bytes int
}

func (l *pathList) add(path string) {
	n := 3 + len(path) // with quotes and a comma
	for i := 0; i < len(path); {
		r, size := utf8.DecodeRuneInString(path[i:])
		if r < ' ' || r == '<' || r == '>' || r == '&' || r == '"' || r == '\\' || r == utf8.RuneError {
			n += 5 // escaped
		}
		i += size
	}
	if len(l.paths) < maxOrigins && l.bytes+n <= maxPathBytes {
		l.paths = append(l.paths, path)
		l.bytes += n
	}
}

// union joins cargoes into one of distinct origins. It is nil if there are none.
func union(all []*cargo) *cargo {
	switch {
	case len(all) == 0:
		return nil
	case len(all) == 1:
		return all[0]
	}
	sum := &cargo{trust: leastTrust(all)}
	seen := map[string]bool{}
	for _, g := range all {
		for _, o := range g.origins {
			if seen[o.path] {
				continue
			}
			seen[o.path] = true
			sum.files++
			sum.bytes += max(o.size, 0)
			if len(sum.origins) < maxOrigins {
				sum.origins = append(sum.origins, o)
			}
		}
		sum.files += g.files - int64(len(g.origins)) // counted only, taken as distinct
	}
	for _, g := range all {
		if more := g.files - int64(len(g.origins)); more > 0 {
			var known int64
			for _, o := range g.origins {
				known += max(o.size, 0)
			}
			sum.bytes += max(g.bytes-known, 0)
		}
	}
	return sum
}

// carrier is a file that holds something of watched places.
type carrier struct {
	path  string // where it was when it was written or read
	cargo *cargo
	born  time.Time // when the file was made; zero: unknown
}

// fileKey identifies a file while it exists.
type fileKey struct {
	dev volume.Dev
	ino uint64
}

// content identifies what a file holds, by samples.
type content struct {
	size int64
	sum  uint64
}

// lineage knows which files hold something of watched places. One goroutine owns it.
type lineage struct {
	files    *memory[fileKey]
	contents *memory[content]
}

func newLineage() *lineage {
	return &lineage{newMemory[fileKey](maxCarriers), newMemory[content](maxContents)}
}

// holds is what a file holds of watched places, as far as is known. A disk gives the
// number of a deleted file to a new one, whose time of birth, which programs on Linux
// cannot set, is another one.
func (c *core) holds(r *record, now time.Time) (carrier, bool) {
	x, ok := c.lin.files.get(r.file(), now)
	if ok && c.mech == mechFanotify && !r.born.IsZero() && !x.born.IsZero() && !r.born.Equal(x.born) {
		c.lin.files.drop(r.file())
		return carrier{}, false
	}
	return x, ok
}

// memory remembers carriers: the newest, for a time, and not more than maxWeight
// origins in all.
type memory[K comparable] struct {
	limit  int
	gone   func(K, carrier) // called for what is forgotten; may be nil
	weight int
	at     map[K]*list.Element
	order  *list.List // of *kept[K], oldest first
}

type kept[K comparable] struct {
	key  K
	what carrier
	when time.Time
}

func newMemory[K comparable](limit int) *memory[K] {
	return &memory[K]{limit: limit, at: map[K]*list.Element{}, order: list.New()}
}

func (m *memory[K]) put(key K, c carrier, now time.Time) {
	if e := m.at[key]; e != nil {
		m.weight -= len(m.order.Remove(e).(*kept[K]).what.cargo.origins)
	}
	m.at[key] = m.order.PushBack(&kept[K]{key, c, now})
	m.weight += len(c.cargo.origins)
	for m.order.Len() > m.limit || m.weight > maxWeight && m.order.Len() > 1 {
		m.drop(m.order.Front().Value.(*kept[K]).key)
	}
}

func (m *memory[K]) get(key K, now time.Time) (carrier, bool) {
	e := m.at[key]
	if e == nil {
		return carrier{}, false
	}
	k := e.Value.(*kept[K])
	if now.Sub(k.when) > keepFor {
		m.drop(key)
		return carrier{}, false
	}
	return k.what, true
}

// drop forgets a key and reports whether it was there.
func (m *memory[K]) drop(key K) bool {
	e := m.at[key]
	if e == nil {
		return false
	}
	k := m.order.Remove(e).(*kept[K])
	m.weight -= len(k.what.cargo.origins)
	delete(m.at, key)
	if m.gone != nil {
		m.gone(key, k.what)
	}
	return true
}
