package console

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/event"
)

// pageSize is how many alerts a page of the list has.
const pageSize = 100

// A tab is a part of the alerts by where they stand.
type tab struct {
	Key    string
	states []alert.State
	mine   bool // only the visitor's own
	tests  bool // tests, and nothing else
	hidden bool // shown while it is looked at only
}

// tabs are in the order they are shown. "all" holds what colleagues work on,
// too, and is where a search looks.
var tabs = []tab{
	{Key: "triage", states: []alert.State{alert.Open}},
	{Key: "mine", states: []alert.State{alert.Open, alert.Working, alert.Waiting}, mine: true},
	{Key: "waiting", states: []alert.State{alert.Waiting}},
	{Key: "closed", states: []alert.State{alert.Closed}},
	{Key: "all"},
	{Key: "tests", tests: true},
	{Key: "open", states: []alert.State{alert.Open, alert.Working, alert.Waiting}, hidden: true}, // what the numbers above the list count
}

// listQuery is what the URL of the list says. All of it is the visitor's input.
type listQuery struct {
	Tab                     tab
	Levels                  []alert.Level
	Rule, Host, User, Group string
	Text                    string
	After                   string // cursor
}

// maxParam is how long a parameter of a URL may be, in bytes.
const maxParam = 500

// parseList reads the URL of the list. Unknown values are bad requests, so that
// a mistyped bookmark does not quietly show something else.
func parseList(q url.Values) (listQuery, error) {
	l := listQuery{Tab: tabs[0]}
	for name, values := range q {
		for _, v := range values {
			if len(v) > maxParam || !utf8.ValidString(v) {
				return l, fmt.Errorf("%w: parameter %s: too long or not UTF-8", errBadRequest, cut(name, 40))
			}
		}
	}
	if key := q.Get("tab"); key != "" {
		i := slices.IndexFunc(tabs, func(t tab) bool { return t.Key == key })
		if i < 0 {
			return l, fmt.Errorf("%w: tab %q", errBadRequest, cut(key, 40))
		}
		l.Tab = tabs[i]
	} else if q.Get("q") != "" || q.Get("group") != "" {
		l.Tab = tabs[4]
	}
	for _, name := range q["level"] {
		if name == "" {
			continue
		}
		level, ok := alert.ParseLevel(name)
		if !ok {
			return l, fmt.Errorf("%w: level %q", errBadRequest, cut(name, 40))
		}
		if !slices.Contains(l.Levels, level) {
			l.Levels = append(l.Levels, level)
		}
	}
	text := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	l.Rule, l.Host, l.User, l.Group = text("rule"), text("host"), text("user"), text("group")
	l.Text, l.After = text("q"), q.Get("after")
	return l, nil
}

// filter is the query for the store; me is the visitor.
func (l *listQuery) filter(me string) alert.Filter {
	f := alert.Filter{States: l.Tab.states, Levels: l.Levels, Rule: l.Rule, Host: l.Host, User: l.User, Group: l.Group,
		Text: l.Text, After: l.After, TestsOnly: l.Tab.tests, Tests: l.Tab.tests, Limit: pageSize}
	if l.Tab.mine {
		f.Assignee = me
	}
	if l.Group != "" {
		f.Tests = true // the others of a test are tests
	}
	return f
}

// values is the query as a URL says it, without the cursor.
func (l *listQuery) values() url.Values {
	q := url.Values{}
	set := func(name, v string) {
		if v != "" {
			q.Set(name, v)
		}
	}
	set("tab", l.Tab.Key)
	for _, level := range l.Levels {
		q.Add("level", level.String())
	}
	set("rule", l.Rule)
	set("host", l.Host)
	set("user", l.User)
	set("group", l.Group)
	set("q", l.Text)
	return q
}

// String is the query for the audit log: as in the URL, but readable.
func (l *listQuery) String() string {
	q := l.values().Encode()
	if text, err := url.QueryUnescape(q); err == nil {
		return text
	}
	return q
}

