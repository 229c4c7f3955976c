package session

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"strings"
	"time"

	"sekisho/internal/event"
)

// record is one record of utmp or wtmp (utmp(5)).
type record struct {
	Type int        // one of the types below; others mean nothing to us
	PID  int        // of the login process
	Line string     // "tty2", "pts/3", ":0"
	User string     // "" in records of an end
	Host string     // where from, or which display: "pc7.example.jp", ":0", "tmux(812).%0"
	At   time.Time  // zero if the record says 0
	Addr netip.Addr // where from; zero if nobody wrote it
}

// Types of records (bits/utmp.h of glibc).
const (
	recordBoot = 2
	recordUser = 7
	recordDead = 8
)

// layout is how a C library lays a record out. Texts are at the same places in
// both.
type layout int

// The layouts of glibc. Where one machine runs 32-bit programs as well
// (__WORDSIZE_TIME64_COMPAT32: x86, most others) times have 32 bits in programs
// of either width; arm64 and its like have 64.
const (
	narrow layout = 384 // bytes of a record; session and times of 32 bits
	wide   layout = 400 // session and times of 64 bits
)

// usualLayout is that of this machine's C library. musl writes no records.
func usualLayout() layout {
	switch runtime.GOARCH {
	case "arm64", "loong64":
		return wide
	}
	return narrow
}

// decode reads one record from exactly the layout's number of bytes; false for
// another number.
func (l layout) decode(b []byte) (record, bool) {
	if len(b) != int(l) || l != narrow && l != wide {
		return record{}, false
	}
	r := record{
		Type: int(int16(binary.NativeEndian.Uint16(b))),
		PID:  int(int32(binary.NativeEndian.Uint32(b[4:]))),
		Line: text(b[8:40]),
		User: text(b[44:76]),
		Host: text(b[76:332]),
	}
	var s, us int64
	if l == narrow {
		// Unsigned, as the kernel's and systemd's answer to 2038 is: good until 2106.
		s, us = int64(binary.NativeEndian.Uint32(b[340:])), int64(int32(binary.NativeEndian.Uint32(b[344:])))
	} else {
		s, us = int64(binary.NativeEndian.Uint64(b[344:])), int64(binary.NativeEndian.Uint64(b[352:]))
	}
	if us < 0 || us >= 1e6 {
		us = 0
	}
	at := 348 // ut_addr_v6, of which an IPv4 address has the first word
	if l == wide {
		at = 360
	}
	a := [16]byte(b[at : at+16])
	switch v4 := [4]byte(a[:4]); {
	case v4 != [4]byte{} && [12]byte(a[4:]) == [12]byte{}:
		r.Addr = netip.AddrFrom4(v4)
	case a != [16]byte{}:
		r.Addr = netip.AddrFrom16(a).Unmap()
	}
	if s > 0 && s < 1<<34 { // the year 2514: beyond it nothing was noted
		r.At = time.Unix(s, us*1000).UTC()
	}
	return r, true
}

// text is a C string in a field that it may fill to the end.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return clean(string(b))
}

// layoutOf says how the records of a file of some bytes are laid out, by what
// stands at its beginning: as is usual on the machine, or otherwise if only that
// makes sense of them.
func layoutOf(head []byte, size int64, usual layout) layout {
	other := narrow + wide - usual
	whole := func(l layout) bool { return size%int64(l) == 0 && l.sensible(head) }
	if (!usual.sensible(head) || !whole(usual) && whole(other)) && other.sensible(head) {
		return other
	}
	return usual
}

// sensible reports whether the first records are of types that exist, with
// printable lines.
func (l layout) sensible(data []byte) bool {
	n := min(len(data)/int(l), 8)
	for i := range n {
		r, _ := l.decode(data[i*int(l) : (i+1)*int(l)])
		if r.Type < 0 || r.Type > 9 || r.PID < 0 || strings.ContainsFunc(r.Line, func(c rune) bool { return c < ' ' }) {
			return false
		}
	}
	return n > 0
}

// decodeAll reads the whole records at the beginning of data; rest is what is
// left of an unfinished one.
func (l layout) decodeAll(data []byte) (records []record, rest int) {
	for len(data) >= int(l) {
		r, _ := l.decode(data[:l])
		records, data = append(records, r), data[l:]
	}
	return records, len(data)
}

// logon reports whether the record is one of a person who came in. Windows of a
// terminal program and of tmux or screen are written down the same way, but with
// the display or the program for a host.
func (r *record) logon() bool {
	if r.Type != recordUser || r.User == "" || r.Line == "" {
		return false
	}
	window := display(r.Host) || strings.HasPrefix(r.Host, "tmux(") || strings.Contains(r.Host, ":S.") || strings.HasPrefix(r.Host, ":pts/")
	return !(window && strings.HasPrefix(r.Line, "pts/"))
}

// remote reports whether the person came over the network. Logons at a display
// or console name that for a host (":0", "tty2").
func (r *record) remote() bool {
	return r.Host != "" && !display(r.Host) && !strings.HasPrefix(r.Host, "tty")
}

// source is where a remote person came from: what the record says in words, or its
// address if the words are none.
func (r *record) source() *event.Source {
	s := sourceOf(r.Host)
	if (s == nil || s.IP == "") && r.Addr.IsValid() {
		return &event.Source{IP: r.Addr.String()}
	}
	return s
}

// graphical reports whether the person is at a display, whose input does not
// come through a terminal.
func (r *record) graphical() bool { return display(r.Line) || display(r.Host) }

// over reports whether the record says that the session on its line ended; some
// programs write one of a user without a name for it (logout(3)).
func (r *record) over() bool {
	return r.Line != "" && (r.Type == recordDead || r.Type == recordUser && r.User == "")
}

// display reports whether a text names an X display that is not on another
// machine: ":0", ":1.0", "localhost:10.0", but not the address "::1".
func display(s string) bool {
	n, ok := strings.CutPrefix(strings.TrimPrefix(s, "localhost"), ":")
	return ok && n != "" && strings.Trim(n, "0123456789.") == ""
}
