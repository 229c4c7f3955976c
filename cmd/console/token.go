package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/api"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/store"
)

func tokenCommand() *cobra.Command {
	return group("token", lang.T("API のトークンを管理する", "tokens of the API"), tokenCreate(), tokenList(), tokenRevoke())
}

// life reads how long something is valid: "30d", "24h", or "never" where that is
// allowed (the zero time).
func life(text string, mayBeNever bool) (time.Time, error) {
	if text == "never" && mayBeNever {
		return time.Time{}, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return time.Time{}, cli.Exit(cli.Usage, fmt.Errorf(lang.T("--expires %.40q は期間ではありません（例: 24h、30d）", "--expires %.40q is not a duration (such as 24h, 30d)"), text))
	}
	if d < time.Minute || d > 10*365*24*time.Hour {
		return time.Time{}, cli.Exit(cli.Usage, errors.New(lang.T("--expires は 1 分から 10 年までです", "--expires: want a minute to ten years")))
	}
	return time.Now().UTC().Add(d).Truncate(time.Second), nil
}

func tokenCreate() *cobra.Command {
	var s settings
	var name, role, expires string
	c := &cobra.Command{
		Use: "create", Short: lang.T("トークンを作り、一度だけ表示する", "make a token and print it, this once"),
		Example: "  sekisho-console token create --role viewer --name SIEM --expires 365d", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := roleOf(role)
			if err != nil {
				return err
			}
			until, err := life(expires, true)
			if err != nil {
				return err
			}
			if name == "" {
				name = operator()
			}
			if len(name) > 200 {
				return cli.Exit(cli.Usage, errors.New(lang.T("--name が 200 バイトを超えています", "--name is longer than 200 bytes")))
			}
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				t, text := api.NewToken(name, r, until)
				if err := db.AddToken(c.Context(), t); err != nil {
					return none, err
				}
				fmt.Fprintln(c.OutOrStdout(), text)
				return account.AuditEntry{Action: "token-create", Object: t.ID, Detail: fmt.Sprintf("%s (%s, %s)", name, r, expires)}, nil
			})
		},
	}
	s.flag(c)
	c.Flags().StringVar(&name, "name", "", lang.T("何のためのトークンか（既定: 作った人）", "what the token is for (default: who made it)"))
	c.Flags().StringVar(&role, "role", string(account.Viewer), lang.T("役割: viewer, analyst", "viewer or analyst"))
	c.Flags().StringVar(&expires, "expires", "365d", lang.T("有効期間（例: 30d）。never で無期限", "how long it is valid (such as 30d), or never"))
	return c
}

func tokenList() *cobra.Command {
	var s settings
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: lang.T("トークンの一覧", "list tokens"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				tokens, err := db.Tokens(c.Context())
				if err != nil {
					return none, err
				}
				type row struct {
					ID       string       `json:"id"`
					Name     string       `json:"name"`
					Role     account.Role `json:"role"`
					Created  time.Time    `json:"created"`
					Expires  time.Time    `json:"expires,omitzero"`
					LastUsed time.Time    `json:"last_used,omitzero"`
					Revoked  bool         `json:"revoked"`
				}
				list := []row{}
				text := [][]string{{"ID", lang.T("用途", "NAME"), lang.T("役割", "ROLE"), lang.T("状態", "STATE"), lang.T("期限", "EXPIRES"), lang.T("最後の使用", "LAST USED")}}
				for _, t := range tokens {
					list = append(list, row{t.ID, t.Name, t.Role, t.Created, t.Expires, t.LastUsed, t.Revoked})
					text = append(text, []string{t.ID, t.Name, string(t.Role), standing(t.Revoked, t.Expires, false), when(t.Expires), when(t.LastUsed)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

// standing says whether a token still works; a zero expiry is none.
func standing(revoked bool, expires time.Time, usedUp bool) string {
	switch {
	case revoked:
		return lang.T("取り消し", "revoked")
	case !expires.IsZero() && time.Now().After(expires):
		return lang.T("期限切れ", "expired")
	case usedUp:
		return lang.T("使用済み", "used up")
	}
	return lang.T("有効", "active")
}

func tokenRevoke() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "revoke ID", Short: lang.T("トークンを使えなくする", "make a token useless"), Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			err := s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				return account.AuditEntry{Action: "token-revoke", Object: a[0]}, db.RevokeToken(c.Context(), a[0])
			})
			return done(c, err, "トークン %s はもう使えません", "token %s is no longer accepted", a[0])
		},
	}
	s.flag(c)
	return c
}
