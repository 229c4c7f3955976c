package agent

import "time"

// What the agent is as a service. Windows gets all of it from the installer
// (packaging/windows), from `service install`, and again at every start.
const (
	// ServiceName is the name of the Windows service and of the systemd unit.
	ServiceName = "sekisho-agent"
	// EventSource is who the agent is in Windows' log "Application".
	EventSource = "Sekisho Agent"
	// ServiceResetAfter is how long it must have run until its failures are counted
	// afresh.
	ServiceResetAfter = 24 * time.Hour
)

// ServiceRestarts are the pauses before it is started again after its first, second
// and every further failure.
var ServiceRestarts = []time.Duration{5 * time.Second, 30 * time.Second, 60 * time.Second}

// ServicePrivileges are what the service's account keeps of those that LocalSystem
// has (it has nearly all). That it may start ETW sessions, write its folder and read
// most files is a matter of access lists, not of privileges.
var ServicePrivileges = []string{
	"SeChangeNotifyPrivilege",  // paths through folders that may not be listed; every process has it
	"SeDebugPrivilege",         // command lines and modules of processes that keep others out
	"SeTcbPrivilege",           // who has logged on in a session (WTSQueryUserToken)
	"SeSystemProfilePrivilege", // asked for by kernel providers of ETW on some versions of Windows
}
