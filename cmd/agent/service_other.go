//go:build !windows

package main

import (
	_ "embed"

	"github.com/kardianos/service"
)

// systemdUnit is the unit that `service install` writes: the one that packages
// ship (packaging/sekisho-agent.service), with the program's path and arguments
// filled in by kardianos/service.
//
//go:embed unit.tmpl
var systemdUnit string

func runService(s service.Service) error { return s.Run() }

// recovery needs nothing more where the unit says Restart=always.
func recovery(string) error { return nil }
