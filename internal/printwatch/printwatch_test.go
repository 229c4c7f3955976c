package printwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/winlog"
	"sekisho/internal/winlog/winlogtest"
)

func allowed() bool { return true }

func TestAPrintedDocument(t *testing.T) {
	w := New(Options{})
	if e := w.decode(winlogtest.Read(t, "rendered.xml"), allowed); e != nil {
		t.Errorf("rendering is told: %+v", e)
	}
	r := winlogtest.Read(t, "printed.xml")
	e := w.decode(r, allowed)
	got, err := json.Marshal(map[string]any{"action": e.Action, "time": e.Time, "sensor": e.Sensor, "print": e.Print, "user": e.User, "file": e.File})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(map[string]any{"action": event.PrintSubmitted, "time": r.Time, "sensor": "event-log",
		"print": &event.Print{Printer: "3F 複合機", Pages: event.Some(int64(12)), Copies: event.Some(int64(3)), Document: `D:\juki\住民一覧.XLSX`},
		"user":  &event.User{ID: "S-1-5-21-111111111-222222222-333333333-1001", Name: "tanaka"},
		"file":  &event.File{Path: `D:\juki\住民一覧.XLSX`, Name: "住民一覧.XLSX", Extension: "xlsx"}})
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// The number of the job is used again: the copies were of the one before.
	if e := w.decode(r, func() bool { return false }); e.Print.Copies.OK || e.Print.Document != "" || e.File != nil || e.Print.Printer == "" {
		t.Errorf("without a policy: %+v, %+v", e.Print, e.File)
	}
}

