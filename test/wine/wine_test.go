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
	args := []string{"-t", "180", "-c", agentEXE(t) + "=agent.exe"}
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

// wait is a pause in a command file, of about so many seconds.
func wait(seconds int) string { return fmt.Sprintf("ping -n %d 127.0.0.1 >NUL", seconds+1) }

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
	out := boot(t, map[string]string{"agent.yaml": agentYAML},
		`C:\agent.exe service install --config C:\agent.yaml`, `echo install %ERRORLEVEL%`,
		`C:\agent.exe service start`, `echo start %ERRORLEVEL%`, wait(4),
		`C:\agent.exe selftest --config C:\agent.yaml`, `echo selftest %ERRORLEVEL%`,
		`C:\agent.exe service stop`, `echo stop %ERRORLEVEL%`,
		`sc query sekisho-agent`,
		`C:\agent.exe service uninstall`, `echo uninstall %ERRORLEVEL%`,
	)
	for _, want := range []string{"install 0\n", "start 0\n", "selftest 0\n", "stop 0\n", "1  STOPPED", "uninstall 0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestTheWindowsAgentReachesTheConsole(t *testing.T) {
	agentEXE(t)
	s := stack.Start(t)
	before := len(s.Alerts())
	token := s.Run(s.Console, "enroll-token", "create", "--config", s.Dir+"/console.yaml", "--uses", "1", "--department", "test")
	out := boot(t, map[string]string{"agent.yaml": agentYAML, "token": token},
		`C:\agent.exe enroll --config C:\agent.yaml --token-file C:\token`, `echo enroll %ERRORLEVEL%`,
		`start /b C:\agent.exe run --config C:\agent.yaml >NUL 2>&1`, wait(4),
		`C:\agent.exe selftest --config C:\agent.yaml --through console --within 60s`, `echo selftest %ERRORLEVEL%`,
	)
	for _, want := range []string{"enroll 0\n", "selftest 0\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if after := len(s.Alerts()); after <= before {
		t.Errorf("the console has %d alerts, had %d before", after, before)
	}
}
