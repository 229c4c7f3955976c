// Command sekisho-agent is the service on each PC, and the tool that IT uses on
// a PC.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sekisho/internal/agent"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/rules"

	"github.com/spf13/cobra"
)

// The exit codes, the same for every command.
const (
	exitOK      = 0
	exitFound   = 1 // a check found problems
	exitUsage   = 2 // wrong use, or input that cannot be read
	exitFailure = 3 // could not do it: rights, network
)

// exit is an error that knows its exit code. A nil err was told already.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}
func (e exit) Unwrap() error { return e.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := report(root().ExecuteContext(ctx))
	stop()
	os.Exit(code)
}

// report tells the error to the person and answers the exit code.
func report(err error) int {
	var e exit
	var cps config.Problems
	var rps rules.Problems
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e) && e.err == nil:
		return e.code
	}
	settings, rule := errors.As(err, &cps), errors.As(err, &rps)
	if settings || rule {
		cps.Print(os.Stderr, lang.Terminal())
		rps.Print(os.Stderr, lang.Terminal())
		if errors.As(err, &e) {
			return e.code
		}
		return exitFound
	}
	fmt.Fprintln(os.Stderr, "sekisho-agent: "+err.Error())
	switch {
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, agent.ErrNotRunning):
		return exitFailure
	}
	return exitUsage
}

// settings is the --config flag that most commands have.
type settings struct{ file string }

func (s *settings) flag(c *cobra.Command) {
	c.Flags().StringVar(&s.file, "config", defaultConfig(), lang.T("設定ファイル", "settings file"))
}

func (s *settings) load() (*config.Agent, error) { return config.LoadAgent(s.file) }

// defaultConfig is SEKISHO_CONFIG, else the system's usual place.
func defaultConfig() string {
	if f := os.Getenv("SEKISHO_CONFIG"); f != "" {
		return f
	}
	return defaultAgentFile()
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "sekisho-agent",
		Short:         lang.T("関所: USB・ファイルのコピー・遠隔操作ツールを見張る", "Sekisho: watches USB devices, file copies and remote-access tools"),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return exit{exitUsage, err} })
	c.AddCommand(runCommand(), checkCommand(), replayCommand(), rulesCommand(), explainCommand(), statusCommand(), selftestCommand(), canaryCommand(),
		configCommand(), enrollCommand(), configureCommand(), serviceCommand(), doctorCommand(), bundleCommand(), versionCommand())
	return c
}
