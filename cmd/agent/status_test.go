package main

import (
	"strings"
	"testing"
	"time"

	"sekisho/internal/endpoint"
)

func TestStatusTellsWhatWasForgottenForWantOfRoom(t *testing.T) {
	for _, c := range []struct{ lang, want string }{
		{"en", "of what was counted, 7 were forgotten for want of room"},
		{"ja", "数えたもののうち 7 件は、場所が足りずに忘れました"},
	} {
		t.Setenv("SEKISHO_LANG", c.lang)
		for _, n := range []uint64{0, 7} {
			var b strings.Builder
			printStatus(&b, endpoint.Status{Rules: endpoint.Rules{Evicted: n}}, time.Now())
			if strings.Contains(b.String(), c.want) != (n > 0) {
				t.Errorf("%d given up:\n%s", n, b.String())
			}
		}
	}
}
