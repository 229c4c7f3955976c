//go:build unix

package usb

import (
	"os"
	"syscall"
)

// readSome reads at most limit bytes of a file. It makes the three calls that
// this takes: os.Open would offer the file to the poller as well, for each of
// the attributes that stand between a plug and its event.
func readSome(name string, limit int) ([]byte, error) {
	fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	for err == syscall.EINTR {
		fd, err = syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd)
	buf := make([]byte, limit)
	have := 0
	for have < limit {
		n, err := syscall.Read(fd, buf[have:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		have += n
		if n < os.Getpagesize() { // sysfs gives a page at a time, so this was the last
			break
		}
	}
	return buf[:have], nil
}
