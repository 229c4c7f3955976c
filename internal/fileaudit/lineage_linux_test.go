package fileaudit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/event"
)

// A disk gives the number of a deleted file to the next one that is made: what the
// one held is not in the other.
func TestAFileIsNotTakenForADeletedOneWithItsNumber(t *testing.T) {
	needFanotify(t)
	disk, stick := mountExt4(t, "32M"), mountTmpfs(t)
	hr, open := filepath.Join(disk, "hr"), filepath.Join(disk, "open")
	run(t, `mkdir "$1" "$2"; head -c 5000 /dev/urandom > "$1/plan.doc"`, hr, open)
	_, out := watch(t, Options{Protected: []Place{{Label: "hr", Globs: []string{hr}}, {Label: "open", Globs: []string{open}}}}, nil, stick)
	run(t, `cp "$1/plan.doc" "$2/mine"`, hr, disk)
	if e := collect(out, 1, time.Second); len(e) != 1 || e[0].Copy == nil || e[0].Copy.SourceProtected != "hr" {
		t.Fatalf("got %q", lines(e, disk))
	}
	fi, err := os.Stat(filepath.Join(disk, "mine"))
	if err != nil {
		t.Fatal(err)
	}
	_, was := identity(fi)
	if err := os.Remove(filepath.Join(disk, "mine")); err != nil {
		t.Fatal(err)
	}
	name := ""
	for i := 0; name == "" && i < 100; i++ {
		p := filepath.Join(open, fmt.Sprintf("menu %d.doc", i))
		run(t, `head -c 3000 /dev/urandom > "$1"`, p)
		if fi, err := os.Stat(p); err != nil {
			t.Fatal(err)
		} else if _, ino := identity(fi); ino == was {
			name = p
		}
	}
	if name == "" {
		t.Skip("this ext4 does not give the number again")
	}
	collect(out, 1, time.Second)
	run(t, `cp "$1" "$2/"`, name, stick)
	e := actions(collect(out, 1, time.Second), event.FileCopied)
	if len(e) != 1 || e[0].Copy.SourcePath != name || e[0].Copy.SourceProtected != "open" || e[0].Copy.SourceIDs[0] != sourceID(name) {
		t.Errorf("got %q, source %+v", lines(e, stick), e[0].Copy)
	}
}
