package usb

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// capturedUevent is what Debian's kernel 6.1 sends for a stick.
const capturedUevent = "add@/devices/pci0000:00/0000:00:03.0/usb1/1-1\x00ACTION=add\x00DEVPATH=/devices/pci0000:00/0000:00:03.0/usb1/1-1\x00" +
	"SUBSYSTEM=usb\x00MAJOR=189\x00MINOR=1\x00DEVNAME=bus/usb/001/002\x00DEVTYPE=usb_device\x00PRODUCT=46f4/1/0\x00TYPE=0/0/0\x00" +
	"BUSNUM=001\x00DEVNUM=002\x00SEQNUM=1482\x00"

func TestParseUevent(t *testing.T) {
	tests := []struct {
		name string
		data string
		want uevent
		bad  bool
	}{
		{name: "a stick", data: capturedUevent, want: uevent{Action: "add", DevPath: "/devices/pci0000:00/0000:00:03.0/usb1/1-1", Subsystem: "usb",
			DevType: "usb_device", Product: "46f4/1/0", BusNum: 1, DevNum: 2}},
		{name: "asked for by udevadm", data: "add@/devices/x\x00ACTION=add\x00SUBSYSTEM=usb\x00SYNTH_UUID=0\x00",
			want: uevent{Action: "add", DevPath: "/devices/x", Subsystem: "usb", Synthetic: "0"}},
		{name: "variables without a value or of another kind", data: "remove@/d\x00junk\x00=\x00DEVNUM=x\x00DEVNUM=-1\x00\x00SUBSYSTEM=a=b\x00",
			want: uevent{Action: "remove", DevPath: "/d", Subsystem: "a=b"}},
		{name: "udev's own message", data: "libudev\x00\xfe\xed\xca\xfe\x28\x00\x00\x00", bad: true},
		{name: "nothing", data: "", bad: true},
		{name: "a header without an end", data: "add@/devices/x", bad: true},
		{name: "a path that is none", data: "add@devices\x00", bad: true},
		{name: "too much", data: capturedUevent + strings.Repeat("A", maxUevent), bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseUevent([]byte(tt.data))
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("got %+v, %v; want %+v, error %v", got, err, tt.want, tt.bad)
			}
		})
	}
	u := uevent{Product: "46f4/1/0", DevPath: "/a/1-1"}
	if v, p := u.ids(); v != "46f4" || p != "0001" || u.name() != "1-1" {
		t.Errorf("got %s:%s %s, want 46f4:0001 1-1", v, p, u.name())
	}
}

