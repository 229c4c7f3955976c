package winlog

import (
	"testing"
	"unsafe"
)

// EVT_VARIANT of winevt.h has 16 bytes on every Windows.
func TestTheVariantIsAsWindowsHasIt(t *testing.T) {
	var v variant
	if s, c, k := unsafe.Sizeof(v), unsafe.Offsetof(v.count), unsafe.Offsetof(v.kind); s != 16 || c != 8 || k != 12 {
		t.Errorf("size %d, count at %d, kind at %d; want 16, 8, 12", s, c, k)
	}
}
