package usb

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// rig is a tracker on a fake sysfs.
type rig struct {
	t        *testing.T
	root     string
	w        *Watcher
	messages chan message
	look     chan time.Time
	out      chan *event.Event
	stop     func() error
}

// bubble runs a test with a clock that only moves while everybody waits, so that
// waiting for a device is neither slow nor a matter of the machine's load.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func newRig(t *testing.T, present ...*fakeDevice) *rig {
	t.Helper()
	return newRigWith(t, func(*Watcher) {}, present...)
}

// newRigWith is newRig with a Watcher that set has changed.
func newRigWith(t *testing.T, set func(*Watcher), present ...*fakeDevice) *rig {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("sysfs is made of links and of names with colons")
	}
	r := &rig{t: t, root: t.TempDir(), messages: make(chan message), look: make(chan time.Time), out: make(chan *event.Event, 4096)}
	if err := os.MkdirAll(filepath.Join(r.root, "bus", "usb", "devices"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range present {
		d.plug(t, r.root)
	}
	r.w = New(Options{SysRoot: r.root, Names: []string{filepath.Join("testdata", "usb.ids")}})
	set(r.w)
	r.start()
	r.tell(uevent{}) // means nothing, but is taken only once the look at the start is over
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var err error
	wg.Go(func() { err = r.w.newTracker(ctx, r.out, mechanismUevent).run(r.messages, r.look, nil) })
	r.stop = sync.OnceValue(func() error { cancel(); wg.Wait(); return err })
	r.t.Cleanup(func() { r.stop() })
}

func (r *rig) tell(u uevent) { r.messages <- message{uevent: u, at: time.Now()} }

func (r *rig) next() *event.Event {
	r.t.Helper()
	select {
	case e := <-r.out:
		return e
	case <-time.After(time.Minute):
		r.t.Fatal("no event within a minute")
		return nil
	}
}

// quiet fails if anything more is told.
func (r *rig) quiet() {
	r.t.Helper()
	r.look <- time.Now()
	r.tell(uevent{})       // taken once the look is over
	time.Sleep(2 * settle) // for readers under way
	select {
	case e := <-r.out:
		r.t.Fatalf("told %s %+v, want nothing", e.Action, e.Device)
	default:
	}
}

func TestWhatADeviceIs(t *testing.T) {
	tests := []struct {
		name string
		dev  fakeDevice
		want event.Device
	}{
		{"a stick with everything",
			fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "4C530001", ifaces: []fakeIface{massStorage}},
			event.Device{VendorID: "0781", ProductID: "5581", VendorName: "SanDisk", ProductName: "Ultra", SerialNumber: "4C530001", Path: "1-4",
				Interfaces: []string{storageTriple}, Kinds: []string{"storage"}}},
		{"a stick without a serial number or names gets the table's names",
			fakeDevice{path: "1-4.2", num: 8, vendor: "0951", product: "1666", ifaces: []fakeIface{massStorage}},
			event.Device{VendorID: "0951", ProductID: "1666", VendorName: "Kingston Technology", ProductName: "DataTraveler 100 G3/G4/SE9 G2/50 Kyson", Path: "1-4.2",
				Interfaces: []string{storageTriple}, Kinds: []string{"storage"}}},
		{"a stick that types as well",
			fakeDevice{path: "1-1", num: 2, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage, bootKeys}},
			event.Device{VendorID: "0781", ProductID: "5581", VendorName: "SanDisk", ProductName: "Ultra", SerialNumber: "1", Path: "1-1",
				Interfaces: []string{storageTriple, "03/01/01"}, Kinds: []string{"storage", "keyboard"}}},
		{"a stick that types without the boot protocol",
			fakeDevice{path: "1-1", num: 2, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage, plainKeys}},
			event.Device{VendorID: "0781", ProductID: "5581", VendorName: "SanDisk", ProductName: "Ultra", SerialNumber: "1", Path: "1-1",
				Interfaces: []string{storageTriple, "03/00/00"}, Kinds: []string{"storage", "keyboard"}}},
		{"a receiver for keyboard and mouse",
			fakeDevice{path: "2-1", num: 2, vendor: "046d", product: "c52b", maker: "Logitech", model: "USB Receiver", ifaces: []fakeIface{bootKeys, bootMouse}},
			event.Device{VendorID: "046d", ProductID: "c52b", VendorName: "Logitech", ProductName: "USB Receiver", Path: "2-1",
				Interfaces: []string{"03/01/01", "03/01/02"}, Kinds: []string{"keyboard", "mouse"}}},
		{"a phone as MTP by its interface's name, with a network card",
			fakeDevice{path: "1-2", num: 3, vendor: "18d1", product: "4ee1", maker: "Google", model: "Pixel", serial: "8A1X", ifaces: []fakeIface{
				{triple: triple{0xff, 0xff, 0x00}, label: "MTP"}, {triple: triple{0xe0, 0x01, 0x03}}}},
			event.Device{VendorID: "18d1", ProductID: "4ee1", VendorName: "Google", ProductName: "Pixel", SerialNumber: "8A1X", Path: "1-2",
				Interfaces: []string{"ff/ff/00", "e0/01/03"}, Kinds: []string{"mtp", "network"}}},
		{"a hub",
			fakeDevice{path: "1-3", num: 4, vendor: "05e3", product: "0610", maker: "Genesys", model: "USB2.0 Hub", class: 9, ifaces: []fakeIface{{triple: triple{9, 0, 1}}}},
			event.Device{VendorID: "05e3", ProductID: "0610", VendorName: "Genesys", ProductName: "USB2.0 Hub", Path: "1-3",
				Interfaces: []string{"09/00/01"}, Kinds: []string{"hub"}}},
		{"a device that the administrator did not authorise has no interfaces but descriptors",
			fakeDevice{path: "1-9", num: 5, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}, bare: true},
			event.Device{VendorID: "0781", ProductID: "5581", VendorName: "SanDisk", ProductName: "Ultra", SerialNumber: "1", Path: "1-9",
				Interfaces: []string{storageTriple}, Kinds: []string{"storage"}}},
		{"something that names no class we know",
			fakeDevice{path: "1-5", num: 5, vendor: "1050", product: "0402", maker: "Yubico", model: "FIDO", ifaces: []fakeIface{{triple: triple{3, 0, 0}, hid: []byte{0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0xc0}}}},
			event.Device{VendorID: "1050", ProductID: "0402", VendorName: "Yubico", ProductName: "FIDO", Path: "1-5",
				Interfaces: []string{"03/00/00"}, Kinds: []string{"other"}}},
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			r := newRig(t)
			tt.dev.plug(t, r.root)
			begin := time.Now()
			r.tell(tt.dev.uevent("add"))
			e := r.next()
			t.Logf("told after %v", e.Created.Sub(begin)) // the aim is 200 ms
			checkDevice(t, e, event.USBAttached, tt.want)
			tt.dev.pull(t, r.root)
			r.tell(tt.dev.uevent("remove"))
			checkDevice(t, r.next(), event.USBDetached, tt.want)
			r.quiet()
		})
	}
}

