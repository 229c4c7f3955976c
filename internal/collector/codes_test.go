package collector

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	for code, text := range Codes() {
		if text[0] == "" || text[1] == "" {
			t.Errorf("%s: got %q, want both languages", code, text)
		}
		if !strings.Contains(string(page), "| `"+code+"` |") {
			t.Errorf("%s: no line in docs/errors.md", code)
		}
	}
}
