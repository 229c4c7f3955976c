package volume

import (
	"encoding/binary"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf16"

	"sekisho/internal/event"
	"sekisho/internal/usb"
)

func TestWhatADriveIs(t *testing.T) {
	tests := []struct {
		name string
		typ  uint32
		disk usb.Storage
		kind string
	}{
		{"a stick", driveRemovable, usb.Storage{Bus: "usb", Removable: true, Serial: "4C53"}, event.VolumeRemovable},
		{"an external disk, which is fixed to Windows", driveFixed, usb.Storage{Bus: "usb", Serial: "WX41A"}, event.VolumeRemovable},
		{"the inner disk", driveFixed, usb.Storage{Bus: "nvme", Serial: "S4EV"}, event.VolumeLocal},
		{"a share", driveRemote, usb.Storage{}, event.VolumeNetwork},
		{"a disc", driveCDROM, usb.Storage{Bus: "sata"}, event.VolumeOptical},
		{"a RAM disk", driveRAM, usb.Storage{}, event.VolumeVirtual},
		{"a card reader", driveRemovable, usb.Storage{}, event.VolumeRemovable},
	}
	for _, tt := range tests {
		var v Volume
		v.classifyDrive(tt.typ, tt.disk)
		if v.Kind != tt.kind || v.SerialNumber != tt.disk.Serial || v.BusType != tt.disk.Bus {
			t.Errorf("%s is %+v, want kind %s", tt.name, v.Volume, tt.kind)
		}
	}
}

func TestADiskThatDidNotAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		kind, bus, device string
		want              bool
	}{
		"a fixed disk":  {event.VolumeLocal, "", `\Device\HarddiskVolume5`, true},
		"a stick":       {event.VolumeRemovable, "", `\Device\HarddiskVolume5`, true},
		"one that did":  {event.VolumeRemovable, "usb", `\Device\HarddiskVolume5`, false},
		"a floppy":      {event.VolumeRemovable, "", `\Device\Floppy0`, false},
		"a cloud drive": {event.VolumeCloudSync, "", `\Device\HarddiskVolume9`, false},
		"a container":   {event.VolumeLocal, "", `\Device\VeraCryptVolumeV`, false},
	} {
		v := Volume{}
		v.Kind, v.BusType, v.NTName = tt.kind, tt.bus, tt.device
		if got := v.unidentified(); got != tt.want {
			t.Errorf("%s: unidentified %v", name, got)
		}
	}
}

