package enroll

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASecretComesBackAsItWas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "enroll.token")
	if err := WriteSecret(file, "sks1_abc"); err != nil {
		t.Fatal(err)
	}
	read := func() (content, text string) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text, err = OpenSecret(string(b)); err != nil {
			t.Fatal(err)
		}
		return string(b), text
	}
	content, text := read()
	if text != "sks1_abc" || strings.Contains(content, "sks1_") != (sealing == "") {
		t.Errorf("got %q of %q", text, content)
	}
	// What somebody put there is sealed where it lies.
	if err := os.WriteFile(file, []byte("\ufeff sks1_def\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := SealFile(file); err != nil {
			t.Fatal(err)
		}
		if content, text = read(); text != "sks1_def" || strings.Contains(content, "sks1_") != (sealing == "") {
			t.Errorf("got %q of %q", text, content)
		}
	}
}

func TestWhatIsSealedElsewhereIsAnError(t *testing.T) {
	for _, content := range []string{"dpapi:AQAAANCMnd8BFdERjHoAwE/Cl+s=", "dpapi:no", "dpapi:"} {
		if text, err := OpenSecret(content); err == nil {
			t.Errorf("%q: got %q", content, text)
		}
	}
}
