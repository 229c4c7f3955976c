package procwatch

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"sekisho/internal/event"
)

// Bounds of what is remembered of processes.
const (
	maxLive  = 1 << 16     // processes alive; a desktop has a few hundred. Beyond it any one is forgotten, and counted
	maxDead  = 4096        // processes that have ended and may still be asked for
	deadFor  = time.Minute // how long they may be: file events of a short cp arrive after its end
	maxKept  = 4 << 10     // bytes of arguments kept for parents and look-ups
	keptArgs = 256         // how many of them: each takes 16 bytes besides its own, and a user chooses both
	maxArgs  = 4096        // arguments in an event
	maxBytes = 64 << 10    // bytes of arguments in an event

	// What the arguments of all may take, in bytes: those of the dead, and those of the
	// living, of whom what comes beyond that keeps shortArgs and shortKept only. A
	// terminal server with 200 browsers has 14 MB.
	maxDeadBytes = 8 << 20
	maxLiveBytes = 16 << 20
	shortArgs    = 16
	shortKept    = 256
)

// image is a program that a process runs. It is never changed once made, so
// that parents and events can point to it.
type image struct {
	pid       int
	entity    string // "" while unknown: the process was forked and not looked at yet
	ticks     uint64 // start in clock ticks since boot; Windows: 100 ns since 1601; other systems: milliseconds since 1970
	started   time.Time
	exe       string   // "" if unknown
	name      string   // last element of exe, else what the kernel calls it (15 bytes)
	args      []string // at most maxKept bytes, and keptArgs of them; shared by events
	line      string   // the same as a command line
	cut       bool     // there are more arguments than those
	cwd       string
	uid       uint32        // whose rights it has: the effective user
	who       uint32        // whose doing it is, see setOwner
	login     bool          // who is from a login
	uidOK     bool          // the three above are known
	container string        // id of the container it runs in, "" if none
	account   string        // `DOMAIN\user` where there are no uids
	more      *windowsFacts // nil on other systems
}

// windowsFacts is what only Windows knows of a process.
type windowsFacts struct {
	integrity, elevation string   // as in events
	program              *program // what its file says of itself; nil if that is not known
}

// weight is roughly how many bytes the arguments take; 0 of nil.
func (im *image) weight() int {
	if im == nil {
		return 0
	}
	return 2*len(im.line) + 16*len(im.args)
}

// short is the image with the first of its arguments only; nil if im is.
func (im *image) short() *image {
	if im == nil || len(im.line) <= shortKept && len(im.args) <= shortArgs {
		return im
	}
	n := *im
	n.cut, n.line, n.args = true, strings.Clone(im.line[:min(len(im.line), shortKept)]), nil
	left := shortKept
	for _, a := range im.args[:min(len(im.args), shortArgs)] {
		a = a[:min(len(a), left)]
		n.args = append(n.args, strings.Clone(a))
		left -= len(a)
	}
	return &n
}

// setOwner sets whose rights a process has and whose doing it is: the account of
// the login that led to it, which su and sudo do not change. Where the kernel knows
// of no login, it is the first account on the way from init that was not root:
// before is what the process ran before, or its parent.
func (im *image) setOwner(login, realUser, effective uint32, before *image) {
	im.uid, im.who, im.login, im.uidOK = effective, realUser, false, true
	switch {
	case login != noID:
		im.who, im.login = login, true
	case before != nil && before.uidOK && (before.login || before.who != 0):
		im.who, im.login = before.who, before.login
	}
}

// noID is what the kernel calls the account and the session of what no login led to.
const noID = 0xffffffff

// proc is a process and where it came from. It is replaced, never changed.
type proc struct {
	image     *image
	ppid      int
	parent    *image // as it was when it started this one; nil if unknown
	startedBy string // "" if not known
	session   string // login session, "" if none
	told      bool   // its start was told
	bears     string // what its children are started by; once hasBorne
	hasBorne  bool
	since     uint64 // monotonic ns when the image was read; 0 if the kernel told it
	execAt    uint64 // monotonic ns when the image was executed; 0 if not known
}

// weight is that of all that p keeps: its parent may be gone.
func (p *proc) weight() int { return p.image.weight() + p.parent.weight() }

// death is a process that has ended, and when.
type death struct {
	*proc
	at time.Time
}

// dying is that a process id ended at a time.
type dying struct {
	pid int
	at  time.Time
}

