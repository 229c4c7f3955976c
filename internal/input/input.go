// Package input reads files that people, installers and scripts put in place:
// settings and rules. What lies there may be anything, also a thing that never
// answers.
package input

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// wait is how long a pipe may take to give all it has. Judgement: scripts hand
// generated settings over by a pipe (`check --config <(...)`), at once.
const wait = 10 * time.Second

// errNoWriter says that a pipe has nobody at its other end.
var errNoWriter = errors.New("a pipe that nobody writes to")

// ReadFile answers the first max bytes of a file. It never hangs: opening a named
// pipe without a writer would, for ever, and with it a reload of the settings of
// a running program.
func ReadFile(name string, max int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	f.SetReadDeadline(time.Now().Add(wait)) // refused for what cannot wait, such as files
	data, err := io.ReadAll(io.LimitReader(f, max))
	if err != nil {
		return nil, err
	}
	// A pipe without a writer is at its end at once; that is not an empty file.
	if st, err := f.Stat(); len(data) == 0 && err == nil && st.Mode()&fs.ModeNamedPipe != 0 {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNoWriter}
	}
	return data, nil
}
