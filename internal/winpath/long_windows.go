package winpath

import "golang.org/x/sys/windows"

// Long is a canonical path with the long names of its elements; the path itself
// where nobody can say. It asks the file system, which may take its time.
func Long(path string) string {
	name, err := windows.UTF16PtrFromString(Verbatim(path))
	if err != nil {
		return path
	}
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetLongPathName(name, &buf[0], uint32(len(buf)))
	if err != nil || n == 0 || int(n) > len(buf) {
		return path
	}
	return Canonical(windows.UTF16ToString(buf[:n]), nil).Path
}
