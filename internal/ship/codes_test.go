package ship

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every code that the package can tell has texts in both languages and a line
// in docs/errors.md, and nothing else has.
func TestEveryCodeIsExplained(t *testing.T) {
	src, err := os.ReadFile("trouble.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, m := range regexp.MustCompile(`= "(SHP-\d\d)"`).FindAllStringSubmatch(string(src), -1) {
		codes = append(codes, m[1])
	}
	if len(codes) < 17 {
		t.Fatalf("only %d codes found in trouble.go", len(codes))
	}
	for _, code := range codes {
		h, ok := HelpOf(code)
		if !ok || h.JA == "" || h.EN == "" || h.NextJA == "" || h.NextEN == "" {
			t.Errorf("%s lacks a text: %+v", code, h)
		}
		if !strings.Contains(string(doc), "| `"+code+"` | "+h.JA+" | "+h.EN+" | "+h.NextJA+" / "+h.NextEN+" |\n") {
			t.Errorf("docs/errors.md lacks or differs from:\n| `%s` | %s | %s | %s / %s |", code, h.JA, h.EN, h.NextJA, h.NextEN)
		}
	}
	for code := range Codes() {
		if !slices.Contains(codes, code) {
			t.Errorf("%s has texts but is not told", code)
		}
	}
}
