package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/winacl"

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

// grant gives a file or folder the list in SDDL.
func grant(t *testing.T, path, sddl string) {
	t.Helper()
	sd, err := windows.SecurityDescriptorFromString(sddl)
	if err != nil {
		t.Fatal(err)
	}
	dacl, _, err := sd.DACL()
	if err == nil {
		err = windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, dacl, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What a user could have written decides nothing: settings, their folder, the state
// directory, a token that waits.
func TestWhatUsersMayChangeIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "Sekisho")
	settings, state, token := filepath.Join(dir, "agent.yaml"), filepath.Join(dir, "state"), filepath.Join(dir, "enroll.token")
	if err := Secure(settings, state); err != nil {
		t.Fatalf("nothing there yet: %v", err)
	}
	for _, file := range []string{settings, token} {
		if err := os.WriteFile(file, []byte("log: {level: info}\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, settings, state} {
		grant(t, path, "D:(A;OICI;FA;;;WD)")
		var x *winacl.Trouble
		if err := Secure(settings, state); !errors.As(err, &x) || x.Kind != winacl.Writable || x.Path != path {
			t.Errorf("%s: got %+v", path, x)
		}
		grant(t, path, winacl.OwnFolder)
	}
	grant(t, token, "D:(A;;FA;;;WD)")
	if _, from, err := WaitingToken(settings); err == nil || from != token {
		t.Errorf("a token that anybody may have put there: %s, %v", from, err)
	}
	if err := Secure(settings, state); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
