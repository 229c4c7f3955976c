package judge

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/correlate"
	"sekisho/internal/event"
	"sekisho/internal/rules"
	"sekisho/internal/spool"
)

// TestMain lets the test binary stand in for a PC's agent that is killed.
func TestMain(m *testing.M) {
	if os.Getenv("SEKISHO_TEST_ROLE") == "judge" {
		os.Exit(pc())
	}
	os.Exit(m.Run())
}

// streamRules count in each way there is, over short and long times.
const streamRules = `title: copy
name: copy
id: 10000000-0000-4000-8000-000000000001
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: file-copied}, condition: s}
---
title: mount
name: mount
id: 10000000-0000-4000-8000-000000000002
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: volume-mounted}, condition: s}
---
title: new stick
id: 10000000-0000-4000-8000-000000000003
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: usb-attached}, condition: s}
level: medium
sekisho: {rule: TST-1, group-by: [user.name], repeat-after: 1h}
---
title: first stick
id: 10000000-0000-4000-8000-000000000004
taxonomy: ecs
logsource: {product: sekisho}
detection: {s: {event.action: usb-attached}, condition: s}
level: low
sekisho: {rule: TST-2, first-seen: {keys: [device.serial_number], within: 1d}}
---
title: many
id: 10000000-0000-4000-8000-000000000005
correlation: {type: event_count, rules: [copy], group-by: [user.name], timespan: 2h, condition: {gte: 5}}
level: high
sekisho: {rule: TST-3, group-by: [user.name], repeat-after: 30m}
---
title: many in weeks
id: 10000000-0000-4000-8000-000000000006
correlation: {type: event_count, rules: [copy], group-by: [user.name], timespan: 30d, condition: {gte: 12}}
level: high
sekisho: {rule: TST-4, group-by: [user.name], repeat-after: 1d}
---
title: many places
id: 10000000-0000-4000-8000-000000000007
correlation: {type: value_count, rules: [copy], group-by: [user.name], timespan: 30d, condition: {field: file.path, gte: 9}}
level: high
sekisho: {rule: TST-5, group-by: [user.name], repeat-after: 1d}
---
title: mount, then copy
id: 10000000-0000-4000-8000-000000000008
correlation: {type: temporal_ordered, rules: [mount, copy], group-by: [user.name], timespan: 20m}
level: medium
sekisho: {rule: TST-6, group-by: [user.name], repeat-after: 1h}
`

// phases are how often the rules of the stream change, and once more.
const phases = 3

// rulesOf is the rules of a third of the stream. In the second some count the same
// with another threshold, some count otherwise, some are switched off, one is new;
// the third has those of the first.
func rulesOf(phase int) (*rules.Program, error) {
	text := streamRules
	if phase == 1 {
		text = strings.NewReplacer("condition: {gte: 5}", "condition: {gte: 7}", "timespan: 20m}", "timespan: 25m}").Replace(text) + `---
title: many mounts
id: 10000000-0000-4000-8000-000000000009
correlation: {type: event_count, rules: [mount], group-by: [user.name], timespan: 10d, condition: {gte: 3}}
level: low
sekisho: {rule: TST-7, group-by: [user.name], repeat-after: 1h}
`
	}
	f, err := rules.Parse("stream.yml", []byte(text))
	if err != nil {
		return nil, err
	}
	var o rules.Options
	if phase == 1 {
		o.Disable = []string{"TST-2", "TST-5"}
	}
	return rules.Compile([]*rules.File{f}, o)
}

