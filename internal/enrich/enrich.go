// Package enrich is the one stage between sources and rules: it joins to an
// event what IT told us (settings, device ledger, people, calendar), what the
// catalogue knows of its process, and what follows from the event itself or from
// earlier events of the PC (mounted volumes, remote-control sessions). Each PC
// has a stage of its own.
//
// The agent and replay run the same stage in the order of the events, and it
// goes by event time, never by the clock: a replay answers what the agent
// answered. It only fills fields that are absent; what a source or a recording
// says stays, an empty text included.
package enrich

import (
	"sync/atomic"

	"sekisho/internal/catalog"
	"sekisho/internal/config"
	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// Options is what a stage works with.
type Options struct {
	Config  *config.Agent    // nil: the defaults
	Catalog *catalog.Catalog // nil: the embedded one
	Policy  Policy           // from the console; the zero Policy adds nothing
}

// Policy is what the console knows of this PC, its people and devices. Settings
// of the PC go first; lists are joined.
type Policy struct {
	Department string // where the settings give none
	Approved   []config.ApprovedDevice
	Lost       []config.LostDevice
	People     []config.Person
	Tools      []config.ApprovedTool
}

// Stage enriches the events of one PC, one after the other. Apply belongs to one
// goroutine; Reload may be called from any.
type Stage struct {
	now      atomic.Pointer[tables]
	volumes  volumes
	sessions sessions
}

// New makes a stage.
func New(o Options) *Stage {
	s := &Stage{}
	s.Reload(o)
	return s
}

// Another makes a stage for another PC with the same settings, which the two
// share until one is reloaded: their Apply belongs to the same goroutine.
func (s *Stage) Another() *Stage {
	other := &Stage{}
	other.now.Store(s.now.Load())
	return other
}

// Reload makes new settings count from the next event on. What is known of the
// PC's volumes and sessions stays.
func (s *Stage) Reload(o Options) {
	if o.Config == nil {
		o.Config = config.DefaultAgent()
	}
	if o.Catalog == nil {
		o.Catalog = catalog.Load()
	}
	s.now.Store(newTables(o))
}

// Check tells what the settings name that the catalogue does not know. The
// agent's check and reload add it to the problems of the settings.
func Check(c *config.Agent, cat *catalog.Catalog) config.Problems {
	var ps config.Problems
	for i, a := range c.RemoteAccess.Approved {
		if t, ok := cat.ByID(a.Tool); !ok || !t.Controls {
			ps = append(ps, c.Problem(toolPath(i), config.CodeFound,
				"遠隔操作ツールの一覧に "+quoted(a.Tool)+" はありません", "no remote-access tool "+quoted(a.Tool)+" in the catalogue",
				problem.Suggest(a.Tool, cat.IDs())))
		}
	}
	return ps
}

// Fields that a recording may hold as empty text: then they are not absent.
func field(name string) event.FieldID {
	id, ok := event.FieldByName(name)
	if !ok {
		panic("enrich: no field " + name)
	}
	return id
}

// fill sets a text that is absent.
func fill(e *event.Event, id event.FieldID, at *string, v string) {
	if *at == "" && v != "" && !e.Has(id) {
		*at = v
	}
}

// fillList sets a list that is absent; the list is shared.
func fillList(e *event.Event, id event.FieldID, at *[]string, v []string) {
	if len(*at) == 0 && len(v) > 0 && !e.Has(id) {
		*at = v
	}
}

var (
	fHostDepartment = field("sekisho.host.department")
	fHostTags       = field("sekisho.host.tags")
	fTimeWork       = field("sekisho.time.work")
	fPersonID       = field("sekisho.person.id")
	fPersonDept     = field("sekisho.person.department")
	fPersonLists    = field("sekisho.person.lists")
	fPersonLastDay  = field("sekisho.person.last_day")
	fDeviceLedger   = field("sekisho.device.ledger")
	fRemoteSession  = field("sekisho.remote_session.id")
	fExpiryEnds     = field("sekisho.expiry.ends")
)

// Apply fills in what is absent. The event must not be shared yet; what is
// filled in may be shared between events and is not to be written to.
func (s *Stage) Apply(e *event.Event) {
	t := s.now.Load()
	derive(e)
	s.volumes.see(e)
	s.volumes.fill(e)

	if e.Context == nil {
		e.Context = &event.Context{}
	}
	c := e.Context
	fill(e, fHostDepartment, &c.HostDepartment, t.department)
	fillList(e, fHostTags, &c.HostTags, t.tags)
	if !e.Time.IsZero() {
		fill(e, fTimeWork, &c.WorkTime, t.calendar.work(e.Time))
	}
	t.person(e, c)
	if c.PersonLastDay != "" && !c.PersonLeft.OK && !e.Time.IsZero() {
		c.PersonLeft = event.Some(string(t.calendar.date(e.Time)) > c.PersonLastDay)
	}
	t.places(e)
	t.ledger(e, c, &s.volumes)
	t.remoteTool(e)
	if id, approved := s.sessions.at(e); id != "" {
		fill(e, fRemoteSession, &c.RemoteSessionID, id)
		if !c.RemoteSessionApproved.OK {
			c.RemoteSessionApproved = event.Some(approved)
		}
	}
	t.expiry(e, c)
	if empty(c) {
		e.Context = nil
	}
}

// SessionBegan reports whether the event applied last began a remote-control
// session of a kind that was not open before: the first one, or the first of a
// tool that is not approved. It belongs to Apply's goroutine.
func (s *Stage) SessionBegan() bool { return s.sessions.began }

// empty reports whether nothing was to be added: an event then stays as it was.
func empty(c *event.Context) bool {
	return c.HostDepartment == "" && len(c.HostTags) == 0 && c.PersonID == "" && c.PersonDept == "" && len(c.PersonLists) == 0 &&
		c.PersonLastDay == "" && c.WorkTime == "" && c.DeviceLedger == "" && c.RemoteSessionID == "" &&
		!c.PersonLeft.OK && !c.RemoteSessionApproved.OK && c.ExpiryOf == "" && c.ExpiryName == "" && c.ExpiryEnds == "" && !c.ExpiryDays.OK && !c.ExpiryWithin.OK
}
