//go:build linux

package bpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is in the tree is what process.c makes: nobody can read the object, so
// nobody would notice a change to it.
func TestTheObjectIsMadeOfItsSource(t *testing.T) {
	gen, err := os.ReadFile("gen.go")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^//go:generate go run (.*)$`).FindSubmatch(gen)
	if m == nil {
		t.Fatal("gen.go generates nothing")
	}
	args := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(string(m[1]), -1)
	for i, a := range args {
		args[i] = strings.Trim(a, `"`)
		if a == "-cc" || a == "-strip" {
			if _, err := exec.LookPath(args[i+1]); err != nil {
				t.Skipf("%v: apt-get install clang-14 llvm-14", err)
			}
		}
	}
	dir := t.TempDir()
	args = append([]string{"run", args[0], "-output-dir", dir}, args[1:]...)
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOPACKAGE=bpf")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, name := range []string{"process_bpfel.o", "process_bpfel.go"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what clang-14 makes of process.c (%d bytes, it makes %d): run make bpf", name, len(want), len(got))
		}
	}
}
