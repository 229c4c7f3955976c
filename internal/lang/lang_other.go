//go:build !windows

package lang

// system knows no more than the environment does.
func system() string { return "" }
