package agent

import (
	"os"
	"time"

	"sekisho/internal/endpoint"

	"github.com/shirou/gopsutil/v3/process"
)

// Status is everything the agent tells of itself; safe at any time.
func (a *Agent) Status() endpoint.Status {
	cfg, set := a.cfg.Load(), a.problems.Load()
	st := endpoint.Status{
		Time:         time.Now().UTC(),
		AgentID:      a.who.Load().ID,
		AgentVersion: a.o.Version,
		HostID:       a.host.ID,
		HostName:     a.host.Name,
		OS:           a.host.OSType,
		OSVersion:    a.osVersion,
		Department:   cfg.Host.Department,
		Tags:         cfg.Host.Tags,
		Started:      a.started,
		Contact:      a.link.contact(),
		Settings:     endpoint.Settings{File: a.o.ConfigFile, LoadedAt: set.loaded, Problems: set.problems},
		Events:       a.judged.Load(),
		AlertsRaised: a.out.raised.Load(),
	}
	if r := a.judgeIs.Load(); r != nil {
		st.Rules = *r
	}
	for _, s := range a.sensors {
		x := s.status()
		a.life.fill(&x)
		st.Sensors = append(st.Sensors, x)
		st.Lost += x.Lost
	}
	st.Rights, st.Budget = a.rightsNow(), a.budget.status()
	st.Lost += st.Budget.Shed
	st.Alerts, st.Activity = a.out.status(int64(cfg.Limits.SpoolAlerts), int64(cfg.Limits.SpoolActivity))
	st.Lost += uint64(st.Alerts.Dropped+st.Activity.Dropped) - a.droppedBefore
	if p, err := process.NewProcess(int32(os.Getpid())); err == nil {
		if t, err := p.Times(); err == nil {
			st.CPUSeconds = t.User + t.System
		}
		if m, err := p.MemoryInfo(); err == nil {
			st.MemoryBytes = int64(m.RSS)
		}
	}
	return st
}
