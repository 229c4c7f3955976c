package usb

import (
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procUnbiasedTime = windows.NewLazySystemDLL("kernel32.dll").NewProc("QueryUnbiasedInterruptTime")

// slept returns how long the PC has slept since it was started: what the clock
// that goes on in a sleep is ahead of the one that does not.
func slept() time.Duration {
	var awake uint64 // in 100 ns
	if procUnbiasedTime.Find() != nil {
		return 0
	}
	if ok, _, _ := procUnbiasedTime.Call(uintptr(unsafe.Pointer(&awake))); ok == 0 {
		return 0
	}
	return windows.DurationSinceBoot() - time.Duration(awake)*100
}
