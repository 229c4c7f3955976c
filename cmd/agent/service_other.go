//go:build !windows

package main

import (
	_ "embed"

	"github.com/kardianos/service"
	"github.com/spf13/cobra"
)

// systemdUnit is the unit that `service install` writes: the one that packages
// ship (packaging/sekisho-agent.service), with the program's path and arguments
// filled in by kardianos/service.
//
//go:embed unit.tmpl
var systemdUnit string

func runService(s service.Service, _ *program) error { return s.Run() }

// afterInstall has nothing to add: the unit says all.
func afterInstall() error { return nil }

func uninstall(s service.Service) error { return s.Uninstall() }

func ofSystem() []*cobra.Command { return nil }

// note has nothing to do: the service manager notes starts and ends, and keeps
// what is written to standard error.
func note(uint32, string) {}
