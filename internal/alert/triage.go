package alert

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// State is where an alert stands with the people who look after it.
type State string

// The states.
const (
	Open    State = "open"    // nobody took it yet
	Working State = "working" // somebody is on it: Assignee
	Waiting State = "waiting" // for an answer from elsewhere
	Closed  State = "closed"  // with a Reason
)

// States are all of them, in the order of work.
var States = []State{Open, Working, Waiting, Closed}

// Reason is why an alert was closed.
type Reason string

// The reasons.
const (
	ApprovedWork  Reason = "approved-work"
	FalsePositive Reason = "false-positive"
	PolicyBreach  Reason = "policy-breach"
	Escalated     Reason = "escalated"
	TestAlert     Reason = "test"
)

// Reasons are all of them, in the order they are offered.
var Reasons = []Reason{ApprovedWork, FalsePositive, PolicyBreach, Escalated, TestAlert}

// Record is an alert as the console keeps it: what the agent sent, and what
// people did with it.
type Record struct {
	*Alert
	Raw      []byte    // the alert's JSON as it was received
	Seq      int64     // grows with each alert received; a cursor for live updates
	AgentID  string    // from the certificate that delivered it
	Received time.Time // first delivery

	State    State
	Assignee string // user name; empty: nobody
	Reason   Reason // of a closed one
	Changed  time.Time
	Log      []LogEntry // oldest first; filled for single alerts only
}

// LogEntry is one thing that a person did with an alert.
type LogEntry struct {
	Time     time.Time
	User     string // user name
	State    State  // after it
	Assignee string
	Reason   Reason
	Note     string
}

// Change is what a person does with alerts. Empty fields stay as they are.
type Change struct {
	State    State
	Assignee *string // nil: unchanged; "": nobody
	Reason   Reason  // required when State is Closed
	Note     string
}

// MaxNote is how long a note may be, in bytes. Judgement: what is longer is a
// document and belongs elsewhere.
const MaxNote = 16_000

// Check says what is wrong with a change, for the person who asked for it.
func (c Change) Check() error {
	switch {
	case c.State != "" && !slices.Contains(States, c.State):
		return fmt.Errorf("state %.40q: want one of %q", c.State, States)
	case c.Reason != "" && !slices.Contains(Reasons, c.Reason):
		return fmt.Errorf("reason %.40q: want one of %q", c.Reason, Reasons)
	case c.State == Closed && c.Reason == "":
		return fmt.Errorf("closing needs a reason, one of %q", Reasons)
	case c.Reason != "" && c.State != Closed:
		return errors.New("a reason goes with closing only")
	case len(c.Note) > MaxNote:
		return fmt.Errorf("note of %d bytes, the limit is %d", len(c.Note), MaxNote)
	case c.Assignee != nil && len(*c.Assignee) > 200:
		return errors.New("assignee longer than 200 bytes")
	case c.State == "" && c.Assignee == nil && c.Note == "":
		return errors.New("nothing to change")
	}
	return nil
}

// ErrCursor says that a Filter's After is not one that a page before has given.
var ErrCursor = errors.New("not a cursor of this list")

// Filter selects alerts, newest first by (Time, ID). The zero Filter selects all
// of them but tests.
type Filter struct {
	States    []State // none: any
	Levels    []Level // none: any
	Rule      string  // table id or Sigma id
	Host      string  // host.name, exact
	AgentID   string
	User      string // user.name, exact
	Assignee  string
	Group     string
	Text      string // words in title, rule, host and file names
	Tests     bool   // tests too
	TestsOnly bool
	From, To  time.Time // by Time; zero: open
	After     string    // cursor: Page.Next of the page before
	AfterSeq  int64     // only those with a greater Seq
	Limit     int       // 0: 100; at most 1,000
}

// Page is a part of a list. Its records are without Raw, Evidence and Log.
type Page struct {
	Records []Record
	Next    string // cursor of the next page; empty: this is the last
}

// Counts are the numbers of the console's frame. Tests are not counted.
type Counts struct {
	Open    map[Level]int // not closed, by level
	ByState map[State]int
	Oldest  time.Time // of the oldest open one
	LastSeq int64
}
