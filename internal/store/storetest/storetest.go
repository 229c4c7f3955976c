// Package storetest says in tests what every store.Store has to do. A database
// engine's own test calls Run with a constructor.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/store"
)

// Base is the time that the suite's rows are made around.
var Base = time.Date(2026, 4, 1, 9, 0, 0, 123456789, time.UTC)

// NewAlert makes an alert of a USB copy n seconds after Base, and the JSON an
// agent would send.
func NewAlert(n int, edit func(*alert.Alert)) store.Alert {
	e := event.New(event.FileCopied, Base.Add(time.Duration(n)*time.Second))
	e.Host = &event.Host{ID: "host-1", Name: "PC-041", OSType: "windows"}
	e.User = &event.User{Name: "tanaka"}
	e.File = &event.File{Path: `E:\顧客名簿.xlsx`, Name: "顧客名簿.xlsx"}
	a := &alert.Alert{
		Time: e.Time, ID: alert.ID("rule", nil, e.ID), Rule: alert.Rule{ID: "6f1f", Name: "Many files to a stick", Table: "USB-3"},
		Level: alert.Medium, Title: alert.Text{JA: "USBメモリへ大量のコピー", EN: "Many files copied to a USB stick"},
		Group: "g", FirstSeen: e.Time, LastSeen: e.Time, Count: 1, Evidence: []*event.Event{e}, EvidenceTotal: 1, Event: e,
	}
	if edit != nil {
		edit(a)
	}
	out, err := store.NewAlert(a.AppendJSON(nil)) // as a collector gets it
	if err != nil {
		panic(err)
	}
	return out
}

// NewRow makes an event of activity n seconds after Base.
func NewRow(n int) store.Row {
	e := event.New(event.USBAttached, Base.Add(time.Duration(n)*time.Second))
	return store.Row{Time: e.Time, ID: e.ID, Action: string(e.Action), Host: "PC-041", Raw: e.AppendJSON(nil)}
}

