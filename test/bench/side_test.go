//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/test/stack"
)

// The load of the comparison: the flood of starts, then so many files written into
// so many new folders, as an unpacked archive or cp -r makes them.
const writes, folders = 20_000, 200

func init() {
	switch role := os.Getenv("SEKISHO_BENCH_LOAD"); role {
	case "":
		return
	case "starts":
		if err := runFlood(false); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default: // a folder to write to
		data := bytes.Repeat([]byte("x"), 1024)
		for n := range writes {
			dir := filepath.Join(role, strconv.Itoa(n%folders))
			if n < folders {
				if err := os.Mkdir(dir, 0o755); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, writeName+strconv.Itoa(n)), data, 0o644); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(0)
}

const writeName = "sekisho-write-"

// load runs one of the loads in a process of its own and answers how long that
// took, and the CPU time of it and all it started. The kernel's work for whoever
// watches is in there where it is done on the spot: eBPF programs, audit's
// records, the queues of fanotify and inotify. Other programs on the machine add to
// it, as they use the caches.
func load(b *testing.B, role string) (took, cpu time.Duration) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), "SEKISHO_BENCH_LOAD="+role)
	c.Stderr = os.Stderr
	began := time.Now()
	if err := c.Run(); err != nil {
		b.Fatalf("load %s: %v", role, err)
	}
	return time.Since(began), c.ProcessState.UserTime() + c.ProcessState.SystemTime()
}

