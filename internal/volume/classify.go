package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/usb"
)

// fileSystem is what the type of a file system alone tells. A type that is not
// listed is local where a block device lies beneath, else virtual.
type fileSystem struct {
	kind      string
	bus       string
	encrypted bool // it encrypts what it stores
	// beneath: the source is a folder of another file system, and what holds for
	// that one holds for this.
	beneath bool
	// served: what lies beneath is what the program that answers for it has open.
	served bool
}

// fileSystems maps types, as mountinfo writes them, to what they tell.
var fileSystems = map[string]fileSystem{
	"nfs": {kind: event.VolumeNetwork}, "nfs4": {kind: event.VolumeNetwork}, "cifs": {kind: event.VolumeNetwork},
	"smb3": {kind: event.VolumeNetwork}, "smbfs": {kind: event.VolumeNetwork}, "ncpfs": {kind: event.VolumeNetwork},
	"afs": {kind: event.VolumeNetwork}, "ceph": {kind: event.VolumeNetwork}, "lustre": {kind: event.VolumeNetwork},
	"coda": {kind: event.VolumeNetwork}, "fuse.sshfs": {kind: event.VolumeNetwork}, "fuse.glusterfs": {kind: event.VolumeNetwork},
	"fuse.ceph": {kind: event.VolumeNetwork}, "fuse.curlftpfs": {kind: event.VolumeNetwork}, "fuse.smbnetfs": {kind: event.VolumeNetwork},
	"fuse.fuse-nfs": {kind: event.VolumeNetwork}, "fuse.davfs2": {kind: event.VolumeNetwork}, "davfs": {kind: event.VolumeNetwork},
	// Desktops show shares, and phones too, below one mount.
	"fuse.gvfsd-fuse": {kind: event.VolumeNetwork}, "fuse.kio-fuse": {kind: event.VolumeNetwork},
	// Folders of another machine or of the hypervisor's host.
	"9p": {kind: event.VolumeNetwork}, "virtiofs": {kind: event.VolumeNetwork}, "vboxsf": {kind: event.VolumeNetwork},
	"vmhgfs": {kind: event.VolumeNetwork}, "fuse.vmhgfs-fuse": {kind: event.VolumeNetwork}, "prl_fs": {kind: event.VolumeNetwork},

	"fuse.rclone": {kind: event.VolumeCloudSync}, "fuse.onedriver": {kind: event.VolumeCloudSync},
	"fuse.google-drive-ocamlfuse": {kind: event.VolumeCloudSync}, "fuse.gcsfuse": {kind: event.VolumeCloudSync},
	"fuse.s3fs": {kind: event.VolumeCloudSync}, "fuse.goofys": {kind: event.VolumeCloudSync}, "fuse.dbxfs": {kind: event.VolumeCloudSync},

	// Phones and cameras.
	"fuse.jmtpfs": phone, "fuse.simple-mtpfs": phone, "fuse.go-mtpfs": phone, "fuse.mtpfs": phone,
	"fuse.aft-mtp-mount": phone, "fuse.gphotofs": phone,
	"fuse.ifuse": {kind: event.VolumeRemovable, bus: "usb"}, // asks usbmuxd, which has all of Apple's devices open

	// They show the inside of a whole encrypted device as a file, which is mounted then.
	"fuse.dislocker": {encrypted: true, served: true}, "fuse.veracrypt": {encrypted: true, served: true},

	"zfs": {kind: event.VolumeLocal}, "btrfs": {kind: event.VolumeLocal}, "bcachefs": {kind: event.VolumeLocal},
	"fuseblk": {kind: event.VolumeLocal}, "ubifs": {kind: event.VolumeLocal}, "jffs2": {kind: event.VolumeLocal},

	"ecryptfs":       {kind: event.VolumeLocal, encrypted: true, beneath: true},
	"fuse.gocryptfs": {kind: event.VolumeLocal, encrypted: true, beneath: true},
	"fuse.cryfs":     {kind: event.VolumeLocal, encrypted: true, beneath: true},
	"fuse.encfs":     {kind: event.VolumeLocal, encrypted: true},
	"fuse.bindfs":    {kind: event.VolumeLocal, beneath: true},
	"overlay":        {kind: event.VolumeVirtual, beneath: true},
}

var phone = fileSystem{kind: event.VolumeRemovable, bus: "usb", served: true}

