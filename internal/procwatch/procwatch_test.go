package procwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// netlink makes a datagram with one message of the connector.
func netlink(what uint32, data ...uint32) []byte {
	ne := binary.NativeEndian
	b := make([]byte, nlHeader+cnHeader+cnDataOffset+4*len(data))
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], nlDone)
	cn := b[nlHeader:]
	ne.PutUint32(cn, cnIdxProc)
	ne.PutUint32(cn[4:], cnValProc)
	ne.PutUint16(cn[16:], uint16(len(b)-nlHeader-cnHeader))
	ev := cn[cnHeader:]
	ne.PutUint32(ev, what)
	ne.PutUint64(ev[8:], 12345)
	for i, d := range data {
		ne.PutUint32(ev[cnDataOffset+4*i:], d)
	}
	return b
}

func TestConnectorMessages(t *testing.T) {
	b := slices.Concat(
		netlink(cnFork, 10, 10, 20, 20),
		netlink(cnExec, 20, 20),
		netlink(cnUID, 20, 20, 1000, 1001),
		netlink(cnExit, 21, 20, 3<<8, 17, 10, 10),
		netlink(cnNone, 1),
		netlink(0x200, 20, 20), // a change of name: of no use
	)
	var got []procMessage
	if err := parseConnector(b, func(m procMessage) { got = append(got, m) }); err != nil {
		t.Fatal(err)
	}
	want := []procMessage{
		{what: cnFork, at: 12345, parent: 10, tid: 20, pid: 20},
		{what: cnExec, at: 12345, tid: 20, pid: 20},
		{what: cnUID, at: 12345, tid: 20, pid: 20, uid: 1000, euid: 1001},
		{what: cnExit, at: 12345, tid: 21, pid: 20, status: 3 << 8},
		{what: cnNone, at: 12345, errno: 1},
		{what: 0x200, at: 12345},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for i := 1; i < len(b); i++ {
		_ = parseConnector(b[:i], func(procMessage) {}) // cut anywhere: no panic
	}
	if err := parseConnector(netlink(cnFork, 1, 2), func(procMessage) {}); err == nil {
		t.Error("a fork without a child passes")
	}
}

func FuzzConnectorMessages(f *testing.F) {
	f.Add(netlink(cnFork, 10, 10, 20, 20))
	f.Add(slices.Concat(netlink(cnExec, 20, 20), netlink(cnExit, 20, 20, 9, 17, 10, 10)))
	f.Add(netlink(cnNone, 0)[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_ = parseConnector(b, func(procMessage) { n++ })
		if n > len(b)/(nlHeader+cnHeader) {
			t.Errorf("%d messages in %d bytes", n, len(b))
		}
	})
}

func TestExitCodes(t *testing.T) {
	for status, want := range map[uint32]int{0: 0, 3 << 8: 3, 255 << 8: 255, 9: 137, 0x80 | 11: 139} {
		if got := exitCode(status); got != want {
			t.Errorf("%#x: %d, want %d", status, got, want)
		}
	}
}

const statLine = "4711 (bad) R 1 (\nname) S 1 4711 4711 34816 4711 4194304 1009 0 0 0 1 2 0 0 20 0 1 0 887321 5120000 900 18446744073709551615 1 1\n"

func TestStat(t *testing.T) {
	s, ok := parseStat([]byte(statLine))
	if want := (stat{comm: "bad) R 1 (\nname", state: 'S', ppid: 1, flags: 4194304, ticks: 887321}); !ok || s != want {
		t.Errorf("got %+v %v, want %+v", s, ok, want)
	}
	for _, bad := range []string{"", "1", "1 (", "1 (x", "1 (x)", "1 (x) S", "1 (x) S -1 2", ")(", strings.Repeat(") ", 30)} {
		if s, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q gives %+v", bad, s)
		}
	}
}

func TestUIDAndSession(t *testing.T) {
	if uid, euid, ok := parseUIDs([]byte("Name:\tUid:\t7\nUmask:\t0022\nUid:\t1000\t33\t0\t0\nGid:\t5\n")); !ok || uid != 1000 || euid != 33 {
		t.Errorf("uids %d %d %v", uid, euid, ok)
	}
	for _, bad := range []string{"", "Name:\tx\nUid:\tx\t0\n", "\nUid:\t1000\n", "\nUid:\t1000\tx\n"} {
		if _, _, ok := parseUIDs([]byte(bad)); ok {
			t.Errorf("%q passes", bad)
		}
	}
	for in, want := range map[string]string{"4294967295": "", "3\n": "3", "": "", "-1": "", "x": ""} {
		if got := auditID(parseAudit([]byte(in))); got != want {
			t.Errorf("session %q: %q, want %q", in, got, want)
		}
	}
}

