package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sekisho/internal/event"
	"sekisho/internal/usb"
)

// bystanders are programs, by the name the kernel cuts off at 15 bytes, that have
// phones open without moving files: they look what a device is, or hold it for
// others.
var bystanders = []string{"usbmuxd", "gvfs-mtp-volume", "gvfs-gphoto2-vo", "mtp-probe", "systemd-udevd", "(udev-worker)", "fwupd", "upowerd", "ModemManager", "usbguard-daemon"}

// mechanismOpenFiles is how phones without a mount are found.
const mechanismOpenFiles = "open-files"

// phoneType is the file system type of a phone that a program has open without a
// mount.
const phoneType = "mtp"

// desktopFolders maps programs of GNOME's virtual file system to what their
// folders below /run/user/UID/gvfs are called.
var desktopFolders = map[string]string{"gvfsd-mtp": "mtp:host=", "gvfsd-gphoto2": "gphoto2:host="}

// lookForPhones looks which programs have a phone or camera open that no mount
// shows: file managers do it all by themselves. It returns what changed. A look
// that hangs changes nothing.
func (w *Watcher) lookForPhones(b *blocks) (gone, come []change) {
	paths := usb.Phones(b.sys)
	was := *w.phones.Load()
	if len(paths) == 0 && len(was) == 0 {
		return nil, nil
	}
	now, err := bounded(b.guard, func() []Volume { return w.openPhones(b, paths) })
	if err != nil {
		return nil, nil
	}
	same := func(a, b *Volume) bool {
		return a.ServedBy == b.ServedBy && a.DeviceName == b.DeviceName && a.SerialNumber == b.SerialNumber
	}
	for i := range now {
		v := &now[i]
		if j := slices.IndexFunc(was, func(o Volume) bool { return same(v, &o) }); j >= 0 {
			*v = was[j]
			continue
		}
		w.madeUp--
		v.MountID = w.madeUp
		come = append(come, change{Volume: *v, message: "phone or camera opened by a program, without a mount"})
	}
	for i := range was {
		if !slices.ContainsFunc(now, func(o Volume) bool { return same(&was[i], &o) }) {
			gone = append(gone, change{Volume: was[i]})
		}
	}
	w.phones.Store(&now)
	return gone, come
}

// openPhones returns the phones at these bus paths that programs have open.
func (w *Watcher) openPhones(b *blocks, paths []string) []Volume {
	all := []Volume{}
	if len(paths) == 0 {
		return all
	}
	phones := map[string]event.Device{} // by node
	for _, path := range paths {
		if d, node, ok := usb.Find(b.sys, path); ok {
			phones[node] = d
		}
	}
	for _, o := range openers(b.proc) {
		// The mount of a FUSE program is told; before it there is a moment without.
		if o.fuse || fileSystems["fuse."+o.comm].served || o.pid == os.Getpid() || slices.Contains(bystanders, o.comm) {
			continue
		}
		for _, node := range o.nodes {
			d, ok := phones[node]
			if !ok {
				continue
			}
			v := Volume{ServedBy: o.pid}
			v.DeviceName, v.FileSystemType = node, phoneType
			v.isPhone(&d)
			v.MountName = w.desktopFolder(b, &o, node)
			all = append(all, v)
		}
	}
	return all
}

// desktopFolder returns where GNOME shows a phone as a folder to its user, "" if
// it does not. Nobody else, root included, is let in there.
func (w *Watcher) desktopFolder(b *blocks, o *opener, node string) string {
	prefix := desktopFolders[o.comm]
	bus, address, ok := usbNode(node)
	if prefix == "" || !ok {
		return ""
	}
	gvfs := filepath.Join("/run/user", ownerOf(b.proc, o.pid), "gvfs")
	if v, ok := w.table.Lookup(gvfs); !ok || v.Mount != gvfs {
		return ""
	}
	// udev's own record of the node: 189 is the number of USB devices, 128 to a bus.
	record, err := readUpTo(filepath.Join(w.opt.RunRoot, "udev", "data", fmt.Sprintf("c189:%d", (bus-1)*128+address-1)), 64<<10)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(record) {
		if id, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), "E:ID_SERIAL="); ok {
			return filepath.Join(gvfs, prefix+id)
		}
	}
	return ""
}
