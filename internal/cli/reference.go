package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference is the commands of a program as a chapter of docs/cli.md. Both trees
// are the program's own, made while the terminal was Japanese and English.
func Reference(ja, en *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s / %s\n", en.Name(), ja.Short, en.Short)
	var walk func(ja, en *cobra.Command)
	walk = func(ja, en *cobra.Command) {
		if !en.HasAvailableSubCommands() {
			chapter(&b, ja, en)
		}
		for i, sub := range en.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				walk(ja.Commands()[i], sub)
			}
		}
	}
	walk(ja, en)
	return b.String()
}

func chapter(b *strings.Builder, ja, en *cobra.Command) {
	fmt.Fprintf(b, "\n### `%s`\n\n%s / %s\n", strings.TrimSuffix(en.UseLine(), " [flags]"), ja.Short, en.Short)
	if en.Long != "" {
		fmt.Fprintf(b, "\n%s\n\n%s\n", oneLine(ja.Long, ""), oneLine(en.Long, " "))
	}
	var rows []string
	en.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		kind, use := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if kind != "" {
			name += " " + strings.ToUpper(kind)
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s / %s |\n", name, ja.LocalFlags().Lookup(f.Name).Usage, use))
	})
	if len(rows) > 0 {
		b.WriteString("\n| | |\n| --- | --- |\n" + strings.Join(rows, ""))
	}
	if en.Example != "" {
		b.WriteString("\n" + indent(en.Example) + "\n")
	}
}

// oneLine joins the lines of a text for a terminal.
func oneLine(s, by string) string { return strings.ReplaceAll(s, "\n", by) }

// indent makes a block of code of examples, whose lines begin with two blanks.
func indent(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("    " + strings.TrimPrefix(line, "  "))
	}
	return strings.TrimRight(b.String(), "\n")
}

// Chapter replaces the chapter between the marks of a program in a document, or
// appends it.
func Chapter(doc, program, text string) string {
	begin, end := "<!-- begin "+program+" -->\n", "<!-- end "+program+" -->\n"
	text = begin + text + end
	i, j := strings.Index(doc, begin), strings.Index(doc, end)
	if i < 0 || j < i {
		return doc + "\n" + text
	}
	return doc[:i] + text + doc[j+len(end):]
}
