//go:build !windows

package procwatch

// system is what the watcher asks of Windows.
type system struct{}

// setUp has nothing to do: /proc and the kernel are asked directly.
func (w *Watcher) setUp() {}