func TestRemoteShare(t *testing.T) {
	for device, want := range map[string]string{
		`\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\営業部`:            `\\fs1\営業部`,
		`\Device\Mup\;LanmanRedirector\;Z:0000000000012345\fs1\share\dir`: `\\fs1\share\dir`,
		`\??\UNC\fs1\share`: `\\fs1\share`, `\??\UNC\`: "", `\??\E:\docs`: "",
		`\Device\HarddiskVolume5`: "", `\Device\LanmanRedirector\;Z:0`: "", "": "", `\;`: ""} {
		if got := remoteShare(device); got != want {
			t.Errorf("remoteShare(%q) = %q, want %q", device, got, want)
		}
	}
}

func TestAnotherMediumInADriveIsAnotherVolume(t *testing.T) {
	drive := func(letter string, serial uint32, kind string) Volume {
		v := Volume{Mount: letter + `:\`, Dev: Dev{Minor: serial}}
		v.DOSName, v.Kind = letter+":", kind
		return v
	}
	c := drive("C", 1, event.VolumeLocal)
	e1, e2, f := drive("E", 2, event.VolumeRemovable), drive("E", 3, event.VolumeRemovable), drive("F", 2, event.VolumeRemovable)
	disk, known := drive("G", 4, event.VolumeLocal), drive("G", 4, event.VolumeRemovable)
	named := known
	named.SerialNumber = "WX41A"
	tests := []struct {
		name       string
		old, now   []Volume
		gone, come int
	}{
		{"a disk turns out to hang on USB", []Volume{c, disk}, []Volume{c, known}, 0, 1},
		{"it says late what it is", []Volume{c, known}, []Volume{c, named}, 1, 1},
		{"a stick comes", []Volume{c}, []Volume{c, e1}, 0, 1},
		{"a stick goes", []Volume{c, e1}, []Volume{c}, 1, 0},
		{"the medium changes", []Volume{c, e1}, []Volume{c, e2}, 1, 1},
		{"the letter changes", []Volume{c, e1}, []Volume{c, f}, 1, 1},
		{"nothing changes", []Volume{c, e1}, []Volume{c, e1}, 0, 0},
		{"an inner disk comes", nil, []Volume{c}, 0, 0},
	}
	for _, tt := range tests {
		gone, come := compareDrives(tt.old, tt.now)
		if len(gone) != tt.gone || len(come) != tt.come {
			t.Errorf("%s: %d went and %d came, want %d and %d", tt.name, len(gone), len(come), tt.gone, tt.come)
		}
	}
}

func TestDrivesThatSettingsDeclare(t *testing.T) {
	for path, want := range map[string]bool{"E:": true, `e:\`: true, `\\?\E:\`: true, "F:": false, "": false, `E:\docs`: false} {
		if got := declaredDrive("E:", []string{"X:", path}); got != want {
			t.Errorf("%q declares E: %v, want %v", path, got, want)
		}
	}
}

func TestWhatALetterStandsFor(t *testing.T) {
	for device, want := range map[string]string{`\??\E:\docs`: `E:\docs`, `\??\E:`: "E:", `\??\UNC\fs1\share`: "", `\Device\HarddiskVolume5`: "", `\??\`: "", "": ""} {
		if got := substituted(device); got != want {
			t.Errorf("substituted(%q) = %q, want %q", device, got, want)
		}
	}
	for device, want := range map[string]bool{`\Device\VeraCryptVolumeV`: true, `\Device\TrueCryptVolumeT`: true, `\Device\HarddiskVolume5`: false, "": false} {
		if got := encrypts(device); got != want {
			t.Errorf("encrypts(%q) = %v", device, got)
		}
	}
}

func TestANetworkDriveOfAnotherLogon(t *testing.T) {
	v, ok := mappedDrive("Z:", `\Device\LanmanRedirector\;Z:000000000003e7a1\fs1\営業部`)
	if !ok || v.Kind != event.VolumeNetwork || v.Share != `\\fs1\営業部` || v.DOSName != "Z:" || v.FileSystemType != "SMB" || !v.Told() {
		t.Errorf("got %+v, %v", v, ok)
	}
	m := newMounts([]Volume{v})
	for _, path := range []string{`\\FS1\営業部\a.xlsx`, `Z:\a.xlsx`, `\Device\LanmanRedirector\;Z:000000000003e7a1\fs1\営業部\a.xlsx`} {
		if _, ok := m.lookup(m.key(path)); !ok && filepath.Separator == '\\' {
			t.Errorf("%s is not found", path)
		}
	}
	for device, want := range map[string]string{`\Device\Mup\;LanmanRedirector\;Z:0003e7a1\fs1\x`: "SMB", `\Device\WebDavRedirector\;W:0003e7a1\dav@SSL\x`: "WebDAV",
		`\Device\P9Rdr\;P:1\wsl$\x`: "network", `\Device\HarddiskVolume5`: "", `\??\E:\docs`: "", `\??\UNC\fs1\x`: "", "": ""} {
		if v, _ := mappedDrive("Z:", device); v.FileSystemType != want {
			t.Errorf("%s is %q, want %q", device, v.FileSystemType, want)
		}
	}
}

// extents is VOLUME_DISK_EXTENTS as winioctl.h lays it out for amd64 (see
// "VOLUME_DISK_EXTENTS structure" and "DISK_EXTENT structure" in the Windows
// documentation): LARGE_INTEGER is aligned to eight bytes.
func extents(n uint32, list ...extent) []byte {
	b := binary.LittleEndian.AppendUint32(nil, n)
	b = append(b, 0xcc, 0xcc, 0xcc, 0xcc) // padding, which may be anything
	for _, e := range list {
		b = binary.LittleEndian.AppendUint32(b, e.disk)
		b = append(b, 0xcc, 0xcc, 0xcc, 0xcc)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.begin))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.length))
	}
	return b
}

func TestWhereAVolumeLies(t *testing.T) {
	stick, second := extent{2, 1 << 20, 8 << 30}, extent{3, 4096, 1 << 40}
	for name, tt := range map[string]struct {
		b    []byte
		want []extent
	}{
		"a stick":                {extents(1, stick), []extent{stick}},
		"on two disks":           {extents(2, stick, second), []extent{stick, second}},
		"said to be more":        {extents(1<<31, stick), []extent{stick}},
		"none, as Wine says":     {extents(0, extent{}), nil},
		"before the disk begins": {extents(1, extent{1, -1, 5}), nil},
		"cut off":                {extents(1, stick)[:31], nil},
		"nothing":                {nil, nil},
	} {
		if got := parseExtents(tt.b); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// mountList is MOUNT_LIST_STRUCT of VeraCrypt, packed to bytes.
func mountList(mounted map[byte]string) []byte {
	b := make([]byte, 4)
	for letter := byte('A'); letter <= 'Z'; letter++ {
		path := make([]byte, 0, 520)
		for _, c := range utf16.Encode([]rune(mounted[letter])) {
			path = binary.LittleEndian.AppendUint16(path, c)
		}
		b = append(b, path[:520]...)
		if mounted[letter] != "" {
			binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)|1<<(letter-'A'))
		}
	}
	return append(b, make([]byte, 26*(8+4+4))...) // lengths, ciphers, types
}

func TestWhatVeraCryptHasMounted(t *testing.T) {
	b := mountList(map[byte]string{'V': `\??\E:\金庫.hc`, 'A': `\Device\Harddisk2\Partition1`, 'Z': "x"})
	want := map[string]string{"V:": `\??\E:\金庫.hc`, "A:": `\Device\Harddisk2\Partition1`, "Z:": "x"}
	if got := parseMountList(b); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	binary.LittleEndian.PutUint32(b, 1) // the rest is not mounted, whatever is left there
	if got := parseMountList(b); len(got) != 1 || got["A:"] == "" {
		t.Errorf("got %q", got)
	}
	if got := parseMountList(b[:4+519]); len(got) != 0 {
		t.Errorf("cut off: %q", got)
	}
	if got := parseMountList(nil); got != nil {
		t.Errorf("of nothing: %q", got)
	}
}

func TestMultiTexts(t *testing.T) {
	list := utf16.Encode([]rune("E:\\\x00C:\\マウント\\\x00\x00"))
	if got := multiTexts(list); !slices.Equal(got, []string{`E:\`, `C:\マウント\`}) {
		t.Errorf("got %q", got)
	}
	if got := multiTexts(list[:5]); !slices.Equal(got, []string{`E:\`, "C"}) {
		t.Errorf("cut off: %q", got)
	}
	for _, none := range [][]uint16{nil, {0}} {
		if got := multiTexts(none); got != nil {
			t.Errorf("of nothing: %q", got)
		}
	}
}

func FuzzDisks(f *testing.F) {
	f.Add(extents(1, extent{2, 1 << 20, 8 << 30}))
	f.Add(mountList(map[byte]string{'A': `\??\E:\x`}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range parseExtents(b) {
			if e.begin < 0 || e.length <= 0 {
				t.Errorf("%+v", e)
			}
		}
		u := make([]uint16, len(b)/2)
		for i := range u {
			u[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
		}
		if n := len(multiTexts(u)); n > len(u) {
			t.Errorf("%d texts of %d units", n, len(u))
		}
		cipher(b)
		if n := len(parseMountList(b)); n > 26 {
			t.Errorf("%d letters", n)
		}
	})
}

func FuzzRemoteShare(f *testing.F) {
	f.Add(`\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\share`)
	f.Fuzz(func(t *testing.T, device string) {
		if s := remoteShare(device); s != "" && len(s) > len(device)+2 {
			t.Errorf("%q is mapped to %q", device, s)
		}
		windowsKey(device)
		if v, ok := mappedDrive("Z:", device); ok && (v.Share == "" || v.FileSystemType == "") {
			t.Errorf("%q is %+v", device, v)
		}
	})
}
