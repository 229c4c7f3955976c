package usb

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"testing"
	"unicode/utf16"
)

// connected is USB_NODE_CONNECTION_INFORMATION_EX as usbioctl.h lays it out, packed
// to bytes, of a device with this descriptor.
func connected(device []byte, config byte, status uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 4) // ConnectionIndex
	b = append(b, device...)
	b = append(b, config, 2, 0)                          // CurrentConfigurationValue, Speed, DeviceIsHub
	b = binary.LittleEndian.AppendUint16(b, 7)           // DeviceAddress
	b = binary.LittleEndian.AppendUint32(b, 1)           // NumberOfOpenPipes
	b = binary.LittleEndian.AppendUint32(b, status)      // ConnectionStatus
	return append(b, 7, 5, 0x81, 2, 0, 2, 0, 0, 0, 0, 0) // USB_PIPE_INFO
}

func stringDescriptor(s string) []byte {
	b := []byte{0, 3}
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	b[0] = byte(len(b))
	return b
}

// fakeHub answers for a device as its driver does: with what was asked and the
// data behind it.
func fakeHub(t *testing.T, configs [][]byte, strings map[byte]string) asker {
	return func(typ, index byte, language, length uint16) ([]byte, bool) {
		b := descriptorRequest(4, typ, index, language, length)
		if binary.LittleEndian.Uint32(b) != 4 || b[4] != 0x80 || b[5] != 6 || binary.LittleEndian.Uint16(b[6:]) != uint16(typ)<<8|uint16(index) ||
			binary.LittleEndian.Uint16(b[8:]) != language || binary.LittleEndian.Uint16(b[10:]) != length || len(b) != 12+int(length) {
			t.Errorf("request %x", b)
		}
		var data []byte
		switch {
		case typ == descConfig && int(index) < len(configs):
			data = configs[index]
		case typ == descString && index == 0:
			data = []byte{4, 3, 0x11, 0x04} // Japanese
		case typ == descString && language == 0x0411 && strings[index] != "":
			data = stringDescriptor(strings[index])
		default:
			return nil, false
		}
		n := copy(b[12:], data)
		return parseDescriptor(b[:12+n], typ)
	}
}

func TestADeviceIsReadByWayOfItsHub(t *testing.T) {
	f := fakeDevice{vendor: "0951", product: "1666", maker: "x", model: "x", serial: "x", ifaces: []fakeIface{massStorage, bootKeys}}
	whole := f.descriptors()
	own, config, ok := parseConnection(connected(whole[:18], 1, deviceConnected))
	if !ok || config != 1 || !bytes.Equal(own, whole[:18]) {
		t.Fatalf("own descriptor %x, configuration %d, %v", own, config, ok)
	}
	ask := fakeHub(t, [][]byte{whole[18:]}, map[byte]string{1: "キングストン", 2: " ", 3: "60A4 4c"})
	d, ok := readDescriptors(own, ask)
	if want, _ := parseDescriptors(whole); !ok || d.Lies || !reflect.DeepEqual(d, want) {
		t.Fatalf("got %+v, %v; want %+v", d, ok, want)
	}
	if got, want := readStrings(&d, ask), (texts{manufacturer: "キングストン", serial: "60A4 4c"}); got != want {
		t.Errorf("says %+v, want %+v", got, want)
	}
}

func TestAHubThatDoesNotSay(t *testing.T) {
	f := fakeDevice{vendor: "0951", product: "1666", serial: "x", ifaces: []fakeIface{massStorage}}
	whole := f.descriptors()
	for name, b := range map[string][]byte{"nothing there": connected(whole[:18], 0, 0), "failed": connected(whole[:18], 0, 2), "short": connected(whole[:18], 1, 1)[:34], "nothing": nil} {
		if _, _, ok := parseConnection(b); ok {
			t.Errorf("%s: is a device", name)
		}
	}
	if d, ok := readDescriptors(whole[:18], fakeHub(t, nil, nil)); !ok || d.Lies || len(d.Configs) != 0 || d.VendorID != 0x0951 {
		t.Errorf("of a device that sleeps: %+v, %v", d, ok)
	}
	d, _ := parseDescriptors(whole)
	if got := readStrings(&d, func(byte, byte, uint16, uint16) ([]byte, bool) { return nil, false }); got != (texts{}) {
		t.Errorf("says %+v", got)
	}
	for _, total := range []uint16{0xffff, 2000, 3} { // more than there is, or less than a head
		lie := f.descriptors()
		binary.LittleEndian.PutUint16(lie[18+2:], total)
		if d, ok := readDescriptors(lie[:18], fakeHub(t, [][]byte{lie[18:]}, nil)); !ok || !d.Lies || len(d.Configs) > 1 {
			t.Errorf("a configuration that says it has %d bytes: %+v, %v", total, d, ok)
		}
	}
}

func FuzzHub(f *testing.F) {
	x := fakeDevice{vendor: "0951", product: "1666", maker: "x", ifaces: []fakeIface{massStorage}}
	whole := x.descriptors()
	f.Add(connected(whole[:18], 1, 1), whole[18:])
	f.Add(connected(whole[:18], 1, 1), stringDescriptor("Kingston"))
	f.Fuzz(func(t *testing.T, connection, answer []byte) {
		own, _, ok := parseConnection(connection)
		if !ok {
			return
		}
		ask := func(typ, index byte, language, length uint16) ([]byte, bool) {
			b := descriptorRequest(1, typ, index, language, length)
			n := copy(b[12:], answer)
			return parseDescriptor(b[:12+n], typ)
		}
		if d, ok := readDescriptors(own, ask); ok {
			readStrings(&d, ask)
		}
	})
}
