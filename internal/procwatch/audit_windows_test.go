package procwatch

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/winlog"
)

// Of what the log tells, that is told which no look has found; no look tells it again.
func TestWhatIsAuditedIsToldOnce(t *testing.T) {
	w := New(Options{PollOnly: true})
	q := newQueue(1 << 10)
	ctx := context.Background()
	if err := w.pollOnce(ctx, q, true, false, false); err != nil {
		t.Fatal(err)
	}
	record := func(pid int, at time.Time) *winlog.Event {
		return &winlog.Event{ID: auditProcess, Time: at, Data: []winlog.Field{{Name: "NewProcessId", Value: fmt.Sprintf("0x%x", pid)}, {Name: "ProcessId", Value: fmt.Sprintf("0x%x", os.Getpid())},
			{Name: "NewProcessName", Value: `C:\Windows\System32\where.exe`}, {Name: "CommandLine", Value: "where notepad"}, {Name: "TargetUserSid", Value: "S-1-5-18"}}}
	}
	self := w.procs.get(os.Getpid())
	if self == nil {
		t.Fatal("this process was not found")
	}
	w.audited(q, record(os.Getpid(), self.image.started.Add(time.Millisecond)))
	if n := len(q.items); n != 0 {
		t.Errorf("a process that is known is told: %+v", q.items)
	}
	const gone = 0x7ffffff0
	w.audited(q, record(gone, time.Now()))
	w.audited(q, record(gone, time.Now()))
	if len(q.items) != 1 {
		t.Fatalf("%d items for a process that is gone", len(q.items))
	}
	it := q.items[0]
	im := it.proc.image
	if it.sensor != mechAudit || im.exe != `C:\Windows\System32\where.exe` || im.name != "where.exe" || it.raw != "where notepad" || len(it.errs) != 0 || !im.uidOK ||
		it.proc.parent != self.image || it.proc.session != self.session {
		t.Errorf("told %+v\n%+v of %+v", it, im, it.proc.parent)
	}
	// The next look does not find it: it ended.
	if err := w.pollOnce(ctx, q, false, false, false); err != nil {
		t.Fatal(err)
	}
	if w.procs.get(gone) != nil {
		t.Error("a process that is gone stays")
	}
}

func TestPollingWithoutALog(t *testing.T) {
	w := New(Options{PollOnly: true, PollEvery: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.poll(ctx, newQueue(1<<10), endpoint.SensorDegraded, "refused") }()
	for deadline := time.Now().Add(time.Minute); w.Status().Mechanism == "" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
	}
	time.Sleep(200 * time.Millisecond) // some looks, with what the log says
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := w.Status(); wine && s.Mechanism != mechPolling || !strings.HasPrefix(s.Mechanism, mechPolling) || s.Reason != "refused" {
		t.Errorf("status %+v", s)
	}
}