func checkDevice(t *testing.T, e *event.Event, action event.Action, want event.Device) {
	t.Helper()
	if e.Action != action || e.Device == nil || len(e.Errors) > 0 || e.Sensor != mechanismUevent {
		t.Fatalf("got %s by %q with errors %q, want %s", e.Action, e.Sensor, e.Errors, action)
	}
	got := *e.Device
	if got.VendorID != want.VendorID || got.ProductID != want.ProductID || got.VendorName != want.VendorName || got.ProductName != want.ProductName ||
		got.SerialNumber != want.SerialNumber || got.Path != want.Path || !slices.Equal(got.Interfaces, want.Interfaces) || !slices.Equal(got.Kinds, want.Kinds) {
		t.Errorf("%s\n got %+v\nwant %+v", action, got, want)
	}
}

func TestInterfacesThatComeALittleLaterAreWaitedFor(t *testing.T) {
	synctest.Test(t, interfacesThatComeALittleLaterAreWaitedFor)
}

func interfacesThatComeALittleLaterAreWaitedFor(t *testing.T) {
	r := newRig(t)
	phone := &fakeDevice{path: "1-2", num: 3, vendor: "18d1", product: "4ee1", maker: "Google", model: "Pixel", serial: "8A1X", bare: true,
		ifaces: []fakeIface{{triple: triple{0xff, 0xff, 0x00}, label: "MTP"}}}
	mouse := &fakeDevice{path: "1-3", num: 4, vendor: "046d", product: "c077", maker: "Logitech", model: "Mouse", ifaces: []fakeIface{bootMouse}}
	phone.plug(t, r.root)
	mouse.plug(t, r.root)
	r.tell(phone.uevent("add"))
	r.tell(mouse.uevent("add"))
	r.tell(mouse.uevent("bind"))
	if e := r.next(); e.Device.Path != "1-3" {
		t.Errorf("first told %s, want the mouse, which is complete", e.Device.Path)
	}
	phone.configure(t, r.root)
	r.tell(phone.uevent("bind"))
	if e := r.next(); !slices.Equal(e.Device.Kinds, []string{"mtp"}) {
		t.Errorf("phone is %q, want mtp by the name of its interface", e.Device.Kinds)
	}
}

func TestWhatIsThereAtTheStartIsToldOnce(t *testing.T) {
	synctest.Test(t, whatIsThereAtTheStartIsToldOnce)
}

