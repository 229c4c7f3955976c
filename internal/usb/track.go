package usb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// Times within which an attached device is told. The kernel announces a device
// before it has chosen a configuration and started the drivers.
const (
	// settle is how long interfaces are waited for, from the kernel's word on:
	// "attach within 200 ms" less what reading and telling take on a slow machine
	// (measured: up to 60 ms in an emulated guest).
	settle = 120 * time.Millisecond
	// patience is how long a driver may hold the device's lock, and with it the
	// serial number, before the device is told without. A stick is approved by
	// its serial number, so telling without is worse than telling late.
	patience = 2 * time.Second
	// driverWait is how long a driver is waited for where only it can bring to
	// light whether a device types. It may have to be loaded first.
	driverWait = time.Second
)

// Bounds of the work that devices can cause: a device may come back a hundred
// times a second.
const (
	maxReading = 16  // devices read at the same time
	maxPending = 256 // devices being read or waiting for it; more are told with their ids only
)

// message is what the reader of a socket has to say.
type message struct {
	uevent uevent
	at     time.Time
	lost   bool  // the kernel had to drop some
	err    error // the socket is of no use any more

	do func() // Windows: what to do about it
}

// tracker turns uevents and looks at sysfs into events. One goroutine runs it.
type tracker struct {
	*Watcher
	ctx       context.Context // of the Run it belongs to
	out       chan<- *event.Event
	mechanism string
	pending   map[string]*pending // by bus path
	readings  chan reading
	slots     chan struct{} // one token for each device being read
	noBus     bool          // there was no USB at the last look
	lacks     string        // what the mechanism could do with more rights; "": nothing

	// What each system does in its own way; sysfs if Run says nothing else. dir is
	// the device's folder there, on Windows its instance id.
	plain func(name, dir string) *device // what can be had at once
	fill  func(ctx context.Context, p *pending, dir string, d device, report func(d device, final bool))
	there func(name string, d *device) bool // it is still at its port
	scan  func(message string)              // see rescan

	ports map[string]*port      // by bus path; see port.go
	held  map[string]*arrival   // by bus path: not told yet, as too many came there
	away  map[string]*departure // by bus path: left as the PC woke up, and may be back at once

	sleptBefore time.Duration // how long the PC had slept when last asked
	wokeAt      time.Time     // when a sleep was last noticed; zero: none was

	// What reading a root hub showed:
	probed     bool
	unreadable bool
}

// pending is a device that is being read.
type pending struct {
	name    string
	best    *device   // what is known so far; the tracker's own
	at      time.Time // when it was announced
	begun   time.Time // when its reading was
	message string
	bound   chan struct{} // closed when the kernel has configured the device
	isBound bool

	replaces *device   // what was told as attached here and may be this one; nil as a rule
	leftAt   time.Time // of replaces
	before   int       // arrivals at this port, from from on, that are not told
	from     time.Time
}

// reading is what a reader found out; the last of a device is final.
type reading struct {
	of    *pending
	dev   *device
	final bool
}

func (w *Watcher) newTracker(ctx context.Context, out chan<- *event.Event, mechanism string) *tracker {
	t := &tracker{Watcher: w, ctx: ctx, out: out, mechanism: mechanism,
		pending: map[string]*pending{}, readings: make(chan reading), slots: make(chan struct{}, maxReading),
		ports: map[string]*port{}, held: map[string]*arrival{}, away: map[string]*departure{}, sleptBefore: w.slept()}
	t.plain = func(_, dir string) *device { return readPlain(dir) }
	t.fill, t.there, t.scan = fillFromSysfs, t.isThere, t.rescan
	return t
}

