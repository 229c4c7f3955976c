//go:build !unix

package main

import "os"

// hangups never gets a value: this system has no such signal.
func hangups() (asked <-chan os.Signal, stop func()) { return nil, func() {} }
