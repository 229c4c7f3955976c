package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sekisho/internal/winacl"

	"golang.org/x/sys/windows"
)

// An identity that an older version, or somebody by hand, left in plain is sealed
// when it is read.
func TestAKeyInPlainIsSealedWhenItIsRead(t *testing.T) {
	ca, dir := openCA(t, t.TempDir()), t.TempDir()
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := ca.IssueClient(&key.PublicKey, "agent-1", NewSerial(), time.Now().Add(time.Hour))
	if err == nil {
		err = save(dir, stored{AgentID: "agent-1", CA: ca.RootPEM(), Certificate: issued, Key: der, Enrolled: time.Now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as it was; as it is then
		if _, err := Load(dir); err != nil {
			t.Fatal(err)
		}
		var s stored
		b, err := os.ReadFile(filepath.Join(dir, identityFile))
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if s.Sealing != byDPAPI || bytes.Contains(s.Key, der[20:60]) {
			t.Errorf("the key is sealed by %q, or in it as it was", s.Sealing)
		}
	}
}

// A folder that users can write into is refused: a key or a spool in it could be
// theirs.
func TestAFolderThatUsersCanWriteIntoIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "identity")
	if err := PrivateDir(dir); err != nil {
		t.Fatal(err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:(A;OICI;FA;;;WD)")
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
	var x *winacl.Trouble
	if err := PrivateDir(dir); !errors.As(err, &x) {
		t.Errorf("got %v", err)
	}
}
