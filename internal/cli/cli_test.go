package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var errUsage = errors.New("usage")

// program is a tree with a command, and a group with one.
func program() *cobra.Command {
	root := &cobra.Command{Use: "prog", Short: "a program", SilenceErrors: true, SilenceUsage: true}
	show := &cobra.Command{Use: "show NAME", Short: "shows", Example: "  prog show x", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return nil }}
	show.Flags().Int("count", 0, "how many")
	things := &cobra.Command{Use: "things", Short: "things"}
	things.AddCommand(&cobra.Command{Use: "list", Short: "lists", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }})
	root.AddCommand(show, things)
	Finish(root, func(err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	return root
}

func TestWrongUseIsToldInTheTerminalsLanguage(t *testing.T) {
	for _, c := range []struct{ args, ja, en string }{
		{"show", "引数が正しくありません。使い方: prog show NAME", "wrong arguments; usage: prog show NAME"},
		{"show a b", "引数が正しくありません", "wrong arguments"},
		{"things list x", "引数が正しくありません", "wrong arguments"},
		{"shwo --all", `"shwo" というコマンドはありません（show ではありませんか）`, `unknown command "shwo" (did you mean show?)`},
		{"things lits", `"lits" というコマンドはありません（list ではありませんか）`, `unknown command "lits" (did you mean list?): see ` + "`prog things --help`"},
		{"zzz", "一覧は `prog --help`", "see `prog --help`"},
		{"show a --cuont 1", "--cuont という指定はありません", "unknown flag: --cuont"},
		{"show a --count", "--count には値が要ります", "flag needs an argument: --count"},
		{"show a --count x", `--count の値 "x" を読み取れません`, `invalid argument "x" for "--count" flag`},
		{"completion tcsh", "引数が正しくありません", "wrong arguments"},
		{"", "command missing", "command missing"},
		{"things", "command missing", "command missing"},
	} {
		for l, want := range map[string]string{"ja": c.ja, "en": c.en} {
			t.Setenv("SEKISHO_LANG", l)
			root := program()
			var out, errs bytes.Buffer
			root.SetOut(&out)
			root.SetErr(&errs)
			root.SetArgs(strings.Fields(c.args))
			err := root.Execute()
			if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: prog %s: got %v, want %q", l, c.args, err, want)
			}
			if out.Len() > 0 {
				t.Errorf("%s: prog %s: on standard output: %s", l, c.args, out.Bytes())
			}
		}
	}
}

func TestHelpIsInTheTerminalsLanguage(t *testing.T) {
	for _, c := range []struct {
		lang, args string
		want       []string
	}{
		{"ja", "--help", []string{"使い方:\n  prog COMMAND", "コマンド:", "completion", "この説明を表示する", "詳しくは: prog COMMAND --help"}},
		{"en", "help show", []string{"Usage:\n  prog show NAME [flags]", "Examples:\n  prog show x", "--count int", "show this help"}},
		{"en", "completion bash", []string{"__start_prog"}},
		{"en", "completion powershell", []string{"Register-ArgumentCompleter"}},
	} {
		t.Setenv("SEKISHO_LANG", c.lang)
		root := program()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(strings.Fields(c.args))
		if err := root.Execute(); err != nil {
			t.Errorf("prog %s: %v", c.args, err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: prog %s lacks %q:\n%.2000s", c.lang, c.args, w, out.String())
			}
		}
	}
}

func TestAChapterReplacesItsOwn(t *testing.T) {
	doc := Chapter(Chapter("# Doc\n", "a", "one\n"), "b", "two\n")
	if got, want := Chapter(doc, "a", "three\n"), strings.Replace(doc, "one", "three", 1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
