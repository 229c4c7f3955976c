package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sekisho/internal/cli"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/lang"
	"sekisho/internal/rules"

	"github.com/spf13/cobra"
)

func explainCommand() *cobra.Command {
	var f ruleFlags
	var rule string
	var asJSON bool
	c := &cobra.Command{
		Use:     "explain EVENT.json",
		Short:   lang.T("1つのイベントに、各ルールがなぜ当てはまるか・当てはまらないか", "why each rule did or did not match an event, field by field"),
		Example: "  sekisho-agent explain event.json --rule SCAM-1\n  sed -n 42p events.jsonl | sekisho-agent explain -",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, program, _, err := f.load()
			if err != nil {
				return err
			}
			e, err := readEvent(args[0])
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			enrich.New(enrich.Options{Config: cfg}).Apply(e)
			verdicts, err := program.ExplainEvent(e, rule, lang.Terminal())
			if err != nil {
				return cli.Exit(cli.Usage, err)
			}
			if asJSON {
				return printJSON(verdicts)
			}
			return rules.WriteVerdicts(os.Stdout, verdicts, lang.Terminal())
		},
	}
	f.flags(c)
	c.Flags().StringVar(&rule, "rule", "", lang.T("このルールだけ", "this rule only"))
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}

// readEvent reads one event from a file, or standard input for "-".
func readEvent(name string) (*event.Event, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, event.MaxJSON+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	e, err := event.Decode(data)
	var de *event.DecodeError
	if errors.As(err, &de) {
		before := data[:min(de.Offset, len(data))]
		line := bytes.Count(before, []byte("\n")) + 1
		col := len([]rune(string(before[bytes.LastIndexByte(before, '\n')+1:]))) + 1
		return nil, fmt.Errorf("%s:%d:%d: %w", name, line, col, err)
	}
	return e, err
}
