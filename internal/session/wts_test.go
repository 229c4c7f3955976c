package session

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"sekisho/internal/event"
	"sekisho/internal/winlog"
)

// put writes a text in UTF-16 at a place.
func put(b []byte, at int, text string) {
	for i, c := range utf16.Encode([]rune(text)) {
		binary.LittleEndian.PutUint16(b[at+2*i:], c)
	}
}

// ticks is a time as Windows counts: 100 ns since 1601.
func ticks(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixNano()/100) + 116444736000000000
}

// info is a WTSINFOEXW as wtsapi32.h has it on amd64.
func info(id, state, flags uint32, user, domain string, logon, connected, input, now time.Time) []byte {
	b := make([]byte, 232)
	le := binary.LittleEndian
	for i, v := range []uint32{1, 0, id, state, flags} {
		le.PutUint32(b[4*i:], v)
	}
	put(b, 20, "Console")
	put(b, 86, user)
	put(b, 128, domain)
	for i, t := range []time.Time{logon, connected, {}, input, now} {
		le.PutUint64(b[168+8*i:], ticks(t))
	}
	return b
}

func TestWhatWindowsSaysOfASession(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 30, 0, 123456700, time.UTC)
	d, err := parseInfo(info(2, wtsActive, wtsUnlocked, "tanaka", "EXAMPLE", at, at.Add(time.Minute), at.Add(time.Hour), at.Add(2*time.Hour)))
	want := desk{id: 2, state: wtsActive, flags: wtsUnlocked, user: event.User{Name: "tanaka", Domain: "EXAMPLE"},
		logon: at, connected: at.Add(time.Minute), input: at.Add(time.Hour), now: at.Add(2 * time.Hour)}
	if err != nil || d != want {
		t.Errorf("got %+v, %v\nwant %+v", d, err, want)
	}
	if !d.person() || d.locked() {
		t.Errorf("person %t, locked %t", d.person(), d.locked())
	}
	none := info(0, wtsDisconnected, 0xffffffff, "", "", time.Time{}, time.Time{}, time.Time{}, at)
	if d, err := parseInfo(none); err != nil || d.person() || !d.logon.IsZero() {
		t.Errorf("the session of services: %+v, %v", d, err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut short": none[:231], "another level": append([]byte{2}, none[1:]...)} {
		if d, err := parseInfo(b); err == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	long := info(3, wtsActive, wtsLocked, strings.Repeat("田", 21), strings.Repeat("E", 18), at, at, at, at)
	if d, err := parseInfo(long); err != nil || d.user.Name != strings.Repeat("田", 21) || d.user.Domain != strings.Repeat("E", 18) || !d.locked() {
		t.Errorf("names without an end: %+v, %v", d, err)
	}
	for _, c := range []struct {
		ticks uint64
		want  time.Time
	}{{0, time.Time{}}, {1 << 63, time.Time{}}, {1<<64 - 1, time.Time{}}, {116444736000000000, time.Time{}}, {ticks(at), at}, {283_700_000_000_000_000, time.Date(2500, 1, 5, 4, 26, 40, 0, time.UTC)}} {
		if got := fileTime(c.ticks); c.want.Year() != 2500 && !got.Equal(c.want) || c.want.Year() == 2500 && got.Year() < 2499 {
			t.Errorf("%d is %v, want %v", c.ticks, got, c.want)
		}
	}
}

func TestFromWhereARemoteSessionIs(t *testing.T) {
	for _, c := range []struct {
		name    string
		family  uint32
		address []byte
		want    string
	}{
		{"IPv4 begins at the third byte", 2, []byte{0, 0, 192, 0, 2, 7}, "192.0.2.7"},
		{"IPv6 begins at the first", 23, []byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}, "2001:db8::1"},
		{"IPv4 in IPv6", 23, []byte{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 7}, "192.0.2.7"},
		{"none", 0, nil, ""},
		{"no address in it", 2, nil, ""},
		{"another network", 17, []byte("NETBIOS"), ""},
	} {
		b := make([]byte, 24)
		binary.LittleEndian.PutUint32(b, c.family)
		copy(b[4:], c.address)
		a, ok := parseAddress(b)
		if ok != (c.want != "") || ok && a.String() != c.want {
			t.Errorf("%s: %v, %t", c.name, a, ok)
		}
	}
	if _, ok := parseAddress(make([]byte, 23)); ok {
		t.Error("an address that is cut short is one")
	}
	// What arrives of it, and what the log says.
	d := desk{remote: true, from: &event.Source{IP: "10.0.0.1", Domain: "PC8"}}
	for _, c := range []struct {
		n    *news
		want string
	}{{nil, "10.0.0.1 PC8"}, {&news{}, "10.0.0.1 PC8"}, {&news{from: &event.Source{IP: "192.0.2.7"}}, "192.0.2.7 PC8"}} {
		if s := d.source(c.n); s == nil || s.IP+" "+s.Domain != c.want {
			t.Errorf("%+v: %+v, want %s", c.n, s, c.want)
		}
	}
	d.from = &event.Source{}
	if s := d.source(nil); s != nil {
		t.Errorf("nothing known is %+v", s)
	}
}

