package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/lang"
	"sekisho/internal/replay"
	"sekisho/internal/rules"
	"sekisho/internal/rules/pack"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

func rulesCommand() *cobra.Command {
	c := &cobra.Command{Use: "rules", Short: lang.T("ルールの一覧、検査、試験、説明", "list, check, test and explain rules")}
	c.AddCommand(rulesListCommand(), rulesCheckCommand(), rulesTestCommand(), rulesExplainCommand(), rulesProfileCommand())
	return c
}

func rulesListCommand() *cobra.Command {
	var f ruleFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: lang.T("有効なルール", "the rules that are active"),
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, program, refused, err := f.load()
			if err != nil {
				return err
			}
			all := program.List()
			if asJSON {
				if err := printJSON(all); err != nil {
					return err
				}
			} else {
				for _, l := range all {
					if !l.Alerts {
						continue // a part of the correlations that name it
					}
					mark := ""
					if len(l.WaitsFor) > 0 {
						mark = fmt.Sprintf(lang.T(" （設定 %s 待ち）", " (waits for the settings %s)"), strings.Join(l.WaitsFor, ", "))
					} else if !l.Enabled {
						mark = lang.T(" （無効）", " (disabled)")
					}
					name := l.Rule
					if name == "" {
						name = l.ID
					}
					fmt.Printf("%s %s %s%s\n", runewidth.FillRight(name, 10), runewidth.FillRight(l.Level, 13), l.Title, mark)
				}
			}
			if len(refused) > 0 {
				return cli.Exit(cli.Found, refused)
			}
			return nil
		},
	}
	f.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}

func rulesCheckCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:     "check PATH...",
		Short:   lang.T("ルールを厳しく検査する", "strict check of rule files"),
		Example: "  sekisho-agent rules check my-rules/",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			settings, err := compileWith(file)
			if err != nil {
				return err
			}
			// The shipped rules are compiled along: a site's correlation or filter
			// may name them.
			program, err := rules.Load(rules.LoadOptions{Builtin: true, Paths: args, Options: settings})
			if err != nil {
				return err
			}
			n := 0
			for _, r := range program.Rules {
				if !r.Builtin && !r.Hidden {
					n++
				}
			}
			fmt.Println(lang.T(fmt.Sprintf("問題ありません（ルール %d 件）", n), "ok: "+lang.Many(n, "rule")))
			return nil
		},
	}
	placeholderFlag(c, &file)
	return c
}

func placeholderFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "config", os.Getenv("SEKISHO_CONFIG"), lang.T("rules.placeholders と時間帯を読む設定ファイル", "settings file, for rules.placeholders and the time zone"))
}

// compileWith is of the settings, if a file is named, what rules cannot be
// compiled without; what rules say must not hang on thresholds and exceptions.
func compileWith(file string) (rules.Options, error) {
	cfg := config.DefaultAgent()
	if file != "" {
		var err error
		if cfg, err = config.LoadAgent(file); err != nil {
			return rules.Options{}, cli.Exit(cli.Usage, err)
		}
	}
	o := agent.RuleOptions(cfg)
	return rules.Options{Placeholders: o.Placeholders, Zone: o.Zone}, nil
}

func rulesTestCommand() *cobra.Command {
	var verbose bool
	var file string
	c := &cobra.Command{
		Use:     "test [PATH...]",
		Short:   lang.T("ルールの試験を実行する（PATH なしなら付属のルール）", "run rule tests (without PATH those of the shipped rules)"),
		Example: "  sekisho-agent rules test\n  sekisho-agent rules test my-rules/",
		RunE: func(_ *cobra.Command, args []string) error {
			settings, err := compileWith(file)
			if err != nil {
				return err
			}
			o := replay.TestOptions{Out: os.Stdout, Lang: lang.Terminal(), Verbose: verbose, Placeholders: settings.Placeholders, Zone: settings.Zone}
			run := func() (replay.TestSummary, error) { return replay.TestFiles(args, o) }
			if len(args) == 0 {
				run = func() (replay.TestSummary, error) { return replay.TestBuiltin(pack.Tests, o) }
			}
			sum, err := run()
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			fmt.Println(sum.Text(lang.Terminal()))
			if len(sum.Problems) > 0 {
				return cli.Exit(cli.Found, sum.Problems)
			}
			if sum.Failed+sum.Wrong > 0 {
				return cli.Exit(cli.Found, nil)
			}
			return nil
		},
	}
	placeholderFlag(c, &file)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, lang.T("試験ごとに 1 行", "a line per test"))
	return c
}

func rulesExplainCommand() *cobra.Command {
	var f ruleFlags
	c := &cobra.Command{
		Use:     "explain ID",
		Short:   lang.T("ルールが何を言っているかを、しきい値・似た事件とともに説明する", "what a rule says in plain words, with its thresholds and incidents"),
		Example: "  sekisho-agent rules explain USB-3",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, program, _, err := f.load()
			if err != nil {
				return err
			}
			if err := program.Explain(os.Stdout, args[0], lang.Terminal()); err != nil {
				return cli.Exit(cli.Usage, err)
			}
			return nil
		},
	}
	f.flags(c)
	return c
}

func rulesProfileCommand() *cobra.Command {
	var f ruleFlags
	var top int
	var asJSON bool
	c := &cobra.Command{
		Use:     "profile EVENTS.jsonl",
		Short:   lang.T("どのルールがどれだけ時間を使うか", "which rules cost most"),
		Example: "  sekisho-agent rules profile events.jsonl --rules sigma/rules",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, program, _, err := f.load()
			if err != nil {
				return err
			}
			in, err := os.Open(filepath.Clean(args[0]))
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			defer in.Close()
			stage, p := enrich.New(enrich.Options{Config: cfg}), program.NewProfile()
			lines := bufio.NewScanner(in)
			lines.Buffer(nil, event.MaxJSON+1)
			for n := 1; lines.Scan(); n++ {
				if len(lines.Bytes()) == 0 {
					continue
				}
				e, err := event.Decode(lines.Bytes())
				if err != nil {
					return cli.Exit(cli.Usage, fmt.Errorf("%s:%d: %w", args[0], n, err))
				}
				stage.Apply(e)
				p.Event(e)
			}
			if err := lines.Err(); err != nil {
				return cli.Exit(cli.Usage, fmt.Errorf("%s: %w", args[0], err))
			}
			costs := p.Costs()
			if asJSON {
				return printJSON(costs)
			}
			fmt.Println(lang.T(fmt.Sprintf("%d イベント", p.Events()), lang.Many(int(p.Events()), "event")))
			for i, c := range costs {
				if i == top {
					break
				}
				fmt.Printf("%10.3f ms  %s %6d  %s %6d  %s\n", float64(c.Time.Microseconds())/1000,
					lang.T("判定", "asked"), c.Asked, lang.T("一致", "matched"), c.Matched, c.Title)
			}
			return nil
		},
	}
	f.flags(c)
	c.Flags().IntVar(&top, "top", 20, lang.T("示す件数", "how many to show"))
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}
