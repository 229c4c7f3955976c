package volume

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// live is a Watcher that runs on this machine.
type live struct {
	t   *testing.T
	w   *Watcher
	out chan *event.Event
}

// newLive starts a Watcher; tests of mounts need root.
func newLive(t *testing.T, opt Options) *live {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	r := &live{t, New(opt), make(chan *event.Event, 1024)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = r.w.Run(ctx, r.out) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for begin := time.Now(); r.w.Status().State != endpoint.SensorOK; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("not ok after a minute: %+v", r.w.Status())
		}
	}
	return r
}

// next returns the next event about a place below dir.
func (r *live) next(dir string) *event.Event {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case e := <-r.out:
			if e.Volume != nil && strings.HasPrefix(e.Volume.MountName, dir) {
				return e
			}
		case <-deadline:
			r.t.Fatal("no event within a minute")
			return nil
		}
	}
}

func mount(t *testing.T, source, dir, typ string, flags uintptr) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(source, dir, typ, flags, ""); err != nil {
		t.Skipf("mount %s: %v", typ, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestARealMountComesAndGoes(t *testing.T) {
	top := t.TempDir()
	r := newLive(t, Options{RemovablePaths: []string{top}})
	changed := r.w.Table().Watch()
	select {
	case <-changed: // what happened before
	default:
	}
	dir := filepath.Join(top, "my stick\nメモリ")
	begin := time.Now()
	mount(t, "none", dir, "tmpfs", 0)
	e := r.next(dir)
	t.Logf("told after %v", e.Created.Sub(begin))
	v := e.Volume
	if e.Action != event.VolumeMounted || v.MountName != dir || v.Kind != event.VolumeRemovable || v.FileSystemType != "tmpfs" || !v.Writable.V || !v.Size.OK || v.Size.V <= 0 || e.Message != "" {
		t.Errorf("got %s %+v, want a removable tmpfs with its size", e.Action, v)
	}
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Error("the table's watcher was not told")
	}
	if got, ok := r.w.Table().Lookup(filepath.Join(dir, "a.txt")); !ok || got.Mount != dir {
		t.Errorf("a file on it lies on %+v, %v", got, ok)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if got, _ := r.w.Table().Lookup(dir); got.Dev != (Dev{unix.Major(st.Dev), unix.Minor(st.Dev)}) {
		t.Errorf("device is %v, stat says %d:%d", got.Dev, unix.Major(st.Dev), unix.Minor(st.Dev))
	}
	// Bound a second time, then over-mounted, then all gone.
	second := filepath.Join(top, "second")
	mount(t, dir, second, "", unix.MS_BIND)
	if e := r.next(second); e.Action != event.VolumeMounted {
		t.Errorf("got %s, want the second place told", e.Action)
	}
	for _, d := range []string{second, dir} {
		if err := unix.Unmount(d, 0); err != nil {
			t.Fatal(err)
		}
		if e := r.next(d); e.Action != event.VolumeUnmounted || e.Volume.Kind != event.VolumeRemovable || !e.Volume.Size.OK {
			t.Errorf("got %s %+v, want its end with what its start told", e.Action, e.Volume)
		}
	}
}

func TestARealDiskImage(t *testing.T) {
	top := t.TempDir()
	image := filepath.Join(top, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Skipf("no ext4 image: %v %s", err, out)
	}
	inner := filepath.Join(top, "in") // not declared removable
	outer := filepath.Join(top, "declared")
	r := newLive(t, Options{RemovablePaths: []string{outer}})
	for _, dir := range []string{inner, outer} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("mount", "-o", "loop,ro", image, dir).CombinedOutput(); err != nil {
			t.Skipf("no loop mount: %v %s", err, out)
		}
		t.Cleanup(func() { exec.Command("umount", dir).Run() })
	}
	e := r.next(top)
	if v := e.Volume; e.Action != event.VolumeMounted || v.MountName != outer || v.Kind != event.VolumeRemovable || v.Writable.V || !v.Encrypted.OK || v.Encrypted.V || len(e.Errors) > 0 {
		t.Errorf("got %s %+v %q, want only the declared one, read-only, not encrypted", e.Action, v, e.Errors)
	}
	if v, ok := r.w.Table().Lookup(filepath.Join(inner, "x")); !ok || v.Kind != event.VolumeLocal || v.Mount != inner || v.DeviceName == "" {
		t.Errorf("the other one is %+v, want a local volume", v)
	}
	// A Watcher that starts now tells of it, once.
	r2 := newLive(t, Options{RemovablePaths: []string{outer}})
	if e := r2.next(outer); e.Action != event.VolumeMounted || e.Message != PresentAtStart {
		t.Errorf("got %s %q, want the mount told as %q", e.Action, e.Message, PresentAtStart)
	}
}

func TestManyMountsInARowAreAllTold(t *testing.T) {
	top := t.TempDir()
	r := newLive(t, Options{RemovablePaths: []string{top}})
	const n = 50
	for range n {
		dir, err := os.MkdirTemp(top, "m")
		if err != nil {
			t.Fatal(err)
		}
		mount(t, "none", dir, "tmpfs", 0)
	}
	seen := map[string]bool{}
	for len(seen) < n {
		e := r.next(top)
		if e.Action != event.VolumeMounted || seen[e.Volume.MountName] {
			t.Fatalf("got %s %s", e.Action, e.Volume.MountName)
		}
		seen[e.Volume.MountName] = true
	}
}

// A FUSE file system whose program never answers hangs as a share does whose
// server is gone.
func TestARealMountThatHangsHoldsNothingUp(t *testing.T) {
	top := t.TempDir()
	r := newLive(t, Options{StatTimeout: 2 * time.Second, RemovablePaths: []string{filepath.Join(top, "stick")}})
	fuse, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	dead := filepath.Join(top, "dead")
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("taro@host.example.jp:/data", dead, "fuse.sshfs", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse)); err != nil {
		unix.Close(fuse)
		t.Skipf("mount FUSE: %v", err)
	}
	t.Cleanup(func() {
		unix.Unmount(dead, unix.MNT_DETACH)
		unix.Close(fuse) // lets the question go that hangs
	})
	e := r.next(dead)
	if v := e.Volume; e.Action != event.VolumeMounted || v.Kind != event.VolumeNetwork || v.Share != "host.example.jp:/data" || v.Size.OK || len(e.Errors) != 1 {
		t.Errorf("got %s %+v %q, want a share without its size", e.Action, v, e.Errors)
	}
	stick := filepath.Join(top, "stick")
	mount(t, "none", stick, "tmpfs", 0)
	if e := r.next(stick); !e.Volume.Size.OK {
		t.Errorf("got %+v %q, want the next one with its size", e.Volume, e.Errors)
	}
}

