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

// maxToken bounds what is read as a token from standard input, in bytes.
const maxToken = 16 << 10

func enrollCommand() *cobra.Command {
	var s settings
	var file string
	var unattended bool
	c := &cobra.Command{
		Use:   "enroll [TOKEN]",
		Short: lang.T("登録トークンを使って、この PC をコンソールに登録する", "enrol this PC at the console by an enrolment token"),
		Long: lang.T("トークンは、引数、--token-file、標準入力（-）、環境変数 SEKISHO_ENROLL_TOKEN_FILE のファイル、\n設定ファイルと同じフォルダーの enroll.token、グループポリシー（Windows）の順に探す。接続先が本物のコンソールであることを確かめてから、トークンの秘密の値を送る。",
			"The token is taken from the argument, --token-file, standard input (-), the file named by SEKISHO_ENROLL_TOKEN_FILE,\nenroll.token beside the settings, or group policy (Windows). The secret is sent only after the console has proven to be the one meant."),
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
			identity := filepath.Join(cfg.StateDir, "identity")
			if unattended {
				if id, err := enroll.Load(identity); err == nil && time.Now().Before(id.Expires()) {
					fmt.Printf(lang.T("この PC は登録済みなので、そのままにします（id %s）\n", "this PC is enrolled already and stays so (id %s)\n"), id.AgentID())
					return nil
				}
			}
			if err := agent.Secure(s.file, cfg.StateDir); err != nil {
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
			}, identity)
			if err != nil {
				code := cli.Failure
				if ee, ok := errors.AsType[*enroll.Error](err); ok {
					if unattended && ee.Passing() {
						return keepToken(token, s.file, ee)
					}
					if ee.Code == enroll.CodeToken {
						code = cli.Usage
					}
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
	c.Flags().BoolVar(&unattended, "unattended", false, lang.T("インストーラー用: 登録済みなら何もしない。コンソールに届かないときはトークンを残し、サービスが後で登録する（終了コード 1）",
		"for installers: leave a PC that is enrolled as it is; where the console is not reached keep the token, and the service enrols later (exit code 1)"))
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
		token, _, err := agent.WaitingToken(settingsFile)
		if err == nil && token == "" {
			err = errors.New(lang.T("登録トークンがありません。引数か --token-file で渡してください", "no enrolment token: give it as an argument or by --token-file"))
		}
		return token, err
	}
	if file != "-" {
		return agent.ReadToken(file)
	}
	b, err := io.ReadAll(io.LimitReader(os.Stdin, maxToken))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// keepToken leaves the token for the service, which enrols when the trouble has
// passed.
func keepToken(token, settingsFile string, trouble *enroll.Error) error {
	if err := enroll.WriteSecret(agent.WaitingFile(settingsFile), token); err != nil {
		return cli.Exit(cli.Failure, fmt.Errorf("keep the token: %w", err))
	}
	return cli.Exit(cli.Found, fmt.Errorf("%s\n%s", trouble.Text(lang.Terminal()),
		lang.T("まだ登録できていません。トークンを残したので、コンソールに届くようになるとサービスが登録します", "not enrolled yet: the token is kept, and the service enrols as soon as the console is reached")))
}
