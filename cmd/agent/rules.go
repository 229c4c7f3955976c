package main

import (
	"fmt"
	"os"

	"sekisho/internal/lang"
	"sekisho/internal/replay"
	"sekisho/internal/rules"
	"sekisho/internal/rules/pack"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

func rulesCommand() *cobra.Command {
	c := &cobra.Command{Use: "rules", Short: lang.T("ルールの一覧・検査・試験・説明", "list, check, test and explain rules")}
	c.AddCommand(rulesListCommand(), rulesCheckCommand(), rulesTestCommand())
	return c
}

// listedRule is a rule in `rules list --json`.
type listedRule struct {
	ID       string           `json:"id"`
	Rule     string           `json:"rule,omitempty"` // id of the incident table
	Title    string           `json:"title"`
	Level    string           `json:"level"`
	Kind     string           `json:"kind"` // "detection", or the correlation's type
	File     string           `json:"file"`
	Line     int              `json:"line"`
	Disabled bool             `json:"disabled,omitempty"`
	Alerts   bool             `json:"alerts"` // false: feeds correlations only
	Settings map[string]int64 `json:"thresholds,omitempty"`
}

func listed(r *rules.Rule) listedRule {
	l := listedRule{ID: r.ID, Rule: r.Table(), Title: r.Title, Level: r.Level, Kind: "detection", File: r.File, Line: r.Line, Disabled: r.Disabled, Alerts: !r.Silent}
	if r.Correlation != nil {
		l.Kind = string(r.Correlation.Type)
	}
	if r.Addition != nil {
		for _, t := range r.Addition.Thresholds {
			if l.Settings == nil {
				l.Settings = map[string]int64{}
			}
			l.Settings[t.Key] = t.Value
		}
	}
	return l
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
			all := []listedRule{}
			for _, r := range program.Rules {
				all = append(all, listed(r))
			}
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
					if l.Disabled {
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
				return exit{exitFound, refused}
			}
			return nil
		},
	}
	f.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSONで出力する", "as one JSON document"))
	return c
}

func rulesCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "check PATH...",
		Short:   lang.T("ルールを厳しく検査する", "strict check of rule files"),
		Example: "  sekisho-agent rules check my-rules/",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			// The shipped rules are compiled along: a site's correlation or filter
			// may name them.
			program, err := rules.Load(rules.LoadOptions{Builtin: true, Paths: args})
			if err != nil {
				return err
			}
			n := 0
			for _, r := range program.Rules {
				if !r.Builtin {
					n++
				}
			}
			fmt.Printf(lang.T("問題なし: ルール %d 件\n", "ok: %d rules\n"), n)
			return nil
		},
	}
}

func rulesTestCommand() *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:     "test [PATH...]",
		Short:   lang.T("ルールの試験を実行する（PATH なしなら付属のルール）", "run rule tests (without PATH those of the shipped rules)"),
		Example: "  sekisho-agent rules test\n  sekisho-agent rules test my-rules/",
		RunE: func(_ *cobra.Command, args []string) error {
			o := replay.TestOptions{Out: os.Stdout, Lang: lang.Terminal(), Verbose: verbose}
			run := func() (replay.TestSummary, error) { return replay.TestFiles(args, o) }
			if len(args) == 0 {
				run = func() (replay.TestSummary, error) { return replay.TestBuiltin(pack.Tests, o) }
			}
			sum, err := run()
			if err != nil {
				return exit{exitUsage, err}
			}
			fmt.Printf(lang.T("%d ファイル、%d 試験、失敗 %d\n", "%d files, %d tests, %d failed\n"), sum.Files, sum.Tests, sum.Failed)
			if len(sum.Problems) > 0 {
				return exit{exitFound, sum.Problems}
			}
			if sum.Failed > 0 {
				return exit{code: exitFound}
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, lang.T("試験ごとに1行", "a line per test"))
	return c
}
