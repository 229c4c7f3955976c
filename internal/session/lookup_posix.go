//go:build !windows

package session

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// login is the session of audit and the account that a process belongs to, "" for
// none.
func (w *Watcher) login(pid int) (audit, uid string) {
	return auditNumber(w.read(pid, "sessionid")), auditNumber(w.read(pid, "loginuid"))
}

// place is where a process is. False: it is gone, as every living process has a
// control group.
func (w *Watcher) place(pid int) (place, bool) {
	group := w.read(pid, "cgroup")
	return placeOf(group), group != ""
}

// read returns a file of a process, "" if it is gone.
func (w *Watcher) read(pid int, name string) string {
	b, _ := os.ReadFile(filepath.Join(w.opt.Proc, strconv.Itoa(pid), name))
	return string(b)
}

// auditNumber reads /proc/PID/sessionid or loginuid: "" where no login set it.
func auditNumber(s string) string {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil || n == 0xffffffff {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// placeOf reads /proc/PID/cgroup for the session of logind whose scope the process
// is in ("session-c2.scope"), else the account whose slice ("user-1000.slice").
func placeOf(text string) place {
	if len(text) > 16<<10 { // twelve lines of a path each; the rest is no matter
		text = text[:16<<10]
	}
	for line := range strings.Lines(text) {
		_, path, ok := strings.Cut(line, ":/user.slice/")
		if !ok {
			continue
		}
		var p place
		for part := range strings.SplitSeq(strings.TrimSuffix(path, "\n"), "/") {
			if id, ok := between(part, "session-", ".scope"); ok && sessionID(id) {
				return place{session: id}
			}
			if id, ok := between(part, "user-", ".slice"); ok && auditNumber(id) != "" {
				p.account = auditNumber(id)
			}
		}
		if p.account != "" {
			return p
		}
	}
	return place{}
}

func between(s, before, after string) (string, bool) {
	s, a := strings.CutPrefix(s, before)
	s, b := strings.CutSuffix(s, after)
	return s, a && b
}

// sessionID reports whether a text is an id as logind gives them: letters and
// digits ("3", "c2").
func sessionID(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
