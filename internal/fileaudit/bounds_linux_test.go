package fileaudit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// A hundred thousand mounts, half of them of servers: taken over with bounded work
// and a bounded number of groups, goroutines and words.
func TestAHundredThousandMounts(t *testing.T) {
	needFanotify(t)
	const n = 100_000
	w := New(Options{Table: oneStick{}})
	src, err := w.newNative(newQueue(100), newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	nowhere := t.TempDir()
	all := make([]volume.Volume, n)
	for i := range all {
		at := filepath.Join(nowhere, fmt.Sprint(i))
		all[i] = volume.Volume{MountID: i + 1, Mount: at, Dev: volume.Dev{Minor: uint32(i)}, Volume: event.Volume{MountName: at, Kind: event.VolumeLocal, FileSystemType: "overlay"}}
		if i%2 == 0 {
			all[i].Kind, all[i].Share, all[i].FileSystemType = event.VolumeNetwork, "nas:/vol", "nfs4"
		}
	}
	before := runtime.NumGoroutine()
	for range 2 {
		began := spent()
		if _, problems := f.sync(all, newPlaces(nil)); len(problems) != 0 {
			t.Fatalf("problems %q", problems[:1])
		}
		if cpu := spent() - began; cpu > 10*time.Second {
			t.Errorf("taking them over costs %v of CPU", cpu)
		} else {
			t.Logf("taking them over costs %v of CPU", cpu)
		}
	}
	if n := runtime.NumGoroutine() - before; n > maxRemote+maxMarkers {
		t.Errorf("%d goroutines more", n)
	}
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		f.mu.Lock()
		left, markers := len(f.todo), f.markers
		f.mu.Unlock()
		if left == 0 && markers == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d marks are left, %d work on them", left, markers)
		}
	}
	f.sync(nil, newPlaces(nil))
	if len(f.far) != 0 || len(f.marks) != 0 {
		t.Errorf("%d remote mounts and %d marks are remembered that are gone", len(f.far), len(f.marks))
	}
}

// A server that does not answer: told by name, and the others are marked.
func TestAMarkThatHangsIsTold(t *testing.T) {
	alive, hung := &group{}, &group{}
	hung.busy.Store(int64(time.Minute))
	f := &fan{began: time.Now().Add(-time.Hour), marks: map[int]*marking{
		1: {path: "/mnt/alive", since: time.Now().Add(-time.Hour), done: true, group: alive},
		2: {path: "/mnt/dead", since: time.Now().Add(-time.Hour)},
		3: {path: "/mnt/young", since: time.Now()},
		4: {path: "/mnt/refused", since: time.Now(), done: true, why: "permission denied"},
		5: {path: "/mnt/unmounted", since: time.Now().Add(-time.Hour)},
		6: {path: "/mnt/read", since: time.Now().Add(-time.Hour), done: true, group: hung},
	}}
	got := strings.Join(f.markProblems(map[int]uint64{1: 1, 2: 1, 3: 1, 4: 1, 6: 1}), "; ")
	if want := "watch /mnt/dead: file system does not answer; watch /mnt/refused: permission denied; watch /mnt/read: file system does not answer"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(f.marks) != 5 {
		t.Errorf("%d marks are remembered, want 5", len(f.marks))
	}
}