func whatIsThereAtTheStartIsToldOnce(t *testing.T) {
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
	twin := &fakeDevice{path: "1-5", num: 8, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
	root := &fakeDevice{path: "usb1", num: 1, vendor: "1d6b", product: "0002", maker: "Linux", model: "xHCI", class: 9}
	r := newRig(t, stick, twin, root)
	paths := map[string]bool{}
	for range 2 {
		e := r.next()
		want, odd := PresentAtStart, []string(nil)
		if len(paths) == 1 {
			odd = []string{event.OddSameSerial}
		}
		if e.Action != event.USBAttached || !strings.HasPrefix(e.Message, want) || !slices.Equal(e.Device.Oddities, odd) {
			t.Errorf("got %s %q %q, want an attach with %q %q", e.Action, e.Message, e.Device.Oddities, want, odd)
		}
		paths[e.Device.Path] = true
	}
	if !paths["1-4"] || !paths["1-5"] {
		t.Errorf("told of %v, want both sticks although they share a serial number", paths)
	}
	// udev's cold plug announces everything again.
	u := stick.uevent("add")
	u.Synthetic = "0"
	r.tell(u)
	r.quiet()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	twin.pull(t, r.root)
	r.start()
	if e := r.next(); e.Action != event.USBDetached || e.Device.Path != "1-5" {
		t.Errorf("after a restart told %s %s, want that 1-5 went", e.Action, e.Device.Path)
	}
	r.quiet()
}

func TestAnOverrunIsToldAndTheBusLookedThrough(t *testing.T) {
	synctest.Test(t, anOverrunIsToldAndTheBusLookedThrough)
}

func anOverrunIsToldAndTheBusLookedThrough(t *testing.T) {
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", serial: "1", ifaces: []fakeIface{massStorage}}
	r := newRig(t, stick)
	r.next()
	stick.pull(t, r.root)
	stick.num, stick.serial = 9, "2"
	stick.plug(t, r.root)
	r.messages <- message{at: time.Now(), lost: true}
	if e := r.next(); e.Action != event.EventsLost {
		t.Errorf("got %s, want events-lost", e.Action)
	}
	if e := r.next(); e.Action != event.USBDetached || e.Device.SerialNumber != "1" {
		t.Errorf("got %s %s, want the end of the first stick", e.Action, e.Device.SerialNumber)
	}
	if e := r.next(); e.Action != event.USBAttached || e.Device.SerialNumber != "2" || e.Message != "" {
		t.Errorf("got %s %s %q, want the second stick", e.Action, e.Device.SerialNumber, e.Message)
	}
	// What was still waiting in the socket tells nothing new.
	stale := *stick
	stale.num = 7
	r.tell(stale.uevent("remove"))
	r.tell(stick.uevent("add"))
	r.quiet()
	r.tell(fakeGone.uevent("remove"))
	r.quiet()
	if got := r.w.Status(); got.Lost != 1 || got.Events != 4 {
		t.Errorf("status says %d events and %d lost, want 4 and 1", got.Events, got.Lost)
	}
}

// fakeGone is a device that nobody saw come.
var fakeGone = fakeDevice{path: "1-6", num: 11, vendor: "0781", product: "5581"}

func TestALateWordOfAnEarlierDeviceIsNotBelieved(t *testing.T) {
	synctest.Test(t, aLateWordOfAnEarlierDeviceIsNotBelieved)
}

func aLateWordOfAnEarlierDeviceIsNotBelieved(t *testing.T) {
	stick := &fakeDevice{path: "1-4", num: 9, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
	r := newRig(t, stick) // found at the start
	r.next()
	before := *stick
	before.num = 8
	r.tell(before.uevent("remove")) // waited in the socket
	r.tell(stick.uevent("add"))
	r.quiet()
	r.tell(stick.uevent("remove"))
	if e := r.next(); e.Action != event.USBDetached || e.Device.SerialNumber != "1" {
		t.Errorf("got %s %+v, want its end", e.Action, e.Device)
	}
}

func TestADeviceGoneBeforeItWasReadIsToldByItsIDs(t *testing.T) {
	synctest.Test(t, aDeviceGoneBeforeItWasReadIsToldByItsIDs)
}

func aDeviceGoneBeforeItWasReadIsToldByItsIDs(t *testing.T) {
	r := newRig(t)
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581"}
	r.tell(stick.uevent("add"))
	r.tell(stick.uevent("remove"))
	for _, want := range []event.Action{event.USBAttached, event.USBDetached} {
		e := r.next()
		if e.Action != want || e.Device.VendorID != "0781" || e.Device.ProductID != "5581" || e.Device.VendorName != "SanDisk Corp." {
			t.Errorf("got %s %+v, want %s of 0781:5581 named by the table", e.Action, e.Device, want)
		}
	}
}

func TestADeviceWhoseTextsHangIsToldLate(t *testing.T) {
	r := newRig(t)
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", ifaces: []fakeIface{massStorage}}
	stick.plug(t, r.root)
	// A FIFO without a writer: opening it blocks, as reading does while a driver holds the lock.
	if err := mkfifo(filepath.Join(stick.dir(r.root), "serial")); err != nil {
		t.Skipf("no FIFO here to hang on: %v", err)
	}
	t.Cleanup(func() { release(filepath.Join(stick.dir(r.root), "serial")) })
	mouse := &fakeDevice{path: "1-3", num: 4, vendor: "046d", product: "c077", maker: "Logitech", model: "Mouse", ifaces: []fakeIface{bootMouse}}
	mouse.plug(t, r.root)
	r.tell(stick.uevent("add"))
	r.tell(mouse.uevent("add"))
	if e := r.next(); e.Device.Path != "1-3" {
		t.Errorf("first told %s, want the mouse: the stick hangs", e.Device.Path)
	}
	e := r.next()
	if e.Device.Path != "1-4" || len(e.Errors) != 1 || !strings.Contains(e.Errors[0], "no answer") || !slices.Equal(e.Device.Kinds, []string{"storage"}) {
		t.Errorf("got %+v with errors %q, want the stick with its kind and a word on what is missing", e.Device, e.Errors)
	}
}

func TestADeviceIsReadWhileTheTrackerIsHeldUp(t *testing.T) {
	synctest.Test(t, aDeviceIsReadWhileTheTrackerIsHeldUp)
}

// A slow PC that starts, or whoever takes the events and does not, holds the tracker up. The device has answered.
func aDeviceIsReadWhileTheTrackerIsHeldUp(t *testing.T) {
	r := newRig(t)
	for i := range 8 { // one may be told before the tracker is held up
		stick := &fakeDevice{path: fmt.Sprintf("1-%d", i+1), num: i + 2, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: fmt.Sprint("S", i), ifaces: []fakeIface{massStorage}}
		stick.plug(t, r.root)
		r.tell(stick.uevent("add"))
	}
	r.messages <- message{do: func() { time.Sleep(3 * patience) }}
	for range 8 {
		if e := r.next(); e.Device.SerialNumber == "" || len(e.Errors) != 0 {
			t.Errorf("got %+v, errors %q, want its serial number", e.Device, e.Errors)
		}
	}
}

func TestASensorThatCannotReadDevicesSaysSo(t *testing.T) {
	synctest.Test(t, aSensorThatCannotReadDevicesSaysSo)
}

func aSensorThatCannotReadDevicesSaysSo(t *testing.T) {
	hub := &fakeDevice{path: "usb1", num: 1, vendor: "1d6b", product: "0002", maker: "Linux", model: "xHCI", class: 9}
	r := newRig(t, hub)
	if s := r.w.Status(); s.State != endpoint.SensorOK {
		t.Errorf("with a root hub that can be read the state is %s %q, want ok", s.State, s.Reason)
	}
	r.stop()
	for _, name := range []string{"descriptors", "idVendor"} {
		if err := os.Remove(filepath.Join(hub.dir(r.root), name)); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	if e := r.next(); e.Action != event.SensorDegraded || r.w.Status().State != endpoint.SensorDegraded {
		t.Errorf("got %s %q, want the word that devices cannot be read", e.Action, e.Message)
	}
}

func TestAMachineWithoutUSBIsNoTrouble(t *testing.T) { synctest.Test(t, aMachineWithoutUSBIsNoTrouble) }

func aMachineWithoutUSBIsNoTrouble(t *testing.T) {
	r := &rig{t: t, root: t.TempDir(), messages: make(chan message), look: make(chan time.Time), out: make(chan *event.Event, 16)}
	if err := os.MkdirAll(filepath.Join(r.root, "bus"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.w = New(Options{SysRoot: r.root, Names: []string{}})
	if got := r.w.Status(); got.State != endpoint.SensorDown {
		t.Errorf("before Run the state is %s, want down", got.State)
	}
	r.start()
	r.quiet()
	if got := r.w.Status(); got.State != endpoint.SensorOK || !strings.Contains(got.Reason, "no USB bus") {
		t.Errorf("got %s %q, want ok and a word that there is no USB bus", got.State, got.Reason)
	}
	stick := &fakeDevice{path: "1-4", num: 7, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
	stick.plug(t, r.root)
	r.tell(stick.uevent("add"))
	if e := r.next(); e.Device.SerialNumber != "1" {
		t.Errorf("got %+v, want the stick", e.Device)
	}
	if got := r.w.Status(); got.Reason != "" {
		t.Errorf("once there is a bus the reason is %q, want none", got.Reason)
	}
}
