package fileaudit

import (
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/event"
)

// The files of btrfs have other device numbers than their mount. What is moved out of a
// protected place there is told with its size, and so is where it goes from there.
func TestMovesOutOfAProtectedPlaceOnBtrfs(t *testing.T) {
	needFanotify(t)
	disk, stick := mountImage(t, "256M", "mkfs.btrfs", "-q"), mountTmpfs(t)
	run(t, `mkdir "$1/hr"; head -c 30000 /dev/urandom > "$1/hr/plan.doc"`, disk)
	w, out := watch(t, Options{Protected: []Place{{Label: "hr", Globs: []string{disk + "/hr"}}}}, nil, stick)
	run(t, `mv "$1/hr/plan.doc" "$1/mine.doc"`, disk)
	mine := filepath.Join(disk, "mine.doc")
	e := actions(collect(out, 2, time.Second), event.FileCopied)
	if len(e) != 1 || e[0].File.Path != mine || e[0].Copy.Bytes.V != 30000 || e[0].Copy.Evidence != evidenceRename || e[0].Copy.SourceProtected != "hr" {
		t.Fatalf("got %q; status %+v", lines(e, disk), w.Status())
	}
	run(t, `tail -c +1 "$1" > "$2/other name"`, mine, stick)
	e = actions(collect(out, 1, time.Second), event.FileCopied)
	if len(e) != 1 || e[0].Copy.SourceProtected != "hr" || e[0].Copy.SourcePath != mine {
		t.Errorf("got %q; status %+v", lines(e, stick), w.Status())
	}
}
