package etw

import (
	"encoding/binary"
	"errors"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrShort is the error of a [Reader] that was asked for more than there is.
var ErrShort = errors.New("event payload is cut off")

// Reader reads the fields of a payload in their order, which the manifest of the
// provider gives. It never panics: what is not there is read as zero or empty, and so
// is all that follows, and Err says so.
type Reader struct {
	rest    []byte
	pointer int
	short   bool
}

// NewReader reads a payload with pointers of this size, 4 or 8 bytes.
func NewReader(data []byte, pointerSize int) Reader { return Reader{rest: data, pointer: pointerSize} }

// Err is ErrShort if a field was asked for that is not there.
func (r *Reader) Err() error {
	if r.short {
		return ErrShort
	}
	return nil
}

// Len is how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Bytes are the next n bytes, nil if there are fewer. They are part of the payload.
func (r *Reader) Bytes(n int) []byte {
	if r.short || n < 0 || n > len(r.rest) {
		r.short, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Skip passes over n bytes.
func (r *Reader) Skip(n int) { r.Bytes(n) }

// U32 is the next win:UInt32.
func (r *Reader) U32() uint32 {
	if b := r.Bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// U64 is the next win:UInt64.
func (r *Reader) U64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Pointer is the next win:Pointer (also a size_t), as wide as the teller's are.
func (r *Reader) Pointer() uint64 {
	if r.pointer == 4 {
		return uint64(r.U32())
	}
	return r.U64()
}

// FileTime is the next win:FILETIME; the zero time if it is 0.
func (r *Reader) FileTime() time.Time { return FileTime(r.U64()) }

// SID is the next win:SID as text ("S-1-16-8192"), "" if it is none.
func (r *Reader) SID() string {
	// SID of winnt.h: Revision u8, SubAuthorityCount u8, IdentifierAuthority (6 bytes,
	// big-endian), SubAuthority u32 times the count.
	if r.short || len(r.rest) < 2 {
		r.Skip(2)
		return ""
	}
	return sid(r.Bytes(8 + 4*int(r.rest[1])))
}

// maxSubAuthorities is SID_MAX_SUB_AUTHORITIES of winnt.h.
const maxSubAuthorities = 15

// sid is a binary SID as text, "" if b is none.
func sid(b []byte) string {
	if len(b) < 8 || b[0] != 1 || b[1] > maxSubAuthorities || len(b) != 8+4*int(b[1]) {
		return ""
	}
	var room [192]byte
	to := append(room[:0], "S-1-"...)
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	if authority >= 1<<32 { // as ConvertSidToStringSid writes it
		to = strconv.AppendUint(append(to, "0x"...), authority, 16)
	} else {
		to = strconv.AppendUint(to, authority, 10)
	}
	for s := b[8:]; len(s) >= 4; s = s[4:] {
		to = strconv.AppendUint(append(to, '-'), uint64(binary.LittleEndian.Uint32(s)), 10)
	}
	return string(to)
}

// RawUTF16 are the bytes of the next win:UnicodeString without the NUL that ends it,
// an even number. The end of the payload ends it, too. They are part of the payload.
func (r *Reader) RawUTF16() []byte {
	if r.short {
		return nil
	}
	i := 0
	for ; i+8 <= len(r.rest); i += 8 { // four letters at once, until one is NUL
		if four := binary.LittleEndian.Uint64(r.rest[i:]); (four-0x0001000100010001)&^four&0x8000800080008000 != 0 {
			break
		}
	}
	for ; i+1 < len(r.rest); i += 2 {
		if r.rest[i] == 0 && r.rest[i+1] == 0 {
			b := r.rest[:i:i]
			r.rest = r.rest[i+2:]
			return b
		}
	}
	b := r.rest[: len(r.rest)&^1 : len(r.rest)&^1]
	r.rest = nil
	return b
}

// UTF16 is the next win:UnicodeString; what is no UTF-16 in it becomes U+FFFD.
func (r *Reader) UTF16() string { return DecodeUTF16(r.RawUTF16()) }

// DecodeUTF16 is little-endian UTF-16 as a string; a half of a surrogate pair that
// stands alone becomes U+FFFD, an odd last byte is left out.
func DecodeUTF16(b []byte) string {
	var room [512]byte // most paths fit, so that the string is the only allocation
	to := room[:0]
	for len(b) >= 2 {
		if len(b) >= 8 { // four letters at once, if they are ASCII
			if four := binary.LittleEndian.Uint64(b); four&0xff80ff80ff80ff80 == 0 {
				to = append(to, byte(four), byte(four>>16), byte(four>>32), byte(four>>48))
				b = b[8:]
				continue
			}
		}
		c := rune(binary.LittleEndian.Uint16(b))
		b = b[2:]
		if c < utf8.RuneSelf {
			to = append(to, byte(c))
			continue
		}
		if utf16.IsSurrogate(c) {
			pair := rune(utf8.RuneError)
			if len(b) >= 2 {
				pair = utf16.DecodeRune(c, rune(binary.LittleEndian.Uint16(b)))
			}
			if c = pair; c != utf8.RuneError {
				b = b[2:]
			}
		}
		to = utf8.AppendRune(to, c)
	}
	return string(to)
}
