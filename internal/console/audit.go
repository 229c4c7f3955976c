package console

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"sekisho/internal/account"
)

type auditPage struct {
	frame
	Rows []auditRow
	Next string
}

type auditRow struct {
	account.AuditEntry
	What string // the action in words
	Link string // to what it was done to
}

// audit is the audit log, newest first, 100 a page.
func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	before := time.Now().UTC().Add(time.Minute)
	if at := r.URL.Query().Get("before"); at != "" {
		t, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			return fmt.Errorf("%w: before: %w", errBadRequest, err)
		}
		before = t
	}
	entries, err := s.o.Store.AuditLog(r.Context(), before, pageSize)
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	page := auditPage{frame: s.frame(r, v.p.t("nav.audit"), "audit")}
	for _, e := range entries {
		row := auditRow{AuditEntry: e, What: v.p.plain(e.Action, 60)}
		if key := "audit." + e.Action; v.p.has(key) {
			row.What = v.p.t(key)
		}
		if (e.Action == "alert-view" || e.Action == "alert-change") && v.user.Role.Can(account.Viewer) {
			row.Link = "/alerts/" + url.PathEscape(e.Object)
		}
		page.Rows = append(page.Rows, row)
	}
	if len(entries) == pageSize {
		page.Next = "/audit?before=" + url.QueryEscape(entries[len(entries)-1].Time.UTC().Format(time.RFC3339Nano))
	}
	return s.render(w, r, http.StatusOK, "audit", page)
}
