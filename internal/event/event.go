// Package event is the vocabulary of the product: what a sensor saw, in ECS
// terms, as typed Go values; one table from ECS name to value; JSON both ways.
//
// A source fills an [Event] with the envelope and the payloads that apply
// (Device, Volume, File, Copy, Process ...). Everything downstream (rules,
// correlation, alerts, the console) reads it through [Event.Lookup] by field.
//
// Absent is not empty. A field that is not there is the zero value in Go and
// does not appear in JSON; Lookup answers false. For numbers, booleans and
// times the difference needs [Opt] or time.Time's zero; a string or list that
// was recorded as "" or [] is remembered by the decoder, so that a rule can ask
// for the empty value.
//
// The package imports nothing of ours.
package event

import (
	"math/rand/v2"
	"time"
)

// Action is the value of event.action: what happened, in lower case with
// hyphens.
type Action string

// The actions of the product. Recorded events may carry others.
const (
	USBAttached Action = "usb-attached"
	USBDetached Action = "usb-detached"

	VolumeMounted   Action = "volume-mounted"
	VolumeUnmounted Action = "volume-unmounted"

	FileCopied     Action = "file-copied"
	FileWritten    Action = "file-written"
	FileRead       Action = "file-read"
	FileRenamed    Action = "file-renamed"
	FileDeleted    Action = "file-deleted"
	FileUploaded   Action = "file-uploaded"
	ArchiveCreated Action = "archive-created"

	ProcessStarted   Action = "process-started"
	ProcessEnded     Action = "process-ended"
	NetworkConnected Action = "network-connected"

	SessionLogon    Action = "session-logon"
	SessionLogoff   Action = "session-logoff"
	SessionLocked   Action = "session-locked"
	SessionUnlocked Action = "session-unlocked"
	SessionResumed  Action = "session-resumed"

	PrintSubmitted Action = "print-submitted"

	EventsLost      Action = "events-lost"
	SensorDegraded  Action = "sensor-degraded"
	SensorRecovered Action = "sensor-recovered"
	AgentStarted    Action = "agent-started"
	AgentStopped    Action = "agent-stopped"
	AgentCrashed    Action = "agent-crashed"
	ExpiryNear      Action = "expiry-near" // of something of the agent's own, see Context
	SelftestPassed  Action = "selftest-passed"
	SelftestFailed  Action = "selftest-failed"
)

// SensorProven is the action of a [Proof]. It ends where the rules begin: none of it is
// judged, kept or told.
const SensorProven Action = "sensor-proven"

// classes maps each action to ECS event.category and event.type (ECS 9,
// "Event categorization fields").
var classes = map[Action]struct{ category, typ []string }{
	USBAttached:      {[]string{"host"}, []string{"change", "device"}},
	USBDetached:      {[]string{"host"}, []string{"change", "device"}},
	VolumeMounted:    {[]string{"host"}, []string{"change"}},
	VolumeUnmounted:  {[]string{"host"}, []string{"change"}},
	FileCopied:       {[]string{"file"}, []string{"creation"}},
	FileWritten:      {[]string{"file"}, []string{"change"}},
	FileRead:         {[]string{"file"}, []string{"access"}},
	FileRenamed:      {[]string{"file"}, []string{"change"}},
	FileDeleted:      {[]string{"file"}, []string{"deletion"}},
	FileUploaded:     {[]string{"file", "network"}, []string{"access"}},
	ArchiveCreated:   {[]string{"file"}, []string{"creation"}},
	ProcessStarted:   {[]string{"process"}, []string{"start"}},
	ProcessEnded:     {[]string{"process"}, []string{"end"}},
	NetworkConnected: {[]string{"network"}, []string{"connection", "start"}},
	SessionLogon:     {[]string{"authentication", "session"}, []string{"start"}},
	SessionLogoff:    {[]string{"authentication", "session"}, []string{"end"}},
	SessionLocked:    {[]string{"session"}, []string{"change"}},
	SessionUnlocked:  {[]string{"session"}, []string{"change"}},
	SessionResumed:   {[]string{"session"}, []string{"change"}},
	PrintSubmitted:   {[]string{"file"}, []string{"access"}},
	EventsLost:       {[]string{"host"}, []string{"error"}},
	SensorDegraded:   {[]string{"host"}, []string{"change"}},
	SensorRecovered:  {[]string{"host"}, []string{"change"}},
	AgentStarted:     {[]string{"process"}, []string{"start"}},
	AgentStopped:     {[]string{"process"}, []string{"end"}},
	AgentCrashed:     {[]string{"process"}, []string{"error"}},
	ExpiryNear:       {[]string{"host"}, []string{"info"}},
	SelftestPassed:   {[]string{"host"}, []string{"info"}},
	SelftestFailed:   {[]string{"host"}, []string{"error"}},
}

