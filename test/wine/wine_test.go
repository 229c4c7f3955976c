//go:build linux

// Package wine_test tries the Windows agent as a program: under Wine, against the Linux programs. make test-wine builds
// it, runs this, and runs every other Go test as a Windows program as well.
package wine_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/test/stack"
)

// agentEXE is the Windows agent; tests that need it skip where it was not asked for.
func agentEXE(t *testing.T) string {
	t.Helper()
	if os.Getenv("SEKISHO_WINE") == "" {
		t.Skip("needs Wine and the Windows agent; make test-wine runs it")
	}
	exe, err := filepath.Abs("../../bin/sekisho-agent.exe")
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// boot runs the lines of a command file in a fresh Windows with the agent at C:\agent.exe and the given files at C:\,
// by name and text, and returns what it printed.
func boot(t *testing.T, files map[string]string, script ...string) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-t", "900", "-c", agentEXE(t) + "=agent.exe"}
	put := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-c", path+"="+name)
	}
	for name, text := range files {
		put(name, text)
	}
	put("t.cmd", "@echo off\r\n"+strings.Join(script, "\r\n")+"\r\n")
	var errs bytes.Buffer
	cmd := exec.Command("./run", append(args, "cmd", "/c", `C:\t.cmd`)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Logf("cmd ended with %v\n%s", err, errs.Bytes()) // the status is that of the last line; tests look at the output
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

const agentYAML = "state_dir: C:\\sekisho\r\n"

// wait is what in a command file waits for a condition, commands and an "if" without what follows it; in vain until the
// boot's time is over. The name is for its labels.
func wait(name string, condition ...string) []string {
	lines := append([]string{":" + name}, condition...)
	lines[len(lines)-1] += " goto " + name + "-now"
	return append(lines, "ping -n 2 127.0.0.1 >NUL", "goto "+name, ":"+name+"-now")
}

func TestTheWindowsAgentJudgesRecordedEventsAsTheLinuxOne(t *testing.T) {
	var events strings.Builder
	at := time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)
	line := func(format string, args ...any) {
		at = at.Add(time.Second)
		fmt.Fprintf(&events, `{"@timestamp":%q,"host.name":"pc1","user.name":"田中",%s}`+"\n", at.Format(time.RFC3339), fmt.Sprintf(format, args...))
	}
	line(`"event.action":"process-started","process.executable":"C:\\Users\\t\\Downloads\\AnyDesk.exe","process.pid":7`)
	for n := range 80 {
		line(`"event.action":"file-copied","file.path":"E:\\名簿%d.xlsx","file.size":20000,"sekisho.file.volume_kind":"removable","sekisho.source.path":"C:\\名簿%d.xlsx","sekisho.source.volume_kind":"local"`, n, n)
	}
	agent := filepath.Join(t.TempDir(), "sekisho-agent")
	exe := agentEXE(t)
	if out, err := exec.Command("go", "build", "-o", agent, "sekisho/cmd/agent").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	replay := func(name string, args ...string) string {
		var errs bytes.Buffer
		cmd := exec.Command(name, append(args, "replay", "-")...)
		cmd.Stdin, cmd.Stderr = strings.NewReader(events.String()), &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, errs.Bytes())
		}
		return string(out)
	}
	linux, windows := replay(agent), replay("./run", exe)
	for _, rule := range []string{"SCAM-1", "USB-3"} {
		if !strings.Contains(linux, `"`+rule+`"`) {
			t.Errorf("no alert of %s", rule)
		}
	}
	if linux != windows {
		t.Errorf("Linux says\n%s\nWindows says\n%s", linux, windows)
	}
}

func TestTheWindowsServiceInstallsStartsAnswersAndStops(t *testing.T) {
	p := switchOn(t, map[string]string{agentEXE(t): "agent.exe", settingsFile(t): "agent.yaml"})
	source := func() bool { _, code := p.try(`run reg query "%s" >NUL 2>NUL`, eventSource); return code == 0 }
	timed := func(command string) {
		began := time.Now()
		p.do(`run C:\agent.exe %s`, command)
		t.Logf("%s: %.1f s", command, time.Since(began).Seconds())
	}
	timed(`service install --config C:\agent.yaml`)
	if !source() {
		t.Error("no source of events")
	}
	timed(`service start`)
	timed(`service status`)
	first, _ := p.until(`C:\agent.exe`, "--config", `C:\agent.yaml`)
	timed(`selftest --config C:\agent.yaml`)
	timed(`service restart`)
	second, _ := p.until(`C:\agent.exe`, "--config", `C:\agent.yaml`)
	if !second.Started.After(first.Started) {
		t.Errorf("started %v, after the restart %v", first.Started, second.Started)
	}
	checks := p.doctor()
	for code, want := range map[string]string{"DOC-05": "ok", "DOC-13": "ok", "DOC-15": "ok", "DOC-16": "ok", "DOC-17": "warning", "DOC-19": "warning", "DOC-20": "ok", "DOC-21": "warning"} {
		if got := checks[code]; got != want {
			t.Errorf("doctor: %s is %q, want %q", code, got, want)
		}
	}
	timed(`service stop`)
	if out := p.do(`run sc query sekisho-agent`); !strings.Contains(out, "1  STOPPED") {
		t.Errorf("after the stop:\n%s", out)
	}
	if _, code := p.try(`run C:\agent.exe service status`); code != 1 {
		t.Errorf("status of a stopped service: exit %d", code)
	}
	timed(`service start`)
	timed(`service uninstall`) // of one that runs
	if out, code := p.try(`run sc query sekisho-agent`); code == 0 || source() {
		t.Errorf("after uninstall there is a source of events (%v), or a service:\n%s", source(), out)
	}
	log := p.do(`run type C:\sekisho\log\agent.log`)
	if n, m := strings.Count(log, `"agent started"`), strings.Count(log, `"agent stopped"`); n != 3 || m != 3 {
		t.Errorf("started %d times, stopped in order %d times; want 3\n%s", n, m, log)
	}
}

