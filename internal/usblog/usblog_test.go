package usblog

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/winlog"
	"sekisho/internal/winlog/winlogtest"
)

func TestRecordsOfDevices(t *testing.T) {
	for _, c := range []struct {
		file   string
		decode func(*winlog.Event) (record, bool)
		want   string
	}{
		{"attached.xml", decodeDisk, `{VendorID:0951 ProductID:1666 VendorName:Example ProductName:Stick SerialNumber:60A44C4252F1F2B0 Path: Interfaces:[] Kinds:[storage] Oddities:[]} gone=false`},
		{"detached.xml", decodeDisk, `{VendorID:0951 ProductID:1666 VendorName:Example ProductName:Stick SerialNumber:60A44C4252F1F2B0 Path: Interfaces:[] Kinds:[storage] Oddities:[]} gone=true`},
		{"pnp.xml", decodeDevice, `{VendorID:04e8 ProductID:6860 VendorName: ProductName:SAMSUNG Mobile USB Composite Device SerialNumber:R58M0000000 Path: Interfaces:[] Kinds:[] Oddities:[]} gone=false`},
	} {
		e := winlogtest.Read(t, c.file)
		r, ok := c.decode(e)
		if got := fmt.Sprintf("%+v gone=%t", r.device, r.gone); !ok || got != c.want || !r.at.Equal(e.Time) {
			t.Errorf("%s: %t\ngot  %s\nwant %s", c.file, ok, got, c.want)
		}
	}
}

// disk is a record of a disk, device one of the audit.
func disk(at time.Time, parent, bus, serial, capacity string) *winlog.Event {
	return &winlog.Event{ID: recordDisk, Time: at, Data: []winlog.Field{{Name: "ParentId", Value: parent}, {Name: "BusType", Value: bus}, {Name: "SerialNumber", Value: serial}, {Name: "Capacity", Value: capacity}}}
}

func device(at time.Time, id, compatible string) *winlog.Event {
	return &winlog.Event{ID: recordDevice, Time: at, Data: []winlog.Field{{Name: "DeviceId", Value: id}, {Name: "DeviceDescription", Value: "a device"}, {Name: "CompatibleIds", Value: compatible}}}
}

