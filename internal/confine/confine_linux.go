package confine

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// names are capabilities(7) by number, without CAP_.
var names = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
	"net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace",
	"sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write",
	"audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// set is the bits of capabilities.
func set(capabilities []string) (bits uint64, err error) {
	for _, c := range capabilities {
		i := slices.Index(names, c)
		if i < 0 {
			return 0, fmt.Errorf("no capability %q", c)
		}
		bits |= 1 << i
	}
	return bits, nil
}

// list is the names of a set.
func list(bits uint64) (all []string) {
	for i := range 64 {
		if bits&(1<<i) == 0 {
			continue
		}
		name := strconv.Itoa(i)
		if i < len(names) {
			name = names[i]
		}
		all = append(all, name)
	}
	return all
}

// everyThread makes a system call on every thread. psx does so with cgo, whose
// threads the Go runtime does not know, and hands it to syscall.AllThreadsSyscall
// without. It ends the process where threads disagree, so that nothing is called
// here that one of them may refuse.
//
//go:uintptrescapes
func everyThread(call, a, b uintptr) error {
	if _, _, errno := psx.Syscall6(call, a, b, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// Drop gives up every right but the capabilities named, as far as the process has
// them, on all threads and for good. Without CAP_SETPCAP the bounding set stays
// as it is, which matters to no process that cannot gain by exec. On an error
// some rights may be gone and others not; Now tells.
func Drop(keep ...string) error {
	want, err := set(keep)
	if err != nil {
		return err
	}
	var have [2]unix.CapUserData
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capget(&head, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if err := everyThread(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return fmt.Errorf("set no new privileges: %w", err)
	}
	permitted := uint64(have[0].Permitted) | uint64(have[1].Permitted)<<32
	if setpcap, _ := set([]string{"setpcap"}); permitted&setpcap != 0 {
		for i := range 64 {
			if want&(1<<i) != 0 {
				continue
			}
			in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(i), 0, 0, 0)
			if err != nil {
				break // the kernel has no more
			}
			if in == 0 {
				continue
			}
			if err := everyThread(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(i)); err != nil {
				return fmt.Errorf("drop capability %d from the bounding set: %w", i, err)
			}
		}
	}
	// Ambient capabilities (given by a service manager) go with the inheritable ones.
	left := permitted & want
	data := [2]unix.CapUserData{{Effective: uint32(left), Permitted: uint32(left)}, {Effective: uint32(left >> 32), Permitted: uint32(left >> 32)}}
	if err := everyThread(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0]))); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if len(allowed) == 0 {
		return nil // no list for this architecture
	}
	if err := filter(); err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}

// filter puts the filter of system calls in force on every thread.
func filter() error {
	program := assemble(arch, allowed, missing...)
	code := make([]unix.SockFilter, len(program))
	for i, x := range program {
		code[i] = unix.SockFilter{Code: x.op, Jt: x.yes, Jf: x.no, K: x.k}
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	// TSYNC takes every thread along, or fails with the id of one that cannot.
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&prog)))
	switch {
	case errno != 0:
		return errno
	case thread != 0:
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}

// Now is what rights this process has, by its main thread.
func Now() (State, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return State{}, err
	}
	return parse(string(b)), nil
}

// parse reads /proc/PID/status.
func parse(status string) State {
	var s State
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "CapEff", "CapBnd":
			bits, err := strconv.ParseUint(value, 16, 64)
			switch {
			case err != nil:
			case name == "CapEff":
				s.Capabilities = list(bits)
			default:
				s.Bounding = list(bits)
			}
		case "NoNewPrivs":
			s.NoNewPrivileges = value == "1"
		case "Seccomp":
			s.Filtered = value == "2"
		}
	}
	return s
}
