package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/lang"
	"sekisho/internal/version"

	"github.com/spf13/cobra"
)

// maxToken bounds what is read as a token.
const maxToken = 16 << 10

func enrollCommand() *cobra.Command {
	var s settings
	var file string
	c := &cobra.Command{
		Use:   "enroll [TOKEN]",
		Short: lang.T("登録トークンを使って、この PC をコンソールに登録する", "enrol this PC at the console by an enrolment token"),
		Long: lang.T("トークンは、引数、--token-file、標準入力（-）、環境変数 SEKISHO_ENROLL_TOKEN_FILE のファイル、\n設定ファイルと同じフォルダーの enroll.token の順に探す。接続先が本物のコンソールであることを確かめてから、トークンの秘密の値を送る。",
			"The token is taken from the argument, --token-file, standard input (-), the file named by SEKISHO_ENROLL_TOKEN_FILE,\nor enroll.token beside the settings. The secret is sent only after the console has proven to be the one meant."),
		Example: "  sekisho-agent enroll --token-file enroll.token\n  sekisho-agent enroll - < enroll.token",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			token, err := findToken(args, file, s.file)
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
				return cli.Exit(cli.Failure, err)
			}
			host, osVersion, err := agent.Machine(cfg.StateDir)
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			ctx, cancel := context.WithTimeout(c.Context(), 2*time.Minute)
			defer cancel()
			got, err := enroll.Enroll(ctx, token, endpoint.Identity{
				HostID: host.ID, HostName: host.Name, OS: host.OSType, OSVersion: osVersion, AgentVersion: version.Version,
			}, filepath.Join(cfg.StateDir, "identity"))
			if err != nil {
				var ee *enroll.Error
				code := cli.Failure
				if errors.As(err, &ee) {
					if ee.Code == enroll.CodeToken {
						code = cli.Usage
					}
					err = errors.New(ee.Text(lang.Terminal()))
				}
				return cli.Exit(code, err)
			}
			fmt.Printf(lang.T("%s に登録しました（id %s）\n", "enrolled at %s (id %s)\n"), got.Console, got.AgentID())
			if got.Known {
				fmt.Println(lang.T("この PC は以前にも登録されていたので、履歴を引き継ぎました", "this PC was enrolled before and keeps its history"))
			}
			if w, off := enroll.ClockWarning(got.ClockOffset); off {
				fmt.Fprintln(os.Stderr, w.Text(lang.Terminal()))
			}
			return nil
		},
	}
	s.flag(c)
	c.Flags().StringVar(&file, "token-file", "", lang.T("トークンの入ったファイル（- は標準入力）", "file that holds the token (- is standard input)"))
	return c
}

// findToken looks for the token where it may be, in the order of the help text.
func findToken(args []string, file, settingsFile string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return args[0], nil
	}
	if len(args) == 1 {
		file = "-"
	}
	if file == "" {
		file = os.Getenv("SEKISHO_ENROLL_TOKEN_FILE")
	}
	if file == "" {
		beside := filepath.Join(filepath.Dir(settingsFile), "enroll.token")
		if _, err := os.Stat(beside); err != nil {
			return "", errors.New(lang.T("登録トークンがありません。引数か --token-file で渡してください", "no enrolment token: give it as an argument or by --token-file"))
		}
		file = beside
	}
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(filepath.Clean(file))
		if err != nil {
			return "", fmt.Errorf("token: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
