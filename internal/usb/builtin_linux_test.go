package usb

import "testing"

func TestNamesBuiltIn(t *testing.T) {
	if got := builtInNames(ids{"0781", "5567"}); got.vendor != "SanDisk Corp." || got.product != "Cruzer Blade" {
		t.Errorf("0781:5567 is %+v, want SanDisk's Cruzer Blade", got)
	}
	for _, id := range []ids{{"", ""}, {"zzzz", "0000"}, {"fffe", "0001"}} {
		if got := builtInNames(id); got != (foundNames{}) {
			t.Errorf("%v is %+v, want nothing", id, got)
		}
	}
	// The system's table is newer, so it goes first; what it lacks comes from here.
	table := newNameTable([]string{"testdata/usb.ids"})
	if got := table.lookup(ids{"0951", "1666"}); got.product != "DataTraveler 100 G3/G4/SE9 G2/50 Kyson" {
		t.Errorf("0951:1666 is %+v, want the system's name", got)
	}
	if got := table.lookup(ids{"046d", "c31c"}); got.vendor != "Logitech, Inc." || got.product == "" {
		t.Errorf("046d:c31c is %+v, want the vendor of the system's table and the product of ours", got)
	}
}
