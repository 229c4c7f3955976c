package enroll

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeFile replaces a file as a whole: after a crash it is the old or the new
// one. It is readable by its owner only.
func writeFile(file string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := ownAs(f, filepath.Dir(file)); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// byDPAPI says, in files, that what follows was sealed by Windows for this PC.
const byDPAPI = "dpapi"

// WriteSecret keeps a short text in a file of its own, sealed where the system can
// (Windows, by DPAPI), readable by its owner only everywhere. OpenSecret reads it.
func WriteSecret(file, text string) error {
	sealed, err := seal([]byte(text))
	if err != nil {
		return err
	}
	if sealing != "" {
		text = sealing + ":" + base64.StdEncoding.EncodeToString(sealed)
	}
	return writeFile(file, []byte(text+"\n"))
}

// OpenSecret answers the text that a file of WriteSecret holds, or one that somebody
// wrote by hand: white space around it, and the mark that Notepad puts before it,
// do not belong to it.
func OpenSecret(content string) (text string, err error) {
	text = strings.TrimSpace(strings.TrimPrefix(content, "\ufeff"))
	how, sealed, ok := strings.Cut(text, ":")
	if !ok || how != byDPAPI {
		return text, nil
	}
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return "", fmt.Errorf("sealed text: %w", err)
	}
	if b, err = unseal(how, b); err != nil {
		return "", err
	}
	return string(b), nil
}

// SealFile seals what is in a file in plain, where the system can.
func SealFile(file string) error {
	if sealing == "" {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil || strings.HasPrefix(string(b), sealing+":") {
		return err
	}
	text, err := OpenSecret(string(b))
	if err != nil {
		return err
	}
	return WriteSecret(file, text)
}

// PrivateDir makes a folder that only its owner (on Windows: the system and
// administrators) can look into; one that is there already is closed to others, and
// on Windows refused if a user could have filled it.
func PrivateDir(dir string) error { return privateDir(dir) }
