package session

import (
	"strconv"

	"golang.org/x/sys/windows"
)

// login is the session of Windows that a process is in, "" for that of services,
// in which nobody has logged on.
func (w *Watcher) login(pid int) (session, account string) {
	var id uint32
	if windows.ProcessIdToSessionId(uint32(pid), &id) != nil || id == 0 {
		return "", ""
	}
	return strconv.FormatUint(uint64(id), 10), ""
}

// place tells nothing: every process of Windows knows its session. False: it is
// gone, or never was.
func (w *Watcher) place(pid int) (place, bool) {
	var id uint32
	return place{}, windows.ProcessIdToSessionId(uint32(pid), &id) == nil
}
