package agent

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// systemPressure is what the kernel says of tasks that wait (PSI, Linux 4.20 and
// later, where it is on).
func systemPressure() (cpu, memory float64) {
	of := func(what string) float64 {
		b, err := os.ReadFile("/proc/pressure/" + what)
		if err != nil {
			return 0
		}
		return avg10(string(b))
	}
	return of("cpu"), of("memory")
}

// avg10 reads "some avg10=2.71 avg60=0.82 avg300=0.77 total=11076426402".
func avg10(text string) float64 {
	for field := range strings.FieldsSeq(text) {
		if v, ok := strings.CutPrefix(field, "avg10="); ok {
			x, err := strconv.ParseFloat(v, 64)
			if err != nil || !(x >= 0 && x <= 100) {
				return 0
			}
			return x
		}
	}
	return 0
}
