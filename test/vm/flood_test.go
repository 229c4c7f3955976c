package vm_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestAFloodOnTheGuestsKernel counts what the process sensor tells of a flood on a kernel that is years older than most
// hosts'. SEKISHO_VM_STARTS is how many starts it has: without hardware acceleration each takes some 50 ms.
func TestAFloodOnTheGuestsKernel(t *testing.T) {
	n := howMany(t, "SEKISHO_VM_STARTS", 500)
	_, said := run(t, "--smp", "2", "--timeout", fmt.Sprint(600+n/5), "--env", fmt.Sprint("N=", n), "--exe", "/usr/bin/true:/usr/bin/flood",
		"--put", "../../bin/static/sekisho-agent:/usr/bin/sekisho-agent", "--put", "scenarios/kinds.agent.yaml:/root/agent.yaml",
		"--script", "scenarios/flood.sh")
	for _, what := range []string{"started", "ended"} {
		if want := fmt.Sprintf("== %s of %d: %d\n", what, n, n); !strings.Contains(said, want) {
			t.Errorf("no %q", want)
		}
	}
}
