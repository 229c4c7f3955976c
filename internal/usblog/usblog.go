// Package usblog tells which USB devices came and went while the agent did not run, as
// far as the logs of Windows have it. It looks once, when it starts; what happens from
// then on is for package usb to tell.
//
// Windows: Microsoft-Windows-Partition/Diagnostic (record 1006, on as Windows comes),
// into which each disk is written that comes or goes, with its bus, maker, model and
// serial number; and Security (record 6416), which has devices of every kind, where the
// audit policy "PNP Activity" is on. An event has the time of its record and says that
// it was found. A device that is there still is told by package usb instead, as one
// that was there at the start.
//
// What can be missed: devices other than disks where there is no audit policy, and
// their leaving in any case; what a feature update of Windows, or somebody, cleared
// from the log; more than 1,000 records; and what happened more than 30 days ago.
//
// Elsewhere: Run returns an error that wraps errors.ErrUnsupported.
package usblog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/usb"
	"sekisho/internal/winlog"
)

// The logs that are read.
const (
	partitionLog = "Microsoft-Windows-Partition/Diagnostic"
	securityLog  = "Security"
)

// Records of them.
const (
	// recordDisk is of Microsoft-Windows-Partition: Capacity (0: it went), BusType,
	// Manufacturer, Model, SerialNumber, ParentId (the instance id of what the disk is
	// attached by: the USB device) and more, as the manifest of Windows 10 has them; it
	// is not documented.
	recordDisk = 1006
	// recordDevice is of Microsoft-Windows-Security-Auditing ("A new external device
	// was recognized by the System"): DeviceId, DeviceDescription, CompatibleIds.
	recordDevice = 6416
)

const (
	mechanism = "event-log"
	// MessageFound is the message of what these logs tell.
	MessageFound = "found in the log of Windows: it happened while the agent did not run"
	busUSB       = 7 // STORAGE_BUS_TYPE, BusTypeUsb (ntddstor.h)
	// most and oldest bound what is told at a start. Judgement: a stick a minute for
	// a day; as long as activity waits for the console.
	most   = 1000
	oldest = 30 * 24 * time.Hour
	// together is within which time two logs tell of one arrival: a disk that spins
	// up is written after its device.
	together = time.Minute
	maxText  = 256 // bytes of a name; USB has 126 characters for one
)

// Options are the settings of a [Watcher].
type Options struct {
	// Since is when the agent was last known to watch. Zero: it never was, and
	// nothing is told.
	Since time.Time

	past    func(ctx context.Context, o winlog.Options, until time.Time, most int) error // nil: winlog.Past
	present func(instance string) bool                                                   // nil: this PC
}

// Watcher is the sensor. It is made by New; Run does the work.
type Watcher struct {
	opt   Options
	gauge *endpoint.Gauge
}

// New returns a sensor that is not running.
func New(opt Options) *Watcher {
	if opt.past == nil {
		opt.past = winlog.Past
	}
	if opt.present == nil {
		opt.present = present
	}
	return &Watcher{opt: opt, gauge: endpoint.NewGauge("usb-log")}
}

// Name is "usb-log".
func (w *Watcher) Name() string { return "usb-log" }

// Status says how the sensor is. It is safe for concurrent use.
func (w *Watcher) Status() endpoint.Sensor { return w.gauge.Status() }

