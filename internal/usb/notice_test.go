package usb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/cfgmgr"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// fakeTree is Windows' tree of devices: port by instance id.
type fakeTree struct {
	mu    sync.Mutex // guards all below
	ports map[string]string
	kinds map[string]triple // what the device at a port is; storage if nothing is said
	deaf  bool              // paths fails
}

func (f *fakeTree) plug(instance, port string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports[instance] = port
}

func (f *fakeTree) pull(instance string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.ports, instance)
}

func (f *fakeTree) is(port string, class triple) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kinds[port] = class
}

func (f *fakeTree) tree() tree {
	return tree{
		paths: func() (list []string, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.deaf {
				return nil, errors.New("no answer")
			}
			for id := range f.ports {
				list = append(list, pathOf(id))
			}
			slices.Sort(list)
			return list, nil
		},
		locate: func(instance string) (id, port string, ok bool) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for id, port := range f.ports {
				if strings.EqualFold(id, instance) {
					return id, port, true
				}
			}
			return "", "", false
		},
		whole: func(function string) string {
			whole, _, _ := strings.Cut(strings.ToUpper(function), "&MI_")
			for id := range f.ports {
				if strings.HasPrefix(strings.ToUpper(id), whole+`\`) {
					return id
				}
			}
			return ""
		},
		fill: func(_ context.Context, p *pending, instance string, d device, report func(device, bool)) {
			f.mu.Lock()
			class, ok := f.kinds[p.name]
			_, there := f.ports[instance]
			f.mu.Unlock()
			if !ok {
				class = triple{0x08, 0x06, 0x50}
			}
			if there {
				d.setInterfaces([]iface{{triple: class}})
			}
			report(d, true)
		},
	}
}

// pathOf is the path of the interface of a device, in another case.
func pathOf(instance string) string {
	return `\\?\` + strings.ToLower(strings.ReplaceAll(instance, `\`, "#")) + "#" + cfgmgr.USBDevice.String()
}

const (
	kingston = `USB\VID_0951&PID_1666\60A44C413FAEE280`
	port42   = "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(4)#USB(2)"
	port1    = "PCIROOT(0)#PCI(1400)#USBROOT(0)#USB(1)"
)

// sensor is a running sensor on a fakeTree.
type sensor struct {
	t   *testing.T
	n   *notices
	out chan *event.Event
	end func()
}

func runNotices(t *testing.T, w *Watcher, f *fakeTree) *sensor {
	ctx, cancel := context.WithCancel(context.Background())
	s := &sensor{t: t, out: make(chan *event.Event, 64)}
	s.n = w.newNotices(ctx, s.out, f.tree())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.n.run(s.n.messages, nil, nil); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	s.end = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(s.end)
	return s
}

func (s *sensor) arrive(instance string) {
	s.n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.USBDevice, Path: pathOf(instance)})
}

func (s *sensor) gone(instance string) {
	s.n.heard(cfgmgr.Event{Action: cfgmgr.Removed, Class: cfgmgr.USBDevice, Path: pathOf(instance)})
}

// want reads events up to these, and that no more come: "usb-attached 0951:1666 serial port kinds".
func (s *sensor) want(list ...string) []*event.Event {
	s.t.Helper()
	var all []*event.Event
	var got []string
	for {
		wait := time.Minute
		if len(got) >= len(list) {
			wait = 50 * time.Millisecond
		}
		select {
		case e := <-s.out:
			d := e.Device
			all = append(all, e)
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s:%s %s %s %s %s", e.Action, d.VendorID, d.ProductID, d.SerialNumber, d.Path, strings.Join(d.Kinds, ","), e.Message)))
			continue
		case <-time.After(wait):
		}
		if !slices.Equal(got, list) {
			s.t.Errorf("got  %q\nwant %q", got, list)
		}
		return all
	}
}

func TestWhatWindowsTellsOfDevices(t *testing.T) {
	f := &fakeTree{ports: map[string]string{kingston: port42, `USB\ROOT_HUB30\4&1&0&0`: "PCIROOT(0)#PCI(1400)#USBROOT(0)"}, kinds: map[string]triple{}}
	w := New(Options{})
	s := runNotices(t, w, f)
	s.want("usb-attached 0951:1666 60A44C413FAEE280 " + port42 + " storage " + PresentAtStart)

	f.is(port1, triple{0x03, 0x01, 0x01})
	keyboard := `USB\VID_046D&PID_C31C\6&2D7F6A2&0&4`
	f.plug(keyboard, port1)
	s.arrive(keyboard)
	s.arrive(keyboard)
	s.n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.USBDevice, Path: `\\?\usb#root_hub30#4&1&0&0#` + cfgmgr.USBDevice.String()})
	s.n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.USBDevice, Path: `C:\nonsense`})
	s.want("usb-attached 046d:c31c  " + port1 + " keyboard") // no serial number: Windows made one up

	f.pull(kingston)
	s.gone(kingston)
	s.gone(kingston)
	f.pull(keyboard)
	s.gone(keyboard)
	s.want("usb-detached 0951:1666 60A44C413FAEE280 "+port42+" storage", "usb-detached 046d:c31c  "+port1+" keyboard")

	// It moved to another port, and the word of its leaving was lost.
	f.plug(kingston, port42)
	s.arrive(kingston)
	s.want("usb-attached 0951:1666 60A44C413FAEE280 " + port42 + " storage")
	f.is(port1, triple{0x08, 0x06, 0x50})
	f.plug(kingston, port1)
	s.arrive(kingston)
	s.want("usb-detached 0951:1666 60A44C413FAEE280 "+port42+" storage", "usb-attached 0951:1666 60A44C413FAEE280 "+port1+" storage")

	// A sensor that is started again tells only what happened meanwhile.
	s.end()
	other := `USB\VID_0781&PID_5581\4C530001`
	f.plug(other, port42)
	s = runNotices(t, w, f)
	s.want("usb-attached 0781:5581 4C530001 " + port42 + " storage")
	s.end()
	f.pull(other)
	s = runNotices(t, w, f)
	s.want("usb-detached 0781:5581 4C530001 " + port42 + " storage")
}

func TestADeviceThatIsGoneBeforeItIsLookedAt(t *testing.T) {
	s := runNotices(t, New(Options{}), &fakeTree{ports: map[string]string{}, kinds: map[string]triple{}})
	s.arrive(kingston)
	s.gone(kingston)
	lower := strings.ToLower(kingston)
	for i, e := range s.want("usb-attached 0951:1666 60a44c413faee280 "+lower+" other", "usb-detached 0951:1666 60a44c413faee280 "+lower+" other") {
		if e.Sensor != mechanismNotify {
			t.Errorf("event %d is by %q", i, e.Sensor)
		}
	}
}

func TestAPhoneBecomesOneOnceItsDriverRuns(t *testing.T) {
	phone := `USB\VID_04E8&PID_6860\R58M1`
	f := &fakeTree{ports: map[string]string{phone: port1}, kinds: map[string]triple{port1: {0xff, 0xff, 0}}}
	s := runNotices(t, New(Options{}), f)
	s.want("usb-attached 04e8:6860 R58M1 " + port1 + " other " + PresentAtStart)
	driver := cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.WPD, Path: `\\?\usb#vid_04e8&pid_6860&mi_00#6&1&0&0000#` + cfgmgr.WPD.String()}
	s.n.heard(driver)
	s.n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.WPD, Path: `\\?\swd#wpdbusenum#_??_usbstor#` + cfgmgr.WPD.String()})
	s.want() // it looks as before
	f.is(port1, triple{0x06, 0x01, 0x01})
	s.n.heard(driver)
	s.want("usb-detached 04e8:6860 R58M1 "+port1+" other", "usb-attached 04e8:6860 R58M1 "+port1+" mtp")
	s.n.heard(driver)
	s.want()
}

