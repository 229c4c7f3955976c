package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/lang"
	"sekisho/internal/version"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

const goVersion = runtime.GOOS + "/" + runtime.GOARCH

func doctorCommand() *cobra.Command {
	var s settings
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: lang.T("この PC を点検し（権限、設定、センサー、接続、時計）、直し方を示す", "checks this PC: rights, settings, sensors, connection, clock; says what to do"),
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			checks := agent.Doctor(c.Context(), s.file)
			failed := false
			for _, k := range checks {
				failed = failed || k.Result == agent.CheckFailed
			}
			if asJSON {
				if err := printJSON(checks); err != nil {
					return err
				}
			} else {
				printChecks(checks)
			}
			if failed {
				return cli.Exit(cli.Found, nil)
			}
			return nil
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}

func printChecks(checks []agent.Check) {
	l := lang.Terminal()
	word := map[agent.CheckResult]string{
		agent.CheckOK:      lang.T("○ 正常", "ok"),
		agent.CheckWarning: lang.T("△ 注意", "WARNING"),
		agent.CheckFailed:  lang.T("× 異常", "FAILED"),
	}
	for _, k := range checks {
		fmt.Printf("%s %s %s  %s\n", k.Code, runewidth.FillRight(word[k.Result], 8), runewidth.FillRight(k.Name.In(l), 24), k.Why.In(l))
		if next := k.Next.In(l); next != "" {
			fmt.Printf("%17s-> %s\n", "", next)
		}
	}
}

func bundleCommand() *cobra.Command {
	var s settings
	var withNames bool
	c := &cobra.Command{
		Use:     "support-bundle FILE.zip",
		Short:   lang.T("問い合わせ用の ZIP を作る（鍵やトークンは入れず、名前は仮名にする。どこにも送らない）", "an archive for support: no secrets, names as pseudonyms; sends nothing"),
		Example: "  sekisho-agent support-bundle sekisho.zip",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			files, err := agent.Bundle(c.Context(), s.file, map[string]string{"version": version.Version, "commit": version.Commit, "date": version.Date, "system": goVersion}, withNames)
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			fmt.Println(lang.T("入っているもの:", "It holds:"))
			for _, f := range files {
				fmt.Printf("  %s  %d\n", runewidth.FillRight(f.Name, 32), len(f.Data))
			}
			out, err := os.OpenFile(filepath.Clean(args[0]), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			err = agent.WriteBundle(out, files)
			if cerr := out.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				os.Remove(out.Name())
				return cli.Exit(cli.Failure, err)
			}
			return nil
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&withNames, "with-names", false, lang.T("PC 名やアカウント名を仮名にせず、そのまま入れる", "keep the names of PCs and accounts"))
	return c
}
