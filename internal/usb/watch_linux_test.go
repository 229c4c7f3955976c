package usb

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The kernel tells of what it is asked to tell: a write to a device's uevent
// file makes a real, if synthetic, message.
func TestTheKernelsUeventsAreHeard(t *testing.T) {
	s, err := openUevents()
	if err != nil {
		t.Skipf("no kernel uevents here: %v", err)
	}
	defer s.Close()
	const file = "/sys/class/mem/null/uevent"
	if err := os.WriteFile(file, []byte("change"), 0); err != nil {
		t.Skipf("cannot ask for a uevent: %v", err)
	}
	s.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, maxUevent)
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		if err := s.raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return rerr != unix.EAGAIN
		}); err != nil {
			t.Fatalf("the uevent did not come: %v", err)
		}
		if rerr != nil {
			t.Fatal(rerr)
		}
		if a := from.(*unix.SockaddrNetlink); a.Pid != 0 {
			continue // udev's
		}
		u, err := parseUevent(buf[:n])
		if err != nil {
			t.Fatalf("the kernel's message %q: %v", buf[:n], err)
		}
		if u.Subsystem == "mem" && strings.HasSuffix(u.DevPath, "/null") {
			if u.Action != "change" || u.Synthetic == "" {
				t.Errorf("got %+v, want a synthetic change", u)
			}
			return
		}
	}
}

// A uevent that another process sends must not be believed.
func TestAForgedUeventIsIgnored(t *testing.T) {
	s, err := openUevents()
	if err != nil {
		t.Skipf("no kernel uevents here: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan message, 16)
	var wg sync.WaitGroup
	wg.Go(func() { New(Options{}).read(ctx, s, got) })
	defer func() { cancel(); s.Close(); wg.Wait() }()

	forger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Skipf("no second netlink socket: %v", err)
	}
	defer unix.Close(forger)
	if err := unix.Bind(forger, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Skipf("no second netlink socket: %v", err)
	}
	if err := unix.Sendto(forger, []byte(capturedUevent), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		t.Skipf("sending to the kernel's group is refused, which is as good: %v", err)
	}
	select {
	case m := <-got:
		t.Errorf("believed %+v", m)
	case <-time.After(300 * time.Millisecond):
	}
}

// An overrun of the real socket: more messages than it holds while nobody reads.
func TestAnOverrunOfTheSocketIsNoticed(t *testing.T) {
	s, err := openUevents()
	if err != nil {
		t.Skipf("no kernel uevents here: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan message)
	var wg sync.WaitGroup
	defer func() { cancel(); s.Close(); wg.Wait() }()
	if err := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := os.WriteFile("/sys/class/mem/null/uevent", []byte("change"), 0); err != nil {
			t.Skipf("cannot ask for a uevent: %v", err)
		}
	}
	wg.Go(func() { New(Options{}).read(ctx, s, got) })
	select {
	case m := <-got:
		if !m.lost {
			t.Errorf("got %+v, want the word that messages were lost", m)
		}
	case <-time.After(time.Minute):
		t.Error("the overrun was not noticed")
	}
}

func TestRunOnThisMachine(t *testing.T) {
	w := New(Options{})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 1024)
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = w.Run(ctx, out) })
	for begin := time.Now(); w.Status().State == endpoint.SensorDown; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("still down after a minute: %+v", w.Status())
		}
	}
	cancel()
	wg.Wait()
	if err != nil {
		t.Errorf("Run: %v", err)
	}
	if s := w.Status(); s.State == endpoint.SensorDegraded && s.Reason == "" {
		t.Errorf("degraded without a reason: %+v", s)
	}
}

// The way of a proof: to the kernel, by its notification to the sensor, to who listens.
func TestTheSensorProvesThatItSees(t *testing.T) {
	w := New(Options{})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 1024)
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx, out) })
	defer func() { cancel(); wg.Wait() }()
	for begin := time.Now(); w.Status().State == endpoint.SensorDown; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("still down after a minute: %+v", w.Status())
		}
	}
	for _, nonce := range []string{"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"} {
		began := time.Now()
		w.Prove(nonce)
		for seen := false; !seen; {
			select {
			case e := <-out:
				if seen = e.Action == event.SensorProven; seen && (e.ID != nonce || e.Sensor != "usb") {
					t.Errorf("got %+v, want the proof %s", e, nonce)
				}
			case <-time.After(time.Minute):
				t.Fatal("no proof within a minute")
			}
		}
		t.Logf("by %s: proven after %v", w.Status().Mechanism, time.Since(began))
	}
	// What somebody else asked the kernel for is no proof.
	other := New(Options{})
	if u := (&uevent{Synthetic: "00000000-0000-4000-8000-000000000003"}); w.isProof(u) || other.isProof(u) || other.isProof(&uevent{}) {
		t.Error("any synthetic uevent counts as a proof")
	}
}

