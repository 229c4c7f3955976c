//go:build !race

package replay

// raceEnabled says that the race detector is on.
const raceEnabled = false