func TestTheLastInput(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	none := time.Time{}
	for _, c := range []struct {
		name string
		desk desk
		ofPC time.Time
		want time.Time
	}{
		{"remote, as Windows says", desk{remote: true, input: ago(time.Hour), now: now}, now, ago(time.Hour)},
		{"remote, just now", desk{remote: true, input: now, now: now}, ago(time.Hour), now},
		{"remote, unknown", desk{remote: true, now: now}, ago(time.Hour), none},
		{"at the PC, as Windows says", desk{input: ago(time.Minute), now: now}, ago(time.Hour), ago(time.Minute)},
		{"at the PC, where that stands still", desk{input: ago(time.Hour), now: now}, ago(time.Minute), ago(time.Minute)},
		{"at the PC, where only that is known", desk{input: ago(time.Hour), now: now}, none, ago(time.Hour)},
		{"at the PC, the time it was asked", desk{input: now, now: now}, ago(time.Hour), ago(time.Hour)},
		{"at the PC, unknown", desk{now: now}, ago(time.Minute), ago(time.Minute)},
		{"at the PC, nobody knows", desk{now: now}, none, none},
		{"no clock", desk{input: now}, none, none},
	} {
		if got := c.desk.lastInput(c.ofPC, true); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if got := c.desk.lastInput(c.ofPC, false); c.desk.remote && !got.Equal(c.want) || !c.desk.remote && !got.IsZero() {
			t.Errorf("%s, among other screens: %v", c.name, got)
		}
	}
	for _, c := range []struct {
		last, now uint32
		want      time.Duration
	}{{1000, 61_000, time.Minute}, {1<<32 - 1000, 1000, 2 * time.Second}, {2000, 1990, 0}, {0, 1 << 31, 1 << 31 * time.Millisecond}} {
		if got := sinceTick(c.last, c.now); got != c.want {
			t.Errorf("from %d to %d: %v, want %v", c.last, c.now, got, c.want)
		}
	}
	var i inputOfPC
	for n, step := range []struct {
		last, tick uint32
		now, want  time.Time
	}{
		{0, 5000, now, none},
		{3000, 5000, now, ago(2 * time.Second)},
		{3000, 65_000, now.Add(time.Hour), ago(2 * time.Second)}, // the clock was set
		{66_000, 66_000, now.Add(time.Hour), now.Add(time.Hour)},
		{0, 67_000, now, none},
	} {
		if got := i.seen(step.last, step.tick, step.now); !got.Equal(step.want) {
			t.Errorf("step %d: %v, want %v", n, got, step.want)
		}
	}
}

func FuzzWTS(f *testing.F) {
	at := time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)
	f.Add(info(2, wtsActive, wtsUnlocked, "tanaka", "EXAMPLE", at, at, at, at))
	f.Add([]byte{23, 0, 0, 0, 0x20, 1, 23: 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseInfo(b); err == nil {
			if !utf8.ValidString(d.user.Name+d.user.Domain) || strings.ContainsRune(d.user.Name, 0) {
				t.Errorf("%+v", d)
			}
			for _, at := range []time.Time{d.logon, d.connected, d.input, d.now} {
				if !at.IsZero() && (at.Year() < 1970 || at.Year() > 2500) {
					t.Errorf("%v", at)
				}
			}
		}
		if a, ok := parseAddress(b); ok && (!a.IsValid() || a.Is4In6()) {
			t.Errorf("%v", a)
		}
		if s := parseText(b); !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			t.Errorf("%q", s)
		}
	})
}