// with is the URL of the list with one parameter changed; "" drops it.
func (l *listQuery) with(name, value string) string {
	q := l.values()
	q.Del(name)
	if value != "" {
		q.Set(name, value)
	}
	return "/alerts?" + q.Encode()
}

// narrow reports whether anything but the tab narrows the list.
func (l *listQuery) narrow() bool {
	return len(l.Levels) > 0 || l.Rule+l.Host+l.User+l.Group+l.Text != ""
}

type alertsPage struct {
	frame
	Q       listQuery
	Tabs    []tabLink
	Strip   strip
	Chips   []chip
	Levels  []levelChoice
	Rows    []alertRow
	Next    string // URL of the next page; empty: this is the last
	First   bool   // this is the first page
	CSV     string
	Seq     int64 // newest alert that the page knows of
	Empty   string
	Narrow  bool
	Clear   string // URL without filters
	Opened  *alertDetail
	Updates string // URL that script fetches new rows from
}

type tabLink struct {
	Key, Href string
	Active    bool
	Count     string
}

// A chip is a filter in force, with the URL without it.
type chip struct {
	Label, Value, Without string
}

type levelChoice struct {
	Name string
	On   bool
}

// alertRow is an alert in the list.
type alertRow struct {
	ID, Level    string
	Seq          int64
	Title        template.HTML
	Rule         string // table id, else the Sigma title
	RuleName     string
	Host, User   string
	Department   string
	Count        int64
	Span         string // from the first to the last; empty: one firing
	Totals       []string
	Time         time.Time
	State        string
	Assignee     string
	Mine         bool
	Reason       string
	Test         bool
	Unregistered bool // a device that is not in the ledger
	Lists        []string
}

// row is the alert as a row.
func (p *printer) row(rec *alert.Record, me string) alertRow {
	a := rec.Alert
	r := alertRow{ID: a.ID, Level: a.Level.String(), Seq: rec.Seq, Title: p.title(a), Rule: ruleLabel(a.Rule), RuleName: a.Rule.Name,
		Count: a.Count, Time: a.Time, State: string(rec.State), Assignee: rec.Assignee, Mine: rec.Assignee != "" && rec.Assignee == me,
		Reason: string(rec.Reason), Test: a.Test()}
	if d := a.LastSeen.Sub(a.FirstSeen); a.Count > 1 && d >= time.Second {
		r.Span = p.span(d)
	}
	for _, name := range totalNames(a.Totals) {
		r.Totals = append(r.Totals, p.totalText(name, a.Totals[name]))
	}
	if e := a.Event; e != nil {
		if e.Host != nil {
			r.Host = e.Host.Name
		}
		if e.User != nil {
			r.User = e.User.Name
		}
		if e.Context != nil {
			r.Department, r.Lists = e.Context.HostDepartment, e.Context.PersonLists
			r.Unregistered = e.Context.DeviceLedger != "" && e.Context.DeviceLedger != "approved"
		}
	}
	return r
}

// title is the alert's sentence; an alert of a rule from elsewhere may have none.
func (p *printer) title(a *alert.Alert) template.HTML {
	if text := a.Title.In(p.lang); text != "" {
		return p.fill(text, a)
	}
	return p.bdi(orDefault(a.Rule.Name, a.Rule.ID))
}

func (p *printer) titlePlain(a *alert.Alert) string {
	if text := a.Title.In(p.lang); text != "" {
		return p.fillPlain(text, a)
	}
	return p.plain(orDefault(a.Rule.Name, a.Rule.ID), lineText)
}

func ruleLabel(r alert.Rule) string {
	if r.Table != "" {
		return r.Table
	}
	return orDefault(r.Name, r.ID)
}