// anonymous are file systems with a device number of their own making, whose
// source nevertheless is a block device. A user's FUSE mount may name any
// source, so "fuse.*" is not among them.
var anonymous = []string{"btrfs", "fuseblk", "bcachefs"}

// share returns the name of a network share: `\\server\share` for SMB,
// "server:/export" for the rest; "" where the source names none.
func share(typ, source string) string {
	switch {
	case typ == "cifs" || typ == "smb3" || typ == "smbfs":
		return strings.ReplaceAll(source, "/", `\`)
	case typ == "fuse.sshfs":
		if _, host, ok := strings.Cut(source, "@"); ok { // "taro@host:/path"
			return host
		}
		return source
	case source == "none", typ == "fuse.gvfsd-fuse", typ == "fuse.kio-fuse":
		return ""
	}
	return source
}

// blocks reads what sysfs says of block devices.
type blocks struct {
	sys, dev string
	proc     string
	// number returns the device number of a block device's node.
	number func(node string) (Dev, bool)
	// backing returns on which device the file lies that a loop device ("loop0")
	// is made of.
	backing func(loop string) (Dev, bool)
	// guard bounds what may wait for a driver.
	guard *guard

	// What one look found out, so that a hundred thousand mounts of one device, or
	// a thousand by FUSE, are one question:
	disks  map[Dev]foundDisk
	opened *[]opener // nil: not asked yet

	openedAgain bool // asked a second time, which is the last
}

type foundDisk struct {
	disk disk
	err  error
}

// forget begins another look.
func (b *blocks) forget() { b.disks, b.opened = map[Dev]foundDisk{}, nil }

// disk is what lies beneath a block device.
type disk struct {
	bus       string // "usb", "sd", "mmc", "nvme", "sata", "virtio", "scsi" ...
	external  bool
	optical   bool
	encrypted bool
	unsure    bool   // whether it is encrypted is not known
	vendor    string // USB ids
	product   string
	serial    string
	path      string   // USB bus path
	files     []string // files that loop devices among it lie in
	err       error    // why vendor, product and serial are not complete
}

// maxStack bounds the devices looked at for one mount: an array of disks under
// LVM under LUKS has some tens.
const maxStack = 64

// block returns where sysfs links to the device with this number.
func (b *blocks) block(d Dev) string {
	return filepath.Join(b.sys, "dev", "block", fmt.Sprintf("%d:%d", d.Major, d.Minor))
}

// find returns what lies beneath the device with this number.
func (b *blocks) find(d Dev) (disk, error) {
	f, ok := b.disks[d]
	if !ok {
		f.disk, f.err = b.look(d)
		b.disks[d] = f
	}
	return f.disk, f.err
}

func (b *blocks) look(d Dev) (disk, error) {
	dir, err := filepath.EvalSymlinks(b.block(d))
	if err != nil {
		return disk{}, fmt.Errorf("look up block device %d:%d: %w", d.Major, d.Minor, err)
	}
	var found disk
	todo, seen := []string{dir}, map[string]bool{dir: true}
	for len(todo) > 0 && len(seen) <= maxStack {
		dir, todo = todo[0], todo[1:]
		if exists(dir, "partition") {
			dir = filepath.Dir(dir)
		}
		follow := func(below string) {
			if below, err := filepath.EvalSymlinks(below); err == nil && !seen[below] {
				seen[below] = true
				todo = append(todo, below)
			}
		}
		slaves, _ := os.ReadDir(filepath.Join(dir, "slaves"))
		for _, s := range slaves {
			follow(filepath.Join(dir, "slaves", s.Name()))
		}
		if name := attr(dir, "dm/name"); name != "" {
			// cryptsetup (LUKS, BitLocker, TrueCrypt) marks its devices with a
			// prefix of the UUID; VeraCrypt's own tool only with the name.
			switch uuid := attr(dir, "dm/uuid"); {
			case strings.HasPrefix(uuid, "CRYPT-"), strings.HasPrefix(name, "veracrypt"), strings.HasPrefix(name, "truecrypt"):
				found.encrypted = true
			case uuid == "": // made by hand: what it does with what lies beneath is anybody's guess
				for _, s := range slaves {
					encrypted, ok := b.holdsCipher(filepath.Join(dir, "slaves", s.Name()))
					found.encrypted, found.unsure = found.encrypted || encrypted, found.unsure || !ok
				}
			}
		}
		if file := attr(dir, "loop/backing_file"); file != "" {
			// The path is that of whoever made it, in the mount namespace that was
			// theirs; the device says more. It says nothing where the file lies on
			// btrfs, FUSE and the like.
			if on, ok := b.backing(filepath.Base(dir)); ok && on.Major != 0 {
				follow(b.block(on))
				continue
			}
			found.files = append(found.files, strings.TrimSuffix(file, " (deleted)"))
		}
		if len(slaves) == 0 {
			found.add(b.physical(dir))
		}
	}
	return found, nil
}

// add joins another disk beneath the same device: one that can be carried away
// says what the whole is.
func (d *disk) add(o disk) {
	if o.external && !d.external || d.bus == "" {
		d.bus, d.vendor, d.product, d.serial, d.path, d.err = o.bus, o.vendor, o.product, o.serial, o.path, o.err
	}
	d.external = d.external || o.external
	d.optical = d.optical || o.optical
}

// physical reads what a disk hangs on by walking up from its folder.
func (b *blocks) physical(dir string) disk {
	var d disk
	name := filepath.Base(dir)
	d.optical = strings.HasPrefix(name, "sr")
	if strings.HasPrefix(name, "fd") { // a floppy's sysfs knows no more than its name
		d.external, d.bus = true, "floppy"
	}
	set := func(bus string) {
		if d.bus == "" || d.bus == "scsi" { // most speak SCSI above what they hang on
			d.bus = bus
		}
	}
	top := filepath.Join(b.sys, "devices")
	for dir = filepath.Dir(dir); strings.HasPrefix(dir, top+string(filepath.Separator)); dir = filepath.Dir(dir) {
		if exists(dir, "idVendor") {
			d.bus, d.external = "usb", true
			dev, err := bounded(b.guard, func() event.Device { dev, _ := usb.Parent(dir); return dev })
			if err != nil { // the ids are to be had without the driver's leave
				dev.VendorID, dev.ProductID = attr(dir, "idVendor"), attr(dir, "idProduct")
				d.err = fmt.Errorf("read usb device %s: %w", filepath.Base(dir), err)
			}
			d.vendor, d.product, d.serial, d.path = dev.VendorID, dev.ProductID, dev.SerialNumber, filepath.Base(dir)
			return d
		}
		switch base, subsystem := filepath.Base(dir), linkBase(dir, "subsystem"); {
		case subsystem == "mmc" && exists(dir, "type"):
			if typ := attr(dir, "type"); strings.HasPrefix(typ, "SD") {
				d.external = true
				set("sd")
			} else {
				set("mmc") // soldered on, mostly
			}
			d.serial = attr(dir, "serial")
		case subsystem == "memstick":
			d.external = true
			set("memstick")
		case subsystem == "firewire":
			d.external = true
			set("ieee1394")
		case subsystem == "nvme":
			set("nvme")
			d.serial = strings.TrimSpace(attr(dir, "serial"))
		case subsystem == "virtio":
			set("virtio")
		case subsystem == "scsi":
			set("scsi")
		case strings.HasPrefix(base, "ata") && strings.Trim(base[3:], "0123456789") == "" && base != "ata":
			set("sata")
		case strings.HasPrefix(base, "session") && exists(dir, "iscsi_session"):
			set("iscsi")
		}
		// The kernel's word on ports that lead out of the case (PCI, Thunderbolt);
		// block devices have an attribute of this name as well, with 0 or 1.
		if attr(dir, "removable") == "removable" {
			d.external = true
		}
	}
	return d
}

// attr reads a sysfs attribute without the line end; errors count as absent.
func attr(dir, name string) string {
	b, err := readUpTo(filepath.Join(dir, filepath.FromSlash(name)), 4<<10) // sysfs gives at most a page
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

func linkBase(dir, name string) string {
	to, err := os.Readlink(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// describe fills in what is known of a mount without asking the file system, and
// returns the files or folders it lies in, if it lies in any.
func (b *blocks) describe(l *mountLine) (v Volume, beneath []string, errs []string) {
	// Copies: a line's strings share the text of all lines, which is not to stay
	// for the sake of one volume.
	v.MountID, v.ParentID, v.Dev, v.Root, v.Mount = l.ID, l.Parent, l.Dev, strings.Clone(l.Root), strings.Clone(l.Mount)
	v.MountName, v.FileSystemType = v.Mount, strings.Clone(l.Type)
	if l.Source != "none" {
		v.DeviceName = strings.Clone(l.Source)
	}
	v.Writable = event.Some(!l.readOnly())

	fs, listed := fileSystems[l.Type]
	v.Kind, v.BusType = fs.kind, fs.bus
	switch v.Kind {
	case event.VolumeNetwork, event.VolumeCloudSync:
		v.Share = strings.Clone(share(l.Type, l.Source))
		if l.Mount == "/" { // a PC without a disk: its system is no place that files leave for
			v.Kind = event.VolumeLocal
		}
		return v, nil, nil
	}
	if fs.encrypted {
		v.Encrypted = event.Some(true)
	}
	if fs.beneath {
		from := l.Source
		switch l.Type {
		case "overlay":
			from = unescape(option(l.Super, "upperdir"))
		case "fuse.cryfs":
			from = strings.TrimPrefix(from, "cryfs@")
		}
		return v, []string{from}, nil
	}
	if fs.served || !listed && (l.Type == "fuse" || strings.HasPrefix(l.Type, "fuse.")) {
		errs, files := b.serve(&v, l)
		return v, files, errs
	}
	dev := l.Dev
	if slices.Contains(anonymous, l.Type) {
		if node := filepath.Clean(l.Source); strings.HasPrefix(node, "/dev/") {
			if d, ok := b.number(filepath.Join(b.dev, strings.TrimPrefix(node, "/dev/"))); ok {
				dev = d
			}
		}
	}
	if dev.Major == 0 {
		if v.Kind == "" {
			v.Kind = event.VolumeVirtual
		}
		return v, nil, nil
	}
	d, err := b.find(dev)
	if err = errors.Join(err, d.err); err != nil {
		errs = append(errs, err.Error())
	}
	v.liesOn(&d)
	return v, d.files, errs
}

// liesOn takes over what is known of the disk beneath a volume.
func (v *Volume) liesOn(d *disk) {
	v.Kind = event.VolumeLocal
	switch {
	case d.optical:
		v.Kind = event.VolumeOptical
	case d.external:
		v.Kind = event.VolumeRemovable
	}
	v.Removable = event.Some(d.optical || d.external)
	if !d.unsure || d.encrypted {
		v.Encrypted = event.Some(d.encrypted || v.Encrypted.V)
	}
	v.BusType, v.VendorID, v.ProductID, v.SerialNumber, v.USBPath = d.bus, d.vendor, d.product, d.serial, d.path
}

// serve fills in what the program that answers for a FUSE mount has open: a
// phone or a disk. It returns the files of loop devices among that.
func (b *blocks) serve(v *Volume, l *mountLine) (errs, files []string) {
	if v.Kind == "" {
		v.Kind = event.VolumeVirtual
	}
	if v.Kind == event.VolumeRemovable {
		v.Removable = event.Some(true)
	}
	s, err := b.serverBehind(l)
	if err != nil {
		errs = append(errs, err.Error())
	}
	for _, node := range s.nodes {
		if bus, address, ok := usbNode(node); ok {
			if phone, err := bounded(b.guard, func() event.Device { d, _ := usb.At(b.sys, bus, address); return d }); err == nil && phone.VendorID != "" {
				v.isPhone(&phone)
				v.ServedBy = s.pid
				return errs, nil
			}
		}
		if dev, ok := b.number(filepath.Join(b.dev, strings.TrimPrefix(node, "/dev/"))); ok {
			d, err := b.find(dev)
			if err = errors.Join(err, d.err); err != nil {
				errs = append(errs, err.Error())
				continue
			}
			v.liesOn(&d)
			v.ServedBy = s.pid
			return errs, d.files
		}
	}
	return errs, nil
}

// isPhone takes over what is known of the phone or camera that a volume shows.
func (v *Volume) isPhone(d *event.Device) {
	v.Kind, v.Removable, v.BusType = event.VolumeRemovable, event.Some(true), "usb"
	v.VendorID, v.ProductID, v.SerialNumber, v.USBPath = d.VendorID, d.ProductID, d.SerialNumber, d.Path
}

// inherit takes over from a volume what holds for everything that lies in it.
func (v *Volume) inherit(from *Volume) {
	if from.Told() && !v.Told() {
		v.Kind, v.Share, v.Removable = from.Kind, from.Share, from.Removable
		v.BusType, v.VendorID, v.ProductID, v.SerialNumber, v.USBPath = from.BusType, from.VendorID, from.ProductID, from.SerialNumber, from.USBPath
	}
	if from.Encrypted.V {
		v.Encrypted = from.Encrypted
	}
}
