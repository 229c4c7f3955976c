// Package cli is what the command lines of both programs have in common: help
// and messages in the language of the terminal, and the reference of commands
// that the documents hold.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"sekisho/internal/lang"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ErrHelp says that a command which only holds others was called without one; its
// help was printed.
var ErrHelp = errors.New("command missing")

// Finish makes a tree of commands ready: messages about wrong use and the
// furniture of help in the terminal's language, near misses suggested, and
// `completion SHELL`. usage wraps an error of wrong use as the program wants it;
// among them is ErrHelp.
func Finish(root *cobra.Command, usage func(error) error) {
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(completion())
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: lang.T("コマンドの説明を表示する", "help about a command"),
		Args:  cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			of, _, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			return of.Help()
		},
	})
	root.InitDefaultHelpCmd()
	root.SetUsageTemplate(usageTemplate())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(flagError(err)) })
	cobra.MousetrapHelpText = lang.T("コマンドプロンプトから実行してください。\n", "Run this program from a command prompt.\n")
	walk(root, func(c *cobra.Command) {
		c.Flags().BoolP("help", "h", false, lang.T("この説明を表示する", "show this help"))
		c.DisableFlagsInUseLine = !c.HasAvailableFlags()
		if c.HasSubCommands() {
			group(c, usage)
			return
		}
		check := c.Args
		if check == nil {
			check = cobra.ArbitraryArgs
		}
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usage(fmt.Errorf("%s: %s", lang.T("引数が正しくありません。使い方", "wrong arguments; usage"), c.UseLine()))
			}
			return nil
		}
	})
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		walk(sub, f)
	}
}

// group makes a command that only holds others tell which ones there are.
func group(c *cobra.Command, usage func(error) error) {
	c.SuggestionsMinimumDistance = 2
	// Flags of a command that does not exist are not the problem to tell.
	c.FParseErrWhitelist.UnknownFlags = true
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf(lang.T("%q というコマンドはありません", "unknown command %q"), args[0])
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf(lang.T("（%s ではありませんか）", " (did you mean %s?)"), strings.Join(near, ", "))
		}
		return usage(fmt.Errorf("%s: %s", text, fmt.Sprintf(lang.T("一覧は `%s --help`", "see `%s --help`"), c.CommandPath())))
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		c.SetOut(c.ErrOrStderr())
		c.Help()
		return usage(ErrHelp)
	}
}

// flagError is what is wrong with a flag.
func flagError(err error) error {
	var (
		unknown  *pflag.NotExistError
		required *pflag.ValueRequiredError
		invalid  *pflag.InvalidValueError
	)
	switch {
	case lang.Terminal() != "ja":
		return err
	case errors.As(err, &unknown):
		dash := "--"
		if unknown.GetSpecifiedShortnames() != "" {
			dash = "-"
		}
		return fmt.Errorf("%s%s という指定はありません", dash, unknown.GetSpecifiedName())
	case errors.As(err, &required):
		return fmt.Errorf("--%s には値が要ります", required.GetFlag().Name)
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s の値 %q を読み取れません: %w", invalid.GetFlag().Name, invalid.GetValue(), invalid.Unwrap())
	}
	return err
}

// shells maps a shell to what writes its completion.
var shells = map[string]func(*cobra.Command, io.Writer) error{
	"bash":       func(c *cobra.Command, w io.Writer) error { return c.GenBashCompletionV2(w, true) },
	"zsh":        func(c *cobra.Command, w io.Writer) error { return c.GenZshCompletion(w) },
	"fish":       func(c *cobra.Command, w io.Writer) error { return c.GenFishCompletion(w, true) },
	"powershell": func(c *cobra.Command, w io.Writer) error { return c.GenPowerShellCompletionWithDesc(w) },
}

func completion() *cobra.Command {
	return &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     lang.T("シェルの補完スクリプトを出力する", "print the completion script of a shell"),
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE:      func(c *cobra.Command, args []string) error { return shells[args[0]](c.Root(), c.OutOrStdout()) },
	}
}

// usageTemplate is cobra's, shorter and in the terminal's language.
func usageTemplate() string {
	return lang.T("使い方", "Usage") + `:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

` + lang.T("例", "Examples") + `:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

` + lang.T("コマンド", "Commands") + `:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

` + lang.T("指定", "Flags") + `:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

` + lang.T("詳しくは", "More") + `: {{.CommandPath}} COMMAND --help{{end}}
`
}