// run works until the context ends (nil) or until the source of messages or the
// clock says that it is over. Either may be nil.
func (t *tracker) run(messages <-chan message, look <-chan time.Time, until <-chan time.Time) error {
	ctx, done := context.WithCancel(t.ctx) // readers end with it
	defer done()
	t.ctx = ctx
	message := ""
	if !t.started {
		t.started, message = true, PresentAtStart
	}
	defer func() { // the first look of the next run tells whether they came back
		for name, d := range t.away {
			t.known[name] = d.dev
		}
	}()
	t.scan(message)
	t.report()
	overdue := time.NewTicker(patience / 8)
	defer overdue.Stop()
	ticking := true
	for {
		// An idle sensor does not wake up.
		if waiting := len(t.pending)+len(t.held)+len(t.away) > 0; waiting != ticking {
			if ticking = waiting; waiting {
				overdue.Reset(patience / 8)
			} else {
				overdue.Stop()
			}
		}
		select {
		case <-t.ctx.Done():
			return nil
		case m := <-messages:
			switch {
			case m.err != nil:
				return m.err
			case m.lost:
				t.lost(m.at)
			case m.do != nil:
				m.do()
			default:
				t.handle(m.uevent, m.at)
			}
		case r := <-t.readings:
			t.take(r)
		case <-look:
			t.scan("")
			t.report()
		case nonce := <-t.proofs:
			t.prove(nonce)
		case <-until:
			return nil
		case now := <-overdue.C:
			t.tick(now)
		}
	}
}

// prove tells that the sensor sees, after it has compared what it knows with what
// there is.
func (t *tracker) prove(nonce string) {
	t.scan("")
	t.send(t.ctx, t.out, event.Proof(t.Name(), nonce))
}

// take takes what a reader found out.
func (t *tracker) take(r reading) {
	if t.pending[r.of.name] != r.of {
		return // told already, or another device by now
	}
	r.of.best = r.dev
	if r.final {
		t.attached(r.of)
	}
}

// tick does what is due while something is waited for. What readers have found out
// comes first: that nobody took it from them is no silence of the device's.
func (t *tracker) tick(now time.Time) {
	for taken := true; taken; {
		select {
		case r := <-t.readings:
			t.take(r)
		default:
			taken = false
		}
	}
	for name, p := range t.pending {
		if now.Sub(p.begun) > patience {
			p.best.errs = append(p.best.errs, fmt.Sprintf("read usb device %s: no answer within %v", name, patience))
			t.attached(p)
		}
	}
	for name, d := range t.away {
		if now.Sub(d.at) > wakeQuiet {
			delete(t.away, name)
			t.detached(d.dev, d.at)
		}
	}
	t.release(now)
}

// handle takes one uevent.
func (t *tracker) handle(u uevent, at time.Time) {
	if t.isProof(&u) {
		t.prove(u.Synthetic)
		return
	}
	name := u.name()
	if u.Subsystem == "usb" && u.DevType == "usb_interface" && u.Action == "add" {
		t.reconfigured(name, filepath.Join(t.opt.SysRoot, u.DevPath), at)
	}
	if u.Subsystem != "usb" || u.DevType != "usb_device" || !isBusPath(name) {
		return
	}
	if t.noBus { // a driver was loaded since
		t.noBus = false
		t.report()
	}
	switch u.Action {
	case "add":
		t.add(name, filepath.Join(t.opt.SysRoot, u.DevPath), u, at, "")
	case "bind":
		if p := t.pending[name]; p != nil && !p.isBound {
			close(p.bound)
			p.isBound = true
		}
	case "remove":
		if u.Synthetic == "" { // else it is still there
			t.remove(name, u, at)
		}
	}
}

// add takes up a device that was announced or found.
func (t *tracker) add(name, dir string, u uevent, at time.Time, message string) {
	known, same := t.have(name, u.DevNum)
	if same {
		return // announced again, as udevadm trigger does
	}
	if known {
		t.remove(name, uevent{}, at) // its end was lost
	}
	if h := t.held[name]; h != nil && h.leftAt.IsZero() && u.DevNum != 0 && h.u.DevNum == u.DevNum {
		return
	}
	if message == "" && (t.held[name] != nil || !t.port(name).take(at)) {
		t.hold(name, dir, u, at)
		return
	}
	t.begin(&pending{name: name, at: at, message: message}, dir, u)
}

