package winacl

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"
)

// compiled is what Windows makes of a list in SDDL, as Decode reads it.
func compiled(t *testing.T, sddl string) List {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		t.Fatalf("%s: %v", sddl, err)
	}
	l, err := Decode(unsafe.Slice((*byte)(unsafe.Pointer(sd)), sd.Length()))
	if err != nil {
		t.Fatalf("%s: %v", sddl, err)
	}
	return l
}

func TestOurListsMeanWhatTheyAreToMean(t *testing.T) {
	const full, all, look = 0x1f01ff, 0xf01ff, 0x2008d
	for _, c := range []struct {
		name, sddl string
		want       []Entry
	}{
		{"Folder", Folder, []Entry{{System, full}, {Administrators, full}}},
		{"OwnFolder", OwnFolder, []Entry{{System, full}, {Administrators, full}, {ownerRights, full}}},
		{"Service", Service, []Entry{{System, all}, {Administrators, all}, {"S-1-5-4", look}, {"S-1-5-6", look}}},
	} {
		if got := compiled(t, c.sddl).Entries; !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %x, want %x", c.name, got, c.want)
		}
	}
	if who := JudgeService(compiled(t, Service)); who != "" {
		t.Errorf("%s may change the service", who)
	}
	if x := JudgeFile("", compiled(t, "O:BA"+Folder), System, nil); x != nil {
		t.Error(x)
	}
}

func TestAFolderIsMadeAndRefusedWhenUsersMayWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := MakeFolder(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Errorf("who made it cannot write: %v", err)
	}
	set := func(sddl string) {
		sd, err := windows.SecurityDescriptorFromString(sddl)
		if err != nil {
			t.Fatal(err)
		}
		dacl, _, err := sd.DACL()
		if err == nil {
			err = windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set("D:(A;OICI;FA;;;WD)")
	var x *Trouble
	if err := MakeFolder(dir); !errors.As(err, &x) || x.Kind != Writable || x.Path != dir {
		t.Errorf("where everybody may write: %v", err)
	}
	set(OwnFolder)
	if err := MakeFolder(dir); err != nil {
		t.Errorf("closed again: %v", err)
	}
	file := filepath.Join(dir, "x")
	if err := MakeFolder(file); err == nil {
		t.Error("a file passes for a folder")
	}
	if _, err := Check(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
