//go:build unix

package input

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(file, 4); string(b) != "0123" || err != nil {
		t.Errorf("file: %q, %v", b, err)
	}
	if b, err := ReadFile("/dev/zero", 1000); len(b) != 1000 || err != nil {
		t.Errorf("/dev/zero: %d bytes, %v", len(b), err)
	}
	if _, err := ReadFile(dir, 4); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("directory: %v", err)
	}

	start := time.Now()
	if _, err := ReadFile(pipe, 4); !errors.Is(err, errNoWriter) {
		t.Errorf("pipe without a writer: %v", err)
	}
	t.Logf("a pipe without a writer: told after %s", time.Since(start))

	// A pipe that a script writes to, slowly, is read to its end.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		w.WriteString("state")
		time.Sleep(50 * time.Millisecond)
		w.WriteString("_dir")
		w.Close()
	}()
	name := filepath.Join("/dev/fd", strconv.Itoa(int(r.Fd())))
	if _, err := os.Stat(name); err != nil {
		t.Skipf("no %s here: %v", name, err)
	}
	if b, err := ReadFile(name, 100); string(b) != "state_dir" || err != nil {
		t.Errorf("written pipe: %q, %v", b, err)
	}
}