// Run tells what happened, once, and waits until ctx ends.
func (w *Watcher) Run(ctx context.Context, out chan<- *event.Event) error {
	since, until := w.opt.Since, time.Now()
	w.opt.Since = time.Time{} // once in the life of the agent
	if old := until.Add(-oldest); !since.IsZero() && since.Before(old) {
		since = old
	}
	if since.IsZero() {
		since = until // nothing, but whether it can be read shows
	}
	w.gauge.Set(endpoint.SensorOK, mechanism, "")
	all, err := w.read(ctx, since, until)
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("look for devices in logs: %w", err)
	}
	for _, e := range w.told(all) {
		select {
		case out <- e:
			w.gauge.Told()
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil
}

// record is a device that came or went.
type record struct {
	at       time.Time
	instance string // instance id of the USB device; "" if unknown
	device   event.Device
	gone     bool
	audit    bool // of the Security log
}

// read collects what the logs have, and sets the state by what could be read.
func (w *Watcher) read(ctx context.Context, since, until time.Time) (all []record, err error) {
	var problems []string
	for _, l := range []struct {
		channel string
		id      int
		decode  func(*winlog.Event) (record, bool)
	}{{partitionLog, recordDisk, decodeDisk}, {securityLog, recordDevice, decodeDevice}} {
		err := w.opt.past(ctx, winlog.Options{Channel: l.channel, IDs: []int{l.id}, Since: since,
			Tell: func(e *winlog.Event) {
				if r, ok := l.decode(e); ok {
					all = append(all, r)
				}
			},
			Lost: func(error) { w.gauge.Lose(1) },
		}, until, most)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
		if err != nil && ctx.Err() == nil {
			problems = append(problems, err.Error())
		}
	}
	switch reason := strings.Join(problems, "; "); len(problems) {
	case 0:
	case 1:
		w.gauge.Set(endpoint.SensorLimited, mechanism, reason)
	default:
		w.gauge.Set(endpoint.SensorUnavailable, "", reason)
	}
	return all, nil
}

// told makes events of records: each coming and going of a device once, but not the
// last coming of one that is there still.
func (w *Watcher) told(all []record) (events []*event.Event) {
	slices.SortStableFunc(all, func(a, b record) int { return a.at.Compare(b.at) })
	there := map[string]bool{}
	last := map[string]int{} // the last coming that was not followed by a going, in events
	for i, r := range all {
		key := r.key()
		if r.audit && slices.ContainsFunc(all, func(d record) bool { return !d.audit && !d.gone && d.key() == key && d.at.Sub(r.at).Abs() < together }) {
			continue // the other log knows more of it
		}
		if !r.gone && there[key] && !r.audit {
			continue // a disk is written again when it is partitioned
		}
		action := event.USBAttached
		if r.gone {
			action = event.USBDetached
			delete(last, key)
		} else {
			last[key] = len(events)
		}
		there[key] = !r.gone
		e := event.New(action, r.at)
		e.Sensor, e.Message, e.Device = mechanism, MessageFound, &all[i].device
		events = append(events, e)
	}
	var still []int
	for key, i := range last {
		if strings.HasPrefix(key, `USB\`) && w.opt.present(key) {
			still = append(still, i)
		}
	}
	kept := events[:0]
	for i, e := range events {
		if !slices.Contains(still, i) {
			kept = append(kept, e)
		}
	}
	return kept
}

// key tells devices apart.
func (r *record) key() string {
	if r.instance != "" {
		return strings.ToUpper(r.instance)
	}
	return "disk " + r.device.ProductName + "\x00" + r.device.SerialNumber
}

// decodeDisk reads a record of a disk; false if it is no USB disk.
func decodeDisk(e *winlog.Event) (record, bool) {
	capacity, err := strconv.ParseUint(e.Get("Capacity"), 0, 64)
	if err != nil {
		return record{}, false
	}
	r := record{at: e.Time, gone: capacity == 0}
	parent := e.Get("ParentId")
	vendor, product, serial, ok := usb.ParseID(parent)
	if ok {
		r.instance = parent
	} else if bus, err := strconv.ParseUint(e.Get("BusType"), 0, 32); err != nil || bus != busUSB {
		return record{}, false
	}
	if serial == "" {
		serial = text(e.Get("SerialNumber"))
	}
	r.device = event.Device{VendorID: vendor, ProductID: product, SerialNumber: serial,
		VendorName: text(e.Get("Manufacturer")), ProductName: text(e.Get("Model")), Kinds: []string{event.KindStorage}}
	return r, true
}

// decodeDevice reads a record of a device; false of what is none by itself (a disk,
// a volume, a function of a device), and of hubs.
func decodeDevice(e *winlog.Event) (record, bool) {
	r := record{at: e.Time, instance: e.Get("DeviceId"), audit: true}
	vendor, product, serial, ok := usb.ParseID(r.instance)
	classes := strings.ToUpper(e.Get("CompatibleIds"))
	if !ok || strings.Contains(classes, `USB\CLASS_09`) {
		return record{}, false
	}
	r.device = event.Device{VendorID: vendor, ProductID: product, SerialNumber: text(serial), ProductName: text(e.Get("DeviceDescription"))}
	switch {
	case strings.Contains(classes, `USB\CLASS_08`):
		r.device.Kinds = []string{event.KindStorage}
	case strings.Contains(classes, "MS_COMP_MTP"), strings.Contains(classes, `USB\CLASS_06`):
		r.device.Kinds = []string{event.KindMTP}
	}
	return r, true
}

// text is a name without the blanks that disks fill theirs up with, bounded.
func text(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return strings.TrimSpace(s)
}
