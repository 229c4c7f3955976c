package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/confine"
	"sekisho/internal/lang"
	"sekisho/internal/logfile"
	"sekisho/internal/version"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func runCommand() *cobra.Command {
	var s settings
	var asService bool
	var tee string
	c := &cobra.Command{
		Use:     "run",
		Short:   lang.T("エージェントを動かす（サービスマネージャーの下では --service）", "run the agent (under a service manager: --service)"),
		Example: "  sekisho-agent run --config /etc/sekisho/agent.yaml\n  sekisho-agent run --tee -",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			work := func(ctx context.Context) error { return runAgent(ctx, s, true, tee, func() {}) }
			if asService {
				work = func(ctx context.Context) error {
					return noted(ctx, func(ctx context.Context, started func()) error { return runAgent(ctx, s, false, tee, started) })
				}
			}
			ctx, stop := cli.UntilStopped(c)
			defer stop()
			if asService {
				return underServiceManager(ctx, work)
			}
			return work(ctx)
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asService, "service", false, lang.T("サービスマネージャーの下で動く", "runs under a service manager"))
	c.Flags().StringVar(&tee, "tee", "", lang.T("すべてのイベントとアラートを JSON Lines で書くファイル（- は標準出力）", "file that gets every event and alert as JSON lines (- is standard output)"))
	return c
}

// runAgent is the agent from its settings to its end; started is called when it
// works.
func runAgent(ctx context.Context, s settings, terminal bool, tee string, started func()) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	// Before anything is written there.
	if err := agent.Secure(s.file, cfg.StateDir); err != nil {
		return cli.Exit(cli.Failure, err)
	}
	log, level, closeLog, err := logfile.New(logfile.Options{
		Dir: cfg.Log.Dir, Name: "agent.log", Level: cfg.Log.Level, Terminal: terminal,
		MaxBytes: int64(cfg.Log.MaxSize), MaxFiles: cfg.Log.MaxFiles,
	})
	if err != nil {
		// No log file must not leave the PC unwatched: what is to be said goes to
		// standard error, which a service manager keeps.
		noFile := err
		if log, level, closeLog, err = logfile.New(logfile.Options{Level: cfg.Log.Level, Terminal: true}); err != nil {
			return cli.Exit(cli.Failure, err)
		}
		log.Error("no log file", zap.Error(noFile))
	}
	defer closeLog()
	o := agent.Options{ConfigFile: s.file, Version: version.Version, Log: log, Level: &level, Confine: confine.Drop, Restarted: !terminal}
	switch tee {
	case "":
	case "-":
		o.Tee = os.Stdout
	default:
		f, err := os.OpenFile(filepath.Clean(tee), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return cli.Exit(cli.Failure, fmt.Errorf("open tee: %w", err))
		}
		defer f.Close()
		o.Tee = f
	}
	a, err := agent.New(o)
	if err != nil {
		log.Error("agent cannot start", zap.Error(err))
		return err
	}
	started()
	if err := a.Run(ctx); err != nil {
		return cli.Exit(cli.Failure, err)
	}
	return nil
}
