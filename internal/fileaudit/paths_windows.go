package fileaudit

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/event"
	"sekisho/internal/volume"
	"sekisho/internal/winpath"
)

// facts of a file, as a handle tells them.
type fileFacts struct {
	name    string
	size    int64
	mode    fs.FileMode
	written time.Time
	born    time.Time
	dev     volume.Dev
	id      uint64

	attributes uint32
}

func (f *fileFacts) Name() string       { return f.name }
func (f *fileFacts) Size() int64        { return f.size }
func (f *fileFacts) Mode() fs.FileMode  { return f.mode }
func (f *fileFacts) ModTime() time.Time { return f.written }
func (f *fileFacts) IsDir() bool        { return f.mode.IsDir() }
func (f *fileFacts) Sys() any           { return f }

// openFacts opens a file, or a stream of one, to ask of it what no rights to its
// content are needed for. Others may do with it meanwhile what they like.
func openFacts(path string, access uint32) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(winpath.Verbatim(path))
	if err != nil {
		return 0, err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	return windows.CreateFile(name, access, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
}

// lstat is what a file system says of a file, the last link not followed. The
// device is that of the volume: a handle knows the volume's serial number only.
func lstat(path string, dev volume.Dev) (os.FileInfo, error) {
	h, err := openFacts(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer windows.CloseHandle(h)
	f, err := factsOf(h, dev)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	f.name = nameOf(path)
	return f, nil
}

func factsOf(h windows.Handle, dev volume.Dev) (*fileFacts, error) {
	var x windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &x); err != nil {
		return nil, err
	}
	var tag struct{ attributes, tag uint32 } // FILE_ATTRIBUTE_TAG_INFO
	if x.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		if err := windows.GetFileInformationByHandleEx(h, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&tag)), uint32(unsafe.Sizeof(tag))); err != nil {
			return nil, err
		}
	}
	f := &fileFacts{
		size: int64(x.FileSizeHigh)<<32 | int64(x.FileSizeLow), id: uint64(x.FileIndexHigh)<<32 | uint64(x.FileIndexLow), dev: dev, attributes: x.FileAttributes,
		written: time.Unix(0, x.LastWriteTime.Nanoseconds()), born: time.Unix(0, x.CreationTime.Nanoseconds()),
	}
	switch {
	case tag.tag&tagSurrogate != 0:
		f.mode = fs.ModeSymlink
	case x.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0:
		f.mode = fs.ModeDir
	}
	return f, nil
}

// identity is the device and the number of a file that lstat told of.
func identity(fi os.FileInfo) (volume.Dev, uint64) {
	if f, ok := fi.Sys().(*fileFacts); ok {
		return f.dev, f.id
	}
	return volume.Dev{}, 0
}

// changeTime is when a file was written or made, whichever is later: a copy keeps
// the time of its source's last write, but not that of its making.
func changeTime(fi os.FileInfo) time.Time {
	t := fi.ModTime()
	var born time.Time
	switch x := fi.Sys().(type) {
	case *fileFacts:
		born = x.born
	case *syscall.Win32FileAttributeData:
		born = time.Unix(0, x.CreationTime.Nanoseconds())
	}
	if born.After(t) {
		return born
	}
	return t
}

// attached reports whether a volume is there: where it is not, there are no files
// either, which does not mean that they were deleted.
func attached(_ string, v *volume.Volume) bool {
	name, err := windows.UTF16PtrFromString(winpath.Verbatim(mountOf(v)))
	if err != nil {
		return false
	}
	_, err = windows.GetFileAttributes(name)
	return err == nil
}

// nameOf is the name of the file at a path, also of one that has a stream.
func nameOf(path string) string { return filepath.Base(winpath.WithoutStream(path)) }

// properName is a path with the letters, and the long names, that the file system has.
func properName(path string) string {
	h, err := openFacts(path, windows.FILE_READ_ATTRIBUTES)
	if err != nil {
		return path
	}
	defer windows.CloseHandle(h)
	if name, err := finalName(h); err == nil && winpath.IsDrive(name) {
		return name
	}
	return path
}

// folded is a path as another one to the same file may be compared with it. Letters
// that are not ASCII keep their case: few programs write them other than they are.
func folded(path string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r | 0x20
		}
		return r
	}, path)
}

// shownName is a name as Win32 takes it, without what it cannot see at its end.
func shownName(name string) string { return strings.TrimRight(name, ". ") }

// program is the name of a process's program as the tables of programs have it.
func program(p *event.Process) string {
	return strings.TrimSuffix(strings.ToLower(p.Name), ".exe")
}

// finalName is the name of an open file with its letters' true case.
func finalName(h windows.Handle) (string, error) {
	buf := make([]uint16, windows.MAX_LONG_PATH)
	n, err := windows.GetFinalPathNameByHandle(h, &buf[0], uint32(len(buf)), 0) // FILE_NAME_NORMALIZED | VOLUME_NAME_DOS
	if err != nil {
		return "", err
	}
	if n == 0 || int(n) > len(buf) {
		return "", errors.New("name too long")
	}
	return winpath.Canonical(windows.UTF16ToString(buf[:n]), nil).Path, nil
}

// openDir opens a folder to list it.
func openDir(dir string) (*os.File, error) { return os.Open(dir) }
