package procwatch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os/user"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/etw"
	"sekisho/internal/event"
	"sekisho/internal/winpath"
)

// systemPID is the process of the kernel; that of idling is 0.
const systemPID = 4

// windowsProcess is what Windows says of a process.
type windowsProcess struct {
	created   uint64 // FILETIME
	parent    int
	exe       string // as QueryFullProcessImageName gives it
	line      string // its command line
	folder    string // where it was started
	user      string // SID
	label     string // SID of its integrity level
	elevation uint32 // TOKEN_ELEVATION_TYPE
	session   uint32
}

var errProcessEnded = errors.New("the process ended before they could be read")

// queryProcess asks about a process. It fails if there is none, or if it can not be
// opened; what else is refused stands in errs.
func queryProcess(pid int) (x windowsProcess, errs []string, err error) {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) { // no such id
		return x, nil, errProcessEnded
	}
	if err != nil {
		return x, nil, fmt.Errorf("open process: %w", err)
	}
	defer windows.CloseHandle(h)
	if x.created, err = creation(h); err != nil {
		return x, nil, fmt.Errorf("ask when it started: %w", err)
	}
	failed := func(what string, err error) {
		if err != nil {
			errs = append(errs, what+": "+err.Error())
		}
	}
	x.exe, err = imageName(h)
	failed("read executable", err)
	var lineErr error
	x.line, lineErr = commandLineOf(h)
	failed("read account", x.readToken(h))
	_ = windows.ProcessIdToSessionId(uint32(pid), &x.session) // 0, that of services
	var basic windows.PROCESS_BASIC_INFORMATION
	if windows.NtQueryInformationProcess(h, windows.ProcessBasicInformation, unsafe.Pointer(&basic), uint32(unsafe.Sizeof(basic)), nil) == nil {
		x.parent = int(basic.InheritedFromUniqueProcessId)
		x.readParameters(pid, basic.PebBaseAddress)
	}
	if x.line == "" {
		failed("read arguments", lineErr)
	}
	return x, errs, nil
}

// creation is when a process was created, as a FILETIME.
func creation(h windows.Handle) (uint64, error) {
	var created, exited, kernel, own windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &own); err != nil {
		return 0, err
	}
	t := uint64(created.HighDateTime)<<32 | uint64(created.LowDateTime)
	if at := etw.FileTime(t); at.Year() < 2000 || time.Until(at) > 24*time.Hour { // seen under Wine
		return 0, errors.New("it is still being made")
	}
	return t, nil
}

// maxUTF16 is the most letters of a path, of a UNICODE_STRING of any kind.
const maxUTF16 = 32768

// imageName is the path of the program of a process; as the kernel names it where
// it lies on a volume that Win32 has no name for.
func imageName(h windows.Handle) (string, error) {
	name, err := imageNameAs(h, 0)
	if err != nil {
		if native, err := imageNameAs(h, processNameNative); err == nil {
			return native, nil
		}
	}
	return name, err
}

const processNameNative = 1 // PROCESS_NAME_NATIVE of winbase.h

func imageNameAs(h windows.Handle, flags uint32) (string, error) {
	for room := uint32(512); ; room = maxUTF16 {
		buf := make([]uint16, room)
		n := room
		err := windows.QueryFullProcessImageName(h, flags, &buf[0], &n)
		if errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) && room < maxUTF16 {
			continue
		}
		if err != nil {
			return "", err
		}
		return windows.UTF16ToString(buf[:min(n, room)]), nil
	}
}

// commandLineOf is the command line of a process.
func commandLineOf(h windows.Handle) (string, error) {
	// A UNICODE_STRING and what it points to: at most 64 KB.
	for room := 2048; ; room = unicodeStringSize + 2*maxUTF16 {
		buf := make([]uint64, room/8) // so that it is aligned
		var pin runtime.Pinner        // the answer points into itself
		pin.Pin(&buf[0])
		defer pin.Unpin()
		var n uint32
		err := windows.NtQueryInformationProcess(h, windows.ProcessCommandLineInformation, unsafe.Pointer(&buf[0]), uint32(room), &n)
		if err != nil && room == 2048 && (errors.Is(err, windows.STATUS_INFO_LENGTH_MISMATCH) || errors.Is(err, windows.STATUS_BUFFER_TOO_SMALL) || errors.Is(err, windows.STATUS_BUFFER_OVERFLOW)) {
			continue
		}
		if err != nil {
			return "", err
		}
		b := unsafe.Slice((*byte)(unsafe.Pointer(&buf[0])), room)
		return parseUnicodeString(b, uint64(uintptr(unsafe.Pointer(&buf[0]))))
	}
}

