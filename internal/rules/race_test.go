//go:build race

package rules

// raceEnabled says that the race detector is on: sync.Pool then drops things at
// random, and everything takes ten times as long.
const raceEnabled = true
