package agent

import "os"

// hangups never tells: Windows has no SIGHUP.
func hangups() (<-chan os.Signal, func()) { return nil, func() {} }
