package replay

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sekisho/internal/rules"
)

// The rule and the test that docs/rules.md shows work as they stand there, and
// its example of a filter is one of a shipped rule.
func TestTheManualsExamplesWork(t *testing.T) {
	doc, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, filters := 0, 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		head, _, _ := strings.Cut(m[1], "\n")
		name, ok := strings.CutPrefix(head, "# file: ")
		if !ok {
			f, err := rules.Parse("docs/rules.md", []byte(m[1]))
			if err != nil {
				t.Error(err)
			}
			shipped, err := rules.ParseBuiltin()
			if err != nil {
				t.Fatal(err)
			}
			p, err := rules.Compile(append(shipped, f), rules.Options{})
			if err != nil {
				t.Error(err)
			}
			if r := p.Rule("USB-3"); len(r.Filters) != 1 || len(r.Correlation.Except) != 1 {
				t.Error("the example of a filter narrows nothing")
			}
			filters++
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(m[1]), 0o644); err != nil {
			t.Fatal(err)
		}
		files++
	}
	var out strings.Builder
	sum, err := TestFiles([]string{filepath.Join(dir, "rules.d")}, TestOptions{Out: &out})
	if err != nil || files != 3 || filters != 1 || sum.Tests != 2 || sum.Failed > 0 || len(sum.Problems) > 0 {
		t.Errorf("%d files, %d filters, %+v, %v\n%s", files, filters, sum, err, out.String())
	}
}
