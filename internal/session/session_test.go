package session

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sekisho/internal/event"
)

// say is an event in a line: "session-logon tanaka 3 console", with the idle
// seconds and the message where there are any.
func say(e *event.Event) string {
	s := string(e.Action)
	if e.User != nil {
		s += " " + e.User.Name
	}
	s += " " + e.SessionID
	if e.Session != nil {
		s += " " + e.Session.Kind
		if e.Session.IdleSeconds.OK {
			s += fmt.Sprintf(" idle %d", e.Session.IdleSeconds.V)
		}
	}
	if e.Message != "" {
		s += " (" + e.Message + ")"
	}
	if e.Source != nil {
		s += " from " + e.Source.IP + e.Source.Domain
	}
	return s
}

func told(out chan *event.Event) (all []string) {
	for len(out) > 0 {
		all = append(all, say(<-out))
	}
	return all
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// desktop is a tracker with one desktop in it.
func desktop(t *testing.T) (*tracker, *login, chan *event.Event) {
	t.Helper()
	out := make(chan *event.Event, 16)
	tr := New(Options{}).newTracker(t.Context(), out)
	tr.takeOver(mechanismLogind)
	l := &login{origin: origin{}, id: "3", user: event.User{ID: "1000", Name: "tanaka"}, kind: Console, graphical: true, active: true}
	tr.begin("s3", l, true)
	return tr, l, out
}

func ago(d time.Duration) time.Time { return time.Now().Add(-d) }

func TestWhatADesktopSaysOfItself(t *testing.T) {
	const min20 = 20 * time.Minute
	for _, c := range []struct {
		name string
		do   func(tr *tracker, l *login)
		want []string
	}{
		{"locked and unlocked, each told once", func(tr *tracker, l *login) {
			tr.lock(l, true)
			tr.lock(l, true)
			tr.lock(l, false)
			tr.lock(l, false)
		}, []string{"session-locked tanaka 3 console", "session-unlocked tanaka 3 console"}},
		{"left idle, not locked, used", func(tr *tracker, l *login) {
			tr.idle(l, ago(min20))
			tr.idle(l, time.Time{})
		}, []string{"session-resumed tanaka 3 console idle 1200"}},
		{"a short idle time is nobody's business", func(tr *tracker, l *login) {
			tr.idle(l, ago(9*time.Minute))
			tr.idle(l, time.Time{})
		}, nil},
		{"locked while idle, in use at the lock, unlocked", func(tr *tracker, l *login) {
			tr.idle(l, ago(min20))
			tr.lock(l, true)
			tr.idle(l, time.Time{})
			tr.lock(l, false)
		}, []string{"session-locked tanaka 3 console", "session-unlocked tanaka 3 console idle 1200"}},
		{"unlocked before it calls itself in use", func(tr *tracker, l *login) {
			tr.idle(l, ago(min20))
			tr.lock(l, true)
			tr.lock(l, false)
			tr.idle(l, time.Time{})
		}, []string{"session-locked tanaka 3 console", "session-unlocked tanaka 3 console idle 1200"}},
		{"asked to lock, and the desktop says that it did", func(tr *tracker, l *login) {
			tr.ask(l, true)
			tr.lock(l, true)
			tr.settle(time.Now().Add(time.Minute))
		}, []string{"session-locked tanaka 3 console"}},
		{"asked to lock and to unlock, and the desktop says nothing", func(tr *tracker, l *login) {
			for range 2 {
				tr.ask(l, true)
				tr.settle(time.Now().Add(time.Minute))
			}
			tr.ask(l, false)
			tr.settle(time.Now().Add(time.Minute))
		}, []string{"session-locked tanaka 3 console (asked to lock; the desktop does not say whether it did)",
			"session-unlocked tanaka 3 console (asked to unlock; the desktop does not say whether it did)"}},
		{"asked to lock, and read again before the desktop did", func(tr *tracker, l *login) {
			tr.ask(l, true)
			tr.lock(l, false)
			tr.settle(time.Now().Add(time.Minute))
		}, []string{"session-locked tanaka 3 console (asked to lock; the desktop does not say whether it did)"}},
		{"asked to unlock what is not locked", func(tr *tracker, l *login) {
			tr.ask(l, false)
			tr.settle(time.Now().Add(time.Minute))
		}, nil},
		{"a terminal does not lock", func(tr *tracker, l *login) {
			l.graphical = false
			tr.ask(l, true)
			tr.settle(time.Now().Add(time.Minute))
		}, nil},
		{"woken from sleep and not locked", func(tr *tracker, l *login) {
			tr.power(true)
			tr.sleep = ago(min20)
			tr.power(false)
			tr.settle(time.Now()) // too early
			tr.settle(time.Now().Add(time.Minute))
			tr.settle(time.Now().Add(time.Minute))
		}, []string{"session-resumed tanaka 3 console idle 1200"}},
		{"woken from sleep and locked soon after", func(tr *tracker, l *login) {
			tr.power(true)
			tr.sleep = ago(min20)
			tr.power(false)
			tr.lock(l, true)
			tr.settle(time.Now().Add(time.Minute))
		}, []string{"session-locked tanaka 3 console"}},
		{"woken from sleep, in the background", func(tr *tracker, l *login) {
			l.active = false
			tr.power(true)
			tr.sleep = ago(min20)
			tr.power(false)
			tr.settle(time.Now().Add(time.Minute))
		}, nil},
		{"awake without having slept", func(tr *tracker, l *login) {
			tr.power(false)
			tr.settle(time.Now().Add(time.Minute))
		}, nil},
		{"a terminal that is read from after 20 minutes, again after one", func(tr *tracker, l *login) {
			tr.read(l, ago(min20))
			tr.read(l, ago(min20))
			tr.read(l, ago(0))
			tr.read(l, time.Now().Add(time.Minute))
		}, []string{"session-resumed tanaka 3 console idle 1200"}},
		{"a terminal whose owner sets its time to next year and back", func(tr *tracker, l *login) {
			tr.read(l, time.Now().Add(365*24*time.Hour))
			tr.read(l, ago(time.Hour))
			tr.read(l, time.Now().Add(365*24*time.Hour))
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, l, out := desktop(t)
			c.do(tr, l)
			want(t, told(out), c.want...)
		})
	}
}

func TestSessionsBeginAndEndOnce(t *testing.T) {
	tr, l, out := desktop(t)
	began := ago(time.Second).UTC()
	two := &login{id: "4", user: event.User{Name: "sato"}, kind: Remote, began: began}
	tr.begin("s3", l, false)
	tr.begin("s4", two, false)
	tr.begin("s4", two, false)
	tr.end("s4", time.Time{})
	tr.end("s4", time.Time{})
	tr.end("s5", time.Time{})
	e := <-out
	if !e.Time.Equal(began) || e.Sensor != "logind" || e.Kind != "" || !e.Action.Known() {
		t.Errorf("logon at %v by %q, want %v by logind", e.Time, e.Sensor, began)
	}
	want(t, append([]string{say(e)}, told(out)...), "session-logon sato 4 remote", "session-logoff sato 4 remote")
	if n := tr.Status().Events; n != 2 {
		t.Errorf("%d events counted, want 2", n)
	}
}

func TestTimesThatCannotBeAreNotBelieved(t *testing.T) {
	tr, l, _ := desktop(t)
	for _, at := range []time.Time{{}, time.Unix(1, 0), time.Now().Add(time.Hour), ago(oldest + time.Minute)} {
		if e := tr.event(event.SessionLogon, l, at); time.Since(e.Time).Abs() > 10*time.Second {
			t.Errorf("noted %v, told %v", at, e.Time)
		}
	}
}

func TestSessionsAreBounded(t *testing.T) {
	tr, _, out := desktop(t)
	for i := range maxKnown - 1 {
		tr.begin(fmt.Sprint("n", i), &login{id: fmt.Sprint(i)}, true)
	}
	tr.begin("one more", &login{id: "x"}, false)
	if got := told(out); len(got) != 1 || !strings.HasPrefix(got[0], "events-lost") || len(tr.known) != maxKnown || tr.Status().Lost != 1 {
		t.Errorf("told %q, %d known, %d lost", got, len(tr.known), tr.Status().Lost)
	}
}

// encode writes a record as a C library would.
func (l layout) encode(r record) []byte {
	b := make([]byte, l)
	binary.NativeEndian.PutUint16(b, uint16(r.Type))
	binary.NativeEndian.PutUint32(b[4:], uint32(r.PID))
	copy(b[8:40], r.Line)
	copy(b[44:76], r.User)
	copy(b[76:332], r.Host)
	if !r.At.IsZero() {
		us := r.At.UnixMicro()
		if l == narrow {
			binary.NativeEndian.PutUint32(b[340:], uint32(us/1e6))
			binary.NativeEndian.PutUint32(b[344:], uint32(us%1e6))
		} else {
			binary.NativeEndian.PutUint64(b[344:], uint64(us/1e6))
			binary.NativeEndian.PutUint64(b[352:], uint64(us%1e6))
		}
	}
	if r.Addr.IsValid() {
		addr := b[348:364]
		if l == wide {
			addr = b[360:376]
		}
		copy(addr, r.Addr.AsSlice())
	}
	return b
}

// fixture reads a file of hex digits with # comments.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	data, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRecordsOfBothLayouts(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the fixtures are of a little-endian machine")
	}
	at := time.Date(2026, 11, 22, 1, 2, 3, 456789000, time.UTC)
	for _, l := range []layout{narrow, wide} {
		in := record{recordUser, 4711, "pts/3", "tanaka", "pc7.example.jp", at, netip.MustParseAddr("2001:db8::7")}
		data := l.encode(in)
		if got, ok := l.decode(data); !ok || got != in {
			t.Errorf("%d bytes: %+v, want %+v", l, got, in)
		}
		if got := layoutOf(bytes.Repeat(data, 8), 8*int64(l), narrow+wide-l); got != l {
			t.Errorf("records of %d bytes taken for %d", l, got)
		}
		if got := layoutOf(nil, 0, l); got != l {
			t.Errorf("an empty file is laid out as %d, want the usual %d", got, l)
		}
		if _, ok := l.decode(data[1:]); ok {
			t.Error("a short record is one")
		}
		all, rest := l.decodeAll(append(bytes.Repeat(data, 3), data[:100]...))
		if len(all) != 3 || rest != 100 {
			t.Errorf("%d records, %d bytes left", len(all), rest)
		}
	}
	for name, want := range map[string]string{
		"login.hex": "[{7 18794 pts/0 root  2026-11-22 02:58:45.074328 +0000 UTC invalid IP} {8 18794 pts/0   2026-11-22 02:58:47.616209 +0000 UTC invalid IP}]",
		"wide.hex":  "[{7 812 pts/3 tanaka pc7.example.jp 2026-11-22 01:02:03.456789 +0000 UTC invalid IP}]",
	} {
		data := fixture(t, name)
		all, rest := layoutOf(data, int64(len(data)), narrow).decodeAll(data)
		if got := fmt.Sprint(all); got != want || rest != 0 {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	late := narrow.encode(record{Type: recordUser, At: time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)})
	if r, _ := narrow.decode(late); r.At.Year() != 2040 {
		t.Errorf("2040 reads as %v", r.At)
	}
}

