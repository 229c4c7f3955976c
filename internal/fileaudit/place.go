package fileaudit

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Bounds of the folders that are marked for protected places on local disks.
const (
	maxDirs  = 16384 // a mark holds an inode, some 1 KB of kernel memory
	maxDepth = 64
)

// places is the protected places, ready for use; immutable.
type places struct {
	globs  []labelled // of paths, with slashes
	shares []labelled // of shares, lower case, with slashes
}

type labelled struct {
	glob, label string
	base        string // what every path that matches begins with, before the first wildcard
	rest        string // the glob from there on
	alone       bool   // Place.Alone
}

func newPlaces(all []Place) *places {
	p := &places{}
	for _, x := range all {
		for _, g := range x.Globs {
			g = slashed(g)
			base := g
			if i := strings.IndexAny(g, `*?[{\`); i >= 0 {
				base = g[:i]
			}
			p.globs = append(p.globs, labelled{glob: g, label: x.Label, base: base, rest: g[len(base):], alone: x.Alone})
		}
		for _, s := range x.Shares {
			p.shares = append(p.shares, labelled{glob: strings.TrimRight(strings.ToLower(strings.ReplaceAll(s, `\`, "/")), "/"), label: x.Label, alone: x.Alone})
		}
	}
	return p
}

// slashed is a path or pattern with slashes only, which on Windows are the same
// as backslashes, without one at the end.
func slashed(s string) string {
	if filepath.Separator == '\\' {
		s = strings.ToLower(strings.ReplaceAll(s, `\`, "/"))
	}
	if len(s) > 1 {
		s = strings.TrimSuffix(s, "/")
	}
	return s
}

// label is the label of the protected place that a path on a share ("" if it is
// not on one) belongs to, "" if none.
func (p *places) label(file, share string) string {
	if share != "" {
		s := strings.TrimRight(strings.ToLower(strings.ReplaceAll(share, `\`, "/")), "/")
		for _, g := range p.shares {
			if ok, _ := doublestar.Match(g.glob, s); ok {
				return g.label
			}
		}
	}
	if g := p.glob(file); g != nil {
		return g.label
	}
	return ""
}

// glob returns the pattern that a path belongs to, nil if none.
func (p *places) glob(file string) *labelled {
	if len(p.globs) == 0 || file == "" {
		return nil
	}
	file = slashed(file)
	for i := range p.globs {
		g := &p.globs[i]
		if !strings.HasPrefix(file, g.base) {
			continue
		}
		switch {
		case g.rest == "" && g.base != "/" && within(file, g.base), g.rest == "**" && strings.HasSuffix(g.base, "/"):
			return g // most are whole folders
		case g.rest == "":
			continue
		}
		if ok, _ := doublestar.Match(g.glob, file); ok {
			return g
		}
		if ok, _ := doublestar.Match(g.glob+"/**", file); ok {
			return g
		}
	}
	return nil
}

// dirs returns the folders that exist now and in which a file of a protected
// place can lie, and what it could not go through. skip says not to go into a
// folder (one on a share).
func (p *places) dirs(skip func(dir string) bool) (dirs []string, problems []string) {
	return p.walk(&walker{skip: skip})
}

// within reports whether a path is a folder or lies below it.
func within(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || os.IsPathSeparator(rest[0]) || strings.HasSuffix(dir, string(filepath.Separator)))
}

func (p *places) walk(w *walker) (dirs, problems []string) {
	w.seen, w.have = map[string]bool{}, map[string]bool{}
	for _, g := range p.globs {
		base, rest := doublestar.SplitPattern(g.glob)
		if base == "." || base == "/" && strings.HasPrefix(rest, "**") {
			w.problem(fmt.Sprintf("protected place %q: pattern %q names no folder to begin with, reads there are not seen", g.label, g.glob))
			continue
		}
		w.walk(filepath.FromSlash(base), strings.Split(rest, "/"), 0)
	}
	return w.dirs, w.problems
}

type walker struct {
	seen     map[string]bool // folder and what was left of the pattern
	have     map[string]bool
	dirs     []string
	problems []string
	skip     func(string) bool
	ask      func(dir string, question func()) bool // asks the file system of a folder, if not nil, and reports whether it answered; else the question may go on
	found    func(dir string)                       // told of each folder, if not nil
	top      string                                 // if set, only this folder and what is below it is of interest
	full     bool
}

func (w *walker) problem(s string) { w.problems = append(w.problems, s) }

func (w *walker) add(dir string) bool {
	if w.have[dir] || w.top != "" && !within(dir, w.top) {
		return true
	}
	if len(w.dirs) >= maxDirs {
		if !w.full {
			w.full = true
			w.problem(fmt.Sprintf("protected places have more than %d folders, reads in the rest are not seen", maxDirs))
		}
		return false
	}
	w.have[dir] = true
	w.dirs = append(w.dirs, dir)
	if w.found != nil {
		w.found(dir)
	}
	return true
}

// walk adds dir and what is below it as far as the pattern's elements lead.
func (w *walker) walk(dir string, elems []string, depth int) {
	key := dir + "\x00" + strings.Join(elems, "/")
	if depth > maxDepth || w.full || w.seen[key] || w.skip(dir) {
		return
	}
	w.seen[key] = true
	if !w.isDir(dir) {
		return
	}
	sub := func(name string) string { return filepath.Join(dir, name) }
	switch {
	case len(elems) == 0 || len(elems) == 1 && elems[0] == "**":
		// Everything from here on.
		if !w.add(dir) {
			return
		}
		for _, name := range w.folders(dir) {
			w.walk(sub(name), nil, depth+1)
		}
	case elems[0] == "**":
		if !w.add(dir) {
			return
		}
		w.walk(dir, elems[1:], depth)
		for _, name := range w.folders(dir) {
			w.walk(sub(name), elems, depth+1)
		}
	case !strings.ContainsAny(elems[0], `*?[{\`):
		if len(elems) == 1 && !w.isDir(sub(elems[0])) {
			w.add(dir) // a file, or something to come
			return
		}
		w.walk(sub(elems[0]), elems[1:], depth+1)
	default:
		if len(elems) == 1 {
			w.add(dir)
		}
		for _, name := range w.folders(dir) {
			if ok, _ := doublestar.Match(elems[0], path.Base(slashed(sub(name)))); ok {
				w.walk(sub(name), elems[1:], depth+1)
			}
		}
	}
}

// folders lists the folders in a folder that are of interest.
func (w *walker) folders(dir string) []string {
	if w.top != "" && dir != w.top && within(w.top, dir) {
		name, _, _ := strings.Cut(strings.TrimLeft(w.top[len(dir):], string(filepath.Separator)), string(filepath.Separator))
		return []string{name}
	}
	var names []string
	if !w.asked(dir, func() { names = folders(dir) }) {
		return nil
	}
	return names
}

// isDir reports whether there is a folder; a link to one is none.
func (w *walker) isDir(dir string) bool {
	is := false
	return w.asked(dir, func() {
		fi, err := os.Lstat(dir)
		is = err == nil && fi.IsDir()
	}) && is
}

func (w *walker) asked(dir string, question func()) bool {
	if w.ask != nil {
		return w.ask(dir, question)
	}
	question()
	return true
}

// folders lists the folders in a folder, maxDirs at most; links are not followed. A
// folder may hold a million files.
func folders(dir string) (names []string) {
	f, err := openDir(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	for len(names) < maxDirs {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
		if err != nil {
			break
		}
	}
	slices.Sort(names)
	return names
}
