// Package config is the settings of both programs: the types, their defaults,
// the loader and the texts about each key.
//
// A settings file is YAML. [LoadAgent] and [LoadConsole] start from the
// defaults, walk the file's nodes strictly against the Go types below, check
// what only makes sense together, and tell every problem at once, each with its
// place in the file, in Japanese and English ([Problems]). A file with a problem
// gives no settings at all: a reload is all or nothing.
//
// What a key is comes from three places that a test holds together: its type
// from the structs here, its default from [DefaultAgent] and [DefaultConsole],
// its range and its texts from the table in keys.go. The JSON schemas in
// configs/ and the tables in docs/configure.md are made from the same three.
//
// No setting is a secret. What is secret lies in a file of its own that a key
// ending in _file names.
//
// The package imports nothing of ours.
package config

import (
	"path/filepath"
	"runtime"
	"time"
)

// Agent is the settings of one PC. It is immutable once loaded: a reload makes
// a new one. Relative paths are made absolute against the settings file's folder.
type Agent struct {
	Console      Link         `yaml:"console"`
	Host         Host         `yaml:"host"`
	StateDir     string       `yaml:"state_dir"` // identity, spool, learned state
	Sensors      Sensors      `yaml:"sensors"`
	Protected    []Place      `yaml:"protected"`
	Shares       []Share      `yaml:"shares"` // the first that fits decides
	RemoteAccess RemoteAccess `yaml:"remote_access"`
	Devices      Devices      `yaml:"devices"`
	WorkHours    WorkHours    `yaml:"work_hours"`
	People       []Person     `yaml:"people"`
	Rules        Rules        `yaml:"rules"`
	Limits       AgentLimits  `yaml:"limits"`
	Log          Log          `yaml:"log"`

	source
}

// Link is the way to the console. All empty: what enrolment has stored counts,
// and an agent that never enrolled works alone.
type Link struct {
	URLs []string `yaml:"url"` // https, tried in order
	CA   string   `yaml:"ca"`  // PEM file with the console's CA
	Pin  string   `yaml:"pin"` // "sha256:" and 64 hex digits: hash of the CA certificate's public key (SPKI)
}

// Host is what IT says of the PC.
type Host struct {
	Department string   `yaml:"department"`
	Tags       []string `yaml:"tags"` // sensitive, maintenance, shared ...; free words
}

// Sensors switches what is watched.
type Sensors struct {
	USB     Sensor       `yaml:"usb"`
	Volume  VolumeSensor `yaml:"volume"`
	File    FileSensor   `yaml:"file"`
	Process Sensor       `yaml:"process"`
	Session Sensor       `yaml:"session"`
	Print   PrintSensor  `yaml:"print"`

	Canary time.Duration `yaml:"canary"` // between two proofs that they see
}

// Sensor is the settings of a sensor that has no others.
type Sensor struct {
	Enabled bool `yaml:"enabled"`
}

// VolumeSensor is the settings of the sensor of volumes.
type VolumeSensor struct {
	Enabled        bool     `yaml:"enabled"`
	RemovablePaths []string `yaml:"removable_paths"` // mount points that count as removable media
}

// FileSensor is the settings of the sensor of file activity.
type FileSensor struct {
	Enabled bool     `yaml:"enabled"`
	Ignore  []string `yaml:"ignore"` // executables (globs) whose file activity is not told
}

// PrintSensor is the settings of the sensor of prints.
type PrintSensor struct {
	Enabled   bool `yaml:"enabled"`
	EnableLog bool `yaml:"enable_log"` // switch the log of Windows on that it reads
}

// Place is a named place whose files are protected.
type Place struct {
	Label      string   `yaml:"label"`
	Paths      []string `yaml:"paths"`      // globs
	Shares     []string `yaml:"shares"`     // `\\server\share` or "server:/export", globs
	Department string   `yaml:"department"` // whose files they are
	Audience   string   `yaml:"audience"`   // one of the Audience... constants, or ""
}

// Share says whose a network share is.
type Share struct {
	Pattern    string `yaml:"share"` // `\\server\share` or "server:/export", glob
	Department string `yaml:"department"`
	Audience   string `yaml:"audience"` // one of the Audience... constants, or ""
}

// Who can read a place.
const (
	AudiencePrivate    = "private"
	AudienceDepartment = "department"
	AudienceBroad      = "broad"
)

// RemoteAccess is the remote-access tools that IT allows.
type RemoteAccess struct {
	Approved []ApprovedTool `yaml:"approved"`
}

// ApprovedTool allows one tool. Every condition that is set has to hold.
type ApprovedTool struct {
	Tool    string `yaml:"tool"`    // id in the catalogue, "anydesk"
	Path    string `yaml:"path"`    // glob of the executable; "": any
	Signer  string `yaml:"signer"`  // subject of the signing certificate, without regard to case; "": any
	Account string `yaml:"account"` // name or DOMAIN\name that runs it; "": any
	Reason  string `yaml:"reason"`
	Expires Date   `yaml:"expires"` // last day on which it holds; "": no end
}

