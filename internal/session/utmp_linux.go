package session

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// maxRecords bounds what is read of a file of records at once: 10,000 records,
// more than the sessions of a terminal server in a month. Of a longer wtmp the
// end is read.
const maxRecords = 10000 * int64(wide)

// origin is what Linux knows of a session.
type origin struct {
	pids []int  // processes that the session stands and falls with; none if unknown
	tty  string // below /dev: "tty2", "pts/3"; "" if none
	utmp bool   // it was seen in utmp, and ends when it is there no more
}

// files is where the reading of utmp and wtmp stands.
type files struct {
	ended     []ended // sessions that are over, the last ones
	wtmp      tail
	hadLogind bool // worked by it before
}

// ended is a session that is over.
type ended struct {
	line  string
	login *login
}

// maxEnded is how many of those are remembered: more than end within two looks.
const maxEnded = 64

// tail is the place in wtmp up to which it is read.
type tail struct {
	file   *os.File // nil: not open
	at     int64
	layout layout
}

func (f *tail) close() {
	if f.file != nil {
		f.file.Close()
	}
	f.file = nil
}

// openRecords opens a file of records; anything that is no plain file is refused,
// as a pipe in its place would hold the sensor up.
func openRecords(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %s: not a plain file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// next returns the records that were written since the last call; the first call
// for a tail returns none. A file that was put in the place of the old one, as
// logrotate does, is read from its beginning, after the rest of the old one.
func (f *tail) next(path string) ([]record, error) {
	var records []record
	if f.file != nil {
		for {
			more, err := f.rest()
			if err != nil {
				f.close()
				*f = tail{} // from the end again: to tell old logons as new is worse than to miss some
				return records, err
			}
			if records = append(records, more...); len(more) == 0 {
				break
			}
		}
		now, err := os.Stat(path)
		if err != nil {
			return records, err // whoever writes still writes to the one we hold
		}
		if held, err := f.file.Stat(); err == nil && os.SameFile(now, held) {
			return records, nil
		}
		f.close()
	} else if f.layout == 0 { // never opened: from its end
		file, info, err := openRecords(path)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				f.layout = usualLayout() // one that comes later is read from its beginning
			}
			return nil, err
		}
		head := make([]byte, 8*wide)
		n, _ := file.ReadAt(head, 0)
		f.layout = layoutOf(head[:n], info.Size(), usualLayout())
		f.file, f.at = file, info.Size()-info.Size()%int64(f.layout)
		return nil, nil
	}
	file, _, err := openRecords(path)
	if err != nil {
		return records, err
	}
	f.file, f.at = file, 0
	more, err := f.rest()
	return append(records, more...), err
}

// rest reads whole records from the place on.
func (f *tail) rest() ([]record, error) {
	info, err := f.file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read logons: %w", err)
	}
	if info.Size() < f.at { // cut short: what is there now is new
		f.at = 0
	}
	if info.Size() == f.at {
		return nil, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f.file, f.at, min(info.Size()-f.at, maxRecords)))
	if err != nil {
		return nil, fmt.Errorf("read logons: %w", err)
	}
	if f.at == 0 {
		f.layout = layoutOf(data, int64(len(data)), f.layout)
	}
	records, left := f.layout.decodeAll(data)
	f.at += int64(len(data) - left)
	return records, nil
}

// lastRecords reads a file of records, of a long one the end.
func lastRecords(path string) ([]record, error) {
	f, info, err := openRecords(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 8*wide)
	n, _ := f.ReadAt(head, 0)
	l := layoutOf(head[:n], info.Size(), usualLayout())
	from := int64(0)
	if size := info.Size(); size > maxRecords {
		from = (size - maxRecords) / int64(l) * int64(l)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, from, maxRecords))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	records, _ := l.decodeAll(data)
	return records, nil
}

// utmp works by the records of logons until the context ends (nil, nil) or
// logind can be asked again. why says why it cannot be asked now.
func (t *tracker) utmp(why error) (*bus, error) {
	silent := t.takeOver(mechanismUtmp)
	poll, inputs, retry := time.NewTicker(t.opt.Poll), time.NewTicker(t.opt.Inputs), time.NewTicker(t.opt.Retry)
	defer poll.Stop()
	defer inputs.Stop()
	defer retry.Stop()
	var seen stamp
	var reason, proof string
	for {
		state, r := t.look(silent, &seen)
		state = t.byNature(state, why)
		if r = fmt.Sprintf("no systemd-logind (%v); %s", why, r); r != reason || state != t.Status().State {
			reason = r
			t.tellState(state, mechanismUtmp, reason)
		}
		silent = false
		if state != endpoint.SensorDown {
			t.proven(proof)
		}
		proof = ""
		select {
		case <-t.ctx.Done():
			return nil, nil
		case <-poll.C:
		case proof = <-t.proofs:
		case <-inputs.C:
			t.inputs()
		case <-retry.C:
			b, err := openLogind(t.ctx, t.opt.Bus)
			if err == nil {
				t.wtmp.close()
				t.wtmp = tail{}
				return b, nil
			}
			why = err
		}
	}
}

