package fileaudit

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"
	"unicode/utf16"
)

// units makes little-endian UTF-16.
func units(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// entry makes an entry of a notification as winnt.h has it; ext one with what
// FILE_NOTIFY_EXTENDED_INFORMATION adds.
func entry(kind changeKind, name string) []byte {
	b := make([]byte, changeHeader)
	binary.LittleEndian.PutUint32(b[4:], uint32(kind))
	n := units(name)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(n)))
	return append(b, n...)
}

func ext(kind changeKind, name string, size, id uint64, attrs, tag uint32) []byte {
	le := binary.LittleEndian
	b := make([]byte, extendedHeader)
	le.PutUint32(b[4:], uint32(kind))
	le.PutUint64(b[8:], 133_500_000_000_000_000) // 2024-01-17 21:20:00 UTC
	le.PutUint64(b[40:], 1<<40)                  // allocated
	le.PutUint64(b[48:], size)
	le.PutUint32(b[56:], attrs)
	le.PutUint32(b[60:], tag)
	le.PutUint64(b[64:], id)
	le.PutUint64(b[72:], 5)
	n := units(name)
	le.PutUint32(b[80:], uint32(len(n)))
	return append(b, n...)
}

// chain puts entries one after the other, each at a multiple of the given size.
func chain(align int, all ...[]byte) (b []byte) {
	last := -1
	for _, e := range all {
		for len(b)%align != 0 {
			b = append(b, 0xcc)
		}
		if last >= 0 {
			binary.LittleEndian.PutUint32(b[last:], uint32(len(b)-last))
		}
		last = len(b)
		b = append(b, e...)
	}
	return b
}

func TestNotificationsOfChanges(t *testing.T) {
	tests := []struct {
		name     string
		b        []byte
		extended bool
		want     []string
	}{
		{"plain", chain(4, entry(changeAdded, `dir\名簿.xlsx`), entry(changeOldName, "a"), entry(changeNewName, "b"), entry(changeStreamModified, "b:s:$DATA")), false,
			[]string{`1 dir\名簿.xlsx 0 0 false false`, "4 a 0 0 false false", "5 b 0 0 false false", "8 b:s:$DATA 0 0 false false"}},
		{"extended", chain(8, ext(changeModified, "a.bin", 5<<30, 0x1000000000042, 0x20, 0), ext(changeAdded, "d", 0, 7, 0x10, 0), ext(changeAdded, "link", 0, 8, 0x410, 0xA000000C), ext(changeAdded, "cloud.docx", 9, 9, 0x400, 0x9000601A)), true,
			[]string{"3 a.bin 5368709120 281474976710722 false false", "1 d 0 7 true false", "1 link 0 8 true true", "1 cloud.docx 9 9 false false"}},
	}
	for _, tt := range tests {
		var got []string
		if err := parseChanges(tt.b, tt.extended, func(x change) {
			got = append(got, fmt.Sprint(x.kind, " ", x.name, " ", x.size, " ", x.id, " ", x.dir, " ", x.link))
			if want := time.Date(2024, 1, 17, 21, 20, 0, 0, time.UTC); tt.extended && !x.born.Equal(want) {
				t.Errorf("%s: made %v, want %v", tt.name, x.born.UTC(), want)
			}
		}); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q\nwant %q", tt.name, got, tt.want)
		}
	}
	good := chain(4, entry(changeAdded, "ab"), entry(changeAdded, "cd"))
	for name, b := range map[string][]byte{
		"cut in the header":       good[:10],
		"cut in the name":         good[:14],
		"cut in the second entry": good[:len(good)-1],
		"nothing":                 nil,
		"a step back":             append([]byte{4, 0, 0, 0}, good[4:]...),
	} {
		if err := parseChanges(b, false, func(change) {}); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestProcessesThatUseAFile(t *testing.T) {
	if got := parseUsers([]byte{2, 0, 0, 0, 0xcc, 0xcc, 0xcc, 0xcc, 4, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x27, 0, 0, 0, 0, 0, 0}, 8); !slices.Equal(got, []int{4, 10000}) {
		t.Errorf("got %v", got)
	}
	if got := parseUsers([]byte{1, 0, 0, 0, 0x10, 0x27, 0, 0}, 4); !slices.Equal(got, []int{10000}) {
		t.Errorf("got %v", got)
	}
	if got := parseUsers([]byte{255, 255, 255, 255, 0, 0, 0, 0, 1}, 8); got != nil {
		t.Errorf("got %v", got)
	}
}

func FuzzNotificationsOfChanges(f *testing.F) {
	f.Add(chain(4, entry(changeAdded, "a"), entry(changeOldName, "b"), entry(changeNewName, "c")), false)
	f.Add(chain(8, ext(changeModified, "a.bin", 5, 7, 0x20, 0), ext(changeRemoved, "d", 0, 7, 0x10, 0)), true)
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255}, false)
	f.Fuzz(func(t *testing.T, b []byte, extended bool) {
		n := 0
		_ = parseChanges(b, extended, func(x change) {
			if n++; x.size < 0 {
				t.Errorf("%+v", x)
			}
		})
		if n > len(b)/changeHeader {
			t.Errorf("%d entries in %d bytes", n, len(b))
		}
		if len(parseUsers(b, 8)) > len(b)/8 || len(parseUsers(b, 4)) > len(b)/4 {
			t.Error("more processes than there is room for")
		}
	})
}