// A read of events that does not return is told, of media as of local disks.
func TestAReadThatHangsIsTold(t *testing.T) {
	needFanotify(t)
	w := New(Options{Table: volumes{}})
	src, err := w.newNative(newQueue(1000), newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	f := src.(*fan)
	f.began = time.Now().Add(-time.Hour) // nothing is marked, so that nobody reads
	for _, tt := range []struct {
		g    *group
		want string
	}{{f.media, "watch removable media: file system does not answer"}, {f.main, "watch local disks: file system does not answer"}} {
		tt.g.busy.Store(int64(time.Minute))
		if _, problems := f.sync(nil, newPlaces(nil)); strings.Join(problems, "; ") != tt.want {
			t.Errorf("got %q, want %q", problems, tt.want)
		}
		tt.g.busy.Store(0)
	}
	if _, problems := f.sync(nil, newPlaces(nil)); len(problems) > 0 {
		t.Errorf("got %q when they answer", problems)
	}
}

// A disk that a program shows (NTFS by ntfs-3g) hangs when that does, and looking for
// protected folders on it, or for what is marked there, must not wait for it.
func TestALocalDiskThatHangsHoldsNothingUp(t *testing.T) {
	needFanotify(t)
	dead, _ := deadDisk(t)
	alive := mountTmpfs(t)
	disk := func(at, kind, fsType string, id int) (v volume.Volume) {
		v.Mount, v.MountName, v.MountID, v.Kind, v.FileSystemType, v.Dev = at, at, id, kind, fsType, volume.Dev{Minor: uint32(1000 + id)}
		return v
	}
	for _, kind := range []string{event.VolumeLocal, event.VolumeRemovable} {
		t.Run(kind, func(t *testing.T) {
			all := volumes{disk(dead, kind, "fuseblk", 1), disk(alive, event.VolumeLocal, "tmpfs", 2)}
			w := New(Options{Table: all})
			q := newQueue(1000)
			src, err := w.newNative(q, newProcesses(&w.opts), func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			defer src.close()
			f := src.(*fan)
			f.seeker.wait = 2 * statWait
			there := filepath.Join(dead, "marked")
			f.seeker.marked[there] = marked{} // as it answered
			p := newPlaces([]Place{{Label: "a", Globs: []string{dead + "/**", alive + "/**"}}})
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
				began := time.Now()
				watching, problems := f.sync(all, p)
				if d := time.Since(began); d > 30*statWait {
					t.Fatalf("it waits %v for the disk that hangs", d)
				}
				if strings.Join(problems, "; ") == "watch "+dead+": file system does not answer" && slices.Contains(watching, alive) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("problems %q, watched are %q", problems, watching)
				}
			}
			f.seeker.mu.Lock()
			idle := f.seeker.idle
			f.seeker.mu.Unlock()
			if idle != nil {
				<-idle
			}
			if _, ok := f.seeker.marked[there]; !ok {
				t.Error("the mark on the disk that hangs is given up")
			}
		})
	}
}

// volumes is a table that does not change.
type volumes []volume.Volume

func (vs volumes) All() []volume.Volume { return vs }
func (vs volumes) Lookup(p string) (volume.Volume, bool) {
	for i := range vs {
		if within(p, vs[i].Mount) {
			return vs[i], true
		}
	}
	return volume.Volume{}, false
}
func (volumes) Watch() <-chan struct{}  { return nil }
func (volumes) Unwatch(<-chan struct{}) {}

