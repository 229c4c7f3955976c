package vm_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCopiesOnFileSystemsOfSticksAndShares needs samba on the host, as --share does. SEKISHO_VM_FILES is how many files each
// flood has.
func TestCopiesOnFileSystemsOfSticksAndShares(t *testing.T) {
	if _, err := exec.LookPath("smbd"); err != nil {
		t.Skip("no smbd (test/vm/setup --smb-host)")
	}
	n := 200
	if s := os.Getenv("SEKISHO_VM_FILES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	agent, err := filepath.Abs("../../bin/static/sekisho-agent")
	if err != nil {
		t.Fatal(err)
	}
	share := t.TempDir()
	if err := os.MkdirAll(filepath.Join(share, "papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 80 {
		b := make([]byte, 300*(i+1))
		_, _ = rand.Read(b)
		if err := os.WriteFile(filepath.Join(share, "papers", fmt.Sprintf("名簿 %02d.csv", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir, _ := run(t, "--exe", agent+":/usr/bin/sekisho-agent", "--put", "scenarios/files.agent.yaml:/etc/agent.yaml", "--share", share,
		"--stick", "name=EX,size=256M,fs=exfat,serial=EX-0001", "--stick", "name=FAT,size=256M,fs=vfat,serial=FAT-0001",
		"--env", fmt.Sprint("N=", n), "--script", "scenarios/files.sh", "--smp", "2", "--timeout", fmt.Sprint(400+n/5),
		"--get", "/tmp/tee.jsonl:OUT/tee.jsonl", "--get", "/tmp/floods:OUT/floods")
	events, alerts := readTold(t, filepath.Join(dir, "tee.jsonl"))
	for _, a := range alerts {
		t.Logf("alert %s: %s", a.str("sekisho.rule"), a.str("sekisho.alert.title.en"))
	}

	// below is what was told of files in a folder: how many files and bytes, by how many events.
	below := func(folder string) (files, bytes, told float64) {
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

	t.Run("80 files from a protected share to an exFAT stick", func(t *testing.T) {
		seen := map[string]bool{}
		for _, e := range events {
			name, ok := strings.CutPrefix(e.str("file.path"), "/mnt/ex/名簿 ")
			if !ok {
				continue
			}
			seen[name] = true
			for field, want := range map[string]string{
				"event.action": "file-copied", "user.name": "user", "process.executable": "/bin/busybox",
				"sekisho.source.path": "/mnt/hr/papers/名簿 " + name, "sekisho.source.share": `\\10.0.2.4\qemu`, "sekisho.source.protected": "人事",
				"sekisho.source.volume_kind": "network", "sekisho.copy.evidence": "same-process", "sekisho.copy.confidence": "high",
				"sekisho.file.volume_kind": "removable", "volume.file_system_type": "exfat", "volume.serial_number": "EX-0001",
			} {
				if got := e.str(field); got != want {
					t.Errorf("%s: %s: got %q, want %q", name, field, got, want)
				}
			}
		}
		if len(seen) != 80 {
			t.Errorf("%d files are told, want 80", len(seen))
		}
	})

	b, err := os.ReadFile(filepath.Join(dir, "floods"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var fs string
		var count, ms, ticks float64
		if _, err := fmt.Sscan(line, &fs, &count, &ms, &ticks); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		t.Run("a flood on "+fs, func(t *testing.T) {
			files, bytes, told := below("/mnt/" + fs + "/flood")
			t.Logf("%.0f files in %.1f s, %.0f told by %.0f events, the whole agent's CPU in the emulated guest %.2f ms a file",
				count, ms/1000, files, told, ticks*10/count)
			if files != count || bytes != 20*count {
				t.Errorf("%.0f files, %.0f bytes, want %.0f, %.0f", files, bytes, count, 20*count)
			}
		})
	}

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
		if files, bytes, _ := below("/mnt/fat/pulled"); files != 26 || bytes != 26*20 {
			t.Errorf("%.0f files, %.0f bytes, want 26, 520", files, bytes)
		}
	})
	t.Run("nothing was lost", func(t *testing.T) {
		if lost := where(events, "event.action", "events-lost"); len(lost) > 0 {
			t.Errorf("got %v", lost)
		}
	})
}
