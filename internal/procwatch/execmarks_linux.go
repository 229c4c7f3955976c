package procwatch

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// execMarks is a fanotify group that tells which files are opened for
// execution, on every file system that is mounted.
type execMarks struct {
	fd     int
	mounts *os.File // mountinfo: poll(2) tells of changes
	wg     sync.WaitGroup
	kick   chan struct{} // holds a token when the mounts changed

	mu     sync.Mutex      // guards all below
	marked map[string]bool // by device number
}

// newExecMarks marks every file system of this mount namespace. A mark on a file
// system, not on a mount, sees containers that use it as well.
func newExecMarks(procRoot string) (*execMarks, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_MARKS, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify %w: %w", errUnavailable, err)
	}
	f, err := os.Open(mountPath(procRoot))
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	m := &execMarks{fd: fd, mounts: f, kick: make(chan struct{}, 1), marked: map[string]bool{}}
	if err := m.mark("/"); err != nil {
		f.Close()
		unix.Close(fd)
		return nil, fmt.Errorf("fanotify open-exec mark on / %w: %w", errUnavailable, err)
	}
	m.wg.Go(func() {
		for range m.kick {
			m.markAll()
		}
	})
	m.remark()
	return m, nil
}

// remark has new mounts marked, elsewhere: a mount may hang.
func (m *execMarks) remark() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *execMarks) mark(point string) error {
	return unix.FanotifyMark(m.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_EXEC, unix.AT_FDCWD, point)
}

func (m *execMarks) markAll() {
	// One read tells one state; the descriptor's offset belongs to us alone.
	b, err := io.ReadAll(io.NewSectionReader(m.mounts, 0, 64<<20))
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, mt := range parseMounts(b) {
		there[mt.dev] = true
		if noPrograms[mt.fsType] {
			continue
		}
		m.mu.Lock()
		done := m.marked[mt.dev]
		m.marked[mt.dev] = true
		m.mu.Unlock()
		if done {
			continue
		}
		mark := func() {
			if m.mark(mt.point) != nil { // refused for this kind: its programs have the path that /proc tells
				return
			}
		}
		if isRemote(mt.fsType) {
			go mark() // not waited for: it may never return
		} else {
			mark()
		}
	}
	m.mu.Lock()
	for dev := range m.marked {
		if !there[dev] {
			delete(m.marked, dev) // the mark went with the file system
		}
	}
	m.mu.Unlock()
}

func (m *execMarks) close() {
	close(m.kick)
	m.wg.Wait()
	m.mounts.Close()
	unix.Close(m.fd)
}

// noPrograms are file systems from which nothing is executed or whose marks the
// kernel refuses.
var noPrograms = map[string]bool{
	"proc": true, "sysfs": true, "cgroup": true, "cgroup2": true, "devpts": true, "debugfs": true, "tracefs": true,
	"securityfs": true, "pstore": true, "bpf": true, "configfs": true, "mqueue": true, "autofs": true, "binfmt_misc": true,
	"fusectl": true, "efivarfs": true, "nsfs": true, "rpc_pipefs": true, "selinuxfs": true,
}

// remote are file systems whose server may hang: they are marked apart.
var remote = map[string]bool{"nfs": true, "nfs4": true, "cifs": true, "smb3": true, "smbfs": true, "9p": true, "ceph": true, "afs": true}

func isRemote(fsType string) bool { return remote[fsType] || strings.HasPrefix(fsType, "fuse") }
