package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// daemon is a bus of the test's own: a real dbus-daemon that lets everybody own
// and send everything.
type daemon struct {
	t       *testing.T
	address string
	cmd     *exec.Cmd
}

func startBus(t *testing.T) *daemon {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("no dbus-daemon here")
	}
	dir, err := os.MkdirTemp("", "bus") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, address: "unix:path=" + filepath.Join(dir, "s")}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>`+d.address+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`), 0o644); err != nil {
		t.Fatal(err)
	}
	d.start(conf)
	return d
}

func (d *daemon) start(conf string) {
	d.t.Helper()
	d.cmd = exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--config-file="+conf)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.stop)
	socket := strings.TrimPrefix(d.address, "unix:path=")
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, err := dbus.Connect(d.address, dbus.WithContext(ctx))
		cancel()
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("no bus at %s: %v", socket, err)
		}
	}
}

func (d *daemon) stop() {
	if d.cmd != nil {
		d.cmd.Process.Signal(syscall.SIGTERM)
		d.cmd.Wait()
		d.cmd = nil
	}
}

// seat is a logind of the test's own on such a bus: the same names, methods,
// signals and types (org.freedesktop.login1(5)), driven by the test.
type seat struct {
	t    *testing.T
	conn *dbus.Conn

	mu    sync.Mutex // guards all below
	props map[string]map[string]dbus.Variant
}

func startLogind(t *testing.T, d *daemon) *seat {
	t.Helper()
	conn, err := dbus.Connect(d.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &seat{t: t, conn: conn, props: map[string]map[string]dbus.Variant{}}
	if err := conn.ExportMethodTable(map[string]any{"ListSessions": s.list}, logindPath, logindManager); err != nil {
		t.Fatal(err)
	}
	if err := conn.ExportSubtreeMethodTable(map[string]any{"GetAll": s.getAll}, sessionsPath, properties); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName(logindName, dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: %v %v", logindName, r, err)
	}
	return s
}

func pathOf(id string) dbus.ObjectPath {
	return sessionsPath + dbus.ObjectPath("/_3"+id) // how logind escapes a digit at the beginning
}

func (s *seat) list() ([]listed, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []listed
	for id, p := range s.props {
		all = append(all, listed{ID: id, User: p["Name"].Value().(string), Path: pathOf(id)})
	}
	return all, nil
}

func (s *seat) getAll(m dbus.Message, of string) (map[string]dbus.Variant, *dbus.Error) {
	path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.props {
		if pathOf(id) == path && of == logindSession {
			c := map[string]dbus.Variant{}
			for k, v := range p {
				c[k] = v
			}
			return c, nil
		}
	}
	return nil, dbus.MakeFailedError(fmt.Errorf("no session %s", path))
}

// set makes or changes a session; with signals or as something that happened
// while nobody listened.
func (s *seat) set(id string, values map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.props[id]
	if p == nil {
		p = map[string]dbus.Variant{}
		s.props[id] = p
	}
	for k, v := range values {
		p[k] = dbus.MakeVariant(v)
	}
}

func (s *seat) emit(path dbus.ObjectPath, name string, values ...any) {
	s.t.Helper()
	if err := s.conn.Emit(path, name, values...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) begin(id string, values map[string]any) {
	s.set(id, values)
	s.emit(logindPath, logindManager+".SessionNew", id, pathOf(id))
}

func (s *seat) change(id string, values map[string]any) {
	s.set(id, values)
	changed := map[string]dbus.Variant{}
	for k, v := range values {
		changed[k] = dbus.MakeVariant(v)
	}
	s.emit(pathOf(id), properties+".PropertiesChanged", logindSession, changed, []string{})
}

func (s *seat) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.props, id)
}

func (s *seat) end(id string) {
	s.forget(id)
	s.emit(logindPath, logindManager+".SessionRemoved", id, pathOf(id))
}

// owner is the type (uo) of a session's User.
type owner struct {
	UID  uint32
	Path dbus.ObjectPath
}

