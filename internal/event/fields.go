package event

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// FieldID names a field of the table; ids are stable only within one build, so
// compile rules to them but store names.
type FieldID uint16

// Field describes one row of the table.
type Field struct {
	Name string // ECS name
	Type Type

	place place
	get   func(*Event) Value // instead, where there is a value though none is stored; zero Value: absent
	own   place              // then: of what is stored
	set   func(*Event, Value)
}

// place is where an event holds a value.
type place struct {
	offset uint16 // in the part
	part   part
	typ    Type // None: get says
}

// part is a piece of an event that is there or not as a whole. Reading a field
// by part and offset takes a third of what going through functions does, and
// rules read some twenty of each event.
type part uint8

const (
	ofEvent part = iota
	ofHost
	ofAgent
	ofUser
	ofDevice
	ofVolume
	ofFile
	ofCopy
	ofProcess
	ofNetwork
	ofSession
	ofSource
	ofPrint
	ofLost
	ofContext
	ofPE // from here on parts of the process
	ofParent
	ofRemoteTool
	parts // how many
)

// ways is where the pointer to a part lies, in the event or in its process, and
// how long the part is.
var ways = [parts]struct{ offset, size uintptr }{
	ofEvent:      {0, unsafe.Sizeof(Event{})},
	ofHost:       {unsafe.Offsetof(Event{}.Host), unsafe.Sizeof(Host{})},
	ofAgent:      {unsafe.Offsetof(Event{}.Agent), unsafe.Sizeof(Agent{})},
	ofUser:       {unsafe.Offsetof(Event{}.User), unsafe.Sizeof(User{})},
	ofDevice:     {unsafe.Offsetof(Event{}.Device), unsafe.Sizeof(Device{})},
	ofVolume:     {unsafe.Offsetof(Event{}.Volume), unsafe.Sizeof(Volume{})},
	ofFile:       {unsafe.Offsetof(Event{}.File), unsafe.Sizeof(File{})},
	ofCopy:       {unsafe.Offsetof(Event{}.Copy), unsafe.Sizeof(Copy{})},
	ofProcess:    {unsafe.Offsetof(Event{}.Process), unsafe.Sizeof(Process{})},
	ofNetwork:    {unsafe.Offsetof(Event{}.Network), unsafe.Sizeof(Network{})},
	ofSession:    {unsafe.Offsetof(Event{}.Session), unsafe.Sizeof(Session{})},
	ofSource:     {unsafe.Offsetof(Event{}.Source), unsafe.Sizeof(Source{})},
	ofPrint:      {unsafe.Offsetof(Event{}.Print), unsafe.Sizeof(Print{})},
	ofLost:       {unsafe.Offsetof(Event{}.Lost), unsafe.Sizeof(Lost{})},
	ofContext:    {unsafe.Offsetof(Event{}.Context), unsafe.Sizeof(Context{})},
	ofPE:         {unsafe.Offsetof(Process{}.PE), unsafe.Sizeof(PE{})},
	ofParent:     {unsafe.Offsetof(Process{}.Parent), unsafe.Sizeof(Parent{})},
	ofRemoteTool: {unsafe.Offsetof(Process{}.RemoteTool), unsafe.Sizeof(RemoteTool{})},
}

// part is where a part of the event lies, nil where it is absent.
func (e *Event) part(p part) unsafe.Pointer {
	from := unsafe.Pointer(e)
	if p >= ofPE {
		if from = unsafe.Pointer(e.Process); from == nil {
			return nil
		}
	}
	if p != ofEvent {
		from = *(*unsafe.Pointer)(unsafe.Add(from, ways[p].offset))
	}
	return from
}

// row is a row of the table, with the part and the offset of its value found out
// on an event that has just this one.
func row[T any](name string, t Type, at func(e *Event, mk bool) *T, set func(*Event, Value)) Field {
	var e Event
	value := uintptr(unsafe.Pointer(at(&e, true)))
	for p := range parts {
		if from := uintptr(e.part(p)); from != 0 && from <= value && value < from+ways[p].size {
			return Field{Name: name, Type: t, place: place{uint16(value - from), p, t}, set: set}
		}
	}
	panic("event: field " + name + " is in no part of an event")
}

// sub is the payload behind pp, made if mk and absent.
func sub[P any](pp **P, mk bool) *P {
	if *pp == nil && mk {
		*pp = new(P)
	}
	return *pp
}

