package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/lang"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"
)

// stopWithin is how long a stop may take before the service manager is told
// that it failed. The agent's own bounds (last flush, sensors) are below.
const stopWithin = 20 * time.Second

// program lets kardianos/service start and stop the agent.
type program struct {
	ctx    context.Context
	work   func(context.Context) error
	cancel context.CancelFunc
	done   chan error
}

// Start must return at once: Windows gives a service 30 s to say that it runs.
func (p *program) Start(s service.Service) error {
	ctx, cancel := context.WithCancel(p.ctx)
	p.cancel, p.done = cancel, make(chan error, 1)
	go func() {
		err := p.work(ctx)
		p.done <- err
		if ctx.Err() == nil {
			// It ended by itself. An exit code other than 0 is what makes the
			// service manager start it again.
			os.Exit(max(cli.Report("sekisho-agent", err, causes...), cli.Failure))
		}
	}()
	return nil
}

func (p *program) Stop(service.Service) error {
	p.cancel()
	select {
	case err := <-p.done:
		return err
	case <-time.After(stopWithin):
		note(noteFailed, "関所エージェントが時間内に停止しませんでした。\nThe Sekisho agent did not stop in time.")
		return errors.New("the agent did not stop in time")
	}
}

// errNoSystemd says why a service of Linux cannot be controlled: other service managers
// do not say more than that it did not work.
var errNoSystemd = errors.New("this PC does not run systemd, which the service is made for")

// noSystemd reports whether a Linux runs something else for its services, as in a
// container, or nothing.
func noSystemd() bool { return runtime.GOOS == "linux" && service.Platform() != "linux-systemd" }

func newService(p *program, configFile string) (service.Service, error) {
	c := &service.Config{
		Name:        agent.ServiceName,
		DisplayName: "Sekisho Agent",
		Description: "Watches USB devices, file copies and remote-access tools, and reports to the Sekisho console.",
		Arguments:   []string{"run", "--service", "--config", configFile},
		Option: service.KeyValue{
			"SystemdScript": systemdUnit,
		},
	}
	return service.New(p, c)
}

func underServiceManager(ctx context.Context, work func(context.Context) error) error {
	p := &program{ctx: ctx, work: work}
	s, err := newService(p, "")
	if err != nil {
		return cli.Exit(cli.Failure, err)
	}
	if err := runService(s, p); err != nil {
		return cli.Exit(cli.Failure, err)
	}
	return nil
}

func serviceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "service",
		Short: lang.T("サービスの登録、開始、停止、再読み込み", "install, start, stop and reload the service"),
	}
	var s settings
	control := func(use, ja, en string, do func(service.Service) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: lang.T(ja, en), Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
			file, err := filepath.Abs(s.file)
			if err != nil {
				return err
			}
			svc, err := newService(&program{}, file)
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			if err := do(svc); err != nil {
				if use != "install" && !errors.Is(err, fs.ErrPermission) && noSystemd() {
					err = fmt.Errorf("%w (%w)", errNoSystemd, err)
				}
				return cli.Exit(cli.Failure, fmt.Errorf("service %s: %w", use, err))
			}
			return nil
		}}
	}
	install := control("install", "サービスを登録する（設定を先に検査する）", "install the service (the settings are checked first)", func(svc service.Service) error {
		cfg, err := s.load()
		if err != nil {
			return err
		}
		if err := agent.Secure(s.file, cfg.StateDir); err != nil {
			return err
		}
		if err := svc.Install(); err != nil {
			return err
		}
		return afterInstall()
	})
	s.flag(install)
	reload := &cobra.Command{
		Use: "reload", Short: lang.T("設定とルールを読み直し、何が変わったかを示す（問題があれば前のまま動く）", "read settings and rules again and tell what changed (with a problem the old ones stay)"),
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			// The same check as the agent's own, with places and carets.
			if _, err := agent.CheckSettings(s.file); err != nil {
				return cli.Exit(cli.Found, err)
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			changes, err := agent.Dial(cfg.StateDir).Reload(c.Context())
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			for _, k := range changes {
				line := k.String()
				if k.Restart {
					line += lang.T("（再起動後に有効）", " (from the next start on)")
				}
				fmt.Println(line)
			}
			if len(changes) == 0 {
				fmt.Println(lang.T("変わった設定はありません", "no setting changed"))
			}
			return nil
		},
	}
	s.flag(reload)
	c.AddCommand(ofSystem()...)
	c.AddCommand(install,
		control("uninstall", "サービスを止めて登録を消す", "stop and remove the service", func(svc service.Service) error {
			if st, err := svc.Status(); err == nil && st == service.StatusRunning {
				if err := svc.Stop(); err != nil {
					return err
				}
			}
			return uninstall(svc)
		}),
		control("start", "サービスを開始する", "start the service", service.Service.Start),
		control("stop", "サービスを停止する", "stop the service", service.Service.Stop),
		control("restart", "サービスを再起動する", "restart the service", service.Service.Restart),
		reload,
		control("status", "サービスが動いているかを示す（停止中は終了コード 1）", "is the service running (exit code 1: no)", func(svc service.Service) error {
			st, err := svc.Status()
			if err != nil {
				return err
			}
			if st != service.StatusRunning {
				fmt.Println(lang.T("停止", "stopped"))
				return cli.Exit(cli.Found, nil)
			}
			fmt.Println(lang.T("動作中", "running"))
			return nil
		}))
	return c
}
