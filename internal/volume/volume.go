// Package volume tells when a file system that files can leave by comes and
// goes (sticks, external disks, cards, discs, network shares, cloud mounts), and
// keeps a live table of everything mounted, so that the file sensor knows on
// what a path lies.
//
// Events: volume-mounted and volume-unmounted. Told are removable, optical,
// network and cloud-sync volumes, those already there when Run starts too (with
// the message [PresentAtStart]). Local and virtual ones are in the [Table] but
// not told.
//
// Linux: /proc/self/mountinfo, re-read when poll(2) says that it changed. No
// privilege needed. What lies behind a mount comes from sysfs: partitions,
// device-mapper (LUKS, LVM), md and loop devices are followed down to the disk,
// and a disk is external when a USB device, an SD card slot or a device that the
// kernel calls removable is among its ancestors; the `removable` attribute of
// the disk itself is not asked, real external disks say 0. Whether a volume is
// encrypted is what device-mapper says; of a mapping that was made by hand, what
// the beginning of the medium looks like. Mounts that only
// another mount namespace has (containers, `unshare -m`) are looked for after every
// five seconds in which a process or thread started, else every minute, as are
// processes that go to another namespace late in their life. Folders of sync programs
// (OneDrive, Dropbox ...) in home folders on local disks are looked for every minute.
//
// FUSE mounts are told by what the program behind them has open: phones (jmtpfs
// and its kin, and what nobody knows by name), disks (dislocker, VeraCrypt
// without the kernel's help). A phone that a program has open without a mount, as
// GNOME's file manager does, is told while it has, looked for after every five
// seconds in which a process or thread started, else every minute; MountName is then the folder that GNOME shows to its user, DeviceName the
// device's node. The files of other people's programs need CAP_SYS_PTRACE, the
// backing device of a loop device and the beginning of a medium the right to read
// the device; without these the path of the backing file, and "not known".
//
// Limits: a mount that comes and goes between two reads is not
// told; a device replaced between two reads by another one under the same mount
// id, device number and mount point looks like no change; of file systems over
// several disks (ZFS, btrfs) the first counts, of ZFS none; a program that has a
// phone open for less than five seconds may go unseen.
//
// Windows: the configuration manager tells when a volume comes or goes
// (CM_Register_Notification; no privilege needed), and what there is, letters,
// volumes in folders and volumes with neither, is looked at then, some times more
// within seconds, and every five seconds for what it does not tell: network
// drives, SUBST. Where it is missing (Wine), each second. Identity is that of the
// USB device above the disk, else IOCTL_STORAGE_QUERY_PROPERTY; disks that Windows
// calls fixed are removable where they hang on USB, an SD slot or FireWire. Of
// volumes that files can leave by the system asks before it takes them away, and
// [Table.OnLeave] passes that on. BitLocker shows in the first sector that the
// disk has for the volume, which takes the rights of an administrator, else it is
// not known; a locked one has the file system type BitLocker. VeraCrypt's volumes
// are known by the name of their device, and its driver says on what they lie.
// Network drives of all logons are read from the kernel's directories of their
// letters, which takes the rights of the system or an administrator; without these
// only the agent's own are seen. Folders of sync programs are those that are
// registered with the Cloud Files API, and by name and settings as on Linux in the
// users' profiles; they are looked for every minute. Limits: encryption is looked
// at when the volume comes; a drive that comes and goes within two looks is not
// told; disks in Thunderbolt boxes look like inner ones.
//
// Elsewhere: Run returns an error that wraps errors.ErrUnsupported.
package volume

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// PresentAtStart is the message of events about what was there before the agent.
const PresentAtStart = "present at start"

// Volume is one mount: a file system at a place. The same file system mounted
// twice is two volumes with one Dev. Volumes are values: a copy stays as it was
// when the mount goes.
type Volume struct {
	// The facts that are told. MountName (POSIX) or DOSName (Windows), Kind and
	// FileSystemType are always set.
	event.Volume

	MountID  int    // the kernel's id of the mount, reused once the mount is gone; 0 on Windows
	ParentID int    // the mount it is mounted on; 0 on Windows
	Dev      Dev    // st_dev of its files, but for file systems with sub-volumes (btrfs)
	Mount    string // the directory its files are below: "/media/taro/USB", `E:\`, `\\server\share\`
	Root     string // the directory of the file system that is mounted, "/" unless a bind mount or sub-volume

	// Hidden says that another mount lies over it: Lookup does not return it, but
	// processes that were in it before still write to it.
	Hidden bool

	// Reach is where the root is seen of a mount that only another mount namespace
	// has (a container, `unshare -m`), "/proc/PID/root"; "" for all others. Lookup
	// does not return it: its paths are those of that namespace.
	Reach string

	// ServedBy is the process that answers for it: of a phone, or of a disk that a
	// program of its own shows. 0: none, or it could not be told which.
	ServedBy int

	// Leaving says that the system asked to let go of it ("safely remove", a lock
	// for formatting): nothing on it may be held open. Windows only; see
	// [Table.OnLeave].
	Leaving bool

	// Folder says that it is no mount, but a folder of a disk that a program keeps
	// in step with a cloud. Dev is the disk's, Share the name of the provider.
	Folder bool
}

