package volume

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Bounds of looking into other mount namespaces: containers, snaps, services
// with mounts of their own. Judgements: an office PC has some tens.
const (
	maxSpaces    = 64
	maxSpaceText = 1 << 20 // bytes of one namespace's mountinfo
	maxElsewhere = 1024    // mounts taken from them all
)

// elsewhere returns mounts of other mount namespaces, of file systems with other
// device numbers than those mounted in ours, with how to reach them. Namespaces without a process are
// not found.
func elsewhere(proc string, ours map[Dev]bool) (found []mountLine) {
	known := map[Dev]bool{}
	own, err := os.Readlink(filepath.Join(proc, "self", "ns", "mnt"))
	if err != nil {
		return nil
	}
	seen := map[string]bool{own: true}
	d, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		ns, err := os.Readlink(filepath.Join(proc, name, "ns", "mnt"))
		if err != nil || seen[ns] {
			continue
		}
		if len(seen) > maxSpaces {
			break
		}
		seen[ns] = true
		f, err := os.Open(filepath.Join(proc, name, "mountinfo"))
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(io.LimitReader(f, maxSpaceText))
		f.Close()
		lines, _ := parseMountinfo(string(text))
		for i := range lines {
			if l := lines[i]; !ours[l.Dev] && !known[l.Dev] && len(found) < maxElsewhere {
				known[l.Dev] = true
				// Copies: a line's strings share the text of all lines.
				found = append(found, mountLine{
					l.ID, l.Parent, l.Dev, strings.Clone(l.Root), strings.Clone(l.Mount), strings.Clone(l.Options),
					strings.Clone(l.Type), strings.Clone(l.Source), strings.Clone(l.Super), filepath.Join(proc, name, "root"),
				})
			}
		}
	}
	return found
}
