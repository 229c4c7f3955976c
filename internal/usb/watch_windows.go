package usb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/guid"
)

// lookAnyway is how often the devices are listed though Windows tells of them.
const lookAnyway = time.Minute

// Run listens until ctx ends. Where Windows does not tell of devices, it looks at
// the drives each second.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	err := cfgmgr.Available()
	if err == nil {
		if err = w.listen(ctx, out); err == nil || ctx.Err() != nil {
			return nil
		}
	}
	t := w.newTracker(ctx, out, mechanismPolling)
	state := endpoint.SensorDegraded
	if errors.Is(err, errors.ErrUnsupported) {
		state = endpoint.SensorLimited
	}
	t.tellState(state, "only storage with a drive letter is seen, by looking at the drives each second: "+err.Error())
	return t.poll(ctx)
}

// listen tells of devices until ctx ends. An error says that it cannot.
func (w *Watcher) listen(ctx context.Context, out chan<- *event.Event) error {
	n := w.newNotices(ctx, out, tree{
		paths:  func() ([]string, error) { return cfgmgr.Interfaces(cfgmgr.USBDevice, "") },
		locate: locate,
		whole:  whole,
		fill:   fillFromNode,
	})
	for _, class := range []guid.GUID{cfgmgr.USBDevice, cfgmgr.WPD} {
		l, err := cfgmgr.Listen(class, n.heard)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }() // nothing to be done about it
	}
	if _, err := n.tree.paths(); err != nil {
		return err
	}
	n.tellState(endpoint.SensorOK, "")
	look := time.NewTicker(lookAnyway)
	defer look.Stop()
	return n.run(n.messages, look.C, nil)
}

// poll looks at the drives each second until ctx ends.
func (t *tracker) poll(ctx context.Context) error {
	w := t.Watcher
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
		case <-look.C:
		case nonce := <-w.proofs:
			w.send(ctx, t.out, event.Proof(w.Name(), nonce))
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