// Run runs the suite. open makes an empty store and closes it after the test.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		run  func(t *testing.T, s store.Store)
	}{
		{"a row that is delivered twice is stored once", twice},
		{"rows of concurrent deliveries are all there", concurrent},
		{"a repeated alert is brought up to date and keeps its triage", repeats},
		{"one alert id of two agents is two alerts", collision},
		{"a row of an impossible time is refused", impossibleTime},
		{"alerts are listed newest first by pages", pages},
		{"alerts are filtered", filters},
		{"alerts are found by words of two characters", search},
		{"changes are logged and all or none are made", changes},
		{"counts leave out tests", counts},
		{"watchers are told", watch},
		{"activity is listed and grows old", activity},
		{"a token enrols as often as it says", enrolUses},
		{"a token is refused for what is wrong with it", enrolRefusals},
		{"a PC set up again keeps its identity, a clone gets its own", identities},
		{"a renewed certificate takes over when it is used", renewal},
		{"a heartbeat is seen at once", heartbeat},
		{"users, sessions and tokens", accounts},
		{"somebody can always sign in as administrator", lastAdmin},
		{"the audit log is kept and paged", audit},
		{"what is not there is fs.ErrNotExist", absent},
		{"the store is ready", func(t *testing.T, s store.Store) { must(t, s.Ready(t.Context())) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ingest(t *testing.T, s store.Store, agent string, alerts []store.Alert, rows ...store.Row) {
	t.Helper()
	must(t, s.Ingest(t.Context(), store.Delivery{AgentID: agent, Received: Base.Add(time.Minute), Alerts: alerts, Activity: rows}))
}

func list(t *testing.T, s store.Store, f alert.Filter) []alert.Record {
	t.Helper()
	p, err := s.Alerts(t.Context(), f)
	must(t, err)
	return p.Records
}

func ids(rs []alert.Record) []string {
	out := make([]string, len(rs))
	for i := range rs {
		out[i] = rs[i].ID
	}
	return out
}

func twice(t *testing.T, s store.Store) {
	a, r := NewAlert(1, nil), NewRow(2)
	for range 3 {
		ingest(t, s, "agent-1", []store.Alert{a, a}, r, r)
	}
	got := list(t, s, alert.Filter{})
	if len(got) != 1 || got[0].ID != a.ID || !got[0].Time.Equal(a.Time) {
		t.Fatalf("got %d alerts %v, want the one", len(got), ids(got))
	}
	rows, err := s.Activity(t.Context(), "", time.Time{}, 10)
	must(t, err)
	if len(rows) != 1 || !rows[0].Time.Equal(r.Time) || rows[0].AgentID != "agent-1" || !bytes.Equal(rows[0].Raw, r.Raw) {
		t.Errorf("got activity %v, want the one row", rows)
	}
	one, err := s.Alert(t.Context(), a.ID)
	must(t, err)
	if !bytes.Equal(one.Raw, a.Raw) || len(one.Evidence) != 1 || one.State != alert.Open || one.AgentID != "agent-1" {
		t.Errorf("got %+v, want what was sent, open", one)
	}
	if got[0].Seq != one.Seq || one.Seq != 1 {
		t.Errorf("got seq %d, want 1: repeats count nothing", one.Seq)
	}
}

func concurrent(t *testing.T, s store.Store) {
	const agents, batches, size = 8, 10, 7
	var wg sync.WaitGroup
	for g := range agents {
		wg.Go(func() {
			for b := range batches {
				d := store.Delivery{AgentID: fmt.Sprint("agent-", g), Received: Base}
				for i := range size {
					d.Activity = append(d.Activity, NewRow(i))
				}
				d.Alerts = append(d.Alerts, NewAlert(b, nil))
				for range 1 + rand.IntN(2) { // some are delivered twice
					if err := s.Ingest(t.Context(), d); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got, want := len(list(t, s, alert.Filter{Limit: 1000})), agents*batches; got != want {
		t.Errorf("got %d alerts, want %d", got, want)
	}
	rows, err := s.Activity(t.Context(), "", time.Time{}, 1000)
	must(t, err)
	if got, want := len(rows), agents*batches*size; got != want {
		t.Errorf("got %d rows of activity, want %d", got, want)
	}
	seqs := map[int64]bool{}
	for _, r := range list(t, s, alert.Filter{Limit: 1000}) {
		seqs[r.Seq] = true
	}
	if len(seqs) != agents*batches {
		t.Errorf("got %d distinct seqs, want %d", len(seqs), agents*batches)
	}
}

func repeats(t *testing.T, s store.Store) {
	first := NewAlert(1, nil)
	grown := func(count int64, after time.Duration) store.Alert {
		a := *first.Alert
		a.Count, a.LastSeen, a.Totals = count, a.Time.Add(after), map[string]int64{"files": count * 10}
		back, err := store.NewAlert(a.AppendJSON(nil))
		must(t, err)
		return back
	}
	ingest(t, s, "agent-1", []store.Alert{first, NewAlert(2, nil)})
	who := "sato"
	must(t, s.ChangeAlerts(t.Context(), []string{first.ID}, alert.Change{State: alert.Working, Assignee: &who}, "sato", Base))
	ingest(t, s, "agent-1", []store.Alert{grown(5, time.Minute)})
	ingest(t, s, "agent-1", []store.Alert{grown(3, time.Second)}) // an older state, late
	got, err := s.Alert(t.Context(), first.ID)
	must(t, err)
	if got.Count != 5 || got.Totals["files"] != 50 || !got.LastSeen.Equal(first.Time.Add(time.Minute)) {
		t.Errorf("got count %d, totals %v, last seen %s, want those of the newest", got.Count, got.Totals, got.LastSeen)
	}
	if got.State != alert.Working || got.Assignee != "sato" || len(got.Log) != 1 {
		t.Errorf("got state %s of %q with %d log entries, want the triage as it was", got.State, got.Assignee, len(got.Log))
	}
	if got.Seq != 3 {
		t.Errorf("got seq %d, want 3: what has changed is new to a poller", got.Seq)
	}
	if n := len(list(t, s, alert.Filter{})); n != 2 {
		t.Errorf("got %d alerts, want 2", n)
	}
	if l := list(t, s, alert.Filter{AfterSeq: 2}); len(l) != 1 || l[0].Count != 5 {
		t.Errorf("got %v after seq 2, want the one that has grown", ids(l))
	}
}

func collision(t *testing.T, s store.Store) {
	a := NewAlert(1, nil)
	ingest(t, s, "agent-1", []store.Alert{a})
	ingest(t, s, "agent-2", []store.Alert{a})
	ingest(t, s, "agent-2", []store.Alert{a})
	got := list(t, s, alert.Filter{})
	if len(got) != 2 || got[0].ID == got[1].ID {
		t.Fatalf("got %v, want two that can be told apart", ids(got))
	}
	for _, r := range got {
		one, err := s.Alert(t.Context(), r.ID)
		must(t, err)
		if one.AgentID != r.AgentID {
			t.Errorf("alert %s: got agent %s, want %s", r.ID, one.AgentID, r.AgentID)
		}
	}
}

func impossibleTime(t *testing.T, s store.Store) {
	r := NewRow(1)
	r.Time = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: Base, Activity: []store.Row{NewRow(0), r}}); err == nil {
		t.Error("a row of the year 9999 was taken")
	}
	if rows, err := s.Activity(t.Context(), "", time.Time{}, 10); err != nil || len(rows) != 0 {
		t.Errorf("got %d rows (%v), want none of the batch", len(rows), err)
	}
}

func pages(t *testing.T, s store.Store) {
	var all []store.Alert
	for i := range 25 {
		all = append(all, NewAlert(i/3, nil)) // three share a time
	}
	ingest(t, s, "agent-1", all)
	want := ids(list(t, s, alert.Filter{}))
	if len(want) != 25 {
		t.Fatalf("got %d, want 25", len(want))
	}
	for _, states := range [][]alert.State{nil, {alert.Open}, {alert.Open, alert.Working, alert.Open}} {
		var got []string
		f := alert.Filter{Limit: 4, States: states}
		for n := 0; ; n++ {
			p, err := s.Alerts(t.Context(), f)
			must(t, err)
			got = append(got, ids(p.Records)...)
			if p.Next == "" || n > 25 {
				break
			}
			f.After = p.Next
		}
		if !slices.Equal(got, want) {
			t.Errorf("states %v: pages gave %d alerts in another order or number than the list of %d", states, len(got), len(want))
		}
	}
	for _, bad := range []string{"x", "!!!", "MTIz", strings.Repeat("A", 3000)} {
		if _, err := s.Alerts(t.Context(), alert.Filter{After: bad}); !errors.Is(err, alert.ErrCursor) {
			t.Errorf("cursor %.10q: got %v, want ErrCursor", bad, err)
		}
	}
}

func filters(t *testing.T, s store.Store) {
	plain := NewAlert(1, nil)
	scam := NewAlert(2, func(a *alert.Alert) {
		a.Rule = alert.Rule{ID: "aaaa", Name: "Remote tool", Table: "SCAM-1"}
		a.Level, a.Group = alert.High, "other"
		a.Event.Host = &event.Host{Name: "PC-099"}
		a.Event.User = &event.User{Name: "suzuki"}
	})
	test := NewAlert(3, func(a *alert.Alert) { a.Event.Test = event.Some(true) })
	ingest(t, s, "agent-1", []store.Alert{plain, test})
	ingest(t, s, "agent-2", []store.Alert{scam})
	who := "sato"
	must(t, s.ChangeAlerts(t.Context(), []string{scam.ID}, alert.Change{State: alert.Closed, Reason: alert.ApprovedWork, Assignee: &who}, "sato", Base))
	tests := []struct {
		name string
		f    alert.Filter
		want []string
	}{
		{"none", alert.Filter{}, []string{scam.ID, plain.ID}},
		{"tests too", alert.Filter{Tests: true}, []string{test.ID, scam.ID, plain.ID}},
		{"tests only", alert.Filter{TestsOnly: true}, []string{test.ID}},
		{"table id", alert.Filter{Rule: "SCAM-1"}, []string{scam.ID}},
		{"Sigma id", alert.Filter{Rule: "6f1f"}, []string{plain.ID}},
		{"host", alert.Filter{Host: "PC-099"}, []string{scam.ID}},
		{"a host of other case", alert.Filter{Host: "pc-099"}, nil},
		{"agent", alert.Filter{AgentID: "agent-1"}, []string{plain.ID}},
		{"user", alert.Filter{User: "suzuki"}, []string{scam.ID}},
		{"assignee", alert.Filter{Assignee: "sato"}, []string{scam.ID}},
		{"group", alert.Filter{Group: "g"}, []string{plain.ID}},
		{"levels", alert.Filter{Levels: []alert.Level{alert.High, alert.Critical}}, []string{scam.ID}},
		{"open", alert.Filter{States: []alert.State{alert.Open, alert.Waiting}}, []string{plain.ID}},
		{"closed", alert.Filter{States: []alert.State{alert.Closed}}, []string{scam.ID}},
		{"from", alert.Filter{From: scam.Time}, []string{scam.ID}},
		{"to", alert.Filter{To: scam.Time}, []string{plain.ID}},
		{"two that contradict", alert.Filter{Rule: "SCAM-1", Host: "PC-041"}, nil},
		{"SQL in a value", alert.Filter{Host: `' OR 1=1 --`}, nil},
	}
	for _, tt := range tests {
		if got := ids(list(t, s, tt.f)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func search(t *testing.T, s store.Store) {
	plain := NewAlert(1, nil)
	tool := NewAlert(2, func(a *alert.Alert) {
		a.Title = alert.Text{JA: "遠隔操作ツールの起動", EN: "Remote-access tool started"}
		a.Event.File = nil
		a.Event.Process = &event.Process{Name: "AnyDesk.exe", RemoteTool: &event.RemoteTool{Name: "ＡｎｙＤｅｓｋ"}}
	})
	ingest(t, s, "agent-1", []store.Alert{plain, tool})
	tests := []struct {
		text string
		want []string
	}{
		{"名簿", []string{plain.ID}},
		{"顧客名簿", []string{plain.ID}},
		{"名簿客", nil},
		{"ツール", []string{tool.ID}},
		{"anydesk", []string{tool.ID}},
		{"ｄｅｓｋ", []string{tool.ID}},
		{"USB-3", []string{tool.ID, plain.ID}},
		{"遠", []string{tool.ID}},
		{"ル", []string{tool.ID}},
		{"tanaka 名簿", []string{plain.ID}},
		{"tanaka 退職", nil},
		{"pc-041", []string{tool.ID, plain.ID}},
		{`" OR 1 NEAR(`, nil},
		{"***", nil},
		{"名 簿", []string{plain.ID}},
	}
	for _, tt := range tests {
		if got := ids(list(t, s, alert.Filter{Text: tt.text})); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.text, got, tt.want)
		}
	}
}

func changes(t *testing.T, s store.Store) {
	a, b := NewAlert(1, nil), NewAlert(2, nil)
	ingest(t, s, "agent-1", []store.Alert{a, b})
	who, nobody := "sato", ""
	at := Base.Add(time.Hour).Truncate(time.Millisecond)
	steps := []struct {
		ids  []string
		c    alert.Change
		fail bool
	}{
		{[]string{a.ID, b.ID}, alert.Change{State: alert.Working, Assignee: &who, Note: "見ます"}, false},
		{[]string{a.ID}, alert.Change{Note: "asked the user"}, false},
		{[]string{a.ID}, alert.Change{State: alert.Closed, Reason: alert.FalsePositive}, false},
		{[]string{a.ID}, alert.Change{State: alert.Open, Assignee: &nobody}, false},
		{[]string{b.ID, "no-such"}, alert.Change{State: alert.Waiting}, true},
		{[]string{b.ID}, alert.Change{State: alert.Closed}, true},
		{[]string{b.ID}, alert.Change{State: "gone"}, true},
		{[]string{b.ID}, alert.Change{State: alert.Closed, Reason: "because"}, true},
		{[]string{b.ID}, alert.Change{}, true},
	}
	for i, st := range steps {
		if err := s.ChangeAlerts(t.Context(), st.ids, st.c, "sato", at); (err != nil) != st.fail {
			t.Errorf("step %d: got %v, want failure: %v", i, err, st.fail)
		}
	}
	got, err := s.Alert(t.Context(), a.ID)
	must(t, err)
	want := []alert.LogEntry{
		{Time: at, User: "sato", State: alert.Working, Assignee: "sato", Note: "見ます"},
		{Time: at, User: "sato", State: alert.Working, Assignee: "sato", Note: "asked the user"},
		{Time: at, User: "sato", State: alert.Closed, Assignee: "sato", Reason: alert.FalsePositive},
		{Time: at, User: "sato", State: alert.Open},
	}
	if !slices.Equal(got.Log, want) {
		t.Errorf("got log %+v, want %+v", got.Log, want)
	}
	if got.State != alert.Open || got.Reason != "" || !got.Changed.Equal(at) {
		t.Errorf("got %s %q changed %s, want it open again", got.State, got.Reason, got.Changed)
	}
	if got, err = s.Alert(t.Context(), b.ID); err != nil || got.State != alert.Working || len(got.Log) != 1 {
		t.Errorf("got state %s with %d log entries (%v), want the failed changes undone", got.State, len(got.Log), err)
	}
}

func counts(t *testing.T, s store.Store) {
	a, b := NewAlert(1, nil), NewAlert(2, func(a *alert.Alert) { a.Level = alert.Critical })
	ingest(t, s, "agent-1", []store.Alert{a, b, NewAlert(0, func(a *alert.Alert) { a.Event.Test = event.Some(true) })})
	for range 2 { // the second time from memory
		c, err := s.AlertCounts(t.Context())
		must(t, err)
		if c.Open[alert.Medium] != 1 || c.Open[alert.Critical] != 1 || c.ByState[alert.Open] != 2 || !c.Oldest.Equal(a.Time) || c.LastSeq != 3 {
			t.Errorf("got %+v", c)
		}
		c.Open[alert.Medium] = 99 // the caller's own
	}
	must(t, s.ChangeAlerts(t.Context(), []string{a.ID}, alert.Change{State: alert.Closed, Reason: alert.PolicyBreach}, "sato", Base))
	c, err := s.AlertCounts(t.Context())
	must(t, err)
	if c.Open[alert.Medium] != 0 || c.ByState[alert.Closed] != 1 || !c.Oldest.Equal(b.Time) {
		t.Errorf("after closing one: got %+v", c)
	}
}

func watch(t *testing.T, s store.Store) {
	changed, stop := s.Watch()
	defer stop()
	told := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Errorf("not told of %s", what)
		}
	}
	a := NewAlert(1, nil)
	ingest(t, s, "agent-1", []store.Alert{a})
	told("an alert")
	for len(changed) > 0 {
		<-changed
	}
	must(t, s.ChangeAlerts(t.Context(), []string{a.ID}, alert.Change{State: alert.Waiting}, "sato", Base))
	told("a change")
	must(t, s.Ingest(t.Context(), store.Delivery{AgentID: "agent-2", Received: Base}))
	told("a new contact")
	stop()
}

func activity(t *testing.T, s store.Store) {
	var rows []store.Row
	for i := range 10 {
		rows = append(rows, NewRow(i))
	}
	ingest(t, s, "agent-1", nil, rows...)
	ingest(t, s, "agent-2", nil, rows[0])
	got, err := s.Activity(t.Context(), "agent-1", rows[5].Time, 3)
	must(t, err)
	if len(got) != 3 || got[0].ID != rows[4].ID || got[2].ID != rows[2].ID {
		t.Errorf("got %d rows, want rows 4, 3, 2", len(got))
	}
	total := 0
	for {
		n, err := s.DeleteActivity(t.Context(), rows[5].Time, 4)
		must(t, err)
		total += n
		if n == 0 {
			break
		}
	}
	if total != 6 {
		t.Errorf("deleted %d, want 6", total)
	}
	if got, err = s.Activity(t.Context(), "", time.Time{}, 100); err != nil || len(got) != 5 {
		t.Errorf("got %d rows (%v), want the 5 younger ones", len(got), err)
	}
}

func addToken(t *testing.T, s store.Store, id string, uses int, edit func(*account.EnrollToken)) {
	t.Helper()
	tok := account.EnrollToken{ID: id, Hash: [32]byte{1}, Department: "総務課", Uses: uses, Created: Base, Expires: Base.Add(24 * time.Hour)}
	if edit != nil {
		edit(&tok)
	}
	must(t, s.AddEnrollToken(t.Context(), tok))
}

func enrolment(token, host string, n byte) store.Enrolment {
	return store.Enrolment{
		TokenID: token, SecretHash: [32]byte{1}, KeyHash: [32]byte{n}, Serial: fmt.Sprintf("%02x", n),
		Host:   endpoint.Identity{HostID: host, HostName: "PC-" + host, OS: "linux", AgentVersion: "1"},
		Remote: "192.0.2.1", Now: Base, Expires: Base.Add(30 * 24 * time.Hour),
	}
}

func enrolUses(t *testing.T, s store.Store) {
	addToken(t, s, "t1", 3, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	agents, refused := map[string]bool{}, 0
	for i := range 8 {
		wg.Go(func() {
			got, err := s.Enrol(t.Context(), enrolment("t1", fmt.Sprint("h", i), byte(i+1)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, store.ErrTokenUsedUp):
				refused++
			case err != nil:
				t.Error(err)
			default:
				agents[got.AgentID] = true
				if got.Department != "総務課" || got.Known {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
	wg.Wait()
	if len(agents) != 3 || refused != 5 {
		t.Errorf("a token of 3 uses: %d enrolled, %d refused of 8 at once", len(agents), refused)
	}
	toks, err := s.EnrollTokens(t.Context())
	must(t, err)
	if len(toks) != 1 || toks[0].Used != 3 || !toks[0].Created.Equal(Base.Truncate(time.Millisecond)) {
		t.Errorf("got %+v, want 3 of 3 used", toks)
	}
	eps, err := s.Endpoints(t.Context())
	must(t, err)
	if len(eps) != 3 {
		t.Errorf("got %d endpoints, want 3", len(eps))
	}
	log, err := s.AuditLog(t.Context(), 0, 10)
	must(t, err)
	if len(log) != 3 || log[0].Action != "enrol" || !agents[log[0].Object] || log[0].Who != "enroll-token:t1" {
		t.Errorf("got audit log %+v, want the three enrolments", log)
	}
}

func enrolRefusals(t *testing.T, s store.Store) {
	addToken(t, s, "good", 1, nil)
	addToken(t, s, "old", 1, func(e *account.EnrollToken) { e.Expires = Base })
	addToken(t, s, "revoked", 1, nil)
	must(t, s.RevokeEnrollToken(t.Context(), "revoked"))
	if err := s.AddEnrollToken(t.Context(), account.EnrollToken{ID: "good"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("a token id taken: got %v, want ErrExists", err)
	}
	wrong := enrolment("good", "h", 1)
	wrong.SecretHash[0]++
	tests := []struct {
		name string
		e    store.Enrolment
		want error
	}{
		{"unknown", enrolment("none", "h", 1), store.ErrTokenUnknown},
		{"wrong secret", wrong, store.ErrTokenUnknown},
		{"expired", enrolment("old", "h", 1), store.ErrTokenExpired},
		{"revoked", enrolment("revoked", "h", 1), store.ErrTokenRevoked},
		{"good", enrolment("good", "h", 1), nil},
		{"used up", enrolment("good", "h2", 2), store.ErrTokenUsedUp},
		{"its reply was lost", enrolment("good", "h", 1), nil},
	}
	for _, tt := range tests {
		if _, err := s.Enrol(t.Context(), tt.e); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	log, err := s.AuditLog(t.Context(), 0, 10)
	must(t, err)
	if len(log) != 2 || log[1].Action != "enrol" || log[0].Action != "enrol-again" || log[0].Detail != "PC-h (h)" {
		t.Errorf("got audit log %+v, want an enrolment and another of the same PC", log)
	}
}

func identities(t *testing.T, s store.Store) {
	addToken(t, s, "t", 100, nil)
	first, err := s.Enrol(t.Context(), enrolment("t", "h", 1))
	must(t, err)
	hear := func(agent string, at time.Duration, remote string) {
		t.Helper()
		must(t, s.Ingest(t.Context(), store.Delivery{AgentID: agent, Received: Base.Add(at), Remote: remote}))
	}
	again := func(n byte, at time.Duration, edit func(*store.Enrolment)) store.Enrolled {
		t.Helper()
		e := enrolment("t", "h", n)
		e.Now = Base.Add(at)
		if edit != nil {
			edit(&e)
		}
		got, err := s.Enrol(t.Context(), e)
		must(t, err)
		return got
	}
	hear(first.AgentID, 0, "192.0.2.1")
	if got := again(2, time.Second, nil); got.AgentID != first.AgentID || !got.Known {
		t.Errorf("same name and address at once: got %+v, want %s", got, first.AgentID)
	}
	if _, err := s.Seen(t.Context(), "01"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its old certificate: got %v, want fs.ErrNotExist", err)
	}
	hear(first.AgentID, time.Minute, "192.0.2.1")
	clone := again(3, time.Minute+time.Second, func(e *store.Enrolment) { e.Host.HostName = "PC-2" })
	if clone.AgentID == first.AgentID || clone.Known {
		t.Errorf("another name while the first is in contact: got %+v, want an identity of its own", clone)
	}
	other := again(4, time.Minute+2*time.Second, func(e *store.Enrolment) { e.Remote = "192.0.2.77" })
	if other.AgentID == first.AgentID || other.AgentID == clone.AgentID {
		t.Errorf("another address while both are in contact: got %+v, want an identity of its own", other)
	}
	hear(first.AgentID, time.Hour, "192.0.2.1")
	if got := again(5, 2*time.Hour, func(e *store.Enrolment) { e.Host.HostName = "PC-new"; e.Remote = "192.0.2.9" }); got.AgentID != first.AgentID || !got.Known {
		t.Errorf("an hour after the last contact: got %+v, want %s, the last one heard", got, first.AgentID)
	}
	if got := again(7, 3*time.Hour, func(e *store.Enrolment) { e.Host.HostName = "PC-2" }); got.AgentID != clone.AgentID || !got.Known {
		t.Errorf("the clone under its own name: got %+v, want %s", got, clone.AgentID)
	}
	must(t, s.Revoke(t.Context(), first.AgentID))
	must(t, s.Revoke(t.Context(), clone.AgentID))
	must(t, s.Revoke(t.Context(), other.AgentID))
	if got := again(6, 4*time.Hour, nil); got.Known {
		t.Errorf("after revocation: got %+v, want an identity of its own", got)
	}
}

func renewal(t *testing.T, s store.Store) {
	addToken(t, s, "t", 1, nil)
	e, err := s.Enrol(t.Context(), enrolment("t", "h", 1))
	must(t, err)
	must(t, s.Renew(t.Context(), e.AgentID, "0a", Base))
	seen := func(serial string, ok bool) {
		t.Helper()
		r, err := s.Seen(t.Context(), serial)
		if (err == nil) != ok || err == nil && r.AgentID != e.AgentID || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("certificate %s: got %v, %v, want valid: %v", serial, r, err, ok)
		}
	}
	seen("01", true)
	seen("01", true)
	seen("0a", true)
	seen("01", false)
	seen("0a", true)
	seen("", false)
	must(t, s.Revoke(t.Context(), e.AgentID))
	r, err := s.Seen(t.Context(), "0a")
	must(t, err)
	if !r.Revoked {
		t.Error("the revoked endpoint does not say so")
	}
	if err := s.Renew(t.Context(), e.AgentID, "0b", Base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("renewal of a revoked one: got %v, want fs.ErrNotExist", err)
	}
}

func heartbeat(t *testing.T, s store.Store) {
	addToken(t, s, "t", 1, nil)
	e, err := s.Enrol(t.Context(), enrolment("t", "h", 1))
	must(t, err)
	at := Base.Add(time.Minute)
	must(t, s.Ingest(t.Context(), store.Delivery{AgentID: e.AgentID, Received: at, Status: &endpoint.Status{HostName: "PC-renamed", OSVersion: "12",
		Sensors: []endpoint.Sensor{{Name: "usb", State: endpoint.SensorOK}}}}))
	r, err := s.Endpoint(t.Context(), e.AgentID)
	must(t, err)
	if !r.LastSeen.Equal(at) || r.Status == nil || r.HostName != "PC-renamed" || r.Health(at) != endpoint.Healthy {
		t.Errorf("got %+v, want the heartbeat in it", r)
	}
	ingest(t, s, e.AgentID, []store.Alert{NewAlert(0, nil)})
	all, err := s.Endpoints(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].OpenAlerts != 1 || all[0].Status == nil {
		t.Errorf("got %+v, want one endpoint with one open alert", all)
	}
}

func accounts(t *testing.T, s store.Store) {
	ctx := t.Context()
	u := &account.User{Name: "sato", Role: account.Analyst, PasswordHash: "x", MustChange: true, Created: Base.Truncate(time.Millisecond)}
	must(t, s.AddUser(ctx, u))
	if err := s.AddUser(ctx, &account.User{Name: "sato"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("a name taken: got %v, want ErrExists", err)
	}
	must(t, s.AddUser(ctx, &account.User{Name: "admin", Role: account.Admin, Created: Base}))
	// Each change leaves alone what it is not about.
	for _, change := range []struct {
		do   func() error
		edit func()
	}{
		{func() error { return s.SetUserLang(ctx, u.ID, "ja") }, func() { u.Lang = "ja" }},
		{func() error { return s.SignedIn(ctx, u.ID, "x", "x2", Base.Add(time.Hour)) },
			func() { u.PasswordHash, u.LastLogin = "x2", Base.Add(time.Hour).Truncate(time.Millisecond) }},
		{func() error { return s.ChangePassword(ctx, u.ID, "x2", "y") }, func() { u.PasswordHash, u.MustChange = "y", false }},
		{func() error { return s.DisableUser(ctx, u.ID) }, func() { u.Disabled = true }},
		{func() error { return s.ResetPassword(ctx, u.ID, "z", true) }, func() { u.PasswordHash, u.MustChange, u.Disabled = "z", true, false }},
		{func() error { return s.ResetPassword(ctx, u.ID, "z", false) }, func() { u.MustChange = false }},
	} {
		must(t, change.do())
		change.edit()
		if got, err := s.UserByID(ctx, u.ID); err != nil || *got != *u {
			t.Fatalf("got %+v (%v), want %+v", *got, err, *u)
		}
	}
	got, err := s.UserByName(ctx, "sato")
	must(t, err)
	if *got != *u {
		t.Errorf("got %+v, want %+v", *got, *u)
	}
	if got, err = s.UserByID(ctx, u.ID); err != nil || *got != *u {
		t.Errorf("by id: got %+v (%v)", got, err)
	}
	for what, err := range map[string]error{
		"a sign-in": s.SignedIn(ctx, u.ID, "x", "x", Base), "a change": s.ChangePassword(ctx, u.ID, "x", "y"),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s by a password that was replaced: got %v, want fs.ErrNotExist", what, err)
		}
	}
	if all, err := s.Users(ctx); err != nil || len(all) != 2 || all[0].Name != "admin" {
		t.Errorf("got %+v (%v), want both by name", all, err)
	}

	v := account.Session{Hash: [32]byte{7}, UserID: u.ID, Created: Base.Truncate(time.Millisecond), Seen: Base.Truncate(time.Millisecond), Remote: "192.0.2.1", UserAgent: strings.Repeat("漢", 100)}
	must(t, s.AddSession(ctx, v))
	must(t, s.TouchSession(ctx, v.Hash, v.Seen.Add(time.Second)))
	back, err := s.Session(ctx, v.Hash)
	must(t, err)
	if !back.Seen.Equal(v.Seen) || back.UserAgent != strings.Repeat("漢", 66) {
		t.Errorf("got %+v, want it noted to the minute and cut", back)
	}
	must(t, s.TouchSession(ctx, v.Hash, v.Seen.Add(time.Hour)))
	if back, err = s.Session(ctx, v.Hash); err != nil || !back.Seen.Equal(v.Seen.Add(time.Hour)) {
		t.Errorf("got %+v (%v), want it seen an hour later", back, err)
	}
	must(t, s.DeleteSessions(ctx, Base.Add(-time.Hour), Base))
	if _, err := s.Session(ctx, v.Hash); err != nil {
		t.Errorf("a session in use was deleted: %v", err)
	}
	must(t, s.DeleteSessions(ctx, Base.Add(-time.Hour), Base.Add(2*time.Hour)))
	if _, err := s.Session(ctx, v.Hash); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an idle session: got %v, want fs.ErrNotExist", err)
	}
	for _, end := range []func(){
		func() { must(t, s.DeleteSession(ctx, v.Hash)) },
		func() { must(t, s.ChangePassword(ctx, u.ID, "z", "w")) },
		func() { must(t, s.ResetPassword(ctx, u.ID, "v", true)) },
		func() { must(t, s.DisableUser(ctx, u.ID)) },
	} {
		must(t, s.AddSession(ctx, v))
		end()
		if _, err := s.Session(ctx, v.Hash); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a session that was ended: got %v, want fs.ErrNotExist", err)
		}
	}
	if err := s.SignedIn(ctx, u.ID, "v", "v", Base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a sign-in of a disabled user: got %v, want fs.ErrNotExist", err)
	}

	tok := account.Token{ID: "k1", Name: "SIEM", Role: account.Viewer, Hash: [32]byte{9}, Created: Base.Truncate(time.Millisecond)}
	must(t, s.AddToken(ctx, tok))
	must(t, s.TouchToken(ctx, "k1", Base))
	tok.LastUsed = Base.Truncate(time.Millisecond)
	if got, err := s.TokenByHash(ctx, tok.Hash); err != nil || *got != tok {
		t.Errorf("got %+v (%v), want %+v", got, err, tok)
	}
	must(t, s.RevokeToken(ctx, "k1"))
	if got, err := s.Tokens(ctx); err != nil || len(got) != 1 || !got[0].Revoked {
		t.Errorf("got %+v (%v), want it revoked", got, err)
	}
}

func lastAdmin(t *testing.T, s store.Store) {
	a := &account.User{Name: "a", Role: account.Admin, Created: Base}
	must(t, s.AddUser(t.Context(), a))
	if err := s.DisableUser(t.Context(), a.ID); !errors.Is(err, store.ErrLastAdmin) {
		t.Errorf("got %v, want ErrLastAdmin", err)
	}
	if got, err := s.UserByID(t.Context(), a.ID); err != nil || got.Role != account.Admin || got.Disabled {
		t.Errorf("got %+v (%v), want it as it was", got, err)
	}
}

func audit(t *testing.T, s store.Store) {
	for i := range 5 {
		// Some at the same instant: clocks tick in steps.
		must(t, s.Audit(t.Context(), account.AuditEntry{Time: Base.Add(time.Duration(i / 4)), Who: "sato", Action: "alert-view", Object: fmt.Sprint(i), Remote: "192.0.2.1"}))
	}
	got, err := s.AuditLog(t.Context(), 0, 3)
	must(t, err)
	if len(got) != 3 || got[0].Object != "4" || !got[0].Time.Equal(Base.Add(1)) {
		t.Fatalf("got %+v, want the newest three", got)
	}
	got, err = s.AuditLog(t.Context(), got[2].N, 10)
	must(t, err)
	if len(got) != 2 || got[1].Object != "0" {
		t.Errorf("got %+v, want the oldest two", got)
	}
}

func absent(t *testing.T, s store.Store) {
	ctx := context.Background()
	for name, f := range map[string]func() error{
		"alert":    func() error { _, err := s.Alert(ctx, "x"); return err },
		"endpoint": func() error { _, err := s.Endpoint(ctx, "x"); return err },
		"user":     func() error { _, err := s.UserByName(ctx, "x"); return err },
		"user id":  func() error { _, err := s.UserByID(ctx, 99); return err },
		"lang":     func() error { return s.SetUserLang(ctx, 99, "ja") },
		"disable":  func() error { return s.DisableUser(ctx, 99) },
		"reset":    func() error { return s.ResetPassword(ctx, 99, "x", true) },
		"session":  func() error { _, err := s.Session(ctx, [32]byte{}); return err },
		"touch":    func() error { return s.TouchSession(ctx, [32]byte{}, Base) },
		"token":    func() error { _, err := s.TokenByHash(ctx, [32]byte{}); return err },
		"revoke":   func() error { return s.Revoke(ctx, "x") },
		"revoke2":  func() error { return s.RevokeToken(ctx, "x") },
		"revoke3":  func() error { return s.RevokeEnrollToken(ctx, "x") },
		"change":   func() error { return s.ChangeAlerts(ctx, []string{"x"}, alert.Change{State: alert.Open}, "u", Base) },
		"seen":     func() error { _, err := s.Seen(ctx, "x"); return err },
	} {
		if err := f(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want fs.ErrNotExist", name, err)
		}
	}
}