// begin starts to read a device.
func (t *tracker) begin(p *pending, dir string, u uevent) {
	d := t.plain(p.name, dir)
	if d.VendorID == "" { // gone again, or sysfs is not readable
		d.VendorID, d.ProductID = u.ids()
	}
	d.busNum, d.devNum = u.BusNum, u.DevNum
	p.best, p.begun, p.bound = d, time.Now(), make(chan struct{})
	if p.message != "" { // there since before us: it is as configured as it will be
		close(p.bound)
		p.isBound = true
	}
	if a := t.away[p.name]; a != nil {
		p.replaces, p.leftAt = a.dev, a.at
		delete(t.away, p.name)
	}
	if len(t.pending) >= maxPending {
		d.errs = append(d.errs, fmt.Sprintf("read usb device %s: more than %d devices at once", p.name, maxPending))
		t.attached(p)
		return
	}
	t.pending[p.name] = p
	// Not waited for when Run ends: a read may hang in a driver. It ends with the
	// context or with that read.
	go t.read(p, dir, *d)
}

// have reports whether a device at this place is known, and whether it is the
// very one with this address.
func (t *tracker) have(name string, devNum int) (known, same bool) {
	d := t.known[name]
	if p := t.pending[name]; p != nil {
		d = p.best
	}
	return d != nil, d != nil && devNum != 0 && d.devNum == devNum
}

// read finds out more about a device, in a goroutine of its own. d is what was
// known when it was announced.
func (t *tracker) read(p *pending, dir string, d device) {
	ctx, cancel := context.WithDeadline(t.ctx, p.begun.Add(patience))
	defer cancel()
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
		return
	}
	t.fill(ctx, p, dir, d, func(told device, final bool) { // a copy: the reader goes on with d
		t.names.fill(&told.Device)
		select {
		case t.readings <- reading{p, &told, final}:
		case <-t.ctx.Done(): // not patience's end: the tracker may be held up
		}
	})
}

