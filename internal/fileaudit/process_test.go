package fileaudit

import (
	"testing"
	"time"

	"sekisho/internal/event"
)

// A process that nothing can be found out of any more is the one that had its id a
// moment ago, and not the one that had it long before.
func TestAProcessIsNotTakenForOneThatHadItsIDLongAgo(t *testing.T) {
	var there *event.Process
	ps := newProcesses(&Options{ProcRoot: t.TempDir(), Process: func(int) (*event.Process, *event.User) { return there, nil }})
	t0 := time.Now()
	there = &event.Process{PID: event.Some[int64](7), Name: "cp", EntityID: "a"}
	name := func(after time.Duration) string { return ps.of(7, t0.Add(after)).proc.Name }
	if got := name(0); got != "cp" {
		t.Fatalf("got %q", got)
	}
	there = nil // it has ended
	for s := 3; s < 3*int(endedFor/time.Second); s += 3 {
		if got, known := name(time.Duration(s)*time.Second), time.Duration(s)*time.Second <= endedFor; known != (got == "cp") {
			t.Errorf("after %d s: got %q", s, got)
		}
	}
}
