package enrich

import (
	"slices"
	"strings"

	"sekisho/internal/config"
	"sekisho/internal/event"
)

// The values of sekisho.device.ledger.
const (
	ledgerApproved     = "approved"
	ledgerUnregistered = "unregistered"
	ledgerExpired      = "expired"
	ledgerLost         = "lost"
)

// deviceKey is what tells a device from others, in lower case.
type deviceKey struct{ vendor, product, serial string }

func newDeviceKey(vendor, product, serial string) deviceKey {
	return deviceKey{strings.ToLower(vendor), strings.ToLower(product), strings.ToLower(serial)}
}

// entry is one line of the ledger.
type entry struct {
	key     deviceKey
	label   string
	expires config.Date
	lost    bool
}

// name is how people call the entry's device.
func (x *entry) name() string {
	for _, s := range []string{x.label, x.key.serial} {
		if s != "" {
			return s
		}
	}
	return x.key.vendor + ":" + x.key.product
}

// fits reports whether the entry is about the device. What the entry does not
// say fits any; an id that the event does not tell is forgiven where the serial
// number is the same.
func (x *entry) fits(d deviceKey) bool {
	same := func(want, got string) bool {
		return want == "" || want == got || got == "" && x.key.serial != ""
	}
	return (x.key.serial == "" || x.key.serial == d.serial) && same(x.key.vendor, d.vendor) && same(x.key.product, d.product)
}

// devices is the ledger by serial number and, for entries without one, by vendor.
type devices struct {
	serial map[string][]entry
	vendor map[string][]entry
}

func newDevices(approved []config.ApprovedDevice, lost []config.LostDevice) devices {
	d := devices{map[string][]entry{}, map[string][]entry{}}
	add := func(x entry) {
		if s := x.key.serial; s != "" {
			d.serial[s] = append(d.serial[s], x)
		} else {
			d.vendor[x.key.vendor] = append(d.vendor[x.key.vendor], x)
		}
	}
	for _, a := range approved {
		add(entry{newDeviceKey(a.Vendor, a.Product, a.Serial), a.Label, a.Expires, false})
	}
	for _, l := range lost {
		add(entry{newDeviceKey(l.Vendor, l.Product, l.Serial), "", "", true})
	}
	return d
}

// look says how a device stands in the ledger on a day, and where it is approved,
// by which entry: the one that ends last.
func (d *devices) look(key deviceKey, today config.Date) (found string, by *entry) {
	found = ledgerUnregistered
	for _, list := range [2][]entry{d.serial[key.serial], d.vendor[key.vendor]} {
		for i := range list {
			x := &list[i]
			switch {
			case !x.fits(key):
			case x.lost:
				return ledgerLost, nil
			case x.expires == "" || today != "" && today <= x.expires:
				found = ledgerApproved
				if by == nil || by.expires != "" && (x.expires == "" || x.expires > by.expires) {
					by = x
				}
			case found != ledgerApproved:
				found = ledgerExpired
			}
		}
	}
	return found, by
}

// stores reports whether a device can carry files away: storage or a phone. A
// recording that does not say so in kinds may say it in interfaces (USB class 08
// is mass storage, 06/01/01 still image, which MTP uses).
func stores(d *event.Device) bool {
	if len(d.Kinds) > 0 {
		return slices.Contains(d.Kinds, event.KindStorage) || slices.Contains(d.Kinds, event.KindMTP)
	}
	for _, i := range d.Interfaces {
		if strings.HasPrefix(i, "08/") || i == "06/01/01" {
			return true
		}
	}
	return false
}

// onMedium reports whether a volume lies on a medium that the ledger is about.
func onMedium(v *event.Volume) bool { return v.Kind == event.VolumeRemovable }

var fSourceLedger = field("sekisho.source.ledger")

// ledger fills in how the device, the target's volume and the source's volume
// stand in the ledger.
func (t *tables) ledger(e *event.Event, c *event.Context, vs *volumes) {
	var today config.Date
	look := func(k deviceKey) string {
		if today == "" && !e.Time.IsZero() {
			today = t.calendar.date(e.Time)
		}
		found, by := t.devices.look(k, today)
		if by != nil && (e.Action == event.USBAttached || e.Action == event.VolumeMounted) {
			t.ends(e, c, event.ExpiryDevice, by.name(), by.expires)
		}
		return found
	}
	if !e.Has(fDeviceLedger) {
		switch {
		case e.Device != nil && stores(e.Device):
			k := newDeviceKey(e.Device.VendorID, e.Device.ProductID, e.Device.SerialNumber)
			c.DeviceLedger = look(k)
			// Of two devices with one serial number at least one is not that of the
			// ledger, so the number does not approve the second.
			if c.DeviceLedger == ledgerApproved && slices.Contains(e.Device.Oddities, event.OddSameSerial) {
				k.serial = ""
				c.DeviceLedger = look(k)
			}
		case e.Device == nil && e.Volume != nil && onMedium(e.Volume):
			c.DeviceLedger = look(volumeKey(e.Volume))
		case e.Device == nil && e.Volume == nil && e.File != nil && e.File.VolumeKind == event.VolumeRemovable:
			c.DeviceLedger = look(deviceKey{})
		}
	}
	if s := e.Copy; s != nil && s.SourceVolumeKind == event.VolumeRemovable && !e.Has(fSourceLedger) {
		var k deviceKey
		if v := vs.holding(s.SourcePath); v != nil {
			k = volumeKey(v)
		}
		s.SourceLedger = look(k)
	}
}

func volumeKey(v *event.Volume) deviceKey {
	return newDeviceKey(v.VendorID, v.ProductID, v.SerialNumber)
}
