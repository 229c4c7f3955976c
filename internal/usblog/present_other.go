//go:build !windows

package usblog

func present(string) bool { return false }