func TestWhatCameAndWentIsTold(t *testing.T) {
	const (
		stick  = `USB\VID_0951&PID_1666\60A44C`
		phone  = `USB\VID_04E8&PID_6860\R58M`
		noname = `USB\VID_1234&PID_5678\6&1A2B3C&0&3`
	)
	began := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	at := func(minutes int) time.Time { return began.Add(time.Duration(minutes) * time.Minute) }
	for _, c := range []struct {
		name     string
		disks    []*winlog.Event
		audits   []*winlog.Event
		attached string // instance ids of what is there now
		want     []string
	}{
		{"a stick came and went", []*winlog.Event{disk(at(1), stick, "7", "A1", "1000"), disk(at(2), stick, "7", "A1", "0")}, nil, "",
			[]string{"1 usb-attached 0951:1666 60A44C storage", "2 usb-detached 0951:1666 60A44C storage"}},
		{"one that is there still is for the sensor to tell", []*winlog.Event{disk(at(1), stick, "7", "A1", "1000"), disk(at(2), stick, "7", "A1", "0"), disk(at(3), stick, "7", "A1", "1000")}, nil, stick,
			[]string{"1 usb-attached 0951:1666 60A44C storage", "2 usb-detached 0951:1666 60A44C storage"}},
		{"one that left while the PC was off", []*winlog.Event{disk(at(1), stick, "7", "A1", "1000")}, nil, "",
			[]string{"1 usb-attached 0951:1666 60A44C storage"}},
		{"one that was there before and went", []*winlog.Event{disk(at(2), stick, "7", "A1", "0")}, nil, "",
			[]string{"2 usb-detached 0951:1666 60A44C storage"}},
		{"formatted", []*winlog.Event{disk(at(1), stick, "7", "A1", "1000"), disk(at(9), stick, "7", "A1", "1000"), disk(at(10), stick, "7", "A1", "0")}, nil, "",
			[]string{"1 usb-attached 0951:1666 60A44C storage", "10 usb-detached 0951:1666 60A44C storage"}},
		{"no disk of USB", []*winlog.Event{disk(at(1), `PCI\VEN_8086&DEV_9A0B\3&11`, "17", "NVME", "1000"), disk(at(1), "", "8", "", "1000")}, nil, "", nil},
		{"a disk of USB that does not say by what it is attached", []*winlog.Event{disk(at(1), `SCSI\x`, "7", " A1 ", "1000")}, nil, "",
			[]string{"1 usb-attached : A1 storage"}},
		{"a device without a serial number", []*winlog.Event{disk(at(1), noname, "7", "", "1000")}, nil, "",
			[]string{"1 usb-attached 1234:5678  storage"}},
		{"a phone", nil, []*winlog.Event{device(at(5), phone, `USB\MS_COMP_MTP&MS_SUBCOMP_ USB\Class_06&SubClass_01`), device(at(4), stick, `USB\Class_08&SubClass_06&Prot_50`)}, "",
			[]string{"4 usb-attached 0951:1666 60A44C storage", "5 usb-attached 04e8:6860 R58M mtp"}},
		{"a phone that is there", nil, []*winlog.Event{device(at(3), phone, ""), device(at(5), phone, "")}, strings.ToUpper(phone),
			[]string{"3 usb-attached 04e8:6860 R58M "}},
		{"both logs of one stick", []*winlog.Event{disk(at(1).Add(2*time.Second), stick, "7", "A1", "1000")}, []*winlog.Event{device(at(1), stick, ""), device(at(30), stick, "")}, "",
			[]string{"1 usb-attached 0951:1666 60A44C storage", "30 usb-attached 0951:1666 60A44C "}},
		{"hubs, functions, disks and nonsense", nil, []*winlog.Event{device(at(1), `USB\VID_05E3&PID_0610\5&1`, `USB\Class_09&SubClass_00`), device(at(1), `USB\VID_046D&PID_C52B&MI_02\6&1`, ""),
			device(at(1), `USBSTOR\Disk&Ven_X\1`, ""), device(at(1), `USB\VID_0000&PID_0002\5&1`, ""), device(at(1), `USB\VID_09\`, ""), device(at(1), "", "")}, "", nil},
	} {
		w := New(Options{Since: began,
			past: func(_ context.Context, o winlog.Options, until time.Time, _ int) error {
				all := c.disks
				if o.Channel == securityLog {
					all = c.audits
				}
				if !o.Since.Equal(began) || time.Since(until) > time.Minute {
					t.Errorf("%s: asked for %v to %v", c.name, o.Since, until)
				}
				for _, e := range all {
					o.Tell(e)
				}
				return nil
			},
			present: func(instance string) bool { return strings.EqualFold(instance, c.attached) }})
		ctx, cancel := context.WithCancel(t.Context())
		out, done := make(chan *event.Event), make(chan error)
		go func() { done <- w.Run(ctx, out) }()
		var got []string
		for range c.want {
			select {
			case e := <-out:
				d := e.Device
				got = append(got, fmt.Sprintf("%v %s %s:%s %s %s", e.Time.Sub(began).Truncate(time.Minute).Minutes(), e.Action, d.VendorID, d.ProductID, d.SerialNumber, strings.Join(d.Kinds, ",")))
				if e.Message != MessageFound {
					t.Errorf("%s: message %q", c.name, e.Message)
				}
			case <-time.After(time.Minute):
			}
		}
		select {
		case e := <-out:
			t.Errorf("%s: told also %s %+v", c.name, e.Action, e.Device)
		case <-time.After(20 * time.Millisecond):
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: told\n  %s\nwant\n  %s", c.name, strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
		}
		if s := w.Status(); s.State != endpoint.SensorOK || s.Events != uint64(len(c.want)) {
			t.Errorf("%s: status %+v", c.name, s)
		}
	}
}

func TestLogsThatCannotBeRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		since time.Time
		errs  map[string]error
		state endpoint.SensorState
		err   error
	}{
		{"the first start", time.Time{}, map[string]error{securityLog: errors.New("access is denied")}, endpoint.SensorLimited, nil},
		{"no rights", time.Now(), map[string]error{securityLog: errors.New("access is denied")}, endpoint.SensorLimited, nil},
		{"none", time.Now(), map[string]error{partitionLog: errors.New("no such log"), securityLog: errors.New("access is denied")}, endpoint.SensorUnavailable, nil},
		{"another system", time.Now(), map[string]error{partitionLog: errors.ErrUnsupported}, endpoint.SensorOK, errors.ErrUnsupported},
	} {
		w := New(Options{Since: c.since, past: func(_ context.Context, o winlog.Options, _ time.Time, _ int) error { return c.errs[o.Channel] }})
		synctest.Test(t, func(t *testing.T) { // its time passes once the logs are read
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := w.Run(ctx, make(chan *event.Event))
			if s := w.Status(); s.State != c.state || !errors.Is(err, c.err) {
				t.Errorf("%s: %+v, %v", c.name, s, err)
			}
		})
	}
}

// It is not told again when the sensor is started again.
func TestWhatWasReadIsNotReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its time passes once the logs are read
		asked := 0
		w := New(Options{Since: time.Now().AddDate(-1, 0, 0), past: func(_ context.Context, o winlog.Options, _ time.Time, _ int) error {
			if asked++; time.Since(o.Since) > oldest+time.Minute || asked > 2 && time.Since(o.Since) > time.Minute {
				t.Errorf("asked for %v", o.Since)
			}
			return nil
		}})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := w.Run(ctx, make(chan *event.Event)); err != nil {
				t.Error(err)
			}
			cancel()
		}
		if asked != 4 {
			t.Errorf("asked %d times", asked)
		}
	})
}

func FuzzDevices(f *testing.F) {
	f.Add(`USB\VID_0951&PID_1666\60A44C`, "7", "A1", "1000", `USB\Class_08`)
	f.Add(`usb\vid_0951&pid_166x\6&1`, "", "\xff", "0", "")
	f.Fuzz(func(t *testing.T, id, bus, serial, capacity, compatible string) {
		for _, r := range func() (all []record) {
			if r, ok := decodeDisk(disk(time.Now(), id, bus, serial, capacity)); ok {
				all = append(all, r)
			}
			if r, ok := decodeDevice(device(time.Now(), id, compatible)); ok {
				all = append(all, r)
			}
			return all
		}() {
			d := r.device
			if len(d.VendorID) != len(d.ProductID) || d.VendorID != "" && (len(d.VendorID) != 4 || strings.Trim(d.VendorID+d.ProductID, "0123456789abcdef") != "") || len(d.SerialNumber) > maxText ||
				utf8.ValidString(id+serial) && !utf8.ValidString(d.SerialNumber) {
				t.Errorf("%+v", r)
			}
		}
	})
}

// As the system is that the test runs on.
func TestTheSensorComesUpAndStops(t *testing.T) {
	w := New(Options{Since: time.Now().Add(-time.Hour)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := w.Run(ctx, make(chan *event.Event))
	s := w.Status()
	t.Logf("%s by %q: %s (%v)", s.State, s.Mechanism, s.Reason, err)
	if runtime.GOOS != "windows" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ended with %v", err)
		}
	} else if err != nil || s.State == endpoint.SensorDown {
		t.Errorf("ended with %v, %+v", err, s)
	}
}
