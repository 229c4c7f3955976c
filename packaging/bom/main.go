// Command bom writes what goes with a program of ours when it is handed on: a bill of materials (CycloneDX 1.6, JSON)
// and the licence texts of everything that is linked into it. Both come from the build information in the program
// itself, so they hold for that very file and not for what go.mod said some day.
//
//	bom --version 1.2.0 --time 2026-01-31T00:00:00Z --sbom OUT.cdx.json --licences OUT.txt PROGRAM
//
// It runs in the tree the program was built from: the licence texts are those of the module cache and of GOROOT.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bom:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("bom", flag.ContinueOnError)
	version := fs.String("version", "", "version of the program")
	at := fs.String("time", "", "time of the bill (RFC 3339): the commit's, so that making it twice gives the same bytes")
	sbom := fs.String("sbom", "", "file to write the bill of materials to")
	licences := fs.String("licences", "", "file to write the licence texts to")
	if err := fs.Parse(args); err != nil {
		return err
	}
	made, err := time.Parse(time.RFC3339, *at)
	if err != nil {
		return fmt.Errorf("--time: %w", err)
	}
	if fs.NArg() != 1 || *sbom == "" || *licences == "" {
		return errors.New("one program, --sbom and --licences are needed")
	}
	program := fs.Arg(0)
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read build information: %w", err)
	}
	sum, err := sha256Of(program)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(program), ".exe")
	out, err := json.MarshalIndent(billOf(name, *version, sum, made, info), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(*sbom, append(out, '\n'), 0o644); err != nil {
		return err
	}
	texts, err := licenceTexts(info)
	if err != nil {
		return err
	}
	return os.WriteFile(*licences, texts, 0o644)
}

func sha256Of(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// The parts of CycloneDX 1.6 that we fill, named as in its schema (bom-1.6.schema.json).
type (
	bill struct {
		Schema       string       `json:"$schema"`
		Format       string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Serial       string       `json:"serialNumber"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Timestamp  time.Time   `json:"timestamp"`
		Lifecycles []lifecycle `json:"lifecycles"`
		Component  component   `json:"component"`
	}
	lifecycle struct {
		Phase string `json:"phase"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Licences   []licence  `json:"licenses,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"` // lower-case hex
	}
	licence struct {
		Licence licenceID `json:"license"`
	}
	licenceID struct {
		ID string `json:"id"` // SPDX
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

// billOf returns the bill of a program with the given name, version and checksum. What module needs which is not in the
// build information, so all of them stand directly below the program.
func billOf(name, version string, sum [sha256.Size]byte, made time.Time, info *debug.BuildInfo) bill {
	hexSum := hex.EncodeToString(sum[:])
	program := component{
		Type: "application", Name: name, Version: version,
		PURL:     "pkg:golang/" + info.Path + "@" + escape(version),
		Hashes:   []hash{{"SHA-256", hexSum}},
		Licences: []licence{{licenceID{"Apache-2.0"}}},
	}
	program.Ref = program.PURL
	for _, s := range info.Settings {
		// What decides which code is linked. Flags name folders of the machine that built it, and say nothing of that.
		if slices.Contains([]string{"CGO_ENABLED", "GOOS", "GOARCH", "GOAMD64", "GOARM64"}, s.Key) {
			program.Properties = append(program.Properties, property{"go:build:" + s.Key, s.Value})
		}
	}
	components := []component{library("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range linked(info) {
		components = append(components, library(m.Path, m.Version, m.Sum))
	}
	whole := dependency{Ref: program.Ref}
	dependencies := []dependency{}
	for _, c := range components {
		whole.DependsOn = append(whole.DependsOn, c.Ref)
		dependencies = append(dependencies, dependency{Ref: c.Ref})
	}
	return bill{
		Schema: "http://cyclonedx.org/schema/bom-1.6.schema.json", Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		// One bill a file: the serial number follows from the file, so that it is the same wherever it is made.
		Serial:       uuid.NewSHA1(uuid.NameSpaceURL, []byte("sha256:"+hexSum)).URN(),
		Metadata:     metadata{made.UTC(), []lifecycle{{"post-build"}}, program},
		Components:   components,
		Dependencies: append([]dependency{whole}, dependencies...),
	}
}

// linked returns the modules linked into a program besides its own, by path; a replaced one as what replaces it.
func linked(info *debug.BuildInfo) []*debug.Module {
	var out []*debug.Module
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b *debug.Module) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// library is a module as a component. sum is that of go.sum ("h1:..."): it covers the module's files, not one file, so
// it is a property and no hash.
func library(path, version, sum string) component {
	c := component{Type: "library", Name: path, Version: version, PURL: "pkg:golang/" + path + "@" + escape(version)}
	c.Ref = c.PURL
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}

// escape writes a version as package URLs want it.
func escape(version string) string { return strings.NewReplacer("+", "%2B").Replace(version) }

// licenceFile matches the names under which modules keep their terms.
var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|copyright|notice|patents|unlicense)([-_.].*)?$`)

// licenceTexts returns the terms of Go's own library and of every module linked into the program, each under its name.
// A module without any is an error: nobody may hand it on.
func licenceTexts(info *debug.BuildInfo) ([]byte, error) {
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString("Software by others in this program, and its terms.\n")
	if err := appendTexts(&b, "Go standard library "+info.GoVersion, strings.TrimSpace(string(goroot))); err != nil {
		return nil, err
	}
	if info.Path == "sekisho/cmd/agent" { // names of USB devices are no module, but data of others
		usb, err := output("go", "list", "-f", "{{.Dir}}", "sekisho/internal/usb")
		if err != nil {
			return nil, err
		}
		if err := appendTexts(&b, "usb.ids 2025.07.26", filepath.Join(strings.TrimSpace(string(usb)), "usbids")); err != nil {
			return nil, err
		}
	}
	modules := linked(info)
	if len(modules) == 0 {
		return b.Bytes(), nil
	}
	args := []string{"mod", "download", "-json"}
	for _, m := range modules {
		args = append(args, m.Path+"@"+m.Version)
	}
	list, err := output("go", args...)
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{} // module@version -> its folder in the module cache
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var m struct{ Path, Version, Dir string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go mod download: %w", err)
		}
		dirs[m.Path+"@"+m.Version] = m.Dir
	}
	for _, m := range modules {
		if err := appendTexts(&b, m.Path+" "+m.Version, dirs[m.Path+"@"+m.Version]); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

func output(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return out, nil
}

// appendTexts writes the licence files that lie at the top of dir.
func appendTexts(b *bytes.Buffer, title, dir string) error {
	entries, err := os.ReadDir(dir) // by name
	if err != nil {
		return fmt.Errorf("licence of %s: %w", title, err)
	}
	found := false
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "\n%s\n%s: %s\n%s\n\n", strings.Repeat("=", 80), title, e.Name(), strings.Repeat("=", 80))
		b.Write(bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))))
		b.WriteByte('\n')
		found = true
	}
	if !found {
		return fmt.Errorf("licence of %s: no such file in %s", title, dir)
	}
	return nil
}
