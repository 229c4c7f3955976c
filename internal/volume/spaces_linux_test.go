package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// plain makes a /proc with the id that was given last, and processes in namespaces.
type plain struct {
	t   testing.TB
	dir string
}

func (p plain) newest(id int) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "loadavg"), fmt.Appendf(nil, "0.20 0.18 0.12 1/80 %d\n", id), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p plain) process(name, space, mountinfo string) {
	p.t.Helper()
	ns := filepath.Join(p.dir, name, "ns")
	if err := os.MkdirAll(ns, 0o755); err != nil {
		p.t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(ns, "mnt"))
	if err := os.Symlink("mnt:["+space+"]", filepath.Join(ns, "mnt")); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, name, "mountinfo"), []byte(mountinfo), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p plain) ends(name string) {
	if err := os.RemoveAll(filepath.Join(p.dir, name)); err != nil {
		p.t.Fatal(err)
	}
}

// What is found, step by step, five seconds after each other.
func TestOtherNamespacesAreLookedIntoWhereSomethingStarted(t *testing.T) {
	p := plain{t, t.TempDir()}
	root := line(1, 0, "8:1", "/", "ext4", "/dev/sda1")
	usb := func(id int) string {
		return line(id, 1, fmt.Sprintf("8:%d", id), fmt.Sprintf("/mnt/%d", id), "vfat", "x")
	}
	p.newest(100)
	p.process("self", "1", root)
	p.process("10", "1", root)
	p.process("20", "2", root+usb(20))
	ours := map[Dev]bool{{8, 1}: true}
	s := newSpaces(p.dir)
	now := time.Now()
	for _, step := range []struct {
		name  string
		do    func()
		after time.Duration
		other bool
		want  string
	}{
		{"at first", func() {}, 0, false, "20:/mnt/20"},
		{"it may go elsewhere yet", func() {}, settled, false, "20:/mnt/20"},
		{"nothing started", func() { p.process("20", "2", root+usb(20)+usb(21)) }, settled, false, "20:/mnt/20"},
		{"something did", func() { p.newest(101); p.process("101", "3", root+usb(30)) }, settled, false, "101:/mnt/30 20:/mnt/20 20:/mnt/21"},
		{"one that is new", func() { p.newest(106); p.process("105", "5", root+usb(50)) }, 0, false, "101:/mnt/30 105:/mnt/50 20:/mnt/20 20:/mnt/21"},
		{"and has ended", func() { p.ends("105"); p.newest(107) }, 0, false, "101:/mnt/30 20:/mnt/20 20:/mnt/21"},
		{"it goes elsewhere", func() { p.newest(108); p.process("101", "1", root) }, settled, false, "20:/mnt/20 20:/mnt/21"},
		{"one that stays is not asked", func() { p.newest(109); p.process("10", "4", root+usb(40)) }, settled, false, "20:/mnt/20 20:/mnt/21"},
		{"within a minute it is", func() {}, askAll, false, "10:/mnt/40 20:/mnt/20 20:/mnt/21"},
		{"a namespace goes, and nothing starts", func() { p.ends("20") }, settled, false, "10:/mnt/40"},
		{"ours are others", func() { ours[Dev{8, 40}] = true }, settled, true, ""},
	} {
		step.do()
		now = now.Add(step.after)
		var got []string
		for _, l := range s.look(newestTask(p.dir), ours, step.other, now) {
			got = append(got, filepath.Base(filepath.Dir(l.reach))+":"+l.Mount)
		}
		slices.Sort(got)
		if got := strings.Join(got, " "); got != step.want {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

func TestTheNewestTask(t *testing.T) {
	for text, want := range map[string]string{"0.20 0.18 0.12 1/80 11206\n": "11206", "": "", "7\n": "7"} {
		p := plain{t, t.TempDir()}
		if err := os.WriteFile(filepath.Join(p.dir, "loadavg"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := newestTask(p.dir); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := newestTask(t.TempDir()); got != "" {
		t.Errorf("without a file: %q", got)
	}
}
