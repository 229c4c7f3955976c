package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The tutorial of docs/rules.md, as somebody would follow it: its files are
// written, each of its commands is run, and the replays answer what it says.
func TestTheTutorialOfRulesWorks(t *testing.T) {
	text, err := os.ReadFile("../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.ReplaceAll(string(text), "\r\n", "\n")
	commands := regexp.MustCompile(`(?m)^       (sekisho-agent .*)$`).FindAllStringSubmatch(doc, -1)
	japanese, english := commands[:len(commands)/2], commands[len(commands)/2:]
	if !slices.EqualFunc(japanese, english, func(a, b []string) bool { return a[1] == b[1] }) || len(commands) < 12 {
		t.Fatalf("the languages differ in their commands: %q", commands)
	}
	var b strings.Builder
	for _, c := range english {
		b.WriteString(c[1] + "\n")
		switch c[1] {
		case "sekisho-agent replay --rules rules.d night.jsonl":
			b.WriteString("stdout -count=2 '\"rule\":\"SITE-1\"'\nstdout '\"user\":{\"name\":\"tanaka\"'\nstdout '\"user\":{\"name\":\"svc-backup\"'\nstderr 'alerts: 2'\n")
		case "sekisho-agent replay --config agent.yaml --rules rules.d night.jsonl":
			b.WriteString("stdout -count=2 '\"rule\":\"SITE-1\"'\nstdout '\"user\":{\"name\":\"tanaka\"'\nstdout '\"user\":{\"name\":\"sato\"'\nstderr 'alerts: 2'\n")
		}
	}
	for _, m := range regexp.MustCompile("(?s)```(yaml|jsonl)\n(.*?)```").FindAllStringSubmatch(doc, -1) {
		head, _, _ := strings.Cut(m[2], "\n")
		name, named := strings.CutPrefix(head, "# file: ")
		if m[1] == "jsonl" {
			name, named = "night.jsonl", true
		}
		if named {
			fmt.Fprintf(&b, "-- %s --\n%s", name, m[2])
		}
	}
	script := filepath.Join(t.TempDir(), "tutorial.txt")
	if err := os.WriteFile(script, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Files: []string{script}, Setup: func(e *testscript.Env) error {
		e.Setenv("SEKISHO_LANG", "en")
		return nil
	}})
}
