//go:build !windows

package main

import (
	"os"
	"strings"
	"testing"
)

// `service install` and the packages must give the same unit.
func TestTheUnitThatInstallWritesIsThePackagedOne(t *testing.T) {
	packaged, err := os.ReadFile("../../packaging/sekisho-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(packaged), "ExecStart=/usr/bin/sekisho-agent run --service --config /etc/sekisho/agent.yaml",
		"ExecStart={{Path | cmdEscape}}{{range Arguments}} {{. | cmd}}{{end}}", 1)
	if systemdUnit != want {
		t.Error("cmd/agent/unit.tmpl and packaging/sekisho-agent.service differ in more than ExecStart")
	}
}
