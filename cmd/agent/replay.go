package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sekisho/internal/agent"
	"sekisho/internal/catalog"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/enrich"
	"sekisho/internal/judge"
	"sekisho/internal/lang"
	"sekisho/internal/replay"
	"sekisho/internal/rules"

	"github.com/spf13/cobra"
)

// ruleFlags choose rules: those of the settings, if a file is named, and more.
type ruleFlags struct {
	config    string
	paths     []string
	noBuiltin bool
}

func (r *ruleFlags) flags(c *cobra.Command) {
	c.Flags().StringVar(&r.config, "config", os.Getenv("SEKISHO_CONFIG"), lang.T("設定ファイル（なければ初期値）", "settings file (defaults if none)"))
	c.Flags().StringArrayVar(&r.paths, "rules", nil, lang.T("ルールのファイルかフォルダー（繰り返し可）", "rule file or folder (may be repeated)"))
	c.Flags().BoolVar(&r.noBuiltin, "no-builtin", false, lang.T("付属のルールを使わない", "without the shipped rules"))
}

// load answers the settings and the rules; refused rules are returned apart, the
// program holds the others.
func (r *ruleFlags) load() (*config.Agent, *rules.Program, rules.Problems, error) {
	cfg := config.DefaultAgent()
	if r.config != "" {
		var err error
		if cfg, err = config.LoadAgent(r.config); err != nil {
			return nil, nil, nil, cli.Exit(cli.Usage, err)
		}
	}
	o := agent.RuleOptions(cfg)
	o.Lenient = true // a setting may name a shipped rule that --no-builtin left out
	program, err := rules.Load(rules.LoadOptions{
		Builtin: cfg.Rules.Builtin && !r.noBuiltin,
		Paths:   append(append([]string(nil), cfg.Rules.Paths...), r.paths...),
		Options: o,
	})
	inSettings, err := agent.SettingsProblems(cfg, err)
	if len(inSettings) > 0 {
		return nil, nil, nil, cli.Exit(cli.Usage, inSettings)
	}
	var refused rules.Problems
	if err != nil && !errors.As(err, &refused) {
		return nil, nil, nil, cli.Exit(cli.Usage, err)
	}
	return cfg, program, refused, nil
}

func replayCommand() *cobra.Command {
	var r ruleFlags
	c := &cobra.Command{
		Use:   "replay EVENTS.jsonl",
		Short: lang.T("記録したイベントをルールに通し、アラートを 1 行に 1 件ずつ出力する", "recorded events through the rules; one alert per line"),
		Long: lang.T("記録したイベント（JSON Lines、- は標準入力）を、エージェントと同じ判定に、起きた時刻の順に通す。\n複数の PC のイベントが混ざっていてもよい。権限・ネットワークは不要で、何も残さない。",
			"Recorded events (JSON lines, - is standard input) through the same judgement as in the agent, by event time.\nEvents of many hosts may stand in one file. Needs no rights and no network, and leaves nothing behind."),
		Example: "  sekisho-agent replay events.jsonl\n  sekisho-agent replay --no-builtin --rules sigma/rules/linux - < events.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, program, refused, err := r.load()
			if err != nil {
				return err
			}
			in := os.Stdin
			if args[0] != "-" {
				if in, err = os.Open(filepath.Clean(args[0])); err != nil {
					return cli.Exit(cli.Usage, err)
				}
				defer in.Close()
			}
			if ps := enrich.Check(cfg, catalog.Load()); len(ps) > 0 {
				return cli.Exit(cli.Usage, ps)
			}
			stage := enrich.New(enrich.Options{Config: cfg})
			_, err = replay.Run(c.Context(), replay.Options{
				Events: in, Name: args[0], Program: program, Refused: refused,
				Enrich: func() judge.Enricher { return stage.Another() },
				Out:    os.Stdout, Err: os.Stderr, Lang: lang.Terminal(),
			})
			switch {
			case errors.Is(err, replay.ErrInput):
				return cli.Exit(cli.Usage, nil) // told, line by line
			case err != nil:
				return cli.Exit(cli.Usage, fmt.Errorf("replay: %w", err))
			}
			return nil
		},
	}
	r.flags(c)
	return c
}
