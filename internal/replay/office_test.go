package replay

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rickar/cal/v2"
	"github.com/rickar/cal/v2/jp"

	"sekisho/internal/alert"
	"sekisho/internal/config"
	"sekisho/internal/enrich"
	"sekisho/internal/event"
	"sekisho/internal/judge"
	"sekisho/internal/rules"
)

// office makes what happens in a made-up town hall: ten departments of five
// people, most at a PC of their own, ten on one terminal server. The same seed
// gives the same events.
type office struct {
	rnd    *rand.Rand
	people []*clerk
	closed *cal.Calendar

	events []*event.Event // of the day at hand
	n      int            // events so far
}

// clerk is somebody who works there.
type clerk struct {
	name, dept, share string
	host              *event.Host
	foreign           []string // shares of other departments that the work needs
	late              bool     // often stays in the evening
}

const server = "ts01" // the terminal server

var (
	tokyo       = time.FixedZone("JST", 9*60*60)
	departments = [...]struct{ name, share string }{{"総務課", "soumu"}, {"人事課", "jinji"}, {"税務課", "zeimu"}, {"市民課", "shimin"}, {"福祉課", "fukushi"},
		{"企画課", "kikaku"}, {"土木課", "doboku"}, {"水道課", "suidou"}, {"教育委員会", "kyouiku"}, {"消防本部", "shoubou"}}
)

