package usb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// retryNetlink is how long sysfs is polled before netlink is tried again.
const retryNetlink = 30 * time.Second

// receiveBuffer is what the socket may hold. A device coming and going makes
// some 15 messages of 2 KiB (as the kernel counts); this is room for 250 such
// rounds while the agent does not get to read.
const receiveBuffer = 8 << 20

// Run watches until ctx ends. An error means that the socket broke; the next Run
// tells only what changed meanwhile.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	for ctx.Err() == nil {
		s, err := openUevents()
		if err == nil {
			if err := w.runNetlink(ctx, out, s); err != nil {
				w.gauge.Set(endpoint.SensorDown, mechanismUevent, err.Error())
				return err
			}
			return nil
		}
		t := w.newTracker(ctx, out, mechanismPolling)
		reason := fmt.Sprintf("kernel notifications refused (%v); sysfs is looked through each %v, shorter visits are missed", err, w.opt.Poll)
		t.tellState(endpoint.SensorDegraded, reason)
		look := time.NewTicker(w.opt.Poll)
		_ = t.run(nil, look.C, time.After(retryNetlink)) // without messages there is no error
		look.Stop()
	}
	return nil
}

// wholeIDMap reports whether an id map (user_namespaces(7)) is that of the
// initial user namespace, all ids as they are.
func wholeIDMap(text string) bool {
	return slices.Equal(strings.Fields(text), []string{"0", "0", "4294967295"})
}

func (w *Watcher) runNetlink(ctx context.Context, out chan<- *event.Event, s *ueventSocket) error {
	ctx, cancel := context.WithCancel(ctx)
	messages := make(chan message, 256) // the socket holds far more
	var wg sync.WaitGroup
	wg.Go(func() { w.read(ctx, s, messages) })
	defer func() {
		cancel()
		s.Close()
		wg.Wait()
	}()
	t := w.newTracker(ctx, out, mechanismUevent)
	if s.room < 2*receiveBuffer {
		t.lacks = fmt.Sprintf("without CAP_NET_ADMIN the kernel keeps %d KiB of device notifications for the agent, not %d: of many devices at once those that leave soon may be missed", s.room>>10, 2*receiveBuffer>>10)
	}
	return t.run(messages, nil, nil)
}

// ueventSocket hears the kernel's uevents.
type ueventSocket struct {
	*os.File
	raw  syscall.RawConn
	room int // bytes that it may hold as the kernel counts, twice what was asked for
}

func openUevents() (*ueventSocket, error) {
	// There the socket opens, but since Linux 4.18 nothing comes through it
	// (kernel commit a3498436b3a0, "netns: restrict uevents").
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil && !wholeIDMap(string(ids)) {
		return nil, errors.New("in a user namespace the kernel does not announce devices")
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// Without CAP_NET_ADMIN net.core.rmem_max is the limit; less is no reason to give up.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	room, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ask netlink socket for its room: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("join kernel uevents: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevents")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("watch netlink socket: %w", err)
	}
	return &ueventSocket{f, raw, room}, nil
}

// read passes on what concerns USB, and proofs, until the context ends or the socket
// breaks.
func (w *Watcher) read(ctx context.Context, s *ueventSocket, to chan<- message) {
	buf := make([]byte, maxUevent)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		closed := s.raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		m := message{at: time.Now()}
		switch {
		case closed != nil:
			return
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			m.lost = true
		case err != nil:
			m.err = fmt.Errorf("read kernel uevents: %w", err)
		default:
			// Any process with the right may send to this group: only port 0 is the kernel.
			if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
				continue
			}
			if m.uevent, err = parseUevent(buf[:n]); err != nil || m.uevent.Subsystem != "usb" && !w.isProof(&m.uevent) {
				continue
			}
		}
		select {
		case to <- m:
		case <-ctx.Done():
			return
		}
		if m.err != nil {
			return
		}
	}
}
