package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/enroll"
	"sekisho/internal/lang"
	"sekisho/internal/store"
)

func enrollTokenCommand() *cobra.Command {
	return group("enroll-token", lang.T("PC を登録するためのトークンを管理する", "tokens by which PCs enrol"), enrollTokenCreate(), enrollTokenList(), enrollTokenRevoke())
}

func enrollTokenCreate() *cobra.Command {
	var s settings
	var department, expires string
	var uses int
	var addresses []string
	c := &cobra.Command{
		Use: "create", Short: lang.T("登録トークンを作り、一度だけ表示する", "make an enrolment token and print it, this once"),
		Example: `  sekisho-console enroll-token create --uses 1 --department 総務課
  sekisho-console enroll-token create --uses 500 --expires 14d --address console.example.jp:8443`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			until, err := life(expires, false)
			if err != nil {
				return err
			}
			return s.change(c.Context(), func(cfg *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				ca, err := enroll.OpenCA(caDir(cfg))
				if err != nil {
					return none, err
				}
				if len(addresses) == 0 {
					addresses = agentAddresses(cfg)
				}
				t, err := enroll.NewToken(addresses, ca.Pin(), department, uses, until)
				if err != nil {
					return none, cli.Exit(cli.Usage, fmt.Errorf(lang.T("登録トークンを作れません。--uses は 1〜65,535、--department は 200 バイトまで、--address は host:port で 8 つまで（%w）", "%w"), err))
				}
				if err := db.AddEnrollToken(c.Context(), account.EnrollToken{
					ID: t.ID, Hash: enroll.SecretHash(t.SecretText()), Department: department, Uses: uses, Created: time.Now().UTC(), Expires: t.Expires,
				}); err != nil {
					return none, err
				}
				fmt.Fprintln(c.OutOrStdout(), t)
				fmt.Fprintf(c.ErrOrStderr(), lang.T("%d 台まで、%s まで。接続先: %v\n", "for %d PCs, until %s, by %v\n"), uses, when(t.Expires), addresses)
				return account.AuditEntry{Action: "enroll-token-create", Object: t.ID, Detail: fmt.Sprintf("%s ×%d (%s)", cmp.Or(department, "–"), uses, expires)}, nil
			})
		},
	}
	s.flag(c)
	c.Flags().IntVar(&uses, "uses", 1, lang.T("登録できる台数", "how many PCs may enrol"))
	c.Flags().StringVar(&department, "department", "", lang.T("その PC の部署", "department of the PCs"))
	c.Flags().StringVar(&expires, "expires", "7d", lang.T("有効期間（例: 24h、14d）", "how long it is valid (such as 24h, 14d)"))
	c.Flags().StringSliceVar(&addresses, "address", nil, lang.T("PC から見たコンソールのアドレス host:port（既定: 設定の names）", "host:port by which PCs reach the console (default: names of the settings)"))
	return c
}

// agentAddresses are where PCs reach the collector: the names of the settings,
// else the address it listens on, else what this machine is called.
func agentAddresses(cfg *config.Console) []string {
	host, port, err := net.SplitHostPort(cfg.Listen.Agents)
	if err != nil {
		return []string{cfg.Listen.Agents}
	}
	names := cfg.Names
	if ip := net.ParseIP(host); len(names) == 0 && host != "" && (ip == nil || !ip.IsUnspecified()) {
		names = []string{host}
	}
	if len(names) == 0 {
		if h, err := os.Hostname(); err == nil {
			names = append(names, h)
		}
		for _, n := range enroll.ServerNames(nil) {
			if ip := net.ParseIP(n); ip != nil && !ip.IsLoopback() && len(names) < 4 {
				names = append(names, n)
			}
		}
	}
	var out []string
	for _, n := range names {
		out = append(out, net.JoinHostPort(n, port))
	}
	return out[:min(len(out), 8)] // what a token can hold
}

func enrollTokenList() *cobra.Command {
	var s settings
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: lang.T("登録トークンの一覧", "list enrolment tokens"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				tokens, err := db.EnrollTokens(c.Context())
				if err != nil {
					return none, err
				}
				type row struct {
					ID         string    `json:"id"`
					Department string    `json:"department"`
					Uses       int       `json:"uses"`
					Used       int       `json:"used"`
					Created    time.Time `json:"created"`
					Expires    time.Time `json:"expires"`
					Revoked    bool      `json:"revoked"`
				}
				list := []row{}
				text := [][]string{{"ID", lang.T("部署", "DEPARTMENT"), lang.T("使用", "USED"), lang.T("状態", "STATE"), lang.T("期限", "EXPIRES")}}
				for _, t := range tokens {
					list = append(list, row{t.ID, t.Department, t.Uses, t.Used, t.Created, t.Expires, t.Revoked})
					state := standing(t.Revoked, t.Expires, t.Used >= t.Uses)
					text = append(text, []string{t.ID, cmp.Or(t.Department, "-"), fmt.Sprintf("%d/%d", t.Used, t.Uses), state, when(t.Expires)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

func enrollTokenRevoke() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "revoke ID|TOKEN", Short: lang.T("登録トークンを使えなくする", "make an enrolment token useless"), Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			id := a[0]
			if t, err := enroll.ParseToken(id); err == nil {
				id = t.ID
			} else if len(id) > 20 {
				return cli.Exit(cli.Usage, errors.New(lang.T("トークンの ID でも、トークンの全体でもありません", "neither the id of a token nor a whole one")))
			}
			err := s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				return account.AuditEntry{Action: "enroll-token-revoke", Object: id}, db.RevokeEnrollToken(c.Context(), id)
			})
			return done(c, err, "登録トークン %s はもう使えません", "enrolment token %s is no longer accepted", id)
		},
	}
	s.flag(c)
	return c
}