func TestMounts(t *testing.T) {
	got := parseMounts([]byte("36 35 98:0 /mnt1 /mnt\\040a\\134 rw,noatime master:1 - ext3 /dev/root rw\nnonsense\n1 2 0:5 / / rw - tmpfs x rw\n"))
	if want := []mount{{"98:0", `/mnt a\`, "ext3"}, {"0:5", "/", "tmpfs"}}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzProcFiles(f *testing.F) {
	f.Add([]byte(statLine))
	f.Add([]byte("Uid:\t1000\t0\n"))
	f.Add([]byte("36 35 98:0 /mnt1 /mnt2\\040 rw - ext3 /dev/root rw"))
	f.Add([]byte("/bin/sh\x00-c\x00x\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); ok && s.ppid < 0 {
			t.Errorf("stat %+v", s)
		}
		_, _, _ = parseUIDs(b)
		_ = parseAudit(b)
		_ = parseMounts(b)
		if args, _ := splitArgs(string(b)); len(args) > maxArgs {
			t.Errorf("%d arguments", len(args))
		} else {
			_ = runsScript(args)
		}
		_ = parseOpens(b, func(uint64, int, int) {})
	})
}

func TestProgramsOfExecutions(t *testing.T) {
	elf := func(p string) opened { return opened{p, kindOf([]byte("\x7fELF"), p)} }
	text := func(p string) opened { return opened{p, kindOf([]byte("#!/b"), p)} }
	ld := elf("/lib/ld-linux-x86-64.so.2")
	tests := []struct {
		name string
		in   []opened
		left []int // of each execution: how many more are known
		want string
	}{
		{"dynamic", []opened{elf("/bin/true"), ld}, []int{0}, "/bin/true"},
		{"static", []opened{elf("/bin/busybox")}, []int{0}, "/bin/busybox"},
		{"script", []opened{text("/x.sh"), elf("/bin/sh"), ld}, []int{0}, "/bin/sh"},
		{"script of a script", []opened{text("/y"), text("/x.sh"), elf("/bin/sh"), ld}, []int{0}, "/bin/sh"},
		{"one after the other", []opened{elf("/bin/env"), ld, text("/x.sh"), elf("/bin/sh"), ld, elf("/bin/sleep")}, []int{2, 1, 0}, "/bin/env /bin/sh /bin/sleep"},
		{"the second is not known yet", []opened{elf("/bin/env"), ld, elf("/bin/sleep"), ld}, []int{0, 0}, "/bin/env /bin/sleep"},
		{"twice the same, told once", []opened{elf("/bin/env"), ld, elf("/bin/sleep")}, []int{2, 1, 0}, "/bin/env /bin/env /bin/sleep"},
		{"the loader itself", []opened{ld}, []int{0}, "/lib/ld-linux-x86-64.so.2"},
		{"a text that could not be executed", []opened{text("/readme"), elf("/bin/sh"), ld}, []int{0}, "/bin/sh"},
		{"nothing", nil, []int{0}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := opens{}
			for _, x := range tt.in {
				o.add(7, x)
			}
			var got []string
			for _, left := range tt.left {
				exe, more := o.next(7, left)
				if left > 0 && !more {
					t.Error("no more is said to follow")
				}
				got = append(got, exe)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if len(o) != 0 {
				t.Errorf("left over: %v", o)
			}
		})
	}
	o := opens{}
	for pid := range 3 * maxOpensPids {
		o.add(pid, text("/x"))
		for range 2 * maxOpens {
			o.add(0, text("/x"))
		}
	}
	if len(o) > maxOpensPids || len(o[0]) > maxOpens {
		t.Errorf("%d processes, %d openings of one are kept", len(o), len(o[0]))
	}
}

func TestStartedBy(t *testing.T) {
	chain := func(lines ...string) string {
		by := ""
		for i, l := range lines { // the oldest first
			p := &proc{image: &image{exe: strings.Fields(l)[0], args: strings.Fields(l)}, ppid: i, startedBy: by}
			by = startedBy(p)
		}
		return by
	}
	tests := []struct {
		chain []string
		want  string
	}{
		{[]string{"/usr/lib/systemd/systemd", "/usr/sbin/cron -f"}, event.ByScheduler},
		{[]string{"/usr/lib/systemd/systemd", "/usr/sbin/anything"}, event.ByService},
		{[]string{"/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd --user", "/usr/bin/unknown"}, event.ByOther},
		{[]string{"/usr/lib/systemd/systemd", "/usr/bin/bash"}, event.ByShell},
		{[]string{"/usr/lib/systemd/systemd", "/usr/bin/bash", "/usr/bin/firefox"}, event.ByBrowser},
		{[]string{"/sbin/init", "/opt/google/chrome/chrome", "/bin/sh -c xdg-open x", "/usr/bin/xdg-open x"}, event.ByBrowser},
		{[]string{"/sbin/init", "/usr/bin/thunderbird", "/bin/sh /usr/bin/xdg-open x"}, event.ByMail},
		{[]string{"/sbin/init", "/usr/bin/firefox", "/bin/bash -l"}, event.ByShell},
		{[]string{"/sbin/init", "/usr/bin/firefox", "/bin/bash -lc x"}, event.ByBrowser},
		{[]string{`C:\Windows\System32\services.exe`, `C:\Windows\explorer.exe`, `C:\Program Files\Google\Chrome\Application\chrome.exe`}, event.ByBrowser},
		{[]string{`C:\Windows\explorer.exe`, `C:\Windows\System32\cmd.exe /k`}, event.ByShell},
		{[]string{`C:\Windows\explorer.exe`, `C:\Windows\System32\cmd.exe /d /c x.bat`}, event.ByOther},
		{[]string{`C:\Windows\explorer.exe`, `C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe -ExecutionPolicy Bypass -File x.ps1`}, event.ByOther},
		{[]string{`C:\Windows\System32\services.exe`, `C:\Windows\System32\svchost.exe -k netsvcs -p -s Schedule`}, event.ByScheduler},
		{[]string{`C:\Windows\System32\services.exe`, `C:\Windows\System32\svchost.exe -k netsvcs -p -s Winmgmt`}, event.ByService},
		{[]string{`C:\Windows\System32\services.exe`, `C:\Windows\System32\svchost.exe -k DcomLaunch -p`}, event.ByOther},
		{[]string{"/entrypoint"}, event.ByOther},
	}
	for _, tt := range tests {
		// The path of a program may hold blanks; the first word is enough to tell it.
		in := slices.Clone(tt.chain)
		for i := range in {
			in[i] = strings.ReplaceAll(in[i], "Program Files", "ProgramFiles")
		}
		if got := chain(in...); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.chain, got, tt.want)
		}
	}
}

func TestTrackerRemembersTheDeadAndItsBounds(t *testing.T) {
	tr := newTracker()
	now := time.Now()
	tr.put(&proc{image: &image{pid: 10, exe: "/bin/sh", entity: "e10", uid: 5, who: 5, uidOK: true}, session: "3", startedBy: event.ByShell})
	tr.fork(10, 11, 5, 0, now)
	tr.exit(10, now)
	p := tr.get(11)
	if p == nil || p.parent.exe != "/bin/sh" || p.ppid != 10 || p.session != "3" || p.image.uid != 5 || p.image.entity != "" {
		t.Errorf("child of the dead %+v", p)
	}
	if p := tr.lookup(10, now.Add(10*time.Second)); p == nil || p.image.entity != "e10" {
		t.Errorf("the dead is not known: %+v", p)
	}
	if tr.lookup(10, now.Add(2*deadFor)) != nil {
		t.Error("the dead is known for too long")
	}
	tr.setUser(11, 6, 7, 9)
	if im := tr.get(11).image; im.uid != 7 || im.who != 5 || p.image.uid != 5 {
		t.Error("a change of user is not noted, or in what was handed out")
	}
	// The id comes round.
	tr.fork(1, 10, 6, 0, now)
	if p := tr.lookup(10, now); p == nil || p.image.exe != "" {
		t.Errorf("pid reuse: %+v", p)
	}
	for i := range 2 * maxLive {
		tr.put(&proc{image: &image{pid: i}, told: i >= maxLive/2})
	}
	// Of those that made room, up to half a table had never been told.
	if n := tr.tookForgotten(); n < maxLive/2 || n > maxLive || tr.tookForgotten() != 0 {
		t.Errorf("%d are counted as forgotten", n)
	}
	for i := range 2 * maxLive {
		tr.exit(i, now)
	}
	if len(tr.live) != 0 || len(tr.dead) != maxDead || len(tr.died) != maxDead {
		t.Errorf("%d live, %d dead, %d in order", len(tr.live), len(tr.dead), len(tr.died))
	}
	tr.put(&proc{image: &image{pid: 1}})
	tr.put(&proc{image: &image{pid: 2}})
	tr.exit(1, now.Add(deadFor/2))
	tr.exit(2, now.Add(deadFor))
	if len(tr.dead) != 2 || len(tr.died) != 2 {
		t.Errorf("%d dead, %d in order are left of a flood a minute ago, want those that ended since", len(tr.dead), len(tr.died))
	}
}

func TestUsersThatAnswerLateAreNamedLater(t *testing.T) {
	u := newUsers()
	u.passwd = t.TempDir() + "/passwd"
	release := make(chan struct{})
	asked := 0
	u.lookup = func(id string) (string, error) {
		asked++
		if id == "5" {
			<-release
		}
		if id == "7" {
			return `EXAMPLE\name7`, nil // winbind
		}
		return "name" + id, nil
	}
	name := func(uid uint32) string {
		of := u.of(uid, time.Now())
		if of.ID != strconv.Itoa(int(uid)) || of.Domain != "" && of.Domain != "EXAMPLE" {
			t.Errorf("user %d is %+v", uid, of)
		}
		return of.Name
	}
	if got := name(1); got != "name1" {
		t.Errorf("got %q", got)
	}
	if got := u.of(7, time.Now()); got != (event.User{ID: "7", Name: "name7", Domain: "EXAMPLE"}) {
		t.Errorf("got %+v", got)
	}
	if got := name(5); got != "" {
		t.Errorf("got %q before the answer", got)
	}
	began := time.Now()
	for range 100 {
		name(5)
	}
	t.Logf("100 events waited %v for one slow answer, of %v each at most", time.Since(began), userWait)
	close(release)
	for deadline := time.Now().Add(time.Minute); name(5) != "name5"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the name does not come")
		}
	}
	if asked != 3 {
		t.Errorf("asked %d times", asked)
	}
	// It is asked for again, and the server is slow, or away: what was known stands.
	later := time.Now().Add(2 * userFor)
	wait, answer := make(chan struct{}), error(nil)
	u.lookup = func(id string) (string, error) {
		if <-wait; answer != nil {
			return "", answer
		}
		return "new" + id, nil
	}
	for _, tt := range []struct {
		answer      error
		first, then string
	}{{errors.New("no server"), "name5", "name5"}, {nil, "name5", "new5"}, {user.UnknownUserIdError(5), "new5", ""}} {
		answer = tt.answer
		if got := u.of(5, later); got.Name != tt.first || got.ID != "5" {
			t.Errorf("%v: %+v before the answer", answer, got)
		}
		wait <- struct{}{}
		<-u.names[5].ready
		if got := u.of(5, later); got.ID != "5" || got.Name != tt.then {
			t.Errorf("%v: %+v after the answer, want %q", answer, got, tt.then)
		}
		later = later.Add(2 * userFor)
	}
	u.lookup = func(id string) (string, error) { asked++; return "name" + id, nil }
	if err := os.WriteFile(u.passwd, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	u.checked = time.Time{}
	if name(1); asked != 4 {
		t.Errorf("a changed passwd is not read again")
	}
}

// The directory server hangs, and so do those who ask it: each takes a thread, of
// which a service may have 128. Many people work here, or one with many ids.
func TestADirectoryThatHangsHoldsUpLittle(t *testing.T) {
	u := newUsers()
	u.passwd = t.TempDir() + "/passwd"
	release := make(chan struct{})
	var asking, most atomic.Int32
	u.lookup = func(id string) (string, error) {
		for n := asking.Add(1); n > most.Load(); {
			most.Store(n)
		}
		defer asking.Add(-1)
		<-release
		return "name" + id, nil
	}
	began := time.Now()
	for uid := range uint32(20) {
		for range tellBatch { // all of one batch, which has one time
			if of := u.of(uid, began); of.ID != strconv.Itoa(int(uid)) || of.Name != "" {
				t.Fatalf("user %d is %+v before the answer", uid, of)
			}
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%d events of 20 people waited %v", 20*tellBatch, took)
	}
	if n := most.Load(); n > maxAsking {
		t.Errorf("%d ask at once", n)
	}
	close(release)
	for uid := range uint32(20) {
		for deadline := time.Now().Add(time.Minute); u.of(uid, time.Now()).Name == ""; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the name of %d does not come", uid)
			}
		}
	}
}

// helper is this test's own program as a process that lives for a while.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "procwatch-helper" {
		d, _ := time.ParseDuration(os.Args[2])
		time.Sleep(d)
		os.Exit(4)
	}
	os.Exit(m.Run())
}

func TestPollingTellsWhatLivesLongEnough(t *testing.T) {
	w := New(Options{PollOnly: true, PollEvery: 50 * time.Millisecond, TellEnds: true})
	out := make(chan *event.Event, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, out) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	wait := func(what string, ok func(*event.Event) bool) *event.Event {
		t.Helper()
		timeout := time.After(time.Minute)
		for {
			select {
			case e := <-out:
				if ok(e) {
					return e
				}
			case <-timeout:
				t.Fatalf("no %s", what)
			}
		}
	}
	e := wait("word that it is degraded", func(e *event.Event) bool { return e.Action == event.SensorDegraded })
	if s := w.Status(); s.State != endpoint.SensorDegraded || s.Mechanism != "polling" || !strings.Contains(s.Reason, "can be missed") || !strings.Contains(e.Message, s.Reason) {
		t.Errorf("status %+v, message %q", s, e.Message)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "procwatch-helper", "1h", "犬 & co")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	go func() { _ = cmd.Wait() }()
	mine := func(a event.Action) func(*event.Event) bool {
		return func(e *event.Event) bool { return e.Action == a && e.Process.PID.V == int64(cmd.Process.Pid) }
	}
	e = wait("start", mine(event.ProcessStarted))
	// Between fork and exec the child is still our image.
	if len(e.Process.Args) == 4 && e.Process.Args[3] != "犬 & co" || e.Process.Executable != self || e.Process.Parent == nil || e.Process.Parent.PID.V != int64(os.Getpid()) {
		t.Errorf("process %+v", e.Process)
	}
	if e.Sensor != "polling" || e.User == nil || e.Process.EntityID == "" {
		t.Errorf("event %+v", e)
	}
	_ = cmd.Process.Kill()
	end := wait("end", mine(event.ProcessEnded))
	if end.Process.EntityID != e.Process.EntityID || end.Process.ExitCode.OK {
		t.Errorf("end %+v", end.Process)
	}
}

func TestWhatRunsAtStartIsToldOnRequest(t *testing.T) {
	w := New(Options{PollOnly: true, TellRunning: true})
	out := make(chan *event.Event, 1<<14)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() { _ = w.Run(ctx, out) }()
	for {
		select {
		case e := <-out:
			if e.Action == event.ProcessStarted && e.Process.PID.V == int64(os.Getpid()) {
				if e.Message != MessageRunning {
					t.Errorf("message %q", e.Message)
				}
				return
			}
		case <-ctx.Done():
			t.Fatal("we are not told")
		}
	}
}

// The pipeline stands still: what does not fit is counted and told, the rest arrives in order.
func TestAStallIsCounted(t *testing.T) {
	w := New(Options{PollOnly: true})
	q := newQueue(100)
	out := make(chan *event.Event)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i := range 250 {
		q.push(item{proc: &proc{image: &image{pid: i, entity: "x"}}, at: time.Now()})
	}
	go w.tell(ctx, q, out)
	for i := range 100 {
		if e := <-out; e.Process.PID.V != int64(i) {
			t.Fatalf("%d comes as number %d", e.Process.PID.V, i)
		}
	}
	e := <-out
	if e.Action != event.EventsLost || e.Lost.Count.V != 150 || w.Status().Lost != 150 {
		t.Errorf("got %s %+v, status %+v", e.Action, e.Lost, w.Status())
	}
	q.push(item{proc: &proc{image: &image{pid: 999, entity: "x"}}, at: time.Now()})
	if e := <-out; e.Process.PID.V != 999 {
		t.Errorf("after the stall comes %+v", e)
	}
	// Long arguments fill it by their bytes.
	for range maxQueuedBytes/maxBytes + 10 {
		q.push(item{proc: &proc{image: &image{pid: 1}}, raw: strings.Repeat("x", maxBytes)})
	}
	if q.bytes > maxQueuedBytes {
		t.Errorf("%d bytes wait", q.bytes)
	}
}

// The agent is stopped while the pipeline is busy and a loss is being told.
func TestALossIsToldAtTheEnd(t *testing.T) {
	w, q, out := New(Options{}), newQueue(10), make(chan *event.Event)
	q.lose(5)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.tell(ctx, q, out) }()
	for deadline := time.Now().Add(time.Minute); q.lost() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	time.Sleep(50 * time.Millisecond) // it gives up to wait
	select {
	case e := <-out:
		if e.Lost == nil || e.Lost.Count.V != 5 || w.Status().Lost != 5 {
			t.Errorf("told %+v, status %d", e.Lost, w.Status().Lost)
		}
	case <-done:
		t.Errorf("a loss of %d was not told", w.Status().Lost)
	}
	<-done
}

func TestStatusIsSafeWhileRunning(t *testing.T) {
	w := New(Options{PollOnly: true, PollEvery: time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	out := make(chan *event.Event, 1<<14)
	go func() {
		for ctx.Err() == nil {
			_ = w.Status()
			_, _, _ = w.Lookup(os.Getpid())
			runtime.Gosched()
		}
	}()
	if err := w.Run(ctx, out); err != nil {
		t.Error(err)
	}
	if p, _, _ := w.Lookup(os.Getpid()); p == nil || p.Executable == "" {
		t.Errorf("we ourselves are %+v", p)
	}
	if p, u, _ := w.Lookup(1 << 30); p != nil || u != nil {
		t.Errorf("nobody is %+v", p)
	}
}

func BenchmarkConnectorMessage(b *testing.B) {
	m := netlink(cnExec, 20, 20)
	b.ReportAllocs()
	for b.Loop() {
		_ = parseConnector(m, func(procMessage) {})
	}
}

func BenchmarkStat(b *testing.B) {
	line := []byte(statLine)
	b.ReportAllocs()
	for b.Loop() {
		parseStat(line)
	}
}

func BenchmarkEvent(b *testing.B) {
	w := New(Options{})
	im := &image{pid: 5, entity: "e", exe: "/bin/true", name: "true", uidOK: true}
	im.setArgs("/bin/true\x00x\x00")
	it := &item{proc: &proc{image: im, ppid: 4, parent: im}, at: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		w.Recycle(w.event(it, it.at))
	}
}

func BenchmarkReadProcess(b *testing.B) {
	w := New(Options{})
	pid := os.Getpid()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := w.readProcess(pid); !ok {
			b.Fatal(fmt.Sprint("cannot read ", pid))
		}
	}
}

func TestAPanicIsTheSensorsError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the panic provoked here is in the names of user ids, which Windows has not")
	}
	w := New(Options{PollOnly: true, TellRunning: true})
	w.users = nil
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := w.Run(ctx, make(chan *event.Event, 1<<14))
	if err == nil || !strings.Contains(err.Error(), "panic: ") || w.Status().State != endpoint.SensorDown {
		t.Errorf("err %v, status %+v", err, w.Status())
	}
}

// Programs with arguments up to what is kept: the dead must not outweigh the agent,
// and nobody's living processes either.
func TestWhatIsKeptOfArgumentsIsLittle(t *testing.T) {
	for name, raw := range map[string]string{"many short": strings.Repeat("a\x00", maxKept), "one long": strings.Repeat("a", 2*maxKept) + "\x00"} {
		t.Run(name, func(t *testing.T) {
			used := func() uint64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			tr := newTracker()
			before := used()
			for pid := range 12_000 {
				im := &image{pid: pid}
				im.setArgs(strings.Clone(raw[:maxKept]))
				tr.put(&proc{image: im})
				if pid%2 == 0 {
					tr.exit(pid, time.Now())
				}
			}
			after := used()
			runtime.KeepAlive(tr)
			mb := (after - before) >> 20
			t.Logf("%d living and %d dead: %d MB", len(tr.live), len(tr.dead), mb)
			if mb > 40 || len(tr.live) != 6000 {
				t.Errorf("%d living and %d dead take %d MB", len(tr.live), len(tr.dead), mb)
			}
			for pid := range 12_000 {
				tr.exit(pid, time.Now().Add(deadFor))
			}
			if last := tr.dead[11_999]; len(last.image.args) == 0 || tr.liveBytes != 0 || tr.deadBytes > maxDeadBytes {
				t.Errorf("%d bytes of the living are left, %d of the dead, the last with %d arguments", tr.liveBytes, tr.deadBytes, len(last.image.args))
			}
			for pid := range 12_000 {
				tr.dropDead(pid)
			}
			if tr.deadBytes != 0 {
				t.Errorf("%d bytes of no dead", tr.deadBytes)
			}
		})
	}
}
