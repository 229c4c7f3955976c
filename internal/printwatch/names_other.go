//go:build !windows

package printwatch

// namesAllowed reports false: there is no such policy.
func namesAllowed() bool { return false }
