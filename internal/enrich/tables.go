package enrich

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sekisho/internal/catalog"
	"sekisho/internal/config"
	"sekisho/internal/event"
)

// tables is the settings made ready to look things up in. Apart from its caches,
// which belong to the goroutine of Apply, it never changes.
type tables struct {
	department string
	tags       []string
	calendar   *calendar
	accounts   map[string]*config.Person // "name" and `domain\name` in lower case
	people     map[string]*config.Person // by id
	protected  []place
	shares     []share
	devices    devices
	catalog    *catalog.Catalog
	approved   map[string][]approval // by tool

	shareCache map[string]shareFacts
}

func newTables(o Options) *tables {
	c := o.Config
	t := &tables{
		department: c.Host.Department,
		tags:       slices.Clip(c.Host.Tags),
		calendar:   newCalendar(&c.WorkHours),
		accounts:   map[string]*config.Person{},
		people:     map[string]*config.Person{},
		catalog:    o.Catalog,
		approved:   map[string][]approval{},
		shareCache: map[string]shareFacts{},
	}
	if t.department == "" {
		t.department = o.Policy.Department
	}
	t.protected, t.shares = newPlaces(c)
	people := slices.Concat(c.People, o.Policy.People)
	for i := range people {
		p := &people[i]
		if _, taken := t.people[p.ID]; !taken {
			t.people[p.ID] = p
		}
		for _, a := range p.Accounts {
			if _, taken := t.accounts[strings.ToLower(a)]; !taken {
				t.accounts[strings.ToLower(a)] = p
			}
		}
	}
	t.devices = newDevices(slices.Concat(c.Devices.Approved, o.Policy.Approved), slices.Concat(c.Devices.Lost, o.Policy.Lost))
	for _, a := range slices.Concat(c.RemoteAccess.Approved, o.Policy.Tools) {
		t.approved[a.Tool] = append(t.approved[a.Tool], newApproval(a))
	}
	return t
}

// person fills in who an account belongs to. A recorded id of a person counts
// before the account.
func (t *tables) person(e *event.Event, c *event.Context) {
	if len(t.people) == 0 {
		return
	}
	var p *config.Person
	switch {
	case e.Has(fPersonID):
		p = t.people[c.PersonID]
	case e.User != nil && e.User.Name != "":
		name := strings.ToLower(e.User.Name)
		if e.User.Domain != "" {
			p = t.accounts[strings.ToLower(e.User.Domain)+`\`+name]
		}
		if p == nil {
			p = t.accounts[name]
		}
	}
	if p == nil {
		return
	}
	fill(e, fPersonID, &c.PersonID, p.ID)
	fill(e, fPersonDept, &c.PersonDept, p.Department)
	fillList(e, fPersonLists, &c.PersonLists, p.Lists)
	fill(e, fPersonLastDay, &c.PersonLastDay, string(p.LastDay))
}

// approval allows a remote-access tool under conditions, all of which hold.
type approval struct {
	path    pathGlob
	anyPath bool
	signer  string // lower case; "": any
	domain  string // lower case; "": any
	account string // lower case; "": any
	expires config.Date
}

func newApproval(a config.ApprovedTool) approval {
	x := approval{anyPath: a.Path == "", signer: strings.ToLower(a.Signer), expires: a.Expires}
	if a.Path != "" {
		x.path = newPathGlob(a.Path)
	}
	x.account = strings.ToLower(a.Account)
	if domain, name, ok := strings.Cut(x.account, `\`); ok {
		x.domain, x.account = domain, name
	}
	return x
}

// holds reports whether every condition is met. What an event does not tell
// meets none.
func (a *approval) holds(e *event.Event, p *event.Process, today config.Date) bool {
	if a.expires != "" && (today == "" || today > a.expires) {
		return false
	}
	if !a.anyPath && (p.Executable == "" || !a.path.match(foldPath(p.Executable))) {
		return false
	}
	if a.signer != "" && !signedBy(p.Signer, a.signer) {
		return false
	}
	if a.account != "" {
		u := e.User
		if u == nil || !strings.EqualFold(u.Name, a.account) || a.domain != "" && !strings.EqualFold(u.Domain, a.domain) {
			return false
		}
	}
	return true
}

// signedBy compares the whole subject, or the CN of a distinguished name.
func signedBy(subject, want string) bool {
	s := strings.ToLower(subject)
	if s == want {
		return true
	}
	i := strings.Index(s, "cn=")
	if i < 0 || i > 0 && s[i-1] != ' ' && s[i-1] != ',' {
		return false
	}
	cn := strings.Trim(s[i+3:], ` "`)
	rest, ok := strings.CutPrefix(cn, want)
	return ok && (rest == "" || rest[0] == ',' || rest[0] == '"')
}

var (
	fToolID       = field("sekisho.remote_tool.id")
	fToolName     = field("sekisho.remote_tool.name")
	fToolCategory = field("sekisho.remote_tool.category")
)

// remoteTool fills in which remote-access tool a process is, and whether IT
// allowed it.
func (t *tables) remoteTool(e *event.Event) {
	p := e.Process
	if p == nil && e.Network == nil {
		return
	}
	var tool *catalog.Tool
	switch {
	case e.Has(fToolID):
		if p.RemoteTool.ID == "" { // recorded as none
			return
		}
		tool, _ = t.catalog.ByID(p.RemoteTool.ID)
	case e.Action == event.ProcessStarted, e.Action == event.ProcessEnded:
		tool, _ = t.catalog.Match(p)
	case e.Action == event.NetworkConnected, e.Action == event.FileUploaded:
		tool, _ = t.catalog.Match(p)
		// A browser on a vendor's pages is no remote access, and who else it is
		// cannot be told without a process.
		if n := e.Network; tool == nil && n != nil && n.DestinationDomain != "" && p != nil && p.Name != "" && event.Starter(p.Name) != event.ByBrowser {
			tool, _ = t.catalog.MatchDomain(n.DestinationDomain)
		}
	}
	if p == nil || tool == nil && p.RemoteTool == nil {
		return
	}
	if p.RemoteTool == nil {
		p.RemoteTool = &event.RemoteTool{}
	}
	r := p.RemoteTool
	if tool != nil {
		fill(e, fToolID, &r.ID, tool.ID)
		fill(e, fToolName, &r.Name, tool.Name)
		fill(e, fToolCategory, &r.Category, tool.Category)
	}
	if !r.Approved.OK && r.ID != "" {
		by := t.approvedBy(e, p, r.ID)
		r.Approved = event.Some(by != nil)
		if by != nil && e.Action == event.ProcessStarted {
			name := r.Name
			if name == "" {
				name = r.ID
			}
			t.ends(e, e.Context, event.ExpiryTool, name, by.expires)
		}
	}
}

// approvedBy is the approval that allows a tool, of several the one that ends
// last; nil: none does.
func (t *tables) approvedBy(e *event.Event, p *event.Process, id string) (by *approval) {
	list := t.approved[id]
	if len(list) == 0 {
		return nil
	}
	var today config.Date
	if !e.Time.IsZero() {
		today = t.calendar.date(e.Time)
	}
	for i := range list {
		x := &list[i]
		if x.holds(e, p, today) && (by == nil || by.expires != "" && (x.expires == "" || x.expires > by.expires)) {
			by = x
		}
	}
	return by
}

func toolPath(i int) string { return fmt.Sprintf("remote_access.approved[%d].tool", i) }

func quoted(s string) string { return strconv.Quote(s) }
