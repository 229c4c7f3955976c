// Package endpoint is how an agent and the console speak of one PC: who it is,
// what its sensors do, what lies in its spool. The same Status is the answer of
// `sekisho-agent status --json`, the body of a heartbeat and what the console
// shows. It imports nothing of ours.
package endpoint

import "time"

// SensorState says whether a sensor does its work.
type SensorState string

// The states of a sensor.
const (
	SensorOK          SensorState = "ok"          // works by the best mechanism there is
	SensorLimited     SensorState = "limited"     // works by the best that this system or this build has; Reason says what it misses
	SensorDegraded    SensorState = "degraded"    // works by a lesser mechanism than it could, or sees only part; Reason says why
	SensorDown        SensorState = "down"        // sees nothing; Reason says why
	SensorUnavailable SensorState = "unavailable" // cannot exist on this system or in this build; Reason says why
	SensorOff         SensorState = "off"         // switched off in the settings
)

// Trouble reports whether somebody has to see to the sensor. What this system
// cannot have is none.
func (s SensorState) Trouble() bool { return s == SensorDegraded || s == SensorDown }

// Sensor is what a sensor says of itself.
type Sensor struct {
	Name      string      `json:"name"` // "usb", "volume", "file", "process", "session", "print"
	State     SensorState `json:"state"`
	Mechanism string      `json:"mechanism,omitempty"` // "uevent", "fanotify", "inotify", "ebpf", "proc-connector", "etw", "logind", "utmp", "wts", "event-log", "polling"
	Reason    string      `json:"reason,omitempty"`    // why it is not ok, in English with the system's own error
	Since     time.Time   `json:"since,omitzero"`      // when it came into this state
	Events    uint64      `json:"events"`              // given to the pipeline since start
	Lost      uint64      `json:"lost"`                // known to have been missed since start
	PerMinute float64     `json:"per_minute"`          // events a minute, over the last one
	Watching  []string    `json:"watching,omitempty"`  // places watched, for file sensors; capped at 64
	Canary    *Canary     `json:"canary,omitempty"`    // nil: it has none, or none was due yet
}

// Canary is how a sensor was last proven to see: something that the agent made
// happen, and that came through the sensor to the rules.
type Canary struct {
	Seen    time.Time     `json:"seen,omitzero"`     // when the last one came to the rules
	Delay   time.Duration `json:"delay_ns"`          // how long it took
	Missed  int           `json:"missed,omitempty"`  // since then
	Problem string        `json:"problem,omitempty"` // why none can be made
}

// Rights is what the agent may do on the PC.
type Rights struct {
	User         string   `json:"user,omitempty"`         // whose rights it has
	Dropped      bool     `json:"dropped"`                // it gave up what it needs no more
	Capabilities []string `json:"capabilities,omitempty"` // Linux: in effect, "sys_ptrace"
	Filtered     bool     `json:"filtered"`               // Linux: system calls
	Problem      string   `json:"problem,omitempty"`      // why it has more than it needs, or less
}

// Budget is what the agent takes of the PC, and what it leaves out to take no more.
type Budget struct {
	CPUPercent  float64  `json:"cpu_percent"`        // of one core, over the last two seconds
	CPULimit    int      `json:"cpu_limit"`          // of one core
	CPUPressure float64  `json:"cpu_pressure"`       // Linux: percent of the last 10 s in which something on the PC waited for a CPU; asked while the agent is busy
	MemoryLimit int64    `json:"memory_limit"`       // bytes
	Shedding    []string `json:"shedding,omitempty"` // what is shed now: "reads", "writes", "activity"
	Shed        uint64   `json:"shed"`               // since start, as told by events-lost
}

// Queue is the state of a spool.
type Queue struct {
	Records  int64     `json:"records"` // waiting
	Bytes    int64     `json:"bytes"`   // on disk
	MaxBytes int64     `json:"max_bytes"`
	Oldest   time.Time `json:"oldest,omitzero"` // of the oldest waiting record
	Dropped  int64     `json:"dropped"`         // records given up over the spool's life, all causes
	Error    string    `json:"error,omitempty"` // why it cannot be written now ("no space left on device")
}

// Contact is how the way to the console is.
type Contact struct {
	Console     string        `json:"console,omitempty"`     // address in use; empty: no console is set
	LastSuccess time.Time     `json:"last_success,omitzero"` // of an answered batch
	Code        string        `json:"code,omitempty"`        // stable code of the trouble, "SHP-03"; empty: none
	Error       string        `json:"error,omitempty"`       // the trouble in words
	Since       time.Time     `json:"since,omitzero"`        // since when there is trouble
	ClockOffset time.Duration `json:"clock_offset_ns"`       // console's clock minus ours
	CertExpires time.Time     `json:"cert_expires,omitzero"` // of our client certificate
}

