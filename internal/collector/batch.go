package collector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/store"
	"sekisho/internal/wire"
)

// batch is wire.Batch with its lists bounded while they are read: four million
// empty rows fit the limit of a body.
type batch struct {
	Sent     time.Time        `json:"sent"`
	Alerts   rows             `json:"alerts"`
	Activity rows             `json:"activity"`
	Status   *endpoint.Status `json:"status"`
}

type rows []json.RawMessage

var errTooManyRows = fmt.Errorf("more than %d rows", wire.MaxBatchRows)

// UnmarshalJSON reads a list up to wire.MaxBatchRows.
func (l *rows) UnmarshalJSON(data []byte) error {
	*l = nil
	if string(data) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.New("want a list of rows")
	}
	for dec.More() {
		if len(*l) == wire.MaxBatchRows {
			return errTooManyRows
		}
		var r json.RawMessage
		if err := dec.Decode(&r); err != nil {
			return err
		}
		*l = append(*l, r)
	}
	return nil
}

func decodeBatch(data []byte) (*batch, error) {
	b := new(batch)
	err := json.Unmarshal(data, b)
	if err == nil && len(b.Alerts)+len(b.Activity) > wire.MaxBatchRows {
		err = errTooManyRows
	}
	switch {
	case errors.Is(err, errTooManyRows):
		return nil, refuse(http.StatusRequestEntityTooLarge, codeRows, err)
	case err != nil:
		return nil, refuse(http.StatusBadRequest, codeBody, err)
	}
	if err := checkStatus(b.Status); err != nil {
		return nil, refuse(http.StatusBadRequest, codeBody, err)
	}
	return b, nil
}

// checkStatus bounds a heartbeat: it is kept in memory for each endpoint.
func checkStatus(s *endpoint.Status) error {
	if s == nil {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	// Judgement: a status with eight sensors of 64 places each stays below.
	if limit := 64 << 10; len(b) > limit {
		return fmt.Errorf("status: %d bytes, the limit is %d", len(b), limit)
	}
	return nil
}

// delivery checks each row. The error names the first that is not taken.
func delivery(b *batch, agentID string) (store.Delivery, error) {
	d := store.Delivery{AgentID: agentID, Status: b.Status}
	bad := func(i int, err error) (store.Delivery, error) {
		return store.Delivery{}, &failure{status: http.StatusUnprocessableEntity, code: codeRow, index: &i, err: fmt.Errorf("agent %s: row %d: %w", agentID, i, err)}
	}
	for i, raw := range b.Alerts {
		if len(raw) > wire.MaxRowBytes {
			return bad(i, fmt.Errorf("%d bytes, the limit is %d", len(raw), wire.MaxRowBytes))
		}
		a, err := store.NewAlert(raw)
		if err == nil {
			err = checkKey(a.ID, a.Time)
		}
		if err == nil && a.Rule.ID == "" && a.Rule.Table == "" {
			err = errors.New("rule.id is missing")
		}
		if err != nil {
			return bad(i, err)
		}
		d.Alerts = append(d.Alerts, a)
	}
	for i, raw := range b.Activity {
		if len(raw) > wire.MaxRowBytes {
			return bad(len(b.Alerts)+i, fmt.Errorf("%d bytes, the limit is %d", len(raw), wire.MaxRowBytes))
		}
		e, err := event.Decode(raw)
		if err == nil {
			err = checkKey(e.ID, e.Time)
		}
		if err != nil {
			return bad(len(b.Alerts)+i, err)
		}
		r := store.Row{Time: e.Time, ID: e.ID, Action: string(e.Action), Raw: raw}
		if e.Host != nil {
			r.Host = e.Host.Name
		}
		if e.User != nil {
			r.User = e.User.Name
		}
		d.Activity = append(d.Activity, r)
	}
	return d, nil
}

// maxIDLen is how long an event.id may be. Ours are UUIDs; recorded ones may be
// anything that is fit for an address of a page.
const maxIDLen = 100

// checkKey checks what a row is known by.
func checkKey(id string, t time.Time) error {
	if id == "" || len(id) > maxIDLen {
		return fmt.Errorf("event.id: %d bytes, want 1 to %d", len(id), maxIDLen)
	}
	for _, c := range []byte(id) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':') {
			return fmt.Errorf("event.id %q: want letters, digits and -_.: only", id)
		}
	}
	if t.Before(store.MinTime) || t.After(store.MaxTime) {
		return errors.New("@timestamp: missing, or outside of 1970 to 2260")
	}
	return nil
}
