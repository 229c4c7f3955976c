package main

import (
	"flag"
	"os"
	"testing"

	"github.com/spf13/cobra"

	"sekisho/internal/cli"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md")

// docs/cli.md holds the commands as the program tells them.
func TestTheReferenceOfCommandsIsUpToDate(t *testing.T) {
	t.Setenv("SEKISHO_CONFIG", "")
	tree := func(l string) *cobra.Command {
		t.Setenv("SEKISHO_LANG", l)
		return root()
	}
	const file = "../../docs/cli.md"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := cli.Chapter(string(doc), "sekisho-console", cli.Reference(tree("ja"), tree("en")))
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(doc) != want {
		t.Error("docs/cli.md differs from the commands: go test ./cmd/console -run Reference -update")
	}
}