// What a user could have put there is not taken, and nothing is installed on it.
func TestTheWindowsAgentRefusesWhatUsersMayChange(t *testing.T) {
	p := switchOn(t, map[string]string{agentEXE(t): "agent.exe", settingsFile(t): "agent.yaml", installer(t, "1.0.0"): "agent.msi"})
	refused := func(command string, want ...string) {
		t.Helper()
		out, code := p.try("run %s", command)
		if code == 0 {
			t.Errorf("%s: exit 0", command)
		}
		for _, x := range want {
			if !strings.Contains(out, x) {
				t.Errorf("%s: no %q in\n%s", command, x, out)
			}
		}
	}
	p.do(`open C:\agent.yaml`)
	for _, command := range []string{"run", "service install", "enroll sks1_x"} {
		refused(`C:\agent.exe `+command+` --config C:\agent.yaml`, `C:\agent.yaml can be changed by`, `takeown /F "C:\agent.yaml" /A && icacls "C:\agent.yaml" /reset && icacls `)
	}
	refused(`set SEKISHO_LANG=ja&& C:\agent.exe run --config C:\agent.yaml`, `C:\agent.yaml は`, `変えられます`, `icacls "C:\agent.yaml"`)

	p.do(`run mkdir ` + dataDir)
	p.do(`run copy C:\agent.yaml ` + dataDir + `\agent.yaml >NUL`)
	p.do(`open ` + dataDir)
	refused(`msiexec /qn /l*v C:\msi.log /i C:\agent.msi`)
	log := strings.ReplaceAll(p.do(`run type C:\msi.log`), "\x00", "")
	for _, want := range []string{dataDir + ` can be changed by`, "The installation is undone."} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the installer's log:\n%s", want, log)
		}
	}
	if out, code := p.try(`run sc query sekisho-agent`); code == 0 {
		t.Errorf("a service is there:\n%s", out)
	}
	if out := p.do(`run dir ` + dataDir); !strings.Contains(out, "agent.yaml") {
		t.Errorf("what a user had put there was deleted:\n%s", out)
	}
}

// An office PC on which nothing happens. What Wine costs is in these figures: its
// libraries, and processes that are listed by asking its server for each.
func TestTheIdleWindowsAgentIsSmall(t *testing.T) {
	const within = 60 * time.Second
	p := switchOn(t, map[string]string{agentEXE(t): "agent.exe", settingsFile(t): "agent.yaml"})
	if st, err := os.Stat(agentEXE(t)); err == nil {
		t.Logf("sekisho-agent.exe: %.1f MB", float64(st.Size())/1e6)
	}
	p.do(`start C:\agent.exe run --config C:\agent.yaml`)
	p.until(`C:\agent.exe`, "--config", `C:\agent.yaml`)
	p.do(`sleep 10`) // what starting costs does not count
	before, _ := p.status(`C:\agent.exe`, "--config", `C:\agent.yaml`)
	p.do(`sleep %d`, int(within.Seconds()))
	after, ok := p.status(`C:\agent.exe`, "--config", `C:\agent.yaml`)
	if !ok {
		t.Fatal("no status")
	}
	percent := 100 * (after.CPUSeconds - before.CPUSeconds) / after.Time.Sub(before.Time).Seconds()
	t.Logf("idle: %.2f %% of a core, %.1f MB resident", percent, float64(after.MemoryBytes)/1e6)
	// Bounds that only a mistake passes: how much of a core it is depends on the machine.
	if percent > 30 || after.MemoryBytes > 150e6 {
		t.Error("that is not idle")
	}
}

// settingsFile is a file with settings for a Windows.
func settingsFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte(agentYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheWindowsAgentReachesTheConsole(t *testing.T) {
	agentEXE(t)
	s := stack.Start(t)
	before := len(s.Alerts())
	token := s.Run(s.Console, "enroll-token", "create", "--config", s.Dir+"/console.yaml", "--uses", "1", "--department", "test")
	script := []string{`C:\agent.exe enroll --config C:\agent.yaml --token-file C:\token`, `echo enroll %ERRORLEVEL%`,
		`start /b C:\agent.exe run --config C:\agent.yaml >NUL 2>&1`}
	script = append(script, wait("up", `C:\agent.exe status --config C:\agent.yaml >NUL 2>&1`, `if not errorlevel 1`)...)
	script = append(script, `C:\agent.exe selftest --config C:\agent.yaml --through console --within 180s`, `echo selftest %ERRORLEVEL%`)
	out := boot(t, map[string]string{"agent.yaml": agentYAML, "token": token}, script...)
	for _, want := range []string{"enroll 0\n", "selftest 0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if after := len(s.Alerts()); after <= before {
		t.Errorf("the console has %d alerts, had %d before", after, before)
	}
}