// somebody is what logind says of a session.
func somebody(id, name string, uid uint32, more map[string]any) map[string]any {
	p := map[string]any{
		"Id": id, "Name": name, "User": owner{uid, "/org/freedesktop/login1/user/_1"}, "Timestamp": uint64(time.Now().UnixMicro()),
		"Leader": uint32(os.Getpid()), "Class": "user", "Type": "wayland", "State": "active", "Active": true, "Remote": false,
		"IdleHint": false, "LockedHint": false, "IdleSinceHint": uint64(0), "TTY": "",
	}
	for k, v := range more {
		p[k] = v
	}
	return p
}

func logindOptions(d *daemon) Options {
	dir := d.t.TempDir()
	return Options{Bus: d.address, Utmp: filepath.Join(dir, "utmp"), Wtmp: filepath.Join(dir, "wtmp"),
		Inputs: 20 * time.Millisecond, Settle: 200 * time.Millisecond, Retry: 50 * time.Millisecond, Poll: 10 * time.Millisecond}
}

func TestSessionsOfLogind(t *testing.T) {
	d := startBus(t)
	l := startLogind(t, d)
	l.set("1", somebody("1", "tanaka", 1000, nil))
	w, ev := start(t, logindOptions(d))
	state(t, w, endpoint.SensorOK, "logind", "")

	began := ago(3 * time.Second).UTC().Truncate(time.Microsecond)
	l.begin("2", somebody("2", "sato", 1001, map[string]any{"Remote": true, "RemoteHost": "192.0.2.7", "Type": "tty", "Service": "sshd",
		"Timestamp": uint64(began.UnixMicro())}))
	e := next(t, ev)
	want(t, []string{say(e)}, "session-logon sato 2 remote from 192.0.2.7")
	if e.User.ID != "1001" || !e.Time.Equal(began) || e.Sensor != "logind" {
		t.Errorf("user %+v at %v by %q", e.User, e.Time, e.Sensor)
	}
	if a := w.ofProcess(os.Getpid()); a.of != nil {
		t.Errorf("this test is in session %s of %+v", a.id, a.of)
	}
	for id, class := range map[string]string{"3": "greeter", "4": "background", "5": "manager", "6": "user-incomplete"} {
		l.begin(id, somebody(id, "gdm", 110, map[string]any{"Class": class}))
	}
	l.change("6", map[string]any{"Class": "user"}) // a home that had to be unlocked first
	want(t, []string{say(next(t, ev))}, "session-logon gdm 6 console")
	l.begin("7", somebody("7", "kato", 1002, map[string]any{"Service": "xrdp-sesman", "Type": "x11"}))
	want(t, []string{say(next(t, ev))}, "session-logon kato 7 remote")

	l.change("1", map[string]any{"LockedHint": true})
	l.change("1", map[string]any{"LockedHint": false})
	want(t, []string{say(next(t, ev)), say(next(t, ev))}, "session-locked tanaka 1 console", "session-unlocked tanaka 1 console")
	l.change("7", map[string]any{"IdleHint": true, "IdleSinceHint": uint64(ago(20 * time.Minute).UnixMicro())})
	l.change("7", map[string]any{"IdleHint": false})
	want(t, []string{strings.TrimRight(say(next(t, ev)), "0123456789")}, "session-resumed kato 7 remote idle ")
	l.emit(pathOf("1"), logindSession+".Lock")
	want(t, []string{say(next(t, ev))}, "session-locked tanaka 1 console (asked to lock; the desktop does not say whether it did)")
	l.emit(logindPath, logindManager+".PrepareForSleep", true)
	l.emit(logindPath, logindManager+".PrepareForSleep", false) // no sleep to speak of

	l.end("3")
	l.end("2")
	want(t, []string{say(next(t, ev))}, "session-logoff sato 2 remote from 192.0.2.7")
	// The first process of a session ended and another is left: logind keeps it.
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	l.begin("8", somebody("8", "ito", 1003, map[string]any{"Leader": uint32(sleep.Process.Pid)}))
	want(t, []string{say(next(t, ev))}, "session-logon ito 8 console")
	sleep.Process.Kill()
	sleep.Wait()
	want(t, []string{say(next(t, ev))}, "session-logoff ito 8 console")
	l.end("8")
	l.end("7")
	want(t, []string{say(next(t, ev))}, "session-logoff kato 7 remote")
	if st := w.Status(); st.Lost != 0 {
		t.Errorf("status %+v", st)
	}
}

