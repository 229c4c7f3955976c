package judge

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/correlate"
	"sekisho/internal/event"
	"sekisho/internal/rules"

	bolt "go.etcd.io/bbolt"
)

func mustOpen(t testing.TB, dir string, o Options) *Judge {
	t.Helper()
	j, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if j.store != nil {
			j.store.close()
		}
	})
	return j
}

// kill lets go of the files as the end of the process does: nothing is written.
func kill(t testing.TB, j *Judge) {
	t.Helper()
	if err := j.store.close(); err != nil {
		t.Fatal(err)
	}
	j.store = nil
}

// attached is a storage device that comes n seconds after the start: USB-1 raises
// an alert for each serial number.
func attached(n int, serial string) *event.Event {
	return &event.Event{Time: start.Add(time.Duration(n) * time.Second), ID: fmt.Sprint(n, serial), Action: event.USBAttached, Host: &event.Host{Name: "pc1"},
		Device: &event.Device{VendorID: "0781", ProductID: "5567", SerialNumber: serial, Kinds: []string{event.KindStorage}}}
}

func ids(alerts []*alert.Alert) []string {
	var s []string
	for _, a := range alerts {
		s = append(s, a.ID)
	}
	return s
}

// recovered is the alerts of the run before.
func recovered(t testing.TB, j *Judge) (out []*alert.Alert) {
	t.Helper()
	for _, r := range j.Recovery().Alerts {
		a, err := alert.Decode(r.JSON)
		if err != nil || a.ID != r.ID {
			t.Fatalf("alert %s: %v", r.ID, err)
		}
		out = append(out, a)
	}
	return out
}

func TestAlertsThatWereRaisedAndNotKeptAreGivenOutAgain(t *testing.T) {
	p := pack(t, rules.Options{})
	for _, checkpoint := range []string{"none", "before", "after"} {
		t.Run("checkpoint "+checkpoint, func(t *testing.T) {
			dir := t.TempDir()
			j := mustOpen(t, dir, Options{Program: p})
			var raised []*alert.Alert
			take := func() {
				if err := j.Checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			for n := range 6 {
				raised = append(raised, j.Event(attached(n, fmt.Sprint("S", n)))...)
				if n == 2 && checkpoint == "before" {
					take()
				}
			}
			j.Event(attached(6, "S1")) // a repeat, told to nobody yet
			j.Kept(2)
			if checkpoint == "after" {
				take()
			}
			kill(t, j)

			j = mustOpen(t, dir, Options{Program: p})
			r := j.Recovery()
			want := ids(raised)
			switch checkpoint {
			case "none": // nobody knows that two were kept
			case "before": // the checkpoint knew three as not kept
			case "after":
				want = append(want[2:], want[1]) // the second for its repeat
			}
			if got := ids(recovered(t, j)); !slices.Equal(got, want) || r.Afresh != nil || r.Lost != 0 {
				t.Fatalf("got %v, want %v; %+v", got, want, r)
			}
			for _, a := range recovered(t, j) {
				if count := int64(1); a.ID == raised[1].ID {
					if count = 2; a.Count != count {
						t.Errorf("S1 counts %d, want the repeat in it", a.Count)
					}
				}
			}
			if up := j.Updates(); len(up) != 0 {
				t.Errorf("told twice: %v", ids(up))
			}
			if got := j.Event(attached(7, "S3")); len(got) != 0 {
				t.Error("a repeat after the restart is a new alert")
			}
			if n := j.Stats().Events; n != 8 {
				t.Errorf("%d events, want 8", n)
			}
			j.Kept(uint64(len(want)))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			j = mustOpen(t, dir, Options{Program: p})
			if r := j.Recovery(); r.Events != 0 || len(r.Alerts) != 1 || r.Alerts[0].ID != raised[3].ID || recovered(t, j)[0].Count != 2 {
				t.Errorf("after a clean stop, want the last update only: %+v", r)
			}
		})
	}
}

// More windows than memory holds are in the journal after the last checkpoint: the
// one that was under way at the kill did not come to its end.
func TestAStartLosesNoWindowForWantOfMemory(t *testing.T) {
	p := streamProgram(t)
	dir := t.TempDir()
	o := Options{Program: p, Limits: correlate.Limits{Keys: 10_000, Cells: 400}}
	j := mustOpen(t, dir, o)
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(t.TempDir(), "judge")
	copyDir(t, before, dir)
	for n := range 300 {
		j.Event(ofKey(n, 0))
		if j.Due() {
			if err := j.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if lost := j.Stats().Windows.Lost; lost != 0 {
		t.Fatalf("%d lost before the kill", lost)
	}
	kill(t, j)
	db, err := os.ReadFile(filepath.Join(before, dbName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, dbName), db, 0o600); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir, o)
	if r, st := j.Recovery(), j.Stats(); r.Events != 300 || r.Lost != 0 || r.Afresh != nil || st.Windows.Lost != 0 || st.Problem != "" {
		t.Errorf("%d events, %d windows lost, %v, %s", r.Events, st.Windows.Lost, r.Afresh, st.Problem)
	}
}

// Twenty programs with arguments as long as a system allows make an alert that is
// longer than an event may be: no reason to begin afresh.
func TestAnAlertOfHugeEventsIsGivenOutAgain(t *testing.T) {
	p := pack(t, rules.Options{})
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{Program: p})
	for n := range 20 {
		e := attached(n, "S1")
		e.Message = strings.Repeat("x", event.MaxJSON/16)
		j.Event(e)
	}
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	kill(t, j)
	j = mustOpen(t, dir, Options{Program: p})
	r := j.Recovery()
	if r.Afresh != nil || len(r.Alerts) != 1 || len(r.Alerts[0].JSON) < event.MaxJSON {
		t.Fatalf("%d alerts, %v", len(r.Alerts), r.Afresh)
	}
	for range 2 { // again, as it was
		if err := j.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		kill(t, j)
		j = mustOpen(t, dir, Options{Program: p})
		if again := j.Recovery(); len(again.Alerts) != 1 || !bytes.Equal(again.Alerts[0].JSON, r.Alerts[0].JSON) {
			t.Errorf("not the same: %d alerts, %v", len(again.Alerts), again.Afresh)
		}
	}
}

func TestAStoreThatIsInUseIsAClearError(t *testing.T) {
	dir := t.TempDir()
	p := pack(t, rules.Options{})
	j := mustOpen(t, dir, Options{Program: p})
	began := time.Now()
	if _, err := Open(dir, Options{Program: p}); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, dbName), 0o600, nil) // somebody looks into it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Program: p}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if j := mustOpen(t, dir, Options{Program: p}); j.Stats().Problem != "" || j.Recovery().Afresh != nil {
		t.Errorf("afterwards: %+v", j.Recovery())
	}
}

