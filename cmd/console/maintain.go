package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/store"
	"sekisho/internal/version"
)

func backupCommand() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "backup FILE", Short: lang.T("データベースの写しを作る（動かしたままでよい）", "copy the database to a file (the console may run on)"),
		Long: lang.T("証明機関の鍵（data_dir/ca）は含みません。別に保管してください。", "The keys of the certificate authority (data_dir/ca) are not in it: keep them apart."),
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			ctx, stop := cli.UntilStopped(c) // leaves no half copy behind
			defer stop()
			err := s.change(ctx, func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				err := db.Backup(ctx, a[0])
				return account.AuditEntry{Action: "backup", Object: a[0]}, err
			})
			return done(c, err, "%s に写しました", "copied to %s", a[0])
		},
	}
	s.flag(c)
	return c
}

func verifyCommand() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "verify [FILE]", Short: lang.T("データベース、または控え FILE が壊れていないか調べる", "look whether the database, or the copy FILE, is whole"),
		Long: lang.T("全体を読むので、大きなデータベースでは数分かかります。動かしたままでできます。", "It reads all of it, which takes minutes where it is large. The console may run on."),
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			file := ""
			if len(a) > 0 {
				file = a[0]
			} else {
				cfg, err := s.load()
				if err != nil {
					return err
				}
				file = cfg.Storage.SQLite
			}
			ctx, stop := cli.UntilStopped(c)
			defer stop()
			problems, err := store.Verify(ctx, file)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintf(c.ErrOrStderr(), "%s: %s\n", file, p)
			}
			if len(problems) > 0 {
				return cli.Exit(cli.Found, store.ErrDamaged)
			}
			fmt.Fprintf(c.OutOrStdout(), lang.T("%s: 壊れていません\n", "%s: whole\n"), file)
			return nil
		},
	}
	s.flag(c)
	return c
}

func migrateCommand() *cobra.Command {
	var s settings
	var dry bool
	c := &cobra.Command{
		Use: "migrate", Short: lang.T("データベースをこの版の形にする（serve も最初に行う）", "bring the database to this version's form (serve does so, too)"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			has, knows, err := store.SchemaVersions(c.Context(), cfg.Storage.SQLite)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "schema %d -> %d\n", has, max(has, knows))
			if has > knows {
				return fmt.Errorf("%s: %w: schema %d, this program knows %d", cfg.Storage.SQLite, store.ErrNewer, has, knows)
			}
			if dry || err == nil && has == knows {
				return nil
			}
			_, db, err := s.open(c.Context())
			if err != nil {
				return err
			}
			return db.Close()
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&dry, "dry-run", false, lang.T("調べるだけ", "only look"))
	return c
}

func checkCommand() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "check", Short: lang.T("設定の問題をすべて表示する", "tell every problem of the settings"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.LoadConsole(s.file)
			if err != nil {
				return err
			}
			found := 0
			tell := func(where, ja, en string) {
				found++
				fmt.Fprintf(c.ErrOrStderr(), "%s: %s: %s\n", s.file, where, lang.T(ja, en))
			}
			if t := cfg.Web.TLS; t.CertFile != "" {
				if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
					tell("web.tls", "証明書と鍵を使えません: "+err.Error(), "the certificate and key cannot be used: "+err.Error())
				}
			}
			if err := writable(cfg.DataDir); err != nil {
				tell("data_dir", "書き込めません: "+err.Error(), "cannot be written to: "+err.Error())
			}
			switch has, knows, err := store.SchemaVersions(c.Context(), cfg.Storage.SQLite); {
			case errors.Is(err, fs.ErrNotExist):
			case errors.Is(err, store.ErrDamaged):
				tell("storage.sqlite", "データベースが壊れているか、データベースではありません: "+err.Error(), err.Error())
			case err != nil:
				tell("storage.sqlite", "読めません: "+err.Error(), "cannot be read: "+err.Error())
			case has > knows:
				tell("storage.sqlite", "より新しい版のデータベースです", store.ErrNewer.Error())
			}
			if found > 0 {
				return cli.Exit(cli.Found, nil)
			}
			fmt.Fprintln(c.OutOrStdout(), lang.T("問題はありません", "no problems"))
			return nil
		},
	}
	s.flag(c)
	return c
}

// writable reports whether files can be made in a folder, or in the nearest one
// above it that exists.
func writable(dir string) error {
	for {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if parent := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		return err
	}
	f, err := os.CreateTemp(dir, ".sekisho-check-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: lang.T("版を表示する", "print the version"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit,omitempty"`
				Date    string `json:"date,omitempty"`
				Go      string `json:"go"`
				OS      string `json:"os"`
			}{version.Version, version.Commit, version.Date, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return show(c, asJSON, v, [][]string{{"sekisho-console", v.Version}, {"commit", v.Commit}, {"go", v.Go + " " + v.OS}})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}