func streamProgram(t testing.TB) *rules.Program {
	p, err := rulesOf(0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// streamLimits hold all keys: what is evicted is another test's business.
func streamLimits(keys, evidence int) correlate.Limits {
	return correlate.Limits{Keys: 8 * keys, Entries: 40 * keys, Events: 8 * keys * evidence, Evidence: evidence, Stored: 8 * keys, Combinations: 8 * keys}
}

// streamed is the nth event of a stream that everybody who asks sees alike: some
// matched by nothing, some late, a few too late.
func streamed(n int64, keys int) *event.Event {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	e := &event.Event{Time: start.Add(time.Duration(n) * 700 * time.Millisecond), ID: fmt.Sprintf("00000000-0000-7000-8000-%012d", n),
		Host: &event.Host{ID: "h1", Name: "pc1"}}
	switch k := r.IntN(100); {
	case k < 10:
		e.Time = e.Time.Add(-time.Duration(r.IntN(110)) * time.Second)
	case k < 11:
		e.Time = e.Time.Add(-time.Duration(2+r.IntN(60)) * time.Minute)
	}
	// Few do much, many little: windows of all sizes.
	key := int(float64(keys) * r.Float64() * r.Float64() * r.Float64())
	e.User = &event.User{Name: fmt.Sprint("u", key)}
	switch k := r.IntN(100); {
	case k < 60:
		e.Action = event.FileCopied
		e.File = &event.File{Path: fmt.Sprintf("/media/usb/%d", r.IntN(1000)), VolumeKind: event.VolumeRemovable}
	case k < 65:
		e.Action = event.VolumeMounted
	case k < 75:
		e.Action = event.USBAttached
		e.Device = &event.Device{VendorID: "0781", ProductID: "5567", SerialNumber: fmt.Sprint("s", r.IntN(keys)), Kinds: []string{event.KindStorage}}
	default:
		e.Action = event.ProcessStarted
		e.Process = &event.Process{Name: "x"}
	}
	return e
}

// pc judges a stream as an agent does, from where the kill before left it to the
// end, with the alerts in memory for a while before they are kept. The rules change
// twice on the way; a file says which were the last to come into force.
func pc() int {
	dir := os.Getenv("SEKISHO_TEST_DIR")
	var total int64
	var keys, evidence int
	var last int64 // the event that is judged when the kill comes
	if _, err := fmt.Sscan(os.Getenv("SEKISHO_TEST_STREAM"), &total, &keys, &evidence, &last); err != nil {
		fmt.Println(err)
		return 1
	}
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	kill := sync.OnceFunc(func() { time.AfterFunc(rand.N(5*time.Millisecond), func() { self.Kill() }) })
	changes, err := os.OpenFile(filepath.Join(dir, "phase"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600) // a byte for each
	if err != nil {
		fmt.Println(err)
		return 1
	}
	before, err := io.ReadAll(changes)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	phase := len(before)
	p, err := rulesOf(phase)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	began := time.Now()
	j, err := Open(filepath.Join(dir, "judge"), Options{Program: p, Limits: streamLimits(keys, evidence)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if r := j.Recovery(); r.Afresh != nil || r.Lost > 0 || j.Stats().Problem != "" {
		fmt.Println("afresh:", r.Afresh, r.Lost, j.Stats().Problem)
		return 1
	}
	out, err := spool.Open(filepath.Join(dir, "alerts"), spool.Options{MaxBytes: 16 << 30})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("from", j.Stats().Events, "phase", phase, "judged again", j.Recovery().Events, "alerts", len(j.Recovery().Alerts), "took", j.Recovery().Took.Round(time.Millisecond), "open", time.Since(began).Round(time.Millisecond))
	var held [][]byte
	kept, most := uint64(0), 0
	give := func(as []*alert.Alert) {
		for _, a := range as {
			most = max(most, len(a.Evidence))
			held = append(held, a.AppendJSON([]byte(a.ID))) // see finals
		}
	}
	// What is dropped for want of room depends on when checkpoints are made: asked
	// before anything outlives a kill.
	room := func() {
		if w := j.Stats().Windows; w.Evicted+w.Trimmed+w.Lost+w.Forgotten+w.Broken > 0 {
			fmt.Printf("there was no room: %+v\n", w)
			os.Exit(1)
		}
	}
	keep := func() {
		room()
		// No sync: a kill needs none, and a loss of power is another test's business.
		if err := out.Append(false, held...); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		kept += uint64(len(held))
		held = held[:0]
		j.Kept(kept)
	}
	for _, r := range j.Recovery().Alerts {
		held = append(held, append([]byte(r.ID), r.JSON...))
	}
	for n := j.Stats().Events; n < total; n++ {
		if n >= last {
			kill()
		}
		for phase+1 < phases && n >= int64(phase+1)*total/phases {
			room()
			if phase == 0 {
				<-j.Ahead()
			}
			p, err := rulesOf(phase + 1)
			if err == nil {
				j.Kept(kept)
				err = j.Swap(p)
			}
			if phase++; err == nil {
				_, err = changes.Write([]byte{'x'})
			}
			if err != nil {
				fmt.Println(err)
				return 1
			}
		}
		give(j.Event(streamed(n, keys)))
		if n%211 == 0 {
			give(j.Updates())
		}
		if n%173 == 0 && len(held) > 0 {
			keep()
		}
		if j.Due() || n%(total/8+1) == 0 {
			room()
			if err := j.StartCheckpoint(); err != nil {
				fmt.Println(err)
				return 1
			}
		}
	}
	give(j.Updates())
	keep()
	if err := errors.Join(j.Close(), out.Close()); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("done, alerts of up to", most, "events,", peak())
	return 0
}

// peak says how much memory the process took at most, where the system tells.
func peak() string {
	b, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(after, "\n")
	return "at most " + strings.TrimSpace(line)
}

// idBytes is the length of an alert's id, which precedes it in the child's spool:
// there are too many alerts to decode them for it.
const idBytes = 36

// final is the hash of the newest state of an alert, and where it is in the spool.
type final struct {
	sum [sha256.Size]byte
	n   uint64
}

// finals is the newest state of each alert in a spool, by id.
func finals(t *testing.T, s *spool.Spool) map[string]final {
	t.Helper()
	got := map[string]final{}
	err := s.Each(0, func(n uint64, rec []byte) error {
		got[string(rec[:idBytes])] = final{sha256.Sum256(rec), n}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// told is a record of a spool; "nothing" where it has none of it.
func told(t *testing.T, s *spool.Spool, f final, any bool) string {
	t.Helper()
	found := "nothing"
	err := s.Each(f.n, func(n uint64, rec []byte) error {
		if any && n == f.n {
			found = string(rec)
			return io.EOF
		}
		return nil
	})
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return found
}

// number is an environment variable's, or another.
func number(t *testing.T, name string, otherwise int) int {
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%q: want a number", name, v)
	}
	return n
}

// The set of alerts, each in its final form, is that of a run that nobody
// killed, though the rules change on the way. `make test-faults` does it with 100,000 keys and 1,000,000 events; there
// windows hold less evidence than by default, which is most of what is written.
func TestAKillAtAnyMomentChangesNoAlert(t *testing.T) {
	keys, total, kills := number(t, "SEKISHO_FAULTS_KEYS", 2000), number(t, "SEKISHO_FAULTS_EVENTS", 6000), number(t, "SEKISHO_FAULTS_KILLS", 8)
	evidence := number(t, "SEKISHO_FAULTS_EVIDENCE", correlate.DefaultLimits.Evidence)
	// run has a child judge that is killed at an event, however fast the machine
	// is, or after some time if that comes first. It returns how far the child had
	// come when it began, and when that was.
	run := func(dir string, at int, after time.Duration) (from int, opened time.Duration, done bool) {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "SEKISHO_TEST_ROLE=judge", "SEKISHO_TEST_DIR="+dir, fmt.Sprintf("SEKISHO_TEST_STREAM=%d %d %d %d", total, keys, evidence, at))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		defer time.AfterFunc(after, func() { c.Process.Kill() }).Stop()
		var said []string
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if said = append(said, sc.Text()); len(said) == 1 {
				_, _ = fmt.Sscanf(said[0], "from %d", &from) // or it says what it should not
				opened = time.Since(began)
			}
		}
		c.Wait()
		t.Log(strings.Join(said, "; "))
		if len(said) > 1 && !strings.HasPrefix(said[1], "done") || len(said) == 1 && !strings.HasPrefix(said[0], "from ") {
			t.Fatal("the child says what it should not")
		}
		return from, opened, len(said) > 1
	}
	const never = time.Hour // more than go test gives all of it
	uncut, cut := t.TempDir(), t.TempDir()
	began := time.Now()
	_, opened, done := run(uncut, total, never)
	if !done {
		t.Fatal("the uncut run did not end")
	}
	whole := time.Since(began)
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	killed, at := 0, 0
	for done = false; !done; {
		after := never
		if killed%4 == 3 { // every fourth may fall into the start
			after = time.Duration(rnd.Float64() * float64(opened))
		}
		if killed < kills {
			// Shares of what is left, so that the kills are spread over all of it.
			at += int(2 * rnd.Float64() / float64(kills-killed+1) * float64(total-at))
		} else {
			at, after = total, never
		}
		var from int
		var took time.Duration
		if from, took, done = run(cut, at, after); took > 0 {
			opened, at = took, max(at, from)
		}
		if !done {
			killed++
		}
	}
	open := func(dir string) *spool.Spool {
		s, err := spool.Open(filepath.Join(dir, "alerts"), spool.Options{MaxBytes: 16 << 30})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	a, b := open(uncut), open(cut)
	want, got := finals(t, a), finals(t, b)
	wrong := 0
	for id, w := range want {
		if g, there := got[id]; g.sum != w.sum {
			if wrong++; wrong <= 3 {
				t.Errorf("alert %s:\n got %s\nwant %s", id, told(t, b, g, there), told(t, a, w, true))
			}
		}
	}
	for id, g := range got {
		if _, there := want[id]; !there {
			if wrong++; wrong <= 6 {
				t.Errorf("an alert too many: %s", told(t, b, g, true))
			}
		}
	}
	if len(want) == 0 || wrong > 0 {
		t.Errorf("%d alerts of %d are wrong", wrong, len(want))
	}
	if killed < kills/2 {
		t.Errorf("killed %d times only", killed)
	}
	t.Logf("%d events of %d keys, up to %d events of evidence a window, %d kills: %d alerts, %d of them not the same; the uncut run took %v",
		total, keys, evidence, killed, len(want), wrong, whole.Round(time.Millisecond))
}
