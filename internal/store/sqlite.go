package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

const (
	// groupWait and groupRows bound how long and how much the writer gathers
	// before it commits. Measured: SQLite commits 500 rows as fast per row as any
	// number, and 20 ms is far below what an agent waits between batches.
	groupWait = 20 * time.Millisecond
	groupRows = 500
	// busyWait is how long a writer waits for another process (a command line
	// tool, a backup) to let go of the database.
	busyWait = 10 * time.Second
	// maxJobs is how many writes may stand in line; callers past it wait.
	maxJobs = 64
)

// SQLite is a Store in one file.
//
// There is one writer, a goroutine that takes all changes that are waiting,
// writes them in one transaction and then answers all of them: a commit costs
// a sync of the disk, whatever it holds. Reads have connections of their own
// and are never blocked. Several processes may have the file open (the command
// line tools beside the server).
type SQLite struct {
	file string
	rdb  *sql.DB // reads
	wdb  *sql.DB // one connection, owned by the writer
	conn *sql.Conn

	jobs    chan *job
	pending atomic.Int64 // changes that were not answered yet
	urgent  atomic.Bool  // a contact is news: it is written at the next tick
	quit    chan struct{}
	done    chan struct{} // closed when the writer has ended
	closing sync.Once
	closeEr error

	mu       sync.Mutex                 // guards all below
	contacts map[string]*contact        // by agent id: what was heard since start
	watchers map[chan struct{}]bool     // each of capacity one
	version  int64                      // grows with each change that watchers are told of
	counts   *alert.Counts              // of countsAt; nil: not known
	countsAt int64                      // version that counts are of
	healths  map[string]endpoint.Health // last told to watchers
}

var _ Store = (*SQLite)(nil)

// contact is what was last heard of an endpoint.
type contact struct {
	seen   time.Time
	remote string
	status *endpoint.Status // nil: none since start
	dirty  bool             // not written yet
}

// job is a change that waits for the writer.
type job struct {
	rows  int
	run   func(tx *tx) error
	done  chan error  // capacity one
	taken atomic.Bool // by the writer, or back by the caller: whoever is first
}

// safely runs the change, unless its caller took it back. A panic is its error:
// the writer serves everybody.
func (j *job) safely(tx *tx) (err error) {
	if j.taken.Swap(true) {
		return context.Canceled
	}
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v\n%s", x, debug.Stack())
		}
	}()
	return j.run(tx)
}

// tx is the writer's transaction as a change sees it.
type tx struct {
	context.Context
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // prepared once for the writer's life
	told  bool                 // watchers have to be told after the commit
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if s := t.stmts[query]; s != nil {
		return s, nil
	}
	s, err := t.conn.PrepareContext(t, query)
	if err == nil {
		t.stmts[query] = s
	}
	return s, err
}

