//go:build unix

package usb

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestReadSome(t *testing.T) {
	for _, size := range []int{0, 1, os.Getpagesize() - 1, os.Getpagesize(), 3*os.Getpagesize() + 7} {
		want := bytes.Repeat([]byte("a"), size)
		name := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(name, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readSome(name, 64<<10); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d, %v", size, len(got), err)
		}
		if got, err := readSome(name, 10); err != nil || len(got) != min(10, size) {
			t.Errorf("10 of %d bytes: got %d, %v", size, len(got), err)
		}
	}
	if _, err := readSome(filepath.Join(t.TempDir(), "none"), 10); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}
