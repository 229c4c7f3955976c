package fileaudit

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sekisho/internal/volume"
)

const nativeMech = mechFanotify

// maxStack bounds how deep devices lie on one another (LUKS on a partition ...).
const maxStack = 8

// deadStates are those in which a SCSI (Documentation/ABI/testing/sysfs-bus-scsi)
// or NVMe device does not work any more.
var deadStates = []string{"cancel", "deleted", "offline", "transport-offline", "deleting", "dead"}

// attached reports whether the device of a file system is there. One that was
// pulled without unmounting leaves its file system, which goes on answering what
// it remembers; vfat says of everything else that there is no such file.
func attached(sysRoot string, v *volume.Volume) bool {
	if v.Dev.Major == 0 {
		return true // no block device
	}
	return present(filepath.Join(sysRoot, fmt.Sprintf("dev/block/%d:%d", v.Dev.Major, v.Dev.Minor)), 0)
}

func present(dir string, depth int) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return !os.IsNotExist(err)
	}
	for _, at := range []string{"device/state", "../device/state"} { // of a disk, of its partition
		b, err := os.ReadFile(filepath.Join(dir, at))
		if err == nil && slices.Contains(deadStates, strings.TrimSpace(string(b))) {
			return false
		}
	}
	below, _ := os.ReadDir(filepath.Join(dir, "slaves"))
	for _, d := range below {
		if depth < maxStack && !present(filepath.Join(dir, "slaves", d.Name()), depth+1) {
			return false
		}
	}
	return true
}
