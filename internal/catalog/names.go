package catalog

import (
	"strings"
	"unicode/utf8"

	"sekisho/internal/event"
)

// baseName is what follows the last separator of either system.
func baseName(path string) string {
	i := len(path)
	for i > 0 && path[i-1] != '/' && path[i-1] != '\\' {
		i--
	}
	return path[i:]
}

// lower writes s in lower case to dst, cut to the room that dst has. Only ASCII is
// folded, in the catalogue's own names too, so that nothing is allocated. The
// brackets and the space of Japanese input become the plain ones.
func lower(dst []byte, s string) []byte {
	s = s[:min(len(s), cap(dst))]
	dst = dst[:len(s)]
	n := 0
	for i := 0; i < len(s); i++ {
		b := s[i]
		switch {
		case b >= 'A' && b <= 'Z':
			b |= 0x20
		case b == 0xef && strings.HasPrefix(s[i:], "（"):
			b, i = '(', i+2
		case b == 0xef && strings.HasPrefix(s[i:], "）"):
			b, i = ')', i+2
		case b == 0xe3 && strings.HasPrefix(s[i:], "\u3000"):
			b, i = ' ', i+2
		}
		dst[n] = b
		n++
	}
	return dst[:n]
}

// trimExtension cuts what programs and installers end in. .tmp is how Inno Setup
// runs its second stage: "TeamViewer_Setup.tmp".
func trimExtension(b []byte) []byte {
	dot := lastIndex(b, '.')
	if dot <= 0 || len(b)-dot > len(".appimage") {
		return b
	}
	switch string(b[dot:]) {
	case ".exe", ".msi", ".tmp", ".com", ".scr", ".appimage", ".deb", ".rpm", ".run", ".sh", ".bin", ".app", ".jar", ".py":
		return b[:dot]
	}
	return b
}

func hasSuffix(b []byte, s string) bool { return len(b) >= len(s) && string(b[len(b)-len(s):]) == s }
func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
func contains(b []byte, s string) bool {
	for i := 0; i+len(s) <= len(b); i++ {
		if string(b[i:i+len(s)]) == s {
			return true
		}
	}
	return false
}

// decorations are words that downloads, packages and copies put behind a name.
// Words with a digit ("6.2.1", "x64", "(1)", a session id) need no entry.
var decorations = func() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(`
		amd64 arm armhf arm64 aarch64 win windows linux mac macos unix all any universal
		setup installer install portable standalone custom client host quicksupport quick support latest stable beta
		release full free trial new copy signed unattended standard debug desktop
		ja jp jpn en eng us gb de fr es it pt br ru zh cn tw ko kr multi ml intl japanese english
		コピー のコピー 日本語版 最新版`) {
		m[w] = true
	}
	return m
}()

// undecorate cuts the last decoration and what separates it; b itself if the
// last word is none.
func undecorate(b []byte) []byte {
	end := trimSeparators(b)
	i := len(end)
	for i > 0 && !separator(end[i-1]) {
		i--
	}
	if i == 0 { // one word: nothing is left without it
		return b
	}
	word := end[i:]
	if len(word) == 0 || len(word) > 32 {
		return b
	}
	digit := false
	for _, c := range word {
		digit = digit || c >= '0' && c <= '9'
	}
	if !digit && !decorations[string(word)] {
		return b
	}
	return trimSeparators(end[:i])
}

func separator(c byte) bool {
	switch c {
	case ' ', '-', '_', '.', '(', ')', '[', ']', '+', '~', '@':
		return true
	}
	return false
}

