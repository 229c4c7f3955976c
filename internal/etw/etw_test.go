package etw

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"sekisho/internal/guid"
)

// header is an EVENT_HEADER by the layout of evntcons.h, written field by field.
func header(flags uint16) []byte {
	var b []byte
	le := binary.LittleEndian
	b = le.AppendUint16(b, 0x0180)                  // Size, of the whole event
	b = le.AppendUint16(b, 0)                       // HeaderType
	b = le.AppendUint16(b, flags)                   // Flags
	b = le.AppendUint16(b, 0)                       // EventProperty
	b = le.AppendUint32(b, 7788)                    // ThreadId
	b = le.AppendUint32(b, 4120)                    // ProcessId
	b = le.AppendUint64(b, 133_775_928_001_234_567) // TimeStamp: 2024-12-02 06:00:00.1234567
	b = append(b, 0xd6, 0x2c, 0xfb, 0x22, 0x7b, 0x0e, 0x2b, 0x42, 0xa0, 0xc7, 0x2f, 0xad, 0x1f, 0xd0, 0xe7, 0x16)
	b = le.AppendUint16(b, 1)                  // EventDescriptor.Id
	b = append(b, 3, 16, 4, 1)                 // Version, Channel, Level, Opcode
	b = le.AppendUint16(b, 1)                  // Task
	b = le.AppendUint64(b, 0x8000000000000010) // Keyword
	b = le.AppendUint64(b, 0x0000000200000003) // ProcessorTime
	return append(b, make([]byte, 16)...)      // ActivityId
}

func TestHeader(t *testing.T) {
	data := []byte{1, 2, 3}
	var r Record
	if err := parseHeader(header(0x40|0x01), data, &r); err != nil {
		t.Fatal(err)
	}
	switch {
	case r.Provider != guid.Must("{22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}"):
		t.Errorf("provider is %v", r.Provider)
	case r.ID != 1 || r.Version != 3:
		t.Errorf("event is %d version %d", r.ID, r.Version)
	case r.PID != 4120:
		t.Errorf("it is from process %d", r.PID)
	case !r.Time.Equal(time.Date(2024, 12, 2, 6, 0, 0, 123_456_700, time.UTC)):
		t.Errorf("time is %v", r.Time)
	case r.PointerSize != 8 || !bytes.Equal(r.Data, data):
		t.Errorf("pointers have %d bytes, data is %v", r.PointerSize, r.Data)
	}
	if err := parseHeader(header(0x20), data, &r); err != nil || r.PointerSize != 4 {
		t.Errorf("a 32-bit teller's pointers have %d bytes (%v)", r.PointerSize, err)
	}
	if err := parseHeader(header(0x100), data, &r); err != nil || r.ID != 0 {
		t.Errorf("an event of the old kind has the id %d (%v)", r.ID, err)
	}
	for n := range headerSize {
		if err := parseHeader(header(0)[:n], nil, &r); err == nil {
			t.Fatalf("a header of %d bytes is taken", n)
		}
	}
}

func TestReader(t *testing.T) {
	data := []byte{
		7, 0x34, 0x12, // passed over
		0x78, 0x56, 0x34, 0x12,
		8, 7, 6, 5, 4, 3, 2, 1,
		0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x22, 0x22, // pointer
		0x07, 0xd2, 0x2f, 0x8b, 0x83, 0x43, 0xdb, 0x01, // FILETIME
		1, 1, 0, 0, 0, 0, 0, 16, 0, 0x20, 0, 0, // S-1-16-8192
		'C', 0, ':', 0, '\\', 0, 0x42, 0x30, 0x3d, 0xd8, 0x00, 0xde, 0x00, 0xd8, 'x', 0, 0, 0, // あ is U+3042; a pair; half of one
		'e', 0, 'n', 0, 'd', 0, 'x', // ended by the payload, odd
	}
	r := NewReader(data, 8)
	r.Skip(3)
	if got := r.U32(); got != 0x12345678 {
		t.Errorf("U32 is %#x", got)
	}
	if got := r.U64(); got != 0x0102030405060708 {
		t.Errorf("U64 is %#x", got)
	}
	if got := r.Pointer(); got != 0x2222222211111111 {
		t.Errorf("Pointer is %#x", got)
	}
	if got, want := r.FileTime(), FileTime(binary.LittleEndian.Uint64(data[23:])); !got.Equal(want) || got.Year() != 2024 {
		t.Errorf("FileTime is %v, want %v", got, want)
	}
	if got := r.SID(); got != "S-1-16-8192" {
		t.Errorf("SID is %q", got)
	}
	if got, want := r.UTF16(), "C:\\あ\U0001F600\uFFFDx"; got != want {
		t.Errorf("UTF16 is %q, want %q", got, want)
	}
	if got := r.UTF16(); got != "end" {
		t.Errorf("UTF16 without its end is %q", got)
	}
	if r.Err() != nil || r.Len() != 0 {
		t.Errorf("%d bytes are left (%v)", r.Len(), r.Err())
	}
	if r.U32() != 0 || r.UTF16() != "" || r.SID() != "" || r.Err() != ErrShort {
		t.Errorf("behind the end there is something (%v)", r.Err())
	}

	r = NewReader(data[15:], 4)
	if got := r.Pointer(); got != 0x11111111 {
		t.Errorf("a pointer of 4 bytes is %#x", got)
	}
}

