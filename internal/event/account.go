package event

import "strings"

// Account is the user of an account's name as systems write it, with its domain
// or without: `EXAMPLE\tanaka`, "tanaka".
func Account(name string) User {
	if domain, name, ok := strings.Cut(name, `\`); ok {
		return User{Domain: domain, Name: name}
	}
	return User{Name: name}
}
