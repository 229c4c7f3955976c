package replay

import (
	"strings"
	"testing"

	"sekisho/internal/rules/pack"
)

func TestShippedRulesPassTheirTests(t *testing.T) {
	var out strings.Builder
	sum, err := TestBuiltin(pack.Tests, TestOptions{Out: &out, Verbose: testing.Verbose()})
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.Problems) > 0 {
		t.Errorf("shipped rules:\n%v", sum.Problems)
	}
	if sum.Failed > 0 || sum.Tests == 0 {
		t.Errorf("%d of %d tests failed", sum.Failed, sum.Tests)
	}
	t.Log("\n" + out.String())
}
