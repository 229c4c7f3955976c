package rules

import "sekisho/internal/problem"

// The codes of problems; docs/rules.md has a line on each.
const (
	CodeRead       = "RUL-01" // the file cannot be read, or is too large
	CodeYAML       = "RUL-02" // not YAML, or a part of YAML that rules may not use
	CodeKey        = "RUL-03" // unknown, double or missing key
	CodeType       = "RUL-04" // wrong type or value
	CodeField      = "RUL-05" // unknown field
	CodeModifier   = "RUL-06" // unknown modifier, or one that does not fit
	CodePattern    = "RUL-07" // pattern, regular expression, number or address that cannot be understood
	CodeCondition  = "RUL-08" // condition that cannot be understood
	CodeLogsource  = "RUL-09" // nothing here records what the rule is about
	CodeReference  = "RUL-10" // a rule that is named does not exist, or rules refer to each other in a circle
	CodeDouble     = "RUL-11" // two rules with one id or name
	CodeUnhonoured = "RUL-12" // part of Sigma that the engine does not honour
	CodeBounds     = "RUL-13" // too deep, too long, too many
	CodeSetting    = "RUL-14" // a setting that names what no rule has, or that a rule needs and is not there
)

// Problem and Problems are what is wrong with rules; File is "" for settings.
type (
	Problem  = problem.Problem
	Problems = problem.Problems
)
