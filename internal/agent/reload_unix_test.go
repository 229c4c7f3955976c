//go:build unix

package agent

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
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

// A service manager may ask for it as soon as it has started the program: that must not
// end it.
func TestASIGHUPThatComesBeforeTheAgentRunsIsHeeded(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "agent.yaml")
	write(t, file, "state_dir: "+filepath.Join(dir, "state")+"\n")
	a, err := New(Options{ConfigFile: file, Version: "test", Sources: []Source{newScripted()}})
	if err != nil {
		t.Fatal(err)
	}
	before := a.Status().Settings.LoadedAt
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	r := &running{Agent: a, t: t}
	r.until("they were read again", func() bool { return a.Status().Settings.LoadedAt.After(before) })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A pipe that nobody writes to is not waited for: the reload would never end, and
// none after it would begin.
func TestAPipeAmongTheRulesIsRefused(t *testing.T) {
	dir := shortDir(t)
	r := start(t, dir, "", newScripted())
	pipe := filepath.Join(dir, "pipe.yml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 税務課}\nrules: {paths: [pipe.yml]}\n"))
	r.until("the pipe is told of", func() bool {
		return slices.ContainsFunc(r.status().Settings.Problems, func(p string) bool { return strings.Contains(p, pipe) })
	})
	write(t, r.o.ConfigFile, settingsOf(r, "host: {department: 建設課}\n"))
	r.until("good settings are in force", func() bool { return r.status().Department == "建設課" })
}