// wtsPC is a PC with Windows: its sessions by id, and its log.
type wtsPC struct {
	mu    sync.Mutex // guards all below; held by who changes them
	desks []desk
	err   error
	opt   winlog.Options
	ends  time.Time // when the one session ends, if that matters
}

// after lets so much time pass.
func (p *wtsPC) after(d time.Duration) {
	p.mu.Unlock()
	defer p.mu.Lock()
	time.Sleep(d)
}

func (p *wtsPC) list() ([]desk, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := append([]desk{{id: 0, state: wtsDisconnected}, {id: 65536, state: 6}}, p.desks...)
	if p.desks == nil {
		all = nil
	}
	for i := range all {
		all[i].now = time.Now()
	}
	return all, p.err
}

func (p *wtsPC) follow(ctx context.Context, o winlog.Options) {
	p.mu.Lock()
	p.opt = o
	p.mu.Unlock()
	o.Say(nil)
	<-ctx.Done()
}

// record has a record of the log read.
func (p *wtsPC) record(id int, session, user, address string) {
	o := p.opt
	p.mu.Unlock()
	defer p.mu.Lock()
	o.Tell(&winlog.Event{ID: id, Time: time.Now(), Data: []winlog.Field{{Name: "User", Value: user}, {Name: "SessionID", Value: session}, {Name: "Address", Value: address}}})
	synctest.Wait()
}

