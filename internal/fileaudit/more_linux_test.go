package fileaudit

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/volume"
)

func actions(events []*event.Event, a event.Action) []*event.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e *event.Event) bool { return e.Action != a })
}

// count notes the files of a copy without a source, all of one size, and returns
// the bytes of those that are new.
func count(seen map[string]bool, e *event.Event) (bytes int64) {
	for _, p := range append(slices.Clone(e.Copy.Paths), e.File.Path) {
		if !seen[p] {
			seen[p] = true
			bytes += e.Copy.Bytes.V / e.Copy.Files.V
		}
	}
	return bytes
}

func TestProtectedPlaces(t *testing.T) {
	needFanotify(t)
	root := mountExt4(t, "32M")
	hr, open := filepath.Join(root, "hr"), filepath.Join(root, "open")
	run(t, `mkdir -p "$1/2026/a" "$2"; printf %0100d 1 > "$1/2026/a/list.csv"; printf 1234567 > "$1/plan.xlsx"`, hr, open)
	_, out := watch(t, Options{Reads: true, Protected: []Place{{Label: "人事", Globs: []string{hr + "/**"}}}}, nil)

	run(t, `cat "$1/2026/a/list.csv" >/dev/null; cat "$1/2026/a/list.csv" > "$2/copy of list.csv"; cp "$1/plan.xlsx" "$2/"; echo x > "$2/unrelated"`, hr, open)
	got := collect(out, 5, time.Second)
	var short []string
	for _, e := range got {
		s := string(e.Action) + " " + e.File.Name + " " + e.File.Protected
		if e.Copy != nil {
			s += " < " + filepath.Base(e.Copy.SourcePath) + " " + e.Copy.SourceProtected + " " + e.Copy.SourceVolumeKind
		}
		short = append(short, s)
	}
	slices.Sort(short)
	want := []string{
		"file-copied copy of list.csv  < list.csv 人事 local", "file-copied plan.xlsx  < plan.xlsx 人事 local",
		"file-read list.csv 人事", "file-read list.csv 人事", "file-read plan.xlsx 人事",
	}
	if !slices.Equal(short, want) {
		t.Errorf("got %q\nwant %q", short, want)
	}

	t.Run("moved out", func(t *testing.T) {
		run(t, `mv "$1/plan.xlsx" "$2/holiday.jpg"`, hr, open)
		e := collect(out, 2, 600*time.Millisecond)
		if len(e) != 2 || e[0].Action != event.FileCopied || e[0].Copy.Evidence != "rename" || e[0].Copy.SourcePath != hr+"/plan.xlsx" || e[0].Copy.Bytes.V != 7 || e[0].Copy.SourceProtected != "人事" ||
			e[1].Action != event.FileRenamed || e[1].Copy.SourceProtected != "人事" {
			t.Errorf("got %q", lines(e, open))
		}
	})
	t.Run("fresh folder", func(t *testing.T) {
		run(t, `mkdir -p "$1/2027/q1"; sleep 3; printf 12 > "$1/2027/q1/new.csv"; cat "$1/2027/q1/new.csv" >/dev/null`, hr)
		got := lines(collect(out, 2, 700*time.Millisecond), hr)
		if want := []string{"file-read 2027/q1/new.csv", "file-written 2027/q1/new.csv"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestProtectedPlacesAreReplacedWhileRunning(t *testing.T) {
	needFanotify(t)
	root := mountExt4(t, "32M")
	run(t, `mkdir "$1/a" "$1/b"`, root)
	w, out := watch(t, Options{Protected: []Place{{Label: "a", Globs: []string{root + "/a"}}}}, nil)
	w.SetProtected([]Place{{Label: "b", Globs: []string{root + "/b/**"}}})
	for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, root+"/b"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	run(t, `echo 1 > "$1/a/x"; echo 1 > "$1/b/x"`, root)
	if got, want := lines(collect(out, 1, 700*time.Millisecond), root), []string{"file-written b/x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Written to and at once unmounted, three times at the same place.
func TestAStickThatComesAndGoes(t *testing.T) {
	needFanotify(t)
	dir := t.TempDir()
	at, img := filepath.Join(dir, "USB"), filepath.Join(dir, "img")
	run(t, `mkdir "$2"; truncate -s 16M "$1"`, img, at)
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", img).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	vw := volume.New(volume.Options{RemovablePaths: []string{at}})
	ctx, cancel := context.WithCancel(context.Background())
	discard := make(chan *event.Event, 1024)
	out := make(chan *event.Event, 1024)
	w := New(Options{Table: vw.Table()})
	done := make(chan error, 2)
	go func() { done <- vw.Run(ctx, discard) }()
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	for round := range 3 {
		if o, err := exec.Command("mount", "-o", "loop", img, at).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, o)
		}
		for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, at); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				_ = unix.Unmount(at, unix.MNT_DETACH)
				t.Fatalf("the stick is not watched: %+v", w.Status())
			}
		}
		run(t, `printf 12345 > "$1/f$2"; sync`, at, fmt.Sprint(round))
		time.Sleep(20 * time.Millisecond)
		// Without force: nothing of ours may hold it.
		if err := unix.Unmount(at, 0); err != nil {
			_ = unix.Unmount(at, unix.MNT_DETACH)
			t.Fatalf("unmount in round %d: %v", round, err)
		}
		got := lines(collect(out, 1, 700*time.Millisecond), at)
		if want := []string{fmt.Sprintf("file-copied f%d 5", round)}; !slices.Equal(got, want) {
			t.Errorf("round %d: got %q, want %q", round, got, want)
		}
		for deadline := time.Now().Add(time.Minute); slices.Contains(w.Status().Watching, at); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the stick is gone and still watched: %+v", w.Status())
			}
		}
	}
}

