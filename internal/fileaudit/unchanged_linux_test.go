package fileaudit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/volume"
)

// mountImage mounts a fresh image of a file system and returns where.
func mountImage(t *testing.T, size string, mkfs ...string) string {
	t.Helper()
	if _, err := exec.LookPath(mkfs[0]); err != nil {
		t.Skipf("no %s here", mkfs[0])
	}
	dir := t.TempDir()
	img, at := filepath.Join(dir, "disk.img"), filepath.Join(dir, "disk")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"truncate", "-s", size, img}, append(mkfs, img), {"mount", "-o", "loop", img, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", c[0], err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// A program that reads a document of a share, and opens its copy here for writing without
// writing to it, has copied nothing. What is written and has an old time, or is written
// by a memory map, is a copy, on file systems that keep a change time and on others.
func TestALocalFileThatIsNotWrittenToIsNoCopy(t *testing.T) {
	needFanotify(t)
	py, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	ext4, btrfs := []string{"mkfs.ext4", "-q", "-F"}, []string{"mkfs.btrfs", "-q"}
	for _, tt := range []struct {
		name  string
		keeps bool
		size  string
		mkfs  []string
	}{{"ext4", true, "32M", ext4}, {"ext4", false, "32M", ext4}, {"btrfs", true, "256M", btrfs}} {
		t.Run(fmt.Sprintf("%s, change time kept %v", tt.name, tt.keeps), func(t *testing.T) {
			if !tt.keeps { // as on vfat and exFAT
				delete(keepsChangeTime, tt.name)
				t.Cleanup(func() { keepsChangeTime[tt.name] = true })
			}
			share, disk := mountTmpfs(t), mountImage(t, tt.size, tt.mkfs...)
			run(t, `head -c 30000 /dev/urandom > "$1/plan.doc"; touch -d 2020-01-01 "$1/plan.doc"`, share)
			w, out := watch(t, Options{}, map[string]string{share: "nas:/hr"})
			for _, step := range []struct {
				name, script string
				want         []string
			}{
				{"copied with its time", `cp -p "$1/plan.doc" "$2/plan.doc"`, []string{"file-copied plan.doc 30000"}},
				{"not written to", `cat "$1/plan.doc" > /dev/null; : 3<>"$2/plan.doc"; sleep 0.1`, nil},
				{"written by a memory map", `"$3" -c 'import mmap, sys
a = open(sys.argv[1], "rb").read(); f = open(sys.argv[2], "r+b"); m = mmap.mmap(f.fileno(), 0); m[:] = a; m.close(); f.close()' "$1/plan.doc" "$2/plan.doc"`,
					[]string{"file-copied plan.doc 30000"}},
				{"not written to then", `cat "$1/plan.doc" > /dev/null; : 3<>"$2/plan.doc"; sleep 0.1`, nil},
			} {
				run(t, step.script, share, disk, py)
				if got := lines(collect(out, len(step.want), time.Second), disk); !slices.Equal(got, step.want) {
					t.Errorf("%s: got %q, want %q; status %+v", step.name, got, step.want, w.Status())
				}
			}
		})
	}
}

// What the times of a file that is closed say of whether it was written to.
func TestWrittenToByItsTimes(t *testing.T) {
	now := time.Unix(100_000, 0)
	id := fileKey{volume.Dev{Minor: 1}, 2}
	at := func(ago time.Duration) unix.StatxTimestamp { return unix.StatxTimestamp{Sec: now.Add(-ago).Unix()} }
	for _, tt := range []struct {
		name             string
		keeps, told      bool
		changed, written time.Duration // ago
		was              *fileTimes
		size             uint64
		want             bool
	}{
		{"the kernel says so", true, true, time.Hour, time.Hour, nil, 5, true},
		{"made just now", true, false, 0, 0, nil, 5, true},
		{"written, and given an old time", true, false, 0, time.Hour, nil, 5, true},
		{"the same without a change time", false, false, 0, time.Hour, nil, 5, false},
		{"known to be so", true, false, 0, 0, &fileTimes{now, now}, 5, false},
		{"renamed a while after it was written", true, false, 2 * time.Minute, 3 * time.Minute, &fileTimes{now.Add(-3 * time.Minute), now.Add(-3 * time.Minute)}, 5, false},
		{"held open for minutes after it was written", true, false, 5 * time.Minute, 5 * time.Minute, &fileTimes{now.Add(-time.Hour), now.Add(-time.Hour)}, 5, true},
		{"written by another PC minutes ago", false, false, 5 * time.Minute, 5 * time.Minute, nil, 5, false},
		{"written long ago", true, false, time.Hour, time.Hour, nil, 5, false},
		{"written long ago, without a change time", false, false, 0, time.Hour, nil, 5, false},
		{"empty, made with an old time, without a change time", false, false, 0, time.Hour, nil, 0, true},
		{"the same again", false, false, 0, time.Hour, &fileTimes{now, now.Add(-time.Hour)}, 0, false},
		{"an old empty one", true, false, time.Hour, time.Hour, nil, 0, false},
	} {
		g := &group{written: map[fileKey]bool{id: tt.told}, rested: map[fileKey]fileTimes{}}
		if tt.was != nil {
			g.rested[id] = *tt.was
		}
		st := &unix.Statx_t{Size: tt.size, Ctime: at(tt.changed), Mtime: at(tt.written)}
		if got := g.wrote(id, st, now, tt.keeps); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if g.wrote(id, st, now, tt.keeps) {
			t.Errorf("%s: it counts as written to once more", tt.name)
		}
	}
}