// left is what a Judge leaves behind that raised alerts before and after its last
// checkpoint.
func left(t *testing.T, p *rules.Program) (dir string, after []*alert.Alert) {
	t.Helper()
	// Not t.TempDir: where bbolt panics a file stays mapped, and Windows deletes
	// it (renames it it does) only after the end of the process.
	dir, err := os.MkdirTemp("", "judge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var before []*alert.Alert
	j := mustOpen(t, dir, Options{Program: p})
	for n := range 40 {
		before = append(before, j.Event(attached(n, fmt.Sprint("S", n)))...)
	}
	j.Kept(40)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = mustOpen(t, dir, Options{Program: p})
	if err := j.Checkpoint(); err != nil { // the journal of the run before goes
		t.Fatal(err)
	}
	for n := 40; n < 60; n++ {
		after = append(after, j.Event(attached(n, fmt.Sprint("S", n)))...)
	}
	if len(before) != 40 || len(after) != 20 {
		t.Fatalf("%d and %d alerts", len(before), len(after))
	}
	kill(t, j)
	return dir, after
}

func TestWhatCannotBeUsedIsSetAside(t *testing.T) {
	p := pack(t, rules.Options{})
	// edit changes the bucket of a database as another program would.
	edit := func(f func(b *bolt.Bucket) error) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			db, err := bolt.Open(filepath.Join(dir, dbName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(func(tx *bolt.Tx) error { return f(tx.Bucket(bucketName)) }), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	rewrite := func(name string, f func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), f(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	segment := filepath.Join(journalName, "00000000000000000041.seg")
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		aside string // of what, "" for nothing
		lost  bool   // the checkpoint is lost: alerts before it are not known any more
		says  string // where nothing is set aside, too; "": nothing
	}{
		{"newer version", edit(func(b *bolt.Bucket) error {
			return b.Put([]byte{keyMeta}, []byte(`{"version":2,"events":"many"}`))
		}), dbName, true, ""},
		{"version 2, the rest as now", edit(func(b *bolt.Bucket) error { return b.Put([]byte{keyMeta}, []byte(`{"version":2}`)) }), dbName, true, "another version: 2"},
		{"no meta", edit(func(b *bolt.Bucket) error { return b.Delete([]byte{keyMeta}) }), dbName, true, "does not say what it is"},
		{"an alert that makes no sense", edit(func(b *bolt.Bucket) error { return b.Put([]byte("ax"), []byte("{}")) }), dbName, true, "open alert"},
		{"an unkept alert that makes no sense", edit(func(b *bolt.Bucket) error { return b.Put([]byte("ux"), []byte("x")) }), dbName, true, ""},
		{"noise", rewrite(dbName, func(b []byte) []byte { return bytes.Repeat([]byte("noise"), 9000) }), dbName, true, "invalid database"},
		{"short", rewrite(dbName, func(b []byte) []byte { return b[:100] }), dbName, true, "no database"},
		{"cut at two pages", rewrite(dbName, func(b []byte) []byte { return b[:2*os.Getpagesize()] }), dbName, true, ""},
		{"cut in the middle", rewrite(dbName, func(b []byte) []byte { return b[:3*os.Getpagesize()] }), dbName, true, ""},
		{"cut where nothing is", rewrite(dbName, func(b []byte) []byte { return b[:len(b)/2] }), "", false, ""},
		{"pages of zeros", rewrite(dbName, func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b }), dbName, true, ""},
		{"pages of noise", rewrite(dbName, func(b []byte) []byte {
			r := rand.New(rand.NewPCG(1, 2))
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		}), dbName, true, ""},
		{"another program's database", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, dbName))
			db, err := bolt.Open(filepath.Join(dir, dbName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }), db.Close()); err != nil {
				t.Fatal(err)
			}
		}, dbName, true, "another program's"},
		{"a folder for the database", func(t *testing.T, dir string) {
			os.Remove(filepath.Join(dir, dbName))
			os.Mkdir(filepath.Join(dir, dbName), 0o700)
		}, dbName, true, "no database"},
		{"no database", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, dbName)) }, "", true, "windows.db: it is gone"},
		{"an empty database", rewrite(dbName, func([]byte) []byte { return nil }), "", true, "windows.db: it is gone"},
		{"one meta page torn", rewrite(dbName, func(b []byte) []byte { clear(b[64:200]); return b }), "", false, ""},
		{"a file for the journal", func(t *testing.T, dir string) {
			os.RemoveAll(filepath.Join(dir, journalName))
			os.WriteFile(filepath.Join(dir, journalName), []byte("x"), 0o600)
		}, journalName, false, "journal"},
		{"a journal of noise", rewrite(segment, func(b []byte) []byte { return bytes.Repeat([]byte("noise"), len(b)/5) }), "", false, "00000000000000000041.bad cannot be read"},
		{"no journal", func(t *testing.T, dir string) { os.RemoveAll(filepath.Join(dir, journalName)) }, "", false, "journal: what it held is gone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, after := left(t, p)
			c.spoil(t, dir)
			j := mustOpen(t, dir, Options{Program: p})
			r := j.Recovery()
			if j.Stats().Problem != "" {
				t.Fatalf("nothing is kept: %s", j.Stats().Problem)
			}
			if (c.aside+c.says != "") != (r.Afresh != nil) || r.Afresh != nil && !strings.Contains(r.Afresh.Error(), c.says) {
				t.Errorf("it says %v, want %q", r.Afresh, c.says)
			}
			for _, name := range []string{dbName, journalName} {
				if _, err := os.Stat(filepath.Join(dir, name+".bad-1")); (err == nil) != (c.aside == name) {
					t.Errorf("%s set aside: %v", name, err)
				}
			}
			journal := !strings.Contains(c.name, "journal")
			if got := len(r.Alerts); journal != (got == len(after)) {
				t.Errorf("%d alerts of the journal, it was whole: %v", got, journal)
			}
			// The next of each kind.
			if got := j.Event(attached(100, "S0")); (len(got) == 1) != c.lost {
				t.Errorf("the alert of before the checkpoint: got %v, lost should be %v", ids(got), c.lost)
			}
			if got := j.Event(attached(101, "S59")); (len(got) == 0) != journal {
				t.Errorf("the alert of the journal: got %v", ids(got))
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			// And all of that is kept again.
			j = mustOpen(t, dir, Options{Program: p})
			if r := j.Recovery(); r.Afresh != nil || r.Lost != 0 || r.Events != 0 {
				t.Errorf("the next time: %+v", r)
			}
			if got := j.Event(attached(102, "S0")); len(got) != 0 {
				t.Errorf("forgotten: %v", ids(got))
			}
		})
	}
}