// A plain file stands in for mountinfo of which the kernel tells nothing.
func TestMountsAreReadAgainWhereNothingTells(t *testing.T) {
	s := newTree(t)
	proc := t.TempDir()
	put := func(text string) {
		name := filepath.Join(proc, "self", "mountinfo")
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(rootLine)
	w := New(Options{ProcRoot: proc, SysRoot: s.root, Poll: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 16)
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx, out) })
	defer func() { cancel(); wg.Wait() }()
	next := func() *event.Event {
		select {
		case e := <-out:
			return e
		case <-time.After(time.Minute):
			t.Fatal("no event within a minute")
			return nil
		}
	}
	if e := next(); e.Action != event.SensorDegraded || w.Status().Mechanism != mechanismPolling {
		t.Errorf("got %s %q, want the word that mounts are polled", e.Action, e.Message)
	}
	put(rootLine + line(2, 1, "8:17", "/nowhere/USB", "vfat", "/dev/sdb1"))
	e := next()
	if e.Action != event.VolumeMounted || e.Volume.SerialNumber != "4C530001" || len(e.Errors) != 1 || !strings.Contains(e.Errors[0], "/nowhere/USB") {
		t.Errorf("got %s %+v %q, want the stick, and that it cannot be asked for its size", e.Action, e.Volume, e.Errors)
	}
	w.Prove("nonce")
	if e := next(); e.Action != event.SensorProven || e.ID != "nonce" || e.Sensor != "volume" {
		t.Errorf("got %s %+v, want the proof", e.Action, e)
	}
	put(rootLine)
	if e := next(); e.Action != event.VolumeUnmounted {
		t.Errorf("got %s, want the stick's end", e.Action)
	}
}

