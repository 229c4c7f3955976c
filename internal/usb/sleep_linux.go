package usb

import (
	"time"

	"golang.org/x/sys/unix"
)

// slept returns how long the PC has slept since it was started: what the clock
// that goes on in a sleep is ahead of the one that does not.
func slept() time.Duration {
	var all, awake unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil {
		return 0
	}
	return time.Duration(all.Nano() - awake.Nano())
}