// A socket opened when the rights are gone holds less, which is told.
func TestASmallerSocketIsTold(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "bus", "usb", "devices"), ".keep", "")
	run := func() endpoint.Sensor {
		w := New(Options{SysRoot: root, Names: []string{}})
		ctx, cancel := context.WithCancel(context.Background())
		var ended sync.WaitGroup
		ended.Go(func() { // ends the run, which stays on this thread, once there is a state
			for s := w.Status(); s.State == endpoint.SensorDown && ctx.Err() == nil; s = w.Status() {
				time.Sleep(time.Millisecond)
			}
			cancel()
		})
		if err := w.Run(ctx, make(chan *event.Event, 16)); err != nil {
			t.Error(err)
		}
		cancel()
		ended.Wait()
		return w.Status()
	}
	if s := run(); s.Mechanism != mechanismUevent || s.State != endpoint.SensorOK || s.Reason != "" {
		t.Skipf("the sensor has less from the start: %+v", s)
	}
	// On this thread only, which ends with the goroutine that has it.
	done := make(chan endpoint.Sensor)
	go func() {
		runtime.LockOSThread()
		defer close(done)
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have [2]unix.CapUserData
		if err := unix.Capget(&head, &have[0]); err != nil {
			t.Error(err)
			return
		}
		have[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		if err := unix.Capset(&head, &have[0]); err != nil {
			t.Error(err)
			return
		}
		done <- run()
	}()
	if s := <-done; s.Mechanism != mechanismUevent || s.State != endpoint.SensorOK || !strings.Contains(s.Reason, "CAP_NET_ADMIN") {
		t.Errorf("got %+v, want that notifications have less room", s)
	}
}

func TestWholeIDMap(t *testing.T) {
	for text, want := range map[string]bool{"         0          0 4294967295\n": true, "         0       1000          1\n": false,
		"0 100000 65536\n": false, "": false, "0 0 1000\n1000 1000 4294966295\n": false} {
		if got := wholeIDMap(text); got != want {
			t.Errorf("%q is whole: %v, want %v", text, got, want)
		}
	}
}

// In a user namespace of its own the sensor must not sit and wait for nothing.
func TestInAUserNamespaceSysfsIsLookedThrough(t *testing.T) {
	if os.Getenv("USB_TEST_IN_NAMESPACE") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "USB_TEST_IN_NAMESPACE=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Skipf("no user namespace here: %v", err)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	w := New(Options{})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 1024)
	var wg sync.WaitGroup
	wg.Go(func() { w.Run(ctx, out) })
	defer func() { cancel(); wg.Wait() }()
	select {
	case e := <-out:
		if s := w.Status(); e.Action != event.SensorDegraded || s.Mechanism != mechanismPolling || !strings.Contains(s.Reason, "user namespace") {
			t.Errorf("got %s, %+v; want that sysfs is polled", e.Action, s)
		}
	case <-time.After(time.Minute):
		t.Error("nothing told within a minute")
	}
}

// Where netlink is refused, sysfs is looked through.
func TestPollingTellsOfAStick(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "bus", "usb", "devices"), ".keep", "")
	w := New(Options{SysRoot: root, Names: []string{}})
	ctx, cancel := context.WithCancel(context.Background())
	out := make(chan *event.Event, 16)
	look := make(chan time.Time)
	var wg sync.WaitGroup
	wg.Go(func() {
		tr := w.newTracker(ctx, out, mechanismPolling)
		tr.tellState(endpoint.SensorDegraded, "refused")
		tr.run(nil, look, nil)
	})
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
	if e := next(); e.Action != event.SensorDegraded || e.Message != "refused" {
		t.Errorf("got %s %q, want the word that the sensor is degraded", e.Action, e.Message)
	}
	look <- time.Now()
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
	stick.plug(t, root)
	look <- time.Now()
	if e := next(); e.Action != event.USBAttached || e.Device.SerialNumber != "1" || e.Sensor != mechanismPolling {
		t.Errorf("got %s %+v by %s, want the stick by polling", e.Action, e.Device, e.Sensor)
	}
	w.Prove("nonce")
	if e := next(); e.Action != event.SensorProven || e.ID != "nonce" {
		t.Errorf("got %s %s, want the proof", e.Action, e.ID)
	}
	stick.pull(t, root)
	look <- time.Now()
	if e := next(); e.Action != event.USBDetached || e.Device.SerialNumber != "1" {
		t.Errorf("got %s %+v, want the end of the stick", e.Action, e.Device)
	}
}
