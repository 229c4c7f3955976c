package usb

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"sekisho/internal/event"
)

func stickAt(path string, num int) *fakeDevice {
	return &fakeDevice{path: path, num: num, vendor: "0781", product: "5581", maker: "SanDisk", model: "Ultra", serial: "1", ifaces: []fakeIface{massStorage}}
}

// comes plugs a device in and returns the event of it.
func (r *rig) comes(d *fakeDevice) *event.Event {
	r.t.Helper()
	d.plug(r.t, r.root)
	r.tell(d.uevent("add"))
	r.tell(d.uevent("bind"))
	return r.next()
}

// goes pulls a device out without waiting for an event.
func (r *rig) goes(d *fakeDevice) {
	r.t.Helper()
	d.pull(r.t, r.root)
	r.tell(d.uevent("remove"))
}

func TestWhatIsStrangeAboutADevice(t *testing.T) {
	keys := fakeDevice{path: "1-4", num: 8, vendor: "046d", product: "c31c", maker: "Logitech", model: "Keyboard", ifaces: []fakeIface{bootKeys}}
	tests := []struct {
		name string
		do   func(r *rig) *event.Event // the last event is what is looked at
		odd  []string
		word string
	}{
		{"nothing about a stick", func(r *rig) *event.Event { return r.comes(stickAt("1-4", 7)) }, nil, ""},
		{"two sticks with one serial number", func(r *rig) *event.Event {
			r.comes(stickAt("1-4", 7))
			return r.comes(stickAt("1-5", 8))
		}, []string{event.OddSameSerial}, "port 1-4"},
		{"one stick after the other with one serial number may be one stick", func(r *rig) *event.Event {
			r.comes(stickAt("1-4", 7))
			r.goes(stickAt("1-4", 7))
			r.next()
			return r.comes(stickAt("1-5", 8))
		}, nil, ""},
		{"a stick that is found by both halves of its port, one after the other", func(r *rig) *event.Event {
			r.comes(stickAt("1-4", 7))
			stickAt("1-4", 7).pull(r.t, r.root) // the word of it comes later
			return r.comes(stickAt("2-4", 2))
		}, nil, ""},
		{"two sticks without a serial number", func(r *rig) *event.Event {
			a, b := stickAt("1-4", 7), stickAt("1-5", 8)
			a.serial, b.serial = "", ""
			r.comes(a)
			return r.comes(b)
		}, nil, ""},
		{"two hubs with one serial number", func(r *rig) *event.Event {
			for _, path := range []string{"1-1", "2-1"} {
				e := r.comes(&fakeDevice{path: path, num: 3, vendor: "05e3", product: "0610", serial: "000001", class: 9, ifaces: []fakeIface{{triple: triple{9, 0, 1}}}})
				if path == "2-1" {
					return e
				}
			}
			return nil
		}, nil, ""},
		{"a stick that types", func(r *rig) *event.Event {
			d := stickAt("1-4", 7)
			d.ifaces = append(d.ifaces, bootKeys)
			return r.comes(d)
		}, []string{event.OddTypesAndStore}, "types"},
		{"a keyboard where a stick was just now", func(r *rig) *event.Event {
			r.comes(stickAt("1-4", 7))
			r.goes(stickAt("1-4", 7))
			r.next()
			time.Sleep(500 * time.Millisecond)
			return r.comes(&keys)
		}, []string{event.OddPortSwap}, "0781:5581"},
		{"a keyboard where a stick was a while ago", func(r *rig) *event.Event {
			r.comes(stickAt("1-4", 7))
			r.goes(stickAt("1-4", 7))
			r.next()
			time.Sleep(2 * swapWithin)
			return r.comes(&keys)
		}, nil, ""},
		{"descriptors that lie", func(r *rig) *event.Event {
			d := stickAt("1-4", 7)
			d.lies = true
			return r.comes(d)
		}, []string{event.OddDescriptors}, "descriptors"},
	}
	for _, tt := range tests {
		bubble(t, tt.name, func(t *testing.T) {
			e := tt.do(newRig(t))
			if e.Action != event.USBAttached || !slices.Equal(e.Device.Oddities, tt.odd) || !strings.Contains(e.Message, tt.word) || (e.Message == "") != (tt.word == "") {
				t.Errorf("got %s %q %q, want %q and a word of %q", e.Action, e.Device.Oddities, e.Message, tt.odd, tt.word)
			}
		})
	}
}

// A hundred times a second, and each time something else.
func TestADeviceThatWillNotStayIsBounded(t *testing.T) {
	synctest.Test(t, aDeviceThatWillNotStayIsBounded)
}

