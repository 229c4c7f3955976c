//go:build linux

// Package bench measures the agent as a whole program. make bench-agent: how long
// from the start of a tool to the alert on disk and at the console, what a flood of
// process starts costs, and idling, and how much longer a build and a copy take.
// make bench-side: the same load watched by the agent, by auditd and by inotify.
package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
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

// The flood: so many starts of /bin/true, so many at a time.
const starts, atOnce = 20_000, 4

// flood starts the programs and answers how long that took.
func flood(b *testing.B, others bool) (took time.Duration) {
	began := time.Now()
	if err := runFlood(others); err != nil {
		b.Error(err)
	}
	return time.Since(began)
}

// runFlood starts the programs, each with an argument of its own ("flood-17"), and
// every second one as nobody if others is set.
func runFlood(others bool) error {
	var wg sync.WaitGroup
	failed := make([]error, atOnce)
	for first := range atOnce {
		wg.Go(func() {
			for n := first; n < starts; n += atOnce {
				c := exec.Command("/bin/true", floodArg+strconv.Itoa(n))
				if others && n%2 == 1 {
					c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
				}
				if err := c.Run(); err != nil {
					failed[first] = err
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(failed...)
}

const (
	floodArg = "flood-"
	nobody   = 65534
)

// processes is the process sensor once it watches. The agent answers before: its
// first look at what runs takes it some 0.2 s, and what starts and ends before
// that is not watched.
func processes(b *testing.B, s *stack.Stack) (endpoint.Status, endpoint.Sensor) {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st := status(b, s)
		for _, x := range st.Sensors {
			if x.Name == "process" && x.State != endpoint.SensorDown {
				return st, x
			}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the process sensor does not watch: %+v", st.Sensors)
		}
	}
}

func needRoot(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: without it the agent polls, and polling misses short processes")
	}
}

// settle is how long the agent gets to tell what waits: the sensor reads the
// kernel's counters of losses once a second and tells losses once a second.
const settle = 3 * time.Second

// BenchmarkFloodCost is what a flood costs the agent.
func BenchmarkFloodCost(b *testing.B) {
	needRoot(b)
	s := stack.Start(b)
	for b.Loop() {
		before, was := processes(b, s)
		took := flood(b, false)
		time.Sleep(settle)
		after, is := processes(b, s)
		if told, lost := is.Events-was.Events, is.Lost-was.Lost; told+lost < 2*starts {
			b.Errorf("%d events and %d told as lost, at least %d are due", told, lost, 2*starts)
		}
		b.ReportMetric(float64(is.Lost-was.Lost), "lost")
		b.ReportMetric(starts/took.Seconds(), "starts/s")
		b.ReportMetric((after.CPUSeconds-before.CPUSeconds)/starts*1e6, "cpu-us/start")
		b.ReportMetric(float64(before.MemoryBytes)/(1<<20), "rss-before-MB")
		b.ReportMetric(float64(after.MemoryBytes)/(1<<20), "rss-MB")
		b.ReportMetric(float64(after.Budget.Shed-before.Budget.Shed), "shed")
	}
}

// BenchmarkFloodSeen is what the agent sees of a flood, counted by the entity ids
// of the events that it judged. Writing them all for us costs it as much again, so
// the cost is measured apart.
func BenchmarkFloodSeen(b *testing.B) {
	needRoot(b)
	s := stack.Start(b)
	s.End("agent", syscall.SIGTERM)
	path, err := filepath.EvalSymlinks("/bin/true")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		t := watchFlood(b, s, path)
		b.ReportMetric(float64(len(t.seen)), "seen")
		b.ReportMetric(float64(t.paths), "with-path")
		b.ReportMetric(float64(t.args), "with-arguments")
		b.ReportMetric(float64(t.users), "right-user")
		b.ReportMetric(float64(len(t.ended)), "ended")
		b.ReportMetric(float64(t.lost), "lost")
		if n := len(t.seen) + len(t.ended) + int(t.lost); n < 2*starts {
			b.Errorf("%d starts and ends of %d are neither seen nor told as lost", 2*starts-n, 2*starts)
		}
	}
}

// watchFlood counts what an agent, which runs for it only, tells of a flood.
func watchFlood(b *testing.B, s *stack.Stack, path string) tally {
	agent := exec.Command(s.Agent, "run", "--config", s.Dir+"/agent.yaml", "--tee", "-")
	tee, err := agent.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = agent.Wait() }()
	defer func() { _ = agent.Process.Kill() }()
	counted := make(chan tally, 1)
	go func() { counted <- count(b, tee, path) }()
	for exec.Command(s.Agent, "status", "--config", s.Dir+"/agent.yaml").Run() != nil {
		time.Sleep(20 * time.Millisecond)
	}
	_, sensor := processes(b, s)
	b.Logf("mechanism %s", sensor.Mechanism)
	flood(b, true)
	time.Sleep(settle)
	_ = agent.Process.Signal(syscall.SIGTERM) // the tee ends
	return <-counted
}

// tally is what was seen of a flood.
type tally struct {
	seen               map[string]bool // entity ids of the starts
	ended              map[string]bool // and of those that ended with 0
	paths, args, users int             // starts with the right ones
	lost               uint64          // told as such
}

// count counts what the agent tells of the children of this process until it
// ends. A start that is told twice counts once.
func count(b *testing.B, tee io.Reader, path string) tally {
	t := tally{seen: map[string]bool{}, ended: map[string]bool{}}
	args := map[string]bool{}
	lines := bufio.NewScanner(tee)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		e, err := event.Decode(lines.Bytes())
		if err != nil {
			b.Errorf("%v: %.200s", err, lines.Bytes())
			continue
		}
		p := e.Process
		switch {
		case e.Action == event.EventsLost && e.Lost != nil:
			t.lost += uint64(e.Lost.Count.V)
		case e.Action == event.ProcessEnded && t.seen[p.EntityID] && p.ExitCode == event.Some[int64](0):
			t.ended[p.EntityID] = true
		case e.Action == event.ProcessStarted && p.Parent != nil && p.Parent.PID.V == int64(os.Getpid()) && p.Name == filepath.Base(path) && !t.seen[p.EntityID]:
			t.seen[p.EntityID] = true
			if p.Executable == path {
				t.paths++
			}
			if len(p.Args) != 2 || p.Args[0] != "/bin/true" || args[p.Args[1]] {
				continue
			}
			n, err := strconv.Atoi(strings.TrimPrefix(p.Args[1], floodArg))
			if err != nil {
				continue
			}
			args[p.Args[1]] = true
			t.args++
			want := "0"
			if n%2 == 1 {
				want = strconv.Itoa(nobody)
			}
			if u := e.User; u != nil && (u.EffectiveID == want || u.EffectiveID == "" && u.ID == want) && u.Name != "" {
				t.users++
			}
		}
	}
	if err := lines.Err(); err != nil {
		b.Error(err)
	}
	return t
}
