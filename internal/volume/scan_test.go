package volume

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/event"
)

// tree is a sysfs of a test.
type tree struct {
	t    testing.TB
	root string
}

func (s tree) write(name, text string) {
	s.t.Helper()
	name = filepath.Join(s.root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s tree) link(name, to string) {
	s.t.Helper()
	name = filepath.Join(s.root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(s.root, filepath.FromSlash(to)), name); err != nil {
		s.t.Fatal(err)
	}
}

// block makes a block device with this number in a folder below devices/.
func (s tree) block(number, dir string) {
	s.write("devices/"+dir+"/dev", number+"\n")
	s.link("dev/block/"+number, "devices/"+dir)
}

const stickDir = "pci0000:00/0000:00:14.0/usb1/1-4"

// stick makes a USB stick with a disk sdb and a partition, whose own attribute
// says that it is not removable, as external disks do.
func (s tree) stick() {
	s.write("devices/"+stickDir+"/idVendor", "0781\n")
	s.write("devices/"+stickDir+"/idProduct", "5581\n")
	s.write("devices/"+stickDir+"/serial", "4C530001\n")
	s.write("devices/"+stickDir+"/removable", "unknown\n")
	s.write("devices/"+stickDir+"/busnum", "1\n")
	s.write("devices/"+stickDir+"/devnum", "5\n")
	s.link("bus/usb/devices/1-4", "devices/"+stickDir)
	disk := stickDir + "/1-4:1.0/host2/target2:0:0/2:0:0:0/block/sdb"
	s.block("8:16", disk)
	s.write("devices/"+disk+"/removable", "0\n")
	s.block("8:17", disk+"/sdb1")
	s.write("devices/"+disk+"/sdb1/partition", "1\n")
}

func newTree(t testing.TB) tree {
	if runtime.GOOS == "windows" {
		t.Skip("sysfs has names with colons")
	}
	s := tree{t, t.TempDir()}
	s.stick()
	// A disk inside, and on it the root.
	sata := "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0"
	s.block("8:0", sata+"/block/sda")
	s.block("8:1", sata+"/block/sda/sda1")
	s.write("devices/"+sata+"/block/sda/sda1/partition", "1\n")
	s.link("devices/"+sata+"/subsystem", "bus/scsi")
	// LUKS on the stick; LVM on LUKS inside.
	s.block("253:0", "virtual/block/dm-0")
	s.write("devices/virtual/block/dm-0/dm/name", "luks-1\n")
	s.write("devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-luks-1\n")
	s.link("devices/virtual/block/dm-0/slaves/sdb1", "devices/"+stickDir+"/1-4:1.0/host2/target2:0:0/2:0:0:0/block/sdb/sdb1")
	s.block("253:1", "virtual/block/dm-1")
	s.write("devices/virtual/block/dm-1/dm/name", "veracrypt1\n")
	s.link("devices/virtual/block/dm-1/slaves/sda1", "devices/"+sata+"/block/sda/sda1")
	s.block("253:2", "virtual/block/dm-2")
	s.write("devices/virtual/block/dm-2/dm/name", "vg-lv\n")
	s.write("devices/virtual/block/dm-2/dm/uuid", "LVM-abc\n")
	s.link("devices/virtual/block/dm-2/slaves/dm-0", "devices/virtual/block/dm-0")
	s.link("devices/virtual/block/dm-2/slaves/dm-2", "devices/virtual/block/dm-2") // a circle, which the kernel does not make
	// Loop devices: an image on the stick, one on the inner disk.
	s.block("7:0", "virtual/block/loop0")
	s.write("devices/virtual/block/loop0/loop/backing_file", "/media/taro/USB/disk image.img\n")
	s.block("7:1", "virtual/block/loop1")
	s.write("devices/virtual/block/loop1/loop/backing_file", "/var/images/a.img (deleted)\n")
	s.block("7:2", "virtual/block/loop2")
	s.write("devices/virtual/block/loop2/loop/backing_file", "/elsewhere/a.img\n")
	s.block("7:3", "virtual/block/loop3")
	s.write("devices/virtual/block/loop3/loop/backing_file", "/mnt/bl/dislocker-file\n")
	// Mappings made by hand.
	for i, below := range []string{stickDir + "/1-4:1.0/host2/target2:0:0/2:0:0:0/block/sdb/sdb1", sata + "/block/sda/sda1", sata + "/block/sda"} {
		dm := "virtual/block/dm-" + strconv.Itoa(3+i)
		s.block("253:"+strconv.Itoa(3+i), dm)
		s.write("devices/"+dm+"/dm/name", "by-hand\n")
		s.link("devices/"+dm+"/slaves/"+filepath.Base(below), "devices/"+below)
	}
	lots := make([]byte, sniffed)
	for i := range lots {
		lots[i] = byte(rand.Uint32())
	}
	s.write("nodes/sdb1", string(lots))
	s.write("nodes/sda1", strings.Repeat("\x00\x01\x02file system", sniffed))
	// Programs that have devices open.
	for pid, p := range map[int]struct{ comm, args, node string }{
		100: {"simple-mtpfs", "simple-mtpfs\x00phone\x00", "/dev/bus/usb/001/005"},
		99:  {"simple-mtpfs", "simple-mtpfs\x00phone\x00", "/dev/bus/usb/001/005"}, // as 100, which it is about to leave the work to
		101: {"dislocker", "dislocker-fuse\x00-V\x00/dev/sdb1\x00/mnt/bl\x00", "/dev/sdb1"},
		102: {"own", "/home/taro/own\x00/home/taro/tel\x00", "/dev/bus/usb/001/005"},
		103: {"rawfs", "rawfs\x00/home/taro/raw\x00", "/dev/sdb1"},
		104: {"simple-mtpfs", "simple-mtpfs\x00--device\x001\x00", "/dev/bus/usb/001/009"},
	} {
		s.process(pid, p.comm, p.args, "1000", "/dev/null", "/dev/fuse", p.node)
	}
	// A card in a slot of its own, flash that is soldered on, a disc, NVMe in a Thunderbolt case.
	s.block("179:0", "platform/sdhci/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0")
	s.link("devices/platform/sdhci/mmc_host/mmc0/mmc0:aaaa/subsystem", "bus/mmc")
	s.write("devices/platform/sdhci/mmc_host/mmc0/mmc0:aaaa/type", "SD\n")
	s.write("devices/platform/sdhci/mmc_host/mmc0/mmc0:aaaa/serial", "0x12345678\n")
	s.block("179:8", "platform/sdhci/mmc_host/mmc1/mmc1:0001/block/mmcblk1")
	s.link("devices/platform/sdhci/mmc_host/mmc1/mmc1:0001/subsystem", "bus/mmc")
	s.write("devices/platform/sdhci/mmc_host/mmc1/mmc1:0001/type", "MMC\n")
	s.block("11:0", "pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0/block/sr0")
	s.block("259:0", "pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/nvme1n1")
	s.write("devices/pci0000:00/0000:00:1c.0/0000:03:00.0/removable", "removable\n")
	s.link("devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/subsystem", "class/nvme")
	s.write("devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/serial", "S4EV   \n")
	return s
}

// bench is a Watcher on a tree, fed with mountinfo by the test.
type bench struct {
	*Watcher
	b    *blocks
	size func(string) (int64, error)
}

func newBench(t testing.TB, removable ...string) *bench {
	s := newTree(t)
	w := New(Options{SysRoot: s.root, RemovablePaths: removable, StatTimeout: 5 * time.Second})
	nodes := map[string]Dev{filepath.Join(s.root, "nodes", "sdb1"): {8, 17}, filepath.Join(s.root, "nodes", "sda1"): {8, 1}}
	return &bench{w, &blocks{sys: s.root, dev: filepath.Join(s.root, "nodes"), proc: filepath.Join(s.root, "proc"), guard: w.guard,
		backing: func(loop string) (Dev, bool) {
			d, ok := map[string]Dev{"loop2": {8, 17}, "loop3": {0, 44}}[loop]
			return d, ok
		},
		number: func(node string) (Dev, bool) { d, ok := nodes[node]; return d, ok }},
		func(string) (int64, error) { return 1 << 30, nil }}
}

func (w *bench) feed(text string) (gone, come []change) {
	lines, _ := parseMountinfo(text)
	return w.update(lines, nil, w.b, w.size)
}

var rootLine = line(1, 0, "8:1", "/", "ext4", "/dev/sda1")

func TestWhatAMountIs(t *testing.T) {
	stick := event.Volume{BusType: "usb", VendorID: "0781", ProductID: "5581", SerialNumber: "4C530001", USBPath: "1-4"}
	with := func(v event.Volume, kind string, enc event.Opt[bool]) event.Volume {
		v.Kind, v.Encrypted = kind, enc
		if kind == event.VolumeRemovable || kind == event.VolumeOptical {
			v.Removable = event.Some(true)
		}
		if kind == event.VolumeLocal {
			v.Removable = event.Some(false)
		}
		return v
	}
	phone := stick // by the number of its node
	no, yes, unknown := event.Some(false), event.Some(true), event.Opt[bool]{}
	tests := []struct {
		name  string
		lines string // the last is what is looked at
		want  event.Volume
	}{
		{"a stick's partition", line(2, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1"), with(stick, "removable", no)},
		{"a stick without partitions", line(2, 1, "8:16", "/media/taro/USB", "exfat", "/dev/sdb"), with(stick, "removable", no)},
		{"NTFS by FUSE, which has a device number of its own", line(2, 1, "0:60", "/media/taro/USB", "fuseblk", "/dev/sdb1"), with(stick, "removable", no)},
		{"btrfs, likewise", line(2, 1, "0:61", "/media/taro/USB", "btrfs", "/dev/sdb1"), with(stick, "removable", no)},
		{"LUKS on a stick", line(2, 1, "253:0", "/media/taro/USB", "ext4", "/dev/mapper/luks-1"), with(stick, "removable", yes)},
		{"LVM in LUKS on a stick", line(2, 1, "253:2", "/media/taro/USB", "ext4", "/dev/mapper/vg-lv"), with(stick, "removable", yes)},
		{"VeraCrypt on the inner disk", line(2, 1, "253:1", "/mnt/v", "ext4", "/dev/mapper/veracrypt1"),
			with(event.Volume{BusType: "sata"}, "local", yes)},
		{"the inner disk", line(2, 1, "8:1", "/home", "ext4", "/dev/sda1"), with(event.Volume{BusType: "sata"}, "local", no)},
		{"an image on a stick", line(2, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1") + line(3, 1, "7:0", "/mnt/img", "ext4", "/dev/loop0"), with(stick, "removable", no)},
		{"an image on the inner disk", line(2, 1, "7:1", "/mnt/img", "ext4", "/dev/loop1"), with(event.Volume{}, "local", no)},
		{"encrypted folders on a stick", line(2, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1") + line(3, 1, "0:44", "/home/taro/plain", "fuse.gocryptfs", "/media/taro/USB/cipher"),
			with(stick, "removable", yes)},
		{"an SD card", line(2, 1, "179:0", "/media/taro/SD", "vfat", "/dev/mmcblk0"), with(event.Volume{BusType: "sd", SerialNumber: "0x12345678"}, "removable", no)},
		{"soldered flash", line(2, 1, "179:8", "/data", "ext4", "/dev/mmcblk1"), with(event.Volume{BusType: "mmc"}, "local", no)},
		{"a disc", line(2, 1, "11:0", "/media/cd", "iso9660", "/dev/sr0"), with(event.Volume{BusType: "sata"}, "optical", no)},
		{"NVMe in a case of its own", line(2, 1, "259:0", "/media/nvme", "exfat", "/dev/nvme1n1"), with(event.Volume{BusType: "nvme", SerialNumber: "S4EV"}, "removable", no)},
		{"SMB", line(2, 1, "0:50", "/mnt/s", "cifs", "//fs1/営業部/2026"), event.Volume{Kind: "network", Share: `\\fs1\営業部\2026`}},
		{"NFS", line(2, 1, "0:51", "/mnt/n", "nfs4", "fs1:/export/home"), event.Volume{Kind: "network", Share: "fs1:/export/home"}},
		{"the system of a PC without a disk", line(2, 0, "0:51", "/", "nfs4", "fs1:/root"), event.Volume{Kind: "local", Share: "fs1:/root"}},
		{"sshfs", line(2, 1, "0:52", "/mnt/x", "fuse.sshfs", "taro@host.example.jp:/data"), event.Volume{Kind: "network", Share: "host.example.jp:/data"}},
		{"a phone by FUSE, whose program is not to be seen", line(2, 1, "0:53", "/mnt/p", "fuse.jmtpfs", "jmtpfs"), with(event.Volume{BusType: "usb"}, "removable", unknown)},
		{"a phone by FUSE", line(2, 1, "0:53", "/mnt/phone", "fuse.simple-mtpfs", "simple-mtpfs"), with(phone, "removable", unknown)},
		{"one of two phones by FUSE", line(2, 1, "0:53", "/mnt/phone2", "fuse.simple-mtpfs", "simple-mtpfs"), with(event.Volume{BusType: "usb"}, "removable", unknown)},
		{"a phone by a FUSE program that nobody knows", line(2, 1, "0:53", "/home/taro/tel", "fuse.own", "own"), with(phone, "removable", unknown)},
		{"a stick by a FUSE program", line(2, 1, "0:53", "/home/taro/raw", "fuse", "rawfs"), with(stick, "removable", no)},
		{"a FUSE program that has a stick open and shows another place", line(2, 1, "0:53", "/home/taro/x", "fuse", "rawfs"), with(event.Volume{}, "virtual", unknown)},
		{"BitLocker by a program of its own", line(2, 1, "0:53", "/mnt/bl", "fuse.dislocker", "dislocker") + line(3, 1, "7:3", "/mnt/open", "ntfs3", "/dev/loop3"), with(stick, "removable", yes)},
		{"an image on a stick that somebody else has mounted", line(2, 1, "7:2", "/mnt/img", "ext4", "/dev/loop2"), with(stick, "removable", no)},
		{"a mapping made by hand onto what looks random", line(2, 1, "253:3", "/mnt/v", "ext4", "/dev/mapper/x"), with(stick, "removable", yes)},
		{"a mapping made by hand onto a file system", line(2, 1, "253:4", "/mnt/v", "ext4", "/dev/mapper/y"), with(event.Volume{BusType: "sata"}, "local", no)},
		{"a mapping made by hand onto what cannot be read", line(2, 1, "253:5", "/mnt/v", "ext4", "/dev/mapper/z"), with(event.Volume{BusType: "sata"}, "local", unknown)},
		{"a cloud drive", line(2, 1, "0:54", "/mnt/c", "fuse.rclone", "drive:"), event.Volume{Kind: "cloud-sync", Share: "drive:"}},
		{"proc", line(2, 1, "0:5", "/proc", "proc", "proc"), with(event.Volume{}, "virtual", unknown)},
		{"a FUSE mount of a user that names a stick", line(2, 1, "0:70", "/home/taro/x", "fuse.hello", "/dev/sdb1"), with(event.Volume{}, "virtual", unknown)},
		{"an overlay on the inner disk", "2 1 0:71 / /merged rw - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c\n", with(event.Volume{}, "virtual", unknown)},
		{"an overlay that keeps what is written on a stick", line(2, 1, "8:17", "/media/taro/USB", "ext4", "/dev/sdb1") +
			"3 1 0:71 / /merged rw - overlay overlay rw,lowerdir=/a,upperdir=/media/taro/USB/up,workdir=/media/taro/USB/w\n", with(stick, "removable", unknown)},
		{"what settings declare", line(2, 1, "7:1", "/mnt/usb", "ext4", "/dev/loop1"), with(event.Volume{}, "removable", no)},
		{"below what settings declare", line(2, 1, "0:80", "/mnt/usb/2", "tmpfs", "tmpfs"), with(event.Volume{}, "removable", unknown)},
		{"beside what settings declare", line(2, 1, "0:80", "/mnt/usb2", "tmpfs", "tmpfs"), with(event.Volume{}, "virtual", unknown)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newBench(t, "/mnt/usb")
			_, come := w.feed(rootLine + tt.lines)
			all := w.Table().All()
			last := all[len(all)-1]
			got := last.Volume
			want := tt.want
			want.MountName, want.DeviceName, want.FileSystemType, want.Writable = got.MountName, got.DeviceName, got.FileSystemType, event.Some(true)
			if last.Told() {
				want.Size = event.Some[int64](1 << 30)
			}
			if got != want {
				t.Errorf("\n got %+v\nwant %+v", got, want)
			}
			told := slices.ContainsFunc(come, func(c change) bool { return c.Mount == last.Mount })
			if told != last.Told() {
				t.Errorf("told of it: %v, want %v for kind %s", told, last.Told(), got.Kind)
			}
			for _, c := range come {
				if len(c.errs) > 0 {
					t.Errorf("errors %q", c.errs)
				}
			}
		})
	}
}

func TestComingsAndGoings(t *testing.T) {
	usb := line(2, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1")
	ro := strings.Replace(usb, " rw -", " ro -", 1)
	tests := []struct {
		name       string
		from, to   string
		gone, come []string
	}{
		{"a stick comes", rootLine, rootLine + usb, nil, []string{"/media/taro/USB"}},
		{"a stick goes", rootLine + usb, rootLine, []string{"/media/taro/USB"}, nil},
		{"nothing changes", rootLine + usb, rootLine + usb, nil, nil},
		{"another one takes its place and its mount id", rootLine + usb, rootLine + line(2, 1, "179:0", "/media/taro/USB", "vfat", "/dev/mmcblk0"),
			[]string{"/media/taro/USB"}, []string{"/media/taro/USB"}},
		{"it moves", rootLine + usb, rootLine + line(2, 1, "8:17", "/mnt/2", "vfat", "/dev/sdb1"), []string{"/media/taro/USB"}, []string{"/mnt/2"}},
		{"it is mounted a second time", rootLine + usb, rootLine + usb + line(3, 1, "8:17", "/mnt/2", "vfat", "/dev/sdb1"), nil, []string{"/mnt/2"}},
		{"a folder of it is bound elsewhere", rootLine + usb, rootLine + usb + "3 1 8:17 /docs /mnt/docs rw - vfat /dev/sdb1 rw\n", nil, []string{"/mnt/docs"}},
		{"it becomes writable", rootLine + ro, rootLine + usb, nil, []string{"/media/taro/USB"}},
		{"it becomes read-only", rootLine + usb, rootLine + ro, nil, nil},
		{"local and virtual ones come", rootLine, rootLine + line(4, 1, "8:1", "/home", "ext4", "/dev/sda1") + line(5, 1, "0:5", "/proc", "proc", "proc"), nil, nil},
		{"one whose name breaks lines comes", rootLine, rootLine + line(2, 1, "8:17", `/media/a\012b`, "vfat", "/dev/sdb1"), nil, []string{"/media/a\nb"}},
	}
	places := func(cs []change) (list []string) {
		for _, c := range cs {
			list = append(list, c.Mount)
		}
		return list
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newBench(t)
			w.feed(tt.from)
			gone, come := w.feed(tt.to)
			if g, c := places(gone), places(come); !slices.Equal(g, tt.gone) || !slices.Equal(c, tt.come) {
				t.Errorf("went %q, came %q; want %q and %q", g, c, tt.gone, tt.come)
			}
			if len(gone) > 0 && (gone[0].SerialNumber != "4C530001" || !gone[0].Size.OK) {
				t.Errorf("the end tells %+v, want what its start told", gone[0].Volume)
			}
		})
	}
}

func TestLookupFindsWhatOneSees(t *testing.T) {
	w := newBench(t)
	w.feed(rootLine + line(2, 1, "8:17", "/media/taro/my USB", "vfat", "/dev/sdb1") + line(3, 1, "0:50", "/media", "nfs", "fs1:/m") +
		line(4, 1, "8:17", "/mnt", "vfat", "/dev/sdb1"))
	for path, want := range map[string]int{"/": 1, "/etc/passwd": 1, "/media/taro/my USB/a.txt": 3, "/mnt": 4, "/mnt/a/b": 4, "/mnt2": 1, "/mnt/": 4} {
		if v, ok := w.Table().Lookup(path); !ok || v.MountID != want {
			t.Errorf("%s lies on mount %d (%v), want %d", path, v.MountID, ok, want)
		}
	}
	for _, path := range []string{"", "relative/path"} {
		if v, ok := w.Table().Lookup(path); ok {
			t.Errorf("%q lies on mount %d, want none", path, v.MountID)
		}
	}
	if open := w.Open(); len(open) != 3 || open[0].Mount != "/media" || open[1].Mount != "/media/taro/my USB" || !open[1].Hidden {
		t.Errorf("open are %+v, want three in the order of their places, the hidden one too", open)
	}
}

func TestWatchersAreToldOnceForManyChanges(t *testing.T) {
	w := newBench(t)
	c := w.Table().Watch()
	w.feed(rootLine)
	w.feed(rootLine + line(2, 1, "8:17", "/mnt", "vfat", "/dev/sdb1"))
	select {
	case <-c:
	default:
		t.Error("not told")
	}
	select {
	case <-c:
		t.Error("told twice")
	default:
	}
	w.Table().Unwatch(c)
	w.feed(rootLine)
	select {
	case <-c:
		t.Error("told after Unwatch")
	default:
	}
}

func TestAStickWhoseSerialNumberCannotBeReadIsRemovableAllTheSame(t *testing.T) {
	w := newBench(t)
	w.guard.timeout = time.Second
	serial := filepath.Join(w.opt.SysRoot, "devices", filepath.FromSlash(stickDir), "serial")
	if err := os.Remove(serial); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(serial); err != nil { // opening it hangs, as reading does while a driver holds the lock
		t.Skipf("no FIFO here to hang on: %v", err)
	}
	defer release(serial)
	_, come := w.feed(rootLine + line(2, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1"))
	if len(come) != 1 || come[0].Kind != event.VolumeRemovable || come[0].VendorID != "0781" || come[0].ProductID != "5581" || come[0].SerialNumber != "" ||
		len(come[0].errs) != 1 || !strings.Contains(come[0].errs[0], "read usb device 1-4: no answer") {
		t.Errorf("got %+v, want a removable volume with its ids and a word on what is missing", come)
	}
}

func TestAFileSystemThatDoesNotAnswerIsToldWithoutItsSize(t *testing.T) {
	w := newBench(t)
	w.guard.timeout = 10 * time.Millisecond
	hang := make(chan struct{})
	defer close(hang)
	asked := 0
	w.size = func(string) (int64, error) {
		return bounded(w.guard, func() int64 { <-hang; return 0 })
	}
	text := rootLine
	for i := range maxHanging + 3 {
		text += line(i+2, 1, fmt.Sprint("0:", 50+i), fmt.Sprint("/mnt/", i), "nfs", "dead:/x")
	}
	begin := time.Now()
	_, come := w.feed(text)
	t.Logf("took %v", time.Since(begin))
	for _, c := range come {
		if len(c.errs) != 1 || c.Size.OK {
			t.Errorf("%s has size %v and errors %q, want a word that it did not answer", c.Mount, c.Size, c.errs)
		} else if strings.Contains(c.errs[0], "not asked") {
			asked++
		}
	}
	if len(come) != maxHanging+3 || asked != 3 {
		t.Errorf("%d told, %d of them not asked; want %d and 3", len(come), asked, maxHanging+3)
	}
}

func TestDeadServersDoNotHoldUpAStick(t *testing.T) {
	synctest.Test(t, deadServersDoNotHoldUpAStick) // the time of a busy machine does not count
}

func deadServersDoNotHoldUpAStick(t *testing.T) {
	w := newBench(t)
	w.guard.timeout, w.opt.StatTimeout = 50*time.Millisecond, 50*time.Millisecond
	hang := make(chan struct{})
	defer close(hang)
	w.size = func(mount string) (int64, error) { return bounded(w.guard, func() int64 { <-hang; return 0 }) }
	text := rootLine
	for i := range 15 {
		text += line(i+2, 1, fmt.Sprint("0:", 50+i), fmt.Sprint("/mnt/", i), "nfs", "dead:/x")
	}
	begin := time.Now()
	_, come := w.feed(text + line(100, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1"))
	if took := time.Since(begin); took > 500*time.Millisecond || len(come) != 16 {
		t.Errorf("%d told after %v, want 16 after some 150 ms", len(come), took)
	}
}

func TestASizeThatCannotBeReadIsTold(t *testing.T) {
	w := newBench(t)
	w.size = func(string) (int64, error) { return 0, errors.New("permission denied") }
	_, come := w.feed(rootLine + line(2, 1, "0:50", "/mnt/a", "nfs", "fs1:/x"))
	if len(come) != 1 || len(come[0].errs) != 1 || !strings.Contains(come[0].errs[0], "/mnt/a: permission denied") {
		t.Errorf("got %+v", come)
	}
}

// A hundred thousand mounts is what a kernel lets a namespace have (fs.mount-max). A
// look takes a quarter of a second of CPU, and some 35 MB stay.
func TestAHundredThousandMounts(t *testing.T) {
	kept := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	w := newBench(t)
	text := manyMounts(100_000)
	before := kept()
	begin := time.Now()
	w.feed(text)
	first := time.Since(begin)
	begin = time.Now()
	_, come := w.feed(text + line(200_000, 1, "8:17", "/media/taro/USB", "vfat", "/dev/sdb1"))
	again := time.Since(begin)
	memory := kept() - before
	t.Logf("first look %v, a change %v, %d MB stay", first, again, memory>>20)
	if len(come) != 1 || come[0].SerialNumber != "4C530001" {
		t.Errorf("came %+v, want the stick", come)
	}
	if memory > 80<<20 || max(first, again) > 2*time.Minute {
		t.Error("that is too much")
	}
	runtime.KeepAlive(w)
}

func TestManyMountsOfWhatTakesTimeToLookAt(t *testing.T) {
	w := newBench(t)
	var text strings.Builder
	text.WriteString(rootLine)
	for i := range 20_000 {
		if i%20 == 0 {
			text.WriteString(line(i+2, 1, fmt.Sprint("0:", 100+i), fmt.Sprint("/home/taro/", i), "fuse.own", "own"))
		} else {
			text.WriteString(line(i+2, 1, "253:2", fmt.Sprint("/srv/", i), "ext4", "/dev/mapper/vg-lv"))
		}
	}
	begin := time.Now()
	_, come := w.feed(text.String())
	// A third of a second where it runs alone; looked at one by one it was a minute.
	if took := time.Since(begin); took > time.Minute || len(come) != 19_000 {
		t.Errorf("%d told after %v, want 19,000 within a second", len(come), took)
	} else {
		t.Logf("took %v", took)
	}
}

func TestWaysToWriteAPlaceOnWindows(t *testing.T) {
	for path, want := range map[string]string{`E:\`: "E:", `e:/docs`: `E:\DOCS`, `\\?\E:\x`: `E:\X`, `\\?\UNC\fs1\share\x`: `\\FS1\SHARE\X`,
		`\\fs1\share`: `\\FS1\SHARE`, `\Device\HarddiskVolume5\x`: `\DEVICE\HARDDISKVOLUME5\X`, `\Device\Mup\fs1\share\x`: `\\FS1\SHARE\X`} {
		if got := windowsKey(path); got != want {
			t.Errorf("windowsKey(%q) = %q, want %q", path, got, want)
		}
	}
}

func BenchmarkUpdate1000Mounts(b *testing.B) {
	w := newBench(b)
	text := manyMounts(1000)
	b.ReportAllocs()
	for b.Loop() {
		w.feed(text)
	}
}
