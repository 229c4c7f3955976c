package agent

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sekisho/internal/alert"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
	"sekisho/internal/spool"

	"go.uber.org/zap/zaptest"
)

// TestMain lets the test binary stand in for other processes: an agent that
// crashes or is killed, another user's command.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == CanaryCommand {
		if PlayCanary(os.Args[2:], os.Stdin) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if role := os.Getenv("SEKISHO_TEST_ROLE"); role != "" {
		os.Exit(play(role, os.Getenv("SEKISHO_TEST_DIR")))
	}
	os.Exit(m.Run())
}

// roles are those that one system has, besides play's own.
var roles = map[string]func(dir string) int{}

// play is what the test binary does in another process.
func play(role, dir string) int {
	if role := roles[role]; role != nil {
		return role(dir)
	}
	if role == "status" {
		_, err := Dial(dir).Status(context.Background())
		fmt.Println(err)
		return 0
	}
	src := &scripted{}
	a, err := New(Options{ConfigFile: filepath.Join(dir, "agent.yaml"), Version: "test", Sources: []Source{src}})
	if err != nil {
		fmt.Println("new:", err)
		return 1
	}
	go func() {
		for {
			if _, err := Dial(a.stateDir).Status(context.Background()); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Println("running")
		if role == "crash" {
			bufio.NewReader(os.Stdin).ReadString('\n')
			go panic("boom")
		}
	}()
	fmt.Println("ended:", a.Run(context.Background()))
	return 1
}

// scripted is a source that a test speaks through. Its script, if any, runs in
// Run.
type scripted struct {
	out    chan<- *event.Event
	ready  chan struct{} // closed once Run runs
	once   sync.Once
	script func(ctx context.Context, out chan<- *event.Event) error
}

func newScripted() *scripted { return &scripted{ready: make(chan struct{})} }

func (s *scripted) Name() string { return "scripted" }
func (s *scripted) Status() endpoint.Sensor {
	return endpoint.Sensor{Name: "scripted", State: endpoint.SensorOK}
}

func (s *scripted) Run(ctx context.Context, out chan<- *event.Event) error {
	if s.script != nil {
		return s.script(ctx, out)
	}
	s.out = out
	if s.ready != nil {
		s.once.Do(func() { close(s.ready) })
	}
	<-ctx.Done()
	return nil
}

// stick is a storage device that is in no ledger: rule USB-1 alerts for each
// serial number.
func stick(serial string) *event.Event {
	e := event.New(event.USBAttached, time.Now())
	e.Sensor = "scripted"
	e.Device = &event.Device{VendorID: "0781", ProductID: "5567", VendorName: "SanDisk", ProductName: "Cruzer", SerialNumber: serial, Kinds: []string{event.KindStorage}}
	return e
}

// tee keeps the lines that the agent tees.
type tee struct {
	off atomic.Bool // keep no more

	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (t *tee) Write(p []byte) (int, error) {
	if t.off.Load() {
		return len(p), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *tee) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Split(strings.TrimSpace(t.b.String()), "\n")
}

// running is an agent under test.
type running struct {
	*Agent
	t    testing.TB
	dir  string // settings, state below it
	tee  *tee
	ctl  *Control
	stop func() error // stops it, once, and answers what Run did
}

// shortDir is a temporary folder whose path leaves room for a socket's.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	// As editors do it: whoever looks sees the old file or the new one.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// start runs an agent on dir with settings (state_dir is added) and sources;
// without sources it has this PC's sensors.
func start(t testing.TB, dir, settings string, sources ...Source) *running {
	t.Helper()
	file := filepath.Join(dir, "agent.yaml")
	write(t, file, "state_dir: "+filepath.Join(dir, "state")+"\n"+settings)
	r := &running{t: t, dir: dir, tee: &tee{}}
	o := Options{ConfigFile: file, Version: "test", Log: zaptest.NewLogger(t), Tee: r.tee, Sources: sources}
	if len(sources) == 0 {
		o.Sources = nil
	}
	var err error
	if r.Agent, err = New(o); err != nil {
		t.Fatal(err)
	}
	r.ctl = Dial(r.stateDir)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			leaked(t)
			return err
		case <-time.After(3 * time.Minute):
			return errors.New("the agent does not stop")
		}
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	r.until("the agent answers", func() bool { _, err := r.ctl.Status(t.Context()); return err == nil })
	for _, s := range sources {
		if s, ok := s.(*scripted); ok && s.ready != nil && s.script == nil {
			<-s.ready
		}
	}
	return r
}

// patience is how long a test waits for what has to come true: on a busy machine a
// second may take a minute, and only a test that fails waits so long.
const patience = 3 * time.Minute

// until waits for something that has to come true.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	if !r.within(patience, ok) {
		r.t.Fatalf("waited in vain until %s", what)
	}
}

// within waits for something for a while, and reports whether it came true.
func (r *running) within(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return false
}

// saw reports whether a teed line holds all the texts.
func (r *running) saw(texts ...string) bool {
lines:
	for _, l := range r.tee.lines() {
		for _, x := range texts {
			if !strings.Contains(l, x) {
				continue lines
			}
		}
		return true
	}
	return false
}

// leaked fails the test if a goroutine of ours outlives the agent.
func leaked(t testing.TB) {
	var left string
	for range 3000 {
		left = ""
		buf := make([]byte, 1<<20)
		for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "created by sekisho/internal/") && !strings.Contains(g, "_test.go") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines left after the stop:\n%s", left)
}

// spooled reads what a stopped agent left in a spool.
func spooled(t testing.TB, stateDir, name string) [][]byte {
	t.Helper()
	s, err := spool.Open(filepath.Join(stateDir, "spool", name), spool.Options{MaxBytes: 256 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var all [][]byte
	for {
		b, err := s.Lease(1000, 64<<20)
		if errors.Is(err, spool.ErrEmpty) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records() {
			all = append(all, bytes.Clone(r))
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// serials are the serial numbers of the sticks that alerts tell of, with how
// often. Updates of an alert count once.
func serials(t testing.TB, records [][]byte) map[string]int {
	t.Helper()
	got, seen := map[string]int{}, map[string]bool{}
	for _, r := range records {
		a, err := alert.Decode(r)
		if err != nil {
			t.Fatalf("alert in the spool: %v\n%s", err, r)
		}
		if !seen[a.ID] && a.Event != nil && a.Event.Device != nil {
			got[a.Event.Device.SerialNumber]++
		}
		seen[a.ID] = true
	}
	return got
}
