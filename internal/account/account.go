// Package account is who may use the console and its API: people, their
// sessions, tokens of scripts, and the log of what they did. Plain types; the
// store keeps them, the console and the API check them. It imports nothing of
// ours.
package account

import "time"

// Role is what a person or token may do; each includes the ones before it,
// except Auditor, who reads the audit log only.
type Role string

// The roles.
const (
	Viewer  Role = "viewer"  // sees alerts and endpoints
	Analyst Role = "analyst" // triages alerts
	Admin   Role = "admin"   // users, tokens, enrolment, settings
	Auditor Role = "auditor" // reads the audit log
)

// Roles are all of them, for choices and checks.
var Roles = []Role{Viewer, Analyst, Admin, Auditor}

// Can reports whether r includes want.
func (r Role) Can(want Role) bool {
	rank := map[Role]int{Viewer: 1, Analyst: 2, Admin: 3}
	if r == Auditor || want == Auditor {
		return r == want || (want == Auditor && r == Admin)
	}
	return rank[r] > 0 && rank[r] >= rank[want]
}

// User is a person who may sign in.
type User struct {
	ID           int64
	Name         string // lower case, unique
	Role         Role
	PasswordHash string // PHC string, argon2id
	MustChange   bool   // the password is a one-time one
	Disabled     bool
	Lang         string // "ja", "en"; empty: the browser's
	Created      time.Time
	LastLogin    time.Time
}

// Session is one sign-in. The cookie holds a random value; only its SHA-256 is
// kept.
type Session struct {
	Hash      [32]byte
	UserID    int64
	Created   time.Time
	Seen      time.Time
	Remote    string // address it was opened from
	UserAgent string // cut to 200 bytes
}

// Token lets a script use the API. The token is shown once; only its SHA-256 is
// kept.
type Token struct {
	ID       string // public part, shown in lists
	Name     string // what it is for
	Role     Role
	Hash     [32]byte
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time
	Revoked  bool
}

// EnrollToken lets PCs enrol. Only the hash of its secret is kept.
type EnrollToken struct {
	ID         string
	Hash       [32]byte // of the secret
	Department string
	Uses       int // allowed
	Used       int
	Created    time.Time
	Expires    time.Time
	Revoked    bool
}

// AuditEntry is one act in the console: who did what to what, why, from where.
type AuditEntry struct {
	N      int64 // counts entries, given by the store
	Time   time.Time
	Who    string // user name, or "token:ID", or "system"
	Action string // "login", "login-failed", "alert-view", "alert-change", ...
	Object string // id of what it was done to
	Detail string // reason or parameters, no secrets
	Remote string
}
