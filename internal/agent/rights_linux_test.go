package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/confine"
	"sekisho/internal/endpoint"
)

func init() { roles["real"] = playReal }

// playReal is an agent with this PC's sensors in a process of its own. It keeps
// the capabilities that SEKISHO_TEST_KEEP names ("all": does not confine itself)
// and tees to the file tee.
func playReal(dir string) int {
	f, err := os.OpenFile(filepath.Join(dir, "tee"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	o := Options{ConfigFile: filepath.Join(dir, "agent.yaml"), Version: "test", Tee: f}
	if keep := os.Getenv("SEKISHO_TEST_KEEP"); keep == "" {
		o.Confine = confine.Drop
	} else if keep != "all" {
		o.Confine = func(...string) error { return confine.Drop(strings.Split(keep, ",")...) }
	}
	a, err := New(o)
	if err != nil {
		fmt.Println("new:", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // until standard input is closed
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	if err := a.Run(ctx); err != nil {
		fmt.Println("run:", err)
		return 1
	}
	return 0
}

// realAgent is such a process.
type realAgent struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	in  io.Closer
	ctl *Control
}

// startReal starts one on dir, which may have been another's before. as is the
// account that it runs as, 0 for ours.
func startReal(t *testing.T, dir, settings, keep string, as uint32) *realAgent {
	t.Helper()
	write(t, filepath.Join(dir, "agent.yaml"), "state_dir: "+filepath.Join(dir, "state")+"\n"+settings)
	r := &realAgent{t: t, dir: dir, cmd: exec.Command("/proc/self/exe"), ctl: Dial(filepath.Join(dir, "state"))}
	r.cmd.Env = append(os.Environ(), "SEKISHO_TEST_ROLE=real", "SEKISHO_TEST_DIR="+dir, "SEKISHO_TEST_KEEP="+keep)
	if as != 0 {
		// Where it can start itself as a canary.
		r.cmd.Path = filepath.Join(dir, "agent.test")
		if out, err := exec.Command("cp", os.Args[0], r.cmd.Path).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as, Gid: as}}
		if err := filepath.Walk(dir, func(p string, _ os.FileInfo, _ error) error { return os.Chown(p, int(as), int(as)) }); err != nil {
			t.Fatal(err)
		}
	}
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			fmt.Fprintln(os.Stderr, "agent:", s.Text())
		}
	}()
	t.Cleanup(func() { r.stop() })
	r.until("the sensors work", func() bool {
		st, err := r.ctl.Status(t.Context())
		return err == nil && !slices.ContainsFunc(st.Sensors, func(s endpoint.Sensor) bool {
			return s.State == endpoint.SensorDown && s.Mechanism == ""
		}) && (keep == "all" || as != 0 || st.Rights.Dropped)
	})
	return r
}

func (r *realAgent) stop() error {
	r.in.Close()
	return r.cmd.Wait()
}

// confined checks that every thread has these capabilities only and the filter.
func (r *realAgent) confined(keep ...string) {
	r.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", r.cmd.Process.Pid))
	if err != nil || len(threads) < 4 {
		r.t.Fatalf("%d threads, %v", len(threads), err)
	}
	mask := ""
	for _, f := range threads {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		got := map[string]string{}
		for line := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(line, ":")
			got[name] = strings.TrimSpace(value)
		}
		if mask == "" {
			mask = got["CapEff"]
		}
		if got["CapEff"] != mask || got["CapPrm"] != mask || got["CapInh"] != "0000000000000000" || got["CapAmb"] != "0000000000000000" ||
			got["NoNewPrivs"] != "1" || got["Seccomp"] != "2" || r.root() && got["CapBnd"] != mask {
			r.t.Errorf("%s: effective %s, permitted %s, bounding %s, no new privileges %s, seccomp %s", f, got["CapEff"], got["CapPrm"], got["CapBnd"], got["NoNewPrivs"], got["Seccomp"])
		}
	}
	if got := r.status().Rights.Capabilities; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(keep))) {
		r.t.Errorf("it kept %q, want %q", got, keep)
	}
}

func (r *realAgent) root() bool { return r.cmd.SysProcAttr == nil }

func (r *realAgent) status() endpoint.Status {
	r.t.Helper()
	st, err := r.ctl.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *realAgent) sensor(name string) endpoint.Sensor {
	r.t.Helper()
	for _, s := range r.status().Sensors {
		if s.Name == name {
			return s
		}
	}
	r.t.Fatalf("no sensor %s", name)
	return endpoint.Sensor{}
}

