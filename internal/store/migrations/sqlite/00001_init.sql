-- +goose Up
CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('alert-seq', '0'), ('ready', '');

-- One row per alert of an agent. key is id, or id and agent where two agents told of the same id.
CREATE TABLE alerts (
	n           INTEGER PRIMARY KEY, -- row of alerts_text
	key         TEXT NOT NULL UNIQUE,
	agent       TEXT NOT NULL,
	id          TEXT NOT NULL,
	seq         INTEGER NOT NULL UNIQUE,
	ts_ns       INTEGER NOT NULL,
	last_ns     INTEGER NOT NULL,
	received_ms INTEGER NOT NULL,
	rule        TEXT NOT NULL,       -- table id, SCAM-1
	rule_id     TEXT NOT NULL,       -- Sigma id
	level       INTEGER NOT NULL,
	grp         TEXT NOT NULL,
	host        TEXT NOT NULL,
	user        TEXT NOT NULL,
	test        INTEGER NOT NULL,
	count       INTEGER NOT NULL,
	state       TEXT NOT NULL,
	assignee    TEXT NOT NULL DEFAULT '',
	reason      TEXT NOT NULL DEFAULT '',
	changed_ms  INTEGER NOT NULL DEFAULT 0,
	head        BLOB NOT NULL,       -- the alert's JSON without evidence, for lists
	raw         BLOB NOT NULL,       -- the alert's JSON as received
	UNIQUE (agent, id)
) STRICT;
CREATE INDEX alerts_time  ON alerts (ts_ns, key);
CREATE INDEX alerts_state ON alerts (state, ts_ns, key);
CREATE INDEX alerts_level ON alerts (level, ts_ns, key);
CREATE INDEX alerts_host  ON alerts (host, ts_ns, key);
CREATE INDEX alerts_grp   ON alerts (grp, ts_ns, key);
-- Not closed, no tests: what the counters of the console's frame count.
CREATE INDEX alerts_open  ON alerts (state, level, ts_ns, agent) WHERE state <> 'closed' AND test = 0;
CREATE INDEX alerts_closed ON alerts (ts_ns) WHERE state = 'closed' AND test = 0;

-- Two-character tokens (see search.go). Without content: the words are in head.
CREATE VIRTUAL TABLE alerts_text USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'ascii');

CREATE TABLE alert_log (
	n        INTEGER PRIMARY KEY,
	alert    INTEGER NOT NULL REFERENCES alerts (n) ON DELETE CASCADE,
	at_ms    INTEGER NOT NULL,
	user     TEXT NOT NULL,
	state    TEXT NOT NULL,
	assignee TEXT NOT NULL,
	reason   TEXT NOT NULL,
	note     TEXT NOT NULL
) STRICT;
CREATE INDEX alert_log_alert ON alert_log (alert, n);

-- The key serves the repeat of a delivery and the order by time alike.
CREATE TABLE activity (
	ts_ns  INTEGER NOT NULL,
	id     TEXT NOT NULL,
	agent  TEXT NOT NULL,
	action TEXT NOT NULL,
	host   TEXT NOT NULL,
	user   TEXT NOT NULL,
	raw    BLOB NOT NULL,
	PRIMARY KEY (ts_ns, id, agent)
) STRICT;
CREATE INDEX activity_agent ON activity (agent, ts_ns);

CREATE TABLE endpoints (
	agent        TEXT PRIMARY KEY,
	host_id      TEXT NOT NULL,
	host_name    TEXT NOT NULL,
	os           TEXT NOT NULL,
	os_version   TEXT NOT NULL,
	department   TEXT NOT NULL,
	enrolled_ms  INTEGER NOT NULL,
	last_seen_ms INTEGER NOT NULL DEFAULT 0,
	remote       TEXT NOT NULL DEFAULT '', -- address it was last heard from
	revoked      INTEGER NOT NULL DEFAULT 0,
	token        TEXT NOT NULL,            -- enrolment token it came by
	key_hash     BLOB NOT NULL,
	cert_serial  TEXT NOT NULL,
	cert_expires_ms INTEGER NOT NULL,
	cert_next    TEXT NOT NULL DEFAULT '',
	cert_next_expires_ms INTEGER NOT NULL DEFAULT 0,
	status       TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX endpoints_host   ON endpoints (host_id);
CREATE INDEX endpoints_serial ON endpoints (cert_serial);
CREATE INDEX endpoints_next   ON endpoints (cert_next);

CREATE TABLE enroll_tokens (
	id         TEXT PRIMARY KEY,
	hash       BLOB NOT NULL,
	department TEXT NOT NULL,
	uses       INTEGER NOT NULL,
	used       INTEGER NOT NULL DEFAULT 0 CHECK (used <= uses),
	created_ms INTEGER NOT NULL,
	expires_ms INTEGER NOT NULL,
	revoked    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
	id            INTEGER PRIMARY KEY AUTOINCREMENT,
	name          TEXT NOT NULL UNIQUE,
	role          TEXT NOT NULL,
	password_hash TEXT NOT NULL,
	must_change   INTEGER NOT NULL,
	disabled      INTEGER NOT NULL,
	lang          TEXT NOT NULL,
	created_ms    INTEGER NOT NULL,
	last_login_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
	hash       BLOB PRIMARY KEY,
	user       INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	created_ms INTEGER NOT NULL,
	seen_ms    INTEGER NOT NULL,
	remote     TEXT NOT NULL,
	user_agent TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user);

CREATE TABLE tokens (
	id           TEXT PRIMARY KEY,
	name         TEXT NOT NULL,
	role         TEXT NOT NULL,
	hash         BLOB NOT NULL UNIQUE,
	created_ms   INTEGER NOT NULL,
	expires_ms   INTEGER NOT NULL,
	last_used_ms INTEGER NOT NULL DEFAULT 0,
	revoked      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
	n      INTEGER PRIMARY KEY AUTOINCREMENT,
	ts_ns  INTEGER NOT NULL,
	who    TEXT NOT NULL,
	action TEXT NOT NULL,
	object TEXT NOT NULL,
	detail TEXT NOT NULL,
	remote TEXT NOT NULL
) STRICT;
CREATE INDEX audit_time ON audit (ts_ns);
-- +goose StatementBegin
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
	SELECT RAISE(ABORT, 'the audit log is not changed');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
	SELECT RAISE(ABORT, 'the audit log is not deleted from');
END;
-- +goose StatementEnd
