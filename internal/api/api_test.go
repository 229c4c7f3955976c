package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// site is the API on a real database, with a token of each role.
type site struct {
	t      *testing.T
	store  *store.SQLite
	url    string
	tokens map[account.Role]string
}

func newSite(t *testing.T) *site {
	t.Helper()
	db, err := store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := &site{t: t, store: db, tokens: map[account.Role]string{}}
	for _, role := range account.Roles {
		s.tokens[role] = s.token(NewToken(string(role), role, time.Time{}))
	}
	srv := httptest.NewServer(NewServer(db, nil))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *site) token(tok account.Token, text string) string {
	s.t.Helper()
	if err := s.store.AddToken(s.t.Context(), tok); err != nil {
		s.t.Fatal(err)
	}
	return text
}

// ask answers the status and the body, decoded into v.
func (s *site) ask(method, path, token, body string, v any) (*http.Response, Problem) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var p Problem
	if resp.StatusCode != 200 {
		v = &p
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			s.t.Fatalf("%s %s: %d %q: %v", method, path, resp.StatusCode, b, err)
		}
	}
	return resp, p
}

func (s *site) deliver(agent string, alerts ...store.Alert) {
	s.t.Helper()
	if err := s.store.Ingest(s.t.Context(), store.Delivery{AgentID: agent, Received: time.Now(), Alerts: alerts}); err != nil {
		s.t.Fatal(err)
	}
}

func TestAlertsAreToldByPages(t *testing.T) {
	s := newSite(t)
	var all []store.Alert
	for i := range 5 {
		all = append(all, storetest.NewAlert(i, nil))
	}
	all = append(all, storetest.NewAlert(9, func(a *alert.Alert) { a.Event.Test = event.Some(true) }))
	s.deliver("agent-1", all...)
	var got []string
	path, lastSeq := "/api/v1/alerts?limit=2", int64(0)
	for path != "" {
		var p AlertPage
		if resp, problem := s.ask("GET", path, s.tokens[account.Viewer], "", &p); resp.StatusCode != 200 {
			t.Fatalf("%s: %+v", path, problem)
		}
		for _, a := range p.Alerts {
			got = append(got, a.ID)
			if a.Test || a.State != alert.Open || a.AgentID != "agent-1" {
				t.Errorf("got %+v", a)
			}
		}
		path, lastSeq = "", p.LastSeq
		if p.Next != "" {
			path = "/api/v1/alerts?limit=2&after=" + p.Next
		}
	}
	want := []string{all[4].ID, all[3].ID, all[2].ID, all[1].ID, all[0].ID}
	if !slices.Equal(got, want) || lastSeq != 6 {
		t.Errorf("got %v up to %d, want %v up to 6", got, lastSeq, want)
	}
	news := storetest.NewAlert(-5, nil) // older than all, but it came later
	s.deliver("agent-2", news)
	var p AlertPage
	s.ask("GET", fmt.Sprintf("/api/v1/alerts?after_seq=%d", lastSeq), s.tokens[account.Viewer], "", &p)
	if len(p.Alerts) != 1 || p.Alerts[0].ID != news.ID || p.LastSeq != 7 {
		t.Errorf("poll: got %+v, want the one that came since", p)
	}
	s.ask("GET", "/api/v1/alerts?tests=only&state=open,working&level=medium&q=%E5%90%8D%E7%B0%BF", s.tokens[account.Viewer], "", &p)
	if len(p.Alerts) != 1 || !p.Alerts[0].Test {
		t.Errorf("filters: got %+v, want the test", p)
	}
}

func TestAnAlertIsToldAsItWasReceivedAndChanged(t *testing.T) {
	s := newSite(t)
	a := storetest.NewAlert(1, nil)
	s.deliver("agent-1", a)
	path := "/api/v1/alerts/" + a.ID
	var got Alert
	s.ask("GET", path, s.tokens[account.Viewer], "", &got)
	var sent, told any
	if json.Unmarshal(a.Raw, &sent) != nil || json.Unmarshal(got.Alert, &told) != nil || !reflect.DeepEqual(sent, told) {
		t.Errorf("got %s, want what was sent, evidence included", got.Alert)
	}
	resp, _ := s.ask("PATCH", path, s.tokens[account.Analyst], `{"state":"closed","reason":"approved-work","note":"申請あり"}`, &got)
	if resp.StatusCode != 200 || got.State != alert.Closed || got.Reason != alert.ApprovedWork || len(got.Log) != 1 ||
		!strings.HasPrefix(got.Log[0].User, "token:") || got.Log[0].Note != "申請あり" {
		t.Errorf("got %d %+v, want it closed", resp.StatusCode, got)
	}
	log, err := s.store.AuditLog(t.Context(), 0, 10)
	if err != nil || len(log) != 2 || log[0].Action != "alert-change" || log[1].Action != "alert-view" || log[1].Object != a.ID || log[1].Remote != "127.0.0.1" {
		t.Errorf("got audit log %+v (%v), want the view and the change", log, err)
	}
}

