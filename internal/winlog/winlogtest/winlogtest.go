// Package winlogtest is for the tests of those who read logs of Windows.
package winlogtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sekisho/internal/winlog"
)

// Read reads a record of testdata: XML as Windows renders it, written by hand after
// samples. Names of elements are Windows' own, people, places and devices made up.
func Read(t testing.TB, name string) *winlog.Event {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	e, err := winlog.Decode(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return e
}
