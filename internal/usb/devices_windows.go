package usb

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/event"
)

// locate is tree.locate. A device is plugged in where Windows says so; of some,
// redirected from elsewhere, it says nothing, and they are a place of their own.
func locate(instance string) (id, port string, ok bool) {
	node, err := cfgmgr.Locate(instance)
	if err != nil {
		return "", "", false
	}
	id = cmp.Or(node.ID(), instance)
	return id, cmp.Or(portPath(node.Strings(cfgmgr.LocationPaths)), id), true
}

// whole is tree.whole.
func whole(function string) string {
	node, err := cfgmgr.Locate(function)
	if err != nil {
		return ""
	}
	above, _ := node.Parent()
	return above.ID()
}

// readNode fills in what Windows and the device itself say of it, and reports
// whether all of it is there; drivers bring to light more later.
func (d *device) readNode(node cfgmgr.Node) bool {
	if len(d.desc.Configs) == 0 {
		d.readHub(node)
	}
	if d.ProductName == "" {
		d.ProductName = cut(strings.TrimSpace(node.String(cfgmgr.ReportedName)))
	}
	if d.VendorName == "" {
		d.VendorName = maker(node.String(cfgmgr.Manufacturer))
	}
	return d.readFunctions(below(node, 2)) // functions, and their HID collections
}

// Control codes of usbioctl.h: CTL_CODE(FILE_DEVICE_USB, 260 and 274,
// METHOD_BUFFERED, FILE_ANY_ACCESS).
const (
	ioctlUSBGetDescriptorFromNodeConnection = 0x220410
	ioctlUSBGetNodeConnectionInformationEx  = 0x220448
)

// readHub asks the hub for the device's descriptors and texts. A device that
// sleeps may not answer; then there is what Windows has kept.
func (d *device) readHub(node cfgmgr.Node) {
	port, ok := node.Uint32(cfgmgr.Address)
	parent, found := node.Parent()
	if !ok || !found {
		return
	}
	hubs, err := cfgmgr.Interfaces(cfgmgr.USBHub, parent.ID())
	if err != nil || len(hubs) == 0 {
		return
	}
	name, err := windows.UTF16PtrFromString(hubs[0])
	if err != nil {
		return
	}
	// The access that the SDK's USBView asks for.
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		return
	}
	defer windows.CloseHandle(h)
	control := func(code uint32, b []byte) ([]byte, bool) { // what is asked is overwritten by the answer
		var n uint32
		err := windows.DeviceIoControl(h, code, &b[0], uint32(len(b)), &b[0], uint32(len(b)), &n, nil)
		return b[:min(int(n), len(b))], err == nil
	}
	at := make([]byte, connectionSize+30*11) // room for USB_PIPE_INFO of all endpoints a device may have, lest it be refused
	binary.LittleEndian.PutUint32(at, port)
	answer, ok := control(ioctlUSBGetNodeConnectionInformationEx, at)
	if !ok {
		return
	}
	own, config, ok := parseConnection(answer)
	if !ok {
		return
	}
	ask := func(typ, index byte, language, length uint16) ([]byte, bool) {
		b, ok := control(ioctlUSBGetDescriptorFromNodeConnection, descriptorRequest(port, typ, index, language, length))
		if !ok {
			return nil, false
		}
		return parseDescriptor(b, typ)
	}
	desc, ok := readDescriptors(own, ask)
	if !ok || fmt.Sprintf("%04x:%04x", desc.VendorID, desc.ProductID) != d.VendorID+":"+d.ProductID {
		return // another device by now
	}
	d.desc, d.config = desc, config
	t := readStrings(&d.desc, ask)
	d.VendorName, d.ProductName = t.manufacturer, t.product
	// Windows' form of a serial number has _ for blanks and may be in another case.
	d.SerialNumber = cmp.Or(t.serial, d.SerialNumber)
}

// below returns what Windows keeps of a device and of what it has made of it.
func below(n cfgmgr.Node, levels int) node {
	x := node{id: n.ID(), compatible: n.Strings(cfgmgr.CompatibleIDs), hardware: n.Strings(cfgmgr.HardwareIDs)}
	if class, ok := parseClass(x.compatible); ok && class.Class == classVendor {
		phones, err := cfgmgr.Interfaces(cfgmgr.WPD, x.id)
		x.phone = err == nil && len(phones) > 0
	}
	if levels == 0 {
		return x
	}
	for child, ok := n.Child(); ok && len(x.below) < maxInterfaces; child, ok = child.Sibling() {
		x.below = append(x.below, below(child, levels-1))
	}
	return x
}

// fillFromNode finds out more about a device, in a goroutine of its own; see
// tracker.fill.
func fillFromNode(ctx context.Context, p *pending, instance string, d device, report func(d device, final bool)) {
	node, err := cfgmgr.Locate(instance)
	if err != nil { // gone again
		report(d, true)
		return
	}
	complete := d.readNode(node)
	report(d, complete)
	for !complete {
		again := time.NewTimer(settle / 2)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
		complete = d.readNode(node)
		// That a vendor's own interface is a phone is known soon if at all.
		old := time.Since(p.begun)
		if complete = complete || old > driverWait || old > settle && !d.mute && len(d.Interfaces) > 0; complete {
			report(d, true)
		}
	}
}

// deviceAbove returns the USB device that a disk, or another device, belongs to,
// as it is told when it is plugged in.
func deviceAbove(node cfgmgr.Node) (event.Device, bool) {
	for range 16 { // a disk hangs on its USB device or on one function of it
		instance := node.ID()
		if _, _, _, ok := ParseID(instance); ok {
			_, port, _ := locate(instance)
			d := fromID(port, instance)
			d.readNode(node)
			return d.Device, true
		}
		var ok bool
		if node, ok = node.Parent(); !ok {
			break
		}
	}
	return event.Device{}, false
}
