package guid

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestTextAndMemory(t *testing.T) {
	const text = "{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}"
	g, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(g[:]), "d62cfb227b0e2b42a0c72fad1fd0e716"; got != want {
		t.Errorf("in memory it is %s, want %s", got, want)
	}
	if g.String() != text {
		t.Errorf("as text it is %s, want %s", g, text)
	}
	if h, err := Parse(strings.ToLower(text[1 : len(text)-1])); err != nil || h != g {
		t.Errorf("without braces and in lower case it is %v (%v)", h, err)
	}
	for _, bad := range []string{"", "{}", text[1:], text[:36] + "}", "{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E71G}", "22FB2CD6 0E7B 422B A0C7 2FAD1FD0E716", "{22FB2CD60-E7B-422B-A0C7-2FAD1FD0E716}"} {
		if g, err := Parse(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, g)
		}
	}
}
