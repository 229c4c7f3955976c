//go:build !linux && !windows

package spool

import (
	"errors"
	"os"
)

// Other systems are not supported: Open fails at the lock.

func syncFile(f *os.File) error            { return f.Sync() }
func syncDir(string) error                 { return nil }
func syncDirOf(string) error               { return nil }
func lockFile(string) (*os.File, error)    { return nil, errors.ErrUnsupported }
func isFull(error) bool                    { return false }
func freeBytes(dir string) (uint64, error) { return 0, errors.ErrUnsupported }
