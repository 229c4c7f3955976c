//go:build unix

package agent

import (
	"os"

	"sekisho/internal/config"
)

// system looks at who may change the rules; the other checks say all else.
func (d *doctor) system(_ string, cfg *config.Agent) {
	for _, p := range cfg.Rules.Paths {
		c := placeChecked{path: p, rules: true}
		if t := whoChanges(p); t != nil {
			c.err = t
		}
		d.place(c)
	}
}

// privileged reports whether the process may do what the sensors need.
func privileged() bool { return os.Geteuid() == 0 }
