package enrich

import (
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"sekisho/internal/config"
	"sekisho/internal/event"
)

// windows reports whether a path is one of Windows: a drive or two backslashes.
func windows(p string) bool {
	return len(p) >= 2 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z' && (len(p) == 2 || p[2] == '\\' || p[2] == '/') ||
		strings.HasPrefix(p, `\\`)
}

// fold is how paths of Windows and shares compare: lower case, slashes.
func fold(p string) string {
	p = strings.TrimPrefix(p, `\\?\`)
	if rest, ok := strings.CutPrefix(p, `UNC\`); ok {
		p = `\\` + rest
	}
	return strings.ToLower(strings.ReplaceAll(p, `\`, "/"))
}

// A glob matches whole paths. One without a * or other sign stands for a folder
// and what is below it too.
type glob struct {
	pattern string
	head    string // what every match begins with, up to the first sign
	plain   bool
}

func newGlob(pattern string) glob {
	pattern = strings.TrimRight(pattern, "/")
	i := strings.IndexAny(pattern, "*?[{")
	if i < 0 {
		return glob{pattern, pattern, true}
	}
	return glob{pattern, pattern[:i], false}
}

func (g *glob) match(path string) bool {
	if !strings.HasPrefix(path, g.head) {
		return false
	}
	if g.plain {
		return len(path) == len(g.head) || path[len(g.head)] == '/'
	}
	ok, err := doublestar.Match(g.pattern, path)
	return ok && err == nil
}

// pathGlob is a glob for paths of both systems.
type pathGlob struct {
	posix, windows glob
}

func newPathGlob(pattern string) pathGlob {
	return pathGlob{newGlob(strings.ReplaceAll(pattern, `\`, "/")), newGlob(fold(pattern))}
}

// A path as it compares, folded at most once.
type folded struct {
	text    string
	windows bool
}

func foldPath(p string) folded {
	if windows(p) {
		return folded{fold(p), true}
	}
	return folded{p, false}
}

func (g *pathGlob) match(p folded) bool {
	if p.windows {
		return g.windows.match(p.text)
	}
	return g.posix.match(p.text)
}

// place is a protected place.
type place struct {
	label, department, audience string
	paths                       []pathGlob
	shares                      []glob
}

// share is what is known of a network share.
type share struct {
	pattern              glob
	department, audience string
}

// shareFacts is everything the settings say of one share.
type shareFacts struct {
	label                string // of the protected place it belongs to
	department, audience string
}

func newPlaces(c *config.Agent) (ps []place, ss []share) {
	for _, p := range c.Protected {
		x := place{label: p.Label, department: p.Department, audience: p.Audience}
		for _, g := range p.Paths {
			x.paths = append(x.paths, newPathGlob(g))
		}
		for _, g := range p.Shares {
			x.shares = append(x.shares, newGlob(fold(g)))
		}
		ps = append(ps, x)
	}
	for _, s := range c.Shares {
		ss = append(ss, share{newGlob(fold(s.Pattern)), s.Department, s.Audience})
	}
	return ps, ss
}

// maxShares bounds the shares remembered; a PC uses some tens.
const maxShares = 1024

// share looks a share up: the first protected place and the first pattern that
// fit, each remembered, since a PC sees the same few shares over and over.
func (t *tables) share(name string) shareFacts {
	if name == "" {
		return shareFacts{}
	}
	if f, ok := t.shareCache[name]; ok {
		return f
	}
	key := strings.TrimRight(fold(name), "/")
	var f shareFacts
	for i := range t.protected {
		if p := &t.protected[i]; anyMatch(p.shares, key) {
			f = shareFacts{p.label, p.department, p.audience}
			break
		}
	}
	for i := range t.shares {
		if s := &t.shares[i]; s.pattern.match(key) {
			if f.department == "" {
				f.department = s.department
			}
			if f.audience == "" {
				f.audience = s.audience
			}
			break
		}
	}
	if len(t.shareCache) >= maxShares {
		clear(t.shareCache)
	}
	t.shareCache[strings.Clone(name)] = f
	return f
}

func anyMatch(globs []glob, s string) bool {
	for i := range globs {
		if globs[i].match(s) {
			return true
		}
	}
	return false
}

// place is the first protected place a path lies in, nil if none.
func (t *tables) place(path string) *place {
	if path == "" || len(t.protected) == 0 {
		return nil
	}
	p := foldPath(path)
	for i := range t.protected {
		x := &t.protected[i]
		for j := range x.paths {
			if x.paths[j].match(p) {
				return x
			}
		}
	}
	return nil
}

var (
	fFileProtected   = field("sekisho.file.protected")
	fFileAudience    = field("sekisho.file.audience")
	fSourceProtected = field("sekisho.source.protected")
	fSourceDept      = field("sekisho.source.share_department")
)

// places fills in whose files and shares these are.
func (t *tables) places(e *event.Event) {
	if len(t.protected) == 0 && len(t.shares) == 0 {
		return
	}
	if f := e.File; f != nil && (f.Path != "" || f.Share != "") {
		s := t.share(f.Share)
		if p := t.place(f.Path); p != nil {
			fill(e, fFileProtected, &f.Protected, p.label)
			fill(e, fFileAudience, &f.Audience, p.audience)
		}
		fill(e, fFileProtected, &f.Protected, s.label)
		fill(e, fFileAudience, &f.Audience, s.audience)
	}
	if c := e.Copy; c != nil && (c.SourcePath != "" || c.SourceShare != "") {
		s := t.share(c.SourceShare)
		if p := t.place(c.SourcePath); p != nil {
			fill(e, fSourceProtected, &c.SourceProtected, p.label)
			if c.SourceShare != "" {
				fill(e, fSourceDept, &c.SourceShareDepartment, p.department)
			}
		}
		fill(e, fSourceProtected, &c.SourceProtected, s.label)
		fill(e, fSourceDept, &c.SourceShareDepartment, s.department)
	}
}