func TestEndpointsAreTold(t *testing.T) {
	s := newSite(t)
	if err := s.store.AddEnrollToken(t.Context(), account.EnrollToken{ID: "t", Uses: 9, Department: "総務課", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		e, err := s.store.Enrol(t.Context(), store.Enrolment{TokenID: "t", KeyHash: [32]byte{byte(i)}, Host: endpoint.Identity{HostID: fmt.Sprint("h", i), HostName: fmt.Sprint("PC-", i), OS: "linux"}, Serial: fmt.Sprint(i + 1), Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := s.store.Ingest(t.Context(), store.Delivery{AgentID: e.AgentID, Received: time.Now(), Status: &endpoint.Status{HostName: fmt.Sprint("PC-", i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	var p EndpointPage
	var names []string
	path := "/api/v1/endpoints?limit=2"
	for path != "" {
		p = EndpointPage{}
		s.ask("GET", path, s.tokens[account.Viewer], "", &p)
		for _, e := range p.Endpoints {
			names = append(names, e.HostName)
		}
		path = ""
		if p.Next != "" {
			path = "/api/v1/endpoints?limit=2&after=" + p.Next
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"PC-0", "PC-1", "PC-2"}) {
		t.Errorf("got %v", names)
	}
	p = EndpointPage{}
	s.ask("GET", "/api/v1/endpoints?health=silent", s.tokens[account.Viewer], "", &p)
	if len(p.Endpoints) != 1 || p.Endpoints[0].HostName != "PC-0" || p.Endpoints[0].Health != endpoint.Silent {
		t.Fatalf("silent: got %+v", p)
	}
	var e Endpoint
	s.ask("GET", "/api/v1/endpoints/"+p.Endpoints[0].AgentID, s.tokens[account.Viewer], "", &e)
	if e.HostName != "PC-0" || e.Department != "総務課" {
		t.Errorf("got %+v", e)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	s := newSite(t)
	a := storetest.NewAlert(1, nil)
	s.deliver("agent-1", a)
	one := "/api/v1/alerts/" + a.ID
	expired := s.token(NewToken("x", account.Admin, time.Now().Add(-time.Hour)))
	gone, text := NewToken("y", account.Admin, time.Time{})
	revoked := s.token(gone, text)
	if err := s.store.RevokeToken(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	viewer, analyst := s.tokens[account.Viewer], s.tokens[account.Analyst]
	tests := []struct {
		name, method, path, token, body string
		status                          int
		code                            string
	}{
		{"no token", "GET", "/api/v1/alerts", "", "", 401, "API-01"},
		{"an unknown token", "GET", "/api/v1/alerts", "skt1_x", "", 401, "API-01"},
		{"an expired token", "GET", "/api/v1/alerts", expired, "", 401, "API-01"},
		{"a revoked token", "GET", "/api/v1/alerts", revoked, "", 401, "API-01"},
		{"an auditor", "GET", "/api/v1/alerts", s.tokens[account.Auditor], "", 403, "API-02"},
		{"a viewer who changes", "PATCH", one, viewer, `{"state":"working"}`, 403, "API-02"},
		{"no such alert", "GET", "/api/v1/alerts/x", viewer, "", 404, "API-03"},
		{"a change of no such alert", "PATCH", "/api/v1/alerts/x", analyst, `{"state":"working"}`, 404, "API-03"},
		{"no such endpoint", "GET", "/api/v1/endpoints/x", viewer, "", 404, "API-03"},
		{"no such path", "GET", "/api/v1/users", viewer, "", 404, "API-03"},
		{"a wrong parameter", "GET", "/api/v1/alerts?stat=open", viewer, "", 400, "API-04"},
		{"a wrong state", "GET", "/api/v1/alerts?state=gone", viewer, "", 400, "API-04"},
		{"a wrong level", "GET", "/api/v1/alerts?level=9", viewer, "", 400, "API-04"},
		{"a wrong limit", "GET", "/api/v1/alerts?limit=100000", viewer, "", 400, "API-04"},
		{"a wrong time", "GET", "/api/v1/alerts?from=yesterday", viewer, "", 400, "API-04"},
		{"a parameter twice", "GET", "/api/v1/alerts?host=a&host=b", viewer, "", 400, "API-04"},
		{"a wrong cursor", "GET", "/api/v1/alerts?after=x", viewer, "", 400, "API-04"},
		{"a wrong cursor of endpoints", "GET", "/api/v1/endpoints?after=!", viewer, "", 400, "API-04"},
		{"a query that is none", "GET", "/api/v1/alerts?%zz", viewer, "", 400, "API-04"},
		{"closing without reason", "PATCH", one, analyst, `{"state":"closed"}`, 400, "API-04"},
		{"nothing to change", "PATCH", one, analyst, `{}`, 400, "API-04"},
		{"an unknown field", "PATCH", one, analyst, `{"stat":"closed"}`, 400, "API-04"},
		{"two objects", "PATCH", one, analyst, `{"note":"a"}{"note":"b"}`, 400, "API-04"},
		{"a large body", "PATCH", one, analyst, `{"note":"` + strings.Repeat("a", maxBody) + `"}`, 413, "API-05"},
		{"a wrong method", "DELETE", one, analyst, "", 405, "API-06"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, p := s.ask(tt.method, tt.path, tt.token, tt.body, nil)
			if resp.StatusCode != tt.status || p.Code != tt.code || p.JA == "" || p.EN == "" {
				t.Errorf("got %d %+v, want %d %s", resp.StatusCode, p, tt.status, tt.code)
			}
		})
	}
	if got, err := s.store.Alert(t.Context(), a.ID); err != nil || got.State != alert.Open || len(got.Log) != 0 {
		t.Errorf("got %+v (%v), want it untouched", got, err)
	}
	if log, err := s.store.AuditLog(t.Context(), 0, 10); err != nil || len(log) != 0 {
		t.Errorf("got audit log %+v (%v), want nothing that was not seen", log, err)
	}
	for range 2 * failBurst {
		s.ask("GET", "/api/v1/alerts", "skt1_guess", "", nil)
	}
	if resp, p := s.ask("GET", "/api/v1/alerts", "skt1_guess", "", nil); resp.StatusCode != 429 || p.Code != "API-07" {
		t.Errorf("after many wrong tokens: got %d %+v, want 429", resp.StatusCode, p)
	}
	if resp, _ := s.ask("GET", "/api/v1/alerts", viewer, "", nil); resp.StatusCode != 200 {
		t.Errorf("a valid token from the same address: got %d, want 200", resp.StatusCode)
	}
}

// The file and the routes say the same, and what the file says of answers is true.
func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	s := newSite(t)
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			Parameters []struct {
				Name string `json:"name"`
			} `json:"parameters"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	// "parameters" of a path stands beside its methods, as a list.
	var loose struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if resp, _ := s.ask("GET", "/api/v1/openapi.json", "", "", &loose); resp.StatusCode != 200 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	var said, have []string
	for path, methods := range loose.Paths {
		for m := range methods {
			if m != "parameters" {
				said = append(said, strings.ToUpper(m)+" "+path)
			}
		}
		delete(methods, "parameters")
	}
	for _, r := range routes {
		have = append(have, r.method+" "+r.path)
	}
	slices.Sort(said)
	slices.Sort(have)
	if !slices.Equal(said, have) {
		t.Errorf("the file has %v, the routes are %v", said, have)
	}
	var whole map[string]any
	if err := json.Unmarshal(openapi, &whole); err != nil {
		t.Fatal(err)
	}
	for _, p := range whole["paths"].(map[string]any) {
		delete(p.(map[string]any), "parameters")
	}
	b, _ := json.Marshal(whole)
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("got version %q", doc.OpenAPI)
	}
	// Each parameter is known to the handler; one that is not is told with those that are.
	for path, methods := range doc.Paths {
		var names []string
		for _, p := range methods["get"].Parameters {
			names = append(names, p.Name)
		}
		if len(names) == 0 {
			continue
		}
		_, p := s.ask("GET", path+"?no-such=1", s.tokens[account.Viewer], "", nil)
		_, list, _ := strings.Cut(p.EN, "these are: ")
		known := strings.Split(list, ", ")
		slices.Sort(known)
		slices.Sort(names)
		if !slices.Equal(known, names) {
			t.Errorf("%s: the file has %v, the handler knows %v", path, names, known)
		}
	}
	for name, v := range map[string]any{
		"Alert": Alert{}, "LogEntry": LogEntry{}, "AlertPage": AlertPage{}, "Change": Change{}, "Endpoint": Endpoint{}, "EndpointPage": EndpointPage{}, "Problem": Problem{},
	} {
		want := fieldNames(reflect.TypeOf(v))
		var got []string
		for p := range doc.Components.Schemas[name].Properties {
			got = append(got, p)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the file has %v, the type %v", name, got, want)
		}
	}
}

func fieldNames(t reflect.Type) (out []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			out = append(out, fieldNames(f.Type)...)
		case name != "-":
			out = append(out, name)
		}
	}
	return out
}

func TestCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	codes := []string{internal.Code}
	for _, a := range answers {
		codes = append(codes, a.Code)
	}
	for _, c := range codes {
		if !strings.Contains(string(page), "| `"+c+"` |") {
			t.Errorf("%s: no line in docs/errors.md", c)
		}
	}
}
