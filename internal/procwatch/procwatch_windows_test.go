package procwatch

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"sekisho/internal/endpoint"
	"sekisho/internal/etw"
	"sekisho/internal/event"
	"sekisho/internal/winpath"
)

// wine reports whether this is not a real Windows.
var wine = windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil

// TestLayouts compares with what a C compiler makes of wintrust.h and mscat.h
// (mingw-w64 10, 64-bit).
func TestLayouts(t *testing.T) {
	var (
		c catalogInfo
		f catalogFile
		s providerSigner
		p providerCert
	)
	for _, x := range []struct {
		what      string
		got, want uintptr
	}{
		{"WINTRUST_CATALOG_INFO", unsafe.Sizeof(c), 72},
		{"WINTRUST_CATALOG_INFO.pcwszMemberFilePath", unsafe.Offsetof(c.memberFile), 24},
		{"WINTRUST_CATALOG_INFO.hMemberFile", unsafe.Offsetof(c.member), 32},
		{"WINTRUST_CATALOG_INFO.pbCalculatedFileHash", unsafe.Offsetof(c.hash), 40},
		{"CATALOG_INFO", unsafe.Sizeof(f), 524},
		{"CRYPT_PROVIDER_SGNR.csCertChain", unsafe.Offsetof(s.certs), 12},
		{"CRYPT_PROVIDER_SGNR.pasCertChain", unsafe.Offsetof(s.chain), 16},
		{"CRYPT_PROVIDER_CERT.pCert", unsafe.Offsetof(p.cert), 8},
		{"WINTRUST_DATA", unsafe.Sizeof(windows.WinTrustData{}), 80 + 8}, // with pSignatureSettings of Windows 8
		{"WINTRUST_FILE_INFO", unsafe.Sizeof(windows.WinTrustFileInfo{}), 32},
	} {
		if x.got != x.want {
			t.Errorf("%s is at, or has, %d, want %d", x.what, x.got, x.want)
		}
	}
}

// TestHelper is no test: it is what the tests start, and lives until its input ends.
func TestHelper(*testing.T) {
	if os.Getenv("PROCWATCH_HELPER") != "" {
		b := []byte{'.'}
		_, _ = os.Stdout.Write(b) // it runs
		_, _ = os.Stdin.Read(b)
		os.Exit(7)
	}
}

// startHelper starts this program with arguments and returns how to end it.
func startHelper(t *testing.T, args ...string) (*exec.Cmd, func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"-test.run=^TestHelper$", "--"}, args...)...)
	cmd.Env = append(os.Environ(), "PROCWATCH_HELPER=1")
	cmd.Dir = t.TempDir()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	end := func() {
		in.Close()
		_ = cmd.Wait() // its exit code is 7
	}
	t.Cleanup(end)
	return cmd, end
}

