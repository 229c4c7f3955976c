package volume

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sekisho/internal/event"
)

// process makes a process of a test that has files open.
func (s tree) process(pid int, comm, args, uid string, open ...string) {
	s.t.Helper()
	dir := filepath.Join("proc", strconv.Itoa(pid))
	s.write(filepath.Join(dir, "comm"), comm+"\n")
	s.write(filepath.Join(dir, "cmdline"), args)
	s.write(filepath.Join(dir, "status"), "Name:\t"+comm+"\nUid:\t"+uid+"\t"+uid+"\t"+uid+"\t"+uid+"\n")
	if err := os.MkdirAll(filepath.Join(s.root, dir, "fd"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	links := map[string]string{"exe": "/usr/libexec/" + comm}
	for fd, to := range open {
		links[filepath.Join("fd", strconv.Itoa(fd))] = to
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(s.root, dir, name)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestAPhoneThatAFileManagerHasOpenIsTold(t *testing.T) {
	s := newTree(t)
	const dir = "pci0000:00/0000:00:14.0/usb1/1-6"
	for name, text := range map[string]string{"idVendor": "18d1", "idProduct": "4ee1", "serial": "8A1X", "busnum": "1", "devnum": "9"} {
		s.write("devices/"+dir+"/"+name, text+"\n")
	}
	s.write("devices/"+dir+"/1-6:1.0/bInterfaceClass", "ff\n")
	s.write("devices/"+dir+"/1-6:1.0/interface", "MTP\n")
	s.link("bus/usb/devices/1-6", "devices/"+dir)
	s.link("bus/usb/devices/1-6:1.0", "devices/"+dir+"/1-6:1.0")
	s.write("run/udev/data/c189:8", "S:libmtp-1-6\nE:ID_SERIAL=Google_Pixel_8A1X\nE:ID_MTP_DEVICE=1\n")
	const node = "/dev/bus/usb/001/009"
	s.process(200, "gvfs-mtp-volume", "gvfs-mtp-volume-monitor\x00", "1000", "/dev/null", node)
	s.process(202, "jmtpfs", "jmtpfs\x00/mnt/phone\x00", "1000", "/dev/null", node) // about to mount
	w := New(Options{SysRoot: s.root, ProcRoot: filepath.Join(s.root, "proc"), RunRoot: filepath.Join(s.root, "run"), StatTimeout: 5 * time.Second})
	b := &bench{w, &blocks{sys: s.root, proc: w.opt.ProcRoot, guard: w.guard, number: func(string) (Dev, bool) { return Dev{}, false }},
		func(string) (int64, error) { return 1, nil }}
	out := make(chan *event.Event, 16)
	look := func() *event.Event {
		gone, come := w.lookForPhones(b.b)
		w.tell(context.Background(), out, mechanismOpenFiles, "", gone, come)
		select {
		case e := <-out:
			return e
		default:
			return nil
		}
	}
	b.feed(rootLine + line(2, 1, "0:60", "/run/user/1000/gvfs", "fuse.gvfsd-fuse", "gvfsd-fuse"))
	if e := look(); e != nil {
		t.Fatalf("told %s of a phone that nobody uses", e.Action)
	}
	s.process(201, "gvfsd-mtp", "/usr/libexec/gvfsd-mtp\x00--spawner\x00", "1000", "/dev/null", node, node)
	e := look()
	if e == nil {
		t.Fatal("nothing told")
	}
	want := event.Volume{MountName: "/run/user/1000/gvfs/mtp:host=Google_Pixel_8A1X", DeviceName: node, FileSystemType: "mtp", BusType: "usb", Removable: event.Some(true),
		SerialNumber: "8A1X", VendorID: "18d1", ProductID: "4ee1", Kind: event.VolumeRemovable, USBPath: "1-6"}
	if e.Action != event.VolumeMounted || *e.Volume != want {
		t.Errorf("told %s\n got %+v\nwant %+v", e.Action, *e.Volume, want)
	}
	if e.Process == nil || e.Process.PID.V != 201 || e.Process.Name != "gvfsd-mtp" || e.User == nil || e.User.ID != "1000" {
		t.Errorf("by %+v for %+v, want gvfsd-mtp, 201, for 1000", e.Process, e.User)
	}
	if open := w.Open(); len(open) != 2 || open[0].SerialNumber != "8A1X" && open[1].SerialNumber != "8A1X" {
		t.Errorf("open are %+v, want the phone among them", open)
	}
	if e := look(); e != nil {
		t.Errorf("told again: %s", e.Action)
	}
	if err := os.RemoveAll(filepath.Join(s.root, "proc", "201")); err != nil {
		t.Fatal(err)
	}
	if e := look(); e == nil || e.Action != event.VolumeUnmounted || e.Volume.SerialNumber != "8A1X" || e.Process == nil {
		t.Errorf("got %+v, want that it is closed", e)
	}
	if e := look(); e != nil || len(w.servers) != 0 {
		t.Errorf("told %+v, remembers %d", e, len(w.servers))
	}
}

// The look at what processes have open came to a program when it had just gone on in
// the background.
func TestAProgramThatForkedMeanwhileIsFound(t *testing.T) {
	s := newTree(t)
	s.process(203, "jmtpfs", "jmtpfs\x00/mnt/phone\x00", "1000", "/dev/fuse", "/dev/bus/usb/001/009")
	b := &blocks{proc: filepath.Join(s.root, "proc"), guard: &guard{timeout: 5 * time.Second}, opened: &[]opener{}}
	mount := &mountLine{Mount: "/mnt/phone", Type: "fuse.jmtpfs"}
	if o, err := b.serverBehind(mount); err != nil || o.pid != 203 {
		t.Errorf("got %+v, %v", o, err)
	}
	b.opened = &[]opener{}
	if o, err := b.serverBehind(mount); err != nil || o.pid != 0 {
		t.Errorf("asked a third time: %+v, %v", o, err)
	}
}
