package console

import (
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/endpoint"
)

// endpointsPerPage keeps a page of the list readable and under 200 KiB.
const endpointsPerPage = 200

// healths are all healths, worst first: the order of the list.
var healths = []endpoint.Health{endpoint.Silent, endpoint.Degraded, endpoint.Late, endpoint.Healthy, endpoint.Revoked}

type endpointsPage struct {
	frame
	Counts     []healthCount
	Health     string // filter; empty: all
	Text       string
	Rows       []endpointRow
	Total      int // of all endpoints
	Found      int // by the filter
	Prev, Next string
	Opened     *endpointDetail
}

type healthCount struct {
	Name, Href string
	Count      int
	Active     bool
}

// endpointRow is an endpoint in the list.
type endpointRow struct {
	ID, Host, OS, OSVersion string
	Department, Version     string
	Health                  string
	LastSeen                time.Time
	Silence                 string // since the last contact
	Waiting                 int64  // records in its spool
	Dropped, Lost           int64  // given up by its spool; missed by its sensors
	Skew                    time.Duration
	SkewText                string // empty: too little to matter
	OpenAlerts              int
	Sensors                 []sensorDot
}

type sensorDot struct {
	Name, State, Mechanism string
}

// Missing is how much is not in the records, for whatever reason.
func (r endpointRow) Missing() int64 { return r.Dropped + r.Lost }

// skewMatters is when a PC's clock is told to be off: windows and working hours
// of rules are minutes.
const skewMatters = 30 * time.Second

func (p *printer) endpointRow(rec *endpoint.Record, now time.Time) endpointRow {
	row := endpointRow{ID: rec.AgentID, Host: rec.HostName, OS: rec.OS, OSVersion: rec.OSVersion, Department: rec.Department,
		Health: string(rec.Health(now)), LastSeen: rec.LastSeen, OpenAlerts: rec.OpenAlerts}
	if !rec.LastSeen.IsZero() {
		row.Silence = p.span(now.Sub(rec.LastSeen))
	}
	if st := rec.Status; st != nil {
		row.Version = st.AgentVersion
		row.Waiting = st.Alerts.Records + st.Activity.Records
		row.Dropped = st.Alerts.Dropped + st.Activity.Dropped
		row.Lost = int64(st.Lost)
		row.Skew = st.Contact.ClockOffset
		row.SkewText = p.skew(row.Skew)
		for _, x := range st.Sensors[:min(len(st.Sensors), 12)] {
			if x.State != endpoint.SensorUnavailable { // nothing to do about it: the page of the PC tells
				row.Sensors = append(row.Sensors, sensorDot{x.Name, sensorState(x.State), x.Mechanism})
			}
		}
	}
	return row
}

// skew is a clock's deviation, "+2 min" for a PC that is ahead of the console.
func (p *printer) skew(offset time.Duration) string {
	switch {
	case offset.Abs() < skewMatters:
		return ""
	case offset > 0: // the console's clock minus the PC's
		return "−" + p.span(offset)
	}
	return "+" + p.span(-offset)
}

// sensorState is a state that the catalogue and the style sheet know.
func sensorState(s endpoint.SensorState) string {
	switch s {
	case endpoint.SensorOK, endpoint.SensorLimited, endpoint.SensorDegraded, endpoint.SensorUnavailable, endpoint.SensorOff:
		return string(s)
	}
	return string(endpoint.SensorDown)
}

