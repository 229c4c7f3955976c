package volume

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/windows"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The mechanisms that this package may use on Windows.
const (
	mechanismNotify  = "cm-notify"
	mechanismPolling = "polling"
)

// lookAnyway is the longest time between two looks at the drives where Windows
// tells of volumes: it tells nothing of network drives and of SUBST.
const lookAnyway = 5 * time.Second

// brisk is when to look again after a notification. Windows tells of a volume
// before it has a letter and before its file system is known; that takes some
// tenths of a second, with a slow medium or a new driver seconds.
var brisk = []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, time.Second, 2 * time.Second}

// letGo is how long the system is kept waiting for handles to be let go of.
// Windows gives some 30 s before it goes on without us; a person who clicked
// "safely remove" should not notice.
const letGo = 2 * time.Second

// Run watches the drives until ctx ends.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	n, err := w.listen()
	defer n.close()
	state, mechanism, reason, poll := endpoint.SensorOK, mechanismNotify, "", lookAnyway
	if err != nil {
		state, mechanism, reason, poll = endpoint.SensorDegraded, mechanismPolling, "drives are looked at each second, shorter visits are missed: "+err.Error(), time.Second
		if errors.Is(err, errors.ErrUnsupported) {
			state = endpoint.SensorLimited
		}
	}
	w.tellState(ctx, out, state, mechanism, reason, "Windows tells of volumes again")
	if w.opt.Poll != 0 {
		poll = w.opt.Poll
	}
	message := ""
	if !w.started {
		w.started, message = true, PresentAtStart
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	step := len(brisk)
	var cloudsAt time.Time
	proof := "" // asked for; "": none is
	for {
		if time.Since(cloudsAt) >= lookClouds {
			cloudsAt = time.Now()
			w.lookForClouds()
		}
		now, err := w.drives()
		if err != nil {
			w.gauge.Set(endpoint.SensorDown, mechanism, err.Error())
			return err
		}
		old := w.table.All()
		if !slices.Equal(old, now) {
			gone, come := compareDrives(old, now)
			w.table.set(newMounts(now))
			w.tell(ctx, out, mechanism, message, gone, come)
		}
		n.watch(now)
		w.table.stayIfOld(time.Now())
		message = ""
		if proof != "" {
			w.send(ctx, out, event.Proof(w.Name(), proof))
			proof = ""
		}
		wait := poll
		if step < len(brisk) {
			wait = min(poll, brisk[step])
			step++
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-n.changed:
			step = 0
		case proof = <-w.proofs:
		case <-timer.C:
		}
	}
}

// notices is what Windows tells of volumes: that some came or went, and, of those
// that files can leave by, that one is to be taken away.
type notices struct {
	w       *Watcher
	changed chan struct{} // holds a token when it is time to look
	all     *cfgmgr.Listener
	each    map[string]io.Closer // by NTName; nil: it cannot be watched
	// register is watchOne; tests, which no Windows runs, have one of their own.
	register func(device string) io.Closer

	mu    sync.Mutex      // guards all below
	spent map[string]bool // by NTName: what was registered for it is of no more use
}

// listen begins to hear of volumes. On an error the result hears of none, and is
// to be closed all the same.
func (w *Watcher) listen() (*notices, error) {
	n := &notices{w: w, changed: make(chan struct{}, 1), each: map[string]io.Closer{}}
	n.register = n.watchOne
	if err := cfgmgr.Available(); err != nil {
		return n, err
	}
	var err error
	n.all, err = cfgmgr.Listen(cfgmgr.Volume, func(cfgmgr.Event) { n.look() })
	return n, err
}

func (n *notices) close() {
	if n.all == nil {
		return
	}
	_ = n.all.Close() // nothing to be done about it
	n.watch(nil)
}

// look asks for a look at the drives.
func (n *notices) look() {
	select {
	case n.changed <- struct{}{}:
	default: // one is asked for already
	}
}

// watch takes care that the removal of each of these volumes is asked for. After a
// removal that failed Windows wants it to be asked for anew, and one that was done
// leaves its name to the next volume.
func (n *notices) watch(all []Volume) {
	if n.all == nil {
		return
	}
	n.mu.Lock()
	spent := n.spent
	n.spent = nil
	n.mu.Unlock()
	there := map[string]bool{}
	for i := range all {
		v := &all[i]
		if v.Kind != event.VolumeRemovable && v.Kind != event.VolumeOptical || v.NTName == "" || substituted(v.NTName) != "" {
			continue
		}
		there[v.NTName] = true
	}
	for device, l := range n.each {
		if !there[device] || spent[device] {
			delete(n.each, device)
			if l != nil {
				_ = l.Close()
			}
		}
	}
	for device := range there {
		if _, ok := n.each[device]; !ok {
			n.each[device] = n.register(device)
		}
	}
}

// spend has a volume's registration made anew at the next look.
func (n *notices) spend(device string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.spent == nil {
		n.spent = map[string]bool{}
	}
	n.spent[device] = true
}

// watchOne watches a volume by its device, `\Device\HarddiskVolume5`. The handle
// that this takes is closed before it returns, so that it keeps nobody from
// removing the volume; the notifications go on.
func (n *notices) watchOne(device string) io.Closer {
	// One that comes too late stays registered; what it hears does no harm.
	l, _ := bounded(n.w.guard, func() io.Closer {
		h, err := openDevice(device, windows.FILE_READ_ATTRIBUTES)
		if err != nil {
			return nil
		}
		defer windows.CloseHandle(h)
		l, err := cfgmgr.Watch(h, func(e cfgmgr.Event) { n.heard(device, e) })
		if err != nil {
			return nil
		}
		return l
	})
	return l
}

// heard is called by the system when something is to happen to a volume; it waits
// for the answer.
func (n *notices) heard(device string, e cfgmgr.Event) {
	var mounts []string
	for _, v := range n.w.table.All() {
		on := v
		if dir := substituted(v.NTName); dir != "" {
			on, _ = n.w.table.Lookup(dir)
		}
		if on.NTName == device {
			mounts = append(mounts, v.Mount)
		}
	}
	switch e.Action {
	case cfgmgr.QueryRemoveFailed, cfgmgr.RemovePending, cfgmgr.RemoveComplete:
		n.spend(device)
	}
	switch {
	case e.Action == cfgmgr.QueryRemove, e.Action == cfgmgr.Custom && e.Custom == cfgmgr.VolumeLock:
		n.w.table.leave(mounts, letGo) // too late is no reason to refuse
	case e.Action == cfgmgr.QueryRemoveFailed, e.Action == cfgmgr.Custom &&
		(e.Custom == cfgmgr.VolumeLockFailed || e.Custom == cfgmgr.VolumeUnlock || e.Custom == cfgmgr.VolumeMount): // mounted anew, after a format
		n.w.table.stay(mounts)
		n.look()
	default:
		n.look()
	}
}
