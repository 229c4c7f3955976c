package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/lang"

	"github.com/google/uuid"
	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

func selftestCommand() *cobra.Command {
	var s settings
	var asJSON bool
	var through, id string
	var within time.Duration
	c := &cobra.Command{
		Use:   "selftest",
		Short: lang.T("試験のイベントをセンサー、ルール、記録、コンソールの順に通し、各段の時間を示す", "a marked test event through sensor, rule, spool and console; time per hop"),
		Long: lang.T("何もしないプロセスを1つ起動し、センサーがそれを見て、ルールがアラートを上げ、記録され、\n（--through console なら）コンソールが受け取るまでを確かめる。アラートは「試験」と明示される。",
			"Starts a process that does nothing and follows it: seen by the sensor, judged by a rule, kept on disk\nand, with --through console, received by the console. The alert is marked as a test."),
		Example: "  sekisho-agent selftest\n  sekisho-agent selftest --through console",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if through != "" && through != "console" && through != "spool" {
				return cli.Exit(cli.Usage, fmt.Errorf(lang.T("--through %q: spool か console を指定してください", "--through %q: want spool or console"), through))
			}
			cfg, err := s.load()
			if err != nil {
				return err
			}
			ctx, stop := cli.UntilStopped(c)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			h, err := selftest(ctx, agent.Dial(cfg.StateDir), id, through == "console")
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			ok := !h.Spooled.IsZero() && (through != "console" || !h.Shipped.IsZero())
			if asJSON {
				if err := printJSON(h); err != nil {
					return err
				}
			} else {
				printHops(os.Stdout, h, through == "console")
			}
			if !ok {
				return cli.Exit(cli.Found, nil)
			}
			return nil
		},
	}
	s.flag(c)
	c.Flags().StringVar(&through, "through", "spool", lang.T("どこまで確かめるか: spool または console", "how far: spool or console"))
	c.Flags().StringVar(&id, "id", "", lang.T("試験の UUID（繰り返しても同じアラートになる）", "UUID of the test (the same one gives the same alert)"))
	c.Flags().DurationVar(&within, "within", 30*time.Second, lang.T("待つ時間の上限", "how long to wait"))
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}

// selftest announces a canary, starts it, and follows it until ctx ends.
func selftest(ctx context.Context, ctl *agent.Control, id string, throughConsole bool) (agent.Hops, error) {
	if id == "" {
		id = uuid.NewString()
	}
	if err := ctl.Expect(ctx, id); err != nil {
		return agent.Hops{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return agent.Hops{}, err
	}
	// The canary lives until its standard input is closed, so that sensors that
	// poll can see it too.
	canary := exec.Command(self, agent.CanaryCommand, id)
	in, err := canary.StdinPipe()
	if err != nil {
		return agent.Hops{}, err
	}
	if err := canary.Start(); err != nil {
		return agent.Hops{}, fmt.Errorf("start the canary: %w", err)
	}
	defer canary.Wait()
	defer in.Close()
	for {
		h, err := ctl.Hops(ctx, id, throughConsole)
		end, _ := ctx.Deadline()
		if err != nil || !h.Shipped.IsZero() || !throughConsole && !h.Spooled.IsZero() || time.Until(end) < time.Second {
			return h, err // how far it came is the answer
		}
	}
}

// printHops tells when the canary passed each station, counted from its start.
func printHops(w io.Writer, h agent.Hops, throughConsole bool) {
	from := h.Started
	if from.IsZero() {
		from = h.Announced
	}
	hop := func(label string, t time.Time) {
		text := lang.T("届いていない", "NOT REACHED")
		if !t.IsZero() {
			text = fmt.Sprintf("%8.1f ms", float64(t.Sub(from).Microseconds())/1000)
		}
		fmt.Fprintf(w, "%s  %s\n", runewidth.FillRight(label, 26), text)
	}
	if h.Sensor != "" {
		fmt.Fprintf(w, "%s %s\n", lang.T("センサー:", "sensor:"), h.Sensor)
	}
	hop(lang.T("センサーが見た", "seen by the sensor"), h.Seen)
	hop(lang.T("ルールがアラートを上げた", "alert raised by a rule"), h.Judged)
	hop(lang.T("ディスクに記録した", "kept on disk"), h.Spooled)
	if throughConsole {
		hop(lang.T("コンソールが受け取った", "received by the console"), h.Shipped)
	}
}

// canaryCommand is what a self-test starts. It does nothing but be seen, and
// ends when its standard input is closed, or after a while.
func canaryCommand() *cobra.Command {
	return &cobra.Command{
		Use:    agent.CanaryCommand + " NONCE [FILE]",
		Short:  lang.T("自己診断が起動する、何もしないプロセス", "what a self-test starts; does nothing but write the file"),
		Hidden: true,
		Args:   cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := agent.PlayCanary(args, os.Stdin); err != nil {
				return cli.Exit(cli.Failure, err)
			}
			return nil
		},
	}
}
