// Package store is the console's database: the only package with SQL.
//
// [Store] is what the rest of the console may ask of a database; [SQLite] is
// the embedded one. Another engine is one more dialect file and one more caller
// of package storetest, which says in tests what every Store has to do.
//
// What a Store promises:
//
//   - Ingest answers after the commit (synchronous=FULL): what it answered for
//     survives a killed process and, as far as the disk keeps its word, a power
//     cut. A second delivery of a row is success and changes nothing.
//   - What is not there is ErrMissing, which satisfies errors.Is(err, fs.ErrNotExist).
//   - Lists are read by key, never by offset, and are bounded.
//   - Times that decide over identity or order of events are kept in
//     nanoseconds (columns ..._ns), all others in milliseconds (..._ms).
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
)

// Errors that callers branch on.
var (
	ErrMissing      = error(missing{}) // is fs.ErrNotExist, and so needs no import of this package
	ErrExists       = errors.New("exists already")
	ErrTokenUnknown = errors.New("enrolment token is unknown")       // or its secret is another
	ErrTokenExpired = errors.New("enrolment token has expired")      //
	ErrTokenUsedUp  = errors.New("enrolment token has been used up") //
	ErrTokenRevoked = errors.New("enrolment token was revoked")      //
	ErrFull         = errors.New("no space left for the database")   // nothing was stored
	ErrDamaged      = errors.New("the database is damaged, or no database")
	ErrNewer        = errors.New("the database is of a newer version of this program")
	ErrLastAdmin    = errors.New("the last administrator who can sign in cannot be taken away")
)

type missing struct{}

func (missing) Error() string        { return "does not exist" }
func (missing) Is(target error) bool { return target == fs.ErrNotExist }

// Store is everything the console program asks of its database. All methods are
// safe for concurrent use.
type Store interface {
	// Ingest stores what one agent delivered, and only then returns. A delivery
	// without rows is a heartbeat: it is kept in memory, seen by Endpoint and
	// Endpoints at once and written within FlushEvery.
	Ingest(ctx context.Context, d Delivery) error

	// Alerts lists alerts newest first, without Raw, Evidence and Log.
	Alerts(ctx context.Context, f alert.Filter) (alert.Page, error)
	// Alert is one alert with everything.
	Alert(ctx context.Context, id string) (*alert.Record, error)
	AlertCounts(ctx context.Context) (alert.Counts, error)
	// ChangeAlerts applies c to all of ids in one transaction and writes their
	// log. An unknown id changes none of them.
	ChangeAlerts(ctx context.Context, ids []string, c alert.Change, user string, at time.Time) error
	// Watch answers a channel that gets a value (coalesced) after alerts or
	// endpoints changed, also by another process, until stop is called.
	Watch() (changed <-chan struct{}, stop func())

	// Activity lists an agent's activity (of all agents: "") older than before
	// (zero: from the newest), newest first, at most limit rows.
	Activity(ctx context.Context, agentID string, before time.Time, limit int) ([]Row, error)
	// DeleteActivity deletes up to limit rows of activity older than before and
	// tells how many they were.
	DeleteActivity(ctx context.Context, before time.Time, limit int) (int, error)

	// Enrol spends a use of a token and gives the PC its identity, see Enrolment.
	Enrol(ctx context.Context, e Enrolment) (Enrolled, error)
	// Renew notes the serial of a renewed certificate; the old one stays valid
	// until the new one is first used.
	Renew(ctx context.Context, agentID, serial string, expires time.Time) error
	// Seen is the endpoint whose current or next certificate has this serial;
	// the first use of the next one makes it the current one.
	Seen(ctx context.Context, serial string) (*endpoint.Record, error)
	Revoke(ctx context.Context, agentID string) error
	Endpoints(ctx context.Context) ([]endpoint.Record, error)
	Endpoint(ctx context.Context, agentID string) (*endpoint.Record, error)

	AddEnrollToken(ctx context.Context, t account.EnrollToken) error
	EnrollTokens(ctx context.Context) ([]account.EnrollToken, error)
	RevokeEnrollToken(ctx context.Context, id string) error

	// AddUser adds a user and gives it its ID. The error may be ErrExists.
	AddUser(ctx context.Context, u *account.User) error
	Users(ctx context.Context) ([]account.User, error)
	UserByName(ctx context.Context, name string) (*account.User, error)
	UserByID(ctx context.Context, id int64) (*account.User, error)
	// SignedIn notes a sign-in with the password whose hash is was, and keeps
	// hash (was, or one of better parameters) instead of it. A user who is
	// disabled or has another password by now is fs.ErrNotExist.
	SignedIn(ctx context.Context, id int64, was, hash string, at time.Time) error
	// ChangePassword puts the hash of a user's own new password in the place of
	// was, and ends the user's sessions. A user who is disabled or has another
	// password by now is fs.ErrNotExist.
	ChangePassword(ctx context.Context, id int64, was, hash string) error
	// ResetPassword gives a user another's choice of a password, to be changed at
	// the next sign-in if it is a one-time one. It ends the user's sessions and
	// lets one who is disabled in again.
	ResetPassword(ctx context.Context, id int64, hash string, oneTime bool) error
	// DisableUser keeps a user out and ends the user's sessions. The error may be
	// ErrLastAdmin.
	DisableUser(ctx context.Context, id int64) error
	SetUserLang(ctx context.Context, id int64, lang string) error
	AddSession(ctx context.Context, s account.Session) error
	Session(ctx context.Context, hash [32]byte) (*account.Session, error)
	// TouchSession notes that a session was used; to the minute.
	TouchSession(ctx context.Context, hash [32]byte, at time.Time) error
	DeleteSession(ctx context.Context, hash [32]byte) error
	// DeleteSessions deletes those that were opened or used too long ago.
	DeleteSessions(ctx context.Context, createdBefore, seenBefore time.Time) error

	AddToken(ctx context.Context, t account.Token) error
	Tokens(ctx context.Context) ([]account.Token, error)
	TokenByHash(ctx context.Context, hash [32]byte) (*account.Token, error)
	// TouchToken notes that a token was used; to the minute.
	TouchToken(ctx context.Context, id string, at time.Time) error
	RevokeToken(ctx context.Context, id string) error

	// Audit appends to the audit log, which nothing changes or deletes.
	Audit(ctx context.Context, e account.AuditEntry) error
	// AuditLog lists the entries that were written before number before (0: from
	// the newest), newest first, at most limit.
	AuditLog(ctx context.Context, before int64, limit int) ([]account.AuditEntry, error)

	// Ready tells whether the database takes writes.
	Ready(ctx context.Context) error
	// Size is the database's size on disk in bytes.
	Size() int64
	// Backup writes a complete copy of the database to a new file while the
	// database is in use.
	Backup(ctx context.Context, file string) error
	// Close writes what is waiting and closes the database.
	Close() error
}

