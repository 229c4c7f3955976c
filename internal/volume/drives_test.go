package volume

import (
	"testing"

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

func TestRemoteShare(t *testing.T) {
	for device, want := range map[string]string{
		`\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\営業部`:            `\\fs1\営業部`,
		`\Device\Mup\;LanmanRedirector\;Z:0000000000012345\fs1\share\dir`: `\\fs1\share\dir`,
		`\Device\HarddiskVolume5`:                                         "", `\Device\LanmanRedirector\;Z:0`: "", "": "", `\;`: ""} {
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
	tests := []struct {
		name       string
		old, now   []Volume
		gone, come int
	}{
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

func FuzzRemoteShare(f *testing.F) {
	f.Add(`\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\share`)
	f.Fuzz(func(t *testing.T, device string) {
		if s := remoteShare(device); s != "" && len(s) > len(device)+2 {
			t.Errorf("%q is mapped to %q", device, s)
		}
		windowsKey(device)
	})
}
