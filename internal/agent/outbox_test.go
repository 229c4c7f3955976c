package agent

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/wire"
)

// While the disk takes none, huge alerts wait in bounded memory: first as they are,
// then cut, and only what is cut and too large is dropped, and counted.
func TestHugeAlertsThatWaitAreBounded(t *testing.T) {
	o, err := openOutbox(t.TempDir(), 512<<20, 1<<20, 0, zap.NewNop(), func(string, uint64) {}, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	e := stick("S")
	e.Message = strings.Repeat("x", 400<<10)
	e.Seal()
	a := &alert.Alert{Time: e.Time, ID: "a", Rule: alert.Rule{ID: "r"}, EvidenceTotal: 1, Evidence: []*event.Event{e}, Event: e}
	wide := *e
	wide.Extra = map[string]event.Value{}
	for i := range 500 {
		wide.Extra[fmt.Sprintf("f%d.%s", i, strings.Repeat("y", 200))] = event.Number(1)
	}
	b := &alert.Alert{Time: e.Time, ID: "b", Rule: alert.Rule{ID: "r"}, EvidenceTotal: 1, Evidence: []*event.Event{&wide}, Event: &wide}
	most := 0
	put := func(a *alert.Alert, n int) {
		for range n {
			o.alert(o.outgoing(a, false, 1))
			most = max(most, int(o.waiting.Load()))
		}
	}
	put(a, 60)
	if n := len(o.queue); n != 60 || most > queueBytes+wire.MaxRowBytes+60*tightRow {
		t.Errorf("%d of 60 wait, %d bytes", n, most)
	}
	put(b, 10)
	if dropped := o.alerts.Stats().Dropped.Full; dropped != 10 || len(o.queue) != 60 {
		t.Errorf("%d of 10 that cannot be cut are dropped, %d wait", dropped, len(o.queue))
	}
	close(o.queue)
	o.run(nil)
	if n := o.waiting.Load(); n != 0 || o.raised.Load() != 60 {
		t.Errorf("%d bytes wait, %d are on disk", n, o.raised.Load())
	}
}