// The five row makers. at answers the place of the value, nil if its payload is
// absent and mk is false.

func str(name string, at func(e *Event, mk bool) *string) Field {
	return row(name, String, at, func(e *Event, v Value) { *at(e, true) = v.s })
}

func num(name string, at func(e *Event, mk bool) *Opt[int64]) Field {
	return row(name, Int, at, func(e *Event, v Value) { *at(e, true) = Some(v.Int()) })
}

func truth(name string, at func(e *Event, mk bool) *Opt[bool]) Field {
	return row(name, Bool, at, func(e *Event, v Value) { *at(e, true) = Some(v.Bool()) })
}

func list(name string, at func(e *Event, mk bool) *[]string) Field {
	return row(name, List, at, func(e *Event, v Value) { *at(e, true) = v.list })
}

func moment(name string, at func(e *Event, mk bool) *time.Time) Field {
	return row(name, Time, at, func(e *Event, v Value) { *at(e, true) = v.Time() })
}

// class is a list field that stands for the action's own list when it is unset.
func class(name string, at func(e *Event) *[]string, def func(Action) []string) Field {
	f := list(name, func(e *Event, _ bool) *[]string { return at(e) })
	f.own, f.place = f.place, place{}
	f.get = func(e *Event) Value {
		l := *at(e)
		if l == nil {
			l = def(e.Action)
		}
		if len(l) == 0 {
			return Value{}
		}
		return Value{typ: List, list: l}
	}
	return f
}

// in lifts the place of a value within a payload to its place within the event.
func in[P, T any](payload func(e *Event) **P, at func(*P) *T) func(*Event, bool) *T {
	return func(e *Event, mk bool) *T {
		if p := sub(payload(e), mk); p != nil {
			return at(p)
		}
		return nil
	}
}

func host[T any](at func(*Host) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Host { return &e.Host }, at)
}
func agent[T any](at func(*Agent) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Agent { return &e.Agent }, at)
}
func user[T any](at func(*User) *T) func(*Event, bool) *T {
	return in(func(e *Event) **User { return &e.User }, at)
}
func device[T any](at func(*Device) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Device { return &e.Device }, at)
}
func volume[T any](at func(*Volume) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Volume { return &e.Volume }, at)
}
func file[T any](at func(*File) *T) func(*Event, bool) *T {
	return in(func(e *Event) **File { return &e.File }, at)
}
func copied[T any](at func(*Copy) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Copy { return &e.Copy }, at)
}
func process[T any](at func(*Process) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Process { return &e.Process }, at)
}
func network[T any](at func(*Network) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Network { return &e.Network }, at)
}
func session[T any](at func(*Session) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Session { return &e.Session }, at)
}
func source[T any](at func(*Source) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Source { return &e.Source }, at)
}
func printed[T any](at func(*Print) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Print { return &e.Print }, at)
}
func context[T any](at func(*Context) *T) func(*Event, bool) *T {
	return in(func(e *Event) **Context { return &e.Context }, at)
}

// The payloads of a process are two steps away.

func inProcess[P, T any](payload func(p *Process) **P, at func(*P) *T) func(*Event, bool) *T {
	return func(e *Event, mk bool) *T {
		p := sub(&e.Process, mk)
		if p == nil {
			return nil
		}
		if q := sub(payload(p), mk); q != nil {
			return at(q)
		}
		return nil
	}
}

func pe[T any](at func(*PE) *T) func(*Event, bool) *T {
	return inProcess(func(p *Process) **PE { return &p.PE }, at)
}
func parent[T any](at func(*Parent) *T) func(*Event, bool) *T {
	return inProcess(func(p *Process) **Parent { return &p.Parent }, at)
}
func tool[T any](at func(*RemoteTool) *T) func(*Event, bool) *T {
	return inProcess(func(p *Process) **RemoteTool { return &p.RemoteTool }, at)
}

// envelope is the place of a value in the event itself.
func envelope[T any](at func(*Event) *T) func(*Event, bool) *T {
	return func(e *Event, _ bool) *T { return at(e) }
}

// kind is "event" unless said otherwise.
var kind = func() Field {
	f := str("event.kind", envelope(func(e *Event) *string { return &e.Kind }))
	f.own, f.place = f.place, place{}
	f.get = func(e *Event) Value { return Text(cmp.Or(e.Kind, usualKind)) }
	return f
}()