// exec runs a statement and answers how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	s, err := t.stmt(query)
	if err != nil {
		return 0, err
	}
	r, err := s.ExecContext(t, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row runs a query of one row; none is sql.ErrNoRows.
func (t *tx) row(query string, args []any, dest ...any) error {
	s, err := t.stmt(query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(t, args...).Scan(dest...)
}

// OpenSQLite opens the database file, makes it if there is none (readable by
// its owner only), and brings its schema up to date. The caller has to Close it.
func OpenSQLite(ctx context.Context, file string) (*SQLite, error) {
	s, err := openSQLite(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", file, describe(err))
	}
	return s, nil
}

func openSQLite(ctx context.Context, file string) (_ *SQLite, err error) {
	if strings.ContainsAny(file, "?#") {
		return nil, errors.New("its path must not hold ? or #")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600) // SQLite gives -wal and -shm the same mode
	if err != nil {
		return nil, err
	}
	f.Close()
	s := &SQLite{
		file: file, jobs: make(chan *job, maxJobs), quit: make(chan struct{}), done: make(chan struct{}),
		contacts: map[string]*contact{}, watchers: map[chan struct{}]bool{}, healths: map[string]endpoint.Health{},
	}
	pragmas := fmt.Sprintf("?_pragma=busy_timeout(%d)&_pragma=foreign_keys(1)&_pragma=synchronous(FULL)", busyWait.Milliseconds())
	if s.wdb, err = sql.Open("sqlite", file+pragmas+"&_pragma=journal_mode(WAL)"); err != nil {
		return nil, err
	}
	s.wdb.SetMaxOpenConns(1)
	if s.rdb, err = sql.Open("sqlite", file+pragmas+"&_pragma=query_only(1)"); err != nil {
		s.wdb.Close()
		return nil, err
	}
	s.rdb.SetMaxOpenConns(max(4, runtime.NumCPU()))
	s.rdb.SetMaxIdleConns(4)
	defer func() {
		if err != nil {
			s.rdb.Close()
			s.wdb.Close()
		}
	}()
	if err := migrate(ctx, s.wdb); err != nil {
		return nil, err
	}
	if s.conn, err = s.wdb.Conn(ctx); err != nil {
		return nil, err
	}
	go s.writer()
	return s, nil
}

// migrate brings the schema up to date.
func migrate(ctx context.Context, db *sql.DB) error {
	p, err := provider(db)
	if err != nil {
		return err
	}
	now, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if now > want {
		return fmt.Errorf("%w: schema %d, this program knows %d", ErrNewer, now, want)
	}
	if _, err := p.Up(ctx); err != nil {
		// Another process may just have done the same.
		if now, want, err2 := p.GetVersions(ctx); err2 == nil && now == want {
			return nil
		}
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
}

// SchemaVersions tells the version of the file's schema and the one this
// program works with, without changing the file. A file that does not exist is
// fs.ErrNotExist.
func SchemaVersions(ctx context.Context, file string) (has, knows int64, err error) {
	if _, err := os.Stat(file); err != nil {
		return 0, 0, err
	}
	db, err := sql.Open("sqlite", file+"?_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	p, err := provider(db)
	if err != nil {
		return 0, 0, err
	}
	for _, src := range p.ListSources() {
		knows = max(knows, src.Version)
	}
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&has)
	if err != nil && strings.Contains(err.Error(), "no such table") {
		return 0, knows, nil
	}
	return has, knows, describe(err)
}

// maxProblems is how much of what is wrong with a database Verify tells.
const maxProblems = 20

// Verify reads the whole of a database file, which may be in use or a copy, and
// answers what is wrong with it; nothing if it is whole. The error wraps
// ErrDamaged where not even that could be found out, ErrNewer or fs.ErrNotExist.
func Verify(ctx context.Context, file string) (problems []string, err error) {
	has, knows, err := SchemaVersions(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, err)
	}
	switch {
	case has == 0:
		return []string{"it holds nothing of the console"}, nil
	case has > knows:
		return nil, fmt.Errorf("verify %s: %w: schema %d, this program knows %d", file, ErrNewer, has, knows)
	}
	db, err := sql.Open("sqlite", file+"?_pragma=busy_timeout(10000)&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxProblems))
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, describe(err))
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, fmt.Errorf("verify %s: %w", file, describe(err))
		}
		if text != "ok" {
			problems = append(problems, text)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("verify %s: %w", file, describe(err))
	}
	return problems, nil
}

// writer is the one goroutine that changes the database. It ends when quit is
// closed and everything that stood in line is written.
func (s *SQLite) writer() {
	defer close(s.done)
	t := &tx{Context: context.Background(), conn: s.conn, stmts: map[string]*sql.Stmt{}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	flushed := time.Now()
	var others int64 // SQLite's count of other connections' commits
	for {
		select {
		case j := <-s.jobs:
			s.commit(t, s.gather(j))
		case now := <-tick.C:
			var v int64
			if t.row("PRAGMA data_version", nil, &v) == nil && v != others {
				if others != 0 {
					s.tell()
				}
				others = v
			}
			if now.Sub(flushed) >= FlushEvery || s.urgent.Swap(false) {
				flushed = now
				// What cannot be written stays dirty and is tried again; Ready tells of the trouble.
				s.flush(t)
			}
		case <-s.quit:
			for {
				select {
				case j := <-s.jobs:
					s.commit(t, s.gather(j))
					continue
				default:
				}
				break
			}
			s.closeEr = s.flush(t)
			for _, st := range t.stmts {
				st.Close()
			}
			return
		}
	}
}

// gather takes the changes that wait behind first. Where callers are known to
// be on their way it waits for them, up to groupWait, else not at all: a lone
// caller gets its commit at once.
func (s *SQLite) gather(first *job) []*job {
	batch, rows := []*job{first}, first.rows
	var late <-chan time.Time
	for rows < groupRows {
		select {
		case j := <-s.jobs:
			batch, rows = append(batch, j), rows+j.rows
			continue
		default:
		}
		if s.pending.Load() <= int64(len(batch)) {
			break
		}
		if late == nil {
			late = time.After(groupWait)
		}
		select {
		case j := <-s.jobs:
			batch, rows = append(batch, j), rows+j.rows
			continue
		case <-late:
		}
		break
	}
	return batch
}

// commit writes a group of changes in one transaction and answers them. One
// that fails is undone alone; where the transaction fails, all of them have.
func (s *SQLite) commit(t *tx, batch []*job) {
	errs := make([]error, len(batch))
	t.told = false
	fatal := func() error {
		if _, err := t.conn.ExecContext(t, "BEGIN IMMEDIATE"); err != nil {
			return err
		}
		for i, j := range batch {
			if len(batch) > 1 {
				if _, err := t.exec("SAVEPOINT one"); err != nil {
					return err
				}
			}
			errs[i] = j.safely(t)
			if len(batch) == 1 {
				if errs[i] != nil {
					return errs[i]
				}
				break
			}
			if errs[i] != nil {
				if _, err := t.exec("ROLLBACK TO one"); err != nil {
					return errs[i] // it has ended the transaction, as a full disk may; that is what the others have to hear
				}
			}
			if _, err := t.exec("RELEASE one"); err != nil {
				return err
			}
		}
		_, err := t.conn.ExecContext(t, "COMMIT")
		return err
	}()
	if fatal != nil {
		// Some errors have ended the transaction already; then this one has nothing to do.
		t.conn.ExecContext(t, "ROLLBACK")
	}
	if fatal == nil && t.told {
		s.tell()
	}
	s.pending.Add(-int64(len(batch)))
	for i, j := range batch {
		if fatal != nil && errs[i] == nil {
			errs[i] = fatal
		}
		j.done <- describe(errs[i])
	}
}

var errClosed = errors.New("the database is closed")

// write hands a change to the writer and waits for its commit. If ctx ends before
// the writer began with it, the change is not made; after that its end is waited
// for, since it writes to what the caller gave it.
func (s *SQLite) write(ctx context.Context, rows int, run func(tx *tx) error) error {
	s.pending.Add(1)
	j := &job{rows: rows, run: run, done: make(chan error, 1)}
	select {
	case <-s.quit:
		s.pending.Add(-1)
		return errClosed
	default:
	}
	select {
	case s.jobs <- j: // from here on the writer counts it off
	case <-ctx.Done():
		s.pending.Add(-1)
		return ctx.Err()
	case <-s.done:
		s.pending.Add(-1)
		return errClosed
	}
	ended := ctx.Done()
	for {
		select {
		case err := <-j.done:
			return err
		case <-ended:
			if !j.taken.Swap(true) {
				return ctx.Err()
			}
			ended = nil
			continue
		case <-s.done:
		}
		select {
		case err := <-j.done:
			return err
		default:
			return errClosed
		}
	}
}

// describe gives errors of SQLite the words and kinds that callers go by.
func describe(err error) error {
	var e *sqlite.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrMissing
	case errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %v", ErrFull, err)
	case errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB):
		return fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	return err
}

// unique reports whether err is a broken UNIQUE or PRIMARY KEY.
func unique(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// tell tells watchers that something changed.
func (s *SQLite) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default: // it has not yet looked at the last one
		}
	}
}