func TestLinesThatAreNotUnderstoodAreToldAsSuch(t *testing.T) {
	w := New(Options{})
	out := make(chan *event.Event, 4)
	for _, step := range []struct {
		bad  int
		want event.Action // "": nothing is told
	}{{0, ""}, {1, event.SensorDegraded}, {2, ""}, {0, event.SensorRecovered}} {
		w.report(t.Context(), out, mechanismMountinfo, step.bad)
		got := event.Action("")
		if len(out) > 0 {
			got = (<-out).Action
		}
		if got != step.want {
			t.Errorf("%d lines: told %q, want %q", step.bad, got, step.want)
		}
		if s := w.Status(); (s.State == endpoint.SensorDegraded) != (step.bad > 0) {
			t.Errorf("%d lines: %+v", step.bad, s)
		}
	}
}

// The sensor proves that it sees as soon as it is asked, however long it would wait.
func TestTheSensorProvesThatItSees(t *testing.T) {
	r := newLive(t, Options{Poll: time.Hour})
	for _, nonce := range []string{"one", "two", "three"} {
		r.w.Prove(nonce)
		for got := ""; got != nonce; {
			select {
			case e := <-r.out:
				if e.Action == event.SensorProven {
					got = e.ID
				}
			case <-time.After(time.Minute):
				t.Fatalf("no proof %s", nonce)
			}
		}
	}
}

// A sensor that believes what is not so has no proof.
func TestAViewThatIsNotTheKernelsIsNoProof(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	usb := line(2, 1, "8:17", "/mnt/USB", "vfat", "/dev/sdb1")
	for _, tt := range []struct {
		name, now string
		want      bool
	}{
		{"as it is", rootLine + usb, true},
		{"one more", rootLine + usb + line(3, 1, "8:18", "/mnt/2", "vfat", "/dev/sdb2"), false},
		{"one less", rootLine, false},
		{"another place", rootLine + strings.Replace(usb, "/mnt/USB", "/mnt/UBS", 1), false},
		{"another device", rootLine + strings.Replace(usb, "8:17", "8:33", 1), false},
	} {
		w := newBench(t)
		w.opt.ProcRoot = proc
		w.feed(rootLine + usb)
		if err := os.WriteFile(filepath.Join(proc, "self", "mountinfo"), []byte(tt.now), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := w.agrees(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWithoutMountinfoTheSensorSaysSo(t *testing.T) {
	w := New(Options{ProcRoot: t.TempDir()})
	err := w.Run(t.Context(), nil)
	if s := w.Status(); err == nil || s.State != endpoint.SensorDown || !strings.Contains(s.Reason, "mountinfo") {
		t.Errorf("got %v, %+v; want an error and a sensor that is down", err, s)
	}
}

// A stick that only a container has.
func TestMountsOfOtherNamespacesAreSeen(t *testing.T) {
	dir := t.TempDir()
	r := newLive(t, Options{RemovablePaths: []string{dir}})
	cmd := exec.Command("unshare", "-m", "sh", "-ec", `mount -t tmpfs stick "$1"; echo up; read x`, "sh", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("unshare: %v", err)
	}
	defer func() { _ = in.Close(); _ = cmd.Wait() }()
	if n, _ := said.Read(make([]byte, 8)); n == 0 {
		t.Skip("unshare -m is refused here")
	}
	deadline := time.After(20 * lookElsewhere)
	for {
		select {
		case e := <-r.out:
			if e.Volume == nil || e.Volume.MountName != dir {
				continue
			}
			if e.Action == event.VolumeUnmounted {
				return
			}
			if v, ok := r.w.Table().Lookup(dir + "/x"); ok && v.Mount == dir {
				t.Errorf("our %s/x is looked for on %+v", dir, v)
			}
			_ = in.Close() // and it goes with its last process
		case <-deadline:
			t.Fatal("not told in time")
		}
	}
}
