//go:build !windows

package fileaudit

import (
	"os"
	"path/filepath"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// lstat is what a file system says of a file, the last link not followed. Windows
// needs to be told on which device that is.
func lstat(path string, _ volume.Dev) (os.FileInfo, error) { return os.Lstat(path) }

// nameOf is the name of the file at a path.
func nameOf(path string) string { return filepath.Base(path) }

// shownName is a name as programs take it.
func shownName(name string) string { return name }

// program is the name of a process's program as the tables of programs have it.
func program(p *event.Process) string { return p.Name }
