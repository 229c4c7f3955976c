package volume

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sekisho/internal/event"
)

// Bounds of a look at what processes have open. Judgements: an office PC has
// some 300 processes with 40 files each, and a look takes 10 ms.
const (
	maxProcesses = 32 << 10
	maxOpen      = 1024 // files of one process
	maxNodes     = 64   // device nodes of one process
	maxArgs      = 4096 // bytes of its arguments
)

// opener is a process that has device nodes open.
type opener struct {
	pid   int
	comm  string
	args  []string
	fuse  bool     // it has /dev/fuse open, so it may answer for a mount
	nodes []string // "/dev/sdb1", "/dev/bus/usb/001/004"
}

// dull are beginnings of the names of nodes that nearly everybody has open.
var dull = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/pts/", "/dev/ptmx", "/dev/tty", "/dev/shm/", "/dev/random", "/dev/urandom", "/dev/dri/", "/dev/snd/", "/dev/input/"}

// openers returns the processes that have a device node of interest open, by
// pid. The files of processes of other people are only to be seen with privilege.
func openers(proc string) (found []opener) {
	for _, name := range someNames(proc, maxProcesses) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		o := opener{pid: pid}
		dir := filepath.Join(proc, name)
		for _, fd := range someNames(filepath.Join(dir, "fd"), maxOpen) {
			to, err := os.Readlink(filepath.Join(dir, "fd", fd))
			switch {
			case err != nil || !strings.HasPrefix(to, "/dev/"):
			case to == "/dev/fuse":
				o.fuse = true
			case len(o.nodes) < maxNodes && !hasPrefix(to, dull):
				o.nodes = append(o.nodes, to)
			}
		}
		if len(o.nodes) == 0 {
			continue
		}
		o.comm = attr(dir, "comm")
		args, _ := readUpTo(filepath.Join(dir, "cmdline"), maxArgs)
		for _, a := range bytes.Split(bytes.TrimRight(args, "\x00"), []byte{0}) {
			o.args = append(o.args, string(a))
		}
		slices.Sort(o.nodes)
		o.nodes = slices.Compact(o.nodes)
		found = append(found, o)
	}
	slices.SortFunc(found, func(a, b opener) int { return a.pid - b.pid })
	return found
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// serves says how likely it is that the process answers for a FUSE mount: 0 for
// not. The kernel does not tell who does.
func (o *opener) serves(l *mountLine) int {
	if !o.fuse {
		return 0
	}
	likely := 1
	for _, a := range o.args {
		if a == l.Mount || filepath.Base(a) == filepath.Base(l.Mount) { // it may have been called with a relative path
			likely += 4
			break
		}
	}
	// libfuse calls the type after the program; comm has 15 bytes.
	if program := strings.TrimPrefix(l.Type, "fuse."); program == o.comm || len(o.comm) == 15 && strings.HasPrefix(program, o.comm) {
		likely += 2
	}
	return likely
}

// serverBehind returns the process with device nodes that answers for a FUSE mount,
// if it can be told.
func (b *blocks) serverBehind(l *mountLine) (opener, error) {
	_, listed := fileSystems[l.Type]
	for again := false; ; again = true {
		if b.opened == nil || again {
			b.openedAgain = again
			all, err := bounded(b.guard, func() []opener { return openers(b.proc) })
			b.opened = &all
			if err != nil {
				return opener{}, fmt.Errorf("look for the program behind %s: %w", l.Mount, err)
			}
		}
		best, tie := likeliest(*b.opened, l, listed)
		switch {
		case tie:
			return opener{}, nil
		case best != nil:
			return *best, nil
		case b.openedAgain || !listed:
			return opener{}, nil
		}
		// A program goes on in the background once it has mounted: the look may have
		// listed the processes before it forked and come to it when it had ended. The
		// one that it forked is there by now.
	}
}

// likeliest returns which of some processes answers for a FUSE mount, nil for none;
// tie: it may be one or another.
func likeliest(opened []opener, l *mountLine, listed bool) (best *opener, tie bool) {
	most := 1 // having /dev/fuse open is not enough
	if !listed {
		most = 4 // nor, for what may be anything, to be called so
	}
	for i := range opened {
		o := &opened[i]
		switch n := o.serves(l); {
		case n > most:
			most, tie, best = n, false, o
		case n < most || best == nil:
		case slices.Equal(o.args, best.args) && slices.Equal(o.nodes, best.nodes):
			best = o // it goes on in the background: for a moment there are two of it, the newer one stays
		default:
			tie = true
		}
	}
	return best, tie
}

// readUpTo reads the beginning of a file.
func readUpTo(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, limit)
	n, err := io.ReadFull(f, b)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// usbNode reads bus and address from the name of a USB device's node.
func usbNode(node string) (bus, address int, ok bool) {
	rest, ok := strings.CutPrefix(node, "/dev/bus/usb/")
	b, a, both := strings.Cut(rest, "/")
	bus, err1 := strconv.Atoi(b)
	address, err2 := strconv.Atoi(a)
	return bus, address, ok && both && err1 == nil && err2 == nil
}

// ownerOf returns the uid of a process, "" if it is gone.
func ownerOf(proc string, pid int) string {
	status, err := readUpTo(filepath.Join(proc, strconv.Itoa(pid), "status"), 4<<10)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(status)) {
		if uids, ok := strings.CutPrefix(line, "Uid:"); ok { // real, effective, saved, of the file system
			if f := strings.Fields(uids); len(f) > 0 {
				return f[0]
			}
		}
	}
	return ""
}

// server is what an event tells of the process that answers for a volume.
type server struct {
	process *event.Process
	user    *event.User
}

// serverOf returns what is known of a process, nothing if it is gone.
func serverOf(proc string, pid int) (s server) {
	if exe, err := os.Readlink(filepath.Join(proc, strconv.Itoa(pid), "exe")); err == nil {
		exe = strings.TrimSuffix(exe, " (deleted)")
		s.process = &event.Process{PID: event.Some(int64(pid)), Executable: exe, Name: filepath.Base(exe)}
	}
	if uid := ownerOf(proc, pid); uid != "" {
		s.user = &event.User{ID: uid}
	}
	return s
}
