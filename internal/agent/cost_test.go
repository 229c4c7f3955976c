package agent

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"runtime/pprof"
	"testing"
	"time"

	"sekisho/internal/event"
)

func TestWhatASensorTakesOfTheCPUIsToldByItsName(t *testing.T) {
	busy := &scripted{script: func(ctx context.Context, _ chan<- *event.Event) error {
		for x := 0; ctx.Err() == nil; x++ {
			if x%1_000_000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	}}
	r := start(t, shortDir(t), "", busy)
	parts, err := r.ctl.Cost(t.Context(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v", parts)
	// How much that is depends on what else the machine has to do.
	if parts["scripted"] <= 0 || parts["scripted"] < parts["other"] {
		t.Errorf("a sensor that does nothing but work took %v", parts)
	}
	if _, err := r.ctl.Cost(t.Context(), time.Hour); err == nil {
		t.Error("a measurement of an hour is taken")
	}
}

func FuzzCosts(f *testing.F) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err == nil {
		pprof.Do(context.Background(), pprof.Labels(costLabel, "seed"), func(context.Context) {
			for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); {
			}
		})
		pprof.StopCPUProfile()
		if z, err := gzip.NewReader(&b); err == nil {
			if raw, err := io.ReadAll(z); err == nil {
				f.Add(raw)
			}
		}
	}
	f.Add([]byte{0x12, 0x04, 0x12, 0x02, 1, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		spent, err := costs(b)
		if err != nil && spent != nil {
			t.Error("an answer beside an error")
		}
	})
}