// A proof is that logind was asked and nothing was missed, or is not any more.
func TestTheSensorProvesThatItSees(t *testing.T) {
	d := startBus(t)
	l := startLogind(t, d)
	w, ev := start(t, logindOptions(d))
	state(t, w, endpoint.SensorOK, "logind", "")
	l.set("2", somebody("2", "sato", 1001, nil)) // and the signal is lost
	w.Prove("nonce")
	want(t, []string{say(next(t, ev))}, "session-logon sato 2 console")
	if e := next(t, ev); e.Action != event.SensorProven || e.ID != "nonce" || e.Sensor != "session" {
		t.Errorf("got %+v, want the proof", e)
	}
}

// Anybody on a system bus may send a signal that looks like logind's.
func TestSignalsOfOthersDoNotCount(t *testing.T) {
	d := startBus(t)
	l := startLogind(t, d)
	w, ev := start(t, logindOptions(d))
	state(t, w, endpoint.SensorOK, "logind", "")
	l.set("9", somebody("9", "nobody", 65534, nil)) // so that it could be read
	forger, err := dbus.Connect(d.address)
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	var names []string
	if err := forger.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, name := range names {
		if !strings.HasPrefix(name, ":") || name == forger.Names()[0] || name == l.conn.Names()[0] {
			continue
		}
		for range 3 {
			forge(t, forger, name, logindPath, logindManager, "SessionNew", "9", pathOf("9"))
			forge(t, forger, name, "/org/freedesktop/DBus", theBus, "NameOwnerChanged", logindName, l.conn.Names()[0], forger.Names()[0])
			sent++
		}
	}
	if sent == 0 {
		t.Fatal("the sensor is not on the bus")
	}
	// What comes after the forged ones on the same connection is heard as ever.
	l.begin("2", somebody("2", "sato", 1001, nil))
	want(t, []string{say(next(t, ev))}, "session-logon sato 2 console")
	if more := told(ev); len(more) > 0 {
		t.Errorf("also told %q", more)
	}
}

// forge sends a signal to one connection.
func forge(t *testing.T, c *dbus.Conn, to string, path dbus.ObjectPath, iface, member string, body ...any) {
	t.Helper()
	msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(to), dbus.FieldPath: dbus.MakeVariant(path),
		dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(body...)),
	}}
	if call := c.Send(msg, nil); call != nil && call.Err != nil {
		t.Fatal(call.Err)
	}
}

func TestALogindThatRestartsLosesNothing(t *testing.T) {
	d := startBus(t)
	l := startLogind(t, d)
	for _, id := range []string{"1", "2"} {
		l.set(id, somebody(id, "user"+id, 1000, nil))
	}
	w, ev := start(t, logindOptions(d))
	state(t, w, endpoint.SensorOK, "logind", "")
	if err := l.conn.Close(); err != nil {
		t.Fatal(err)
	}
	again := startLogind(t, d) // which knows of none of them
	ends := []string{say(next(t, ev)), say(next(t, ev))}
	slices.Sort(ends)
	want(t, ends, "session-logoff user1 1 console", "session-logoff user2 2 console")
	again.begin("3", somebody("3", "suzuki", 1000, nil))
	want(t, []string{say(next(t, ev))}, "session-logon suzuki 3 console")
	state(t, w, endpoint.SensorOK, "logind", "")
}

