//go:build !linux && !windows

package usb

import "time"

// slept is not asked here: nothing announces devices that a sleep could repeat.
func slept() time.Duration { return 0 }