const usualKind = "event"

// table holds every field of the product, sorted by name at start. Names are
// ECS 9; what ECS lacks is under sekisho.
var table = []Field{
	moment("@timestamp", envelope(func(e *Event) *time.Time { return &e.Time })),
	moment("event.created", envelope(func(e *Event) *time.Time { return &e.Created })),
	str("event.id", envelope(func(e *Event) *string { return &e.ID })),
	kind,
	str("event.action", envelope(func(e *Event) *string { return (*string)(&e.Action) })),
	class("event.category", func(e *Event) *[]string { return &e.Category }, func(a Action) []string { return classes[a].category }),
	class("event.type", func(e *Event) *[]string { return &e.Type }, func(a Action) []string { return classes[a].typ }),
	str("message", envelope(func(e *Event) *string { return &e.Message })),
	list("error.message", envelope(func(e *Event) *[]string { return &e.Errors })),
	str("sekisho.sensor", envelope(func(e *Event) *string { return &e.Sensor })),
	str("sekisho.health.state", envelope(func(e *Event) *string { return &e.Health })),
	truth("sekisho.test", envelope(func(e *Event) *Opt[bool] { return &e.Test })),
	str("sekisho.session.id", envelope(func(e *Event) *string { return &e.SessionID })),

	str("host.id", host(func(h *Host) *string { return &h.ID })),
	str("host.name", host(func(h *Host) *string { return &h.Name })),
	str("host.os.type", host(func(h *Host) *string { return &h.OSType })),
	str("agent.id", agent(func(a *Agent) *string { return &a.ID })),
	str("agent.version", agent(func(a *Agent) *string { return &a.Version })),
	str("user.id", user(func(u *User) *string { return &u.ID })),
	str("user.name", user(func(u *User) *string { return &u.Name })),
	str("user.domain", user(func(u *User) *string { return &u.Domain })),
	str("user.effective.id", user(func(u *User) *string { return &u.EffectiveID })),
	str("user.effective.name", user(func(u *User) *string { return &u.EffectiveName })),
	str("sekisho.user.confidence", user(func(u *User) *string { return &u.Confidence })),

	str("device.vendor.id", device(func(d *Device) *string { return &d.VendorID })),
	str("device.product.id", device(func(d *Device) *string { return &d.ProductID })),
	str("device.vendor.name", device(func(d *Device) *string { return &d.VendorName })),
	str("device.product.name", device(func(d *Device) *string { return &d.ProductName })),
	str("device.serial_number", device(func(d *Device) *string { return &d.SerialNumber })),
	str("sekisho.usb.path", device(func(d *Device) *string { return &d.Path })),
	list("sekisho.usb.interfaces", device(func(d *Device) *[]string { return &d.Interfaces })),
	list("sekisho.device.kinds", device(func(d *Device) *[]string { return &d.Kinds })),
	list("sekisho.usb.oddities", device(func(d *Device) *[]string { return &d.Oddities })),

	str("volume.mount_name", volume(func(v *Volume) *string { return &v.MountName })),
	str("volume.device_name", volume(func(v *Volume) *string { return &v.DeviceName })),
	str("volume.dos_name", volume(func(v *Volume) *string { return &v.DOSName })),
	str("volume.nt_name", volume(func(v *Volume) *string { return &v.NTName })),
	str("volume.file_system_type", volume(func(v *Volume) *string { return &v.FileSystemType })),
	str("volume.bus_type", volume(func(v *Volume) *string { return &v.BusType })),
	truth("volume.removable", volume(func(v *Volume) *Opt[bool] { return &v.Removable })),
	truth("volume.writable", volume(func(v *Volume) *Opt[bool] { return &v.Writable })),
	num("volume.size", volume(func(v *Volume) *Opt[int64] { return &v.Size })),
	str("volume.serial_number", volume(func(v *Volume) *string { return &v.SerialNumber })),
	str("volume.vendor_id", volume(func(v *Volume) *string { return &v.VendorID })),
	str("volume.product_id", volume(func(v *Volume) *string { return &v.ProductID })),
	str("sekisho.volume.kind", volume(func(v *Volume) *string { return &v.Kind })),
	str("sekisho.volume.share", volume(func(v *Volume) *string { return &v.Share })),
	truth("sekisho.volume.encrypted", volume(func(v *Volume) *Opt[bool] { return &v.Encrypted })),
	str("sekisho.volume.usb_path", volume(func(v *Volume) *string { return &v.USBPath })),

	str("file.path", file(func(f *File) *string { return &f.Path })),
	str("file.name", file(func(f *File) *string { return &f.Name })),
	str("file.extension", file(func(f *File) *string { return &f.Extension })),
	num("file.size", file(func(f *File) *Opt[int64] { return &f.Size })),
	str("file.hash.sha256", file(func(f *File) *string { return &f.SHA256 })),
	str("file.origin_url", file(func(f *File) *string { return &f.OriginURL })),
	str("file.owner", file(func(f *File) *string { return &f.Owner })),
	str("sekisho.file.volume_kind", file(func(f *File) *string { return &f.VolumeKind })),
	str("sekisho.file.share", file(func(f *File) *string { return &f.Share })),
	str("sekisho.file.audience", file(func(f *File) *string { return &f.Audience })),
	str("sekisho.file.protected", file(func(f *File) *string { return &f.Protected })),

	str("sekisho.source.path", copied(func(c *Copy) *string { return &c.SourcePath })),
	str("sekisho.source.volume_kind", copied(func(c *Copy) *string { return &c.SourceVolumeKind })),
	str("sekisho.source.share", copied(func(c *Copy) *string { return &c.SourceShare })),
	str("sekisho.source.share_department", copied(func(c *Copy) *string { return &c.SourceShareDepartment })),
	str("sekisho.source.protected", copied(func(c *Copy) *string { return &c.SourceProtected })),
	str("sekisho.source.ledger", copied(func(c *Copy) *string { return &c.SourceLedger })),
	str("sekisho.copy.evidence", copied(func(c *Copy) *string { return &c.Evidence })),
	str("sekisho.copy.confidence", copied(func(c *Copy) *string { return &c.Confidence })),
	num("sekisho.copy.files", copied(func(c *Copy) *Opt[int64] { return &c.Files })),
	num("sekisho.copy.bytes", copied(func(c *Copy) *Opt[int64] { return &c.Bytes })),
	list("sekisho.copy.source_ids", copied(func(c *Copy) *[]string { return &c.SourceIDs })),
	list("sekisho.copy.paths", copied(func(c *Copy) *[]string { return &c.Paths })),
	truth("sekisho.archive.encrypted", copied(func(c *Copy) *Opt[bool] { return &c.ArchiveEncrypted })),

	num("process.pid", process(func(p *Process) *Opt[int64] { return &p.PID })),
	str("process.entity_id", process(func(p *Process) *string { return &p.EntityID })),
	str("process.executable", process(func(p *Process) *string { return &p.Executable })),
	str("process.name", process(func(p *Process) *string { return &p.Name })),
	list("process.args", process(func(p *Process) *[]string { return &p.Args })),
	str("process.command_line", process(func(p *Process) *string { return &p.CommandLine })),
	str("process.working_directory", process(func(p *Process) *string { return &p.WorkingDirectory })),
	str("process.hash.sha256", process(func(p *Process) *string { return &p.SHA256 })),
	moment("process.start", process(func(p *Process) *time.Time { return &p.Start })),
	str("container.id", process(func(p *Process) *string { return &p.ContainerID })),
	num("process.exit_code", process(func(p *Process) *Opt[int64] { return &p.ExitCode })),
	str("process.code_signature.subject_name", process(func(p *Process) *string { return &p.Signer })),
	truth("process.code_signature.exists", process(func(p *Process) *Opt[bool] { return &p.Signed })),
	truth("process.code_signature.trusted", process(func(p *Process) *Opt[bool] { return &p.SignatureTrusted })),
	str("process.code_signature.status", process(func(p *Process) *string { return &p.SignatureStatus })),
	str("process.pe.original_file_name", pe(func(p *PE) *string { return &p.OriginalFileName })),
	str("process.pe.company", pe(func(p *PE) *string { return &p.Company })),
	str("process.pe.product", pe(func(p *PE) *string { return &p.Product })),
	str("process.pe.description", pe(func(p *PE) *string { return &p.Description })),
	str("process.pe.file_version", pe(func(p *PE) *string { return &p.FileVersion })),
	num("process.parent.pid", parent(func(p *Parent) *Opt[int64] { return &p.PID })),
	str("process.parent.entity_id", parent(func(p *Parent) *string { return &p.EntityID })),
	str("process.parent.executable", parent(func(p *Parent) *string { return &p.Executable })),
	str("process.parent.name", parent(func(p *Parent) *string { return &p.Name })),
	str("process.parent.command_line", parent(func(p *Parent) *string { return &p.CommandLine })),
	str("process.parent.user.name", parent(func(p *Parent) *string { return &p.UserName })),
	str("process.parent.user.domain", parent(func(p *Parent) *string { return &p.UserDomain })),
	str("sekisho.process.started_by", process(func(p *Process) *string { return &p.StartedBy })),
	str("sekisho.process.integrity_level", process(func(p *Process) *string { return &p.IntegrityLevel })),
	str("sekisho.process.elevation", process(func(p *Process) *string { return &p.Elevation })),
	str("sekisho.process.hashes", process(func(p *Process) *string { return &p.Hashes })),
	str("sekisho.remote_tool.id", tool(func(r *RemoteTool) *string { return &r.ID })),
	str("sekisho.remote_tool.name", tool(func(r *RemoteTool) *string { return &r.Name })),
	str("sekisho.remote_tool.category", tool(func(r *RemoteTool) *string { return &r.Category })),
	truth("sekisho.remote_tool.approved", tool(func(r *RemoteTool) *Opt[bool] { return &r.Approved })),

	str("destination.ip", network(func(n *Network) *string { return &n.DestinationIP })),
	num("destination.port", network(func(n *Network) *Opt[int64] { return &n.DestinationPort })),
	str("destination.domain", network(func(n *Network) *string { return &n.DestinationDomain })),
	num("network.bytes", network(func(n *Network) *Opt[int64] { return &n.Bytes })),

	str("sekisho.session.kind", session(func(s *Session) *string { return &s.Kind })),
	num("sekisho.session.idle_seconds", session(func(s *Session) *Opt[int64] { return &s.IdleSeconds })),

	str("source.ip", source(func(s *Source) *string { return &s.IP })),
	str("source.domain", source(func(s *Source) *string { return &s.Domain })),

	str("sekisho.print.printer", printed(func(p *Print) *string { return &p.Printer })),
	num("sekisho.print.pages", printed(func(p *Print) *Opt[int64] { return &p.Pages })),
	num("sekisho.print.copies", printed(func(p *Print) *Opt[int64] { return &p.Copies })),
	str("sekisho.print.document", printed(func(p *Print) *string { return &p.Document })),

	moment("event.start", in(func(e *Event) **Lost { return &e.Lost }, func(l *Lost) *time.Time { return &l.From })),
	moment("event.end", in(func(e *Event) **Lost { return &e.Lost }, func(l *Lost) *time.Time { return &l.To })),
	num("sekisho.lost.count", in(func(e *Event) **Lost { return &e.Lost }, func(l *Lost) *Opt[int64] { return &l.Count })),

	str("sekisho.host.department", context(func(c *Context) *string { return &c.HostDepartment })),
	list("sekisho.host.tags", context(func(c *Context) *[]string { return &c.HostTags })),
	str("sekisho.person.id", context(func(c *Context) *string { return &c.PersonID })),
	str("sekisho.person.department", context(func(c *Context) *string { return &c.PersonDept })),
	list("sekisho.person.lists", context(func(c *Context) *[]string { return &c.PersonLists })),
	str("sekisho.person.last_day", context(func(c *Context) *string { return &c.PersonLastDay })),
	truth("sekisho.person.left", context(func(c *Context) *Opt[bool] { return &c.PersonLeft })),
	str("sekisho.time.work", context(func(c *Context) *string { return &c.WorkTime })),
	str("sekisho.device.ledger", context(func(c *Context) *string { return &c.DeviceLedger })),
	truth("sekisho.remote_session.approved", context(func(c *Context) *Opt[bool] { return &c.RemoteSessionApproved })),
	str("sekisho.remote_session.id", context(func(c *Context) *string { return &c.RemoteSessionID })),
	str("sekisho.expiry.of", context(func(c *Context) *string { return &c.ExpiryOf })),
	str("sekisho.expiry.name", context(func(c *Context) *string { return &c.ExpiryName })),
	str("sekisho.expiry.ends", context(func(c *Context) *string { return &c.ExpiryEnds })),
	num("sekisho.expiry.days", context(func(c *Context) *Opt[int64] { return &c.ExpiryDays })),
	num("sekisho.expiry.within", context(func(c *Context) *Opt[int64] { return &c.ExpiryWithin })),
}

