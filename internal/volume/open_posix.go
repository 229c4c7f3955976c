//go:build !windows

package volume

import (
	"errors"
	"os"
	"syscall"
)

// openFile opens a regular file to read it, without waiting for anybody: its user may
// have put a pipe in its place a moment ago, or hold a lease on it (fcntl(2)).
func openFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, os.ErrInvalid, f.Close())
	}
	return f, nil
}

// openFolder opens a folder to list it, and nothing else.
func openFolder(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
}
