package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/wire"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// A source that tells up to the moment of the stop, faster than the pipeline.
func TestAStopLosesNothingThatASourceHasTold(t *testing.T) {
	told := make(chan int, 1)
	var sofar atomic.Int64
	src := &scripted{script: func(ctx context.Context, out chan<- *event.Event) error {
		n := 0
		for ctx.Err() == nil {
			select {
			case out <- stick(fmt.Sprintf("S%05d", n)):
				n++
				sofar.Store(int64(n))
			case <-ctx.Done():
			}
		}
		told <- n
		return nil
	}}
	r := start(t, shortDir(t), "", src)
	r.until("some are told", func() bool { return sofar.Load() > 300 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	n := <-told
	got := serials(t, spooled(t, r.stateDir, "alerts"))
	activity := map[string]int{}
	for _, rec := range spooled(t, r.stateDir, "activity") {
		e, err := event.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		if e.Device != nil {
			activity[e.Device.SerialNumber]++
		} else {
			activity[string(e.Action)]++
		}
	}
	for i := range n {
		s := fmt.Sprintf("S%05d", i)
		if got[s] != 1 || activity[s] != 1 {
			t.Fatalf("of %d events, number %d has %d alerts and %d records of activity in the spools", n, i, got[s], activity[s])
		}
	}
	if activity["agent-started"] != 1 || activity["agent-stopped"] != 1 {
		t.Errorf("start and stop were told %d and %d times", activity["agent-started"], activity["agent-stopped"])
	}
	t.Logf("%d events, %d alerts", n, len(got))
}

// What was mounted before somebody got hold of the PC is in their reach too: rule
// SCAM-3 needs it told within the session, once.
func TestOpenVolumesAreToldAgainWhenARemoteSessionBegins(t *testing.T) {
	src := newScripted()
	r := start(t, shortDir(t), "", src)
	r.do(func() {
		r.open = func() []volume.Volume {
			return []volume.Volume{{Volume: event.Volume{MountName: "/mnt/jumin", Kind: event.VolumeNetwork, Share: "fs01:/jumin"}}}
		}
	})
	for i, name := range []string{"true", "anydesk", "anydesk"} {
		e := event.New(event.ProcessStarted, time.Now())
		e.Process = &event.Process{Executable: "/opt/x/" + name, EntityID: fmt.Sprint("p", i)}
		src.out <- e
	}
	src.out <- stick("END")
	r.until("all is judged", func() bool { return r.saw("usb-attached", "END") })
	told := 0
	for _, l := range r.tee.lines() {
		if strings.Contains(l, `"action":"volume-mounted"`) && !strings.Contains(l, `"kind":"alert"`) {
			told++
			if !strings.Contains(l, "/mnt/jumin") || !strings.Contains(l, `"remote_session":{"approved":false,"id":"p1"}`) || !strings.Contains(l, messageOpen) {
				t.Errorf("got %s", l)
			}
		}
	}
	if told != 1 || !r.saw(`"kind":"alert"`, `"rule":"SCAM-3"`, "/mnt/jumin") {
		t.Errorf("the volume was told %d times, want once and SCAM-3; got\n%s", told, strings.Join(r.tee.lines(), "\n"))
	}
}

// A segment of a small spool is smaller than a row: what is longer is cut, and
// takes nothing down that goes to disk with it.
func TestASmallSpoolTakesALargeAlert(t *testing.T) {
	src := newScripted()
	r := start(t, shortDir(t), "limits: {spool_alerts: 1MiB, spool_activity: 1MiB}\n", src)
	for i := range 6 {
		e := stick(fmt.Sprint("S", i))
		if i%2 == 1 {
			e.Device.ProductName = strings.Repeat("長", 40_000)
		}
		src.out <- e
	}
	r.until("all alerts are on disk", func() bool { return r.status().AlertsRaised == 6 })
	if st := r.status(); st.Lost != 0 {
		t.Errorf("%d lost: %+v, %+v", st.Lost, st.Alerts, st.Activity)
	}
}

func TestASecondAgentOnTheSameStateIsRefused(t *testing.T) {
	r := start(t, shortDir(t), "", newScripted())
	_, err := New(Options{ConfigFile: r.o.ConfigFile, Version: "test", Log: zap.NewNop(), Sources: []Source{newScripted()}})
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), r.stateDir) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got %v, want ErrRunning with directory and process", err)
	}
	if _, err := r.ctl.Status(t.Context()); err != nil {
		t.Errorf("the first agent no longer answers: %v", err)
	}
}

