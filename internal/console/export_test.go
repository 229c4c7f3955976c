package console

// Routes are the patterns of all routes.
func Routes() (patterns []string) {
	for _, rt := range routes {
		patterns = append(patterns, rt.pattern)
	}
	return patterns
}
