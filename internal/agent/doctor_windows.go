package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/config"
	"sekisho/internal/enroll"
	"sekisho/internal/etw"
	"sekisho/internal/fileaudit"
	"sekisho/internal/guid"
	"sekisho/internal/procwatch"
	"sekisho/internal/winacl"
	"sekisho/internal/winlog"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc/mgr"
)

// system finds out what is particular to Windows.
func (d *doctor) system(settingsFile string, cfg *config.Agent) {
	var pc windowsPC
	v := windows.RtlGetVersion()
	pc.version.major, pc.version.minor, pc.version.build = v.MajorVersion, v.MinorVersion, v.BuildNumber
	pc.version.server = v.ProductType != 1 // VER_NT_WORKSTATION
	pc.elevated = winacl.Elevated()
	pc.service = lookAtService()
	pc.places = lookAtPlaces(settingsFile, cfg)
	if exe, err := os.Executable(); err == nil {
		pc.signed, pc.signer = procwatch.Signature(exe)
	}
	pc.sealing = enroll.TrySealing()
	pc.tracing = tryTracing()
	pc.devices = cfgmgr.Available()
	for _, l := range watchedLogs {
		on, err := winlog.Enabled(l.channel)
		pc.logs = append(pc.logs, logChecked{l, on, err})
	}
	if k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\EventLog\Application\`+EventSource, registry.QUERY_VALUE); err == nil {
		pc.source = true
		k.Close()
	}
	d.windows(pc)
}

// lookAtService asks with no more rights than anybody has.
func lookAtService() (s windowsService) {
	name, err := windows.UTF16PtrFromString(ServiceName)
	if err != nil {
		return windowsService{err: err}
	}
	m, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return windowsService{err: err}
	}
	defer windows.CloseServiceHandle(m)
	h, err := windows.OpenService(m, name, windows.SERVICE_QUERY_CONFIG|windows.READ_CONTROL)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return windowsService{err: errNoService}
	}
	if err != nil {
		return windowsService{err: err}
	}
	x := &mgr.Service{Name: ServiceName, Handle: h}
	defer x.Close()
	// 8 KB is the most that Windows takes (QueryServiceConfigW, QueryServiceConfig2W on
	// MSDN).
	b, need := make([]uint64, 1024), uint32(0)
	var pin runtime.Pinner // the answer points into itself
	defer pin.Unpin()
	pin.Pin(&b[0])
	c := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&b[0]))
	if err := windows.QueryServiceConfig(h, c, uint32(len(b)*8), &need); err != nil {
		return windowsService{err: err}
	}
	s.automatic, s.account = c.StartType == windows.SERVICE_AUTO_START, windows.UTF16PtrToString(c.ServiceStartName)
	s.recovery = lookAtRecovery(x, &s)
	list, err := winacl.ReadService(h)
	if s.access = err; err == nil {
		if sid := winacl.JudgeService(list); sid != "" {
			s.changer = winacl.Name(sid)
		}
	}
	s.privileges, s.rights = requiredPrivileges(h)
	return s
}

func lookAtRecovery(x *mgr.Service, s *windowsService) error {
	actions, err := x.RecoveryActions()
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	for _, a := range actions {
		if a.Type == mgr.ServiceRestart {
			s.restarts = append(s.restarts, a.Delay)
		}
	}
	seconds, err := x.ResetPeriod()
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	s.resetAfter = time.Duration(seconds) * time.Second
	if s.afterErrors, err = x.RecoveryActionsOnNonCrashFailures(); err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	return nil
}

// requiredPrivileges are those that the service asks for; none: all that its account
// has.
func requiredPrivileges(h windows.Handle) ([]string, error) {
	b := make([]uint64, 1024)
	var pin runtime.Pinner // the answer points into itself
	defer pin.Unpin()
	pin.Pin(&b[0])
	size, need := uint32(len(b)*8), uint32(0)
	if err := windows.QueryServiceConfig2(h, windows.SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, (*byte)(unsafe.Pointer(&b[0])), size, &need); err != nil {
		return nil, fmt.Errorf("privileges: %w", err)
	}
	// SERVICE_REQUIRED_PRIVILEGES_INFOW: a pointer to a list within the buffer.
	list := uintptr(b[0])
	begin := uintptr(unsafe.Pointer(&b[0]))
	if list < begin || list >= begin+uintptr(size) {
		return nil, nil
	}
	return splitTexts(unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), size/2)[(list-begin)/2:]), nil
}

// lookAtPlaces checks what decides what the agent does: its program, its settings,
// its folders, its rules.
func lookAtPlaces(settingsFile string, cfg *config.Agent) []placeChecked {
	var paths []string
	rules := map[string]bool{}
	add := func(path string) {
		abs, err := filepath.Abs(path)
		if err != nil || slices.ContainsFunc(paths, func(p string) bool { return strings.EqualFold(p, abs) }) {
			return
		}
		if filepath.Dir(abs) != abs { // in the root of a drive everybody may make folders
			paths = append(paths, abs)
		}
	}
	if exe, err := os.Executable(); err == nil {
		add(exe)
		add(filepath.Dir(exe))
	}
	add(settingsFile)
	add(filepath.Dir(settingsFile))
	add(cfg.StateDir)
	for _, p := range cfg.Rules.Paths {
		before := len(paths)
		add(p)
		for _, p := range paths[before:] {
			rules[p] = true
		}
	}
	var all []placeChecked
	for _, p := range paths {
		_, err := winacl.Check(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // others tell what is missing
		}
		all = append(all, placeChecked{p, rules[p], err})
	}
	return all
}

// openRules says which files and folders of rules people may change who are no
// administrators. Those that cannot be looked at are for others to complain about.
func openRules(paths []string) (open []string) {
	for _, p := range paths {
		var t *winacl.Trouble
		if _, err := winacl.Check(p); errors.As(err, &t) {
			open = append(open, openRulesText(t).EN)
		}
	}
	return open
}

// doctorSession is the name of the session of event tracing that the doctor tries.
const doctorSession = "Sekisho-Doctor"

// EndTracing ends the sessions of event tracing that an agent has left which was
// killed: they are the kernel's and go on without it.
func EndTracing() error {
	return errors.Join(etw.Stop(procwatch.SessionName), etw.Stop(fileaudit.SessionName), etw.Stop(doctorSession))
}

// tryTracing starts and ends a session of ETW as the process sensor has it.
func tryTracing() error {
	kernelProcess := etw.Provider{ID: guid.Must("{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}"), Keywords: 0x10} // WINEVENT_KEYWORD_PROCESS
	s, err := etw.Start(doctorSession, kernelProcess)
	if err != nil {
		return err
	}
	return s.Close()
}

// privileged reports whether the process may do what the sensors need.
func privileged() bool { return winacl.Elevated() }
