package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackagesUnderSystemd needs the Debian guest, as TestTheServiceUnderSystemd does.
func TestPackagesUnderSystemd(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	dir := t.TempDir()
	build := func(version string) (agent, console string) {
		t.Helper()
		dist := filepath.Join(dir, version)
		cmd := exec.Command("../../tools/package", "linux-amd64")
		cmd.Env = append(os.Environ(), "DIST="+dist, "SEKISHO_VERSION="+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		for name, to := range map[string]*string{"sekisho-agent": &agent, "sekisho-console": &console} {
			found, err := filepath.Glob(filepath.Join(dist, name+"_*_amd64.deb"))
			if err != nil || len(found) != 1 {
				t.Fatalf("packages of %s: %q, %v", name, found, err)
			}
			*to = found[0]
		}
		return agent, console
	}
	first, console := build("v1.0.0")
	second, _ := build("v1.1.0")
	_, said := run(t, "--rootfs", "debian", "--smp", "2", "--timeout", "600",
		"--put", first+":/root/agent-1.deb", "--put", second+":/root/agent-2.deb", "--put", console+":/root/console-1.deb",
		"--script", "scenarios/packages.sh")
	for _, want := range []string{"installed and watching", "watching", "selftest", "verified", "installed twice", "upgraded", "watches on", "stays off", "removed",
		"kept", "console", "enrolled", "agent purged beside the console", "nothing left"} {
		if !strings.Contains(said, "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
}
