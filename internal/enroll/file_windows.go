package enroll

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"sekisho/internal/winacl"

	"golang.org/x/sys/windows"
)

func privateDir(dir string) error { return winacl.MakeFolder(dir) }

// ownAs has nothing to do: what is made in a folder inherits its access list.
func ownAs(*os.File, string) error { return nil }

// syncDir has nothing to do: Windows cannot sync a folder, NTFS logs renames.
func syncDir(string) error { return nil }

// sealing says how keys are kept: DPAPI in machine scope, so that the service
// and an administrator's command line both read them, and no other machine.
const sealing = byDPAPI

func seal(key []byte) ([]byte, error) {
	in, out := blob(key), windows.DataBlob{}
	if err := windows.CryptProtectData(in, nil, nil, 0, nil, windows.CRYPTPROTECT_LOCAL_MACHINE|windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("seal key (CryptProtectData): %w", err)
	}
	return taken(out)
}

func unseal(how string, key []byte) ([]byte, error) {
	if how == "" {
		return key, nil
	}
	if len(key) == 0 {
		return nil, errors.New("the sealed key is empty")
	}
	in, out := blob(key), windows.DataBlob{}
	if err := windows.CryptUnprotectData(in, nil, nil, 0, nil, windows.CRYPTPROTECT_UI_FORBIDDEN, &out); err != nil {
		return nil, fmt.Errorf("open sealed key (CryptUnprotectData): %w", err)
	}
	return taken(out)
}

// TrySealing seals something and opens it again.
func TrySealing() error {
	sealed, err := seal([]byte("sekisho"))
	if err != nil {
		return err
	}
	b, err := unseal(sealing, sealed)
	if err == nil && string(b) != "sekisho" {
		err = errors.New("what was sealed came back changed")
	}
	return err
}

func blob(b []byte) *windows.DataBlob {
	return &windows.DataBlob{Size: uint32(len(b)), Data: unsafe.SliceData(b)}
}

// taken copies what Windows has allocated and gives it back, without what is in it:
// it may be a key.
func taken(d windows.DataBlob) ([]byte, error) {
	theirs := unsafe.Slice(d.Data, d.Size)
	b := slices.Clone(theirs)
	clear(theirs)
	_, err := windows.LocalFree(windows.Handle(unsafe.Pointer(d.Data)))
	return b, err
}
