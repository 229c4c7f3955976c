package enroll

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func testToken(t testing.TB) *Token {
	t.Helper()
	tok, err := NewToken([]string{"console.example.jp:8443", "[2001:db8::1]:8443"}, [32]byte{1, 2, 3}, "総務課", 500, time.Date(2026, 12, 1, 0, 0, 0, 5, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestATokenIsReadAsItWasMade(t *testing.T) {
	tok := testToken(t)
	text := tok.String()
	if !strings.HasPrefix(text, "sks1_") || len(text) > 250 {
		t.Errorf("got %d characters %q", len(text), text)
	}
	// As people paste it: quoted, with a line end, wrapped by a mail program.
	for _, s := range []string{text, text + "\r\n", `"` + text + `"`, text[:70] + "\n  " + text[70:], "\ufeff" + text} {
		got, err := ParseToken(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if !reflect.DeepEqual(got, tok) {
			t.Errorf("got %+v, want %+v", got, tok)
		}
	}
	if SecretHash(tok.SecretText()) == SecretHash(testToken(t).SecretText()) {
		t.Error("two tokens have the same secret")
	}
}

func TestTokensThatCannotBeReadSayWhy(t *testing.T) {
	text := testToken(t).String()
	tests := []struct{ name, token, want string }{
		{"nothing", " \n", "empty"},
		{"something else", "skt1_abcdef", "does not begin with sks1_"},
		{"the prefix alone", "sks1_", "cut off after 5 characters"},
		{"part of the prefix", "sks", "cut off"},
		{"a letter too few", text[:len(text)-1], "cut off"},
		{"half of it", text[:len(text)/2], "cut off"},
		{"a letter changed", text[:40] + flip(text[40]) + text[41:], "mistyped or altered"},
		{"twice", text + text[5:], "something follows"},
		{"a full-width letter", text[:20] + "ａ" + text[21:], "character 21 "},
		{"far too long", "sks1_" + strings.Repeat("A", 100000), "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseToken(tt.token)
			var e *Error
			if !errors.As(err, &e) || e.Code != CodeToken || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %s with %q", err, CodeToken, tt.want)
			}
			if strings.Contains(err.Error(), text[10:40]) {
				t.Error("the error gives the token away")
			}
		})
	}
	// Cut at any place it is told as cut off, not as altered.
	for i := len(tokenPrefix); i < len(text); i++ {
		if _, err := ParseToken(text[:i]); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("cut after %d characters: got %v", i, err)
		}
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestTokensOfBadPartsAreNotMade(t *testing.T) {
	ok, later := []string{"c:8443"}, time.Now().Add(time.Hour)
	for name, f := range map[string]func() (*Token, error){
		"no address":        func() (*Token, error) { return NewToken(nil, [32]byte{}, "", 1, later) },
		"a URL":             func() (*Token, error) { return NewToken([]string{"https://c:8443"}, [32]byte{}, "", 1, later) },
		"no port":           func() (*Token, error) { return NewToken([]string{"c"}, [32]byte{}, "", 1, later) },
		"a port of 0":       func() (*Token, error) { return NewToken([]string{"c:0"}, [32]byte{}, "", 1, later) },
		"no uses":           func() (*Token, error) { return NewToken(ok, [32]byte{}, "", 0, later) },
		"too many uses":     func() (*Token, error) { return NewToken(ok, [32]byte{}, "", 1<<16, later) },
		"control character": func() (*Token, error) { return NewToken(ok, [32]byte{}, "a\x1b[2J", 1, later) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: a token was made", name)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(testToken(f).String())
	f.Add("sks1_AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(tok.String())
		if err != nil || !reflect.DeepEqual(tok, again) {
			t.Errorf("%q was read as %+v, written and read as %+v (%v)", s, tok, again, err)
		}
	})
}

// The bytes behind the checksum, which the fuzzer above seldom gets past.
func FuzzDecodeToken(f *testing.F) {
	f.Add(make([]byte, 70))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tok, err := decodeToken(b); err == nil {
			if _, err := ParseToken(tok.String()); err != nil {
				t.Errorf("%x was taken, but what it says was not: %v", b, err)
			}
		}
	})
}
