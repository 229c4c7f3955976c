// Package wire is what agent and console say to each other over HTTPS: the
// bodies of /v1/enroll, /v1/renew and /v1/batches, and their limits. The version
// is in the path; within a version fields are only added.
package wire

import (
	"encoding/json"
	"time"

	"sekisho/internal/endpoint"
)

// The paths of the agent API.
const (
	PathEnroll  = "/v1/enroll"
	PathRenew   = "/v1/renew"
	PathBatches = "/v1/batches"
)

// Limits that both sides keep.
const (
	MaxBatchBytes  = 8 << 20 // of the decompressed body
	MaxBatchRows   = 2_000   // alerts and activity together
	MaxEnrollBytes = 64 << 10
	// MaxRowBytes is one row. Judgement: an alert with 20 pieces of evidence
	// stays far below.
	MaxRowBytes = 1 << 20
)

// Batch is the body of POST /v1/batches, JSON with Content-Encoding zstd (or
// none). One without rows is a heartbeat. The sender's identity is its client
// certificate, never the body.
type Batch struct {
	Sent     time.Time         `json:"sent"` // by the agent's clock
	Alerts   []json.RawMessage `json:"alerts,omitempty"`
	Activity []json.RawMessage `json:"activity,omitempty"`
	Status   *endpoint.Status  `json:"status,omitempty"`
}

// BatchReply answers a batch after its rows are committed. The agent deletes
// the first Alerts alerts and the first Activity rows of activity.
type BatchReply struct {
	Alerts        int       `json:"alerts"`
	Activity      int       `json:"activity"`
	RetryAfter    int       `json:"retry_after,omitempty"` // seconds to wait before the next batch; 0: none
	PolicyVersion int64     `json:"policy_version"`
	Now           time.Time `json:"now"`             // by the console's clock
	Renew         bool      `json:"renew,omitempty"` // the certificate is due for renewal
}

// EnrollRequest is the body of POST /v1/enroll, over TLS whose key the agent
// has checked against the token's pin.
type EnrollRequest struct {
	TokenID string            `json:"token_id"`
	Secret  string            `json:"secret"`
	CSR     string            `json:"csr"` // PEM; only its public key counts
	Host    endpoint.Identity `json:"host"`
	Sent    time.Time         `json:"sent"`
}

// EnrollReply carries the agent's identity.
type EnrollReply struct {
	AgentID     string    `json:"agent_id"`
	Certificate string    `json:"certificate"` // PEM, leaf first, then the issuer
	CA          string    `json:"ca"`          // PEM of the roots to trust
	Department  string    `json:"department,omitempty"`
	Known       bool      `json:"known,omitempty"` // this PC was enrolled before and keeps its history
	Now         time.Time `json:"now"`
}

// RenewRequest is the body of POST /v1/renew over mutual TLS, with a new key.
type RenewRequest struct {
	CSR string `json:"csr"`
}

// RenewReply carries the new certificate. The old one stays valid until the new
// one is first used.
type RenewReply struct {
	Certificate string    `json:"certificate"`
	CA          string    `json:"ca"`
	Now         time.Time `json:"now"`
}

// Error is the body of every answer that is not 2xx. Code is stable; the texts
// are for people.
type Error struct {
	Code       string    `json:"code"` // "ENR-04"
	JA         string    `json:"ja"`
	EN         string    `json:"en"`
	RetryAfter int       `json:"retry_after,omitempty"` // seconds
	Index      *int      `json:"index,omitempty"`       // of the row that was refused: alerts first, then activity
	Now        time.Time `json:"now"`
}

func (e *Error) Error() string { return e.Code + ": " + e.EN }
