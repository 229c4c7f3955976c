package usb

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"
)

// What a hub's driver answers about the device at one of its ports, on Windows
// (usbioctl.h of the Windows SDK, packed to bytes): the descriptors that Linux has
// in sysfs.

// USB_NODE_CONNECTION_INFORMATION_EX: port (4 bytes), the device's descriptor
// (18), the value of its configuration, speed, whether it is a hub, its address
// (2), open pipes (4), state (4), then pipes.
const (
	connectionSize  = 35
	deviceConnected = 1 // USB_CONNECTION_STATUS
)

// parseConnection reads the answer: the device's descriptor and the value of the
// configuration it has, 0 for none.
func parseConnection(b []byte) (device []byte, config int, ok bool) {
	if len(b) < connectionSize || binary.LittleEndian.Uint32(b[31:]) != deviceConnected {
		return nil, 0, false
	}
	return b[4:22], int(b[22]), true
}

// Types of descriptors (USB 2.0, table 9-5).
const (
	descConfig = 2
	descString = 3
)

// USB_DESCRIPTOR_REQUEST: port (4 bytes), a setup packet (8), data.
const descriptorHeader = 12

// descriptorRequest asks the device at a port for a descriptor of at most so many
// bytes.
func descriptorRequest(port uint32, typ, index byte, language, length uint16) []byte {
	b := make([]byte, descriptorHeader+int(length))
	binary.LittleEndian.PutUint32(b, port)
	b[4], b[5] = 0x80, 0x06 // from the device; GET_DESCRIPTOR
	b[6], b[7] = index, typ
	binary.LittleEndian.PutUint16(b[8:], language)
	binary.LittleEndian.PutUint16(b[10:], length)
	return b
}

// parseDescriptor returns the data of an answer, at least a descriptor's head of
// this type.
func parseDescriptor(b []byte, typ byte) ([]byte, bool) {
	if len(b) < descriptorHeader+2 || b[descriptorHeader+1] != typ {
		return nil, false
	}
	return b[descriptorHeader:], true
}

// asker asks the device at a port for a descriptor; see descriptorRequest.
type asker func(typ, index byte, language, length uint16) ([]byte, bool)

// readDescriptors reads all that a device with this descriptor of its own has of
// configurations, as sysfs has them. What does not come is no lie: a device that
// sleeps may not answer.
func readDescriptors(device []byte, ask asker) (descriptors, bool) {
	all, answered := append([]byte(nil), device...), true
	for i := range min(device[17], 8) { // USB_MAXCONFIG, as on Linux
		head, ok := ask(descConfig, i, 0, 9)
		if !ok || len(head) < 9 {
			answered = false
			break
		}
		total := int(binary.LittleEndian.Uint16(head[2:]))
		if total < 9 || len(all)+total > maxDescriptors {
			break
		}
		whole, ok := ask(descConfig, i, 0, uint16(total))
		if !ok {
			answered = false
			break
		}
		all = append(all, whole[:min(len(whole), total)]...)
	}
	d, ok := parseDescriptors(all)
	d.Lies = d.Lies && answered
	return d, ok
}

// readStrings asks for the texts that a device's descriptor names, in the first
// language it has, as Linux does.
func readStrings(d *descriptors, ask asker) (t texts) {
	if d.Manufacturer == 0 && d.Product == 0 && d.Serial == 0 {
		return t
	}
	languages, ok := ask(descString, 0, 0, 255)
	if !ok || len(languages) < 4 || languages[0] < 4 {
		return t
	}
	language := binary.LittleEndian.Uint16(languages[2:])
	for index, to := range map[*byte]*string{&d.Manufacturer: &t.manufacturer, &d.Product: &t.product, &d.Serial: &t.serial} {
		if *index == 0 {
			continue
		}
		if b, ok := ask(descString, *index, language, 255); ok {
			*to = parseString(b)
		}
	}
	return t
}

// parseString reads a string descriptor (USB 2.0, section 9.6.7). What is blank
// is "".
func parseString(b []byte) string {
	if len(b) < 2 || int(b[0]) < 2 {
		return ""
	}
	var u []uint16
	for b = b[2:min(int(b[0]), len(b))]; len(b) >= 2; b = b[2:] {
		c := binary.LittleEndian.Uint16(b)
		if c == 0 {
			break
		}
		u = append(u, c)
	}
	s := string(utf16.Decode(u))
	if strings.TrimSpace(s) == "" {
		return ""
	}
	return cut(s)
}
