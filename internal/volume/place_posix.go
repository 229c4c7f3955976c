//go:build !windows

package volume

// placeKey maps a path to what Table finds it by.
func placeKey(path string) string { return path }
