//go:build linux

package wine_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDevicesAreHeardOfFromAConfigurationManager(t *testing.T) {
	agentEXE(t)
	if _, err := exec.LookPath("x86_64-w64-mingw32-gcc"); err != nil {
		t.Skip("no x86_64-w64-mingw32-gcc to make a stand-in for cfgmgr32.dll of")
	}
	dll := filepath.Join(t.TempDir(), "cfgmgr32.dll")
	if out, err := exec.Command("x86_64-w64-mingw32-gcc", "-shared", "-O1", "-Wall", "-Werror", "-o", dll, "testdata/cfgmgr32.c").CombinedOutput(); err != nil {
		t.Fatalf("build stand-in: %v\n%s", err, out)
	}
	run, err := filepath.Abs("run")
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range []string{"cfgmgr", "usb", "volume"} {
		cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-v", "-run", "ConfigurationManager", "-exec", run+" -t 900 -n "+dll, "sekisho/internal/"+pkg)
		cmd.Env = append(os.Environ(), "GOOS=windows", "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") || strings.Contains(string(out), "--- SKIP") {
			t.Errorf("%s: %v\n%s", pkg, err, out)
		}
	}
}
