package judge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// flooded makes a store in which many keys came and went, some stay, and answers
// what a Judge has to go on with.
func flooded(t *testing.T, dir string, o Options) (alike func(*Judge)) {
	t.Helper()
	j, always := mustOpen(t, dir, o), mustOpen(t, t.TempDir(), o)
	n := int64(0)
	alike = func(j *Judge) {
		t.Helper()
		for end := n + 1000; n < end; n++ {
			if got, want := ids(j.Event(streamed(n, 50))), ids(always.Event(streamed(n, 50))); !slices.Equal(got, want) {
				t.Fatalf("event %d: alerts %v, want %v", n, got, want)
			}
		}
		j.Updates()
		always.Updates()
	}
	alike(j)
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	alike(j) // in the journal only
	key := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte("w\xff"), uint32(i)) }
	update := func(f func(b *bolt.Bucket, i int) error) {
		err := j.store.db.Update(func(tx *bolt.Tx) error {
			for i := range 12_000 {
				if err := f(tx.Bucket(bucketName), i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	value := bytes.Repeat([]byte("x"), 1000)
	update(func(b *bolt.Bucket, i int) error { return b.Put(key(i), value) })
	update(func(b *bolt.Bucket, i int) error { return b.Delete(key(i)) })
	kill(t, j)
	return alike
}

// content is all that is in a database.
func content(t *testing.T, path string) (all []byte) {
	t.Helper()
	db, err := openDB(path)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketName).ForEach(func(k, v []byte) error {
			all = append(append(append(append(all, k...), '='), v...), '\n')
			return nil
		})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return all
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// A database is as large as what it holds again after a flood, at the next start.
// Whatever a kill or a full disk left of an earlier try, the old one is there until
// the new one is whole.
func TestADatabaseThatIsMostlyFreeIsWrittenAnew(t *testing.T) {
	o := Options{Program: streamProgram(t), Limits: streamLimits(50, 3)}
	dir := t.TempDir()
	alike := flooded(t, dir, o)
	path := filepath.Join(dir, dbName)
	before, want := size(t, path), content(t, path)
	if before < slimBytes {
		t.Fatalf("%d bytes: the flood was none", before)
	}
	for name, left := range map[string]func(anew string) error{
		"nothing":       func(string) error { return nil },
		"an empty file": func(anew string) error { return os.WriteFile(anew, nil, 0o600) },
		"noise":         func(anew string) error { return os.WriteFile(anew, bytes.Repeat([]byte("noise"), 10_000), 0o600) },
		"half of it": func(anew string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(anew, b[:len(b)/2], 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			copied := t.TempDir()
			copyDir(t, copied, dir)
			path := filepath.Join(copied, dbName)
			if err := left(path + ".new"); err != nil {
				t.Fatal(err)
			}
			s, afresh, err := openStore(copied)
			if err != nil || afresh != nil {
				t.Fatal(err, afresh)
			}
			if err := s.close(); err != nil {
				t.Fatal(err)
			}
			if after := size(t, path); after > slimBytes/2 {
				t.Errorf("%d bytes of %d are left", after, before)
			}
			if !bytes.Equal(content(t, path), want) {
				t.Error("it holds something else")
			}
			if _, err := os.Stat(path + ".new"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("windows.db.new is left: %v", err)
			}
		})
	}
	// What cannot be written leaves the old one.
	copied := t.TempDir()
	copyDir(t, copied, dir)
	if err := os.MkdirAll(filepath.Join(copied, dbName+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, afresh, err := openStore(copied)
	if err != nil || afresh != nil {
		t.Fatal(err, afresh)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if old := filepath.Join(copied, dbName); size(t, old) != before || !bytes.Equal(content(t, old), want) {
		t.Error("the old one is not as it was")
	}

	for range 2 {
		j := mustOpen(t, dir, o)
		if r := j.Recovery(); r.Afresh != nil || r.Lost != 0 {
			t.Fatalf("afresh: %v, lost: %d", r.Afresh, r.Lost)
		}
		alike(j)
		if err := j.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		kill(t, j)
	}
	if after := size(t, path); after > before/2 {
		t.Errorf("%d bytes of %d are left", after, before)
	}
}