func TestHostileDocuments(t *testing.T) {
	for _, c := range []struct{ name, document, user, pages, want string }{
		{"a name with a path in it", `報告 C:\a`, "x", "1", "1 報告 C:\\a  x"},
		{"a file of a share", `\\fs01\juki\a.docx`, `EXAMPLE\sato`, "2", `2 \\fs01\juki\a.docx \\fs01\juki\a.docx sato`},
		{"a folder", `C:\a\`, "x", "1", `1 C:\a\  x`},
		{"no server", `\\a`, "x", "1", `1 \\a  x`},
		{"pages that are none", "a", "x", "-1", "- a  x"},
		{"more pages than there can be", "a", "x", "99999999999999999999", "- a  x"},
		{"nobody", "a", "", "1", "1 a  "},
		{"a long one", strings.Repeat("あ", 1000), "x", "1", "1 " + strings.Repeat("あ", 341) + "  x"},
	} {
		e := New(Options{}).decode(&winlog.Event{ID: recordPrinted, Time: time.Now(), User: "S-1-5-18", Data: []winlog.Field{
			{Name: "Param2", Value: c.document}, {Name: "Param3", Value: c.user}, {Name: "Param8", Value: c.pages}}}, allowed)
		pages, file, user := "-", "", ""
		if e.Print.Pages.OK {
			pages = fmt.Sprint(e.Print.Pages.V)
		}
		if e.File != nil {
			file = e.File.Path
		}
		if e.User != nil {
			if user = e.User.Name; e.User.ID != "" {
				t.Errorf("%s: the spooler's own SID is told", c.name)
			}
		}
		if got := strings.Join([]string{pages, e.Print.Document, file, user}, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	w := New(Options{})
	for i := range 3 * maxRendered {
		w.decode(&winlog.Event{ID: recordRendered, Data: []winlog.Field{{Name: "JobId", Value: fmt.Sprint(i)}, {Name: "Copies", Value: "2"}}}, allowed)
	}
	w.decode(&winlog.Event{ID: recordRendered, Data: []winlog.Field{{Name: "JobId", Value: "9"}, {Name: "Copies", Value: "0"}}}, allowed)
	if len(w.rendered) > maxRendered {
		t.Errorf("%d jobs kept", len(w.rendered))
	}
	if e := w.decode(&winlog.Event{ID: 1}, allowed); e != nil {
		t.Errorf("another record: %+v", e)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("12", `D:\juki\a.xlsx`, `EXAMPLE\tanaka`, "3F", "2", "S-1-5-21-1-2-3-4")
	f.Fuzz(func(t *testing.T, job, document, user, printer, pages, sid string) {
		w := New(Options{})
		w.decode(&winlog.Event{ID: recordRendered, Data: []winlog.Field{{Name: "JobId", Value: job}, {Name: "Copies", Value: pages}}}, allowed)
		e := w.decode(&winlog.Event{ID: recordPrinted, Time: time.Now(), User: sid, Data: []winlog.Field{{Name: "Param1", Value: job}, {Name: "Param2", Value: document},
			{Name: "Param3", Value: user}, {Name: "Param5", Value: printer}, {Name: "Param8", Value: pages}}}, allowed)
		if len(e.Print.Document) > maxName || len(e.Print.Printer) > maxName || utf8.ValidString(document) && !utf8.ValidString(e.Print.Document) {
			t.Errorf("%+v", e.Print)
		}
		if e.File != nil && (e.File.Name == "" || strings.ContainsRune(e.File.Name, '\\')) {
			t.Errorf("%+v", e.File)
		}
	})
}

// log is a log of the spooler that somebody plays.
type log struct {
	opt   chan winlog.Options
	ended chan struct{}
}

func (l log) follow(ctx context.Context, o winlog.Options) {
	l.opt <- o
	<-ctx.Done()
	close(l.ended)
}

func TestTheStateOfTheLogIsToldAndWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name    string
		enable  bool
		refused error
		names   bool
		said    error
		state   endpoint.SensorState
		reason  string
	}{
		{"read", false, nil, true, nil, endpoint.SensorOK, ""},
		{"without names", false, nil, false, nil, endpoint.SensorLimited, `"Allow job name in event logs"`},
		{"off", false, nil, true, &winlog.OffError{Channel: Channel}, endpoint.SensorUnavailable,
			`as administrator, wevtutil sl "Microsoft-Windows-PrintService/Operational" /e:true switches it on; with sensors.print.enable_log: true`},
		{"off, and to be switched on", true, nil, true, &winlog.OffError{Channel: Channel}, endpoint.SensorLimited, "switched on just now"},
		{"off, and may not be switched on", true, errors.New("access is denied"), true, &winlog.OffError{Channel: Channel}, endpoint.SensorUnavailable, "access is denied"},
		{"not to be read", true, nil, true, errors.New("this Windows has no such log"), endpoint.SensorUnavailable, "this Windows has no such log"},
	} {
		l := log{make(chan winlog.Options, 1), make(chan struct{})}
		asked := 0
		w := New(Options{EnableLog: c.enable, follow: l.follow, enable: func(string) error { asked++; return c.refused }, names: func() bool { return c.names }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx, make(chan *event.Event)) }()
		o := <-l.opt
		o.Say(c.said)
		if s := w.Status(); s.State != c.state || !strings.Contains(s.Reason, c.reason) || (s.Reason == "") != (c.reason == "") {
			t.Errorf("%s: %+v", c.name, s)
		}
		if (asked > 0) != (c.enable && strings.HasPrefix(c.name, "off")) {
			t.Errorf("%s: switched on %d times", c.name, asked)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		<-l.ended
	}
}

func TestWhatWasPrintedMeanwhileIsTold(t *testing.T) {
	l := log{make(chan winlog.Options, 2), make(chan struct{})}
	since := time.Now().Add(-time.Hour)
	w := New(Options{Since: since, follow: l.follow})
	ctx, cancel := context.WithCancel(t.Context())
	out, done := make(chan *event.Event, 8), make(chan error)
	go func() { done <- w.Run(ctx, out) }()
	o := <-l.opt
	if !o.Since.Equal(since) || o.Channel != Channel {
		t.Errorf("asked for %+v", o)
	}
	old := winlogtest.Read(t, "printed.xml")
	old.Time = since.Add(time.Minute)
	o.Tell(old)
	now := *old
	now.Time = time.Now()
	o.Tell(&now)
	o.Lost(errors.New("more than 1 MB"))
	cancel()
	<-done
	if e := <-out; e.Message != MessageFound || !e.Time.Equal(old.Time) {
		t.Errorf("the old one: %+v", e)
	}
	if e := <-out; e.Message != "" {
		t.Errorf("the new one: %+v", e)
	}
	if s := w.Status(); s.Events != 2 || s.Lost != 1 {
		t.Errorf("counted %+v", s)
	}
	// One that breaks goes on where it was.
	l.ended = make(chan struct{})
	ctx, cancel = context.WithCancel(t.Context())
	w.opt.follow = l.follow
	go func() { done <- w.Run(ctx, out) }()
	if o := <-l.opt; !o.Since.Equal(now.Time) {
		t.Errorf("goes on at %v", o.Since)
	}
	cancel()
	<-done
}

// As the system is that the test runs on.
func TestTheSensorComesUpAndStops(t *testing.T) {
	w := New(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, make(chan *event.Event)) }()
	if runtime.GOOS == "windows" { // until its log has answered
		for deadline := time.Now().Add(time.Minute); w.Status().State == endpoint.SensorDown && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		}
		cancel()
	}
	err := <-done
	s := w.Status()
	t.Logf("%s by %q: %s", s.State, s.Mechanism, s.Reason)
	if runtime.GOOS != "windows" {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("ended with %v", err)
		}
	} else if err != nil || s.State == endpoint.SensorDown {
		t.Errorf("ended with %v, %+v", err, s)
	}
}
