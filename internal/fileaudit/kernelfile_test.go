package fileaudit

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sekisho/internal/etw"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// payload builds the payload of an event: uint64 is a pointer, uint32 a win:UInt32,
// int64 a win:UInt64, string a win:UnicodeString.
func payload(pointer int, fields ...any) (b []byte) {
	le := binary.LittleEndian
	for _, f := range fields {
		switch x := f.(type) {
		case uint64:
			if pointer == 4 {
				b = le.AppendUint32(b, uint32(x))
			} else {
				b = le.AppendUint64(b, x)
			}
		case uint32:
			b = le.AppendUint32(b, x)
		case int64:
			b = le.AppendUint64(b, uint64(x))
		case string:
			b = append(append(b, units(x)...), 0, 0)
		}
	}
	return b
}

const (
	irp    = uint64(0xffffb00100000000)
	thread = uint32(77)
)

func fileEvent(id uint16, version uint8, pid uint32, fields ...any) *etw.Record {
	return &etw.Record{Provider: kernelFileProvider, ID: id, Version: version, PID: pid, PointerSize: 8, Time: time.Now(), Data: payload(8, fields...)}
}

// The events of version 1.
func evCreate(pid uint32, object uint64, disposition, options uint32, name string) *etw.Record {
	return fileEvent(fileCreate, 1, pid, irp, object, thread, disposition<<24|options, uint32(0x80), uint32(7), name)
}

func evIO(id uint16, pid uint32, object uint64, offset int64, size, flags uint32) *etw.Record {
	return fileEvent(id, 1, pid, offset, irp, object, uint64(9), thread, size, flags, uint32(0))
}

func evEnd(id uint16, pid uint32, object uint64) *etw.Record {
	return fileEvent(id, 1, pid, irp, object, uint64(9), thread)
}

func evPath(id uint16, pid uint32, object uint64, path string) *etw.Record {
	return fileEvent(id, 1, pid, irp, object, uint64(9), uint64(1), thread, uint32(10), path)
}

func TestFileEventsInBothVersionsAndWidths(t *testing.T) {
	const object = uint64(0x12345678)
	for _, pointer := range []int{4, 8} {
		for _, version := range []uint8{0, 1} {
			record := func(id uint16, v0, v1 []any) *etw.Record {
				f := v0
				if version == 1 {
					f = v1
				}
				return &etw.Record{Provider: kernelFileProvider, ID: id, Version: version, PointerSize: pointer, Data: payload(pointer, f...)}
			}
			o, options, name, err := parseCreate(record(fileCreate,
				[]any{irp, uint64(thread), object, uint32(0x05000060), uint32(0x80), uint32(3), `\Device\HarddiskVolume5\名簿.xlsx`},
				[]any{irp, object, thread, uint32(0x05000060), uint32(0x80), uint32(3), `\Device\HarddiskVolume5\名簿.xlsx`}))
			if err != nil || o != object || options != 0x05000060 || winpath.DecodeUTF16(name) != `\Device\HarddiskVolume5\名簿.xlsx` {
				t.Errorf("Create v%d, %d: %x %x %q %v", version, pointer, o, options, name, err)
			}
			o, end, flags, err := parseTransfer(record(fileWrite,
				[]any{int64(1 << 33), irp, uint64(thread), object, uint64(9), uint32(4096), uint32(0x60a00)},
				[]any{int64(1 << 33), irp, object, uint64(9), thread, uint32(4096), uint32(0x60a00), uint32(0)}))
			if err != nil || o != object || end != 1<<33+4096 || flags != 0x60a00 {
				t.Errorf("Write v%d, %d: %x %d %x %v", version, pointer, o, end, flags, err)
			}
			o, err = parseObject(record(fileClose, []any{irp, uint64(thread), object, uint64(9)}, []any{irp, object, uint64(9), thread}))
			if err != nil || o != object {
				t.Errorf("Close v%d, %d: %x %v", version, pointer, o, err)
			}
			o, path, err := parsePath(record(fileRename,
				[]any{irp, uint64(thread), object, uint64(9), uint64(0), uint32(10), `\Device\Mup\fs1\hr\b`},
				[]any{irp, object, uint64(9), uint64(0), thread, uint32(10), `\Device\Mup\fs1\hr\b`}))
			if err != nil || o != object || winpath.DecodeUTF16(path) != `\Device\Mup\fs1\hr\b` {
				t.Errorf("RenamePath v%d, %d: %x %q %v", version, pointer, o, path, err)
			}
		}
	}
	for _, r := range []*etw.Record{fileEvent(fileCreate, 1, 1, irp), fileEvent(fileClose, 1, 1), fileEvent(fileWrite, 0, 1, int64(1), irp), fileEvent(fileRename, 2, 1, irp, irp, irp, irp, thread, thread, "x")} {
		_, _, _, e1 := parseCreate(r)
		_, _, _, e2 := parseTransfer(r)
		_, e3 := parseObject(r)
		_, _, e4 := parsePath(r)
		for i, err := range []error{e1, e2, e4} {
			if err == nil && len(r.Data) < 24 {
				t.Errorf("%d: cut off at %d bytes and passes", i, len(r.Data))
			}
		}
		if r.Version > 1 && e3 == nil {
			t.Error("a version that is not known passes")
		}
	}
}

