package fileaudit

import (
	"path/filepath"
	"strings"
	"time"
)

// copiers are programs whose arguments are sources and, at the end, the target.
var copiers = map[string]bool{"cp": true, "gcp": true, "mv": true, "gmv": true, "install": true, "ginstall": true, "rsync": true, "busybox": true}

// maxSources bounds the arguments looked at for one file.
const maxSources = 256

// fromArguments finds the source of a file in the arguments of the program that
// wrote it, if that is one of copiers: a file of the same size, or for mv one
// that is no longer there.
func (c *core) fromArguments(r *record, now time.Time) *found {
	p := c.procs.of(r.pid, now).proc
	if !copiers[program(p)] || len(p.Args) < 3 {
		return nil
	}
	moved := strings.HasSuffix(p.Name, "mv")
	for _, s := range sourcesOf(p.Args, p.WorkingDirectory, r.path) {
		v, ok := c.w.opts.Table.Lookup(s)
		if !ok || s == r.path {
			continue
		}
		src := &found{path: s, way: byArgumentsOnly, cargo: single(origin{s, r.size, v.Kind, v.Share, c.label(s, v.Share)})}
		if isRemote(&v) {
			return src // not asked: it may not answer
		}
		fi, err := c.stat(&v, s)
		if err == nil && fi.Mode().IsRegular() && fi.Size() == r.size || err != nil && moved {
			if err == nil {
				src.way = byArguments
				dev, ino := identity(fi)
				if x, ok := c.lin.files.get(fileKey{dev, ino}, now); ok {
					src.cargo, src.whole, src.carried = x.cargo, x.cargo.packed, true
				}
			}
			return src
		}
	}
	return nil
}

// sourcesOf returns the paths that a target may be a copy of, by the arguments
// of a copying program, the likeliest first.
func sourcesOf(args []string, cwd, target string) []string {
	abs := func(s string) string {
		if !filepath.IsAbs(s) {
			if cwd == "" {
				return ""
			}
			s = filepath.Join(cwd, s)
		}
		return filepath.Clean(s)
	}
	var named []string
	into := ""
	for i, rest := 1, false; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--" && !rest:
			rest = true
		case !rest && (a == "-t" || a == "--target-directory") && i+1 < len(args):
			i++
			into = abs(args[i])
		case !rest && strings.HasPrefix(a, "--target-directory="):
			into = abs(strings.TrimPrefix(a, "--target-directory="))
		case !rest && strings.HasPrefix(a, "-") && a != "-":
		case a != "":
			named = append(named, a)
		}
	}
	if len(named) > 1 && named[0] == "cp" { // busybox cp
		named = named[1:]
	}
	if into == "" {
		if len(named) < 2 {
			return nil
		}
		into = abs(named[len(named)-1])
		named = named[:len(named)-1]
	}
	rel, err := filepath.Rel(into, target)
	if into == "" || err != nil || strings.HasPrefix(rel, "..") {
		return nil
	}
	first, below, _ := strings.Cut(rel, string(filepath.Separator))
	var exact, maybe []string
	for _, a := range named[:min(len(named), maxSources)] {
		s := abs(a)
		switch {
		case s == "":
		case rel == ".":
			exact = append(exact, s) // cp a b
		case filepath.Base(s) == first:
			exact = append(exact, filepath.Join(s, below)) // cp -r dir target, cp file target
		default:
			maybe = append(maybe, filepath.Join(s, rel)) // cp -r dir/. target, rsync dir/ target; cp -r dir new
		}
	}
	return append(exact, maybe...)
}
