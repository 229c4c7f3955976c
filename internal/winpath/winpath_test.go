package winpath

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"
)

var someDevices = Names{
	`\device\harddiskvolume3`: "C:", `\device\harddiskvolume5`: "E:", `\device\harddiskvolume7`: `C:\mnt\disk`, `\systemroot`: `C:\Windows`,
	`\\?\volume{0b1c4a52-1111-4222-8333-444455556666}`: "E:",
}

func TestPathsOfWindowsHaveOneForm(t *testing.T) {
	long := strings.Repeat(`\`+strings.Repeat("漢", 200), 160)
	tests := []struct {
		name, raw, path string
		stream          string
		short           bool
	}{
		{"plain", `C:\dir\file.txt`, `C:\dir\file.txt`, "", false},
		{"a small letter and slashes", `c:/dir//file.txt`, `C:\dir\file.txt`, "", false},
		{"the root of a drive", `e:`, `E:\`, "", false},
		{"Verbatim", `\\?\C:\dir\file.txt`, `C:\dir\file.txt`, "", false},
		{"Verbatim, of a share", `\\?\UNC\fs1\hr\file.txt`, `\\fs1\hr\file.txt`, "", false},
		{"of the object manager", `\??\C:\dir\file.txt`, `C:\dir\file.txt`, "", false},
		{"of the object manager, a share", `\??\unc\fs1\hr`, `\\fs1\hr`, "", false},
		{"of the devices", `\\.\C:\dir`, `C:\dir`, "", false},
		{"of the devices of DOS", `\DosDevices\C:\dir`, `C:\dir`, "", false},
		{"of all sessions", `\GLOBAL??\E:\dir`, `E:\dir`, "", false},
		{"of a device", `\Device\HarddiskVolume5\dir\file.txt`, `E:\dir\file.txt`, "", false},
		{"of a device, in capitals", `\DEVICE\HARDDISKVOLUME5\a`, `E:\a`, "", false},
		{"of a device below the root of all", `\\?\GLOBALROOT\Device\HarddiskVolume5\a`, `E:\a`, "", false},
		{"of a device with a folder for a name", `\Device\HarddiskVolume7\a`, `C:\mnt\disk\a`, "", false},
		{"of a device whose number begins alike", `\Device\HarddiskVolume55\a`, `\Device\HarddiskVolume55\a`, "", false},
		{"of a device without a name", `\Device\HarddiskVolumeShadowCopy2\a\..\b`, `\Device\HarddiskVolumeShadowCopy2\b`, "", false},
		{"of Windows itself", `\SystemRoot\System32\smss.exe`, `C:\Windows\System32\smss.exe`, "", false},
		{"of a volume", `\\?\Volume{0B1C4A52-1111-4222-8333-444455556666}\a`, `E:\a`, "", false},
		{"of a volume without a name", `\\?\Volume{00000000-1111-4222-8333-444455556666}\a\`, `\\?\Volume{00000000-1111-4222-8333-444455556666}\a`, "", false},
		{"of a redirector", `\Device\Mup\fs1\hr\file.txt`, `\\fs1\hr\file.txt`, "", false},
		{"of a redirector, mapped", `\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\fs1\hr\file.txt`, `\\fs1\hr\file.txt`, "", false},
		{"of SMB's redirector", `\Device\LanmanRedirector\;Z:00000000000a1b2c\fs1\hr\file.txt`, `\\fs1\hr\file.txt`, "", false},
		{"of WebDAV", `\Device\WebDavRedirector\;W:0\dav.example.jp@SSL\DavWWWRoot\a`, `\\dav.example.jp@SSL\DavWWWRoot\a`, "", false},
		{"of a remote desktop's drives", `\Device\RdpDr\;TSCLIENT:1\tsclient\c\a`, `\\tsclient\c\a`, "", false},
		{"of a share, in a mixture", `//fs1/hr\x/`, `\\fs1\hr\x`, "", false},
		{"of a server only", `\\fs1`, `\\fs1`, "", false},
		{"dots on the way", `C:\a\.\b\..\..\..\c`, `C:\c`, "", false},
		{"not above a share", `\\fs1\hr\..\..\x`, `\\fs1\hr\x`, "", false},
		{"dots and spaces at the end are kept", `\\?\C:\a.\b. `, `C:\a.\b. `, "", false},
		{"a stream", `E:\a.txt:secret:$DATA`, `E:\a.txt:secret`, "secret", false},
		{"a stream without its type", `\Device\HarddiskVolume5\a.txt:secret`, `E:\a.txt:secret`, "secret", false},
		{"the file itself as a stream", `E:\a.txt::$data`, `E:\a.txt`, "", false},
		{"a stream of a folder's root", `E:\:s`, `E:\:s`, "s", false},
		{"a folder as a stream", `E:\dir:$I30:$INDEX_ALLOCATION\a.txt`, `E:\dir\a.txt`, "", false},
		{"a folder as a stream, the last", `E:\dir::$INDEX_ALLOCATION`, `E:\dir`, "", false},
		{"8.3", `C:\PROGRA~1\X`, `C:\PROGRA~1\X`, "", true},
		{"8.3 with an extension", `C:\a\CONFID~12.DOC`, `C:\a\CONFID~12.DOC`, "", false},
		{"8.3 with an extension of three", `C:\a\CONF~12.DOC`, `C:\a\CONF~12.DOC`, "", true},
		{"8.3 that was set by hand, or by Wine", `C:\a\PROG~IM5.EXE`, `C:\a\PROG~IM5.EXE`, "", true},
		{"a tilde at the end", `C:\a\b.c~`, `C:\a\b.c~`, "", false},
		{"a lock of Word's", `C:\a\~$b.doc`, `C:\a\~$b.doc`, "", false},
		{"long", `\\?\C:` + long, `C:` + long, "", false},
		{"prefixes on prefixes", `\\?\UNC\?\UNC\.\C:\a`, `C:\a`, "", false},
		{"a pipe", `\\.\pipe\x`, `\\.\pipe\x`, "", false},
		{"relative", `a\b`, `a\b`, "", false},
		{"up to a zero", "C:\\a\x00b", `C:\a`, "", false},
		{"none", "", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Canonical(tt.raw, someDevices)
			if got.Path != tt.path || got.Stream != tt.stream || got.Short != tt.short {
				t.Errorf("Canonical(%.80q) = %.80q, stream %q, short %v\nwant %.80q, %q, %v", tt.raw, got.Path, got.Stream, got.Short, tt.path, tt.stream, tt.short)
			}
			if again := Canonical(got.Path, someDevices); again != got {
				t.Errorf("Canonical(%.80q) = %+.80v, not itself", got.Path, again)
			}
		})
	}
}

