package volume

import "strings"

// windowsKey brings the ways to write a place on Windows to one: `\\?\E:\x`,
// "e:/x" and `E:\x` are "E:\X"; `\\?\UNC\server\share` is `\\SERVER\SHARE`.
func windowsKey(path string) string {
	path = strings.ToUpper(strings.ReplaceAll(path, "/", `\`))
	for _, prefix := range []string{`\\?\UNC\`, `\??\UNC\`, `\DEVICE\MUP\`} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return `\\` + strings.TrimRight(rest, `\`)
		}
	}
	path = strings.TrimPrefix(strings.TrimPrefix(path, `\\?\`), `\??\`)
	return strings.TrimRight(path, `\`)
}