func TestEventsTooLargeForARowAreCut(t *testing.T) {
	mb := strings.Repeat("あ", 1<<18/3)
	e := stick(mb)
	e.Device.VendorName, e.Device.ProductName = mb, mb
	e.Message = mb
	e.Process = &event.Process{Executable: "/opt/" + mb, CommandLine: mb, Args: strings.Split(strings.Repeat("x ", 50_000), " ")}
	e.Copy = &event.Copy{SourceIDs: strings.Split(strings.Repeat("0123456789abcdef ", 20_000), " ")}
	e.Extra = map[string]event.Value{}
	for i := range 400 { // a decoder takes 512
		e.Extra[fmt.Sprintf("custom.%d", i)] = event.Text(strings.Repeat("y", 2000))
	}
	src := newScripted()
	r := start(t, shortDir(t), "limits: {memory: 1GiB}\n", src)
	src.out <- e
	r.until("the alert is on disk", func() bool { return r.status().AlertsRaised > 0 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	check := func(name string, rec []byte) {
		if len(rec) > wire.MaxRowBytes {
			t.Errorf("%s: %d bytes, a row has %d at most", name, len(rec), wire.MaxRowBytes)
		}
		if !strings.Contains(string(rec), "the record was too large") {
			t.Errorf("%s does not say that it was cut", name)
		}
	}
	found := false
	for _, rec := range spooled(t, r.stateDir, "activity") {
		got, err := event.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		if got.Action != event.USBAttached {
			continue
		}
		found = true
		check("activity", rec)
		if got.ID != e.ID || got.Device.VendorID != "0781" || len(got.Device.SerialNumber) < 64 || !strings.HasPrefix(mb, got.Device.SerialNumber) {
			t.Errorf("cut wrongly: id %s, device %.200v", got.ID, got.Device)
		}
	}
	alerts := spooled(t, r.stateDir, "alerts")
	if !found || len(alerts) == 0 {
		t.Fatalf("activity told: %v, alerts: %d", found, len(alerts))
	}
	check("alert", alerts[0])
	a, err := alert.Decode(alerts[0])
	if err != nil {
		t.Fatal(err)
	}
	if a.Rule.Table != "USB-1" || len(a.Evidence) != 1 || a.Evidence[0].ID != e.ID {
		t.Errorf("alert %s with evidence %d", a.Rule.Table, len(a.Evidence))
	}
}

func TestEvidenceGoesBeforeTextsAreCutAndTheDecidingEventStays(t *testing.T) {
	big := strings.Repeat("x", 200<<10)
	a := &alert.Alert{ID: "a", Rule: alert.Rule{ID: "r"}, EvidenceTotal: 20}
	for range 20 {
		e := stick("S")
		e.Message = big
		a.Evidence = append(a.Evidence, e)
	}
	a.Event = a.Evidence[19]
	rec := encodeAlert(a, wire.MaxRowBytes)
	got, err := alert.Decode(rec)
	if err != nil {
		t.Fatal(err)
	}
	if len(rec) > wire.MaxRowBytes || len(got.Evidence) == 0 || len(got.Evidence) >= 20 || got.EvidenceTotal != 20 {
		t.Fatalf("%d bytes, evidence %d of %d", len(rec), len(got.Evidence), got.EvidenceTotal)
	}
	if last := got.Evidence[len(got.Evidence)-1]; last.ID != a.Event.ID || last.Message != big {
		t.Error("the deciding event went or was cut")
	}
	if len(a.Evidence) != 20 {
		t.Error("the alert itself was changed: the judge goes on counting in it")
	}
}

// FuzzShortened: whatever the record, the result is no larger than asked, or what
// came in, and stays an object.
func FuzzShortened(f *testing.F) {
	f.Add([]byte(`{"event":{"id":"1"},"a":["b",{"c":"` + strings.Repeat("d", 300) + `"}],"n":12345678901234567890}`))
	f.Add([]byte(`{"a":"` + strings.Repeat("あ", 100) + `"}`))
	f.Fuzz(func(t *testing.T, rec []byte) {
		got := shortened(rec, 200)
		if string(got) == string(rec) {
			return
		}
		var v map[string]any
		if err := json.Unmarshal(got, &v); err != nil {
			t.Fatalf("not JSON any more: %v\n%s", err, got)
		}
		if len(got) > 200 {
			t.Fatalf("%d bytes", len(got))
		}
	})
}

func TestASensorThatPanicsDoesNotBlindTheOthers(t *testing.T) {
	bad := &scripted{script: func(context.Context, chan<- *event.Event) error { panic("index out of range") }}
	good := newScripted()
	r := start(t, shortDir(t), "", bad, good)
	r.until("it is told", func() bool { return r.saw(`"sensor-degraded"`, "panic: index out of range") })
	good.out <- stick("S1")
	r.until("the other's event alerts", func() bool { return r.saw(`"USB-1"`, "S1") })
	if st := r.status(); st.Sensors[0].State != "down" || st.Sensors[1].State != "ok" {
		t.Errorf("states %s and %s", st.Sensors[0].State, st.Sensors[1].State)
	}
}

func TestWithoutSettingsTheDefaultsCount(t *testing.T) {
	cfg, err := loadSettings("")
	if err != nil || cfg.StateDir == "" || !cfg.Rules.Builtin {
		t.Fatalf("%+v, %v", cfg, err)
	}
	if _, err := loadSettings(filepath.Join(t.TempDir(), "agent.yaml")); err == nil {
		t.Error("a file that is named and not there gave settings")
	}
}

// An alert that is on disk while the judge has not written down what it came of
// would be unknown after a loss of power, and its repeats other alerts.
func TestTheJudgeIsSyncedBeforeItsAlertsAreKept(t *testing.T) {
	var o *outbox
	var synced []uint64 // records in the spool at each sync
	o, err := openOutbox(t.TempDir(), 1<<20, 1<<20, 0, zap.NewNop(), func(string, uint64) {}, func() error {
		synced = append(synced, o.alerts.Stats().Appended)
		return errors.New("the disk is broken") // and yet the alerts are kept
	})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	for n := range uint64(3) {
		o.again = append(o.again, outgoing{rec: []byte("of the run before"), n: n + 1, update: true})
	}
	for n := range uint64(2) {
		o.queue <- outgoing{rec: []byte("new"), n: n + 4}
	}
	close(o.queue)
	o.run(nil)
	if fmt.Sprint(synced) != "[0 3]" || o.alerts.Stats().Appended != 5 || o.kept.Load() != 5 || o.raised.Load() != 2 {
		t.Errorf("synced with %v in the spool; then %d there, %d kept, %d raised", synced, o.alerts.Stats().Appended, o.kept.Load(), o.raised.Load())
	}
}

// What cannot be used any more is told where people look.
func TestAnAgentWhoseCountsAreLostSaysSo(t *testing.T) {
	dir := shortDir(t)
	r := start(t, dir, "", newScripted())
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(r.stateDir, "judge", "windows.db")
	if err := os.WriteFile(db, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, "", newScripted())
	r.until("it is told", func() bool { return r.saw(`"sensor-degraded"`, "counting began afresh at", "copies of earlier weeks") })
	r.until("and alerted of", func() bool { return r.saw(`"alert"`, "HLT-3", "counting began afresh at") })
	if kept, err := os.ReadFile(db + ".bad-1"); err != nil || string(kept) != "noise" {
		t.Errorf("set aside: %q, %v", kept, err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, dir, "", newScripted())
	r.until("the start is told", func() bool { return r.saw(`"agent-started"`) })
	if r.saw("counting began afresh") {
		t.Error("told again")
	}
}

// A repeat after a restart joins the alert of the run before.
func TestQuietTimesHoldOverARestart(t *testing.T) {
	dir := shortDir(t)
	src := newScripted()
	r := start(t, dir, "", src)
	src.out <- stick("S1")
	r.until("the alert is raised", func() bool { return r.status().AlertsRaised == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	src = newScripted()
	r = start(t, dir, "", src)
	src.out <- stick("S1")
	src.out <- stick("S2")
	r.until("the other stick's alert is raised", func() bool { return r.status().AlertsRaised == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, rec := range spooled(t, r.stateDir, "alerts") {
		a, err := alert.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		if a.Event.Device != nil {
			counts[a.ID] = max(counts[a.ID], a.Count)
		}
	}
	if len(counts) != 2 {
		t.Errorf("%d alerts, want two: the first with its repeat, and the other stick's", len(counts))
	}
	var repeats int
	for _, n := range counts {
		if n == 2 {
			repeats++
		}
	}
	if repeats != 1 {
		t.Errorf("counts %v: the repeat was not joined", counts)
	}
}

// A damaged file of a spool is told in the log with its place, and what was in it
// as lost.
func TestADamagedFileOfASpoolIsTold(t *testing.T) {
	dir := t.TempDir()
	core, logged := observer.New(zap.InfoLevel)
	open := func() *outbox {
		o, err := openOutbox(dir, 1<<20, 1<<20, 0, zap.New(core), func(string, uint64) {}, func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	o := open()
	if err := o.alerts.Append(true, []byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "alerts", "*.seg"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(strings.Repeat("noise", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	o = open()
	defer o.close()
	aside := strings.TrimSuffix(files[0], ".seg") + ".bad"
	if got := logged.All(); len(got) != 1 || got[0].ContextMap()["file"] != aside {
		t.Errorf("logged %v, want %s", got, aside)
	}
	if l, ok, err := o.alerts.TakeLoss(); err != nil || !ok || l.Total() == 0 {
		t.Errorf("loss %+v, %v, %v: nothing is told", l, ok, err)
	}
}
