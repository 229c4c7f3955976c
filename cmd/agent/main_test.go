package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sekisho/internal/cli"
	"sekisho/internal/enroll"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sekisho-agent": func() { os.Exit(run()) }})
}

// Scripts have $REPO, the tree, and these commands:
//
//	code N PROGRAM ARGS...   runs the program, which must end with the exit code N
//	ready CONFIG             waits until the agent of these settings answers
//	token FILE ADDRESS EXPIRES [N]   writes an enrolment token ("-1h": expired), or
//	                                 its first N letters
//
// and the condition [systemd]: the system has the service manager that it is to have.
func TestScripts(t *testing.T) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("REPO", repo)
			e.Setenv("SEKISHO_LANG", "en")
			return nil
		},
		Condition: func(what string) (bool, error) {
			if what != "systemd" {
				return false, fmt.Errorf("no condition %q", what)
			}
			return !noSystemd(), nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  code,
			"token": token,
			"ready": ready,
		},
	})
}

func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = err.Error() // "exit status 2"
	}
	if got != "exit status "+args[0] && got != args[0] {
		ts.Fatalf("%s, want exit status %s", got, args[0])
	}
}

func ready(ts *testscript.TestScript, neg bool, args []string) {
	for range 2400 { // two minutes
		if ts.Exec("sekisho-agent", "status", "--config", args[0]) == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("no agent answers")
}

func token(ts *testscript.TestScript, neg bool, args []string) {
	in, err := time.ParseDuration(args[2])
	ts.Check(err)
	k, err := enroll.NewToken([]string{args[1]}, [32]byte{1, 2, 3}, "税務課", 1, time.Now().Add(in))
	ts.Check(err)
	text := k.String()
	if len(args) > 3 {
		n, err := strconv.Atoi(args[3])
		ts.Check(err)
		text = text[:n]
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text+"\n"), 0o600))
}

// docs/cli.md holds the commands as the program tells them.
func TestTheReferenceOfCommandsIsUpToDate(t *testing.T) {
	t.Setenv("SEKISHO_CONFIG", "")
	t.Setenv("ProgramData", `C:\ProgramData`)
	tree := func(l string) *cobra.Command {
		t.Setenv("SEKISHO_LANG", l)
		return root()
	}
	const file = "../../docs/cli.md"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := cli.Chapter(string(doc), "sekisho-agent", cli.Reference(tree("ja"), tree("en")))
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(doc) != want {
		t.Error("docs/cli.md differs from the commands: go test ./cmd/agent -run Reference -update")
	}
}
