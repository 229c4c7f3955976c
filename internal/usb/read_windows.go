package usb

import (
	"io"
	"os"
)

// readSome reads at most limit bytes of a file.
func readSome(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(limit)))
}
