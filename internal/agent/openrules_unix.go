//go:build unix

package agent

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sekisho/internal/winacl"

	"golang.org/x/sys/unix"
)

// openRules says which rules people may change who are not root. What cannot be
// looked at is for others to complain about.
func openRules(paths []string) (open []string) {
	for _, p := range paths {
		if t := whoChanges(p); t != nil {
			open = append(open, openRulesText(t).EN)
		}
	}
	return open
}

// Bounds of what is looked at: links one after the other (MAXSYMLINKS of the kernel is
// 40), and files below a folder of rules, ten times what SigmaHQ has.
const (
	maxLinks = 40
	maxBelow = 40_000
)

// whoChanges returns who may change a file of rules, or a folder with all below it,
// but root and the account that asks: by owner, mode or access list, its own or that
// of a folder or link on the way there. Nil: nobody.
func whoChanges(path string) *winacl.Trouble {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil
	}
	self := uint32(os.Geteuid())
	path, t := openWay(path, self)
	if t != nil || path == "" {
		return t
	}
	left := maxBelow
	_ = filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if left--; err != nil || left < 0 || t != nil {
			return fs.SkipAll
		}
		if d.Type()&fs.ModeSymlink != 0 {
			if file, t = openWay(file, self); t != nil || file == "" {
				return nil
			}
		}
		if info, err := os.Lstat(file); err == nil {
			t = opener(file, info, self, false)
		}
		return nil
	})
	return t
}

// openWay looks at the folders and links on the way to a file, and returns where
// they lead; "" if nowhere.
func openWay(path string, self uint32) (string, *winacl.Trouble) {
	at, rest, links := "/", strings.TrimPrefix(path, "/"), 0
	for {
		info, err := os.Lstat(at)
		if err != nil {
			return "", nil
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if rest == "" {
				return at, nil // what is there is looked at with all below it
			}
			if t := opener(at, info, self, true); t != nil {
				return "", t
			}
		} else {
			// Its folder was looked at: where everybody may make files of their own, it is
			// its owner who may put another in its place.
			if t := foreign(at, info, self); t != nil && sticky(filepath.Dir(at)) {
				return "", t
			}
			to, err := os.Readlink(at)
			if links++; err != nil || links > maxLinks {
				return "", nil
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(at), to)
			}
			at, rest = "/", strings.TrimPrefix(filepath.Join(to, rest), "/")
			continue
		}
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		at = filepath.Join(at, name)
	}
}

// sticky reports whether in a folder only owners may put something in the place of
// what is there.
func sticky(folder string) bool {
	info, err := os.Lstat(folder)
	return err == nil && info.Mode()&fs.ModeSticky != 0
}

// foreign says whose something is; nil: root's or ours.
func foreign(path string, info fs.FileInfo, self uint32) *winacl.Trouble {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 || st.Uid == self {
		return nil
	}
	return &winacl.Trouble{Path: path, Folder: info.IsDir(), Kind: winacl.Owned, Who: named(fmt.Sprintf("uid %d", st.Uid), func() (string, error) {
		u, err := user.LookupId(fmt.Sprint(st.Uid))
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})}
}

// opener says who may change a file or folder. Of a folder that is only on the way it
// does not matter who may make files of their own there.
func opener(path string, info fs.FileInfo, self uint32, way bool) *winacl.Trouble {
	if t := foreign(path, info, self); t != nil {
		return t
	}
	if way && info.Mode()&fs.ModeSticky != 0 {
		return nil
	}
	who := ""
	switch st, _ := info.Sys().(*syscall.Stat_t); {
	case info.Mode()&0o002 != 0:
		who = everybody
	case info.Mode()&0o020 == 0 || st == nil:
		return nil
	case st.Gid != 0:
		who = "the group " + named(fmt.Sprint(st.Gid), func() (string, error) {
			g, err := user.LookupGroupId(fmt.Sprint(st.Gid))
			if err != nil {
				return "", err
			}
			return g.Name, nil
		})
	case hasAccessList(path): // the mode of the group is the most that the list gives anybody
		who = "somebody named in its access list"
	default:
		return nil
	}
	return &winacl.Trouble{Path: path, Folder: info.IsDir(), Kind: winacl.Writable, Who: who}
}

// hasAccessList reports whether a file has a list (acl(5)) beside its mode.
func hasAccessList(path string) bool {
	n, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return err == nil && n > 0
}

// namedWithin is how long the system may take to find a name: it may ask a directory
// server that is away.
const namedWithin = time.Second

// named is the name of an account, or what it is called otherwise.
func named(otherwise string, lookup func() (string, error)) string {
	found := make(chan string, 1)
	go func() { // not waited for beyond its time
		if name, err := lookup(); err == nil && name != "" {
			found <- name
			return
		}
		found <- otherwise
	}()
	select {
	case name := <-found:
		return name
	case <-time.After(namedWithin):
		return otherwise
	}
}
