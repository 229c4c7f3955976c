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
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("the image of the Debian guest can be built by root only")
	}
	dir := t.TempDir()
	put := []string{"--exe", "/usr/bin/rpm:/usr/bin/rpm", "--put", "/usr/lib/rpm/rpmrc:/usr/lib/rpm/rpmrc", "--put", "/usr/lib/rpm/macros:/usr/lib/rpm/macros"}
	for n, version := range []string{"v1.0.0", "v1.1.0"} {
		dist := filepath.Join(dir, version)
		cmd := exec.Command("../../tools/package", "linux-amd64")
		cmd.Env = append(os.Environ(), "DIST="+dist, "SEKISHO_VERSION="+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		for pattern, to := range map[string]string{
			"sekisho-agent_*_amd64.deb": "agent-%d.deb", "sekisho-console_*_amd64.deb": "console-%d.deb",
			"sekisho-agent-*.x86_64.rpm": "agent-%d.rpm", "sekisho-console-*.x86_64.rpm": "console-%d.rpm",
		} {
			found, err := filepath.Glob(filepath.Join(dist, pattern))
			if err != nil || len(found) != 1 {
				t.Fatalf("%s: %q, %v", pattern, found, err)
			}
			if n == 0 || strings.HasPrefix(to, "agent") {
				put = append(put, "--put", found[0]+":/root/"+fmt.Sprintf(to, n+1))
			}
		}
	}
	_, said := run(t, append(put, "--rootfs", "debian", "--smp", "2", "--timeout", "900", "--script", "scenarios/packages.sh")...)
	for _, want := range []string{"installed and watching", "watching", "selftest", "verified", "installed twice", "upgraded", "watches on", "stays off", "removed",
		"kept", "console", "enrolled", "agent purged beside the console", "nothing left",
		"rpm starts nothing", "rpm watching", "rpm upgraded", "rpm watches on", "rpm stays off", "rpm removed", "rpm enables what a preset names", "rpm disables it again"} {
		if !strings.Contains(said, "== "+want+"\n") {
			t.Errorf("no %q", want)
		}
	}
}