// overlay tells no names, as exFAT, NFS and CIFS do not.
func TestRenamesAreFoundWhereTheyAreNotTold(t *testing.T) {
	needFanotify(t)
	base := mountTmpfs(t)
	at := filepath.Join(base, "merged")
	run(t, `mkdir "$1/lower" "$1/upper" "$1/work" "$1/merged"`, base)
	if err := unix.Mount("overlay", at, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", base, base, base)); err != nil {
		t.Skipf("mount overlay: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	_, out := watch(t, Options{}, nil, at)
	run(t, `printf 12345 > "$1/.a.Xy"; mv "$1/.a.Xy" "$1/a"; printf 1 > "$1/t"; rm "$1/t"; mkdir "$1/d"; printf 123 > "$1/d/b"; sleep 0.1; mv "$1/d" "$1/e"`, at)
	e := collect(out, 2, 700*time.Millisecond)
	if got, want := lines(e, at), []string{"file-copied a 5", "file-copied d/b 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, e := range e {
		if e.File.Name == "b" && len(e.Errors) == 0 {
			t.Error("that its path is not the one it has now is not told")
		}
	}
}

// A file is moved out of a folder that is removed at once: its old place cannot be
// told any more when the record of the move is read.
func TestAMoveOutOfAFolderThatIsGone(t *testing.T) {
	stick := mountTmpfs(t)
	c, dev, out := stickAt(t, stick, Options{})
	run(t, `mkdir "$1/d"; printf 12345 > "$1/d/a"; mv "$1/d/a" "$1/b"; rmdir "$1/d"`, stick)
	fi, err := os.Stat(stick + "/b")
	if err != nil {
		t.Fatal(err)
	}
	_, ino := identity(fi)
	c.handle(t.Context(), record{kind: recWrote, at: time.Now(), path: stick + "/d/a", size: 5, dev: dev, ino: ino, names: true})
	c.handle(t.Context(), record{kind: recRenamed, at: time.Now(), path: stick + "/b", size: -1, dev: dev, names: true})
	c.finish(t.Context(), c.set.take(time.Now().Add(time.Hour)), false)
	if len(out) != 1 {
		t.Fatalf("%d events, want 1", len(out))
	}
	if e := <-out; e.Action != event.FileCopied || e.File.Name != "b" {
		t.Errorf("told %s %s", e.Action, e.File.Path)
	}
}

func TestOddNames(t *testing.T) {
	needFanotify(t)
	stick := mountExt4(t, "32M")
	_, out := watch(t, Options{}, nil, stick)
	names := []string{"new\nline", "bad\xff\xfeutf8", "plan (deleted)", "-rf", " ", "犬.PDF", strings.Repeat("あ", 85)}
	want := []string{}
	for _, n := range names {
		if err := os.WriteFile(filepath.Join(stick, n), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		want = append(want, n)
	}
	// By another process: ours is not told.
	var got []string
	if e := collect(out, 0, 500*time.Millisecond); len(e) != 0 {
		t.Errorf("what we write ourselves is told: %q", lines(e, stick))
	}
	run(t, `cd "$1"; mkdir copies; for f in ./*; do if [ -f "$f" ]; then cp -- "$f" copies/; fi; done`, stick)
	for _, e := range collect(out, len(names), 700*time.Millisecond) {
		got = append(got, e.File.Name)
		if e.File.Path != filepath.Join(stick, "copies", e.File.Name) {
			t.Errorf("path %q", e.File.Path)
		}
		if e.File.Name == "犬.PDF" && e.File.Extension != "pdf" {
			t.Errorf("extension %q", e.File.Extension)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	// A path longer than the kernel tells.
	deep := `import os,sys
os.chdir(sys.argv[1])
for i in range(30):
    os.mkdir("d"*200); os.chdir("d"*200)
open("x","w").write("12345")`
	if py, err := exec.LookPath("python3"); err == nil {
		if o, err := exec.Command(py, "-c", deep, stick).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, o)
		}
		e := collect(out, 1, 700*time.Millisecond)
		if len(e) != 1 || e[0].Action != event.FileCopied || e[0].File.Path != "" || e[0].Copy.Bytes.V != 5 || len(e[0].Errors) == 0 {
			t.Errorf("got %d events, %+v", len(e), e)
		}
		// Removing it by its long path is beyond os.RemoveAll of the test; the volume goes as a whole.
	}
}

func TestIgnoredProgramsAreNotTold(t *testing.T) {
	needFanotify(t)
	stick := mountTmpfs(t)
	_, out := watch(t, Options{IgnoreExecutables: []string{"/usr/bin/cp", "/bin/cp"}}, nil, stick)
	run(t, `cp /etc/hostname "$1/a"; cat /etc/hostname > "$1/b"`, stick)
	if got := collect(out, 1, 700*time.Millisecond); len(got) != 1 || got[0].File.Name != "b" {
		t.Errorf("got %q", lines(got, stick))
	}
}

// The pipeline stands still while 5,000 files are written: what our queue cannot
// hold is counted, and the volume looked through.
func TestAStallLosesNothingSilently(t *testing.T) {
	needFanotify(t)
	stick := mountTmpfs(t)
	vw := volume.New(volume.Options{RemovablePaths: []string{stick}})
	ctx, cancel := context.WithCancel(context.Background())
	discard, out := make(chan *event.Event, 1024), make(chan *event.Event)
	w := New(Options{Table: vw.Table(), MaxQueued: 500})
	done := make(chan error, 2)
	go func() { done <- vw.Run(ctx, discard) }()
	go func() { done <- w.Run(ctx, out) }()
	defer func() { cancel(); <-done; <-done }()
	for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, stick); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	// Of one size: what is found after the loss is told as few events with totals.
	run(t, `printf 12345 > "$1/first"; sleep 0.5; i=0; while [ $i -lt 5000 ]; do printf 12345 > "$1/$i"; i=$((i+1)); done`, stick)
	seen := map[string]bool{}
	var bytes, lost int64
	for _, e := range collect(out, 1, 6*time.Second) {
		if e.Action == event.EventsLost {
			lost += e.Lost.Count.V
			continue
		}
		bytes += count(seen, e)
	}
	t.Logf("%d files seen, %d records lost", len(seen), lost)
	if lost == 0 || w.Status().Lost != uint64(lost) {
		t.Errorf("%d lost told, status %+v", lost, w.Status())
	}
	if len(seen) != 5001 || bytes != 5001*5 {
		t.Errorf("%d files, %d bytes, want 5001, 25005", len(seen), bytes)
	}
}

func TestInotifyWhereFanotifyIsRefused(t *testing.T) {
	stick := t.TempDir()
	if unix.Mount("stick", stick, "tmpfs", 0, "size=16m") == nil {
		t.Cleanup(func() { _ = unix.Unmount(stick, unix.MNT_DETACH) })
	} else {
		t.Skip("cannot mount a tmpfs as a stick")
	}
	w, out := watch(t, Options{LesserOnly: true}, nil, stick)
	s := w.Status()
	if s.State != endpoint.SensorDegraded || s.Mechanism != "inotify" || !strings.Contains(s.Reason, "no process") {
		t.Errorf("status %+v", s)
	}
	run(t, `printf 12345 > "$1/a"; mkdir -p "$1/d/e"; sleep 2; printf 1 > "$1/d/e/b"; printf 123 > "$1/.t"; mv "$1/.t" "$1/c"`, stick)
	e := actions(collect(out, 3, 1500*time.Millisecond), event.FileCopied)
	if got, want := lines(e, stick), []string{"file-copied a 5", "file-copied c 3", "file-copied d/e/b 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, x := range e {
		if x.Process != nil || len(x.Errors) == 0 || !strings.Contains(x.Errors[0], "process unknown") {
			t.Errorf("event %+v", x)
		}
	}
}

// The agent gets no CPU while more files are written than the kernel's queue
// holds: a program of ours is stopped meanwhile.
func TestAnOverflowOfTheKernelsQueueIsToldAndMadeGood(t *testing.T) {
	needFanotify(t)
	if testing.Short() {
		t.Skip("writes 20,000 files")
	}
	const n = 20_000
	stick := mountTmpfs(t)
	cmd, lines := stopped(t, stick)
	run(t, `cd "$1"; head -c 100000 /dev/zero | split -b 5 -a 4 - f`, stick)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var files, bytes, lost int64
	if !lines.Scan() {
		t.Fatal("helper says nothing")
	}
	if _, err := fmt.Sscan(lines.Text(), &files, &bytes, &lost); err != nil {
		t.Fatalf("helper says %q: %v", lines.Text(), err)
	}
	t.Logf("%d files seen, %d losses told", files, lost)
	if lost == 0 {
		t.Error("no loss is told")
	}
	if files != n || bytes != 5*n {
		t.Errorf("%d files, %d bytes, want %d, %d", files, bytes, n, 5*n)
	}
}

// A file that cannot be opened for an event, here for want of descriptors, makes
// the kernel drop it, and say so only if it was the first of those read.
func TestEventsThatCannotBeOpenedAreCounted(t *testing.T) {
	needFanotify(t)
	const n = 3000
	stick := mountTmpfs(t)
	cmd, lines := stopped(t, stick, "FILEAUDIT_HELPER_FILES=24")
	run(t, fmt.Sprintf(`cd "$1"; head -c %d /dev/zero | split -b 5 -a 4 - f`, 5*n), stick)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	var files, bytes, lost int64
	if !lines.Scan() {
		t.Fatal("helper says nothing")
	}
	if _, err := fmt.Sscan(lines.Text(), &files, &bytes, &lost); err != nil {
		t.Fatalf("helper says %q: %v", lines.Text(), err)
	}
	t.Logf("%d files seen, %d losses told", files, lost)
	if files+lost < n {
		t.Errorf("%d files seen and %d lost of %d: %d went missing silently", files, lost, n, n-files-lost)
	}
}

// TestMain is also the helper: it watches a stick and tells what it saw, once
// something was and then nothing more for ten seconds. FILEAUDIT_HELPER_FILES is
// how many files it may have open.
func TestMain(m *testing.M) {
	if len(os.Args) < 3 || os.Args[1] != "fileaudit-helper" {
		os.Exit(m.Run())
	}
	stick := os.Args[2]
	vw := volume.New(volume.Options{RemovablePaths: []string{stick}})
	out := make(chan *event.Event, 1024)
	w := New(Options{Table: vw.Table()})
	go func() { _ = vw.Run(context.Background(), make(chan *event.Event, 1024)) }()
	go func() { _ = w.Run(context.Background(), out) }()
	for !slices.Contains(w.Status().Watching, stick) {
		time.Sleep(time.Millisecond)
	}
	if n, err := strconv.ParseUint(os.Getenv("FILEAUDIT_HELPER_FILES"), 10, 64); err == nil {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
	}
	fmt.Println("ready")
	began := spent()
	seen := map[string]bool{}
	var bytes, lost int64
	quiet := time.NewTimer(time.Minute)
	for done := false; !done; {
		select {
		case e := <-out:
			switch {
			case e.Lost != nil:
				lost += e.Lost.Count.V
			case e.Copy != nil:
				bytes += count(seen, e)
			}
			quiet.Reset(10 * time.Second)
		case <-quiet.C:
			done = true
		}
	}
	fmt.Println(len(seen), bytes, lost, "cpu of a file:", (spent()-began)/time.Duration(max(len(seen), 1)))
	os.Exit(0)
}

// A share whose server stops answering: other places go on being watched, and we
// can be stopped.
func TestADeadShareStopsNothingElse(t *testing.T) {
	needFanotify(t)
	behind, stick := t.TempDir(), mountTmpfs(t)
	run(t, `printf %0100d 1 > "$1/plan.doc"`, behind)
	share, server := shown(t, behind)
	w, out := watch(t, Options{}, map[string]string{share: "nas:/vol"}, stick)
	run(t, `cp "$1/plan.doc" "$2/plan.doc"`, share, stick)
	e := collect(out, 1, 700*time.Millisecond)
	if len(e) != 1 || e[0].Copy == nil || e[0].Copy.SourceShare != "nas:/vol" {
		t.Fatalf("got %q", lines(e, stick))
	}
	// It dies while files of it are opened, more than the reader of its records
	// opens meanwhile, so that it hangs.
	run(t, `for i in $(seq 50); do echo $i >"$1/$i.doc"; done`, behind)
	for range 4 {
		hung := exec.Command("/bin/sh", "-c", `while :; do cat "$1"/*; done >/dev/null`, "sh", share)
		if err := hung.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = hung.Process.Kill() }) // its cat goes with the server
	}
	time.Sleep(time.Second)
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	run(t, `printf 12345 > "$1/while dead"`, stick)
	e = slices.DeleteFunc(collect(out, 1, 2*time.Second), func(e *event.Event) bool { return e.Action != event.FileCopied })
	if len(e) != 1 || e[0].File.Name != "while dead" {
		t.Errorf("got %q", lines(e, stick))
	} else if d := e[0].Created.Sub(began); d > 3*maxLag {
		t.Errorf("told after %v", d)
	}
	says := func(state endpoint.SensorState, reason string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if s := w.Status(); s.State == state && s.Reason == reason {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("status %+v", s)
			}
		}
	}
	says(endpoint.SensorDegraded, "watch "+share+": "+errStuck.Error())
	if err := server.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	says(endpoint.SensorOK, "")
}