// Devices is the ledger of media as far as it is kept in the settings.
type Devices struct {
	Approved []ApprovedDevice `yaml:"approved"`
	Lost     []LostDevice     `yaml:"lost"` // stay lost when they are approved too
}

// ApprovedDevice allows a storage device, or without a serial number every
// device of a product. What is not set fits any.
type ApprovedDevice struct {
	Vendor  string `yaml:"vendor"`  // 4 lower-case hex digits
	Product string `yaml:"product"` // 4 lower-case hex digits
	Serial  string `yaml:"serial"`
	Label   string `yaml:"label"`
	Expires Date   `yaml:"expires"` // last day on which it is approved; "": no end
}

// LostDevice is a storage device that was reported lost.
type LostDevice struct {
	Vendor  string `yaml:"vendor"`
	Product string `yaml:"product"`
	Serial  string `yaml:"serial"`
	Label   string `yaml:"label"`
}

// WorkHours is the calendar of the workplace.
type WorkHours struct {
	Timezone string   `yaml:"timezone"` // IANA name
	Days     []string `yaml:"days"`     // mon ... sun
	From     Clock    `yaml:"from"`
	To       Clock    `yaml:"to"`
	Holidays Holidays `yaml:"holidays"`
}

// Holidays is the days on which nobody works.
type Holidays struct {
	Calendar string `yaml:"calendar"` // "jp": the national ones and 12-29 to 01-03; "none"
	Extra    []Date `yaml:"extra"`
}

// Person joins accounts to somebody. Watch lists may come from the console too.
type Person struct {
	ID         string   `yaml:"id"`
	Accounts   []string `yaml:"accounts"` // name or DOMAIN\name
	Department string   `yaml:"department"`
	Lists      []string `yaml:"lists"`    // leaver, secondee, temp, contractor
	LastDay    Date     `yaml:"last_day"` // last day at work; "": not known
}

// Rules says which rules run.
type Rules struct {
	Paths   []string `yaml:"paths"`   // files and folders of Sigma rules, besides the shipped ones
	Builtin bool     `yaml:"builtin"` // the shipped rules
	Disable []string `yaml:"disable"` // "USB-2" or a Sigma id

	// Thresholds maps a rule ("USB-3") and a key of its thresholds ("files",
	// "bytes") to the number that replaces the rule's own.
	Thresholds map[string]map[string]int64 `yaml:"thresholds"`

	ThresholdsFor []ThresholdsFor     `yaml:"thresholds_for"` // the first that fits an event and names the threshold counts
	Exceptions    []Exception         `yaml:"exceptions"`
	Placeholders  map[string][]string `yaml:"placeholders"` // name of a %placeholder% in rules -> what it stands for
}

// ThresholdsFor is thresholds for some people or PCs: whatever is set of
// Department, Tag and List has to fit, and at least one of them is.
type ThresholdsFor struct {
	Department string                      `yaml:"department"` // the person's; where that is not known, the PC's
	Tag        string                      `yaml:"tag"`        // of the PC
	List       string                      `yaml:"list"`       // leaver, secondee, temp, contractor
	Thresholds map[string]map[string]int64 `yaml:"thresholds"` // as in Rules
}

// Exception is a known case that is right: events that it fits do not match the
// rules it names.
type Exception struct {
	Rules   []string            `yaml:"rules"` // "USB-3", a Sigma id or name; "any"
	When    map[string][]string `yaml:"when"`  // field -> values, Sigma's wildcards allowed; each field has to have one of its
	Reason  string              `yaml:"reason"`
	Expires Date                `yaml:"expires"` // last day on which it holds; "": no end
}

// AgentLimits bounds what the agent takes of the PC.
type AgentLimits struct {
	SpoolAlerts    Size          `yaml:"spool_alerts"`     // on disk
	SpoolActivity  Size          `yaml:"spool_activity"`   // on disk
	ActivityMaxAge time.Duration `yaml:"activity_max_age"` // older activity is dropped, and counted
	Memory         Size          `yaml:"memory"`           // the Go runtime's soft limit; over it, records are shed
	CPU            int           `yaml:"cpu"`              // percent of one core, over some seconds; over it, records are shed
	DropPrivileges bool          `yaml:"drop_privileges"`  // give up rights that are not needed any more once the sensors work
}

// Log is the log of a program.
type Log struct {
	Level    string `yaml:"level"`     // debug, info, warn, error
	Dir      string `yaml:"dir"`       // always set after loading
	MaxSize  Size   `yaml:"max_size"`  // of one file, then a new one is begun
	MaxFiles int    `yaml:"max_files"` // old files kept
}

