package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sekisho/internal/disktest"
	"sekisho/internal/event"
)

func TestOnAFullDiskAlertsWaitAndNothingRecordedIsLost(t *testing.T) {
	disk := disktest.New(t, "16m")
	src := newScripted()
	r := start(t, disk, "", src)
	n := 0
	send := func(k int) {
		for range k {
			src.out <- stick(fmt.Sprintf("S%05d", n))
			n++
		}
	}
	send(50)
	r.until("the first alerts are on disk", func() bool { return r.status().AlertsRaised >= 50 })

	other := filepath.Join(disk, "somebody else's")
	disktest.Fill(t, other)
	send(50)
	r.until("alerts go to the reserve", func() bool { return r.status().AlertsRaised >= 100 })

	disktest.Fill(t, other) // and the reserve is gone too
	send(1500)              // more than what is left of a segment
	r.until("the status says that the disk is full", func() bool {
		st := r.status()
		return strings.Contains(st.Alerts.Error, "disk is full") && strings.Contains(st.Activity.Error, "disk is full")
	})
	held := r.status()
	if held.AlertsRaised >= uint64(n) {
		t.Fatalf("%d alerts of %d are on disk: it is not full", held.AlertsRaised, n)
	}
	if held.Lost == 0 || held.Activity.Dropped == 0 {
		t.Errorf("lost %d, activity dropped %d: the status hides it", held.Lost, held.Activity.Dropped)
	}

	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	r.until("every alert is on disk", func() bool { return r.status().AlertsRaised >= uint64(n) && r.status().Alerts.Error == "" })
	send(1)
	r.until("the trouble is over in the status", func() bool { st := r.status(); return st.Alerts.Error == "" && st.Activity.Error == "" })
	r.until("what was lost is told", func() bool { return r.saw(`"events-lost"`, "disk full") })
	dropped := r.status().Activity.Dropped
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	got := serials(t, spooled(t, r.stateDir, "alerts"))
	for i := range n {
		if s := fmt.Sprintf("S%05d", i); got[s] != 1 {
			t.Fatalf("%s has %d alerts in the spool", s, got[s])
		}
	}
	kept, told := 0, int64(0)
	for _, rec := range spooled(t, r.stateDir, "activity") {
		e, err := event.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Action == event.USBAttached:
			kept++
		case e.Action == event.EventsLost:
			told += e.Lost.Count.V
		}
	}
	// On a slow machine an event of the agent's own may be among those that found no room.
	if all := int64(kept) + dropped; all < int64(n) || all > int64(n)+5 || told != dropped {
		t.Errorf("%d events: %d kept, %d dropped, %d told as lost", n, kept, dropped, told)
	}
	t.Logf("%d events, %d alerts; of activity %d kept, %d dropped and told", n, len(got), kept, dropped)
}

func TestAStopOnAFullDiskCountsTheAlertsThatItHeld(t *testing.T) {
	disk := disktest.New(t, "16m")
	src := newScripted()
	r := start(t, disk, "", src)
	disktest.Fill(t, filepath.Join(disk, "other"))
	const n = 2000
	for i := range n {
		src.out <- stick(fmt.Sprintf("S%05d", i))
		if i == n/2 {
			time.Sleep(50 * time.Millisecond)
			disktest.Fill(t, filepath.Join(disk, "other"))
		}
	}
	r.until("the disk refuses", func() bool { return r.status().Alerts.Error != "" })
	began := time.Now()
	r.stop() // may tell that the last sync failed
	if took := time.Since(began); took > time.Minute {
		t.Errorf("the stop took %v", took)
	}
	if err := os.Remove(filepath.Join(disk, "other")); err != nil {
		t.Fatal(err)
	}
	r2 := start(t, disk, "", newScripted())
	dropped := r2.status().Alerts.Dropped
	r2.until("it is told", func() bool { return r2.saw(`"events-lost"`, `"spool-alerts"`, "disk full") })
	if err := r2.stop(); err != nil {
		t.Fatal(err)
	}
	got := serials(t, spooled(t, r.stateDir, "alerts"))
	if int64(len(got))+dropped < n || dropped == 0 {
		t.Errorf("%d alerts kept and %d counted as lost, of %d", len(got), dropped, n)
	}
	t.Logf("%d kept, %d counted as lost", len(got), dropped)
}

func TestAnAgentThatStartsOnAFullDiskSaysSo(t *testing.T) {
	disk := disktest.New(t, "1m")
	file := filepath.Join(disk, "agent.yaml")
	write(t, file, "state_dir: "+filepath.Join(disk, "state")+"\n")
	disktest.Fill(t, filepath.Join(disk, "other"))
	_, err := New(Options{ConfigFile: file, Version: "test", Log: zap.NewNop(), Sources: []Source{newScripted()}})
	if !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), filepath.Join(disk, "state")) {
		t.Errorf("got %v, want ErrNoRoom with the directory", err)
	}
}

// A PC whose disk is full when it boots is watched all the same: the reserve of
// the run before takes the alerts.
func TestAnAgentThatRanBeforeStartsOnAFullDisk(t *testing.T) {
	disk := disktest.New(t, "16m")
	r := start(t, disk, "", newScripted())
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	disktest.Fill(t, filepath.Join(disk, "other"))
	// The settings file stays: start writes it anew, for which there is no room.
	src := newScripted()
	a, err := New(Options{ConfigFile: r.o.ConfigFile, Version: "test", Log: zap.NewNop(), Sources: []Source{src}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	<-src.ready
	for i := range 20 {
		src.out <- stick(fmt.Sprintf("S%d", i))
	}
	// One more tells of the activity that was lost.
	r.until("the alerts are on disk", func() bool { return a.Status().AlertsRaised >= 20 })
	cancel()
	if err := <-done; err != nil {
		t.Log("stopped with:", err) // what waits in memory for the activity spool cannot be synced
	}
	if err := os.Remove(filepath.Join(disk, "other")); err != nil {
		t.Fatal(err)
	}
	if got := serials(t, spooled(t, r.stateDir, "alerts")); len(got) != 20 {
		t.Errorf("%d alerts in the spool", len(got))
	}
}
