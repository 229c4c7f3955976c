package volume

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// looks runs a look that is to end however long the machine takes, and reports whether
// it did.
func looks(look func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		look()
	}()
	select {
	case <-done:
		return true
	case <-time.After(30 * time.Second): // less than a lease may hold who opens its file (fs.lease-break-time)
		return false
	}
}

// The user of a home folder puts pipes in the place of a settings file and of the folders
// on the way to it, and back, again and again: a look for sync folders waits for none.
func TestAPipeInAPlaceOfAFileHoldsNobodyUp(t *testing.T) {
	for _, swapped := range []string{".dropbox/info.json", ".config", ".config/onedrive-work"} {
		t.Run(swapped, func(t *testing.T) {
			root := t.TempDir()
			home := filepath.Join(root, "home", "mallory")
			for _, dir := range []string{".dropbox", ".config/onedrive-work", "Dropbox"} {
				if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, file := range []string{".dropbox/info.json", ".config/onedrive-work/config"} {
				if err := os.WriteFile(filepath.Join(home, file), []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			place, pipe := filepath.Join(home, swapped), filepath.Join(home, "pipe")
			if err := unix.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for {
					select {
					case <-stop:
						return
					default:
						_ = unix.Renameat2(unix.AT_FDCWD, place, unix.AT_FDCWD, pipe, unix.RENAME_EXCHANGE)
					}
				}
			}()
			ended := make(chan struct{})
			ok := looks(func() {
				defer close(ended)
				for range 3000 {
					if found := findClouds(root, func(string) bool { return false }); len(found) != 1 {
						t.Errorf("found %+v, want the Dropbox", found)
						return
					}
				}
			})
			close(stop)
			<-stopped
			for !ok {
				select {
				case <-ended:
					t.Fatal("it waits for somebody to write to a pipe")
				case <-time.After(10 * time.Millisecond):
					release(place)
					release(pipe)
				}
			}
		})
	}
}

// Who holds a lease on a file is asked to give it up by whoever opens it, and has 45 s.
func TestALeaseHoldsNobodyUp(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no leases here: %v", err)
	}
	if !looks(func() { readSome(name) }) {
		t.Error("it waits for the holder")
	}
}