// Console is the settings of the console. It is immutable once loaded.
type Console struct {
	DataDir   string        `yaml:"data_dir"` // database, keys of the CA
	Listen    Listen        `yaml:"listen"`
	Web       Web           `yaml:"web"`
	Names     []string      `yaml:"names"` // DNS names and IP addresses by which agents reach it; empty: the host's name
	Storage   Storage       `yaml:"storage"`
	Limits    ConsoleLimits `yaml:"limits"`
	Session   Session       `yaml:"session"`
	Retention Retention     `yaml:"retention"`
	Log       Log           `yaml:"log"`

	source
}

// Listen is the addresses to listen on, "host:port".
type Listen struct {
	Agents  string `yaml:"agents"`
	Web     string `yaml:"web"`     // plain HTTP on a loopback address only, else web.tls is needed
	Metrics string `yaml:"metrics"` // "": no metrics
}

// Web is the pages for people.
type Web struct {
	TLS       TLS    `yaml:"tls"`
	PublicURL string `yaml:"public_url"` // as people type it; "": made from listen.web
}

// TLS is a certificate and its key. Both empty: plain HTTP.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Storage is where the rows are.
type Storage struct {
	SQLite string `yaml:"sqlite"` // database file; always set after loading
}

// ConsoleLimits bounds what agents can make the console do.
type ConsoleLimits struct {
	Body Size `yaml:"body"` // of one request, as sent (compressed)
	Rate int  `yaml:"rate"` // requests a second from one agent; it may burst to ten times that
}

// Session is how long a person stays signed in.
type Session struct {
	Idle     time.Duration `yaml:"idle"`
	Absolute time.Duration `yaml:"absolute"`
}

// Retention is how long rows are kept.
type Retention struct {
	Activity time.Duration `yaml:"activity"`
}

// Size is a number of bytes.
type Size int64

// The sizes that text can end in.
const (
	KB Size = 1000
	MB Size = 1000 * KB
	GB Size = 1000 * MB

	KiB Size = 1024
	MiB Size = 1024 * KiB
	GiB Size = 1024 * MiB
)

// Date is a day, "2026-03-31", or "" for none. Dates compare as text.
type Date string

// Clock is a time of the day in minutes since midnight, 0 to 1440.
type Clock int

// DefaultAgent is the settings of an agent whose file is empty.
func DefaultAgent() *Agent {
	a := &Agent{
		StateDir: defaultDir("/var/lib/sekisho", "Sekisho"),
		Sensors: Sensors{
			USB:     Sensor{Enabled: true},
			Volume:  VolumeSensor{Enabled: true},
			File:    FileSensor{Enabled: true},
			Process: Sensor{Enabled: true},
			Session: Sensor{Enabled: true},
			Print:   PrintSensor{Enabled: true},
			// A canary costs 25 ms of CPU: under 0.01 % of a core.
			Canary: 5 * time.Minute,
		},
		WorkHours: WorkHours{
			Timezone: "Asia/Tokyo",
			Days:     []string{"mon", "tue", "wed", "thu", "fri"},
			// The usual hours of Japanese town halls.
			From:     8*60 + 30,
			To:       17*60 + 15,
			Holidays: Holidays{Calendar: "jp"},
		},
		Rules: Rules{Builtin: true},
		Limits: AgentLimits{
			// At about 2 KB an alert and 600 bytes of activity (compressed less),
			// months of alerts and weeks of activity of an office PC.
			SpoolAlerts:    64 * MB,
			SpoolActivity:  256 * MB,
			ActivityMaxAge: 30 * day,
			Memory:         48 * MiB,
			// Some 12,000 process starts a second at 20 us: more than a PC does at
			// work. What takes more is a flood, and people wait for their PC.
			CPU:            25,
			DropPrivileges: true,
		},
		Log: defaultLog,
	}
	a.complete()
	return a
}

// DefaultConsole is the settings of a console whose file is empty.
func DefaultConsole() *Console {
	c := &Console{
		DataDir: defaultDir("/var/lib/sekisho-console", "Sekisho Console"),
		Listen: Listen{
			Agents:  ":8443",
			Web:     "127.0.0.1:8080",
			Metrics: "127.0.0.1:9460",
		},
		Limits:    ConsoleLimits{Body: 16 * MiB, Rate: 20},
		Session:   Session{Idle: 8 * time.Hour, Absolute: 24 * time.Hour},
		Retention: Retention{Activity: 90 * day},
		Log:       defaultLog,
	}
	c.complete()
	return c
}

const day = 24 * time.Hour

var defaultLog = Log{Level: "info", MaxSize: 10 * MB, MaxFiles: 5}

// complete sets what follows from other settings.
func (a *Agent) complete() {
	if a.Log.Dir == "" {
		a.Log.Dir = filepath.Join(a.StateDir, "log")
	}
}

func (c *Console) complete() {
	if c.Log.Dir == "" {
		c.Log.Dir = filepath.Join(c.DataDir, "log")
	}
	if c.Storage.SQLite == "" {
		c.Storage.SQLite = filepath.Join(c.DataDir, "sekisho.db")
	}
}

func defaultDir(posix, windows string) string {
	if runtime.GOOS != "windows" {
		return posix
	}
	return filepath.Join(programData(), windows)
}
