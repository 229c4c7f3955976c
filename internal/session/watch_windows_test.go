package session

import (
	"context"
	"os"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/event"
)

// wtsInfoEx is WTSINFOEXW with WTSINFOEX_LEVEL1_W of wtsapi32.h: WINSTATIONNAME_LENGTH
// 32, USERNAME_LENGTH 20, DOMAIN_LENGTH 17, each and one.
type wtsInfoEx struct {
	Level uint32
	Data  struct {
		SessionID, SessionState                                            uint32
		SessionFlags                                                       int32
		WinStationName                                                     [33]uint16
		UserName                                                           [21]uint16
		DomainName                                                         [18]uint16
		LogonTime, ConnectTime, DisconnectTime, LastInputTime, CurrentTime int64
		Counters                                                           [6]uint32
	}
}

func TestTheLayoutsAreThoseOfWindows(t *testing.T) {
	var x wtsInfoEx
	var s windows.WTS_SESSION_INFO
	at := unsafe.Offsetof(x.Data)
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"WTSINFOEXW", unsafe.Sizeof(x), infoSize},
		{"SessionId", at + unsafe.Offsetof(x.Data.SessionID), 8},
		{"SessionFlags", at + unsafe.Offsetof(x.Data.SessionFlags), 16},
		{"WinStationName", at + unsafe.Offsetof(x.Data.WinStationName), infoNames},
		{"UserName", at + unsafe.Offsetof(x.Data.UserName), infoNames + 2*33},
		{"DomainName", at + unsafe.Offsetof(x.Data.DomainName), infoNames + 2*(33+21)},
		{"LogonTime", at + unsafe.Offsetof(x.Data.LogonTime), infoTimes},
		{"CurrentTime", at + unsafe.Offsetof(x.Data.CurrentTime), infoTimes + 32},
		{"WTS_SESSION_INFOW", unsafe.Sizeof(s), 24},
		{"WTS_CLIENT_ADDRESS", unsafe.Sizeof(struct {
			family  uint32
			address [20]byte
		}{}), addressSize},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d, want %d", c.name, c.got, c.want)
		}
	}
}

func TestTheSensorComesUpAndStops(t *testing.T) {
	w := New(Options{Poll: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan *event.Event, 64)
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	for range 2 { // after a look
		w.Prove("nonce")
		select {
		case e := <-out:
			if e.Action != event.SensorProven || e.ID != "nonce" {
				t.Fatal(say(e))
			}
		case err := <-done:
			t.Fatalf("ends by itself: %v", err)
		case <-time.After(time.Minute):
			t.Fatalf("does not come up: %+v", w.Status())
		}
	}
	s := w.Status()
	t.Logf("%s by %q: %s", s.State, s.Mechanism, s.Reason)
	if s.State == "down" || s.State != "ok" && s.Reason == "" {
		t.Errorf("status %+v", s)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("does not stop")
	}
	for len(out) > 0 {
		t.Error(say(<-out))
	}
}

func TestTheSessionOfThisProcess(t *testing.T) {
	var id uint32
	if err := windows.ProcessIdToSessionId(windows.GetCurrentProcessId(), &id); err != nil {
		t.Fatal(err)
	}
	w := New(Options{})
	d := desk{id: id, user: event.User{Name: "tanaka"}}
	w.lookup.opened(&login{id: d.key(), user: d.user, kind: Remote, from: &event.Source{IP: "192.0.2.7"}})
	e := event.New(event.FileCopied, time.Now())
	e.Process = &event.Process{PID: event.Some(int64(os.Getpid()))}
	w.Fill(e)
	if id != 0 && (e.SessionID != d.key() || e.Session == nil || e.Source == nil) {
		t.Errorf("got %q, %+v, %+v in session %d", e.SessionID, e.Session, e.Source, id)
	}
	if session, _ := w.login(0x7ffffff0); session != "" {
		t.Errorf("a process that does not exist is in session %q", session)
	}
	if _, alive := w.place(0x7ffffff0); alive {
		t.Error("a process that does not exist is alive")
	}
	t.Log("tick of the last input:", lastInputTick())
}
