//go:build linux

package wine_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/enroll"
	"sekisho/test/stack"
)

// installer builds the agent's MSI of a version; tests are skipped where its tools are not there.
func installer(t *testing.T, version string) string {
	t.Helper()
	agentEXE(t)
	for _, tool := range []string{"wixl", "msibuild", "x86_64-w64-mingw32-gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s to build the installer: tools/setup msi", tool)
		}
	}
	file := filepath.Join(t.TempDir(), version+".msi")
	if out, err := exec.Command("../../packaging/windows/build", "-v", version, "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("build the installer: %v\n%s", err, out)
	}
	return file
}

// otherSecret is a token of the same console that it did not make.
func otherSecret(t *testing.T, token string) string {
	t.Helper()
	k, err := enroll.ParseToken(strings.TrimSpace(token))
	if err != nil {
		t.Fatal(err)
	}
	other, err := enroll.NewToken(k.Addresses, k.Pin, "", 1, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return other.String()
}

const (
	programDir = `"C:\Program Files\Sekisho"`
	dataDir    = `C:\ProgramData\Sekisho`
	// What the service's events are known by; "EventMessageFile" is one of its values.
	eventSource = `HKLM\SYSTEM\CurrentControlSet\Services\EventLog\Application\Sekisho Agent`
)

// The life of an installation, in one boot: the steps print their exit code, then what there is.
func TestTheInstallerFromTheFirstInstallationToTheRemoval(t *testing.T) {
	one, two := installer(t, "1.0.0"), installer(t, "1.1.0")
	s := stack.Start(t)
	good := strings.TrimSpace(s.Run(s.Console, "enroll-token", "create", "--config", s.Dir+"/console.yaml", "--uses", "1", "--department", "test"))
	away, err := enroll.NewToken([]string{"127.0.0.1:1"}, [32]byte{1}, "", 1, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}

	var script []string
	// msi runs msiexec; it is followed by what is there then, between its name's lines.
	msi := func(name, args string) {
		script = append(script, "echo == "+name, `msiexec /qn /l*v C:\msi.log `+args, "echo exit %ERRORLEVEL%", "echo -- "+name,
			`reg query "`+eventSource+`" 2>NUL`, "if exist "+programDir+" dir /s /b "+programDir, "if exist "+dataDir+" dir /s /b "+dataDir, "sc query sekisho-agent 2>NUL",
			"if exist "+dataDir+`\agent.yaml type `+dataDir+`\agent.yaml`,
			"if exist "+dataDir+`\enroll.token type `+dataDir+`\enroll.token`,
			"if exist "+dataDir+`\identity\identity.json type `+dataDir+`\identity\identity.json`,
			`type C:\msi.log`)
	}
	msi("no token at all", `/i C:\one.msi ENROLL_TOKEN=hello`)
	msi("cut off", `/i C:\one.msi ENROLL_TOKEN=`+good[:20])
	msi("unknown", `/i C:\one.msi ENROLL_TOKEN=`+otherSecret(t, good))
	script = append(script, `copy C:\away C:\enroll.token >NUL`)
	msi("console away", `/i C:\one.msi`)
	// The service takes a token that is there, also in group policy's place, and deletes the file that has served.
	script = append(script, `del `+dataDir+`\enroll.token C:\enroll.token`, `for /f %%t in (C:\good) do reg add HKLM\SOFTWARE\Policies\Sekisho\Agent /v EnrollToken /d %%t /f >NUL`)
	script = append(script, wait("enrolled", `if exist `+dataDir+`\identity\identity.json`)...)
	script = append(script, `echo # edited>>`+dataDir+`\agent.yaml`)
	// Wine does not tell the old version that it is being upgraded (UPGRADINGPRODUCTCODE), so policy has to keep the data.
	script = append(script, `reg add HKLM\SOFTWARE\Policies\Sekisho\Agent /v KeepData /t REG_DWORD /d 1 /f >NUL`)
	msi("upgrade", `/i C:\two.msi ENROLL_TOKEN=`+good)
	script = append(script, `reg delete HKLM\SOFTWARE\Policies\Sekisho /f >NUL`)
	msi("downgrade", `/i C:\one.msi`)
	script = append(script, `del "C:\Program Files\Sekisho\LICENSE.txt"`)
	msi("repair", `/i C:\two.msi REINSTALL=ALL`) // what /fa means, which Wine lacks
	msi("removal that keeps the data", `/x C:\two.msi KEEP_DATA=1`)
	msi("again", `/i C:\two.msi`)
	msi("removal", `/x C:\two.msi`)
	script = append(script, "echo == end")

	got := steps(t, map[string]string{one: "one.msi", two: "two.msi"}, map[string]string{"away": away.String(), "good": good}, script)
	const exe, license, settings, id, running = `sekisho-agent.exe`, `LICENSE.txt`, `Sekisho\agent.yaml`, `"agent_id"`, "RUNNING"
	const source = "    EventMessageFile    REG_SZ    " // as reg tells it
	// As dir tells them; the logs hold the paths as well.
	const atExe, atLicense, atSettings = "\nC:\\Program Files\\Sekisho\\" + exe + "\n", "\nC:\\Program Files\\Sekisho\\" + license + "\n", "\n" + dataDir + `\agent.yaml` + "\n"
	for _, want := range []struct {
		step        string
		exit        string
		there, gone []string
	}{
		{"no token at all", "1603", nil, []string{`Files\Sekisho\`, dataDir + `\`, "SERVICE_NAME"}},
		{"cut off", "1603", []string{"ENR-01: the enrolment token cannot be read", "The installation is undone."}, []string{atExe, atSettings, "SERVICE_NAME", source}},
		{"unknown", "1603", []string{"ENR-02: the console does not know"}, []string{atExe, atSettings, "SERVICE_NAME", source}},
		{"console away", "0", []string{exe, license, settings, running, source, `C:\windows\system32\EventCreate.exe`, dataDir + `\enroll.token`, "enroll.token beside the MSI is used", "ENR-12", "the service enrols as soon", "\ndpapi:"}, []string{id, "\n" + away.String()}},
		{"upgrade", "0", []string{exe, license, settings, running, source, id, "# edited", "is enrolled already"}, []string{dataDir + `\enroll.token` + "\n"}},
		{"downgrade", "1603", []string{exe, license, running, id}, nil},
		{"repair", "0", []string{atExe, atLicense, running, source, id}, nil},
		{"removal that keeps the data", "0", []string{atSettings, id}, []string{atExe, atLicense, "SERVICE_NAME", source}},
		{"again", "0", []string{exe, license, running, id, "is there already and stays as it is"}, nil},
		{"removal", "0", []string{"no event tracing session is left", "the data folder was deleted"}, []string{atExe, atSettings, dataDir + "\n", "SERVICE_NAME", source, id}},
	} {
		text := got[want.step]
		if !strings.HasPrefix(text, "exit "+want.exit+"\n") {
			t.Errorf("%s: want exit %s", want.step, want.exit)
		}
		for _, x := range want.there {
			if !strings.Contains(text, x) {
				t.Errorf("%s: no %q", want.step, x)
			}
		}
		for _, x := range want.gone {
			if strings.Contains(text, x) {
				t.Errorf("%s: there is %q", want.step, x)
			}
		}
		if t.Failed() {
			t.Logf("== %s\n%s", want.step, text)
		}
	}
	if a, b := agentID(got["upgrade"]), agentID(got["again"]); a == "" || a != b {
		t.Errorf("the identity was %q and is %q", a, b)
	}
}

// agentID is the line of the identity that holds it.
func agentID(text string) string {
	_, rest, ok := strings.Cut(text, `"agent_id":`)
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, ",")
	return id
}

// steps boots a fresh Windows with files at C:\ (path here to name, and name to text) and a command file, and returns
// what each step printed after its line "== name"; it logs how long each took.
func steps(t *testing.T, files, texts map[string]string, script []string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-t", "900"}
	texts["t.cmd"] = "@echo off\r\n" + strings.Join(script, "\r\n") + "\r\n"
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-c", path+"="+name)
	}
	for path, name := range files {
		args = append(args, "-c", path+"="+name)
	}
	cmd := exec.Command("./run", append(args, "cmd", "/c", `C:\t.cmd`)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	got, name, began := map[string]string{}, "", time.Now()
	in := bufio.NewScanner(out)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		line := strings.ReplaceAll(string(bytes.TrimRight(in.Bytes(), "\r")), "\x00", "") // logs are UTF-16
		line = strings.TrimRight(strings.TrimPrefix(line, "\xff\xfe"), "\r")
		if rest, ok := strings.CutPrefix(line, "== "); ok {
			name, began = rest, time.Now()
			continue
		}
		if line == "-- "+name {
			t.Logf("%s: %.1f s", name, time.Since(began).Seconds())
			continue
		}
		got[name] += fmt.Sprintln(line)
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Logf("cmd ended with %v", err) // the status is that of the last line
	}
	return got
}