// byName maps a field's name to its place in the sorted table.
var byName = func() map[string]FieldID {
	sort.Slice(table, func(i, j int) bool { return table[i].Name < table[j].Name })
	m := make(map[string]FieldID, len(table))
	for i, f := range table {
		if _, twice := m[f.Name]; twice {
			panic("event: field " + f.Name + " is in the table twice")
		}
		m[f.Name] = FieldID(i)
	}
	return m
}()

// places is the places of the table's fields, close to each other.
var places = func() []place {
	out := make([]place, len(byName))
	for i := range table {
		out[i] = table[i].place
	}
	return out
}()

// types is the types of the table's fields, close to each other.
var types = func() []Type {
	out := make([]Type, len(byName))
	for i := range table {
		out[i] = table[i].Type
	}
	return out
}()

// Fields is the whole table, sorted by name; a FieldID is an index into it. The
// caller must not write to it.
func Fields() []Field { return table }

// FieldByName finds a field of the table.
func FieldByName(name string) (FieldID, bool) {
	id, ok := byName[name]
	return id, ok
}

// Name is the field's ECS name.
func (id FieldID) Name() string { return table[id].Name }

// Type is the type of the field's values.
func (id FieldID) Type() Type { return types[id] }

// Lookup is the value of a field; ok is false where the field is absent. It
// does not allocate.
func (e *Event) Lookup(id FieldID) (v Value, ok bool) {
	p := places[id]
	if p.typ == None {
		if v = table[id].get(e); v.typ != None {
			return v, true
		}
	} else if from := e.part(p.part); from != nil {
		at := unsafe.Add(from, p.offset)
		switch p.typ {
		case String:
			if s := *(*string)(at); s != "" {
				return Value{typ: String, s: s}, true
			}
		case Int:
			if n := (*Opt[int64])(at); n.OK {
				return Number(n.V), true
			}
		case Bool:
			if b := (*Opt[bool])(at); b.OK {
				return Truth(b.V), true
			}
		case List:
			if l := *(*[]string)(at); len(l) > 0 {
				return Value{typ: List, list: l}, true
			}
		case Time:
			if t := (*time.Time)(at); !t.IsZero() {
				return Moment(*t), true
			}
		}
	}
	if e.recordedEmpty(id) {
		return Value{typ: table[id].Type}, true
	}
	return Value{}, false
}