func TestABusThatGoesAwayIsReplacedAndComesBack(t *testing.T) {
	d := startBus(t)
	conf := filepath.Join(filepath.Dir(strings.TrimPrefix(d.address, "unix:path=")), "conf")
	l := startLogind(t, d)
	l.set("1", somebody("1", "tanaka", 1000, nil))
	opt := logindOptions(d)
	if err := os.WriteFile(opt.Wtmp, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w, ev := start(t, opt)
	state(t, w, endpoint.SensorOK, "logind", "")
	d.stop()
	state(t, w, endpoint.SensorDegraded, "utmp", "no systemd-logind (")
	if e := <-ev; e.Action != event.SensorDegraded || e.Sensor != "session" {
		t.Errorf("told %s of %s", e.Action, e.Sensor)
	}
	if err := os.WriteFile(opt.Wtmp, usualLayout().encode(record{Type: recordUser, PID: os.Getpid(), Line: "tty4", User: "sato", At: time.Now()}), 0o644); err != nil {
		t.Fatal(err)
	}
	if e := next(t, ev); e.Action != event.SessionLogon || e.User.Name != "sato" || e.Sensor != "utmp" {
		t.Errorf("told %s", say(e))
	}
	d.start(conf)
	l = startLogind(t, d)
	l.set("1", somebody("1", "tanaka", 1000, nil))
	l.set("2", somebody("2", "sato", 1001, nil))
	state(t, w, endpoint.SensorOK, "logind", "")
	// Who is there is known again, under the names of logind.
	l.end("2")
	want(t, []string{say(next(t, ev))}, "session-logoff sato 2 console")
	if more := told(ev); len(more) > 0 {
		t.Errorf("also told %q", more)
	}
}

func TestABusWithoutLogind(t *testing.T) {
	d := startBus(t)
	opt := logindOptions(d)
	w, _ := start(t, opt)
	state(t, w, endpoint.SensorUnavailable, "utmp", "ask logind for its sessions")
}

func TestABusThatDoesNotAnswerIsGivenUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	path := filepath.Join(dir, "s")
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := openLogind(ctx, "unix:path="+path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a bus that says nothing was taken for one")
		}
	case <-time.After(time.Minute):
		t.Fatal("still waiting for a bus that does not answer")
	}
}

// What logind says is of the types it documents; what is not is absent.
func TestPropertiesOfOtherTypes(t *testing.T) {
	odd := map[string]dbus.Variant{}
	for _, k := range []string{"Id", "Name", "User", "Timestamp", "Leader", "Remote", "RemoteHost", "Service", "TTY", "Type", "Class",
		"Active", "State", "IdleHint", "IdleSinceHint", "LockedHint"} {
		odd[k] = dbus.MakeVariant([]byte{0xff})
	}
	odd["User"] = dbus.MakeVariant([]any{})
	if l := loginOf(odd); l.id != "" || l.user != (event.User{}) || l.kind != Console || l.locked || len(l.pids) > 0 || !l.began.IsZero() {
		t.Errorf("%+v", l)
	}
	l := loginOf(map[string]dbus.Variant{"TTY": dbus.MakeVariant("../../etc/passwd"), "Name": dbus.MakeVariant(strings.Repeat("あ", 1000)),
		"Timestamp": dbus.MakeVariant(^uint64(0)), "IdleHint": dbus.MakeVariant(true), "IdleSinceHint": dbus.MakeVariant(^uint64(0)),
		"Leader": dbus.MakeVariant(^uint32(0))})
	if l.tty != "" || len(l.user.Name) > 256 || !l.began.IsZero() || time.Since(l.idleSince) > time.Minute || len(l.pids) > 0 {
		t.Errorf("%+v", l)
	}
}

// Signals that come faster than they are dealt with are counted, and the sessions
// listed again.
func TestMoreSignalsThanRoom(t *testing.T) {
	d := startBus(t)
	l := startLogind(t, d)
	out := make(chan *event.Event, 16)
	tr := New(logindOptions(d)).newTracker(t.Context(), out)
	b, err := openLogind(t.Context(), d.address)
	if err != nil {
		t.Fatal(err)
	}
	from := l.conn.Names()[0]
	for range signalQueue + 10 {
		b.in.DeliverSignal("", "", &dbus.Signal{Sender: from, Name: logindManager + ".PrepareForSleep"})
	}
	l.set("1", somebody("1", "tanaka", 1000, nil)) // its signal is among the dropped ones
	done := make(chan error, 1)
	tr.by = mechanismLogind
	go func() { done <- tr.logind(b) }()
	e := next(t, out)
	if e.Action != event.EventsLost || e.Lost.Count.V < 1 {
		t.Errorf("told %s", say(e))
	}
	want(t, []string{say(next(t, out))}, "session-logon tanaka 1 console")
	b.conn.Close()
	if err := <-done; err == nil {
		t.Error("a closed connection is no error")
	}
}