func (s *Server) endpoints(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	q := r.URL.Query()
	health, text := q.Get("health"), strings.TrimSpace(q.Get("name"))
	if health != "" && !slices.Contains(healths, endpoint.Health(health)) {
		return fmt.Errorf("%w: health %q", errBadRequest, cut(health, 40))
	}
	if len(text) > maxParam {
		return fmt.Errorf("%w: parameter name is too long", errBadRequest)
	}
	from := 0
	if at := q.Get("from"); at != "" {
		var err error
		if from, err = strconv.Atoi(at); err != nil || from < 0 {
			return fmt.Errorf("%w: from %q", errBadRequest, cut(at, 40))
		}
	}
	all, err := s.o.Store.Endpoints(r.Context())
	if err != nil {
		return fmt.Errorf("list endpoints: %w", err)
	}
	now := time.Now()
	page := endpointsPage{frame: s.frame(r, v.p.t("nav.endpoints"), "endpoints"), Health: health, Text: text, Total: len(all)}
	count := map[endpoint.Health]int{}
	var rows []endpointRow
	for i := range all {
		h := all[i].Health(now)
		count[h]++
		if health == "" && h == endpoint.Revoked || health != "" && string(h) != health {
			continue
		}
		if text == "" || matches(text, all[i].HostName, all[i].Department, all[i].OSVersion, all[i].AgentID) {
			rows = append(rows, v.p.endpointRow(&all[i], now))
		}
	}
	slices.SortStableFunc(rows, func(a, b endpointRow) int {
		if d := slices.Index(healths, endpoint.Health(a.Health)) - slices.Index(healths, endpoint.Health(b.Health)); d != 0 {
			return d
		}
		return strings.Compare(strings.ToLower(a.Host), strings.ToLower(b.Host))
	})
	link := func(health string, from int) string {
		u := url.Values{}
		if health != "" {
			u.Set("health", health)
		}
		if text != "" {
			u.Set("name", text)
		}
		if from > 0 {
			u.Set("from", strconv.Itoa(from))
		}
		if len(u) == 0 {
			return "/endpoints"
		}
		return "/endpoints?" + u.Encode()
	}
	for _, h := range healths {
		if count[h] > 0 || h == endpoint.Silent || h == endpoint.Healthy {
			page.Counts = append(page.Counts, healthCount{string(h), link(string(h), 0), count[h], health == string(h)})
		}
	}
	page.Found = len(rows)
	from = min(from, len(rows))
	end := min(from+endpointsPerPage, len(rows))
	if from > 0 {
		page.Prev = link(health, max(0, from-endpointsPerPage))
	}
	if end < len(rows) {
		page.Next = link(health, end)
	}
	page.Rows = rows[from:end]
	if id := q.Get("open"); id != "" {
		for i := range all {
			if all[i].AgentID == id {
				if err := s.note(r, v.user.Name, "endpoint-view", id, all[i].HostName); err != nil {
					return err
				}
				page.Opened = v.p.endpointDetail(&all[i], now)
			}
		}
	}
	return s.render(w, r, http.StatusOK, "endpoints", page)
}