// Str is Lookup for a field of type String, and faster; of others it knows
// nothing.
func (e *Event) Str(id FieldID) (s string, ok bool) {
	p := places[id]
	switch p.typ {
	case String:
		if from := e.part(p.part); from != nil {
			s = *(*string)(unsafe.Add(from, p.offset))
		}
	case None:
		s = table[id].get(e).s
	}
	return s, s != "" || id.Type() == String && e.recordedEmpty(id)
}

// TextFields is fields of type String or List, to be read together.
type TextFields struct {
	parts []partTexts
}

// partTexts is where texts, and lists of them, lie in one part of an event; in
// order, so that memory is read in one direction.
type partTexts struct {
	part         part
	texts, lists []uint16
}

// NewTextFields prepares to read these fields, which are of type String or List.
func NewTextFields(ids []FieldID) *TextFields {
	t := &TextFields{}
	for _, id := range ids {
		p := cmp.Or(places[id], table[id].own)
		i := slices.IndexFunc(t.parts, func(x partTexts) bool { return x.part == p.part })
		if i < 0 {
			i = len(t.parts)
			t.parts = append(t.parts, partTexts{part: p.part})
		}
		at := &t.parts[i].texts
		if p.typ == List {
			at = &t.parts[i].lists
		}
		*at = append(*at, p.offset)
		slices.Sort(*at)
	}
	return t
}

