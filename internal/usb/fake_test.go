package usb

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// fakeIface is an interface of a fakeDevice.
type fakeIface struct {
	triple
	label string
	hid   []byte
}

// fakeDevice is a device in a sysfs tree of a test.
type fakeDevice struct {
	path                 string // "1-4"
	num                  int
	vendor, product      string // ids
	maker, model, serial string // "": no attribute, and no string index
	silent               bool   // has a serial number that the kernel could not read
	class                byte
	ifaces               []fakeIface
	lies                 bool // of how long its configuration is
	config               int  // the chosen configuration; 0: the first
	bare                 bool // announced, but not configured yet: no interface folders
}

const storageTriple = "08/06/50"

var (
	massStorage = fakeIface{triple: triple{0x08, 0x06, 0x50}}
	bootKeys    = fakeIface{triple: triple{0x03, 0x01, 0x01}}
	bootMouse   = fakeIface{triple: triple{0x03, 0x01, 0x02}}
	// A keyboard's report descriptor without the boot protocol: usage page
	// generic desktop, usage keyboard, application collection (HID 1.11,
	// appendix B.1, beginning and end).
	plainKeys = fakeIface{triple: triple{0x03, 0x00, 0x00}, hid: []byte{0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0xc0}}
)

// dir is where the device lies below the root of the tree.
func (d *fakeDevice) dir(root string) string {
	return filepath.Join(root, "devices", "pci0000:00", "0000:00:14.0", "usb1", d.path)
}

// descriptors is what the device would send.
func (d *fakeDevice) descriptors() []byte {
	index := func(text string, n byte) byte {
		if text == "" {
			return 0
		}
		return n
	}
	serial := index(d.serial, 3)
	if d.silent {
		serial = 3
	}
	v, _ := strconv.ParseUint(d.vendor, 16, 16)
	p, _ := strconv.ParseUint(d.product, 16, 16)
	b := []byte{18, 1, 0, 2, d.class, 0, 0, 64, byte(v), byte(v >> 8), byte(p), byte(p >> 8), 0, 1, index(d.maker, 1), index(d.model, 2), serial, 1}
	b = append(b, 9, 2, 0, 0, byte(len(d.ifaces)), 1, 0, 0x80, 50)
	for i, f := range d.ifaces {
		b = append(b, 9, 4, byte(i), 0, 1, f.Class, f.Sub, f.Proto, 0)
		b = append(b, 7, 5, 0x81, 2, 0, 2, 0) // an endpoint
	}
	binary.LittleEndian.PutUint16(b[18+2:], uint16(len(b)-18))
	if d.lies {
		b[18+3] = 0xff
	}
	return b
}

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// plug puts the device into the tree.
func (d *fakeDevice) plug(t testing.TB, root string) {
	t.Helper()
	dir := d.dir(root)
	for name, text := range map[string]string{"manufacturer": d.maker, "product": d.model, "serial": d.serial} {
		if text != "" {
			write(t, dir, name, text+"\n")
		}
	}
	write(t, dir, "idVendor", d.vendor+"\n")
	write(t, dir, "idProduct", d.product+"\n")
	write(t, dir, "busnum", "1\n")
	write(t, dir, "devnum", strconv.Itoa(d.num)+"\n")
	write(t, dir, "bDeviceClass", triple{d.class, 0, 0}.String()[:2]+"\n")
	write(t, dir, "descriptors", string(d.descriptors()))
	if !d.bare {
		d.configure(t, root)
	}
	bus := filepath.Join(root, "bus", "usb", "devices")
	if err := os.MkdirAll(bus, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(bus, d.path)); err != nil {
		t.Fatal(err)
	}
}

// configure makes the folders of the interfaces, as the kernel does a little
// after it has announced the device.
func (d *fakeDevice) configure(t testing.TB, root string) {
	t.Helper()
	dir := d.dir(root)
	for i, f := range d.ifaces {
		sub := filepath.Join(dir, d.path+":"+strconv.Itoa(max(d.config, 1))+"."+strconv.Itoa(i))
		hex := strings.Split(f.triple.String(), "/")
		write(t, sub, "bInterfaceClass", hex[0]+"\n")
		write(t, sub, "bInterfaceSubClass", hex[1]+"\n")
		write(t, sub, "bInterfaceProtocol", hex[2]+"\n")
		if f.label != "" {
			write(t, sub, "interface", f.label+"\n")
		}
		if f.hid != nil {
			write(t, filepath.Join(sub, "0003:"+strings.ToUpper(d.vendor+":"+d.product)+".0001"), "report_descriptor", string(f.hid))
		}
	}
	write(t, dir, "bNumInterfaces", " "+strconv.Itoa(len(d.ifaces))+"\n")
}

// pull takes the device out of the tree.
func (d *fakeDevice) pull(t testing.TB, root string) {
	t.Helper()
	if err := os.Remove(filepath.Join(root, "bus", "usb", "devices", d.path)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(d.dir(root)); err != nil {
		t.Fatal(err)
	}
}

// uevent is what the kernel says of the device.
func (d *fakeDevice) uevent(action string) uevent {
	return uevent{Action: action, DevPath: "/devices/pci0000:00/0000:00:14.0/usb1/" + d.path, Subsystem: "usb", DevType: "usb_device",
		Product: strings.TrimLeft(d.vendor, "0") + "/" + strings.TrimLeft(d.product, "0") + "/100", DevNum: d.num}
}
