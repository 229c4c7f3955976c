// Command sekisho-agent is the service on each PC, and the tool that IT uses on
// a PC.
package main

import (
	"context"
	"io/fs"
	"os"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/rules"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

// run is the whole program; it answers the exit code.
func run() int {
	return cli.Report("sekisho-agent", root().ExecuteContext(context.Background()), causes...)
}

// causes are what a person at the terminal can do something about.
var causes = []cli.Cause{
	{Err: agent.ErrNotRunning, JA: "エージェントが動いていないか、問い合わせる権限がありません。root（Windows では管理者）で実行してみてください", EN: "try as root (on Windows: as administrator)"},
	{Err: agent.ErrRunning, JA: "この state_dir では別のエージェントが動いています。止めるには `sekisho-agent service stop`", EN: "`sekisho-agent service stop` stops it"},
	{Err: agent.ErrNoRoom, JA: "state_dir のあるディスクがいっぱいで開始できません。空きを作ってください", EN: "remove something and start again"},
	{Err: errNoSystemd, JA: "この PC では systemd が動いていないため（コンテナの中など）、サービスとしては操作できません。動いているかは `sekisho-agent status`、動かすには `sekisho-agent run`",
		EN: "`sekisho-agent status` tells whether the agent runs, `sekisho-agent run` runs it"},
	{Err: service.ErrNotInstalled, JA: "サービスは登録されていません。登録するには `sekisho-agent service install`", EN: "`sekisho-agent service install` installs it"},
	{Err: rules.ErrNoRule, JA: "その ID や名前のルールはありません。一覧は `sekisho-agent rules list`", EN: "`sekisho-agent rules list` lists all"},
	{Err: fs.ErrNotExist, JA: "ファイルかフォルダーがありません。名前を確かめてください", EN: "check the name"},
	{Err: fs.ErrPermission, JA: "権限がありません。root（Windows では管理者）で実行してください", EN: "run as root (on Windows: as administrator)"},
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
		return nil, cli.Exit(cli.Usage, err)
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
	cli.Finish(c, func(err error) error { return cli.Exit(cli.Usage, err) })
	return c
}
