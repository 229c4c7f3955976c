package main

import (
	"errors"
	"time"

	"github.com/kardianos/service"
	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

const systemdUnit = ""

// runService hands over to the service control manager. The switch --service
// says that we run under it; asking the system instead answers wrongly under
// Wine and in some containers.
func runService(s service.Service) error {
	// Older installations lack the recovery settings; repairing them needs rights
	// that the service has. Not having them must not keep it from starting.
	_ = recovery(serviceName)
	if h, ok := s.(svc.Handler); ok {
		return svc.Run(serviceName, h)
	}
	return s.Run()
}

// recovery makes Windows start the service again after 5, 30 and 60 seconds, also
// when it ended by itself with an error.
func recovery(name string) error {
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
	err = s.SetRecoveryActions([]mgr.RecoveryAction{
		{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 30 * time.Second},
		{Type: mgr.ServiceRestart, Delay: 60 * time.Second},
	}, uint32((24 * time.Hour).Seconds()))
	if err == nil {
		err = s.SetRecoveryActionsOnNonCrashFailures(true)
	}
	if errors.Is(err, windows.ERROR_INVALID_LEVEL) {
		return nil // Wine
	}
	return err
}
