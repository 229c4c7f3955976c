package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// The control secret, the spools and the log lie below: other users of the PC
// must not read them, whatever the folder above lets them.
func TestTheStateDirectoryIsClosedToOtherUsers(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("Wine keeps no access lists of its own: it shows the modes of the host's files")
	}
	dir := filepath.Join(t.TempDir(), "Sekisho", "state")
	if err := os.MkdirAll(dir, 0o700); err != nil { // as enrolling leaves it
		t.Fatal(err)
	}
	if err := makeStateDir(dir); err != nil {
		t.Fatal(err)
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	for _, sid := range []string{";;;WD)", ";;;BU)", ";;;AU)"} { // everyone, users, whoever has logged in
		if strings.Contains(sd.String(), sid) {
			t.Errorf("access list %s lets %s in", sd, sid)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Errorf("the agent itself cannot write: %v", err)
	}
}