func (r *realAgent) until(what string, ok func() bool) {
	r.t.Helper()
	if !r.within(patience, ok) {
		r.t.Fatalf("waited in vain until %s", what)
	}
}

func (r *realAgent) within(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// told reports whether an event was told whose line holds all the texts.
func (r *realAgent) told(texts ...string) bool {
	b, _ := os.ReadFile(filepath.Join(r.dir, "tee"))
lines:
	for line := range strings.Lines(string(b)) {
		for _, x := range texts {
			if !strings.Contains(line, x) {
				continue lines
			}
		}
		return true
	}
	return false
}

// asNobody runs a shell script as another user.
func asNobody(t *testing.T, script string, args ...string) {
	t.Helper()
	c := exec.Command("/bin/sh", append([]string{"-ec", script, "sh"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: without it there are no rights to give up")
	}
}

// What has to be seen with what the agent keeps, by name; each is done by another
// user in folders that only they may enter.
var afterwards = []struct {
	name string
	do   func(t *testing.T, r *realAgent, dir string) (texts []string)
}{
	{"a process that ends at once, with its arguments", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `/bin/true short-lived`)
		return []string{"process-started", "short-lived", `"executable":"/usr/bin/true"`}
	}},
	{"a process whose arguments are longer than the kernel tells", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `exec /bin/sh -c 'sleep 3' "$1" last-argument`, strings.Repeat("x", 5000))
		return []string{"process-started", "last-argument"}
	}},
	{"a file in a protected folder", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `umask 077; echo x > "$1/protected/written"`, dir)
		return []string{"file-written", "protected/written", "nobody"}
	}},
	{"a file in a new folder of it", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `umask 077; mkdir "$1/protected/fresh"; sleep 3; echo x > "$1/protected/fresh/written"`, dir)
		return []string{"file-written", "fresh/written"}
	}},
	{"a copy of a protected file to a medium, with its source", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `umask 077; head -c 9000 /dev/urandom > "$1/protected/secret"`, dir)
		r.until("the file is told", func() bool { return r.told("file-written", "protected/secret") })
		asNobody(t, `umask 077; cp "$1/protected/secret" "$1/stick/copied"`, dir)
		return []string{"file-copied", "stick/copied", "protected/secret"}
	}},
	{"a rename on a medium", func(t *testing.T, r *realAgent, dir string) []string {
		asNobody(t, `umask 077; echo x > "$1/stick/before"`, dir)
		r.until("the file is told", func() bool { return r.told("file-copied", "stick/before") })
		asNobody(t, `mv "$1/stick/before" "$1/stick/after"`, dir)
		return []string{"file-renamed", "stick/after"}
	}},
	{"a medium that is mounted later", func(t *testing.T, r *realAgent, dir string) []string {
		mounted(t, filepath.Join(dir, "late"))
		r.until("the mount is watched", func() bool { return slices.Contains(r.sensor("file").Watching, filepath.Join(dir, "late")) })
		asNobody(t, `umask 077; echo x > "$1/late/written"`, dir)
		return []string{"file-copied", "late/written", "nobody"}
	}},
	{"a medium in a mount namespace of its own", func(t *testing.T, r *realAgent, dir string) []string {
		c := exec.Command("unshare", "-m", "--propagation", "private", "/bin/sh", "-ec",
			`mount -t tmpfs test "$1/other"; echo mounted; read -r go; echo x > "$1/other/written"; sleep 5`, "sh", dir)
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Skipf("unshare: %v", err)
		}
		defer c.Wait()
		defer in.Close()
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "mounted\n" {
			t.Skipf("no namespace can be made here: %q, %v", line, err)
		}
		r.within(patience, func() bool { return slices.Contains(r.sensor("file").Watching, filepath.Join(dir, "other")) })
		io.WriteString(in, "go\n")
		return []string{"file-copied", "other/written"}
	}},
	{"a place that is protected later", func(t *testing.T, r *realAgent, dir string) []string {
		write(t, filepath.Join(r.dir, "agent.yaml"), "state_dir: "+filepath.Join(r.dir, "state")+"\n"+settingsAfterwards(dir, "protected", "later"))
		if _, err := r.ctl.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.until("the place is watched", func() bool { return slices.Contains(r.sensor("file").Watching, filepath.Join(dir, "later")) })
		asNobody(t, `umask 077; echo x > "$1/later/written"`, dir)
		return []string{"file-written", "later/written"}
	}},
}