// stamp is what changes when a file is written to.
type stamp struct {
	size  int64
	mtime time.Time
	inode uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// look looks at both files once and says how well that went. silent: what is
// found is taken as known.
func (t *tracker) look(silent bool, seen *stamp) (endpoint.SensorState, string) {
	written, wtmpErr := t.wtmp.next(t.opt.Wtmp)
	for i := range written {
		t.apply(&written[i], silent)
	}
	info, utmpErr := os.Stat(t.opt.Utmp)
	if utmpErr == nil && stampOf(info) != *seen {
		var open []record
		if open, utmpErr = lastRecords(t.opt.Utmp); utmpErr == nil {
			*seen = stampOf(info)
			t.compare(open, silent)
		}
	}
	if utmpErr != nil && wtmpErr == nil && silent {
		// Who is there can only be had from who came and did not leave.
		if all, err := lastRecords(t.opt.Wtmp); err == nil {
			for i := range all {
				t.apply(&all[i], true)
			}
		}
	}
	for line, l := range t.known { // killed, and nobody wrote it down
		if !slices.ContainsFunc(l.pids, t.alive) {
			t.over(line, time.Time{}, silent)
		}
	}
	switch blind := "; locks of the screen and idle desktops are not seen"; {
	case utmpErr != nil && wtmpErr != nil:
		return endpoint.SensorDown, fmt.Sprintf("and no records of logons (%v; %v): nothing is seen", wtmpErr, utmpErr)
	case wtmpErr != nil:
		return endpoint.SensorDegraded, fmt.Sprintf("looked at %s every %v (%v): shorter sessions are missed%s", t.opt.Utmp, t.opt.Poll, wtmpErr, blind)
	default:
		return endpoint.SensorDegraded, fmt.Sprintf("logons are read from %s every %v%s", t.opt.Wtmp, t.opt.Poll, blind)
	}
}

// byNature makes what a system without logind cannot have no trouble of it. What
// worked once and does so no more is trouble.
func (t *tracker) byNature(state endpoint.SensorState, why error) endpoint.SensorState {
	var refused dbus.Error
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	noBus := t.opt.Bus == "" && os.Getenv("DBUS_SYSTEM_BUS_ADDRESS") == "" && !there("/run/dbus/system_bus_socket") && !there("/var/run/dbus/system_bus_socket")
	absent := noBus || errors.Is(why, fs.ErrNotExist) || errors.As(why, &refused) && refused.Name == "org.freedesktop.DBus.Error.ServiceUnknown"
	was := t.Status()
	switch {
	case t.hadLogind || !absent:
	case state == endpoint.SensorDegraded:
		return endpoint.SensorLimited
	case state == endpoint.SensorDown && (was.Mechanism == "" || was.State == endpoint.SensorUnavailable) && !there(t.opt.Utmp) && !there(t.opt.Wtmp):
		return endpoint.SensorUnavailable
	}
	return state
}

// apply takes one record of wtmp, in which they stand in the order of what
// happened.
func (t *tracker) apply(r *record, silent bool) {
	switch {
	case r.Type == recordBoot:
		for line := range t.known {
			t.over(line, r.At, silent)
		}
	case r.over():
		if l := t.known[r.Line]; l != nil && (slices.Contains(l.pids, r.PID) || !r.At.Before(l.began)) {
			t.over(r.Line, r.At, silent)
		}
	case r.logon():
		t.enter(r, silent)
	}
}

// compare takes the sessions that utmp has open.
func (t *tracker) compare(records []record, silent bool) {
	there := map[string]bool{}
	for i := range records {
		if r := &records[i]; r.logon() && t.alive(r.PID) {
			there[r.Line] = true
			t.enter(r, silent)
			if l := t.known[r.Line]; l != nil {
				l.utmp = true
			}
		}
	}
	for line, l := range t.known {
		if l.utmp && !there[line] {
			t.over(line, time.Time{}, silent)
		}
	}
}

// alike is how far apart the two records of one logon may be: login(1) writes
// the one before and the other after it forks, some milliseconds later and with
// another process.
const alike = time.Second

// same reports whether a record is that of a session, which the other file told.
func same(l *login, r *record) bool {
	return l.user.Name == event.Account(r.User).Name && (slices.Contains(l.pids, r.PID) || l.began.Sub(r.At).Abs() < alike)
}

// enter tells of a logon unless it is known, or known to be over: both files
// tell of it. In this mechanism sessions go by their lines, as a line has one at
// a time.
func (t *tracker) enter(r *record, silent bool) {
	if l := t.known[r.Line]; l != nil {
		switch {
		case same(l, r):
			if !slices.Contains(l.pids, r.PID) && len(l.pids) < 2 {
				l.pids = append(l.pids, r.PID)
			}
			return
		case r.At.Before(l.began):
			return
		}
		t.over(r.Line, r.At, silent)
	}
	for _, e := range t.ended {
		if e.line == r.Line && same(e.login, r) {
			return
		}
	}
	l := &login{kind: Console, began: r.At, origin: origin{pids: []int{r.PID}}, graphical: r.graphical(), active: true}
	if r.remote() {
		l.kind, l.from = Remote, r.source()
	}
	if terminal(r.Line) {
		l.tty = r.Line
	}
	proc := filepath.Join(t.opt.Proc, strconv.Itoa(r.PID))
	number := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(proc, name))
		return auditNumber(string(b))
	}
	if l.id = number("sessionid"); l.id == "" {
		l.id = strings.Map(idRune, r.Line) + "-" + strconv.Itoa(r.PID)
	}
	l.user = event.Account(r.User)
	l.user.ID = number("loginuid")
	if l.user.ID == "" {
		l.user.ID = system.id(r.User)
	}
	t.begin(r.Line, l, silent)
}