// fillFromSysfs finds out more about a device until nothing more is to come.
func fillFromSysfs(ctx context.Context, p *pending, dir string, d device, report func(d device, final bool)) {
	first := d
	d.readTexts(dir)
	if d.devNum != 0 && attrInt(dir, "devnum", 10) != d.devNum { // gone, or another one in its place
		report(first, true)
		return
	}
	complete := d.readInterfaces(dir)
	if complete && !d.mute && p.configured(&d) && !d.lacks() {
		report(d, true)
		return
	}
	report(d, false)
	settled, done := context.WithDeadline(ctx, p.at.Add(settle))
	defer done()
	d.fillTexts(settled)
	select {
	case <-p.bound:
	case <-settled.Done():
	}
	d.readInterfaces(dir)
	for d.mute && time.Since(p.begun) < driverWait {
		again := time.NewTimer(settle / 2)
		select {
		case <-again.C:
			d.readInterfaces(dir)
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
	report(d, true)
}

// configured reports whether nothing more is to come. That a device types shows
// only once its driver runs, and the name of a vendor's own interface comes after
// the interface.
func (p *pending) configured(d *device) bool {
	select {
	case <-p.bound:
		return true
	default:
	}
	if d.desc.Lies { // as many interfaces as it says may not be all
		return false
	}
	for _, i := range d.Interfaces {
		if i[:2] == "03" || i[:2] == "ff" {
			return false
		}
	}
	return true
}

// attached tells of a device and remembers it.
func (t *tracker) attached(p *pending) {
	delete(t.pending, p.name)
	d := p.best
	t.names.fill(&d.Device)
	if old := p.replaces; old != nil {
		if d.looksLike(old) {
			d.Oddities = old.Oddities
			t.known[p.name] = d
			return
		}
		t.detached(old, p.leftAt)
	}
	words := t.oddities(p)
	if p.message != "" {
		words = append([]string{p.message}, words...)
	}
	t.known[p.name] = d
	e := t.event(event.USBAttached, p.at, d)
	e.Message, e.Errors = strings.Join(words, "; "), d.errs
	t.send(t.ctx, t.out, e)
}

// detached tells of the end of a device.
func (t *tracker) detached(d *device, at time.Time) {
	t.send(t.ctx, t.out, t.event(event.USBDetached, at, d))
}

// remove takes leave of a device.
func (t *tracker) remove(name string, u uevent, at time.Time) {
	if h := t.held[name]; h != nil && h.leftAt.IsZero() && (u.DevNum == 0 || u.DevNum == h.u.DevNum) {
		h.leftAt = at
		return
	}
	if known, same := t.have(name, u.DevNum); known && !same && u.DevNum != 0 {
		return // an earlier device at this place, whose end a look at sysfs has told
	}
	if p := t.pending[name]; p != nil {
		t.attached(p)
	}
	d := t.known[name]
	if d == nil { // never seen, or its end was told already by a look at sysfs
		return
	}
	delete(t.known, name)
	p := t.port(name)
	p.left, p.leftAt = d.Device, at
	if t.waking(at) {
		t.away[name] = &departure{d, at}
		return
	}
	t.detached(d, at)
}

func (t *tracker) event(a event.Action, at time.Time, d *device) *event.Event {
	e := event.New(a, at)
	e.Sensor = t.mechanism
	facts := d.Device
	e.Device = &facts
	return e
}

// lost tells that the kernel dropped messages, and looks for what they said.
func (t *tracker) lost(at time.Time) {
	t.gauge.Lose(1)
	e := event.New(event.EventsLost, at)
	e.Sensor = t.mechanism
	e.Message = "the kernel dropped device notifications, how many is not known; the USB bus was looked through again"
	t.send(t.ctx, t.out, e)
	t.rescan("")
}

// rescan compares what is known with sysfs and tells the differences. The
// message is for what is found in the first look of a Watcher's life.
func (t *tracker) rescan(message string) {
	now := time.Now()
	bus := filepath.Join(t.opt.SysRoot, "bus", "usb", "devices")
	entries, err := os.ReadDir(bus)
	t.noBus = err != nil
	for _, e := range entries { // before a device's time begins: on a slow PC the probe takes longer than patience
		if !t.probed && strings.HasPrefix(e.Name(), "usb") {
			t.probe(filepath.Join(bus, e.Name()))
		}
	}
	there := map[string]bool{}
	for _, e := range entries {
		name := e.Name()
		if !isBusPath(name) {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Join(bus, name))
		if err != nil {
			continue
		}
		there[name] = true
		u := uevent{BusNum: attrInt(dir, "busnum", 10), DevNum: attrInt(dir, "devnum", 10)}
		if known, _ := t.have(name, u.DevNum); known && u.DevNum == 0 {
			continue // known, and on its way out
		}
		t.add(name, dir, u, now, message)
	}
	for name := range t.pending {
		if !there[name] {
			t.remove(name, uevent{}, now)
		}
	}
	for name := range t.known {
		if !there[name] {
			t.remove(name, uevent{}, now)
		}
	}
	for name := range t.held {
		if !there[name] {
			t.remove(name, uevent{}, now)
		}
	}
}

// probe reads a root hub, which every bus has. It shows whether devices can be
// read at all, and brings into memory what the first device needs within 200 ms.
func (t *tracker) probe(dir string) {
	d := readPlain(dir)
	d.readInterfaces(dir)
	t.names.fill(&d.Device)
	t.probed, t.unreadable = true, d.VendorID == ""
}

// report sets the state of a sensor that works by its best mechanism. A machine
// without USB has nothing to miss: that is no trouble, but worth a word.
func (t *tracker) report() {
	if t.mechanism != mechanismUevent {
		return
	}
	state, reason := endpoint.SensorOK, ""
	if t.unreadable {
		state, reason = endpoint.SensorDegraded, "devices are announced, but sysfs does not say what they are"
	}
	if t.noBus {
		reason = "no USB bus on this machine; listening for one"
		if _, err := os.Stat(filepath.Join(t.opt.SysRoot, "bus")); err != nil {
			state, reason = endpoint.SensorDegraded, fmt.Sprintf("devices are announced, but sysfs cannot be read: %v", err)
		}
	}
	if reason == "" {
		reason = t.lacks
	}
	t.tellState(state, reason)
}

// tellState sets the state and tells a change for better or worse.
func (t *tracker) tellState(state endpoint.SensorState, reason string) {
	var e *event.Event
	switch t.gauge.Set(state, t.mechanism, reason) {
	case endpoint.Worse:
		e = event.New(event.SensorDegraded, time.Now())
		e.Message = reason
	case endpoint.Better:
		e = event.New(event.SensorRecovered, time.Now())
		e.Message = "notifications are heard again"
	default:
		return
	}
	e.Sensor = t.mechanism
	t.send(t.ctx, t.out, e)
}

// The mechanisms that this package may use.
const (
	mechanismUevent  = "uevent"
	mechanismNotify  = "cm-notify"
	mechanismPolling = "polling"
)