// A folder that a sync program brings elsewhere, on a disk of ours.
func TestFoldersOfSyncPrograms(t *testing.T) {
	needFanotify(t)
	root := mountExt4(t, "32M")
	cloud := filepath.Join(root, "home/taro/OneDrive")
	run(t, `mkdir -p "$1/sub" "$2"; cp /bin/cp "$2/onedrive"`, cloud, filepath.Join(root, "bin"))
	hr := filepath.Join(root, "hr")
	run(t, `mkdir "$1"; head -c 5000 /dev/urandom > "$1/plan.doc"`, hr)
	w, out := watchAs(t, Options{Protected: []Place{{Label: "hr", Globs: []string{hr}}}}, volume.Options{HomeRoot: root}, asShares(nil), cloud)
	run(t, `cp "$1/plan.doc" "$2/sub/x"; echo mine > "$2/y"; "$3/bin/onedrive" /etc/hostname "$2/brought"; echo 1 > "$3/elsewhere"`, hr, cloud, root)
	var got []string
	for _, e := range collect(out, 2, time.Second) {
		s := fmt.Sprint(e.Action, " ", e.File.Name, " ", e.File.VolumeKind, " ", e.File.Share)
		if e.Copy != nil {
			s += " < " + e.Copy.SourceProtected
		}
		got = append(got, s)
	}
	slices.Sort(got)
	if want := []string{"file-copied x cloud-sync OneDrive < hr", "file-written y cloud-sync OneDrive"}; !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q; status %+v", got, want, w.Status())
	}
}