// Known reports whether the product itself produces this action.
func (a Action) Known() bool { _, ok := classes[a]; return ok }

// Opt is a value that may be absent; its zero value is absent.
type Opt[T any] struct {
	V  T    // meaningful only if OK
	OK bool // whether the value is present
}

// Some is a present value.
func Some[T any](v T) Opt[T] { return Opt[T]{v, true} }

// Event is one thing that happened on one PC. The source that made it sets it
// up and then lets go: past the source only enrichment writes to it, and only
// fields that are absent.
type Event struct {
	Time     time.Time // when it happened (UTC); what rules and windows go by
	Created  time.Time // when the agent saw it; zero if unknown
	ID       string    // UUIDv7, made once by New; the duplicate key from spool to database
	Kind     string    // "event" if empty
	Action   Action    // what happened
	Category []string  // nil: the action's own (see classes)
	Type     []string  // nil: the action's own
	Sensor   string    // the mechanism that saw it, "fanotify", "proc-connector" ...
	Message  string    // for health events: one sentence for people
	Errors   []string  // what went wrong while collecting ("read owner: permission denied")
	Health   string    // of sensor-degraded: HealthDown or HealthDegraded
	Test     Opt[bool] // true: made by a self-test, shown as a test and never as an incident

	Host  *Host  // shared between events: never written to after it is set
	Agent *Agent // shared between events: never written to after it is set
	User  *User

	SessionID string // login session, sekisho.session.id

	Device  *Device
	Volume  *Volume
	File    *File
	Copy    *Copy
	Process *Process
	Network *Network
	Session *Session // may be shared between events
	Source  *Source  // may be shared between events
	Print   *Print
	Lost    *Lost

	Context *Context // what settings, policy, ledger, calendar and people lists add

	// Extra maps the ECS name of a recorded field that has no place above to
	// its value. Sources do not use it.
	Extra map[string]Value

	// empty holds the table's fields that were recorded as "" or []; seldom
	// used, so a short list.
	empty []FieldID

	sealed seal // see Seal
}

// New returns an event of this action that happened at t and was seen now, with
// an id of its own.
func New(action Action, t time.Time) *Event {
	now := time.Now()
	return &Event{Time: t.UTC(), Created: now.UTC(), ID: NewIDAt(now), Action: action}
}

// Proof is what a sensor tells when it was asked to prove that it sees and has done so:
// its name as Sensor, and the nonce that it was asked with as ID.
func Proof(sensor, nonce string) *Event {
	e := New(SensorProven, time.Now())
	e.Sensor, e.ID = sensor, nonce
	return e
}

// NewID returns a UUIDv7 (RFC 9562): 48 bits of milliseconds, 12 of their fraction,
// then random bits.
func NewID() string { return NewIDAt(time.Now()) }

// NewIDAt is NewID for who has asked for the time already. Ids of one moment differ
// in 62 random bits: ids must not be equal, and nobody gains by guessing one, so
// that the runtime's generator (ChaCha8, seeded by the system) will do.
func NewIDAt(now time.Time) string {
	ms, fraction := uint64(now.UnixMilli()), uint64(now.Nanosecond()%1e6)<<12/1e6
	high, low := ms<<16|7<<12|fraction, 2<<62|rand.Uint64()>>2
	var b [36]byte
	for i, at := 0, 0; i < 16; i++ {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b[at] = '-'
			at++
		}
		b[at], b[at+1] = hex[high>>60], hex[high>>56&15]
		if high <<= 8; i == 7 {
			high = low
		}
		at += 2
	}
	return string(b[:])
}

// What sensor-degraded tells of the sensor (sekisho.health.state).
const (
	HealthDown     = "down"     // it sees nothing
	HealthDegraded = "degraded" // it goes on by a lesser mechanism, or sees only part
)

// Host is the PC.
type Host struct {
	ID     string // stable machine id
	Name   string // as the OS gives it
	OSType string // "linux", "windows"
}

// Agent is the program that reported the event.
type Agent struct {
	ID      string // as given at enrolment, or derived from the host while offline
	Version string
}

