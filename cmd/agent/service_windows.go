package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/lang"
	"sekisho/internal/winacl"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
	"golang.org/x/sys/windows/svc/mgr"
)

const systemdUnit = ""

// runService hands over to the service control manager. The switch --service
// says that we run under it; asking the system instead answers wrongly under
// Wine and in some containers.
func runService(_ service.Service, p *program) error {
	return svc.Run(agent.ServiceName, handler{p, func() { _ = arrange(agent.ServiceName) }})
}

// handler runs the program as Windows says. kardianos/service does not hand on
// that the system is about to shut down, which is the only word that leaves time
// to write down what is open: from SERVICE_CONTROL_SHUTDOWN on all services
// together have 5 s.
type handler struct {
	p *program
	// running is called once the service runs: older installations lack settings of
	// the service, others may have changed them. It must not keep it from starting
	// (doctor tells what is wrong), nor from answering Windows meanwhile.
	running func()
}

func (h handler) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (specific bool, code uint32) {
	status <- svc.Status{State: svc.StartPending}
	if err := h.p.Start(nil); err != nil {
		return true, 1
	}
	status <- svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown}
	var set sync.WaitGroup
	set.Go(h.running)
	defer set.Wait()
	for r := range requests {
		switch r.Cmd {
		case svc.Interrogate:
			status <- r.CurrentStatus
		case svc.Stop, svc.Shutdown, svc.PreShutdown:
			status <- svc.Status{State: svc.StopPending, WaitHint: uint32((stopWithin + time.Second).Milliseconds())}
			// What went wrong is in the log of events. As an exit code it would have Windows
			// start the service again that somebody has stopped, an installer perhaps.
			_ = h.p.Stop(nil)
			return false, 0
		}
	}
	return false, 0
}

// arrange makes Windows start the service again after 5, 30 and 60 seconds, also
// when it ended by itself with an error; give it time when the PC shuts down; take
// the privileges that it does not need (from its next start on); and keep users
// from stopping it. Everything is tried; the errors are joined.
func arrange(name string) error {
	m, err := mgr.Connect()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	s, err := m.OpenService(name)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := multiString(agent.ServicePrivileges)
	if err != nil {
		return err
	}
	var restarts []mgr.RecoveryAction
	for _, pause := range agent.ServiceRestarts {
		restarts = append(restarts, mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: pause})
	}
	milliseconds := uint32((stopWithin + 10*time.Second).Milliseconds())
	var errs []error
	for _, step := range []struct {
		name string
		err  error
	}{
		{"recovery", s.SetRecoveryActions(restarts, uint32(agent.ServiceResetAfter.Seconds()))},
		{"recovery after errors", s.SetRecoveryActionsOnNonCrashFailures(true)},
		// SERVICE_PRESHUTDOWN_INFO and SERVICE_REQUIRED_PRIVILEGES_INFOW of winsvc.h hold
		// one value each.
		{"time at shutdown", windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_PRESHUTDOWN_INFO, (*byte)(unsafe.Pointer(&milliseconds)))},
		{"privileges", windows.ChangeServiceConfig2(s.Handle, windows.SERVICE_CONFIG_REQUIRED_PRIVILEGES_INFO, (*byte)(unsafe.Pointer(&list)))},
		{"access list", winacl.CloseService(s.Handle)},
	} {
		if step.err != nil && !errors.Is(step.err, windows.ERROR_INVALID_LEVEL) { // Wine knows few levels
			errs = append(errs, fmt.Errorf("%s: %w", step.name, step.err))
		}
	}
	return errors.Join(errs...)
}

// multiString is texts as Windows wants a list of them: each with its NUL, and one
// more.
func multiString(texts []string) (*uint16, error) {
	var all []uint16
	for _, t := range texts {
		u, err := windows.UTF16FromString(t)
		if err != nil {
			return nil, err
		}
		all = append(all, u...)
	}
	return &append(all, 0)[0], nil
}

// afterInstall completes what kardianos/service has installed. It has registered
// the service's name as source of events; the name that people see is better.
func afterInstall() error {
	_ = eventlog.Remove(agent.ServiceName)
	if err := eventlog.InstallAsEventCreate(agent.EventSource, eventlog.Info|eventlog.Warning|eventlog.Error); err != nil && !registered(agent.EventSource) {
		return fmt.Errorf("register the source of events: %w", err)
	}
	return arrange(agent.ServiceName)
}

// uninstall takes away the service, which has stopped, its source of events, and what
// one that did not stop by itself has left in the kernel.
func uninstall(service.Service) error {
	m, err := mgr.Connect()
	if err != nil {
		return err
	}
	defer m.Disconnect()
	s, err := m.OpenService(agent.ServiceName)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Delete(); err != nil {
		return err
	}
	err = agent.EndTracing()
	if registered(agent.EventSource) {
		err = errors.Join(err, eventlog.Remove(agent.EventSource))
	}
	return err
}

// ofSystem are commands that only Windows has: the installer, which takes away the
// service by itself, calls this one for what else there is to end.
func ofSystem() []*cobra.Command {
	return []*cobra.Command{{
		Use: "end-tracing", Hidden: true, Args: cobra.NoArgs,
		Short: lang.T("強制終了されたエージェントが残した ETW セッションを終える", "end the ETW sessions that a killed agent has left"),
		RunE: func(*cobra.Command, []string) error {
			if err := agent.EndTracing(); err != nil {
				return cli.Exit(cli.Failure, err)
			}
			return nil
		},
	}}
}
