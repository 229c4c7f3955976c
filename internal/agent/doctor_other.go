//go:build !windows

package agent

import (
	"os"

	"sekisho/internal/config"
)

// system has nothing to add where the other checks say all.
func (d *doctor) system(string, *config.Agent) {}

// openRules has nothing to say: rules are read with the rights of root, and who may
// change them is for modes to say.
func openRules([]string) []string { return nil }

// privileged reports whether the process may do what the sensors need.
func privileged() bool { return os.Geteuid() == 0 }
