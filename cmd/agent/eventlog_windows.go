package main

import (
	"strings"

	"sekisho/internal/agent"

	"golang.org/x/sys/windows/registry"
	"golang.org/x/sys/windows/svc/eventlog"
)

// maxNote bounds the text of one note, in bytes; Windows takes 31,839 characters.
const maxNote = 8 << 10

// note writes to the log "Application". That it cannot is no reason to stop.
func note(id uint32, text string) {
	l, err := eventlog.Open(agent.EventSource)
	if err != nil {
		return
	}
	defer l.Close()
	text = strings.ToValidUTF8(strings.ReplaceAll(text[:min(len(text), maxNote)], "\x00", ""), "")
	if id == noteFailed {
		_ = l.Error(id, text)
		return
	}
	_ = l.Info(id, text)
}

// registered reports whether Windows knows a source of events of the log
// "Application".
func registered(source string) bool {
	k, err := registry.OpenKey(registry.LOCAL_MACHINE, `SYSTEM\CurrentControlSet\Services\EventLog\Application\`+source, registry.QUERY_VALUE)
	if err != nil {
		return false
	}
	k.Close()
	return true
}