func settingsAfterwards(dir string, protected ...string) string {
	s := "sensors: {canary: 10s, volume: {removable_paths: [" + dir + "/stick, " + dir + "/late, " + dir + "/other]}}\nprotected:\n"
	for _, p := range protected {
		s += "  - {label: " + p + ", paths: [" + dir + "/" + p + "]}\n"
	}
	return s
}

// mounted mounts a tmpfs that every user may write to.
func mounted(t *testing.T, at string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("test", at, "tmpfs", 0, "size=256m,mode=0777"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
}

// playground is the folders of afterwards.
func playground(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"protected", "later", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o777); err != nil {
			t.Fatal(err)
		}
		os.Chown(filepath.Join(dir, d), 65534, 65534)
		os.Chmod(filepath.Join(dir, d), 0o700)
	}
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o711)
	}
	mounted(t, filepath.Join(dir, "stick"))
	return dir
}

func TestWithFewRightsTheSensorsSeeWhatTheySawWithAll(t *testing.T) {
	needRoot(t)
	dir := playground(t)
	r := startReal(t, shortDir(t), settingsAfterwards(dir, "protected"), os.Getenv("SEKISHO_TEST_KEEP"), 0)
	t.Logf("rights %+v", r.status().Rights)
	if os.Getenv("SEKISHO_TEST_KEEP") == "" {
		r.confined(keeps...)
	}
	for _, s := range r.status().Sensors {
		t.Logf("%s: %s by %s %s", s.Name, s.State, s.Mechanism, s.Reason)
	}
	for _, tt := range afterwards {
		t.Run(tt.name, func(t *testing.T) {
			texts := tt.do(t, r, dir)
			if !r.within(patience, func() bool { return r.told(texts...) }) {
				t.Errorf("not told: %q", texts)
			}
		})
	}
	for _, name := range []string{"process", "file", "usb", "volume"} {
		r.until("the "+name+" sensor sees its canary", func() bool { c := r.sensor(name).Canary; return c != nil && !c.Seen.IsZero() })
		if s := r.sensor(name); s.State.Trouble() {
			t.Errorf("%s: %s by %s: %s", name, s.State, s.Mechanism, s.Reason)
		}
	}
}

func TestWithoutRootTheAgentWorksAndSaysWhatItCannotSee(t *testing.T) {
	needRoot(t)
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A protected folder of its own, which it may watch by inotify.
	if err := os.Mkdir(filepath.Join(dir, "own"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := startReal(t, dir, "sensors: {canary: 10s}\nprotected: [{label: own, paths: ["+dir+"/own]}]\n", "", 65534)
	r.until("rights are given up", func() bool { return r.status().Rights.Dropped })
	r.confined()
	st := r.status()
	for name, want := range map[string]struct {
		state  endpoint.SensorState
		reason string // holds, if not ok
	}{
		"process": {endpoint.SensorDegraded, "operation not permitted"},
		"file":    {endpoint.SensorDegraded, "operation not permitted"},
		"volume":  {endpoint.SensorOK, ""},
		"usb":     {endpoint.SensorOK, ""},
	} {
		if s := r.sensor(name); s.State != want.state || !strings.Contains(s.Reason, want.reason) {
			t.Errorf("%s is %s by %s: %s", name, s.State, s.Mechanism, s.Reason)
		}
	}
	if !strings.Contains(st.Rights.Problem, "sys_admin") || st.Rights.User != "nobody" {
		t.Errorf("rights %+v", st.Rights)
	}
	c := exec.Command("/bin/sh", "-c", `sleep 5 & echo x > "$1/own/written"; wait`, "sh", dir)
	c.SysProcAttr = r.cmd.SysProcAttr
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.until("a process that lives for a while is told", func() bool { return r.told("process-started", "sleep") })
	r.until("a file in the protected folder is told", func() bool { return r.told("file-written", "own/written") })
	for _, name := range []string{"process", "file", "usb", "volume"} {
		r.until("the "+name+" sensor sees its canary", func() bool { c := r.sensor(name).Canary; return c != nil && !c.Seen.IsZero() })
	}
	checks := Doctor(t.Context(), filepath.Join(dir, "agent.yaml"))
	for code, want := range map[string]CheckResult{"DOC-05": CheckOK, "DOC-06": CheckWarning, "DOC-12": CheckWarning} {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.Code == code && c.Result == want }) {
			t.Errorf("doctor does not say %s of %s", want, code)
		}
	}
}
