package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"sekisho/internal/agent"
	"sekisho/internal/cli"
	"sekisho/internal/endpoint"
	"sekisho/internal/enroll"
	"sekisho/internal/lang"
	"sekisho/internal/rules/pack"
	"sekisho/internal/ship"
	"sekisho/internal/version"

	"github.com/mattn/go-runewidth"
	"github.com/spf13/cobra"
)

// printJSON is one document on standard output.
func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func statusCommand() *cobra.Command {
	var s settings
	var asJSON bool
	var cost time.Duration
	c := &cobra.Command{
		Use:     "status",
		Short:   lang.T("今の状態: センサー、欠落、送信待ち、コンソールとの連絡", "what each sensor does, what was lost, what waits, last contact"),
		Example: "  sekisho-agent status\n  sekisho-agent status --json\n  sekisho-agent status --cost 10s",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			ctl := agent.Dial(cfg.StateDir)
			if cost > 0 {
				parts, err := ctl.Cost(c.Context(), cost)
				if err != nil {
					return cli.Exit(cli.Failure, err)
				}
				if asJSON {
					return printJSON(parts)
				}
				printCost(os.Stdout, parts)
				return nil
			}
			st, err := ctl.Status(c.Context())
			if err != nil {
				return cli.Exit(cli.Failure, err)
			}
			if asJSON {
				return printJSON(st)
			}
			printStatus(os.Stdout, st, time.Now())
			return nil
		},
	}
	s.flag(c)
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	c.Flags().DurationVar(&cost, "cost", 0, lang.T("この時間だけ測り、センサーごとの CPU 使用率を示す（1 分まで）", "measure for so long, a minute at most, and tell the CPU of each sensor"))
	return c
}

// printCost is the CPU of each part, the dearest first.
func printCost(w io.Writer, parts map[string]float64) {
	names := slices.SortedFunc(maps.Keys(parts), func(a, b string) int { return cmp.Or(cmp.Compare(parts[b], parts[a]), cmp.Compare(a, b)) })
	for _, n := range names {
		fmt.Fprintf(w, "%s  %6.2f %%\n", runewidth.FillRight(n, 14), parts[n])
	}
}

// printStatus is the status for a person. It hides nothing that is bad.
func printStatus(w io.Writer, st endpoint.Status, now time.Time) {
	row := func(label, value string) { fmt.Fprintf(w, "%s  %s\n", runewidth.FillRight(label, 14), value) }
	row(lang.T("PC", "PC"), fmt.Sprintf("%s (%s, %s)", st.HostName, st.OS, st.OSVersion))
	row(lang.T("エージェント", "agent"), fmt.Sprintf("%s, %s %s, id %s", st.AgentVersion, lang.T("開始", "since"), ago(st.Started, now), st.AgentID))
	row(lang.T("ルール", "rules"), fmt.Sprintf(lang.T("%d 件（パック %s）", "%d (pack %s)"), st.Rules.Active, st.Rules.Pack))
	if st.Rules.Unsafe != "" {
		row("", fmt.Sprintf(lang.T("再起動すると集計の一部が失われるおそれがあります: %s", "a restart may forget part of what was counted: %s"), st.Rules.Unsafe))
	}
	if n := st.Rules.Evicted; n > 0 {
		row("", fmt.Sprintf(lang.T("数えたもののうち %d 件は、場所が足りずに忘れました", "of what was counted, %d were forgotten for want of room"), n))
	}
	row(lang.T("イベント", "events"), fmt.Sprintf(lang.T("%d 件を判定、アラート %d 件、欠落 %d 件", "%d judged, %d alerts, %d lost"), st.Events, st.AlertsRaised, st.Lost))
	for _, s := range st.Sensors {
		line := fmt.Sprintf("%s  %s", state(s.State), s.Mechanism)
		line += fmt.Sprintf(lang.T("  %d 件（毎分 %.0f）", "  %d events (%.0f a minute)"), s.Events, s.PerMinute)
		if s.Lost > 0 {
			line += fmt.Sprintf(lang.T("、欠落 %d 件", ", %d LOST"), s.Lost)
		}
		row(lang.T("センサー ", "sensor ")+s.Name, line)
		if s.Reason != "" {
			row("", s.Why(lang.Terminal()))
		}
		if c := s.Canary; c != nil {
			switch {
			case c.Problem != "":
				row("", fmt.Sprintf(lang.T("動作確認ができません: %s", "cannot be proven to see: %s"), c.Problem))
			case c.Missed > 0:
				row("", fmt.Sprintf(lang.T("動作確認に %d 回続けて反応なし。最後の反応: %s", "NOT PROVEN to see %d times in a row; the last time was %s"), c.Missed, ago(c.Seen, now)))
			default:
				row("", fmt.Sprintf(lang.T("動作確認: %s（%.0f ms で届いた）", "proven to see: %s, after %.0f ms"), ago(c.Seen, now), float64(c.Delay.Microseconds())/1000))
			}
		}
	}
	if r := st.Rights; r.Dropped || r.Problem != "" {
		row(lang.T("権限", "rights"), rights(r))
	}
	queue := func(label string, q endpoint.Queue) {
		line := fmt.Sprintf(lang.T("待ち %d 件 (%d / %d KB)", "%d waiting (%d of %d KB)"), q.Records, q.Bytes>>10, q.MaxBytes>>10)
		if !q.Oldest.IsZero() {
			line += lang.T("、最古 ", ", oldest ") + ago(q.Oldest, now)
		}
		if q.Dropped > 0 {
			line += fmt.Sprintf(lang.T("、破棄 %d 件", ", %d DROPPED"), q.Dropped)
		}
		row(label, line)
		if q.Error != "" {
			row("", q.Error)
		}
	}
	queue(lang.T("アラート送信", "alerts"), st.Alerts)
	queue(lang.T("活動記録送信", "activity"), st.Activity)
	k := st.Contact
	switch {
	case k.Console == "" && k.Code == "":
		row(lang.T("コンソール", "console"), lang.T("未登録（この PC だけで判定し、記録を溜めています）", "not enrolled: judges on this PC only and keeps what it finds"))
	case k.Code != "":
		what, next := trouble(k)
		row(lang.T("コンソール", "console"), strings.TrimSpace(fmt.Sprintf("%s  %s: %s", k.Console, k.Code, what)))
		row("", fmt.Sprintf(lang.T("%sから。最終連絡: %s", "since %s; last contact: %s"), ago(k.Since, now), ago(k.LastSuccess, now)))
		if next != "" {
			row("", "-> "+next)
		}
	default:
		row(lang.T("コンソール", "console"), fmt.Sprintf("%s  %s %s", k.Console, lang.T("最終連絡", "last contact"), ago(k.LastSuccess, now)))
	}
	if d := k.ClockOffset; d > 10*time.Second || d < -10*time.Second {
		row("", fmt.Sprintf(lang.T("この PC の時計はコンソールの時計と %v ずれています", "this PC's clock is off by %v from the console's"), d.Round(time.Second)))
	}
	for _, p := range st.Settings.Problems {
		row(lang.T("設定", "settings"), p)
	}
	for _, p := range st.Rules.Problems {
		row(lang.T("ルール", "rules"), endpoint.Why(p, lang.Terminal()))
	}
	b := st.Budget
	row(lang.T("負荷", "cost"), fmt.Sprintf(lang.T("CPU %.1f s、今 %.1f %%（上限 %d %%）、%d MB（目安 %d MB）", "CPU %.1f s, now %.1f %% (limit %d %%), %d MB (soft limit %d MB)"),
		st.CPUSeconds, b.CPUPercent, b.CPULimit, st.MemoryBytes>>20, b.MemoryLimit>>20))
	if len(b.Shedding) > 0 {
		row("", fmt.Sprintf(lang.T("上限を超えたため間引き中: %s", "OVER THE LIMIT, left out now: %s"), shedding(b.Shedding)))
	}
	if b.Shed > 0 {
		row("", fmt.Sprintf(lang.T("上限のために間引いた件数: %d", "%d left out for the limits"), b.Shed))
	}
}