func trimSeparators(b []byte) []byte {
	for len(b) > 0 && separator(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// windowsPath reports whether a path is one of Windows.
func windowsPath(p string) bool {
	return strings.HasPrefix(p, `\`) || len(p) > 2 && p[1] == ':' && p[2] == '\\'
}

// isProgram reports whether a name ends as Windows programs and packages do;
// the globs are about those.
func isProgram(exe string) bool {
	if len(exe) < 4 {
		return false
	}
	end := exe[len(exe)-4:]
	return strings.EqualFold(end, ".exe") || strings.EqualFold(end, ".msi") || strings.EqualFold(end, ".tmp")
}

// installedRoots are where programs are installed, with "/" for separators.
// Elsewhere a folder's name says little: sources, downloads, documents.
var (
	windowsRoots = []string{"/program files/", "/program files (x86)/", "/programdata/", "/windows/"}
	posixRoots   = []string{"/opt/", "/usr/", "/var/lib/", "/applications/", "/snap/"}
)

// installed reports whether a path lies where programs are installed; below a
// home folder of Windows that is AppData.
func installed(exe string, windows bool) bool {
	if !windows {
		for _, r := range posixRoots {
			if foldPrefix(exe, r) {
				return true
			}
		}
		return false
	}
	rest := exe
	if len(exe) > 2 && exe[1] == ':' {
		rest = exe[2:]
	}
	for _, r := range windowsRoots {
		if foldPrefix(rest, r) {
			return true
		}
	}
	if foldPrefix(rest, "/users/") {
		if i := strings.IndexByte(rest[len("/users/"):], '\\'); i >= 0 {
			return foldPrefix(rest[len("/users/")+i:], "/appdata/")
		}
	}
	return false
}

// foldPrefix reports whether s begins with a prefix in lower case, without
// regard to case and kind of separator.
func foldPrefix(s, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		b := s[i]
		if b == '\\' {
			b = '/'
		} else if b >= 'A' && b <= 'Z' {
			b |= 0x20
		}
		if b != prefix[i] {
			return false
		}
	}
	return true
}

// Programs that run what their arguments name.
var (
	interpreters = map[string]bool{"sh": true, "bash": true, "dash": true, "zsh": true, "ksh": true, "perl": true, "ruby": true,
		"python": true, "node": true, "java": true, "javaw": true, "mono": true,
		"wine": true, "wine64": true, "wine-preloader": true, "wine64-preloader": true}
	installers = map[string]bool{"msiexec": true, "dpkg": true, "rpm": true}
)

// maxArguments is how many arguments of an interpreter or installer are looked at.
const maxArguments = 16

// argument looks at what an interpreter or installer was given.
func (c *Catalog) argument(stem []byte, p *event.Process) *Tool {
	program := stem
	if hasPrefix(program, "python") {
		program = program[:len("python")]
	}
	installer := installers[string(program)]
	if !installer && !interpreters[string(program)] {
		return nil
	}
	args := arguments{list: p.Args, line: p.CommandLine}
	args.next() // the program itself
	for range maxArguments {
		arg, ok := args.next()
		if !ok {
			return nil
		}
		if !installer {
			switch {
			case arg == "-jar":
				continue
			case strings.HasPrefix(arg, "-c"), arg == "-m", arg == "-e":
				return nil // code, not a file
			case strings.HasPrefix(arg, "-"):
				continue
			}
			return c.file(arg) // the script
		}
		if t := c.file(arg); t != nil && isPackage(arg) {
			return t
		}
	}
	return nil
}

// file is the tool that a file is by its name alone.
func (c *Catalog) file(path string) *Tool {
	var buf [maxName]byte
	base := lower(buf[:0], baseName(path))
	t, _ := c.name(base, trimExtension(base))
	if t == nil || !t.Controls {
		return nil
	}
	return t
}

func isPackage(arg string) bool {
	if len(arg) < 4 {
		return false
	}
	end := arg[len(arg)-4:]
	return strings.EqualFold(end, ".msi") || strings.EqualFold(end, ".deb") || strings.EqualFold(end, ".rpm")
}

// arguments goes through the list, or through the words of the command line
// where there is no list.
type arguments struct {
	list []string
	line string
	i    int
}

func (a *arguments) next() (string, bool) {
	if len(a.list) > 0 {
		if a.i >= len(a.list) {
			return "", false
		}
		a.i++
		return a.list[a.i-1], true
	}
	a.line = strings.TrimLeft(a.line, " \t")
	if a.line == "" {
		return "", false
	}
	if q := a.line[0]; q == '"' || q == '\'' {
		if end := strings.IndexByte(a.line[1:], q); end >= 0 {
			word := a.line[1 : end+1]
			a.line = a.line[end+2:]
			return word, true
		}
	}
	end := strings.IndexAny(a.line, " \t")
	if end < 0 {
		end = len(a.line)
	}
	word := a.line[:end]
	a.line = a.line[end:]
	return word, utf8.ValidString(word)
}