// matches reports whether every word of text occurs in one of the fields,
// whatever the case.
func matches(text string, fields ...string) bool {
	all := strings.ToLower(strings.Join(fields, "\n"))
	for _, word := range strings.Fields(strings.ToLower(text)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}

type endpointPage struct {
	frame
	D *endpointDetail
}

func (s *Server) endpoint(w http.ResponseWriter, r *http.Request) error {
	v := visitOf(r)
	id := r.PathValue("id")
	rec, err := s.o.Store.Endpoint(r.Context(), id)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	if err := s.note(r, v.user.Name, "endpoint-view", rec.AgentID, rec.HostName); err != nil {
		return err
	}
	d := v.p.endpointDetail(rec, time.Now())
	return s.render(w, r, http.StatusOK, "endpoint", endpointPage{s.frame(r, v.p.plain(rec.HostName, 60), "endpoints"), d})
}

// endpointDetail is everything the console tells of one endpoint.
type endpointDetail struct {
	endpointRow
	Why        []template.HTML // why it is not healthy
	Enrolled   time.Time
	HostID     string
	Tags       string
	Status     *endpoint.Status // nil: never reported
	SensorRows []sensorRow
	Queues     []queueRow
	Running    string // since the agent started
	CPU        string // mean share of one core since then
	Memory     string
	CertSoon   bool // the certificate expires within a week
	AlertsURL  string
}

type sensorRow struct {
	endpoint.Sensor
	State string // one that the catalogue knows
}

type queueRow struct {
	Key     string
	Records int64
	Bytes   int64
	Percent int // of its room
	Oldest  time.Time
	Dropped int64
	Error   string
}

// certSoon is when an expiring certificate is pointed out: agents renew theirs at
// two thirds of 30 days, so one with a week left has failed to for days.
const certSoon = 7 * 24 * time.Hour

func (p *printer) endpointDetail(rec *endpoint.Record, now time.Time) *endpointDetail {
	d := &endpointDetail{endpointRow: p.endpointRow(rec, now), Enrolled: rec.Enrolled, HostID: rec.HostID, Status: rec.Status,
		AlertsURL: "/alerts?" + url.Values{"tab": {"all"}, "host": {cutBytes(rec.HostName, maxParam)}}.Encode()}
	text := func(s string) { d.Why = append(d.Why, template.HTML(template.HTMLEscapeString(s))) }
	switch rec.Health(now) {
	case endpoint.Revoked:
		text(p.t("why.revoked"))
	case endpoint.Silent:
		if rec.LastSeen.IsZero() {
			text(p.t("why.never"))
		} else {
			text(p.t("why.silent", d.Silence))
		}
	case endpoint.Late:
		text(p.t("why.late", d.Silence))
	}
	st := rec.Status
	if st == nil {
		return d
	}
	d.Tags = strings.Join(st.Tags, p.t("list.and"))
	for _, x := range st.Sensors[:min(len(st.Sensors), 32)] {
		x.Reason = x.Why(p.lang)
		d.SensorRows = append(d.SensorRows, sensorRow{x, sensorState(x.State)})
		if x.State.Trouble() {
			why := template.HTML(template.HTMLEscapeString(p.word("sensor."+x.Name, x.Name))) + " – " + template.HTML(template.HTMLEscapeString(p.t("sensorstate."+sensorState(x.State))))
			if x.Reason != "" {
				why += template.HTML(template.HTMLEscapeString(p.t("colon"))) + p.bdi(x.Reason)
			}
			d.Why = append(d.Why, why)
		}
	}
	queue := func(key string, q endpoint.Queue) {
		row := queueRow{Key: key, Records: q.Records, Bytes: q.Bytes, Oldest: q.Oldest, Dropped: q.Dropped, Error: q.Error}
		if q.MaxBytes > 0 {
			row.Percent = int(min(100, max(0, q.Bytes*100/q.MaxBytes)))
		}
		d.Queues = append(d.Queues, row)
		if q.Error != "" {
			d.Why = append(d.Why, template.HTML(template.HTMLEscapeString(p.t("why.queue", p.t("queue."+key))))+p.bdi(q.Error))
		}
	}
	queue("alerts", st.Alerts)
	queue("activity", st.Activity)
	if st.Lost > 0 {
		text(p.t("why.lost", p.number(int64(st.Lost))))
	}
	for _, problem := range st.Settings.Problems[:min(len(st.Settings.Problems), 20)] {
		d.Why = append(d.Why, template.HTML(template.HTMLEscapeString(p.t("why.settings")))+p.bdi(problem))
	}
	for _, problem := range st.Rules.Problems[:min(len(st.Rules.Problems), 20)] {
		d.Why = append(d.Why, template.HTML(template.HTMLEscapeString(p.t("why.rules")))+p.bdi(endpoint.Why(problem, p.lang)))
	}
	if d.SkewText != "" {
		text(p.t("why.skew", d.SkewText))
	}
	if until := st.Contact.CertExpires; !until.IsZero() && until.Sub(now) < certSoon {
		d.CertSoon = true
		if until.After(now) {
			text(p.t("why.cert", p.span(until.Sub(now))))
		} else {
			text(p.t("why.certover"))
		}
	}
	if run := st.Time.Sub(st.Started); !st.Started.IsZero() && run > 0 {
		d.Running = p.span(run)
		d.CPU = strconv.FormatFloat(100*st.CPUSeconds/run.Seconds(), 'f', 2, 64) + " %"
	}
	if st.MemoryBytes > 0 {
		d.Memory = p.bytes(st.MemoryBytes)
	}
	return d
}