// Long appends to buf the texts of n bytes or more that the event has in the
// fields, those of lists among them, and returns it; n is at least 1. Those of
// UnsetTexts are left out.
func (t *TextFields) Long(e *Event, n int, buf []string) []string {
	for i := range t.parts {
		p := &t.parts[i]
		from := e.part(p.part)
		if from == nil {
			continue
		}
		for _, offset := range p.texts {
			if s := (*string)(unsafe.Add(from, offset)); len(*s) >= n {
				buf = append(buf, *s)
			}
		}
		for _, offset := range p.lists {
			buf = appendLong(buf, *(*[]string)(unsafe.Add(from, offset)), n)
		}
	}
	return buf
}

func appendLong(buf, texts []string, n int) []string {
	for _, s := range texts {
		if len(s) >= n {
			buf = append(buf, s)
		}
	}
	return buf
}

// UnsetTexts is the texts that fields have of which an event says nothing:
// event.kind, event.category and event.type.
func UnsetTexts() []string {
	texts := []string{usualKind}
	for _, c := range classes {
		texts = append(append(texts, c.category...), c.typ...)
	}
	return texts
}

// recordedEmpty reports whether a field was recorded as "" or [].
func (e *Event) recordedEmpty(id FieldID) bool {
	for _, x := range e.empty {
		if x == id {
			return true
		}
	}
	return false
}

