package procwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
)

// What the eBPF programs say (bpf/process.c, struct record and struct exec). The
// byte order is little: the object is built for such machines only.
const (
	bpfFork = 1
	bpfExec = 2
	bpfExit = 3

	bpfRecordSize = 40
	bpfExecSize   = 96 // what follows is exe, cwd, args, name of the cgroup
)

// bpfRecord is one record. Its byte slices point into what it was read from.
type bpfRecord struct {
	kind, flags byte
	pid, ppid   int
	at          uint64 // ns of CLOCK_MONOTONIC
	start       uint64 // of the process, ns of CLOCK_BOOTTIME
	status      uint32 // of an end, as of wait(2)
	uid         uint32 // real user id

	// Of an exec only.
	parentStart uint64
	cgroup      uint64 // id of the cgroup (version 2), as of its inode
	loginUID    uint32 // account of the login that led here; noID if none did
	session     uint32 // audit's login session; noID if none
	euid        uint32 // effective user id
	argsTotal   uint32 // bytes of arguments that there are; args has the first
	comm        []byte // at most 15 bytes
	exe, cwd    []byte // names from the leaf up, NUL after each: see appendPath
	args        []byte // NUL after each
	cgroupName  []byte // last element of its path
}

var errBPFRecord = errors.New("eBPF record makes no sense")

// parseBPF reads a record into r.
func parseBPF(b []byte, r *bpfRecord) error {
	if len(b) < bpfRecordSize {
		return errBPFRecord
	}
	le := binary.LittleEndian
	*r = bpfRecord{
		kind: b[0], flags: b[1],
		pid: int(int32(le.Uint32(b[8:]))), ppid: int(int32(le.Uint32(b[12:]))),
		at: le.Uint64(b[16:]), start: le.Uint64(b[24:]),
		status: le.Uint32(b[32:]), uid: le.Uint32(b[36:]),
	}
	switch {
	case r.pid <= 0 || r.ppid < 0:
		return errBPFRecord
	case r.kind == bpfFork || r.kind == bpfExit:
		return nil
	case r.kind != bpfExec || len(b) < bpfExecSize:
		return errBPFRecord
	}
	r.parentStart, r.cgroup = le.Uint64(b[40:]), le.Uint64(b[48:])
	r.loginUID, r.session = le.Uint32(b[56:]), le.Uint32(b[60:])
	r.argsTotal, r.euid = le.Uint32(b[64:]), le.Uint32(b[76:])
	r.comm = untilNUL(b[80:bpfExecSize])
	rest := b[bpfExecSize:]
	for _, part := range []struct {
		to   *[]byte
		size int
	}{
		{&r.exe, int(le.Uint16(b[2:]))}, {&r.cwd, int(le.Uint16(b[4:]))},
		{&r.args, int(le.Uint16(b[6:]))}, {&r.cgroupName, int(le.Uint16(b[72:]))},
	} {
		if part.size > len(rest) {
			return errBPFRecord
		}
		*part.to, rest = rest[:part.size], rest[part.size:]
	}
	r.cgroupName = untilNUL(r.cgroupName)
	return nil
}

func untilNUL(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// appendPath appends the path whose names stand in names from the leaf up, NUL
// after each. No names are the root.
func appendPath(to, names []byte) []byte {
	if len(names) == 0 {
		return append(to, '/')
	}
	for len(names) > 0 {
		names = names[:len(names)-1] // the NUL
		i := bytes.LastIndexByte(names, 0) + 1
		to = append(append(to, '/'), names[i:]...)
		names = names[:i]
	}
	return to
}

// interned gives equal byte strings one string. The same few programs are
// started over and over: most starts cost no allocation for their path.
type interned map[string]string

// maxInterned bounds what is kept of paths; a desktop has a few hundred programs.
const maxInterned = 1024

func (m interned) of(b []byte) string {
	if s, ok := m[string(b)]; ok {
		return s
	}
	if len(m) >= maxInterned {
		clear(m)
	}
	s := string(b)
	m[s] = s
	return s
}

// auditID is a session of audit as text, "" if there is none.
func auditID(id uint32) string {
	if id == noID {
		return ""
	}
	return strconv.FormatUint(uint64(id), 10)
}
