//go:build !windows

package enroll

import (
	"fmt"
	"os"
)

// closeDir takes away what a folder that was there before may have allowed.
func closeDir(dir string) error { return os.Chmod(dir, 0o700) }

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
