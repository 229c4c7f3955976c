//go:build !windows

package fileaudit

import (
	"os"
	"path/filepath"
	"syscall"

	"sekisho/internal/event"
	"sekisho/internal/volume"
)

// lstat is what a file system says of a file, the last link not followed. Windows
// needs to be told on which device that is.
func lstat(path string, _ volume.Dev) (os.FileInfo, error) { return os.Lstat(path) }

// openDir opens a folder to list it, and nothing that somebody put in its place: a pipe
// would wait for a writer.
func openDir(dir string) (*os.File, error) {
	return os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// nameOf is the name of the file at a path.
func nameOf(path string) string { return filepath.Base(path) }

// properName is a path with the letters that the file system has.
func properName(path string) string { return path }

// folded is a path as another one to the same file may be compared with it.
func folded(path string) string { return path }

// shownName is a name as programs take it.
func shownName(name string) string { return name }

// program is the name of a process's program as the tables of programs have it.
func program(p *event.Process) string { return p.Name }
