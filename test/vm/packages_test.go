package vm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPackagesUnderSystemd needs the Debian guest, as TestTheServiceUnderSystemd does.
func TestPackagesUnderSystemd(t *testing.T) {
	packages(t, "scenarios/packages.sh", "_*_amd64.deb", "deb", nil, "installed and watching", "watching", "selftest", "verified", "installed twice",
		"upgraded", "watches on", "stays off", "removed", "kept", "console", "enrolled", "agent purged beside the console", "nothing left")
}

// TestRPMUnderSystemd takes minutes of the emulated guest, which `make test-vm` has not got: each step unpacks the program,
// and rpm checks sums of it before and after.
func TestRPMUnderSystemd(t *testing.T) {
	if os.Getenv("SEKISHO_PACKAGE") == "" {
		t.Skip("takes minutes; make test-package runs it")
	}
	rpm := []string{"--exe", "/usr/bin/rpm:/usr/bin/rpm", "--put", "/usr/lib/rpm/rpmrc:/usr/lib/rpm/rpmrc", "--put", "/usr/lib/rpm/macros:/usr/lib/rpm/macros"}
	packages(t, "scenarios/rpm.sh", "-*.x86_64.rpm", "rpm", rpm, "rpm starts nothing", "rpm watching", "rpm upgraded", "rpm watches on", "rpm stays off",
		"rpm removed", "rpm enables what a preset names", "rpm disables it again")
}

// packages builds two versions, runs a scenario with /root/agent-1, agent-2 and console-1 and wants it to say all these.
func packages(t *testing.T, scenario, pattern, ext string, more []string, wants ...string) {
	t.Helper()
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	dir := t.TempDir()
	args := append(more, "--rootfs", "debian", "--smp", "2", "--timeout", "900", "--put", "scenarios/packages.lib.sh:/root/lib.sh", "--script", scenario)
	for n, version := range []string{"v1.0.0", "v1.1.0"} {
		dist := filepath.Join(dir, version)
		cmd := exec.Command("../../tools/package", "linux-amd64")
		cmd.Env = append(os.Environ(), "DIST="+dist, "SEKISHO_VERSION="+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		for _, name := range []string{"agent", "console"} {
			found, err := filepath.Glob(filepath.Join(dist, "sekisho-"+name+pattern))
			if err != nil || len(found) != 1 {
				t.Fatalf("sekisho-%s of %s: %q, %v", name, version, found, err)
			}
			if n == 0 || name == "agent" {
				args = append(args, "--put", fmt.Sprintf("%s:/root/%s-%d.%s", found[0], name, n+1, ext))
			}
		}
	}
	_, said := run(t, args...)
	for _, want := range wants {
		if !strings.Contains(said, "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
}
