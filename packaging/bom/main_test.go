package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBillOf(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Path: "sekisho/cmd/agent",
		Deps: []*debug.Module{
			{Path: "example.jp/b", Version: "v2.0.0+incompatible", Sum: "h1:b="},
			{Path: "example.jp/a", Version: "v1.0.0", Replace: &debug.Module{Path: "example.jp/fork", Version: "v1.0.1", Sum: "h1:f="}},
		},
		Settings: []debug.BuildSetting{{Key: "-ldflags", Value: "-X /home"}, {Key: "GOOS", Value: "linux"}},
	}
	made := time.Date(2026, 1, 31, 9, 0, 0, 0, time.FixedZone("JST", 9*3600))
	b := billOf("sekisho-agent", "1.2.0~rc.1+3.g41ab", [32]byte{0xab}, made, info)

	const program = "pkg:golang/sekisho/cmd/agent@1.2.0~rc.1%2B3.g41ab"
	refs := []string{"pkg:golang/std@1.26.8", "pkg:golang/example.jp/b@v2.0.0%2Bincompatible", "pkg:golang/example.jp/fork@v1.0.1"}
	var got []string
	for _, c := range b.Components {
		got = append(got, c.Ref)
	}
	if !slices.Equal(got, refs) {
		t.Errorf("components %q, want %q", got, refs)
	}
	if b.Metadata.Component.Ref != program || !slices.Equal(b.Dependencies[0].DependsOn, refs) || b.Dependencies[0].Ref != program || len(b.Dependencies) != 4 {
		t.Errorf("program %q depends on %v", b.Metadata.Component.Ref, b.Dependencies)
	}
	out, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"timestamp":"2026-01-31T00:00:00Z"`, `"serialNumber":"urn:uuid:`, `"content":"ab00`, `{"name":"go:sum","value":"h1:f="}`, `{"name":"go:build:GOOS","value":"linux"}`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	if strings.Contains(string(out), "/home") {
		t.Error("a folder of the machine that built it is in the bill")
	}
}

func TestLicenceFile(t *testing.T) {
	for name, want := range map[string]bool{
		"LICENSE": true, "LICENCE.md": true, "license-mit": true, "COPYING": true, "NOTICE.txt": true, "PATENTS": true, "COPYRIGHT": true,
		"licensing.go": false, "README": false, "UNLICENSE": true,
	} {
		if got := licenceFile.MatchString(name); got != want {
			t.Errorf("%s is a licence: %t, want %t", name, got, want)
		}
	}
}

// A module that gives no terms must stop the build; with one beside it that does, its texts are there word by word.
func TestAppendTexts(t *testing.T) {
	dir := t.TempDir()
	buf := &bytes.Buffer{}
	if err := appendTexts(buf, "example.jp/a v1", dir); err == nil || !strings.Contains(err.Error(), "example.jp/a v1") {
		t.Errorf("a module without terms: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "LICENSE"), []byte("Do\r\nas you like.\r\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := appendTexts(buf, "example.jp/a v1", dir); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(buf.String(), "example.jp/a v1: LICENSE\n") || !strings.Contains(buf.String(), "Do\nas you like.\n") {
		t.Errorf("got %q", buf)
	}
}

// The test's own program is one with modules: what the tool says of it must be what the toolchain linked.
func TestTheBillOfThisVeryProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Skip(err)
	}
	sum, err := sha256Of(self)
	if err != nil {
		t.Fatal(err)
	}
	b := billOf("bom.test", "1", sum, time.Unix(0, 0), info)
	if !slices.ContainsFunc(b.Components, func(c component) bool {
		return c.Name == "github.com/google/uuid" && strings.HasPrefix(c.Version, "v1.")
	}) {
		t.Errorf("uuid is linked and not in %v", b.Components)
	}
}