func TestProcessIsReadWhole(t *testing.T) {
	args := []string{"a b", `with "quotes"`, `back\slash\`, "日本語", ""}
	cmd, _ := startHelper(t, args...)
	w := New(Options{})
	before := time.Now()
	x, owner, session := w.Lookup(cmd.Process.Pid)
	for ; owner != nil && owner.Name == "" && time.Since(before) < time.Minute; time.Sleep(10 * time.Millisecond) { // who it is may be known later
		x, owner, session = w.Lookup(cmd.Process.Pid)
	}
	if x == nil {
		t.Fatal("it is not known")
	}
	exe, _ := os.Executable()
	if !strings.EqualFold(x.Executable, exe) || !strings.EqualFold(x.Name, filepath.Base(exe)) {
		t.Errorf("executable %q, name %q, want %q", x.Executable, x.Name, exe)
	}
	if len(x.Args) == 0 {
		t.Fatal("it has no arguments")
	}
	if got, want := x.Args[1:], append([]string{"-test.run=^TestHelper$", "--"}, args...); !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	if !strings.Contains(x.CommandLine, `"with \"quotes\""`) {
		t.Errorf("the command line is not as it was given: %q", x.CommandLine)
	}
	if got := strings.TrimSuffix(x.WorkingDirectory, `\`); !strings.EqualFold(got, cmd.Dir) {
		t.Errorf("folder %q, want %q", x.WorkingDirectory, cmd.Dir)
	}
	if x.Start.IsZero() || before.Sub(x.Start).Abs() > time.Minute {
		t.Errorf("start %v", x.Start)
	}
	if x.Parent == nil || x.Parent.PID.V != int64(os.Getpid()) || !strings.EqualFold(x.Parent.Executable, exe) || x.Parent.EntityID == "" {
		t.Errorf("parent %+v", x.Parent)
	}
	token, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	if owner == nil || owner.ID != token.User.Sid.String() || owner.Name == "" {
		t.Errorf("account %+v, want %v", owner, token.User.Sid)
	}
	var own uint32
	if err := windows.ProcessIdToSessionId(windows.GetCurrentProcessId(), &own); err != nil {
		t.Fatal(err)
	}
	if session != "1" && session != "0" && own < 2 {
		t.Errorf("session %q", session)
	}
	t.Logf("account %+v, session %q, integrity %q, elevation %q", owner, session, x.IntegrityLevel, x.Elevation)

	again := New(Options{})
	if y, _, _ := again.Lookup(cmd.Process.Pid); y == nil || y.EntityID != x.EntityID || x.EntityID == "" {
		t.Errorf("another watcher calls it %v, want %q", y, x.EntityID)
	}
}

// kernelEvent is what the kernel says of a process by our fixtures.
func kernelEvent(id uint16, version uint8, data []byte) *etw.Record {
	return &etw.Record{Provider: kernelProcess, ID: id, Version: version, Time: time.Now(), PointerSize: 8, Data: data}
}

// TestEventsOfTheKernelBecomeStartsAndEnds gives the reader what the kernel would say
// of a real process.
func TestEventsOfTheKernelBecomeStartsAndEnds(t *testing.T) {
	cmd, end := startHelper(t, "x")
	pid := cmd.Process.Pid
	w := New(Options{TellEnds: true})
	q := newQueue(100)
	n := &native{w: w, q: q, early: map[processKey]early{}, broken: make(chan error, 1)}
	created, ok := w.startTicks(pid)
	if !ok {
		t.Fatal("it has no start")
	}
	s := startFields{pid: uint32(pid), created: created, ppid: uint32(os.Getpid()), session: 1, elevation: 2, label: 12288, image: `\Device\HarddiskVolume99\gone\helper.exe`}
	n.record(kernelEvent(1, 3, s.bytes(3)))
	n.record(kernelEvent(1, 3, s.bytes(3))) // once more
	s.created++                             // an earlier process with this id, of which only the kernel knows
	gone := s
	gone.pid = 99_999_996
	n.record(kernelEvent(2, 2, stopBytes(2, gone.pid, gone.created, 5))) // its end comes first
	n.record(kernelEvent(1, 4, gone.bytes(4)))
	end()
	n.record(kernelEvent(2, 2, stopBytes(2, uint32(pid), created, 7)))

	var got []string
	for _, it := range q.take() {
		e := w.event(&it, time.Now())
		p := e.Process
		got = append(got, string(e.Action)+" "+p.Name)
		switch {
		case e.Action == event.ProcessEnded && p.PID.V == int64(pid) && p.ExitCode != event.Some[int64](7):
			t.Errorf("exit code %v", p.ExitCode)
		case p.PID.V == int64(pid) && (len(p.Args) == 0 || p.Args[len(p.Args)-1] != "x" || e.User == nil || p.Parent.EntityID == ""):
			t.Errorf("of the real one: %+v %+v %q", p, e.User, e.Errors)
		case p.PID.V != int64(pid) && (p.Executable != `\Device\HarddiskVolume99\gone\helper.exe` || p.IntegrityLevel != "high" || p.Elevation != "full" || e.SessionID != "1"):
			t.Errorf("of the one that is gone: %+v", p)
		case p.PID.V != int64(pid) && e.Action == event.ProcessStarted && len(e.Errors) == 0:
			t.Error("that it could not be read is not told")
		}
	}
	name := filepath.Base(cmd.Path)
	if want := []string{"process-started " + name, "process-started helper.exe", "process-ended helper.exe", "process-ended " + name}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(n.early) != 0 {
		t.Errorf("%d ends wait for a start", len(n.early))
	}
}

func TestEventsThatMakeNoSenseEndTheMechanism(t *testing.T) {
	w := New(Options{})
	q := newQueue(100)
	n := &native{w: w, q: q, early: map[processKey]early{}, broken: make(chan error, 1)}
	for range 3 * maxStrange {
		n.record(kernelEvent(1, 9, binary.LittleEndian.AppendUint32(nil, 3)))
	}
	select {
	case err := <-n.broken:
		t.Log(err)
	default:
		t.Error("nobody is told")
	}
	if q.tookLost() != 3*maxStrange {
		t.Error("they do not count as lost")
	}
}

// fakeSession tells what a test gives it, and ends as the test says.
type fakeSession struct {
	records chan *etw.Record
	ends    chan error
	lost    atomic.Uint64
	closed  atomic.Bool
}

func newFakeSession() *fakeSession {
	return &fakeSession{records: make(chan *etw.Record), ends: make(chan error, 1)}
}

func (s *fakeSession) Run(ctx context.Context, f func(*etw.Record)) error {
	for {
		select {
		case r := <-s.records:
			f(r)
		case err := <-s.ends:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *fakeSession) Lost() (uint64, uint64, error) { return s.lost.Load(), 0, nil }
func (s *fakeSession) Close() error                  { s.closed.Store(true); return nil }

// TestWatchByEventTracing runs the sensor on a session of the test's.
func TestWatchByEventTracing(t *testing.T) {
	s := newFakeSession()
	w := New(Options{TellEnds: true, PollEvery: 50 * time.Millisecond})
	w.sys.trace = func() (session, error) { return s, nil }
	out := make(chan *event.Event, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !s.closed.Load() {
			t.Error("the session goes on")
		}
	}()
	var before []*event.Event // that came and nobody has asked for yet: a loss and what it hid come in any order
	next := func(what string, is func(*event.Event) bool) *event.Event {
		t.Helper()
		if i := slices.IndexFunc(before, is); i >= 0 {
			e := before[i]
			before = slices.Delete(before, i, i+1)
			return e
		}
		for limit := time.After(time.Minute); ; {
			select {
			case e := <-out:
				if is(e) {
					return e
				}
				before = append(before, e)
			case <-limit:
				t.Fatalf("%s does not come", what)
			}
		}
	}
	told := func(pid int, action event.Action) func(*event.Event) bool {
		return func(e *event.Event) bool {
			return e.Action == action && e.Process != nil && e.Process.PID.V == int64(pid)
		}
	}

	cmd, end := startHelper(t, "told")
	pid := cmd.Process.Pid
	created, _ := w.startTicks(pid)
	f := startFields{pid: uint32(pid), created: created, ppid: uint32(os.Getpid()), label: 8192, image: `\Device\HarddiskVolume99\x.exe`}
	s.records <- kernelEvent(1, 4, f.bytes(4)) // taken by Run, after the first look
	if st := w.Status(); st.State != endpoint.SensorOK || st.Mechanism != mechETW {
		t.Errorf("it is %s by %s: %s", st.State, st.Mechanism, st.Reason)
	}
	if e := next("its start", told(pid, event.ProcessStarted)); !strings.HasSuffix(e.Process.CommandLine, "told") || e.Sensor != mechETW {
		t.Errorf("its start says %+v, by %s", e.Process, e.Sensor)
	}

	// Lost: counted, and what still runs is found.
	missed, endMissed := startHelper(t, "missed")
	s.lost.Store(3)
	next("the loss", func(e *event.Event) bool { return e.Action == event.EventsLost && e.Lost.Count.V == 3 })
	if e := next("what was missed", told(missed.Process.Pid, event.ProcessStarted)); e.Message != MessageRescan {
		t.Errorf("it is told as %q", e.Message)
	}
	end()
	s.records <- kernelEvent(2, 2, stopBytes(2, uint32(pid), created, 7))
	if e := next("its end", told(pid, event.ProcessEnded)); e.Process.ExitCode != event.Some[int64](7) {
		t.Errorf("exit code %v", e.Process.ExitCode)
	}

	// The session is ended by another program: polling takes over, and says why.
	s.ends <- etw.ErrStopped
	if e := next("the fall", func(e *event.Event) bool { return e.Action == event.SensorDegraded }); !strings.Contains(e.Message, etw.ErrStopped.Error()) {
		t.Errorf("it says %q", e.Message)
	}
	endMissed()
	next("the end of what was missed", told(missed.Process.Pid, event.ProcessEnded))
}

// TestWatch runs the sensor: by event tracing where there is one, else by polling
// with the reason in its status.
func TestWatch(t *testing.T) {
	w := New(Options{TellEnds: true, PollEvery: 50 * time.Millisecond})
	out := make(chan *event.Event, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var s endpoint.Sensor
	for deadline := time.Now().Add(time.Minute); s.Mechanism == "" && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		s = w.Status()
	}
	t.Logf("%s by %s: %s", s.State, s.Mechanism, s.Reason)
	if wine && (s.Mechanism != mechPolling || s.State != endpoint.SensorLimited || !strings.Contains(s.Reason, "event tracing")) {
		t.Errorf("under Wine it works by %s, is %s: %s", s.Mechanism, s.State, s.Reason)
	}
	cmd, end := startHelper(t, "watched")
	var seen []event.Action
	limit := time.After(time.Minute)
	for len(seen) < 2 {
		select {
		case e := <-out:
			if e.Process != nil && e.Process.PID.V == int64(cmd.Process.Pid) {
				seen = append(seen, e.Action)
				if e.Action != event.ProcessStarted {
					continue
				}
				if !strings.HasSuffix(e.Process.CommandLine, "watched") {
					t.Errorf("command line %q (%q)", e.Process.CommandLine, e.Errors)
				}
				end()
			}
		case <-limit:
			t.Fatalf("seen %v", seen)
		}
	}
	if seen[0] != event.ProcessStarted || seen[1] != event.ProcessEnded {
		t.Errorf("seen %v", seen)
	}
}

func TestPathsOfThisMachine(t *testing.T) {
	var r system
	r.open(newUsers())
	devices := r.drives(0)
	var device string
	for d, drive := range devices {
		if drive == "C:" {
			device = d
		}
	}
	if device == "" {
		t.Fatalf("C: is not among %v", devices)
	}
	// A drive that came after the last look.
	r.devices, r.asked = winpath.Names{}, time.Now().Add(-2*devicesRest)
	if got := r.path(device + `\Windows\explorer.exe`); got != `C:\Windows\explorer.exe` {
		t.Errorf("path is %q", got)
	}
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() == nil {
		t.Skip("Wine leaves paths that begin with \\\\?\\ as they are")
	}
	long := filepath.Join(t.TempDir(), "a name that is long", "program of ours.exe")
	if err := os.MkdirAll(filepath.Dir(long), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(long, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	from, err := windows.UTF16PtrFromString(long)
	if err != nil {
		t.Fatal(err)
	}
	var buf [1024]uint16
	n, err := windows.GetShortPathName(from, &buf[0], uint32(len(buf)))
	if err != nil || n == 0 {
		t.Fatal(err)
	}
	short := windows.UTF16ToString(buf[:n])
	if want, _ := filepath.EvalSymlinks(long); !strings.EqualFold(r.path(short), long) && !strings.EqualFold(r.path(short), want) {
		t.Errorf("%q is brought to %q, want %q", short, r.path(short), long)
	}
}

func TestCommandLineIsSplitAsWindowsDoes(t *testing.T) {
	for _, line := range commandLines {
		want, err := windows.DecomposeCommandLine(line)
		if err != nil || line == "" {
			continue // for an empty one it gives the path of the program
		}
		if got := splitCommandLine(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, Windows has %q", line, got, want)
		}
	}
}

func TestWhatAFileSaysOfItself(t *testing.T) {
	dir, err := filepath.Abs("testdata/windows")
	if err != nil {
		t.Fatal(err)
	}
	got, err := versionOf(filepath.Join(dir, "tool.exe"))
	if err != nil || got == nil || *got != toolPE {
		t.Errorf("it says %+v (%v), want %+v", got, err, toolPE)
	}
	own, _ := os.Executable() // Go puts none in
	if got, err := versionOf(own); err != nil || got != nil {
		t.Errorf("a program without a version resource says %+v (%v)", got, err)
	}
	w := New(Options{})
	im := &image{pid: 99_999_996, more: &windowsFacts{}}
	im.setExe(filepath.Join(dir, "tool.exe"))
	w.sys.look(im)
	im.more.program.wait(time.Minute)
	if e := w.event(&item{proc: &proc{image: im}, at: time.Now()}, time.Now()); e.Process.PE == nil || *e.Process.PE != toolPE || e.Process.SignatureStatus != "unsigned" || len(e.Errors) > 0 {
		t.Errorf("its start says %+v (%q)", e.Process, e.Errors)
	}
	if _, err := versionOf(filepath.Join(dir, "none.exe")); err == nil {
		t.Error("a file that is not there says something")
	}

	if s := verifySignature(filepath.Join(dir, "tool.exe")); s.exists || s.trusted || s.status != "unsigned" || !s.checked {
		t.Errorf("not signed: %+v", s)
	}
	signed := filepath.Join(dir, "tool-signed.exe")
	// Wine trusts any root, so that there the name of the signer shows.
	want := signature{exists: true, checked: true, status: "untrusted-root"}
	if wine {
		want = signature{exists: true, checked: true, trusted: true, status: "trusted", signer: "Example Works Code Signing"}
	}
	if s := verifySignature(signed); s != want {
		t.Errorf("signed by nobody: %+v, want %+v", s, want)
	}
	b, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	b[0x400] ^= 1
	changed := filepath.Join(t.TempDir(), "changed.exe")
	if err := os.WriteFile(changed, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := verifySignature(changed); !s.exists || s.trusted || s.status != "changed" {
		t.Errorf("changed: %+v", s)
	}
	if s := verifySignature(filepath.Join(dir, "none.exe")); s.checked || s.trusted {
		t.Errorf("not there: %+v", s)
	}
}