// Settings says which settings are in force.
type Settings struct {
	File     string    `json:"file,omitempty"`
	LoadedAt time.Time `json:"loaded_at,omitzero"`
	Problems []string  `json:"problems,omitempty"` // of the newest file, if it was refused and the older settings stay
}

// Rules says which rules are in force.
type Rules struct {
	Pack     string   `json:"pack"`               // version of the shipped pack
	Active   int      `json:"active"`             // rules and correlations that run
	Problems []string `json:"problems,omitempty"` // of rule files that were refused, or that anybody may change
	Keys     int64    `json:"keys"`               // correlation keys held
	Evicted  uint64   `json:"evicted"`            // windows, parts of windows and first-seen combinations given up for want of room

	Since      time.Time `json:"counting_since,omitzero"` // nothing that was counted since then is lost
	Journal    int64     `json:"journal_bytes"`           // of events that are judged again after a crash
	Checkpoint time.Time `json:"checkpoint,omitzero"`     // when what is counted was last written down
	Unsafe     string    `json:"unsafe,omitempty"`        // why a restart may forget what was counted
}

// Status is everything an agent tells of itself.
type Status struct {
	Time         time.Time `json:"time"`
	AgentID      string    `json:"agent_id,omitempty"`
	AgentVersion string    `json:"agent_version"`
	HostID       string    `json:"host_id"`
	HostName     string    `json:"host_name"`
	OS           string    `json:"os"`                   // "linux", "windows"
	OSVersion    string    `json:"os_version,omitempty"` // "Debian GNU/Linux 12 (bookworm)"
	Department   string    `json:"department,omitempty"`
	Tags         []string  `json:"tags,omitempty"`
	Started      time.Time `json:"started"`
	Sensors      []Sensor  `json:"sensors"`
	Rights       Rights    `json:"rights"`
	Budget       Budget    `json:"budget"`
	Alerts       Queue     `json:"alerts"`
	Activity     Queue     `json:"activity"`
	Contact      Contact   `json:"contact"`
	Settings     Settings  `json:"settings"`
	Rules        Rules     `json:"rules"`
	Events       uint64    `json:"events"`        // judged since start
	Lost         uint64    `json:"lost"`          // sensors' losses and dropped records since start
	AlertsRaised uint64    `json:"alerts_raised"` // since start
	CPUSeconds   float64   `json:"cpu_seconds"`   // user and system, since start
	MemoryBytes  int64     `json:"memory_bytes"`  // resident
}

// Identity is what a PC says of itself when it enrols.
type Identity struct {
	HostID       string `json:"host_id"`
	HostName     string `json:"host_name"`
	OS           string `json:"os"`
	OSVersion    string `json:"os_version,omitempty"`
	AgentVersion string `json:"agent_version"`
}

// Health is the console's judgement of an endpoint, from its last contact.
type Health string

// The healths, worst last.
const (
	Healthy  Health = "healthy"  // in contact, every sensor ok
	Degraded Health = "degraded" // in contact, but a sensor or the settings have trouble, or events were lost
	Late     Health = "late"     // one or two heartbeats missed
	Silent   Health = "silent"   // nothing for SilentAfter
	Revoked  Health = "revoked"  // its certificate is no longer accepted
)

// When an endpoint is late and silent, at a heartbeat a minute (design: HLT-1).
const (
	LateAfter   = 2 * time.Minute
	SilentAfter = 5 * time.Minute
)

// Record is an endpoint as the console knows it.
type Record struct {
	AgentID    string    `json:"agent_id"`
	HostID     string    `json:"host_id"`
	HostName   string    `json:"host_name"`
	OS         string    `json:"os"`
	OSVersion  string    `json:"os_version,omitempty"`
	Department string    `json:"department,omitempty"`
	Enrolled   time.Time `json:"enrolled"`
	LastSeen   time.Time `json:"last_seen,omitzero"`
	Revoked    bool      `json:"revoked,omitempty"`
	CertSerial string    `json:"-"`
	CertNext   string    `json:"-"`                // serial of a renewed certificate that was not used yet
	Status     *Status   `json:"status,omitempty"` // nil until the first heartbeat
	OpenAlerts int       `json:"open_alerts"`
}

// Health judges the record at the time now.
func (r *Record) Health(now time.Time) Health {
	switch age := now.Sub(r.LastSeen); {
	case r.Revoked:
		return Revoked
	case age > SilentAfter:
		return Silent
	case age > LateAfter:
		return Late
	}
	if s := r.Status; s != nil {
		if len(s.Settings.Problems) > 0 || len(s.Rules.Problems) > 0 || s.Lost > 0 || s.Alerts.Error != "" || s.Activity.Error != "" {
			return Degraded
		}
		for _, x := range s.Sensors {
			if x.State.Trouble() {
				return Degraded
			}
		}
	}
	return Healthy
}
