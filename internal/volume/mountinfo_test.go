package volume

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestParseMountLine(t *testing.T) {
	tests := []struct {
		name string
		line string
		want mountLine
		bad  bool
	}{
		{name: "the manual's example", line: "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
			want: mountLine{36, 35, Dev{98, 0}, "/mnt1", "/mnt2", "rw,noatime", "ext3", "/dev/root", "rw,errors=continue", ""}},
		{name: "no tags", line: "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
			want: mountLine{22, 1, Dev{8, 1}, "/", "/", "rw", "ext4", "/dev/sda1", "rw", ""}},
		{name: "many tags", line: "22 1 8:1 / / rw shared:1 master:2 propagate_from:3 unbindable - ext4 /dev/sda1 rw",
			want: mountLine{22, 1, Dev{8, 1}, "/", "/", "rw", "ext4", "/dev/sda1", "rw", ""}},
		{name: "blank, tab, newline, backslash, # and Japanese in a name",
			line: `40 22 8:17 / /media/taro/USB\040\011\012\134\043メモリ rw - vfat /dev/sdb1 rw`,
			want: mountLine{40, 22, Dev{8, 17}, "/", "/media/taro/USB \t\n\\#メモリ", "rw", "vfat", "/dev/sdb1", "rw", ""}},
		{name: "escapes that are none", line: `40 22 8:17 / /a\9\04\400\ rw - vfat \\ rw`,
			want: mountLine{40, 22, Dev{8, 17}, "/", `/a\9\04\400\`, "rw", "vfat", `\\`, "rw", ""}},
		{name: "a share", line: "41 22 0:50 / /mnt/s rw - cifs //fs1/営業部 rw,vers=3.1.1",
			want: mountLine{41, 22, Dev{0, 50}, "/", "/mnt/s", "rw", "cifs", "//fs1/営業部", "rw,vers=3.1.1", ""}},
		{name: "an empty source", line: "41 22 0:50 / /mnt/s rw - tmpfs  rw",
			want: mountLine{41, 22, Dev{0, 50}, "/", "/mnt/s", "rw", "tmpfs", "", "rw", ""}},
		{name: "nothing", line: "", bad: true},
		{name: "no separator", line: "22 1 8:1 / / rw shared:1", bad: true},
		{name: "no type", line: "22 1 8:1 / / rw -", bad: true},
		{name: "a mount point that is none", line: "22 1 8:1 / (unreachable)/x rw - ext4 /dev/sda1 rw", bad: true},
		{name: "ids that are none", line: "x 1 8:1 / / rw - ext4 /dev/sda1 rw", bad: true},
		{name: "a device that is none", line: "22 1 8 / / rw - ext4 /dev/sda1 rw", bad: true},
		{name: "negative", line: "-22 1 8:1 / / rw - ext4 /dev/sda1 rw", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseMountLine(tt.line)
			if ok == tt.bad || ok && got != tt.want {
				t.Errorf("got %+v, %v\nwant %+v", got, ok, tt.want)
			}
		})
	}
	if lines, bad := parseMountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\nrubbish\n"); len(lines) != 1 || bad != 1 {
		t.Errorf("got %d lines and %d bad, want one of each", len(lines), bad)
	}
}

// line makes a line of mountinfo.
func line(id, parent int, dev, mount, typ, source string) string {
	return fmt.Sprintf("%d %d %s / %s rw - %s %s rw\n", id, parent, dev, strings.ReplaceAll(mount, " ", `\040`), typ, source)
}

func TestMountsUnderOtherMountsAreHidden(t *testing.T) {
	root := line(1, 0, "8:1", "/", "ext4", "/dev/sda1")
	tests := []struct {
		name string
		text string
		want []string // mounts that one sees, "id mount"
	}{
		{"side by side", root + line(2, 1, "8:2", "/a", "ext4", "x") + line(3, 1, "8:3", "/ab", "ext4", "x"), []string{"1 /", "2 /a", "3 /ab"}},
		{"one upon another", root + line(2, 1, "8:2", "/a", "ext4", "x") + line(3, 2, "8:3", "/a", "ext4", "x"), []string{"1 /", "3 /a"}},
		{"one below another that came later", root + line(2, 1, "8:2", "/a/b", "ext4", "x") + line(3, 1, "8:3", "/a", "ext4", "x"), []string{"1 /", "3 /a"}},
		{"one within another", root + line(2, 1, "8:2", "/a", "ext4", "x") + line(3, 2, "8:3", "/a/b", "ext4", "x"), []string{"1 /", "2 /a", "3 /a/b"}},
		{"within one that is covered", root + line(2, 1, "8:2", "/a", "ext4", "x") + line(3, 2, "8:3", "/a/b", "ext4", "x") + line(4, 2, "8:4", "/a", "ext4", "x"),
			[]string{"1 /", "4 /a"}},
		{"a new root over the old", root + line(2, 1, "8:2", "/a", "ext4", "x") + line(3, 1, "8:3", "/", "ext4", "x") + line(4, 3, "8:4", "/b", "ext4", "x"),
			[]string{"3 /", "4 /b"}},
		{"a parent that is not ours", line(7, 99, "8:1", "/", "ext4", "x"), []string{"7 /"}},
		{"parents in a circle", line(7, 8, "8:1", "/a", "ext4", "x") + line(8, 7, "8:1", "/b", "ext4", "x"), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines, _ := parseMountinfo(tt.text)
			hidden := hiddenMounts(lines)
			var got []string
			for i, l := range lines {
				if !hidden[i] {
					got = append(got, fmt.Sprint(l.ID, " ", l.Mount))
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("one sees %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(line(1, 0, "8:1", "/", "ext4", "/dev/sda1") + line(2, 1, "8:17", "/media/a b", "vfat", "/dev/sdb1"))
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add("1 1 0:0 / / rw - a\n1 1 0:0 / / rw - a\n")
	if own, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		f.Add(string(own))
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines, bad := parseMountinfo(text)
		if n := strings.Count(text, "\n") + 1; len(lines)+bad > n {
			t.Errorf("%d lines and %d bad of %d", len(lines), bad, n)
		}
		hidden := hiddenMounts(lines)
		all := make([]Volume, len(lines))
		for i, l := range lines {
			if !strings.HasPrefix(l.Mount, "/") || l.Type == "" {
				t.Errorf("line %+v", l)
			}
			all[i].Mount, all[i].Hidden = l.Mount, hidden[i]
		}
		m := newMounts(all)
		for i := range all {
			if _, ok := m.lookup(all[i].Mount); !hidden[i] && !ok {
				t.Errorf("%q is mounted and not found", all[i].Mount)
			}
		}
	})
}

// manyMounts is mountinfo with n mounts below the root.
func manyMounts(n int) string {
	var b strings.Builder
	b.WriteString(line(1, 0, "8:1", "/", "ext4", "/dev/sda1"))
	for i := range n {
		b.WriteString(line(i+2, 1, "0:30", fmt.Sprintf("/var/lib/containers/storage/overlay/%08x/merged", i), "overlay", "overlay"))
	}
	return b.String()
}

func BenchmarkParseMountinfo(b *testing.B) {
	text := manyMounts(1000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, bad := parseMountinfo(text); bad > 0 {
			b.Fatal("bad lines")
		}
	}
}