func TestIsBusPath(t *testing.T) {
	for name, want := range map[string]bool{"1-4": true, "12-4.2.1": true, "usb1": false, "1-4:1.0": false, "": false, "1-": false, "-1": false,
		"1-4.": false, "1-4/../..": false, "..": false, "1-0": true} {
		if got := isBusPath(name); got != want {
			t.Errorf("isBusPath(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestKindsByClass(t *testing.T) {
	tests := []struct {
		want   string
		ifaces []iface
	}{
		{"storage", []iface{{triple: triple{8, 6, 0x62}}}},
		{"mtp", []iface{{triple: triple{6, 1, 1}}}},
		{"mtp", []iface{{triple: triple{0xff, 0xff, 0}, Label: "MTP"}}},
		{"other", []iface{{triple: triple{0xff, 0xff, 0}, Label: "ADB Interface"}}},
		{"network", []iface{{triple: triple{2, 6, 0}}, {triple: triple{0x0a, 0, 0}}}},
		{"network", []iface{{triple: triple{2, 0x0d, 0}}}},
		{"network", []iface{{triple: triple{0xe0, 1, 3}}}},
		{"network", []iface{{triple: triple{0xef, 4, 1}}}},
		{"network", []iface{{triple: triple{2, 2, 0xff}}}},
		{"other", []iface{{triple: triple{2, 2, 1}}}},    // a modem
		{"other", []iface{{triple: triple{0xe0, 1, 1}}}}, // Bluetooth
		{"audio", []iface{{triple: triple{1, 1, 0}}, {triple: triple{1, 2, 0}}}},
		{"audio video", []iface{{triple: triple{0x0e, 1, 0}}, {triple: triple{1, 2, 0}}}},
		{"printer", []iface{{triple: triple{7, 1, 2}}}},
		{"smartcard", []iface{{triple: triple{0x0b, 0, 0}}}},
		{"keyboard", []iface{{triple: triple{3, 1, 1}}, {triple: triple{3, 0, 0}}}},
		{"other", nil},
	}
	for _, tt := range tests {
		if got := strings.Join(kinds(0, tt.ifaces), " "); got != tt.want {
			t.Errorf("%v are %s, want %s", tt.ifaces, got, tt.want)
		}
	}
}

func TestDescriptorsThatLieAboutTheirLength(t *testing.T) {
	good := (&fakeDevice{maker: "a", model: "b", serial: "c", ifaces: []fakeIface{massStorage, bootKeys}}).descriptors()
	d, ok := parseDescriptors(good)
	if !ok || d.Manufacturer != 1 || d.Product != 2 || d.Serial != 3 || len(d.Configs) != 1 || len(d.Configs[0].Interfaces) != 2 {
		t.Fatalf("got %+v, %v", d, ok)
	}
	for n := range good {
		parseDescriptors(good[:n])
		for _, v := range []byte{0, 1, 255} {
			bad := slices.Clone(good)
			bad[n] = v
			parseDescriptors(bad)
		}
	}
	vendorFirst := slices.Concat(good[:18], []byte{9, 2, 0, 0, 1, 1, 0, 0, 0, 9, 4, 0, 0, 0, 0xff, 0, 0, 0, 9, 2, 0, 0, 1, 2, 0, 0, 0, 9, 4, 0, 0, 0, 2, 6, 0, 0})
	d, _ = parseDescriptors(vendorFirst)
	if c := d.likely(); c == nil || c.Value != 2 {
		t.Errorf("likely configuration is %+v, want the second: the first is a vendor's own", c)
	}
}

func TestNamesOfTheTable(t *testing.T) {
	table, err := os.ReadFile(filepath.Join("testdata", "usb.ids"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		id   ids
		want foundNames
	}{
		{ids{"0781", "5581"}, foundNames{"SanDisk Corp.", "Ultra"}},
		{ids{"0781", "ffff"}, foundNames{"SanDisk Corp.", ""}},
		{ids{"0781", "1666"}, foundNames{"SanDisk Corp.", ""}}, // Kingston's
		{ids{"18d1", "0000"}, foundNames{"Google Inc.", ""}},
		{ids{"ffff", "0000"}, foundNames{}},
	}
	for _, tt := range tests {
		if got := findNames(bytes.NewReader(table), tt.id); got != tt.want {
			t.Errorf("%v is %+v, want %+v", tt.id, got, tt.want)
		}
	}
	long := "0781  " + strings.Repeat("x", 1<<20) + "\n0951  Kingston Technology"
	if got := findNames(strings.NewReader(long), ids{"0951", "1666"}); got.vendor != "Kingston Technology" {
		t.Errorf("after a line of 1 MB got %+v, want Kingston", got)
	}
}

func TestTextsAreCutAtWholeRunes(t *testing.T) {
	for _, s := range []string{"", "plain", strings.Repeat("関", 300), strings.Repeat("\xff", 300), strings.Repeat("a", 1<<20), strings.Repeat("😀", 300)} {
		got := cut(s)
		if !strings.HasPrefix(s, got) || utf8.RuneCountInString(got) > maxTextRunes || len(got) > maxTextBytes {
			t.Errorf("%d bytes cut to %d bytes, %d runes", len(s), len(got), utf8.RuneCountInString(got))
		}
		if utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("cut a rune of %.20q", s)
		}
	}
}

func FuzzUevent(f *testing.F) {
	f.Add([]byte(capturedUevent))
	f.Add([]byte("libudev\x00\xfe\xed\xca\xfe"))
	f.Add([]byte("add@/\x00PRODUCT=1/2\x00DEVNUM=99999999999999999999\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := parseUevent(data)
		if err != nil {
			return
		}
		v, p := u.ids()
		if len(v) != 0 && len(v) != 4 || len(p) != 0 && len(p) != 4 {
			t.Errorf("ids %q:%q of %q", v, p, u.Product)
		}
		if isBusPath(u.name()) && strings.ContainsAny(u.name(), "/\x00") {
			t.Errorf("bus path %q", u.name())
		}
	})
}

func FuzzDescriptors(f *testing.F) {
	f.Add((&fakeDevice{maker: "a", serial: "c", ifaces: []fakeIface{massStorage, bootKeys}}).descriptors(), plainKeys.hid)
	f.Fuzz(func(t *testing.T, data, report []byte) {
		if d, ok := parseDescriptors(data); ok {
			n := 0
			for _, c := range d.Configs {
				n += len(c.Interfaces)
			}
			if n > maxInterfaces {
				t.Errorf("%d interfaces kept", n)
			}
			if c := d.likely(); c != nil && len(kinds(d.Class, c.Interfaces)) == 0 {
				t.Error("a device of no kind, want other at least")
			}
		}
		hidUse(report)
	})
}

func FuzzNames(f *testing.F) {
	f.Add([]byte("0781  SanDisk Corp.\n\t5581  Ultra\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		n := findNames(bytes.NewReader(table), ids{"0781", "5581"})
		if n.vendor == "" && n.product != "" || len(n.vendor) > maxTextBytes || len(n.product) > maxTextBytes {
			t.Errorf("got %+v", n)
		}
	})
}

func BenchmarkParseUevent(b *testing.B) {
	data := []byte(capturedUevent)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseUevent(data); err != nil {
			b.Fatal(err)
		}
	}
}