func TestAJournalOfANewerVersionIsReadAsFarAsItIsKnown(t *testing.T) {
	p := pack(t, rules.Options{})
	dir, _ := left(t, p)
	s, _, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Append(true, []byte{storeVersion + 1, 1, 2, 3}), s.Close()); err != nil {
		t.Fatal(err)
	}
	j := mustOpen(t, dir, Options{Program: p})
	r := j.Recovery()
	if r.Afresh == nil || !strings.Contains(r.Afresh.Error(), "journal: another version") || r.Events != 20 || len(r.Alerts) != 20 {
		t.Fatalf("got %+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, journalName+".bad-1", "state")); err != nil {
		t.Error(err)
	}
	kill(t, j) // what was in it is in a checkpoint already
	j = mustOpen(t, dir, Options{Program: p})
	if got := j.Event(attached(100, "S59")); len(got) != 0 || j.Recovery().Afresh != nil || len(j.Recovery().Alerts) != 20 {
		t.Errorf("got %v; %+v", ids(got), j.Recovery())
	}
}

func TestRecordsThatCannotBeReadAreCounted(t *testing.T) {
	for name, serials := range map[string][]string{"in the midst": {"S45", "S47"}, "first after the checkpoint": {"S40", "S41"}} {
		t.Run(name, func(t *testing.T) {
			p := pack(t, rules.Options{})
			dir, after := left(t, p)
			path := filepath.Join(dir, journalName, "00000000000000000041.seg")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, serial := range serials {
				b[bytes.Index(b, []byte(`"`+serial+`"`))+1] ^= 1
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			j := mustOpen(t, dir, Options{Program: p})
			if r := j.Recovery(); r.Lost != 2 || r.Events != 18 || len(r.Alerts) != len(after)-2 {
				t.Errorf("got %+v", r)
			}
			kill(t, j)
			j = mustOpen(t, dir, Options{Program: p})
			if r := j.Recovery(); r.Lost != 0 || r.Events != 0 {
				t.Errorf("counted again: %+v", r)
			}
		})
	}
}

func TestOnlyTheNewestSetAsideAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), dbName)
	for n := range 6 {
		if err := os.WriteFile(path, []byte(fmt.Sprint(n)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := setAside(path); err != nil {
			t.Fatal(err)
		}
	}
	found, _ := filepath.Glob(path + ".bad-*")
	if len(found) != 3 || filepath.Base(found[0]) != dbName+".bad-4" || filepath.Base(found[2]) != dbName+".bad-6" {
		t.Errorf("left are %v", found)
	}
	if b, err := os.ReadFile(found[2]); err != nil || string(b) != "5" {
		t.Errorf("the newest holds %q, %v", b, err)
	}
}

// What a transaction that failed was to write is seen by readers, and written once
// it can be.
func TestACheckpointThatFailedLosesNothing(t *testing.T) {
	dir := t.TempDir()
	s, afresh, err := openStore(dir)
	if err != nil || afresh != nil {
		t.Fatal(err, afresh)
	}
	defer s.close()
	closed, err := openDB(filepath.Join(t.TempDir(), dbName))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	step := func(fails bool, pairs ...string) {
		t.Helper()
		if fails {
			defer func(db *bolt.DB) { s.db = db }(s.db)
			s.db = closed
		}
		if s.failed != nil && len(pairs) == 0 {
			s.run(s.failed)
			if err := s.wait(); (err != nil) != fails {
				t.Fatal(err)
			}
			return
		}
		err := s.begin(&checkpoint{meta: meta{Version: storeVersion}}, func(put func(kind byte, key []byte, v value)) error {
			for i := 0; i < len(pairs); i += 2 {
				var v value
				if text := pairs[i+1]; text != "" {
					v = func(b []byte) []byte { return append(b, text...) }
				}
				put(keyWindows, []byte(pairs[i]), v)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.wait(); (err != nil) != fails {
			t.Fatal(err)
		}
	}
	see := func(want string) {
		t.Helper()
		var got []string
		if err := s.Each([]byte("k"), func(k, v []byte) error { got = append(got, string(k)+"="+string(v)); return nil }); err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{"k1", "k2", "k3", "k4", "other"} {
			if v, err := s.Get([]byte(k)); err != nil || v != nil && k != "other" && !slices.Contains(got, k+"="+string(v)) {
				t.Errorf("%s is %q, %v", k, v, err)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	step(false, "k1", "a", "k2", "b", "other", "x")
	see("k1=a k2=b")
	step(true, "k2", "", "k3", "c", "k0", "z")
	see("k0=z k1=a k3=c")
	step(true)
	see("k0=z k1=a k3=c")
	step(false)
	see("k0=z k1=a k3=c")
	step(false, "k3", "d", "k4", "e", "k0", "")
	see("k1=a k3=d k4=e")
	if s.pending != nil || s.failed != nil {
		t.Error("something is pending still")
	}
}

// While checkpoints fail, what waits to be written does not grow with all that comes
// and goes meanwhile; once they work nothing is lost.
func TestCheckpointsThatFailOnAndOnTakeNoMoreAndMore(t *testing.T) {
	const keys = 200
	o := Options{Program: streamProgram(t), Limits: streamLimits(keys, 3)}
	o.Limits.Keys = 100
	dir := t.TempDir()
	j, always := mustOpen(t, dir, o), mustOpen(t, t.TempDir(), o)
	closed, err := openDB(filepath.Join(t.TempDir(), dbName))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	n := int64(0)
	alike := func() {
		t.Helper()
		for end := n + 1000; n < end; n++ {
			if got, want := ids(j.Event(streamed(n, keys))), ids(always.Event(streamed(n, keys))); !slices.Equal(got, want) {
				t.Fatalf("event %d: alerts %v, want %v", n, got, want)
			}
		}
		if err := always.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if got, want := ids(j.Updates()), ids(always.Updates()); len(got) != len(want) {
			t.Fatalf("event %d: %d updates, want %d", n, len(got), len(want))
		}
	}
	alike()
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	db := j.store.db
	j.store.db = closed
	alike()
	if j.Checkpoint() == nil {
		t.Fatal("a checkpoint was written to a closed file")
	}
	waits := len(j.store.pending)
	for range 5 {
		alike()
		if j.Checkpoint() == nil || j.Stats().Problem == "" {
			t.Fatal("a checkpoint was written to a closed file")
		}
		if n := len(j.store.pending); n != waits || waits == 0 {
			t.Fatalf("%d values wait, %d at first", n, waits)
		}
	}
	j.store.db = db
	for _, want := range []bool{true, false} { // the one that failed, and what came since
		if err := j.StartCheckpoint(); err != nil {
			t.Fatal(err)
		}
		if err := j.store.wait(); err != nil {
			t.Fatal(err)
		}
		if left := j.Stats().Journal > 0; left != want || j.store.pending != nil {
			t.Errorf("something is in the journal only: %v, want %v", left, want)
		}
		alike()
	}
	for range 2 {
		kill(t, j)
		if j = mustOpen(t, dir, o); j.Recovery().Afresh != nil || j.Recovery().Lost != 0 {
			t.Fatal(j.Recovery().Afresh, j.Recovery().Lost)
		}
		always.Updates()
		alike()
	}
}

func TestACheckpointIsDueByLengthTimeAndTrouble(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		s    store
		want bool
	}{
		"just written":              {store{last: now.Add(-time.Minute)}, false},
		"short journal":             {store{last: now.Add(-time.Minute), length: journalBytes}, false},
		"long journal":              {store{last: now, length: journalBytes + 1}, true},
		"large state":               {store{last: now, length: 5 * journalBytes, written: 6 * journalBytes}, false},
		"huge state":                {store{last: now, length: journalLong + 1, written: 10 * journalLong}, true},
		"one is under way":          {store{last: now.Add(-time.Hour), length: 2 * journalLong, under: &checkpoint{}}, false},
		"an hour":                   {store{last: now.Add(-time.Hour)}, true},
		"clock set back":            {store{last: now.Add(time.Hour)}, true},
		"an event did not get in":   {store{last: now.Add(-2 * time.Second), missing: 1}, true},
		"many did not":              {store{last: now, missing: 9}, false},
		"it failed just now":        {store{last: now.Add(-time.Second), length: 9 * journalBytes, problem: fs.ErrClosed}, false},
		"it failed some time ago":   {store{last: now.Add(-retryAfter), problem: fs.ErrClosed}, true},
		"the journal fails, too":    {store{last: now.Add(-time.Second), missing: 1, problem: fs.ErrClosed}, false},
		"both failed some time ago": {store{last: now.Add(-retryAfter), missing: 1, problem: fs.ErrClosed}, true},
	} {
		if got := c.s.due(now, false); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
		if got := c.s.due(now, true); got != (c.want || c.s.problem == nil && c.s.missing == 0 && c.s.under == nil) {
			t.Errorf("%s, and memory is short: got %v", name, got)
		}
	}
}

// Long windows that changed cannot leave memory before a checkpoint.
func TestACheckpointIsDueWhenWindowsAreShortOfMemory(t *testing.T) {
	p := streamProgram(t)
	j := mustOpen(t, t.TempDir(), Options{Program: p, Limits: correlate.Limits{Cells: 1000}})
	n := 0
	for ; !j.Due(); n++ {
		if j.Event(ofKey(n, 0)); n > 1000 {
			t.Fatal("1,000 windows of 8 cells and more, and no checkpoint is due")
		}
	}
	if st := j.Stats(); st.Journal > journalBytes || st.Windows.Cells <= 1000 {
		t.Fatalf("due for another reason: %+v", st)
	}
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); j.Due() || st.Windows.Cells > 1000 || st.Windows.Lost != 0 {
		t.Errorf("afterwards: due %v, %+v", j.Due(), st)
	}
}

// An event that is longer than the journal takes is safe by the checkpoint that
// follows.
func TestAnEventTooLongForTheJournalIsInACheckpoint(t *testing.T) {
	p := pack(t, rules.Options{})
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{Program: p})
	e := attached(0, "S0")
	e.Message = strings.Repeat("x", segmentBytes)
	if a := j.Event(e); len(a) != 1 {
		t.Fatalf("%d alerts", len(a))
	}
	if st := j.Stats(); st.Missing != 1 || st.Problem != "" {
		t.Errorf("%+v", st)
	}
	j.store.last = j.store.last.Add(-time.Second)
	if !j.Due() {
		t.Error("no checkpoint is due")
	}
	j.Kept(1)
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Missing != 0 || st.Journal != 0 {
		t.Errorf("%+v", st)
	}
}

// While no checkpoint can be written the journal ends at its limit, and that is
// told; the next checkpoint makes all good.
func TestAJournalThatNobodyTrimsEndsAtItsLimit(t *testing.T) {
	p := pack(t, rules.Options{})
	j := mustOpen(t, t.TempDir(), Options{Program: p})
	j.store.length = journalMost
	j.Event(attached(0, "S0"))
	if st := j.Stats(); st.Missing != 1 || !strings.Contains(st.Problem, "it is full") {
		t.Errorf("%+v", st)
	}
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Missing != 0 || st.Problem != "" || st.Journal != 0 || st.Checkpoint.IsZero() || st.Since.IsZero() || st.Written == 0 {
		t.Errorf("%+v", st)
	}
}

func TestAlertsThatNobodyKeepsAreBounded(t *testing.T) {
	j := mustOpen(t, t.TempDir(), Options{Program: pack(t, rules.Options{})})
	as := j.Event(attached(0, "S0"))
	for range 2 * maxGiven {
		j.give(as)
	}
	if len(j.given) != maxGiven || j.kept != maxGiven+1 {
		t.Errorf("%d wait, %d are kept or lost", len(j.given), j.kept)
	}
	if j.Kept(2*maxGiven + 1); len(j.given) != 0 {
		t.Errorf("%d wait still", len(j.given))
	}

	// What was recovered is not lost to what follows.
	dir := t.TempDir()
	j = mustOpen(t, dir, Options{Program: pack(t, rules.Options{})})
	for n := range 3 {
		j.Event(attached(n, fmt.Sprint("S", n)))
	}
	kill(t, j)
	j = mustOpen(t, dir, Options{Program: pack(t, rules.Options{})})
	for range 2 * maxGiven {
		j.give(as)
	}
	if len(j.Recovery().Alerts) != 3 || len(j.given) != maxGiven+3 {
		t.Errorf("%d recovered, %d wait", len(j.Recovery().Alerts), len(j.given))
	}
}

// Huge alerts that nobody keeps take bounded memory; the first of them are safe.
func TestHugeAlertsThatNobodyKeepsAreBounded(t *testing.T) {
	o := Options{Program: pack(t, rules.Options{})}
	dir := t.TempDir()
	j := mustOpen(t, dir, o)
	e := attached(0, "S0")
	e.Message = strings.Repeat("x", 1<<20)
	first := j.Event(e)
	for range 99 {
		j.give(first)
	}
	held := 0
	for _, g := range j.given {
		if !g.gone() {
			held++
		}
	}
	if len(j.given) != 100 || held < 30 || j.waiting > maxGivenBytes {
		t.Fatalf("%d are held of %d, %d bytes", held, len(j.given), j.waiting)
	}
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	kill(t, j)
	j = mustOpen(t, dir, o)
	if r := j.Recovery(); r.Afresh != nil || !slices.Equal(ids(recovered(t, j)), ids(first)) {
		t.Errorf("afresh: %v; %d alerts", r.Afresh, len(r.Alerts))
	}
	j.give(first)
	j.Kept(50)
	if j.waiting != 0 || len(j.given) != 0 {
		t.Errorf("%d bytes of %d alerts wait", j.waiting, len(j.given))
	}
}

// copyDir copies a folder as it is on disk now.
func copyDir(t testing.TB, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// After a loss of power the journal ends somewhere behind its last sync and the
// database is as its last transaction left it. Every alert that was kept is then
// known, in the state that was kept or a newer one.
func TestALossOfPowerLeavesNoAlertThatTheJudgeDoesNotKnow(t *testing.T) {
	p := pack(t, rules.Options{})
	r := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{Program: p})
	type segment struct {
		name string
		size int64
	}
	newest := func(dir string) segment {
		found, _ := filepath.Glob(filepath.Join(dir, journalName, "*.seg"))
		if len(found) == 0 {
			return segment{}
		}
		slices.Sort(found)
		fi, err := os.Stat(found[len(found)-1])
		if err != nil {
			t.Fatal(err)
		}
		return segment{fi.Name(), fi.Size()}
	}
	var waiting []*alert.Alert
	kept := map[string]*alert.Alert{} // newest state
	n, given, checkpoints, cuts := 0, uint64(0), 0, 0
	for range 24 {
		for range r.IntN(30) {
			waiting = append(waiting, j.Event(attached(n, fmt.Sprint("S", r.IntN(200))))...)
			n++
		}
		if r.IntN(3) == 0 {
			waiting = append(waiting, j.Updates()...)
		}
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
		synced := newest(dir)
		for _, a := range waiting {
			kept[a.ID] = a
		}
		given += uint64(len(waiting))
		waiting = nil
		if r.IntN(2) == 0 {
			j.Kept(given)
		}
		if r.IntN(4) == 0 {
			if err := j.Checkpoint(); err != nil {
				t.Fatal(err)
			}
			checkpoints++
		}
		// More that nobody has synced, and then the power goes.
		for range r.IntN(20) {
			waiting = append(waiting, j.Event(attached(n, fmt.Sprint("S", r.IntN(200))))...)
			n++
		}
		dark := filepath.Join(t.TempDir(), "judge")
		copyDir(t, dark, dir)
		last := newest(dark)
		if last.name == synced.name && last.size > synced.size {
			path := filepath.Join(dark, journalName, last.name)
			at := synced.size + r.Int64N(last.size-synced.size)
			if err := os.Truncate(path, at); err != nil {
				t.Fatal(err)
			}
			if r.IntN(2) == 0 { // the file has its length, but not its blocks
				if err := os.Truncate(path, last.size); err != nil {
					t.Fatal(err)
				}
			}
			cuts++
		}
		after := mustOpen(t, dark, Options{Program: p})
		if rec := after.Recovery(); rec.Afresh != nil || rec.Lost != 0 || after.Stats().Problem != "" {
			t.Fatalf("after %d events: %+v, %s", n, rec, after.Stats().Problem)
		}
		known := map[string]int64{} // by group and id: how often
		for g, state := range flushedBook(t, after) {
			known[g+state.id] = state.count
		}
		for _, a := range kept {
			if !j.Settled(a) && known[a.Group+a.ID] < a.Count {
				t.Fatalf("after %d events: alert %s was kept with %d repeats, the judge knows of %d", n, a.ID, a.Count, known[a.Group+a.ID])
			}
		}
		kill(t, after)
	}
	if checkpoints < 3 || cuts < 6 || len(kept) < 50 {
		t.Errorf("%d checkpoints, %d cuts, %d alerts: this shows nothing", checkpoints, cuts, len(kept))
	}
}

type openAlert struct {
	id    string
	count int64
}

// flushedBook is the open alerts of a Judge by group, by way of a checkpoint.
func flushedBook(t testing.TB, j *Judge) map[string]openAlert {
	t.Helper()
	if err := j.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	out := map[string]openAlert{}
	err := j.store.each([]byte{keyOpen}, func(k, v []byte) error {
		_, state, _ := bytes.Cut(v, []byte("\n"))
		a, err := alert.Decode(state)
		if err != nil {
			return err
		}
		out[string(k)] = openAlert{a.ID, a.Count}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A transaction that the loss of power cuts short has written some of its pages,
// and neither or half of its meta page: the one before it holds.
func TestACheckpointCutShortByALossOfPowerIsNotThere(t *testing.T) {
	p := pack(t, rules.Options{})
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{Program: p})
	at := func(n int) {
		for i := range 50 {
			j.Event(attached(50*n+i, fmt.Sprint("S", 50*n+i)))
		}
		if err := j.Checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	page := os.Getpagesize()
	at(0)
	for round := 1; round < 7; round++ {
		before, err := os.ReadFile(filepath.Join(dir, dbName))
		if err != nil {
			t.Fatal(err)
		}
		at(round)
		after, err := os.ReadFile(filepath.Join(dir, dbName))
		if err != nil {
			t.Fatal(err)
		}
		mixed := slices.Clone(after)
		copy(mixed, before[:2*page])
		for at := 2 * page; at+page <= len(before); at += page {
			if r.IntN(2) == 0 {
				copy(mixed[at:], before[at:at+page])
			}
		}
		if round%2 == 0 { // half of the meta page that was written last
			for at := range 2 * page {
				if before[at] != after[at] {
					meta := at / page * page
					copy(mixed[meta:meta+64], after[meta:meta+64])
					break
				}
			}
		}
		dark := filepath.Join(t.TempDir(), "judge")
		copyDir(t, dark, dir)
		if err := os.WriteFile(filepath.Join(dark, dbName), mixed, 0o600); err != nil {
			t.Fatal(err)
		}
		// The journal of that moment is trimmed after the transaction only, and
		// its segment is still the first: all of it is there.
		back := mustOpen(t, dark, Options{Program: p})
		if rec := back.Recovery(); rec.Afresh != nil || rec.Lost != 0 || rec.Events != 50 || back.Stats().Events != int64(50*(round+1)) {
			t.Fatalf("round %d: %+v, %d events", round, rec, back.Stats().Events)
		}
		if got := back.Event(attached(50*round, fmt.Sprint("S", 50*round-1))); len(got) != 0 {
			t.Fatalf("round %d: forgotten: %v", round, ids(got))
		}
		kill(t, back)
	}
}

// A checkpoint that is under way stands for what was judged before it was begun,
// and for nothing else.
func TestEventsGoOnWhileACheckpointIsWritten(t *testing.T) {
	p := pack(t, rules.Options{})
	dir := t.TempDir()
	j := mustOpen(t, dir, Options{Program: p})
	n := 0
	raise := func(k int) {
		for range k {
			if a := j.Event(attached(n, fmt.Sprint("S", n))); len(a) != 1 {
				t.Fatalf("stick %d: %d alerts", n, len(a))
			}
			n++
		}
	}
	raise(50)
	for range 5 {
		j.Kept(uint64(n))
		if err := j.StartCheckpoint(); err != nil {
			t.Fatal(err)
		}
		if j.Stats().Journal == 0 && j.store.under != nil {
			t.Error("what is not on disk is not told")
		}
		raise(50)
	}
	if err := j.store.wait(); err != nil {
		t.Fatal(err)
	}
	if st := j.Stats(); st.Journal == 0 || st.Problem != "" {
		t.Errorf("the last 50 are in no checkpoint: %+v", st)
	}
	kill(t, j)
	j = mustOpen(t, dir, Options{Program: p})
	if r := j.Recovery(); r.Events != 50 || r.Lost != 0 || len(r.Alerts) != 50 || r.Afresh != nil {
		t.Errorf("got %+v", r)
	}
	for i := range n {
		if a := j.Event(attached(n, fmt.Sprint("S", i))); len(a) != 0 {
			t.Errorf("stick %d is forgotten", i)
		}
	}
}

// Wherever the process is killed while the PC's clock is set back, be it noticed
// by events that rules match or by others, the windows go on as if nothing was.
func TestAKillWhileTheClockIsSetBackChangesNothing(t *testing.T) {
	p := streamProgram(t)
	var events []*event.Event
	r := rand.New(rand.NewPCG(8, 15))
	for n := range 240 {
		e := streamed(int64(n), 3)
		e.Time = start.Add(time.Duration(n) * 7 * time.Second)
		if n >= 120 {
			e.Time = e.Time.Add(-time.Hour)
		}
		if r.IntN(3) > 0 && n > 110 { // among the late ones matches are few
			e.Action, e.File, e.Volume, e.Device, e.Process = event.ProcessStarted, nil, nil, nil, &event.Process{Name: "x"}
		}
		events = append(events, e)
	}
	run := func(cut int) (said []string) {
		at := cut
		dir := t.TempDir()
		j := mustOpen(t, dir, Options{Program: p})
		tell := func(as []*alert.Alert) { said = append(said, ids(as)...) }
		for n := 0; n < len(events); n++ {
			if n == cut {
				j.Kept(1 << 62)
				kill(t, j)
				j = mustOpen(t, dir, Options{Program: p})
				said = said[:0] // all of them come again: there was no checkpoint
				tell(recovered(t, j))
				n, cut = int(j.Stats().Events), -1 // those behind the last match come again, too
			}
			c := *events[n]
			tell(j.Event(&c))
		}
		if st := j.Stats().Windows; st.ClockSteps != 1 {
			t.Errorf("cut at %d: the clock was set back %d times", at, st.ClockSteps)
		}
		slices.Sort(said)
		return said
	}
	want := run(-1)
	if len(want) < 8 {
		t.Fatalf("%d alerts show nothing", len(want))
	}
	for cut := 118; cut < 170; cut++ {
		if got := run(cut); !slices.Equal(got, want) {
			t.Errorf("cut at %d: %d alerts, want %d", cut, len(got), len(want))
		}
	}
}

func FuzzJournalRecord(f *testing.F) {
	f.Add(append(record{number: 7, newest: -5, late: 3}.append(nil), "{}"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := parseRecord(append(r.append(nil), r.event...))
		if err != nil || again.number != r.number || again.newest != r.newest || again.late != r.late || !bytes.Equal(again.event, r.event) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

// Windows go on over a reload with other thresholds, on disk and in memory, and
// those of a rule that counts something else now are gone for good.
func TestAReloadKeepsTheWindowsThatCountTheSame(t *testing.T) {
	lower := rules.Options{Thresholds: map[string]map[string]int64{"USB-3": {"files": 31}}}
	for _, how := range []string{"swap", "swap and kill", "kill and start with the others"} {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			j := mustOpen(t, dir, Options{Program: pack(t, rules.Options{})})
			for n := range 30 {
				j.Event(copied(n))
			}
			p := pack(t, lower)
			if how != "kill and start with the others" {
				if err := j.Swap(p); err != nil {
					t.Fatal(err)
				}
				if st := j.Stats(); st.Journal != 0 {
					t.Errorf("no checkpoint before the other rules: %+v", st)
				}
			}
			if how != "swap" {
				kill(t, j)
				j = mustOpen(t, dir, Options{Program: p})
				if r := j.Recovery(); r.Afresh != nil || j.Stats().Windows.Keys == 0 {
					t.Errorf("got %+v, %+v", r, j.Stats())
				}
			}
			if a := j.Event(copied(30)); len(a) != 1 || a[0].Totals["files"] != 31 {
				t.Errorf("got %+v", a)
			}
		})
	}
}

// Opening a store that is as it should be writes nothing: on a full disk what was
// counted goes on counting.
func TestOpeningADatabaseChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), dbName)
	open := func() []byte {
		db, err := openDB(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if before := open(); !bytes.Equal(open(), before) {
		t.Error("it is another file")
	}
}

// What was written ahead need not be written again while the pipeline waits.
func TestASwapAfterItWasWrittenAheadHasLittleToWrite(t *testing.T) {
	for _, under := range []bool{false, true} {
		dir := t.TempDir()
		p := streamProgram(t)
		j := mustOpen(t, dir, Options{Program: p})
		for n := range 500 {
			j.Event(ofKey(n, 0))
		}
		j.Updates()
		j.Kept(1 << 62)
		if under {
			if err := j.StartCheckpoint(); err != nil {
				t.Fatal(err)
			}
		}
		<-j.Ahead()
		all := j.Stats().Written
		j.Event(ofKey(7, 1))
		j.Kept(1 << 62)
		q, err := rulesOf(1)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Swap(q); err != nil {
			t.Fatal(err)
		}
		if st := j.Stats(); st.Written > all/50 || st.Journal != 0 || st.Problem != "" {
			t.Errorf("%d bytes, ahead %d: %+v", st.Written, all, st)
		}
	}
	// Without a store, or where none can be written, nobody waits.
	<-New(Options{Program: streamProgram(t)}).Ahead()
}
