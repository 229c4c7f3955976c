package procwatch

import "strings"

// splitCommandLine splits a command line of Windows into arguments by the rules of
// CommandLineToArgvW and of Microsoft's C run-time before 2008, which most programs
// go by (MSDN: "CommandLineToArgvW function"). It returns at most maxArgs; the last
// one is then the rest as it stands.
func splitCommandLine(line string) []string {
	if line == "" {
		return nil
	}
	var args []string
	// The program: quotes have no backslashes before them, and end it only together
	// with a blank.
	var first, rest string
	if line[0] == '"' {
		first, rest, _ = strings.Cut(line[1:], `"`)
	} else {
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		first, rest = line[:end], line[end:]
	}
	args = append(args, first)
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return args
		}
		if len(args) == maxArgs-1 {
			return append(args, rest)
		}
		var a string
		a, rest = nextArgument(rest)
		args = append(args, a)
	}
}

// nextArgument cuts the first argument from a command line that does not begin with
// a blank: backslashes before a quote count half, and an odd one makes the quote a
// letter; two quotes in quotes are one.
func nextArgument(line string) (arg, rest string) {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case !quoted && (c == ' ' || c == '\t'):
			return b.String(), line[i:]
		case c == '\\':
			n := 0
			for i+n < len(line) && line[i+n] == '\\' {
				n++
			}
			if i += n; i < len(line) && line[i] == '"' {
				for range n / 2 {
					b.WriteByte('\\')
				}
				if n%2 == 1 {
					b.WriteByte('"')
					i++
				}
				continue
			}
			for range n {
				b.WriteByte('\\')
			}
		case c == '"':
			if quoted && i+1 < len(line) && line[i+1] == '"' {
				b.WriteByte('"')
				i += 2
				quoted = false // as CommandLineToArgvW has it: they end the quotes, too
				continue
			}
			quoted = !quoted
			i++
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String(), ""
}
