// Package packaging_test holds what is handed on against what it promises. What takes a build of everything runs by
// `make test-package` only; the packages on a real systemd are tried by test/vm.
package packaging_test

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every command that docs/cli.md has, and no other, is named in the manual pages of both languages. docs/cli.md is held
// against the programs by their own tests.
func TestManualPagesNameEveryCommand(t *testing.T) {
	doc, err := os.ReadFile("../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"sekisho-agent", "sekisho-console"} {
		var want []string
		for _, m := range regexp.MustCompile("(?m)^### `"+program+" ([a-z-]+)").FindAllStringSubmatch(string(doc), -1) {
			want = append(want, m[1])
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if len(want) < 8 {
			t.Fatalf("only %q of %s in docs/cli.md", want, program)
		}
		for _, page := range []string{"man/" + program + ".8", "man/ja/" + program + ".8"} {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			section := regexp.MustCompile(`(?s)(\nis one of|\nコマンドは)\n(.*?)\.B sekisho`).FindSubmatch(text)
			if section == nil {
				t.Fatalf("%s: no list of commands", page)
			}
			var got []string
			for _, m := range regexp.MustCompile(`(?m)^\.BR ([a-z-]+)`).FindAllSubmatch(section[2], -1) {
				got = append(got, string(m[1]))
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s names %q, docs/cli.md %q", page, got, want)
			}
		}
	}
}

// A unit that lost a line of its hardening scores worse than it does today.
func TestUnitsStayHardened(t *testing.T) {
	version, err := exec.Command("systemd-analyze", "--version").Output()
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	if !bytes.HasPrefix(version, []byte("systemd 252 ")) {
		t.Skipf("needs systemd 252: others weigh in other ways (%s)", bytes.SplitN(version, []byte("\n"), 2)[0])
	}
	// In tenths. Each exception of the agent's is explained in its unit.
	for unit, worst := range map[string]string{"sekisho-agent.service": "44", "sekisho-console.service": "17"} {
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+worst, unit).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if t.Logf("%s: %s", unit, lines[len(lines)-1]); err != nil {
			t.Errorf("%s is worse than %s tenths: %v\n%s", unit, worst, err, out)
		}
	}
}

