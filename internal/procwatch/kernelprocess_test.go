package procwatch

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"sekisho/internal/etw"
)

// utf16z is s in UTF-16 with its NUL.
func utf16z(s string) []byte {
	var b []byte
	for _, c := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	return append(b, 0, 0)
}

// startFields are those of event 1 of Microsoft-Windows-Kernel-Process.
type startFields struct {
	pid, ppid, session, elevation, label uint32
	created                              uint64
	image                                string
}

// bytes is the event's payload by the provider's manifest in Windows 10 (versions 0
// to 2: up to 1909, 3: from 20H2) and 11 (4).
func (s startFields) bytes(version uint8) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, s.pid)
	if version >= 3 {
		b = le.AppendUint64(b, 0x1234) // ProcessSequenceNumber
	}
	b = le.AppendUint64(b, s.created)
	b = le.AppendUint32(b, s.ppid)
	if version >= 3 {
		b = le.AppendUint64(b, 0x1200) // ParentProcessSequenceNumber
	}
	b = le.AppendUint32(b, s.session)
	if version >= 1 {
		b = le.AppendUint32(b, 0) // Flags
	}
	if version >= 3 {
		b = le.AppendUint32(b, s.elevation)
		b = le.AppendUint32(b, 1) // ProcessTokenIsElevated
		b = append(b, 1, 1, 0, 0, 0, 0, 0, 16)
		b = le.AppendUint32(b, s.label) // MandatoryLabel
	}
	b = append(b, utf16z(s.image)...)
	if version >= 2 {
		b = le.AppendUint32(b, 0x0004a1b2) // ImageChecksum
		b = le.AppendUint32(b, 0x5f000000) // TimeDateStamp
		b = append(b, utf16z("")...)       // PackageFullName
		b = append(b, utf16z("")...)       // PackageRelativeAppId
	}
	if version >= 4 {
		b = le.AppendUint32(b, 0) // SecurityMitigations
	}
	return b
}

const testCreated = 133_775_928_001_234_567 // 2024-12-02 06:00:00.1234567

// stopBytes is the payload of event 2.
func stopBytes(version uint8, pid uint32, created uint64, exit uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, pid)
	if version >= 2 {
		b = le.AppendUint64(b, 0x1234) // ProcessSequenceNumber
	}
	b = le.AppendUint64(b, created)
	b = le.AppendUint64(b, created+15_000_000) // ExitTime
	b = le.AppendUint32(b, exit)
	b = le.AppendUint32(b, 1)     // TokenElevationType
	b = le.AppendUint32(b, 42)    // HandleCount
	b = le.AppendUint64(b, 1<<20) // CommitCharge
	b = le.AppendUint64(b, 1<<21) // CommitPeak
	if version >= 1 {
		b = le.AppendUint64(b, 1e6) // CPUCycleCount
		for range 5 {               // ReadOperationCount to HardFaultCount
			b = le.AppendUint32(b, 9)
		}
	}
	return append(b, "notepad.exe\x00"...) // ImageName
}

func TestKernelStart(t *testing.T) {
	const image = `\Device\HarddiskVolume3\Program Files\日本\notepad.exe`
	fields := startFields{pid: 4120, ppid: 788, session: 2, elevation: 3, label: 8192, created: testCreated, image: image}
	for version := range uint8(5) {
		want := kernelStart{pid: 4120, ppid: 788, created: testCreated, session: 2, image: image}
		if version >= 3 {
			want.elevation, want.label = 3, "S-1-16-8192"
		}
		b := fields.bytes(version)
		got, err := parseKernelStart(version, etw.NewReader(b, 8))
		if err != nil || got != want {
			t.Errorf("version %d: %+v (%v), want %+v", version, got, err, want)
		}
		if _, err := parseKernelStart(version, etw.NewReader(b[:16], 8)); err == nil {
			t.Errorf("version %d: cut off, and taken", version)
		}
	}
}

func TestKernelStop(t *testing.T) {
	for version := range uint8(3) {
		want := kernelStop{pid: 4120, created: testCreated, ended: etw.FileTime(testCreated + 15_000_000), exit: 0xc0000005}
		b := stopBytes(version, 4120, testCreated, 0xc0000005)
		if got, err := parseKernelStop(version, etw.NewReader(b, 8)); err != nil || got != want {
			t.Errorf("version %d: %+v (%v), want %+v", version, got, err, want)
		}
		if _, err := parseKernelStop(version, etw.NewReader(b[:20], 8)); err == nil {
			t.Errorf("version %d: cut off, and taken", version)
		}
	}
}

func FuzzKernelProcess(f *testing.F) {
	s := startFields{pid: 4120, ppid: 788, label: 8192, created: testCreated, image: `\Device\HarddiskVolume3\a.exe`}
	for version := range uint8(5) {
		f.Add(version, s.bytes(version))
		f.Add(version, stopBytes(version, 4120, testCreated, 1))
	}
	f.Fuzz(func(t *testing.T, version uint8, b []byte) {
		if s, err := parseKernelStart(version, etw.NewReader(b, 8)); err == nil && len(s.image) > 3*len(b) {
			t.Errorf("%d bytes become a path of %d", len(b), len(s.image))
		}
		_, _ = parseKernelStop(version, etw.NewReader(b, 4))
	})
}

