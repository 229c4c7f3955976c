package judge

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/event"
	"sekisho/internal/rules"
)

var start = time.Date(2026, 1, 5, 0, 30, 0, 0, time.UTC)

func pack(t testing.TB, o rules.Options) *rules.Program {
	t.Helper()
	p, err := rules.Load(rules.LoadOptions{Builtin: true, Options: o})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// copied is the nth file that goes to a stick, a second after the one before.
func copied(n int) *event.Event {
	e := &event.Event{Time: start.Add(time.Duration(n) * time.Second), ID: fmt.Sprintf("00000000-0000-7000-8000-%012d", n), Action: event.FileCopied,
		Host: &event.Host{ID: "h1", Name: "pc1"}, User: &event.User{Name: "tanaka"}}
	e.File = &event.File{Path: fmt.Sprintf("/media/usb/%d", n), VolumeKind: event.VolumeRemovable}
	e.Copy = &event.Copy{Files: event.Some[int64](1), Bytes: event.Some[int64](1000)}
	return e
}

type stage func(*event.Event)

func (s stage) Apply(e *event.Event) { s(e) }

func TestEightyFilesAreOneAlertThatGrows(t *testing.T) {
	enriched := 0
	j := New(Options{Program: pack(t, rules.Options{}), Enricher: stage(func(*event.Event) { enriched++ })})
	var raised []*alert.Alert
	for n := range 80 {
		raised = append(raised, j.Event(copied(n))...)
	}
	if len(raised) != 1 || enriched != 80 {
		t.Fatalf("%d alerts of %d events", len(raised), enriched)
	}
	a := raised[0]
	if a.Rule.Table != "USB-3" || a.Level != alert.High || a.Totals["files"] != 50 || a.Count != 1 || len(a.Evidence) != alert.MaxEvidence {
		t.Errorf("at first: %+v", a)
	}
	up := j.Updates()
	if len(up) != 1 || up[0].ID != a.ID || up[0].Totals["files"] != 80 || up[0].Totals["bytes"] != 80_000 || up[0].Count != 31 || up[0].EvidenceTotal != 80 {
		t.Fatalf("in the end: %+v", up)
	}
	if j.Updates() != nil || j.Settled(a) {
		t.Error("told twice, or settled too early")
	}
}

// A PC that came up with its clock a year ahead must not keep the alerts of that
// time open until then.
func TestAClockThatIsSetBackClosesTheAlertsOfTheFuture(t *testing.T) {
	j := New(Options{Program: pack(t, rules.Options{})})
	attached := func(at time.Time, serial string) []*alert.Alert {
		return j.Event(&event.Event{Time: at, ID: serial + at.String(), Action: event.USBAttached, Host: &event.Host{Name: "pc1"},
			Device: &event.Device{VendorID: "0781", ProductID: "5567", SerialNumber: serial, Kinds: []string{event.KindStorage}}})
	}
	for n := range 10 {
		if a := attached(start.AddDate(1, 0, 0).Add(time.Duration(n)*time.Second), fmt.Sprint(n)); len(a) != 1 {
			t.Fatalf("stick %d: %d alerts", n, len(a))
		}
	}
	for n := range 40 {
		attached(start.Add(time.Duration(n)*time.Second), "now")
	}
	if n := j.book.Len(); n != 1 {
		t.Errorf("%d alerts are open, want the one of now", n)
	}
}

func TestSwapKeepsCountingWithOtherThresholds(t *testing.T) {
	j := New(Options{Program: pack(t, rules.Options{})})
	for n := range 30 {
		j.Event(copied(n))
	}
	j.Swap(pack(t, rules.Options{Thresholds: map[string]map[string]int64{"USB-3": {"files": 31}}}))
	if a := j.Event(copied(30)); len(a) != 1 || a[0].Totals["files"] != 31 {
		t.Errorf("got %+v", a)
	}
}

func TestARuleWithoutOurKeyAlertsOnEveryMatch(t *testing.T) {
	f, err := rules.Parse("x.yml", []byte(`title: plain
id: 33333333-3333-4333-8333-333333333333
logsource: {category: process_creation, product: linux}
detection: {s: {Image|endswith: /nc}, condition: s}
level: low
---
title: three
correlation: {type: event_count, rules: [33333333-3333-4333-8333-333333333333], group-by: [user.name], timespan: 1m, condition: {gte: 3}, generate: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rules.Compile([]*rules.File{f}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := New(Options{Program: p})
	n := map[string]int{}
	for i := range 4 {
		e, err := event.Decode(fmt.Appendf(nil, `{"@timestamp":"2026-01-05T00:00:0%dZ","event.id":"%d","event.action":"process-started","host.os.type":"linux","process.executable":"/bin/nc","user.name":"u"}`, i, i))
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range j.Event(e) {
			n[a.Rule.Name]++
			if a.Count != 1 || a.Title.EN != a.Rule.Name {
				t.Errorf("%+v", a)
			}
		}
	}
	if n["plain"] != 4 || n["three"] != 2 || len(j.Updates()) != 0 {
		t.Errorf("got %v", n)
	}
}

// With aliases the value that a group has comes from another field for each rule:
// repeats join by it.
func TestRepeatsJoinByTheValueOfAnAlias(t *testing.T) {
	f, err := rules.Parse("x.yml", []byte(`title: read
name: read
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-read}, condition: s}
---
title: copied
name: copied
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
---
title: both
taxonomy: ecs
correlation: {type: temporal, rules: [read, copied], group-by: [who], timespan: 1m, aliases: {who: {read: file.owner, copied: user.name}}}
sekisho: {rule: SITE-1}
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := rules.Compile([]*rules.File{f}, rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := New(Options{Program: p})
	raised := 0
	for i, s := range []string{"read u x", "copied y u", "read v u", "copied y v", "read v x", "copied x u"} { // action, owner or what else, user
		var action, owner, user string
		fmt.Sscan(s, &action, &owner, &user)
		e := &event.Event{Time: start.Add(time.Duration(i) * time.Second), ID: fmt.Sprint(i), Action: event.Action("file-" + action),
			File: &event.File{Owner: owner}, User: &event.User{Name: user}}
		for _, a := range j.Event(e) {
			raised++
			if want := map[int]string{1: "u", 3: "v"}[i]; a.Keys["who"] != want {
				t.Errorf("event %d: an alert of %q, want %q", i, a.Keys["who"], want)
			}
		}
	}
	if up := j.Updates(); raised != 2 || len(up) != 2 || up[0].Keys["who"] != "v" || up[1].Keys["who"] != "u" || up[0].Count != 2 || up[1].Count != 2 {
		t.Errorf("%d alerts, then %+v", raised, up)
	}
}

func TestARealFindingNeverJoinsATestsAlert(t *testing.T) {
	j := New(Options{Program: pack(t, rules.Options{})})
	tool := func(n int, test bool) *event.Event {
		e := &event.Event{Time: start.Add(time.Duration(n) * time.Second), ID: fmt.Sprint(n), Action: event.ProcessStarted, Host: &event.Host{Name: "pc1"},
			Process: &event.Process{RemoteTool: &event.RemoteTool{ID: "anydesk", Category: "remote-desktop"}}}
		if test {
			e.Test = event.Some(true)
		}
		return e
	}
	if a := j.Event(tool(0, true)); len(a) != 1 || !a[0].Test() {
		t.Errorf("the test: got %+v", a)
	}
	if a := j.Event(tool(1, false)); len(a) != 1 || a[0].Test() {
		t.Errorf("the real one: got %+v", a)
	}
}

func BenchmarkEvent(b *testing.B) {
	j := New(Options{Program: pack(b, rules.Options{})})
	e := copied(0)
	b.ReportAllocs()
	for b.Loop() {
		e.Time = e.Time.Add(20 * time.Millisecond)
		j.Event(e)
	}
}

// Somebody who renames files to kinds of his own making by the thousand, each a
// window of ANOM-1, does not make the PC forget what went to his stick before.
func TestAFloodOfNamesDoesNotHideACopy(t *testing.T) {
	j := New(Options{Program: pack(t, rules.Options{})})
	var tables []string
	tell := func(e *event.Event) {
		for _, a := range j.Event(e) {
			tables = append(tables, a.Rule.Table)
		}
	}
	for n := range 30 {
		tell(copied(n))
	}
	for n := range 15_000 {
		tell(&event.Event{Time: start.Add(30*time.Second + time.Duration(n)*time.Millisecond), ID: fmt.Sprint("r", n), Action: event.FileRenamed,
			Host: &event.Host{ID: "h1", Name: "pc1"}, User: &event.User{Name: "tanaka"}, Process: &event.Process{PID: event.Some[int64](7), Name: "mv"},
			File: &event.File{Path: fmt.Sprint("/home/tanaka/a.zz", n), Name: fmt.Sprint("a.zz", n), Extension: fmt.Sprint("zz", n), VolumeKind: event.VolumeLocal}})
	}
	if j.Stats().Windows.Evicted == 0 {
		t.Fatalf("no flood: %+v", j.Stats())
	}
	for n := 60; n < 80; n++ {
		tell(copied(n))
	}
	if !slices.Contains(tables, "USB-3") {
		t.Errorf("50 files went to a stick unnoticed: %q", tables)
	}
}
