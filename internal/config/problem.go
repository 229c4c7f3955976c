package config

import "sekisho/internal/problem"

// Problem and Problems are what is wrong with a settings file; the codes are
// CFG-...
type (
	Problem  = problem.Problem
	Problems = problem.Problems
)
