package main

import (
	"context"
	"errors"
	"fmt"

	"sekisho/internal/agent"
	"sekisho/internal/config"
	"sekisho/internal/version"
)

// The ids of what the service tells the system's own log: on Windows the log
// "Application", source agent.EventSource; elsewhere the service manager tells that by
// itself. They are stable (docs/errors.md), and within 1 to 1000, for which
// Windows brings texts (EventCreate.exe).
const (
	noteStarted = 1
	noteStopped = 2
	noteFailed  = 3
)

// noted runs the service's work and notes its start, its end, and what keeps it
// from working.
func noted(ctx context.Context, work func(context.Context, func()) error) error {
	err := work(ctx, func() {
		note(noteStarted, fmt.Sprintf("関所エージェントを開始しました。版 %[1]s\nThe Sekisho agent has started, version %[1]s.", version.Version))
	})
	switch {
	case err == nil:
		note(noteStopped, "関所エージェントを停止しました。\nThe Sekisho agent has stopped.")
	case errors.Is(err, agent.ErrAgain):
		note(noteStopped, "関所エージェントを、権限を取り直すためにいったん停止しました。すぐに再び開始します。\nThe Sekisho agent has stopped to be started again with all its rights.")
	default:
		ja, en := inBoth(err)
		note(noteFailed, "関所エージェントが動けません。この PC は見張られていません。\n"+ja+"\n\nThe Sekisho agent cannot work: this PC is not watched.\n"+en)
	}
	return err
}

// inBoth is what an error says in Japanese and in English, as far as it can.
func inBoth(err error) (ja, en string) {
	var both interface {
		error
		Text(language string) string
	}
	var problems config.Problems
	switch {
	case errors.As(err, &both):
		return both.Text("ja"), both.Text("en")
	case errors.As(err, &problems) && len(problems) > 0:
		for _, p := range problems {
			ja += p.Message("ja") + "\n"
			en += p.Message("en") + "\n"
		}
		return ja, en
	}
	ja, en = err.Error(), err.Error()
	for _, c := range causes {
		if errors.Is(err, c.Err) {
			return c.JA + "（" + ja + "）", en + ": " + c.EN
		}
	}
	return ja, en
}
