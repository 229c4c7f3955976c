package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sekisho/internal/account"
)

type auditPage struct {
	frame
	Rows []auditRow
	Next string
}

type auditRow struct {
	account.AuditEntry
	What  string // the action in words
	About string // the detail, in words where it is codes of ours
	Link  string // to what it was done to
}

// codes is a detail that is nothing but codes of ours in words: "close
// approved-work" of a page, "closed approved-work" of the API, a role.
func (p *printer) codes(detail string) string {
	words := strings.Fields(detail)
	for i, w := range words {
		for _, key := range []string{"triage." + w, "state." + w, "reason." + w, "role." + w} {
			if p.has(key) {
				words[i] = p.t(key)
				break
			}
		}
	}
	return strings.Join(words, p.t("list.and"))
}

// audit is the audit log, newest first, 100 a page.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	var before int64 // entries are told apart by their number: many may be of one instant
	if at := r.URL.Query().Get("before"); at != "" {
		var err error
		if before, err = strconv.ParseInt(at, 10, 64); err != nil || before < 1 {
			return fmt.Errorf("%w: before %q", errBadRequest, cut(at, 40))
		}
	}
	entries, err := s.o.Store.AuditLog(r.Context(), before, pageSize)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	page := auditPage{frame: s.frame(r, v.p.t("nav.audit"), "audit")}
	for _, e := range entries {
		row := auditRow{AuditEntry: e, What: v.p.plain(e.Action, 60), About: e.Detail}
		if key := "audit." + e.Action; v.p.has(key) {
			row.What = v.p.t(key)
		}
		if e.Action == "alert-change" || e.Action == "user-add" {
			row.About = v.p.codes(e.Detail)
		}
		if v.user.Role.Can(account.Viewer) {
			switch e.Action {
			case "alert-view", "alert-change":
				row.Link = "/alerts/" + url.PathEscape(e.Object)
			case "endpoint-view", "endpoint-revoke", "enrol", "enrol-again":
				row.Link = "/endpoints/" + url.PathEscape(e.Object)
			}
		}
		page.Rows = append(page.Rows, row)
	}
	if len(entries) == pageSize {
		page.Next = "/audit?before=" + strconv.FormatInt(entries[len(entries)-1].N, 10)
	}
	return s.render(w, r, http.StatusOK, "audit", page)
}