func aDeviceThatWillNotStayIsBounded(t *testing.T) {
	r := newRig(t)
	told, odd, count := 0, 0, 0
	hear := func() {
		for {
			select {
			case e := <-r.out:
				if e.Action == event.USBDetached {
					continue
				}
				told, count = told+1, count+1
				if slices.Contains(e.Device.Oddities, event.OddReenumerates) {
					n, err := strconv.Atoi(strings.Fields(e.Message)[0])
					if err != nil {
						t.Fatalf("%q does not begin with a number", e.Message)
					}
					odd, count = odd+1, count+n
				}
			default:
				return
			}
		}
	}
	d := stickAt("1-4", 0)
	for n := range 3000 {
		d.num, d.product = n%126+1, []string{"5581", "5567", "5530"}[n%3]
		r.tell(d.uevent("add"))
		time.Sleep(5 * time.Millisecond)
		r.tell(d.uevent("remove"))
		time.Sleep(5 * time.Millisecond)
		hear()
	}
	time.Sleep(2 * perArrival)
	hear()
	if told > burst+4 || odd < 3 || count != 3000 {
		t.Errorf("in 30 s told %d times, %d of them for more than one, %d in all; want at most %d, at least 3, and 3000", told, odd, count, burst+4)
	}
	if len(r.w.known) != 0 {
		t.Errorf("remembers %d devices, want none", len(r.w.known))
	}
	// What stays in the end is told.
	for n := range 20 {
		d.num = n + 1
		d.plug(t, r.root)
		r.tell(d.uevent("add"))
		if n < 19 {
			r.goes(d)
		}
	}
	time.Sleep(2 * perArrival)
	var last *event.Event
	for range len(r.out) {
		last = <-r.out
	}
	if last == nil || last.Action != event.USBAttached || last.Device.SerialNumber != "1" || !slices.Contains(last.Device.Oddities, event.OddReenumerates) {
		t.Errorf("last told %+v, want the device that stayed", last)
	}
	r.quiet()
}

func TestASleepOfThePCIsQuiet(t *testing.T) {
	synctest.Test(t, aSleepOfThePCIsQuiet)
}

func aSleepOfThePCIsQuiet(t *testing.T) {
	slept := time.Duration(0)
	stick, other := stickAt("1-4", 7), stickAt("1-5", 8)
	other.serial = "2"
	r := newRigWith(t, func(w *Watcher) { w.slept = func() time.Duration { return slept } }, stick, other)
	r.next()
	r.next()

	slept = time.Hour
	r.goes(stick)
	r.goes(other)
	time.Sleep(time.Second)
	stick.num, other.num = 9, 10
	stick.plug(t, r.root)
	r.tell(stick.uevent("add"))
	r.quiet()

	other.serial = "3" // not what was there before
	other.plug(t, r.root)
	r.tell(other.uevent("add"))
	if e := r.next(); e.Action != event.USBDetached || e.Device.SerialNumber != "2" {
		t.Errorf("got %s %+v, want the end of the stick that was changed for another", e.Action, e.Device)
	}
	if e := r.next(); e.Action != event.USBAttached || e.Device.SerialNumber != "3" {
		t.Errorf("got %s %+v, want the stick that is there now", e.Action, e.Device)
	}

	r.goes(stick) // for good
	pulled := time.Now()
	time.Sleep(wakeQuiet)
	e := r.next()
	if e.Action != event.USBDetached || e.Device.SerialNumber != "1" || e.Time.Sub(pulled) > time.Second {
		t.Errorf("got %s %+v of %v, want the end of the stick at the time it was pulled, %v", e.Action, e.Device, e.Time, pulled)
	}
	time.Sleep(2 * wakeQuiet)
	r.goes(other)
	begin := time.Now()
	if r.next(); time.Since(begin) > 0 {
		t.Errorf("long after the sleep the end of a device was told %v late", time.Since(begin))
	}
}

func TestAnotherConfigurationIsToldIfTheDeviceIsAnother(t *testing.T) {
	synctest.Test(t, anotherConfigurationIsToldIfTheDeviceIsAnother)
}

func anotherConfigurationIsToldIfTheDeviceIsAnother(t *testing.T) {
	phone := &fakeDevice{path: "1-2", num: 3, vendor: "05ac", product: "12a8", maker: "Apple", model: "iPhone", serial: "X", ifaces: []fakeIface{{triple: triple{6, 1, 1}}}}
	r := newRig(t, phone)
	r.next()
	change := func(config int, ifaces ...fakeIface) {
		old, err := filepath.Glob(filepath.Join(phone.dir(r.root), "1-2:*"))
		if err != nil || len(old) == 0 {
			t.Fatalf("no interfaces to take away: %v", err)
		}
		for _, name := range old {
			os.RemoveAll(name)
		}
		phone.config, phone.ifaces = config, ifaces
		phone.configure(t, r.root)
		for i := range ifaces {
			r.tell(uevent{Action: "add", Subsystem: "usb", DevType: "usb_interface",
				DevPath: "/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:" + strconv.Itoa(config) + "." + strconv.Itoa(i)})
		}
	}
	change(4, fakeIface{triple: triple{6, 1, 1}}, fakeIface{triple: triple{0xff, 0xfe, 2}})
	r.quiet() // a phone still
	change(5, fakeIface{triple: triple{6, 1, 1}}, bootKeys)
	if e := r.next(); e.Action != event.USBDetached || !slices.Equal(e.Device.Kinds, []string{"mtp"}) {
		t.Errorf("got %s %+v, want the end of the phone", e.Action, e.Device)
	}
	if e := r.next(); e.Action != event.USBAttached || !slices.Equal(e.Device.Kinds, []string{"keyboard", "mtp"}) {
		t.Errorf("got %s %+v, want a phone that types", e.Action, e.Device)
	}
	r.quiet()
}

