//go:build !windows

package enroll

import (
	"fmt"
	"os"
	"syscall"
)

// ownAs gives a file that root has made to the owner of its folder: what an
// administrator does on the command line must not lock out the service.
func ownAs(f *os.File, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
		return f.Chown(int(sys.Uid), int(sys.Gid))
	}
	return nil
}

// privateDir takes away what a folder that was there before may have allowed.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Where the file's mode is all there is, keys are kept as they are.
const sealing = ""

func seal(key []byte) ([]byte, error) { return key, nil }

func unseal(how string, key []byte) ([]byte, error) {
	if how != "" {
		return nil, fmt.Errorf("its key is sealed by %.20q, which is another system's", how)
	}
	return key, nil
}
