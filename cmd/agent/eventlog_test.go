package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/config"
	"sekisho/internal/winacl"
)

func TestWhatKeepsTheServiceFromWorkingIsNotedInBothLanguages(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("hots: 1\nlgo: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, settings := config.LoadAgent(file)
	for _, c := range []struct {
		name   string
		err    error
		ja, en []string
	}{
		{"two problems of settings", cli.Exit(cli.Usage, settings), []string{"agent.yaml:1:1", "agent.yaml:2:1"}, []string{"agent.yaml:1:1", "agent.yaml:2:1"}},
		{"a folder of a user", fmt.Errorf("start: %w", &winacl.Trouble{Path: `C:\x`, Kind: winacl.Owned, Who: "tanaka"}), []string{"所有者", "tanaka"}, []string{"belongs to tanaka"}},
		{"no room", fmt.Errorf("x: %w", agent.ErrNoRoom), []string{"いっぱい"}, []string{"disk", "remove something"}},
		{"anything", errors.New("boom"), []string{"boom"}, []string{"boom"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ja, en := inBoth(c.err)
			for i, text := range []string{ja, en} {
				for _, want := range [][]string{c.ja, c.en}[i] {
					if !strings.Contains(text, want) {
						t.Errorf("no %q in %q", want, text)
					}
				}
			}
			if got := noted(t.Context(), func(context.Context, func()) error { return c.err }); got == nil || got.Error() != c.err.Error() {
				t.Errorf("got %v", got)
			}
		})
	}
	begun := false
	if err := noted(t.Context(), func(_ context.Context, started func()) error { started(); begun = true; return nil }); err != nil || !begun {
		t.Errorf("got %v", err)
	}
}

// docs/errors.md has a line on each note.
func TestEveryNoteIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	_, notes, ok := strings.Cut(string(doc), "## Windows のイベントログ")
	for _, id := range []int{noteStarted, noteStopped, noteFailed} {
		if !ok || !strings.Contains(notes, fmt.Sprintf("\n| %d | ", id)) {
			t.Errorf("docs/errors.md lacks %d", id)
		}
	}
	if !strings.Contains(notes, agent.EventSource) {
		t.Error("docs/errors.md lacks the source")
	}
}