// tracker remembers the processes, so that a parent that is gone is still
// known. Safe for concurrent use.
type tracker struct {
	mu   sync.Mutex // guards all below
	live map[int]*proc
	dead map[int]death
	died []dying // what is in dead, in the order of dying
	// What the arguments of both take.
	liveBytes, deadBytes int
	// forgotten counts the living processes that were told and had to make room
	// for others: their ends will not be told.
	forgotten uint64
}

func newTracker() *tracker {
	return &tracker{live: map[int]*proc{}, dead: map[int]death{}}
}

// get returns the living process of this id.
func (t *tracker) get(pid int) *proc {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[pid]
}

// lookup returns a living process, or one that ended less than deadFor ago.
func (t *tracker) lookup(pid int, now time.Time) *proc {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.live[pid]; p != nil {
		return p
	}
	if d, ok := t.dead[pid]; ok && now.Sub(d.at) < deadFor {
		return d.proc
	}
	return nil
}

// put sets what is known of a process.
func (t *tracker) put(p *proc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(p)
}

// set is put; t.mu is held.
func (t *tracker) set(p *proc) {
	pid := p.image.pid
	if _, known := t.live[pid]; !known && len(t.live) >= maxLive {
		for other, q := range t.live {
			if q.told {
				t.forgotten++
			}
			t.dropLive(other)
			break
		}
	}
	t.dropLive(pid)
	t.dropDead(pid)
	if t.liveBytes+p.weight() > maxLiveBytes {
		q := *p
		q.image, q.parent = p.image.short(), p.parent.short()
		p = &q
	}
	t.liveBytes += p.weight()
	t.live[pid] = p
}

// dropLive takes a process from the living, if it is one; t.mu is held.
func (t *tracker) dropLive(pid int) {
	if p := t.live[pid]; p != nil {
		t.liveBytes -= p.weight()
		delete(t.live, pid)
	}
}

// dropDead takes a process from the dead, if it is one; t.mu is held.
func (t *tracker) dropDead(pid int) {
	if d, ok := t.dead[pid]; ok {
		t.deadBytes -= d.weight()
		delete(t.dead, pid)
	}
}

// tookForgotten returns how many told processes were forgotten while they live
// since it was last called.
func (t *tracker) tookForgotten() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.forgotten
	t.forgotten = 0
	return n
}

// fork notes a new process: until it executes something it is what its parent
// is. mono is when it was forked, in ns of the monotonic clock; ticks its start,
// 0 if that is not known.
func (t *tracker) fork(parent, child int, mono, ticks uint64, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.live[child]; p != nil && p.since > mono {
		return // read since: more is known of it
	}
	im, p := &image{}, &proc{ppid: parent}
	if pa := t.bearing(parent); pa != nil {
		*im = *pa.image
		p.parent, p.session, p.startedBy = pa.image, pa.session, pa.bears
	}
	im.pid, im.entity, im.ticks, im.started = child, "", ticks, at
	p.image = im
	t.set(p)
}

// bearing returns the living process of this id with what its children are
// started by, which is worked out for its first child. t.mu is held.
func (t *tracker) bearing(pid int) *proc {
	p := t.live[pid]
	if p == nil || p.hasBorne {
		return p
	}
	q := *p
	q.bears, q.hasBorne = startedBy(p), true
	t.live[pid] = &q
	return &q
}

// setUser notes that a process changed its account at mono, in ns of the
// monotonic clock.
func (t *tracker) setUser(pid int, realUser, effective uint32, mono uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.live[pid]; p != nil && mono >= p.execAt {
		im, q := *p.image, *p
		im.setOwner(noID, realUser, effective, p.image)
		q.image = &im
		t.live[pid] = &q
	}
}

// exit notes the end of a process and returns what was known of it, nil if nothing.
func (t *tracker) exit(pid int, at time.Time) *proc {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.live[pid]
	if p == nil {
		return nil
	}
	t.dropLive(pid)
	t.dropDead(pid)
	t.dead[pid] = death{p, at}
	t.deadBytes += p.weight()
	t.died = append(t.died, dying{pid, at})
	// A flood leaves thousands behind: they go when nobody may ask for them any more,
	// not when the next flood comes.
	for len(t.died) > maxDead || len(t.died) > 1 && t.deadBytes > maxDeadBytes || at.Sub(t.died[0].at) >= deadFor {
		first := t.died[0]
		if t.died = t.died[1:]; t.dead[first.pid].at.Equal(first.at) { // else the id has died again
			t.dropDead(first.pid)
		}
	}
	return p
}

// empty reports whether no process is known.
func (t *tracker) empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live) == 0
}

