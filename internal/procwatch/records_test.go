package procwatch

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorded reads a record that a kernel (6.18) told of /bin/sh -c 'exit 3 ...'.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "ebpf", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBPFRecords(t *testing.T) {
	const pid, ppid, start = 13453, 13447, 12984106057530
	var r bpfRecord
	if err := parseBPF(recorded(t, "fork.bin"), &r); err != nil || r.kind != bpfFork || r.pid != pid || r.ppid != ppid || r.start != start || r.at != 12984106060681 {
		t.Errorf("fork: %+v, %v", r, err)
	}
	if err := parseBPF(recorded(t, "exit.bin"), &r); err != nil || r.kind != bpfExit || r.pid != pid || r.start != start || exitCode(r.status) != 3 {
		t.Errorf("exit: %+v, %v", r, err)
	}
	b := recorded(t, "exec.bin")
	if err := parseBPF(b, &r); err != nil || r.kind != bpfExec || r.flags != 0 || r.pid != pid || r.ppid != ppid || r.start != start {
		t.Errorf("exec: %+v, %v", r, err)
	}
	if r.uid != 0 || r.loginUID != noID || auditID(r.session) != "" || r.parentStart != 12984066184563 || r.cgroup != 1 {
		t.Errorf("exec: %+v", r)
	}
	for what, x := range map[string][2]string{
		"exe":       {string(appendPath(nil, r.exe)), "/usr/bin/dash"},
		"cwd":       {string(appendPath(nil, r.cwd)), "/usr/share/doc"},
		"arguments": {string(r.args), "/bin/sh\x00-c\x00exit 3 # \xff\n\x00犬\x00"},
		"comm":      {string(r.comm), "sh"},
		"cgroup":    {string(r.cgroupName), ""},
		"root":      {string(appendPath(nil, nil)), "/"},
	} {
		if x[0] != x[1] {
			t.Errorf("%s is %q, want %q", what, x[0], x[1])
		}
	}
	of := bytes.Clone(b)
	binary.LittleEndian.PutUint32(of[36:], 1000)
	binary.LittleEndian.PutUint32(of[56:], 1001)
	binary.LittleEndian.PutUint32(of[60:], 7)
	binary.LittleEndian.PutUint32(of[76:], 33)
	if err := parseBPF(of, &r); err != nil || r.uid != 1000 || r.loginUID != 1001 || auditID(r.session) != "7" || r.euid != 33 {
		t.Errorf("accounts: %+v, %v", r, err)
	}
	if int(r.argsTotal) != len(r.args) {
		t.Errorf("%d bytes of arguments of %d", len(r.args), r.argsTotal)
	}
	for i := range b {
		if err := parseBPF(b[:i], &r); err == nil {
			t.Errorf("a record cut at %d of %d bytes passes", i, len(b))
		}
	}
	for what, change := range map[string]func([]byte){
		"another kind":            func(b []byte) { b[0] = 9 },
		"no process":              func(b []byte) { clear(b[8:12]) },
		"a process below zero":    func(b []byte) { b[11] = 0x80 },
		"a path beyond its end":   func(b []byte) { b[3] = 0x10 },
		"args beyond its end":     func(b []byte) { b[7] = 0x10 },
		"a cgroup beyond its end": func(b []byte) { b[72], b[73] = 0xff, 0xff },
	} {
		bad := bytes.Clone(b)
		change(bad)
		if err := parseBPF(bad, &r); err == nil {
			t.Errorf("%s passes: %+v", what, r)
		}
	}
}

func FuzzBPFRecords(f *testing.F) {
	for _, name := range []string{"fork.bin", "exec.bin", "exit.bin"} {
		f.Add(recorded(f, name))
	}
	long := bytes.Clone(recorded(f, "exec.bin"))
	binary.LittleEndian.PutUint16(long[2:], 4096)
	f.Add(append(long, bytes.Repeat([]byte("a\x00"), 2100)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r bpfRecord
		if parseBPF(b, &r) != nil {
			return
		}
		if n := len(r.exe) + len(r.cwd) + len(r.args) + len(r.cgroupName); n > max(len(b)-bpfExecSize, 0) {
			t.Errorf("%d bytes out of %d", n, len(b))
		}
		for _, names := range [][]byte{r.exe, r.cwd} {
			p := appendPath(nil, names)
			if len(p) > len(names)+1 || p[0] != '/' || strings.Count(string(p), "\x00") > 0 && !bytes.Contains(names, []byte("\x00")) {
				t.Errorf("path %q of %q", p, names)
			}
		}
	})
}

func TestPathsAreKeptOnce(t *testing.T) {
	m := interned{}
	a := []byte("/usr/bin/true")
	m.of(a)
	if n := testing.AllocsPerRun(100, func() { m.of(a) }); n != 0 {
		t.Errorf("%v allocations for a path that is known", n)
	}
	for i := range 3 * maxInterned {
		m.of([]byte{byte(i), byte(i >> 8)})
	}
	if len(m) > maxInterned {
		t.Errorf("%d paths are kept", len(m))
	}
}

func BenchmarkBPFRecord(b *testing.B) {
	rec := recorded(b, "exec.bin")
	var r bpfRecord
	b.ReportAllocs()
	for b.Loop() {
		_ = parseBPF(rec, &r)
	}
}
