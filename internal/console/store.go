package console

import (
	"context"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
)

// Store is what the console needs of the database. What is not there is
// reported by an error that satisfies errors.Is(err, fs.ErrNotExist).
type Store interface {
	Alerts(ctx context.Context, f alert.Filter) (alert.Page, error)
	Alert(ctx context.Context, id string) (*alert.Record, error)
	AlertCounts(ctx context.Context) (alert.Counts, error)
	// ChangeAlerts applies c to all of ids in one transaction and writes their log.
	ChangeAlerts(ctx context.Context, ids []string, c alert.Change, user string, at time.Time) error
	// Watch answers a channel that gets a value (coalesced) after alerts or
	// endpoints changed, until stop is called.
	Watch() (changed <-chan struct{}, stop func())

	Endpoints(ctx context.Context) ([]endpoint.Record, error)
	Endpoint(ctx context.Context, agentID string) (*endpoint.Record, error)

	UserByName(ctx context.Context, name string) (*account.User, error)
	UserByID(ctx context.Context, id int64) (*account.User, error)
	// SignedIn and ChangePassword do nothing for a user who is disabled or whose
	// password's hash is not was any more: fs.ErrNotExist. ChangePassword ends the
	// user's sessions.
	SignedIn(ctx context.Context, id int64, was, hash string, at time.Time) error
	ChangePassword(ctx context.Context, id int64, was, hash string) error
	SetUserLang(ctx context.Context, id int64, lang string) error
	AddSession(ctx context.Context, s account.Session) error
	Session(ctx context.Context, hash [32]byte) (*account.Session, error)
	TouchSession(ctx context.Context, hash [32]byte, at time.Time) error
	DeleteSession(ctx context.Context, hash [32]byte) error

	Audit(ctx context.Context, e account.AuditEntry) error
	AuditLog(ctx context.Context, before int64, limit int) ([]account.AuditEntry, error)
}