func TestTwoWithOneSerialNumber(t *testing.T) {
	second := `USB\VID_0951&PID_1666\6&2D7F6A2&0&4` // Windows makes one up for the second
	f := &fakeTree{ports: map[string]string{kingston: port1}, kinds: map[string]triple{}}
	s := runNotices(t, New(Options{}), f)
	s.want("usb-attached 0951:1666 60A44C413FAEE280 " + port1 + " storage " + PresentAtStart)
	fill := s.n.fill
	s.end()
	w := New(Options{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := make(chan *event.Event, 8)
	n := w.newNotices(ctx, out, f.tree())
	n.tracker.fill = func(ctx context.Context, p *pending, id string, d device, report func(device, bool)) {
		d.SerialNumber = "60A44C413FAEE280" // as the device itself says
		fill(ctx, p, id, d, report)
	}
	done := make(chan error, 1)
	go func() { done <- n.run(n.messages, nil, nil) }()
	<-out
	f.plug(second, port42)
	n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.USBDevice, Path: pathOf(second)})
	if e := <-out; !slices.Contains(e.Device.Oddities, event.OddSameSerial) {
		t.Errorf("got %+v", e.Device)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMoreNoticesThanThereIsRoomFor(t *testing.T) {
	f := &fakeTree{ports: map[string]string{}, kinds: map[string]triple{}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := New(Options{})
	out := make(chan *event.Event, 2*maxNotices)
	n := w.newNotices(ctx, out, f.tree())
	n.started = true
	var ids []string
	for i := range maxNotices + 20 {
		id := fmt.Sprintf(`USB\VID_0951&PID_1666\S%03d`, i)
		ids = append(ids, id)
		f.plug(id, fmt.Sprintf("port %d", i))
		n.heard(cfgmgr.Event{Action: cfgmgr.Arrived, Class: cfgmgr.USBDevice, Path: pathOf(id)})
	}
	f.deaf = true // for the look at the start
	done := make(chan error, 1)
	first := true
	scan := n.scan
	n.scan = func(message string) {
		scan(message)
		if first {
			f.mu.Lock()
			f.deaf, first = false, false
			f.mu.Unlock()
		}
	}
	go func() { done <- n.run(n.messages, nil, nil) }()
	for range ids {
		select {
		case e := <-out:
			ids = slices.DeleteFunc(ids, func(id string) bool { return strings.HasSuffix(id, e.Device.SerialNumber) })
		case <-time.After(time.Minute):
			t.Fatalf("not told: %q", ids)
		}
	}
	if len(ids) != 0 {
		t.Errorf("not told: %q", ids)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s := w.Status(); s.State != endpoint.SensorDown { // nobody has set it here
		t.Errorf("state %s", s.State)
	}
}
