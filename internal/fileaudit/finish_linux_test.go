package fileaudit

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// stickAt is a table with a stick at a folder, and the core of a watcher of it.
func stickAt(t *testing.T, dir string, o Options) (*core, volume.Dev, chan *event.Event) {
	t.Helper()
	fi, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	dev, _ := identity(fi)
	o.Table = oneStick{volume.Volume{Mount: dir, Dev: dev, Volume: event.Volume{MountName: dir, Kind: event.VolumeRemovable, FileSystemType: "vfat"}}}
	out := make(chan *event.Event, 1024)
	w := New(o)
	c := newCore(w, newQueue(1024), newProcesses(&w.opts), out)
	c.mech, c.place = mechFanotify, newPlaces(nil)
	c.set = newSettle(w.opts.Quiet, w.opts.MaxDelay)
	return c, dev, out
}

// A vfat stick that is pulled while files wait to be told says that there are no
// such files.
func TestFilesOfAStickThatWasPulledAreTold(t *testing.T) {
	stick := mountExt4(t, "16M") // has a device number
	for _, tt := range []struct {
		name     string
		attached bool
		want     int
	}{{"deleted", true, 0}, {"pulled", false, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			sys := t.TempDir()
			c, dev, out := stickAt(t, stick, Options{SysRoot: sys})
			if tt.attached {
				if err := os.MkdirAll(filepath.Join(sys, fmt.Sprintf("dev/block/%d:%d", dev.Major, dev.Minor)), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			r := record{kind: recWrote, at: time.Now(), path: filepath.Join(stick, "gone.doc"), size: 7, dev: dev, ino: 1 << 30, names: true}
			c.handle(t.Context(), r)
			c.finish(t.Context(), c.set.take(time.Now().Add(time.Hour)), false)
			if len(out) != tt.want {
				t.Fatalf("%d events, want %d", len(out), tt.want)
			}
			if tt.want > 0 {
				if e := <-out; e.Action != event.FileCopied || e.Copy.Bytes.V != 7 {
					t.Errorf("told %s %+v", e.Action, e.Copy)
				}
			}
		})
	}
}

func TestAttached(t *testing.T) {
	root := t.TempDir()
	disk := func(name, number, state string) string {
		dir := filepath.Join(root, "devices/usb1/block", name)
		for _, d := range []string{filepath.Join(dir, name+"1"), filepath.Join(dir, "device"), filepath.Join(root, "dev/block")} {
			if err := os.MkdirAll(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if state != "" {
			if err := os.WriteFile(filepath.Join(dir, "device/state"), []byte(state+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(filepath.Join(dir, name+"1"), filepath.Join(root, "dev/block", number)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	crypt := func(number, on string) {
		dir := filepath.Join(root, "devices/virtual/block/dm-"+number[4:])
		if err := os.MkdirAll(filepath.Join(dir, "slaves"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, l := range [][2]string{{dir, filepath.Join(root, "dev/block", number)}, {on, filepath.Join(dir, "slaves/x")}} {
			if err := os.Symlink(l[0], l[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	sda := disk("sda", "8:1", "running")
	disk("sdb", "8:17", "cancel")
	disk("mmcblk0", "179:1", "")
	crypt("253:0", filepath.Join(sda, "sda1"))
	crypt("253:1", filepath.Join(root, "devices/usb1/block/sdz/sdz1"))
	crypt("253:2", filepath.Join(root, "devices/virtual/block/dm-2")) // on itself
	for _, tt := range []struct {
		name string
		dev  volume.Dev
		want bool
	}{
		{"a disk", volume.Dev{Major: 8, Minor: 1}, true},
		{"a disk that is being removed", volume.Dev{Major: 8, Minor: 17}, false},
		{"a disk that is gone", volume.Dev{Major: 8, Minor: 33}, false},
		{"a card without a state", volume.Dev{Major: 179, Minor: 1}, true},
		{"LUKS on a disk", volume.Dev{Major: 253}, true},
		{"LUKS on a disk that is gone", volume.Dev{Major: 253, Minor: 1}, false},
		{"a loop", volume.Dev{Major: 253, Minor: 2}, true},
		{"memory", volume.Dev{Minor: 44}, true},
	} {
		if got := attached(root, &volume.Volume{Dev: tt.dev}); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Where too many files wait, one is told early. It may have grown since, and has
// to be told all the same.
func TestAFullSettleLosesNoFileThatGrows(t *testing.T) {
	dir := t.TempDir()
	c, dev, out := stickAt(t, dir, Options{})
	write := func(name string, size int64) record {
		return record{kind: recWrote, at: time.Now(), path: filepath.Join(dir, name), size: size, dev: dev}
	}
	if err := os.WriteFile(filepath.Join(dir, "first"), []byte("has grown"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxPending {
		name := fmt.Sprint(i)
		if i == 0 {
			name = "first"
		}
		c.handle(t.Context(), write(name, 3))
		for len(out) > 0 {
			if e := <-out; i > maxPending || e.File.Name != "first" || e.File.Size.V != 9 {
				t.Fatalf("%s told after %d writes", e.File.Name, i)
			}
			return
		}
	}
	t.Errorf("the file that was first is not told, %d wait", len(c.set.byKey))
}

// Two containers may each have a stick at the same place.
func TestOnePathInTwoMountNamespacesIsTwoFiles(t *testing.T) {
	s := newSettle(time.Second, time.Second)
	now := time.Unix(0, 0)
	for minor := range uint32(2) {
		r := record{path: "/media/usb/a", dev: volume.Dev{Major: 8, Minor: minor}, ino: 12, size: int64(minor)}
		s.wrote(spotOf(&volume.Volume{Dev: r.dev}, &r), r, now)
	}
	n := 0
	for s.take(now.Add(time.Hour)) != nil {
		n++
	}
	if n != 2 {
		t.Errorf("%d files, want 2", n)
	}
}

// Nobody takes events while the agent is told to stop: what was to be told then is
// told when somebody does.
func TestWhatWaitsAtTheEndIsTold(t *testing.T) {
	dir := t.TempDir()
	c, dev, _ := stickAt(t, dir, Options{})
	out := make(chan *event.Event)
	c.out = out
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 50 {
		name := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		c.handle(ctx, record{kind: recWrote, at: time.Now(), path: name, dev: dev})
	}
	for p := c.set.take(time.Now().Add(time.Hour)); p != nil; p = c.set.take(time.Now().Add(time.Hour)) {
		c.finish(ctx, p, false)
	}
	var got []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 50 {
			got = append(got, (<-out).File.Name)
		}
	}()
	c.flush()
	<-done
	slices.Sort(got)
	if len(slices.Compact(got)) != 50 || c.w.Status().Lost != 0 {
		t.Errorf("%d files are told, %d lost, want 50, 0", len(got), c.w.Status().Lost)
	}
	// And if nobody does, it is counted.
	c.send(ctx, event.New(event.FileCopied, time.Now()))
	c.flush()
	if n := c.w.Status().Lost; n != 1 {
		t.Errorf("%d lost, want 1", n)
	}
}

func TestAWriteToAnUnknownVolumeCountsAsLost(t *testing.T) {
	c, _, out := stickAt(t, t.TempDir(), Options{})
	c.handle(t.Context(), record{kind: recWrote, at: time.Now(), path: "/elsewhere/x", size: 1, dev: volume.Dev{Major: 8, Minor: 99}})
	c.lost(t.Context(), 0)
	if e := <-out; e.Action != event.EventsLost || e.Lost.Count.V != 1 {
		t.Errorf("told %s %+v", e.Action, e.Lost)
	}
}

// A share that is slow to answer has the read told after the write that it led to.
func TestAWriteWaitsForTheReadBeforeIt(t *testing.T) {
	stick := t.TempDir()
	name := filepath.Join(stick, "plan.doc")
	if err := os.WriteFile(name, []byte("0123456"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		age        time.Duration // of the write
		caughtUp   bool
		told       bool
		confidence string
	}{
		{name: "the share lags", told: false},
		{name: "it has caught up", caughtUp: true, told: true, confidence: "high"},
		{name: "it lags for too long", age: maxLag, told: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, dev, out := stickAt(t, stick, Options{Process: func(pid int) (*event.Process, *event.User) {
				return &event.Process{PID: event.Some(int64(pid))}, nil
			}})
			c.lag = &upTo{}
			r := record{kind: recWrote, at: time.Now().Add(-tt.age), pid: 77, path: name, size: 7, dev: dev}
			c.handle(t.Context(), r)
			if tt.caughtUp {
				x := read{path: "/mnt/hr/plan.doc", name: "plan.doc", size: 7, at: time.Now(), cargo: single(origin{path: "/mnt/hr/plan.doc", size: 7, kind: event.VolumeNetwork, share: "nas:/hr"})}
				c.reads.note(c.procs.who(77, time.Now()), x)
				c.upTo = time.Now()
			}
			c.finish(t.Context(), c.set.take(time.Now().Add(time.Hour)), false)
			if waits := len(c.set.byKey) == 1; waits == tt.told || len(out) == 1 != tt.told {
				t.Fatalf("waits %v, %d events", waits, len(out))
			}
			if tt.told {
				if e := <-out; e.Action != event.FileCopied || e.Copy.Confidence != tt.confidence {
					t.Errorf("told %s %+v", e.Action, e.Copy)
				}
			}
		})
	}
}

// What was lost on a stick is looked for since it may have been lost, as what was
// told before would be told twice; what was lost on a share not at all.
func TestOnlyWhatMayBeLostIsLookedFor(t *testing.T) {
	c, _, out := stickAt(t, t.TempDir(), Options{})
	up := &upTo{}
	c.lag, c.since = up, time.Now().Add(-time.Hour)
	began := c.since
	up.elsewhere = began.Add(time.Minute)
	c.work(t.Context())
	c.q.lose(losses{gone: 3})
	c.work(t.Context())
	if c.scan != nil || len(out) != 1 {
		t.Errorf("a loss on a share: %d events, looks for it: %v", len(out), c.scan != nil)
	}
	up.elsewhere = began.Add(2 * time.Minute)
	c.q.lose(losses{sought: 1})
	c.work(t.Context())
	if want := began.Add(time.Minute); !c.look || !c.since.Equal(want) {
		t.Errorf("it is to look (%v) since %v, want %v", c.look, c.since, want)
	}
	c.lost(t.Context(), 0)
	if c.scan == nil || len(out) != 2 {
		t.Fatalf("a loss elsewhere: %d events", len(out))
	}
	if late := c.scan.since.Sub(began); late > time.Minute || late < time.Minute-5*time.Second {
		t.Errorf("it looks for what was written since %v after the start", late)
	}
	<-c.scan.done
}

// upTo is a source that has caught up to these moments.
type upTo struct{ shares, elsewhere time.Time }

func (u *upTo) caughtUp(time.Time) (shares, elsewhere time.Time) { return u.shares, u.elsewhere }