// Get is Lookup by name; it finds the fields of Extra too.
func (e *Event) Get(name string) (Value, bool) {
	if id, ok := byName[name]; ok {
		return e.Lookup(id)
	}
	v, ok := e.Extra[name]
	return v, ok
}

// Has reports whether the field is present.
func (e *Event) Has(id FieldID) bool {
	_, ok := e.Lookup(id)
	return ok
}

// Set sets a field by name. Values are converted where nothing is lost (a
// number to text, text that is a number to a number, one text to a list);
// otherwise the error says what was wanted. Names that are not in the table go
// to Extra.
func (e *Event) Set(name string, v Value) error {
	id, ok := byName[name]
	if !ok {
		if e.Extra == nil {
			e.Extra = make(map[string]Value)
		}
		e.Extra[name] = v
		return nil
	}
	f := &table[id]
	w, ok := convert(v, f.Type)
	if !ok {
		return fmt.Errorf("%s: want %v, got %v", name, f.Type, v.typ)
	}
	f.set(e, w)
	if (w.typ == String && w.s == "") || (w.typ == List && len(w.list) == 0) {
		e.empty = append(e.empty, id)
	}
	return nil
}

// convert makes v a value of type t, if that loses nothing.
func convert(v Value, t Type) (Value, bool) {
	if v.typ == t {
		return v, true
	}
	switch t {
	case String:
		if v.typ == Int || v.typ == Float || v.typ == Bool {
			return Text(v.String()), true
		}
		if v.typ == List && len(v.list) == 1 {
			return Text(v.list[0]), true
		}
	case List:
		switch v.typ {
		case String, Int, Float, Bool:
			return Texts(v.String()), true
		}
	case Int:
		switch v.typ {
		case Float:
			if f, _ := v.Float(); f == float64(int64(f)) {
				return Number(int64(f)), true
			}
		case String:
			if n, err := strconv.ParseInt(v.s, 10, 64); err == nil {
				return Number(n), true
			}
		}
	case Bool:
		switch strings.ToLower(v.s) {
		case "true":
			return Truth(true), true
		case "false":
			return Truth(false), true
		}
	case Time:
		if v.typ == String {
			if ts, err := parseTime(v.s); err == nil {
				return Moment(ts), true
			}
		}
	}
	return Value{}, false
}

// parseTime reads RFC 3339; years outside those that nanoseconds in 64 bits can
// tell (1678 to 2262) are refused.
func parseTime(s string) (time.Time, error) {
	ts, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, err
	}
	if y := ts.UTC().Year(); y < 1678 || y > 2261 || ts.IsZero() {
		return time.Time{}, fmt.Errorf("year %d out of range", y)
	}
	return ts.UTC(), nil
}

// Each calls f for every field that is present, by name in ascending byte
// order, those of Extra among them.
func (e *Event) Each(f func(name string, v Value)) {
	var extra []string
	if len(e.Extra) > 0 {
		extra = make([]string, 0, len(e.Extra))
		for name := range e.Extra {
			extra = append(extra, name)
		}
		sort.Strings(extra)
	}
	for id := range table {
		name := table[id].Name
		for len(extra) > 0 && extra[0] < name {
			f(extra[0], e.Extra[extra[0]])
			extra = extra[1:]
		}
		if v, ok := e.Lookup(FieldID(id)); ok {
			f(name, v)
		}
	}
	for _, name := range extra {
		f(name, e.Extra[name])
	}
}
