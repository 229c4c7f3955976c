package procwatch

import (
	"strconv"
	"strings"
	"time"

	"sekisho/internal/winlog"
)

// Windows writes each process that starts into its Security log where the audit policy
// "Process Creation" is on. Where event tracing is refused that tells of the ones that
// live shorter than a look lasts.
const (
	auditLog     = "Security"
	auditProcess = 4688 // "A new process has been created"
)

// auditStart is a start of a process as it is audited.
type auditStart struct {
	at        time.Time
	pid, ppid int
	path      string
	line      string // command line; "" unless a policy has it written
	user      string // SID
	label     string // SID of the integrity level; "" before version 2
	elevation uint32 // TOKEN_ELEVATION_TYPE; 0 if unknown
}

// decodeAudit reads record 4688 of Microsoft-Windows-Security-Auditing, versions 0 to 2
// (MSDN, "4688(S): A new process has been created"). Numbers of processes are in hex.
// The account is Target... where the process has another one than who started it, else
// Subject...; from version 1 on there is CommandLine, from version 2 on Target... and
// MandatoryLabel.
func decodeAudit(e *winlog.Event) (auditStart, bool) {
	pid, ok := hexNumber(e.Get("NewProcessId"))
	if e.ID != auditProcess || !ok || pid == 0 {
		return auditStart{}, false
	}
	s := auditStart{at: e.Time, pid: pid, path: e.Get("NewProcessName"), line: e.Get("CommandLine"), label: e.Get("MandatoryLabel"), user: e.Get("TargetUserSid")}
	s.ppid, _ = hexNumber(e.Get("ProcessId"))
	if s.user == "" || s.user == "S-1-0-0" { // nobody
		s.user = e.Get("SubjectUserSid")
	}
	switch e.Get("TokenElevationType") { // numbers of messages
	case "%%1936":
		s.elevation = 1
	case "%%1937":
		s.elevation = 2
	case "%%1938":
		s.elevation = 3
	}
	if len(s.line) > maxBytes {
		s.line = strings.ToValidUTF8(s.line[:maxBytes], "")
	}
	return s, true
}

// hexNumber reads the number of a process, "0x2bc".
func hexNumber(s string) (int, bool) {
	digits, ok := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(digits, 16, 31)
	return int(n), ok && err == nil
}