func TestADriverThatComesLateIsWaitedFor(t *testing.T) {
	synctest.Test(t, aDriverThatComesLateIsWaitedFor)
}

func aDriverThatComesLateIsWaitedFor(t *testing.T) {
	r := newRig(t)
	d := stickAt("1-1", 2)
	d.ifaces = []fakeIface{massStorage, {triple: plainKeys.triple}}
	d.plug(t, r.root)
	r.tell(d.uevent("add"))
	r.tell(d.uevent("bind"))
	time.Sleep(2 * settle)
	d.ifaces[1].hid = plainKeys.hid
	d.configure(t, r.root)
	if e := r.next(); !slices.Equal(e.Device.Kinds, []string{"storage", "keyboard"}) {
		t.Errorf("got %q, want that it types", e.Device.Kinds)
	}
	other := stickAt("1-2", 3)
	other.ifaces = d.ifaces[:1:1]
	other.ifaces = append(other.ifaces, fakeIface{triple: plainKeys.triple}) // no driver for it
	begin := time.Now()
	if e := r.comes(other); len(e.Errors) > 0 || time.Since(begin) > driverWait+settle || !slices.Equal(e.Device.Kinds, []string{"storage"}) {
		t.Errorf("after %v got %+v with errors %q", time.Since(begin), e.Device, e.Errors)
	}
}

func TestAnInterfaceBehindALieIsFound(t *testing.T) {
	synctest.Test(t, anInterfaceBehindALieIsFound)
}

func anInterfaceBehindALieIsFound(t *testing.T) {
	r := newRig(t)
	d := stickAt("1-1", 2)
	d.ifaces = []fakeIface{massStorage, bootKeys}
	d.plug(t, r.root)
	raw := d.descriptors()
	// Before the keyboard's interface comes what looks like a second configuration, which the kernel passes over.
	keys := len(raw) - 9 - 7
	raw = slices.Concat(raw[:keys], []byte{9, 2, 9, 0, 0, 2, 0, 0x80, 50}, raw[keys:])
	write(t, d.dir(r.root), "descriptors", string(raw))
	sub := filepath.Join(d.dir(r.root), "1-1:1.1") // is not there yet
	if err := os.Rename(sub, sub+".later"); err != nil {
		t.Fatal(err)
	}
	r.tell(d.uevent("add"))
	time.Sleep(settle / 2)
	if err := os.Rename(sub+".later", sub); err != nil {
		t.Fatal(err)
	}
	r.tell(d.uevent("bind"))
	if e := r.next(); !slices.Equal(e.Device.Kinds, []string{"storage", "keyboard"}) || !slices.Contains(e.Device.Oddities, event.OddDescriptors) {
		t.Errorf("got %+v, want a stick that types and lies", e.Device)
	}
}

func TestTextsOfNonsenseAreToldAsTextOfBoundedLength(t *testing.T) {
	for name, text := range map[string]string{
		"255 units of every kind":      strings.Repeat("\u202e\u0007\u2028Ａ\x1b", 51),
		"surrogates without a partner": strings.Repeat("\xed\xa0\x80", 255),
		"bytes that are no text":       strings.Repeat("\xff\xfe", 255),
		"lines":                        strings.Repeat("a\n", 255),
		"a page":                       strings.Repeat("x", 8<<10),
	} {
		bubble(t, name, func(t *testing.T) {
			d := stickAt("1-4", 7)
			d.maker, d.model, d.serial = text, text, text
			r := newRig(t)
			e := r.comes(d)
			raw, err := json.Marshal(e)
			if err != nil || !utf8.Valid(raw) || bytes.ContainsAny(raw, "\n\x1b\x07") {
				t.Errorf("as JSON: %v, %q", err, raw)
			}
			for _, got := range []string{e.Device.VendorName, e.Device.ProductName, e.Device.SerialNumber} {
				if n := utf8.RuneCountInString(got); n == 0 || n > maxTextRunes || len(got) > maxTextBytes || !strings.HasPrefix(text, got) {
					t.Errorf("%d characters, %d bytes: %q", n, len(got), got)
				}
			}
		})
	}
}
