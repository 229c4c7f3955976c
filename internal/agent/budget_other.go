//go:build !linux

package agent

import (
	"os"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	p, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0
	}
	t, err := p.Times()
	if err != nil {
		return 0
	}
	return time.Duration((t.User + t.System) * float64(time.Second))
}

// systemPressure is not told by this system.
func systemPressure() (cpu, memory float64) { return 0, 0 }
