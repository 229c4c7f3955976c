package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
)

// Each is made below a folder of root's; people is an account that is not root's.
func TestRulesThatPeopleMayChangeAreTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files away")
	}
	const people = 65534
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string) (path string) // dir holds d/r/x.yml
		want   string                                       // after "rules in DIR"; "": nobody may
	}{
		{"root's", func(*testing.T, string) string { return "d/r" }, ""},
		{"a file of root's", func(*testing.T, string) string { return "d/r/x.yml" }, ""},
		{"that is not there", func(*testing.T, string) string { return "d/none" }, ""},
		{"a folder of a user", func(t *testing.T, dir string) string { chown(t, dir+"/d/r", people); return "d/r" }, "/d/r: nobody, no administrator, may change them"},
		{"a file in it of a user", func(t *testing.T, dir string) string { chown(t, dir+"/d/r/x.yml", people); return "d/r" }, "/d/r/x.yml: nobody, no administrator, may change them"},
		{"a folder above of a user", func(t *testing.T, dir string) string { chown(t, dir+"/d", people); return "d/r" }, "/d: nobody, no administrator, may change them"},
		{"for everybody", func(t *testing.T, dir string) string { chmod(t, dir+"/d/r", 0o777); return "d/r" }, "/d/r: everybody may change them"},
		{"for everybody, to make files of their own", func(t *testing.T, dir string) string { chmod(t, dir+"/d/r", os.ModeSticky|0o777); return "d/r" }, "/d/r: everybody may change them"},
		{"a file for everybody", func(t *testing.T, dir string) string { chmod(t, dir+"/d/r/x.yml", 0o666); return "d/r/x.yml" }, "/d/r/x.yml: everybody may change them"},
		{"for root's group", func(t *testing.T, dir string) string { chmod(t, dir+"/d/r", 0o775); return "d/r" }, ""},
		{"for a group", func(t *testing.T, dir string) string {
			if err := os.Chown(dir+"/d/r", 0, people); err != nil {
				t.Fatal(err)
			}
			chmod(t, dir+"/d/r", 0o775)
			return "d/r"
		}, "/d/r: the group nogroup, no administrator, may change them"},
		{"an access list", func(t *testing.T, dir string) string {
			// Version 2; user:: rwx, user:65534 rwx, group:: r-x, mask rwx, other r-x (linux/posix_acl_xattr.h).
			list := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\xfe\xff\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
			if err := unix.Setxattr(dir+"/d/r", "system.posix_acl_access", []byte(list), 0); err != nil {
				t.Skip("no access lists on this file system: ", err)
			}
			return "d/r"
		}, "/d/r: somebody named in its access list, no administrator, may change them"},
		{"below a folder where everybody may make files", func(t *testing.T, dir string) string { chmod(t, dir+"/d", os.ModeSticky|0o777); return "d/r" }, ""},
		{"a link of root's", func(t *testing.T, dir string) string { linkTo(t, "r", dir+"/d/l"); return "d/l" }, ""},
		{"a link to what a user may change", func(t *testing.T, dir string) string {
			linkTo(t, dir+"/d/r", dir+"/l")
			chown(t, dir+"/d", people)
			return "l"
		}, "/d: nobody, no administrator, may change them"},
		{"a link that a user may replace", func(t *testing.T, dir string) string {
			linkTo(t, "r", dir+"/d/l")
			chmod(t, dir+"/d", os.ModeSticky|0o777)
			if err := os.Lchown(dir+"/d/l", people, people); err != nil {
				t.Fatal(err)
			}
			return "d/l"
		}, "/d/l: nobody, no administrator, may change them"},
		{"a file in it that is a link to one of a user", func(t *testing.T, dir string) string {
			write(t, dir+"/his.yml", "")
			chown(t, dir+"/his.yml", people)
			linkTo(t, "../../his.yml", dir+"/d/r/y.yml")
			return "d/r"
		}, "/his.yml: nobody, no administrator, may change them"},
		{"links without end", func(t *testing.T, dir string) string { linkTo(t, "l", dir+"/l"); return "l" }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(dir+"/d/r", 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, dir+"/d/r/x.yml", ownRule)
			open := openRules([]string{filepath.Join(dir, tt.change(t, dir))})
			want := ""
			if tt.want != "" {
				want = "rules in " + dir + tt.want
			}
			if got := strings.Join(open, "\n"); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			for _, text := range open {
				if ja := endpoint.Why(strings.Replace(text, dir, "", 1), "ja"); !strings.HasSuffix(ja, "変えられます") || strings.Contains(ja, "everybody") || strings.Contains(ja, "somebody") || strings.Contains(ja, "the group") {
					t.Errorf("in Japanese %q", ja)
				}
			}
		})
	}
}

func chown(t *testing.T, path string, uid int) {
	t.Helper()
	if err := os.Chown(path, uid, uid); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func linkTo(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// The whole way: the agent that runs says so, until it is mended.
func TestStatusTellsOfRulesThatPeopleMayChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives files away")
	}
	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "rules"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "rules", "x.yml"), ownRule)
	chmod(t, filepath.Join(dir, "rules"), 0o777)
	r := start(t, dir, "rules: {paths: [rules]}\n", newScripted())
	want := "rules in " + filepath.Join(dir, "rules") + ": everybody may change them"
	if got := r.status().Rules.Problems; len(got) != 1 || got[0] != want {
		t.Errorf("status says %q, want %q", got, want)
	}
	var found bool
	for _, c := range Doctor(t.Context(), r.o.ConfigFile) {
		found = found || c.Code == "DOC-15" && c.Result == CheckWarning && strings.Contains(c.Why.EN, want) && strings.Contains(c.Why.JA, "だれでも")
	}
	if !found {
		t.Error("the doctor says nothing")
	}
	chmod(t, filepath.Join(dir, "rules"), 0o755)
	if _, err := r.ctl.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.status().Rules.Problems; len(got) != 0 {
		t.Errorf("mended, status says %q", got)
	}
}
