package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/api"
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
	return "", cli.Exit(cli.Usage, fmt.Errorf("role %.40q: want one of %q", name, account.Roles))
}

// checkUserName keeps names to what can be typed and told apart: lower case,
// letters and digits of any script.
func checkUserName(name string) error {
	if name == "" || len(name) > 100 || name != strings.ToLower(name) {
		return cli.Exit(cli.Usage, fmt.Errorf("user name %.40q: want 1 to 100 bytes in lower case", name))
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_@", r) {
			return cli.Exit(cli.Usage, fmt.Errorf("user name %.40q: want letters, digits and .-_@ only", name))
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
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
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
				return account.AuditEntry{Action: "user-add", Object: u.Name, Detail: "role " + role}, nil
			})
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
				text := [][]string{{"NAME", "ROLE", "STATE", "CREATED", "LAST LOGIN"}}
				for _, u := range users {
					list = append(list, row{u.Name, u.Role, u.Disabled, u.MustChange, u.Created, u.LastLogin})
					state := "active"
					if u.Disabled {
						state = "disabled"
					} else if u.MustChange {
						state = "one-time password"
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

// show prints a list as JSON or as a table.
func show(c *cobra.Command, asJSON bool, list any, text [][]string) error {
	if asJSON {
		e := json.NewEncoder(c.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(list)
	}
	return table(c.OutOrStdout(), text)
}

func userReset() *cobra.Command {
	var s settings
	var stdin bool
	c := &cobra.Command{
		Use: "reset-password NAME", Short: lang.T("新しい一度限りのパスワードを表示し、ログインをすべて切る", "print a new one-time password and end all sign-ins"),
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
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
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				u, err := db.UserByName(c.Context(), a[0])
				if err != nil {
					return none, err
				}
				if err := db.DisableUser(c.Context(), u.ID); err != nil {
					return none, err
				}
				return account.AuditEntry{Action: "user-disable", Object: u.Name}, nil
			})
		},
	}
	s.flag(c)
	return c
}

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
		return time.Time{}, cli.Exit(cli.Usage, fmt.Errorf("--expires %.40q: %w", text, err))
	}
	if d < time.Minute || d > 10*365*24*time.Hour {
		return time.Time{}, cli.Exit(cli.Usage, errors.New("--expires: want a minute to ten years"))
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
				return cli.Exit(cli.Usage, errors.New("--name is longer than 200 bytes"))
			}
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				t, text := api.NewToken(name, r, until)
				if err := db.AddToken(c.Context(), t); err != nil {
					return none, err
				}
				fmt.Fprintln(c.OutOrStdout(), text)
				return account.AuditEntry{Action: "token-create", Object: t.ID, Detail: fmt.Sprintf("%q, role %s, expires %s", name, r, expires)}, nil
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
				text := [][]string{{"ID", "NAME", "ROLE", "STATE", "EXPIRES", "LAST USED"}}
				for _, t := range tokens {
					list = append(list, row{t.ID, t.Name, t.Role, t.Created, t.Expires, t.LastUsed, t.Revoked})
					text = append(text, []string{t.ID, t.Name, string(t.Role), standing(t.Revoked, t.Expires), when(t.Expires), when(t.LastUsed)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

func standing(revoked bool, expires time.Time) string {
	switch {
	case revoked:
		return "revoked"
	case !expires.IsZero() && time.Now().After(expires):
		return "expired"
	}
	return "active"
}

func tokenRevoke() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "revoke ID", Short: lang.T("トークンを使えなくする", "make a token useless"), Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				return account.AuditEntry{Action: "token-revoke", Object: a[0]}, db.RevokeToken(c.Context(), a[0])
			})
		},
	}
	s.flag(c)
	return c
}

func endpointCommand() *cobra.Command {
	return group("endpoint", lang.T("登録された PC を管理する", "enrolled PCs"), endpointList(), endpointRevoke())
}

func endpointList() *cobra.Command {
	var s settings
	var asJSON bool
	c := &cobra.Command{
		Use: "list", Short: lang.T("PC の一覧", "list PCs"), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				eps, err := db.Endpoints(c.Context())
				if err != nil {
					return none, err
				}
				list := []any{}
				text := [][]string{{"AGENT", "HOST", "DEPARTMENT", "HEALTH", "LAST SEEN", "OPEN"}}
				now := time.Now()
				for _, e := range eps {
					list = append(list, api.Endpoint{Record: e, Health: e.Health(now)})
					text = append(text, []string{e.AgentID, e.HostName, cmp.Or(e.Department, "-"), string(e.Health(now)), when(e.LastSeen), strconv.Itoa(e.OpenAlerts)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

func endpointRevoke() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "revoke AGENT", Short: lang.T("PC の証明書を使えなくする（30 秒以内に効く）", "no longer accept a PC's certificate (takes effect within 30 s)"), Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			return s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (account.AuditEntry, error) {
				return account.AuditEntry{Action: "endpoint-revoke", Object: a[0]}, db.Revoke(c.Context(), a[0])
			})
		},
	}
	s.flag(c)
	return c
}