// Watch implements Store.
func (s *SQLite) Watch() (changed <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = true
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}

// Ready implements Store: it writes.
func (s *SQLite) Ready(ctx context.Context) error {
	return s.write(ctx, 1, func(tx *tx) error {
		_, err := tx.exec(`UPDATE meta SET value = ? WHERE key = 'ready'`, time.Now().UTC().Format(time.RFC3339Nano))
		return err
	})
}

// Size implements Store: of the database and its write-ahead log.
func (s *SQLite) Size() int64 {
	var n int64
	for _, f := range []string{s.file, s.file + "-wal"} {
		if st, err := os.Stat(f); err == nil {
			n += st.Size()
		}
	}
	return n
}

// Backup implements Store. The copy is compact and readable by its owner only;
// a file that exists is not overwritten (ErrExists).
func (s *SQLite) Backup(ctx context.Context, file string) error {
	if _, err := os.Lstat(file); err == nil {
		return fmt.Errorf("back up to %s: %w", file, ErrExists)
	}
	temp := file + ".part"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	f.Close()
	err = func() error {
		// Through the pool of reads: a copy must not hold up the writer. VACUUM INTO
		// takes an empty file for a new one.
		conn, err := s.rdb.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.ExecContext(ctx, "PRAGMA query_only = 0"); err != nil {
			return err
		}
		defer conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA query_only = 1")
		if _, err := conn.ExecContext(ctx, "VACUUM INTO ?", temp); err != nil {
			return err
		}
		f, err := os.OpenFile(temp, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = f.Sync()
		if err2 := f.Close(); err == nil {
			err = err2
		}
		if err == nil {
			err = os.Rename(temp, file)
		}
		return err
	}()
	if err != nil {
		os.Remove(temp)
		return fmt.Errorf("back up to %s: %w", file, describe(err))
	}
	return nil
}

// Close implements Store.
func (s *SQLite) Close() error {
	s.closing.Do(func() {
		close(s.quit)
		<-s.done
		// The last connection of all processes takes the write-ahead log into the database.
		s.closeEr = errors.Join(s.closeEr, s.conn.Close(), s.rdb.Close(), s.wdb.Close())
	})
	return s.closeEr
}

// ms and ns are times as they stand in columns; the zero time is 0.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func ns(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromMS(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func fromNS(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
