//go:build !windows

package config

// programData is Windows' own.
func programData() string { return "" }
