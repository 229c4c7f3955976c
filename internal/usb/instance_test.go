package usb

import (
	"slices"
	"strings"
	"testing"

	"sekisho/internal/event"
)

func TestParseID(t *testing.T) {
	for id, want := range map[string]string{
		`USB\VID_0951&PID_1666\60A44C413FAEE280`:       "0951 1666 60A44C413FAEE280",
		`usb\vid_0951&pid_1666\60a44c413faee280`:       "0951 1666 60a44c413faee280",
		`USB\VID_0951&PID_1666\6&2d7f6a2&0&4`:          "0951 1666 ", // made up by Windows
		`USB\VID_0951&PID_1666\A`:                      "0951 1666 A",
		`USB\VID_0951&PID_1666\#1`:                     "0951 1666 #1",
		`USB\VID_0951&PID_1666`:                        "",
		`USB\VID_046D&PID_C52B&MI_02\6&1C2&0&0002`:     "",
		`USB\ROOT_HUB30\4&1ab&0&0`:                     "",
		`USB\VID_0000&PID_0002\5&1&0&3`:                "", // did not answer
		`USBSTOR\DISK&VEN_A&PROD_B&REV_1\60A44C&0`:     "",
		`SWD\WPDBUSENUM\_??_USBSTOR#Disk&Ven_A#4C53&0`: "", `USB\`: "", "": "",
	} {
		v, p, s, ok := ParseID(id)
		got := strings.Join([]string{v, p, s}, " ")
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("ParseID(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestFunctionOf(t *testing.T) {
	for id, want := range map[string]int{`USB\VID_046D&PID_C52B&MI_02\6&1C2&0&0002`: 2, `usb\vid_04e8&pid_6860&mi_1f\x`: 31,
		`USB\VID_0951&PID_1666\6&MI_02`: 2, // no device has such a serial number: it would be of Windows' making
		`USB\VID_0951&PID_1666\60A4`:    -1, `HID\VID_046D&PID_C52B&MI_02\x`: -1, `USB\VID_046D&PID_C52B&MI_`: -1, `USB\VID_046D&PID_C52B&MI_ZZ`: -1, "": -1} {
		got, ok := functionOf(id)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("functionOf(%q) = %d, want %d", id, got, want)
		}
	}
}

func TestParseClass(t *testing.T) {
	for ids, want := range map[string]string{
		`USB\Class_08&SubClass_06&Prot_50|USB\Class_08&SubClass_06|USB\Class_08`:                        "08/06/50",
		`USB\COMPAT_VID_046d&Class_03&SubClass_01&Prot_01|USB\Class_03&SubClass_01&Prot_01`:             "03/01/01",
		`usb\class_ff&subclass_ff&prot_00`:                                                              "ff/ff/00",
		`USB\DevClass_00&SubClass_00&Prot_00|USB\DevClass_00&SubClass_00|USB\DevClass_00|USB\COMPOSITE`: "",
		`USB\Class_08`: "", `USB\Class_08&SubClass_06&Prot_50&More`: "", `USB\Class_0`: "", `USB\Class_zz&SubClass_06&Prot_50`: "", "": "",
	} {
		c, ok := parseClass(strings.Split(ids, "|"))
		got := c.String()
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("parseClass(%q) = %q, want %q", ids, got, want)
		}
	}
}

func TestPortPath(t *testing.T) {
	const pci = "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)#USB(2)"
	for _, paths := range [][]string{{pci, "ACPI(_SB_)#ACPI(PCI0)#ACPI(XHC_)#ACPI(RHUB)#ACPI(HS04)"}, {"ACPI(_SB_)#ACPI(PCI0)", pci}, {pci}} {
		if got := portPath(paths); got != pci {
			t.Errorf("portPath(%q) = %q", paths, got)
		}
	}
	if got := portPath([]string{"ACPI(X)"}); got != "ACPI(X)" {
		t.Errorf("got %q", got)
	}
	if got := portPath(nil); got != "" {
		t.Errorf("got %q", got)
	}
}

func TestMaker(t *testing.T) {
	for s, want := range map[string]string{"Logitech": "Logitech", "(Standard disk drives)": "", "Compatible USB storage device": "", "Generic USB Hub": "", "Microsoft": "", "": ""} {
		if got := maker(s); got != want {
			t.Errorf("maker(%q) = %q, want %q", s, got, want)
		}
	}
}

// collection is a HID collection with a usage ("0006": keyboard), with the ids that
// Windows gives it.
func collection(use string) node {
	return node{id: `HID\VID_046D&PID_C52B&MI_00\7&1&0&0000`, hardware: []string{`HID\VID_046D&PID_C52B&REV_1203&MI_00`, `HID\VID_046D&UP:0001_U:` + use, `HID_DEVICE_UP:0001_U:` + use, "HID_DEVICE"}}
}

func function(number, class string, phone bool, below ...node) node {
	return node{id: `USB\VID_046D&PID_C52B&MI_` + number + `\6&1&0&00` + number, compatible: []string{class}, phone: phone, below: below}
}

func TestWhatWindowsKnowsOfADevice(t *testing.T) {
	composite := []string{`USB\DevClass_00&SubClass_00&Prot_00`, `USB\COMPOSITE`}
	const (
		disk   = `USB\Class_08&SubClass_06&Prot_50`
		uas    = `USB\Class_08&SubClass_06&Prot_62`
		keys   = `USB\Class_03&SubClass_01&Prot_01`
		hid    = `USB\Class_03&SubClass_00&Prot_00`
		vendor = `USB\Class_FF&SubClass_FF&Prot_00`
	)
	tests := []struct {
		name       string
		n          node
		interfaces string
		kinds      string
		complete   bool
	}{
		{"a stick", node{compatible: []string{disk}}, "08/06/50", event.KindStorage, true},
		{"a disk with UAS", node{compatible: []string{uas, disk}}, "08/06/62", event.KindStorage, true},
		{"a hub", node{compatible: []string{`USB\Class_09&SubClass_00&Prot_02`}}, "09/00/02", event.KindHub, true},
		{"a keyboard of the boot protocol", node{compatible: []string{keys}}, "03/01/01", event.KindKeyboard, true},
		{"a keyboard that only its driver knows", node{compatible: []string{hid}, below: []node{collection("0006")}}, "03/00/00", event.KindKeyboard, true},
		{"that before its driver runs", node{compatible: []string{hid}}, "03/00/00", event.KindOther, false},
		{"something else with a HID interface", node{compatible: []string{hid}, below: []node{collection("000C")}}, "03/00/00", event.KindOther, true},
		{"a receiver", node{compatible: composite, below: []node{function("00", keys, false), function("01", hid, false, collection("0002"), collection("0080")), function("02", hid, false, collection("0001"))}},
			"03/01/01 03/00/00 03/00/00", "keyboard mouse", true},
		{"storage that types", node{compatible: composite, below: []node{function("01", keys, false), function("00", disk, false)}}, "08/06/50 03/01/01", "storage keyboard", true},
		{"a composite device before its functions", node{compatible: composite}, "", event.KindOther, false},
		{"a phone", node{compatible: []string{`USB\Class_06&SubClass_01&Prot_01`}}, "06/01/01", event.KindMTP, true},
		{"a phone that Windows asked", node{compatible: []string{`USB\MS_COMP_MTP`, vendor}}, "ff/ff/00", event.KindMTP, true},
		{"a phone by its driver", node{compatible: composite, below: []node{function("00", vendor, true), function("01", `USB\Class_02&SubClass_02&Prot_01`, false)}}, "ff/ff/00 02/02/01", event.KindMTP, true},
		{"a vendor's own", node{compatible: []string{vendor}}, "ff/ff/00", event.KindOther, false},
		{"a network card", node{compatible: []string{`USB\Class_E0&SubClass_01&Prot_03`}}, "e0/01/03", event.KindNetwork, true},
		{"a card reader for smart cards", node{compatible: []string{`USB\Class_0B&SubClass_00&Prot_00`}}, "0b/00/00", event.KindSmartcard, true},
		{"nothing known", node{}, "", event.KindOther, false},
	}
	for _, tt := range tests {
		d := device{}
		complete := d.readFunctions(tt.n)
		if got := strings.Join(d.Interfaces, " "); got != tt.interfaces || strings.Join(d.Kinds, " ") != tt.kinds || complete != tt.complete {
			t.Errorf("%s: interfaces %q, kinds %q, complete %v; want %q, %q, %v", tt.name, got, d.Kinds, complete, tt.interfaces, tt.kinds, tt.complete)
		}
	}
}

func TestDescriptorsGoBeforeWhatWindowsKept(t *testing.T) {
	f := fakeDevice{vendor: "046d", product: "c52b", ifaces: []fakeIface{massStorage, {triple: triple{0x03, 0, 0}}, {triple: triple{0xff, 1, 2}}}}
	d := device{config: 1}
	d.desc, _ = parseDescriptors(f.descriptors())
	// Windows made one function of two interfaces, and knows one that the descriptors do not.
	n := node{compatible: []string{`USB\COMPOSITE`}, below: []node{
		function("00", `USB\Class_08&SubClass_06&Prot_50`, false),
		function("01", `USB\Class_03&SubClass_00&Prot_00`, false, collection("0006")),
		function("07", `USB\Class_07&SubClass_01&Prot_02`, false)}}
	d.readFunctions(n)
	if got := strings.Join(d.Interfaces, " "); got != "08/06/50 03/00/00 ff/01/02" || !slices.Equal(d.Kinds, []string{event.KindStorage, event.KindKeyboard}) {
		t.Errorf("interfaces %q, kinds %q", got, d.Kinds)
	}
}

func FuzzIDs(f *testing.F) {
	f.Add(`USB\VID_0951&PID_1666\60A44C413FAEE280`)
	f.Add(`USB\VID_046D&PID_C52B&MI_02\6&1C2&0&0002`)
	f.Add(`USB\Class_08&SubClass_06&Prot_50`)
	f.Add(`HID_DEVICE_UP:0001_U:0006`)
	f.Fuzz(func(t *testing.T, s string) {
		v, p, _, ok := ParseID(s)
		if ok && (len(v) != 4 || len(p) != 4) {
			t.Errorf("%q is of %q:%q", s, v, p)
		}
		if _, isFunction := functionOf(s); ok && isFunction && !strings.Contains(strings.ToUpper(s), "&MI_") {
			t.Errorf("%q is a function", s)
		}
		ids := []string{s}
		parseClass(ids)
		isMTP(ids)
		inputUse(ids)
		portPath(ids)
		maker(s)
		d := device{}
		d.readFunctions(node{id: s, compatible: ids, hardware: ids, below: []node{{id: s, compatible: ids, hardware: ids}}})
		if len(d.Kinds) == 0 {
			t.Errorf("%q has no kind", s)
		}
	})
}
