package volume

import (
	"strconv"
	"strings"
)

// mountLine is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). Its
// strings may share memory with the text they were read from.
type mountLine struct {
	ID, Parent  int
	Dev         Dev
	Root, Mount string
	Options     string // of the mount: "rw,nosuid,relatime"
	Type        string // "ext4", "fuse.sshfs"
	Source      string // "/dev/sda1", "//server/share", anything with no device
	Super       string // options of the file system
	reach       string // of a mount of another namespace: where its root is seen, "/proc/PID/root"
}

// readOnly reports whether nothing can be written through the mount.
func (l *mountLine) readOnly() bool { return hasOption(l.Options, "ro") || hasOption(l.Super, "ro") }

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// option returns the value of "name=value" in a list of options.
func option(list, name string) string {
	for o := range strings.SplitSeq(list, ",") {
		if k, v, ok := strings.Cut(o, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// parseMountinfo reads mountinfo. Lines that are not of its form are left out
// and counted.
func parseMountinfo(text string) (lines []mountLine, bad int) {
	lines = make([]mountLine, 0, strings.Count(text, "\n"))
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if l, ok := parseMountLine(line); ok {
			lines = append(lines, l)
		} else {
			bad++
		}
	}
	return lines, bad
}

// parseMountLine reads "36 35 98:0 /root /mount rw,noatime shared:1 - ext3
// /dev/sda1 rw,errors=continue". Fields are separated by one blank; blanks
// within them are written as octal.
func parseMountLine(s string) (l mountLine, ok bool) {
	next := func() string {
		var f string
		f, s, _ = strings.Cut(s, " ")
		return f
	}
	var err1, err2, err3, err4 error
	l.ID, err1 = strconv.Atoi(next())
	l.Parent, err2 = strconv.Atoi(next())
	major, minor, _ := strings.Cut(next(), ":")
	maj, err3 := strconv.ParseUint(major, 10, 32)
	min, err4 := strconv.ParseUint(minor, 10, 32)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || l.ID < 0 || l.Parent < 0 {
		return mountLine{}, false
	}
	l.Dev = Dev{uint32(maj), uint32(min)}
	l.Root, l.Mount, l.Options = unescape(next()), unescape(next()), next()
	if !strings.HasPrefix(l.Mount, "/") { // "(unreachable)..." of a root that is not ours
		return mountLine{}, false
	}
	for tag := next(); tag != "-"; tag = next() { // propagation, of no use here
		if s == "" {
			return mountLine{}, false
		}
	}
	l.Type, l.Source, l.Super = unescape(next()), unescape(next()), s
	return l, l.Type != ""
}

// unescape undoes what the kernel's mangle() does: \ooo for blank, tab, newline,
// backslash and '#'.
func unescape(s string) string {
	i := strings.IndexByte(s, '\\')
	if i < 0 {
		return s
	}
	b := []byte(s[:i])
	for i < len(s) {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(n))
				i += 4
				continue
			}
		}
		b = append(b, s[i])
		i++
	}
	return string(b)
}

// hiddenMounts returns, for each line, whether another mount lies over it, so
// that its mount point shows something else. It takes time in proportion to the
// number of lines and the length of their paths.
func hiddenMounts(lines []mountLine) []bool {
	byID := make(map[int]int, len(lines))
	for i := range lines {
		byID[lines[i].ID] = i
	}
	children := make(map[int][]int, len(lines)) // parent's index to indices
	var stack []int
	for i := range lines {
		if p, ok := byID[lines[i].Parent]; ok && p != i {
			children[p] = append(children[p], i)
		} else {
			stack = append(stack, i) // the root of what we see
		}
	}
	hidden := make([]bool, len(lines))
	for i := range hidden {
		hidden[i] = true // until it is reached from the root
	}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		// What is mounted on i: the last at each place counts.
		at := make(map[string]int, len(children[i]))
		for _, c := range children[i] {
			at[lines[c].Mount] = c
		}
		if over, ok := at[lines[i].Mount]; ok { // all of i is covered
			stack = append(stack, over)
			continue
		}
		hidden[i] = false
		for mount, c := range at {
			if !covered(mount, lines[i].Mount, at) {
				stack = append(stack, c)
			}
		}
	}
	return hidden
}

// covered reports whether a folder between top and mount is in at, so that mount
// lies below another mount that came later.
func covered(mount, top string, at map[string]int) bool {
	for {
		i := strings.LastIndexByte(mount, '/')
		if i <= 0 || i <= len(top) && top != "/" {
			return false
		}
		mount = mount[:i]
		if _, ok := at[mount]; ok {
			return true
		}
	}
}
