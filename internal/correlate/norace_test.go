//go:build !race

package correlate

// racing says that the race detector is on, which makes all of it ten times as slow.
const racing = false
