// Package guid reads and writes the 128-bit names that Windows gives to providers of
// events, classes of devices and the like.
package guid

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a name as it lies in memory: its first three parts are little-endian (GUID
// of guiddef.h).
type GUID [16]byte

// Parse reads the form {22FB2CD6-0E7B-422B-A0C7-2FAD1FD0E716}, with or without
// braces, in either case.
func Parse(s string) (GUID, error) {
	bad := func() (GUID, error) {
		return GUID{}, fmt.Errorf("GUID %q is not of the form {xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}", s)
	}
	x := s
	if strings.HasPrefix(x, "{") && strings.HasSuffix(x, "}") {
		x = x[1 : len(x)-1]
	}
	if len(x) != 36 || x[8] != '-' || x[13] != '-' || x[18] != '-' || x[23] != '-' {
		return bad()
	}
	var b [16]byte
	if n, err := hex.Decode(b[:], []byte(x[:8]+x[9:13]+x[14:18]+x[19:23]+x[24:])); err != nil || n != len(b) {
		return bad()
	}
	var g GUID
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(b[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g, nil
}

// Must is [Parse] for constants: it panics where that fails.
func Must(s string) GUID {
	g, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return g
}

// String is the form that Parse reads, with braces and in upper case.
func (g GUID) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("{%08X-%04X-%04X-%X-%X}", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}