// cpuOf is the CPU time that processes have used, to 10 ms (proc_pid_stat(5)).
func cpuOf(b *testing.B, pids []int) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, x := range f[11:13] { // fields 14 and 15 of the manual page
			n, err := strconv.Atoi(x)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

// watcher is something that watches the PC.
type watcher struct {
	name string
	// start brings it up for a folder and returns the processes whose CPU time is
	// its own, and what ends it and tells how many starts and writes it saw.
	start func(b *testing.B, dir string) (pids []int, end func() (starts, writes int))
}

// sample is what one watcher did with one load in one round.
type sample struct {
	seen      int
	took      time.Duration
	own, load time.Duration // CPU time of its processes, and of the load
}

// cost is the CPU time of a watcher's processes, and what the load needed beyond
// the load that nobody watched in the same round.
func (x sample) cost(unwatched sample) time.Duration { return x.own + x.load - unwatched.load }

// BenchmarkSideBySide runs the loads with nobody watching, the agent, auditd and
// inotify, in turn. The agent's events are counted in a run apart, because writing
// them all down for us costs as much again.
func BenchmarkSideBySide(b *testing.B) {
	needRoot(b)
	s := stack.Start(b)
	s.End("agent", syscall.SIGTERM)
	watchers := []watcher{
		{"nobody", func(*testing.B, string) ([]int, func() (int, int)) { return nil, func() (int, int) { return 0, 0 } }},
		{"sekisho", agentBeside(s, false)}, {"sekisho-told", agentBeside(s, true)},
		{"auditd", auditBeside(b)}, {"inotify", inotifyBeside(b)},
	}
	loads := []string{"starts", "writes"}
	rounds := map[string][][2]sample{} // by watcher
	n := 0
	for b.Loop() {
		if n == 0 {
			load(b, "starts") // what is cold is cold for the first one only
		}
		for i := range watchers { // another one first each round
			w := watchers[(i+n)%len(watchers)]
			rounds[w.name] = append(rounds[w.name], measure(b, w))
		}
		n++
	}
	var table strings.Builder
	for of, what := range loads {
		fmt.Fprintf(&table, "%-14s %8s %12s %12s %12s %10s\n", what, "seen", "own CPU ms", "load CPU ms", "cost us each", "took s")
		for _, w := range watchers {
			all, unwatched := rounds[w.name], rounds["nobody"]
			var own, loaded, cost, took []float64
			seen := all[0][of].seen
			for i, x := range all {
				seen = min(seen, x[of].seen) // what is missed once is missed
				own, loaded = append(own, x[of].own.Seconds()*1e3), append(loaded, x[of].load.Seconds()*1e3)
				cost = append(cost, x[of].cost(unwatched[i][of]).Seconds()*1e6/[]float64{starts, writes}[of])
				took = append(took, x[of].took.Seconds())
			}
			fmt.Fprintf(&table, "%-14s %8d %12.0f %12.0f %12.1f %10.1f\n", w.name, seen, middle(own), middle(loaded), middle(cost), middle(took))
			switch w.name {
			case "nobody":
			case "sekisho":
				b.ReportMetric(middle(cost), w.name+"-cpu-us/"+what)
			case "sekisho-told":
				b.ReportMetric(float64(seen), w.name+"-"+what)
			default:
				b.ReportMetric(float64(seen), w.name+"-"+what)
				b.ReportMetric(middle(cost), w.name+"-cpu-us/"+what)
			}
		}
	}
	b.Logf("%d round(s), medians; seen: the least of all rounds; load average %s\n%s", n, loadAverage(), table.String())
}

// measure runs both loads, starts first, with a watcher.
func measure(b *testing.B, w watcher) (x [2]sample) {
	dir := b.TempDir()
	pids, end := w.start(b, dir)
	used := cpuOf(b, pids)
	for i, role := range []string{"starts", dir} {
		x[i].took, x[i].load = load(b, role)
		time.Sleep(settle)
		now := cpuOf(b, pids)
		x[i].own, used = now-used, now
	}
	x[0].seen, x[1].seen = end()
	if err := os.RemoveAll(dir); err != nil {
		b.Fatal(err)
	}
	return x
}

// agentBeside is the agent with the folder for a protected place. It counts only
// if it tells every event. It sheds nothing, as the others do not.
func agentBeside(s *stack.Stack, tell bool) func(*testing.B, string) ([]int, func() (int, int)) {
	return func(b *testing.B, dir string) ([]int, func() (int, int)) {
		s.Write("agent.yaml", fmt.Sprintf("state_dir: %s/agent\nprotected:\n  - label: bench\n    paths: ['%s/**']\nlimits:\n  cpu: 400\n", s.Dir, dir))
		told := filepath.Join(s.Dir, "told.jsonl")
		args := []string{"run", "--config", s.Dir + "/agent.yaml"}
		if tell {
			args = append(args, "--tee", told)
		}
		c := exec.Command(s.Agent, args...)
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		watching := func() bool {
			_ = exec.Command(s.Agent, "status", "--config", s.Dir+"/agent.yaml").Run()
			st, process := processes(b, s)
			for _, x := range st.Sensors {
				if x.Name == "file" && x.State == endpoint.SensorOK && process.State == endpoint.SensorOK {
					return true
				}
			}
			return false
		}
		for deadline := time.Now().Add(30 * time.Second); exec.Command(s.Agent, "status", "--config", s.Dir+"/agent.yaml").Run() != nil || !watching(); {
			if time.Now().After(deadline) {
				b.Fatalf("the agent does not watch: %s", s.Run(s.Agent, "status", "--config", s.Dir+"/agent.yaml"))
			}
			time.Sleep(20 * time.Millisecond)
		}
		return []int{c.Process.Pid}, func() (int, int) {
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
			if !tell {
				return 0, 0
			}
			defer os.Remove(told)
			return countTold(b, told)
		}
	}
}

// countTold counts the starts and writes that the agent told, each once.
func countTold(b *testing.B, file string) (int, int) {
	started, written := map[string]bool{}, map[string]bool{}
	eachLine(b, file, func(line []byte) {
		e, err := event.Decode(line)
		if err != nil {
			b.Errorf("%v: %.200s", err, line)
			return
		}
		switch {
		case e.Action == event.ProcessStarted && len(e.Process.Args) == 2 && strings.HasPrefix(e.Process.Args[1], floodArg):
			started[e.Process.Args[1]] = true
		case e.File != nil && strings.HasPrefix(e.File.Name, writeName):
			written[e.File.Name] = true
		}
	})
	return len(started), len(written)
}

func eachLine(b *testing.B, file string, do func([]byte)) {
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		do(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		b.Fatal(err)
	}
}

// auditBeside is auditd with Debian's settings and rules for starts and for the
// folder; the kernel's thread that hands the records over counts as its own.
func auditBeside(b *testing.B) func(*testing.B, string) ([]int, func() (int, int)) {
	need(b, "auditd", "auditd")
	was, err := exec.Command("auditctl", "-s").CombinedOutput()
	if err != nil || !regexp.MustCompile(`(?m)^enabled [01]\b`).Match(was) {
		b.Skipf("auditd cannot run here: %v: %s", err, was)
	}
	if !regexp.MustCompile(`(?m)^pid 0$`).Match(was) {
		b.Skip("auditd runs here already: stop it for the comparison")
	}
	control := func(args ...string) {
		if out, err := exec.Command("auditctl", args...).CombinedOutput(); err != nil {
			b.Fatalf("auditctl %v: %v\n%s", args, err, out)
		}
	}
	reset := func() {
		for _, args := range [][]string{{"-D"}, {"-e", "0"}} {
			_ = exec.Command("auditctl", args...).Run()
		}
	}
	b.Cleanup(reset)
	return func(b *testing.B, dir string) ([]int, func() (int, int)) {
		conf := b.TempDir()
		log := filepath.Join(conf, "audit.log")
		text, err := os.ReadFile("/etc/audit/auditd.conf")
		if err != nil {
			b.Fatal(err)
		}
		// Debian's, but one file that is not rotated: what is written is to be counted.
		for key, value := range map[string]string{"log_file": log, "log_group": "root", "max_log_file_action": "ignore", "plugin_dir": conf} {
			text = regexp.MustCompile(`(?m)^`+key+`\s*=.*$`).ReplaceAll(text, []byte(key+" = "+value))
		}
		if err := os.WriteFile(filepath.Join(conf, "auditd.conf"), text, 0o640); err != nil {
			b.Fatal(err)
		}
		c := exec.Command("auditd", "-n", "-c", conf)
		if err := c.Start(); err != nil {
			b.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if out, _ := exec.Command("auditctl", "-s").Output(); strings.Contains(string(out), fmt.Sprintf("pid %d\n", c.Process.Pid)) {
				break
			}
			if time.Now().After(deadline) {
				b.Fatal("auditd does not come up")
			}
		}
		control("-D")
		control("-b", "8192", "--backlog_wait_time", "60000", "-f", "1") // Debian's audit.rules
		control("-a", "always,exit", "-F", "arch=b64", "-S", "execve", "-S", "execveat", "-k", "starts")
		control("-w", dir, "-p", "wa", "-k", "writes")
		pids := append([]int{c.Process.Pid}, kernelThread(b, "kauditd"))
		return pids, func() (int, int) {
			reset()
			_ = c.Process.Signal(syscall.SIGTERM)
			_ = c.Wait()
			started, written := map[string]bool{}, map[string]bool{}
			name := regexp.MustCompile(`name="[^"]*/(` + writeName + `\d+)"`)
			arg := regexp.MustCompile(` a1="(` + floodArg + `\d+)"`)
			eachLine(b, log, func(line []byte) {
				if m := arg.FindSubmatch(line); m != nil && bytes.HasPrefix(line, []byte("type=EXECVE")) {
					started[string(m[1])] = true
				}
				if m := name.FindSubmatch(line); m != nil && bytes.HasPrefix(line, []byte("type=PATH")) {
					written[string(m[1])] = true
				}
			})
			return len(started), len(written)
		}
	}
}

// inotifyBeside is inotifywait on the folder and all below, and on the program
// that is started: inotify knows of no processes, only that a file was opened.
func inotifyBeside(b *testing.B) func(*testing.B, string) ([]int, func() (int, int)) {
	need(b, "inotifywait", "inotify-tools")
	return func(b *testing.B, dir string) ([]int, func() (int, int)) {
		program, err := filepath.EvalSymlinks("/bin/true")
		if err != nil {
			b.Fatal(err)
		}
		out := b.TempDir()
		files, opens := filepath.Join(out, "files"), filepath.Join(out, "opens")
		start := func(to string, args ...string) *exec.Cmd {
			f, err := os.Create(to)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			c := exec.Command("inotifywait", append([]string{"-m"}, args...)...)
			c.Stdout = f
			said, err := c.StderrPipe()
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			lines := bufio.NewScanner(said)
			for lines.Scan() && !strings.Contains(lines.Text(), "established") {
			}
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return c
		}
		a := start(files, "-r", "-e", "close_write", "--format", "%f", dir)
		p := start(opens, "-e", "open", "--format", "%f", program)
		return []int{a.Process.Pid, p.Process.Pid}, func() (int, int) {
			for _, c := range []*exec.Cmd{a, p} {
				_ = c.Process.Signal(syscall.SIGTERM)
				_ = c.Wait()
			}
			started, written := 0, map[string]bool{}
			eachLine(b, opens, func([]byte) { started++ })
			eachLine(b, files, func(line []byte) { written[string(line)] = true })
			return min(started, starts), len(written)
		}
	}
}

func need(b *testing.B, program, pkg string) {
	if _, err := exec.LookPath(program); err != nil {
		b.Skipf("no %s here: apt-get install %s", program, pkg)
	}
}

// kernelThread is the process id of a thread of the kernel's.
func kernelThread(b *testing.B, name string) int {
	stats, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range stats {
		if text, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(text)) == name {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			if err != nil {
				b.Fatal(err)
			}
			return pid
		}
	}
	b.Fatalf("no thread %s", name)
	return 0
}
