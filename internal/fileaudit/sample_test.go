package fileaudit

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"sekisho/internal/event"
)

// zipEntry is a local header and the data of an entry.
func zipEntry(name string, flags uint16, data string) string {
	b := make([]byte, 30)
	copy(b, "PK\x03\x04")
	le := binary.LittleEndian
	le.PutUint16(b[6:], flags)
	le.PutUint32(b[18:], uint32(len(data)))
	le.PutUint16(b[26:], uint16(len(name)))
	return string(b) + name + data
}

// zipCentral is an entry's header in the directory at the end.
func zipCentral(name string, flags uint16) string {
	b := make([]byte, 46)
	copy(b, "PK\x01\x02")
	le := binary.LittleEndian
	le.PutUint16(b[8:], flags)
	le.PutUint16(b[28:], uint16(len(name)))
	return string(b) + name
}

// sevenZip is a file of 7z with some data before a header.
func sevenZip(data, header string) string {
	b := make([]byte, 32)
	copy(b, "7z\xbc\xaf\x27\x1c\x00\x04")
	binary.LittleEndian.PutUint64(b[12:], uint64(len(data)))
	binary.LittleEndian.PutUint64(b[20:], uint64(len(header)))
	return string(b) + data + header
}

var sniffs = []struct {
	name, file string
	archive    bool
	encrypted  event.Opt[bool]
}{
	{"text", "hello", false, event.Opt[bool]{}},
	{"empty", "", false, event.Opt[bool]{}},
	{"zip", zipEntry("a.txt", 0, "data"), true, event.Some(false)},
	{"zip, encrypted", zipEntry("a.txt", 1, "data"), true, event.Some(true)},
	{"zip, encrypted after a folder", zipEntry("d/", 0, "") + zipEntry("d/a.txt", 9, "data"), true, event.Some(true)},
	{"zip with a folder only", zipEntry("d/", 0, ""), true, event.Opt[bool]{}},
	{"zip, told by the directory", zipEntry("d/", 8, strings.Repeat("x", 300)) + zipCentral("d/", 0) + zipCentral("d/b", 1), true, event.Some(true)},
	{"zip with nonsense", "PK\x03\x04" + strings.Repeat("\xff", 200), true, event.Some(true)},
	{"zip, cut", "PK\x03\x04", true, event.Opt[bool]{}},
	{"docx", zipEntry("[Content_Types].xml", 0, "x"), false, event.Opt[bool]{}},
	{"odt", zipEntry("mimetype", 0, "x"), false, event.Opt[bool]{}},
	{"7z", sevenZip("data", "\x01\x04\x06"), true, event.Some(false)},
	{"7z, packed header", sevenZip("data", "\x17\x06\x00"), true, event.Opt[bool]{}},
	{"7z, encrypted header", sevenZip("data", "\x17\x06\x24\x06\xf1\x07\x01"), true, event.Some(true)},
	{"7z that lies", "7z\xbc\xaf\x27\x1c\x00\x04\x00\x00\x00\x00" + strings.Repeat("\xff", 30), true, event.Opt[bool]{}},
	{"rar 5", "Rar!\x1a\x07\x01\x00\x01\x02\x03\x04\x0a\x01\x05", true, event.Opt[bool]{}},
	{"rar 5, encrypted names", "Rar!\x1a\x07\x01\x00\x01\x02\x03\x04\x21\x04\x00", true, event.Some(true)},
	{"rar 4, encrypted names", "Rar!\x1a\x07\x00\xce\x99\x73\x80\x00", true, event.Some(true)},
	{"gzip", "\x1f\x8b\x08\x00", true, event.Some(false)},
	{"xz", "\xfd7zXZ\x00\x00", true, event.Some(false)},
	{"zstd", "\x28\xb5\x2f\xfd\x00", true, event.Some(false)},
	{"tar", strings.Repeat("\x00", 257) + "ustar\x0000", true, event.Some(false)},
	{"openssl", "Salted__12345678", true, event.Some(true)},
	{"age", "age-encryption.org/v1\n", true, event.Some(true)},
}

func TestArchivesAreKnownByTheirBytes(t *testing.T) {
	for _, tt := range sniffs {
		t.Run(tt.name, func(t *testing.T) {
			archive, encrypted := sniff([]byte(tt.file), []byte(tt.file), int64(len(tt.file)))
			if archive != tt.archive || encrypted != tt.encrypted {
				t.Errorf("got %v %+v, want %v %+v", archive, encrypted, tt.archive, tt.encrypted)
			}
		})
	}
}

func FuzzSniff(f *testing.F) {
	for _, tt := range sniffs {
		f.Add([]byte(tt.file), []byte(tt.file), int64(len(tt.file)))
	}
	f.Add([]byte(sevenZip("", "")), []byte{1}, int64(1)<<62)
	f.Fuzz(func(t *testing.T, head, tail []byte, size int64) {
		archive, encrypted := sniff(head, tail, size)
		if !archive && encrypted.OK {
			t.Error("encrypted, and no archive")
		}
	})
}

func TestEncryptionByArguments(t *testing.T) {
	for args, want := range map[string]event.Opt[bool]{
		"7z a -psecret x.7z d": event.Some(true),
		"7z a -mhe x.7z d":     event.Some(false),
		"7z a -- x.7z -p":      event.Some(false),
		"rar a -hpx y.rar d":   event.Some(true),
		"gpg -c x":             event.Some(true),
		"zip x y":              {},
		"7z":                   event.Some(false),
	} {
		f := strings.Fields(args)
		if got := encrypts(f[0], f); got != want {
			t.Errorf("%s: got %+v, want %+v", args, got, want)
		}
	}
	if got := encrypts("7z", nil); got.OK {
		t.Errorf("without arguments: %+v", got)
	}
}

func TestSamplesTellContentsApart(t *testing.T) {
	var s sampler
	now := time.Unix(1000, 0)
	sum := func(b []byte) uint64 {
		t.Helper()
		x, ok := s.take(bytes.NewReader(b), int64(len(b)), now)
		if !ok || x.sum == 0 || x.size != int64(len(b)) {
			t.Fatalf("%d bytes: %+v, %v", len(b), x, ok)
		}
		return x.sum
	}
	for _, n := range []int{1, 64, sampleBlock, 3*sampleBlock - 1, 3 * sampleBlock, 3*sampleBlock + 1, 1 << 20} {
		b := make([]byte, n)
		whole := sum(b)
		for _, at := range []int{0, n / 2, n - 1} {
			b[at] = 1
			if sum(b) == whole {
				t.Errorf("%d bytes: a change at %d is not seen", n, at)
			}
			b[at] = 0
		}
		if sum(b) != whole {
			t.Errorf("%d bytes: one content has two sums", n)
		}
	}
	if _, ok := s.take(bytes.NewReader(nil), 100, now); ok {
		t.Error("a file that was cut short has a sample")
	}
	now = now.Add(time.Second)
	n := 0
	for range 3 * maxSamples {
		if _, ok := s.take(strings.NewReader("x"), 1, now); ok {
			n++
		}
	}
	if n != maxSamples {
		t.Errorf("%d samples in a second, want %d", n, maxSamples)
	}
}

func BenchmarkSample(b *testing.B) {
	data := bytes.NewReader(make([]byte, 1<<20))
	var s sampler
	now := time.Unix(1000, 0)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		if _, ok := s.take(data, 1<<20, now); !ok {
			b.Fatal("no sample")
		}
	}
}
