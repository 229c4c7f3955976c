package procwatch

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"sekisho/internal/event"
)

// node is a node of a version resource by the layouts in MSDN (String, StringTable,
// StringFileInfo, Var, VarFileInfo, VS_VERSIONINFO), which are one: wLength,
// wValueLength, wType, szKey, Value, children, each at a multiple of 4.
func node(key string, text bool, value []byte, children ...[]byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, align4(len(b))-len(b))...) }
	le := binary.LittleEndian
	b := make([]byte, 6)
	b = pad(append(b, utf16z(key)...))
	b = append(b, value...)
	for _, c := range children {
		b = append(pad(b), c...)
	}
	le.PutUint16(b, uint16(len(b)))
	n := len(value)
	if text {
		n /= 2
		le.PutUint16(b[4:], 1)
	}
	le.PutUint16(b[2:], uint16(n))
	return b
}

func text(key, value string) []byte { return node(key, true, utf16z(value)) }

var testLanguages = []byte{0x11, 0x04, 0xb0, 0x04, 0x09, 0x04, 0xb0, 0x04} // Japanese, English

func TestVersionInfo(t *testing.T) {
	english := node("040904b0", true, nil, text("CompanyName", "Example Works"), text("OriginalFilename", "tool.exe"), text("Comments", "x"))
	japanese := node("041104B0", true, nil, text("CompanyName", " 例示工房 "), text("ProductName", "例の道具"), text("FileDescription", "試験用"),
		text("FileVersion", "1.2.3.4 (test)"), text("OriginalFilename", "tool.exe"), text("OriginalFilename", "second.exe"))
	fixed := make([]byte, 52) // VS_FIXEDFILEINFO
	languages := node("VarFileInfo", true, nil, node("Translation", false, testLanguages))
	long := node("040904b0", true, nil, text("CompanyName", strings.Repeat("字", 2*maxVersionText)))
	inBytes := text("CompanyName", "Example Works")
	binary.LittleEndian.PutUint16(inBytes[2:], uint16(len(utf16z("Example Works"))))
	for _, c := range []struct {
		name string
		b    []byte
		want *event.PE
	}{
		{"the first language it says it has", node("VS_VERSION_INFO", false, fixed, node("StringFileInfo", true, nil, english, japanese), languages),
			&event.PE{OriginalFileName: "tool.exe", Company: "例示工房", Product: "例の道具", Description: "試験用", FileVersion: "1.2.3.4 (test)"}},
		{"languages first", node("VS_VERSION_INFO", false, fixed, languages, node("StringFileInfo", true, nil, japanese)),
			&event.PE{OriginalFileName: "tool.exe", Company: "例示工房", Product: "例の道具", Description: "試験用", FileVersion: "1.2.3.4 (test)"}},
		{"no language said", node("VS_VERSION_INFO", false, fixed, node("StringFileInfo", true, nil, english)), &event.PE{OriginalFileName: "tool.exe", Company: "Example Works"}},
		{"a language that is not there", node("VS_VERSION_INFO", false, nil, node("StringFileInfo", true, nil, english), languages), &event.PE{OriginalFileName: "tool.exe", Company: "Example Works"}},
		{"lengths in bytes", node("VS_VERSION_INFO", false, fixed, node("StringFileInfo", true, nil, node("040904b0", true, nil, inBytes))), &event.PE{Company: "Example Works"}},
		{"a long text", node("VS_VERSION_INFO", false, fixed, node("StringFileInfo", true, nil, long)), &event.PE{Company: strings.Repeat("字", maxVersionText/3)}},
		{"room behind it", append(node("VS_VERSION_INFO", false, fixed, node("StringFileInfo", true, nil, english)), make([]byte, 500)...), &event.PE{OriginalFileName: "tool.exe", Company: "Example Works"}},
		{"no texts", node("VS_VERSION_INFO", false, fixed), nil},
	} {
		got, err := parseVersionInfo(c.b)
		if err != nil || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v (%v), want %+v", c.name, got, err, c.want)
		}
	}
	for _, bad := range [][]byte{nil, {1, 2, 3}, make([]byte, 100), node("SOMETHING", false, nil), node("VS_VERSION_INFO", false, nil)[:20]} {
		if got, err := parseVersionInfo(bad); err == nil {
			t.Errorf("% x is taken for %+v", bad, got)
		}
	}
}

// resourceOf is the version resource of a program of testdata/windows: it lies where
// its key does.
func resourceOf(t testing.TB, name string) []byte {
	t.Helper()
	f, err := pe.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := f.Section(".rsrc").Data()
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.Index(b, utf16z("VS_VERSION_INFO"))
	if i < 6 {
		t.Fatal("it has no version resource")
	}
	return b[i-6:]
}

// toolPE is what the programs of testdata/windows say of themselves: Japanese is the
// first language.
var toolPE = event.PE{OriginalFileName: "exampletool.exe", Company: "例示工房", Product: "例の道具", Description: "試験用"}

func TestVersionInfoOfAProgram(t *testing.T) {
	got, err := parseVersionInfo(resourceOf(t, "testdata/windows/tool.exe"))
	if err != nil || got == nil || *got != toolPE {
		t.Errorf("it says %+v (%v), want %+v", got, err, toolPE)
	}
}

func FuzzVersionInfo(f *testing.F) {
	if _, err := os.Stat("testdata/windows/tool.exe"); err == nil {
		f.Add(resourceOf(f, "testdata/windows/tool.exe"))
	}
	f.Add(node("VS_VERSION_INFO", false, nil, node("StringFileInfo", true, nil, node("040904b0", true, nil, text("CompanyName", "x")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		pe, err := parseVersionInfo(b)
		if err != nil || pe == nil {
			return
		}
		for _, s := range []string{pe.OriginalFileName, pe.Company, pe.Product, pe.Description, pe.FileVersion} {
			if len(s) > maxVersionText || strings.ToValidUTF8(s, "") != s {
				t.Errorf("%d bytes %q", len(s), s)
			}
		}
	})
}

func BenchmarkVersionInfo(b *testing.B) {
	data := resourceOf(b, "testdata/windows/tool.exe")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseVersionInfo(data); err != nil {
			b.Fatal(err)
		}
	}
}