// keep forgets the living processes that are not in alive and returns them.
func (t *tracker) keep(alive map[int]bool) []*proc {
	t.mu.Lock()
	var gone []int
	for pid := range t.live {
		if !alive[pid] {
			gone = append(gone, pid)
		}
	}
	t.mu.Unlock()
	var procs []*proc
	now := time.Now()
	for _, pid := range gone {
		if p := t.exit(pid, now); p != nil {
			procs = append(procs, p)
		}
	}
	return procs
}

// entityID is the name of a process over its life: no other process of any boot
// of this machine gets it, and it is the same after a restart of the agent.
func entityID(boot string, pid int, ticks uint64) string {
	var room [96]byte
	b := append(append(room[:0], boot...), 0)
	b = append(strconv.AppendInt(b, int64(pid), 10), 0)
	h := sha256.Sum256(strconv.AppendUint(b, ticks, 10))
	return string(hex.AppendEncode(room[:0], h[:16]))
}

// named is the image with its entity id, which one that was only forked gets when
// somebody asks for it; nil if im is.
func (im *image) named(boot string) *image {
	if im == nil || im.entity != "" || im.ticks == 0 {
		return im
	}
	n := *im
	n.entity = entityID(boot, im.pid, im.ticks)
	return &n
}

// startedBy is what the children of p are started by: p itself if it is
// telling, else what started p.
func startedBy(p *proc) string {
	program := p.image.exe
	if program == "" {
		program = p.image.name
	}
	by := event.Starter(program)
	args := p.image.args
	switch {
	case by == event.ByShell && runsScript(args):
		// A browser opens a download through sh -c xdg-open: the shell is not who did it.
		by = ""
	case by == event.ByService && strings.HasSuffix(program, "systemd") && len(args) > 1 && args[1] == "--user":
		by = event.ByOther // a user's session, desktop programs included
	case by == event.ByService && strings.HasSuffix(strings.ToLower(program), "svchost.exe"):
		by = startedBySvchost(args)
	}
	switch {
	case by != "":
		return by
	case p.startedBy != "":
		return p.startedBy
	case p.ppid == 0:
		return event.ByOther // the first process of the machine or container
	}
	return ""
}

// startedBySvchost is what the children of a host of Windows' services are started
// by: it says which services it is for, `svchost.exe -k netsvcs -p -s Schedule`.
func startedBySvchost(args []string) string {
	for i := 1; i+1 < len(args); i++ {
		switch option, value := args[i], args[i+1]; {
		case option == "-s" && strings.EqualFold(value, "Schedule"):
			return event.ByScheduler
		case option == "-k" && strings.EqualFold(value, "DcomLaunch"):
			return event.ByOther // starts programs of the store for whoever is at the PC
		}
	}
	return event.ByService
}

// runsScript reports whether a shell was started for one command or script
// rather than for a person.
func runsScript(args []string) bool {
	for _, a := range args[min(1, len(args)):] {
		switch l := strings.ToLower(a); {
		case len(a) == 2 && a[0] == '/': // an option of cmd.exe
			if l == "/c" {
				return true
			}
		case a == "-" || strings.HasPrefix(a, "--"):
		case strings.HasPrefix(l, "-command"), strings.HasPrefix(l, "-file"), strings.HasPrefix(l, "-enc"):
			return true // PowerShell
		case a[:min(1, len(a))] == "-":
			if len(a) < 5 && strings.Contains(a, "c") { // -c, -lc
				return true
			}
		default:
			return true // a script
		}
	}
	return false
}

// splitArgs splits arguments with a NUL after each, within the bounds of an
// event, and joins them with blanks to a command line.
func splitArgs(raw string) (args []string, line string) {
	if runtime.GOOS == "windows" { // where raw is the line
		return splitCommandLine(raw), raw
	}
	line = commandLine(raw)
	if line == "" {
		return nil, ""
	}
	raw = raw[:len(line)]
	args = make([]string, 0, strings.Count(raw, "\x00")+1)
	for more := true; more; {
		var a string
		a, raw, more = strings.Cut(raw, "\x00")
		args = append(args, a)
	}
	return args, line
}

// commandLine joins arguments with a NUL after each by blanks, within the bounds
// of an event.
func commandLine(raw string) string {
	if runtime.GOOS == "windows" {
		return raw
	}
	raw = strings.TrimSuffix(raw, "\x00")
	if strings.Count(raw, "\x00") >= maxArgs {
		n := 0
		for i := range len(raw) {
			if raw[i] == 0 {
				if n++; n == maxArgs {
					raw = raw[:i]
					break
				}
			}
		}
	}
	return strings.ReplaceAll(raw, "\x00", " ")
}