// User is who did it: the account of the person behind the event, which sudo,
// su and the like do not change; of a service its own. Domain and name are never
// joined here.
type User struct {
	ID     string // uid in decimal, or SID
	Name   string
	Domain string

	// The account whose rights were used, if that is another (user.effective.*).
	EffectiveID   string
	EffectiveName string

	// Confidence is how sure it is that it was this person, where the system does
	// not tell: medium (who owns the file), low (who sits at the PC).
	Confidence string
}

// Device is a USB device.
type Device struct {
	VendorID     string   // 4 lower-case hex digits
	ProductID    string   // 4 lower-case hex digits
	VendorName   string   // as the device says, else from a name table
	ProductName  string   // as the device says, else from a name table
	SerialNumber string   // as the device says; absent where it has none
	Path         string   // bus path, "1-4.2"; on Windows "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)#USB(2)"
	Interfaces   []string // "08/06/50": class/subclass/protocol, lower-case hex
	Kinds        []string // storage, keyboard, mouse, mtp, network, audio, video, printer, smartcard, hub, other
	Oddities     []string // what is strange about it or how it came, the Odd... constants; absent as a rule
}

// The kinds of a USB device (sekisho.device.kinds).
const (
	KindStorage   = "storage"
	KindKeyboard  = "keyboard"
	KindMouse     = "mouse"
	KindMTP       = "mtp"
	KindNetwork   = "network"
	KindAudio     = "audio"
	KindVideo     = "video"
	KindPrinter   = "printer"
	KindSmartcard = "smartcard"
	KindHub       = "hub"
	KindOther     = "other"
)

// What may be strange about a USB device (sekisho.usb.oddities). None of it is
// proof of an attack.
const (
	OddSameSerial    = "same-serial"      // storage or a phone with ids and serial number of another one that is attached
	OddTypesAndStore = "types-and-stores" // a keyboard and storage in one
	OddPortSwap      = "port-swap"        // a keyboard or network card where storage was moments ago
	OddReenumerates  = "re-enumerates"    // came and went too often at this port to tell each time
	OddDescriptors   = "descriptors-lie"  // lengths or counts in its descriptors are not what they say
)

// Volume is a mounted file system: of the event itself, or, for file events,
// the one that the file lies on.
type Volume struct {
	MountName      string // POSIX mount point
	DeviceName     string // POSIX device node or source
	DOSName        string // "E:"
	NTName         string // `\Device\HarddiskVolume5`
	FileSystemType string
	BusType        string // "usb", "sata", ...
	Removable      Opt[bool]
	Writable       Opt[bool]
	Size           Opt[int64] // bytes
	SerialNumber   string     // of the device behind it
	VendorID       string
	ProductID      string
	Kind           string    // one of the Volume... constants
	Share          string    // `\\server\share` or "server:/export"
	Encrypted      Opt[bool] // absent: not known
	USBPath        string    // bus path of the USB device behind it, as in Device; tells devices with one serial number apart
}

// The kinds of a volume (sekisho.volume.kind, .file.volume_kind,
// .source.volume_kind).
const (
	VolumeLocal     = "local"
	VolumeRemovable = "removable"
	VolumeNetwork   = "network"
	VolumeCloudSync = "cloud-sync"
	VolumeOptical   = "optical"
	VolumeVirtual   = "virtual"
)

// File is the file that was written, read, renamed or deleted; for copies, the
// target.
type File struct {
	Path       string // as the OS gave it
	Name       string // last element of Path
	Extension  string // lower case, without the dot
	Size       Opt[int64]
	SHA256     string // lower-case hex
	OriginURL  string // where a download came from
	Owner      string
	VolumeKind string // one of the Volume... constants
	Share      string
	Audience   string // private, department, broad
	Protected  string // label of the protected place it belongs to
}

// Copy tells where copied data came from and how much it was. Files, Bytes and
// SourceIDs are always set on copies (1, the size and one id for a single one).
type Copy struct {
	SourcePath            string
	SourceVolumeKind      string
	SourceShare           string
	SourceShareDepartment string
	SourceProtected       string
	SourceLedger          string
	Evidence              string // same-process, content, rename, archive
	Confidence            string // in the evidence: high, medium, low
	Files                 Opt[int64]
	Bytes                 Opt[int64]
	SourceIDs             []string  // stable hashes of the source paths, for distinct counts
	Paths                 []string  // of the files that are told as one; capped, Files has the true count
	ArchiveEncrypted      Opt[bool] // sekisho.archive.encrypted
}

