//go:build linux

// Package windows_test looks into the agent's installer for Windows; test/wine runs it.
package windows_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/agent"
	"sekisho/internal/winacl"
)

// build makes an installer around a few bytes in place of the agent.
func build(t *testing.T, env ...string) string {
	t.Helper()
	for _, tool := range []string{"wixl", "msibuild", "msiinfo", "x86_64-w64-mingw32-gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: tools/setup msi", tool)
		}
	}
	dir := t.TempDir()
	exe, msi := filepath.Join(dir, "agent.exe"), filepath.Join(dir, "agent.msi")
	if err := os.WriteFile(exe, []byte("the agent"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("./build", "-v", "v1.2.3-4-g41ab", "-e", exe, "-o", msi)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return msi
}

// table is a table of the installer: its rows, columns parted by |.
func table(t *testing.T, msi, name string) string {
	t.Helper()
	cmd := exec.Command("msiinfo", "export", msi, name)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	lines := strings.SplitAfterN(strings.NewReplacer("\r", "", "\t", "|").Replace(string(out)), "\n", 4)
	return "\n" + lines[len(lines)-1]
}

func TestTheTablesSayWhatWindowsShallDo(t *testing.T) {
	msi := build(t)
	for _, c := range []struct{ table, row, why string }{
		{"Property", "ProductVersion|1.2.3", "Windows compares three numbers"},
		{"Property", "UpgradeCode|{6F0B9C1E-5B0D-4B7C-9A53-0E6C1C2D7A41}", "older versions are found by it, for ever"},
		{"Property", "ALLUSERS|1", "for the whole PC"},
		{"Property", "MsiHiddenProperties|ENROLL_TOKEN;Setup", "no token in logs"},
		{"Property", "SecureCustomProperties|WIX_DOWNGRADE_DETECTED;WIX_UPGRADE_DETECTED;ENROLL_TOKEN;KEEP_DATA", "handed to the part that runs as the system"},
		{"Property", "REINSTALLMODE|amus", "files are replaced whatever their version says"},
		{"Upgrade", "{6F0B9C1E-5B0D-4B7C-9A53-0E6C1C2D7A41}||1.2.3||513||WIX_UPGRADE_DETECTED", "older and same versions are replaced"},
		{"Upgrade", "{6F0B9C1E-5B0D-4B7C-9A53-0E6C1C2D7A41}|1.2.3|||2||WIX_DOWNGRADE_DETECTED", "newer ones are only noticed"},
		{"LaunchCondition", "NOT WIX_DOWNGRADE_DETECTED|これより新しい Sekisho Agent が入っているので", "then it is refused"},
		{"LaunchCondition", "Privileged|Sekisho Agent のインストールには管理者の権限が必要です。 / Installing", "without rights it is refused"},
		{"LaunchCondition", `NOT ENROLL_TOKEN OR ENROLL_TOKEN << "sks1_"|`, "something else than a token is refused before anything is changed"},
		{"InstallExecuteSequence", "RemoveExistingProducts||1501", "after InstallInitialize, 1500: a failure brings the older version back"},
		{"InstallExecuteSequence", "MsiConfigureServices|VersionMsi >= \"5.00\"|5850", "after InstallServices, 5800"},
		{"InstallExecuteSequence", "UndoSetup|DATA_IS_NEW|5855", "before Setup, and never where there was data before"},
		{"InstallExecuteSequence", "Setup|NOT REMOVE|5860", "before StartServices, 5900"},
		{"InstallExecuteSequence", "RemoveData|REMOVE = \"ALL\" AND NOT UPGRADINGPRODUCTCODE AND NOT KEEP_DATA|6500", "an upgrade keeps the data, and so does who asks for it"},
		{"InstallExecuteSequence", "WaitStopped|Installed|2010", "after StopServices, 1900, before RemoveFiles, 3500"},
		{"InstallExecuteSequence", "EndTracing|REMOVE = \"ALL\" AND NOT UPGRADINGPRODUCTCODE|2020", "nothing stays in the kernel of an agent that was killed; before RemoveFiles, 3500"},
		{"CustomAction", "EndTracing|3137|InstallDll|EndTracing|", "deferred, as the system"},
		{"CustomAction", "WaitStopped|3137|InstallDll|WaitStopped|", "deferred, as the system, at most 15 s"},
		{"CustomAction", "Prepare|1|InstallDll|Prepare|", "as the person who installs"},
		{"CustomAction", "Setup|11265|InstallDll|Setup|", "deferred, as the system, checked, its data hidden"},
		{"CustomAction", "UndoSetup|3393|InstallDll|RemoveData|", "at undoing, as the system"},
		{"CustomAction", "RemoveData|3649|InstallDll|RemoveData|", "after success, as the system"},
		{"Component", "Agent|{0D5B7C52-6E0F-4B0B-8D0E-3A4B8D9E6C11}|ProgramFolder|256||AgentExe", "64-bit, with the Guid of ever"},
		{"Component", "Data|{5A8F1D94-0C3E-4D6A-8B72-E41C9D05A6F8}|DataFolder|256||", "the folder itself"},
		{"ServiceInstall", `AgentService|sekisho-agent|Sekisho Agent|16|2|1|||LocalSystem||run --service --config "[DataFolder]agent.yaml"|Agent|`, "started by itself"},
		{"ServiceControl", "AgentControl|sekisho-agent|163||1|Agent", "1 + 2 + 32 + 128: started, stopped, stopped and deleted"},
		{"MsiServiceConfigFailureActions", "AgentRecovery|sekisho-agent|1|86400|||1[~]1[~]1|5000[~]30000[~]60000|Agent", "started again when it dies"},
		{"MsiServiceConfig", "AgentNonCrash|sekisho-agent|1|4|1|Agent", "also when it ended by itself with an error"},
		{"MsiServiceConfig", "AgentPrivileges|sekisho-agent|1|6|" + strings.Join(agent.ServicePrivileges, "[~]") + "|Agent", "no privilege that it does not need"},
		{"MsiServiceConfig", "AgentShutdown|sekisho-agent|1|7|30000|Agent", "time to write down what is open"},
		{"Registry", `EventFile|2|SYSTEM\CurrentControlSet\Services\EventLog\Application\Sekisho Agent|EventMessageFile|[System64Folder]EventCreate.exe|Agent`, "a source of events, whose texts Windows has"},
		{"Registry", `EventTypes|2|SYSTEM\CurrentControlSet\Services\EventLog\Application\Sekisho Agent|TypesSupported|#7|Agent`, "errors, warnings, information"},
		{"InstallExecuteSequence", "WriteRegistryValues||5000", "before the service is started and tells of it"},
		{"InstallExecuteSequence", "RemoveRegistryValues||2600", "nothing is left"},
		{"MsiLockPermissionsEx", "DataAccess|DataFolder|CreateFolder|" + winacl.Folder + "|", "closed to users"},
		{"MsiLockPermissionsEx", "ServiceAccess|AgentService|ServiceInstall|" + winacl.Service + "|", "users cannot stop it"},
	} {
		if rows := table(t, msi, c.table); !strings.Contains(rows, "\n"+c.row) {
			t.Errorf("%s: no row %s (%s); there is%s", c.table, c.row, c.why, rows)
		}
	}
	out, err := exec.Command("msiinfo", "suminfo", msi).Output()
	if err != nil || !strings.Contains(string(out), "Template: x64;1041\n") {
		t.Errorf("not a package for x64: %v\n%s", err, out)
	}
}

func TestTheSameInputGivesTheSameInstaller(t *testing.T) {
	var is [2]string
	for i := range is {
		b, err := os.ReadFile(build(t))
		if err != nil {
			t.Fatal(err)
		}
		is[i] = string(b)
	}
	if is[0] != is[1] {
		t.Error("two builds differ")
	}
}

func TestASignedInstallerTellsWhenItWasChanged(t *testing.T) {
	for _, tool := range []string{"osslsigncode", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := t.TempDir()
	cert, key, exe := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "agent.exe")
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		t.Logf("%s %s: %v\n%s", name, args[0], err, out)
		return err
	}
	if run("openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "1", "-subj", "/CN=Sekisho test", "-addext", "extendedKeyUsage=codeSigning", "-keyout", key, "-out", cert) != nil ||
		run("x86_64-w64-mingw32-gcc", "-shared", "-s", "-o", exe, "dll/install.c", "-lmsi") != nil { // any program will do
		t.Fatal("cannot prepare")
	}
	msi := filepath.Join(dir, "agent.msi")
	cmd := exec.Command("./build", "-v", "1.2.3", "-e", exe, "-o", msi)
	cmd.Env = append(os.Environ(), "SIGN_CERT="+cert, "SIGN_KEY="+key)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := run("osslsigncode", "verify", "-CAfile", cert, "-in", msi); err != nil {
		t.Error("the signature does not hold")
	}
	// What is installed is signed as well: Windows and virus scanners look at that.
	if err := run("msiextract", "-C", dir, msi); err != nil {
		t.Fatal(err)
	}
	if err := run("osslsigncode", "verify", "-CAfile", cert, "-in", filepath.Join(dir, "Sekisho", "sekisho-agent.exe")); err != nil {
		t.Error("the signature of the agent in the installer does not hold")
	}
	if err := run("msibuild", msi, "-q", "UPDATE `Property` SET `Value` = '0' WHERE `Property` = 'ARPNOMODIFY'"); err != nil {
		t.Fatal(err)
	}
	if run("osslsigncode", "verify", "-CAfile", cert, "-in", msi) == nil {
		t.Error("a changed installer passes")
	}
}
