package fileaudit

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/procwatch"
	"sekisho/internal/volume"
)

// needFanotify skips where fanotify is refused.
func needFanotify(t *testing.T) {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF, unix.O_RDONLY)
	if err != nil {
		t.Skipf("fanotify: %v (needs CAP_SYS_ADMIN)", err)
	}
	unix.Close(fd)
}

// mountExt4 mounts a fresh ext4 image and returns where.
func mountExt4(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	img, at := filepath.Join(dir, "stick.img"), filepath.Join(dir, "USB 犬")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"truncate", "-s", size, img}, {"mkfs.ext4", "-q", "-F", img}, {"mount", "-o", "loop", img, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", c[0], err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

func mountTmpfs(t *testing.T) string {
	t.Helper()
	at := t.TempDir()
	if err := unix.Mount("stick", at, "tmpfs", 0, "size=256m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	return at
}

// table is the real table of mounts, where some are taken for others.
type table struct {
	*volume.Table
	as func(*volume.Volume)
}

func (t table) All() []volume.Volume {
	all := slices.Clone(t.Table.All())
	for i := range all {
		t.as(&all[i])
	}
	return all
}

func (t table) Lookup(p string) (volume.Volume, bool) {
	v, ok := t.Table.Lookup(p)
	t.as(&v)
	return v, ok
}

// asShares takes mounts at some paths for network shares of these names.
func asShares(shares map[string]string) func(*volume.Volume) {
	return func(v *volume.Volume) {
		if s, ok := shares[v.MountName]; ok {
			v.Kind, v.Share = event.VolumeNetwork, s
		}
	}
}

// shown has a program, which can be stopped, show what lies in a folder at another one.
func shown(t *testing.T, behind string) (at string, server *exec.Cmd) {
	t.Helper()
	if _, err := exec.LookPath("bindfs"); err != nil {
		t.Skip("no bindfs (apt-get install bindfs)")
	}
	if err := os.WriteFile(filepath.Join(behind, "there"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	at = t.TempDir()
	server = exec.Command("bindfs", "-f", behind, at)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the watcher has been stopped, with the program dead
		_ = server.Process.Kill()
		_ = server.Wait()
		_ = unix.Unmount(at, unix.MNT_DETACH)
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(at, "there")); err == nil {
			return at, server
		}
		if time.Now().After(deadline) {
			t.Skip("bindfs does not mount here")
		}
	}
}

// watch runs a real volume watcher, process watcher and file watcher.
func watch(t *testing.T, o Options, shares map[string]string, removable ...string) (*Watcher, chan *event.Event) {
	t.Helper()
	return watchAs(t, o, volume.Options{RemovablePaths: removable, HomeRoot: t.TempDir()}, asShares(shares), append(slices.Collect(maps.Keys(shares)), removable...)...)
}

// watchAs is watch with settings of the volume watcher, whose mounts it takes for
// others; the places are those that it waits for.
func watchAs(t *testing.T, o Options, vo volume.Options, as func(*volume.Volume), places ...string) (*Watcher, chan *event.Event) {
	t.Helper()
	return newWatchers(o, vo, as).start(t, places...)
}

// watchers are a file watcher and those that it asks.
type watchers struct {
	*Watcher
	volumes   *volume.Watcher
	processes *procwatch.Watcher
}

func newWatchers(o Options, vo volume.Options, as func(*volume.Volume)) watchers {
	vw, pw := volume.New(vo), procwatch.New(procwatch.Options{})
	o.Table = table{vw.Table(), as}
	if o.Process == nil {
		o.Process = func(pid int) (*event.Process, *event.User) {
			p, u, _ := pw.Lookup(pid)
			return p, u
		}
	}
	return watchers{New(o), vw, pw}
}

// start runs them until the test ends, and waits for places to be watched.
func (w watchers) start(t *testing.T, places ...string) (*Watcher, chan *event.Event) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	discard := make(chan *event.Event, 16)
	stopped := make(chan error, 3)
	go func() { stopped <- w.volumes.Run(ctx, discard) }()
	go func() { stopped <- w.processes.Run(ctx, discard) }()
	go func() {
		for {
			select {
			case <-discard:
			case <-ctx.Done():
				return
			}
		}
	}()
	out := make(chan *event.Event, 1024)
	go func() { stopped <- w.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		for limit := time.After(time.Minute); len(stopped) < cap(stopped); time.Sleep(time.Millisecond) {
			select {
			case <-limit:
				t.Error("it cannot be stopped")
				return
			default:
			}
		}
		for range cap(stopped) {
			if err := <-stopped; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s := w.Status()
		ready := s.State != endpoint.SensorDown && w.processes.Status().State != endpoint.SensorDown
		for _, p := range places {
			ready = ready && slices.Contains(s.Watching, p)
		}
		if ready {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("watcher does not come up: %+v", s)
		}
	}
	time.Sleep(50 * time.Millisecond) // marks on shares are set aside
	return w.Watcher, out
}

// collect returns what is told: at least so many events, however long a busy
// machine takes, then what comes until nothing did for a while.
func collect(out <-chan *event.Event, atLeast int, quiet time.Duration) []*event.Event {
	var all []*event.Event
	given := time.Now().Add(2 * time.Minute)
	for {
		wait := quiet
		if len(all) < atLeast {
			wait = max(quiet, time.Until(given))
		}
		select {
		case e := <-out:
			if e.File != nil || e.Lost != nil {
				all = append(all, e)
			}
		case <-time.After(wait):
			return all
		}
	}
}

func run(t *testing.T, script string, args ...string) {
	t.Helper()
	if out, err := exec.Command("/bin/sh", append([]string{"-ec", script, "sh"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// lines is events in short, sorted: action, path below dir, bytes.
func lines(events []*event.Event, dir string) []string {
	var l []string
	for _, e := range events {
		s := fmt.Sprintf("%s %s", e.Action, strings.TrimPrefix(e.File.Path, dir+"/"))
		if e.Copy != nil && e.Copy.Bytes.OK {
			s += fmt.Sprintf(" %d", e.Copy.Bytes.V)
		}
		l = append(l, s)
	}
	slices.Sort(l)
	return l
}

func fill(t *testing.T, dir string, n int) (total int64) {
	t.Helper()
	for i := range n {
		b := bytes.Repeat([]byte{byte(i)}, i*37)
		total += int64(len(b))
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("文書 %02d.docx", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return total
}

func TestEightyFilesCopiedToAStick(t *testing.T) {
	needFanotify(t)
	for _, fs := range []struct {
		name  string
		mount func(*testing.T) string
	}{
		{"ext4", func(t *testing.T) string { return mountExt4(t, "64M") }},
		{"tmpfs", mountTmpfs},
	} {
		t.Run(fs.name, func(t *testing.T) {
			stick, from := fs.mount(t), t.TempDir()
			total := fill(t, from, 80)
			w, out := watch(t, Options{}, nil, stick)
			cmd := exec.Command("/bin/cp", "-r", from, filepath.Join(stick, "sub"))
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			var bytes, sources, processes int64
			seen := map[string]bool{}
			events := collect(out, 80, time.Second)
			for _, e := range events {
				if e.Action != event.FileCopied || seen[e.File.Path] {
					t.Errorf("%s %s a second time: %v", e.Action, e.File.Path, seen[e.File.Path])
				}
				seen[e.File.Path] = true
				if e.Copy.Files.V != 1 || len(e.Copy.SourceIDs) != 1 || e.File.Extension != "docx" || e.File.VolumeKind != event.VolumeRemovable || e.Volume.MountName != stick {
					t.Errorf("event %+v %+v %+v", e.Copy, e.File, e.Volume)
				}
				bytes += e.Copy.Bytes.V
				// On a busy machine cp can end before its arguments are read; then there is no source, but never a wrong one.
				if want := filepath.Join(from, e.File.Name); e.Copy.SourcePath == want && e.Copy.Evidence == "same-process" ||
					e.Copy.SourcePath == "" && len(e.Process.Args) == 0 {
					sources++
				}
				if e.Process.PID.V == int64(cmd.Process.Pid) && e.Process.Name == "cp" && e.User != nil && e.User.ID == "0" {
					processes++
				}
			}
			if len(events) != 80 || bytes != total || sources != 80 || processes != 80 {
				t.Errorf("%d events, %d bytes, %d sources, %d processes; want 80, %d, 80, 80; status %+v", len(events), bytes, sources, processes, total, w.Status())
			}
		})
	}
}

// What programs do to save one file, and what is told of it.
var saves = []struct {
	name, script string
	want         []string
}{
	{"plain", `printf 12345 > "$1/a.txt"`, []string{"file-copied a.txt 5"}},
	{"empty", `: > "$1/a.txt"`, []string{"file-copied a.txt 0"}},
	{"rsync", `printf 12345 > "$1/.a.txt.Xy12"; mv "$1/.a.txt.Xy12" "$1/a.txt"`, []string{"file-copied a.txt 5"}},
	{"written three times", `printf 1 > "$1/a"; printf 12 > "$1/a"; printf 123 > "$1/a"`, []string{"file-copied a 3"}},
	{"editor with probe and backup", `printf old > "$1/a"; sleep 3; : > "$1/4913"; rm "$1/4913"; mv "$1/a" "$1/a~"; printf newer > "$1/a"; rm "$1/a~"`,
		[]string{"file-copied a 3", "file-copied a 5", "file-deleted a~", "file-renamed a~"}},
	{"deleted at once", `printf 1 > "$1/gone"; rm "$1/gone"`, nil},
	{"opened for writing, not written", `printf 123 > "$1/a"; sleep 3; : 3<>"$1/a"; sleep 0.1`, []string{"file-copied a 3"}},
	{"folder renamed under it", `mkdir "$1/d"; printf 1 > "$1/d/a"; mv "$1/d" "$1/e"`, []string{"file-copied e/a 1"}},
	{"appended later", `printf 123 > "$1/a"; sleep 3; printf 4 >> "$1/a"`, []string{"file-copied a 3", "file-copied a 4"}},
	{"a pipe and a folder", `mkfifo "$1/p"; (cat "$1/p" >/dev/null &); printf 1 > "$1/p"; mkdir "$1/d"`, nil},
}

func TestOneSaveCountsOnce(t *testing.T) {
	needFanotify(t)
	stick := mountExt4(t, "32M")
	_, out := watch(t, Options{}, nil, stick)
	// All at once, each in a folder of its own.
	var wg sync.WaitGroup
	for i, tt := range saves {
		dir := filepath.Join(stick, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if out, err := exec.Command("/bin/sh", "-ec", tt.script, "sh", dir).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", tt.script, err, out)
			}
		})
	}
	wg.Wait()
	all := collect(out, len(saves), 2*time.Second)
	for i, tt := range saves {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(stick, fmt.Sprint(i))
			got := lines(slices.DeleteFunc(slices.Clone(all), func(e *event.Event) bool { return !strings.HasPrefix(e.File.Path, dir+"/") }), dir)
			// A file that is deleted before its close is looked at has no write to go with the deletion.
			got = slices.DeleteFunc(got, func(l string) bool { return l == "file-deleted 4913" || l == "file-deleted gone" })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestCopiesFromAShare(t *testing.T) {
	needFanotify(t)
	share, local, stick := mountTmpfs(t), t.TempDir(), mountTmpfs(t)
	total := fill(t, share, 80)
	w, out := watch(t, Options{Reads: true, Protected: []Place{{Label: "人事", Shares: []string{`\\FS01\hr`}}}}, map[string]string{share: `\\fs01\HR`}, stick)
	run(t, `cp -r "$1" "$2/mine"; ls -lR "$1" >/dev/null; echo unrelated > "$2/unrelated"`, share, local)
	var copies, reads, bytes int64
	for _, e := range collect(out, 160, time.Second) {
		switch e.Action {
		case event.FileRead:
			reads++
			if e.File.Share != `\\fs01\HR` || e.File.Protected != "人事" || e.File.VolumeKind != event.VolumeNetwork {
				t.Errorf("read %+v", e.File)
			}
		case event.FileCopied:
			copies++
			bytes += e.Copy.Bytes.V
			if e.Copy.SourcePath != filepath.Join(share, e.File.Name) || e.Copy.SourceShare != `\\fs01\HR` || e.Copy.SourceVolumeKind != event.VolumeNetwork ||
				e.Copy.SourceProtected != "人事" || e.File.VolumeKind != event.VolumeLocal || e.Process.Name != "cp" {
				t.Errorf("copy %+v of %+v", e.Copy, e.File)
			}
		default:
			t.Errorf("%s %s", e.Action, e.File.Path)
		}
	}
	if copies != 80 || reads != 80 || bytes != total {
		t.Errorf("%d copies, %d reads, %d bytes, want 80, 80, %d; status %+v", copies, reads, bytes, total, w.Status())
	}
	run(t, `cp "$1/文書 07.docx" "$2/renamed.docx"; printf new > "$1/new.txt"`, share, stick)
	got := lines(slices.DeleteFunc(collect(out, 2, time.Second), func(e *event.Event) bool { return e.Action == event.FileRead }), stick)
	if want := []string{"file-copied renamed.docx 259", "file-written " + share + "/new.txt"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A copy of many small files, as fast as the machine can: every one is told once,
// with its bytes.
func TestAFloodOfFilesIsSeenWhole(t *testing.T) {
	needFanotify(t)
	n := 5000
	if testing.Short() {
		n = 1000
	}
	if os.Getenv("SEKISHO_FLOOD") != "" { // what the documents quote
		n = 50_000
	}
	for _, fs := range []struct {
		name  string
		mount func(*testing.T) string
	}{
		{"ext4", func(t *testing.T) string { return mountExt4(t, "400M") }},
		{"tmpfs", mountTmpfs},
	} {
		t.Run(fs.name, func(t *testing.T) {
			stick, from := fs.mount(t), t.TempDir()
			run(t, fmt.Sprintf(`cd "$1"; mkdir a b; head -c %d /dev/zero | split -b 50 -a 4 - a/f; head -c %d /dev/zero | split -b 70 -a 4 - b/f`, 50*n/2, 70*n/2), from)
			// Without a process watcher beside it: what is measured is this sensor.
			w, out := watch(t, Options{Process: func(pid int) (*event.Process, *event.User) {
				return &event.Process{PID: event.Some(int64(pid)), EntityID: "e"}, nil
			}}, nil, stick)
			var files, bytes, lost, events int64
			seen := make(map[string]bool, n)
			done := make(chan struct{})
			counted := make(chan struct{})
			go func() {
				defer close(counted)
				// As long as something is told now and then, however slow the machine is.
				quiet := time.NewTimer(time.Hour)
				for int(files) < n {
					select {
					case e := <-out:
						switch {
						case e.Action == event.FileCopied && !seen[e.File.Path]:
							seen[e.File.Path] = true
							for _, p := range e.Copy.Paths {
								seen[p] = true
							}
							files += e.Copy.Files.V
							bytes += e.Copy.Bytes.V
							events++
						default:
							lost++
						}
						if done == nil {
							quiet.Reset(time.Minute)
						}
					case <-done:
						done = nil
						quiet.Reset(time.Minute)
					case <-quiet.C:
						return
					}
				}
			}()
			before, began := spent(), time.Now()
			run(t, `cp -r "$1/a" "$2/" & cp -r "$1/b" "$2/"; wait`, from, stick)
			took := time.Since(began)
			close(done)
			<-counted
			cpu := spent() - before
			t.Logf("%d files in %v: %d told by %d events, %d otherwise; our CPU %v, %v a file", n, took.Round(time.Millisecond), files, events, lost, cpu.Round(time.Millisecond), cpu/time.Duration(n))
			if more := collect(out, 0, time.Second); len(more) > 0 {
				t.Errorf("%d more are told", len(more))
			}
			if int(files) != n || bytes != int64(60*n) || lost != 0 {
				t.Errorf("%d files, %d bytes, %d other events, want %d, %d, 0; status %+v", files, bytes, lost, n, 60*n, w.Status())
			}
		})
	}
}

func TestAPlaceAloneIsToldAndNothingElseIsWatchedForIt(t *testing.T) {
	needFanotify(t)
	place, beside := t.TempDir(), t.TempDir()
	alone := []Place{{Label: "own", Globs: []string{place}, Alone: true}}
	if !newPlaces(alone).empty() || newPlaces(append(alone, Place{Globs: []string{"/srv"}})).empty() {
		t.Error("only places that are not alone are sources of copies")
	}
	w, out := watchAs(t, Options{Protected: alone}, volume.Options{HomeRoot: t.TempDir()}, asShares(nil), place)
	run(t, `echo x > "$1/a"; cp "$1/a" "$2/b"; mv "$2/b" "$2/c"`, place, beside)
	if got, want := lines(collect(out, 1, 2*time.Second), place), []string{"file-written a"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q; status %+v", got, want, w.Status())
	}
}
