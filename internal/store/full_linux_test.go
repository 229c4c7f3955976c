package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/disktest"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

// A real file system of 3 MB that fills up, by us and by others.
func TestAFullFileSystem(t *testing.T) {
	dir := disktest.New(t, "3m")
	s, err := store.OpenSQLite(t.Context(), filepath.Join(dir, "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	deliver := func() error {
		d := store.Delivery{AgentID: "a", Received: storetest.Base}
		for i := range 20 {
			d.Activity = append(d.Activity, storetest.NewRow(stored+i))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.Ingest(ctx, d)
		if err == nil {
			stored += 20
		}
		return err
	}
	fill := filepath.Join(dir, "others")
	if err := os.WriteFile(fill, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if err = deliver(); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("after %d rows: got %v, want ErrFull", stored, err)
	}
	// What 20 rows do not fit in may still take the few bytes that Ready writes.
	for range 100 {
		if err = s.Ready(t.Context()); err != nil {
			break
		}
	}
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("readiness: got %v, want ErrFull", err)
	}
	if n, err := store.CountActivity(s); err != nil || n != stored {
		t.Errorf("while full: got %d rows (%v), want the %d that were acknowledged", n, err, stored)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if err := deliver(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	s, err = store.OpenSQLite(t.Context(), filepath.Join(dir, "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := store.CountActivity(s); err != nil || n != stored {
		t.Errorf("opened again: got %d rows (%v), want the %d that were acknowledged", n, err, stored)
	}
}

// What root does on the command line beside the service, which runs as another
// user, must leave files that the service can go on with.
func TestFilesBelongToTheOwnerOfTheDatabase(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to act for another user")
	}
	file := filepath.Join(t.TempDir(), "s.db")
	s, err := store.OpenSQLite(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	s = open(t, file)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, file + "-wal", file + "-shm"} {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 65534 {
			t.Errorf("%s belongs to %d, want 65534", filepath.Base(f), uid)
		}
	}
}