// systemd gives up on a unit that is started five times within ten seconds
// (systemd-system.conf(5), DefaultStartLimit...): one that cannot start for a while, as
// its disk is full, has to come up when it can.
func TestUnitsAreStartedAgainHoweverOftenTheyEnd(t *testing.T) {
	for _, unit := range []string{"sekisho-agent.service", "sekisho-console.service"} {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		seconds := func(key string, otherwise int) int {
			m := regexp.MustCompile(`(?m)^` + key + `=(\d+)$`).FindSubmatch(text)
			if m == nil {
				return otherwise
			}
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		if !bytes.Contains(text, []byte("\nRestart=always\n")) || 5*seconds("RestartSec", 0) <= seconds("StartLimitIntervalSec", 10) && seconds("StartLimitIntervalSec", 10) > 0 {
			t.Errorf("%s: systemd gives up when it ends five times in a row", unit)
		}
	}
}

// TestTheSameBytes builds everything twice: from two clones in folders of different depth, with another umask, time zone,
// home and language, and with nothing in common but the module cache, which is checked by sums.
func TestTheSameBytes(t *testing.T) {
	if os.Getenv("SEKISHO_PACKAGE") == "" {
		t.Skip("builds both programs for three systems twice from nothing; make test-package runs it")
	}
	goBin, err := exec.Command("../tools/go", "env", "GOMODCACHE", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	modcache, _, _ := strings.Cut(string(goBin), "\n")
	tree, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	build := func(from, dir string, env ...string) map[string][sha256.Size]byte {
		t.Helper()
		if out, err := exec.Command("git", "-c", "safe.directory="+from+"/.git", "clone", "-q", "--no-hardlinks", from, dir).CombinedOutput(); err != nil {
			t.Fatalf("clone: %v\n%s", err, out)
		}
		cmd := exec.Command("sh", "-c", "umask $UMASK; exec tools/package $TARGETS")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), append(env, "GOMODCACHE="+modcache, "TARGETS="+os.Getenv("SEKISHO_PACKAGE_TARGETS"))...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		sums := map[string][sha256.Size]byte{}
		err := filepath.WalkDir(filepath.Join(dir, "dist"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			sums[d.Name()] = sha256.Sum256(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return sums
	}
	tmp := t.TempDir()
	first := build(tree, filepath.Join(tmp, "a"), "UMASK=022", "TZ=UTC", "LANG=C")
	// Of the first clone, not of the tree, where somebody may have committed meanwhile.
	second := build(filepath.Join(tmp, "a"), filepath.Join(tmp, "another", "and", "longer", "way", "b"), "UMASK=077", "TZ=Asia/Tokyo", "LANG=ja_JP.UTF-8",
		"GOCACHE="+filepath.Join(tmp, "cache"), "HOME="+filepath.Join(tmp, "home"))
	if len(first) < 7 || len(first) != len(second) {
		t.Errorf("%d files, then %d", len(first), len(second))
	}
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s differs", name)
		}
	}
}

// TestPackagesInAFolder installs, upgrades, removes and purges the packages of dist in an empty folder as dpkg would on a
// machine without systemd: twice each, for what is done twice must end as what is done once.
func TestPackagesInAFolder(t *testing.T) {
	if os.Getenv("SEKISHO_PACKAGE") == "" {
		t.Skip("needs the packages; make test-package runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("dpkg gives files to root, which root only can")
	}
	dist := t.TempDir()
	build := func(version string) {
		t.Helper()
		cmd := exec.Command("../tools/package", "linux-amd64")
		cmd.Env = append(os.Environ(), "DIST="+filepath.Join(dist, version), "SEKISHO_VERSION="+version)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	build("v1.0.0")
	build("v1.1.0-rc.1")
	file := func(version, pattern string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dist, version, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		return found[0]
	}
	for _, p := range []struct{ name, settings, state string }{
		{"sekisho-agent", "agent.yaml", "var/lib/sekisho"},
		{"sekisho-console", "console.yaml", "var/lib/private/sekisho-console"},
	} {
		t.Run(p.name, func(t *testing.T) {
			root := t.TempDir()
			for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "etc", "usr/bin"} {
				must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
			}
			must(t, os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644))
			dpkg := func(args ...string) {
				t.Helper()
				cmd := exec.Command("dpkg", append([]string{"--root=" + root, "--log=" + filepath.Join(root, "log"), "--force-script-chrootless",
					"--force-depends", "--force-bad-path", "--force-confold"}, args...)...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("dpkg %s: %v\n%s", args, err, out)
				}
			}
			old, newer := file("v1.0.0", p.name+"_*_amd64.deb"), file("v1.1.0-rc.1", p.name+"_*_amd64.deb")
			settings := filepath.Join(root, "etc/sekisho", p.settings)
			state := filepath.Join(root, p.state)
			holds := func(path, want string) {
				t.Helper()
				got, err := os.ReadFile(path)
				if err != nil || string(got) != want {
					t.Errorf("%s holds %.60q, %v; want %q", path, got, err, want)
				}
			}
			for range 2 {
				dpkg("-i", old)
			}
			must(t, os.WriteFile(settings, []byte("# edited\n"), 0o600))
			must(t, os.MkdirAll(state, 0o700))
			must(t, os.WriteFile(filepath.Join(state, "identity"), []byte("x"), 0o600))
			for range 2 {
				dpkg("-i", newer)
			}
			holds(settings, "# edited\n")
			dpkg("-r", p.name)
			holds(settings, "# edited\n")
			holds(filepath.Join(state, "identity"), "x")
			if _, err := os.Stat(filepath.Join(root, "usr/bin", p.name)); err == nil {
				t.Error("removed, but the program is there")
			}
			must(t, os.WriteFile(filepath.Join(state, "keep-on-purge"), nil, 0o600))
			if p.name == "sekisho-console" { // as systemd leaves it
				must(t, os.Symlink("private/sekisho-console", filepath.Join(root, "var/lib/sekisho-console")))
			}
			dpkg("-P", p.name)
			holds(filepath.Join(state, "identity"), "x")
			dpkg("-i", newer)
			must(t, os.Remove(filepath.Join(state, "keep-on-purge")))
			for range 2 {
				dpkg("-P", p.name)
			}
			var left []string
			must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if in := strings.TrimPrefix(path, root); strings.Contains(in, "sekisho") && !strings.HasPrefix(in, "/var/lib/dpkg/") {
					left = append(left, in)
				}
				return err
			}))
			if len(left) > 0 {
				t.Errorf("left after the purge: %q", left)
			}
		})
	}
	t.Run("rpm", func(t *testing.T) {
		if _, err := exec.LookPath("rpm"); err != nil {
			t.Skip("no rpm here: apt-get install rpm")
		}
		root := t.TempDir()
		rpm := func(args ...string) string {
			t.Helper()
			out, err := exec.Command("rpm", append([]string{"--root", root, "--dbpath", "/rpmdb"}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("rpm %s: %v\n%s", args, err, out)
			}
			return string(out)
		}
		do := []string{"--force-debian", "--noscripts", "--nodeps"}
		old, newer := file("v1.0.0", "sekisho-agent-*.x86_64.rpm"), file("v1.1.0-rc.1", "sekisho-agent-*.x86_64.rpm")
		info := rpm("-qp", "--qf", "%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{BUILDHOST}\n", newer)
		if want := "sekisho-agent 1.1.0~rc.1 1 x86_64 localhost\n"; !strings.HasSuffix(strings.Replace(info, "+dirty", "", 1), want) {
			t.Errorf("rpm says %q, want %q", info, want)
		}
		rpm(append(do, "-i", old)...)
		settings := filepath.Join(root, "etc/sekisho/agent.yaml")
		must(t, os.WriteFile(settings, []byte("# edited\n"), 0o640))
		rpm(append(do, "-U", newer)...)
		if got, err := os.ReadFile(settings); err != nil || !bytes.Equal(got, []byte("# edited\n")) {
			t.Errorf("after the upgrade the settings are %.60q, %v", got, err)
		}
		if out := rpm("-q", "sekisho-agent"); !strings.HasPrefix(out, "sekisho-agent-1.1.0~rc.1") {
			t.Errorf("installed: %s", out)
		}
		rpm(append(do, "-e", "sekisho-agent")...)
		if _, err := os.Stat(filepath.Join(root, "usr/bin/sekisho-agent")); err == nil {
			t.Error("removed, but the program is there")
		}
		if got, err := os.ReadFile(settings + ".rpmsave"); err != nil || string(got) != "# edited\n" {
			t.Errorf("edited settings after the removal: %q, %v", got, err)
		}
	})
	t.Run("checksums", func(t *testing.T) {
		sums := exec.Command("sha256sum", "-c", "--strict", "SHA256SUMS")
		sums.Dir = filepath.Join(dist, "v1.0.0")
		out, err := sums.CombinedOutput()
		entries, _ := os.ReadDir(sums.Dir)
		if n := strings.Count(string(out), ": OK\n"); err != nil || n != len(entries)-1 {
			t.Errorf("%d of %d files: %v\n%s", n, len(entries)-1, err, out)
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