// Process is the process that started or ended, or that did what the event
// tells.
type Process struct {
	PID              Opt[int64]
	EntityID         string // stable over the life of the process on this host, see EntityID
	Executable       string
	Name             string
	Args             []string
	CommandLine      string
	WorkingDirectory string
	SHA256           string
	Start            time.Time
	ExitCode         Opt[int64]
	ContainerID      string // of the container it runs in, container.id; absent where it runs in none

	PE *PE
	// Signer is process.code_signature.subject_name. A sensor sets it where the
	// signature is good: anyone can write any name into one.
	Signer string
	// The other fields of process.code_signature. Status is "trusted", or why it is
	// not: "unsigned", "untrusted-root", "expired", "revoked", "changed" (the file is not
	// what was signed), "distrusted", "not-checked", "other".
	Signed, SignatureTrusted Opt[bool] // .exists, .trusted
	SignatureStatus          string
	Parent                   *Parent

	StartedBy      string // browser, mail, shell, service, scheduler, other
	IntegrityLevel string // Windows: untrusted, low, medium, high, system
	Elevation      string // Windows, of its rights: full (by User Account Control), limited (would have to ask), default (neither)
	Hashes         string // Sysmon's form; recorded events only

	RemoteTool *RemoteTool
}

// PE is the version resource of a Windows program.
type PE struct {
	OriginalFileName string
	Company          string
	Product          string
	Description      string
	FileVersion      string
}

// Parent is the parent process as far as it was known.
type Parent struct {
	PID         Opt[int64]
	EntityID    string
	Executable  string
	Name        string
	CommandLine string
	UserName    string
	UserDomain  string
}

// RemoteTool is what the catalogue of remote-access tools says of a process.
type RemoteTool struct {
	ID       string // catalogue id, "anydesk"
	Name     string // "AnyDesk"
	Category string // rmm, remote-desktop, tunnel ...
	Approved Opt[bool]
}

// Network is the other end of a connection or upload.
type Network struct {
	DestinationIP     string
	DestinationPort   Opt[int64]
	DestinationDomain string
	Bytes             Opt[int64]
}

// Session is a login session's kind and idleness.
type Session struct {
	Kind        string     // console, remote
	IdleSeconds Opt[int64] // before the input that ended it
}

// Source is where a person came from who is not at the PC: of events of remote
// sessions and of the processes in them.
type Source struct {
	IP     string
	Domain string // a name, where the system knows no address
}

// Print is a print job.
type Print struct {
	Printer  string
	Pages    Opt[int64]
	Copies   Opt[int64]
	Document string
}

// Lost is what is missing: events that a sensor or queue had to drop, or all of
// them while nobody watched.
type Lost struct {
	Count    Opt[int64]
	From, To time.Time // of a gap; zero: not known
}

// Context is what enrichment adds from what IT told us; see package enrich.
type Context struct {
	HostDepartment  string
	HostTags        []string
	PersonID        string
	PersonDept      string
	PersonLists     []string  // leaver, secondee, temp, contractor
	PersonLastDay   string    // "2026-03-31"
	PersonLeft      Opt[bool] // the last day is over, by the calendar's time zone; only where one is known
	WorkTime        string    // in, off, holiday
	DeviceLedger    string    // approved, unregistered, expired, lost
	RemoteSessionID string    // a remote-control session that is open now

	// RemoteSessionApproved is true where every remote-control session that is open is of an approved tool.
	RemoteSessionApproved Opt[bool]

	// What the event is about ends on a day: the ledger entry that allows the
	// device or tool, or a certificate of the agent's.
	ExpiryOf     string     // one of the Expiry... constants
	ExpiryName   string     // which one
	ExpiryEnds   string     // its last day, "2026-03-31"
	ExpiryDays   Opt[int64] // days until then; 0: the last day, below: over
	ExpiryWithin Opt[int64] // the smallest of 1, 7, 14 and 30 days that it is within; absent beyond
}

// What may end (sekisho.expiry.of).
const (
	ExpiryCertificate = "certificate" // that the agent shows to the console
	ExpiryAuthority   = "authority"   // by which the agent knows the console
	ExpiryDevice      = "device"      // entry of the device ledger
	ExpiryTool        = "remote-tool" // approval of a remote-access tool
)
