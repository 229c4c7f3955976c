package confine

import (
	"cmp"
	"slices"
)

// The filter is classic BPF over struct seccomp_data (linux/seccomp.h), made
// here rather than by a library: there is one list and a handful of conditions,
// and the libraries that do it well (libseccomp's, which needs cgo; elastic's, in
// pure Go) are larger than this file.

// An instruction is struct sock_filter (linux/filter.h).
type instruction struct {
	op      uint16
	yes, no uint8 // how many instructions are passed over
	k       uint32
}

// What the instructions are, from linux/bpf_common.h, and what they return, from
// linux/seccomp.h.
const (
	opLoad    = 0x20 // BPF_LD | BPF_W | BPF_ABS
	opEqual   = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opAtLeast = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	opAnySet  = 0x45 // BPF_JMP | BPF_JSET | BPF_K
	opAnd     = 0x54 // BPF_ALU | BPF_AND | BPF_K
	opReturn  = 0x06 // BPF_RET | BPF_K

	retKill  = 0x80000000 // the process
	retErrno = 0x00050000 // and the number
	retAllow = 0x7fff0000

	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16 // each of 8 bytes, the lower half first on the systems we run on

	errPerm  = 1  // EPERM
	errNoSys = 38 // ENOSYS
)

// A condition is what an argument of a call has to be for the call to be let
// through. The zero condition: anything.
type condition struct {
	arg  int      // from 0
	none uint32   // none of these bits is set
	not  uint32   // not all of these bits are set
	one  []uint32 // it is one of these
}

// A rule lets a system call through.
type rule struct {
	number uint32
	when   condition
}

// assemble makes the filter: a call of another architecture kills the process,
// one that no rule lets through fails as not permitted, and those of soft as
// unknown to the kernel, so that the caller does without.
func assemble(arch uint32, rules []rule, soft ...uint32) []instruction {
	refuse := instruction{op: opReturn, k: retErrno | errPerm}
	p := []instruction{
		{op: opLoad, k: dataArch}, {op: opEqual, yes: 1, k: arch}, {op: opReturn, k: retKill},
		{op: opLoad, k: dataNumber},
	}
	for _, n := range soft {
		p = append(p, instruction{op: opEqual, no: 1, k: n}, instruction{op: opReturn, k: retErrno | errNoSys})
	}
	rules = slices.SortedFunc(slices.Values(rules), func(a, b rule) int { return cmp.Compare(a.number, b.number) })
	var plain []uint32
	for _, r := range rules {
		if r.when.free() {
			plain = append(plain, r.number)
			continue
		}
		test := r.when.test()
		p = append(p, instruction{op: opEqual, no: uint8(len(test)), k: r.number})
		p = append(p, test...)
	}
	// What stands in a row is one comparison of both ends. (Kernels from 5.11 on
	// remember what is let through whatever its arguments, and do not run this.)
	for len(plain) > 0 {
		n := 1
		for n < len(plain) && plain[n] <= plain[n-1]+1 {
			n++
		}
		p = append(p, instruction{op: opAtLeast, no: 2, k: plain[0]}, instruction{op: opAtLeast, yes: 1, k: plain[n-1] + 1}, instruction{op: opReturn, k: retAllow})
		plain = plain[n:]
	}
	return append(p, refuse)
}

func (c *condition) free() bool { return c.none == 0 && c.not == 0 && len(c.one) == 0 }

// test ends the filter one way or the other.
func (c *condition) test() []instruction {
	allow, refuse := instruction{op: opReturn, k: retAllow}, instruction{op: opReturn, k: retErrno | errPerm}
	p := []instruction{{op: opLoad, k: uint32(dataArgs + 8*c.arg)}}
	switch {
	case c.none != 0:
		return append(p, instruction{op: opAnySet, no: 1, k: c.none}, refuse, allow)
	case c.not != 0:
		return append(p, instruction{op: opAnd, k: c.not}, instruction{op: opEqual, no: 1, k: c.not}, refuse, allow)
	}
	for _, v := range c.one {
		p = append(p, instruction{op: opEqual, no: 1, k: v}, allow)
	}
	return append(p, refuse)
}
