// Package confine takes rights from this process that it does not need any
// more: a fault in a parser must not become the right to load a kernel module.
//
// On Linux, for every thread and every process that comes of this one, for good:
// no new privileges, the capabilities that are named and no others (the bounding
// set included), and a filter of system calls that lets through what the agent
// does and refuses the rest, such as mount, ptrace, setns, kexec, bpf, keyctl and
// io_uring, with EPERM. Memory that is both written to and executed is refused,
// too, and sockets but for local ones, IP and netlink.
//
// Elsewhere nothing can be taken that way: [Drop] returns an error that wraps
// errors.ErrUnsupported.
package confine

// State is what rights a process has left.
type State struct {
	Capabilities    []string // in effect: "sys_ptrace"; nil: none
	Bounding        []string // what it and what it starts can ever have
	NoNewPrivileges bool
	Filtered        bool // system calls
}