// Where the kernel does not tell of new folders, they are found after a while; also where
// no place is protected.
func TestFoldersOfSyncProgramsAreLookedForAgain(t *testing.T) {
	needFanotify(t)
	root := mountExt4(t, "32M")
	cloud := filepath.Join(root, "home/taro/Nextcloud")
	run(t, `mkdir -p "$1"`, cloud)
	w := newWatchers(Options{Reads: true}, volume.Options{HomeRoot: root}, asShares(nil))
	w.again = 200 * time.Millisecond
	q, procs, out := newQueue(1000), newProcesses(&w.opts), make(chan *event.Event, 1024)
	src, err := w.newNative(q, procs, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	f.names.close()
	<-f.names.done
	f.names = nil // as on kernels before 5.17
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- w.volumes.Run(ctx, make(chan *event.Event, 1024)) }()
	go func() { done <- newCore(w.Watcher, q, procs, out).run(ctx, src, mechFanotify, "", 0) }()
	defer func() { cancel(); <-done; <-done }()
	for limit := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, cloud); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	time.Sleep(time.Second) // looks that the start brings are over
	run(t, `mkdir "$1/new"; echo 1 > "$1/new/a"`, cloud)
	for limit := time.Now().Add(2 * time.Minute); ; { // what is written the disk tells; what is read, the folder
		run(t, `cat "$1/new/a" > /dev/null`, cloud)
		if slices.Contains(lines(collect(out, 0, 500*time.Millisecond), cloud), "file-read new/a") {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the folder is not watched; status %+v", w.Status())
		}
	}
}

