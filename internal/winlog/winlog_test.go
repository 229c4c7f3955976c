package winlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// The records in testdata are as Windows 10 and 11 render them, written by hand after
// the documents and public samples of each provider: names and elements are theirs,
// people and places are made up.
func sample(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func samples(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatal("no samples", err)
	}
	return files
}

func TestRecordsAreRead(t *testing.T) {
	for _, c := range []struct {
		file string
		want Event
	}{
		{"printed.xml", Event{Channel: "Microsoft-Windows-PrintService/Operational", Provider: "Microsoft-Windows-PrintService", ID: 307, Record: 635,
			Time: time.Date(2026, 10, 8, 9, 40, 50, 7040200, time.UTC), PID: 3860, User: "S-1-5-21-111111111-222222222-333333333-1001",
			Data: []Field{{"Param1", "45"}, {"Param2", "住民一覧 <案> & 控え.xlsx"}, {"Param3", "tanaka"}, {"Param4", `\\PC7`}, {"Param5", "3F 複合機"}, {"Param6", "IP_192.0.2.20"}, {"Param7", "110128"}, {"Param8", "2"}}}},
		{"logon.xml", Event{Channel: "Microsoft-Windows-TerminalServices-LocalSessionManager/Operational", Provider: "Microsoft-Windows-TerminalServices-LocalSessionManager", ID: 21, Record: 4484,
			Time: time.Date(2026, 9, 25, 17, 59, 52, 29514100, time.UTC), PID: 1564, User: "S-1-5-18",
			Data: []Field{{"User", `EXAMPLE\tanaka`}, {"SessionID", "2"}, {"Address", "192.0.2.7"}}}},
		{"umdf.xml", Event{Channel: "Microsoft-Windows-DriverFrameworks-UserMode/Operational", Provider: "Microsoft-Windows-DriverFrameworks-UserMode", ID: 2003, Record: 1020,
			Time: time.Date(2026, 10, 5, 2, 3, 4, 500000000, time.UTC), PID: 1180, User: "S-1-5-18",
			Data: []Field{{"lifetime", "{6B5C0D4B-5C8F-4B2E-9F0A-0A1B2C3D4E5F}"},
				{"InstanceId", `SWD\WPDBUSENUM\_??_USBSTOR#DISK&VEN_EXAMPLE&PROD_STICK&REV_1.00#0A1B2C3D4E5F&0#{53F56307-B6BF-11D0-94F2-00A0C91EFB8B}`}}}},
	} {
		got, err := Decode(sample(t, c.file))
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
		} else if g, w := fmt.Sprintf("%+v", *got), fmt.Sprintf("%+v", c.want); g != w {
			t.Errorf("%s: got\n%s\nwant\n%s", c.file, g, w)
		}
	}
	for _, file := range samples(t) {
		if e, err := Decode(sample(t, filepath.Base(file))); err != nil || len(e.Data) == 0 {
			t.Errorf("%s: %v, %+v", file, err, e)
		}
	}
}

// record is a small one.
func record(system, data string) string {
	return `<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System><EventID Qualifiers='0'>7</EventID><TimeCreated SystemTime='2026-01-02T03:04:05Z'/>` +
		system + `</System>` + data + `</Event>`
}

func TestHostileRecords(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"characters that XML does not know", record("", "<EventData><Data Name='a'>x\x01y&#1;z&#xD800;&#x41;&#65;&#;&amp;\xff\ufffe</Data></EventData>"), "a=x\ufffdy\ufffdz\ufffdAA\ufffd&\ufffd\ufffd"},
		{"one name twice", record("", "<EventData><Data Name='a'>1</Data><Data Name='a'>2</Data><Data>3</Data></EventData>"), "a=1 a=2 Data=3"},
		{"elements within a value", record("", "<UserData><X><Y>1<Z>2</Z>3</Y></X></UserData>"), "Z=2"},
		{"a second Event", record("", "") + record("", "<EventData><Data>2</Data></EventData>"), "Data=2"},
		{"something else", `<html><body/></html>`, "error"},
		{"an Event in something else", `<a>` + record("", "") + `</a>`, "error"},
		{"System in the data", record("", "<EventData><System><EventID>9</EventID></System></EventData>"), "EventID=9"},
		{"nothing", "", "error"},
		{"no time", `<Event><System><EventID>7</EventID></System></Event>`, "error"},
		{"no number", record("<EventID>99999999999</EventID>", ""), "error"},
		{"a time that is none", record("<TimeCreated SystemTime='"+strings.Repeat("9", 5000)+"'/>", ""), "error"},
		{"cut short", record("", "")[:100], "error"},
		{"deep", record("", "<UserData>"+strings.Repeat("<a>", 100)+strings.Repeat("</a>", 100)+"</UserData>"), "error"},
		{"too long", record("", "<EventData><Data>"+strings.Repeat("x", maxXML)+"</Data></EventData>"), "error"},
		{"an entity of its own", `<!DOCTYPE x [<!ENTITY a "b">]>` + record("", "<EventData><Data>&a;</Data></EventData>"), "error"},
		{"another encoding", `<?xml version="1.0" encoding="UTF-16"?>` + record("", "<EventData><Data>é</Data></EventData>"), "Data=é"},
	} {
		e, err := Decode(c.text)
		got := "error"
		if err == nil {
			var all []string
			for _, f := range e.Data {
				all = append(all, f.Name+"="+f.Value)
			}
			if got = strings.Join(all, " "); e.ID != 7 {
				t.Errorf("%s: EventID %d", c.name, e.ID)
			}
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: an error of %d bytes", c.name, len(err.Error()))
		}
		if got != c.want {
			t.Errorf("%s: got %q (%v), want %q", c.name, got, err, c.want)
		}
	}
	long, err := Decode(record("", "<EventData><Data>"+strings.Repeat("あ", 30000)+"</Data>"+strings.Repeat("<Data>x</Data>", 1000)+"</EventData>"))
	if err != nil || len(long.Data) != maxFields || len(long.Data[0].Value) > maxValue || !utf8.ValidString(long.Data[0].Value) {
		t.Errorf("a long value and many fields: %v, %d fields", err, len(long.Data))
	}
}