// readParameters reads the folder that a process was started in, and its command line
// if Windows has not told it (before 8.1), from its own memory. What may not be read
// stays empty.
func (x *windowsProcess) readParameters(pid int, peb *windows.PEB) {
	if peb == nil {
		return
	}
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.PROCESS_VM_READ, false, uint32(pid))
	if err != nil {
		return
	}
	defer windows.CloseHandle(h)
	read := func(at uint64, b []byte) bool {
		var n uintptr
		err := windows.ReadProcessMemory(h, uintptr(at), &b[0], uintptr(len(b)), &n)
		return err == nil && n == uintptr(len(b))
	}
	// PEB and RTL_USER_PROCESS_PARAMETERS of winternl.h, 64-bit: a 32-bit process has
	// these, too.
	var address [8]byte
	if !read(uint64(uintptr(unsafe.Pointer(peb)))+uint64(unsafe.Offsetof(peb.ProcessParameters)), address[:]) {
		return
	}
	text := func(offset uintptr) string {
		var s [unicodeStringSize]byte
		if !read(binary.LittleEndian.Uint64(address[:])+uint64(offset), s[:]) {
			return ""
		}
		size := int(binary.LittleEndian.Uint16(s[:])) &^ 1
		if size == 0 {
			return ""
		}
		b := make([]byte, size)
		if !read(binary.LittleEndian.Uint64(s[8:]), b) {
			return ""
		}
		return etw.DecodeUTF16(b)
	}
	var p windows.RTL_USER_PROCESS_PARAMETERS
	x.folder = text(unsafe.Offsetof(p.CurrentDirectory))
	if x.line == "" {
		x.line = text(unsafe.Offsetof(p.CommandLine))
	}
}

// Classes of information about a token (winnt.h, TOKEN_INFORMATION_CLASS); the
// answers are structures that hold a pointer to a SID behind them, or a number.
const maxTokenAnswer = 1024

// readToken reads whose rights a process has, and how far they go.
func (x *windowsProcess) readToken(h windows.Handle) error {
	var t windows.Token
	if err := windows.OpenProcessToken(h, windows.TOKEN_QUERY, &t); err != nil {
		return err
	}
	defer t.Close()
	u, err := t.GetTokenUser()
	if err != nil {
		return err
	}
	x.user = u.User.Sid.String()
	var n uint32
	var number uint32
	if windows.GetTokenInformation(t, windows.TokenElevationType, (*byte)(unsafe.Pointer(&number)), 4, &n) == nil {
		x.elevation = number
	}
	var buf [maxTokenAnswer / 8]uint64 // aligned
	var pin runtime.Pinner             // the answer points into itself
	defer pin.Unpin()
	pin.Pin(&buf)
	if windows.GetTokenInformation(t, windows.TokenIntegrityLevel, (*byte)(unsafe.Pointer(&buf[0])), maxTokenAnswer, &n) == nil {
		if sid := (*windows.Tokenmandatorylabel)(unsafe.Pointer(&buf[0])).Label.Sid; sid != nil {
			x.label = sid.String()
		}
	}
	return nil
}

// processName is the name of the file of a process, for those that have no other
// (Registry, Memory Compression).
func processName(pid int) string {
	h, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return ""
	}
	defer windows.CloseHandle(h)
	e := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err := windows.Process32First(h, &e); err == nil; err = windows.Process32Next(h, &e) {
		if int(e.ProcessID) == pid {
			return windows.UTF16ToString(e.ExeFile[:])
		}
	}
	return ""
}

// system is what a watcher knows of this Windows. Safe for concurrent use.
type system struct {
	sids     *sids
	programs *programs
	folder   string // of Windows
	trace    func() (session, error)

	mu      sync.Mutex // guards all below
	devices winpath.Names
	asked   time.Time // when devices was filled
}

// open makes what the watcher asks of Windows; u is to know its accounts.
func (r *system) open(u *users) {
	u.passwd, u.text, u.lookup = "", func(n uint32) string { return r.sids.text(n) }, lookupSID
	r.sids, r.programs, r.trace = newSIDs(), newPrograms(), trace
	r.folder, _ = windows.GetSystemWindowsDirectory()
	r.programs.identify, r.programs.version, r.programs.verify, r.programs.slow = identifyFile, versionOf, verifySignature, mayHang
}

// look has what the file of a program says of itself found out.
func (r *system) look(im *image) { im.more.program = r.programs.of(im.exe, time.Now()) }

// devicesEvery is how often a drive's device is asked for, devicesRest the least time
// between two looks: 26 questions take some 100 us.
const (
	devicesEvery = 10 * time.Second
	devicesRest  = 100 * time.Millisecond
)

// path brings a path to the form of events. An 8.3 name is made long.
func (r *system) path(p string) string {
	if p == "" {
		return ""
	}
	c := winpath.Canonical(p, nil)
	for _, old := range []time.Duration{devicesEvery, 0} { // what is not among them may have come just now
		if winpath.IsDevice(c.Path) {
			c = winpath.Canonical(p, r.drives(old))
		}
	}
	if c.Short && !mayHang(c.Path) {
		return winpath.Long(c.Path)
	}
	return c.Path
}

