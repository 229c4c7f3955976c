package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/lang"
	"sekisho/internal/store"
)

func userCommand() *cobra.Command {
	return group("user", lang.T("ログインする人を管理する", "people who may sign in"), userAdd(), userList(), userReset(), userDisable())
}

func roleOf(name string) (account.Role, error) {
	if r := account.Role(name); slices.Contains(account.Roles, r) {
		return r, nil
	}
	return "", cli.Exit(cli.Usage, fmt.Errorf(lang.T("役割 %.40q はありません。%q のどれかです", "role %.40q: want one of %q"), name, account.Roles))
}

// checkUserName keeps names to what can be typed and told apart: lower case,
// letters and digits of any script.
func checkUserName(name string) error {
	if name == "" || len(name) > 100 || name != strings.ToLower(name) {
		return cli.Exit(cli.Usage, fmt.Errorf(lang.T("利用者名 %.40q は使えません。小文字で 100 バイトまでです", "user name %.40q: want 1 to 100 bytes in lower case"), name))
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_@", r) {
			return cli.Exit(cli.Usage, fmt.Errorf(lang.T("利用者名 %.40q は使えません。文字、数字、.-_@ だけです", "user name %.40q: want letters, digits and .-_@ only"), name))
		}
	}
	return nil
}

// newPassword is the password a command sets: the first line of standard input,
// or a random one that is printed and has to be changed at the next sign-in.
func newPassword(c *cobra.Command, fromStdin bool) (hash string, oneTime string, err error) {
	var password string
	if fromStdin {
		line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", "", fmt.Errorf("read password: %w", err)
		}
		password = strings.TrimRight(line, "\r\n")
	} else {
		oneTime = account.NewPassword()
		password = oneTime
	}
	hash, err = account.HashPassword(password)
	return hash, oneTime, err
}

func userAdd() *cobra.Command {
	var s settings
	var role string
	var stdin bool
	c := &cobra.Command{
		Use: "add NAME", Short: lang.T("利用者を加え、一度限りのパスワードを表示する", "add a user and print the one-time password"),
		Example: "  sekisho-console user add sato --role analyst", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			r, err := roleOf(role)
			if err == nil {
				err = checkUserName(a[0])
			}
			if err != nil {
				return err
			}
			err = s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				hash, oneTime, err := newPassword(c, stdin)
				if err != nil {
					return account.AuditEntry{}, err
				}
				u := &account.User{Name: a[0], Role: r, PasswordHash: hash, MustChange: oneTime != "", Created: time.Now().UTC()}
				if err := db.AddUser(c.Context(), u); err != nil {
					return account.AuditEntry{}, err
				}
				if oneTime != "" {
					fmt.Fprintln(c.OutOrStdout(), oneTime)
				}
				return account.AuditEntry{Action: "user-add", Object: u.Name, Detail: role}, nil
			})
			return done(c, err, "%s を加えました（%s）", "%s was added (%s)", a[0], r)
		},
	}
	s.flag(c)
	c.Flags().StringVar(&role, "role", string(account.Viewer), lang.T("役割: viewer, analyst, admin, auditor", "viewer, analyst, admin or auditor"))
	c.Flags().BoolVar(&stdin, "password-stdin", false, lang.T("パスワードを標準入力から読む", "read the password from standard input"))
	return c
}

func userList() *cobra.Command {
	var s settings
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: lang.T("利用者の一覧", "list users"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				users, err := db.Users(c.Context())
				if err != nil {
					return none, err
				}
				type row struct {
					Name       string       `json:"name"`
					Role       account.Role `json:"role"`
					Disabled   bool         `json:"disabled"`
					MustChange bool         `json:"must_change"`
					Created    time.Time    `json:"created"`
					LastLogin  time.Time    `json:"last_login,omitzero"`
				}
				list := []row{}
				text := [][]string{{lang.T("名前", "NAME"), lang.T("役割", "ROLE"), lang.T("状態", "STATE"), lang.T("作成", "CREATED"), lang.T("最終ログイン", "LAST LOGIN")}}
				for _, u := range users {
					list = append(list, row{u.Name, u.Role, u.Disabled, u.MustChange, u.Created, u.LastLogin})
					state := lang.T("有効", "active")
					if u.Disabled {
						state = lang.T("停止", "disabled")
					} else if u.MustChange {
						state = lang.T("初回パスワード", "one-time password")
					}
					text = append(text, []string{u.Name, string(u.Role), state, when(u.Created), when(u.LastLogin)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

func userReset() *cobra.Command {
	var s settings
	var stdin bool
	c := &cobra.Command{
		Use: "reset-password NAME", Short: lang.T("新しい一度限りのパスワードを表示し、ログインをすべて切る", "print a new one-time password and end all sign-ins"),
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			err := s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				u, err := db.UserByName(c.Context(), a[0])
				if err != nil {
					return none, err
				}
				hash, oneTime, err := newPassword(c, stdin)
				if err != nil {
					return none, err
				}
				if err := db.ResetPassword(c.Context(), u.ID, hash, oneTime != ""); err != nil {
					return none, err
				}
				if oneTime != "" {
					fmt.Fprintln(c.OutOrStdout(), oneTime)
				}
				return account.AuditEntry{Action: "user-reset-password", Object: u.Name}, nil
			})
			return done(c, err, "%s のログインをすべて切りました。新しいパスワードで入れます", "%s was signed out everywhere and has a new password", a[0])
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&stdin, "password-stdin", false, lang.T("パスワードを標準入力から読む", "read the password from standard input"))
	return c
}

func userDisable() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "disable NAME", Short: lang.T("ログインできなくする（戻すには reset-password）", "keep a user from signing in (reset-password brings it back)"),
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			err := s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				u, err := db.UserByName(c.Context(), a[0])
				if err != nil {
					return none, err
				}
				if err := db.DisableUser(c.Context(), u.ID); err != nil {
					return none, err
				}
				return account.AuditEntry{Action: "user-disable", Object: u.Name}, nil
			})
			return done(c, err, "%s はもうログインできません", "%s can no longer sign in", a[0])
		},
	}
	s.flag(c)
	return c
}
