package agent

import (
	"strings"
	"testing"
)

func TestPressureIsReadAsTheKernelWritesIt(t *testing.T) {
	for text, want := range map[string]float64{
		"some avg10=2.71 avg60=0.82 avg300=0.77 total=11076426402\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n": 2.71,
		"some avg10=100.00 avg60=0": 100,
		"":                          0,
		"some avg10=":               0,
		"some avg10=NaN":            0,
		"some avg10=1e9":            0,
		"some avg10=-1":             0,
	} {
		if got := avg10(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if ownCPU() <= 0 {
		t.Error("a process that runs has taken no CPU")
	}
}

func FuzzAvg10(f *testing.F) {
	f.Add("some avg10=2.71 avg60=0.82 avg300=0.77 total=1")
	f.Fuzz(func(t *testing.T, s string) {
		if x := avg10(s); !(x >= 0 && x <= 100) || x != 0 && !strings.Contains(s, "avg10=") {
			t.Errorf("%q: %v", s, x)
		}
	})
}
