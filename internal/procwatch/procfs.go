package procwatch

import (
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
)

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	comm  string // at most 15 bytes, any bytes
	state byte
	ppid  int
	flags uint64
	ticks uint64 // start, in clock ticks since boot
}

// parseStat reads /proc/PID/stat. The name in it may hold blanks, brackets and
// newlines; the last ")" ends it.
func parseStat(b []byte) (stat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, false
	}
	s := stat{comm: string(b[open+1 : end])}
	rest := b[end+1:]
	// state is field 3 of the manual page; the start is field 22.
	for field := 3; field <= 22; field++ {
		rest = bytes.TrimLeft(rest, " ")
		word := rest
		if i := bytes.IndexByte(rest, ' '); i >= 0 {
			word, rest = rest[:i], rest[i:]
		} else {
			rest = nil
		}
		word = bytes.TrimRight(word, "\n")
		if len(word) == 0 {
			return stat{}, false
		}
		var err error
		switch field {
		case 3:
			s.state = word[0]
		case 4:
			s.ppid, err = strconv.Atoi(string(word))
		case 9:
			s.flags, err = strconv.ParseUint(string(word), 10, 64)
		case 22:
			s.ticks, err = strconv.ParseUint(string(word), 10, 64)
		}
		if err != nil {
			return stat{}, false
		}
	}
	return s, s.ppid >= 0
}

// parseUIDs reads the real and the effective user id from /proc/PID/status.
func parseUIDs(b []byte) (realUser, effective uint32, ok bool) {
	_, rest, _ := bytes.Cut(b, []byte("\nUid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 2 {
		return 0, 0, false
	}
	r, err := strconv.ParseUint(string(f[0]), 10, 32)
	e, err2 := strconv.ParseUint(string(f[1]), 10, 32)
	return uint32(r), uint32(e), err == nil && err2 == nil
}

// parseAudit reads /proc/PID/loginuid or sessionid: noID where no login began one.
func parseAudit(b []byte) uint32 {
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return noID
	}
	return uint32(n)
}

// mount is what is used of a line of /proc/PID/mountinfo.
type mount struct{ dev, point, fsType string }

// parseMounts reads /proc/PID/mountinfo (proc_pid_mountinfo(5)); lines that make
// no sense are passed over.
func parseMounts(b []byte) []mount {
	var mounts []mount
	for line := range bytes.Lines(b) {
		head, tail, ok := strings.Cut(string(line), " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 2 {
			continue
		}
		mounts = append(mounts, mount{f[2], unescapeMount(f[4]), g[0]})
	}
	return mounts
}

// unescapeMount resolves the octal escapes of mountinfo ("\040" is a blank).
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

var boots sync.Map // proc root -> boot id

// bootID is the kernel's name for this run of the machine.
func bootID(root string) string {
	if id, ok := boots.Load(root); ok {
		return id.(string)
	}
	b, err := os.ReadFile(path.Join(root, "sys/kernel/random/boot_id"))
	id := string(bytes.TrimSpace(b))
	if err == nil {
		boots.Store(root, id)
	}
	return id
}