func shareOf(dept int) string { return `\\fs01\` + departments[dept].share }

func newOffice(seed uint64) *office {
	o := &office{rnd: rand.New(rand.NewPCG(seed, 1)), closed: &cal.Calendar{}}
	o.closed.AddHoliday(jp.Holidays...)
	ts := &event.Host{ID: "h-" + server, Name: server, OSType: "windows"}
	for i := range 50 {
		d := i % len(departments)
		c := &clerk{name: fmt.Sprintf("u%02d", i+1), dept: departments[d].name, share: shareOf(d), host: ts, late: i%7 == 0}
		if i >= 10 {
			c.host = &event.Host{ID: fmt.Sprintf("h-pc%02d", i+1), Name: fmt.Sprintf("pc%02d", i+1), OSType: "windows"}
		}
		for len(c.foreign) < 2 {
			if s := shareOf(o.rnd.IntN(len(departments))); s != c.share && !slices.Contains(c.foreign, s) {
				c.foreign = append(c.foreign, s)
			}
		}
		o.people = append(o.people, c)
	}
	return o
}

// settings is the agent's settings of the town hall.
func (o *office) settings() string {
	var b strings.Builder
	b.WriteString("shares:\n")
	for i, d := range departments {
		fmt.Fprintf(&b, "  - {share: '%s', department: %s, audience: department}\n", shareOf(i), d.name)
	}
	b.WriteString(`protected:
  - {label: 住民情報, shares: ['\\fs02\juki'], paths: ['D:\juki\**'], department: 市民課}
remote_access: {approved: [{tool: teamviewer, reason: helpdesk}]}
devices: {approved: [{vendor: "0951", product: "1666", label: office sticks}]}
people:
`)
	for i, c := range o.people {
		fmt.Fprintf(&b, "  - {id: %q, accounts: [%s], department: %s}\n", fmt.Sprint(10_000+i), c.name, c.dept)
	}
	return b.String()
}

// works reports whether the town hall is open on a day.
func (o *office) works(day time.Time) bool {
	if w := day.Weekday(); w == time.Saturday || w == time.Sunday {
		return false
	}
	if m, d := day.Month(), day.Day(); m == time.December && d >= 29 || m == time.January && d <= 3 {
		return false
	}
	actual, observed, _ := o.closed.IsHoliday(day.Add(12 * time.Hour))
	return !actual && !observed
}

// add puts an event of a person into the day.
func (o *office) add(c *clerk, at time.Time, action event.Action) *event.Event {
	o.n++
	e := &event.Event{Time: at.UTC(), ID: fmt.Sprintf("00000000-0000-8000-8000-%012d", o.n), Action: action, Host: c.host, User: &event.User{Name: c.name}}
	if c.host.Name == server {
		e.Context = &event.Context{HostTags: []string{"shared"}}
	}
	o.events = append(o.events, e)
	return e
}

// hour is a moment of the day, in the hours from and to.
func (o *office) hour(day time.Time, from, to float64) time.Time {
	h := from + o.rnd.Float64()*(to-from)
	return day.Add(time.Duration(h * float64(time.Hour)))
}

func (o *office) chance(p float64) bool { return o.rnd.Float64() < p }

// copyFrom copies files from a share to the PC, told as one event.
func (o *office) copyFrom(c *clerk, at time.Time, share string, files []int) *event.Event {
	e := o.add(c, at, event.FileCopied)
	e.File = &event.File{Path: fmt.Sprintf(`C:\Users\%s\Documents\%d.xlsx`, c.name, files[0]), VolumeKind: event.VolumeLocal}
	e.Copy = &event.Copy{SourcePath: fmt.Sprintf(`%s\%d.xlsx`, share, files[0]), Files: event.Some(int64(len(files))), Bytes: event.Some(int64(len(files)) * 200_000)}
	if len(files) > 1 {
		for _, f := range files {
			e.Copy.SourceIDs = append(e.Copy.SourceIDs, fmt.Sprintf("%s-%d", share[2:], f))
		}
	}
	return e
}

// copyTo copies files onto a stick.
func (o *office) copyTo(c *clerk, at time.Time, serial string, files int) *event.Event {
	e := o.add(c, at, event.FileCopied)
	e.File = &event.File{Path: `E:\copy.xlsx`, VolumeKind: event.VolumeRemovable}
	e.Volume = &event.Volume{DOSName: "E:", Kind: event.VolumeRemovable, VendorID: "0951", ProductID: "1666", SerialNumber: serial}
	e.Copy = &event.Copy{SourcePath: `C:\work\copy.xlsx`, SourceVolumeKind: event.VolumeLocal, Files: event.Some(int64(files)), Bytes: event.Some(int64(files) * 200_000)}
	return e
}

func (o *office) attach(c *clerk, at time.Time, vendor, product, serial string, kind string) {
	e := o.add(c, at, event.USBAttached)
	e.User = nil
	e.Device = &event.Device{VendorID: vendor, ProductID: product, SerialNumber: serial, Kinds: []string{kind}}
}

func (o *office) start(c *clerk, at time.Time, executable, parent string) *event.Event {
	e := o.add(c, at, event.ProcessStarted)
	e.Process = &event.Process{PID: event.Some(int64(1000 + o.n%30_000)), Executable: executable, CommandLine: executable, Parent: &event.Parent{Executable: parent}}
	return e
}

// some is n numbers of files out of so many.
func (o *office) some(n, of int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = o.rnd.IntN(of)
	}
	return out
}

// day is an ordinary day of work: people sign in, copy much from their own
// department's share, a file now and then from another's, and use sticks.
func (o *office) day(day time.Time) {
	for _, c := range o.people {
		o.add(c, o.hour(day, 8.2, 8.6), event.SessionLogon).Session = &event.Session{Kind: "console"}
		o.copyFrom(c, o.hour(day, 8.6, 17), c.share, o.some(1+o.rnd.IntN(20), 20_000))
		if day.Weekday() == time.Monday && day.Day() <= 7 { // the month's reports
			for _, s := range c.foreign {
				o.copyFrom(c, o.hour(day, 9, 12), s, o.some(1, 300))
			}
		}
		if o.chance(0.25) { // some 15 a quarter
			o.copyFrom(c, o.hour(day, 9, 17), c.foreign[o.rnd.IntN(len(c.foreign))], o.some(1, 300))
		}
		if o.chance(0.05) {
			at := o.hour(day, 9, 16)
			o.attach(c, at, "0951", "1666", "S-"+c.name, event.KindStorage)
			o.copyTo(c, at.Add(time.Minute), "S-"+c.name, 1+o.rnd.IntN(8))
		}
		if o.chance(0.4) {
			o.start(c, o.hour(day, 8.7, 17), `C:\Program Files\Microsoft Office\root\Office16\EXCEL.EXE`, `C:\Windows\explorer.exe`)
		}
	}
}

// days is the events of the office as JSON lines, made a day at a time.
type days struct {
	o         *office
	day, end  time.Time
	happen    func(day time.Time) // adds the events of a day of work
	line, buf []byte
}

func (d *days) Read(p []byte) (int, error) {
	for len(d.buf) == 0 {
		if !d.day.Before(d.end) {
			return 0, io.EOF
		}
		d.buf = d.line[:0]
		if d.o.works(d.day) {
			d.happen(d.day)
		}
		d.day = d.day.AddDate(0, 0, 1)
		slices.SortStableFunc(d.o.events, func(a, b *event.Event) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
		for _, e := range d.o.events {
			d.buf = append(e.AppendJSON(d.buf), '\n')
		}
		d.line, d.o.events = d.buf, d.o.events[:0]
	}
	n := copy(p, d.buf)
	d.buf = d.buf[n:]
	return n, nil
}

// replayOffice replays what happens from a day to another, as the command does:
// settings, shipped rules, a stage for each PC.
func replayOffice(t *testing.T, o *office, from, to time.Time, happen func(day time.Time)) []*alert.Alert {
	t.Helper()
	cfg, err := config.ParseAgent("agent.yaml", []byte(o.settings()))
	if err != nil {
		t.Fatal(err)
	}
	program, err := rules.Load(rules.LoadOptions{Builtin: true, Options: rules.Options{Zone: cfg.WorkHours.Location()}})
	if err != nil {
		t.Fatal(err)
	}
	stage := enrich.New(enrich.Options{Config: cfg})
	var out, errs bytes.Buffer
	began := time.Now()
	sum, err := Run(context.Background(), Options{Events: &days{o: o, day: from, end: to, happen: happen}, Name: "office", Program: program, Out: &out, Err: &errs,
		Enrich: func() judge.Enricher { return stage.Another() }})
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	t.Logf("%s%d events a second", errs.String(), int(float64(sum.Events)/time.Since(began).Seconds()))
	var alerts []*alert.Alert
	for line := range bytes.Lines(out.Bytes()) {
		a, err := alert.Decode(bytes.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		alerts = append(alerts, a)
	}
	return alerts
}

// The case of Niigata (#2024-354): a section chief copied 1,400 files of the
// personnel section's share in 37 months, under 40 a month.
func TestSlowCopyOverYearsIsFound(t *testing.T) {
	if testing.Short() {
		t.Skip("replays 37 months")
	}
	files, months := 1400, 37
	if raceEnabled { // the detector makes it twenty times as slow: the first months only
		files, months = 190, 5
	}
	o := newOffice(354)
	chief := &clerk{name: "kacho", dept: "企画課", share: shareOf(5), host: o.people[0].host} // on the terminal server, among others
	chief.foreign = []string{shareOf(0)}
	o.people = append(o.people, chief)
	personnel := shareOf(1)

	installed := time.Date(2020, time.August, 31, 0, 0, 0, 0, tokyo) // 30 days of learning before it begins
	begins := time.Date(2020, time.October, 1, 0, 0, 0, 0, tokyo)
	ends := begins.AddDate(0, months, 0)
	copied, most := 0, 0
	month, ofMonth := time.Month(0), 0
	alerts := replayOffice(t, o, installed, ends, func(day time.Time) {
		o.day(day)
		if day.Month() != month {
			month, ofMonth = day.Month(), 0
		}
		// On every second day or so he catches up with a steady pace.
		pace := int(math.Ceil(float64(files) * day.AddDate(0, 0, 7).Sub(begins).Hours() / ends.Sub(begins).Hours()))
		if !day.Before(begins) && (o.chance(0.5) || day.Equal(begins)) {
			for copied < min(pace, files) && ofMonth < 39 {
				o.copyFrom(chief, o.hour(day, 9, 17), personnel, []int{copied})
				copied++
				ofMonth++
			}
		}
		most = max(most, ofMonth)
	})
	t.Logf("%d events; %d files copied slowly, at most %d a month", o.n, copied, most)
	if copied < files-5 || most >= 40 || o.n < 100_000 && !raceEnabled {
		t.Fatal("the story is not told as it was")
	}
	by := map[string][]*alert.Alert{}
	for _, a := range alerts {
		if who := nameOf(a); who != chief.name || a.Rule.Table != "SHR-2" && a.Rule.Table != "SHR-3" {
			t.Errorf("%s for %q at %s", a.Rule.Table, who, a.Time.In(tokyo))
		}
		by[a.Rule.Table] = append(by[a.Rule.Table], a)
	}
	slow, first := by["SHR-2"], by["SHR-3"]
	if len(slow) == 0 || len(first) == 0 {
		t.Fatalf("%d SHR-2, %d SHR-3", len(slow), len(first))
	}
	tell := func(a *alert.Alert) string {
		return fmt.Sprintf("%s, day %d", a.Time.In(tokyo).Format(time.DateOnly), 1+int(a.Time.Sub(begins).Hours()/24))
	}
	t.Logf("SHR-3 on %s; SHR-2 on %s, and %d times in all", tell(first[0]), tell(slow[0]), len(slow))
	if len(first) != 1 || !first[0].Time.Before(begins.AddDate(0, 0, 1)) {
		t.Errorf("SHR-3 %d times, on %s", len(first), tell(first[0]))
	}
	if !slow[0].Time.Before(begins.AddDate(0, 3, 0)) {
		t.Errorf("SHR-2 on %s, after the first quarter", tell(slow[0]))
	}
	// A reminder a month for as long as it goes on.
	if n := len(slow); n < months-4 || n > months {
		t.Errorf("SHR-2 %d times", n)
	}
}

func nameOf(a *alert.Alert) string {
	if a.Event.User == nil {
		return ""
	}
	return a.Event.User.Name
}

// more is what else goes on in an office on a day: sessions, prints, downloads,
// help from afar, archives, uploads, late evenings.
func (o *office) more(day time.Time) {
	for _, c := range o.people {
		for range 2 + o.rnd.IntN(3) { // PCs lock themselves after ten minutes
			at := o.hour(day, 9, 17)
			o.add(c, at, event.SessionLocked)
			o.add(c, at.Add(20*time.Minute), event.SessionUnlocked).Session = &event.Session{IdleSeconds: event.Some[int64](1200)}
		}
		o.add(c, o.hour(day, 9, 17), event.SessionResumed).Session = &event.Session{IdleSeconds: event.Some(int64(o.rnd.IntN(600)))}
		if o.chance(0.6) {
			p := o.add(c, o.hour(day, 9, 17), event.PrintSubmitted)
			p.Print = &event.Print{Printer: "3f", Pages: event.Some(int64(1 + o.rnd.IntN(20))), Document: "minutes.docx"}
		}
		browser := o.start(c, o.hour(day, 8.7, 17), `C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`, `C:\Windows\explorer.exe`).Process
		if o.chance(0.3) {
			d := o.add(c, o.hour(day, 9, 17), event.FileRenamed)
			d.File = &event.File{Path: `C:\Users\` + c.name + `\Downloads\form.` + []string{"pdf", "xlsx", "zip"}[o.rnd.IntN(3)], VolumeKind: event.VolumeLocal}
			d.Process = &event.Process{Executable: browser.Executable, PID: browser.PID}
		}
		if o.chance(0.1) { // the site's own storage service, and a picture to oneself
			u := o.add(c, o.hour(day, 9, 17), event.FileUploaded)
			u.File = &event.File{Path: `C:\work\report.pdf`, Size: event.Some[int64](800_000)}
			u.Network = &event.Network{DestinationDomain: []string{"storage.example.jp", "mail.google.com"}[o.rnd.IntN(2)]}
		}
		if o.chance(0.1) { // packed, and taken along
			at := o.hour(day, 9, 16)
			z := o.add(c, at, event.ArchiveCreated)
			z.File = &event.File{Path: `C:\work\slides.zip`, VolumeKind: event.VolumeLocal}
			z.Copy = &event.Copy{SourcePath: `C:\work\slides.pptx`, SourceVolumeKind: event.VolumeLocal}
			o.copyTo(c, at.Add(time.Hour), "S-"+c.name, 1).Copy.SourcePath = z.File.Path
		}
		if c.dept == "市民課" { // whose daily work lies in the protected place
			for range 10 {
				r := o.add(c, o.hour(day, 9, 17), event.FileRead)
				r.File = &event.File{Path: `\\fs02\juki\` + fmt.Sprint(o.rnd.IntN(5000)) + `.xlsx`}
			}
			if o.chance(0.5) {
				o.copyFrom(c, o.hour(day, 9, 17), `\\fs02\juki`, o.some(1, 5000))
			}
		}
		if c.late && o.chance(0.5) {
			o.add(c, o.hour(day, 19.5, 21.5), event.SessionUnlocked)
		}
	}
	// Help from afar with the approved tool, after the newest version was fetched.
	c := o.people[10+o.rnd.IntN(40)]
	at := o.hour(day, 9, 16)
	d := o.add(c, at, event.FileRenamed)
	d.File = &event.File{Path: `C:\Users\` + c.name + `\Downloads\TeamViewer_Setup.exe`, VolumeKind: event.VolumeLocal}
	d.Process = &event.Process{Executable: `C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`}
	tool := o.start(c, at.Add(time.Minute), `C:\Program Files\TeamViewer\TeamViewer.exe`, `C:\Windows\explorer.exe`).Process
	n := o.add(c, at.Add(2*time.Minute), event.NetworkConnected)
	n.Process = &event.Process{Executable: tool.Executable, PID: tool.PID}
	n.Network = &event.Network{DestinationDomain: "router1.teamviewer.com"}
	end := o.add(c, at.Add(30*time.Minute), event.ProcessEnded)
	end.Process = &event.Process{Executable: tool.Executable, PID: tool.PID}
	// A meeting program that is fetched, run, and calls its maker.
	c = o.people[10+o.rnd.IntN(40)]
	at = o.hour(day, 9, 16)
	d = o.add(c, at, event.FileRenamed)
	d.File = &event.File{Path: `C:\Users\` + c.name + `\Downloads\meeting.exe`, VolumeKind: event.VolumeLocal}
	d.Process = &event.Process{Executable: `C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`}
	app := o.start(c, at.Add(time.Minute), d.File.Path, `C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe`).Process
	n = o.add(c, at.Add(2*time.Minute), event.NetworkConnected)
	n.Process, n.Network = &event.Process{Executable: app.Executable, PID: app.PID}, &event.Network{DestinationDomain: "meeting.example.jp"}
	// The administrator looks after two PCs, a colleague helps out at a third, and
	// somebody who never stays late does.
	for range 2 {
		a := o.add(o.people[10+o.rnd.IntN(40)], o.hour(day, 9, 17), event.SessionLogon)
		a.User = &event.User{Name: "it-admin"}
	}
	c = o.people[10+o.rnd.IntN(40)]
	o.add(c, o.hour(day, 9, 17), event.SessionLogon).User = &event.User{Name: o.people[o.rnd.IntN(50)].name}
	o.add(o.people[o.rnd.IntN(50)], o.hour(day, 19.5, 21), event.SessionUnlocked)
	// An update of the agent, and IT asking how it is.
	c = o.people[10+o.rnd.IntN(40)]
	up := o.start(c, o.hour(day, 9, 17), "/usr/bin/systemctl", "/bin/sh").Process
	up.CommandLine, up.Parent.CommandLine = "systemctl stop sekisho-agent", "/bin/sh /var/lib/dpkg/info/sekisho-agent.prerm upgrade 1.2"
}

// What the whole pack makes of an ordinary week of 50 people, after five weeks
// to learn. Once in it each: 60 files for a contractor, papers of 120 pages for
// the assembly, a private telephone that is charged, a screen that was left
// unlocked over lunch, and a share that a new task needs. More than these and a
// handful of late evenings and helpers would be too much for one person on duty.
func TestOrdinaryWeekIsQuiet(t *testing.T) {
	o := newOffice(7)
	begins := time.Date(2026, time.May, 11, 0, 0, 0, 0, tokyo)
	week := begins.AddDate(0, 0, 35) // June has no holidays
	alerts := replayOffice(t, o, begins, week.AddDate(0, 0, 7), func(day time.Time) {
		o.day(day)
		o.more(day)
		switch day {
		case week:
			at := o.hour(day, 10, 11)
			o.attach(o.people[20], at, "0951", "1666", "S-contract", event.KindStorage)
			o.copyTo(o.people[20], at.Add(time.Minute), "S-contract", 60)
			// Photographs of a site visit get their date as a name.
			for i := range 300 {
				r := o.add(o.people[30], o.hour(day, 14, 14.01), event.FileRenamed)
				r.File = &event.File{Path: fmt.Sprintf(`C:\photo\2026-06-%03d.jpg`, i), VolumeKind: event.VolumeLocal}
				r.Process = &event.Process{Executable: `C:\Windows\explorer.exe`, PID: event.Some[int64](900)}
			}
		case week.AddDate(0, 0, 1):
			p := o.add(o.people[15], o.hour(day, 13, 14), event.PrintSubmitted)
			p.Print = &event.Print{Printer: "3f", Pages: event.Some[int64](120), Document: "assembly.pdf"}
		case week.AddDate(0, 0, 2):
			o.attach(o.people[33], o.hour(day, 12, 13), "05ac", "12a8", "", event.KindMTP)
		case week.AddDate(0, 0, 3):
			o.add(o.people[41], o.hour(day, 13, 13.1), event.SessionResumed).Session = &event.Session{IdleSeconds: event.Some[int64](3300)}
			for i, s := range []int{2, 6} { // one of the two is new to the person
				o.copyFrom(o.people[25], o.hour(day, 14, 15), shareOf(s), []int{i})
			}
		}
	})
	count, before, levels := map[string]int{}, map[string]int{}, map[string]int{}
	total := 0
	for _, a := range alerts {
		if a.Time.Before(week) {
			before[a.Rule.Table]++
			continue
		}
		total++
		count[a.Rule.Table]++
		levels[a.Level.String()]++
		t.Logf("%s %s %s %q on %s", a.Time.In(tokyo).Format("Mon 15:04"), a.Rule.Table, a.Level, nameOf(a), a.Event.Host.Name)
	}
	for _, id := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%-7s %d", id, count[id])
	}
	t.Logf("%d alerts in the week %v; in the five weeks before %v", total, levels, before)
	for id, most := range map[string]int{"USB-3": 1, "PRT-1": 1, "USB-1": 1, "ACC-4": 1, "SHR-3": 1, "ACC-1": 1, "ACC-2": 5} {
		if count[id] > most {
			t.Errorf("%s: %d alerts, want at most %d", id, count[id], most)
		}
		if !strings.HasPrefix(id, "ACC-") && count[id] == 0 {
			t.Errorf("%s told nothing", id)
		}
		delete(count, id)
	}
	if len(count) > 0 {
		t.Errorf("alerts of rules that have nothing to say here: %v", count)
	}
}
