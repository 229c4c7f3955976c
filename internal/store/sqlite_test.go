package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/account"
	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/store"
	"sekisho/internal/store/storetest"
)

func open(t testing.TB, file string) *store.SQLite {
	t.Helper()
	s, err := store.OpenSQLite(context.Background(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, filepath.Join(t.TempDir(), "日本 語.db")) })
}

// Whoever gives up waiting knows what became of the change: it was not made. The
// race detector sees whether a change is still at work when its caller goes on.
func TestAChangeThatIsGivenUpIsNotMade(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "a.db"))
	var wg sync.WaitGroup
	var made, given atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for k := range 40 {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					time.Sleep(time.Duration(k) * 20 * time.Microsecond)
					cancel()
				}()
				u := &account.User{Name: fmt.Sprintf("user-%d-%d", i, k), Role: account.Viewer}
				err := s.AddUser(ctx, u)
				cancel()
				switch {
				case err == nil && u.ID != 0:
					made.Add(1)
				case errors.Is(err, context.Canceled) && u.ID == 0:
					given.Add(1)
				default:
					t.Errorf("%s: id %d, %v", u.Name, u.ID, err)
				}
			}
		})
	}
	wg.Wait()
	users, err := s.Users(t.Context())
	if err != nil || int64(len(users)) != made.Load() {
		t.Errorf("%d users, %d were made, %v", len(users), made.Load(), err)
	}
	t.Logf("%d made, %d given up", made.Load(), given.Load())
}

func TestWhatIsClosedIsThereAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.db")
	s := open(t, file)
	at := time.Now().UTC().Truncate(time.Millisecond)
	if err := s.AddEnrollToken(t.Context(), account.EnrollToken{ID: "t", Uses: 1, Expires: at.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	e, err := s.Enrol(t.Context(), store.Enrolment{TokenID: "t", Host: endpoint.Identity{HostID: "h"}, Serial: "1", Now: at})
	if err != nil {
		t.Fatal(err)
	}
	a := storetest.NewAlert(1, nil)
	if err := s.Ingest(t.Context(), store.Delivery{AgentID: e.AgentID, Received: at, Alerts: []store.Alert{a}, Status: &endpoint.Status{HostName: "PC"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("a closed store says it is ready")
	}
	s = open(t, file)
	r, err := s.Endpoint(t.Context(), e.AgentID)
	if err != nil || !r.LastSeen.Equal(at) || r.Status == nil || r.OpenAlerts != 1 {
		t.Errorf("got %+v (%v), want the last contact and the alert", r, err)
	}
	if runtime.GOOS != "windows" {
		for _, f := range []string{file, file + "-wal"} {
			if st, err := os.Stat(f); err == nil && st.Mode().Perm() != 0o600 {
				t.Errorf("%s: mode %o, want 600", filepath.Base(f), st.Mode().Perm())
			}
		}
	}
}

func TestAnotherProcessIsSeenAndDoesNotDisturb(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.db")
	s, tool := open(t, file), open(t, file)
	changed, stop := s.Watch()
	defer stop()
	stopWrites := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stopWrites:
				done <- nil
				return
			default:
			}
			began := time.Now()
			if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Activity: []store.Row{storetest.NewRow(i)}}); err != nil {
				done <- err
				return
			}
			// Free as long as it was locked: who waits for a lock of SQLite's looks for it now and then, and on a slow
			// disk would never find it free.
			time.Sleep(time.Since(began))
		}
	}()
	for i := range 20 {
		if err := tool.AddToken(t.Context(), account.Token{ID: fmt.Sprint(i), Hash: [32]byte{byte(i)}, Created: storetest.Base}); err != nil {
			t.Fatal(err)
		}
	}
	close(stopWrites)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, err := s.Tokens(t.Context()); err != nil || len(got) != 20 {
		t.Errorf("got %d tokens (%v), want 20", len(got), err)
	}
	a := storetest.NewAlert(1, nil)
	if err := tool.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Alerts: []store.Alert{a}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(time.Minute); ; {
		select {
		case <-changed:
		case <-deadline:
			t.Fatal("not told of another process's alert")
		}
		if c, err := s.AlertCounts(t.Context()); err == nil && c.LastSeq == 1 {
			break
		}
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "s.db"))
	a := storetest.NewAlert(1, nil)
	if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Alerts: []store.Alert{a}}); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "backup.db")
	if err := s.Backup(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), to); !errors.Is(err, store.ErrExists) {
		t.Errorf("over a file that exists: got %v, want ErrExists", err)
	}
	if err := s.Backup(t.Context(), filepath.Join(dir, "no", "dir.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no folder: got %v, want fs.ErrNotExist", err)
	}
	b := open(t, to)
	if p, err := b.Alerts(t.Context(), alert.Filter{Text: "名簿"}); err != nil || len(p.Records) != 1 {
		t.Errorf("got %d alerts of the backup (%v), want 1", len(p.Records), err)
	}
}

func TestADatabaseOfANewerVersionIsLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.db")
	s := open(t, file)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	has, knows, err := store.SchemaVersions(t.Context(), file)
	if err != nil || has != knows || has < 1 {
		t.Errorf("got versions %d, %d (%v), want the same", has, knows, err)
	}
	if err := store.SetSchemaVersion(file, knows+1); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenSQLite(t.Context(), file); !errors.Is(err, store.ErrNewer) {
		t.Errorf("got %v, want ErrNewer", err)
	}
	if _, _, err := store.SchemaVersions(t.Context(), file+"x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %v, want fs.ErrNotExist", err)
	}
}

// A disk that is full must be told as such, and what was acknowledged before
// must be there. The limit stands in for the disk: SQLite reports both alike.
func TestAFullDiskIsToldAndLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.db")
	s := open(t, file)
	if err := store.LimitPages(s, 150); err != nil {
		t.Fatal(err)
	}
	stored := 0
	var err error
	for i := range 5000 {
		if err = s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Activity: []store.Row{storetest.NewRow(i)}}); err != nil {
			break
		}
		stored++
	}
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d rows: got %v, want ErrFull", stored, err)
	}
	if err := store.LimitPages(s, 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Activity: []store.Row{storetest.NewRow(stored)}}); err != nil {
		t.Errorf("with room again: %v", err)
	}
	n, err := store.CountActivity(s)
	if err != nil || n != stored+1 {
		t.Errorf("got %d rows (%v), want the %d that were acknowledged", n, err, stored+1)
	}
}

func BenchmarkIngest(b *testing.B) {
	for _, size := range []int{1, 100, 500} {
		for _, agents := range []int{1, 16} {
			b.Run(fmt.Sprintf("batch=%d/agents=%d", size, agents), func(b *testing.B) {
				s := open(b, filepath.Join(b.TempDir(), "s.db"))
				var n atomic.Int64
				b.SetParallelism(max(1, agents/runtime.GOMAXPROCS(0)))
				deliver := func() {
					d := store.Delivery{AgentID: "a", Received: storetest.Base}
					for range size {
						d.Activity = append(d.Activity, storetest.NewRow(int(n.Add(1))))
					}
					if err := s.Ingest(context.Background(), d); err != nil {
						b.Error(err)
					}
				}
				b.ResetTimer()
				if agents == 1 {
					for range b.N {
						deliver()
					}
				} else {
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							deliver()
						}
					})
				}
				b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

func BenchmarkIngestAlerts(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "s.db"))
	for i := range b.N {
		d := store.Delivery{AgentID: "a", Received: storetest.Base}
		for j := range 100 {
			d.Alerts = append(d.Alerts, storetest.NewAlert(i*100+j, nil))
		}
		if err := s.Ingest(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*100)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkAlertsPage(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "s.db"))
	for i := range 100 {
		d := store.Delivery{AgentID: "a", Received: storetest.Base}
		for j := range 100 {
			d.Alerts = append(d.Alerts, storetest.NewAlert(i*100+j, nil))
		}
		if err := s.Ingest(context.Background(), d); err != nil {
			b.Fatal(err)
		}
	}
	for name, f := range map[string]alert.Filter{
		"newest": {}, "open-high": {States: []alert.State{alert.Open}, Levels: []alert.Level{alert.High}}, "word": {Text: "名簿"}, "no-such-word": {Text: "退職"},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Alerts(context.Background(), f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever people type, the search answers; and what is in a title is found.
func FuzzSearch(f *testing.F) {
	for _, s := range []string{"名簿", "AnyDesk", `" OR *`, "ｶﾞ", "a\u0301bc", "zzz", "\xff\x00", "İi", "e\u0301"} {
		f.Add(s)
	}
	file := filepath.Join(f.TempDir(), "s.db")
	s := open(f, file)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 60 {
			return
		}
		a := storetest.NewAlert(1, func(a *alert.Alert) { a.Title.JA = "x " + text + " y" })
		if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Alerts: []store.Alert{a}}); err != nil {
			t.Fatal(err)
		}
		p, err := s.Alerts(t.Context(), alert.Filter{Text: text, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if store.Searchable(text) && len(p.Records) == 0 {
			t.Errorf("%q is in a title and was not found", text)
		}
	})
}

// A page in the middle that was overwritten: the database opens, and is not whole.
func TestAPageThatWasOverwrittenIsFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.db")
	s := open(t, file)
	for n := range 200 {
		if err := s.Ingest(t.Context(), store.Delivery{AgentID: "a", Received: storetest.Base, Activity: []store.Row{storetest.NewRow(n)}}); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(t.TempDir(), "whole.db")
	if err := s.Backup(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	if bad, err := store.Verify(t.Context(), whole); err != nil || len(bad) != 0 {
		t.Fatalf("a fresh copy: %q, %v", bad, err)
	}
	if bad, err := store.Verify(t.Context(), file); err != nil || len(bad) != 0 {
		t.Fatalf("a database in use: %q, %v", bad, err)
	}
	b, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for at := len(b) / 2 / 4096 * 4096; at < len(b); at++ {
		b[at] = 0x5a
	}
	if err := os.WriteFile(whole, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if bad, err := store.Verify(t.Context(), whole); len(bad) == 0 && !errors.Is(err, store.ErrDamaged) {
		t.Errorf("half of it overwritten: %q, %v", bad, err)
	}
}