// someKernelFiles watches a stick E:, a protected folder on C:, a folder of a sync
// program there, and what is copied to C:.
func someKernelFiles() (k *kernelFiles, told *[]string) {
	told = new([]string)
	k = newKernelFiles(4242, func(r record) {
		s := fmt.Sprintf("%s %s %d by %d", [...]string{"wrote", "opened", "read", "renamed", "deleted"}[r.kind], r.path, r.size, r.pid)
		if r.kind == recRenamed {
			s = fmt.Sprintf("renamed %s -> %s by %d", r.from, r.path, r.pid)
		}
		if r.idle {
			s += " idle"
		}
		*told = append(*told, s)
	}, func(uint64) { *told = append(*told, "lost") })
	k.watch([]watchedVolume{
		{`\Device\HarddiskVolume3`, "C:", volume.Dev{Minor: 3}, wantCopies},
		{`\Device\HarddiskVolume5`, "E:", volume.Dev{Minor: 5}, wantWrites | wantNames},
	}, []watchedFolder{{`C:\人事`, wantWrites | wantReads | wantNames}, {`C:\Users\taro\OneDrive`, wantWrites | wantReads | wantNames}, {`C:\pay\one.txt`, wantReads}})
	return k, told
}

func TestEventsOfFilesBecomeRecords(t *testing.T) {
	const c, e, share = `\Device\HarddiskVolume3`, `\Device\HarddiskVolume5`, `\Device\Mup\fs1\hr`
	const a, b = uint64(0xa000), uint64(0xb000)
	const open, create, openIf, overwriteIf = 1, 2, 3, 5
	tests := []struct {
		name   string
		events []*etw.Record
		want   []string
	}{
		{"a copy from a share to a stick", []*etw.Record{
			evCreate(9, a, open, 0x60, share+`\list.xlsx`), evIO(fileRead, 9, a, 0, 4096, 0),
			evCreate(9, b, overwriteIf, 0x60, e+`\list.xlsx`), evIO(fileRead, 9, a, 4096, 904, 0), evIO(fileWrite, 9, b, 0, 5000, 0),
			evEnd(fileCleanup, 9, b), evEnd(fileCleanup, 9, a), evEnd(fileClose, 9, b), evEnd(fileClose, 9, a),
		}, []string{`opened \\fs1\hr\list.xlsx -1 by 9`, `wrote E:\list.xlsx 5000 by 9`, `read \\fs1\hr\list.xlsx 5000 by 9`}},
		{"what the memory manager writes later is the same once more", []*etw.Record{
			evCreate(9, b, create, 0x60, e+`\a`), evIO(fileWrite, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b), evIO(fileWrite, 4, b, 0, 4096, 0x43), evEnd(fileClose, 4, b),
		}, []string{`wrote E:\a 10 by 9`}},
		{"written by a memory map only", []*etw.Record{
			evCreate(9, b, create, 0x60, e+`\a`), evEnd(fileCleanup, 9, b), evIO(fileWrite, 4, b, 0, 4096, 0x43), evEnd(fileClose, 4, b),
		}, []string{`wrote E:\a 0 by 9`, `wrote E:\a 4096 by 9`}},
		{"opened to look, on a stick and elsewhere", []*etw.Record{
			evCreate(9, a, open, 0x60, e+`\a`), evIO(fileRead, 9, a, 0, 10, 0), evEnd(fileCleanup, 9, a), evEnd(fileClose, 9, a),
			evCreate(9, b, open, 0x60, c+`\Windows\x.dll`), evIO(fileRead, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b), evEnd(fileClose, 9, b),
		}, nil},
		{"a stick's file opened and written to", []*etw.Record{
			evCreate(9, a, openIf, 0x60, e+`\a`), evEnd(fileCleanup, 9, a), evEnd(fileClose, 9, a), // nothing was written
			evCreate(9, a, open, 0x60, e+`\b`), evIO(fileWrite, 9, a, 100, 10, 0), evEnd(fileCleanup, 9, a),
		}, []string{`wrote E:\b 110 by 9`}},
		{"a protected folder in other letters", []*etw.Record{
			evCreate(9, a, open, 0x60, `\DEVICE\HARDDISKVOLUME3\人事\A.txt`), evIO(fileRead, 9, a, 0, 10, 0), evEnd(fileCleanup, 9, a),
			evCreate(9, b, open, 0x60, c+`\人事部\A.txt`), evIO(fileRead, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b),
		}, []string{`opened C:\人事\A.txt -1 by 9`, `read C:\人事\A.txt 10 by 9`}},
		{"what is made on a local disk, while nothing is read", []*etw.Record{
			evCreate(9, a, create, 0x60, c+`\Users\taro\x.tmp`), evIO(fileWrite, 9, a, 0, 10, 0), evEnd(fileCleanup, 9, a),
			evCreate(9, b, open, 0x60, c+`\Users\taro\log.txt`), evIO(fileWrite, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b),
		}, []string{`wrote C:\Users\taro\x.tmp 10 by 9 idle`}},
		{"a rename out of a protected folder", []*etw.Record{
			evCreate(9, a, open, 0x200000, c+`\人事\A.txt`), evPath(fileRename, 9, a, c+`\Users\taro\B.txt`), evEnd(fileCleanup, 9, a), evEnd(fileClose, 9, a),
		}, []string{`renamed C:\人事\A.txt -> C:\Users\taro\B.txt by 9`}},
		{"a rename on a stick of a file that was open before", []*etw.Record{evPath(fileRename, 9, a, e+`\new`)}, []string{`renamed  -> E:\new by 9`}},
		{"a deletion is one when the file is closed", []*etw.Record{
			evCreate(9, a, open, 0x200000, e+`\A.txt`), evPath(fileDelete, 9, a, e+`\A.txt`), evEnd(fileCleanup, 9, a), evEnd(fileClose, 9, a),
			evCreate(9, b, create, 0x1000, e+`\temp`), evIO(fileWrite, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b), evEnd(fileClose, 9, b),
		}, []string{`deleted E:\A.txt -1 by 9`, `deleted E:\temp -1 by 9`}},
		{"pipes of a server, file ids and other programs", []*etw.Record{
			evCreate(9, a, open, 0x60, `\Device\Mup\fs1\IPC$\srvsvc`), evIO(fileRead, 9, a, 0, 10, 0),
			evCreate(9, b, open, 0x2060, e+`\`+"\x01\x02\x03\x04"), evIO(fileWrite, 9, b, 0, 10, 0), evEnd(fileCleanup, 9, b),
			evCreate(4242, b, create, 0x60, e+`\ours`), evIO(fileWrite, 4242, b, 0, 10, 0), evEnd(fileCleanup, 4242, b),
		}, nil},
		{"a mapped drive of a user", []*etw.Record{
			evCreate(9, a, open, 0x60, `\Device\Mup\;LanmanRedirector\;Z:00000000000a1b2c\fs1\hr\a`), evIO(fileRead, 9, a, 0, 10, 0),
		}, []string{`opened \\fs1\hr\a -1 by 9`}},
		{"a protected file, its streams and what begins like it", []*etw.Record{
			evCreate(9, a, open, 0x60, c+`\PAY\one.txt`), evIO(fileRead, 9, a, 0, 10, 0),
			evCreate(9, a, open, 0x60, c+`\pay\one.txt:s`), evIO(fileRead, 9, a, 0, 10, 0),
			evCreate(9, b, open, 0x60, c+`\pay\one.txt.bak`), evIO(fileRead, 9, b, 0, 10, 0),
		}, []string{`opened C:\PAY\one.txt -1 by 9`, `opened C:\pay\one.txt:s -1 by 9`}},
		{"a stream of a file on a stick", []*etw.Record{
			evCreate(9, a, create, 0x60, e+`\a.txt:secret:$DATA`), evIO(fileWrite, 9, a, 0, 10, 0), evEnd(fileCleanup, 9, a),
		}, []string{`wrote E:\a.txt:secret 10 by 9`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, told := someKernelFiles()
			for _, r := range tt.events {
				k.event(r)
			}
			if !slices.Equal(*told, tt.want) {
				t.Errorf("got  %q\nwant %q", *told, tt.want)
			}
			if n := k.strange.Load(); n != 0 {
				t.Errorf("%d events are not understood", n)
			}
		})
	}
}

func TestFilesThatHoldSomethingAreFollowedByTheirPaths(t *testing.T) {
	k, told := someKernelFiles()
	id := fileKey{volume.Dev{Minor: 3}, 77}
	read := func(path string) {
		k.event(evCreate(9, 0xa000, 1, 0x60, `\Device\HarddiskVolume3\`+path))
		k.event(evIO(fileRead, 9, 0xa000, 0, 10, 0))
		k.event(evEnd(fileCleanup, 9, 0xa000))
		k.event(evEnd(fileClose, 9, 0xa000))
	}
	k.follow(`C:\tmp\写し.zip`, id)
	read(`TMP\写し.ZIP`)
	read(`tmp\other.zip`)
	k.event(evCreate(9, 0xb000, 1, 0, `\Device\HarddiskVolume3\tmp\写し.zip`))
	k.event(evPath(fileRename, 9, 0xb000, `\Device\HarddiskVolume3\tmp\b.zip`))
	read(`tmp\b.zip`)
	k.unfollow(`C:\tmp\写し.zip`, id) // by the path that core knows
	read(`tmp\b.zip`)
	want := []string{`opened C:\TMP\写し.ZIP -1 by 9`, `read C:\TMP\写し.ZIP 10 by 9`, `renamed C:\tmp\写し.zip -> C:\tmp\b.zip by 9`, `opened C:\tmp\b.zip -1 by 9`, `read C:\tmp\b.zip 10 by 9`}
	if !slices.Equal(*told, want) {
		t.Errorf("got  %q\nwant %q", *told, want)
	}
	if k.some.Load() {
		t.Error("something is followed still")
	}
}

func TestOpenFilesAreBounded(t *testing.T) {
	k, told := someKernelFiles()
	for i := range maxOpenFiles + 10 { // of openings that failed nothing more is told
		r := evCreate(9, uint64(i)<<8, 1, 0x60, `\Device\Mup\fs1\hr\none`)
		r.Time = time.Unix(int64(i/100), 0)
		k.event(r)
	}
	if len(k.open) > maxOpenFiles || len(*told) != 0 {
		t.Errorf("%d are open, told %q", len(k.open), *told)
	}
	for i := range maxOpenFiles + 10 {
		k.event(evCreate(9, uint64(i)<<8|1, 2, 0x60, `\Device\HarddiskVolume5\a`))
		k.event(evIO(fileWrite, 9, uint64(i)<<8|1, 0, 1, 0))
	}
	if len(k.open) > maxOpenFiles || len(*told) == 0 || strings.Trim(strings.Join(*told, ""), "lost") != "" {
		t.Errorf("%d are open, told %q", len(k.open), *told)
	}
}

func TestEventsThatAreOfNoUseAreNoticed(t *testing.T) {
	good := evCreate(9, 1, 1, 0, `\Device\HarddiskVolume3\a`)
	for _, tt := range []struct {
		name  string
		event *etw.Record
		times int
		want  bool
	}{
		{"none at all", nil, 0, true},
		{"as expected", good, 10, false},
		{"another version", fileEvent(fileCreate, 2, 9, irp), 1000, true},
		{"cut off", fileEvent(fileClose, 1, 9, irp), 1000, true},
		{"of ours only", &etw.Record{Provider: kernelFileProvider, ID: fileRead, PID: 4242}, 10, false},
		{"other names", evCreate(9, 1, 1, 0, `C:\Windows\System32\a`), maxUnnamed + 1, true},
	} {
		k, _ := someKernelFiles()
		for range tt.times {
			k.event(tt.event)
		}
		if got := k.trouble(); (got != "") != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

func FuzzFileEvents(f *testing.F) {
	for _, r := range []*etw.Record{
		evCreate(9, 0xa000, 2, 0x60, `\Device\HarddiskVolume5\a`), evIO(fileWrite, 9, 0xa000, -1, 10, 0), evEnd(fileCleanup, 9, 0xa000), evEnd(fileClose, 9, 0xa000),
		evPath(fileRename, 9, 0xa000, `\Device\Mup\fs1\hr\b`), evPath(fileDelete, 9, 0xa000, `\Device\HarddiskVolume5`), evCreate(9, 1, 1, 0, `\Device\`),
	} {
		f.Add(r.ID, r.Version, true, r.Data)
	}
	f.Fuzz(func(t *testing.T, id uint16, version uint8, wide bool, data []byte) {
		k, told := someKernelFiles()
		k.follow(`C:\a`, fileKey{ino: 1})
		k.event(evCreate(9, 0xa000, 2, 0x60, `\Device\HarddiskVolume5\a`))
		r := &etw.Record{Provider: kernelFileProvider, ID: id, Version: version, PID: 9, PointerSize: 4, Data: data}
		if wide {
			r.PointerSize = 8
		}
		k.event(r)
		k.event(evEnd(fileClose, 9, 0xa000))
		if len(*told) > 3 {
			t.Errorf("told %q", *told)
		}
	})
}

// What is dropped: nearly all that happens on a PC.
func BenchmarkFileEventsDropped(b *testing.B) {
	k, _ := someKernelFiles()
	for name, r := range map[string]*etw.Record{
		"open":        evCreate(9, 0xa000, 1, 0x60, `\Device\HarddiskVolume3\Windows\System32\drivers\etc\hosts`),
		"make":        evCreate(9, 0xa000, 2, 0x60, `\Device\HarddiskVolume8\Users\taro\AppData\Local\Temp\x.tmp`),
		"read":        evIO(fileRead, 9, 0xa000, 0, 4096, 0),
		"close":       evEnd(fileClose, 9, 0xa000),
		"other event": fileEvent(22, 1, 9, irp, irp, irp, irp, thread, thread),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				k.event(r)
			}
		})
	}
	b.Run("open, while a file is followed", func(b *testing.B) {
		k.follow(`C:\a`, fileKey{ino: 1})
		r := evCreate(9, 0xa000, 1, 0x60, `\Device\HarddiskVolume3\Windows\System32\drivers\etc\hosts`)
		b.ReportAllocs()
		for b.Loop() {
			k.event(r)
		}
	})
}