func TestReaderThatIsShortStaysShort(t *testing.T) {
	r := NewReader([]byte{1, 2, 3}, 8)
	if r.U32() != 0 || r.U64() != 0 || r.RawUTF16() != nil || r.Err() != ErrShort {
		t.Error("what follows a field that is cut off is read all the same")
	}
}

func TestSID(t *testing.T) {
	for _, c := range []struct{ hex, want string }{
		{"010100000000000512000000", "S-1-5-18"},
		{"010500000000000515000000dcf4dc3b833d2b46828ba62854040000", "S-1-5-21-1004336348-1177238915-682003330-1108"},
		{"0101ffffffffffff01000000", "S-1-0xffffffffffff-1"},
		{"0100000000000000", "S-1-0"},
		{"0201000000000005", ""},
		{"010100000000000512", ""},
		{"0110000000000005" + strings.Repeat("00000000", 16), ""},
		{"", ""},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := sid(b); got != c.want {
			t.Errorf("%s is %q, want %q", c.hex, got, c.want)
		}
	}
}

func TestFileTime(t *testing.T) {
	if got := FileTime(0); !got.IsZero() {
		t.Errorf("0 is %v", got)
	}
	if got := FileTime(116_444_736_000_000_001); got.UnixNano() != 100 {
		t.Errorf("100 ns after 1970 is %v", got)
	}
	_ = FileTime(1<<64 - 1).String()
}

func FuzzHeader(f *testing.F) {
	f.Add(header(0x40), []byte{1})
	f.Add(header(0x120), []byte{})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, b, data []byte) {
		var r Record
		if parseHeader(b, data, &r) == nil && r.PointerSize != 4 && r.PointerSize != 8 {
			t.Errorf("pointers have %d bytes", r.PointerSize)
		}
		_ = r.Time.String()
	})
}

// FuzzReader has a payload read by a list of fields.
func FuzzReader(f *testing.F) {
	f.Add([]byte("\x01\x01\x00\x00\x00\x00\x00\x10\x00\x20\x00\x00a\x00\x00\x00b\x00"), []byte{4, 5, 6, 7}, false)
	f.Add([]byte{}, []byte{0, 1, 2, 3, 4, 5}, true)
	f.Fuzz(func(t *testing.T, data, fields []byte, wide bool) {
		r := NewReader(data, 4)
		if wide {
			r = NewReader(data, 8)
		}
		for _, k := range fields {
			before := r.Len()
			text := ""
			switch k % 8 {
			case 0:
				r.U32()
			case 1:
				r.U64()
			case 2:
				r.Pointer()
			case 3:
				r.FileTime()
			case 4:
				text = r.SID()
			case 5:
				text = r.UTF16()
			case 6:
				r.Skip(int(k))
			case 7:
				r.RawUTF16()
			}
			if r.Len() > before || len(text) > 4*before+64 {
				t.Fatalf("field %d: %d bytes are left of %d, text has %d", k, r.Len(), before, len(text))
			}
			if strings.ToValidUTF8(text, "") != text {
				t.Fatalf("field %d: %q is no UTF-8", k, text)
			}
		}
	})
}

func BenchmarkHeaderAndPath(b *testing.B) {
	h := header(0x40)
	var data []byte
	for _, c := range `\Device\HarddiskVolume3\Program Files\Example\Tool\example-tool.exe` {
		data = binary.LittleEndian.AppendUint16(data, uint16(c))
	}
	data = append(data, 0, 0)
	b.ReportAllocs()
	for b.Loop() {
		var r Record
		if err := parseHeader(h, data, &r); err != nil {
			b.Fatal(err)
		}
		x := r.Reader()
		if x.UTF16() == "" {
			b.Fatal("no path")
		}
	}
}

// TestFastWaysOfTextAreRight compares with what is done letter by letter.
func TestFastWaysOfTextAreRight(t *testing.T) {
	for _, text := range []string{"", "a", "abc", "abcd", "abcde", "abcdefgh", "abcdefg\u3042hijk", "\u3042\u3043\u3044\u3045\u3046", "abc\U0001F600defghijk", "\u0100\u0200\u8000\u7fff\u0080abcd"} {
		for pad := range 9 {
			var data []byte
			for _, c := range utf16.Encode([]rune(text)) {
				data = binary.LittleEndian.AppendUint16(data, c)
			}
			want := len(data)
			data = append(append(data, 0, 0), bytes.Repeat([]byte{'x', 0}, pad)...)
			r := NewReader(data, 8)
			if raw := r.RawUTF16(); len(raw) != want || r.Len() != 2*pad {
				t.Errorf("%q with %d behind it: %d bytes, %d left", text, pad, len(raw), r.Len())
			}
			if got := DecodeUTF16(data[:want]); got != text {
				t.Errorf("%q becomes %q", text, got)
			}
		}
	}
}
