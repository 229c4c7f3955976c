//go:build !linux && !windows

package procwatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v3/process"
)

// watchNative: there is no better mechanism on this system.
func (w *Watcher) watchNative(context.Context, *queue) error {
	return fmt.Errorf("better mechanism %w: %w", errUnavailable, errNotHere)
}

// read reads one process; its parent's part is left open.
func (w *Watcher) read(pid int) (reading, bool) {
	ps, err := process.NewProcess(int32(pid))
	if err != nil || pid == 0 {
		return reading{}, false
	}
	ms, err := ps.CreateTime()
	if err != nil {
		return reading{}, false // ended
	}
	if ms <= 0 { // still being made: it has no start yet, and the next look finds it whole
		return reading{}, false
	}
	var x reading
	im := &image{pid: pid, ticks: uint64(ms), started: time.UnixMilli(ms).UTC(), entity: entityID("", pid, uint64(ms))}
	if im.exe, err = ps.Exe(); err != nil || im.exe == "" {
		im.name, _ = ps.Name()
		x.errs = append(x.errs, fmt.Sprintf("read executable: %v", err))
	} else {
		im.name = im.exe[strings.LastIndexAny(im.exe, `\/`)+1:]
	}
	if args, err := ps.CmdlineSlice(); err != nil {
		x.errs = append(x.errs, fmt.Sprintf("read arguments: %v", err))
	} else if len(args) > 0 {
		x.raw = strings.Join(args, "\x00") + "\x00"
		if len(x.raw) > maxBytes {
			x.raw = x.raw[:maxBytes]
			x.errs = append(x.errs, fmt.Sprintf("read arguments: cut at %d bytes", maxBytes))
		}
	}
	im.setArgs(x.raw)
	im.cwd, _ = ps.Cwd()
	im.account, _ = ps.Username()
	ppid, _ := ps.Ppid()
	x.proc = &proc{image: im, ppid: int(ppid)}
	return x, true
}

// startTicks returns when a process started, in ms since 1970.
func (w *Watcher) startTicks(pid int) (uint64, bool) {
	ps, err := process.NewProcess(int32(pid))
	if err != nil {
		return 0, false
	}
	ms, err := ps.CreateTime()
	return uint64(ms), err == nil
}

// pids lists the processes.
func (w *Watcher) pids() ([]int, error) {
	ids, err := process.Pids()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(ids))
	for _, id := range ids {
		pids = append(pids, int(id))
	}
	return pids, nil
}
