package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// [text](target); a title after the target is not used here.
	mdLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	mdFence   = regexp.MustCompile("(?ms)^```.*?^```")
	mdCode    = regexp.MustCompile("`[^`\n]*`")
	mdHeading = regexp.MustCompile(`(?m)^(#{1,6}) +(.+?) *$`)
	// What GitHub leaves out of an anchor: all but letters, digits, blanks, "-" and "_".
	notAnchor = regexp.MustCompile(`[^\p{L}\p{M}\p{N} _-]`)
)

// documents are the Markdown files that people read, by path from the root.
func documents(t *testing.T) []string {
	t.Helper()
	var docs []string
	for _, pattern := range []string{"*.md", "docs/*.md", "internal/*/*.md", "test/*/*.md", "packaging/*.md"} {
		found, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	if len(docs) < 10 {
		t.Fatalf("only %d documents found: %v", len(docs), docs)
	}
	return docs
}

// headings are the anchors of a document's headings, in order, with their depth.
func headings(text string) (anchors []string, depths []int) {
	for _, m := range mdHeading.FindAllStringSubmatch(mdFence.ReplaceAllString(text, ""), -1) {
		a := strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(m[2]), ""), " ", "-")
		anchors, depths = append(anchors, a), append(depths, len(m[1]))
	}
	return anchors, depths
}

func TestLinksOfDocumentsResolve(t *testing.T) {
	links := 0
	for _, file := range documents(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range mdLink.FindAllStringSubmatch(mdCode.ReplaceAllString(mdFence.ReplaceAllString(string(data), ""), ""), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			links++
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), filepath.FromSlash(target))
			}
			text, err := os.ReadFile(to)
			if err != nil {
				if info, serr := os.Stat(to); serr == nil && info.IsDir() && anchor == "" {
					continue
				}
				t.Errorf("%s: link to %q: %v", file, m[1], err)
				continue
			}
			if anchor == "" {
				continue
			}
			anchors, _ := headings(string(text))
			if !slices.Contains(anchors, anchor) {
				t.Errorf("%s: link to %q: no such heading in %s", file, m[1], to)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links found: does the test still read them?", links)
	}
}

// A document in two languages has a part for each, with the same headings below
// it: a section added to one only is a section that half of the readers miss.
func TestBothLanguagesOfADocumentHaveTheSameHeadings(t *testing.T) {
	compared := 0
	for _, file := range documents(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		anchors, depths := headings(string(data))
		parts := map[string][]int{}
		part := ""
		for i, a := range anchors {
			switch {
			case depths[i] <= 2:
				part = a
			case part == "日本語" || part == "english":
				parts[part] = append(parts[part], depths[i])
			}
		}
		if !slices.Contains(anchors, "日本語") {
			continue
		}
		compared++
		if !slices.Contains(anchors, "english") {
			t.Errorf("%s: no part in English", file)
		} else if ja, en := parts["日本語"], parts["english"]; !slices.Equal(ja, en) {
			t.Errorf("%s: depths of the headings differ: Japanese %v, English %v", file, ja, en)
		}
	}
	if compared < 5 {
		t.Errorf("only %d documents in two languages found", compared)
	}
}
