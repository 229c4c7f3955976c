// Package version says which build this program is.
package version

import (
	"runtime/debug"
	"strings"
)

// Set at link time by tools/build (-ldflags "-X sekisho/internal/version.Version=..."). A program built otherwise, by
// go run or go test, gets what the Go toolchain noted about it. Never written after the program has started.
var (
	// Version is the nearest release tag as git describe tells it ("v1.2.0", "v1.2.0-3-g41ab..."), "devel" where
	// there is none.
	Version string
	// Commit is the full hash the program was built from, with "-dirty" after it where the tree had changes;
	// "" where it is not known.
	Commit string
	// Date is the commit's time (RFC 3339), not the build's, so that building twice gives the same bytes; "" where
	// it is not known.
	Date string
)

func init() {
	if Version != "" {
		return
	}
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		Version = "devel"
		return
	}
	Version, Commit, Date = fromBuildInfo(bi)
}

// fromBuildInfo draws the three variables from what the Go toolchain noted.
func fromBuildInfo(bi *debug.BuildInfo) (version, commit, date string) {
	version = strings.Trim(bi.Main.Version, "()")
	if version == "" {
		version = "devel"
	}
	var dirty bool
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			date = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if commit != "" && dirty {
		commit += "-dirty"
	}
	return version, commit, date
}
