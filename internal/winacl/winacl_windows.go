package winacl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Read reads who owns a file or folder and who may do what to it, and whether it
// is a link or junction. It looks at the thing itself, never at where it leads.
func Read(path string) (l List, err error) {
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return l, err
	}
	h, err := windows.CreateFile(p, windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return l, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer windows.CloseHandle(h)
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return l, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if l, err = read(h, windows.SE_FILE_OBJECT); err != nil {
		return l, fmt.Errorf("access list of %s: %w", path, err)
	}
	l.Link = info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0
	l.Folder = info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0
	return l, nil
}

// ReadService reads who may do what to a service; the handle needs READ_CONTROL.
func ReadService(h windows.Handle) (List, error) {
	l, err := read(h, windows.SE_SERVICE)
	if err != nil {
		return l, fmt.Errorf("access list of the service: %w", err)
	}
	return l, nil
}

func read(h windows.Handle, kind windows.SE_OBJECT_TYPE) (List, error) {
	sd, err := windows.GetSecurityInfo(h, kind, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return List{}, err
	}
	if sd == nil {
		return List{}, errors.New("none was given")
	}
	return Decode(unsafe.Slice((*byte)(unsafe.Pointer(sd)), sd.Length()))
}

// Check reads the list of a file or folder; the error is a *Trouble where it cannot
// be relied on.
func Check(path string) (List, error) {
	l, err := Read(path)
	if err != nil {
		return l, err
	}
	self, err := self()
	if err != nil {
		return l, err
	}
	if t := JudgeFile(path, l, self, Name); t != nil {
		return l, t
	}
	return l, nil
}

// self is the SID of the account that this process runs under.
func self() (string, error) {
	u, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return "", fmt.Errorf("own account: %w", err)
	}
	return u.User.Sid.String(), nil
}

// Name is how Windows calls a SID, `DOMAIN\name`; the SID itself where it does not
// know.
func Name(sid string) string {
	s, err := windows.StringToSid(sid)
	if err != nil {
		return sid
	}
	account, domain, _, err := s.LookupAccount("")
	if err != nil || account == "" {
		return sid
	}
	if domain == "" {
		return account
	}
	return domain + `\` + account
}

// Elevated reports whether this process has administrator's rights.
func Elevated() bool {
	sid, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return false
	}
	member, err := windows.Token(0).IsMember(sid)
	return err == nil && member
}

// MakeFolder makes a folder that only the system and administrators get into, with
// those above it as Windows makes them. One that is there already must be safe
// (else the error is a *Trouble) and gets the same list and owner again, as does
// what inherits from it. Without administrator's rights whoever makes it is let in
// as well, and the owner stays.
func MakeFolder(path string) error {
	list, owner := OwnFolder, ""
	if Elevated() {
		list, owner = Folder, Administrators
	}
	sd, err := windows.SecurityDescriptorFromString(list)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	p, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	err = windows.CreateDirectory(p, &windows.SecurityAttributes{Length: uint32(unsafe.Sizeof(windows.SecurityAttributes{})), SecurityDescriptor: sd})
	if err != nil && !errors.Is(err, windows.ERROR_ALREADY_EXISTS) {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	l, err := Check(path)
	if err != nil {
		return err
	}
	if !l.Folder {
		return &os.PathError{Op: "mkdir", Path: path, Err: windows.ERROR_DIRECTORY}
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	what := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION)
	var to *windows.SID
	if owner != "" {
		if to, err = windows.StringToSid(owner); err != nil {
			return err
		}
		what |= windows.OWNER_SECURITY_INFORMATION
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, what, to, nil, dacl, nil); err != nil {
		return fmt.Errorf("close %s to others: %w", path, err)
	}
	return nil
}

// CloseService puts Service in force for a service; the handle needs WRITE_DAC.
func CloseService(h windows.Handle) error {
	sd, err := windows.SecurityDescriptorFromString(Service)
	if err != nil {
		return err
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return err
	}
	if err := windows.SetSecurityInfo(h, windows.SE_SERVICE, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil); err != nil {
		return fmt.Errorf("close the service to users: %w", err)
	}
	return nil
}
