package usb

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Run looks at the drives each second until ctx ends.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	t := w.newTracker(ctx, out, mechanismPolling)
	t.tellState(endpoint.SensorLimited, "only storage with a drive letter is seen, by looking at the drives each second")
	message := ""
	if !w.started {
		w.started, message = true, PresentAtStart
	}
	look := time.NewTicker(w.opt.Poll)
	defer look.Stop()
	letters := map[string]string{} // drive to the disk it is on, "" for what is no USB disk
	for {
		if err := t.lookAtDrives(letters, message); err != nil {
			w.gauge.Set(endpoint.SensorDown, mechanismPolling, err.Error())
			return err
		}
		message = ""
		select {
		case <-ctx.Done():
			return nil
		case <-look.C: // a notification of arrivals would be one more case here
		}
	}
}

// lookAtDrives tells of disks that came and went. Several drives may be one disk.
func (t *tracker) lookAtDrives(letters map[string]string, message string) error {
	now := time.Now()
	mask, err := windows.GetLogicalDrives()
	if err != nil {
		return fmt.Errorf("list drives: %w", err)
	}
	for i := range 26 {
		drive := string(rune('A'+i)) + ":"
		root, _ := windows.UTF16PtrFromString(drive + `\`)
		there := mask&(1<<i) != 0
		if there {
			switch windows.GetDriveType(root) {
			case windows.DRIVE_REMOVABLE, windows.DRIVE_FIXED, windows.DRIVE_CDROM:
			default:
				there = false // a share; or gone
			}
		}
		if !there {
			delete(letters, drive)
			continue
		}
		if _, ok := letters[drive]; ok {
			continue
		}
		letters[drive] = ""
		s, err := QueryStorage(drive)
		if err != nil || s.Bus != "usb" {
			continue // no disk of its own (SUBST, a virtual drive), or not USB
		}
		disk := fmt.Sprintf(`\\.\PhysicalDrive%d`, s.Disk)
		if s.CDROM {
			disk = fmt.Sprintf(`\\.\CdRom%d`, s.Disk)
		}
		letters[drive] = disk
		if t.known[disk] == nil {
			t.attached(&pending{name: disk, best: &device{Device: s.device(disk)}, at: now, message: message})
		}
	}
	on := map[string]bool{}
	for _, disk := range letters {
		on[disk] = true
	}
	for disk := range t.known {
		if !on[disk] {
			t.remove(disk, uevent{}, now)
		}
	}
	return nil
}