// Delivery is what an agent sent in one batch.
type Delivery struct {
	AgentID  string // from its certificate
	Received time.Time
	Remote   string // address it came from, without port
	Alerts   []Alert
	Activity []Row
	Status   *endpoint.Status // nil: none was sent
}

// Alert is an alert and the JSON it was read from. NewAlert makes one.
type Alert struct {
	*alert.Alert
	Raw []byte // kept as it is: evidence

	head  []byte // the alert's JSON without evidence, for lists
	words string // for the search index
}

// NewAlert reads an alert and prepares what is kept of it. An alert that could
// not be read back from the database is refused here, where its sender can be
// told, rather than when a list is shown.
func NewAlert(raw []byte) (Alert, error) {
	a, err := alert.Decode(raw)
	if err != nil {
		return Alert{}, err
	}
	if err := checkTime(a.Time); err != nil {
		return Alert{}, err
	}
	brief := *a
	brief.Evidence = nil
	head := brief.AppendJSON(nil)
	if _, err := alert.Decode(head); err != nil {
		return Alert{}, fmt.Errorf("without its evidence: %w", err)
	}
	return Alert{a, raw, head, indexText(searchText(a))}, nil
}

// Row is an event as it is kept: the columns that lists are made of and the
// JSON it was read from. (AgentID, Time, ID) is its key.
type Row struct {
	Time    time.Time
	ID      string
	AgentID string // set by the store on reading
	Action  string
	Host    string // host.name
	User    string // user.name
	Raw     []byte
}

// Enrolment is a PC's request to become an agent.
//
// Which identity it gets, by the host id it tells:
//
//  1. No endpoint has this host id, or only revoked ones: a new one.
//  2. The endpoint enrolled with the same key by the same token before: its reply
//     was lost on the way. It gets its own identity again, no use is spent.
//  3. The endpoint was last heard more than endpoint.LateAfter ago: a PC that was
//     set up again. It keeps its identity and history; its old certificate ends.
//  4. The endpoint is in contact now, but the request names another host name
//     or comes from another address: a clone. It gets an identity of its own.
//  5. The endpoint is in contact now and name and address are the same: it was
//     just set up again, as in 3.
type Enrolment struct {
	TokenID    string
	SecretHash [32]byte // SHA-256 of the token's secret
	KeyHash    [32]byte // SHA-256 of the PC's public key (SPKI)
	Host       endpoint.Identity
	Remote     string // address it came from, without port
	Serial     string // of the certificate that is about to be issued, lower-case hex
	Expires    time.Time
	Now        time.Time
}

// Enrolled is the identity that a PC got.
type Enrolled struct {
	AgentID    string
	Department string
	Known      bool // it keeps an identity it had before
}

// FlushEvery is how often last contacts are written to disk. A collector that
// dies forgets at most this much of them; the agents' next heartbeats repair it.
const FlushEvery = 12 * time.Second
