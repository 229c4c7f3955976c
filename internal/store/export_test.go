package store

import (
	"context"
	"database/sql"
	"fmt"
)

// SetSchemaVersion makes a database look as if a later program had made it.
func SetSchemaVersion(file string, v int64) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)`, v)
	return err
}

// LimitPages lets the database grow to so many pages.
func LimitPages(s *SQLite, n int) error {
	return s.write(context.Background(), 1, func(tx *tx) error {
		_, err := tx.conn.ExecContext(tx, fmt.Sprintf("PRAGMA max_page_count = %d", n))
		return err
	})
}

// CountActivity counts all rows of activity.
func CountActivity(s *SQLite) (n int, err error) {
	err = s.rdb.QueryRow(`SELECT count(*) FROM activity`).Scan(&n)
	return n, err
}

// Searchable reports whether a text holds anything that is searched by.
func Searchable(text string) bool {
	_, ok := matchQuery(text)
	return ok
}