// A stick that only a container has.
func TestCopiesInOtherMountNamespaces(t *testing.T) {
	needFanotify(t)
	dir := t.TempDir()
	cmd := exec.Command("unshare", "-m", "sh", "-ec", `mount -t tmpfs stick "$1"; read x || true; printf 12345 > "$1/a"; mkdir "$1/d"; printf 123 > "$1/.t"; mv "$1/.t" "$1/d/c"; sleep 10`, "sh", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("unshare: %v", err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	w, out := watchAs(t, Options{}, volume.Options{RemovablePaths: []string{dir}, HomeRoot: dir}, asShares(nil))
	for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, dir); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", w.Status())
		}
	}
	_ = in.Close()
	got := lines(collect(out, 2, 3*time.Second), dir)
	if want := []string{"file-copied a 5", "file-copied d/c 3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Between its write and our look a file may be replaced by another one, by a link
// or by a pipe that waits for a writer.
func TestOnlyTheFileThatWasWrittenIsFollowed(t *testing.T) {
	needFanotify(t)
	w := New(Options{Table: oneStick{}})
	src, err := w.newNative(newQueue(100), newProcesses(&w.opts), func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	dir := t.TempDir()
	run(t, `cd "$1"; echo 1 > a; echo 2 > b; ln -s a link; mkfifo pipe`, dir)
	id := func(name string) fileKey {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		dev, ino := identity(fi)
		return fileKey{dev, ino}
	}
	for _, tt := range []struct {
		path, id string
		want     bool
	}{{"a", "a", true}, {"b", "a", false}, {"link", "a", false}, {"pipe", "a", false}, {"gone", "a", false}} {
		f.unfollow(filepath.Join(dir, "a"), id("a"))
		f.follow(filepath.Join(dir, tt.path), id(tt.id))
		if got := f.followed[id(tt.id)]; got != tt.want {
			t.Errorf("%s as %s: followed %v, want %v", tt.path, tt.id, got, tt.want)
		}
	}
}

// stopped starts this program as a watcher of stick, and stops it once it is ready:
// what happens then waits in the kernel. lines is what it says.
func stopped(t *testing.T, stick string, env ...string) (cmd *exec.Cmd, lines *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, "fileaudit-helper", stick)
	cmd.Env = append(os.Environ(), env...)
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines = bufio.NewScanner(said)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("helper says %q", lines.Text())
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return cmd, lines
}

// A stick is unmounted by the program that comes after the one that wrote: what
// the kernel has for us keeps it busy until it is read, so that this is at once.
func TestAStickIsFreeOnceItIsWritten(t *testing.T) {
	needFanotify(t)
	at, from := t.TempDir(), t.TempDir()
	for i := range 30 {
		if err := os.WriteFile(filepath.Join(from, fmt.Sprint(i)), make([]byte, 1000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w, out := watchAs(t, Options{}, volume.Options{RemovablePaths: []string{at}, HomeRoot: t.TempDir()}, asShares(nil))
	var busy []string
	const rounds = 20
	for range rounds {
		if err := unix.Mount("stick", at, "tmpfs", 0, "size=16m"); err != nil {
			t.Skipf("mount tmpfs: %v", err)
		}
		for deadline := time.Now().Add(time.Minute); !slices.Contains(w.Status().Watching, at); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				_ = unix.Unmount(at, unix.MNT_DETACH)
				t.Fatalf("the stick is not watched: %+v", w.Status())
			}
		}
		if o, err := exec.Command("/bin/sh", "-c", `cp "$1"/* "$2" && exec umount -n "$2"`, "sh", from, at).CombinedOutput(); err != nil {
			busy = append(busy, string(o))
			for deadline := time.Now().Add(time.Minute); unix.Unmount(at, 0) != nil; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					_ = unix.Unmount(at, unix.MNT_DETACH)
					t.Fatalf("it stays busy: %s", o)
				}
			}
		}
		if n := len(collect(out, 30, 500*time.Millisecond)); n != 30 {
			t.Errorf("%d files are told, want 30", n)
		}
		for deadline := time.Now().Add(time.Minute); slices.Contains(w.Status().Watching, at); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the stick is gone and still watched: %+v", w.Status())
			}
		}
	}
	// On a busy machine nobody reads at once; every time would be our doing.
	if t.Logf("%d of %d times it was busy", len(busy), rounds); len(busy) == rounds {
		t.Errorf("it was busy each time: %s", busy[0])
	}
}

// Only what lies below a folder that came up is looked through for it.
func TestFoldersBelowANewFolder(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"a/new/1/2", "a/newer", "a/old/1", "b/new/x", "b/new/Documents/y"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := newPlaces([]Place{{Label: "x", Globs: []string{root + "/a", root + "/*/new/Documents/**"}}})
	for top, want := range map[string][]string{
		"a/new": {"a/new", "a/new/1", "a/new/1/2"}, "a/new/1": {"a/new/1", "a/new/1/2"},
		"b": {"b/new/Documents", "b/new/Documents/y"}, "b/new/Documents": {"b/new/Documents", "b/new/Documents/y"},
		"b/new/x": nil, "c": nil,
	} {
		var read []string
		got := p.under(filepath.Join(root, top), &walker{skip: func(d string) bool { read = append(read, d); return false }})
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], root+"/")
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("below %s: got %q, want %q", top, got, want)
		}
		for _, d := range read {
			if r := strings.TrimPrefix(d, root+"/"); within(r, "a/old") || within(r, "a/newer") {
				t.Errorf("below %s: %s is looked through", top, r)
			}
		}
	}
}
