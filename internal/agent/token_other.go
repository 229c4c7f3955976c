//go:build !windows

package agent

// policyToken is for Windows, which has group policy.
func policyToken() (token, from string) { return "", "" }
