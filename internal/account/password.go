package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// How passwords are hashed: argon2id with RFC 9106's second recommended choice
// (64 MiB, 3 passes), with one lane so that a sign-in takes one core, about 0.1 s.
const (
	argonMemory  = 64 << 10 // KiB
	argonPasses  = 3
	argonLanes   = 1
	argonSaltLen = 16
	argonKeyLen  = 32
)

// What a password may be. The upper end keeps hashing cheap for the sender and
// for us alike; NIST SP 800-63B asks for at least 8 and at least 64 allowed.
const (
	MinPasswordLen = 10 // characters
	MaxPasswordLen = 256
)

// ErrPasswordLen says that a password is too short or too long.
var ErrPasswordLen = errors.New("a password needs 10 to 256 characters")

// hashing bounds how many passwords are hashed at once: each takes 64 MiB.
var hashing = make(chan struct{}, 2)

// HashPassword returns a PHC string of argon2id with a salt of its own. The
// error is ErrPasswordLen. Safe for concurrent use; at most two run at a time.
func HashPassword(password string) (string, error) {
	if n := utf8.RuneCountInString(password); n < MinPasswordLen || n > MaxPasswordLen {
		return "", ErrPasswordLen
	}
	salt := make([]byte, argonSaltLen)
	rand.Read(salt) // never fails (crypto/rand)
	h := phc{argonMemory, argonPasses, argonLanes, salt, nil}
	h.key = h.derive(password, argonKeyLen)
	return h.String(), nil
}

// CheckPassword reports whether password is the one that hash was made of, and
// whether hash should be made anew because it is of older parameters. A hash
// that cannot be read fits no password; CheckPassword then takes as long as for
// any other, so that the time does not tell who has an account: pass "" for
// people who do not exist.
func CheckPassword(hash, password string) (ok, old bool) {
	if len(password) > MaxPasswordLen*utf8.UTFMax {
		return false, false
	}
	h, err := parsePHC(hash)
	if err != nil {
		dummy := phc{argonMemory, argonPasses, argonLanes, make([]byte, argonSaltLen), nil}
		dummy.derive(password, argonKeyLen)
		return false, false
	}
	ok = subtle.ConstantTimeCompare(h.derive(password, uint32(len(h.key))), h.key) == 1
	old = ok && (h.memory != argonMemory || h.passes != argonPasses || h.lanes != argonLanes || len(h.key) != argonKeyLen)
	return ok, old
}

// NewPassword returns a random one-time password that can be read out and typed:
// 20 characters (98 bits) of 31 that are not mistaken for each other, in groups
// of five.
func NewPassword() string {
	const letters = "abcdefghjkmnpqrstuvwxyz23456789"
	var b strings.Builder
	one := make([]byte, 1)
	for n := 0; n < 20; {
		rand.Read(one)
		if one[0] >= 248 { // 8*31: above it the first letters would come more often
			continue
		}
		if n > 0 && n%5 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[int(one[0])%len(letters)])
		n++
	}
	return b.String()
}

// phc is an argon2id hash as its PHC string tells it.
type phc struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	salt   []byte
	key    []byte
}

func (h phc) derive(password string, n uint32) []byte {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.lanes, n)
}

func (h phc) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.lanes,
		b64.EncodeToString(h.salt), b64.EncodeToString(h.key))
}

// parsePHC reads a PHC string of argon2id. Parameters far above ours are
// refused: the string comes from the database, but a restored one may be anyone's.
func parsePHC(s string) (h phc, err error) {
	bad := func(what string) (phc, error) { return phc{}, fmt.Errorf("password hash: %s", what) }
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" {
		return bad("not argon2id in PHC form")
	}
	var version int
	if n, err := fmt.Sscanf(part[2], "v=%d", &version); n != 1 || err != nil || version != argon2.Version {
		return bad("version " + part[2])
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.lanes); n != 3 || err != nil {
		return bad("parameters " + part[3])
	}
	if h.memory < 8 || h.memory > 1<<20 || h.passes < 1 || h.passes > 16 || h.lanes < 1 {
		return bad("parameters out of range")
	}
	b64 := base64.RawStdEncoding.Strict()
	if h.salt, err = b64.DecodeString(part[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return bad("salt")
	}
	if h.key, err = b64.DecodeString(part[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return bad("key")
	}
	return h, nil
}
