package store

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/alert"
)

// Lists of alerts are read from an index, in order of time and up to the limit,
// however many alerts there are.
func TestListsAreReadFromAnIndex(t *testing.T) {
	s, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	plan := func(query string, args ...any) (steps []string) {
		rows, err := s.rdb.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			steps = append(steps, step)
		}
		return steps
	}
	const bySort = "USE TEMP B-TREE FOR ORDER BY"
	at := time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		f     alert.Filter
		index string // that each arm is read from
		sorts bool   // the few that were found have to be sorted
	}{
		"everything":           {alert.Filter{Tests: true}, "alerts_time", false},
		"no tests":             {alert.Filter{}, "alerts_time", false},
		"a later page":         {alert.Filter{After: cursor(at.UnixNano(), "k")}, "alerts_time ((ts_ns,key)<(?,?))", false},
		"to triage":            {alert.Filter{States: []alert.State{alert.Open}}, "alerts_state (state=?)", false},
		"closed, a later page": {alert.Filter{States: []alert.State{alert.Closed}, After: cursor(at.UnixNano(), "k")}, "alerts_state (state=? AND (ts_ns,key)<(?,?))", false},
		"mine":                 {alert.Filter{States: []alert.State{alert.Open, alert.Working, alert.Waiting}, Assignee: "sato"}, "alerts_state", false},
		"closed by level":      {alert.Filter{States: []alert.State{alert.Closed}, Levels: []alert.Level{alert.High, alert.Critical}}, "alerts_state", false},
		"by level":             {alert.Filter{Levels: []alert.Level{alert.High, alert.Critical}}, "alerts_level (level=?)", false},
		"of a PC":              {alert.Filter{Host: "PC-1"}, "alerts_host", false},
		"of a person":          {alert.Filter{User: "sato"}, "alerts_user", false},
		"of a group":           {alert.Filter{Group: "g", Tests: true}, "alerts_grp", false},
		"tests":                {alert.Filter{TestsOnly: true}, "alerts_tests", false},
		"new ones":             {alert.Filter{AfterSeq: 1000, Tests: true}, "sqlite_autoindex_alerts_2 (seq>?)", true},
		"by words":             {alert.Filter{Text: "名簿"}, "VIRTUAL TABLE INDEX", true},
	} {
		query, args, err := alertsQuery(tt.f, 100)
		if err != nil {
			t.Fatal(err)
		}
		steps := plan(query, args...)
		if !slices.ContainsFunc(steps, func(st string) bool { return strings.Contains(st, tt.index) }) {
			t.Errorf("%s: got %q, want %s", name, steps, tt.index)
		}
		if !strings.Contains(query, "UNION ALL") && slices.Contains(steps, bySort) != tt.sorts {
			t.Errorf("%s: got %q, want sorting %v", name, steps, tt.sorts)
		}
	}
}
