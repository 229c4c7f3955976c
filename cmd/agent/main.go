// Command sekisho-agent is the service on each PC, and the tool that IT uses on
// a PC.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
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

func main() { os.Exit(run()) }

// run is the whole program; it answers the exit code.
func run() int { return report(root().ExecuteContext(context.Background())) }

// untilStopped is the context of a command that has something to finish when it is
// told to stop. The others are ended by the signal itself, also while they wait
// for input that does not come.
func untilStopped(c *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
}

// report tells the error to the person and answers the exit code.
func report(err error) int {
	var e exit
	var ofSettings config.Problems
	var ofRules rules.Problems
	known := errors.As(err, &e)
	switch {
	case err == nil:
		return exitOK
	case known && e.err == nil:
		return e.code
	case errors.Is(err, cli.ErrHelp):
		return exitUsage
	}
	inSettings, inRules := errors.As(err, &ofSettings), errors.As(err, &ofRules)
	if inSettings || inRules {
		ofSettings.Print(os.Stderr, lang.Terminal())
		ofRules.Print(os.Stderr, lang.Terminal())
		if known {
			return e.code
		}
		return exitFound
	}
	text := err.Error()
	for _, k := range causes {
		if errors.Is(err, k.err) {
			text = lang.T(k.ja+"（"+text+"）", text+": "+k.en)
		}
	}
	fmt.Fprintln(os.Stderr, "sekisho-agent: "+text)
	if known {
		return e.code
	}
	return exitFailure
}

// causes are what a person at the terminal can do something about.
var causes = []struct {
	err    error
	ja, en string
}{
	{agent.ErrNotRunning, "エージェントが動いていないか、問い合わせる権限がありません。root（Windows では管理者）で実行してみてください", "try as root (on Windows: as administrator)"},
	{agent.ErrRunning, "この state_dir では別のエージェントが動いています。止めるには `sekisho-agent service stop`", "`sekisho-agent service stop` stops it"},
	{agent.ErrNoRoom, "state_dir のあるディスクがいっぱいで開始できません。空きを作ってください", "remove something and start again"},
	{fs.ErrPermission, "権限がありません。root（Windows では管理者）で実行してください", "run as root (on Windows: as administrator)"},
}

// settings is the --config flag that most commands have.
type settings struct{ file string }

func (s *settings) flag(c *cobra.Command) {
	c.Flags().StringVar(&s.file, "config", defaultConfig(), lang.T("設定ファイル", "settings file"))
}

// load reads the settings. With problems in them nothing can be done: that is
// input that cannot be read, except for `check`, whose answer they are.
func (s *settings) load() (*config.Agent, error) {
	cfg, err := config.LoadAgent(s.file)
	if err != nil {
		return nil, exit{exitUsage, err}
	}
	return cfg, nil
}

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
	c.AddCommand(runCommand(), checkCommand(), replayCommand(), rulesCommand(), explainCommand(), statusCommand(), selftestCommand(), canaryCommand(),
		configCommand(), enrollCommand(), configureCommand(), serviceCommand(), doctorCommand(), bundleCommand(), versionCommand())
	cli.Finish(c, func(err error) error { return exit{exitUsage, err} })
	return c
}