// totalNames are a map's names with files and bytes first.
func totalNames(totals map[string]int64) []string {
	rank := map[string]int{"files": -2, "bytes": -1}
	names := make([]string, 0, len(totals))
	for n := range totals {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank[a] - rank[b]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names[:min(len(names), 8)]
}

// totalText is a total with its name, "80 files", "events: 12".
func (p *printer) totalText(name string, n int64) string {
	if name == "files" || name == "bytes" {
		return p.total(name, n)
	}
	if key := "total." + name; p.has(key) {
		return p.t(key, p.number(n))
	}
	return p.plain(name, 40) + " " + p.number(n)
}

// alerts is the list: the page, or for script the rows alone (part "list").
func (s *Server) alerts(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	q, err := parseList(r.URL.Query())
	if err != nil {
		return err
	}
	page := alertsPage{frame: s.frame(r, v.p.t("nav.alerts"), "alerts"), Q: q, First: q.After == "", Narrow: q.narrow()}
	page.Query = q.Text
	f := q.filter(v.user.Name)
	// The counter is read first: what arrives in between is fetched as new and
	// recognized by its id, and nothing is missed.
	c, err := s.counts(r.Context(), v.start)
	if err != nil {
		return err
	}
	page.Seq = c.LastSeq
	if after := r.URL.Query().Get("after_seq"); after != "" {
		if f.AfterSeq, err = strconv.ParseInt(after, 10, 64); err != nil || f.AfterSeq < 0 {
			return fmt.Errorf("%w: after_seq %q", errBadRequest, cut(after, 40))
		}
	}
	found, err := s.o.Store.Alerts(r.Context(), f)
	if err != nil {
		return fmt.Errorf("list alerts: %w", err)
	}
	for i := range found.Records {
		page.Rows = append(page.Rows, v.p.row(&found.Records[i], v.user.Name))
	}
	// A list of one person, PC or case, or of what was searched for, is a look at
	// them; the queue as such is not.
	if q.Host+q.User+q.Group+q.Text != "" && len(page.Rows) > 0 {
		if err := s.note(r, v.user.Name, "alert-list", "", fmt.Sprintf("%d alerts, %s", len(page.Rows), &q)); err != nil {
			return err
		}
	}
	page.Updates = "/alerts?" + q.values().Encode()
	if partOf(r) == "list" {
		return s.render(w, r, http.StatusOK, "alerts", page)
	}
	if found.Next != "" {
		page.Next = q.with("after", found.Next)
	}
	page.CSV = "/alerts.csv?" + q.values().Encode()
	page.Clear = "/alerts?tab=" + q.Tab.Key
	page.Empty = q.Tab.Key
	if page.Narrow {
		page.Empty = "narrow"
	}
	page.Strip = v.p.strip(c, time.Now())
	for _, t := range tabs {
		if t.hidden && t.Key != q.Tab.Key {
			continue
		}
		link := tabLink{Key: t.Key, Href: "/alerts?tab=" + t.Key, Active: t.Key == q.Tab.Key}
		if t.Key == "triage" {
			link.Count = v.p.number(int64(c.ByState[alert.Open]))
		} else if t.Key == "waiting" && c.ByState[alert.Waiting] > 0 {
			link.Count = v.p.number(int64(c.ByState[alert.Waiting]))
		}
		page.Tabs = append(page.Tabs, link)
	}
	for i := len(alert.LevelNames) - 1; i >= 0; i-- {
		page.Levels = append(page.Levels, levelChoice{alert.LevelNames[i], slices.Contains(q.Levels, alert.Level(i))})
	}
	for _, x := range []struct{ name, value string }{{"rule", q.Rule}, {"host", q.Host}, {"user", q.User}, {"q", q.Text}} {
		if x.value != "" {
			page.Chips = append(page.Chips, chip{v.p.t("filter." + x.name), x.value, q.with(x.name, "")})
		}
	}
	if q.Group != "" {
		page.Chips = append(page.Chips, chip{v.p.t("filter.group"), cut(q.Group, 8) + "…", q.with("group", "")})
	}
	if len(q.Levels) > 0 {
		var names []string
		for _, level := range q.Levels {
			names = append(names, v.p.t("level."+level.String()))
		}
		page.Chips = append(page.Chips, chip{v.p.t("filter.level"), strings.Join(names, v.p.t("list.and")), q.with("level", "")})
	}
	if id := r.URL.Query().Get("open"); id != "" {
		detail, err := s.detail(r, id)
		switch {
		case err == nil:
			page.Opened = detail
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	return s.render(w, r, http.StatusOK, "alerts", page)
}

type alertPage struct {
	frame
	D *alertDetail
}

// alert is one alert: its page, or for script what the drawer shows (part "detail").
func (s *Server) alert(w http.ResponseWriter, r *http.Request) error {
	d, err := s.detail(r, r.PathValue("id"))
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, "alert", alertPage{s.frame(r, d.TitlePlain, "alerts"), d})
}

// alertDetail is everything the console tells of one alert.
type alertDetail struct {
	alertRow
	TitlePlain string
	Advice     template.HTML
	Incidents  []incidentView
	Facts      []factGroup
	Evidence   []evidenceRow
	Shown      int64
	Total      int64
	Keys       []fact
	First      time.Time
	Last       time.Time
	Received   time.Time
	AgentID    string
	RuleID     string
	Version    string
	Group      string
	Related    []alertRow
	More       bool // of the group, than are shown
	Log        []alert.LogEntry
	Raw        string
	Reasons    []alert.Reason
	CanAct     bool
	Problem    string // with what was tried
	Tried      string // what was refused: the form's do
	Note       string // as typed, if it was refused
}

// maxRelated is how many alerts of the same group are listed, maxRaw how many
// bytes of JSON are shown in the page; the rest is behind a link.
const (
	maxRelated = 20
	maxRaw     = 64 << 10
)

// detail reads an alert for showing and writes the look into the audit log.
func (s *Server) detail(r *http.Request, id string) (*alertDetail, error) {
	v := visitOf(r)
	if len(id) > maxParam {
		return nil, fs.ErrNotExist
	}
	rec, err := s.o.Store.Alert(r.Context(), id)
	if err != nil {
		return nil, fmt.Errorf("read alert: %w", err)
	}
	if err := s.note(r, v.user.Name, "alert-view", rec.ID, rec.About()); err != nil {
		return nil, err
	}
	a, p := rec.Alert, v.p
	d := &alertDetail{alertRow: p.row(rec, v.user.Name), TitlePlain: p.titlePlain(a), Total: max(a.EvidenceTotal, int64(len(a.Evidence))),
		First: a.FirstSeen, Last: a.LastSeen, Received: rec.Received, AgentID: rec.AgentID, RuleID: a.Rule.ID, Version: a.Rule.Version,
		Group: a.Group, Log: rec.Log, CanAct: v.user.Role.Can(account.Analyst)}
	if text := a.Advice.In(p.lang); text != "" {
		d.Advice = p.fill(text, a)
	}
	for _, inc := range a.Incidents[:min(len(a.Incidents), 10)] {
		d.Incidents = append(d.Incidents, p.incident(inc))
	}
	for _, name := range sortedKeys(a.Keys) {
		if v, ok := fieldOf(a.Event, name); ok && v == a.Keys[name] {
			continue // told among the facts
		}
		d.Keys = append(d.Keys, fact{Label: p.fieldLabel(name), Field: name, Value: p.block(a.Keys[name])})
	}
	d.Facts = p.facts(a.Event)
	for _, e := range a.Evidence[:min(len(a.Evidence), alert.MaxEvidence)] {
		d.Evidence = append(d.Evidence, p.evidence(e, a))
	}
	d.Shown = int64(len(d.Evidence))
	d.Raw = p.raw(rec.Raw)
	for _, reason := range alert.Reasons {
		if reason == alert.TestAlert == a.Test() {
			d.Reasons = append(d.Reasons, reason)
		}
	}
	if a.Group != "" {
		others, err := s.o.Store.Alerts(r.Context(), alert.Filter{Group: a.Group, Tests: true, Limit: maxRelated + 1})
		if err != nil {
			return nil, fmt.Errorf("list alerts of the group: %w", err)
		}
		for i := range others.Records {
			if o := &others.Records[i]; o.ID != a.ID && len(d.Related) < maxRelated {
				d.Related = append(d.Related, p.row(o, v.user.Name))
			}
		}
		d.More = others.Next != "" || len(others.Records) > maxRelated
	}
	return d, nil
}

func fieldOf(e *event.Event, name string) (string, bool) {
	if e == nil {
		return "", false
	}
	v, ok := e.Get(name)
	return v.String(), ok
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// raw is JSON for reading: indented, harmless, and cut.
func (p *printer) raw(b []byte) string {
	var out bytes.Buffer
	if json.Indent(&out, b, "", "  ") != nil {
		out.Reset()
		out.Write(b)
	}
	text := cutBytes(out.String(), maxRaw)
	var shown strings.Builder
	for line := range strings.Lines(text) {
		shown.WriteString(cut(strings.TrimSuffix(line, "\n"), blockText))
		shown.WriteByte('\n')
	}
	if out.Len() > maxRaw {
		shown.WriteString(p.t("raw.cut", p.bytes(int64(out.Len()))))
	}
	return shown.String()
}

// alertRaw is the alert's JSON as it was received, for a case file.
func (s *Server) alertRaw(w http.ResponseWriter, r *http.Request) error {
	rec, err := s.o.Store.Alert(r.Context(), r.PathValue("id"))
	if err != nil {
		return fmt.Errorf("read alert: %w", err)
	}
	if err := s.note(r, visitOf(r).user.Name, "alert-export", rec.ID, "json"); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="sekisho-alert.json"`)
	w.Write(rec.Raw)
	return nil
}

// changeAlert is the triage: take it, put it off, close it, write a note.
func (s *Server) changeAlert(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	id := r.PathValue("id")
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	note := strings.TrimSpace(strings.ReplaceAll(r.PostForm.Get("note"), "\r\n", "\n"))
	c := alert.Change{Note: note}
	me, nobody := v.user.Name, ""
	var problem string
	do := r.PostForm.Get("do")
	switch do {
	case "mine":
		c.State, c.Assignee = alert.Working, &me
	case "waiting":
		c.State = alert.Waiting
	case "reopen":
		c.State, c.Assignee = alert.Open, &nobody
	case "note":
		if note == "" {
			problem = "triage.problem.note"
		}
	case "close":
		c.State, c.Reason = alert.Closed, alert.Reason(r.PostForm.Get("reason"))
		if !slices.Contains(alert.Reasons, c.Reason) {
			problem = "triage.problem.reason"
		}
	default:
		return fmt.Errorf("%w: do %q", errBadRequest, cut(do, 40))
	}
	if len(note) > maxNote {
		problem = "triage.problem.long"
	}
	if problem != "" {
		d, err := s.detail(r, id)
		if err != nil {
			return err
		}
		d.Problem, d.Tried, d.Note = v.p.t(problem), do, note
		return s.render(w, r, http.StatusUnprocessableEntity, "alert", alertPage{s.frame(r, d.TitlePlain, "alerts"), d})
	}
	rec, err := s.o.Store.Alert(r.Context(), id)
	if err != nil {
		return fmt.Errorf("read alert: %w", err)
	}
	if do == "waiting" && rec.Assignee == "" {
		c.Assignee = &me // somebody has to get the answer
	}
	if do == "close" && rec.Assignee == "" {
		c.Assignee = &me
	}
	if err := s.note(r, me, "alert-change", rec.ID, do+" "+string(c.Reason)); err != nil {
		return err
	}
	if err := s.o.Store.ChangeAlerts(r.Context(), []string{rec.ID}, c, me, time.Now().UTC()); err != nil {
		return fmt.Errorf("change alert: %w", err)
	}
	if partOf(r) != "" {
		d, err := s.detail(r, id)
		if err != nil {
			return err
		}
		return s.render(w, r, http.StatusOK, "alert", alertPage{s.frame(r, d.TitlePlain, "alerts"), d})
	}
	http.Redirect(w, r, back(r, "/alerts/"+url.PathEscape(rec.ID)), http.StatusSeeOther)
	return nil
}

// maxExport is how many alerts a CSV holds; more is a job for the API. What is
// left out is said in the last line.
const maxExport = 20_000

// alertsCSV is the current list as CSV: UTF-8 with BOM and CRLF for Excel, and no
// cell that a spreadsheet would take for a formula.
func (s *Server) alertsCSV(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	q, err := parseList(r.URL.Query())
	if err != nil {
		return err
	}
	f := q.filter(v.user.Name)
	f.Limit = 1000
	if err := s.note(r, v.user.Name, "alert-export", "csv", q.String()); err != nil {
		return err
	}
	next := func(ctx context.Context) (alert.Page, error) { return s.o.Store.Alerts(ctx, f) }
	page, err := next(r.Context())
	if err != nil {
		return fmt.Errorf("list alerts: %w", err)
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="sekisho-alerts-`+time.Now().In(s.o.Location).Format("20060102-1504")+`.csv"`)
	w.Write([]byte("\ufeff"))
	out := csv.NewWriter(w)
	out.UseCRLF = true
	var head []string
	for _, name := range csvColumns {
		head = append(head, v.p.t("csv."+name))
	}
	out.Write(head)
	for n := 0; ; {
		for i := range page.Records {
			out.Write(v.p.csvLine(&page.Records[i]))
		}
		n += len(page.Records)
		if page.Next == "" {
			break
		}
		if n >= maxExport {
			out.Write([]string{v.p.t("csv.more", v.p.number(int64(n)))})
			break
		}
		f.After = page.Next
		if page, err = next(r.Context()); err != nil {
			// The status has gone out: end the connection, so that the file is not taken for whole.
			s.log.Error("csv export broke off", zap.Error(err))
			panic(http.ErrAbortHandler)
		}
	}
	out.Flush()
	return nil
}

// csvColumns are the columns of the CSV; their titles are in the catalogue.
var csvColumns = []string{"time", "level", "rule", "title", "host", "user", "department", "count", "first", "last", "files", "bytes", "state", "assignee", "reason", "test", "id"}

func (p *printer) csvLine(rec *alert.Record) []string {
	row := p.row(rec, "")
	total := func(name string) string {
		if n, ok := rec.Totals[name]; ok {
			return strconv.FormatInt(n, 10)
		}
		return ""
	}
	reason := ""
	if rec.Reason != "" {
		reason = p.t("reason." + string(rec.Reason))
	}
	test := ""
	if row.Test {
		test = p.t("test")
	}
	line := []string{p.clock(rec.Time), p.t("level." + row.Level), row.Rule, p.titlePlain(rec.Alert), p.plain(row.Host, lineText),
		p.plain(row.User, lineText), p.plain(row.Department, lineText), strconv.FormatInt(rec.Count, 10), p.clock(rec.FirstSeen), p.clock(rec.LastSeen),
		total("files"), total("bytes"), p.t("state." + row.State), rec.Assignee, reason, test, rec.ID}
	for i := range line {
		line[i] = noFormula(line[i])
	}
	return line
}

// noFormula keeps a spreadsheet from running a cell (OWASP, "CSV injection").
func noFormula(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r＝＋－＠", []rune(s)[0]) {
		return "'" + s
	}
	return s
}

// A fact is one field of an event, named for people.
type fact struct {
	Label string
	Field string // ECS name
	Value template.HTML
	Mono  bool // paths, ids, hashes
	Link  string
}

type factGroup struct {
	Key   string
	Facts []fact
}

// factGroups is which fields of the deciding event are told, in which order. The
// rest is in the JSON.
var factGroups = []struct {
	key    string
	fields []string
}{
	{"who", []string{"user.name", "user.domain", "user.effective.name", "sekisho.user.confidence", "sekisho.person.department", "sekisho.person.lists", "sekisho.person.last_day",
		"sekisho.time.work", "sekisho.session.kind", "source.ip", "source.domain", "sekisho.session.idle_seconds", "sekisho.remote_session.id"}},
	{"pc", []string{"host.name", "sekisho.host.department", "sekisho.host.tags", "host.os.type", "agent.version", "sekisho.sensor"}},
	{"program", []string{"sekisho.remote_tool.name", "sekisho.remote_tool.category", "sekisho.remote_tool.approved", "process.name",
		"process.executable", "process.command_line", "process.pid", "process.code_signature.subject_name", "process.code_signature.status", "process.pe.product",
		"process.pe.company", "process.pe.original_file_name", "process.hash.sha256", "sekisho.process.started_by", "sekisho.process.elevation",
		"process.parent.executable", "process.parent.command_line"}},
	{"device", []string{"device.vendor.name", "device.product.name", "device.serial_number", "device.vendor.id", "device.product.id",
		"sekisho.device.kinds", "sekisho.device.ledger", "sekisho.usb.oddities", "sekisho.usb.path", "sekisho.volume.usb_path", "volume.mount_name",
		"volume.dos_name", "volume.device_name",
		"volume.file_system_type", "volume.size", "volume.serial_number", "sekisho.volume.kind", "sekisho.volume.share", "sekisho.volume.encrypted"}},
	{"file", []string{"sekisho.copy.files", "sekisho.copy.bytes", "file.path", "file.size", "file.hash.sha256", "sekisho.file.volume_kind",
		"sekisho.file.audience", "sekisho.file.protected", "file.origin_url", "sekisho.source.path", "sekisho.source.volume_kind",
		"sekisho.source.share", "sekisho.source.share_department", "sekisho.source.protected", "sekisho.source.ledger", "sekisho.copy.evidence",
		"sekisho.copy.confidence", "sekisho.archive.encrypted"}},
	{"network", []string{"destination.domain", "destination.ip", "destination.port", "network.bytes"}},
	{"print", []string{"sekisho.print.printer", "sekisho.print.document", "sekisho.print.pages", "sekisho.print.copies"}},
	{"health", []string{"message", "sekisho.lost.count", "event.start", "event.end", "sekisho.expiry.name", "sekisho.expiry.ends", "sekisho.expiry.days"}},
}

// monoFields are those shown in a fixed-width face.
var monoFields = map[string]bool{
	"process.executable": true, "process.command_line": true, "process.hash.sha256": true, "process.parent.executable": true,
	"process.parent.command_line": true, "device.serial_number": true, "device.vendor.id": true, "device.product.id": true,
	"sekisho.usb.path": true, "sekisho.volume.usb_path": true, "volume.mount_name": true, "volume.dos_name": true, "volume.device_name": true, "volume.serial_number": true,
	"file.path": true, "file.hash.sha256": true, "sekisho.source.path": true, "sekisho.source.share": true, "sekisho.volume.share": true,
	"destination.domain": true, "destination.ip": true, "sekisho.remote_session.id": true, "process.pid": true, "file.origin_url": true,
}

// facts are the fields of an event that it has, in groups.
func (p *printer) facts(e *event.Event) []factGroup {
	if e == nil {
		return nil
	}
	// Of a single file the file itself tells as much.
	single := e.File != nil && e.File.Size.OK && e.Copy != nil && e.Copy.Files.V == 1
	var groups []factGroup
	for _, g := range factGroups {
		group := factGroup{Key: g.key}
		for _, name := range g.fields {
			v, ok := e.Get(name)
			if !ok || single && (name == "sekisho.copy.files" || name == "sekisho.copy.bytes") {
				continue
			}
			var f fact
			if name == "sekisho.usb.oddities" { // sentences, each on a line of its own
				f.Value = template.HTML(strings.ReplaceAll(template.HTMLEscapeString(p.lines(name, v)), "\n", "<br>"))
			} else if v.Type() == event.String && !p.has("value."+name+"."+v.Str()) {
				f.Value = p.block(v.Str())
			} else {
				f.Value = template.HTML("<bdi>" + template.HTMLEscapeString(p.value(name, v, blockText)) + "</bdi>")
			}
			f.Label, f.Field, f.Mono = p.fieldLabel(name), name, monoFields[name]
			switch name {
			case "host.name":
				f.Link = "/alerts?" + url.Values{"tab": {"all"}, "host": {cutBytes(v.Str(), maxParam)}}.Encode()
			case "user.name":
				f.Link = "/alerts?" + url.Values{"tab": {"all"}, "user": {cutBytes(v.Str(), maxParam)}}.Encode()
			}
			group.Facts = append(group.Facts, f)
		}
		if len(group.Facts) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// lines are the values of a list in words, a line each.
func (p *printer) lines(name string, v event.Value) string {
	var lines []string
	for _, s := range v.List()[:min(len(v.List()), 8)] {
		lines = append(lines, p.word("value."+name+"."+s, s))
	}
	return strings.Join(lines, "\n")
}

// fieldLabel is a field's name for people, else its ECS name.
func (p *printer) fieldLabel(name string) string {
	if key := "field." + name; p.has(key) {
		return p.t(key)
	}
	return p.plain(name, 80)
}

// evidenceRow is an event of the evidence.
type evidenceRow struct {
	Time     time.Time
	Action   string
	What     template.HTML // what it was done to
	From     template.HTML // for copies: the source
	By       template.HTML // the program
	Amount   string
	Deciding bool
}

func (p *printer) evidence(e *event.Event, a *alert.Alert) evidenceRow {
	row := evidenceRow{Time: e.Time, Deciding: a.Event != nil && len(a.Evidence) > 1 && e.Time.Equal(a.Time)}
	if key := "action." + string(e.Action); p.has(key) {
		row.Action = p.t(key)
	} else {
		row.Action = p.plain(string(e.Action), 60)
	}
	if e.Process != nil {
		row.By = p.bdi(orDefault(e.Process.Name, e.Process.Executable))
	}
	switch {
	case e.Action == event.ProcessStarted || e.Action == event.ProcessEnded:
		if e.Process != nil {
			row.What = p.bdi(orDefault(e.Process.CommandLine, e.Process.Executable))
			row.By = ""
			if e.Process.Parent != nil {
				row.By = p.bdi(orDefault(e.Process.Parent.Name, e.Process.Parent.Executable))
			}
		}
	case e.Network != nil && e.Action != event.FileUploaded:
		to := orDefault(e.Network.DestinationDomain, e.Network.DestinationIP)
		if e.Network.DestinationPort.OK {
			to += ":" + strconv.FormatInt(e.Network.DestinationPort.V, 10)
		}
		row.What = p.bdi(to)
	case e.File != nil:
		row.What = p.bdi(orDefault(e.File.Path, e.File.Name))
	case e.Device != nil:
		d := e.Device
		words := slices.DeleteFunc([]string{d.VendorName, d.ProductName, d.VendorID + ":" + d.ProductID, d.SerialNumber},
			func(s string) bool { return s == "" || s == ":" })
		row.What = p.bdi(strings.Join(words, " "))
	case e.Volume != nil:
		v := e.Volume
		row.What = p.bdi(strings.TrimSpace(orDefault(orDefault(v.MountName, v.DOSName), v.DeviceName) + " " + v.Share))
	case e.Print != nil:
		row.What = p.bdi(e.Print.Document + " → " + e.Print.Printer)
	case e.Message != "":
		row.What = p.bdi(e.Message)
	}
	if e.Copy != nil {
		if e.Copy.SourcePath != "" {
			row.From = p.bdi(e.Copy.SourcePath)
		}
		var amount []string
		if e.Copy.Files.OK && e.Copy.Files.V != 1 {
			amount = append(amount, p.n("files", e.Copy.Files.V))
		}
		if e.Copy.Bytes.OK {
			amount = append(amount, p.bytes(e.Copy.Bytes.V))
		}
		row.Amount = strings.Join(amount, p.t("list.and"))
	} else if e.File != nil && e.File.Size.OK {
		row.Amount = p.bytes(e.File.Size.V)
	}
	return row
}
