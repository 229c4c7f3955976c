package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"

	"sekisho/internal/event"
)

func TestFoldersOfSyncProgramsUnderWine(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("writes to the registry and to a profile: under Wine only")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	named := filepath.Join(home, "OneDrive - 例")
	moved := filepath.Join(t.TempDir(), "moved")
	for _, dir := range []string{named, moved} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, syncRoots+`\Dropbox!S-1-5-21-1!Personal\UserSyncRoots`, registry.WRITE)
	if err != nil {
		t.Skipf("cannot write to the registry: %v", err)
	}
	defer k.Close()
	for user, path := range map[string]string{"S-1-5-21-1": moved + `\`, "S-1-5-21-2": `C:\`, "S-1-5-21-3": `C:\no such folder`} {
		if err := k.SetStringValue(user, path); err != nil {
			t.Fatal(err)
		}
	}
	account := filepath.Join(t.TempDir(), "account")
	if err := os.MkdirAll(account, 0o700); err != nil {
		t.Fatal(err)
	}
	token := windows.GetCurrentProcessToken()
	me, err := token.GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"Business1": account, "Business2": `C:\`, "Personal": `C:\no such folder`} {
		a, _, err := registry.CreateKey(registry.USERS, me.User.Sid.String()+`\`+oneDriveAccounts+`\`+name, registry.WRITE)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := a.SetStringValue("UserFolder", path); err != nil {
			t.Fatal(err)
		}
	}
	w := New(Options{})
	w.lookForClouds()
	list, err := w.drives()
	if err != nil {
		t.Fatal(err)
	}
	w.table.set(newMounts(list))
	for path, provider := range map[string]string{named: "OneDrive", moved: "Dropbox", account: "OneDrive"} {
		v, ok := w.Table().Lookup(path + `\docs\a.xlsx`)
		if !ok || v.Kind != event.VolumeCloudSync || v.Share != provider || !v.Folder || !strings.EqualFold(v.DOSName, path) || v.FileSystemType == "" {
			t.Errorf("%s lies on %+v, %v; want a folder of %s", path, v, ok, provider)
		}
	}
	if v, _ := w.Table().Lookup(`C:\windows`); v.Kind != event.VolumeLocal {
		t.Errorf("the drive as a whole is %+v", v)
	}
	again, err := w.drives()
	if err != nil {
		t.Fatal(err)
	}
	if gone, come := compareDrives(list, again); len(gone)+len(come) > 0 {
		t.Errorf("a second look tells of %d and %d more", len(gone), len(come))
	}
	_, come := compareDrives(nil, list)
	told := 0
	for _, c := range come {
		if c.Folder && c.message == cloudFolder+c.Share {
			told++
		}
	}
	if told != 3 {
		t.Errorf("%d folders are told, want 3", told)
	}
}
