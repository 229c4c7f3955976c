package usb

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/event"
)

// maxNotices bounds what Windows may tell before we come to it. A dock brings some
// ten devices; more than these are found by listing all.
const maxNotices = 256

// tree is what notices asks of Windows' tree of devices.
type tree struct {
	// paths lists the interfaces of USB devices that are there now.
	paths func() ([]string, error)
	// locate returns the instance id of a device that is there, as Windows writes it,
	// and where it is plugged in.
	locate func(instance string) (id, port string, ok bool)
	// whole returns the instance id of the device that an instance is a function of.
	whole func(function string) string
	fill  func(ctx context.Context, p *pending, instance string, d device, report func(d device, final bool))
}

// notices turns what Windows tells of devices into events. All but heard runs in
// the tracker's goroutine.
type notices struct {
	*tracker
	tree     tree
	messages chan message
	missed   atomic.Bool       // one found no room
	at       map[string]string // instance id in upper case, to the name of the device there
}

func (w *Watcher) newNotices(ctx context.Context, out chan<- *event.Event, sys tree) *notices {
	t := w.newTracker(ctx, out, mechanismNotify)
	n := &notices{tracker: t, tree: sys, messages: make(chan message, maxNotices), at: map[string]string{}}
	t.plain, t.fill, t.there, t.scan = fromID, sys.fill, n.isPresent, n.list
	return n
}

// heard is called by the system and returns at once.
func (n *notices) heard(e cfgmgr.Event) {
	now := time.Now()
	select {
	case n.messages <- message{do: func() { n.take(e, now) }}:
	default:
		n.missed.Store(true) // the queue is full, so take comes to it
	}
}

// take takes one notification.
func (n *notices) take(e cfgmgr.Event, at time.Time) {
	instance := cfgmgr.Instance(e.Path)
	switch {
	case e.Class == cfgmgr.WPD && e.Action == cfgmgr.Arrived:
		n.isPhone(instance, at)
	case e.Class != cfgmgr.USBDevice:
	case e.Action == cfgmgr.Arrived:
		n.come(instance, "", at)
	case e.Action == cfgmgr.Removed:
		n.leave(instance, at)
	}
	if n.missed.Swap(false) {
		n.list("")
	}
}

// come takes up a device that was announced or found.
func (n *notices) come(instance, message string, at time.Time) {
	if _, _, _, ok := ParseID(instance); !ok {
		return
	}
	key := strings.ToUpper(instance)
	id, name, ok := n.tree.locate(instance)
	if !ok { // gone again: all that is known is what it was called
		id, name = instance, instance
	}
	if was, ok := n.at[key]; ok {
		if was == name || name == instance {
			return // announced and found
		}
		n.remove(was, uevent{}, at) // its end was lost
	}
	for other, there := range n.at {
		if there == name {
			delete(n.at, other)
		}
	}
	n.at[key] = name
	if d := n.known[name]; d != nil && strings.EqualFold(d.instance, instance) {
		return // told by an earlier run
	}
	n.add(name, id, uevent{}, at, message)
}

// leave takes leave of a device.
func (n *notices) leave(instance string, at time.Time) {
	key := strings.ToUpper(instance)
	if name, ok := n.at[key]; ok {
		delete(n.at, key)
		n.remove(name, uevent{}, at)
	}
}

// isPhone looks again at a device that Windows' driver for phones took up, by the
// instance id of the device or of its function: it may have said nothing before
// of what it is.
func (n *notices) isPhone(instance string, at time.Time) {
	if _, isFunction := functionOf(instance); isFunction {
		instance = n.tree.whole(instance)
	}
	name := n.at[strings.ToUpper(instance)]
	d := n.known[name]
	if d == nil || n.pending[name] != nil || slices.Contains(d.Kinds, event.KindMTP) {
		return
	}
	delete(n.known, name)
	n.begin(&pending{name: name, at: at, replaces: d, leftAt: at}, d.instance, uevent{})
}

// isPresent is tracker.there.
func (n *notices) isPresent(_ string, d *device) bool {
	_, _, ok := n.tree.locate(d.instance)
	return ok
}

// list compares what is known with the devices that are there; see
// tracker.rescan.
func (n *notices) list(message string) {
	now := time.Now()
	paths, err := n.tree.paths()
	if err != nil {
		return // it worked at the start; the next look may again
	}
	there := map[string]bool{}
	for _, path := range paths {
		there[strings.ToUpper(cfgmgr.Instance(path))] = true
	}
	for instance := range n.at {
		if !there[instance] {
			n.leave(instance, now)
		}
	}
	for _, path := range paths {
		n.come(cfgmgr.Instance(path), message, now)
	}
	names := slices.Collect(maps.Values(n.at))
	for name := range n.known { // of an earlier run
		if !slices.Contains(names, name) {
			n.remove(name, uevent{}, now)
		}
	}
}

// fromID is what a device's instance id tells of it.
func fromID(name, instance string) *device {
	d := &device{instance: instance}
	d.Path = name
	d.VendorID, d.ProductID, d.SerialNumber, _ = ParseID(instance)
	d.setInterfaces(nil)
	return d
}
