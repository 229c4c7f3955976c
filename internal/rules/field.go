package rules

import (
	"sort"
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/problem"
)

// Getter reads one field of an event, as a rule names it.
type Getter struct {
	Name string // as the rule writes it
	from source
	id   event.FieldID // of fromTable
	a, b event.FieldID // of fromAccount: domain and name
	key  string        // of fromExtra; of fromHash: the kind, "MD5"
}

type source uint8

const (
	fromTable   source = iota
	fromExtra          // recorded events only, outside the field table
	fromAccount        // domain\name joined
	fromHashes         // Sysmon's list of hashes
	fromHash           // one of it
)

// Field is the name of the event's field that is read first.
func (g *Getter) Field() string {
	switch g.from {
	case fromExtra:
		return g.key
	case fromAccount:
		return g.b.Name()
	case fromHashes, fromHash:
		return "sekisho.process.hashes"
	}
	return g.id.Name()
}

// Type is the type of the values; event.None where any may come.
func (g *Getter) Type() event.Type {
	switch g.from {
	case fromTable:
		return g.id.Type()
	case fromExtra:
		return event.None
	}
	return event.String
}

// Value is the field's value; ok is false where it is absent. Fields of the
// table are read without allocation.
func (g *Getter) Value(e *event.Event) (event.Value, bool) {
	switch g.from {
	case fromTable:
		return e.Lookup(g.id)
	case fromExtra:
		v, ok := e.Extra[g.key]
		return v, ok
	case fromAccount:
		name, ok := e.Lookup(g.b)
		if !ok {
			return event.Value{}, false
		}
		if domain, ok := e.Lookup(g.a); ok && domain.Str() != "" {
			return event.Text(domain.Str() + `\` + name.Str()), true
		}
		return name, true
	case fromHashes:
		if v, ok := e.Lookup(hashesID); ok {
			return v, true
		}
		if v, ok := e.Lookup(sha256ID); ok {
			return event.Text("SHA256=" + upperHex(v.Str())), true
		}
	case fromHash:
		if v, ok := e.Lookup(hashesID); ok {
			for part := range strings.SplitSeq(v.Str(), ",") {
				if kind, h, ok := strings.Cut(part, "="); ok && strings.EqualFold(strings.TrimSpace(kind), g.key) {
					return event.Text(h), true
				}
			}
		}
		if g.key == "SHA256" {
			return e.Lookup(sha256ID)
		}
	}
	return event.Value{}, false
}

// upperHex is a hash as Sysmon writes it. What is no letter of ASCII stays as it
// is, so that the two forms of a recorded hash are always alike but for case.
func upperHex(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
	return string(b)
}

// parts is Value without joining: where joint is not 0, the value is the text of
// before, joint and v's.
func (g *Getter) parts(e *event.Event) (before string, joint byte, v event.Value, ok bool) {
	switch g.from {
	case fromTable:
		v, ok = e.Lookup(g.id)
		return "", 0, v, ok
	case fromAccount:
		if v, ok = e.Lookup(g.b); !ok {
			return "", 0, v, false
		}
		if domain, ok := e.Lookup(g.a); ok && domain.Str() != "" {
			return domain.Str(), '\\', v, true
		}
		return "", 0, v, true
	}
	v, ok = g.Value(e)
	return "", 0, v, ok
}

var (
	hashesID = fieldID("sekisho.process.hashes")
	sha256ID = fieldID("process.hash.sha256")
	actionID = fieldID("event.action")
	osID     = fieldID("host.os.type")
)

// fieldID finds a field that the table has to hold.
func fieldID(name string) event.FieldID {
	id, ok := event.FieldByName(name)
	if !ok {
		panic("rules: no field " + name + " in the event table")
	}
	return id
}

func tableField(name string) Getter { return Getter{Name: name, from: fromTable, id: fieldID(name)} }

// generic maps Sigma's own field names, by logsource category ("" for all), to
// the event's. Names are Sysmon's, which SigmaHQ's rules go by.
var generic = map[string]map[string]Getter{
	"": {
		"User":         {from: fromAccount, a: fieldID("user.domain"), b: fieldID("user.name")},
		"Computer":     tableField("host.name"),
		"ComputerName": tableField("host.name"),
	},
	"process_creation": {
		"Image":             tableField("process.executable"),
		"CommandLine":       tableField("process.command_line"),
		"CurrentDirectory":  tableField("process.working_directory"),
		"OriginalFileName":  tableField("process.pe.original_file_name"),
		"Company":           tableField("process.pe.company"),
		"Product":           tableField("process.pe.product"),
		"Description":       tableField("process.pe.description"),
		"FileVersion":       tableField("process.pe.file_version"),
		"ProcessId":         tableField("process.pid"),
		"ProcessGuid":       tableField("process.entity_id"),
		"ParentProcessId":   tableField("process.parent.pid"),
		"ParentProcessGuid": tableField("process.parent.entity_id"),
		"ParentImage":       tableField("process.parent.executable"),
		"ParentCommandLine": tableField("process.parent.command_line"),
		"ParentUser":        {from: fromAccount, a: fieldID("process.parent.user.domain"), b: fieldID("process.parent.user.name")},
		"IntegrityLevel":    tableField("sekisho.process.integrity_level"),
		"LogonId":           {from: fromExtra, key: "sekisho.session.logon_id"},
		"Hashes":            {from: fromHashes},
		"md5":               {from: fromHash, key: "MD5"},
		"sha1":              {from: fromHash, key: "SHA1"},
		"sha256":            {from: fromHash, key: "SHA256"},
		"Imphash":           {from: fromHash, key: "IMPHASH"},
		"imphash":           {from: fromHash, key: "IMPHASH"},
	},
	"process_termination": {
		"Image":       tableField("process.executable"),
		"ProcessId":   tableField("process.pid"),
		"ProcessGuid": tableField("process.entity_id"),
	},
	"file_event": {
		"TargetFilename": tableField("file.path"),
		"Image":          tableField("process.executable"),
		"CommandLine":    tableField("process.command_line"),
		"ProcessId":      tableField("process.pid"),
	},
	"network_connection": {
		"Image":               tableField("process.executable"),
		"CommandLine":         tableField("process.command_line"),
		"ProcessId":           tableField("process.pid"),
		"DestinationIp":       tableField("destination.ip"),
		"DestinationPort":     tableField("destination.port"),
		"DestinationHostname": tableField("destination.domain"),
	},
}

func init() {
	for _, c := range []string{"file_delete", "file_rename", "file_access", "file_change"} {
		generic[c] = generic["file_event"]
	}
	for _, m := range generic {
		for name, g := range m {
			g.Name = name
			m[name] = g
		}
	}
}

// categories maps a logsource category to the actions of its events. file_event
// is the coming into being of a file.
var categories = map[string][]event.Action{
	"process_creation":    {event.ProcessStarted},
	"process_termination": {event.ProcessEnded},
	"file_event":          {event.FileWritten, event.FileCopied, event.ArchiveCreated},
	"file_change":         {event.FileWritten},
	"file_delete":         {event.FileDeleted},
	"file_rename":         {event.FileRenamed},
	"file_access":         {event.FileRead},
	"network_connection":  {event.NetworkConnected},
}

// products maps a logsource product to host.os.type; "" is any system.
var products = map[string]string{"windows": "windows", "linux": "linux", "macos": "macos", "sekisho": ""}

// names tells which event fields a rule's names are.
type names struct {
	ecs      bool
	category string
}

// find is the field of a name.
func (n names) find(name string) (g Getter, ok bool) {
	if id, ok := event.FieldByName(name); ok && (n.ecs || strings.Contains(name, ".")) {
		return Getter{Name: name, from: fromTable, id: id}, true
	}
	if !n.ecs {
		if g, ok := generic[n.category][name]; ok {
			return g, true
		}
		if g, ok := generic[""][name]; ok {
			return g, true
		}
	}
	return Getter{}, false
}

// hint is the field that an unknown name was probably meant for.
func (n names) hint(name string) string {
	if strings.Contains(name, ".") {
		n.ecs = true // meant as an event's own name
	}
	return problem.Suggest(name, n.known())
}

// known is every name that resolves, sorted.
func (n names) known() []string {
	var out []string
	if n.ecs {
		for _, f := range event.Fields() {
			out = append(out, f.Name)
		}
		return out
	}
	for _, c := range []string{"", n.category} {
		for name := range generic[c] {
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return out
}
