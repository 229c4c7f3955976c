//go:build linux

// Package bench measures the agent as a whole program (make bench-agent): how
// long from the start of a tool to the alert on disk and at the console, and
// what a flood of process starts costs.
package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"sync"
	"testing"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/endpoint"
	"sekisho/test/stack"
)

func status(b *testing.B, s *stack.Stack) endpoint.Status {
	var st endpoint.Status
	if err := json.Unmarshal([]byte(s.Run(s.Agent, "status", "--json", "--config", s.Dir+"/agent.yaml")), &st); err != nil {
		b.Fatal(err)
	}
	return st
}

// quantile of sorted durations, in milliseconds.
func quantile(d []time.Duration, q float64) float64 {
	return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds()) / 1000
}

// BenchmarkToolStart starts a program that a rule matches, and follows it.
func BenchmarkToolStart(b *testing.B) {
	s := stack.Start(b)
	var spooled, shipped []time.Duration
	for b.Loop() {
		var h agent.Hops
		out := s.Run(s.Agent, "selftest", "--through", "console", "--json", "--config", s.Dir+"/agent.yaml")
		if err := json.Unmarshal([]byte(out), &h); err != nil {
			b.Fatal(err)
		}
		if late := h.Spooled.Sub(h.Started); late > 50*time.Millisecond {
			b.Logf("start %d: seen after %v, judged after %v, on disk after %v", len(spooled), h.Seen.Sub(h.Started), h.Judged.Sub(h.Started), late)
		}
		spooled = append(spooled, h.Spooled.Sub(h.Started))
		shipped = append(shipped, h.Shipped.Sub(h.Started))
	}
	for name, d := range map[string][]time.Duration{"spool": spooled, "console": shipped} {
		sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
		b.ReportMetric(quantile(d, 0.5), name+"-p50-ms")
		b.ReportMetric(quantile(d, 0.99), name+"-p99-ms")
		b.ReportMetric(quantile(d, 1), name+"-max-ms")
	}
}

// BenchmarkFlood executes /bin/true 20,000 times, four at a time: what the agent
// saw of it, and at what cost.
func BenchmarkFlood(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: without it the agent polls, and polling misses short processes")
	}
	const starts, at = 20_000, 4
	s := stack.Start(b)
	for b.Loop() {
		before := status(b, s)
		began := time.Now()
		var wg sync.WaitGroup
		for range at {
			wg.Go(func() {
				for range starts / at {
					if err := exec.Command("/bin/true").Run(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(began)
		time.Sleep(2 * time.Second) // what waits is judged
		after := status(b, s)
		cpu := after.CPUSeconds - before.CPUSeconds
		for _, x := range after.Sensors {
			if x.Name == "process" {
				b.ReportMetric(float64(x.Lost), "lost")
				b.Logf("mechanism %s", x.Mechanism)
			}
		}
		b.ReportMetric(starts/took.Seconds(), "starts/s")
		b.ReportMetric(cpu/starts*1e6, "cpu-us/start")
		b.ReportMetric(float64(after.MemoryBytes)/(1<<20), "rss-MB")
		fmt.Fprintf(os.Stderr, "flood: %d events for %d starts, %d lost\n", after.Events-before.Events, starts, after.Lost-before.Lost)
	}
}