func FuzzDecode(f *testing.F) {
	for _, file := range samples(f) {
		f.Add(sample(f, filepath.Base(file)))
	}
	f.Add(record("", "<EventData><Data Name='a'>x\x01&#xD800;&#65</Data></EventData>"))
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Decode(text)
		if err != nil {
			return
		}
		if e.Time.IsZero() || e.ID < 0 || e.ID > 65535 || len(e.Data) > maxFields {
			t.Errorf("%+v", e)
		}
		for _, x := range e.Data {
			if len(x.Value) > max(maxValue, len(text)) || !utf8.ValidString(x.Value) || !utf8.ValidString(x.Name) {
				t.Errorf("field %q", x)
			}
		}
	})
}

func TestQueries(t *testing.T) {
	at := time.Date(2026, 1, 2, 12, 4, 5, 6789000, time.FixedZone("JST", 9*3600))
	for _, c := range []struct {
		ids    []int
		after  time.Time
		record uint64
		until  time.Time
		want   string
	}{
		{nil, time.Time{}, 0, time.Time{}, "*"},
		{[]int{307}, time.Time{}, 0, time.Time{}, "*[System[(EventID=307)]]"},
		{[]int{307}, at, 42, time.Time{}, "*[System[(EventID=307) and (TimeCreated[@SystemTime>'2026-01-02T03:04:05.006Z'] or EventRecordID>42)]]"},
		{[]int{21, 25}, at, 0, at.Add(time.Hour), "*[System[(EventID=21 or EventID=25) and TimeCreated[@SystemTime>'2026-01-02T03:04:05.006Z'] and TimeCreated[@SystemTime<='2026-01-02T04:04:05.006Z']]]"},
	} {
		if got := query(c.ids, c.after, c.record, c.until); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// fake is an event log.
type fake struct {
	mu      sync.Mutex // guards all below
	off     bool
	refuse  error
	records []string
	asked   []string // queries
	broken  error    // given out once there are no more records
	done    bool
	open    int
}

func (f *fake) set(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fake) enabled(string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.off, f.refuse
}

func (f *fake) subscribe(_, query string, older bool) (stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprint(query, " ", older))
	f.open++
	return f, nil
}

func (f *fake) query(_, query string) (stream, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked, f.done = append(f.asked, query), true
	f.open++
	return f, f.refuse
}

func (f *fake) next(ctx context.Context, wait time.Duration) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.records) > 0:
		r := f.records[:1]
		f.records = f.records[1:]
		return r, nil
	case f.broken != nil:
		err := f.broken
		f.broken = nil
		return nil, err
	case f.done:
		return nil, errEnd
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
	return nil, nil
}

func (f *fake) close() { f.set(func() { f.open-- }) }

// at is a record that was written so many ms after the beginning of a bubble.
func at(number, ms int) string {
	return fmt.Sprintf(`<Event><System><EventID>7</EventID><EventRecordID>%d</EventRecordID><TimeCreated SystemTime='%s'/></System></Event>`,
		number, time.Date(2000, 1, 1, 0, 0, 0, ms*1e6, time.UTC).Format(time.RFC3339Nano))
}

func TestALogIsFollowedThroughWhatHappensToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{off: true}
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 64)
		done := make(chan struct{})
		go func() {
			defer close(done)
			Follow(ctx, Options{Channel: "Log", IDs: []int{7}, from: f,
				Tell: func(e *Event) { told <- fmt.Sprint(e.Record) },
				Say:  func(err error) { told <- fmt.Sprint("say ", err) },
				Lost: func(err error) { told <- fmt.Sprint("lost ", err) }})
		}()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(told) > 0 {
				got = append(got, <-told)
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("at %v: got\n  %s\nwant\n  %s", time.Now().UTC(), strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			}
		}
		expect(`say Windows does not write the log Log; as administrator, wevtutil sl "Log" /e:true switches it on`)
		time.Sleep(10 * time.Second)
		f.set(func() { f.off, f.records = false, []string{at(1, 11_000), at(2, 12_000)} })
		time.Sleep(30 * time.Second)
		expect("say <nil>", "1", "2")
		f.set(func() { f.records = []string{"<Event/>", at(3, 45_000)} })
		time.Sleep(30 * time.Second)
		expect("lost Log: read a record: no EventID or no TimeCreated in it", "3")
		f.set(func() { f.broken = errors.New("the service of the logs ended") })
		time.Sleep(30 * time.Second)
		expect("say the service of the logs ended")
		f.set(func() { f.records = []string{at(3, 45_000), at(4, 45_000), at(5, 44_999)} }) // it is found again; others of that moment were not told
		time.Sleep(30 * time.Second)
		expect("say <nil>", "4", "5")
		f.set(func() { f.off = true })
		time.Sleep(time.Minute)
		expect(`say Windows does not write the log Log; as administrator, wevtutil sl "Log" /e:true switches it on`)
		f.set(func() { f.refuse = errors.New("access is denied") })
		time.Sleep(time.Minute)
		expect("say access is denied")
		cancel()
		<-done
		expect()
		want := "*[System[(EventID=7) and TimeCreated[@SystemTime>'2000-01-01T00:00:00.000Z']]] true\n" +
			"*[System[(EventID=7) and (TimeCreated[@SystemTime>'2000-01-01T00:00:45.000Z'] or EventRecordID>3)]] true"
		if s := strings.Join(f.asked, "\n"); s != want {
			t.Errorf("asked\n%s\nwant\n%s", s, want)
		}
		if f.open != 0 {
			t.Errorf("%d subscriptions left open", f.open)
		}
	})
}

func TestASilentSubscriptionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{}
		ctx, cancel := context.WithCancel(t.Context())
		said := 0
		var told []uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			Follow(ctx, Options{Channel: "Log", from: f, Tell: func(e *Event) { told = append(told, e.Record) }, Say: func(error) { said++ }})
		}()
		time.Sleep(time.Minute)
		f.set(func() { f.records = []string{at(8, 60_000)} })
		time.Sleep(25 * time.Minute)
		f.set(func() { f.records = []string{at(8, 60_000), at(9, 30_000)} }) // the clock was set back
		time.Sleep(time.Minute)
		cancel()
		<-done
		if s := strings.Join(f.asked, "\n"); s != "* false\n* false\n* false" {
			t.Errorf("asked\n%s", s)
		}
		if said != 1 || f.open != 0 || fmt.Sprint(told) != "[8 9]" {
			t.Errorf("said %d times, %d subscriptions open, told %v", said, f.open, told)
		}
	})
}

func TestWhatStandsInALog(t *testing.T) {
	since := time.Date(2000, 1, 1, 0, 0, 0, 500_000, time.UTC)
	past := func(f *fake, most int) (got []string, err error) {
		err = Past(t.Context(), Options{Channel: "Log", from: f, Since: since,
			Tell: func(e *Event) { got = append(got, fmt.Sprint(e.Record)) },
			Lost: func(err error) { got = append(got, fmt.Sprint("lost ", err)) }}, since.Add(time.Hour), most)
		if f.open != 0 && f.refuse == nil {
			t.Errorf("%d queries left open", f.open)
		}
		return got, err
	}
	got, err := past(&fake{records: []string{at(1, 0), at(2, 1), "x", at(3, 2)}}, 10)
	if s := strings.Join(got, ","); err != nil || s != "2,lost Log: read a record: no EventID or no TimeCreated in it,3" {
		t.Errorf("got %s, %v", s, err)
	}
	got, err = past(&fake{records: []string{at(1, 1), at(2, 2), at(3, 3)}}, 2)
	if s := strings.Join(got, ","); err != nil || s != "1,2,lost Log: more than 2 records of the time after 2000-01-01T00:00:00Z; the rest was not read" {
		t.Errorf("got %s, %v", s, err)
	}
	if _, err = past(&fake{refuse: errors.New("no")}, 2); err == nil {
		t.Error("a log that cannot be read is read")
	}
}

func TestWhereThereAreNoLogs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go Follow(ctx, Options{Channel: "Microsoft-Windows-PrintService/Operational", Say: func(err error) { done <- err }})
	err := <-done
	t.Log(err)
	if err == nil {
		t.Skip("this system has such logs")
	}
	if err := Past(t.Context(), Options{Channel: "Security", Tell: func(*Event) {}}, time.Now(), 1); err == nil {
		t.Error("no error for a log that cannot be read")
	}
	if err := Enable("Security"); err == nil {
		t.Error("no error for a log that cannot be switched on")
	}
}