// Dev is a device number.
type Dev struct {
	Major, Minor uint32
}

// Told reports whether comings and goings of the volume are events: files can
// leave, or come in, by it.
func (v *Volume) Told() bool {
	switch v.Kind {
	case event.VolumeRemovable, event.VolumeNetwork, event.VolumeOptical, event.VolumeCloudSync:
		return true
	}
	return false
}

// facts returns a copy of the facts for an event.
func (v *Volume) facts() *event.Volume {
	f := v.Volume
	return &f
}

// Options say where a Watcher looks. The zero value is the running system.
type Options struct {
	ProcRoot string // "/proc" if empty; Linux
	SysRoot  string // "/sys" if empty; Linux
	DevRoot  string // "/dev" if empty; Linux
	HomeRoot string // what home/ and root/ lie in, "/" if empty; Linux
	RunRoot  string // "/run" if empty; Linux

	// RemovablePaths are mount points, or folders of mount points, that count as
	// removable whatever they are (loop images, tmpfs). A path names itself and
	// everything below it: "/mnt/usb" is also "/mnt/usb/2", not "/mnt/usb2".
	RemovablePaths []string

	// StatTimeout bounds asking a file system for its size; a dead server never
	// answers. 0: one second.
	StatTimeout time.Duration

	// Poll is the time between two looks where there is no notification, and
	// the longest time between two looks where there is one. 0: one second,
	// and five seconds.
	Poll time.Duration
}

func (o *Options) fill() {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.ProcRoot, "/proc")
	set(&o.SysRoot, "/sys")
	set(&o.DevRoot, "/dev")
	set(&o.HomeRoot, "/")
	set(&o.RunRoot, "/run")
	if o.StatTimeout == 0 {
		o.StatTimeout = time.Second
	}
}

// Watcher is the volume sensor. It is made by New; Run does the work.
type Watcher struct {
	opt     Options
	table   *Table
	guard   *guard
	started bool // Run's own: it was told what was there at the start
	clouds  []cloud
	seeking atomic.Bool              // clouds are looked for
	servers map[int]server           // Run's own: who answers for a told mount, by its id; may be gone by its end
	madeUp  int                      // Run's own: the last id made up for a folder or a phone; the kernel's are positive
	phones  atomic.Pointer[[]Volume] // phones that a program has open without a mount; written by Run only

	proofs chan string // asked for by Prove
	waiting

	gauge *endpoint.Gauge
}

// New returns a sensor that is not running.
func New(opt Options) *Watcher {
	opt.fill()
	w := &Watcher{
		opt:   opt,
		table: newTable(),
		guard: &guard{timeout: opt.StatTimeout},
		gauge: endpoint.NewGauge("volume"),

		proofs:  make(chan string, 1),
		servers: map[int]server{},
	}
	w.phones.Store(&[]Volume{})
	return w
}

// Name is "volume".
func (w *Watcher) Name() string { return "volume" }

// Table is the live table of mounts. It is empty until Run has looked for the
// first time, and keeps its last state when Run ends.
func (w *Watcher) Table() *Table { return w.table }

// Open returns the volumes that are told of and are mounted now, in the order of
// their mount points. It is what is told again when a remote-control session
// starts; see Told.
func (w *Watcher) Open() []Volume {
	var open []Volume
	for _, v := range w.table.All() {
		if v.Told() {
			open = append(open, v)
		}
	}
	open = append(open, *w.phones.Load()...)
	slices.SortFunc(open, func(a, b Volume) int {
		return cmp.Or(strings.Compare(a.Mount, b.Mount), cmp.Compare(a.MountID, b.MountID))
	})
	return open
}

// Prove asks the sensor, if it runs, to prove that what it believes to be mounted is
// what is: once it has looked anew and that holds, it tells [event.Proof] with the nonce.
// (Nothing can be mounted for that without touching the PC.) It does not wait.
func (w *Watcher) Prove(nonce string) {
	select {
	case w.proofs <- nonce:
	default: // it still owes the one before
	}
	w.hurry()
}

// Status says how the sensor is. It is safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor { return w.gauge.Status() }

// tellState sets the state and tells when it became worse or, with these words, better.
func (w *Watcher) tellState(ctx context.Context, out chan<- *event.Event, state endpoint.SensorState, mechanism, reason, better string) {
	var e *event.Event
	switch w.gauge.Set(state, mechanism, reason) {
	case endpoint.Worse:
		e = event.New(event.SensorDegraded, time.Now())
		e.Message = reason
	case endpoint.Better:
		e = event.New(event.SensorRecovered, time.Now())
		e.Message = better
	default:
		return
	}
	e.Sensor = mechanism
	w.send(ctx, out, e)
}

// send gives an event to the pipeline. It blocks while that is full, and reports
// false when ctx ended first.
func (w *Watcher) send(ctx context.Context, out chan<- *event.Event, e *event.Event) bool {
	select {
	case out <- e:
		w.gauge.Told()
		return true
	case <-ctx.Done():
		return false
	}
}
