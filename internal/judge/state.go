package judge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sekisho/internal/alert"
)

// A kept state is one line of header (name, version, length and SHA-256 of what
// follows) and JSON. Windows of 10 minutes of one PC are some 10 to 100 KB.
const (
	stateName    = "sekisho-judge"
	stateVersion = 1
	maxState     = 256 << 20 // bytes; the windows' limits keep far below
)

// ErrState says that a kept state is torn, was made by a newer version or makes
// no sense: it is of no use and the Judge begins afresh.
var ErrState = errors.New("kept state cannot be used")

type state struct {
	Windows json.RawMessage `json:"windows"`
	Book    json.RawMessage `json:"book"`
}

// Save writes what a restart must not forget: windows and the alerts that
// repeats may join.
func (j *Judge) Save(w io.Writer) error {
	var st state
	var err error
	if st.Windows, err = j.windows.State(); err != nil {
		return err
	}
	if st.Book, err = j.book.State(); err != nil {
		return err
	}
	body, err := json.Marshal(st)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if _, err := fmt.Fprintf(w, "%s %d %d %s\n", stateName, stateVersion, len(body), hex.EncodeToString(sum[:])); err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// Restore takes over what Save wrote; the Judge must be new. The error wraps
// ErrState where the state cannot be used; the Judge is then as new.
func (j *Judge) Restore(r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return err
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	var name, sum string
	var version, length int
	if n, _ := fmt.Sscanf(string(head[:min(len(head), 200)]), "%s %d %d %s", &name, &version, &length, &sum); !ok || n != 4 || name != stateName {
		return fmt.Errorf("%w: no header", ErrState)
	}
	if version != stateVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrState, version, stateVersion)
	}
	if got := sha256.Sum256(body); length != len(body) || sum != hex.EncodeToString(got[:]) {
		return fmt.Errorf("%w: torn: %d bytes of %d, or their checksum differs", ErrState, len(body), length)
	}
	var st state
	if err := json.Unmarshal(body, &st); err != nil {
		return fmt.Errorf("%w: %v", ErrState, err)
	}
	book := alert.NewBook()
	if err := book.Restore(st.Book); err != nil {
		return fmt.Errorf("%w: %v", ErrState, err)
	}
	if err := j.windows.Restore(st.Windows); err != nil {
		return fmt.Errorf("%w: %v", ErrState, err)
	}
	j.book = book
	return nil
}

// SaveFile is Save into a file, whole or not at all.
func (j *Judge) SaveFile(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*")
	if err != nil {
		return fmt.Errorf("save judge state: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("save judge state: %w", err)
		}
	}()
	if err := j.Save(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // before the rename: Windows wants it closed
		return err
	}
	return os.Rename(f.Name(), path)
}

// LoadFile is Restore from a file. No file is no error. A file that cannot be
// used is set aside beside it (path + ".bad", over an older one) and the error
// wraps ErrState: the agent goes on afresh and says so.
func (j *Judge) LoadFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load judge state: %w", err)
	}
	err = j.Restore(f)
	f.Close()
	if errors.Is(err, ErrState) {
		if mv := os.Rename(path, path+".bad"); mv != nil {
			return fmt.Errorf("load judge state: %w; set aside: %w", err, mv)
		}
	}
	if err != nil {
		return fmt.Errorf("load judge state: %w", err)
	}
	return nil
}
