package agent

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/fileaudit"
	"sekisho/internal/printwatch"
	"sekisho/internal/procwatch"
	"sekisho/internal/session"
	"sekisho/internal/usb"
	"sekisho/internal/usblog"
	"sekisho/internal/volume"

	"go.uber.org/zap"
)

// newSensors makes the sensors in the order they are started: volumes before
// files, which need their table. open lists the volumes that are told of and
// mounted now; nil where the settings switch their events off. sessions tells to
// which login session a process belongs; nil likewise. since is the last sign of life
// of the run before, zero if there was none: what a system wrote down after it is
// asked for.
func newSensors(cfg *config.Agent, since time.Time, log *zap.Logger) (all []*supervised, processes *procwatch.Watcher, files *fileaudit.Watcher, open func() []volume.Volume, sessions *session.Watcher) {
	add := func(on bool, name string, s Source) {
		if !on {
			s = off(name)
		}
		all = append(all, &supervised{src: s, log: log.Named(name)})
	}
	volumes := volume.New(volume.Options{RemovablePaths: cfg.Sensors.Volume.RemovablePaths})
	processes = procwatch.New(procwatch.Options{TellEnds: true, TellRunning: true})
	logins := session.New(session.Options{})
	if cfg.Sensors.Session.Enabled {
		sessions = logins
	}
	process := func(pid int) (*event.Process, *event.User) {
		x, user, session := processes.Lookup(pid)
		if sessions != nil && user != nil {
			// Now, while it is known: the pipeline asks when the file is told, and a copy
			// is told a second later.
			sessions.Remember(pid, session, user.ID)
		}
		return x, user
	}
	files = fileaudit.New(fileaudit.Options{
		Table:             volumes.Table(),
		Reads:             true, // SCAM-3: protected files read during a remote session
		IgnoreExecutables: cfg.Sensors.File.Ignore,
		Process:           process,
	})
	add(cfg.Sensors.Process.Enabled, "process", processes)
	add(cfg.Sensors.USB.Enabled, "usb", usb.New(usb.Options{}))
	if runtime.GOOS == "windows" { // which alone keeps a record of it
		add(cfg.Sensors.USB.Enabled, "usb-log", usblog.New(usblog.Options{Since: since}))
	}
	// The file sensor watches what the volume sensor finds, so that one runs for
	// its table even where its events are not wanted.
	if cfg.Sensors.Volume.Enabled || !cfg.Sensors.File.Enabled {
		add(cfg.Sensors.Volume.Enabled, "volume", volumes)
	} else {
		all = append(all, &supervised{src: silent{volumes}, log: log.Named("volume")})
	}
	add(cfg.Sensors.File.Enabled, "file", files)
	add(cfg.Sensors.Session.Enabled, "session", logins)
	add(cfg.Sensors.Print.Enabled, "print", printwatch.New(printwatch.Options{EnableLog: cfg.Sensors.Print.EnableLog, Since: since}))
	if cfg.Sensors.Volume.Enabled {
		open = volumes.Open
	}
	return all, processes, files, open, sessions
}

// places are the protected places as the file sensor wants them, and that of the
// canaries.
func (a *Agent) places(cfg *config.Agent) []fileaudit.Place {
	var out []fileaudit.Place
	if a.life.dir != "" {
		out = append(out, fileaudit.Place{Label: CanaryCommand, Globs: []string{escapeGlob(a.life.dir)}, Alone: true})
	}
	for _, p := range cfg.Protected {
		out = append(out, fileaudit.Place{Label: p.Label, Globs: p.Paths, Shares: p.Shares})
	}
	return out
}

// escapeGlob is a pattern that fits one path only.
func escapeGlob(path string) string {
	if filepath.Separator == '\\' {
		return path // where a backslash parts folders, nothing can be escaped
	}
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `{`, `\{`, `\`, `\\`).Replace(path)
}

// off is a sensor that the settings switched off.
type off string

func (o off) Name() string { return string(o) }

func (o off) Run(ctx context.Context, _ chan<- *event.Event) error {
	<-ctx.Done()
	return nil
}

func (o off) Status() endpoint.Sensor {
	return endpoint.Sensor{Name: string(o), State: endpoint.SensorOff, Reason: "switched off in the settings"}
}

// silent runs a source for its side effects and drops its events.
type silent struct{ Source }

func (s silent) Run(ctx context.Context, _ chan<- *event.Event) error {
	drop := make(chan *event.Event)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range drop {
		}
	}()
	err := s.Source.Run(ctx, drop)
	close(drop)
	<-done
	return err
}

func (s silent) Status() endpoint.Sensor {
	st := s.Source.Status()
	st.State, st.Reason = endpoint.SensorOff, "switched off in the settings; runs for the file sensor only"
	return st
}
