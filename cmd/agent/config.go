package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

// defaultAgentFile is where installers put the settings.
func defaultAgentFile() string {
	if runtime.GOOS == "windows" {
		return filepath.Join(config.DefaultAgent().StateDir, "agent.yaml")
	}
	return "/etc/sekisho/agent.yaml"
}

func checkCommand() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use:     "check",
		Short:   lang.T("設定とルールを検査し、問題をすべて一度に示す", "every problem of settings and rules at once"),
		Example: "  sekisho-agent check --config /etc/sekisho/agent.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			n, err := agent.CheckSettings(s.file)
			if err != nil {
				return cli.Exit(cli.Found, err)
			}
			fmt.Printf(lang.T("%s: 問題ありません（ルール %d 件）\n", "%s: ok, %d rules\n"), s.file, n)
			return nil
		},
	}
	s.flag(c)
	return c
}

func configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: lang.T("設定の表示", "show the settings")}
	var s settings
	var origin, asJSON bool
	show := &cobra.Command{
		Use:   "show",
		Short: lang.T("有効な設定の一覧（--origin: 値の出どころも示す）", "effective settings (--origin: where each comes from)"),
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			all := cfg.Settings()
			if asJSON {
				type row struct {
					Path   string `json:"path"`
					Value  string `json:"value"`
					Origin string `json:"origin"`
				}
				rows := make([]row, len(all))
				for i, x := range all {
					rows[i] = row{x.Path, x.Value, x.Origin.String()}
				}
				return printJSON(rows)
			}
			for _, x := range all {
				line := x.Path + ": " + x.Value
				if origin {
					line = runewidth.FillRight(line, 56) + "  # " + x.Origin.String()
				}
				fmt.Println(line)
			}
			return nil
		},
	}
	s.flag(show)
	show.Flags().BoolVar(&origin, "origin", false, lang.T("値ごとに出どころを示す", "tell where each value comes from"))
	show.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	schema := &cobra.Command{
		Use:   "schema",
		Short: lang.T("設定の JSON Schema", "the JSON schema of the settings"),
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := os.Stdout.Write(config.AgentSchema())
			return err
		},
	}
	c.AddCommand(show, schema)
	return c
}

// configureCommand writes a first settings file, for installers. An existing
// file is never touched.
func configureCommand() *cobra.Command {
	var s settings
	var department string
	var tags []string
	var dryRun bool
	c := &cobra.Command{
		Use:     "configure",
		Short:   lang.T("インストーラー用: 設定ファイルがなければ作る", "for installers: write a settings file if there is none"),
		Example: "  sekisho-agent configure --department 教育委員会 --tag sensitive",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			var b strings.Builder
			b.WriteString(lang.T("# 関所エージェントの設定。すべての項目の説明は configs/agent.yaml（見本）にあります。\n", "# Settings of the Sekisho agent. configs/agent.yaml shows every setting.\n"))
			b.WriteString("host:\n")
			fmt.Fprintf(&b, "  department: %q\n", department)
			b.WriteString("  tags: [")
			for i, t := range tags {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "%q", t)
			}
			b.WriteString("]\n")
			if _, err := config.ParseAgent(s.file, []byte(b.String())); err != nil {
				return cli.Exit(cli.Usage, err)
			}
			if dryRun {
				fmt.Print(b.String())
				return nil
			}
			if err := agent.SecureSettings(s.file); err != nil {
				return cli.Exit(cli.Failure, err)
			}
			f, err := os.OpenFile(s.file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
			if errors.Is(err, fs.ErrExist) {
				fmt.Fprintf(os.Stderr, lang.T("%s はすでにあるので、変更しません\n", "%s is there already and stays as it is\n"), s.file)
				return nil
			}
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			_, err = f.WriteString(b.String())
			if err = errors.Join(err, f.Close()); err != nil {
				return cli.Exit(cli.Failure, err)
			}
			return nil
		},
	}
	s.flag(c)
	c.Flags().StringVar(&department, "department", "", lang.T("部署", "department"))
	c.Flags().StringSliceVar(&tags, "tag", nil, lang.T("PC に付けるタグ（sensitive, maintenance など。繰り返し可）", "tag of the PC (sensitive, maintenance ...; may be repeated)"))
	c.Flags().BoolVar(&dryRun, "dry-run", false, lang.T("内容を表示するだけで、書き込まない", "show it and write nothing"))
	return c
}