// shedding is what is left out, in the terminal's language.
func shedding(what []string) string {
	names := map[string]string{"reads": lang.T("読み出し", "reads"), "writes": lang.T("書き込みとプロセスの終了", "writes and ends of processes"), "activity": lang.T("アラートにならない活動記録", "activity that raised no alert")}
	var all []string
	for _, w := range what {
		all = append(all, cmp.Or(names[w], w))
	}
	return strings.Join(all, lang.T("、", ", "))
}

// trouble is what is wrong on the way to the console, and what to do about it, in
// the terminal's language where the code is known.
func trouble(k endpoint.Contact) (what, next string) {
	if h, ok := ship.HelpOf(k.Code); ok {
		return lang.T(h.JA+"（"+k.Error+"）", k.Error), lang.T(h.NextJA, h.NextEN)
	}
	if t, ok := enroll.Codes()[k.Code]; ok {
		return lang.T(t[0]+"（"+k.Error+"）", k.Error), ""
	}
	return k.Error, ""
}

// rights is what the agent may do, and what is wrong with that.
func rights(r endpoint.Rights) string {
	line := r.User
	if r.Dropped {
		kept := lang.T("特権なし", "no privileges")
		if len(r.Capabilities) > 0 {
			kept = strings.Join(r.Capabilities, ", ")
		}
		line += lang.T("、残した特権: ", ", kept: ") + kept
		if r.Filtered {
			line += lang.T("、システムコール制限あり", "; system calls filtered")
		}
	}
	if r.Problem != "" {
		line += "  " + endpoint.Why(r.Problem, lang.Terminal())
	}
	return line
}

func state(s endpoint.SensorState) string {
	switch s {
	case endpoint.SensorOK:
		return lang.T("正常", "ok")
	case endpoint.SensorLimited:
		return lang.T("正常（この PC で見える範囲）", "ok, as far as this PC can")
	case endpoint.SensorUnavailable:
		return lang.T("この PC では使えない", "not on this PC")
	case endpoint.SensorDegraded:
		return lang.T("制限あり", "DEGRADED")
	case endpoint.SensorDown:
		return lang.T("停止", "DOWN")
	}
	return lang.T("無効", "off")
}

// ago is how long ago t was, roughly.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return lang.T("なし", "never")
	}
	d := now.Sub(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf(lang.T("%d 秒前", "%d s ago"), int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf(lang.T("%d 分前", "%d min ago"), int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf(lang.T("%d 時間前", "%d h ago"), int(d.Hours()))
	}
	return fmt.Sprintf(lang.T("%d 日前", "%d days ago"), int(d.Hours()/24))
}

func versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: lang.T("版とルールパックの版", "version and rule pack"),
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				Date    string `json:"date"`
				Go      string `json:"go"`
				Pack    string `json:"rule_pack"`
			}{version.Version, version.Commit, version.Date, runtime.Version(), pack.Version}
			if asJSON {
				return printJSON(v)
			}
			fmt.Printf("sekisho-agent %s (%s %s) %s, rule pack %s\n", v.Version, v.Commit, v.Date, v.Go, v.Pack)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, lang.T("JSON で出力する", "as one JSON document"))
	return c
}
