package usb

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sekisho/internal/event"
)

// Bounds of what one port may have to say. A person who plugs and pulls does not
// get there; a loose contact, or a device that changes what it is many times a
// second, does, and is told as such.
const (
	burst      = 8                // arrivals at a port that are told at once
	perArrival = 10 * time.Second // and one more for each
	maxPorts   = 1024             // ports remembered
)

// swapWithin is how soon after storage a keyboard at the same port is strange.
// Devices that change what they are need a second at most; a person who pulls
// one thing and plugs another in needs three and more.
const swapWithin = 3 * time.Second

// wakeQuiet is how long after a sleep of the PC a device that left is waited
// for. Ports lose power in some sleeps, and what hangs on them comes back as if
// plugged in anew, hubs first, within about three seconds.
const wakeQuiet = 5 * time.Second

// port is what is remembered of a place on the bus.
type port struct {
	spent  int          // arrivals told, less one for each perArrival since
	since  time.Time    // up to when spent is reckoned
	left   event.Device // what was there last
	leftAt time.Time    // zero: nothing was
}

// take reports whether an arrival may be told now.
func (p *port) take(now time.Time) bool {
	if n := int(now.Sub(p.since) / perArrival); n > 0 {
		p.spent = max(0, p.spent-n)
		p.since = p.since.Add(time.Duration(n) * perArrival)
	}
	if p.spent == burst {
		return false
	}
	if p.spent == 0 {
		p.since = now
	}
	p.spent++
	return true
}

// port returns what is remembered of a place.
func (t *tracker) port(name string) *port {
	p := t.ports[name]
	if p == nil {
		if len(t.ports) == maxPorts {
			clear(t.ports)
		}
		p = &port{}
		t.ports[name] = p
	}
	return p
}

// arrival is the newest device at a port where too many came to tell each.
type arrival struct {
	dir    string
	u      uevent
	at     time.Time
	leftAt time.Time // zero: it is still there
	before int       // arrivals before it that are not told
	from   time.Time // when the first of those came
}

// hold keeps an arrival until the port may have its say again.
func (t *tracker) hold(name, dir string, u uevent, at time.Time) {
	h := &arrival{dir: dir, u: u, at: at, from: at}
	if was := t.held[name]; was != nil {
		h.before, h.from = was.before+1, was.from
	}
	t.held[name] = h
}

// release tells of held arrivals whose port may have its say again: the newest
// with how many came before it, and of its end if it is gone.
func (t *tracker) release(now time.Time) {
	for name, h := range t.held {
		if !t.port(name).take(now) {
			continue
		}
		delete(t.held, name)
		t.begin(&pending{name: name, at: h.at, before: h.before, from: h.from}, h.dir, h.u)
		if !h.leftAt.IsZero() {
			t.remove(name, uevent{}, h.leftAt)
		}
	}
}

// departure is a device that left while the PC woke up.
type departure struct {
	dev *device
	at  time.Time
}

// waking reports whether the PC slept a moment ago. It only notices when asked,
// so the first device that leaves after a sleep counts, however late.
func (t *tracker) waking(at time.Time) bool {
	if slept := t.slept(); slept-t.sleptBefore > time.Second {
		t.sleptBefore, t.wokeAt = slept, at
	}
	return !t.wokeAt.IsZero() && at.Sub(t.wokeAt) < wakeQuiet
}

// reconfigured looks again at a device that got another configuration: it may be
// something else now. dir is that of the new interface.
func (t *tracker) reconfigured(name, dir string, at time.Time) {
	name, of, _ := strings.Cut(name, ":") // "1-4:2.0": device, configuration, interface
	config, _, _ := strings.Cut(of, ".")
	d := t.known[name]
	if d == nil || t.pending[name] != nil || d.config == 0 || decimal(config) == d.config {
		return
	}
	delete(t.known, name)
	t.begin(&pending{name: name, at: at, replaces: d, leftAt: at}, filepath.Dir(dir), uevent{BusNum: d.busNum, DevNum: d.devNum})
}

// looksLike reports whether a device is for all we can see the same as another.
func (d *device) looksLike(o *device) bool {
	return d.VendorID == o.VendorID && d.ProductID == o.ProductID && d.SerialNumber == o.SerialNumber && slices.Equal(d.Kinds, o.Kinds)
}

// stores reports whether files can leave by the device.
func stores(d *event.Device) bool {
	return slices.Contains(d.Kinds, event.KindStorage) || slices.Contains(d.Kinds, event.KindMTP)
}

// isThere reports whether a device is still at its port. A stick pushed in
// slowly is found by the slow half of its port first and by the fast one then,
// and the word of its leaving the first may still be under way.
func (t *tracker) isThere(name string, d *device) bool {
	return attrInt(filepath.Join(t.opt.SysRoot, "bus", "usb", "devices", name), "devnum", 10) == d.devNum
}

// oddities notes what is strange about a device that is to be told, and returns
// it in words.
func (t *tracker) oddities(p *pending) (words []string) {
	d := p.best
	odd := func(name, format string, args ...any) {
		d.Oddities = append(d.Oddities, name)
		words = append(words, fmt.Sprintf(format, args...))
	}
	d.Oddities = nil
	// Where Windows' drives are polled the names are those of disks (`\\.\`), and a
	// card reader is several.
	if stores(&d.Device) && d.SerialNumber != "" && !strings.HasPrefix(p.name, `\\`) {
		for name, o := range t.known {
			if name != p.name && o.SerialNumber == d.SerialNumber && o.VendorID == d.VendorID && o.ProductID == d.ProductID && t.there(name, o) {
				odd(event.OddSameSerial, "the device at port %s has the same serial number: one may be a copy of the other", name)
				break
			}
		}
	}
	if stores(&d.Device) && slices.Contains(d.Kinds, event.KindKeyboard) {
		odd(event.OddTypesAndStore, "it stores files and types")
	}
	if l := t.port(p.name); p.at.Sub(l.leftAt) < swapWithin && slices.Contains(l.left.Kinds, event.KindStorage) {
		for _, k := range []string{event.KindKeyboard, event.KindNetwork} {
			if slices.Contains(d.Kinds, k) && !slices.Contains(l.left.Kinds, k) {
				odd(event.OddPortSwap, "storage (%s:%s) was at this port %v before", l.left.VendorID, l.left.ProductID, p.at.Sub(l.leftAt).Round(100*time.Millisecond))
				break
			}
		}
	}
	if p.before > 0 {
		odd(event.OddReenumerates, "%d more came and went at this port since %s and are not told one by one", p.before, p.from.UTC().Format(time.TimeOnly+"Z"))
	}
	if d.desc.Lies {
		odd(event.OddDescriptors, "its descriptors are not as long, or as many, as they say")
	}
	return words
}