func BenchmarkKernelStart(b *testing.B) {
	data := startFields{pid: 4120, ppid: 788, label: 8192, created: testCreated, image: `\Device\HarddiskVolume3\Program Files\Example\Tool\example-tool.exe`}.bytes(4)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseKernelStart(4, etw.NewReader(data, 8)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestUnicodeString(t *testing.T) {
	const base = 0x7ff600001000
	answer := func(size uint16, at uint64, text string) []byte {
		le := binary.LittleEndian
		b := le.AppendUint16(nil, size)
		b = le.AppendUint16(b, size)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, at)
		return append(b, utf16z(text)...)
	}
	if got, err := parseUnicodeString(answer(10, base+16, "a あ b"), base); err != nil || got != "a あ b" {
		t.Errorf("text is %q (%v)", got, err)
	}
	if got, err := parseUnicodeString(answer(0, 0, ""), base); err != nil || got != "" {
		t.Errorf("no text is %q (%v)", got, err)
	}
	for _, b := range [][]byte{
		nil, answer(10, base+16, "a")[:15], answer(10, base+15+16, "a あ b"), answer(10, base-1, "a あ b"), answer(10, 0, "a"), answer(0xffff, base+16, "a"), answer(2, ^uint64(0), "a"),
	} {
		if got, err := parseUnicodeString(b, base); err == nil {
			t.Errorf("% x is taken for %q", b, got)
		}
	}
}

func FuzzUnicodeString(f *testing.F) {
	f.Add([]byte("\x04\x00\x04\x00\x00\x00\x00\x00\x10\x10\x00\x00\x00\x00\x00\x00a\x00b\x00"), uint64(0x1000))
	f.Fuzz(func(t *testing.T, b []byte, base uint64) {
		if s, err := parseUnicodeString(b, base); err == nil && len(s) > 3*len(b) {
			t.Errorf("%d bytes become %d", len(b), len(s))
		}
	})
}

// commandLines are what splitCommandLine is compared with Windows on.
var commandLines = []string{
	`a.exe`, `a.exe b c`, `"C:\Program Files\a.exe" /x "y z"`, `"C:\Program Files\a.exe"/x`, `a.exe "a\\b" a\\b a\\\"b "a\\\\" x`, `a.exe "" "" x`,
	`a.exe "a""b" c`, `a.exe a"b c"d`, `a.exe   	 b	c `, `"a`, `a.exe "b c`, ` a.exe b`, `a"b c" d`, `a.exe \`, `a.exe \\ \" "\""`, `a.exe "ab\"c" "\\" d`, ``,
	`a.exe """x y""" z`, `a.exe "x"" y`, `cmd.exe /c "copy "C:\a b" E:\"`,
}

func TestSplitCommandLine(t *testing.T) {
	// Of MSDN, "Parsing C++ command-line arguments" and "CommandLineToArgvW".
	for _, c := range []struct {
		line string
		want []string
	}{
		{`x "abc" d e`, []string{"x", "abc", "d", "e"}},
		{`x a\\b d"e f"g h`, []string{"x", `a\\b`, "de fg", "h"}},
		{`x a\\\"b c d`, []string{"x", `a\"b`, "c", "d"}},
		{`x a\\\\"b c" d e`, []string{"x", `a\\b c`, "d", "e"}},
		{`"C:\Program Files\x.exe" -a`, []string{`C:\Program Files\x.exe`, "-a"}},
		{"", nil},
	} {
		if got := splitCommandLine(c.line); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
	if got := splitCommandLine("x" + strings.Repeat(" y", 3*maxArgs)); len(got) != maxArgs {
		t.Errorf("%d arguments", len(got))
	}
}

func FuzzSplitCommandLine(f *testing.F) {
	for _, l := range commandLines {
		f.Add(l)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := splitCommandLine(line)
		n := 0
		for _, a := range args {
			n += len(a)
		}
		if n > len(line) || len(args) > maxArgs || (len(args) == 0) != (line == "") {
			t.Errorf("%q: %q", line, args)
		}
	})
}

func TestIntegrityAndElevation(t *testing.T) {
	for sid, want := range map[string]string{"S-1-16-0": "untrusted", "S-1-16-4096": "low", "S-1-16-8192": "medium", "S-1-16-8448": "medium", "S-1-16-12288": "high", "S-1-16-16384": "system", "S-1-5-18": "", "": ""} {
		if got := integrityLevel(sid); got != want {
			t.Errorf("%q is %q, want %q", sid, got, want)
		}
	}
	for n, want := range []string{"", "default", "full", "limited", ""} {
		if got := elevationType(uint32(n)); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestStartOfAnOlderProcessHasNoYoungerParent(t *testing.T) {
	w := New(Options{})
	now := time.Now()
	w.procs.put(&proc{image: &image{pid: 10, ticks: 2000, entity: "e10", exe: `C:\later.exe`}})
	p := &proc{image: &image{pid: 11, ticks: 1000}, ppid: 10}
	w.adopt(p, 0)
	if p.parent != nil {
		t.Errorf("the parent is %+v, of %v", p.parent, now)
	}
	p.image.ticks = 3000
	w.adopt(p, 0)
	if p.parent == nil {
		t.Error("the parent is not found")
	}
}
