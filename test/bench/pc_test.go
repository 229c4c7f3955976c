//go:build linux

package bench

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/test/stack"
)

// setting is a number of the environment, for shorter or longer runs.
func setting(b *testing.B, name string, usual int) int {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("%s=%q is no number from 1 on", name, text)
	}
	return n
}

// loadAverage is the machine's, of the last 1, 5 and 15 minutes: how much of a
// figure may be others' doing.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// BenchmarkIdle is what the agent needs while nobody does anything:
// SEKISHO_BENCH_IDLE seconds (600), of which what else runs here is no part, but
// what it starts is seen and judged.
func BenchmarkIdle(b *testing.B) {
	needRoot(b)
	s := stack.Start(b)
	for b.Loop() {
		processes(b, s)
		time.Sleep(20 * time.Second) // what starting up leaves behind is over
		before, began := status(b, s), time.Now()
		time.Sleep(time.Duration(setting(b, "SEKISHO_BENCH_IDLE", 600)) * time.Second)
		after, took := status(b, s), time.Since(began)
		var events uint64
		for i, x := range after.Sensors {
			events += x.Events - before.Sensors[i].Events
		}
		b.Logf("%v, load average %s, %d events", took.Round(time.Second), loadAverage(), events)
		b.ReportMetric((after.CPUSeconds-before.CPUSeconds)/took.Seconds()*100, "cpu-%")
		b.ReportMetric(float64(after.MemoryBytes)/(1<<20), "rss-MB")
		b.ReportMetric(float64(events)/took.Minutes(), "events/min")
	}
}

// BenchmarkBuild is how much longer it takes to build this project (SEKISHO_BENCH_BUILD,
// ./...) from nothing while the agent runs.
func BenchmarkBuild(b *testing.B) {
	needRoot(b)
	what := os.Getenv("SEKISHO_BENCH_BUILD")
	if what == "" {
		what = "./..."
	}
	dir := b.TempDir()
	pairs(b, stack.Start(b), func() *exec.Cmd {
		cache := filepath.Join(dir, "cache")
		if err := os.RemoveAll(cache); err != nil {
			b.Fatal(err)
		}
		c := exec.Command("go", "build", "-o", os.DevNull, what)
		c.Dir = "../.."
		c.Env = append(os.Environ(), "GOCACHE="+cache)
		return c
	})
}

// BenchmarkCopy is how much longer it takes to copy SEKISHO_BENCH_MB (5120) in
// files of 1 MB into a protected place, which the agent watches.
func BenchmarkCopy(b *testing.B) {
	needRoot(b)
	dir := b.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data) // crypto/rand does not fail
	for n := range setting(b, "SEKISHO_BENCH_MB", 5120) {
		folder := filepath.Join(from, strconv.Itoa(n/100))
		if err := os.MkdirAll(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		copy(data, strconv.Itoa(n)) // no two alike
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(n)), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	s := stack.Start(b)
	s.End("agent", syscall.SIGTERM)
	s.Write("agent.yaml", fmt.Sprintf("state_dir: %s/agent\nprotected:\n  - label: bench\n    paths: ['%s/**']\n", s.Dir, to))
	s.Up("agent")
	pairs(b, s, func() *exec.Cmd {
		if err := os.RemoveAll(to); err != nil {
			b.Fatal(err)
		}
		if err := os.Mkdir(to, 0o755); err != nil {
			b.Fatal(err)
		}
		syscall.Sync() // what was written before is not written during this one
		return exec.Command("cp", "-r", from, to)
	})
}

// pairs runs a command with the agent and without, SEKISHO_BENCH_PAIRS (5) times in
// turn. It tells the median of the ratios of each pair; the ratio of the least
// times, which what else runs on the machine has the smallest part in; and, of the
// command's CPU, what the agent itself took and what eBPF programs did, which
// counts as the command's. Pairs differ by more than what they look for where a
// machine is shared; those two do not.
func pairs(b *testing.B, s *stack.Stack, command func() *exec.Cmd) {
	type run struct{ took, cpu, agent, bpf float64 } // seconds
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatalf("count the time of eBPF programs: %v", err)
	}
	defer stats.Close()
	var lost uint64
	once := func(with bool) (r run) {
		if !with {
			s.End("agent", syscall.SIGTERM)
			defer s.Up("agent")
		} else {
			processes(b, s)
		}
		c := command()
		time.Sleep(settle) // after starting the agent, or clearing up
		var before endpoint.Status
		var bpf time.Duration
		if with {
			before, bpf = status(b, s), bpfTime(b)
		}
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		began := time.Now()
		if err := c.Run(); err != nil {
			b.Fatalf("%v: %v\n%s", c.Args, err, said.Bytes())
		}
		r.took, r.cpu = time.Since(began).Seconds(), (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
		if with {
			time.Sleep(settle) // what it has to tell yet
			after := status(b, s)
			r.agent, r.bpf = after.CPUSeconds-before.CPUSeconds, (bpfTime(b) - bpf).Seconds()
			for _, x := range after.Sensors {
				if x.State != endpoint.SensorOff {
					lost += x.Lost
				}
			}
		}
		return r
	}
	for b.Loop() {
		once(false) // disks and caches are warm from here on
		var took, cpu, agent, bpf, with, without []float64
		for n := range setting(b, "SEKISHO_BENCH_PAIRS", 5) {
			var w, wo run
			if n%2 == 0 { // what drifts does not count for one of them
				wo, w = once(false), once(true)
			} else {
				w, wo = once(true), once(false)
			}
			with, without = append(with, w.took), append(without, wo.took)
			took, cpu = append(took, (w.took/wo.took-1)*100), append(cpu, (w.cpu/wo.cpu-1)*100)
			agent, bpf = append(agent, w.agent/w.cpu*100), append(bpf, w.bpf/w.cpu*100)
			b.Logf("pair %d: %.2f s, with the agent %.2f s (%+.1f %%); CPU %.2f s, %.2f s (%+.1f %%), of eBPF %.3f s, the agent's %.2f s; load average %s",
				n+1, wo.took, w.took, took[n], wo.cpu, w.cpu, cpu[n], w.bpf, w.agent, loadAverage())
		}
		b.ReportMetric(middle(took), "slower-%")
		b.ReportMetric((slices.Min(with)/slices.Min(without)-1)*100, "slower-at-least-%")
		b.ReportMetric(middle(cpu), "more-cpu-%")
		b.ReportMetric(middle(agent), "agent-cpu-%")
		b.ReportMetric(middle(bpf), "ebpf-cpu-%")
		b.ReportMetric(slices.Min(without), "s-without")
		b.ReportMetric(float64(lost), "lost")
	}
}

// bpfTime is how long all eBPF programs of the machine ran since it was asked to count.
func bpfTime(b *testing.B) (sum time.Duration) {
	b.Helper()
	for id, err := ebpf.ProgramGetNextID(0); err == nil; id, err = ebpf.ProgramGetNextID(id) {
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone since
		}
		st, err := p.Stats()
		p.Close()
		if err != nil {
			b.Fatal(err)
		}
		sum += st.Runtime
	}
	return sum
}

func middle(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}
