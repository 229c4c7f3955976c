package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/usb"
)

const mechanismPolling = "polling"

// Run looks at the drives each second until ctx ends.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	wait := w.opt.Poll
	if wait == 0 {
		wait = time.Second
	}
	look := time.NewTicker(wait)
	defer look.Stop()
	w.gauge.Set(endpoint.SensorLimited, mechanismPolling, "drive letters are looked at each second: volumes without one, and drives that other users mapped, are not seen")
	message := ""
	if !w.started {
		w.started, message = true, PresentAtStart
	}
	for {
		now, err := w.drives()
		if err != nil {
			w.gauge.Set(endpoint.SensorDown, mechanismPolling, err.Error())
			return err
		}
		old := w.table.All()
		if !slices.Equal(old, now) {
			gone, come := compareDrives(old, now)
			w.table.set(newMounts(now))
			w.tell(ctx, out, mechanismPolling, message, gone, come)
		}
		message = ""
		select {
		case <-ctx.Done():
			return nil
		case <-look.C: // a notification of arrivals would be one more case here
		}
	}
}

// drives returns what is in the drives now. A drive without a medium is left out.
func (w *Watcher) drives() ([]Volume, error) {
	mask, err := windows.GetLogicalDrives()
	if err != nil {
		return nil, fmt.Errorf("list drives: %w", err)
	}
	known := map[string]Volume{}
	for _, v := range w.table.All() {
		known[v.DOSName] = v
	}
	var list []Volume
	for i := range 26 {
		if mask&(1<<i) == 0 {
			continue
		}
		name := string(rune('A'+i)) + ":"
		root, _ := windows.UTF16PtrFromString(name + `\`)
		driveType := windows.GetDriveType(root)
		nt := dosDevice(name)
		v, was := known[name]
		changeable := driveType == driveRemovable || driveType == driveCDROM
		if was && v.NTName == nt && !changeable {
			list = append(list, v) // it stays as it is while the letter is there
			continue
		}
		if driveType < driveRemovable || driveType > driveRAM {
			continue // unknown, or no root: gone
		}
		now, ok := w.drive(name, nt, driveType)
		if !ok {
			continue
		}
		if was && v.NTName == nt && v.Dev == now.Dev && v.FileSystemType == now.FileSystemType && v.Writable == now.Writable {
			now = v // the disk behind it need not be asked again
		} else {
			w.identify(&now, driveType)
		}
		list = append(list, now)
	}
	return list, nil
}

// information is what GetVolumeInformation says.
type information struct {
	serial, flags uint32
	fileSystem    string
	err           error
}

// drive asks what is in a drive; it reports false where that is nothing.
func (w *Watcher) drive(name, nt string, driveType uint32) (Volume, bool) {
	var v Volume
	v.DOSName, v.NTName, v.Mount, v.Root = name, nt, name+`\`, `\`
	info, err := bounded(w.guard, func() information {
		var r information
		var fs [windows.MAX_PATH + 1]uint16
		root, _ := windows.UTF16PtrFromString(name + `\`)
		r.err = windows.GetVolumeInformation(root, nil, 0, &r.serial, nil, &r.flags, &fs[0], uint32(len(fs)))
		r.fileSystem = windows.UTF16ToString(fs[:])
		return r
	})
	if err = errors.Join(err, info.err); err != nil && driveType != driveRemote && driveType != driveFixed {
		return v, false // no medium, or not one that Windows can read
	}
	if err == nil {
		v.Dev = Dev{Minor: info.serial}
		v.FileSystemType = info.fileSystem
		v.Writable = event.Some(info.flags&windows.FILE_READ_ONLY_VOLUME == 0)
	}
	return v, true
}

// identify asks for the disk behind a drive and for the size.
func (w *Watcher) identify(v *Volume, driveType uint32) {
	var s usb.Storage
	if driveType == driveRemote {
		v.Share = remoteShare(v.NTName)
	} else {
		// A virtual drive (SUBST, Wine) has no disk to ask: it stays without one.
		s, _ = bounded(w.guard, func() usb.Storage { s, _ := usb.QueryStorage(v.DOSName); return s })
	}
	v.classifyDrive(driveType, s)
	if declaredDrive(v.DOSName, w.opt.RemovablePaths) {
		v.Kind, v.Removable = event.VolumeRemovable, event.Some(true)
	}
	if !v.Told() {
		return
	}
	mount := v.Mount
	size, err := bounded(w.guard, func() uint64 {
		var total uint64
		root, _ := windows.UTF16PtrFromString(mount)
		_ = windows.GetDiskFreeSpaceEx(root, nil, &total, nil) // 0 then, and no size is told
		return total
	})
	if err == nil && size > 0 && size <= math.MaxInt64 {
		v.Size = event.Some(int64(size))
	}
}

// dosDevice returns what a drive letter stands for: `\Device\HarddiskVolume5`.
func dosDevice(name string) string {
	var buf [1024]uint16
	p, _ := windows.UTF16PtrFromString(name)
	if n, err := windows.QueryDosDevice(p, &buf[0], uint32(len(buf))); err != nil || n == 0 {
		return ""
	}
	return windows.UTF16ToString(buf[:])
}
