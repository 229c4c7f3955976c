package enroll

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Token is what lets PCs enrol: one word that IT hands out.
//
// It is written as "sks1_" and unpadded base64url of these bytes:
//
//	2  length of all that follows, big-endian: tells a token that was cut off
//	8  id
//	16 secret
//	32 pin
//	4  expiry, Unix seconds
//	2  uses
//	1+n department
//	1  number of addresses, then 1+n each
//	4  start of the SHA-256 of all before: tells a mistyped one
type Token struct {
	ID         string    // 16 hex digits; public
	Secret     [16]byte  // never logged
	Pin        [32]byte  // of the console's root, see PinOf
	Addresses  []string  // of the console, "host:port", tried in order
	Department string    // that the PCs belong to; may be empty
	Uses       int       // how many PCs may enrol
	Expires    time.Time // whole seconds
}

const tokenPrefix = "sks1_"

// Limits of a token: it has to be pasted.
const (
	maxAddresses = 8
	maxTokenText = 4096
)

// NewToken makes a token with an id and a secret of its own. The error says
// which value does not fit in one.
func NewToken(addresses []string, pin [32]byte, department string, uses int, expires time.Time) (*Token, error) {
	t := &Token{Pin: pin, Addresses: addresses, Department: department, Uses: uses, Expires: expires.UTC().Truncate(time.Second)}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("make enrolment token: %w", err)
	}
	var id [8]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	rand.Read(t.Secret[:])
	t.ID = hex.EncodeToString(id[:])
	return t, nil
}

func (t *Token) check() error {
	switch {
	case len(t.Addresses) == 0 || len(t.Addresses) > maxAddresses:
		return fmt.Errorf("%d addresses, want 1 to %d", len(t.Addresses), maxAddresses)
	case t.Uses < 1 || t.Uses > 65535:
		return fmt.Errorf("%d uses, want 1 to 65,535", t.Uses)
	case len(t.Department) > 200 || !plain(t.Department):
		return errors.New("department: longer than 200 bytes or with control characters")
	case t.Expires.Unix() < 0 || t.Expires.Unix() >= 1<<32:
		return fmt.Errorf("expiry %s is out of range", t.Expires)
	}
	for _, a := range t.Addresses {
		host, port, err := net.SplitHostPort(a)
		n, err2 := strconv.Atoi(port)
		if err != nil || err2 != nil || n < 1 || n > 65535 || host == "" || len(a) > 255 || !plain(a) || strings.ContainsAny(host, "/@?# ") {
			return fmt.Errorf("address %.60q: want host:port", a)
		}
	}
	return nil
}

func plain(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// SecretText is the secret as it is sent.
func (t *Token) SecretText() string { return hex.EncodeToString(t.Secret[:]) }

// SecretHash is what the console keeps of a secret as it is sent.
func SecretHash(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// String is the whole token, secret included.
func (t *Token) String() string {
	b := make([]byte, 2, 128)
	id, _ := hex.DecodeString(t.ID)
	b = append(b, id...)
	b = append(b, t.Secret[:]...)
	b = append(b, t.Pin[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(t.Expires.Unix()))
	b = binary.BigEndian.AppendUint16(b, uint16(t.Uses))
	text := func(s string) { b = append(append(b, byte(len(s))), s...) }
	text(t.Department)
	b = append(b, byte(len(t.Addresses)))
	for _, a := range t.Addresses {
		text(a)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2+4))
	sum := sha256.Sum256(b)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:4]...))
}

// ParseToken reads a token as people paste it: blanks, line ends and quotes in
// it do not count. The error is an *Error of CodeToken that tells what is wrong.
func ParseToken(text string) (*Token, error) {
	t, err := parseToken(text)
	if err != nil {
		return nil, newError(CodeToken, err)
	}
	return t, nil
}

func parseToken(text string) (*Token, error) {
	if len(text) > 2*maxTokenText {
		return nil, errors.New("far too long")
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '"' || r == '\'' || r == '\ufeff' {
			return -1
		}
		return r
	}, text)
	switch {
	case text == "":
		return nil, errors.New("it is empty")
	case len(text) < len(tokenPrefix) && strings.HasPrefix(tokenPrefix, text):
		return nil, errors.New("it is cut off")
	case !strings.HasPrefix(text, tokenPrefix):
		return nil, fmt.Errorf("it does not begin with %s", tokenPrefix)
	}
	text = strings.TrimRight(text[len(tokenPrefix):], "=")
	if i := strings.IndexFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	}); i >= 0 {
		return nil, fmt.Errorf("character %d does not belong in one", len(tokenPrefix)+i+1)
	}
	// A last single character of base64 says nothing; one appears where a paste was cut.
	b, err := base64.RawURLEncoding.DecodeString(text[:len(text)-b2i(len(text)%4 == 1)])
	if err != nil {
		return nil, errors.New("it was mistyped or altered")
	}
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return nil, fmt.Errorf("it is cut off after %d characters", len(tokenPrefix)+len(text))
	}
	if len(b)-2 > int(binary.BigEndian.Uint16(b)) {
		return nil, errors.New("something follows its end")
	}
	if len(b) < 6 {
		return nil, errors.New("it was mistyped or altered")
	}
	body := b[:len(b)-4]
	if sum := sha256.Sum256(body); subtle.ConstantTimeCompare(sum[:4], b[len(b)-4:]) != 1 {
		return nil, errors.New("it was mistyped or altered")
	}
	return decodeToken(body[2:])
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func decodeToken(b []byte) (*Token, error) {
	t := new(Token)
	short := false
	take := func(n int) []byte {
		if len(b) < n {
			short = true
			return make([]byte, n)
		}
		v := b[:n]
		b = b[n:]
		return v
	}
	t.ID = hex.EncodeToString(take(8))
	copy(t.Secret[:], take(16))
	copy(t.Pin[:], take(32))
	t.Expires = time.Unix(int64(binary.BigEndian.Uint32(take(4))), 0).UTC()
	t.Uses = int(binary.BigEndian.Uint16(take(2)))
	t.Department = string(take(int(take(1)[0])))
	n := int(take(1)[0])
	for range min(n, maxAddresses+1) {
		t.Addresses = append(t.Addresses, string(take(int(take(1)[0]))))
	}
	if short || len(b) > 0 {
		return nil, errors.New("its parts do not fit together")
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}
