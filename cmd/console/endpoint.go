package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sekisho/internal/account"
	"sekisho/internal/api"
	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/lang"
	"sekisho/internal/store"
)

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
				text := [][]string{{lang.T("ID", "AGENT"), lang.T("端末", "HOST"), lang.T("部署", "DEPARTMENT"), lang.T("状態", "HEALTH"), lang.T("最終連絡", "LAST SEEN"), lang.T("未完了", "OPEN")}}
				now := time.Now()
				for _, e := range eps {
					list = append(list, api.Endpoint{Record: e, Health: e.Health(now)})
					text = append(text, []string{e.AgentID, e.HostName, cmp.Or(e.Department, "-"), healthText(e.Health(now)), when(e.LastSeen), strconv.Itoa(e.OpenAlerts)})
				}
				return none, show(c, asJSON, list, text)
			})
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "JSON")
	return c
}

// healthText is a health as the console's pages call it.
func healthText(h endpoint.Health) string {
	ja := map[endpoint.Health]string{endpoint.Healthy: "正常", endpoint.Degraded: "要確認", endpoint.Late: "遅延", endpoint.Silent: "沈黙", endpoint.Revoked: "失効"}
	return lang.T(cmp.Or(ja[h], string(h)), string(h))
}

func endpointRevoke() *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use: "revoke AGENT", Short: lang.T("PC の証明書を使えなくする（30 秒以内に効く）", "no longer accept a PC's certificate (takes effect within 30 s)"), Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			var host string
			err := s.change(c.Context(), func(_ *config.Console, db *store.SQLite) (none account.AuditEntry, err error) {
				pc, err := db.Endpoint(c.Context(), a[0])
				if err != nil {
					return none, err
				}
				host = pc.HostName
				return account.AuditEntry{Action: "endpoint-revoke", Object: a[0], Detail: host}, db.Revoke(c.Context(), a[0])
			})
			return done(c, err, "%q の記録は、遅くとも 30 秒後から受け取りません。戻すには新しい登録トークンで登録し直します", "%q is refused from now on, at the latest in 30 s; to bring it back, enrol it with a new token", host)
		},
	}
	s.flag(c)
	return c
}
