// Command sekisho-console is the collector of agents and the console for people
// in one program, and the tool to look after both.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/store"
)

func main() { os.Exit(run()) }

// run is the whole program; it answers the exit code.
func run() int {
	return cli.Report("sekisho-console", root().ExecuteContext(context.Background()), causes...)
}

// causes are what a person at the terminal can do something about.
var causes = []cli.Cause{
	{Err: store.ErrMissing, JA: "登録されていません。何があるかは list で確かめられます", EN: "`list` shows what there is"},
	{Err: store.ErrExists, JA: "同じ名前のものがもうあります。別の名前にしてください", EN: "choose another name"},
	{Err: store.ErrLastAdmin, JA: "ログインできる最後の管理者です。先に別の管理者を加えてください", EN: "add another one first"},
	{Err: store.ErrNewer, JA: "このデータベースは新しい版のものです。その版以降の sekisho-console を使ってください", EN: "use that version or a later one"},
	{Err: store.ErrDamaged, JA: "データベースが壊れているか、データベースではありません。sekisho-console を止め、控え（backup で作ったもの）を storage.sqlite の場所に戻してください", EN: "stop the console and put a copy made by `backup` in its place"},
	{Err: store.ErrFull, JA: "データベースのあるディスクに空きがありません。空きを作ってください", EN: "make room on its disk"},
	{Err: account.ErrPasswordLen, JA: "パスワードは 10〜256 文字にしてください", EN: "choose another one"},
	{Err: syscall.EADDRINUSE, JA: portTakenJA, EN: portTakenEN},
	{Err: syscall.Errno(10048), JA: portTakenJA, EN: portTakenEN}, // WSAEADDRINUSE: what Windows says
	{Err: syscall.EADDRNOTAVAIL, JA: "この機械にないアドレスです。設定の listen を直してください", EN: "this machine does not have that address: mend listen in the settings"},
	{Err: fs.ErrNotExist, JA: "ファイルかフォルダーがありません。名前を確かめてください", EN: "check the name"},
	{Err: fs.ErrPermission, JA: "権限がありません。root（Windows では管理者）で実行してください", EN: "run as root (on Windows: as administrator)"},
}

const (
	portTakenJA = "そのポートは別のプログラムが使っています。そのプログラムを止めるか、設定の listen で別のポートを選んでください"
	portTakenEN = "another program has that port: stop it, or choose another port under listen in the settings"
)

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "sekisho-console",
		Short:         lang.T("関所のコンソール: エージェントからの記録を受け取り、画面で見せる", "Sekisho console: collects from agents and shows it to people"),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	c.AddCommand(serveCommand(), userCommand(), tokenCommand(), enrollTokenCommand(), endpointCommand(),
		backupCommand(), verifyCommand(), migrateCommand(), checkCommand(), versionCommand())
	cli.Finish(c, func(err error) error { return cli.Exit(cli.Usage, err) })
	return c
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	c.AddCommand(subs...)
	return c
}

// settings is the --config flag that every command but version has.
type settings struct{ file string }

func (s *settings) flag(c *cobra.Command) {
	c.Flags().StringVar(&s.file, "config", defaultConfig(), lang.T("設定ファイル", "settings file"))
}

// load reads the settings. With problems in them nothing can be done: that is
// input that cannot be read, except for `check`, whose answer they are.
func (s *settings) load() (*config.Console, error) {
	cfg, err := config.LoadConsole(s.file)
	if err != nil {
		return nil, cli.Exit(cli.Usage, err)
	}
	return cfg, nil
}

// open opens the database that the settings name, beside a running server or
// without one.
func (s *settings) open(ctx context.Context) (*config.Console, *store.SQLite, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, nil, err
	}
	db, err := store.OpenSQLite(ctx, cfg.Storage.SQLite)
	return cfg, db, err
}

// change runs what a command does to the database, and writes it to the audit
// log.
func (s *settings) change(ctx context.Context, do func(cfg *config.Console, db *store.SQLite) (account.AuditEntry, error)) (err error) {
	cfg, db, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	e, err := do(cfg, db)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrLastAdmin) || errors.Is(err, account.ErrPasswordLen) {
		return cli.Exit(cli.Usage, err)
	}
	if err != nil || e.Action == "" {
		return err
	}
	e.Time, e.Who, e.Remote = time.Now().UTC(), operator(), "cli"
	return db.Audit(ctx, e)
}

// done tells that a command has done what was asked, if it has: on standard
// error, where it is in nobody's way who reads what a command prints.
func done(c *cobra.Command, err error, ja, en string, args ...any) error {
	if err == nil {
		fmt.Fprintf(c.ErrOrStderr(), lang.T(ja, en)+"\n", args...)
	}
	return err
}

// operator is who uses the command line, for the audit log: root by sudo is the
// person, if sudo says who.
func operator() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if by := os.Getenv("SUDO_USER"); by != "" && by != name {
		name += " (sudo " + by + ")"
	}
	return "cli:" + name
}

// defaultConfig is SEKISHO_CONFIG, else the system's usual place.
func defaultConfig() string {
	if f := os.Getenv("SEKISHO_CONFIG"); f != "" {
		return f
	}
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("ProgramData"), "Sekisho Console", "console.yaml")
	}
	return "/etc/sekisho/console.yaml"
}

// show prints a list as JSON or as a table.
func show(c *cobra.Command, asJSON bool, list any, text [][]string) error {
	if asJSON {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	return table(c.OutOrStdout(), text)
}

// table writes rows in columns of equal width on a terminal, where Japanese
// letters are two cells wide.
func table(w io.Writer, rows [][]string) error {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], runewidth.StringWidth(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			line.WriteString(runewidth.FillRight(cell, widths[i]) + "  ")
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// when is a time for a table.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}
