package vm_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestAFloodOnTheGuestsKernel counts what the process sensor tells of a flood on a
// kernel that is years older than most hosts'.
func TestAFloodOnTheGuestsKernel(t *testing.T) {
	if os.Getenv("SEKISHO_VM") == "" {
		t.Skip("boots a guest for minutes; make test-vm runs it")
	}
	// Without hardware acceleration a start takes some 30 ms there.
	cmd := exec.Command("./run", "--smp", "2", "--timeout", "1500", "--env", "N=20000", "--exe", "/usr/bin/true:/usr/bin/flood",
		"--put", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent", "--put", "scenarios/service.agent.yaml:/root/agent.yaml",
		"--script", "scenarios/flood.sh")
	out, err := cmd.CombinedOutput()
	t.Logf("scenario:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"== started of 20000: 20000\n", "== ended of 20000: 20000\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q", want)
		}
	}
}