// idRune keeps of a line what an id may have.
func idRune(c rune) rune {
	if c > ' ' && c < 0x7f {
		return c
	}
	return -1
}

// over tells of an end, and remembers the session for a while: a record of its
// beginning may still come from the other file.
func (t *tracker) over(line string, at time.Time, silent bool) {
	l := t.known[line]
	if l == nil {
		return
	}
	if len(t.ended) == maxEnded {
		t.ended = slices.Delete(t.ended, 0, 1)
	}
	t.ended = append(t.ended, ended{line, l})
	if silent {
		t.forget(line)
		return
	}
	t.end(line, at)
}

func (t *tracker) alive(pid int) bool {
	if pid <= 0 {
		return true // not said: nothing can be concluded
	}
	_, err := os.Lstat(filepath.Join(t.opt.Proc, strconv.Itoa(pid)))
	return !errors.Is(err, fs.ErrNotExist)
}

// inputs looks at when terminals were last read from.
func (t *tracker) inputs() {
	for _, l := range t.known {
		if l.graphical || l.tty == "" {
			continue
		}
		info, err := os.Stat(filepath.Join(t.opt.Dev, l.tty))
		if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			t.read(l, time.Unix(st.Atim.Unix()))
		}
	}
}

// terminal reports whether a line is the name of a terminal below /dev: "tty2",
// "pts/3", "ttyS0".
func terminal(line string) bool {
	name, pts := strings.CutPrefix(line, "pts/")
	if !pts && !strings.HasPrefix(line, "tty") {
		return false
	}
	return sessionID(name)
}

const (
	// accountTime is how long the system may take to find an account: it may ask a
	// directory server that is away.
	accountTime = 2 * time.Second
	// maxAsking bounds the questions under way: each takes a thread, and may hang for
	// minutes.
	maxAsking = 4
)

// accounts finds accounts.
type accounts struct {
	lookup func(name string) (id string, _ error)
	asking chan struct{} // a token for each question under way
}

// system is who knows of the accounts of this PC. What it was asked and does not
// answer outlives a Watcher.
var system = accounts{asking: make(chan struct{}, maxAsking), lookup: func(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.Uid, nil
}}

// id is the number of an account by its name, "" if that is not known.
func (a *accounts) id(name string) string {
	select {
	case a.asking <- struct{}{}:
	default:
		return "" // nobody answers
	}
	found := make(chan string, 1)
	go func() { // not waited for beyond its time
		id, err := a.lookup(name)
		if err != nil {
			id = ""
		}
		<-a.asking
		found <- id
	}()
	select {
	case id := <-found:
		return id
	case <-time.After(accountTime):
		return ""
	}
}