func TestWhoCameInAndFromWhere(t *testing.T) {
	for _, c := range []struct {
		r    record
		want string
	}{
		{record{Type: recordUser, Line: "tty1", User: "tanaka"}, "logon console"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "192.0.2.7"}, "logon remote from 192.0.2.7"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "pc7.example.jp", Addr: netip.MustParseAddr("192.0.2.9")}, "logon remote from 192.0.2.9"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "fe80::7%eth0"}, "logon remote from fe80::7"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "::ffff:192.0.2.7"}, "logon remote from 192.0.2.7"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "<b>\x1b[31m"}, "logon remote"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "::1"}, "logon remote from ::1"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "2001:db8::7"}, "logon remote from 2001:db8::7"},
		{record{Type: recordUser, Line: "pts/3", User: "tanaka", Host: "pc7.example.jp via mosh [812]"}, "logon remote from pc7.example.jp"},
		{record{Type: recordUser, Line: ":0", User: "tanaka", Host: ":0"}, "logon console graphical"},
		{record{Type: recordUser, Line: "tty2", User: "tanaka", Host: "tty2"}, "logon console"},
		{record{Type: recordUser, Line: "tty7", User: "tanaka", Host: ":0"}, "logon console graphical"},
		{record{Type: recordUser, Line: "pts/0", User: "tanaka", Host: ":0"}, ""},             // xterm
		{record{Type: recordUser, Line: "pts/1", User: "tanaka", Host: "localhost:10.0"}, ""}, // xterm over ssh -X
		{record{Type: recordUser, Line: "pts/1", User: "tanaka", Host: "tmux(812).%0"}, ""},
		{record{Type: recordUser, Line: "pts/1", User: "tanaka", Host: ":pts/0:S.0"}, ""}, // screen
		{record{Type: recordUser, Line: "pts/1"}, "over"},
		{record{Type: recordDead, Line: "pts/1"}, "over"},
		{record{Type: recordDead}, ""},
		{record{Type: 6, Line: "tty1", User: "LOGIN"}, ""},
		{record{Type: recordBoot, Line: "~", User: "reboot"}, ""},
	} {
		var got []string
		if c.r.logon() {
			got = append(got, "logon", map[bool]string{true: Remote, false: Console}[c.r.remote()])
			if s := c.r.source(); c.r.remote() && s != nil {
				got = append(got, "from", s.IP+s.Domain)
			}
			if c.r.graphical() {
				got = append(got, "graphical")
			}
		}
		if c.r.over() {
			got = append(got, "over")
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v: %q, want %q", c.r, s, c.want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(narrow.encode(record{recordUser, 4711, "pts/3", "tanaka", "192.0.2.7", time.Unix(1, 0), netip.Addr{}}))
	f.Add(wide.encode(record{recordDead, -1, "\xff\x00", strings.Repeat("界", 11), "::1", time.Unix(1<<33, 0), netip.MustParseAddr("192.0.2.7")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := layoutOf(data, int64(len(data)), usualLayout())
		all, rest := l.decodeAll(data)
		if len(all)*int(l)+rest != len(data) || rest >= int(l) {
			t.Fatalf("%d records and %d bytes of %d", len(all), rest, len(data))
		}
		for i := range all {
			r := &all[i]
			if !utf8.ValidString(r.Line+r.User+r.Host) || strings.ContainsRune(r.User, 0) || r.logon() && r.over() {
				t.Fatalf("%+v", r)
			}
			r.remote()
			if s := r.source(); s != nil && (s.IP == "") == (s.Domain == "") {
				t.Fatalf("%+v from %+v", r, s)
			}
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add(strings.Repeat("\xff界", 100))
	f.Fuzz(func(t *testing.T, s string) {
		if c := clean(s); !utf8.ValidString(c) || len(c) > 3*256 || utf8.ValidString(s) && !strings.HasPrefix(s, c) {
			t.Fatalf("%q of %q", c, s)
		}
	})
}

func BenchmarkFill(b *testing.B) {
	w := New(Options{})
	w.lookup.opened(&login{id: "5", user: event.User{ID: "1000"}, kind: Remote})
	e := &event.Event{Action: event.ProcessStarted, User: &event.User{ID: "1000"}, Process: &event.Process{PID: event.Some(int64(1))}}
	b.ReportAllocs()
	for b.Loop() {
		e.SessionID, e.Session = "5", nil
		w.Fill(e)
	}
}
