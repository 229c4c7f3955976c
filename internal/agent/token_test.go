package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sekisho/internal/enroll"
)

func TestATokenThatWaitsIsTriedAndStatusSaysWhatBecameOfIt(t *testing.T) {
	token, err := enroll.NewToken([]string{"127.0.0.1:1"}, [32]byte{1}, "", 1, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	r := start(t, dir, "", newScripted())
	contact := func() (code, text string) {
		s, err := r.ctl.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Contact.Code, s.Contact.Error
	}
	if code, text := contact(); code != "" {
		t.Errorf("without a token there is trouble: %s %s", code, text)
	}
	file := filepath.Join(dir, "enroll.token")
	// Another token is tried at once, whatever became of the one before.
	for _, step := range []struct{ text, code string }{{"sks1_no", enroll.CodeToken}, {token.String(), enroll.CodeRefused}} {
		write(t, file, "\ufeff"+step.text+"\r\n")
		r.until("status says "+step.code, func() bool { code, _ := contact(); return code == step.code })
		if _, text := contact(); !strings.Contains(text, file) || strings.Contains(text, step.text) {
			t.Errorf("%q does not tell the file, or tells the token", text)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a token that may still serve is gone: %v", err)
	}
}
