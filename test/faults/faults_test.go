//go:build unix

// Package faults does to the real programs what happens in offices: killed,
// restarted, cut off, out of disk.
//
// SEKISHO_FAULTS_ALERTS and SEKISHO_FAULTS_KILLS raise the size of the kill test
// (make test-faults: 1,000 and 100; otherwise small, so that it can run each
// time).
package faults

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/test/stack"

	"github.com/google/uuid"
)

func env(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestKilledAgainAndAgainNothingIsLostAndNothingTwice sends self-tests through
// both programs while they are killed at random moments. A self-test that the
// agent said is on disk must be in the console in the end, once.
func TestKilledAgainAndAgainNothingIsLostAndNothingTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for minutes")
	}
	total, kills := env("SEKISHO_FAULTS_ALERTS", 40), env("SEKISHO_FAULTS_KILLS", 4)
	s := stack.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()

	// Killers: each program is killed after a random share of the stream.
	var sent sync.WaitGroup
	var mu sync.Mutex
	done := 0
	progress := func() int { mu.Lock(); defer mu.Unlock(); return done }
	killer := func(name string) {
		for n := range kills {
			for progress() < (n+1)*total/(kills+1) && ctx.Err() == nil {
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
			s.End(name, syscall.SIGKILL)
			s.Up(name)
		}
	}
	sent.Go(func() { killer("agent") })
	sent.Go(func() { killer("console") })

	want := map[string]bool{} // alert ids
	tries := 0
	for n := range total {
		id := uuid.NewString()
		for ctx.Err() == nil {
			tries++
			out, err := exec.Command(s.Agent, "selftest", "--config", s.Dir+"/agent.yaml", "--id", id, "--within", "20s", "--json").Output()
			var hops struct {
				AlertID string `json:"alert_id"`
			}
			if err == nil && json.Unmarshal(out, &hops) == nil && hops.AlertID != "" {
				want[hops.AlertID] = true
				break
			}
		}
		mu.Lock()
		done = n + 1
		mu.Unlock()
	}
	sent.Wait()
	if len(want) != total {
		t.Fatalf("%d self-tests gave %d alert ids", total, len(want))
	}
	var got map[string]int
	// Minutes: the agent may be in the longest pause between two tries.
	for end := time.Now().Add(6 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		got = s.Alerts()
		missing := 0
		for id := range want {
			if got[id] == 0 {
				missing++
			}
		}
		if missing == 0 {
			break
		}
	}
	missing, twice := 0, 0
	for id := range want {
		if got[id] == 0 {
			missing++
		}
	}
	for _, n := range got {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d self-tests in %d tries, each program killed %d times: %d in the console, %d missing, %d twice", total, tries, kills, len(want)-missing, missing, twice)
	if missing > 0 || twice > 0 {
		t.Errorf("%d missing, %d twice", missing, twice)
	}
}
