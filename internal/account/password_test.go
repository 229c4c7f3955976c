package account

import (
	"errors"
	"strings"
	"testing"
)

func TestPasswords(t *testing.T) {
	hash, err := HashPassword("ひみつのことばです1234")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Errorf("got %q, want a PHC string of argon2id", hash)
	}
	again, _ := HashPassword("ひみつのことばです1234")
	if hash == again {
		t.Error("two hashes of one password are the same: the salt is not random")
	}
	older := phc{8 << 10, 1, 1, []byte("12345678"), nil}
	older.key = older.derive("correct horse", 32)
	tests := []struct {
		name, hash, password string
		ok, old              bool
	}{
		{"the right one", hash, "ひみつのことばです1234", true, false},
		{"a wrong one", hash, "ひみつのことばです1235", false, false},
		{"an empty one", hash, "", false, false},
		{"of older parameters", older.String(), "correct horse", true, true},
		{"wrong and of older parameters", older.String(), "correct cow", false, false},
		{"no such user", "", "anything", false, false},
		{"a hash that is none", "$2b$12$abc", "anything", false, false},
		{"parameters out of range", "$argon2id$v=19$m=4294967295,t=3,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "x", false, false},
		{"a password of a megabyte", hash, strings.Repeat("a", 1<<20), false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ok, old := CheckPassword(tt.hash, tt.password)
			if ok != tt.ok || old != tt.old {
				t.Errorf("got %v, %v, want %v, %v", ok, old, tt.ok, tt.old)
			}
		})
	}
	for _, bad := range []string{"", "short", strings.Repeat("字", MaxPasswordLen+1)} {
		if _, err := HashPassword(bad); !errors.Is(err, ErrPasswordLen) {
			t.Errorf("a password of %d bytes: got %v, want ErrPasswordLen", len(bad), err)
		}
	}
}

func TestNewPasswordsCanBeUsedAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		p := NewPassword()
		if len(p) != 23 || strings.Count(p, "-") != 3 || strings.ContainsAny(p, "0oO1lI") {
			t.Fatalf("got %q, want four groups of five letters that are not mistaken", p)
		}
		if seen[p] {
			t.Fatalf("%q came twice", p)
		}
		seen[p] = true
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := parsePHC(s); err == nil {
			if _, err := parsePHC(h.String()); err != nil {
				t.Errorf("%q was read, but not what it says: %v", s, err)
			}
		}
	})
}
