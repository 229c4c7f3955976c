package confine

import "golang.org/x/sys/unix"

const arch = unix.AUDIT_ARCH_AARCH64

// own are the calls that this architecture names otherwise.
var own = []uint32{
	unix.SYS_FSTATAT,
}
