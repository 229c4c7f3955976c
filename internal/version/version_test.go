package version

import (
	"runtime/debug"
	"testing"
)

func TestFromBuildInfo(t *testing.T) {
	settings := func(kv ...string) []debug.BuildSetting {
		var out []debug.BuildSetting
		for i := 0; i < len(kv); i += 2 {
			out = append(out, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return out
	}
	tests := []struct {
		name                  string
		info                  debug.BuildInfo
		version, commit, date string
	}{
		{"a test binary knows nothing", debug.BuildInfo{}, "devel", "", ""},
		{"go run in a tree without git", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "devel", "", ""},
		{
			"go build in a clean clone",
			debug.BuildInfo{
				Main:     debug.Module{Version: "v1.2.0"},
				Settings: settings("vcs.revision", "41ab", "vcs.time", "2026-11-21T10:00:00Z", "vcs.modified", "false"),
			},
			"v1.2.0", "41ab", "2026-11-21T10:00:00Z",
		},
		{
			"go build with changes",
			debug.BuildInfo{Settings: settings("vcs.modified", "true", "vcs.revision", "41ab")},
			"devel", "41ab-dirty", "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			version, commit, date := fromBuildInfo(&tt.info)
			if version != tt.version || commit != tt.commit || date != tt.date {
				t.Errorf("got %q %q %q, want %q %q %q", version, commit, date, tt.version, tt.commit, tt.date)
			}
		})
	}
}

func TestVersionIsNeverEmpty(t *testing.T) {
	if Version == "" {
		t.Error("Version is empty in a program built without tools/build")
	}
}