func TestSessionsOfWindows(t *testing.T) {
	tanaka := event.User{ID: "S-1-5-21-1-2-3-1001", Name: "tanaka", Domain: "EXAMPLE"}
	sato := event.User{Name: "sato", Domain: "EXAMPLE"}
	// at is a session on the screen of the PC since the bubble began.
	at := func(id uint32, u event.User) desk {
		return desk{id: id, state: wtsActive, flags: wtsUnlocked, user: u, logon: time.Now(), connected: time.Now(), input: time.Now()}
	}
	elsewhere := func(d desk, ip string) desk {
		d.remote, d.from, d.connected, d.state = true, &event.Source{IP: ip, Domain: "PC8"}, time.Now(), wtsActive
		return d
	}
	const poll = 2 * time.Second
	for _, c := range []struct {
		name string
		do   func(p *wtsPC)
		want []string
	}{
		{"one that is there at the start is not told; its end is", func(p *wtsPC) {
			p.desks = p.desks[1:]
		}, []string{"session-logoff tanaka 1 console"}},
		{"a logon and a logoff that only the list tells", func(p *wtsPC) {
			p.desks = append(p.desks, elsewhere(at(2, sato), "192.0.2.7"))
			p.after(poll)
			p.desks = p.desks[:1]
		}, []string{"session-logon sato 2 remote from 192.0.2.7PC8", "session-logoff sato 2 remote from 192.0.2.7PC8"}},
		{"the log tells at once, and the address that Windows saw", func(p *wtsPC) {
			p.desks = append(p.desks, elsewhere(at(2, sato), "10.0.0.1"))
			p.record(recordLogon, "2", `EXAMPLE\sato`, "192.0.2.7")
			p.after(poll)
			p.record(recordLogoff, "2", `EXAMPLE\sato`, "") // listed a moment longer
			p.desks = p.desks[:1]
		}, []string{"session-logon sato 2 remote from 192.0.2.7PC8", "session-logoff sato 2 remote from 192.0.2.7PC8"}},
		{"the log tells the address when the logon is told", func(p *wtsPC) {
			p.desks = append(p.desks, elsewhere(at(2, sato), "10.0.0.1"))
			p.after(poll)
			p.record(recordLogon, "2", `EXAMPLE\sato`, "192.0.2.7")
			p.desks = p.desks[:1]
		}, []string{"session-logon sato 2 remote from 10.0.0.1PC8", "session-logoff sato 2 remote from 192.0.2.7PC8"}},
		{"a session between two looks", func(p *wtsPC) {
			p.record(recordLogon, "7", `EXAMPLE\sato`, "192.0.2.7")
			p.record(recordLogoff, "7", `EXAMPLE\sato`, "")
		}, []string{"session-logon sato 7 remote from 192.0.2.7", "session-logoff sato 7 remote from 192.0.2.7"}},
		{"a session at the PC between two looks", func(p *wtsPC) {
			p.record(recordLogon, "7", `EXAMPLE\sato`, "ローカル") // German: LOKAL
			p.record(recordLogoff, "7", `EXAMPLE\sato`, "")
		}, []string{"session-logon sato 7 console", "session-logoff sato 7 console"}},
		{"the time of an end of which only the end was heard", func(p *wtsPC) {
			at := time.Now()
			p.record(recordLogoff, "1", `EXAMPLE\tanaka`, "")
			p.after(time.Second)
			p.desks = p.desks[1:]
			p.ends = at
		}, []string{"session-logoff tanaka 1 console"}},
		{"records of nobody, of numbers that are none, of what was not heard", func(p *wtsPC) {
			p.record(recordLogoff, "9", "", "")
			p.record(recordReconnected, "9", "x\xff", strings.Repeat("é", 1000))
			p.record(recordLogon, "-1", "", "")
		}, nil},
		{"locked for 20 minutes, idle for 5 before", func(p *wtsPC) {
			p.after(5 * time.Minute)
			p.desks[0].flags = wtsLocked
			p.after(20 * time.Minute)
			p.desks[0].input = time.Now() // the password
			p.after(poll)
			p.desks[0].flags = wtsUnlocked
		}, []string{"session-locked tanaka 1 console", "session-unlocked tanaka 1 console idle 1506"}},
		{"locked, and then Windows does not know", func(p *wtsPC) {
			p.desks[0].flags = wtsLocked
			p.after(poll)
			p.desks[0].flags = 0xffffffff
			p.after(poll)
			p.desks[0].state = wtsDisconnected
			p.after(poll)
			p.desks[0].state = wtsActive // somebody logged on for it
		}, []string{"session-locked tanaka 1 console", "session-unlocked tanaka 1 console idle 10"}},
		{"left for 20 minutes", func(p *wtsPC) {
			p.after(20 * time.Minute)
			p.desks[0].input = time.Now()
			p.after(poll)
			p.after(5 * time.Minute)
			p.desks[0].input = time.Now()
		}, []string{"session-resumed tanaka 1 console idle 1202"}},
		{"nobody knows of its input", func(p *wtsPC) {
			p.desks[0].input = time.Time{}
			p.after(time.Hour)
			p.desks[0].input = time.Now() // known again: it may have been used all the time
		}, nil},
		{"another one sits down, and the first comes back", func(p *wtsPC) {
			p.desks[0].state = wtsDisconnected
			p.desks = append(p.desks, at(2, sato))
			p.after(poll)
			p.desks[1].state, p.desks[0].state, p.desks[0].connected = wtsDisconnected, wtsActive, time.Now()
		}, []string{"session-locked tanaka 1 console", "session-logon sato 2 console", "session-unlocked tanaka 1 console idle 6", "session-locked sato 2 console"}},
		{"gone from the PC, back by remote desktop", func(p *wtsPC) {
			p.desks[0].state = wtsDisconnected
			p.after(poll)
			p.desks[0] = elsewhere(p.desks[0], "192.0.2.7")
			p.after(poll)
			p.desks[0].state = wtsDisconnected
			p.desks[0].remote = false // Windows forgets
		}, []string{"session-locked tanaka 1 console", "session-unlocked tanaka 1 remote idle 6 from 192.0.2.7PC8", "session-locked tanaka 1 remote from 192.0.2.7PC8"}},
		{"taken over by remote desktop within a moment", func(p *wtsPC) {
			p.desks[0] = elsewhere(p.desks[0], "10.0.0.1")
			p.record(recordReconnected, "1", `EXAMPLE\tanaka`, "192.0.2.7")
			p.after(poll)
			p.record(recordReconnected, "1", `EXAMPLE\tanaka`, "192.0.2.7") // told once
		}, []string{"session-unlocked tanaka 1 remote (taken over on another screen) from 192.0.2.7PC8"}},
		{"an id that is given again", func(p *wtsPC) {
			p.desks[0] = at(1, sato)
			p.after(poll)
			p.after(poll)
			p.desks[0] = at(1, sato) // logged off and on
		}, []string{"session-logoff tanaka 1 console", "session-logon sato 1 console", "session-logoff sato 1 console", "session-logon sato 1 console"}},
		{"a screen at which nobody has logged on", func(p *wtsPC) {
			p.desks = append(p.desks, desk{id: 3, state: wtsConnected, flags: 0xffffffff})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &wtsPC{desks: []desk{at(1, tanaka)}}
				out := make(chan *event.Event, 64)
				w := New(Options{})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- w.newTracker(ctx, out).wts(p.list, p.follow) }()
				synctest.Wait()
				if s := w.Status(); s.State != "ok" || s.Mechanism != "wts+event-log" {
					t.Errorf("status %+v", s)
				}
				time.Sleep(poll + time.Millisecond)
				p.mu.Lock()
				c.do(p)
				p.mu.Unlock()
				time.Sleep(poll)
				synctest.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if !p.ends.IsZero() {
					e := <-out
					if out <- e; !e.Time.Equal(p.ends) {
						t.Errorf("ended at %v, want %v", e.Time, p.ends)
					}
				}
				want(t, told(out), c.want...)
			})
		})
	}
}

func TestAnAccountThatIsKnownLaterIsTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &wtsPC{desks: []desk{{id: 0}}}
		out := make(chan *event.Event, 64)
		w := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.newTracker(ctx, out).wts(p.list, p.follow) }()
		p.mu.Lock()
		p.after(3 * time.Second)
		p.desks = append(p.desks, desk{id: 1, state: wtsActive, user: event.User{Name: "tanaka"}, logon: time.Now(), flags: wtsUnlocked})
		p.after(3 * time.Second)
		p.desks[1].user.ID = "S-1-5-21-1-2-3-1001"
		p.after(3 * time.Second)
		p.desks[1].flags = wtsLocked
		p.after(3 * time.Second)
		p.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for _, want := range []string{"session-logon ", "session-locked S-1-5-21-1-2-3-1001"} {
			if e := <-out; string(e.Action)+" "+e.User.ID != want {
				t.Errorf("got %s %s, want %s", e.Action, e.User.ID, want)
			}
		}
	})
}

// What goes wrong with Windows is told, and what happened meanwhile is when it works
// again.
func TestWhenWindowsDoesNotSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &wtsPC{}
		out := make(chan *event.Event, 64)
		w := New(Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		run := func() { done <- w.newTracker(ctx, out).wts(p.list, p.follow) }
		go run()
		synctest.Wait()
		if s := w.Status(); s.State != "unavailable" || s.Mechanism != "" {
			t.Errorf("without sessions: %+v", s)
		}
		p.mu.Lock()
		p.desks = []desk{{id: 1, state: wtsActive, user: event.User{Name: "tanaka"}, logon: time.Now(), flags: wtsUnlocked}}
		p.after(3 * time.Second)
		say := p.opt.Say
		p.mu.Unlock()
		say(errors.New("access is denied"))
		synctest.Wait()
		if s := w.Status(); s.State != "limited" || !strings.Contains(s.Reason, "every 2s") || !strings.HasSuffix(s.Reason, "access is denied") {
			t.Errorf("without a log: %+v", s)
		}
		broken := errors.New("the RPC server is unavailable")
		p.mu.Lock()
		p.err = broken
		p.mu.Unlock()
		if err := <-done; err != broken {
			t.Errorf("ended with %v", err)
		}
		p.err = nil
		p.desks = append(p.desks, desk{id: 2, state: wtsActive, user: event.User{Name: "sato"}, logon: time.Now(), flags: wtsUnlocked})
		go run()
		time.Sleep(3 * time.Second)
		want(t, told(out), "session-logon tanaka 1 console", "session-logon sato 2 console")
		w.Prove("nonce")
		synctest.Wait()
		if e := <-out; e.Action != event.SensorProven || e.ID != "nonce" {
			t.Errorf("got %+v, want the proof", e)
		}
		cancel()
		<-done
	})
}