// units makes little-endian UTF-16.
func units(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func TestUTF16KeepsWhatIsNotWellFormed(t *testing.T) {
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"Japanese and a pair", units("名簿😀.xlsx"), "名簿😀.xlsx"},
		{"up to a zero", append(units("a"), 0, 0, 'b', 0), "a"},
		{"half a unit at the end", append(units("a"), 'b'), "a"},
		{"a first half alone", []byte{'a', 0, 0x3d, 0xd8, 'b', 0}, "a\xed\xa0\xbdb"},
		{"a second half alone, at the end", []byte{0x00, 0xde}, "\xed\xb8\x80"},
		{"the halves in the wrong order", []byte{0x00, 0xde, 0x3d, 0xd8}, "\xed\xb8\x80\xed\xa0\xbd"},
	}
	for _, tt := range tests {
		if got := DecodeUTF16(tt.b); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPartsOfPathsOfWindows(t *testing.T) {
	for path, want := range map[string][3]string{ // share, without its stream, Verbatim
		`C:\a\b:s`:      {"", `C:\a\b`, `\\?\C:\a\b:s`},
		`\\fs1\hr\a`:    {`\\fs1\hr`, `\\fs1\hr\a`, `\\?\UNC\fs1\hr\a`},
		`\\fs1\hr`:      {`\\fs1\hr`, `\\fs1\hr`, `\\?\UNC\fs1\hr`},
		`\\fs1`:         {"", `\\fs1`, `\\fs1`},
		`\\?\Volume{x}`: {"", `\\?\Volume{x}`, `\\?\Volume{x}\`},
		`\Device\X`:     {"", `\Device\X`, `\\?\GLOBALROOT\Device\X\`},
		`\Device\X\a`:   {"", `\Device\X\a`, `\\?\GLOBALROOT\Device\X\a`},
		`C:\`:           {"", `C:\`, `\\?\C:\`},
		"/srv/hr":       {"", "/srv/hr", "/srv/hr"},
	} {
		if got := [3]string{Share(path), WithoutStream(path), Verbatim(path)}; got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{`\\?\UNC\?\UNC\.\C:\a`, `\Device\Mup\;X\;Z:0\fs1\hr\a:s:$DATA`, `\Device\HarddiskVolume7\..\..\a::`, `\\?\Volume{0b1c4a52-1111-4222-8333-444455556666}:x\y`, `\\.\C:`, `\\?\GLOBALROOT\\?\GLOBALROOT\x`, `C:\a:b:$data:$DATA`, `\Device\Mup\?\C:\x`, "C:\\\xed\xa0\xbd", `\Device\Mup\`, `\\\\a\\\b`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got := Canonical(raw, someDevices)
		if len(got.Path) > min(len(raw), maxPath)+len(`C:\mnt\disk`) {
			t.Errorf("Canonical(%q) = %q is longer", raw, got.Path)
		}
		if again := Canonical(got.Path, someDevices); again != got {
			t.Errorf("Canonical(%q) = %+v, and of that it is %+v", raw, got, again)
		}
		if got.Stream != "" && !strings.HasSuffix(got.Path, ":"+got.Stream) || strings.Contains(got.Path, "\x00") {
			t.Errorf("Canonical(%q) = %+v", raw, got)
		}
		b := units(raw)
		if s := DecodeUTF16(b); len(s) > 3*len(b)/2 {
			t.Errorf("%d bytes of %d", len(s), len(b))
		}
		Share(got.Path)
		WithoutStream(got.Path)
		Verbatim(got.Path)
	})
}