// Whatever a program that is passed over does never gets to the pipeline.
func TestIgnoredProgramsArePassedOverByTheReader(t *testing.T) {
	needFanotify(t)
	stick := mountTmpfs(t)
	var v volume.Volume
	v.Mount, v.MountID, v.Kind, v.FileSystemType, v.MountName = stick, 1, event.VolumeRemovable, "tmpfs", stick
	fi, err := os.Stat(stick)
	if err != nil {
		t.Fatal(err)
	}
	v.Dev, _ = identity(fi)
	w := New(Options{Table: oneStick{v}, IgnoreExecutables: []string{"/**/*sh"}, Process: func(pid int) (*event.Process, *event.User) {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		return &event.Process{PID: event.Some(int64(pid)), Executable: exe, EntityID: fmt.Sprint(pid)}, nil
	}})
	q := newQueue(1000)
	src, err := w.newNative(q, newProcesses(&w.opts), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	src.sync([]volume.Volume{v}, newPlaces(nil))
	// The shell goes on for a while, so that what it is can be known.
	run(t, `printf 12345 > "$1/ignored"; dd if=/dev/zero "of=$1/told" bs=10 count=1 status=none; sleep 3`, stick)
	var got []string
	for deadline := time.Now().Add(time.Minute); len(got) == 0 && time.Now().Before(deadline); {
		time.Sleep(200 * time.Millisecond) // for what must not come, too
		for _, r := range q.take() {
			if r.kind == recWrote {
				got = append(got, filepath.Base(r.path))
			}
		}
	}
	if len(got) != 1 || got[0] != "told" {
		t.Errorf("got %q, want told only", got)
	}
}

// writeByAIO writes 300 bytes to the file of its argument by io_submit(2), of
// which fanotify tells no write.
const writeByAIO = `$c = pack("Q", 0); syscall(206, 1, $c) == 0 or die "io_setup: $!"; $x = unpack("Q", $c);
$b = "x" x 300; open T, ">", $ARGV[0] or die;
$i = pack("QLLSsLQQqQLL", 0, 0, 0, 1, 0, fileno(T), unpack("Q", pack("p", $b)), 300, 0, 0, 0, 0); $p = pack("p", $i);
syscall(209, $x, 1, $p) == 1 or die "io_submit: $!"; $e = "\0" x 32; syscall(208, $x, 1, 1, $e, 0) == 1 or die "io_getevents: $!"`

func TestWritesThatTheKernelDoesNotTell(t *testing.T) {
	needFanotify(t)
	if _, err := exec.LookPath("perl"); err != nil || runtime.GOARCH != "amd64" {
		t.Skip("no perl here, or other numbers of system calls")
	}
	for _, keeps := range []bool{true, false} {
		t.Run(fmt.Sprintf("change time kept %v", keeps), func(t *testing.T) {
			if !keeps { // as on vfat and exFAT
				delete(keepsChangeTime, "tmpfs")
				t.Cleanup(func() { keepsChangeTime["tmpfs"] = true })
			}
			stick := mountTmpfs(t)
			_, out := watch(t, Options{}, nil, stick)
			if o, err := exec.Command("perl", "-e", writeByAIO, stick+"/a").CombinedOutput(); err != nil {
				t.Skipf("%v: %s", err, o)
			}
			if got := lines(collect(out, 1, 700*time.Millisecond), stick); len(got) != 1 || got[0] != "file-copied a 300" {
				t.Errorf("got %q", got)
			}
			// Opened for writing only: told once.
			run(t, `sleep 0.1; : 3<>"$1/a"`, stick)
			if got := lines(collect(out, 0, 700*time.Millisecond), stick); len(got) != 0 {
				t.Errorf("got %q of a file that was not written to", got)
			}
		})
	}
}

// Paths of 4,096 bytes and more, made of what no shell would take.
func TestTheLongestPathsAreTold(t *testing.T) {
	needFanotify(t)
	py, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	stick := mountTmpfs(t)
	_, out := watch(t, Options{}, nil, stick)
	const script = `import os, sys
os.chdir(sys.argv[1].encode())
left = int(sys.argv[2]) - len(os.getcwdb()) - 1
while left > 250:
    d = b"\n\xff" + b"d" * 198
    os.makedirs(d, exist_ok=True); os.chdir(d); left -= len(d) + 1
open(b"x" * left, "w").write("12345")`
	// The kernel's PATH_MAX is 4,096 with the NUL at the end.
	for _, size := range []int{4000, 4094, 4095, 4096, 4097, 5000} {
		if o, err := exec.Command(py, "-c", script, stick, fmt.Sprint(size)).CombinedOutput(); err != nil {
			t.Fatalf("%d: %v: %s", size, err, o)
		}
		e := collect(out, 1, 700*time.Millisecond)
		if len(e) != 1 || e[0].Action != event.FileCopied || e[0].Copy.Bytes.V != 5 {
			t.Errorf("%d bytes: got %d events", size, len(e))
			continue
		}
		switch p := e[0].File.Path; {
		case p == "" && size >= 4095 && len(e[0].Errors) > 0:
		case len(p) == size && bytes.Contains([]byte(p), []byte("\n\xff")):
		default:
			t.Errorf("%d bytes: path of %d bytes, errors %q", size, len(p), e[0].Errors)
		}
	}
}
