// Package pack is the shipped rules: one file per rule of the incident table,
// and their tests in tests/. It holds data only; package rules reads it.
package pack

import "embed"

// FS holds the rule files.
//
//go:embed *.yml
var FS embed.FS

// Tests holds the rule tests, one file per rule file, under tests/.
//
//go:embed tests/*.yml
var Tests embed.FS

// Version is the version of the pack, the day of its last change.
const Version = "2026-11-22"
