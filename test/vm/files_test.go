package vm_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// howMany is a number that the environment gives, or few.
func howMany(t *testing.T, variable string, few int) int {
	s := os.Getenv(variable)
	if s == "" {
		return few
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of them", variable, s)
	}
	return n
}

// writePapers writes the 80 files of a share, of many sizes.
func writePapers(t *testing.T, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 80 {
		b := make([]byte, 300*(i+1))
		_, _ = rand.Read(b)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("名簿 %02d.csv", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// copiedToAStick checks the 80 copies to the exFAT stick, and what is particular to a share.
func copiedToAStick(t *testing.T, events []told, particular map[string]string) {
	seen := map[string]bool{}
	for _, e := range events {
		name, ok := strings.CutPrefix(e.str("file.path"), "/mnt/ex/名簿 ")
		if !ok {
			continue
		}
		seen[name] = true
		want := map[string]string{
			"event.action": "file-copied", "user.name": "user",
			"sekisho.source.path": "/mnt/hr/papers/名簿 " + name, "sekisho.source.protected": "人事",
			"sekisho.source.volume_kind": "network", "sekisho.copy.evidence": "same-process", "sekisho.copy.confidence": "high",
			"sekisho.file.volume_kind": "removable", "volume.file_system_type": "exfat", "volume.serial_number": "EX-0001",
		}
		maps.Copy(want, particular)
		for field, want := range want {
			if got := e.str(field); got != want {
				t.Errorf("%s: %s: got %q, want %q", name, field, got, want)
			}
		}
	}
	if len(seen) != 80 {
		t.Errorf("%d files are told, want 80", len(seen))
	}
}

// toldOfFiles returns the events of a run, and logs which rules alerted how often.
func toldOfFiles(t *testing.T, dir string) []told {
	events, alerts := readTold(t, filepath.Join(dir, "tee.jsonl"))
	rules := map[string]int{}
	for _, a := range alerts {
		rules[a.str("sekisho.rule")]++
	}
	t.Logf("alerts by rule: %v", rules)
	return events
}

// below is what was told of files written in a folder: how many files and bytes, by how many events.
func below(t *testing.T, events []told, folder string) (files, bytes, told float64) {
	for _, e := range events {
		if !strings.HasPrefix(e.str("file.path"), folder+"/") {
			continue
		}
		switch e.str("event.action") {
		case "file-copied":
			files += e.num("sekisho.copy.files")
			bytes += e.num("sekisho.copy.bytes")
		case "file-written":
			files++
			bytes += e.num("file.size")
		default:
			t.Errorf("unexpected %s of %s", e.str("event.action"), e.str("file.path"))
		}
		told++
	}
	return files, bytes, told
}

// floods compares what a scenario says of its floods with what was told of them; at is where each file system was.
func floods(t *testing.T, events []told, file string, at map[string]string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(b)) {
		var fs string
		var count, ms, ticks float64
		if _, err := fmt.Sscan(line, &fs, &count, &ms, &ticks); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seen++
		t.Run("a flood on "+fs, func(t *testing.T) {
			files, bytes, told := below(t, events, at[fs]+"/flood")
			t.Logf("%.0f files in %.1f s, %.0f told by %.0f events, the whole agent's CPU in the emulated guest %.2f ms a file",
				count, ms/1000, files, told, ticks*10/count)
			if files != count || bytes != 20*count {
				t.Errorf("%.0f files, %.0f bytes, want %.0f, %.0f", files, bytes, count, 20*count)
			}
		})
	}
	if seen != len(at) {
		t.Errorf("%d floods, want %d", seen, len(at))
	}
}

// TestCopiesOnFileSystemsOfSticksAndShares needs samba on the host, as --share does. SEKISHO_VM_FILES is how many files each
// flood has, SEKISHO_VM_FLOODS which there are (hr: SMB).
func TestCopiesOnFileSystemsOfSticksAndShares(t *testing.T) {
	if _, err := exec.LookPath("smbd"); err != nil {
		t.Skip("no smbd (test/vm/setup --smb-host)")
	}
	n := howMany(t, "SEKISHO_VM_FILES", 200)
	at := map[string]string{"ex": "/mnt/ex", "fat": "/mnt/fat", "hr": "/mnt/hr"}
	if one := os.Getenv("SEKISHO_VM_FLOODS"); one != "" {
		maps.DeleteFunc(at, func(fs, _ string) bool { return !slices.Contains(strings.Fields(one), fs) })
	}
	agent, err := filepath.Abs("../../bin/static/sekisho-agent")
	if err != nil {
		t.Fatal(err)
	}
	share := t.TempDir()
	writePapers(t, filepath.Join(share, "papers"))
	dir, _ := run(t, "--exe", agent+":/usr/bin/sekisho-agent", "--put", "scenarios/files.agent.yaml:/etc/agent.yaml", "--share", share,
		"--stick", "name=EX,size=256M,fs=exfat,serial=EX-0001", "--stick", "name=FAT,size=256M,fs=vfat,serial=FAT-0001",
		"--env", fmt.Sprint("N=", n), "--env", "FLOODS="+strings.Join(slices.Sorted(maps.Keys(at)), " "), "--script", "scenarios/files.sh",
		"--put", "scenarios/lib.sh:/tmp/lib.sh", "--smp", "2", "--mem", fmt.Sprint(512+n/16), "--timeout", fmt.Sprint(900+n/5),
		"--get", "/tmp/tee.jsonl:OUT/tee.jsonl", "--get", "/tmp/floods:OUT/floods")
	events := toldOfFiles(t, dir)

	t.Run("80 files from a protected share to an exFAT stick", func(t *testing.T) {
		copiedToAStick(t, events, map[string]string{"sekisho.source.share": `\\10.0.2.4\qemu`, "process.executable": "/bin/busybox"})
	})

	floods(t, events, filepath.Join(dir, "floods"), at)

	t.Run("with the clock set", func(t *testing.T) {
		files := 0.0
		for _, e := range events {
			if strings.HasPrefix(e.str("file.path"), "/mnt/ex/clock ") {
				files += e.num("sekisho.copy.files")
			}
		}
		if files != 3*26 {
			t.Errorf("%.0f files, want %d", files, 3*26)
		}
	})
	t.Run("a stick pulled while its files wait to be told", func(t *testing.T) {
		if files, bytes, _ := below(t, events, "/mnt/fat/pulled"); files != 26 || bytes != 26*20 {
			t.Errorf("%.0f files, %.0f bytes, want 26, 520", files, bytes)
		}
	})
	t.Run("nothing was lost", func(t *testing.T) {
		if lost := where(events, "event.action", "events-lost"); len(lost) > 0 {
			t.Errorf("got %v", lost)
		}
	})
}

// TestAnNFSServerThatGoesAway has the server in the guest. SEKISHO_VM_FILES is how many files the flood has.
func TestAnNFSServerThatGoesAway(t *testing.T) {
	n := howMany(t, "SEKISHO_VM_FILES", 200)
	agent, err := filepath.Abs("../../bin/static/sekisho-agent")
	if err != nil {
		t.Fatal(err)
	}
	papers := filepath.Join(t.TempDir(), "papers")
	writePapers(t, papers)
	dir, _ := run(t, "--smp", "2", "--mem", fmt.Sprint(512+n/16), "--timeout", fmt.Sprint(900+n/5), "--put", "scenarios/lib.sh:/tmp/lib.sh",
		"--exe", agent+":/usr/bin/sekisho-agent", "--put", "scenarios/nfs.agent.yaml:/etc/agent.yaml", "--put", papers+":/tmp/papers",
		"--stick", "name=EX,size=64M,fs=exfat,serial=EX-0001", "--env", fmt.Sprint("N=", n), "--script", "scenarios/nfs.sh",
		"--get", "/tmp/tee.jsonl:OUT/tee.jsonl", "--get", "/tmp/floods:OUT/floods", "--get", "/tmp/said:OUT/said")
	events := toldOfFiles(t, dir)
	t.Run("80 files from the export to an exFAT stick", func(t *testing.T) {
		copiedToAStick(t, events, map[string]string{"sekisho.source.share": "127.0.0.1:/hr", "process.executable": "/bin/busybox"})
	})
	floods(t, events, filepath.Join(dir, "floods"), map[string]string{"hr": "/mnt/hr"})
	t.Run("while the server is away", func(t *testing.T) {
		said, err := os.ReadFile(filepath.Join(dir, "said"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"told while the server was away", "status says that it does not answer", "the copy hung", "the copy ended with status 0", "status says that it answers"} {
			if !strings.Contains(string(said), want+"\n") {
				t.Errorf("the scenario does not say %q", want)
			}
		}
		if files, bytes, _ := below(t, events, "/mnt/ex/meanwhile"); files != 26 || bytes != 26*20 {
			t.Errorf("to the stick: %.0f files, %.0f bytes, want 26, 520", files, bytes)
		}
	})
	t.Run("what the server took away is lost, and that is told", func(t *testing.T) {
		lost := 0.0
		for _, e := range where(events, "event.action", "events-lost") {
			lost += e.num("sekisho.lost.count")
		}
		if t.Logf("%.0f", lost); lost > 2*100 {
			t.Errorf("%.0f events are lost, of 100 files", lost)
		}
	})
	t.Run("the copies before it went and as it went", func(t *testing.T) {
		for dir, n := range map[string]float64{"/mnt/hr/late": 26, "/mnt/hr/hang": 300} {
			if files, bytes, _ := below(t, events, dir); files != n || bytes != n*20 {
				t.Errorf("%s: %.0f files, %.0f bytes, want %.0f, %.0f", dir, files, bytes, n, n*20)
			}
		}
	})
}
