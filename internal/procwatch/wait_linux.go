package procwatch

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waiter waits until one of several descriptors can be read, as the runtime waits
// for connections: without a thread that stands in a system call, which the runtime
// would watch over. On a quiet PC that is most of what waiting costs.
type waiter struct {
	file  *os.File // an epoll of the descriptors
	raw   syscall.RawConn
	close func()
}

// newWaiter returns a waiter for descriptors, those that are negative excepted.
func newWaiter(fds ...int) (*waiter, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Or the runtime would not take it for one that can be waited for.
	err = unix.SetNonblock(ep, true)
	for _, fd := range fds {
		if err == nil && fd >= 0 {
			err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
	}
	w := &waiter{file: os.NewFile(uintptr(ep), "epoll")}
	w.close = sync.OnceFunc(func() { w.file.Close() })
	if err == nil {
		w.raw, err = w.file.SyscallConn()
	}
	if err == nil {
		err = w.file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("wait for the kernel's messages: %w", err)
	}
	return w, nil
}

// until says when to wait no longer, which holds for a wait under way as well; zero:
// never.
func (w *waiter) until(at time.Time) error { return w.file.SetReadDeadline(at) }

// wait waits until a descriptor can be read or the time has come. After close it
// fails.
func (w *waiter) wait() error {
	err := w.raw.Read(func(fd uintptr) bool {
		var ready unix.EpollEvent
		// It does not wait, so that the runtime need not know.
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&ready)), 1, 0, 0, 0)
		return errno == 0 && n > 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// receiveNetlink receives what has come, and whether the kernel sent it. It does not
// wait: EAGAIN if nothing has come.
func receiveNetlink(fd int, buf []byte) (n int, kernel bool, errno syscall.Errno) {
	var from unix.RawSockaddrNetlink
	size := uint32(unsafe.Sizeof(from))
	k, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	return int(k), from.Pid == 0, errno
}
