//go:build !linux

package volume

// waiting has nothing to do with where Run waits: it takes what it is asked there.
type waiting struct{}

func (waiting) hurry() {}
