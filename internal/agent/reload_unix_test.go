//go:build unix

package agent

import (
	"syscall"
	"testing"
)

func TestSIGHUPReadsTheSettingsAgain(t *testing.T) {
	r := start(t, shortDir(t), "", newScripted())
	before := r.status().Settings.LoadedAt
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.until("they were read again", func() bool { return r.status().Settings.LoadedAt.After(before) })
}