// drives maps devices to drives, and where Windows is to its folder, as that was no
// longer ago than old.
func (r *system) drives(old time.Duration) winpath.Names {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.devices != nil && time.Since(r.asked) < max(old, devicesRest) {
		return r.devices
	}
	devices := winpath.Names{`\systemroot`: r.folder}
	mask, _ := windows.GetLogicalDrives()
	for i := range 26 {
		if mask&(1<<i) == 0 {
			continue
		}
		drive := string(rune('A'+i)) + ":"
		name, _ := windows.UTF16PtrFromString(drive)
		var buf [1024]uint16
		if n, err := windows.QueryDosDevice(name, &buf[0], uint32(len(buf))); err == nil && n > 0 {
			devices[strings.ToLower(windows.UTF16ToString(buf[:]))] = drive
		}
	}
	r.devices, r.asked = devices, time.Now()
	return devices
}

// sids gives SIDs numbers, as other systems have for accounts: 1 and up. Safe for
// concurrent use.
type sids struct {
	mu       sync.Mutex // guards all below
	byText   map[string]uint32
	byNumber []string
}

// maxSIDs bounds what is remembered: Windows makes some accounts for each session.
const maxSIDs = 1 << 14

func newSIDs() *sids { return &sids{byText: map[string]uint32{}, byNumber: []string{""}} }

// number is that of a SID; false for none.
func (s *sids) number(sid string) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.byText[sid]
	if !ok && sid != "" && len(s.byNumber) < maxSIDs {
		n, ok = uint32(len(s.byNumber)), true
		s.byText[sid] = n
		s.byNumber = append(s.byNumber, sid)
	}
	return n, ok
}

// text is the SID with a number.
func (s *sids) text(n uint32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byNumber[n]
}

// lookupSID is the account with a SID, `DOMAIN\user`. It may ask a domain controller.
func lookupSID(id string) (string, error) {
	sid, err := windows.StringToSid(id)
	if err != nil {
		return "", err
	}
	account, domain, _, err := sid.LookupAccount("")
	if errors.Is(err, windows.ERROR_NONE_MAPPED) {
		return "", user.UnknownUserIdError(0)
	}
	if err != nil {
		return "", err
	}
	if domain == "" {
		return account, nil
	}
	return domain + `\` + account, nil
}

// mayHang reports whether a file lies on another machine, or on a medium that can be
// pulled.
func mayHang(path string) bool {
	if len(path) < 3 || path[1] != ':' {
		return true
	}
	root, err := windows.UTF16PtrFromString(path[:2] + `\`)
	return err != nil || windows.GetDriveType(root) != windows.DRIVE_FIXED
}

// identifyFile tells a file from others, and from what it was before.
func identifyFile(path string) (fileID, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return fileID{}, err
	}
	h, err := windows.CreateFile(name, windows.FILE_READ_ATTRIBUTES, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		nil, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return fileID{}, err
	}
	defer windows.CloseHandle(h)
	var i windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &i); err != nil {
		return fileID{}, err
	}
	wide := func(high, low uint32) uint64 { return uint64(high)<<32 | uint64(low) }
	return fileID{
		uint64(i.VolumeSerialNumber), wide(i.FileIndexHigh, i.FileIndexLow), wide(i.FileSizeHigh, i.FileSizeLow),
		wide(i.LastWriteTime.HighDateTime, i.LastWriteTime.LowDateTime),
	}, nil
}

var (
	versionDLL         = windows.NewLazySystemDLL("version.dll")
	versionInfoSizeEx  = versionDLL.NewProc("GetFileVersionInfoSizeExW")
	versionInfoEx      = versionDLL.NewProc("GetFileVersionInfoExW")
	errNoVersionInfo   = []error{windows.ERROR_RESOURCE_DATA_NOT_FOUND, windows.ERROR_RESOURCE_TYPE_NOT_FOUND, windows.ERROR_RESOURCE_NAME_NOT_FOUND, windows.ERROR_RESOURCE_LANG_NOT_FOUND}
	versionInfoNeutral = uintptr(0x02) // FILE_VER_GET_NEUTRAL: the file's own, not that of its translation (notepad.exe.mui)
)

// versionOf reads the version resource of a file; nil if it has none.
func versionOf(path string) (*event.PE, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	var zero uint32
	size, _, err := versionInfoSizeEx.Call(versionInfoNeutral, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&zero)))
	if size == 0 {
		for _, none := range errNoVersionInfo {
			if errors.Is(err, none) {
				return nil, nil
			}
		}
		return nil, err
	}
	b := make([]byte, min(size, 2*maxVersionInfo)) // it asks for room to convert texts in
	if ok, _, err := versionInfoEx.Call(versionInfoNeutral, uintptr(unsafe.Pointer(name)), 0, uintptr(len(b)), uintptr(unsafe.Pointer(&b[0]))); ok == 0 {
		return nil, err
	}
	return parseVersionInfo(b)
}
